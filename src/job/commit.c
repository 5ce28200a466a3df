/* SPDX-License-Identifier: MIT */
/*
 * The job "commit". The layers are open one by one, so that each says what it holds itself; for
 * each part of the disk the uppermost one that holds it decides. Past the end of a layer the disk
 * reads as zeroes whatever is below, so they are written then.
 *
 * The order: copy, flush the base, empty the image; so a cut at any time loses nothing.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <platter/coroutine.h>
#include <platter/jobs.h>

#include "job/job_int.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/iov.h"

#define CHUNK_BYTES (UINT64_C(2) << 20)

struct commit {
    Job job;
    BlockBackend **layers; /* owned; each is the job's; the uppermost first */
    size_t count;
    BlockBackend *base; /* the job's */
    enum job_on_error on_error;
    bool empty_top;
    void *buf;
    const char *failed; /* what failed, when a step did */
    bool failed_reading;
};

/* Who decides what stands at an offset. */
struct decision {
    uint64_t bytes;
    BlockBackend *layer; /* NULL: what the base holds stays */
    bool zero;
};

static int failed(struct commit *c, int ret, bool reading, const char *what)
{
    c->failed = what;
    c->failed_reading = reading;
    return ret;
}

/* Ask one layer; it decides only when *ret_decides. Cuts d to its answer. */
static int ask_layer_co(BlockBackend *layer, uint64_t offset, struct decision *d, bool *ret_decides)
{
    int64_t size = blk_getlength(layer);
    int64_t bytes;
    int flags;

    if (size < 0) {
        return (int)size;
    }
    if (offset >= (uint64_t)size) {
        *ret_decides = true;
        d->zero = true;
        return 0;
    }
    d->bytes = min_u64(d->bytes, (uint64_t)size - offset);
    flags = blk_co_block_status(layer, (int64_t)offset, (int64_t)d->bytes, &bytes, NULL, NULL);
    if (flags < 0) {
        return flags;
    }
    d->bytes = (uint64_t)bytes;
    d->zero = (flags & BDRV_BLOCK_ZERO) != 0;
    *ret_decides = (flags & BDRV_BLOCK_ALLOCATED) != 0;
    return 0;
}

static int decide_co(struct commit *c, uint64_t offset, uint64_t bytes, struct decision *ret)
{
    struct decision d = {.bytes = bytes};

    for (size_t i = 0; i < c->count; i++) {
        bool decides = false;
        int ret_ask = ask_layer_co(c->layers[i], offset, &d, &decides);

        if (ret_ask < 0) {
            return failed(c, ret_ask, true, "block status");
        }
        if (decides) {
            d.layer = c->layers[i];
            break;
        }
    }
    *ret = d;
    return 0;
}

static int copy_data_co(struct commit *c, const struct decision *d, uint64_t offset)
{
    struct iovec iov = {c->buf, d->bytes};
    struct iov_view view = iov_view_of(&iov, 1);
    int ret = blk_co_preadv(d->layer, (int64_t)offset, &view, 0);

    if (ret < 0) {
        return failed(c, ret, true, "reading what is to be committed");
    }
    ret = blk_co_pwritev(c->base, (int64_t)offset, &view, 0);
    return ret < 0 ? failed(c, ret, false, "writing to the backing file") : 0;
}

/* What begins at offset; *ret_bytes of the disk were settled, *ret_written of them as data. */
static int step_co(struct commit *c, uint64_t offset, uint64_t total, uint64_t *ret_bytes,
                   uint64_t *ret_written)
{
    struct decision d;
    int ret = decide_co(c, offset, total - offset, &d);

    if (ret < 0) {
        return ret;
    }
    *ret_written = 0;
    if (d.layer != NULL && d.zero) {
        ret = blk_co_pwrite_zeroes(c->base, (int64_t)offset, (int64_t)d.bytes, 0);
        if (ret < 0) {
            return failed(c, ret, false, "writing zeroes to the backing file");
        }
    } else if (d.layer != NULL) {
        d.bytes = min_u64(d.bytes, CHUNK_BYTES);
        *ret_written = d.bytes;
        ret = copy_data_co(c, &d, offset);
    }
    *ret_bytes = d.bytes;
    return ret;
}

static int copy_all_co(struct commit *c, uint64_t total)
{
    int64_t last_turn_ns = 0;

    for (uint64_t offset = 0; offset < total;) {
        uint64_t bytes;
        uint64_t written;
        int ret = step_co(c, offset, total, &bytes, &written);

        if (ret < 0) {
            ret = job_retry_co(&c->job, c->on_error, c->failed_reading, ret);
            if (ret < 0) {
                return ret;
            }
            continue;
        }
        offset += bytes;
        job_progress_update(&c->job, bytes);
        job_throttle_co(&c->job, written);
        job_turn_co(&c->job, &last_turn_ns);
        if (job_is_cancelled(&c->job)) {
            return -ECANCELED;
        }
    }
    return 0;
}

/* Make the base large enough for the disk, whose size is returned. */
static int64_t base_grow_co(struct commit *c, Error **errp)
{
    int64_t wanted = blk_getlength(c->layers[0]);
    int64_t bytes = blk_getlength(c->base);
    int ret = 0;

    if (wanted < 0 || bytes < 0) {
        return error_set_errno(errp, (int)-(wanted < 0 ? wanted : bytes),
                               "asking for sizes failed");
    }
    while (ret == 0 && bytes < wanted) {
        Error *err = NULL;

        ret = blk_co_truncate(c->base, wanted, false, BDRV_PREALLOC_OFF, 0, &err);
        if (ret == 0) {
            break;
        }
        ret = job_retry_co(&c->job, c->on_error, false, ret);
        error_propagate(ret < 0 ? errp : NULL, err);
    }
    return ret < 0 ? ret : wanted;
}

static int base_flush_co(struct commit *c)
{
    int ret;

    while ((ret = blk_co_flush(c->base)) < 0) {
        ret = job_retry_co(&c->job, c->on_error, false,
                           failed(c, ret, false, "flushing the backing file"));
        if (ret < 0) {
            break;
        }
    }
    return ret;
}

static int commit_run_co(Job *job, Error **errp)
{
    struct commit *c = (struct commit *)job;
    int64_t total = base_grow_co(c, errp);
    int ret;

    if (total < 0) {
        return (int)total;
    }
    job_progress_set_total(job, (uint64_t)total);
    ret = copy_all_co(c, (uint64_t)total);
    if (ret == 0) {
        ret = base_flush_co(c);
    }
    if (ret == -ECANCELED && job_is_cancelled(job)) {
        return ret;
    }
    return ret < 0 ? error_set_errno(errp, -ret, "%s failed", c->failed) : 0;
}

static int commit_prepare(Job *job, Error **errp)
{
    struct commit *c = (struct commit *)job;
    int ret = job_share_disks(job, errp);

    if (ret < 0 || !c->empty_top) {
        return ret;
    }
    ret = bdrv_make_empty(blk_bs(c->layers[0]), errp);
    if (ret < 0) {
        return ret;
    }
    ret = blk_flush(c->layers[0]);
    return ret < 0 ? error_set_errno(errp, -ret, "the last flush failed") : 0;
}

static void commit_clean(Job *job)
{
    struct commit *c = (struct commit *)job;

    blk_blockfree(c->buf);
    c->buf = NULL;
}

static void commit_free(Job *job)
{
    struct commit *c = (struct commit *)job;

    commit_clean(job); /* of one that never began */
    free(c->layers);
}

static const struct job_driver commit_driver = {
    .type = "commit",
    .instance_size = sizeof(struct commit),
    .run_co = commit_run_co,
    .prepare = commit_prepare,
    .clean = commit_clean,
    .free = commit_free,
};

static int take_disks(struct commit *c, const struct job_commit_options *o, Error **errp)
{
    c->layers = calloc(o->layers_count, sizeof(BlockBackend *));
    c->buf = blk_blockalign(o->base, CHUNK_BYTES);
    if (c->layers == NULL || c->buf == NULL) {
        return error_set(errp, ENOMEM, "out of memory for job '%s'", c->job.id);
    }
    c->base = job_take_disk(&c->job, o->base, JOB_WRITES, BLOCK_OP_TYPE_COMMIT_TARGET, errp);
    if (c->base == NULL) {
        return -EBUSY;
    }
    for (; c->count < o->layers_count; c->count++) {
        c->layers[c->count] = job_take_disk(&c->job, o->layers[c->count], JOB_BLOCKS,
                                            BLOCK_OP_TYPE_COMMIT_SOURCE, errp);
        if (c->layers[c->count] == NULL) {
            return -EBUSY;
        }
    }
    return 0;
}

static int check_options(const struct job_commit_options *options, Error **errp)
{
    assert(options->size >= sizeof(*options) && options->layers_count > 0);
    if (options->empty_top && options->layers_count > 1) {
        return error_set(errp, EINVAL,
                         "An image cannot be emptied when others are between it and the base: "
                         "they would show again");
    }
    for (size_t i = 0; i <= options->layers_count; i++) {
        BlockBackend *blk = i < options->layers_count ? options->layers[i] : options->base;

        if (blk_bs(blk) == NULL) {
            return error_set(errp, ENOMEDIUM, "Device '%s' has no medium", blk_name(blk));
        }
    }
    return 0;
}

Job *job_commit_start(Platter *pl, const struct job_start *start,
                      const struct job_commit_options *options, Error **errp)
{
    struct commit *c;

    if (check_options(options, errp) < 0) {
        return NULL;
    }
    c = job_create(pl, &commit_driver, start->id, start->txn, start->flags, errp);
    if (c == NULL) {
        return NULL;
    }
    if (start->progress != NULL) {
        c->job.progress = *start->progress;
    }
    c->job.speed = options->bytes_per_second;
    c->on_error = options->on_error;
    c->empty_top = options->empty_top;
    if (take_disks(c, options, errp) < 0) {
        job_early_fail(&c->job);
        return NULL;
    }
    job_start(&c->job);
    return &c->job;
}
