/* SPDX-License-Identifier: MIT */
/* Memory of the connections of an NBD server: shares of the budget, and what buffers hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "export/nbd/internal.h"

/* Two users of a budget of 64 MiB for four: who takes all it can never takes the other's share. */
static void test_share_of_a_client(void **state)
{
    struct mem_budget budget = {.limit_bytes = 64 << 20};
    struct nbd_bufs greedy = {0}, honest = {0};
    void *held[64], *buf;
    size_t caps[64];
    size_t cap;
    int n = 0;

    nbd_bufs_init(&greedy, &budget, 4);
    nbd_bufs_init(&honest, &budget, 4);
    assert_int_equal(greedy.share_bytes, 8 << 20);
    while ((held[n] = nbd_bufs_get(&greedy, 1 << 20, &caps[n])) != NULL) {
        n++;
    }
    assert_int_equal(n, 32); /* half of all */
    assert_false(nbd_bufs_room(&greedy, 1));
    assert_true(nbd_bufs_room(&honest, 8 << 20));
    assert_false(nbd_bufs_room(&honest, 9 << 20));
    assert_null(nbd_bufs_get(&honest, 16 << 20, &cap)); /* beyond the share there is nothing left */
    buf = nbd_bufs_get(&honest, 8 << 20, &cap);
    assert_non_null(buf);
    assert_null(nbd_bufs_get(&honest, 4096, &caps[n]));
    nbd_bufs_put(&honest, buf, cap);
    while (n-- > 0) {
        nbd_bufs_put(&greedy, held[n], caps[n]);
    }
    assert_true(greedy.cached_bytes <= NBD_BUF_CACHED_MAX);
    buf = nbd_bufs_get(&honest, 32 << 20, &cap); /* now there is, others' caches apart */
    nbd_bufs_trim(&greedy);
    if (buf == NULL) {
        buf = nbd_bufs_get(&honest, 32 << 20, &cap);
    }
    assert_non_null(buf);
    nbd_bufs_put(&honest, buf, cap);
    nbd_bufs_trim(&honest);
    assert_int_equal(budget.used_bytes, 0);
    assert_int_equal(greedy.held_bytes + honest.held_bytes, 0);
}

/* What this process had in its memory does not travel. */
static void test_new_buffers_are_clear(void **state)
{
    struct mem_budget budget = {.limit_bytes = 64 << 20};
    struct nbd_bufs bufs = {0};
    size_t bytes;

    nbd_bufs_init(&bufs, &budget, 1);
    for (bytes = 4096; bytes <= 256 * 1024; bytes *= 2) {
        void *dirty[8];
        size_t cap;
        uint8_t *buf;
        int i;

        for (i = 0; i < 8; i++) {
            assert_int_equal(posix_memalign(&dirty[i], 4096, bytes), 0);
            memset(dirty[i], 0x5a, bytes);
        }
        for (i = 0; i < 8; i++) {
            free(dirty[i]);
        }
        buf = nbd_bufs_get(&bufs, bytes, &cap);
        assert_non_null(buf);
        assert_true(buf[0] == 0 && memcmp(buf, buf + 1, cap - 1) == 0);
        nbd_bufs_put(&bufs, buf, cap);
    }
    nbd_bufs_trim(&bufs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share_of_a_client),
        cmocka_unit_test(test_new_buffers_are_clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
