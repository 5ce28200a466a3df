/* SPDX-License-Identifier: MIT */
/* The job "compact", on simulated disks. */
#include <errno.h>
#include <string.h>

#include <platter/bitmap.h>
#include <platter/image.h>

#include "kind.h"
#include "util/iov.h"

enum { DISK };

/* ---- images ---- */

static void snapshot(BlockBackend *blk, const char *name)
{
    struct bdrv_snapshot_info info = {.name = name, .icount = UINT64_MAX};
    uint64_t perm, shared;

    blk_get_perm(blk, &perm, &shared);
    assert_int_equal(blk_set_perm(blk, perm, BDRV_PERM_ALL, NULL), 0);
    assert_int_equal(bdrv_snapshot_create(blk_bs(blk), &info, NULL), 0);
    assert_int_equal(blk_set_perm(blk, perm, shared, NULL), 0);
}

static void forget_snapshot(BlockBackend *blk, const char *name)
{
    uint64_t perm, shared;

    blk_get_perm(blk, &perm, &shared);
    assert_int_equal(blk_set_perm(blk, perm, BDRV_PERM_ALL, NULL), 0);
    assert_int_equal(bdrv_snapshot_delete(blk_bs(blk), NULL, name, NULL), 0);
    assert_int_equal(blk_set_perm(blk, perm, shared, NULL), 0);
}

/* Clusters of its own, of two snapshots, zeroes as data; holes where a third snapshot was. */
static void fill(BlockBackend *blk, uint8_t *guest)
{
    kind_fill_guest(blk, guest, 0, 49152, 0x11);
    snapshot(blk, "gone");
    kind_fill_guest(blk, guest, 0, 32768, 0x12);
    kind_fill_guest(blk, guest, 65536, 16384, 0x13);
    snapshot(blk, "one");
    kind_fill_guest(blk, guest, 16384, 8192, 0x14);
    kind_fill_guest(blk, guest, 131072, 16384, 0);
    snapshot(blk, "two");
    kind_fill_guest(blk, guest, 4096, 512, 0x15);
    kind_fill_guest(blk, guest, KIND_DISK_BYTES - 16384, 16384, 0x16);
    forget_snapshot(blk, "gone");
}

static void build_v3(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    kind_create(env, "/sim/top", "driver=qcow2,size=262144,cluster_size=4096");
    blk = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR);
    fill(blk, guest);
    blk_unref(blk);
}

/* No dirty bit, no zero flag. */
static void build_v2(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    kind_create(env, "/sim/top", "driver=qcow2,size=262144,cluster_size=4096,compat=0.10");
    blk = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR);
    fill(blk, guest);
    blk_unref(blk);
}

static void is_written(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

static int write_compressed(struct kind_env *env, BlockBackend *blk, uint64_t at, void *buf,
                            size_t bytes)
{
    struct iovec iov = {buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);
    int ret = 1;

    assert_non_null(
        blk_aio_pwritev(blk, (int64_t)at, &view, BDRV_REQ_WRITE_COMPRESSED, is_written, &ret));
    while (ret == 1) {
        aio_poll(env->ctx, true);
    }
    return ret;
}

/* Compressed clusters, some of them in a snapshot, and a stored bitmap. */
static void build_packed(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    kind_create(env, "/sim/top", "driver=qcow2,size=262144,cluster_size=4096");
    blk = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR | BDRV_O_UNMAP);
    kind_fill_guest(blk, guest, 0, 65536, 0x21);
    assert_non_null(bdrv_bitmap_create(blk_bs(blk), "b", 512, BDRV_BITMAP_PERSISTENT, NULL));
    for (uint64_t at = 131072; at < 196608; at += 4096) {
        uint8_t buf[4096];

        for (size_t i = 0; i < sizeof(buf); i++) {
            buf[i] = (uint8_t)(i / 8 * (i / 8) + at / 512);
        }
        memcpy(guest + at, buf, sizeof(buf));
        assert_int_equal(write_compressed(env, blk, at, buf, sizeof(buf)), 0);
    }
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 57344, BDRV_REQ_MAY_UNMAP), 0);
    memset(guest, 0, 57344);
    snapshot(blk, "s");
    blk_unref(blk);
}

/* Subclusters, over a backing file. */
static void build_extended(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    assert_int_equal(sim_world_add_file(env->world, "/sim/base", KIND_DISK_BYTES, NULL), 0);
    blk = kind_open(env, "/sim/base", "raw", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 0, 131072, 0x31);
    blk_unref(blk);
    kind_create(env, "/sim/top",
                "driver=qcow2,size=262144,cluster_size=16384,extended_l2=on,backing_file=base,"
                "backing_fmt=raw");
    blk = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 0, 65536, 0x32);
    kind_fill_guest(blk, guest, 49152, 2048, 0x33);
    snapshot(blk, "s");
    kind_fill_guest(blk, guest, 512, 1024, 0);
    kind_fill_guest(blk, guest, 131072, 16384, 0x31);
    kind_fill_guest(blk, guest, 98304, 16384, 0x31); /* the same as below */
    forget_snapshot(blk, "s");
    blk_unref(blk);
}

static void build_raw(struct kind_env *env, uint8_t *guest)
{
    BlockBackend *blk;

    assert_int_equal(sim_world_add_file(env->world, "/sim/top", KIND_DISK_BYTES, NULL), 0);
    blk = kind_open(env, "/sim/top", "raw", BDRV_O_RDWR);
    kind_fill_guest(blk, guest, 0, 65536, 0x41);
    kind_fill_guest(blk, guest, 131072, 65536, 0);
    blk_unref(blk);
}

/* ---- the job ---- */

static bool is_raw(const struct kind_env *env)
{
    return env->kind->build == build_raw;
}

static void open_disk(struct kind_env *env)
{
    env->blk[DISK] =
        kind_open(env, "/sim/top", is_raw(env) ? "raw" : "qcow2", BDRV_O_RDWR | BDRV_O_UNMAP);
}

static Job *start(struct kind_env *env, const struct job_start *start, Error **errp)
{
    struct job_compact_options options = {
        .size = sizeof(options),
        .disk = env->blk[DISK],
        .drop_same = env->kind->build == build_extended,
        .bytes_per_second = env->speed,
        .on_error = env->policy,
    };

    return job_compact_start(env->pl, start, &options, errp);
}

/* What a snapshot holds at a few places. */
static void expect_snapshot(struct kind_env *env, const char *name, uint64_t offset, int byte)
{
    BlockBackend *blk = kind_open(env, "/sim/top", "qcow2", 0);
    uint8_t buf[512];

    assert_int_equal(bdrv_snapshot_load_tmp(blk_bs(blk), NULL, name, NULL), 0);
    assert_int_equal(blk_pread(blk, (int64_t)offset, buf, sizeof(buf)), sizeof(buf));
    for (size_t i = 0; i < sizeof(buf); i++) {
        assert_int_equal(buf[i], byte);
    }
    blk_unref(blk);
}

static void check(struct kind_env *env, bool success, const uint8_t *guest)
{
    kind_expect(env, "/sim/top", is_raw(env) ? "raw" : "qcow2", guest, KIND_DISK_BYTES);
    if (env->kind->build == build_v3 || env->kind->build == build_v2) {
        expect_snapshot(env, "one", 0, 0x12);
        expect_snapshot(env, "one", 40960, 0x11);
        expect_snapshot(env, "one", 20480, 0x12);
        expect_snapshot(env, "two", 20480, 0x14);
        expect_snapshot(env, "two", 4096, 0x12);
        expect_snapshot(env, "two", 69632, 0x13);
        expect_snapshot(env, "two", 131072, 0);
    }
}

static const struct kind v3 = {
    .files = {"/sim/top"}, .build = build_v3, .open = open_disk, .start = start, .check = check};
static const struct kind v2 = {
    .files = {"/sim/top"}, .build = build_v2, .open = open_disk, .start = start, .check = check};
static const struct kind packed = {.files = {"/sim/top"},
                                   .build = build_packed,
                                   .open = open_disk,
                                   .start = start,
                                   .check = check};
static const struct kind extended = {.files = {"/sim/base", "/sim/top"},
                                     .build = build_extended,
                                     .open = open_disk,
                                     .start = start,
                                     .check = check};
static const struct kind raw = {
    .files = {"/sim/top"}, .build = build_raw, .open = open_disk, .start = start, .check = check};

/* ---- what it does ---- */

static void run_once(struct kind_env *env, struct job_compact_result *ret, bool dry_run)
{
    struct job_compact_options options = {
        .size = sizeof(options), .disk = env->blk[DISK], .result = ret, .dry_run = dry_run};
    struct job_start how = {.id = "c", .flags = JOB_MANUAL_DISMISS};
    Job *job = job_compact_start(env->pl, &how, &options, NULL);

    assert_non_null(job);
    assert_int_equal(job_wait(job, NULL), 0);
    assert_int_equal(job_dismiss(job, NULL), 0);
}

static void gets_shorter_and_then_not(void **state)
{
    struct job_compact_result dry, first, second;
    struct kind_env env;

    kind_begin(&env, *state, NULL);
    run_once(&env, &dry, true);
    run_once(&env, &first, false);
    run_once(&env, &second, false);
    assert_true(first.file_bytes_after < first.file_bytes_before);
    assert_int_equal(dry.file_bytes_before, first.file_bytes_before);
    assert_true(dry.file_bytes_after < dry.file_bytes_before);
    assert_int_equal(first.zeroed_bytes, 16384);
    assert_true(first.moved_bytes > 0);
    assert_int_equal(second.file_bytes_before, first.file_bytes_after);
    assert_true(second.file_bytes_after <= second.file_bytes_before);
    assert_int_equal(second.zeroed_bytes + second.leaked_bytes, 0);
    kind_end(&env, *state, true);
}

static void gets_shorter(void **state)
{
    struct job_compact_result r;
    struct kind_env env;

    kind_begin(&env, *state, NULL);
    run_once(&env, &r, false);
    assert_true(r.file_bytes_after < r.file_bytes_before);
    kind_end(&env, *state, true);
}

/* Of a hole block status tells at once, however large it is. */
static void passes_holes_at_once(void **state)
{
    static const struct kind nothing = {0};
    struct job_compact_result r;
    struct kind_env env;

    (void)state;
    kind_begin_empty(&env, &nothing);
    assert_int_equal(sim_world_add_file(env.world, "/sim/top", UINT64_C(1) << 40, NULL), 0);
    env.blk[DISK] = kind_open(&env, "/sim/top", "raw", BDRV_O_RDWR | BDRV_O_UNMAP);
    kind_fill(env.blk[DISK], 3 << 20, 512, 0x11);
    kind_fill(env.blk[DISK], UINT64_C(700) << 30, 65536, 0);
    kind_fill(env.blk[DISK], (UINT64_C(1) << 40) - 512, 512, 0x12);
    run_once(&env, &r, false);
    assert_int_equal(r.zeroed_bytes, 65536);
    assert_in_range(kind_calls(&env), 1, 100);
    blk_unref(env.blk[DISK]);
    env.blk[DISK] = NULL;
    kind_end_empty(&env);
}

static void is_not_for_others_meanwhile(void **state)
{
    struct job_compact_options options = {.size = sizeof(options)};
    struct job_start how = {.id = "c", .flags = JOB_MANUAL_DISMISS};
    struct kind_env env;
    BlockBackend *other;
    Error *err = NULL;

    kind_begin(&env, *state, NULL);
    options.disk = env.blk[DISK];
    other = blk_new(env.pl, "other", NULL);
    assert_non_null(other);
    assert_int_equal(blk_set_perm(other, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_ALL, NULL), 0);
    assert_int_equal(blk_insert_bs(other, blk_bs(env.blk[DISK]), NULL), 0);
    assert_null(job_compact_start(env.pl, &how, &options, &err));
    assert_non_null(err);
    error_free(err);
    blk_unref(other);
    kind_end(&env, *state, false);
}

int main(void)
{
    const struct CMUnitTest itself[] = {
        cmocka_unit_test(gets_shorter_and_then_not),
        cmocka_unit_test(passes_holes_at_once),
        cmocka_unit_test(is_not_for_others_meanwhile),
    };
    const struct CMUnitTest shorter[] = {cmocka_unit_test(gets_shorter)};

    return kind_run_tests("by itself", itself, &v3) + kind_disturb("version 3", &v3) +
           kind_run_tests("version 2", shorter, &v2) + kind_disturb_briefly("version 2", &v2) +
           kind_run_tests("compressed", shorter, &packed) +
           kind_disturb_briefly("compressed", &packed) +
           kind_run_tests("subclusters", shorter, &extended) +
           kind_disturb_briefly("subclusters", &extended) + kind_disturb_briefly("raw", &raw);
}
