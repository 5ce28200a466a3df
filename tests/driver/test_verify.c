/* SPDX-License-Identifier: MIT */
/* blkverify: what differs is found and told with its place, whatever the request looks like; what
 * cannot be compared is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/block.h>
#include <platter/event.h>

#include "fixture.h"

#define BYTES (256 * 1024)

struct told {
    int times;
    uint64_t offset;
    char message[256];
};

static void sink(void *opaque, const struct platter_event *event)
{
    struct told *told = opaque;

    if (event->type == PLATTER_EVENT_IMAGE_CORRUPTED) {
        assert_false(event->u.image_corrupted.fatal);
        told->times++;
        told->offset = event->u.image_corrupted.offset_bytes;
        snprintf(told->message, sizeof(told->message), "%s", event->u.image_corrupted.message);
    }
}

static Platter *listening(struct told *told)
{
    struct platter_options options = {
        .size = sizeof(options), .event_cb = sink, .event_opaque = told};
    Platter *pl = platter_new(&options, NULL);

    assert_non_null(pl);
    return pl;
}

/* Over two nodes that can be reached on their own too. */
static BlockBackend *verified(Platter *pl, BlockBackend **ret_raw, const char *raw,
                              BlockBackend **ret_test, const char *test)
{
    const char *share = ",node-name=";

    *ret_raw = must_open_as(pl, "raw", text("%s%sr", raw, share), BDRV_O_RDWR);
    *ret_test = must_open_as(pl, "test", text("%s%st", test, share), BDRV_O_RDWR);
    return must_open(pl, "driver=blkverify,raw=r,test=t");
}

static void test_difference(void **state)
{
    static const struct {
        uint64_t at;
        int from;
        int bytes;
        bool seen;
    } reads[] = {
        {0, 0, 1, true},          {511, 0, 512, true},
        {511, 0, 511, false},     {512, 0, 512, false},
        {70000, 0, BYTES, true},  {70000, 70000, 1, true},
        {70000, 70001, 9, false}, {BYTES - 1, 4096, BYTES - 4096, true},
    };
    static uint8_t buf[BYTES];

    for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
        struct told told = {0};
        Platter *pl = listening(&told);
        BlockBackend *raw, *test;
        BlockBackend *blk =
            verified(pl, &raw, "driver=mem,size=256K", &test, "driver=mem,size=256K");

        assert_int_equal(blk_pwrite(blk, 0, buf, BYTES), BYTES);
        assert_int_equal(blk_pread(blk, 0, buf, BYTES), BYTES);
        assert_int_equal(blk_pwrite(test, (int64_t)reads[i].at, "x", 1), 1);
        assert_int_equal(blk_pread(blk, reads[i].from, buf, reads[i].bytes),
                         reads[i].seen ? -EIO : reads[i].bytes);
        assert_int_equal(told.times, reads[i].seen);
        if (reads[i].seen) {
            char place[64];

            snprintf(place, sizeof(place), "mismatch at offset %d (sector %d)", (int)reads[i].at,
                     (int)reads[i].at / 512);
            assert_int_equal(told.offset, reads[i].at);
            assert_non_null(strstr(told.message, place));
            assert_int_equal(blk_pread(blk, reads[i].from, buf, reads[i].bytes), -EIO);
            assert_int_equal(told.times, 1); /* the first one is told */
        }
        assert_int_equal(blk_pwrite(blk, (int64_t)reads[i].at, "y", 1), 1); /* equal again */
        assert_int_equal(blk_pread(blk, 0, buf, BYTES), BYTES);
        memset(buf, 0, sizeof(buf));
        blk_unref(blk);
        blk_unref(raw);
        blk_unref(test);
        platter_free(pl);
    }
}

/* Of a request in pieces: the place counts over all of them. */
static void test_vector(void **state)
{
    struct told told = {0};
    Platter *pl = listening(&told);
    BlockBackend *raw, *test;
    BlockBackend *blk = verified(pl, &raw, "driver=mem,size=256K", &test, "driver=mem,size=256K");
    uint8_t parts[3][1000];
    struct iovec iov[] = {{parts[0], 10}, {parts[1], 0}, {parts[1], 1000}, {parts[2], 1000}};
    struct iov_view view = {.iov = iov, .niov = 4, .bytes = 2010};

    assert_int_equal(blk_preadv(blk, 0, &view, 0), 0);
    assert_int_equal(blk_pwrite(test, 1500, "x", 1), 1);
    assert_int_equal(blk_preadv(blk, 0, &view, 0), -EIO);
    assert_int_equal(told.offset, 1500);
    blk_unref(blk);
    blk_unref(raw);
    blk_unref(test);
    platter_free(pl);
}

/* One of them fails: its error, and the difference is told; both fail: no difference. */
static void test_one_fails(void **state)
{
    static const char *const good = "driver=mem,size=256K";
    static const char *const bad = "driver=blkdebug,inject-error.0.event=none,"
                                   "inject-error.0.errno=28,image.driver=mem,image.size=256K";
    const struct {
        const char *raw;
        const char *test;
        int told;
    } cases[] = {{bad, good, 1}, {good, bad, 1}, {bad, bad, 0}};

    for (size_t i = 0; i < 3; i++) {
        struct told told = {0};
        Platter *pl = listening(&told);
        BlockBackend *raw, *test;
        BlockBackend *blk = verified(pl, &raw, cases[i].raw, &test, cases[i].test);

        assert_int_equal(blk_pwrite(blk, 512, "x", 1), -ENOSPC);
        assert_int_equal(told.times, cases[i].told);
        if (cases[i].told) {
            assert_non_null(strstr(told.message, "ends differently"));
        }
        blk_unref(blk);
        blk_unref(raw);
        blk_unref(test);
        platter_free(pl);
    }
}

static void test_refused(void **state)
{
    Platter *pl = new_platter();

    refused(pl, "driver=blkverify,raw.driver=mem,raw.size=1M", EINVAL, "test");
    refused(pl, "driver=blkverify,test.driver=mem,test.size=1M", EINVAL, "raw");
    refused(pl, "driver=blkverify,raw.driver=mem,raw.size=1M,test.driver=mem,test.size=1048575",
            EINVAL, "differ in size");
    platter_free(pl);
}

/* Both get the new size, or neither. */
static void test_resize(void **state)
{
    struct told told = {0};
    Platter *pl = listening(&told);
    BlockBackend *raw, *test;
    BlockBackend *blk;
    Error *err = NULL;
    uint8_t buf[4096];
    char file[256];

    make_file("disk", BYTES);
    snprintf(file, sizeof(file), "driver=file,filename=%s/disk", dir);
    blk = verified(pl, &raw, "driver=mem,size=256K", &test, file);
    assert_int_equal(resize(blk, 2 * BYTES, BDRV_PREALLOC_OFF, NULL), 0);
    assert_int_equal(blk_getlength(raw), 2 * BYTES);
    assert_int_equal(blk_getlength(test), 2 * BYTES);
    assert_int_equal(blk_pread(blk, 2 * BYTES - 4096, buf, sizeof(buf)), sizeof(buf));
    assert_true(resize(blk, INT64_C(1) << 62, BDRV_PREALLOC_OFF, &err) < 0);
    error_free(err);
    assert_int_equal(blk_getlength(raw), blk_getlength(test));
    assert_int_equal(told.times, 0);
    blk_unref(blk);
    blk_unref(raw);
    blk_unref(test);
    platter_free(pl);
}

static int group_setup(void **state)
{
    return folder_begin("/tmp/platter-verify-XXXXXX");
}

static int group_teardown(void **state)
{
    return folder_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_difference), cmocka_unit_test(test_vector),
        cmocka_unit_test(test_one_fails),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_resize),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
