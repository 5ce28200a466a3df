/* SPDX-License-Identifier: MIT */
/* Section 2.11 of the seed: multiwrite, its row and what batches of any shape must do. */
#include "fake.h"

#include <stdio.h>

#define BATCH_MAX 24

struct batch {
    BlockRequest reqs[BATCH_MAX];
    struct iovec iov[BATCH_MAX];
    struct iov_view views[BATCH_MAX];
    uint8_t *bufs[BATCH_MAX];
    struct done done[BATCH_MAX];
    int count;
};

static void batch_add(struct batch *b, int64_t sector, int nb_sectors, uint8_t pattern)
{
    int i = b->count++;
    size_t bytes = nb_sectors > 0 ? (size_t)nb_sectors * 512 : 0;

    b->bufs[i] = malloc(bytes + 1);
    memset(b->bufs[i], pattern, bytes + 1);
    b->iov[i] = (struct iovec){.iov_base = b->bufs[i], .iov_len = bytes};
    b->views[i] = (struct iov_view){.iov = &b->iov[i], .niov = 1, .bytes = bytes};
    b->reqs[i] = (BlockRequest){.sector = sector,
                                .nb_sectors = nb_sectors,
                                .iov = &b->views[i],
                                .cb = done_cb,
                                .opaque = &b->done[i],
                                .error = 77};
}

static void batch_wait(struct batch *b, int ret)
{
    for (int i = 0; i < b->count; i++) {
        done_wait(&b->done[i]);
        assert_int_equal(b->done[i].calls, 1);
        assert_int_equal(b->done[i].ret, ret);
        free(b->bufs[i]);
    }
    b->count = 0;
}

static void batch_free(struct batch *b)
{
    for (int i = 0; i < b->count; i++) {
        assert_int_equal(b->done[i].calls, 0);
        free(b->bufs[i]);
    }
}

static void test_blk_aio_multiwrite(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    struct fake *fake = fake_of(blk_bs(blk));
    struct block_acct_totals totals;
    struct batch b = {0};

    /* in any order: 0-3 and 3-5 touch, 10 stands alone, 11-12 touches it */
    batch_add(&b, 10, 1, 0xa);
    batch_add(&b, 3, 2, 0xb);
    batch_add(&b, 0, 3, 0xc);
    batch_add(&b, 11, 2, 0xd);
    batch_add(&b, 20, 1, 0xe);
    assert_int_equal(blk_aio_multiwrite(blk, b.reqs, b.count), 0);
    for (int i = 0; i < b.count; i++) {
        assert_int_equal(b.reqs[i].error, 0);
        assert_int_equal(b.done[i].calls, 0); /* never before the call has returned */
    }
    batch_wait(&b, 0);
    assert_int_equal(atomic_load(&fake->writes), 3);
    assert_int_equal(fake->data[0], 0xc);
    assert_int_equal(fake->data[3 * 512], 0xb);
    assert_int_equal(fake->data[5 * 512], 0);
    assert_int_equal(fake->data[10 * 512], 0xa);
    assert_int_equal(fake->data[12 * 512], 0xd);
    assert_int_equal(fake->data[20 * 512], 0xe);
    block_acct_read(blk_get_stats(blk), &totals);
    assert_int_equal(totals.merged[BLOCK_ACCT_WRITE], 2);
    blk_unref(blk);
}

/* The first bad element's errno, and nothing is submitted. */
static void test_first_bad_one(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    BlockDriverState *bs = blk_bs(blk);
    struct fake *fake = fake_of(bs);
    struct batch b = {0};

    bdrv_ref(bs); /* looked at when it is removed */
    batch_add(&b, 0, 1, 1);
    batch_add(&b, FAKE_SECTORS, 1, 1);
    assert_int_equal(blk_aio_multiwrite(blk, b.reqs, 2), -EIO);
    b.reqs[1].sector = -1;
    assert_int_equal(blk_aio_multiwrite(blk, b.reqs, 2), -EIO);
    b.reqs[1].sector = 1;
    b.reqs[1].nb_sectors = 2; /* not what its memory says */
    assert_int_equal(blk_aio_multiwrite(blk, b.reqs, 2), -EINVAL);
    b.reqs[1].nb_sectors = 1;
    blk_remove_bs(blk);
    assert_int_equal(blk_aio_multiwrite(blk, b.reqs, 2), -ENOMEDIUM);
    assert_int_equal(blk_aio_multiwrite(blk, b.reqs, 0), 0); /* even when empty */
    env_poll(env);
    assert_int_equal(atomic_load(&fake->writes), 0);
    batch_free(&b);
    bdrv_unref(bs);
    blk_unref(blk);
}

static void test_failure_reaches_all(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    struct batch b = {0};

    fake_of(blk_bs(blk))->fail = -ENOSPC;
    batch_add(&b, 0, 1, 1);
    batch_add(&b, 1, 1, 1);
    batch_add(&b, 9, 1, 1);
    assert_int_equal(blk_aio_multiwrite(blk, b.reqs, 3), 0);
    batch_wait(&b, -ENOSPC);
    blk_unref(blk);
}

/* Batches of any shape leave what writing one after the other would. */
static void test_random_batches(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    struct fake *fake = fake_of(blk_bs(blk));
    static uint8_t want[64 * 512];
    const char *text = getenv("PLATTER_SEED");
    unsigned seed = text != NULL ? (unsigned)strtoul(text, NULL, 0) : 11;

    print_message("seed %u\n", seed);
    srand(seed);
    memset(want, 0, sizeof(want));
    for (int round = 0; round < 3000; round++) {
        struct batch b = {0};
        int count = 1 + rand() % BATCH_MAX;

        for (int i = 0; i < count; i++) {
            int64_t sector = rand() % 60;
            int n = rand() % 4 == 0 ? 4 : rand() % 3;

            batch_add(&b, sector, n, (uint8_t)(1 + rand() % 255));
            memset(want + sector * 512, b.bufs[i][0], (size_t)n * 512);
        }
        assert_int_equal(blk_aio_multiwrite(blk, b.reqs, b.count), 0);
        batch_wait(&b, 0);
        assert_memory_equal(fake->data, want, sizeof(want));
    }
    blk_unref(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_blk_aio_multiwrite, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_first_bad_one, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_failure_reaches_all, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_random_batches, env_setup, env_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
