/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of a life with backends fails once, and from then on: each call answers with
 * its error or does its work, nothing leaks (the leak checker sees to that), and the instance can
 * be used and ended.
 */
#include "fake.h"
#include "oom.h"

#include <stdlib.h>

static BlockDriverState *try_open(Platter *pl, const char *text)
{
    BlockOptions *options = block_options_parse(text, NULL, NULL);

    return options == NULL ? NULL : bdrv_open(pl, NULL, NULL, options, BDRV_O_RDWR, NULL);
}

/* Counting cannot fail: without memory for figures of the context's own, those of all serve. */
static void count_one(BlockAcctStats *stats)
{
    struct block_acct_latency before, after;
    BlockAcctCookie cookie;

    block_acct_read_latency(stats, BLOCK_ACCT_READ, &before);
    block_acct_start(stats, &cookie, 512, BLOCK_ACCT_READ);
    block_acct_done(stats, &cookie);
    block_acct_read_latency(stats, BLOCK_ACCT_READ, &after);
    assert_int_equal(after.count, before.count + 1);
}

static void use(BlockBackend *blk)
{
    uint8_t buf[512];
    struct iovec iov = {buf, sizeof(buf)};
    struct iov_view view = iov_view_of(&iov, 1);
    struct done done = {0};
    void *mem = blk_blockalign(blk, 100);
    int ret = blk_pwritev(blk, 0, &view, 0);

    blk_blockfree(mem);
    assert_true(ret == 0 || ret == -ENOMEM || ret == -ENOMEDIUM);
    ret = blk_preadv(blk, -1, &view, 0);
    assert_true(ret == -EIO || ret == -ENOMEM || ret == -ENOMEDIUM);
    if (blk_aio_preadv(blk, 0, &view, 0, done_cb, &done) != NULL) {
        done_wait(&done);
        assert_true(done.ret == 0 || done.ret == -ENOMEM || done.ret == -ENOMEDIUM);
    }
    assert_int_equal(done.calls, done.calls != 0);
    blk_drain(blk);
    count_one(blk_get_stats(blk));
}

static void life(Platter *pl)
{
    Error *err = NULL;
    BlockBackend *a = blk_new(pl, "a", &err);
    BlockBackend *b;
    BlockBackend *c;
    BlockDriverState *bs;
    DriveInfo *dinfo;

    assert_true((a == NULL) == (err != NULL));
    error_free(err);
    err = NULL;
    b = blk_new_with_bs(pl, "b", &err);
    assert_true((b == NULL) == (err != NULL));
    error_free(err);
    c = blk_new_open(pl, "c", NULL, NULL, block_options_parse("driver=fake", NULL, NULL),
                     BDRV_O_RDWR, NULL);
    bs = try_open(pl, "driver=fake,node-name=n");
    if (a != NULL && bs != NULL && blk_insert_bs(a, bs, NULL) == 0) {
        use(a);
    }
    if (b != NULL && bs != NULL) {
        int ret = blk_set_bs(b, bs, NULL);

        assert_true(ret == 0 || ret == -ENOMEM);
        assert_non_null(blk_bs(b));
        use(b);
    }
    if (c != NULL) {
        use(c);
        blk_remove_bs(c);
        assert_null(blk_bs(c));
    }
    if (a != NULL) {
        dinfo = drive_info_new("serial", block_options_new());
        if (dinfo != NULL) {
            blk_set_legacy_dinfo(a, dinfo);
        }
        assert_int_equal(blk_attach_dev(a, &dinfo), 0);
        blk_hide_on_behalf_of_hmp_drive_del(a);
        blk_detach_dev(a, &dinfo);
    }
    bdrv_unref(bs);
    blk_unref(a);
    blk_unref(b);
    blk_unref(c);
}

static void test_oom(void **state)
{
    for (int forever = 0; forever < 2; forever++) {
        long n = 0;

        do {
            Platter *pl = platter_new(NULL, NULL);

            assert_non_null(pl);
            oom_arm(n++, forever);
            life(pl);
            oom_disarm();
            life(pl); /* it works again, names included */
            platter_free(pl);
        } while (oom_struck());
        assert_true(n > 40);
        print_message("%ld allocations\n", n - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oom),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
