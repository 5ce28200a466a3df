/* SPDX-License-Identifier: MIT */
/*
 * What the scenarios of qcow2 stand on: the images they begin with, the judge, and the calls, each
 * of which tells the expectation what may be found from now on.
 */
#include "scenario_qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/image.h>
#include <platter/options.h>

#define KIB 1024u
#define CLUSTER 4096u

struct qcow2_expect q_expect; /* of the run that is on */
static bool nothing_fails;    /* in that run */

/* While the disk is open, its metadata is partly in memory: what is on the disk is what a cut of
 * power would leave. */
static const char *judge(struct harness *h, const struct sim_disk *disk, bool after_cut)
{
    bool exact = !after_cut && !h->blk && nothing_fails;
    struct sim_disk *data = sim_world_clone_disk(h->world, EXPECT_DATA_PATH);
    const char *wrong;

    if (data && after_cut) { /* the worst: nothing that was not flushed */
        static const uint8_t none[SIM_PENDING_MAX / 8 + 1];

        sim_disk_power_cut_subset(data, none);
    }
    wrong = expect_judge(&q_expect, disk, data, exact ? EXPECT_CLOSED : EXPECT_CUT);
    sim_disk_free(data);
    return wrong;
}

void q_must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "scenarios_qcow2: %s\n", what);
        abort();
    }
}

static void make_image(struct scenario_run *r, const struct scenario *s, uint64_t backing_bytes)
{
    uint64_t bytes = s->disk_bytes ? s->disk_bytes : SCENARIO_DISK_BYTES;
    BlockOptions *options = block_options_parse(s->create ? s->create : "cluster_size=4k", 0, 0);
    Error *err = 0;

    nothing_fails = r->strict;
    expect_init(&q_expect, &r->h, bytes, backing_bytes);
    q_must(options && block_options_set_str(options, "driver", "qcow2") == 0 &&
               block_options_set_u64(options, "size", bytes) == 0,
           "options");
    if (backing_bytes > 0) {
        q_must(block_options_set_str(options, "backing_file", EXPECT_BACKING_PATH) == 0 &&
                   block_options_set_str(options, "backing_fmt", "raw") == 0,
               "options");
    }
    q_must(harness_platter(&r->h) == 0, "no Platter");
    if (bdrv_create(r->h.pl, SIM_DISK_PATH, options, &err) < 0) {
        q_must(false, error_get_pretty(err));
    }
    harness_close(&r->h);
    r->h.judge = judge;
}

void q_fresh(struct scenario_run *r, const struct scenario *s)
{
    make_image(r, s, 0);
}

void q_over_backing(struct scenario_run *r, const struct scenario *s)
{
    make_image(r, s, 40 * KIB);
}

/* Change bytes of the image behind everybody's back. */
static void poke(struct scenario_run *r, uint64_t offset, const void *bytes, size_t n)
{
    int fd = os->open(SIM_DISK_PATH, 2 /* O_RDWR */, 0);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = n};

    q_must(fd >= 0 && os->pwritev(fd, &iov, 1, offset, 0) == (int64_t)n && os->fdatasync(fd) == 0,
           "poke");
    os->close(fd);
}

/* Refcounts of an image of 4 KiB clusters begin at 2 * 4 KiB. */
void q_dirty(struct scenario_run *r, const struct scenario *s)
{
    make_image(r, s, 0);
    poke(r, 79, "\1", 1);                       /* the dirty bit */
    poke(r, 2 * CLUSTER + 6, "\0\0", 2);        /* the L1 table's refcount is stale */
    poke(r, 2 * CLUSTER + 2 * 20, "\0\1", 2);   /* and something leaked */
    poke(r, 20 * CLUSTER + CLUSTER - 1, "", 1); /* in the file */
}

void q_leaky(struct scenario_run *r, const struct scenario *s)
{
    make_image(r, s, 0);
    poke(r, 2 * CLUSTER + 2 * 20, "\0\1\0\2", 4);
    poke(r, 21 * CLUSTER + CLUSTER - 1, "", 1);
}

void q_finish(struct scenario_run *r)
{
    expect_fini(&q_expect);
}

BlockDriverState *q_node(struct scenario_run *r)
{
    return blk_bs(r->h.blk);
}

static int touched(uint64_t offset, uint64_t bytes, int rc)
{
    if (rc < 0) {
        expect_touch_failed(&q_expect, offset, bytes);
    }
    return rc;
}

int q_write(struct scenario_run *r, uint64_t offset, size_t bytes, int flags)
{
    expect_touch(&q_expect, offset, bytes);
    return touched(offset, bytes, h_write(&r->h, offset, bytes, flags));
}

int q_compress(struct scenario_run *r, uint64_t offset, size_t bytes)
{
    return q_write(r, offset, bytes, BDRV_REQ_WRITE_COMPRESSED);
}

int q_zero(struct scenario_run *r, uint64_t offset, uint64_t bytes, int flags)
{
    expect_touch(&q_expect, offset, bytes);
    return touched(offset, bytes, h_zero(&r->h, offset, bytes, flags));
}

int q_discard(struct scenario_run *r, uint64_t offset, uint64_t bytes)
{
    expect_touch(&q_expect, offset, bytes);
    return touched(offset, bytes, h_discard(&r->h, offset, bytes));
}

static struct expect_snapshot *named(const char *name)
{
    for (size_t i = 0; i < EXPECT_SNAPSHOTS; i++) {
        if (q_expect.snapshots[i].used && strcmp(q_expect.snapshots[i].name, name) == 0) {
            return &q_expect.snapshots[i];
        }
    }
    return 0;
}

int q_snapshot(struct scenario_run *r, const char *name, uint64_t vm_bytes)
{
    struct bdrv_snapshot_info info = {.name = name, .vm_state_bytes = vm_bytes, .date_sec = 1};
    struct expect_snapshot *s = expect_create(&q_expect, name, vm_bytes, 7);
    Error *err = 0;
    int rc = scenario_error(r, bdrv_snapshot_create(q_node(r), &info, &err), &err);

    expect_create_end(&q_expect, s, rc == 0);
    return rc;
}

int q_apply(struct scenario_run *r, const char *name)
{
    struct expect_snapshot *s = named(name);
    Error *err = 0;
    int rc;

    if (!s || s->maybe) {
        return 0;
    }
    expect_apply(&q_expect, s);
    rc = scenario_error(r, bdrv_snapshot_apply(q_node(r), name, &err), &err);
    expect_apply_end(&q_expect, s, rc == 0);
    return rc;
}

int q_delete(struct scenario_run *r, const char *name)
{
    struct expect_snapshot *s = named(name);
    Error *err = 0;
    int rc;

    if (!s || s->maybe) {
        return 0;
    }
    expect_delete(&q_expect, s);
    rc = scenario_error(r, bdrv_snapshot_delete(q_node(r), 0, name, &err), &err);
    expect_delete_end(&q_expect, s, rc == 0);
    return rc;
}

int q_resize(struct scenario_run *r, uint64_t bytes, enum bdrv_prealloc prealloc)
{
    Error *err = 0;
    int rc;

    if (q_expect.other_bytes) {
        return 0; /* what size it has after a failure is not known */
    }
    expect_resize(&q_expect, bytes);
    rc = scenario_error(r, blk_resize(r->h.blk, (int64_t)bytes, true, prealloc, &err), &err);
    expect_resize_end(&q_expect, bytes, rc == 0);
    return rc;
}

int q_amend(struct scenario_run *r, const char *text)
{
    BlockOptions *options = block_options_parse(text, 0, 0);
    Error *err = 0;
    int rc;

    if (!options) {
        return -ENOMEM;
    }
    q_expect.whole = true;
    rc = scenario_error(r, bdrv_amend(q_node(r), options, false, 0, &err), &err);
    q_expect.whole = rc < 0;
    return rc;
}

int q_check(struct scenario_run *r, unsigned fix)
{
    struct bdrv_check_options options = {.size = sizeof(options), .fix = fix};
    struct bdrv_check_result result = {0};
    Error *err = 0;
    int rc = scenario_error(r, bdrv_check(q_node(r), &options, &result, &err), &err);

    if (rc == 0 && result.corruptions > 0 && r->strict) {
        scenario_wrong(r, "check finds corruption");
    }
    return rc;
}

int q_vmstate(struct scenario_run *r, size_t bytes)
{
    static uint8_t buf[8192];
    int rc;

    shadow_fill(buf, 0, bytes, 7);
    rc = blk_save_vmstate(r->h.blk, buf, 0, (int)bytes);
    return rc < 0 ? rc : 0;
}

void q_reopen(struct scenario_run *r, const char *options)
{
    if (r->h.blk) {
        blk_unref(r->h.blk);
        r->h.blk = 0;
    }
    shadow_reopened(&r->h.shadow);
    OP(r, harness_open(&r->h, options, BDRV_O_RDWR | BDRV_O_UNMAP));
}
