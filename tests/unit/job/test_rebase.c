/* SPDX-License-Identifier: MIT */
/* The job "rebase", on simulated disks. */
#include <errno.h>
#include <string.h>

#include <platter/graph.h>
#include <platter/image.h>

#include "kind.h"

enum { OVERLAY, BASE };

static void build_raw(struct kind_env *env, const char *path, uint64_t size, int byte,
                      uint64_t bytes)
{
    BlockBackend *blk;

    assert_int_equal(sim_world_add_file(env->world, path, size, NULL), 0);
    blk = kind_open(env, path, "raw", BDRV_O_RDWR);
    kind_fill(blk, 0, bytes, byte);
    kind_fill(blk, 131072, 8192, 0x5a); /* the same in both */
    blk_unref(blk);
}

/* An overlay with some clusters of its own, over a short old backing file; a new one, shorter yet,
 * that differs from it. */
static void build(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    build_raw(env, "/sim/old", 200704, 0x11, 65536);
    build_raw(env, "/sim/new", 180224 + 512, 0x22, 32768);
    memset(guest, 0x11, 65536);
    memset(guest + 131072, 0x5a, 8192);
    kind_create(env, "/sim/top",
                "driver=qcow2,size=262144,cluster_size=4096,backing_file=old,backing_fmt=raw");
    blk = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 8192, 4096, 0x33);
    kind_fill_guest(blk, guest, 24576, 512, 0x34);
    assert_int_equal(blk_pwrite_zeroes(blk, 135168, 4096, 0), 0);
    memset(guest + 135168, 0, 4096);
    blk_unref(blk);
    blk = kind_open(env, "/sim/new", "raw", BDRV_O_RDWR);
    kind_fill(blk, 172032, 8704, 0x23); /* to its end, where the old one reads as zeroes */
    kind_fill(blk, 98304, 4096, 0x24);
    blk_unref(blk);
}

static void open_disks(struct kind_env *env)
{
    env->blk[OVERLAY] = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR);
    env->blk[BASE] = kind_open(env, "/sim/new", "raw", 0);
}

static void open_alone(struct kind_env *env)
{
    env->blk[OVERLAY] = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR);
}

static Job *start(struct kind_env *env, const struct job_start *start, Error **errp)
{
    struct job_rebase_options options = {
        .size = sizeof(options),
        .overlay = env->blk[OVERLAY],
        .base = env->blk[BASE],
        .backing_file = env->blk[BASE] != NULL ? "new" : NULL,
        .backing_format = env->blk[BASE] != NULL ? "raw" : NULL,
        .bytes_per_second = env->speed,
        .on_error = env->policy,
    };

    return job_rebase_start(env->pl, start, &options, errp);
}

static void check(struct kind_env *env, bool success, const uint8_t *guest)
{
    BlockBackend *top;

    kind_expect(env, "/sim/top", "qcow2", guest, KIND_DISK_BYTES);
    if (!success) {
        return;
    }
    top = kind_open(env, "/sim/top", "qcow2", BDRV_O_NO_BACKING);
    if (strcmp(env->kind->files[2], "/sim/new") == 0) {
        assert_string_equal(bdrv_get_backing_file(blk_bs(top)), "new");
        assert_string_equal(bdrv_get_backing_format(blk_bs(top)), "raw");
    } else {
        assert_null(bdrv_get_backing_file(blk_bs(top)));
    }
    assert_int_equal(blk_getlength(top), KIND_DISK_BYTES);
    blk_unref(top);
}

static const struct kind other = {
    .files = {"/sim/old", "/sim/top", "/sim/new"},
    .build = build,
    .open = open_disks,
    .start = start,
    .check = check,
};
/* On nothing. */
static const struct kind alone = {
    .files = {"/sim/new", "/sim/top", "/sim/old"},
    .build = build,
    .open = open_alone,
    .start = start,
    .check = check,
};

/* ---- down its own chain: what the new base decides is not copied ---- */

static void build_chain(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    build_raw(env, "/sim/old", KIND_DISK_BYTES, 0x11, 65536);
    memset(guest, 0x11, 65536);
    memset(guest + 131072, 0x5a, 8192);
    kind_create(env, "/sim/mid",
                "driver=qcow2,size=262144,cluster_size=4096,backing_file=old,backing_fmt=raw");
    blk = kind_open(env, "/sim/mid", "qcow2", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 4096, 8192, 0x22);
    kind_fill_guest(blk, guest, 200704, 512, 0x23);
    assert_int_equal(blk_pwrite_zeroes(blk, 131072, 4096, 0), 0);
    memset(guest + 131072, 0, 4096);
    blk_unref(blk);
    kind_create(env, "/sim/top",
                "driver=qcow2,size=262144,cluster_size=4096,backing_file=mid,backing_fmt=qcow2");
    blk = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 8192, 4096, 0x33);
    blk_unref(blk);
}

static BlockDriverState *below(BlockDriverState *bs)
{
    return (*bs->backing_slot)->bs;
}

static void open_chain(struct kind_env *env)
{
    env->blk[OVERLAY] = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR);
    env->blk[BASE] = blk_new(env->pl, "base", NULL);
    assert_non_null(env->blk[BASE]);
    assert_int_equal(blk_insert_bs(env->blk[BASE], below(below(blk_bs(env->blk[OVERLAY]))), NULL),
                     0);
}

static Job *start_down(struct kind_env *env, const struct job_start *start, Error **errp)
{
    struct job_rebase_options options = {
        .size = sizeof(options),
        .overlay = env->blk[OVERLAY],
        .base = env->blk[BASE],
        .shared_depth = 3,
        .backing_file = "old",
        .backing_format = "raw",
        .on_error = env->policy,
    };

    return job_rebase_start(env->pl, start, &options, errp);
}

static void check_down(struct kind_env *env, bool success, const uint8_t *guest)
{
    struct bdrv_check_options options = {.size = sizeof(options)};
    struct bdrv_check_result result;
    BlockBackend *top;

    kind_expect(env, "/sim/top", "qcow2", guest, KIND_DISK_BYTES);
    if (success) {
        top = kind_open(env, "/sim/top", "qcow2", BDRV_O_NO_BACKING);
        assert_string_equal(bdrv_get_backing_file(blk_bs(top)), "old");
        assert_int_equal(bdrv_check(blk_bs(top), &options, &result, NULL), 0);
        assert_int_equal(result.allocated_clusters, 3); /* its own, and what mid held */
        blk_unref(top);
    }
}

static const struct kind down = {
    .files = {"/sim/old", "/sim/mid", "/sim/top"},
    .build = build_chain,
    .open = open_chain,
    .start = start_down,
    .check = check_down,
};

/* ---- by itself ---- */

/* Only the name: the disk is not looked at. */
static void test_unsafe(void **state)
{
    struct kind_env env;
    struct job_start start = {.id = "j", .flags = JOB_MANUAL_DISMISS};
    struct job_rebase_options options = {.size = sizeof(options), .unsafe = true};
    BlockBackend *top;

    kind_begin(&env, *state, NULL);
    options.overlay = env.blk[OVERLAY];
    options.backing_file = "elsewhere";
    options.backing_format = "qcow2";
    sim_faults_clear(sim_world_faults(env.world));
    env.job = job_rebase_start(env.pl, &start, &options, NULL);
    assert_non_null(env.job);
    job_ref(env.job);
    assert_int_equal(kind_finish(&env), 0);
    top = env.blk[OVERLAY];
    assert_string_equal(bdrv_get_backing_file(blk_bs(top)), "elsewhere");
    assert_string_equal(bdrv_get_backing_format(blk_bs(top)), "qcow2");
    options.backing_file = "old";
    options.backing_format = "raw";
    env.job = job_rebase_start(env.pl, &start, &options, NULL);
    assert_non_null(env.job);
    job_ref(env.job);
    assert_int_equal(kind_finish(&env), 0);
    kind_end(&env, *state, false);
}

/* The last step fails: there is no room for the name. */
static void test_name_too_long(void **state)
{
    struct kind_env env;
    struct job_start start = {.id = "j", .flags = JOB_MANUAL_DISMISS};
    struct job_rebase_options options = {.size = sizeof(options)};
    char name[2000];

    memset(name, 'x', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    kind_begin(&env, *state, NULL);
    options.overlay = env.blk[OVERLAY];
    options.base = env.blk[BASE];
    options.backing_file = name;
    env.job = job_rebase_start(env.pl, &start, &options, NULL);
    assert_non_null(env.job);
    job_ref(env.job);
    assert_true(kind_finish(&env) < 0);
    assert_non_null(strstr(env.why, "Could not change the backing file"));
    kind_end(&env, *state, false);
}

/* Nobody writes to the disk, or puts an overlay on it; others may read its new base, another rebase
 * too. */
static void test_shared_base(void **state)
{
    struct kind_env env;
    struct job_start start_ = {.id = "other", .flags = JOB_MANUAL_DISMISS};
    struct job_rebase_options options = {.size = sizeof(options), .unsafe = true};
    BlockBackend *writer;
    BlockBackend *second;
    Error *err = NULL;
    Job *job;

    kind_begin(&env, *state, NULL);
    kind_create(&env, "/sim/second", "driver=qcow2,size=262144,cluster_size=4096");
    second = kind_open(&env, "/sim/second", "qcow2", BDRV_O_RDWR);
    writer = blk_new(env.pl, "writer", NULL);
    assert_int_equal(blk_set_perm(writer, BDRV_PERM_WRITE, BDRV_PERM_ALL, NULL), 0);
    kind_start(&env, JOB_MANUAL_FINALIZE);
    options.overlay = second;
    options.base = env.blk[BASE];
    job = job_rebase_start(env.pl, &start_, &options, NULL);
    assert_non_null(job);
    assert_int_equal(blk_insert_bs(writer, blk_bs(env.blk[OVERLAY]), NULL), -EPERM);
    assert_int_equal(job_wait(job, NULL), 0);
    assert_int_equal(job_dismiss(job, NULL), 0);
    while (kind_status(&env) != JOB_STATUS_PENDING) {
        aio_poll(env.ctx, true);
    }
    assert_int_equal(blk_insert_bs(writer, blk_bs(env.blk[OVERLAY]), NULL), -EPERM);
    assert_int_equal(bdrv_append(blk_bs(second), blk_bs(env.blk[OVERLAY]), &err), -EBUSY);
    assert_non_null(strstr(error_get_pretty(err), "it is in use by job 'j' (rebase)"));
    error_free(err);
    assert_int_equal(job_finalize(env.job, NULL), 0);
    assert_int_equal(kind_finish(&env), 0);
    assert_int_equal(blk_insert_bs(writer, blk_bs(env.blk[OVERLAY]), NULL), 0);
    blk_unref(writer);
    blk_unref(second);
    kind_end(&env, *state, true);
}

int main(void)
{
    const struct CMUnitTest itself[] = {
        cmocka_unit_test(test_unsafe),
        cmocka_unit_test(test_name_too_long),
        cmocka_unit_test(test_shared_base),
    };

    return kind_run_tests("by itself", itself, &other) + kind_disturb("down its chain", &down) +
           kind_disturb("another base", &other) + kind_disturb("no base", &alone);
}
