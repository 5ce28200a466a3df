/* SPDX-License-Identifier: MIT */
/* The job "rebase", on simulated disks. */
#include <errno.h>
#include <string.h>

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

static int setup_other(void **state)
{
    *state = kind_model_new(&other);
    return 0;
}

static int setup_alone(void **state)
{
    *state = kind_model_new(&alone);
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

    return cmocka_run_group_tests_name("another base", disturbed, setup_other, kind_teardown) +
           cmocka_run_group_tests_name("no base", disturbed, setup_alone, kind_teardown);
}
