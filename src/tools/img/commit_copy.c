/* SPDX-License-Identifier: MIT */
/*
 * The copy loop of a commit. The layers are open one by one, so that each says what it holds
 * itself; for each part of the disk the uppermost one that holds it decides. Past the end of a
 * layer the disk reads as zeroes whatever is below, so they are written then.
 */
#include "tools/img/commit_copy.h"

#include <errno.h>

#include <platter/coroutine.h>

#include "util/checked.h"
#include "util/iov.h"

#define CHUNK_BYTES (UINT64_C(2) << 20)

/* Who decides what stands at an offset. */
struct decision {
    uint64_t bytes;
    BlockBackend *layer; /* NULL: what the base holds stays */
    bool zero;
};

/* Ask one layer; it decides only when *ret_decides. Cuts d to its answer. */
static int ask_layer_co(struct commit_copy *c, unsigned i, uint64_t offset, struct decision *d,
                        bool *ret_decides)
{
    BlockBackend *layer = c->layers[i];
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

static int decide_co(struct commit_copy *c, uint64_t offset, uint64_t bytes, struct decision *ret)
{
    struct decision d = {.bytes = bytes};

    for (unsigned i = 0; i < c->count; i++) {
        bool decides = false;
        int ret_ask = ask_layer_co(c, i, offset, &d, &decides);

        if (ret_ask < 0) {
            c->failed = "block status";
            return ret_ask;
        }
        if (decides) {
            d.layer = c->layers[i];
            break;
        }
    }
    *ret = d;
    return 0;
}

static int copy_data_co(struct commit_copy *c, const struct decision *d, uint64_t offset, void *buf)
{
    struct iovec iov = {buf, d->bytes};
    struct iov_view view = iov_view_of(&iov, 1);
    int ret = blk_co_preadv(d->layer, (int64_t)offset, &view, 0);

    if (ret < 0) {
        c->failed = "reading what is to be committed";
        return ret;
    }
    ret = blk_co_pwritev(c->base, (int64_t)offset, &view, 0);
    if (ret < 0) {
        c->failed = "writing to the backing file";
    }
    return ret;
}

static int copy_zeroes_co(struct commit_copy *c, const struct decision *d, uint64_t offset)
{
    int ret = blk_co_pwrite_zeroes(c->base, (int64_t)offset, (int64_t)d->bytes, 0);

    if (ret < 0) {
        c->failed = "writing zeroes to the backing file";
    }
    return ret;
}

/* Wait until as many bytes as were written are due. */
static void keep_rate_co(const struct commit_copy *c, int64_t start_ns, uint64_t written)
{
    int64_t due_ns, now_ns = aio_clock_ns();

    if (c->bytes_per_s == 0) {
        return;
    }
    due_ns = start_ns + (int64_t)((double)written / (double)c->bytes_per_s * 1e9);
    if (due_ns > now_ns) {
        co_sleep_ns(due_ns - now_ns);
    }
}

static int loop_run_co(struct commit_copy *c, uint64_t total, void *buf)
{
    int64_t start_ns = aio_clock_ns();
    uint64_t written = 0;

    for (uint64_t offset = 0; offset < total;) {
        struct decision d;
        int ret = decide_co(c, offset, total - offset, &d);

        if (ret == 0 && d.layer && d.zero) {
            ret = copy_zeroes_co(c, &d, offset);
        } else if (ret == 0 && d.layer) {
            d.bytes = min_u64(d.bytes, CHUNK_BYTES);
            ret = copy_data_co(c, &d, offset, buf);
            written += d.bytes;
            keep_rate_co(c, start_ns, written);
        }
        if (ret < 0) {
            return ret;
        }
        offset += d.bytes;
        c->progress->report(c->progress->opaque, offset, total);
    }
    return 0;
}

int commit_copy_co(struct commit_copy *c)
{
    int64_t total = blk_getlength(c->layers[0]);
    void *buf = blk_blockalign(c->base, CHUNK_BYTES);
    int ret = -ENOMEM;

    c->failed = "memory";
    if (total < 0) {
        c->failed = "asking for the size";
        ret = (int)total;
    } else if (buf) {
        ret = loop_run_co(c, (uint64_t)total, buf);
    }
    blk_blockfree(buf);
    return ret;
}
