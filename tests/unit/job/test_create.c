/* SPDX-License-Identifier: MIT */
/* The job "create", on simulated disks. */
#include <errno.h>
#include <string.h>

#include <platter/image.h>

#include "kind.h"

/* A file that is in use as a node, and one that is not there yet. */
static void build(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    assert_int_equal(sim_world_add_file(env->world, "/sim/base", KIND_DISK_BYTES, NULL), 0);
    assert_int_equal(sim_world_add_file(env->world, "/sim/disk", 65536, NULL), 0);
    blk = kind_open(env, "/sim/base", "raw", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 0, 65536, 0x11);
    blk_unref(blk);
    blk = kind_open(env, "/sim/disk", "raw", BDRV_O_RDWR);
    kind_fill(blk, 0, 65536, 0x77); /* what was there before */
    blk_unref(blk);
}

static void open_disk(struct kind_env *env)
{
    env->blk[0] = kind_open(env, "/sim/disk", "raw", BDRV_O_RDWR);
    assert_int_equal(blk_set_perm(env->blk[0], 0, BDRV_PERM_ALL, NULL), 0);
}

static BlockOptions *image_options(void)
{
    return block_options_parse("driver=qcow2,size=262144,cluster_size=4096,backing_file=base,"
                               "backing_fmt=raw,refcount_bits=64",
                               NULL, NULL);
}

static Job *start_on_node(struct kind_env *env, const struct job_start *start, Error **errp)
{
    return job_create_start(env->pl, start, NULL, bdrv_get_node_name(blk_bs(env->blk[0])),
                            image_options(), errp);
}

static Job *start_file(struct kind_env *env, const struct job_start *start, Error **errp)
{
    return job_create_start(env->pl, start, "/sim/new", NULL, image_options(), errp);
}

static void check(struct kind_env *env, const char *path, bool success, const uint8_t *guest)
{
    kind_expect(env, "/sim/base", "raw", guest, KIND_DISK_BYTES);
    if (success) {
        BlockBackend *blk;

        kind_expect(env, path, "qcow2", guest, KIND_DISK_BYTES);
        blk = kind_open(env, path, "qcow2", 0);
        assert_int_equal(blk_getlength(blk), KIND_DISK_BYTES);
        assert_string_equal(bdrv_get_backing_file(blk_bs(blk)), "base");
        blk_unref(blk);
    }
}

static void check_node(struct kind_env *env, bool success, const uint8_t *guest)
{
    check(env, "/sim/disk", success, guest);
}

static void check_file(struct kind_env *env, bool success, const uint8_t *guest)
{
    check(env, "/sim/new", success, guest);
}

static const struct kind on_node = {
    .one_call = true,
    .in_turn = true,
    .files = {"/sim/base", "/sim/disk"},
    .build = build,
    .open = open_disk,
    .start = start_on_node,
    .check = check_node,
};
static const struct kind of_file = {
    .one_call = true,
    .in_turn = true,
    .files = {"/sim/base", "/sim/disk", "/sim/new"},
    .build = build,
    .open = open_disk,
    .start = start_file,
    .check = check_file,
};

int main(void)
{
    return kind_disturb("on a node", &on_node) + kind_disturb("a file", &of_file);
}
