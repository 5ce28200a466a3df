/* SPDX-License-Identifier: MIT */
/* The job "amend", on simulated disks. */
#include <stdlib.h>
#include <string.h>

#include <platter/bitmap.h>
#include <platter/graph.h>
#include <platter/image.h>

#include "kind.h"

static void build(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    assert_int_equal(sim_world_add_file(env->world, "/sim/base", KIND_DISK_BYTES, NULL), 0);
    blk = kind_open(env, "/sim/base", "raw", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 0, 32768, 0x11);
    blk_unref(blk);
    kind_create(env, "/sim/disk",
                "driver=qcow2,size=262144,cluster_size=4096,compat=0.10,backing_file=base,"
                "backing_fmt=raw");
    blk = kind_open(env, "/sim/disk", "qcow2", BDRV_O_RDWR);
    for (unsigned i = 0; i < 6; i++) {
        kind_fill_guest(blk, guest, i * 40960, 4096, (int)(0x21 + i));
    }
    blk_unref(blk);
}

static void open_disk(struct kind_env *env)
{
    env->blk[0] = kind_open(env, "/sim/disk", "qcow2", BDRV_O_RDWR);
}

/* Upwards, so that refcounts are rewritten. */
static Job *start_up(struct kind_env *env, const struct job_start *start, Error **errp)
{
    BlockOptions *options = block_options_parse("compat=1.1,lazy_refcounts=on", NULL, NULL);

    return job_amend_start(env->pl, start, blk_bs(env->blk[0]), options, false, errp);
}

static Job *start_name(struct kind_env *env, const struct job_start *start, Error **errp)
{
    BlockOptions *options = block_options_parse("size=327680", NULL, NULL);

    return job_amend_start(env->pl, start, blk_bs(env->blk[0]), options, false, errp);
}

static bool says(struct kind_env *env, const char *what)
{
    BlockBackend *blk = kind_open(env, "/sim/disk", "qcow2", 0);
    char *info = bdrv_get_specific_info(blk_bs(blk), NULL);
    bool found;

    assert_non_null(info);
    found = strstr(info, what) != NULL;
    free(info);
    blk_unref(blk);
    return found;
}

static void check_up(struct kind_env *env, bool success, const uint8_t *guest)
{
    kind_expect(env, "/sim/disk", "qcow2", guest, KIND_DISK_BYTES);
    if (success) {
        assert_true(says(env, "\"1.1\""));
    }
}

static void check_larger(struct kind_env *env, bool success, const uint8_t *guest)
{
    BlockBackend *blk;

    kind_expect(env, "/sim/disk", "qcow2", guest, KIND_DISK_BYTES);
    blk = kind_open(env, "/sim/disk", "qcow2", 0);
    assert_true(blk_getlength(blk) == 327680 ||
                (!success && blk_getlength(blk) == KIND_DISK_BYTES));
    blk_unref(blk);
}

static const struct kind upwards = {
    .one_call = true,
    .files = {"/sim/base", "/sim/disk"},
    .build = build,
    .open = open_disk,
    .start = start_up,
    .check = check_up,
};
static const struct kind larger = {
    .one_call = true,
    .files = {"/sim/base", "/sim/disk"},
    .build = build,
    .open = open_disk,
    .start = start_name,
    .check = check_larger,
};

/* ---- other operations on the image, while the amend works on it ---- */

struct meanwhile {
    struct kind_env env;
    uint64_t calls; /* of the disks, until it comes */
    unsigned what;
    bool came;
};

static int operate(BlockDriverState *bs, unsigned what, Error **errp)
{
    struct bdrv_snapshot_info snapshot = {.name = "s"};
    struct bdrv_check_options check = {.size = sizeof(check), .fix = BDRV_FIX_LEAKS};
    struct bdrv_check_result result;

    switch (what) {
    case 0:
        return bdrv_snapshot_create(bs, &snapshot, errp);
    case 1:
        return bdrv_check(bs, &check, &result, errp);
    case 2:
        return bdrv_change_backing_file(bs, "base", "raw", errp);
    case 3:
        return bdrv_amend(bs, block_options_parse("size=320k", NULL, NULL), false, NULL, errp);
    case 4:
        return bdrv_bitmaps_store(bs, errp);
    default:
        return bdrv_reopen_changed(
            bs, block_options_parse("l2-cache-size=8k,lazy-refcounts=off", NULL, NULL), errp);
    }
}

static void meanwhile_bh(void *opaque)
{
    struct meanwhile *m = opaque;
    Error *err = NULL;

    if (m->env.job == NULL || kind_status(&m->env) == JOB_STATUS_CONCLUDED) {
        return;
    }
    if (kind_calls(&m->env) < m->calls) {
        assert_int_equal(aio_bh_schedule_oneshot(m->env.ctx, meanwhile_bh, m), 0);
        return;
    }
    m->came = true;
    if (operate(blk_bs(m->env.blk[0]), m->what, &err) < 0) {
        fail_msg("%u: %s", m->what, error_get_pretty(err));
    }
}

static void test_operations(void **state)
{
    const struct kind_model *model = *state;
    struct meanwhile m;

    for (unsigned what = 0; what < 6; what++) {
        m.came = true;
        for (uint64_t calls = 0; m.came; calls += KIND_STEP) {
            m = (struct meanwhile){.what = what};
            kind_begin(&m.env, model, NULL);
            m.calls = kind_calls(&m.env) + calls;
            kind_start(&m.env, 0);
            assert_int_equal(aio_bh_schedule_oneshot(m.env.ctx, meanwhile_bh, &m), 0);
            if (kind_finish(&m.env) < 0) {
                fail_msg("%s", m.env.why);
            }
            aio_poll(m.env.ctx, false); /* the last of ours */
            kind_end(&m.env, model, true);
        }
    }
}

int main(void)
{
    const struct CMUnitTest operations[] = {cmocka_unit_test(test_operations)};

    return kind_run_tests("operations", operations, &upwards) + kind_disturb("version", &upwards) +
           kind_disturb("size", &larger);
}
