/* SPDX-License-Identifier: MIT */
/* tools/img/tree_hash.h: runs of zeroes are the same as their chunks one by one. */
#include <stdlib.h>
#include <string.h>

#include "../cmocka_all.h"

#include "tools/img/tree_hash.h"

#define CHUNK ((uint64_t)TREE_HASH_CHUNK_BYTES)

static struct tree_hash *begin(void)
{
    struct tree_hash *tree = malloc(sizeof(*tree));

    assert_non_null(tree);
    assert_int_equal(tree_hash_init(tree, hash_algorithm_find("sha256")), 0);
    return tree;
}

static void end(struct tree_hash *tree, uint64_t disk_bytes, char *ret_text)
{
    unsigned char hash[TREE_HASH_BYTES_MAX];

    assert_int_equal(tree_hash_end(tree, disk_bytes, hash), 0);
    hash_text(hash, tree->alg->bytes, ret_text);
    free(tree);
}

/* before chunks of zeroes, one of data, after chunks of zeroes */
static void hash_of(uint64_t before, uint64_t after, bool in_runs, char *ret_text)
{
    struct tree_hash *tree = begin();
    unsigned char data[TREE_HASH_BYTES_MAX];

    memset(data, 7, sizeof(data));
    for (uint64_t i = 0; !in_runs && i < before; i++) {
        assert_int_equal(tree_hash_add(tree, tree->zeroes[0]), 0);
    }
    assert_int_equal(tree_hash_add_zeroes(tree, in_runs ? before : 0), 0);
    assert_int_equal(tree_hash_add(tree, data), 0);
    for (uint64_t i = 0; !in_runs && i < after; i++) {
        assert_int_equal(tree_hash_add(tree, tree->zeroes[0]), 0);
    }
    end(tree, (before + 1 + after) * CHUNK, ret_text);
}

static void test_runs(void **state)
{
    char last[2 * TREE_HASH_BYTES_MAX + 1] = "";

    (void)state;
    for (uint64_t before = 0; before < 20; before++) {
        for (uint64_t after = 0; after < 20; after++) {
            char runs[2 * TREE_HASH_BYTES_MAX + 1], ones[2 * TREE_HASH_BYTES_MAX + 1];

            hash_of(before, after, true, runs);
            hash_of(before, after, false, ones);
            assert_string_equal(runs, ones);
            assert_string_not_equal(runs, last);
            memcpy(last, runs, sizeof(last));
        }
    }
}

/* The largest disk, empty and with data in its last chunk. */
static void test_largest(void **state)
{
    char empty[2 * TREE_HASH_BYTES_MAX + 1], data[2 * TREE_HASH_BYTES_MAX + 1];
    struct tree_hash *tree = begin();

    (void)state;
    end(tree, INT64_MAX, empty);
    hash_of((UINT64_C(1) << 43) - 1, 0, true, data);
    assert_string_not_equal(empty, data);
}

static void test_algorithms(void **state)
{
    (void)state;
    assert_null(hash_algorithm_find("md5"));
    assert_null(hash_algorithm_find(""));
    assert_int_equal(hash_algorithm_find("sha384")->bytes, 48);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_algorithms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
