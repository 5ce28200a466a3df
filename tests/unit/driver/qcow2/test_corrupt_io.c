/* SPDX-License-Identifier: MIT */
/* Impossible mappings: reads are -EIO and told, writes break the node and mark the image. */
#include "image.h"

#include <errno.h>
#include <string.h>

#include "driver/format/qcow2/format.h"

#define K UINT64_C(1024)
#define CLUSTER (64 * K)
#define IN_USE 5 /* a cluster that is there */

struct row {
    const char *what;
    uint64_t word;
    uint64_t bitmap;
    bool extended;
};

static const struct row rows[] = {
    {"a reserved bit", Q2_COPIED | IN_USE *CLUSTER | UINT64_C(1) << 60, 0, false},
    {"a low reserved bit", Q2_COPIED | IN_USE *CLUSTER | 4, 0, false},
    {"not aligned", Q2_COPIED | (IN_USE * CLUSTER + 512), 0, false},
    {"past the end", Q2_COPIED | 500 * CLUSTER, 0, false},
    {"far past the end", Q2_COPIED | UINT64_C(0x00ffffffffff0000), 0, false},
    {"COPIED alone", Q2_COPIED, 0, false},
    {"the zero flag with subclusters", Q2_COPIED | IN_USE *CLUSTER | 1, 1, true},
    {"allocated and zero", Q2_COPIED | IN_USE *CLUSTER, UINT64_C(0x100000001), true},
    {"allocated without a cluster", 0, 1, true},
    {"compressed with subclusters", Q2_COMPRESSED | IN_USE *CLUSTER, 1, true},
};

static void make(struct image *im, const struct row *row)
{
    image_init(im, (struct image_shape){.extended_l2 = row->extended});
    image_set_l2(im, row->word, row->bitmap);
    image_set_refcount(im, IN_USE, 1);
    image_set_word(im, (IN_USE + 1) * CLUSTER - 8, 0);
    image_open(im);
}

static void reads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct image im;

        make(&im, &rows[i]);
        print_message("%s\n", rows[i].what);
        assert_int_equal(image_read(&im, 0, 512), -EIO);
        assert_int_equal(im.told, 1);
        assert_int_equal(im.told_fatal, 0);
        assert_true(strlen(im.message) > 0);
        /* the rest is as it was */
        assert_int_equal(image_read(&im, CLUSTER, CLUSTER), 0);
        assert_int_equal(image_read(&im, 0, 2 * CLUSTER), -EIO);
        image_fini(&im);
    }
}

static void writes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct image im;

        make(&im, &rows[i]);
        print_message("%s\n", rows[i].what);
        assert_int_equal(image_fill(&im, 0, 512, 1), -EIO);
        assert_int_equal(im.told_fatal, 1);
        assert_int_equal(image_read(&im, CLUSTER, CLUSTER), -EIO);
        image_close(&im);
        assert_true((image_word(&im, 72) & Q2_INCOMPAT_CORRUPT) != 0);
        image_fini(&im);
    }
}

static void zeroes_and_discard(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct image im;

        if (strstr(rows[i].what, "past the end") != NULL) {
            continue; /* nothing is written there */
        }
        for (int discard = 0; discard < 2; discard++) {
            make(&im, &rows[i]);
            assert_int_equal(
                discard ? image_discard(&im, 0, CLUSTER) : image_zero(&im, 0, CLUSTER, 0), -EIO);
            assert_int_equal(im.told_fatal, 1);
            image_fini(&im);
        }
    }
}

/* The file was cut inside a cluster: what is there is read, what is not is no zero. */
static void cut_file(void **state)
{
    const struct row row = {"cut", Q2_COPIED | IN_USE * CLUSTER, 0, false};
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){0});
    image_set_l2(&im, row.word, 0);
    image_set_refcount(&im, IN_USE, 1);
    image_set_word(&im, IN_USE * CLUSTER + 8 * K - 8, 0x3333333333333333);
    image_open(&im);
    image_expect(&im, 8 * K - 8, 8, 0x33);
    assert_int_equal(im.told, 0);
    assert_int_equal(image_read(&im, 8 * K - 8, 16), -EIO);
    assert_int_equal(im.told, 1);
    assert_int_equal(image_read(&im, 32 * K, 512), -EIO);
    image_fini(&im);
}

static void l1_entries(void **state)
{
    static const uint64_t words[] = {
        Q2_COPIED | (4 * CLUSTER + 512),
        Q2_COPIED | 4 * CLUSTER | UINT64_C(1) << 57,
        Q2_COPIED | 4 * CLUSTER | 1,
        Q2_COPIED | 600 * CLUSTER,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        for (int write = 0; write < 2; write++) {
            struct image im;

            image_init(&im, (struct image_shape){0});
            image_set_l2(&im, 0, 0);
            image_set_word(&im, IMAGE_L1_CLUSTER * CLUSTER, words[i]);
            image_open(&im);
            assert_int_equal(write ? image_fill(&im, 0, 512, 1) : image_read(&im, 0, 512), -EIO);
            assert_true(im.told > 0);
            image_fini(&im);
        }
    }
}

static void compressed_garbage(void **state)
{
    /* garbage; past the end; into the end; the largest number of sectors; the header */
    static const uint64_t words[] = {
        Q2_COMPRESSED | UINT64_C(10) << 54 | (IN_USE * CLUSTER + 100),
        Q2_COMPRESSED | UINT64_C(10) << 54 | 700 * CLUSTER,
        Q2_COMPRESSED | UINT64_C(255) << 54 | ((IN_USE + 1) * CLUSTER - 600),
        Q2_COMPRESSED | UINT64_C(255) << 54 | IN_USE * CLUSTER,
        Q2_COMPRESSED | 0,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        struct image im;

        image_init(&im, (struct image_shape){0});
        image_set_l2(&im, words[i], 0);
        image_set_refcount(&im, IN_USE, 1);
        for (uint64_t at = 0; at < CLUSTER; at += 8) {
            image_set_word(&im, IN_USE * CLUSTER + at, 0x9e3779b97f4a7c15 * (at + 1));
        }
        image_open(&im);
        assert_int_equal(image_read(&im, 0, 512), -EIO);
        assert_int_equal(im.told, 1);
        assert_int_equal(im.told_fatal, 0);
        assert_int_equal(image_read(&im, CLUSTER, 512), 0);
        image_fini(&im);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads),
        cmocka_unit_test(writes),
        cmocka_unit_test(zeroes_and_discard),
        cmocka_unit_test(cut_file),
        cmocka_unit_test(l1_entries),
        cmocka_unit_test(compressed_garbage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
