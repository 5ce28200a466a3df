/* SPDX-License-Identifier: MIT */
/*
 * Readers without a lock, updaters, commits, evictions, freeing and exclusive sections at once, in
 * several threads, against a model. Every entry is a pair of words (v, ~v): who ever sees or writes
 * half a change shows it. An L1 entry may be written only when its table is durable (W3).
 */
#include "cmocka_all.h"

#include "driver/format/qcow2/l1.h"
#include "meta_fake.h"

#define SLICE 4096u
#define PAIRS (META_CLUSTER / 16)
#define FREED_FIRST 64u /* clusters that are freed and taken again */
#define FREED 512u
#define TABLES_FIRST 8u /* clusters of tables that are linked meanwhile */
#define TABLES 48u

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 400
#else
#define ROUNDS 4000
#endif

static struct qcow2 *const s = &meta.s;
static uint64_t model[PAIRS]; /* plain: each is its range lock's */
static _Atomic unsigned freed;
static _Atomic unsigned linked;
/* of the tables: bytes that were written, and whether all were durable once */
static _Atomic uint64_t table_written[TABLES];
static _Atomic bool table_durable[TABLES];

static void breathe(void)
{
    aio_co_schedule(aio_context_current(), coroutine_self());
    coroutine_yield();
}

/* The first table is written in whole pairs, the L1 table when what it refers to is durable. */
static int checked_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    const uint8_t *p = (const uint8_t *)req->iov[0].iov_base + req->iov_offset;
    bool l1 = req->offset < META_L2_OFFSET;
    int ret;

    CHECK(req->iov[0].iov_len - req->iov_offset >= req->bytes);
    for (uint64_t i = 0; l1 && i < req->bytes; i += 8) {
        uint64_t cluster = (load_be64(p + i) & Q2_OFFSET_MASK) / META_CLUSTER;

        CHECK(cluster < TABLES_FIRST || atomic_load(&table_durable[cluster - TABLES_FIRST]));
    }
    for (uint64_t i = 0; req->offset / META_CLUSTER == 4 && i < req->bytes; i += 16) {
        CHECK(load_be64(p + i) == ~load_be64(p + i + 8));
    }
    ret = meta_write_co(bs, req);
    for (uint64_t i = 0; i < req->bytes; i += SLICE) {
        uint64_t cluster = (req->offset + i) / META_CLUSTER;

        if (cluster >= TABLES_FIRST) { /* neighbours are one write */
            atomic_fetch_add(&table_written[cluster - TABLES_FIRST], SLICE);
        }
    }
    return ret;
}

static int checked_flush_co(BlockDriverState *bs)
{
    bool whole[TABLES];
    int ret;

    for (unsigned i = 0; i < TABLES; i++) {
        whole[i] = atomic_load(&table_written[i]) == META_CLUSTER;
    }
    ret = meta_flush_file_co(bs);
    for (unsigned i = 0; i < TABLES; i++) {
        if (whole[i]) {
            atomic_store(&table_durable[i], true);
        }
    }
    return ret;
}

/* Where a pair is: its slice's key, and the index in it. */
static uint64_t key_of(uint64_t pair)
{
    return META_L2_OFFSET + align_down(pair * 16, SLICE);
}
static uint32_t index_of(uint64_t pair)
{
    return (uint32_t)(pair * 16 % SLICE / 8);
}

static void do_read(uint64_t *rng)
{
    uint64_t pair = fake_rand_below(rng, PAIRS);
    q2_token token = q2_enter_co(s);
    struct q2_slice *slice = q2_l2_find(s, key_of(pair));
    bool pinned = slice == NULL;

    if (pinned) {
        CHECK(q2_l2_get_co(s, key_of(pair), &slice) == 0);
    }
    for (int i = 0; i < 3; i++) {
        uint64_t a, b;

        q2_slice_pair(slice, index_of(pair), &a, &b);
        CHECK(a == ~b);
        if (fake_rand_below(rng, 8) == 0) {
            breathe(); /* the slice may leave meanwhile, its memory may not */
        }
    }
    if (pinned) {
        q2_l2_put(s, slice);
    }
    q2_leave(s, token);
}

static void do_update(uint64_t *rng)
{
    uint64_t pair = fake_rand_below(rng, PAIRS);
    q2_token token = q2_enter_co(s);
    struct q2_slice *slice;
    struct q2_range range;
    uint64_t words[2];

    q2_range_lock_co(s, &range, pair, pair);
    CHECK(q2_l2_get_co(s, key_of(pair), &slice) == 0);
    q2_slice_pair(slice, index_of(pair), &words[0], &words[1]);
    CHECK(words[0] == model[pair]);
    words[0] = ++model[pair];
    words[1] = ~words[0];
    CHECK(q2_l2_set_co(s, slice, index_of(pair), words, 2) == 0);
    q2_l2_put(s, slice);
    q2_range_unlock(s, &range);
    q2_leave(s, token);
}

static void do_commit(bool flush)
{
    q2_token token = q2_enter_co(s);

    CHECK(q2_commit_co(s, flush) == 0);
    q2_leave(s, token);
}

static void do_free(void)
{
    unsigned i = atomic_fetch_add(&freed, 1);

    if (i < FREED) {
        q2_free_later(s, (uint64_t)(FREED_FIRST + i) * META_CLUSTER, META_CLUSTER,
                      Q2_DISCARD_REQUEST);
    }
}

static void do_link(void)
{
    unsigned i = atomic_fetch_add(&linked, 1);
    uint64_t offset = (uint64_t)(TABLES_FIRST + i) * META_CLUSTER;
    q2_token token;

    if (i < TABLES) {
        token = q2_enter_co(s);
        CHECK(q2_l2_new_table_co(s, offset, 0) == 0);
        q2_l1_set(s, 1 + i, Q2_COPIED | offset);
        q2_leave(s, token);
    }
}

static void worker_entry(void *opaque)
{
    uint64_t rng = (uint64_t)(uintptr_t)opaque;

    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t dice = fake_rand_below(&rng, 1000);

        if (dice < 600) {
            do_read(&rng);
        } else if (dice < 940) {
            do_update(&rng);
        } else if (dice < 950) {
            do_commit(dice < 945);
        } else if (dice < 980) {
            do_free();
        } else if (dice < 985) {
            q2_l2_clean(s);
        } else if (dice < 995) {
            do_link();
        } else if (dice < 997) {
            q2_exclusive_begin_co(s);
            breathe();
            q2_exclusive_end(s);
        }
        if (q2_free_due(s)) {
            q2_free_run_co(s);
        }
    }
    meta_stress_done();
}

static int finish_run(void *opaque)
{
    return q2_free_all_co(s);
}

static void stress(uint32_t slices)
{
    uint64_t rng = fake_seed("stress");

    meta_init(SLICE, slices, 1 + TABLES);
    meta.forgets = true;
    meta.file.f.drv.write_co = checked_write_co;
    meta.file.f.drv.flush_co = checked_flush_co;
    meta.file.f.suspend = 1;
    s->opt.discard[Q2_DISCARD_REQUEST] = true;
    atomic_store(&freed, 0);
    atomic_store(&linked, 0);
    for (unsigned i = 0; i < TABLES; i++) {
        atomic_store(&table_written[i], 0);
        atomic_store(&table_durable[i], false);
    }
    for (uint32_t i = 0; i < PAIRS; i++) {
        model[i] = i;
        store_be64(meta.file.f.data + META_L2_OFFSET + i * 16, i);
        store_be64(meta.file.f.data + META_L2_OFFSET + i * 16 + 8, ~(uint64_t)i);
    }
    for (unsigned i = 0; i < FREED; i++) {
        meta.refcount[FREED_FIRST + i] = 1;
    }
    meta.file.f.drv.discard_co = NULL; /* the clusters are not there */
    meta_stress(&rng, worker_entry);
    assert_int_equal(fake_do(finish_run, NULL), 0);
    for (uint32_t i = 0; i < PAIRS; i++) {
        assert_int_equal(meta_file_word(META_L2_OFFSET + i * 16), model[i]);
    }
    for (unsigned i = 0; i < TABLES; i++) {
        uint64_t offset = (uint64_t)(TABLES_FIRST + i) * META_CLUSTER;

        assert_int_equal(meta_file_word(META_L1_OFFSET + (1 + i) * 8),
                         i < atomic_load(&linked) ? Q2_COPIED | offset : 0);
    }
    for (unsigned i = 0; i < FREED; i++) {
        assert_int_equal(meta.refcount[FREED_FIRST + i], i >= atomic_load(&freed));
    }
    assert_int_equal(s->inflight.attention, 0);
    meta_fini();
}

static void test_small_cache(void **state)
{
    stress(3);
}

static void test_all_fits(void **state)
{
    stress(64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_cache),
        cmocka_unit_test(test_all_fits),
    };

    return cmocka_run_group_tests_name("qcow2-meta-stress", tests, NULL, NULL);
}
