/* SPDX-License-Identifier: MIT */
#include "kind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/image.h>

#include "util/iov.h"

#define TURNS_MAX 100000

static void on_event(void *opaque, const struct platter_event *event)
{
    struct kind_env *env = opaque;
    size_t at = strlen(env->events);

    if (event->type == PLATTER_EVENT_JOB_STATUS_CHANGE && env->kind->heard != NULL) {
        env->kind->heard(env, event->u.job.id, event->u.job.status);
    } else if (event->type == PLATTER_EVENT_JOB_STATUS_CHANGE) {
        snprintf(env->events + at, sizeof(env->events) - at, "%s ", event->u.job.status);
    } else if (event->type == PLATTER_EVENT_JOB_ERROR) {
        env->errors++;
    }
}

static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct kind_env *env = opaque;

    env->backwards = env->backwards || done < env->progress || done > total;
    env->progress = done;
}

/* ---- worlds ---- */

void kind_begin_empty(struct kind_env *env, const struct kind *kind)
{
    struct aio_context_options ao = {
        .size = sizeof(ao), .engine = AIO_ENGINE_THREADS, .worker_threads_max = 1};
    struct platter_options po = {.size = sizeof(po),
                                 .image_refs = PLATTER_REFS_FOLLOW,
                                 .event_cb = on_event,
                                 .event_opaque = env};

    memset(env, 0, sizeof(*env));
    env->kind = kind;
    env->world = sim_world_new(1);
    assert_non_null(env->world);
    os_replace(sim_os_table(env->world));
    env->ctx = aio_context_new(&ao, NULL);
    po.main_context = env->ctx;
    env->pl = platter_new(&po, NULL);
    assert_non_null(env->pl);
}

static void disks_close(struct kind_env *env)
{
    for (size_t i = 0; i < KIND_BLKS; i++) {
        blk_unref(env->blk[i]);
        env->blk[i] = NULL;
    }
}

void kind_end_empty(struct kind_env *env)
{
    disks_close(env);
    platter_free(env->pl);
    aio_context_unref(env->ctx);
    os_replace(NULL);
    assert_int_equal(sim_world_open_fds(env->world), 0);
    sim_world_free(env->world);
}

struct kind_model *kind_model_new(const struct kind *kind)
{
    struct kind_model *model = calloc(1, sizeof(*model));
    struct kind_env env;

    assert_non_null(model);
    model->kind = kind;
    kind_begin_empty(&env, kind);
    kind->build(&env, model->guest);
    disks_close(&env);
    for (size_t i = 0; i < KIND_FILES && kind->files[i] != NULL; i++) {
        model->disks[i] = sim_world_clone_disk(env.world, kind->files[i]);
        if (model->disks[i] != NULL) { /* or the job makes that file */
            assert_int_equal(sim_disk_flush(model->disks[i]), 0);
        }
    }
    kind_end_empty(&env);
    return model;
}

void kind_model_free(struct kind_model *model)
{
    for (size_t i = 0; i < KIND_FILES; i++) {
        sim_disk_free(model->disks[i]);
    }
    free(model);
}

/* What the group that runs is about: a group's setup is told nothing. */
static const struct kind *running;

static int setup(void **state)
{
    *state = kind_model_new(running);
    return 0;
}

static int teardown(void **state)
{
    kind_model_free(*state);
    return 0;
}

int kind_run_group(const char *name, const struct CMUnitTest *tests, size_t count,
                   const struct kind *kind)
{
    running = kind;
    return _cmocka_run_group_tests(name, tests, count, setup, teardown);
}

void kind_begin(struct kind_env *env, const struct kind_model *model, struct sim_disk *const *disks)
{
    kind_begin_empty(env, model->kind);
    for (size_t i = 0; i < KIND_FILES && model->kind->files[i] != NULL; i++) {
        const struct sim_disk *disk = disks != NULL ? disks[i] : model->disks[i];
        struct sim_disk *copy = disk != NULL ? sim_disk_clone(disk) : NULL;

        if (disk == NULL) {
            continue;
        }
        assert_non_null(copy);
        assert_int_equal(sim_world_add_disk(env->world, model->kind->files[i], copy, NULL), 0);
    }
    if (disks == NULL) {
        model->kind->open(env);
    }
    for (size_t i = 0; i < KIND_BLKS && env->blk[i] != NULL; i++) {
        uint64_t shared;

        env->bs[i] = blk_bs(env->blk[i]);
        blk_get_perm(env->blk[i], &env->perm[i], &shared);
    }
}

/* Somebody may use the disks as if no job had been. */
static void expect_free(struct kind_env *env)
{
    for (size_t i = 0; i < KIND_BLKS; i++) {
        uint64_t perm, shared;

        if (env->blk[i] == NULL) {
            continue;
        }

        for (unsigned op = 0; op < BLOCK_OP_TYPE_MAX; op++) {
            assert_false(blk_op_is_blocked(env->blk[i], (BlockOpType)op, NULL));
        }
        blk_get_perm(env->blk[i], &perm, &shared);
        assert_int_equal(shared, BDRV_PERM_ALL);
        if (blk_bs(env->blk[i]) == env->bs[i]) {
            assert_int_equal(perm, env->perm[i]);
        }
        if (blk_bs(env->blk[i]) != NULL) {
            bdrv_drained_begin(blk_bs(env->blk[i]));
            bdrv_drained_end(blk_bs(env->blk[i]));
        }
    }
}

void kind_end(struct kind_env *env, const struct kind_model *model, bool success)
{
    assert_null(env->job);
    assert_null(job_next(env->pl, NULL));
    expect_free(env);
    disks_close(env);
    env->kind->check(env, success, model->guest);
    kind_end_empty(env);
}

void kind_quit(struct kind_env *env, const struct kind_model *model, bool success)
{
    struct sim_disk *disks[KIND_FILES] = {NULL};

    job_unref(env->job);
    env->job = NULL;
    disks_close(env);
    platter_free(env->pl);
    aio_context_unref(env->ctx);
    for (size_t i = 0; i < KIND_FILES && model->kind->files[i] != NULL; i++) {
        disks[i] = sim_world_clone_disk(env->world, model->kind->files[i]);
    }
    os_replace(NULL);
    assert_int_equal(sim_world_open_fds(env->world), 0);
    sim_world_free(env->world);
    kind_begin(env, model, disks);
    kind_end(env, model, success);
    for (size_t i = 0; i < KIND_FILES; i++) {
        sim_disk_free(disks[i]);
    }
}

void kind_create(struct kind_env *env, const char *path, const char *options)
{
    BlockOptions *parsed = block_options_parse(options, NULL, NULL);
    Error *err = NULL;

    assert_non_null(parsed);
    if (bdrv_create(env->pl, path, parsed, &err) < 0) {
        fail_msg("%s: %s", path, error_get_pretty(err));
    }
}

BlockBackend *kind_open(struct kind_env *env, const char *path, const char *driver, int flags)
{
    BlockOptions *options = block_options_new();
    Error *err = NULL;
    char name[16];
    BlockBackend *blk;

    for (unsigned i = 0;; i++) { /* one that is free */
        snprintf(name, sizeof(name), "blk%u", i);
        if (blk_by_name(env->pl, name) == NULL) {
            break;
        }
    }
    assert_int_equal(block_options_set_str(options, "driver", driver), 0);
    blk = blk_new_open(env->pl, name, path, NULL, options, flags, &err);
    if (blk == NULL) {
        fail_msg("%s: %s", path, error_get_pretty(err));
    }
    return blk;
}

void kind_fill(BlockBackend *blk, uint64_t offset, uint64_t bytes, int byte)
{
    uint8_t *buf = malloc(bytes);
    struct iovec iov = {buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);

    assert_non_null(buf);
    memset(buf, byte, bytes);
    assert_int_equal(blk_pwritev(blk, (int64_t)offset, &view, 0), 0);
    free(buf);
}

void kind_fill_guest(BlockBackend *blk, uint8_t *guest, uint64_t offset, uint64_t bytes, int byte)
{
    kind_fill(blk, offset, bytes, byte);
    memset(guest + offset, byte, bytes);
}

static void expect_sound(struct kind_env *env, const char *path)
{
    struct bdrv_check_result result;
    struct bdrv_check_options options = {.size = sizeof(options)};
    BlockBackend *blk = kind_open(env, path, "qcow2", BDRV_O_NO_BACKING | BDRV_O_CHECK);

    assert_int_equal(bdrv_check(blk_bs(blk), &options, &result, NULL), 0);
    assert_int_equal(result.corruptions, 0);
    assert_int_equal(result.check_errors, 0);
    blk_unref(blk);
}

void kind_expect(struct kind_env *env, const char *path, const char *driver, const uint8_t *bytes,
                 uint64_t size)
{
    BlockBackend *blk = kind_open(env, path, driver, 0);
    uint8_t *buf = malloc(size);
    struct iovec iov = {buf, size};
    struct iov_view view = iov_view_of(&iov, 1);

    assert_non_null(buf);
    assert_true(blk_getlength(blk) >= (int64_t)size);
    assert_int_equal(blk_preadv(blk, 0, &view, 0), 0);
    for (uint64_t i = 0; i < size; i++) {
        if (buf[i] != bytes[i]) {
            fail_msg("%s: byte %llu is %02x instead of %02x", path, (unsigned long long)i, buf[i],
                     bytes[i]);
        }
    }
    free(buf);
    blk_unref(blk);
    if (strcmp(driver, "qcow2") == 0) {
        expect_sound(env, path);
    }
}

uint64_t kind_calls(struct kind_env *env)
{
    return sim_faults_count(sim_world_faults(env->world), SIM_CALLS_FILE);
}

/* ---- the job ---- */

void kind_start(struct kind_env *env, unsigned flags)
{
    struct bdrv_progress progress = {.report = on_progress, .opaque = env};
    struct job_start start = {
        .id = "j", .flags = flags | JOB_MANUAL_DISMISS, .progress = &progress};
    Error *err = NULL;

    env->progress = 0;
    env->errors = 0;
    env->job = env->kind->start(env, &start, &err);
    if (env->job == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    job_ref(env->job);
}

enum job_status kind_status(const struct kind_env *env)
{
    struct job_info info;

    job_get_info(env->job, &info);
    return info.status;
}

enum job_status kind_run(struct kind_env *env)
{
    for (unsigned i = 0; i < TURNS_MAX; i++) {
        struct job_info info;

        job_get_info(env->job, &info);
        if ((info.status == JOB_STATUS_PAUSED && info.user_paused) ||
            info.status == JOB_STATUS_CONCLUDED) {
            return info.status;
        }
        aio_poll(env->ctx, true);
    }
    fail_msg("the job hangs: %s", env->events);
    return JOB_STATUS_CREATED;
}

int kind_finish(struct kind_env *env)
{
    struct job_info info;
    int ret;

    assert_int_equal(kind_run(env), JOB_STATUS_CONCLUDED);
    ret = env->job->ret;
    job_get_info(env->job, &info);
    assert_int_equal(ret < 0, info.error != NULL);
    snprintf(env->why, sizeof(env->why), "%s", info.error != NULL ? info.error : "");
    assert_false(env->backwards);
    if (ret == 0) {
        assert_int_equal(info.progress_current, info.progress_total);
    }
    assert_int_equal(job_dismiss(env->job, NULL), 0);
    job_unref(env->job);
    env->job = NULL;
    return ret;
}
