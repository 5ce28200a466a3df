/* SPDX-License-Identifier: MIT */
/* The job "convert", on simulated disks and the simulated clock. */
#include <errno.h>
#include <string.h>

#include "convert_fixture.h"

static void test_copies(void **state)
{
    struct convert_env *env = *state;
    Job *job;

    env->o.count_first = true;
    job = convert_begin(env);
    while (convert_info(job).status != JOB_STATUS_CONCLUDED) {
        aio_poll(env->ctx, true);
    }
    assert_int_equal(convert_info(job).progress_total, 2 * MIB + 65536); /* holes are no work */
    assert_int_equal(convert_info(job).progress_current, 2 * MIB + 65536);
    convert_finish(env, job, 0, NULL);
    assert_true(convert_is_copy(env));
}

static void test_any_number_of_pieces(void **state)
{
    struct convert_env *env = *state;

    for (unsigned n = 1; n <= CONVERT_COROUTINES_MAX; n++) {
        kind_fill(env->target, 0, DISK_BYTES, 0xee);
        env->o.target_is_zero = false;
        env->o.coroutines = n;
        env->o.out_of_order = n % 2 == 0;
        convert_finish(env, convert_begin(env), 0, NULL);
        assert_true(convert_is_copy(env));
    }
}

static void test_leaves_target_that_is_zero(void **state)
{
    struct convert_env *env = *state;

    kind_fill(env->target, 4 * MIB, MIB, 0x33); /* whoever says so is believed */
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_holds(env->target, 4 * MIB, MIB, 0x33));
}

static void test_sparse(void **state)
{
    struct convert_env *env = *state;

    kind_fill(env->source, 2 * MIB, 65536, 0); /* written zeroes: data, as block status sees it */
    kind_fill(env->target, 2 * MIB, 65536, 0x33);
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_holds(env->target, 2 * MIB, 65536, 0x33)); /* were not written */
    env->o.sparse_bytes = 131072;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_holds(env->target, 2 * MIB, 65536, 0)); /* too few for a hole */
    kind_fill(env->target, 4 * MIB, MIB, 0x33);
    env->o.sparse_bytes = 0;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_holds(env->target, 4 * MIB, MIB, 0)); /* all is written */
}

static void test_several_sources(void **state)
{
    struct convert_env *env = *state;
    struct convert_source from[3] = {
        {.blk = env->source, .offset = MIB - 100, .bytes = 1000},
        {.blk = env->source, .offset = 0, .bytes = 0},
        {.blk = env->source, .offset = 6 * MIB, .bytes = MIB + 1},
    };

    env->o.sources = from;
    env->o.sources_count = 3;
    kind_fill(env->target, 0, 2 * MIB, 0xee);
    assert_int_equal(convert_total_bytes(from, 3), 1001 + MIB);
    env->o.target_is_zero = false;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_holds(env->target, 0, 100, 0));
    assert_true(convert_holds(env->target, 100, 900, 0x11));
    assert_true(convert_holds(env->target, 1000, 65536, 0x22));
    assert_true(convert_holds(env->target, 1000 + 65536, MIB + 1 - 65536, 0));
    assert_true(convert_holds(env->target, 1001 + MIB, 4096, 0xee));
}

static void test_whole_sectors(void **state)
{
    struct convert_env *env = *state;
    struct convert_source from[3] = {
        {.blk = env->source, .offset = MIB - 100, .bytes = 1000}, /* fills up to 1024 */
        {.blk = env->source, .offset = 0, .bytes = 0},
        {.blk = env->source, .offset = 6 * MIB, .bytes = MIB + 1},
    };

    env->o.sources = from;
    env->o.sources_count = 3;
    kind_fill(env->target, 0, 2 * MIB, 0xee);
    assert_int_equal(convert_total_bytes(from, 3), 1024 + 512 + MIB);
    env->o.target_is_zero = false;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_holds(env->target, 0, 100, 0));
    assert_true(convert_holds(env->target, 100, 900, 0x11));
    assert_true(convert_holds(env->target, 1000, 24, 0));
    assert_true(convert_holds(env->target, 1024, 65536, 0x22));
    assert_true(convert_holds(env->target, 1024 + 65536, MIB + 512 - 65536, 0));
    assert_true(convert_holds(env->target, 1024 + 512 + MIB, 4096, 0xee));
}

static void test_read_error(void **state)
{
    struct convert_env *env = *state;
    struct sim_rule rule = {
        .calls = SIM_CALLS(SIM_CALL_READ), .offset = 2 * MIB + 512, .bytes = 512, .error = EIO};

    sim_faults_add(sim_world_faults(env->world), &rule);
    convert_finish(env, convert_begin(env), -EIO,
                   "error while reading at byte 2097152: Input/output error");
    sim_faults_clear(sim_world_faults(env->world));
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_is_copy(env));
}

static void test_write_error(void **state)
{
    struct convert_env *env = *state;
    struct sim_rule rule = {
        .calls = SIM_CALLS(SIM_CALL_WRITE), .offset = 6 * MIB, .bytes = 512, .error = ENOSPC};

    sim_faults_add(sim_world_faults(env->world), &rule);
    convert_finish(env, convert_begin(env), -ENOSPC,
                   "error while writing at byte 6291456: No space left on device");
    sim_faults_clear(sim_world_faults(env->world));
}

static void test_salvage(void **state)
{
    struct convert_env *env = *state;
    struct sim_rule rule = {
        .calls = SIM_CALLS(SIM_CALL_READ), .offset = 2 * MIB + 1024, .bytes = 1024, .error = EIO};

    env->o.salvage = true;
    sim_faults_add(sim_world_faults(env->world), &rule);
    convert_finish(env, convert_begin(env), 0, NULL);
    sim_faults_clear(sim_world_faults(env->world));
    assert_int_equal(env->lost, 2);
    assert_false(env->wrong);
    assert_int_equal(env->lost_at, 2 * MIB + 1024);
    assert_true(convert_holds(env->target, 2 * MIB, 1024, 0x11));
    assert_true(convert_holds(env->target, 2 * MIB + 1024, 1024, 0));
    assert_true(convert_holds(env->target, 2 * MIB + 2048, MIB - 2048, 0x11));
}

static void test_pause_and_cancel(void **state)
{
    struct convert_env *env = *state;
    uint64_t done;
    Job *job;

    env->o.bytes_per_second = MIB;
    job = convert_begin(env);
    while (convert_info(job).progress_current < MIB + MIB / 2) {
        aio_poll(env->ctx, true);
    }
    assert_int_equal(job_pause(job, NULL), 0);
    while (convert_info(job).status != JOB_STATUS_PAUSED) {
        aio_poll(env->ctx, true);
    }
    done = convert_info(job).progress_current;
    assert_true(done < DISK_BYTES);
    sim_world_advance_ns(env->world, INT64_C(100000000000));
    while (aio_poll(env->ctx, false)) {
    }
    assert_int_equal(convert_info(job).progress_current, done);
    assert_int_equal(job_resume(job, NULL), 0);
    while (convert_info(job).progress_current == done) {
        aio_poll(env->ctx, true);
    }
    assert_int_equal(job_cancel(job, true, NULL), 0);
    convert_finish(env, job, -ECANCELED, NULL);
    env->o.bytes_per_second = 0;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_is_copy(env));
}

/* What a checkpoint tells is there, flushed. */
static int on_checkpoint(void *opaque, uint64_t offset, bool target_is_zero)
{
    struct convert_env *env = opaque;

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
    struct convert_env *env = *state;

    env->o.checkpoint = on_checkpoint;
    env->o.checkpoint_bytes = MIB;
    env->fail_after = 2 * MIB;
    sim_faults_clear(sim_world_faults(env->world));
    convert_finish(env, convert_begin(env), -ENOSPC,
                   "error while writing the checkpoint at byte 3145728: No space left on device");
    assert_int_equal(env->checkpoints, 2);
    assert_int_equal(env->checkpoint, 2 * MIB);
    assert_true(convert_holds(env->target, MIB, MIB, 0x11));
    kind_fill(env->target, MIB, 4096, 0x44); /* to see that it is not copied again */
    env->fail_after = 0;
    env->o.start = env->checkpoint;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_holds(env->target, MIB, 4096, 0x44));
    assert_false(env->wrong);
    kind_fill(env->target, MIB, 4096, 0x11);
    assert_true(convert_is_copy(env));
}

/* Time is that of the simulation: 2 MiB + 64 KiB at 512 KiB a second. */
static void test_speed(void **state)
{
    struct convert_env *env = *state;
    int64_t begin = sim_world_now_ns(env->world);
    double seconds;

    env->o.bytes_per_second = 512 << 10;
    convert_finish(env, convert_begin(env), 0, NULL);
    seconds = (double)(sim_world_now_ns(env->world) - begin) / 1e9;
    assert_true(seconds > 3.0 && seconds < 4.5);
    assert_true(convert_is_copy(env));
}

static void test_memory(void **state)
{
    struct convert_env *env = *state;

    env->o.memory_max_bytes = 4095;
    convert_refused(env, "4095 bytes of memory are too few: one coroutine needs 4096");
    env->o.memory_max_bytes = 4096;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_is_copy(env));
}

/* Clusters of a disk that is no source, which may be compressed, take none of it. */
static void test_memory_of_others(void **state)
{
    struct convert_env *env = *state;
    BlockOptions *options = block_options_parse("driver=qcow2,size=1M,cluster_size=1M", NULL, NULL);
    BlockBackend *other;

    assert_int_equal(bdrv_create(env->pl, "/sim/other", options, NULL), 0);
    options = block_options_parse("driver=qcow2", NULL, NULL);
    other = blk_new_open(env->pl, "other", "/sim/other", NULL, options, BDRV_O_RDWR, NULL);
    assert_non_null(other);
    env->o.memory_max_bytes = 65536;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_is_copy(env));
    env->from.blk = other;
    env->from.bytes = MIB;
    convert_refused(env, "65536 bytes of memory are too few: one coroutine needs 2101248");
    blk_unref(other);
}

static void test_refuses(void **state)
{
    struct convert_env *env = *state;
    struct convert_options good = env->o;

    env->o.coroutines = 17;
    convert_refused(env, "17 coroutines are more than 16");
    env->o = good;
    env->o.sparse_bytes = 1000;
    convert_refused(env, "zeroes are not looked for in steps of 1000 bytes");
    env->o = good;
    env->o.compressed = true;
    convert_refused(env, "Compression not supported for this file format");
    env->o = good;
    env->from.bytes = DISK_BYTES + 1;
    convert_refused(env, "output file is smaller than input file");
    env->from.bytes = UINT64_MAX - 5;
    convert_refused(env, "the sources together are too large for a disk");
    env->from.bytes = DISK_BYTES;
    env->o.copy_offload = true;
    env->o.salvage = true;
    convert_refused(env, "the storage cannot copy what is compressed or salvaged");
}

static void test_offload(void **state)
{
    struct convert_env *env = *state;
    struct sim_rule rule = {.calls = SIM_CALLS(SIM_CALL_COPY), .error = EIO};

    env->o.copy_offload = true;
    env->o.sparse_bytes = 0;
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_is_copy(env));
    kind_fill(env->target, 0, DISK_BYTES, 0xee); /* where it fails bytes are copied as usual */
    sim_faults_add(sim_world_faults(env->world), &rule);
    convert_finish(env, convert_begin(env), 0, NULL);
    assert_true(convert_is_copy(env));
    sim_faults_clear(sim_world_faults(env->world));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_copies, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_any_number_of_pieces, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_leaves_target_that_is_zero, convert_setup,
                                        convert_teardown),
        cmocka_unit_test_setup_teardown(test_sparse, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_several_sources, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_whole_sectors, convert_setup_sectors,
                                        convert_teardown),
        cmocka_unit_test_setup_teardown(test_read_error, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_write_error, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_salvage, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_pause_and_cancel, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_speed, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_memory, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_memory_of_others, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_refuses, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_offload, convert_setup, convert_teardown),
        cmocka_unit_test_setup_teardown(test_checkpoints, convert_setup, convert_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
