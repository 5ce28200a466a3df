/* SPDX-License-Identifier: MIT */
/*
 * The job "rebase". Clusters that the overlay holds are left alone. Of the others those are written
 * into it whose content is another over the new backing file; the old one stays in place meanwhile,
 * so that a cut at any time leaves an image that reads the same as before.
 *
 * The job's coroutine asks what stands where, ahead of the pieces that read, compare and write.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/coroutine.h>
#include <platter/jobs.h>

#include "block/driver.h"
#include "job/job_int.h"
#include "loop/co_group.h"
#include "loop/co_turns.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/iov.h"

/* What a piece holds of either disk, unless clusters are larger: still in a processor's cache when
 * it is compared and written. */
#define CHUNK_BYTES (UINT64_C(512) << 10)
#define PIECES_MAX 4
/* All pieces together hold no more. */
#define CHUNKS_BYTES (PIECES_MAX * CHUNK_BYTES)

/* What stands at an offset. */
struct extent {
    uint64_t offset;
    uint64_t bytes;
    bool skip;      /* nothing to do */
    bool now_zero;  /* the disk reads as zeroes */
    bool then_zero; /* and over the new backing file it would */
};

/* An extent, no longer than a chunk, in work. */
struct piece {
    struct rebase *r;
    struct extent e;
    uint8_t *now;       /* owned: what the disk reads as */
    uint8_t *then;      /* owned: what it would */
    int ret;            /* 0, or why it is to be done again */
    const char *failed; /* what failed then */
    bool failed_reading;
};

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
    uint64_t unit;        /* what is compared and written as a whole */
    uint64_t chunk_bytes; /* a multiple of unit */
    struct piece pieces[PIECES_MAX];
    unsigned pieces_count; /* of those that are used */
    struct co_group group;
    struct co_turns turns;
    uint64_t written; /* and not yet throttled */
    int64_t last_turn_ns;
    const char *failed; /* what the job fails of */
};

/* ---- what is to be done ---- */

/* Cut e to what stands in the image as one kind. */
static int overlay_extent_co(struct rebase *r, struct extent *e)
{
    int64_t bytes;
    int depth;
    int flags = blk_co_block_status(r->overlay, (int64_t)e->offset, (int64_t)e->bytes, &bytes, NULL,
                                    &depth);

    if (flags < 0) {
        r->failed = "block status of the image";
        return flags;
    }
    e->bytes = (uint64_t)bytes;
    e->skip = depth == 1 || (r->shared_depth > 0 && depth >= r->shared_depth);
    e->now_zero = (flags & BDRV_BLOCK_ZERO) != 0;
    return 0;
}

/* The same for the new chain. */
static int base_extent_co(struct rebase *r, struct extent *e)
{
    int64_t bytes;
    int flags;

    if (e->offset >= r->base_bytes) {
        e->then_zero = true;
        return 0;
    }
    e->bytes = min_u64(e->bytes, r->base_bytes - e->offset);
    flags = blk_co_block_status(r->base, (int64_t)e->offset, (int64_t)e->bytes, &bytes, NULL, NULL);
    if (flags < 0) {
        r->failed = "block status of the new backing file";
        return flags;
    }
    e->bytes = (uint64_t)bytes;
    e->then_zero = (flags & BDRV_BLOCK_ZERO) != 0;
    return 0;
}

static int next_extent_co(struct rebase *r, uint64_t offset, struct extent *ret_extent)
{
    struct extent e = {.offset = offset, .bytes = r->total - offset};
    int ret = overlay_extent_co(r, &e);

    if (ret == 0 && !e.skip) {
        ret = base_extent_co(r, &e);
        e.skip = e.now_zero && e.then_zero;
    }
    if (!e.skip) {
        /* ends at a chunk's boundary, so that units stay whole */
        e.bytes = min_u64(e.bytes, align_down(offset, r->chunk_bytes) + r->chunk_bytes - offset);
    }
    *ret_extent = e;
    return ret;
}

/* ---- one piece of it ---- */

static int read_co(BlockBackend *blk, uint64_t offset, void *buf, uint64_t bytes)
{
    struct iovec iov = {buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);

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

/* Part of what the piece holds, from byte at of it on. */
static int write_run_co(struct piece *p, uint64_t at, uint64_t bytes)
{
    uint64_t offset = p->e.offset + at;
    bool zero = p->e.now_zero || buffer_is_zero(p->now + at, bytes);
    int ret = zero ? write_zeroes_co(p->r, offset, p->now + at, bytes)
                   : write_data_co(p->r, offset, p->now + at, bytes);

    p->r->written += bytes;
    return ret;
}

/* The end of the unit that begins at or around byte at of the piece. */
static uint64_t unit_end(const struct piece *p, uint64_t at)
{
    uint64_t begin = align_down(p->e.offset + at, p->r->unit);

    return min_u64(begin + p->r->unit - p->e.offset, p->e.bytes);
}

static bool is_same(const struct piece *p, uint64_t at, uint64_t end)
{
    return p->e.then_zero  ? buffer_is_zero(p->now + at, end - at)
           : p->e.now_zero ? buffer_is_zero(p->then + at, end - at)
                           : memcmp(p->now + at, p->then + at, end - at) == 0;
}

/* Write the units of now that differ from then, neighbours together. */
static int write_differences_co(struct piece *p)
{
    uint64_t from = 0; /* of the run that is not written yet */
    int ret = 0;

    for (uint64_t at = 0, end; ret == 0 && at < p->e.bytes; at = end) {
        end = unit_end(p, at);
        if (is_same(p, at, end)) {
            ret = at > from ? write_run_co(p, from, at - from) : 0;
            from = end;
        }
    }
    if (ret == 0 && p->e.bytes > from) {
        ret = write_run_co(p, from, p->e.bytes - from);
    }
    return ret;
}

static int piece_read_co(struct piece *p)
{
    struct rebase *r = p->r;
    const struct extent *e = &p->e;
    int ret = 0;

    if (e->now_zero) {
        memset(p->now, 0, e->bytes);
    } else {
        ret = read_co(r->overlay, e->offset, p->now, e->bytes);
    }
    p->failed = "reading the image over its old backing file";
    if (ret == 0 && !e->then_zero) {
        ret = read_co(r->base, e->offset, p->then, e->bytes);
        p->failed = "reading the new backing file";
    }
    return ret;
}

/* Pieces are read and compared together and write one after the other, so that the same disks make
 * the same file. */
static int piece_run_co(void *opaque)
{
    struct piece *p = opaque;
    struct co_turn turn = co_turn_take(&p->r->turns);

    p->ret = piece_read_co(p);
    p->failed_reading = p->ret < 0;
    if (p->ret == 0) {
        co_turn_wait_co(&turn);
        p->ret = write_differences_co(p);
        p->failed = "writing to the image";
    }
    co_turn_pass_co(&turn);
    if (p->ret == 0) {
        job_progress_update(&p->r->job, p->e.bytes);
    }
    return p->ret;
}

/* ---- all of it ---- */

static struct piece *first_failed(struct rebase *r)
{
    struct piece *first = NULL;

    for (size_t i = 0; i < r->pieces_count; i++) {
        struct piece *p = &r->pieces[i];

        if (p->ret < 0 && (first == NULL || p->e.offset < first->e.offset)) {
            first = p;
        }
    }
    return first;
}

/* Wait for all pieces. Those that failed are done again, with nothing else in flight, when the
 * policy has decided on the first of them. 0, or what the job is to fail with. */
static int settle_co(struct rebase *r)
{
    struct piece *first;

    (void)co_group_wait_co(&r->group); /* pieces know of their failures */
    while ((first = first_failed(r)) != NULL) {
        int ret;

        r->failed = first->failed;
        ret = job_retry_co(&r->job, r->on_error, first->failed_reading, first->ret);
        if (ret < 0) {
            return ret;
        }
        for (size_t i = 0; i < r->pieces_count; i++) {
            if (r->pieces[i].ret < 0) {
                (void)piece_run_co(&r->pieces[i]);
            }
        }
    }
    return 0;
}

/* The extent at offset; when that fails, nothing else is in flight either. */
static int find_extent_co(struct rebase *r, uint64_t offset, struct extent *ret_extent)
{
    int ret;

    while ((ret = next_extent_co(r, offset, ret_extent)) < 0) {
        const char *what = r->failed;
        int settled = settle_co(r);

        if (settled < 0) {
            return settled;
        }
        r->failed = what;
        ret = job_retry_co(&r->job, r->on_error, true, ret);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int start_piece_co(struct rebase *r, const struct extent *e)
{
    struct piece *p = co_group_piece_co(&r->group);
    /* its place may be that of one which failed */
    int ret = co_group_failed(&r->group) ? settle_co(r) : 0;

    if (ret == 0) {
        p->e = *e;
        co_group_start_co(&r->group, p, piece_run_co);
    }
    return ret;
}

/* Where the job may stop, nothing is in flight. */
static int stop_here_co(struct rebase *r)
{
    int ret = 0;

    if (r->job.pause_count > 0 || r->job.speed > 0 || job_turn_is_due(&r->last_turn_ns) ||
        co_group_failed(&r->group)) {
        ret = settle_co(r);
        if (ret == 0) {
            job_throttle_co(&r->job, r->written);
            job_turn_co(&r->job, &r->last_turn_ns);
        }
    }
    r->written = 0;
    return ret < 0 ? ret : job_is_cancelled(&r->job) ? -ECANCELED : 0;
}

static int step_co(struct rebase *r, uint64_t offset, struct extent *ret_extent)
{
    /* what the first part of a unit writes, the next finds in the overlay */
    int ret = is_aligned(offset, r->unit) ? 0 : settle_co(r);

    if (ret == 0) {
        ret = find_extent_co(r, offset, ret_extent);
    }
    if (ret == 0 && ret_extent->skip) {
        job_progress_update(&r->job, ret_extent->bytes);
    } else if (ret == 0) {
        ret = start_piece_co(r, ret_extent);
    }
    return ret;
}

static int copy_all_co(struct rebase *r)
{
    int ret = 0;

    co_group_init_max(&r->group, r->pieces, sizeof(r->pieces[0]), r->pieces_count);
    for (uint64_t offset = 0; ret == 0 && offset < r->total;) {
        struct extent e = {0};

        ret = step_co(r, offset, &e);
        offset += e.bytes;
        if (ret == 0) {
            ret = stop_here_co(r);
        }
    }
    if (ret < 0) {
        (void)co_group_wait_co(&r->group);
        return ret;
    }
    return settle_co(r);
}

/* Before the header refers to the new one. */
static int flush_co(struct rebase *r)
{
    int ret;

    while ((ret = blk_co_flush(r->overlay)) < 0) {
        r->failed = "flushing the image";
        ret = job_retry_co(&r->job, r->on_error, false, ret);
        if (ret < 0) {
            break;
        }
    }
    return ret;
}

static int not_supported(const struct rebase *r, Error **errp)
{
    return error_set(errp, ENOTSUP,
                     "Could not change the backing file to '%s': Operation not supported",
                     r->backing_file != NULL ? r->backing_file : "");
}

static int rebase_run_co(Job *job, Error **errp)
{
    struct rebase *r = (struct rebase *)job;
    int64_t total = blk_getlength(r->overlay);
    int64_t base_bytes = r->base != NULL ? blk_getlength(r->base) : 0;
    int ret;

    if (!bdrv_stores_backing_name(blk_bs(r->overlay))) {
        return not_supported(r, errp); /* before anything is copied for it */
    }
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
        return not_supported(r, errp);
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

    for (size_t i = 0; i < r->pieces_count; i++) {
        blk_blockfree(r->pieces[i].now);
        blk_blockfree(r->pieces[i].then);
        r->pieces[i].now = r->pieces[i].then = NULL;
    }
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

    return is_pow2(unit) && unit >= 512 && unit <= CHUNKS_BYTES ? unit : 512;
}

/* Pages that are never written to take no memory: not each piece needs all of it. */
static bool get_pieces(struct rebase *r, const struct job_rebase_options *o)
{
    bool got = true;

    r->chunk_bytes = max_u64(CHUNK_BYTES, r->unit);
    r->pieces_count = (unsigned)(CHUNKS_BYTES / r->chunk_bytes);
    co_turns_init(&r->turns);
    for (size_t i = 0; i < r->pieces_count; i++) {
        struct piece *p = &r->pieces[i];

        p->r = r;
        p->now = blk_blockalign(o->overlay, r->chunk_bytes);
        p->then = o->base != NULL ? blk_blockalign(o->overlay, r->chunk_bytes) : NULL;
        got = got && p->now != NULL && (p->then != NULL || o->base == NULL);
    }
    return got;
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
    if (!named || (!o->unsafe && !get_pieces(r, o))) {
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
