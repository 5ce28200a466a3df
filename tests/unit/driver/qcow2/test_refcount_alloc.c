/* SPDX-License-Identifier: MIT */
/*
 * Allocation puts clusters, refcount blocks and grown refcount tables where qemu-img 7.2 was seen
 * to put them; compressed data are packed as it packs them; metadata is never handed out.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "driver/format/qcow2/l1.h"
#include "driver/format/qcow2/overlap.h"
#include "driver/format/qcow2/refcount_int.h"
#include "fake_file.h"

static struct qcow2 s;

static void begin(unsigned cluster_bits, unsigned order)
{
    fake_image(&s, cluster_bits, order, 1 << 20);
    s.opt.refcount_cache_bytes = UINT64_C(64) << cluster_bits;
}

static void load(void)
{
    assert_int_equal(q2_refcounts_load(&s, NULL), 0);
    assert_int_equal(q2_overlap_init(&s), 0);
}

static void end(void)
{
    q2_overlap_fini(&s);
    q2_refcounts_fini(&s);
    fake_fini(&s);
}

static uint64_t alloc_co(uint64_t count)
{
    uint64_t offset = 1;
    int ret = q2_alloc_clusters_co(&s, count, &offset);

    assert_int_equal(ret, 0);
    assert_true(is_aligned(offset, s.geo.cluster_bytes));
    return offset >> s.geo.cluster_bits;
}

static void write_out_co(void *opaque)
{
    assert_int_equal(q2_refcounts_write_blocks_co(&s), 0);
    if (q2_refcounts_table_dirty(&s)) {
        assert_int_equal(q2_refcounts_write_table_co(&s), 0);
    }
    assert_false(q2_refcounts_dirty(&s));
}

/* The count as the file has it. */
static uint64_t file_count(uint64_t cluster)
{
    uint64_t offset = load_be64(fake.data + 48) + 8 * (cluster >> s.geo.refblock_bits);
    uint64_t block = fake_be64(offset);

    return block == 0 ? 0
                      : q2_refbits_get(fake.data + block, s.geo.refcount_order,
                                       cluster & (s.geo.refblock_entries - 1));
}

/* ---- layouts that were observed ---- */

struct seen {
    unsigned cluster_bits, order;
    uint64_t table_clusters;
    uint64_t blocks; /* entries of that table that are there: all clusters of them are used */
    uint64_t data_clusters;
    uint64_t tail;        /* but the last so many */
    uint64_t l2, data;    /* where an L2 table and then the data go */
    uint64_t table, size; /* of the refcount table afterwards */
    uint64_t new_blocks;
    uint64_t block[3][2]; /* the first of them: index and place */
};

static const struct seen seen[] = {
    {9, 6, 1, 64, 1, 0, 7, 4096, 4162, 2, 3, {{64, 4097}, {65, 4160}, {66, 4161}}},
    {9, 6, 2, 128, 1, 0, 7, 8, 8259, 4, 4, {{128, 8193}, {129, 8256}, {130, 8257}}},
    {9, 6, 3, 192, 1, 0, 7, 8, 12356, 5, 5, {{192, 12289}, {193, 12352}, {194, 12353}}},
    {9, 6, 5, 320, 1, 0, 7, 8, 20550, 8, 7, {{320, 20481}, {321, 20544}, {322, 20545}}},
    {9, 6, 8, 512, 1, 0, 7, 8, 32841, 13, 10, {{512, 32769}, {513, 32832}, {514, 32833}}},
    {9, 6, 21, 1344, 1, 0, 7, 8, 86102, 33, 23, {{1344, 86017}, {1345, 86080}, {1346, 86081}}},
    {9, 6, 55, 3520, 1, 0, 7, 8, 225402, 84, 59, {{3520, 225281}, {3521, 225344}, {3522, 225345}}},
    {9, 4, 1, 64, 20, 0, 7, 16386, 16641, 2, 2, {{64, 16385}, {65, 16640}}},
    {9, 6, 1, 64, 50, 10, 4086, 4087, 4162, 2, 3, {{64, 4137}, {65, 4160}, {66, 4161}}},
    {9, 6, 1, 64, 64, 0, 7, 4164, 4162, 2, 3, {{64, 4097}, {65, 4160}, {66, 4161}}},
    {9, 6, 1, 64, 63, 1, 4095, 4096, 4162, 2, 3, {{64, 4159}, {65, 4160}, {66, 4161}}},
    {9, 6, 1, 64, 64, 1, 4095, 4096, 4226, 2, 4, {{64, 4160}, {65, 4161}, {66, 4224}}},
    {9, 6, 1, 60, 30, 0, 3840, 3842, 7, 1, 1, {{60, 3841}}},
    {9, 6, 1, 62, 64, 0, 3968, 3970, 7, 1, 2, {{62, 3969}, {63, 4034}}},
    {9, 0, 1, 64, 64, 0, 7, 262146, 266241, 2, 2, {{64, 262145}, {65, 266240}}},
    {9, 3, 3, 192, 64, 7, 98297, 98298, 98817, 5, 2, {{192, 98362}, {193, 98816}}},
    {12, 6, 1, 512, 200, 0, 7, 262146, 262658, 2, 3, {{512, 262145}, {513, 262656}}},
    {12, 6, 1, 510, 400, 3, 261117, 261118, 7, 1, 1, {{510, 261518}}},
    {10, 5, 4, 512, 128, 100, 130972, 130973, 131331, 7, 4, {{512, 131101}, {513, 131328}}},
    {10, 1, 1, 128, 100, 3, 524285, 524286, 528385, 2, 2, {{128, 524386}, {129, 528384}}},
    {9, 2, 2, 128, 64, 30, 131042, 131043, 132097, 4, 2, {{128, 131107}, {129, 132096}}},
    {9, 6, 1, 63, 64, 64, 3968, 3969, 7, 1, 1, {{63, 4033}}},
    {9, 6, 1, 63, 64, 2, 4030, 4031, 7, 1, 1, {{63, 4095}}},
    {10, 6, 1, 128, 128, 1, 16383, 16384, 16642, 2, 4, {{128, 16512}, {129, 16513}}},
    {10, 6, 1, 127, 128, 100, 16156, 16157, 7, 1, 1, {{127, 16285}}},
};

/* An image whose table is in cluster 7, its entries all at one full block, the last at another. */
static void craft(const struct seen *c)
{
    uint64_t cluster = UINT64_C(1) << c->cluster_bits;
    uint64_t full = (7 + c->table_clusters) * cluster;

    begin(c->cluster_bits, c->order);
    s.header.reftable_offset = 7 * cluster;
    s.header.reftable_clusters = (uint32_t)c->table_clusters;
    fake_write_header(&s);
    for (uint64_t i = 0; i < c->blocks; i++) {
        store_be64(fake.data + 7 * cluster + 8 * i, i + 1 < c->blocks ? full : full + cluster);
    }
    for (uint64_t i = 0; i < s.geo.refblock_entries; i++) {
        q2_refbits_set(fake.data + full, c->order, i, 1);
        q2_refbits_set(fake.data + full + cluster, c->order, i,
                       i < s.geo.refblock_entries - c->tail);
    }
    fake.bytes = full + 2 * cluster;
    load();
}

static void seen_co(void *opaque)
{
    const struct seen *c = opaque;
    uint64_t found = 0;

    assert_int_equal(alloc_co(1), c->l2);
    assert_int_equal(alloc_co(c->data_clusters), c->data);
    write_out_co(NULL);
    assert_int_equal(load_be64(fake.data + 48), c->table << c->cluster_bits);
    assert_int_equal(load_be32(fake.data + 56), c->size);
    for (uint64_t i = 0; i < c->size << c->cluster_bits >> 3; i++) {
        uint64_t offset = fake_be64((c->table << c->cluster_bits) + 8 * i);

        assert_int_equal(offset, s.refs.table[i]);
        if (i < c->blocks || offset == 0) {
            continue;
        }
        if (found < 3 && c->block[found][0] != 0) {
            assert_int_equal(i, c->block[found][0]);
            assert_int_equal(offset, c->block[found][1] << c->cluster_bits);
        }
        assert_int_equal(file_count(offset >> c->cluster_bits), 1);
        found++;
    }
    assert_int_equal(found, c->new_blocks);
    for (uint64_t i = 0; i < c->data_clusters; i++) {
        assert_int_equal(file_count(c->data + i), 1);
    }
    assert_int_equal(file_count(c->l2), 1);
    assert_int_equal(file_count(c->table), 1);
}

static void test_as_seen(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
        struct seen c = seen[i];

        craft(&c);
        fake_run(seen_co, &c);
        end();
    }
}

/* qemu-img create -o cluster_size=512,refcount_bits=64 8M; qemu-io -c "write 0 3M" */
static void sequential_co(void *opaque)
{
    const struct {
        unsigned l2;
        uint64_t at;
    } places[] = {{23, 1525}, {28, 1855}, {29, 1922}, {30, 1988}, {60, 3968},
                  {61, 4035}, {62, 4101}, {63, 4228}, {94, 6275}, {95, 6341}};
    size_t next = 0;

    for (unsigned i = 0; i < 96; i++) {
        uint64_t at = alloc_co(1);

        if (next < ARRAY_SIZE(places) && places[next].l2 == i) {
            assert_int_equal(at, places[next].at);
            next++;
        }
        alloc_co(64);
    }
    write_out_co(NULL);
    assert_int_equal(next, ARRAY_SIZE(places));
    assert_int_equal(s.header.reftable_offset, 4162 * 512);
    assert_int_equal(s.header.reftable_clusters, 2);
    assert_int_equal(s.refs.table[30], 1921 * 512);
    assert_int_equal(s.refs.table[62], 3969 * 512);
    assert_int_equal(s.refs.table[64], 4100 * 512);
    assert_int_equal(s.refs.table[65], 4160 * 512);
    assert_int_equal(s.refs.table[66], 4161 * 512);
    assert_int_equal(s.refs.table[100], 6406 * 512);
    assert_int_equal(file_count(1), 0);
}

static void test_sequential(void **state)
{
    fake_image(&s, 9, 6, 8 << 20);
    s.opt.refcount_cache_bytes = 4 * 512;
    load();
    fake_run(sequential_co, NULL);
    end();
}

static void test_table_sizes(void **state)
{
    /* first block of the area, blocks, clusters of the table: 512-byte clusters */
    static const uint64_t size[][4] = {
        {6, 65, 2, 2},
        {6, 129, 3, 4},
        {6, 257, 5, 7},
        {6, 449, 8, 11},
        {6, 705, 12, 17},
        {6, 1089, 18, 26},
        {6, 1665, 28, 40},
        {6, 193, 4, 5},
        {6, 321, 6, 8},
        {6, 513, 9, 13},
        {6, 833, 14, 20},
        {6, 1345, 22, 33},
        {6, 2177, 36, 52},
        {6, 3521, 58, 84},
        {6, 5697, 93, 136},
        {6, 9217, 150, 220},
        {6, 24129, 393, 575},
        {6, 39041, 635, 930},
        {5, 65, 1, 2},
        {5, 129, 2, 4},
        {5, 257, 3, 7},
        {5, 449, 4, 11},
        {5, 705, 6, 17},
        {4, 10369, 42, 245},
        {6, 1048577, 17041, 24976},
    };

    for (size_t i = 0; i < ARRAY_SIZE(size); i++) {
        struct q2_geometry geo = {.cluster_bytes = 512,
                                  .refblock_entries = UINT64_C(4096) >> size[i][0]};
        uint64_t blocks, clusters;

        q2_reftable_grown(&geo, size[i][1], &blocks, &clusters);
        assert_int_equal(blocks, size[i][2]);
        assert_int_equal(clusters, size[i][3]);
    }
}

/* ---- compressed data ---- */

struct blob {
    uint32_t bytes; /* 0: a plain cluster */
    uint64_t cluster;
    uint32_t at;
};

static void packed_co(void *opaque)
{
    const struct blob *b = opaque;

    for (; b->cluster != 0; b++) {
        uint64_t offset;

        if (b->bytes == 0) {
            assert_int_equal(alloc_co(1), b->cluster);
            continue;
        }
        assert_int_equal(q2_alloc_packed_co(&s, b->bytes, &offset), 0);
        assert_int_equal(offset, b->cluster * 4096 + b->at);
    }
}

/* As qemu-io placed them: "write -c" of clusters of 4096 bytes. */
static void test_packed(void **state)
{
    static const struct blob wide[] = {
        {0, 4},
        {1070, 5, 0},
        {1070, 5, 1070},
        {1070, 5, 2140},
        {1070, 5, 3210},
        {3057, 6, 184},
        {552, 6, 3241},
        {552, 6, 3793},
        {3057, 7, 249},
        {3057, 7, 3306},
        {0},
    };
    static const struct blob between[] = {
        {552, 9, 0},     {0, 10}, {552, 9, 552}, {0, 11},         {3057, 12, 0},
        {552, 12, 3057}, {0, 13}, {3057, 14, 0}, {552, 14, 3057}, {0},
    };
    static const struct blob narrow[] = {
        {0, 4},          {1070, 5, 0},  {1070, 5, 1070},
        {1070, 5, 2140}, {1070, 6, 0},  {3057, 6, 1070},
        {552, 7, 31},    {552, 7, 583}, {3057, 8, 0},
        {3057, 8, 3057}, {0},
    };
    static const struct blob one[] = {{0, 4}, {1070, 5, 0}, {3057, 6, 0}, {552, 7, 0}, {0}};
    static const struct blob full[] = {{0, 4}, {4000, 5, 0}, {96, 5, 4000},
                                       {0, 6}, {10, 7, 0},   {0}};
    uint64_t count[] = {4, 4, 3, 1};

    begin(12, 4);
    load();
    fake_run(packed_co, (void *)(uintptr_t)wide);
    fake_run(write_out_co, NULL);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(file_count(5 + i), count[i]);
    }
    q2_overlap_fini(&s);
    q2_refcounts_fini(&s);
    load(); /* opened again, it begins a cluster */
    fake_run(packed_co, (void *)(uintptr_t)between);
    end();
    begin(12, 1);
    load();
    fake_run(packed_co, (void *)(uintptr_t)narrow);
    end();
    begin(12, 0);
    load();
    fake_run(packed_co, (void *)(uintptr_t)one);
    end();
    begin(12, 4);
    load();
    fake_run(packed_co, (void *)(uintptr_t)full);
    end();
}

/* A cluster that was packed on and became free is not packed on. */
static void packed_freed_co(void *opaque)
{
    uint64_t a, b;

    assert_int_equal(q2_alloc_packed_co(&s, 100, &a), 0);
    q2_unalloc_co(&s, a, 100);
    b = alloc_co(1);
    assert_int_equal(b << 12, a);
    assert_int_equal(q2_alloc_packed_co(&s, 100, &a), 0);
    assert_int_equal(a, (b + 1) << 12);
}

static void test_packed_freed(void **state)
{
    begin(12, 4);
    load();
    fake_run(packed_freed_co, NULL);
    end();
}

/* ---- places asked for ---- */

static void at_co(void *opaque)
{
    uint64_t n;

    assert_int_equal(alloc_co(1), 4);
    assert_int_equal(q2_alloc_at_co(&s, 4 << 12, 3, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(q2_alloc_at_co(&s, 7 << 12, 3, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(q2_alloc_at_co(&s, 5 << 12, 4, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(alloc_co(2), 10);
    assert_int_equal(q2_alloc_at_co(&s, 1 << 24, 4, &n), 0); /* its block is not there yet */
    assert_int_equal(n, 4);
    assert_int_equal(q2_alloc_at_co(&s, UINT64_C(1) << 56, 1, &n), -EFBIG);
    assert_int_equal(q2_alloc_clusters_co(&s, UINT64_MAX, &n), -EFBIG);
    assert_int_equal(q2_alloc_clusters_co(&s, UINT64_C(1) << 44, &n), -EFBIG);
}

static void test_at(void **state)
{
    begin(12, 4);
    load();
    fake_run(at_co, NULL);
    end();
}

/* ---- refcounts that lie ---- */

static void refused_co(void *opaque)
{
    uint64_t offset;

    assert_int_equal(q2_alloc_clusters_co(&s, 1, &offset), -EIO);
}

/* Catalogue I10: a count of zero where metadata is. */
static void test_lies(void **state)
{
    static const char *const text[] = {"overlaps with qcow2_header", "overlaps with refcount table",
                                       "overlaps with refcount block",
                                       "overlaps with active L1 table",
                                       "overlaps with active L2 table"};

    for (unsigned i = 0; i < 5; i++) {
        struct q2_l1 *l1 = calloc(1, sizeof(*l1) + sizeof(uint64_t));

        l1->entries = 1;
        l1->e[0] = Q2_COPIED | 4 << 12;
        begin(12, 4);
        atomic_store(&s.l1, l1);
        store_be16(fake.data + (2 << 12) + 2 * 4, 1);
        store_be16(fake.data + (2 << 12) + 2 * i, 0);
        s.opt.overlap = Q2_OL_NONE; /* it is not asked */
        load();
        fake_run(refused_co, NULL);
        assert_true(fake.corrupt && fake.corrupt_fatal);
        assert_non_null(strstr(fake.message, text[i]));
        assert_int_equal(fake.header_bits_set, Q2_INCOMPAT_CORRUPT);
        end();
        free(l1);
    }
}

/* ---- growth that fails ---- */

struct
try {
    int ret;
    uint64_t first;
};

static void try_co(void *opaque)
{
    struct try *t = opaque;
    uint64_t offset = 0;

    t->ret = q2_alloc_clusters_co(&s, 1, &offset);
    t->first = offset >> s.geo.cluster_bits;
}

/* Each call of a growth fails, once or for ever: the file's header names a table that holds, and
 * when the disk works again so does allocation. */
static void test_growth_fails(void **state)
{
    struct seen c = seen[1];
    unsigned fail;

    for (int for_ever = 0; for_ever < 2; for_ever++) {
        bool failed = true;

        for (fail = 1; failed; fail++) {
            struct try t = {.ret = 1};
            uint64_t table;

            craft(&c);
            fake.calls = 0;
            fake.fail_call = fail;
            fake.fail_for_ever = for_ever;
            fake_run(try_co, &t);
            failed = t.ret < 0;
            assert_true(t.ret == 0 || t.ret == -EIO);
            assert_false(fake.corrupt);
            table = load_be64(fake.data + 48);
            for (uint64_t i = 0; i < c.blocks; i++) {
                assert_int_equal(fake_be64(table + 8 * i), s.refs.table[i]);
            }
            fake.fail_call = 0;
            fake_run(try_co, &t);
            assert_int_equal(t.ret, 0);
            assert_int_equal(load_be64(fake.data + 48), s.header.reftable_offset);
            assert_int_equal(s.header.reftable_offset, c.table << 9);
            fake_run(write_out_co, NULL);
            assert_int_equal(file_count(t.first), 1);
            end();
        }
    }
    assert_in_range(fail, 8, 40);
}

static void test_growth_too_large(void **state)
{
    struct seen c = {9, 6, 16384, UINT64_C(16384) * 64, 1};
    struct try t;

    craft(&c);
    fake_run(try_co, &t);
    assert_int_equal(t.ret, -EFBIG);
    assert_int_equal(s.header.reftable_offset, 7 << 9);
    fake_run(try_co, &t);
    assert_int_equal(t.ret, -EFBIG);
    end();
}

/* A budget that ends anywhere. */
static void test_no_memory(void **state)
{
    struct seen c = seen[1];
    struct try t = {.ret = -ENOMEM};

    for (uint64_t room = 0; t.ret == -ENOMEM; room += 512) {
        craft(&c);
        fake.budget.limit_bytes = fake.budget.used_bytes + room;
        fake_run(try_co, &t);
        assert_true(t.ret == 0 || t.ret == -ENOMEM);
        fake.budget.limit_bytes = UINT64_MAX;
        if (t.ret < 0) {
            struct try again;

            fake_run(try_co, &again);
            assert_int_equal(again.ret, 0);
        }
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_seen),
        cmocka_unit_test(test_sequential),
        cmocka_unit_test(test_table_sizes),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_packed_freed),
        cmocka_unit_test(test_at),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_growth_fails),
        cmocka_unit_test(test_growth_too_large),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
