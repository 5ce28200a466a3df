/* SPDX-License-Identifier: MIT */
/* util/iov.h: each function against plain memory, on random lists. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../cmocka_all.h"

#include "util/iov.h"

#define PIECES 8
#define PIECE_MAX 40

static unsigned seed;

static unsigned rnd(unsigned below)
{
    seed = seed * 1103515245u + 12345u;
    return (seed >> 8) % below;
}

struct list {
    char memory[PIECES][PIECE_MAX];
    struct iovec iov[PIECES];
    size_t niov;
    size_t bytes;
    char flat[PIECES * PIECE_MAX];
};

/* Random pieces, empty ones among them, with random content; flat holds the same bytes. */
static void list_make(struct list *l)
{
    l->niov = rnd(PIECES + 1);
    l->bytes = 0;
    for (size_t i = 0; i < l->niov; i++) {
        l->iov[i] = (struct iovec){.iov_base = l->memory[i], .iov_len = rnd(PIECE_MAX + 1)};
        for (size_t b = 0; b < l->iov[i].iov_len; b++) {
            l->memory[i][b] = (char)rnd(256);
            l->flat[l->bytes++] = l->memory[i][b];
        }
    }
}

static void copies_and_slices(void **state)
{
    for (int round = 0; round < 3000; round++) {
        struct list l;
        char buf[PIECES * PIECE_MAX];
        struct iovec out[PIECES];
        size_t offset, bytes, used, max, done = 0;
        uint64_t covered;

        list_make(&l);
        offset = rnd((unsigned)l.bytes + 1);
        bytes = rnd((unsigned)(l.bytes - offset) + 1);
        assert_int_equal(iov_bytes(l.iov, l.niov), l.bytes);
        assert_int_equal(iov_view_of(l.iov, l.niov).bytes, l.bytes);
        iov_to_buf(l.iov, l.niov, offset, buf, bytes);
        assert_memory_equal(buf, l.flat + offset, bytes);

        max = rnd(PIECES + 1);
        used = iov_slice(l.iov, l.niov, offset, bytes, out, max, &covered);
        assert_true(used <= max && covered <= bytes);
        assert_true(covered == bytes || used == max);
        for (size_t i = 0; i < used; i++) {
            assert_memory_equal(out[i].iov_base, l.flat + offset + done, out[i].iov_len);
            done += out[i].iov_len;
        }
        assert_int_equal(done, covered);
        if (covered == bytes) {
            assert_int_equal(iov_count(l.iov, l.niov, offset, bytes), used);
        }
    }
}

static void writes_touch_only_the_range(void **state)
{
    for (int round = 0; round < 3000; round++) {
        struct list l;
        char buf[PIECES * PIECE_MAX], after[PIECES * PIECE_MAX];
        size_t offset, bytes;

        list_make(&l);
        offset = rnd((unsigned)l.bytes + 1);
        bytes = rnd((unsigned)(l.bytes - offset) + 1);
        if (round % 2) {
            memset(buf, 0x5a, sizeof(buf));
            iov_from_buf(l.iov, l.niov, offset, buf, bytes);
            memset(l.flat + offset, 0x5a, bytes);
        } else {
            iov_fill(l.iov, l.niov, offset, 0, bytes);
            memset(l.flat + offset, 0, bytes);
            assert_true(iov_is_zero(l.iov, l.niov, offset, bytes));
        }
        iov_to_buf(l.iov, l.niov, 0, after, l.bytes);
        assert_memory_equal(after, l.flat, l.bytes);
    }
}

static void consume_drops_the_front(void **state)
{
    for (int round = 0; round < 3000; round++) {
        struct list l;
        char buf[PIECES * PIECE_MAX];
        size_t drop;

        list_make(&l);
        drop = rnd((unsigned)l.bytes + 1);
        l.niov = iov_consume(l.iov, l.niov, drop);
        assert_int_equal(iov_bytes(l.iov, l.niov), l.bytes - drop);
        iov_to_buf(l.iov, l.niov, 0, buf, l.bytes - drop);
        assert_memory_equal(buf, l.flat + drop, l.bytes - drop);
    }
}

static void alignment(void **state)
{
    char *memory = aligned_alloc(4096, 8192);
    struct iovec iov[] = {{memory, 512}, {memory + 1024, 1024}};

    assert_true(iov_is_aligned(iov, 2, 0, 1536, 512));
    assert_false(iov_is_aligned(iov, 2, 0, 1536, 1024));
    assert_true(iov_is_aligned(iov, 2, 512, 1024, 1024));
    assert_false(iov_is_aligned(iov, 2, 1, 511, 512));
    assert_false(iov_is_aligned(iov, 2, 0, 511, 512));
    assert_true(iov_is_aligned(iov, 2, 700, 0, 512));
    free(memory);
}

static void zero_test_sees_each_byte(void **state)
{
    char buf[200];

    for (size_t bytes = 0; bytes < sizeof(buf); bytes++) {
        memset(buf, 0, sizeof(buf));
        memset(buf + bytes, 0xff, sizeof(buf) - bytes);
        assert_true(buffer_is_zero(buf, bytes));
        for (size_t at = 0; at < bytes; at++) {
            buf[at] = 1;
            assert_false(buffer_is_zero(buf, bytes));
            buf[at] = 0;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_and_slices),        cmocka_unit_test(writes_touch_only_the_range),
        cmocka_unit_test(consume_drops_the_front),  cmocka_unit_test(alignment),
        cmocka_unit_test(zero_test_sees_each_byte),
    };
    const char *given = getenv("PLATTER_SEED");

    seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
    printf("PLATTER_SEED=%u\n", seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
