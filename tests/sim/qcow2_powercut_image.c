/* SPDX-License-Identifier: MIT */
/*
 * Operations on the whole image, which come when no request is in flight: made, opened, closed,
 * snapshots, sizes, amends, bitmaps, checks. The expectation is told before each what may be found
 * while it runs, and after it what must be.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <platter/bitmap.h>
#include <platter/image.h>
#include <platter/jobs.h>
#include <platter/options.h>

#include "loop/internal.h"
#include "qcow2_powercut.h"

static struct expect_snapshot *any_snapshot(struct powercut *t)
{
    struct expect_snapshot *found[EXPECT_SNAPSHOTS];
    size_t n = 0;

    for (size_t i = 0; i < EXPECT_SNAPSHOTS; i++) {
        if (t->e.snapshots[i].used) {
            found[n++] = &t->e.snapshots[i];
        }
    }
    return n > 0 ? found[sim_rng_below(&t->rng, n)] : NULL;
}

static void save_vmstate(struct powercut *t)
{
    uint64_t bytes = (1 + sim_rng_below(&t->rng, 40)) * 512;
    uint8_t *buf = malloc(bytes);
    int ret;

    assert_non_null(buf);
    t->vm_version = 1 + t->vm_version % 60;
    shadow_fill(buf, 0, bytes, t->vm_version);
    ret = blk_save_vmstate(t->h.blk, buf, 0, (int)bytes);
    pc_told(t, "vmstate", ret < 0 ? ret : 0, NULL);
    t->vm_bytes = ret < 0 ? 0 : bytes;
    free(buf);
}

static void snapshot_create(struct powercut *t)
{
    struct bdrv_snapshot_info info = {.date_sec = 1, .date_nsec = 2};
    struct expect_snapshot *s;
    char name[16];
    Error *err = NULL;
    int ret;

    t->vm_bytes = 0;
    if ((t->config->whole & WHOLE_VMSTATE) && sim_rng_percent(&t->rng, 50)) {
        save_vmstate(t);
    }
    snprintf(name, sizeof(name), "s%u", t->snapshot_number++);
    s = expect_create(&t->e, name, t->vm_bytes, t->vm_version);
    if (!s) {
        return;
    }
    info.name = name;
    info.vm_state_bytes = t->vm_bytes;
    ret = bdrv_snapshot_create(blk_bs(t->h.blk), &info, &err);
    expect_create_end(&t->e, s, ret == 0);
    pc_told(t, "snapshot create", ret, err);
}

static void snapshot_op(struct powercut *t)
{
    struct expect_snapshot *s = any_snapshot(t);
    unsigned what = (unsigned)sim_rng_below(&t->rng, 10);
    Error *err = NULL;
    int ret;

    if (!s || what < 4) {
        snapshot_create(t);
    } else if (what < 7) {
        if (bdrv_bitmap_find(blk_bs(t->h.blk), EXPECT_BITMAP)) {
            return; /* it would not know what changed: refused */
        }
        expect_apply(&t->e, s);
        ret = bdrv_snapshot_apply(blk_bs(t->h.blk), s->name, &err);
        expect_apply_end(&t->e, s, ret == 0);
        pc_told(t, "snapshot apply", ret, err);
    } else {
        expect_delete(&t->e, s);
        ret = bdrv_snapshot_delete(blk_bs(t->h.blk), NULL, s->name, &err);
        expect_delete_end(&t->e, s, ret == 0);
        pc_told(t, "snapshot delete", ret, err);
    }
}

static bool has_snapshots(const struct powercut *t)
{
    for (size_t i = 0; i < EXPECT_SNAPSHOTS; i++) {
        if (t->e.snapshots[i].used) {
            return true;
        }
    }
    return false;
}

static void resize_op(struct powercut *t)
{
    uint64_t largest = t->h.shadow.size;
    uint64_t bytes = (1 + sim_rng_below(&t->rng, largest / 512)) * 512;
    enum bdrv_prealloc prealloc = BDRV_PREALLOC_OFF;
    Error *err = NULL;
    int ret;

    if (bytes > t->e.disk_bytes && sim_rng_percent(&t->rng, 40) && !t->e.backing.data) {
        prealloc = BDRV_PREALLOC_METADATA + (enum bdrv_prealloc)sim_rng_below(&t->rng, 3);
    }
    expect_resize(&t->e, bytes);
    ret = blk_resize(t->h.blk, (int64_t)bytes, true, prealloc, &err);
    expect_resize_end(&t->e, bytes, ret == 0);
    pc_told(t, "resize", ret, err);
}

static void amend_op(struct powercut *t)
{
    static const char *const what[] = {
        "refcount_bits=1",
        "refcount_bits=8",
        "refcount_bits=64",
        "refcount_bits=16",
        "lazy_refcounts=on",
        "lazy_refcounts=off",
        "refcount_bits=16,lazy_refcounts=off,compat=0.10",
        "compat=1.1",
    };
    const char *text = what[sim_rng_below(&t->rng, sizeof(what) / sizeof(what[0]))];
    Error *err = NULL;
    int ret;

    if (t->e.im.h.version < 3 && !strstr(text, "compat")) {
        text = "compat=1.1";
    }
    t->e.whole = true;
    ret = bdrv_amend(blk_bs(t->h.blk), block_options_parse(text, NULL, NULL), false, NULL, &err);
    t->e.whole = ret < 0;
    pc_told(t, text, ret, err);
}

void pc_found_by_check(void *opaque, const char *text)
{
    pc_trace(opaque, "check: %s", text);
}

static void check_op(struct powercut *t)
{
    struct bdrv_check_options options = {
        .size = sizeof(options),
        .finding = pc_found_by_check,
        .opaque = t,
        .fix = sim_rng_percent(&t->rng, 50) ? BDRV_FIX_LEAKS | BDRV_FIX_ERRORS : 0,
    };
    struct bdrv_check_result result = {0};
    Error *err = NULL;
    int ret = bdrv_check(blk_bs(t->h.blk), &options, &result, &err);

    pc_told(t, "check", ret, err);
    if (ret == 0 && (result.corruptions || result.check_errors || result.leaks ||
                     result.corruptions_fixed || result.leaks_fixed)) {
        pc_wrong(t, "check of an open image finds %llu corruptions, %llu leaks",
                 (unsigned long long)(result.corruptions + result.corruptions_fixed),
                 (unsigned long long)(result.leaks + result.leaks_fixed));
    }
}

/* Give space back; sometimes it is cancelled somewhere. Nothing may change, nor leak. */
static void compact_op(struct powercut *t)
{
    struct job_start start = {.id = "compact", .flags = JOB_MANUAL_DISMISS};
    struct job_compact_options options = {
        .size = sizeof(options),
        .disk = t->h.blk,
        .drop_same = t->config->backing_bytes > 0 && sim_rng_percent(&t->rng, 30),
        .keep_zeroes = sim_rng_percent(&t->rng, 30),
    };
    uint64_t turns = sim_rng_percent(&t->rng, 30) ? sim_rng_below(&t->rng, 200) : UINT64_MAX;
    Error *err = NULL;
    Job *job = job_compact_start(t->h.pl, &start, &options, &err);
    struct job_info info;
    int ret;

    if (!job) {
        pc_told(t, "compact", -EINVAL, err);
        return;
    }
    for (job_get_info(job, &info); turns > 0 && info.status != JOB_STATUS_CONCLUDED; turns--) {
        aio_poll(platter_get_main_context(t->h.pl), true);
        job_get_info(job, &info);
    }
    if (info.status != JOB_STATUS_CONCLUDED) {
        (void)job_cancel(job, true, NULL);
    }
    ret = job_wait(job, &err);
    job_get_info(job, &info);
    if (ret == -ECANCELED && info.cancelled) {
        error_free(err);
        err = NULL;
        ret = 0;
    }
    job_dismiss(job, NULL);
    pc_told(t, "compact", ret, err);
}

static void bitmap_op(struct powercut *t)
{
    BlockDriverState *bs = blk_bs(t->h.blk);
    BdrvDirtyBitmap *bm = bdrv_bitmap_find(bs, EXPECT_BITMAP);
    Error *err = NULL;
    int ret = 0;

    if (!bm) {
        expect_bitmap_new(&t->e);
        t->e.bitmap = true;
        pc_trace(t, "bitmap create");
        bm = bdrv_bitmap_create(bs, EXPECT_BITMAP, 512u << sim_rng_below(&t->rng, 5),
                                BDRV_BITMAP_PERSISTENT, &err);
        ret = bm ? 0 : -EINVAL;
    } else if (sim_rng_percent(&t->rng, 60)) {
        pc_trace(t, "bitmaps store");
        ret = bdrv_bitmaps_store(bs, &err);
        expect_bitmap_stored(&t->e);
    } else {
        t->e.bitmap = false;
        ret = bdrv_bitmap_remove(bm, &err);
        t->e.bitmap_maybe = ret < 0;
    }
    pc_told(t, "bitmap", ret, err);
}

int pc_open_disk(struct powercut *t, struct harness *h)
{
    char options[512];
    int ret;

    snprintf(options, sizeof(options),
             "driver=qcow2,file.driver=file,file.filename=" SIM_DISK_PATH "%s%s%s%s",
             t->config->data_file ? ",data-file.driver=file,data-file.filename=" EXPECT_DATA_PATH
                                  : "",
             t->config->backing_bytes ? ",backing.driver=raw,backing.file.driver=file,"
                                        "backing.file.filename=" EXPECT_BACKING_PATH
                                      : "",
             t->config->open ? t->config->open : "",
             sim_rng_percent(&t->rng, 50) ? ",discard=unmap,file.discard=unmap" : "");
    ret = harness_open(h, options, BDRV_O_RDWR | BDRV_O_UNMAP);
    if (ret == 0) {
        blk_set_enable_write_cache(h->blk, !t->config->write_through);
    } else {
        pc_wrong(t, "%s: %s", h == &t->h ? "open" : "open of a sample", h->error);
    }
    return ret;
}

/* What is closed must be exactly what was answered. */
static void judge_closed(struct powercut *t)
{
    struct sim_disk *file, *data;
    const char *wrong;

    harness_own++;
    file = sim_world_clone_disk(t->h.world, SIM_DISK_PATH);
    data = t->config->data_file ? sim_world_clone_disk(t->h.world, EXPECT_DATA_PATH) : NULL;
    wrong = expect_judge(&t->e, file, data, EXPECT_CLOSED);
    if (wrong) {
        pc_wrong(t, "%s", wrong);
    }
    sim_disk_free(file);
    sim_disk_free(data);
    harness_own--;
}

/* Each call takes its own time, so that many are under way and end in another order; and that order
 * is the seed's, not that of the machine's threads. */
static unsigned pending_work(void *opaque)
{
    return workers_pending(opaque);
}

void pc_calls_take_time(struct powercut *t, bool on)
{
    sim_faults_clear(sim_world_faults(t->h.world));
    sim_world_time_by_loop(t->h.world, on ? pending_work : NULL, workers_current,
                           platter_get_main_context(t->h.pl));
    if (on) {
        sim_faults_add(sim_world_faults(t->h.world),
                       &(struct sim_rule){.calls = SIM_CALLS_DATA | SIM_CALLS(SIM_CALL_TRUNCATE),
                                          .delay_ns = 1000,
                                          .delay_spread_ns = 1000000});
    }
}

void pc_close_disk(struct powercut *t)
{
    shadow_flush_begin(&t->h.shadow);
    blk_unref(t->h.blk);
    t->h.blk = NULL;
    shadow_flush_end(&t->h.shadow, true);
    expect_bitmap_stored(&t->e);
    if (!t->wrong[0]) {
        judge_closed(t);
    }
}

static void reopen_op(struct powercut *t)
{
    pc_calls_take_time(t, false);
    pc_close_disk(t);
    pc_open_disk(t, &t->h);
    pc_calls_take_time(t, true);
}

void pc_whole_op(struct powercut *t)
{
    unsigned kinds = t->config->whole;
    unsigned bit;

    t->operations++;
    pc_trace(t, "operation");
    if (getenv("PLATTER_STATES_ONLY")) {
        kinds &= ~(unsigned)WHOLE_CHECK;
    }
    do {
        bit = 1u << sim_rng_below(&t->rng, 8);
    } while (!(kinds & bit));
    switch (bit) {
    case WHOLE_SNAPSHOTS:
        snapshot_op(t);
        break;
    case WHOLE_RESIZE:
        /* a version 2 image with snapshots cannot be resized */
        if (t->e.im.h.version >= 3 || !has_snapshots(t)) {
            resize_op(t);
        }
        break;
    case WHOLE_AMEND:
        amend_op(t);
        break;
    case WHOLE_BITMAP:
        bitmap_op(t);
        break;
    case WHOLE_VMSTATE:
        save_vmstate(t);
        break;
    case WHOLE_REOPEN:
        reopen_op(t);
        break;
    case WHOLE_COMPACT:
        compact_op(t);
        break;
    default:
        check_op(t);
        break;
    }
}

void pc_create_disk(struct powercut *t)
{
    const struct powercut_config *c = t->config;
    BlockOptions *options = block_options_parse(c->create, NULL, NULL);
    Error *err = NULL;
    int ret = harness_platter(&t->h);

    assert_non_null(options);
    assert_int_equal(block_options_set_str(options, "driver", "qcow2"), 0);
    assert_int_equal(block_options_set_u64(options, "size", c->disk_bytes), 0);
    if (c->backing_bytes) {
        block_options_set_str(options, "backing_file", EXPECT_BACKING_PATH);
        block_options_set_str(options, "backing_fmt", "raw");
    }
    if (ret == 0) {
        ret = bdrv_create(t->h.pl, SIM_DISK_PATH, options, &err);
    }
    pc_told(t, "create", ret, err);
}
