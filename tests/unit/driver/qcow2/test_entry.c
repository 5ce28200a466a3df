/* SPDX-License-Identifier: MIT */
/* Entries of L1 and L2 tables: what each bit pattern means, and what is refused. */
#include "../../cmocka_all.h"

#include "driver/format/qcow2/entry.h"
#include "driver/format/qcow2/io.h"

#define CLUSTER UINT64_C(65536)
#define GUEST (3 * CLUSTER)

static const struct q2_geometry plain = {.version = 3,
                                         .cluster_bits = 16,
                                         .cluster_bytes = 65536,
                                         .l2_bits = 13,
                                         .l2_entries = 8192,
                                         .l2_entry_bytes = 8,
                                         .subclusters = 1,
                                         .subcluster_bytes = 65536};

static struct q2_geometry geo_of(bool v2, bool extended, bool external)
{
    struct q2_geometry geo = plain;

    geo.version = v2 ? 2 : 3;
    if (extended) {
        geo.extended_l2 = true;
        geo.l2_bits = 12;
        geo.l2_entries = 4096;
        geo.l2_entry_bytes = 16;
        geo.subclusters = 32;
        geo.subcluster_bytes = 2048;
    }
    geo.external_data = external;
    return geo;
}

static bool wrong(const struct q2_geometry *geo, uint64_t word, uint64_t bitmap)
{
    return q2_l2_wrong(geo, (struct q2_l2_entry){word, bitmap}, GUEST) != NULL;
}

static void l1(void **state)
{
    (void)state;
    assert_null(q2_l1_wrong(&plain, 0));
    assert_null(q2_l1_wrong(&plain, Q2_COPIED | 5 * CLUSTER));
    assert_int_equal(q2_l1_table(Q2_COPIED | 5 * CLUSTER), 5 * CLUSTER);
    assert_non_null(q2_l1_wrong(&plain, 5 * CLUSTER + 512));
    for (unsigned bit = 0; bit < 64; bit++) {
        bool reserved = bit < 9 || (bit >= 56 && bit < 63);

        if (reserved || bit < 16) {
            assert_non_null(q2_l1_wrong(&plain, UINT64_C(1) << bit));
        } else {
            assert_null(q2_l1_wrong(&plain, UINT64_C(1) << bit));
        }
    }
}

static void standard(void **state)
{
    const struct q2_l2_entry none = {0};
    const struct q2_l2_entry data = {.word = Q2_COPIED | 7 * CLUSTER};
    const struct q2_l2_entry zero = {.word = Q2_ZERO};
    const struct q2_l2_entry room = {.word = Q2_COPIED | 7 * CLUSTER | Q2_ZERO};
    struct q2_geometry v2 = geo_of(true, false, false);

    (void)state;
    assert_int_equal(q2_l2_kind(&plain, none, 0), Q2_UNALLOCATED);
    assert_int_equal(q2_l2_kind(&plain, data, 0), Q2_DATA);
    assert_int_equal(q2_l2_kind(&plain, zero, 0), Q2_ZEROES);
    assert_int_equal(q2_l2_kind(&plain, room, 0), Q2_ZEROES);
    assert_true(q2_l2_host(&plain, none.word) == UINT64_MAX);
    assert_true(q2_l2_host(&plain, zero.word) == UINT64_MAX);
    assert_true(q2_l2_host(&plain, room.word) == 7 * CLUSTER);
    assert_true(q2_l2_copied(&plain, data.word));
    assert_false(q2_l2_copied(&plain, 7 * CLUSTER));
    for (unsigned bit = 0; bit < 56; bit++) {
        assert_int_equal(wrong(&plain, UINT64_C(1) << bit, 0), bit > 0 && bit < 16);
    }
    for (unsigned bit = 56; bit < 62; bit++) {
        assert_true(wrong(&plain, UINT64_C(1) << bit, 0));
    }
    assert_true(wrong(&plain, Q2_COPIED, 0));
    assert_false(wrong(&plain, zero.word, 0));
    assert_true(wrong(&v2, zero.word, 0));
}

static void compressed(void **state)
{
    struct q2_geometry external = geo_of(false, false, true);
    uint64_t word = q2_compressed_word(&plain, 12345, 1000);

    (void)state;
    assert_true(word != 0);
    assert_int_equal(q2_compressed_offset(&plain, word), 12345);
    /* 12345 is 57 into its sector: 1057 bytes are three sectors */
    assert_int_equal(q2_compressed_bytes(&plain, word), 3 * 512 - 57);
    assert_true(word == (Q2_COMPRESSED | UINT64_C(2) << 54 | 12345));
    assert_int_equal(q2_l2_kind(&plain, (struct q2_l2_entry){word, 0}, 0), Q2_COMPRESSED_DATA);
    assert_false(wrong(&plain, word, 0));
    assert_false(wrong(&plain, word | Q2_COPIED, 0));
    assert_true(wrong(&external, word, 0));
    assert_true(q2_l2_host(&plain, word) == UINT64_MAX);
}

static void compressed_limits(void **state)
{
    struct q2_geometry geo = plain;

    (void)state;
    for (geo.cluster_bits = 9; geo.cluster_bits <= 21; geo.cluster_bits++) {
        uint32_t cluster = UINT32_C(1) << geo.cluster_bits;
        unsigned bits = q2_compressed_offset_bits(&geo);
        uint64_t last = (UINT64_C(1) << (bits < 56 ? bits : 56)) - 1;

        geo.cluster_bytes = cluster;
        for (uint64_t offset = 0; offset < 1024; offset += 511) {
            uint64_t word = q2_compressed_word(&geo, offset, cluster - 1);

            assert_true(word != 0);
            assert_true(q2_compressed_bytes(&geo, word) >= cluster - 1);
            assert_int_equal(q2_compressed_offset(&geo, word), offset);
        }
        assert_int_equal(q2_compressed_word(&geo, 512, 0), 0);
        assert_int_equal(q2_compressed_word(&geo, last + 1, 100), 0);
        assert_true(q2_compressed_offset(&geo, q2_compressed_word(&geo, last, 100)) == last);
        /* the number of sectors has cluster_bits - 8 bits */
        assert_int_equal(q2_compressed_word(&geo, 0, 2 * cluster + 1), 0);
    }
    /* upper bits of small clusters' offsets are reserved */
    geo.cluster_bits = 9;
    geo.cluster_bytes = 512;
    assert_true(wrong(&geo, Q2_COMPRESSED | UINT64_C(1) << 56, 0));
}

static void subclusters(void **state)
{
    struct q2_geometry geo = geo_of(false, true, false);
    struct q2_l2_entry e = {.word = Q2_COPIED | 7 * CLUSTER,
                            .bitmap = UINT64_C(0x0000000c00000003)};

    (void)state;
    assert_false(wrong(&geo, e.word, e.bitmap));
    assert_int_equal(q2_l2_kind(&geo, e, 0), Q2_DATA);
    assert_int_equal(q2_l2_kind(&geo, e, 1), Q2_DATA);
    assert_int_equal(q2_l2_kind(&geo, e, 2), Q2_ZEROES);
    assert_int_equal(q2_l2_kind(&geo, e, 3), Q2_ZEROES);
    assert_int_equal(q2_l2_kind(&geo, e, 31), Q2_UNALLOCATED);
    for (unsigned i = 0; i < 32; i++) {
        uint64_t both = UINT64_C(1) << i | UINT64_C(1) << (i + 32);

        assert_true(wrong(&geo, e.word, both));
        assert_true(wrong(&geo, 0, UINT64_C(1) << i));
        assert_false(wrong(&geo, 0, UINT64_C(1) << (i + 32)));
    }
    assert_true(wrong(&geo, e.word | Q2_ZERO, 0));
    assert_true(wrong(&geo, q2_compressed_word(&geo, 512, 100), 1));
}

static void external_data(void **state)
{
    struct q2_geometry geo = geo_of(false, false, true);

    (void)state;
    assert_false(wrong(&geo, Q2_COPIED | GUEST, 0));
    assert_false(wrong(&geo, GUEST, 0));
    assert_true(wrong(&geo, Q2_COPIED | (GUEST + CLUSTER), 0));
    assert_true(wrong(&geo, Q2_COPIED, 0));
    assert_null(q2_l2_wrong(&geo, (struct q2_l2_entry){.word = Q2_COPIED}, 0));
    assert_int_equal(q2_l2_kind(&geo, (struct q2_l2_entry){.word = Q2_COPIED}, 0), Q2_DATA);
    assert_int_equal(q2_l2_kind(&geo, (struct q2_l2_entry){.word = 0}, 0), Q2_UNALLOCATED);
    assert_int_equal(q2_l2_host(&geo, Q2_COPIED), 0);
    assert_true(q2_l2_copied(&geo, GUEST));
}

/* Runs of subclusters are as long as looking at each one tells. */
static void alike(void **state)
{
    struct q2_geometry geo = geo_of(false, true, false);
    uint64_t seed = 1;

    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        struct q2_l2_entry e = {.word = Q2_COPIED | 5 * CLUSTER};
        unsigned sub = round % 32, count = 1;
        uint64_t kind = 0; /* a bit of each half */

        for (unsigned i = 0; i < 32; i++) { /* mostly as the one before */
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            switch ((seed >> 33) % 12) {
            case 0:
                kind = 0;
                break;
            case 1:
                kind = 1;
                break;
            case 2:
                kind = UINT64_C(1) << 32;
                break;
            }
            e.bitmap |= kind << i;
        }
        assert_null(q2_l2_wrong(&geo, e, GUEST));
        while (sub + count < 32 && q2_l2_kind(&geo, e, sub + count) == q2_l2_kind(&geo, e, sub)) {
            count++;
        }
        assert_int_equal(q2_subclusters_alike(e, sub), count);
    }
}

static void places(void **state)
{
    struct q2_geometry geo = geo_of(false, true, false);
    uint64_t guest = 5 * q2_table_span(&geo) + 17 * CLUSTER + 3;

    (void)state;
    assert_int_equal(q2_table_span(&geo), 4096 * CLUSTER);
    assert_int_equal(q2_l1_index(&geo, guest), 5);
    assert_int_equal(q2_l2_index(&geo, guest), 17);
    assert_true(q2_bits(0, 32) == Q2_BITMAP_ALL);
    assert_true(q2_bits(3, 5) == 0x18);
    assert_true(q2_bits(31, 32) == UINT64_C(1) << 31);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(l1),          cmocka_unit_test(standard),
        cmocka_unit_test(compressed),  cmocka_unit_test(compressed_limits),
        cmocka_unit_test(subclusters), cmocka_unit_test(external_data),
        cmocka_unit_test(alike),       cmocka_unit_test(places),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
