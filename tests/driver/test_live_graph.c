/* SPDX-License-Identifier: MIT */
/*
 * The graph changes under four contexts that write, read back and compare as fast as they can:
 * filters come and go above and below an image, overlays are put on top. No byte is lost, no
 * request fails. PLATTER_SEED chooses the order, PLATTER_ROUNDS the length.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <platter/aio.h>
#include <platter/backend.h>
#include <platter/graph.h>
#include <platter/throttle.h>

#include "fixture.h"

#define THREADS 4
#define DEPTH 4
#define BLOCK 4096
#define DISK_BYTES (THREADS * DEPTH * 16 * BLOCK)
#define OVERLAYS_MAX 6
#define FILTERS_MAX 4

static uint64_t env_u64(const char *name, uint64_t otherwise)
{
    const char *value = getenv(name);

    return value != NULL ? strtoull(value, NULL, 0) : otherwise;
}

static uint64_t rng_next(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return *rng;
}

/* ---- those who write and read back ---- */

struct request {
    struct worker *w;
    int64_t first; /* blocks of its own: nobody else writes there */
    uint8_t value[16];
    int at; /* the block in use */
    bool reading;
    uint8_t buf[BLOCK];
    struct iovec iov;
    struct iov_view view;
};

struct worker {
    BlockBackend *blk;
    AioContext *main_ctx;
    IOThread *thread;
    uint64_t rng;
    _Atomic bool stop;
    _Atomic int idle;
    uint64_t done, failed, wrong;
    struct request reqs[DEPTH];
};

static void request_next(struct request *r);

static void request_done(void *opaque, int ret)
{
    struct request *r = opaque;
    struct worker *w = r->w;

    w->done++;
    w->failed += ret != 0;
    if (r->reading) {
        for (size_t i = 0; i < BLOCK; i++) {
            w->wrong += r->buf[i] != r->value[r->at];
        }
    }
    if (atomic_load(&w->stop)) {
        atomic_fetch_add(&w->idle, 1);
        aio_notify(w->main_ctx);
    } else {
        request_next(r);
    }
}

static void request_next(struct request *r)
{
    struct worker *w = r->w;
    uint64_t n = rng_next(&w->rng);
    BlockAIOCB *acb;
    int64_t offset;

    r->at = (int)(n / 4 % 16);
    r->reading = n % 4 != 0;
    offset = (r->first + r->at) * BLOCK;
    r->iov = (struct iovec){r->buf, sizeof(r->buf)};
    r->view = (struct iov_view){.iov = &r->iov, .niov = 1, .bytes = BLOCK};
    if (r->reading) {
        memset(r->buf, 0xee, sizeof(r->buf));
        acb = blk_aio_preadv(w->blk, offset, &r->view, 0, request_done, r);
    } else {
        r->value[r->at] = (uint8_t)(n >> 32);
        memset(r->buf, r->value[r->at], sizeof(r->buf));
        acb = blk_aio_pwritev(w->blk, offset, &r->view, 0, request_done, r);
    }
    if (acb == NULL) {
        abort();
    }
}

static void worker_start(void *opaque)
{
    struct worker *w = opaque;

    for (int i = 0; i < DEPTH; i++) {
        request_next(&w->reqs[i]);
    }
}

static void workers_begin(struct worker *workers, BlockBackend *blk, uint64_t *rng)
{
    for (int i = 0; i < THREADS; i++) {
        struct worker *w = &workers[i];

        *w = (struct worker){.blk = blk, .rng = rng_next(rng) | 1};
        w->main_ctx = platter_get_main_context(blk_get_platter(blk));
        for (int j = 0; j < DEPTH; j++) {
            w->reqs[j].w = w;
            w->reqs[j].first = (i * DEPTH + j) * 16;
        }
        w->thread = iothread_new("live", NULL, NULL);
        assert_non_null(w->thread);
        assert_int_equal(
            aio_bh_schedule_oneshot(iothread_get_aio_context(w->thread), worker_start, w), 0);
    }
}

static void workers_end(struct worker *workers)
{
    uint64_t done = 0;

    for (int i = 0; i < THREADS; i++) {
        struct worker *w = &workers[i];

        atomic_store(&w->stop, true);
        while (atomic_load(&w->idle) < DEPTH) {
            aio_poll(w->main_ctx, true);
        }
        iothread_free(w->thread);
        assert_int_equal(w->failed, 0);
        assert_int_equal(w->wrong, 0);
        done += w->done;
    }
    print_message("%llu requests\n", (unsigned long long)done);
}

/* ---- the graph ---- */

struct live {
    Platter *pl;
    BlockBackend *blk;
    uint64_t rng;
    int overlays;
    int names;
    BlockDriverState *filters[FILTERS_MAX]; /* references of ours */
};

static void must(int rc, Error *err)
{
    if (rc != 0) {
        fail_msg("%s", error_get_pretty(err));
    }
}

static BlockDriverState *open_image(struct live *live, const char *name)
{
    Error *err = NULL;
    BlockDriverState *bs;
    char path[100];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    must(bdrv_create(live->pl, path,
                     block_options_parse(text("driver=qcow2,size=%d", DISK_BYTES), NULL, NULL),
                     &err),
         err);
    bs = bdrv_open(live->pl, NULL, NULL,
                   block_options_parse(text("driver=qcow2,node-name=%s,file.driver=file,"
                                            "file.node-name=%s-file,file.filename=%s",
                                            name, name, path),
                                       NULL, NULL),
                   BDRV_O_RDWR, &err);
    must(bs == NULL ? -1 : 0, err);
    return bs;
}

static void append_one(struct live *live)
{
    char name[32];
    BlockDriverState *overlay;
    Error *err = NULL;

    if (live->overlays == OVERLAYS_MAX) {
        return;
    }
    snprintf(name, sizeof(name), "overlay%d", live->overlays++);
    overlay = open_image(live, name);
    must(bdrv_append(overlay, blk_bs(live->blk), &err), err);
    assert_ptr_equal(blk_bs(live->blk), overlay);
    bdrv_unref(overlay); /* its user holds it */
}

/* The uppermost image, below the filters that stand on it. */
static BlockDriverState *top_image(struct live *live)
{
    BlockDriverState *bs = blk_bs(live->blk);

    while (strcmp(bdrv_get_format_name(bs), "qcow2") != 0) {
        bs = bdrv_get_child(bs, "file");
    }
    return bs;
}

static int free_slot(const struct live *live)
{
    int i = 0;

    while (i < FILTERS_MAX && live->filters[i] != NULL) {
        i++;
    }
    return i;
}

static void insert_one(struct live *live, bool below)
{
    BlockDriverState *image = top_image(live);
    BlockDriverState *bs = below ? bdrv_get_child(image, "file") : blk_bs(live->blk);
    struct bdrv_link link = {below ? bdrv_get_node_name(image) : blk_name(live->blk), NULL};
    const char *driver = rng_next(&live->rng) % 2 == 0 ? "driver=throttle,throttle-group=free"
                                                       : "driver=copy-on-read";
    int slot = free_slot(live);
    Error *err = NULL;

    if (slot < FILTERS_MAX) {
        live->filters[slot] = bdrv_insert_filter(
            bs,
            block_options_parse(text("%s,node-name=filter%d",
                                     below ? "driver=throttle,throttle-group=free" : driver,
                                     live->names++),
                                NULL, NULL),
            rng_next(&live->rng) % 2 == 0 ? &link : NULL, 1, &err);
        must(live->filters[slot] == NULL ? -1 : 0, err);
    }
}

static void remove_one(struct live *live)
{
    int slot = (int)(rng_next(&live->rng) % FILTERS_MAX);
    Error *err = NULL;

    if (live->filters[slot] != NULL) {
        must(bdrv_remove_filter(live->filters[slot], &err), err);
        bdrv_unref(live->filters[slot]);
        live->filters[slot] = NULL;
    }
}

/* Caches, lazy refcounts and discard of the uppermost image; its children stay. */
static void reopen_one(struct live *live)
{
    static const char *const more[] = {
        "'lazy-refcounts':true",
        "'l2-cache-entry-size':65536,'discard':'unmap','detect-zeroes':'unmap'",
        "'l2-cache-entry-size':512,'l2-cache-size':1024",
        "'overlap-check':'all'",
    };
    BlockDriverState *image = top_image(live);
    BlockDriverState *backing = bdrv_get_child(image, "backing");
    char name[64] = "null";
    struct bdrv_reopen node = {.bs = image};
    Error *err = NULL;

    if (backing != NULL) {
        snprintf(name, sizeof(name), "'%s'", bdrv_get_node_name(backing));
    }
    node.options = block_options_parse_json(text("{'driver':'qcow2','file':'%s','backing':%s,%s}",
                                                 bdrv_get_node_name(bdrv_get_child(image, "file")),
                                                 name, more[rng_next(&live->rng) % 4]),
                                            NULL);
    must(bdrv_reopen_with_options(live->pl, &node, 1, &err), err);
}

static void refused_one(struct live *live)
{
    struct bdrv_link link = {"nobody", NULL};
    BlockDriverState *bs = blk_bs(live->blk);
    Error *err = NULL;

    assert_null(bdrv_insert_filter(bs, block_options_parse("driver=copy-on-read", NULL, NULL),
                                   &link, 1, &err));
    assert_int_equal(error_get_errno(err), ENOENT);
    error_free(err);
    assert_ptr_equal(blk_bs(live->blk), bs);
}

static void step(struct live *live)
{
    switch (rng_next(&live->rng) % 7) {
    case 0:
        append_one(live);
        break;
    case 1:
        insert_one(live, false);
        break;
    case 2:
        insert_one(live, true);
        break;
    case 3:
        refused_one(live);
        break;
    case 4:
        reopen_one(live);
        break;
    default:
        remove_one(live);
        break;
    }
    while (aio_poll(platter_get_main_context(live->pl), false)) {
    }
}

static void live_begin(struct live *live, uint64_t seed)
{
    BlockDriverState *base;
    Error *err = NULL;

    *live = (struct live){.pl = new_platter(), .rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1};
    base = open_image(live, "base");
    live->blk = blk_new(live->pl, "disk", &err);
    must(live->blk == NULL ? -1 : 0, err);
    must(blk_insert_bs(live->blk, base, &err), err);
    bdrv_unref(base);
}

static void edits_under_load(void **state)
{
    static struct worker workers[THREADS];
    uint64_t seed = env_u64("PLATTER_SEED", 1);
    uint64_t rounds = env_u64("PLATTER_ROUNDS", 120);
    struct live live;
    ThrottleGroup *group;

    print_message("PLATTER_SEED=%llu PLATTER_ROUNDS=%llu\n", (unsigned long long)seed,
                  (unsigned long long)rounds);
    live_begin(&live, seed);
    group = throttle_group_get(live.pl, "free", NULL);
    assert_int_equal(blk_pwrite_zeroes(live.blk, 0, DISK_BYTES, 0), 0);
    workers_begin(workers, live.blk, &live.rng);
    for (uint64_t i = 0; i < rounds; i++) {
        step(&live);
    }
    workers_end(workers);
    for (int i = 0; i < FILTERS_MAX; i++) {
        bdrv_unref(live.filters[i]);
    }
    blk_unref(live.blk);
    assert_null(bdrv_next_node(live.pl, NULL));
    throttle_group_unref(group);
    platter_free(live.pl);
}

static int setup(void **state)
{
    return folder_begin("/tmp/platter-live-XXXXXX");
}

static int teardown(void **state)
{
    return folder_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits_under_load),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
