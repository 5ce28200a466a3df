/* SPDX-License-Identifier: MIT */
/* The job "convert" with bytes that come once, and into a sink. */
#include <errno.h>
#include <string.h>

#include "convert_fixture.h"

/* What a sink was told and given. */
struct record {
    struct convert_sink calls;
    uint64_t planned, data, given, next;
    bool begun, ended, wrong;
    int fail;
};

static int record_plan(void *opaque, uint64_t offset, uint64_t bytes, enum convert_plan plan)
{
    struct record *r = opaque;

    r->wrong = r->wrong || offset != r->planned || r->begun;
    r->planned += bytes;
    r->data += plan == CONVERT_PLAN_DATA ? bytes : 0;
    return 0;
}

static int record_begin_co(void *opaque, Error **errp)
{
    ((struct record *)opaque)->begun = true;
    return 0;
}

static int record_write_co(void *opaque, uint64_t offset, const void *buf, uint64_t bytes)
{
    struct record *r = opaque;

    r->wrong = r->wrong || !r->begun || offset < r->next;
    r->next = offset + bytes;
    r->given += bytes;
    (void)co_sleep_ns(1000);
    return r->fail;
}

static int record_end_co(void *opaque, Error **errp)
{
    ((struct record *)opaque)->ended = true;
    return 0;
}

static void test_sink(void **state)
{
    struct convert_env *env = *state;
    struct record r = {.calls = {.unit_bytes = 65536,
                                 .plan = record_plan,
                                 .begin_co = record_begin_co,
                                 .write_co = record_write_co,
                                 .end_co = record_end_co}};

    r.calls.opaque = &r;
    env->o.target = NULL;
    env->o.sink = &r.calls;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_int_equal(r.planned, DISK_BYTES);
    assert_int_equal(r.data, 2 * MIB + 65536);
    assert_int_equal(r.given, r.data);
    assert_true(r.ended && !r.wrong);
    r = (struct record){.calls = r.calls, .fail = -EPIPE};
    convert_finish(env, convert_begin(env), -EPIPE,
                   "error while writing at byte 1048576: Broken pipe");
    assert_false(r.ended);
}

/* Bytes that come in pieces of odd sizes. */
struct spout {
    uint64_t left;
    int error; /* at the end; 0: none */
};

static int64_t spout_read_co(void *opaque, void *buf, size_t bytes)
{
    struct spout *s = opaque;
    size_t n = bytes < 70001 ? bytes : 70001;

    (void)co_sleep_ns(1000);
    n = n < s->left ? n : (size_t)s->left;
    memset(buf, 0x55, n);
    s->left -= n;
    return n > 0 ? (int64_t)n : s->error;
}

static void feed(struct convert_env *env, struct spout spout, int error, const char *text)
{
    struct convert_feed source = {.read_co = spout_read_co, .opaque = &spout};

    env->o.sources = NULL;
    env->o.sources_count = 0;
    env->o.feed = &source;
    convert_finish(env, convert_begin(env), error, text);
}

static void test_feed(void **state)
{
    struct convert_env *env = *state;

    feed(env, (struct spout){.left = 3 * MIB + 100}, 0, NULL);
    assert_int_equal(blk_getlength(env->target), 3 * MIB + 100);
    assert_true(convert_holds(env->target, 0, 3 * MIB + 100, 0x55));
    feed(env, (struct spout){.left = MIB, .error = -EIO}, -EIO,
         "error while reading at byte 1048576: Input/output error");
    feed(env, (struct spout){0}, 0, NULL);
    assert_int_equal(blk_getlength(env->target), 0);
}

static void test_feed_whole_sectors(void **state)
{
    struct convert_env *env = *state;

    feed(env, (struct spout){.left = 3 * MIB + 100}, 0, NULL);
    assert_int_equal(blk_getlength(env->target), 3 * MIB + 512);
    assert_true(convert_holds(env->target, 0, 3 * MIB + 100, 0x55));
    assert_true(convert_holds(env->target, 3 * MIB + 100, 412, 0));
}

/* From bytes that come once to a sink: no disk on either side. */
static void test_feed_to_sink(void **state)
{
    struct convert_env *env = *state;
    struct spout spout = {.left = 3 * MIB + 100};
    struct convert_feed feed = {.read_co = spout_read_co, .opaque = &spout};
    struct record r = {.calls = {.unit_bytes = 65536,
                                 .begin_co = record_begin_co,
                                 .write_co = record_write_co,
                                 .end_co = record_end_co}};

    r.calls.opaque = &r;
    env->o.sources = NULL;
    env->o.sources_count = 0;
    env->o.target = NULL;
    env->o.feed = &feed;
    env->o.sink = &r.calls;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(r.ended && !r.wrong);
    assert_int_equal(r.given, 3 * MIB + 100);
    r = (struct record){.calls = r.calls};
    spout = (struct spout){.left = MIB};
    feed.bytes = MIB;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(r.ended && r.given == MIB);
    spout = (struct spout){.left = MIB};
    feed.bytes = MIB + 1;
    r = (struct record){.calls = r.calls};
    convert_finish(env, convert_begin(env), -EIO, "the source ended at byte 1048576 of 1048577");
    spout = (struct spout){.left = MIB};
    feed.bytes = MIB - 1;
    r = (struct record){.calls = r.calls};
    convert_finish(env, convert_begin(env), -EFBIG, "the source goes on behind byte 1048575");
    assert_true(!r.ended && r.given < MIB);
    spout = (struct spout){.left = 8 * MIB};
    feed.bytes = 0;
    r = (struct record){.calls = r.calls, .fail = -EPIPE};
    convert_finish(env, convert_begin(env), -EPIPE, "error while writing at byte 0: Broken pipe");
    assert_false(r.ended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sink, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_feed, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_feed_whole_sectors, convert_setup_sectors,
                                        convert_teardown),
        cmocka_unit_test_setup_teardown(test_feed_to_sink, convert_setup, convert_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
