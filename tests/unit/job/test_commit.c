/* SPDX-License-Identifier: MIT */
/* The job "commit", on simulated disks. */
#include <errno.h>
#include <string.h>

#include <platter/image.h>

#include "kind.h"

#define BASE_BYTES (KIND_DISK_BYTES - 65536u) /* the base has to grow */

static void build_base(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    assert_int_equal(sim_world_add_file(env->world, "/sim/base", BASE_BYTES, NULL), 0);
    blk = kind_open(env, "/sim/base", "raw", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 0, 131072, 0x11);
    blk_unref(blk);
}

static void build_mid(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    kind_create(env, "/sim/mid",
                "driver=qcow2,size=262144,cluster_size=4096,backing_file=base,backing_fmt=raw");
    blk = kind_open(env, "/sim/mid", "qcow2", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 4096, 12288, 0x22);
    kind_fill_guest(blk, guest, 40960, 512, 0x23);
    assert_int_equal(blk_pwrite_zeroes(blk, 65536, 8192, 0), 0);
    memset(guest + 65536, 0, 8192);
    kind_fill_guest(blk, guest, KIND_DISK_BYTES - 8192, 4096, 0x24); /* past the base */
    blk_unref(blk);
}

/* Data, part of a cluster, and zeroes that hide what is below. */
static void build_top(struct kind_env *env, uint8_t *guest, const char *options)
{
    BlockBackend *blk;

    kind_create(env, "/sim/top", options);
    blk = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 8192, 4096, 0x33);
    kind_fill_guest(blk, guest, 98304, 16384, 0x34);
    kind_fill_guest(blk, guest, 53248, 1024, 0x36);
    assert_int_equal(blk_pwrite_zeroes(blk, 4096, 4096, 0), 0);
    memset(guest + 4096, 0, 4096);
    kind_fill_guest(blk, guest, KIND_DISK_BYTES - 4096, 4096, 0x35);
    blk_unref(blk);
}

static void build_one(struct kind_env *env, uint8_t *guest)
{
    build_base(env, guest);
    build_top(env, guest,
              "driver=qcow2,size=262144,cluster_size=4096,backing_file=base,backing_fmt=raw");
}

static void build_two(struct kind_env *env, uint8_t *guest)
{
    build_base(env, guest);
    build_mid(env, guest);
    build_top(env, guest,
              "driver=qcow2,size=262144,cluster_size=4096,backing_file=mid,backing_fmt=qcow2");
}

static void open_one(struct kind_env *env)
{
    env->blk[0] = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR | BDRV_O_NO_BACKING);
    env->blk[1] = kind_open(env, "/sim/base", "raw", BDRV_O_RDWR);
}

static void open_two(struct kind_env *env)
{
    env->blk[0] = kind_open(env, "/sim/top", "qcow2", BDRV_O_NO_BACKING);
    env->blk[1] = kind_open(env, "/sim/mid", "qcow2", BDRV_O_NO_BACKING);
    env->blk[2] = kind_open(env, "/sim/base", "raw", BDRV_O_RDWR);
}

static Job *start_layers(struct kind_env *env, const struct job_start *start, size_t layers,
                         Error **errp)
{
    struct job_commit_options options = {
        .size = sizeof(options),
        .layers = env->blk,
        .layers_count = layers,
        .base = env->blk[layers],
        .on_error = env->policy,
        .bytes_per_second = env->speed,
        .empty_top = layers == 1,
    };

    return job_commit_start(env->pl, start, &options, errp);
}

static Job *start_one(struct kind_env *env, const struct job_start *start, Error **errp)
{
    return start_layers(env, start, 1, errp);
}

static Job *start_two(struct kind_env *env, const struct job_start *start, Error **errp)
{
    return start_layers(env, start, 2, errp);
}

static void check_two(struct kind_env *env, bool success, const uint8_t *guest)
{
    kind_expect(env, "/sim/top", "qcow2", guest, KIND_DISK_BYTES);
    if (success) {
        kind_expect(env, "/sim/base", "raw", guest, KIND_DISK_BYTES);
    }
}

static void check_one(struct kind_env *env, bool success, const uint8_t *guest)
{
    struct bdrv_check_options options = {.size = sizeof(options)};
    struct bdrv_check_result result;
    BlockBackend *top;

    check_two(env, success, guest);
    if (success) {
        top = kind_open(env, "/sim/top", "qcow2", BDRV_O_NO_BACKING);
        assert_string_equal(bdrv_get_backing_file(blk_bs(top)), "base");
        assert_int_equal(blk_getlength(top), KIND_DISK_BYTES);
        assert_int_equal(bdrv_check(blk_bs(top), &options, &result, NULL), 0);
        assert_int_equal(result.allocated_clusters, 0);
        blk_unref(top);
    }
}

/* Onto an image, which allocates. */
static void open_onto_image(struct kind_env *env)
{
    env->blk[0] = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR | BDRV_O_NO_BACKING);
    env->blk[1] = kind_open(env, "/sim/mid", "qcow2", BDRV_O_RDWR);
}

static void check_onto_image(struct kind_env *env, bool success, const uint8_t *guest)
{
    kind_expect(env, "/sim/top", "qcow2", guest, KIND_DISK_BYTES);
    if (success) {
        kind_expect(env, "/sim/mid", "qcow2", guest, KIND_DISK_BYTES);
    }
}

static const struct kind one_layer = {
    .files = {"/sim/base", "/sim/top"},
    .build = build_one,
    .open = open_one,
    .start = start_one,
    .check = check_one,
};
static const struct kind two_layers = {
    .files = {"/sim/base", "/sim/mid", "/sim/top"},
    .build = build_two,
    .open = open_two,
    .start = start_two,
    .check = check_two,
};

static const struct kind onto_image = {
    .files = {"/sim/base", "/sim/mid", "/sim/top"},
    .build = build_two,
    .open = open_onto_image,
    .start = start_one,
    .check = check_onto_image,
};

/* ---- whose the disks are ---- */

static Job *start_as(struct kind_env *env, const char *id, BlockBackend *layer, BlockBackend *base,
                     Error **errp)
{
    struct job_start start = {.id = id, .flags = JOB_MANUAL_DISMISS};
    struct job_commit_options options = {
        .size = sizeof(options), .layers = &layer, .layers_count = 1, .base = base};

    return job_commit_start(env->pl, &start, &options, errp);
}

static void expect_refused(Job *job, Error **errp, int error, const char *text)
{
    assert_null(job);
    assert_non_null(*errp);
    assert_int_equal(error_get_errno(*errp), error);
    if (strstr(error_get_pretty(*errp), text) == NULL) {
        fail_msg("%s", error_get_pretty(*errp));
    }
    error_free(*errp);
    *errp = NULL;
}

static BlockBackend *mem_disk(struct kind_env *env, const char *name)
{
    BlockOptions *options = block_options_parse("driver=mem,size=262144", NULL, NULL);
    BlockBackend *blk = blk_new_open(env->pl, name, NULL, NULL, options, BDRV_O_RDWR, NULL);

    assert_non_null(blk);
    return blk;
}

/* Another job of each kind on each disk of a commit; then the other way round. */
static void test_one_job_a_disk(void **state)
{
    struct kind_env env;
    struct job_start start = {.id = "other", .flags = JOB_MANUAL_DISMISS | JOB_MANUAL_FINALIZE};
    struct job_rebase_options rebase = {.size = sizeof(rebase), .unsafe = true};
    const char *busy = "it is in use by job 'j' (commit)";
    BlockBackend *mem;
    Error *err = NULL;
    Job *job;

    kind_begin(&env, *state, NULL);
    mem = mem_disk(&env, "mem");
    kind_start(&env, 0);
    expect_refused(start_as(&env, "other", mem, env.blk[1], &err), &err, EBUSY, busy);
    expect_refused(start_as(&env, "other", env.blk[0], mem, &err), &err, EBUSY, busy);
    expect_refused(start_as(&env, "other", env.blk[1], mem, &err), &err, EBUSY, busy);
    expect_refused(start_as(&env, "other", mem, env.blk[0], &err), &err, EBUSY, busy);
    expect_refused(start_as(&env, "j", mem, mem, &err), &err, EEXIST, "'j'");
    expect_refused(job_amend_start(env.pl, &start, blk_bs(env.blk[0]), NULL, false, &err), &err,
                   EBUSY, busy);
    rebase.overlay = env.blk[0];
    expect_refused(job_rebase_start(env.pl, &start, &rebase, &err), &err, EBUSY, busy);
    rebase.overlay = mem;
    rebase.base = env.blk[1];
    expect_refused(job_rebase_start(env.pl, &start, &rebase, &err), &err, EBUSY, busy);
    job = start_as(&env, "elsewhere", mem_disk(&env, "m1"), mem_disk(&env, "m2"), &err);
    assert_non_null(job);
    assert_int_equal(job_wait(job, NULL), 0);
    assert_int_equal(job_dismiss(job, NULL), 0);
    assert_int_equal(kind_finish(&env), 0);

    rebase.overlay = env.blk[0];
    rebase.base = NULL;
    rebase.backing_file = "base";
    rebase.backing_format = "raw";
    job = job_rebase_start(env.pl, &start, &rebase, NULL);
    assert_non_null(job);
    expect_refused(start_as(&env, "j", env.blk[0], mem, &err), &err, EBUSY, "'other' (rebase)");
    expect_refused(start_as(&env, "j", mem, env.blk[0], &err), &err, EBUSY, "'other' (rebase)");
    assert_int_equal(job_wait(job, NULL), 0);
    assert_int_equal(job_dismiss(job, NULL), 0);
    job = job_amend_start(env.pl, &start, blk_bs(env.blk[0]), NULL, false, NULL);
    assert_non_null(job);
    expect_refused(start_as(&env, "j", env.blk[0], mem, &err), &err, EBUSY, "'other' (amend)");
    assert_int_equal(job_wait(job, NULL), 0);
    assert_int_equal(job_dismiss(job, NULL), 0);

    blk_unref(mem);
    blk_unref(blk_by_name(env.pl, "m1"));
    blk_unref(blk_by_name(env.pl, "m2"));
    kind_end(&env, *state, true);
}

/* What somebody blocked by himself. */
static void test_blocked(void **state)
{
    struct kind_env env;
    Error *reason = NULL;
    Error *err = NULL;

    error_set(&reason, EBUSY, "I say so");
    kind_begin(&env, *state, NULL);
    assert_int_equal(blk_op_block(env.blk[1], BLOCK_OP_TYPE_COMMIT_TARGET, reason), 0);
    expect_refused(start_as(&env, "j", env.blk[0], env.blk[1], &err), &err, EBUSY, "I say so");
    blk_op_unblock(env.blk[1], BLOCK_OP_TYPE_COMMIT_TARGET, reason);
    assert_int_equal(blk_op_block(env.blk[0], BLOCK_OP_TYPE_COMMIT_SOURCE, reason), 0);
    expect_refused(start_as(&env, "j", env.blk[0], env.blk[1], &err), &err, EBUSY, "I say so");
    blk_op_unblock(env.blk[0], BLOCK_OP_TYPE_COMMIT_SOURCE, reason);
    error_free(reason);
    kind_end(&env, *state, false);
}

/* Others may look, but not write; before, meanwhile and afterwards. */
static void test_writers(void **state)
{
    struct kind_env env;
    Error *err = NULL;

    for (unsigned i = 0; i < 2; i++) {
        unsigned refused = 0;
        BlockBackend *other;

        kind_begin(&env, *state, NULL);
        other = blk_new(env.pl, "other", NULL);
        assert_int_equal(blk_insert_bs(other, blk_bs(env.blk[i]), NULL), 0);
        expect_refused(start_as(&env, "j", env.blk[0], env.blk[1], &err), &err, EPERM, "'write, resize'");
        blk_remove_bs(other);
        kind_start(&env, 0);
        while (kind_status(&env) == JOB_STATUS_RUNNING) {
            int ret = blk_insert_bs(other, blk_bs(env.blk[i]), NULL); /* polls */

            if (kind_status(&env) != JOB_STATUS_RUNNING) {
                blk_remove_bs(other);
                break;
            }
            assert_int_equal(ret, -EPERM);
            assert_true(blk_op_is_blocked(env.blk[i], BLOCK_OP_TYPE_EJECT, NULL));
            refused++;
            ret = blk_pwrite_zeroes(env.blk[i], 0, 512, 0); /* the job writes in its place */
            assert_true(ret == -EPERM || kind_status(&env) != JOB_STATUS_RUNNING);
            aio_poll(env.ctx, true);
        }
        assert_true(refused > 0);
        assert_int_equal(kind_finish(&env), 0);
        assert_int_equal(blk_insert_bs(other, blk_bs(env.blk[i]), NULL), 0);
        blk_unref(other);
        kind_end(&env, *state, true);
    }
}

/* The backends that were given get another medium, or none, or end, at every turn: the job goes on
 * with what it began with. */
static void test_medium_goes(void **state)
{
    struct kind_env env;
    bool goes_on = true;

    for (unsigned turns = 0; goes_on; turns += KIND_STEP) {
        for (unsigned what = 0; what < 6; what++) {
            BlockOptions *options = block_options_parse("driver=mem,size=262144", NULL, NULL);
            BlockBackend **blk = &env.blk[what % 2];
            BlockDriverState *mem;

            kind_begin(&env, *state, NULL);
            mem = bdrv_open(env.pl, NULL, NULL, options, BDRV_O_RDWR, NULL);
            kind_start(&env, 0);
            for (unsigned i = 0; i < turns && kind_status(&env) != JOB_STATUS_CONCLUDED; i++) {
                aio_poll(env.ctx, true);
            }
            goes_on = kind_status(&env) != JOB_STATUS_CONCLUDED;
            if (what < 2) {
                blk_remove_bs(*blk);
            } else if (what < 4) {
                assert_int_equal(blk_set_bs(*blk, mem, NULL), 0);
            } else {
                blk_unref(*blk);
                *blk = NULL;
            }
            assert_int_equal(kind_finish(&env), 0);
            if (what >= 2 && what < 4) { /* it is a disk like any other */
                kind_fill(*blk, 0, 512, 1);
            }
            bdrv_unref(mem);
            kind_end(&env, *state, true);
        }
    }
}

static void test_misuse(void **state)
{
    struct kind_env env;
    struct job_start start = {.id = "j"};
    BlockBackend *empty;
    struct job_commit_options options = {.size = sizeof(options), .layers_count = 2};
    Error *err = NULL;

    kind_begin(&env, *state, NULL);
    empty = blk_new(env.pl, "empty", NULL);
    expect_refused(start_as(&env, "j", empty, env.blk[1], &err), &err, ENOMEDIUM, "'empty'");
    expect_refused(start_as(&env, "j", env.blk[0], empty, &err), &err, ENOMEDIUM, "'empty'");
    expect_refused(start_as(&env, "1", env.blk[0], env.blk[1], &err), &err, EINVAL, "'1'");
    options.layers = (BlockBackend *[]){env.blk[0], env.blk[1]};
    options.base = env.blk[1];
    options.empty_top = true;
    expect_refused(job_commit_start(env.pl, &start, &options, &err), &err, EINVAL,
                   "would show again");
    blk_unref(empty);
    kind_end(&env, *state, false);
}

int main(void)
{
    const struct CMUnitTest shared[] = {
        cmocka_unit_test(test_one_job_a_disk), cmocka_unit_test(test_blocked),
        cmocka_unit_test(test_writers),        cmocka_unit_test(test_medium_goes),
        cmocka_unit_test(test_misuse),
    };

    return kind_run_tests("whose disks", shared, &one_layer) +
           kind_disturb("one layer", &one_layer) + kind_disturb("two layers", &two_layers) +
           kind_disturb("onto an image", &onto_image);
}
