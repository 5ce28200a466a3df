/* SPDX-License-Identifier: MIT */
/* The bitmap directory: what is read, what is refused, and that building gives the same bytes. */
#include "../../cmocka_all.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "driver/format/qcow2/bitmap.h"
#include "driver/format/qcow2/qcow2.h"
#include "util/mem.h"

static const struct q2_geometry geo = {.cluster_bits = 16, .cluster_bytes = 65536};

/* Two entries: one with extra data. */
struct image {
    uint8_t buf[256];
    size_t bytes;
};

static struct image sample(void)
{
    struct image im = {.bytes = 32 + 40};
    uint8_t *p = im.buf;

    store_be64(p, 0x40000);
    store_be32(p + 8, 1);
    store_be32(p + 12, Q2_BITMAP_AUTO);
    p[16] = 1;
    p[17] = 16;
    store_be16(p + 18, 2);
    memcpy(p + 24, "b0", 2);
    p += 32;
    store_be64(p, 0x60000);
    store_be32(p + 8, 7);
    store_be32(p + 12, Q2_BITMAP_IN_USE | Q2_BITMAP_EXTRA_COMPATIBLE);
    p[16] = 1;
    p[17] = 9;
    store_be16(p + 18, 5);
    store_be32(p + 20, 6);
    memcpy(p + 24, "extra!names", 11);
    return im;
}

static int parse(const struct image *im, uint32_t count, struct q2_bitmap_directory *dir)
{
    Error *err = NULL;
    int ret = q2_bitmap_directory_parse(im->buf, im->bytes, count, dir, &err);

    assert_true((ret < 0) == (err != NULL));
    error_free(err);
    return ret;
}

static void read_and_build(void **state)
{
    struct image im = sample();
    struct q2_bitmap_directory dir;
    uint8_t *buf;
    uint64_t bytes;

    (void)state;
    assert_int_equal(parse(&im, 2, &dir), 0);
    assert_int_equal(dir.count, 2);
    assert_string_equal(dir.entries[0].name, "b0");
    assert_string_equal(dir.entries[1].name, "names");
    assert_int_equal(dir.entries[0].table_offset, 0x40000);
    assert_int_equal(dir.entries[0].granularity_bits, 16);
    assert_int_equal(dir.entries[1].table_entries, 7);
    assert_memory_equal(dir.entries[1].extra, "extra!", 6);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(q2_bitmap_entry_check(&dir.entries[i], &geo, NULL), 0);
        assert_int_equal(q2_bitmap_entry_bytes(&dir.entries[i]), i == 0 ? 32 : 40);
    }
    assert_int_equal(q2_bitmap_directory_build(&dir, &buf, &bytes, NULL), 0);
    assert_int_equal(bytes, im.bytes);
    assert_memory_equal(buf, im.buf, bytes);
    free(buf);
    q2_bitmap_directory_fini(&dir);
}

static void refused(const struct image *im, uint32_t count)
{
    struct q2_bitmap_directory dir;

    assert_int_equal(parse(im, count, &dir), -EINVAL);
    q2_bitmap_directory_fini(&dir);
}

static void broken_structure(void **state)
{
    struct image im = sample();

    (void)state;
    refused(&im, 0);
    refused(&im, 1); /* goes on */
    refused(&im, 3);
    refused(&im, UINT32_MAX);
    for (im.bytes = 0; im.bytes < 72; im.bytes++) {
        refused(&im, 2);
    }
    im.bytes = 80;
    refused(&im, 2);

    im = sample();
    store_be16(im.buf + 18, 0);
    refused(&im, 2);
    store_be16(im.buf + 18, Q2_BITMAP_NAME_BYTES_MAX + 1);
    refused(&im, 2);
    store_be16(im.buf + 18, 9);
    refused(&im, 2);
    store_be16(im.buf + 18, 3); /* a zero byte inside */
    refused(&im, 2);

    im = sample();
    store_be32(im.buf + 20, UINT32_MAX);
    refused(&im, 2);
    store_be32(im.buf + 20, 64);
    refused(&im, 2);

    im = sample();
    memcpy(im.buf + 24, "names", 5);
    store_be16(im.buf + 18, 5);
    refused(&im, 2); /* two of one name */
}

static void entries_that_mean_nothing(void **state)
{
    const struct q2_bitmap_entry good = {.table_offset = 0x40000,
                                         .table_entries = 1,
                                         .type = 1,
                                         .granularity_bits = 16,
                                         .name = (char *)(uintptr_t) "b"};
    struct q2_bitmap_entry bad[] = {good, good, good, good, good, good,
                                    good, good, good, good, good};
    Error *err = NULL;
    size_t i = 0;

    (void)state;
    bad[i++].table_offset = 0;
    bad[i++].table_offset = 0x40200;
    bad[i++].table_offset = UINT64_C(1) << 63;
    bad[i++].table_entries = 0;
    bad[i++].table_entries = Q2_BITMAP_TABLE_ENTRIES_MAX + 1;
    bad[i++].table_entries = 8193; /* more than 512 MiB of bits */
    bad[i++].flags = 8;
    bad[i++].flags = Q2_BITMAP_EXTRA_COMPATIBLE;
    bad[i++].type = 0;
    bad[i++].granularity_bits = 8;
    bad[i++].granularity_bits = 32;
    assert_int_equal(i, ARRAY_SIZE(bad));
    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(q2_bitmap_entry_check(&bad[i], &geo, &err), -EINVAL);
        assert_non_null(err);
        error_free(err);
        err = NULL;
    }
    assert_int_equal(q2_bitmap_entry_check(&good, &geo, NULL), 0);
}

static void table_entries(void **state)
{
    static const uint64_t bad[] = {
        2, 0x100, 0x60001, 0x60200, 0x8000, UINT64_C(1) << 63, UINT64_MAX, UINT64_C(1) << 56};
    uint64_t offset;

    (void)state;
    assert_int_equal(q2_bitmap_table_decode(&geo, 0, &offset), 0);
    assert_true(offset == Q2_BITMAP_ZEROES);
    assert_int_equal(q2_bitmap_table_decode(&geo, 1, &offset), 0);
    assert_true(offset == Q2_BITMAP_ONES);
    assert_int_equal(q2_bitmap_table_decode(&geo, 0xff0000, &offset), 0);
    assert_true(offset == 0xff0000);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(q2_bitmap_table_decode(&geo, bad[i], &offset), -EINVAL);
    }
}

static void sizes(void **state)
{
    (void)state;
    assert_true(q2_bitmap_bits(0, 16) == 0);
    assert_true(q2_bitmap_bits(1, 16) == 1);
    assert_true(q2_bitmap_bits(65536, 16) == 1);
    assert_true(q2_bitmap_bits(65537, 16) == 2);
    assert_true(q2_bitmap_bits(UINT64_MAX, 9) == UINT64_C(1) << 55);
    assert_true(q2_bitmap_table_entries(UINT64_C(1) << 35, 16, 16) == 1);
    assert_true(q2_bitmap_table_entries((UINT64_C(1) << 35) + 1, 16, 16) == 2);
    assert_true(q2_bitmap_table_entries(UINT64_C(257) << 20, 9, 16) == 2);
}

static void the_extension(void **state)
{
    const struct q2_header good = {.cluster_bits = 16,
                                   .bitmap_count = 1,
                                   .bitmap_directory_bytes = 32,
                                   .bitmap_directory_offset = 0x50000};
    struct q2_header bad[] = {good, good, good, good, good, good, good, good};
    const uint64_t file_bytes = 0x50020;
    size_t i = 0;

    (void)state;
    bad[i++].bitmap_count = 0;
    bad[i++].bitmap_count = Q2_BITMAPS_MAX + 1;
    bad[i++].bitmap_directory_bytes = 0;
    bad[i++].bitmap_directory_bytes = 33;
    bad[i++].bitmap_directory_bytes = UINT64_MAX;
    bad[i++].bitmap_directory_offset = 0;
    bad[i++].bitmap_directory_offset = 0x50008;
    bad[i++].bitmap_directory_offset = UINT64_C(1) << 63;
    assert_int_equal(i, ARRAY_SIZE(bad));
    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(q2_bitmaps_ext_check(&bad[i], file_bytes, NULL), -EINVAL);
    }
    assert_int_equal(q2_bitmaps_ext_check(&good, file_bytes, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_and_build),
        cmocka_unit_test(broken_structure),
        cmocka_unit_test(entries_that_mean_nothing),
        cmocka_unit_test(table_entries),
        cmocka_unit_test(sizes),
        cmocka_unit_test(the_extension),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
