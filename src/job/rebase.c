/* SPDX-License-Identifier: MIT */
/*
 * The job "rebase". Clusters that the overlay holds are left alone. Of the others those are written
 * into it whose content is another over the new backing file; the old one stays in place meanwhile,
 * so that a cut at any time leaves an image that reads the same as before.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/coroutine.h>
#include <platter/jobs.h>

#include "block/driver.h"
#include "job/job_int.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/iov.h"

#define CHUNK_BYTES (UINT64_C(2) << 20)

struct rebase {
    Job job;
    BlockBackend *overlay; /* the job's, as the next */
    BlockBackend *base;    /* or NULL */
    int shared_depth;
    char *backing_file;   /* owned, or NULL */
    char *backing_format; /* owned, or NULL */
    bool unsafe;
    enum job_on_error on_error;
    uint64_t total;
    uint64_t base_bytes;
    uint64_t unit;      /* what is compared and written as a whole */
    uint8_t *now;       /* owned: what the disk reads as */
    uint8_t *then;      /* owned: what it would */
    uint64_t written;   /* by this step */
    const char *failed; /* what failed, when a step did */
    bool failed_reading;
};

/* What stands at an offset. */
struct extent {
    uint64_t bytes;
    bool skip; /* nothing to do */
    bool zero;
};

static int failed(struct rebase *r, int ret, bool reading, const char *what)
{
    r->failed = what;
    r->failed_reading = reading;
    return ret;
}

static int overlay_extent_co(struct rebase *r, uint64_t offset, struct extent *ret)
{
    int64_t bytes;
    int depth;
    int flags = blk_co_block_status(r->overlay, (int64_t)offset, (int64_t)(r->total - offset),
                                    &bytes, NULL, &depth);

    if (flags < 0) {
        return failed(r, flags, true, "block status of the image");
    }
    *ret = (struct extent){
        .bytes = (uint64_t)bytes,
        .skip = depth == 1 || (r->shared_depth > 0 && depth >= r->shared_depth),
        .zero = (flags & BDRV_BLOCK_ZERO) != 0,
    };
    return 0;
}

/* Cut e to what stands there in the new chain as one kind. */
static int base_extent_co(struct rebase *r, uint64_t offset, struct extent *e, bool *ret_zero)
{
    int64_t bytes;
    int flags;

    if (offset >= r->base_bytes) {
        *ret_zero = true;
        return 0;
    }
    e->bytes = min_u64(e->bytes, r->base_bytes - offset);
    flags = blk_co_block_status(r->base, (int64_t)offset, (int64_t)e->bytes, &bytes, NULL, NULL);
    if (flags < 0) {
        return failed(r, flags, true, "block status of the new backing file");
    }
    e->bytes = (uint64_t)bytes;
    *ret_zero = (flags & BDRV_BLOCK_ZERO) != 0;
    return 0;
}

static int read_co(BlockBackend *blk, uint64_t offset, void *buf, uint64_t bytes, bool zero)
{
    struct iovec iov = {buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);

    if (zero) {
        memset(buf, 0, bytes);
        return 0;
    }
    return blk_co_preadv(blk, (int64_t)offset, &view, 0);
}

static int write_data_co(struct rebase *r, uint64_t offset, uint8_t *buf, uint64_t bytes)
{
    struct iovec iov = {buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);

    return blk_co_pwritev(r->overlay, (int64_t)offset, &view, 0);
}

/* buf is zeroes. An overlay that is over nothing yet may read as zeroes without holding them, and a
 * format may have no way to say more (qcow2, version 2): there they are written as data. */
static int write_zeroes_co(struct rebase *r, uint64_t offset, uint8_t *buf, uint64_t bytes)
{
    int ret = blk_co_pwrite_zeroes(r->overlay, (int64_t)offset, (int64_t)bytes, 0);

    for (uint64_t done = 0; ret == 0 && done < bytes;) {
        int64_t n;
        int depth;

        ret = blk_co_block_status(r->overlay, (int64_t)(offset + done), (int64_t)(bytes - done), &n,
                                  NULL, &depth);
        if (ret >= 0) {
            ret = depth == 1 ? 0 : write_data_co(r, offset + done, buf + done, (uint64_t)n);
            done += (uint64_t)n;
        }
    }
    return ret;
}

static int write_run_co(struct rebase *r, uint64_t offset, uint8_t *buf, uint64_t bytes)
{
    int ret = buffer_is_zero(buf, bytes) ? write_zeroes_co(r, offset, buf, bytes)
                                         : write_data_co(r, offset, buf, bytes);

    r->written += bytes;
    return ret < 0 ? failed(r, ret, false, "writing to the image") : 0;
}

/* The end of the unit that begins at or around offset, within the chunk. */
static uint64_t unit_end(const struct rebase *r, uint64_t offset, uint64_t end)
{
    return min_u64(align_down(offset, r->unit) + r->unit, end);
}

/* Write the units of now that differ from then, neighbours together. */
static int write_differences_co(struct rebase *r, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    uint64_t from = offset; /* of the run that is not written yet */
    int ret = 0;

    for (uint64_t at = offset; ret == 0 && at < end;) {
        uint64_t next = unit_end(r, at, end);
        bool same = memcmp(r->now + (at - offset), r->then + (at - offset), next - at) == 0;

        if (same) {
            ret = at > from ? write_run_co(r, from, r->now + (from - offset), at - from) : 0;
            from = next;
        }
        at = next;
    }
    if (ret == 0 && end > from) {
        ret = write_run_co(r, from, r->now + (from - offset), end - from);
    }
    return ret;
}

static int copy_extent_co(struct rebase *r, uint64_t offset, struct extent *e)
{
    bool base_zero;
    int ret = base_extent_co(r, offset, e, &base_zero);

    if (ret < 0 || (e->zero && base_zero)) {
        return ret;
    }
    /* ends at a chunk's boundary, so that units stay whole */
    e->bytes = min_u64(e->bytes, align_down(offset, CHUNK_BYTES) + CHUNK_BYTES - offset);
    ret = read_co(r->overlay, offset, r->now, e->bytes, e->zero);
    if (ret < 0) {
        return failed(r, ret, true, "reading the image over its old backing file");
    }
    ret = read_co(r->base, offset, r->then, e->bytes, base_zero);
    if (ret < 0) {
        return failed(r, ret, true, "reading the new backing file");
    }
    return write_differences_co(r, offset, e->bytes);
}

static int copy_all_co(struct rebase *r)
{
    int64_t last_turn_ns = 0;

    for (uint64_t offset = 0; offset < r->total;) {
        struct extent e;
        int ret = overlay_extent_co(r, offset, &e);

        r->written = 0;
        if (ret == 0 && !e.skip) {
            ret = copy_extent_co(r, offset, &e);
        }
        if (ret < 0) {
            ret = job_retry_co(&r->job, r->on_error, r->failed_reading, ret);
            if (ret < 0) {
                return ret;
            }
            continue;
        }
        offset += e.bytes;
        job_progress_update(&r->job, e.bytes);
        job_throttle_co(&r->job, r->written);
        job_turn_co(&r->job, &last_turn_ns);
        if (job_is_cancelled(&r->job)) {
            return -ECANCELED;
        }
    }
    return 0;
}

/* Before the header refers to the new one. */
static int flush_co(struct rebase *r)
{
    int ret;

    while ((ret = blk_co_flush(r->overlay)) < 0) {
        ret =
            job_retry_co(&r->job, r->on_error, false, failed(r, ret, false, "flushing the image"));
        if (ret < 0) {
            break;
        }
    }
    return ret;
}

static int rebase_run_co(Job *job, Error **errp)
{
    struct rebase *r = (struct rebase *)job;
    int64_t total = blk_getlength(r->overlay);
    int64_t base_bytes = r->base != NULL ? blk_getlength(r->base) : 0;
    int ret;

    if (r->unsafe) {
        return 0;
    }
    if (total < 0 || base_bytes < 0) {
        return error_set_errno(errp, (int)-(total < 0 ? total : base_bytes),
                               "asking for sizes failed");
    }
    r->total = (uint64_t)total;
    r->base_bytes = (uint64_t)base_bytes;
    job_progress_set_total(job, r->total);
    ret = copy_all_co(r);
    if (ret == 0) {
        ret = flush_co(r);
    }
    if (ret == -ECANCELED && job_is_cancelled(job)) {
        return ret;
    }
    return ret < 0 ? error_set_errno(errp, -ret, "%s failed", r->failed) : 0;
}

static int rebase_prepare(Job *job, Error **errp)
{
    struct rebase *r = (struct rebase *)job;
    Error *err = NULL;
    int ret = job_share_disks(job, errp);

    if (ret < 0) {
        return ret;
    }
    ret = bdrv_change_backing_file(blk_bs(r->overlay), r->backing_file, r->backing_format, &err);
    if (ret == -ENOTSUP) {
        error_free(err);
        return error_set(errp, ENOTSUP,
                         "Could not change the backing file to '%s': Operation not supported",
                         r->backing_file != NULL ? r->backing_file : "");
    }
    if (ret < 0) {
        error_prepend(&err, "Could not change the backing file to '%s': ",
                      r->backing_file != NULL ? r->backing_file : "");
        error_propagate(errp, err);
    }
    return ret;
}

static void rebase_clean(Job *job)
{
    struct rebase *r = (struct rebase *)job;

    blk_blockfree(r->now);
    r->now = NULL;
    blk_blockfree(r->then);
    r->then = NULL;
}

static void rebase_free(Job *job)
{
    struct rebase *r = (struct rebase *)job;

    rebase_clean(job); /* of one that never began */
    free(r->backing_file);
    free(r->backing_format);
}

static const struct job_driver rebase_driver = {
    .type = "rebase",
    .instance_size = sizeof(struct rebase),
    .run_co = rebase_run_co,
    .prepare = rebase_prepare,
    .clean = rebase_clean,
    .free = rebase_free,
};

/* The overlay's clusters, where they are not too large to be held. */
static uint64_t unit_bytes(BlockDriverState *bs)
{
    struct bdrv_info info;
    uint64_t unit = bdrv_get_info(bs, &info) == 0 ? info.cluster_size_bytes : 0;

    return is_pow2(unit) && unit >= 512 && unit <= CHUNK_BYTES ? unit : 512;
}

static int take_options(struct rebase *r, const struct job_rebase_options *o, Error **errp)
{
    bool named = true;

    r->job.speed = o->bytes_per_second;
    r->shared_depth = o->shared_depth;
    r->unsafe = o->unsafe;
    r->on_error = o->on_error;
    r->unit = unit_bytes(blk_bs(o->overlay));
    if (o->backing_file != NULL) {
        r->backing_file = strdup(o->backing_file);
        named = r->backing_file != NULL;
    }
    if (o->backing_format != NULL) {
        r->backing_format = strdup(o->backing_format);
        named = named && r->backing_format != NULL;
    }
    if (!o->unsafe) {
        r->now = blk_blockalign(o->overlay, CHUNK_BYTES);
        r->then = blk_blockalign(o->overlay, CHUNK_BYTES);
    }
    if (!named || (!o->unsafe && (r->now == NULL || r->then == NULL))) {
        return error_set(errp, ENOMEM, "out of memory for job '%s'", r->job.id);
    }
    r->overlay = job_take_disk(&r->job, o->overlay, JOB_WRITES, BLOCK_OP_TYPE_STREAM, errp);
    if (r->overlay != NULL && o->base != NULL) {
        r->base = job_take_disk(&r->job, o->base, JOB_READS, BLOCK_OP_TYPE_CHANGE, errp);
    }
    return r->overlay != NULL && (r->base != NULL) == (o->base != NULL) ? 0 : -EBUSY;
}

Job *job_rebase_start(Platter *pl, const struct job_start *start,
                      const struct job_rebase_options *options, Error **errp)
{
    struct rebase *r;

    assert(options->size >= sizeof(*options));
    if (blk_bs(options->overlay) == NULL ||
        (options->base != NULL && blk_bs(options->base) == NULL)) {
        error_set(errp, ENOMEDIUM, "Device '%s' has no medium",
                  blk_name(blk_bs(options->overlay) == NULL ? options->overlay : options->base));
        return NULL;
    }
    r = job_create(pl, &rebase_driver, start->id, start->txn, start->flags, errp);
    if (r == NULL) {
        return NULL;
    }
    if (start->progress != NULL) {
        r->job.progress = *start->progress;
    }
    if (take_options(r, options, errp) < 0) {
        job_early_fail(&r->job);
        return NULL;
    }
    job_start(&r->job);
    return &r->job;
}
