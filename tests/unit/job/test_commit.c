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

static int setup_one(void **state)
{
    *state = kind_model_new(&one_layer);
    return 0;
}

static int setup_two(void **state)
{
    *state = kind_model_new(&two_layers);
    return 0;
}

int main(void)
{
    const struct CMUnitTest disturbed[] = {
        cmocka_unit_test(kind_test_events), cmocka_unit_test(kind_test_pause),
        cmocka_unit_test(kind_test_cancel), cmocka_unit_test(kind_test_drain),
        cmocka_unit_test(kind_test_quit),   cmocka_unit_test(kind_test_errors),
        cmocka_unit_test(kind_test_power),
    };

    return cmocka_run_group_tests_name("one layer", disturbed, setup_one, kind_teardown) +
           cmocka_run_group_tests_name("two layers", disturbed, setup_two, kind_teardown);
}
