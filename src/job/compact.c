/* SPDX-License-Identifier: MIT */
/*
 * The job "compact". First the disk is read where this layer has data: what reads as zeroes, or as
 * the backing file does, is let go. Then the driver gives back what its files hold without need; it
 * calls back at its safe points. The job holds the node by an edge that lets nobody else use it,
 * and that makes a drain wait for such a point.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <platter/jobs.h>

#include "block/compact.h"
#include "job/job_int.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/iov.h"
#include "util/mem.h"

#define CHUNK_BYTES (UINT64_C(1) << 20)
#define PERM_ALONE (BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE | BDRV_PERM_RESIZE)

struct compact {
    Job job;
    struct job_compact_options o;
    BlockBackend *disk;    /* counted; without permissions meanwhile */
    uint64_t perm, shared; /* that it had */
    bool perm_taken;
    BlockDriverState *bs; /* held by edge */
    BdrvEdge *edge;       /* the job's */
    struct job_compact_result r;
    bool backed; /* by a file that shows where it holds nothing */
    uint64_t total;
    uint64_t chunk_bytes;
    uint32_t unit;       /* what zeroes can be said of */
    uint32_t cluster;    /* what is allocated as a whole: units of it */
    uint8_t *buf;        /* owned */
    uint8_t *same;       /* owned; what the backing chain has; NULL: it does not matter */
    uint8_t *kinds;      /* owned; enum bdrv_compact_kind of each unit of the chunk */
    uint64_t read_bytes; /* by this step */
    int64_t last_turn_ns;
    const char *failed; /* what failed, when a step did */
    bool failed_reading;
};

static int failed(struct compact *c, int ret, bool reading, const char *what)
{
    c->failed = what;
    c->failed_reading = reading;
    return ret;
}

/* ---- a chunk of the disk ---- */

/* What stands in [offset, offset + bytes); whether any of it is to be looked at. */
static int chunk_status_co(struct compact *c, uint64_t offset, uint64_t bytes, bool *ret_any)
{
    *ret_any = false;
    memset(c->kinds, BDRV_COMPACT_NOTHING, c->chunk_bytes / c->unit);
    for (uint64_t done = 0; done < bytes;) {
        enum bdrv_compact_kind kind;
        uint64_t n;
        int ret = bdrv_compact_status_co(c->edge, offset + done, bytes - done, &kind, &n);

        if (ret < 0) {
            return failed(c, ret, true, "block status of the image");
        }
        /* a unit that is data in part is data */
        for (uint64_t u = done / c->unit; u <= (done + n - 1) / c->unit; u++) {
            c->kinds[u] = (uint8_t)max_u64(c->kinds[u], kind);
        }
        *ret_any = *ret_any || kind != BDRV_COMPACT_NOTHING;
        done += n;
    }
    return 0;
}

static int chunk_read_co(struct compact *c, uint64_t offset, uint64_t bytes)
{
    int ret = bdrv_edge_read_co(c->edge, offset, c->buf, bytes);

    c->read_bytes += bytes;
    if (ret < 0) {
        return failed(c, ret, true, "reading the disk");
    }
    if (c->same != NULL) {
        ret = bdrv_compact_read_backing_co(c->bs, offset, c->same, bytes);
        c->read_bytes += bytes;
    }
    return ret < 0 ? failed(c, ret, true, "reading the backing file") : 0;
}

static bool unit_in_file(const struct compact *c, uint64_t at, uint64_t end, bool all)
{
    bool any = false;

    for (; at < end; at += c->unit) {
        bool is = c->kinds[at / c->unit] != BDRV_COMPACT_NOTHING;

        if (all && !is) {
            return false;
        }
        any = any || is;
    }
    return all || any;
}

enum what { NOTHING, ZERO, DROP };

/* What is to be done with [at, end) of the chunk: a cluster, or a unit of one. */
static enum what judge(const struct compact *c, uint64_t at, uint64_t end, bool whole)
{
    if (!unit_in_file(c, at, end, false)) {
        return NOTHING;
    }
    if (whole && c->same != NULL && memcmp(c->buf + at, c->same + at, end - at) == 0) {
        return DROP;
    }
    /* what the layer does not decide stays the backing file's */
    return !c->o.keep_zeroes && (!c->backed || unit_in_file(c, at, end, true)) &&
                   buffer_is_zero(c->buf + at, end - at)
               ? ZERO
               : NOTHING;
}

/* A run of what. That it cannot be said (version 2 over a backing file, a storage without holes) is
 * no failure. */
static int run_do_co(struct compact *c, enum what what, uint64_t offset, uint64_t bytes)
{
    int ret = 0;

    if (bytes == 0 || what == NOTHING) {
        return 0;
    }
    if (!c->o.dry_run) {
        ret = bdrv_compact_give_co(c->edge, offset, bytes, what == DROP, &bytes);
    }
    if (ret == 0) {
        *(what == DROP ? &c->r.dropped_bytes : &c->r.zeroed_bytes) += bytes;
    }
    return ret < 0 && ret != -ENOTSUP ? failed(c, ret, false, "giving clusters back") : 0;
}

/* The units of a cluster that is neither all zeroes nor dropped. */
static int units_co(struct compact *c, uint64_t offset, uint64_t at, uint64_t end)
{
    uint64_t from = at;
    enum what last = NOTHING;
    int ret = 0;

    for (; ret == 0 && at < end; at += c->unit) {
        enum what what = judge(c, at, min_u64(at + c->unit, end), false);

        if (what != last) {
            ret = run_do_co(c, last, offset + from, at - from);
            from = at;
            last = what;
        }
    }
    return ret == 0 ? run_do_co(c, last, offset + from, end - from) : ret;
}

static int chunk_work_co(struct compact *c, uint64_t offset, uint64_t bytes)
{
    uint64_t from = 0;
    enum what last = NOTHING;
    int ret = 0;

    for (uint64_t at = 0; ret == 0 && at < bytes; at += c->cluster) {
        uint64_t end = min_u64(at + c->cluster, bytes);
        enum what what = judge(c, at, end, true);

        if (what != last) {
            ret = run_do_co(c, last, offset + from, at - from);
            from = at;
            last = what;
        }
        if (ret == 0 && what == NOTHING && c->unit < c->cluster) {
            ret = units_co(c, offset, at, end);
        }
    }
    return ret == 0 ? run_do_co(c, last, offset + from, bytes - from) : ret;
}

/* Where a chunk ends that has nothing to look at: whole chunks behind it are passed by that block
 * status tells of at once. */
static int pass_co(struct compact *c, uint64_t offset, uint64_t *bytes)
{
    uint64_t rest = c->total - offset - *bytes;
    enum bdrv_compact_kind kind;
    uint64_t n;
    int ret = 0;

    if (rest > 0) {
        ret = bdrv_compact_status_co(c->edge, offset + *bytes, rest, &kind, &n);
    }
    if (ret < 0) {
        return failed(c, ret, true, "block status of the image");
    }
    if (rest > 0 && kind == BDRV_COMPACT_NOTHING) {
        *bytes += n == rest ? n : align_down(n, c->chunk_bytes);
    }
    return 0;
}

/* The chunk at offset; *ret_bytes: how far that went. */
static int chunk_co(struct compact *c, uint64_t offset, uint64_t *ret_bytes)
{
    uint64_t bytes = min_u64(c->chunk_bytes, c->total - offset);
    struct job_compact_result before = c->r;
    bool any;
    int ret = chunk_status_co(c, offset, bytes, &any);

    c->read_bytes = 0;
    *ret_bytes = bytes;
    if (ret < 0 || !any) {
        return ret < 0 ? ret : pass_co(c, offset, ret_bytes);
    }
    ret = chunk_read_co(c, offset, bytes);
    ret = ret == 0 ? chunk_work_co(c, offset, bytes) : ret;
    if (ret < 0) {
        c->r = before; /* it is done again */
    }
    return ret;
}

static int disk_co(struct compact *c)
{
    for (uint64_t offset = 0; offset < c->total;) {
        uint64_t bytes;
        int ret = chunk_co(c, offset, &bytes);

        if (ret < 0) {
            ret = job_retry_co(&c->job, c->o.on_error, c->failed_reading, ret);
            if (ret < 0) {
                return ret;
            }
            continue;
        }
        offset += bytes;
        job_progress_update(&c->job, bytes);
        job_throttle_co(&c->job, c->read_bytes);
        job_turn_co(&c->job, &c->last_turn_ns);
        if (job_is_cancelled(&c->job)) {
            return -ECANCELED;
        }
    }
    return 0;
}

/* ---- the driver's part ---- */

static int driver_turn_co(void *opaque, uint64_t bytes)
{
    struct compact *c = opaque;

    if (bytes > 0) {
        job_progress_update(&c->job,
                            min_u64(bytes, c->job.progress_total - c->job.progress_current));
    }
    job_throttle_co(&c->job, bytes);
    job_turn_co(&c->job, &c->last_turn_ns);
    return job_is_cancelled(&c->job) ? -ECANCELED : 0;
}

static void driver_planned(void *opaque, uint64_t bytes)
{
    struct compact *c = opaque;

    job_progress_set_total(&c->job, c->job.progress_current + bytes);
}

static int driver_retry_co(void *opaque, bool reading, int ret)
{
    struct compact *c = opaque;

    return job_retry_co(&c->job, c->o.on_error, reading, ret);
}

static uint64_t known(int64_t bytes)
{
    return bytes < 0 ? UINT64_MAX : (uint64_t)bytes;
}

static void take_result(struct compact *c, const struct bdrv_compact_result *d)
{
    struct job_compact_result *r = &c->r;

    r->leaked_bytes = d->leaked_bytes;
    r->moved_bytes = d->moved_bytes;
    if (!c->o.dry_run) {
        r->file_bytes_after = known(bdrv_compact_file_bytes(c->bs));
        r->allocated_bytes_after = known(bdrv_get_allocated_file_size(c->bs));
        return;
    }
    r->file_bytes_after = r->file_bytes_before;
    r->allocated_bytes_after = r->allocated_bytes_before;
    if (bdrv_compacts(c->bs)) {
        uint64_t gone = r->zeroed_bytes + r->dropped_bytes;

        r->file_bytes_after = d->end_bytes - min_u64(d->end_bytes, gone);
    }
    if (r->allocated_bytes_before == UINT64_MAX) {
        return; /* not known, and not known then */
    }
    r->allocated_bytes_after =
        bdrv_compacts(c->bs)
            ? min_u64(r->file_bytes_after, r->allocated_bytes_before)
            : r->allocated_bytes_before - min_u64(r->allocated_bytes_before, r->zeroed_bytes);
}

static int compact_run_co(Job *job, Error **errp)
{
    struct compact *c = (struct compact *)job;
    const struct bdrv_compact_calls calls = {.turn_co = driver_turn_co,
                                             .planned = driver_planned,
                                             .retry_co = driver_retry_co,
                                             .opaque = c};
    struct bdrv_compact_result d;
    int ret = 0;

    c->r.file_bytes_before = known(bdrv_compact_file_bytes(c->bs));
    c->r.allocated_bytes_before = known(bdrv_get_allocated_file_size(c->bs));
    if (!c->o.keep_zeroes || c->o.drop_same) {
        job_progress_set_total(job, c->total);
        ret = disk_co(c);
    }
    if (ret < 0 && ret != -ECANCELED) {
        return error_set_errno(errp, -ret, "%s failed", c->failed);
    }
    if (ret == 0) {
        ret = bdrv_compact_co(c->edge, &calls, c->o.dry_run, &d, errp);
    }
    if (ret < 0) {
        return ret;
    }
    take_result(c, &d);
    if (c->o.result != NULL) {
        *c->o.result = c->r;
    }
    if (job->progress_total > job->progress_current) {
        job_progress_update(job, job->progress_total - job->progress_current);
    }
    return 0;
}

/* ---- its life ---- */

static void compact_clean(Job *job)
{
    struct compact *c = (struct compact *)job;

    job_remove_nodes(job);
    c->edge = NULL;
    if (c->perm_taken && blk_bs(c->disk) != NULL) {
        (void)blk_set_perm(c->disk, c->perm, c->shared, NULL); /* nobody had room for another */
    }
    c->perm_taken = false;
    blk_unref(c->disk);
    c->disk = NULL;
    free(c->buf);
    free(c->same);
    free(c->kinds);
    c->buf = c->same = c->kinds = NULL;
}

static const struct job_driver compact_driver = {
    .type = "compact",
    .instance_size = sizeof(struct compact),
    .run_co = compact_run_co,
    .clean = compact_clean,
    .free = compact_clean, /* of one that never began */
};

static int take_memory(struct compact *c, Error **errp)
{
    bool drop = c->o.drop_same;

    bdrv_compact_units(c->bs, &c->unit, &c->cluster);
    c->chunk_bytes = max_u64(CHUNK_BYTES, c->cluster);
    c->buf = malloc(c->chunk_bytes);
    c->same = drop ? malloc(c->chunk_bytes) : NULL;
    c->kinds = malloc(c->chunk_bytes / c->unit);
    if (c->buf == NULL || c->kinds == NULL || (drop && c->same == NULL)) {
        return error_set(errp, ENOMEM, "out of memory for job '%s'", c->job.id);
    }
    return 0;
}

static int take_disk(struct compact *c, Error **errp)
{
    uint64_t perm = c->o.dry_run ? BDRV_PERM_CONSISTENT_READ : PERM_ALONE;
    int64_t bytes;
    int ret;

    blk_ref(c->o.disk);
    c->disk = c->o.disk;
    c->bs = bdrv_compact_node(blk_bs(c->disk), c->o.dry_run, errp);
    if (c->bs == NULL) {
        return -EPERM;
    }
    bytes = bdrv_getlength(c->bs);
    if (bytes < 0) {
        return error_set_errno(errp, (int)-bytes, "asking for the size failed");
    }
    c->total = (uint64_t)bytes;
    c->backed = bdrv_compact_drops(c->bs);
    if (c->o.drop_same && !c->backed) {
        return error_set(errp, ENOTSUP, "Node '%s' has no backing file", bdrv_get_told_name(c->bs));
    }
    ret = job_block_node(&c->job, blk_bs(c->disk), errp);
    if (ret < 0) {
        return ret;
    }
    blk_get_perm(c->disk, &c->perm, &c->shared);
    ret = blk_set_perm(c->disk, 0, BDRV_PERM_ALL, errp);
    if (ret < 0) {
        return ret;
    }
    c->perm_taken = true;
    c->edge = job_add_node(&c->job, "compact", c->bs, perm, 0, errp);
    return c->edge != NULL ? 0 : -EPERM;
}

Job *job_compact_start(Platter *pl, const struct job_start *start,
                       const struct job_compact_options *options, Error **errp)
{
    struct compact *c;

    assert(options->size >= sizeof(*options));
    if (blk_bs(options->disk) == NULL) {
        error_set(errp, ENOMEDIUM, "Device '%s' has no medium", blk_name(options->disk));
        return NULL;
    }
    c = job_create(pl, &compact_driver, start->id, start->txn, start->flags, errp);
    if (c == NULL) {
        return NULL;
    }
    if (start->progress != NULL) {
        c->job.progress = *start->progress;
    }
    c->o = *options;
    c->job.speed = options->bytes_per_second;
    if (take_disk(c, errp) < 0 || take_memory(c, errp) < 0) {
        job_early_fail(&c->job);
        return NULL;
    }
    job_start(&c->job);
    return &c->job;
}
