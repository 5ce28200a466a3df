/* SPDX-License-Identifier: MIT */
/* What the filters promise and the property suite cannot see: refusals, who waits, what is copied.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/image.h>
#include <platter/throttle.h>

#include "fixture.h"
#include "util/mem.h"

#define KIB 1024
#define REQUESTS 4

/* ---- throttle ---- */

static ThrottleGroup *group_of_ops(Platter *pl, uint64_t ops)
{
    struct throttle_config config = {.size = sizeof(config)};
    ThrottleGroup *group = throttle_group_get(pl, "slow", NULL);

    assert_non_null(group);
    config.limits[THROTTLE_OPS_TOTAL].avg = ops;
    assert_int_equal(throttle_group_set_config(group, &config, NULL), 0);
    return group;
}

static void throttle_options(void **state)
{
    Platter *pl = new_platter();
    ThrottleGroup *group = group_of_ops(pl, 1000000);

    refused(pl, "driver=throttle,file.driver=null-co", EINVAL, "throttle group");
    refused(pl, "driver=throttle,throttle-group=fast,file.driver=null-co", 0, "'fast'");
    refused(pl, "driver=throttle,throttle-group=slow", EINVAL, "file");
    refused(pl, "driver=throttle,throttle-group=slow,file.driver=null-co,iops=3", EINVAL, "iops");
    throttle_group_unref(group);
    platter_free(pl);
}

static void count_done(void *opaque, int ret)
{
    int *done = opaque;

    assert_int_equal(ret, 0);
    (*done)++;
}

/* Requests that would wait for hours all go on when a drain of the filter, or of what is below it,
 * needs them to. */
static void drain_lets_waiters_go(Platter *pl, const char *drained_node)
{
    BlockBackend *blk = must_open(pl, "driver=raw,size=65536,file.driver=throttle,"
                                      "file.throttle-group=slow,file.node-name=filter,"
                                      "file.file.driver=mem,file.file.size=64K,"
                                      "file.file.node-name=below");
    BlockDriverState *bs = bdrv_find_node(pl, drained_node);
    static uint8_t buf[16 * KIB];
    struct iovec iov[REQUESTS];
    struct iov_view view[REQUESTS];
    int done = 0;

    assert_non_null(bs);
    for (int i = 0; i < REQUESTS; i++) {
        iov[i] = (struct iovec){.iov_base = buf, .iov_len = sizeof(buf)};
        view[i] = (struct iov_view){.iov = &iov[i], .niov = 1, .bytes = sizeof(buf)};
        blk_aio_pwritev(blk, i * (int64_t)sizeof(buf), &view[i], 0, count_done, &done);
    }
    bdrv_drained_begin(bs);
    assert_int_equal(done, REQUESTS);
    bdrv_drained_end(bs);
    blk_unref(blk);
}

static void throttle_and_drain(void **state)
{
    Platter *pl = new_platter();
    ThrottleGroup *group = throttle_group_get(pl, "slow", NULL);
    struct throttle_config config = {.size = sizeof(config)};

    config.limits[THROTTLE_BPS_WRITE] = (struct throttle_limit){.avg = 1};
    assert_int_equal(throttle_group_set_config(group, &config, NULL), 0);
    drain_lets_waiters_go(pl, "filter");
    drain_lets_waiters_go(pl, "below");
    throttle_group_unref(group);
    platter_free(pl);
}

/* ---- copy-on-read ---- */

static void make_chain(Platter *pl)
{
    static const char *const names[] = {"base", "mid", "top"};

    for (int i = 0; i < 3; i++) {
        const char *options =
            i == 0 ? text("driver=qcow2,size=1M")
                   : text("driver=qcow2,size=1M,backing_file=%s/%s,backing_fmt=qcow2", dir,
                          names[i - 1]);
        char path[100];
        BlockOptions *parsed = block_options_parse(options, NULL, NULL);

        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        assert_int_equal(bdrv_create(pl, path, parsed, NULL), 0);
    }
}

static void fill(Platter *pl, const char *name, int64_t offset, int byte)
{
    static uint8_t buf[64 * KIB];
    BlockBackend *blk =
        must_open(pl, text("driver=qcow2,file.driver=file,file.filename=%s/%s", dir, name));

    memset(buf, byte, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, offset, buf, sizeof(buf)), sizeof(buf));
    blk_unref(blk);
}

/* The byte there in the top layer alone, 0 where it has none. */
static int top_byte(Platter *pl, int64_t offset)
{
    BlockBackend *blk =
        must_open_as(pl, "d", text("driver=qcow2,file.driver=file,file.filename=%s/top", dir),
                     BDRV_O_NO_BACKING);
    uint8_t byte = 0xff;

    assert_int_equal(blk_pread(blk, offset, &byte, 1), 1);
    blk_unref(blk);
    return byte;
}

static void read_through(Platter *pl, const char *more, int flags, int64_t offset, int want)
{
    BlockBackend *blk = must_open_as(
        pl, "d",
        text("driver=copy-on-read,file.driver=qcow2,file.file.driver=file,"
             "file.file.filename=%s/top,file.backing.driver=qcow2,file.backing.node-name=middle,"
             "file.backing.file.driver=file,file.backing.file.filename=%s/mid%s",
             dir, dir, more),
        flags);
    uint8_t byte = 0;

    assert_int_equal(blk_pread(blk, offset + 100, &byte, 1), 1);
    assert_int_equal(byte, want);
    blk_unref(blk);
}

static void copy_what_is_below(void **state)
{
    Platter *pl;
    struct platter_options opts = {.size = sizeof(opts), .image_refs = PLATTER_REFS_FOLLOW};

    pl = platter_new(&opts, NULL);
    assert_non_null(pl);
    make_chain(pl);
    fill(pl, "base", 0, 1);
    fill(pl, "mid", 64 * KIB, 2);
    fill(pl, "base", 128 * KIB, 3);
    read_through(pl, "", 0, 0, 1);
    assert_int_equal(top_byte(pl, 100), 0); /* read-only: nothing is copied */
    read_through(pl, ",bottom=middle", BDRV_O_RDWR, 0, 1);
    assert_int_equal(top_byte(pl, 100), 0);
    read_through(pl, ",bottom=middle", BDRV_O_RDWR, 64 * KIB, 2);
    assert_int_equal(top_byte(pl, 64 * KIB + 100), 2);
    read_through(pl, "", BDRV_O_RDWR, 128 * KIB, 3);
    assert_int_equal(top_byte(pl, 128 * KIB + 100), 3);
    assert_int_equal(top_byte(pl, 192 * KIB), 0);
    refused(pl,
            text("driver=copy-on-read,bottom=nobody,file.driver=qcow2,"
                 "file.file.driver=file,file.file.filename=%s/top",
                 dir),
            EINVAL, "'nobody'");
    platter_free(pl);
}

/* An image grows its file also where something stands between them. */
static void file_grows_below(void **state)
{
    static const char *const between[] = {"copy-on-read", "raw"};
    static uint8_t buf[1024 * KIB];
    Platter *pl = new_platter();
    char path[100];

    for (size_t i = 0; i < ARRAY_SIZE(between); i++) {
        BlockBackend *blk;

        snprintf(path, sizeof(path), "%s/grows%zu", dir, i);
        assert_int_equal(
            bdrv_create(pl, path, block_options_parse("driver=qcow2,size=8M", NULL, NULL), NULL),
            0);
        blk = must_open(pl, text("driver=qcow2,file.driver=%s,file.file.driver=file,"
                                 "file.file.filename=%s",
                                 between[i], path));
        assert_int_equal(blk_pwrite(blk, 0, buf, sizeof(buf)), sizeof(buf));
        assert_int_equal(blk_pwrite_zeroes(blk, 4096 * KIB, 1024 * KIB + 512, 0), 0);
        blk_unref(blk);
    }
    platter_free(pl);
}

static int setup(void **state)
{
    return folder_begin("/tmp/platter-filters-XXXXXX");
}

static int teardown(void **state)
{
    return folder_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(throttle_options),
        cmocka_unit_test(throttle_and_drain),
        cmocka_unit_test(copy_what_is_below),
        cmocka_unit_test(file_grows_below),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
