/* SPDX-License-Identifier: MIT */
#include "convert_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

BlockBackend *convert_disk(struct convert_env *env, const char *name, uint64_t bytes, bool writable)
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

bool convert_holds(BlockBackend *blk, uint64_t offset, uint64_t bytes, int byte)
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
    struct convert_env *env = opaque;

    env->wrong = env->wrong || error != EIO;
    env->lost_at = env->lost++ == 0 ? offset : env->lost_at;
}

static int setup(void **state, bool whole_sectors)
{
    struct convert_env *env = calloc(1, sizeof(*env));
    struct aio_context_options ao = {.size = sizeof(ao), .engine = AIO_ENGINE_THREADS};
    struct platter_options po = {.size = sizeof(po), .whole_sectors = whole_sectors};

    assert_non_null(env);
    env->world = sim_world_new(1);
    assert_non_null(env->world);
    os_replace(sim_os_table(env->world));
    env->ctx = aio_context_new(&ao, NULL);
    po.main_context = env->ctx;
    env->pl = platter_new(&po, NULL);
    assert_non_null(env->pl);
    env->source = convert_disk(env, "source", DISK_BYTES, false);
    env->target = convert_disk(env, "target", DISK_BYTES, true);
    kind_fill(env->source, MIB, 2 * MIB, 0x11);
    kind_fill(env->source, 6 * MIB, 65536, 0x22);
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

int convert_setup(void **state)
{
    return setup(state, false);
}

int convert_setup_sectors(void **state)
{
    return setup(state, true);
}

int convert_teardown(void **state)
{
    struct convert_env *env = *state;

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

Job *convert_begin(struct convert_env *env)
{
    Error *err = NULL;
    Job *job = convert_start(env->pl, "c", &env->o, JOB_MANUAL_DISMISS, &err);

    if (job == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    return job;
}

struct job_info convert_info(const Job *job)
{
    struct job_info info;

    job_get_info(job, &info);
    return info;
}

void convert_finish(struct convert_env *env, Job *job, int ret, const char *text)
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

bool convert_is_copy(struct convert_env *env)
{
    return convert_holds(env->target, 0, MIB, 0) &&
           convert_holds(env->target, MIB, 2 * MIB, 0x11) &&
           convert_holds(env->target, 3 * MIB, 3 * MIB, 0) &&
           convert_holds(env->target, 6 * MIB, 65536, 0x22) &&
           convert_holds(env->target, 6 * MIB + 65536, 2 * MIB - 65536, 0);
}

void convert_refused(struct convert_env *env, const char *text)
{
    Error *err = NULL;

    assert_null(convert_start(env->pl, "c", &env->o, JOB_MANUAL_DISMISS, &err));
    assert_string_equal(error_get_pretty(err), text);
    error_free(err);
    assert_null(job_next(env->pl, NULL));
}
