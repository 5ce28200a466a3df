/* SPDX-License-Identifier: MIT */
/*
 * Four contexts in four threads submit as fast as they can while the control thread drains, changes
 * the medium and the settings. No request is lost or answered twice, none runs while drained, and
 * each completes in its submitter's context. PLATTER_SEED chooses the order; the length of the run
 * is PLATTER_ROUNDS.
 */
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>

#define THREADS 4
#define DEPTH 8

static uint64_t env_u64(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

static uint64_t rng_next(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return *rng;
}

struct worker {
    BlockBackend *blk;
    IOThread *thread;
    AioContext *ctx;
    uint64_t rng;
    int64_t first_sector; /* each has sectors of its own: the disk does not order what overlaps */
    uint64_t n_sectors;
    _Atomic bool stop;
    _Atomic int idle; /* requests that have ended for good */
    uint64_t submitted, completed, failed, canceled, wrong_context;
    struct request {
        struct worker *w;
        BlockAIOCB *acb;
        bool in_flight;
        uint8_t buf[512];
        struct iovec iov;
        struct iov_view view;
    } reqs[DEPTH];
};

static void request_done(void *opaque, int ret);

static void request_submit(struct request *r)
{
    struct worker *w = r->w;
    uint64_t n = rng_next(&w->rng);
    int64_t offset =
        n % 16 == 0 ? FAKE_BYTES : (w->first_sector + (int64_t)(n / 16 % w->n_sectors)) * 512;

    r->iov = (struct iovec){r->buf, sizeof(r->buf)};
    r->view = iov_view_of(&r->iov, 1);
    r->in_flight = true;
    w->submitted++;
    if (n % 3 == 0) {
        r->acb = blk_aio_pwritev(w->blk, offset, &r->view, 0, request_done, r);
    } else if (n % 31 == 1) {
        r->acb = blk_aio_flush(w->blk, request_done, r);
    } else {
        r->acb = blk_aio_preadv(w->blk, offset, &r->view, 0, request_done, r);
    }
    if (r->acb == NULL) {
        abort();
    }
    if (n % 64 == 5) {
        blk_aio_cancel_async(r->acb);
    }
}

static void request_done(void *opaque, int ret)
{
    struct request *r = opaque;
    struct worker *w = r->w;

    if (!r->in_flight) {
        abort(); /* answered twice */
    }
    r->in_flight = false;
    w->completed++;
    w->failed += ret == -EIO || ret == -ENOMEDIUM;
    w->canceled += ret == -ECANCELED;
    if (ret != 0 && ret != -EIO && ret != -ENOMEDIUM && ret != -ECANCELED) {
        abort();
    }
    w->wrong_context += aio_context_current() != w->ctx;
    if (atomic_load(&w->stop)) {
        atomic_fetch_add(&w->idle, 1);
        aio_notify(blk_get_platter(w->blk)->main_ctx);
    } else {
        request_submit(r);
    }
}

static void worker_start(void *opaque)
{
    struct worker *w = opaque;

    for (int i = 0; i < DEPTH; i++) {
        w->reqs[i].w = w;
        request_submit(&w->reqs[i]);
    }
}

static void drained_look(struct fake *fake, uint64_t *rng)
{
    atomic_store(&fake->frozen, true);
    assert_int_equal(atomic_load(&fake->running), 0);
    for (uint64_t i = rng_next(rng) % 2000; i > 0; i--) {
        assert_int_equal(atomic_load(&fake->running), 0);
    }
    atomic_store(&fake->frozen, false);
}

static void step(struct env *env, BlockBackend *blk, BlockDriverState *a, BlockDriverState *b,
                 uint64_t *rng)
{
    BlockDriverState *bs = blk_bs(blk);
    Platter *pl = env->pl;

    switch (rng_next(rng) % 8) {
    case 0:
        blk_drain(blk);
        break;
    case 1:
        bdrv_drain_all_begin(pl);
        drained_look(fake_of(bs), rng);
        bdrv_drain_all_end(pl);
        break;
    case 2:
        blk_remove_bs(blk);
        assert_int_equal(atomic_load(&fake_of(bs)->running), 0);
        assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
        break;
    case 3:
        assert_int_equal(blk_set_bs(blk, bs == a ? b : a, NULL), 0);
        assert_int_equal(atomic_load(&fake_of(bs)->running), 0);
        break;
    case 4:
        blk_set_enable_write_cache(blk, rng_next(rng) & 1);
        break;
    case 5:
        blk_set_dev_ops(blk, NULL, (void *)(uintptr_t)rng_next(rng));
        break;
    default:
        bdrv_drained_begin(bs);
        drained_look(fake_of(bs), rng);
        bdrv_drained_end(bs);
        break;
    }
    while (aio_poll(env->ctx, false)) {
    }
}

static void test_drain_stress(void **state)
{
    struct env *env = *state;
    uint64_t seed = env_u64("PLATTER_SEED", 1);
    uint64_t rounds = env_u64("PLATTER_ROUNDS", 500);
    uint64_t rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    BlockDriverState *a = blk_bs(blk);
    BlockDriverState *b = fake_open(env->pl, "fake", NULL, BDRV_O_RDWR);
    static struct worker workers[THREADS];
    uint64_t completed = 0;

    print_message("PLATTER_SEED=%llu PLATTER_ROUNDS=%llu\n", (unsigned long long)seed,
                  (unsigned long long)rounds);
    bdrv_ref(a);
    fake_of(a)->turn = true;
    fake_of(b)->turn = true;
    for (int i = 0; i < THREADS; i++) {
        struct worker *w = &workers[i];

        w->blk = blk;
        w->rng = rng_next(&rng) | 1;
        w->n_sectors = FAKE_SECTORS / THREADS;
        w->first_sector = (int64_t)w->n_sectors * i;
        w->thread = iothread_new("stress", NULL, NULL);
        assert_non_null(w->thread);
        w->ctx = iothread_get_aio_context(w->thread);
        assert_int_equal(aio_bh_schedule_oneshot(w->ctx, worker_start, w), 0);
    }
    for (uint64_t i = 0; i < rounds; i++) {
        step(env, blk, a, b, &rng);
    }
    for (int i = 0; i < THREADS; i++) {
        struct worker *w = &workers[i];

        atomic_store(&w->stop, true);
        while (atomic_load(&w->idle) < DEPTH) {
            aio_poll(env->ctx, true);
        }
        iothread_free(w->thread);
        assert_int_equal(w->submitted, w->completed);
        assert_int_equal(w->wrong_context, 0);
        completed += w->completed;
        assert_true(w->completed >= DEPTH);
    }
    print_message("%llu requests\n", (unsigned long long)completed);
    assert_int_equal(atomic_load(&fake_of(a)->violations), 0);
    assert_int_equal(atomic_load(&fake_of(b)->violations), 0);
    assert_false(blk_in_flight(blk));
    blk_unref(blk);
    bdrv_unref(a);
    bdrv_unref(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_drain_stress, env_setup, env_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
