/* SPDX-License-Identifier: MIT */
/* The job "convert", on simulated disks and the simulated clock. */
#include "../cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/convert.h>

#include "loop/context.h"
#include "os/sim/sim_os.h"
#include "util/error.h"
#include "util/iov.h"

#define MIB (UINT64_C(1) << 20)
#define DISK_BYTES (8 * MIB)

struct env {
    struct sim_world *world;
    AioContext *ctx;
    Platter *pl;
    BlockBackend *source;
    BlockBackend *target;
    struct convert_source from;
    struct convert_options o;
    unsigned lost;
    uint64_t lost_at;
    unsigned checkpoints;
    uint64_t checkpoint; /* offset of the last */
    bool wrong;          /* what a callback saw: an assertion cannot leave its coroutine */
    uint64_t fail_after; /* the checkpoint above it fails; 0: none does */
};

static BlockBackend *disk_open(struct env *env, const char *name, uint64_t bytes, bool writable)
{
    char path[64];
    BlockOptions *options = block_options_new();
    BlockBackend *blk;

    snprintf(path, sizeof(path), "/sim/%s", name);
    assert_int_equal(sim_world_add_file(env->world, path, bytes, NULL), 0);
    assert_int_equal(block_options_set_str(options, "driver", "raw"), 0);
    blk = blk_new_open(env->pl, name, path, NULL, options,
                       writable ? BDRV_O_RDWR | BDRV_O_UNMAP : BDRV_O_RDWR, NULL);
    assert_non_null(blk);
    return blk;
}

static void fill(BlockBackend *blk, uint64_t offset, uint64_t bytes, int byte)
{
    uint8_t *buf = malloc(bytes);
    struct iovec iov = {buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);

    assert_non_null(buf);
    memset(buf, byte, bytes);
    assert_int_equal(blk_pwritev(blk, (int64_t)offset, &view, 0), 0);
    free(buf);
}

static bool holds(BlockBackend *blk, uint64_t offset, uint64_t bytes, int byte)
{
    uint8_t *buf = malloc(bytes);
    struct iovec iov = {buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);
    bool same = true;

    assert_non_null(buf);
    assert_int_equal(blk_preadv(blk, (int64_t)offset, &view, 0), 0);
    for (uint64_t i = 0; i < bytes; i++) {
        same = same && buf[i] == byte;
    }
    free(buf);
    return same;
}

static void on_lost(void *opaque, uint64_t offset, int error)
{
    struct env *env = opaque;

    env->wrong = env->wrong || error != EIO;
    env->lost_at = env->lost++ == 0 ? offset : env->lost_at;
}

/* A source with data at 1 MiB (2 MiB of it) and 6 MiB (64 KiB). */
static int setup(void **state)
{
    struct env *env = calloc(1, sizeof(*env));
    struct aio_context_options ao = {.size = sizeof(ao), .engine = AIO_ENGINE_THREADS};
    struct platter_options po = {.size = sizeof(po)};

    assert_non_null(env);
    env->world = sim_world_new(1);
    assert_non_null(env->world);
    os_replace(sim_os_table(env->world));
    env->ctx = aio_context_new(&ao, NULL);
    po.main_context = env->ctx;
    env->pl = platter_new(&po, NULL);
    assert_non_null(env->pl);
    env->source = disk_open(env, "source", DISK_BYTES, false);
    env->target = disk_open(env, "target", DISK_BYTES, true);
    fill(env->source, MIB, 2 * MIB, 0x11);
    fill(env->source, 6 * MIB, 65536, 0x22);
    env->from = (struct convert_source){.blk = env->source, .bytes = DISK_BYTES};
    env->o = (struct convert_options){
        .size = sizeof(env->o),
        .sources = &env->from,
        .sources_count = 1,
        .target = env->target,
        .sparse_bytes = CONVERT_SPARSE_BYTES,
        .target_is_zero = true,
        .lost = on_lost,
        .opaque = env,
    };
    *state = env;
    return 0;
}

static int teardown(void **state)
{
    struct env *env = *state;

    blk_unref(env->source);
    blk_unref(env->target);
    platter_free(env->pl);
    aio_context_unref(env->ctx);
    os_replace(NULL);
    assert_int_equal(sim_world_open_fds(env->world), 0);
    sim_world_free(env->world);
    free(env);
    return 0;
}

static Job *start(struct env *env)
{
    Error *err = NULL;
    Job *job = convert_start(env->pl, "c", &env->o, JOB_MANUAL_DISMISS, &err);

    if (job == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    return job;
}

static struct job_info info_of(const Job *job)
{
    struct job_info info;

    job_get_info(job, &info);
    return info;
}

/* Run to the end, which must be ret; with the text of the error when it is not 0. */
static void finish(struct env *env, Job *job, int ret, const char *text)
{
    Error *err = NULL;

    assert_int_equal(job_wait(job, &err), ret);
    if (text != NULL) {
        assert_string_equal(error_get_pretty(err), text);
    }
    error_free(err);
    assert_int_equal(job_dismiss(job, NULL), 0);
    assert_null(job_next(env->pl, NULL));
}

static bool is_copy(struct env *env)
{
    return holds(env->target, 0, MIB, 0) && holds(env->target, MIB, 2 * MIB, 0x11) &&
           holds(env->target, 3 * MIB, 3 * MIB, 0) && holds(env->target, 6 * MIB, 65536, 0x22) &&
           holds(env->target, 6 * MIB + 65536, 2 * MIB - 65536, 0);
}

static void refused(struct env *env, const char *text)
{
    Error *err = NULL;

    assert_null(convert_start(env->pl, "c", &env->o, JOB_MANUAL_DISMISS, &err));
    assert_string_equal(error_get_pretty(err), text);
    error_free(err);
    assert_null(job_next(env->pl, NULL));
}

static void test_copies(void **state)
{
    struct env *env = *state;
    Job *job;

    env->o.count_first = true;
    job = start(env);
    while (info_of(job).status != JOB_STATUS_CONCLUDED) {
        aio_poll(env->ctx, true);
    }
    assert_int_equal(info_of(job).progress_total, 2 * MIB + 65536); /* holes are no work */
    assert_int_equal(info_of(job).progress_current, 2 * MIB + 65536);
    finish(env, job, 0, NULL);
    assert_true(is_copy(env));
}

static void test_any_number_of_pieces(void **state)
{
    struct env *env = *state;

    for (unsigned n = 1; n <= CONVERT_COROUTINES_MAX; n++) {
        fill(env->target, 0, DISK_BYTES, 0xee);
        env->o.target_is_zero = false;
        env->o.coroutines = n;
        env->o.out_of_order = n % 2 == 0;
        finish(env, start(env), 0, NULL);
        assert_true(is_copy(env));
    }
}

static void test_leaves_target_that_is_zero(void **state)
{
    struct env *env = *state;

    fill(env->target, 4 * MIB, MIB, 0x33); /* whoever says so is believed */
    finish(env, start(env), 0, NULL);
    assert_true(holds(env->target, 4 * MIB, MIB, 0x33));
}

static void test_sparse(void **state)
{
    struct env *env = *state;

    fill(env->source, 2 * MIB, 65536, 0); /* written zeroes: data, as block status sees it */
    fill(env->target, 2 * MIB, 65536, 0x33);
    finish(env, start(env), 0, NULL);
    assert_true(holds(env->target, 2 * MIB, 65536, 0x33)); /* were not written */
    env->o.sparse_bytes = 131072;
    finish(env, start(env), 0, NULL);
    assert_true(holds(env->target, 2 * MIB, 65536, 0)); /* too few for a hole */
    fill(env->target, 4 * MIB, MIB, 0x33);
    env->o.sparse_bytes = 0;
    finish(env, start(env), 0, NULL);
    assert_true(holds(env->target, 4 * MIB, MIB, 0)); /* all is written */
}

static void test_several_sources(void **state)
{
    struct env *env = *state;
    struct convert_source from[3] = {
        {.blk = env->source, .offset = MIB - 100, .bytes = 1000}, /* fills up to 1024 */
        {.blk = env->source, .offset = 0, .bytes = 0},
        {.blk = env->source, .offset = 6 * MIB, .bytes = MIB},
    };

    env->o.sources = from;
    env->o.sources_count = 3;
    fill(env->target, 0, 4096, 0xee);
    assert_int_equal(convert_total_bytes(from, 3), 1024 + MIB);
    env->o.target_is_zero = false;
    finish(env, start(env), 0, NULL);
    assert_true(holds(env->target, 0, 100, 0));
    assert_true(holds(env->target, 100, 900, 0x11));
    assert_true(holds(env->target, 1000, 24, 0));
    assert_true(holds(env->target, 1024, 65536, 0x22));
    assert_true(holds(env->target, 1024 + 65536, MIB - 65536, 0));
}

static void test_read_error(void **state)
{
    struct env *env = *state;
    struct sim_rule rule = {
        .calls = SIM_CALLS(SIM_CALL_READ), .offset = 2 * MIB + 512, .bytes = 512, .error = EIO};

    sim_faults_add(sim_world_faults(env->world), &rule);
    finish(env, start(env), -EIO, "error while reading at byte 2097152: Input/output error");
    sim_faults_clear(sim_world_faults(env->world));
    finish(env, start(env), 0, NULL);
    assert_true(is_copy(env));
}

static void test_write_error(void **state)
{
    struct env *env = *state;
    struct sim_rule rule = {
        .calls = SIM_CALLS(SIM_CALL_WRITE), .offset = 6 * MIB, .bytes = 512, .error = ENOSPC};

    sim_faults_add(sim_world_faults(env->world), &rule);
    finish(env, start(env), -ENOSPC,
           "error while writing at byte 6291456: No space left on device");
    sim_faults_clear(sim_world_faults(env->world));
}

static void test_salvage(void **state)
{
    struct env *env = *state;
    struct sim_rule rule = {
        .calls = SIM_CALLS(SIM_CALL_READ), .offset = 2 * MIB + 1024, .bytes = 1024, .error = EIO};

    env->o.salvage = true;
    sim_faults_add(sim_world_faults(env->world), &rule);
    finish(env, start(env), 0, NULL);
    sim_faults_clear(sim_world_faults(env->world));
    assert_int_equal(env->lost, 2);
    assert_false(env->wrong);
    assert_int_equal(env->lost_at, 2 * MIB + 1024);
    assert_true(holds(env->target, 2 * MIB, 1024, 0x11));
    assert_true(holds(env->target, 2 * MIB + 1024, 1024, 0));
    assert_true(holds(env->target, 2 * MIB + 2048, MIB - 2048, 0x11));
}

static void test_pause_and_cancel(void **state)
{
    struct env *env = *state;
    uint64_t done;
    Job *job;

    env->o.bytes_per_second = MIB;
    job = start(env);
    while (info_of(job).progress_current < MIB + MIB / 2) {
        aio_poll(env->ctx, true);
    }
    assert_int_equal(job_pause(job, NULL), 0);
    while (info_of(job).status != JOB_STATUS_PAUSED) {
        aio_poll(env->ctx, true);
    }
    done = info_of(job).progress_current;
    assert_true(done < DISK_BYTES);
    sim_world_advance_ns(env->world, INT64_C(100000000000));
    while (aio_poll(env->ctx, false)) {
    }
    assert_int_equal(info_of(job).progress_current, done);
    assert_int_equal(job_resume(job, NULL), 0);
    while (info_of(job).progress_current == done) {
        aio_poll(env->ctx, true);
    }
    assert_int_equal(job_cancel(job, true, NULL), 0);
    finish(env, job, -ECANCELED, NULL);
    env->o.bytes_per_second = 0;
    finish(env, start(env), 0, NULL);
    assert_true(is_copy(env));
}

/* What a checkpoint tells is there, flushed. */
static int on_checkpoint(void *opaque, uint64_t offset, bool target_is_zero)
{
    struct env *env = opaque;

    env->wrong = env->wrong || !target_is_zero || offset < env->checkpoint;
    if (env->fail_after > 0 && offset > env->fail_after) {
        return -ENOSPC;
    }
    env->checkpoints++;
    env->checkpoint = offset;
    if (sim_faults_count(sim_world_faults(env->world), SIM_CALLS(SIM_CALL_SYNC)) <
        env->checkpoints - 1) {
        env->wrong = true;
    }
    return 0;
}

static void test_checkpoints(void **state)
{
    struct env *env = *state;

    env->o.checkpoint = on_checkpoint;
    env->o.checkpoint_bytes = MIB;
    env->fail_after = 2 * MIB;
    sim_faults_clear(sim_world_faults(env->world));
    finish(env, start(env), -ENOSPC,
           "error while writing the checkpoint at byte 3145728: No space left on device");
    assert_int_equal(env->checkpoints, 2);
    assert_int_equal(env->checkpoint, 2 * MIB);
    assert_true(holds(env->target, MIB, MIB, 0x11));
    fill(env->target, MIB, 4096, 0x44); /* to see that it is not copied again */
    env->fail_after = 0;
    env->o.start = env->checkpoint;
    finish(env, start(env), 0, NULL);
    assert_true(holds(env->target, MIB, 4096, 0x44));
    assert_false(env->wrong);
    fill(env->target, MIB, 4096, 0x11);
    assert_true(is_copy(env));
}

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
    struct env *env = *state;
    struct record r = {.calls = {.unit_bytes = 65536,
                                 .plan = record_plan,
                                 .begin_co = record_begin_co,
                                 .write_co = record_write_co,
                                 .end_co = record_end_co}};

    r.calls.opaque = &r;
    env->o.target = NULL;
    env->o.sink = &r.calls;
    finish(env, start(env), 0, NULL);
    assert_int_equal(r.planned, DISK_BYTES);
    assert_int_equal(r.data, 2 * MIB + 65536);
    assert_int_equal(r.given, r.data);
    assert_true(r.ended && !r.wrong);
    r = (struct record){.calls = r.calls, .fail = -EPIPE};
    finish(env, start(env), -EPIPE, "error while writing at byte 1048576: Broken pipe");
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

static void test_feed(void **state)
{
    struct env *env = *state;
    struct spout spout = {.left = 3 * MIB + 100};
    struct convert_feed feed = {.read_co = spout_read_co, .opaque = &spout};

    env->o.sources = NULL;
    env->o.sources_count = 0;
    env->o.feed = &feed;
    finish(env, start(env), 0, NULL);
    assert_int_equal(blk_getlength(env->target), 3 * MIB + 512);
    assert_true(holds(env->target, 0, 3 * MIB + 100, 0x55));
    assert_true(holds(env->target, 3 * MIB + 100, 412, 0));
    spout = (struct spout){.left = MIB, .error = -EIO};
    finish(env, start(env), -EIO, "error while reading at byte 1048576: Input/output error");
    spout = (struct spout){0};
    finish(env, start(env), 0, NULL);
    assert_int_equal(blk_getlength(env->target), 0);
}

/* From bytes that come once to a sink: no disk on either side. */
static void test_feed_to_sink(void **state)
{
    struct env *env = *state;
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
    finish(env, start(env), 0, NULL);
    assert_true(r.ended && !r.wrong);
    assert_int_equal(r.given, 3 * MIB + 512);
    r = (struct record){.calls = r.calls};
    spout = (struct spout){.left = MIB};
    feed.bytes = MIB;
    finish(env, start(env), 0, NULL);
    assert_true(r.ended && r.given == MIB);
    spout = (struct spout){.left = MIB};
    feed.bytes = MIB + 1;
    r = (struct record){.calls = r.calls};
    finish(env, start(env), -EIO, "the source ended at byte 1048576 of 1048577");
    spout = (struct spout){.left = MIB};
    feed.bytes = MIB - 1;
    r = (struct record){.calls = r.calls};
    finish(env, start(env), -EFBIG, "the source goes on behind byte 1048575");
    assert_true(!r.ended && r.given < MIB);
    spout = (struct spout){.left = 8 * MIB};
    feed.bytes = 0;
    r = (struct record){.calls = r.calls, .fail = -EPIPE};
    finish(env, start(env), -EPIPE, "error while writing at byte 0: Broken pipe");
    assert_false(r.ended);
}

/* Time is that of the simulation: 2 MiB + 64 KiB at 512 KiB a second. */
static void test_speed(void **state)
{
    struct env *env = *state;
    int64_t begin = sim_world_now_ns(env->world);
    double seconds;

    env->o.bytes_per_second = 512 << 10;
    finish(env, start(env), 0, NULL);
    seconds = (double)(sim_world_now_ns(env->world) - begin) / 1e9;
    assert_true(seconds > 3.0 && seconds < 4.5);
    assert_true(is_copy(env));
}

static void test_memory(void **state)
{
    struct env *env = *state;

    env->o.memory_max_bytes = 4095;
    refused(env, "4095 bytes of memory are too few: one coroutine needs 4096");
    env->o.memory_max_bytes = 4096;
    finish(env, start(env), 0, NULL);
    assert_true(is_copy(env));
}

static void test_refuses(void **state)
{
    struct env *env = *state;
    struct convert_options good = env->o;

    env->o.coroutines = 17;
    refused(env, "17 coroutines are more than 16");
    env->o = good;
    env->o.sparse_bytes = 1000;
    refused(env, "zeroes are not looked for in steps of 1000 bytes");
    env->o = good;
    env->o.compressed = true;
    refused(env, "Compression not supported for this file format");
    env->o = good;
    env->from.bytes = DISK_BYTES + 1;
    refused(env, "output file is smaller than input file");
    env->from.bytes = UINT64_MAX - 5;
    refused(env, "the sources together are too large for a disk");
    env->from.bytes = DISK_BYTES;
    env->o.copy_offload = true;
    env->o.salvage = true;
    refused(env, "the storage cannot copy what is compressed or salvaged");
}

static void test_offload(void **state)
{
    struct env *env = *state;
    struct sim_rule rule = {.calls = SIM_CALLS(SIM_CALL_COPY), .error = EIO};

    env->o.copy_offload = true;
    env->o.sparse_bytes = 0;
    finish(env, start(env), 0, NULL);
    assert_true(is_copy(env));
    fill(env->target, 0, DISK_BYTES, 0xee); /* where it fails bytes are copied as usual */
    sim_faults_add(sim_world_faults(env->world), &rule);
    finish(env, start(env), 0, NULL);
    assert_true(is_copy(env));
    sim_faults_clear(sim_world_faults(env->world));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_copies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_number_of_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leaves_target_that_is_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sparse, setup, teardown),
        cmocka_unit_test_setup_teardown(test_several_sources, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_salvage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause_and_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_speed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_offload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_checkpoints, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sink, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_to_sink, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
