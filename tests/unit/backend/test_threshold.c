/* SPDX-License-Identifier: MIT */
/* Write thresholds: told once, by what changes the node, from whatever context; and gone then. */
#include "fake.h"

#include <stdio.h>

#include <platter/event.h>

#define KIB 1024
#define THREADS 4

struct seen {
    _Atomic int count;
    uint64_t exceeded, threshold;
    char node[32];
};

static void on_event(void *opaque, const struct platter_event *event)
{
    struct seen *seen = opaque;

    if (event->type == PLATTER_EVENT_BLOCK_WRITE_THRESHOLD &&
        atomic_fetch_add(&seen->count, 1) == 0) {
        seen->exceeded = event->u.write_threshold.amount_exceeded_bytes;
        seen->threshold = event->u.write_threshold.write_threshold_bytes;
        snprintf(seen->node, sizeof(seen->node), "%s", event->u.write_threshold.node_name);
    }
}

struct disk {
    struct env *env;
    BlockBackend *blk;
    BlockDriverState *bs;
    struct seen seen;
};

static void disk_begin(struct disk *d, struct env *env)
{
    *d = (struct disk){.env = env};
    env->pl->event_cb = on_event; /* before anybody raises */
    env->pl->event_opaque = &d->seen;
    d->blk = fake_blk(env->pl, "hd0");
    d->bs = blk_bs(d->blk);
}

static void disk_end(struct disk *d)
{
    blk_unref(d->blk);
    env_poll(d->env);
}

static void set(struct disk *d, uint64_t bytes)
{
    assert_int_equal(bdrv_set_write_threshold(d->bs, bytes, NULL), 0);
    assert_int_equal(bdrv_get_write_threshold(d->bs), bytes);
    d->seen = (struct seen){0};
}

static void expect_told(struct disk *d, uint64_t exceeded, uint64_t threshold)
{
    assert_int_equal(atomic_load(&d->seen.count), 1);
    assert_int_equal(d->seen.exceeded, exceeded);
    assert_int_equal(d->seen.threshold, threshold);
    assert_string_equal(d->seen.node, bdrv_get_node_name(d->bs));
    assert_int_equal(bdrv_get_write_threshold(d->bs), 0);
    env_poll(d->env);
    assert_null(d->bs->bitmaps); /* it costs nothing any more */
}

static void what_is_told(void **state)
{
    static uint8_t buf[8 * KIB];
    struct disk d;

    disk_begin(&d, *state);
    assert_int_equal(bdrv_get_write_threshold(d.bs), 0);
    set(&d, 4 * KIB);
    assert_int_equal(blk_pwrite(d.blk, 0, buf, 4 * KIB), 4 * KIB);
    assert_int_equal(blk_pread(d.blk, 64 * KIB, buf, 4 * KIB), 4 * KIB);
    assert_int_equal(atomic_load(&d.seen.count), 0);
    assert_int_equal(blk_pwrite(d.blk, 0, buf, 4 * KIB + 512), 4 * KIB + 512);
    expect_told(&d, 512, 4 * KIB);
    assert_int_equal(blk_pwrite(d.blk, 64 * KIB, buf, 512), 512);
    assert_int_equal(atomic_load(&d.seen.count), 1); /* once */
    set(&d, 4 * KIB);
    assert_int_equal(blk_pwrite_zeroes(d.blk, 8 * KIB, 4 * KIB, 0), 0);
    expect_told(&d, 8 * KIB, 4 * KIB);
    set(&d, 4 * KIB);
    assert_int_equal(blk_pwrite(d.blk, 8 * KIB + 3, buf, 100), 100); /* the way with care */
    expect_told(&d, 4 * KIB + 103, 4 * KIB);
    set(&d, 4 * KIB);
    set(&d, UINT64_MAX);
    assert_int_equal(blk_pwrite(d.blk, 64 * KIB, buf, 512), 512);
    assert_int_equal(atomic_load(&d.seen.count), 0);
    set(&d, 0);
    assert_null(d.bs->bitmaps);
    assert_int_equal(blk_pwrite(d.blk, 64 * KIB, buf, 512), 512);
    assert_int_equal(atomic_load(&d.seen.count), 0);
    disk_end(&d);
}

/* Also a write that fails, and beside a bitmap, which stays. */
static void beside_others(void **state)
{
    static uint8_t buf[KIB];
    struct disk d;
    BdrvDirtyBitmap *bitmap;

    disk_begin(&d, *state);
    bitmap = bdrv_bitmap_create(d.bs, "b", 0, 0, NULL);
    assert_non_null(bitmap);
    set(&d, KIB);
    fake_of(d.bs)->fail = -ENOSPC;
    assert_int_equal(blk_pwrite(d.blk, KIB, buf, sizeof(buf)), -ENOSPC);
    assert_int_equal(atomic_load(&d.seen.count), 1);
    fake_of(d.bs)->fail = 0;
    env_poll(d.env);
    assert_non_null(bdrv_bitmap_find(d.bs, "b"));
    set(&d, KIB);
    assert_int_equal(bdrv_bitmap_remove(bitmap, NULL), 0);
    assert_int_equal(blk_pwrite(d.blk, KIB, buf, sizeof(buf)), sizeof(buf));
    expect_told(&d, KIB, KIB);
    disk_end(&d);
}

/* ---- several contexts ---- */

struct writer {
    struct disk *d;
    IOThread *thread;
    uint8_t buf[512];
    struct iovec iov;
    struct iov_view view;
    int64_t offset; /* its own: the disk does not order what overlaps */
    int left;
    _Atomic bool done;
};

static void writer_next(struct writer *w);

static void writer_done(void *opaque, int ret)
{
    struct writer *w = opaque;

    if (ret != 0) {
        abort();
    }
    if (--w->left > 0) {
        writer_next(w);
    } else {
        atomic_store(&w->done, true);
        aio_notify(w->d->env->ctx);
    }
}

static void writer_next(struct writer *w)
{
    if (blk_aio_pwritev(w->d->blk, w->offset, &w->view, 0, writer_done, w) == NULL) {
        abort();
    }
}

static void writer_start(void *opaque)
{
    writer_next(opaque);
}

/* While it is set again and again, each setting is told once at the most. */
static void from_four_contexts(void **state)
{
    static struct writer writers[THREADS];
    struct disk d;
    int set_times = 1, told;

    disk_begin(&d, *state);
    fake_of(d.bs)->turn = true;
    set(&d, KIB);
    for (int i = 0; i < THREADS; i++) {
        struct writer *w = &writers[i];

        *w = (struct writer){.d = &d, .left = 2000, .thread = iothread_new("w", NULL, NULL)};
        w->iov = (struct iovec){w->buf, sizeof(w->buf)};
        w->view = iov_view_of(&w->iov, 1);
        w->offset = 64 * KIB + i * 512;
        assert_int_equal(
            aio_bh_schedule_oneshot(iothread_get_aio_context(w->thread), writer_start, w), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        while (!atomic_load(&writers[i].done)) {
            assert_int_equal(bdrv_set_write_threshold(d.bs, KIB, NULL), 0);
            set_times++;
            aio_poll(d.env->ctx, false);
        }
        iothread_free(writers[i].thread);
    }
    told = atomic_load(&d.seen.count);
    assert_in_range(told, 1, set_times);
    bdrv_set_write_threshold(d.bs, 0, NULL);
    disk_end(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_told, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(beside_others, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(from_four_contexts, env_setup, env_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
