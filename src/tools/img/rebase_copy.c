/* SPDX-License-Identifier: MIT */
/*
 * The copy loop of a rebase. Clusters that the overlay holds are left alone. Of the others those
 * are written into it whose content is another over the new backing file; the old one stays in
 * place meanwhile, so that a cut at any time leaves an image that reads the same as before.
 */
#include "tools/img/rebase_copy.h"

#include <errno.h>
#include <string.h>

#include "util/checked.h"
#include "util/iov.h"

#define CHUNK_BYTES REBASE_UNIT_BYTES_MAX

struct loop {
    struct rebase_copy *r;
    uint64_t total;
    uint64_t base_bytes;
    uint64_t unit; /* what is compared and written as a whole */
    uint8_t *now;
    uint8_t *then;
};

/* What stands at an offset. */
struct extent {
    uint64_t bytes;
    bool skip; /* nothing to do */
    bool zero;
};

static int overlay_extent_co(struct loop *l, uint64_t offset, struct extent *ret)
{
    int64_t bytes;
    int depth;
    int flags = blk_co_block_status(l->r->overlay, (int64_t)offset, (int64_t)(l->total - offset),
                                    &bytes, NULL, &depth);

    if (flags < 0) {
        l->r->failed = "block status of the image";
        return flags;
    }
    *ret = (struct extent){
        .bytes = (uint64_t)bytes,
        .skip = depth == 1 || (l->r->shared_depth > 0 && depth >= l->r->shared_depth),
        .zero = (flags & BDRV_BLOCK_ZERO) != 0,
    };
    return 0;
}

/* Cut e to what stands there in the new chain as one kind. */
static int base_extent_co(struct loop *l, uint64_t offset, struct extent *e, bool *ret_zero)
{
    int64_t bytes;
    int flags;

    if (offset >= l->base_bytes) {
        *ret_zero = true;
        return 0;
    }
    e->bytes = min_u64(e->bytes, l->base_bytes - offset);
    flags = blk_co_block_status(l->r->base, (int64_t)offset, (int64_t)e->bytes, &bytes, NULL, NULL);
    if (flags < 0) {
        l->r->failed = "block status of the new backing file";
        return flags;
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

static int write_data_co(struct loop *l, uint64_t offset, uint8_t *buf, uint64_t bytes)
{
    struct iovec iov = {buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);

    return blk_co_pwritev(l->r->overlay, (int64_t)offset, &view, 0);
}

/* buf is zeroes. An overlay that is over nothing yet may read as zeroes without holding them, and a
 * format may have no way to say more (qcow2, version 2): there they are written as data. */
static int write_zeroes_co(struct loop *l, uint64_t offset, uint8_t *buf, uint64_t bytes)
{
    int ret = blk_co_pwrite_zeroes(l->r->overlay, (int64_t)offset, (int64_t)bytes, 0);

    for (uint64_t done = 0; ret == 0 && done < bytes;) {
        int64_t n;
        int depth;

        ret = blk_co_block_status(l->r->overlay, (int64_t)(offset + done), (int64_t)(bytes - done),
                                  &n, NULL, &depth);
        if (ret >= 0) {
            ret = depth == 1 ? 0 : write_data_co(l, offset + done, buf + done, (uint64_t)n);
            done += (uint64_t)n;
        }
    }
    return ret;
}

static int write_run_co(struct loop *l, uint64_t offset, uint8_t *buf, uint64_t bytes)
{
    int ret = buffer_is_zero(buf, bytes) ? write_zeroes_co(l, offset, buf, bytes)
                                         : write_data_co(l, offset, buf, bytes);

    if (ret < 0) {
        l->r->failed = "writing to the image";
    }
    return ret;
}

/* The end of the unit that begins at or around offset, within the chunk. */
static uint64_t unit_end(const struct loop *l, uint64_t offset, uint64_t end)
{
    return min_u64(align_down(offset, l->unit) + l->unit, end);
}

/* Write the units of now that differ from then, neighbours together. */
static int write_differences_co(struct loop *l, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    uint64_t from = offset; /* of the run that is not written yet */
    int ret = 0;

    for (uint64_t at = offset; ret == 0 && at < end;) {
        uint64_t next = unit_end(l, at, end);
        bool same = memcmp(l->now + (at - offset), l->then + (at - offset), next - at) == 0;

        if (same) {
            ret = at > from ? write_run_co(l, from, l->now + (from - offset), at - from) : 0;
            from = next;
        }
        at = next;
    }
    if (ret == 0 && end > from) {
        ret = write_run_co(l, from, l->now + (from - offset), end - from);
    }
    return ret;
}

static int copy_extent_co(struct loop *l, uint64_t offset, struct extent *e)
{
    bool base_zero;
    int ret = base_extent_co(l, offset, e, &base_zero);

    if (ret < 0 || (e->zero && base_zero)) {
        return ret;
    }
    /* ends at a chunk's boundary, so that units stay whole */
    e->bytes = min_u64(e->bytes, align_down(offset, CHUNK_BYTES) + CHUNK_BYTES - offset);
    ret = read_co(l->r->overlay, offset, l->now, e->bytes, e->zero);
    if (ret < 0) {
        l->r->failed = "reading the image over its old backing file";
        return ret;
    }
    ret = read_co(l->r->base, offset, l->then, e->bytes, base_zero);
    if (ret < 0) {
        l->r->failed = "reading the new backing file";
        return ret;
    }
    return write_differences_co(l, offset, e->bytes);
}

static int loop_run_co(struct loop *l)
{
    for (uint64_t offset = 0; offset < l->total;) {
        struct extent e;
        int ret = overlay_extent_co(l, offset, &e);

        if (ret == 0 && !e.skip) {
            ret = copy_extent_co(l, offset, &e);
        }
        if (ret < 0) {
            return ret;
        }
        offset += e.bytes;
        l->r->progress->report(l->r->progress->opaque, offset, l->total);
    }
    return 0;
}

int rebase_copy_co(struct rebase_copy *r)
{
    struct loop l = {.r = r, .unit = r->unit_bytes};
    int64_t total = blk_getlength(r->overlay);
    int64_t base_bytes = r->base ? blk_getlength(r->base) : 0;
    int ret = -ENOMEM;

    if (total < 0 || base_bytes < 0) {
        r->failed = "asking for sizes";
        return (int)(total < 0 ? total : base_bytes);
    }
    l.total = (uint64_t)total;
    l.base_bytes = (uint64_t)base_bytes;
    l.now = blk_blockalign(r->overlay, CHUNK_BYTES);
    l.then = blk_blockalign(r->overlay, CHUNK_BYTES);
    r->failed = "memory";
    if (l.now && l.then) {
        ret = loop_run_co(&l);
    }
    blk_blockfree(l.then);
    blk_blockfree(l.now);
    return ret;
}
