/* SPDX-License-Identifier: MIT */
/* Which clusters are metadata: each kind, sets that grow and shrink under readers, what is told. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "driver/format/qcow2/cluster_set.h"
#include "driver/format/qcow2/l1.h"
#include "driver/format/qcow2/overlap.h"
#include "driver/format/qcow2/snapshot.h"
#include "fake_file.h"

static struct qcow2 s;
static struct q2_snapshot snapshots[3];
static struct q2_l1 *l1;

/* Clusters of 4096: 0 header, 1 refcount table, 2 block, 3 L1, 4 an L2 table, 6 snapshot table, 8
 * and 9 inactive L1 tables, 11 and 12 L2 tables of theirs, 14 bitmap directory. */
static void begin(void)
{
    fake_image(&s, 12, 4, 1 << 20);
    l1 = calloc(1, sizeof(*l1) + sizeof(uint64_t));
    assert_non_null(l1);
    l1->entries = 1;
    l1->e[0] = Q2_COPIED | 4 << 12;
    s.l1 = l1;
    for (unsigned i = 0; i < 3; i++) {
        snapshots[i] = (struct q2_snapshot){.l1_offset = (i == 1 ? 9 : 8) << 12,
                                            .l1_entries = 2,
                                            .id = (char *)(uintptr_t) "1",
                                            .name = (char *)(uintptr_t) "one"};
    }
    s.snapshots = snapshots;
    s.snapshot_count = 3;
    s.header.snapshot_count = 3;
    s.header.snapshots_offset = 6 << 12;
    s.snapshot_table_bytes = 3 * 48; /* as loading it would have it */
    s.header.has_bitmaps_ext = true;
    s.header.bitmap_directory_offset = 14 << 12;
    s.header.bitmap_directory_bytes = 100;
    store_be64(fake.data + (8 << 12), 11 << 12);
    store_be64(fake.data + (9 << 12) + 8, 12 << 12);
    fake.bytes = 20 << 12;
    assert_int_equal(q2_refcounts_load(&s, NULL), 0);
    assert_int_equal(q2_overlap_init(&s), 0);
}

static void end(void)
{
    q2_overlap_fini(&s);
    q2_refcounts_fini(&s);
    fake_fini(&s);
    free(l1);
}

static const unsigned kind_of[20] = {Q2_OL_MAIN_HEADER,
                                     Q2_OL_REFCOUNT_TABLE,
                                     Q2_OL_REFCOUNT_BLOCK,
                                     Q2_OL_ACTIVE_L1,
                                     Q2_OL_ACTIVE_L2,
                                     0,
                                     Q2_OL_SNAPSHOT_TABLE,
                                     0,
                                     Q2_OL_INACTIVE_L1,
                                     Q2_OL_INACTIVE_L1,
                                     0,
                                     Q2_OL_INACTIVE_L2,
                                     Q2_OL_INACTIVE_L2,
                                     0,
                                     Q2_OL_BITMAP_DIRECTORY};

static void kinds_co(void *opaque)
{
    unsigned option = *(unsigned *)opaque;

    s.opt.overlap = option;
    for (unsigned first = 0; first < 18; first++) {
        for (unsigned last = first; last < 18; last++) {
            for (unsigned ignore = 0; ignore < 512; ignore = ignore * 2 + 1) {
                unsigned hit = 0;

                for (unsigned c = first; c <= last; c++) {
                    hit |= kind_of[c];
                }
                hit &= option & ~ignore;
                assert_int_equal(
                    q2_overlap_check_co(&s, ignore, (first << 12) + 4095,
                                        ((last - first) << 12) + 1 - (last > first ? 4095 : 0)),
                    hit ? -EIO : 0);
            }
        }
    }
    assert_int_equal(q2_overlap_check_co(&s, 0, 0, 0), 0);
    assert_int_equal(q2_overlap_check_co(&s, 0, UINT64_C(1) << 62, 4096), 0);
}

static void test_kinds(void **state)
{
    unsigned options[] = {Q2_OL_NONE, Q2_OL_CONSTANT, Q2_OL_CACHED, Q2_OL_ALL};

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        begin();
        fake_run(kinds_co, &options[i]);
        end();
    }
}

static void told_co(void *opaque)
{
    s.opt.overlap = Q2_OL_ALL;
    assert_int_equal(q2_overlap_check_co(&s, 0, *(uint64_t *)opaque, 512), -EIO);
}

static void test_told(void **state)
{
    static const struct {
        unsigned cluster;
        const char *name;
    } told[] = {{0, "qcow2_header"},      {1, "refcount table"},     {2, "refcount block"},
                {3, "active L1 table"},   {4, "active L2 table"},    {6, "snapshot table"},
                {8, "inactive L1 table"}, {12, "inactive L2 table"}, {14, "bitmap directory"}};

    for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
        uint64_t offset = told[i].cluster << 12;
        char text[100];

        begin();
        fake_run(told_co, &offset);
        snprintf(text, sizeof(text), "Preventing invalid write on metadata (overlaps with %s)",
                 told[i].name);
        assert_string_equal(fake.message, text);
        assert_true(fake.corrupt_fatal);
        assert_int_equal(fake.header_bits_set, Q2_INCOMPAT_CORRUPT);
        end();
    }
}

/* Tables that move, and a second look at what is loaded. */
static void test_moves(void **state)
{
    begin();
    assert_int_equal(q2_overlap_find(&s, Q2_OL_ALL, 5 << 12, 4096), 0);
    assert_int_equal(q2_overlap_add(&s, Q2_OL_ACTIVE_L2, 5 << 12), 0);
    assert_int_equal(q2_overlap_add(&s, Q2_OL_REFCOUNT_BLOCK, 5 << 12), 0);
    assert_int_equal(q2_overlap_find(&s, Q2_OL_ALL, 5 << 12, 4096),
                     Q2_OL_ACTIVE_L2 | Q2_OL_REFCOUNT_BLOCK);
    q2_overlap_del(&s, Q2_OL_ACTIVE_L2, 5 << 12);
    assert_int_equal(q2_overlap_find(&s, Q2_OL_ALL, 5 << 12, 4096), Q2_OL_REFCOUNT_BLOCK);
    assert_int_equal(q2_overlap_add_range(&s, Q2_OL_ACTIVE_L1, 30 << 12, 5 << 12), 0);
    q2_overlap_del_range(&s, Q2_OL_ACTIVE_L1, 3 << 12, 8);
    assert_int_equal(q2_overlap_find(&s, Q2_OL_ALL, 3 << 12, 4096), 0);
    assert_int_equal(q2_overlap_find(&s, Q2_OL_ALL, 34 << 12, 4096), Q2_OL_ACTIVE_L1);
    assert_int_equal(q2_overlap_find(&s, Q2_OL_ALL, 35 << 12, 4096), 0);
    s.snapshot_count = 0;
    s.snapshot_table_bytes = 0;
    assert_int_equal(q2_overlap_init(&s), 0);
    assert_int_equal(q2_overlap_find(&s, Q2_OL_ALL, 8 << 12, 2 << 12), 0);
    assert_int_equal(q2_overlap_find(&s, Q2_OL_ALL, 0, UINT64_C(1) << 40),
                     Q2_OL_MAIN_HEADER | Q2_OL_REFCOUNT_TABLE | Q2_OL_REFCOUNT_BLOCK |
                         Q2_OL_ACTIVE_L1 | Q2_OL_ACTIVE_L2 | Q2_OL_BITMAP_DIRECTORY);
    fake.budget.limit_bytes = fake.budget.used_bytes + 100;
    assert_int_equal(q2_overlap_init(&s), -ENOMEM);
    assert_int_equal(q2_overlap_find(&s, Q2_OL_ALL, 3 << 12, 4096), Q2_OL_ACTIVE_L1);
    end();
}

/* ---- the set ---- */

#define CLUSTERS 3000
#define STAY 50 /* clusters 0..STAY-1 are in the set all the time */

static uint64_t rng;

static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static void test_set(void **state)
{
    struct mem_budget budget = {.limit_bytes = UINT64_MAX};
    static uint8_t model[CLUSTERS];
    struct q2_cluster_set set = {0};
    const char *text = getenv("PLATTER_SEED");

    rng = text ? strtoull(text, NULL, 0) : 20240809;
    print_message("PLATTER_SEED=%" PRIu64 "\n", rng);
    memset(model, 0, sizeof(model));
    assert_int_equal(q2_cluster_set_init(&set, &budget, 0), 0);
    for (int i = 0; i < 200000; i++) {
        uint64_t window = (uint64_t)i / 20000 % 2 ? CLUSTERS : 40;
        uint64_t c = ((uint64_t)i / 100 * 7 + next() % window) % CLUSTERS;
        uint8_t kind = (uint8_t)(1u << next() % 2);

        if (next() % 2) {
            assert_int_equal(q2_cluster_set_add(&set, c, kind), 0);
            model[c] |= kind;
        } else {
            q2_cluster_set_del(&set, c, kind);
            model[c] &= (uint8_t)~kind;
        }
        c = next() % CLUSTERS;
        assert_int_equal(q2_cluster_set_find(&set, c, c), model[c]);
    }
    for (uint64_t c = 0; c < CLUSTERS; c++) {
        assert_int_equal(q2_cluster_set_find(&set, c, c), model[c]);
    }
    /* 3000 of them: 8192 slots, all that was outgrown, and a spare at the most */
    assert_true(budget.used_bytes < 3 * 8192 * 8 + 1000);
    q2_cluster_set_fini(&set);
    assert_int_equal(budget.used_bytes, 0);
}

struct shared {
    struct q2_cluster_set set;
    _Atomic bool stop;
    _Atomic uint64_t looked;
};

static void *reader(void *opaque)
{
    struct shared *sh = opaque;
    uint64_t c = 0;

    while (!atomic_load(&sh->stop)) {
        if (q2_cluster_set_find(&sh->set, c % STAY, c % STAY) != 1 ||
            q2_cluster_set_find(&sh->set, 1000000 + c % STAY, 1000000 + c % STAY) != 0) {
            return sh;
        }
        c++;
        atomic_fetch_add(&sh->looked, 1);
    }
    return NULL;
}

/* Readers never miss what is there while others come and go. */
static void test_set_threads(void **state)
{
    struct mem_budget budget = {.limit_bytes = UINT64_MAX};
    static struct shared sh;
    pthread_t thread[2];
    void *bad;

    sh = (struct shared){0};
    assert_int_equal(q2_cluster_set_init(&sh.set, &budget, 0), 0);
    for (uint64_t c = 0; c < STAY; c++) {
        assert_int_equal(q2_cluster_set_add(&sh.set, c, 1), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, reader, &sh), 0);
    }
    for (uint64_t i = 0; i < 50000 || atomic_load(&sh.looked) < 1000; i++) {
        assert_int_equal(q2_cluster_set_add(&sh.set, STAY + i, 2), 0);
        if (i >= 100) {
            q2_cluster_set_del(&sh.set, STAY + i - 100, 2);
        }
    }
    atomic_store(&sh.stop, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], &bad);
        assert_null(bad);
    }
    q2_cluster_set_fini(&sh.set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),       cmocka_unit_test(test_told),
        cmocka_unit_test(test_moves),       cmocka_unit_test(test_set),
        cmocka_unit_test(test_set_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
