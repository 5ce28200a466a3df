/* SPDX-License-Identifier: MIT */
/* blkdebug: which request its rules befall, and which rules, limits and config files are refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/block.h>

#include "fixture.h"
#include "util/mem.h"

#define KIB 1024
#define ON_MEM "driver=blkdebug,image.driver=mem,image.size=1M"
#define UNDER_RAW                                                                                  \
    "driver=raw,size=1048576,file.driver=blkdebug,file.image.driver=mem,file.image.size=1M"

static uint8_t buf[64 * KIB];

static int put(BlockBackend *blk, int64_t offset, int bytes)
{
    int ret = blk_pwrite(blk, offset, buf, bytes);

    return ret < 0 ? ret : 0;
}

static int get(BlockBackend *blk, int64_t offset, int bytes)
{
    int ret = blk_pread(blk, offset, buf, bytes);

    return ret < 0 ? ret : 0;
}

static void put_config(const char *content, size_t bytes)
{
    FILE *f = fopen(text("%s/rules", dir), "w");

    assert_non_null(f);
    assert_int_equal(fwrite(content, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static void rules_of_a_kind(void **state)
{
    static const struct {
        const char *iotype;
        int read, write, zeroes, discard, flush;
    } kinds[] = {
        {"", -EIO, -EIO, -EIO, -EIO, -EIO},
        {",inject-error.0.iotype=read", -EIO, 0, 0, 0, 0},
        {",inject-error.0.iotype=write", 0, -EIO, 0, 0, 0},
        {",inject-error.0.iotype=write-zeroes", 0, 0, -EIO, 0, 0},
        {",inject-error.0.iotype=discard", 0, 0, 0, -EIO, 0},
        {",inject-error.0.iotype=flush", 0, 0, 0, 0, -EIO},
        {",inject-error.0.iotype=block-status", 0, 0, 0, 0, 0},
    };
    Platter *pl = new_platter();

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        BlockBackend *blk =
            must_open(pl, text(ON_MEM ",inject-error.0.event=none%s", kinds[i].iotype));

        assert_int_equal(get(blk, 0, 512), kinds[i].read);
        assert_int_equal(put(blk, 0, 512), kinds[i].write);
        assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), kinds[i].zeroes);
        assert_int_equal(blk_pdiscard(blk, 0, 512), kinds[i].discard);
        assert_int_equal(blk_flush(blk), kinds[i].flush);
        blk_unref(blk);
    }
    platter_free(pl);
}

static void sector_and_once(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, ON_MEM ",inject-error.0.event=none,inject-error.0.sector=3,"
                                             "inject-error.0.errno=28");

    assert_int_equal(get(blk, 0, 1536), 0);
    assert_int_equal(get(blk, 0, 1537), -ENOSPC);
    assert_int_equal(get(blk, 1536, 1), -ENOSPC);
    assert_int_equal(get(blk, 1537, 511), 0); /* the sector begins before it */
    assert_int_equal(blk_flush(blk), 0);      /* has no sector */
    blk_unref(blk);

    blk = must_open(pl, ON_MEM ",inject-error.0.event=none,inject-error.0.once=on,"
                               "inject-error.1.event=pwritev,inject-error.1.errno=22,"
                               "inject-error.1.once=on,inject-error.1.immediately=on");
    assert_int_equal(get(blk, 0, 512), -EIO);
    assert_int_equal(get(blk, 0, 512), 0);
    assert_int_equal(put(blk, 0, 512), -EINVAL);
    assert_int_equal(put(blk, 0, 512), 0);
    blk_unref(blk);
    platter_free(pl);
}

/* What is armed stays so until its like is: here a read arms what a write fails of. */
static void armed_until_others_are(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, UNDER_RAW ",file.inject-error.0.event=read_aio,"
                                                "file.inject-error.0.errno=28,"
                                                "file.inject-error.1.event=write_aio,"
                                                "file.inject-error.1.errno=22,"
                                                "file.inject-error.1.sector=9");

    assert_int_equal(put(blk, 0, 512), 0);
    assert_int_equal(get(blk, 0, 512), -ENOSPC);
    assert_int_equal(blk_pdiscard(blk, 0, 512), -ENOSPC);
    assert_int_equal(put(blk, 0, 512), 0);
    assert_int_equal(put(blk, 9 * 512, 512), -EINVAL);
    blk_unref(blk);
    platter_free(pl);
}

/* The second write fails: the rules of one event see the state that was before it. */
static void states(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, UNDER_RAW ",file.set-state.0.event=write_aio,"
                                                "file.set-state.0.state=1,"
                                                "file.set-state.0.new_state=2,"
                                                "file.set-state.1.event=write_aio,"
                                                "file.set-state.1.state=2,"
                                                "file.set-state.1.new_state=3,"
                                                "file.inject-error.0.event=write_aio,"
                                                "file.inject-error.0.state=2,"
                                                "file.inject-error.0.iotype=write,"
                                                "file.inject-error.0.once=on");

    assert_int_equal(put(blk, 0, 512), 0);
    assert_int_equal(put(blk, 0, 512), -EIO);
    assert_int_equal(put(blk, 0, 512), 0);
    blk_unref(blk);
    platter_free(pl);
}

/* Points of a write that is no whole block. */
static void points_of_a_change(void **state)
{
    static const struct {
        const char *event;
        int whole, head, tail, zeroes;
    } points[] = {
        {"pwritev", -EIO, -EIO, -EIO, 0},    {"pwritev_zero", 0, 0, 0, -EIO},
        {"pwritev_rmw_head", 0, -EIO, 0, 0}, {"pwritev_rmw_after_head", 0, -EIO, 0, 0},
        {"pwritev_rmw_tail", 0, 0, -EIO, 0}, {"pwritev_rmw_after_tail", 0, 0, -EIO, 0},
        {"flush_to_disk", 0, 0, 0, 0},
    };
    Platter *pl = new_platter();

    for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
        const char *options = text(ON_MEM ",align=4096,inject-error.0.once=on,"
                                          "inject-error.0.event=%s",
                                   points[i].event);
        BlockBackend *blk = must_open(pl, options);

        assert_int_equal(put(blk, 0, 4096), points[i].whole);
        blk_unref(blk);
        blk = must_open(pl, options);
        assert_int_equal(put(blk, 512, 3584), points[i].head);
        blk_unref(blk);
        blk = must_open(pl, options);
        assert_int_equal(put(blk, 4096, 512), points[i].tail);
        blk_unref(blk);
        blk = must_open(pl, options);
        assert_int_equal(blk_pwrite_zeroes(blk, 4096, 4096, 0), points[i].zeroes);
        blk_unref(blk);
    }
    platter_free(pl);
}

static void write_done(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

/* A delay lasts, and a read beside it does not wait. Its length is the clock's affair. */
static void delay(void **state)
{
    Platter *pl = new_platter();
    AioContext *ctx = platter_get_main_context(pl);
    BlockBackend *blk =
        must_open(pl, ON_MEM ",inject-delay.0.event=none,inject-delay.0.iotype=write,"
                             "inject-delay.0.latency-ns=20000000,"
                             "inject-delay.0.once=on");
    struct iovec iov = {.iov_base = buf, .iov_len = 512};
    struct iov_view view = {.iov = &iov, .niov = 1, .bytes = 512};
    int ret = 1;

    blk_aio_pwritev(blk, 0, &view, 0, write_done, &ret);
    assert_int_equal(get(blk, 4096, 512), 0);
    assert_int_equal(ret, 1);
    while (ret == 1) {
        aio_poll(ctx, true);
    }
    assert_int_equal(ret, 0);
    assert_int_equal(put(blk, 0, 512), 0);
    blk_unref(blk);
    platter_free(pl);
}

static void bad_options(void **state)
{
    Platter *pl = new_platter();
    const char *on_file = "driver=blkdebug,image.driver=mem,image.size=1M";

    refused(pl, "driver=blkdebug", EINVAL, "image");
    refused(pl, text("%s,inject-error.0.errno=5", on_file), EINVAL, "Missing event");
    refused(pl, text("%s,inject-error.0.event=read_ai", on_file), EINVAL, "'read_ai'");
    refused(pl, text("%s,inject-error.0.event=none,inject-error.0.errno=0", on_file), 0, "errno");
    refused(pl, text("%s,inject-error.0.event=none,inject-error.0.errno=-5", on_file), 0, "errno");
    refused(pl, text("%s,inject-error.0.event=none,inject-error.0.sector=-2", on_file), 0,
            "sector");
    refused(pl,
            text("%s,inject-error.0.event=none,inject-error.0.sector=18014398509481984", on_file),
            0, "sector");
    refused(pl, text("%s,inject-error.0.event=none,inject-error.0.x=1", on_file), EINVAL, "'x'");
    refused(pl, text("%s,inject-error.0.event=none,inject-error.2.event=none", on_file), EINVAL,
            "numbered");
    refused(pl, text("%s,set-state.0.event=none", on_file), EINVAL, "new_state");
    refused(pl, text("%s,inject-delay.0.event=none", on_file), EINVAL, "latency-ns");
    refused(pl, text("%s,take-child-perms.0=all", on_file), EINVAL, "'all'");
    refused(pl, text("%s,align=3", on_file), EINVAL, "align 3");
    refused(pl, text("%s,align=4096,max-transfer=6000", on_file), EINVAL, "max-transfer 6000");
    refused(pl, text("%s,opt-discard=512,max-discard=600", on_file), EINVAL, "max-discard 600");
    refused(pl, text("%s,nonsense=1", on_file), EINVAL, "nonsense");
    platter_free(pl);
}

static void config_files(void **state)
{
    static const struct {
        const char *content;
        const char *words; /* of the refusal; NULL: a read fails with ENOSPC */
    } files[] = {
        {"# a comment\n\n[inject-error]\nevent = \"none\"\nerrno = \"28\"\n", NULL},
        {"[inject-error \"x\"]\r\n  event=\"none\"\r\n\terrno\t= \"0x1c\"\r\n", NULL},
        {"[inject-error]\nevent = \"write_aio\"\nevent = \"none\"\nerrno = \"28\"", NULL},
        {"event = \"none\"\n", "no group"},
        {"bogus\n", "no group"},
        {"[bogus]\nevent = \"none\"\n", "'bogus'"},
        {"[inject-error\nevent = \"none\"\n", "Line 1"},
        {"[inject-error]\n\nevent = none\n", "Line 3"},
        {"[inject-error]\nevent = \"none\n", "Line 2"},
        {"[inject-error]\n= \"none\"\n", "Line 2"},
        {"[inject-error]\nevent = \"none\" x\n", "Line 2"},
        {"[inject-error]\ne v = \"none\"\n", "Line 2"},
        {"[inject-error]\nev..x = \"none\"\n", "'ev..x'"},
        {"[inject-error]\nevent = \"none\"\nonce = \"maybe\"\n", "once"},
        {"[set-state]\nevent = \"none\"\nerrno = \"5\"\nnew_state = \"2\"", "'errno'"},
        {"[inject-error]\n", "Missing event"},
    };
    Platter *pl = new_platter();
    char options[256];

    snprintf(options, sizeof(options), ON_MEM ",config=%s/rules", dir);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        put_config(files[i].content, strlen(files[i].content));
        if (files[i].words != NULL) {
            refused(pl, options, EINVAL, files[i].words);
        } else {
            BlockBackend *blk = must_open(pl, options);

            assert_int_equal(get(blk, 0, 512), -ENOSPC);
            blk_unref(blk);
        }
    }
    put_config("[inject-error]\n\0", 16);
    refused(pl, options, EINVAL, "no text");
    platter_free(pl);
}

static void config_files_that_are_large(void **state)
{
    static char content[128 * KIB];
    static const char rule[] = "[inject-error]\nevent = \"none\"\n";
    Platter *pl = new_platter();
    size_t used = 0;
    char options[256];

    snprintf(options, sizeof(options), ON_MEM ",config=%s/rules", dir);
    memset(content, '\n', sizeof(content));
    put_config(content, 64 * KIB);
    blk_unref(must_open(pl, options));
    put_config(content, 64 * KIB + 1);
    refused(pl, options, EFBIG, "larger than");
    for (int i = 0; i < 1025; i++) {
        used += (size_t)snprintf(content + used, sizeof(content) - used, "%s", rule);
    }
    put_config(content, used - strlen(rule));
    blk_unref(must_open(pl, options));
    put_config(content, used);
    refused(pl, options, E2BIG, "1024");
    refused(pl, text(ON_MEM ",config=%s/missing", dir), ENOENT, "config file");
    refused(pl, text(ON_MEM ",config=%s", dir), EISDIR, "config file");
    platter_free(pl);
}

static void names(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk;
    char name[256];

    make_file("disk", 1 << 20);
    snprintf(name, sizeof(name), "blkdebug::%s/disk", dir);
    blk = blk_new_open(pl, "d", name, NULL, NULL, BDRV_O_RDWR, NULL);
    assert_non_null(blk);
    assert_string_equal(bdrv_get_filename(blk_bs(blk)), name);
    blk_unref(blk);
    blk = must_open(
        pl, text("driver=blkdebug,align=512,image.driver=file,image.filename=%s/disk", dir));
    assert_non_null(strstr(bdrv_get_filename(blk_bs(blk)), "\"align\": \"512\""));
    blk_unref(blk);
    assert_null(blk_new_open(pl, "d", "blkdebug:disk", NULL, NULL, BDRV_O_RDWR, NULL));
    platter_free(pl);
}

/* What others may do to the child is for the filter to say. */
static void perms(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, "driver=mem,size=1M,node-name=disk");

    refused_as(pl, "driver=blkdebug,image=disk,unshare-child-perms.0=write", 0, EPERM, "'disk'");
    blk_unref(open_as(pl, "e", "driver=blkdebug,image=disk", 0, NULL));
    blk_unref(blk);
    platter_free(pl);
}

/* ---- breakpoints ---- */

struct writer {
    BlockBackend *blk;
    struct iovec iov;
    struct iov_view view;
    int ret; /* 1: under way */
};

static void writer_begin(struct writer *w, BlockBackend *blk, int64_t offset)
{
    *w = (struct writer){.blk = blk, .iov = {.iov_base = buf, .iov_len = 512}, .ret = 1};
    w->view = (struct iov_view){.iov = &w->iov, .niov = 1, .bytes = 512};
    blk_aio_pwritev(blk, offset, &w->view, 0, write_done, &w->ret);
}

static int writer_end(struct writer *w)
{
    while (w->ret == 1) {
        aio_poll(platter_get_main_context(blk_get_platter(w->blk)), true);
    }
    return w->ret;
}

static void wait_suspended(BlockBackend *blk, const char *tag)
{
    while (bdrv_debug_is_suspended(blk_bs(blk), tag) == 0) {
        aio_poll(platter_get_main_context(blk_get_platter(blk)), true);
    }
    assert_int_equal(bdrv_debug_is_suspended(blk_bs(blk), tag), 1);
}

/* Two requests stop, others pass, and they go on in the order that they are told to. */
static void breakpoints(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, UNDER_RAW);
    BlockDriverState *bs = blk_bs(blk);
    struct writer a;
    struct writer b;

    assert_int_equal(bdrv_debug_breakpoint(bs, "write_aio", "A"), 0);
    writer_begin(&a, blk, 0);
    wait_suspended(blk, "A");
    assert_int_equal(bdrv_debug_breakpoint(bs, "write_aio", "B"), 0);
    assert_int_equal(get(blk, 0, 512), 0);
    writer_begin(&b, blk, 512);
    wait_suspended(blk, "B");
    assert_int_equal(put(blk, 1024, 512), 0); /* both are used up */
    assert_int_equal(bdrv_debug_resume(bs, "B"), 0);
    assert_int_equal(writer_end(&b), 0);
    assert_int_equal(a.ret, 1);
    assert_int_equal(bdrv_debug_is_suspended(bs, "A"), 1);
    assert_int_equal(bdrv_debug_remove_breakpoint(bs, "A"), -ENOENT); /* used up, but lets go */
    assert_int_equal(writer_end(&a), 0);

    assert_int_equal(bdrv_debug_breakpoint(bs, "write_aio", "C"), 0);
    assert_int_equal(bdrv_debug_remove_breakpoint(bs, "C"), 0);
    assert_int_equal(put(blk, 0, 512), 0);
    assert_int_equal(bdrv_debug_resume(bs, "C"), -ENOENT);
    assert_int_equal(bdrv_debug_breakpoint(bs, "write", "C"), -ENOENT);
    blk_unref(blk);

    blk = must_open(pl, "driver=mem,size=1M");
    assert_int_equal(bdrv_debug_breakpoint(blk_bs(blk), "write_aio", "A"), -ENOTSUP);
    assert_int_equal(bdrv_debug_resume(blk_bs(blk), "A"), -ENOTSUP);
    assert_int_equal(bdrv_debug_remove_breakpoint(blk_bs(blk), "A"), -ENOTSUP);
    assert_int_equal(bdrv_debug_is_suspended(blk_bs(blk), "A"), -ENOTSUP);
    blk_unref(blk);
    platter_free(pl);
}

/* One request at two breakpoints goes on when both let it. */
static void two_at_a_point(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, UNDER_RAW);
    BlockDriverState *bs = blk_bs(blk);
    struct writer a;

    assert_int_equal(bdrv_debug_breakpoint(bs, "write_aio", "A"), 0);
    assert_int_equal(bdrv_debug_breakpoint(bs, "write_aio", "B"), 0);
    writer_begin(&a, blk, 0);
    wait_suspended(blk, "A");
    wait_suspended(blk, "B");
    assert_int_equal(bdrv_debug_resume(bs, "A"), 0);
    assert_int_equal(get(blk, 0, 512), 0);
    assert_int_equal(a.ret, 1);
    assert_int_equal(bdrv_debug_resume(bs, "B"), 0);
    assert_int_equal(writer_end(&a), 0);
    blk_unref(blk);
    platter_free(pl);
}

/* A drain lets go what is suspended, and holds nothing back while it lasts. */
static void breakpoints_and_drain(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, UNDER_RAW);
    BlockDriverState *bs = blk_bs(blk);
    struct writer a;

    assert_int_equal(bdrv_debug_breakpoint(bs, "write_aio", "A"), 0);
    writer_begin(&a, blk, 0);
    wait_suspended(blk, "A");
    bdrv_drained_begin(bs);
    assert_int_equal(a.ret, 0);
    bdrv_drained_end(bs);

    assert_int_equal(bdrv_debug_breakpoint(bs, "write_aio", "A"), 0);
    writer_begin(&a, blk, 0);
    wait_suspended(blk, "A");
    blk_unref(blk); /* drains */
    assert_int_equal(a.ret, 0);
    platter_free(pl);
}

static int setup(void **state)
{
    return folder_begin("/tmp/platter-fault-XXXXXX");
}

static int teardown(void **state)
{
    return folder_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_of_a_kind),
        cmocka_unit_test(sector_and_once),
        cmocka_unit_test(armed_until_others_are),
        cmocka_unit_test(states),
        cmocka_unit_test(points_of_a_change),
        cmocka_unit_test(delay),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(config_files),
        cmocka_unit_test(config_files_that_are_large),
        cmocka_unit_test(names),
        cmocka_unit_test(perms),
        cmocka_unit_test(breakpoints),
        cmocka_unit_test(two_at_a_point),
        cmocka_unit_test(breakpoints_and_drain),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
