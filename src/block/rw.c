/* SPDX-License-Identifier: MIT */
/*
 * Bytes to and from a driver: reads and writes of any alignment and length are cut into requests
 * the driver can take. Memory and range that fit go down as they are; the rest goes through a
 * bounce buffer of bounded size, a write of part of a block after reading what stands there. Who
 * may overlap with whom is settled before (track.c).
 *
 * Invariants
 *  R1 a request to the driver begins and ends at multiples of request_alignment, but for a
 *     non-protocol node's end, where it stops at the end.
 *  R2 bytes past the node's end are zero in what is written.
 *  R3 no buffer is larger than BOUNCE_MAX (or one block, where that is larger).
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/request.h"
#include "util/checked.h"
#include "util/iov.h"
#include "util/mem.h"

#define SECTOR_BYTES 512
#define BOUNCE_MAX (UINT64_C(1) << 20)
/* Up to here one bounced request is cheaper than one for each unaligned end and one between. */
#define BOUNCE_WHOLE (UINT64_C(64) << 10)

static void mem_advance(struct bdrv_rw_mem *mem, uint64_t bytes)
{
    mem->skip += bytes;
    while (mem->niov > 0 && mem->skip >= mem->iov[0].iov_len) {
        mem->skip -= mem->iov[0].iov_len;
        mem->iov++;
        mem->niov--;
    }
}

static uint64_t transfer_max(const struct bdrv_limits *bl)
{
    uint64_t max;

    if (bl->max_transfer == 0) {
        return UINT64_MAX - (bl->request_alignment - 1);
    }
    max = align_down(bl->max_transfer, bl->request_alignment);
    assert(max > 0);
    return max;
}

static bool is_protocol(const BlockDriverState *bs)
{
    return (bs->caps & BDRV_CAP_PROTOCOL) != 0;
}

/* How many of want bytes, from a block boundary on, can go down without a copy in one request; 0:
 * none. *ret_niov: the elements they lie in. */
static uint64_t direct_bytes(const struct bdrv_limits *bl, const struct bdrv_rw_mem *mem,
                             uint64_t want, size_t *ret_niov)
{
    uint32_t align = bl->request_alignment;
    uint32_t mem_align = bl->mem_alignment;
    uint64_t cut;
    uint64_t bytes = 0;
    uint64_t skip = mem->skip;
    size_t max_iov = bdrv_max_iov(bl);
    size_t i;

    want = align_down(want, align);
    cut = min_u64(want, transfer_max(bl));
    for (i = 0; i < mem->niov && i < max_iov && bytes < cut; i++) {
        uintptr_t addr = (uintptr_t)mem->iov[i].iov_base + skip;
        uint64_t len = mem->iov[i].iov_len - skip;

        skip = 0;
        if (len > cut - bytes) {
            len = cut - bytes;
            if (mem_align > 1 && cut < want) {
                /* the next request begins inside this element */
                len = align_down(len, max_u64(align, mem_align));
            }
            cut = bytes + len;
        }
        if (mem_align > 1 && len > 0 && (!is_aligned(addr, mem_align) || !is_aligned(len, align))) {
            break;
        }
        bytes += len;
    }
    *ret_niov = i;
    return align_down(bytes, align);
}

static int driver_rw(struct bdrv_rw *rw, enum bdrv_op op, uint64_t offset, uint64_t bytes,
                     const struct bdrv_rw_mem *mem, size_t niov)
{
    struct bdrv_req req = {
        .op = op,
        .flags = rw->flags,
        .offset = offset,
        .bytes = bytes,
        .iov = mem->iov,
        .niov = niov,
        .iov_offset = mem->skip,
    };
    BlockDriverState *bs = rw->bs;
    int ret;

    if (op == BDRV_OP_WRITE && !rw->told) {
        rw->told = true;
        bdrv_debug_node_event(bs, BLKDBG_PWRITEV);
    }
    ret = op == BDRV_OP_READ ? bs->drv->read_co(bs, &req) : bs->drv->write_co(bs, &req);
    assert(ret <= 0);
    return ret;
}

static int driver_rw_buf(struct bdrv_rw *rw, enum bdrv_op op, uint64_t offset, void *buf,
                         uint64_t bytes)
{
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};
    struct bdrv_rw_mem mem = {.iov = &iov, .niov = 1};

    return driver_rw(rw, op, offset, bytes, &mem, 1);
}

/* Read the old bytes of a block, at most request_alignment, to a place in a buffer. */
static int read_block(struct bdrv_rw *rw, uint64_t offset, uint8_t *to, uint64_t bytes)
{
    BlockDriverState *bs = rw->bs;
    struct bdrv_rw sub = {.bs = bs};
    void *buf;
    int ret;

    if (is_aligned((uintptr_t)to, bs->bl.mem_alignment)) {
        return driver_rw_buf(&sub, BDRV_OP_READ, offset, to, bytes);
    }
    /* memory wants more alignment than blocks do */
    buf = bdrv_buffer_alloc(bs, bytes);
    if (buf == NULL) {
        return -ENOMEM;
    }
    ret = driver_rw_buf(&sub, BDRV_OP_READ, offset, buf, bytes);
    if (ret == 0) {
        memcpy(to, buf, bytes);
    }
    bdrv_buffer_free(bs, buf, bytes);
    return ret;
}

/* What stands in [offset, offset + bytes), zeroes past the node's end (R2). */
static int read_old(struct bdrv_rw *rw, uint64_t offset, uint8_t *to, uint64_t bytes)
{
    uint64_t inside = offset < rw->size ? min_u64(bytes, rw->size - offset) : 0;
    int ret = 0;

    if (inside > 0) {
        ret = read_block(rw, offset, to, is_protocol(rw->bs) ? bytes : inside);
    }
    if (ret == 0) {
        memset(to + inside, 0, bytes - inside);
    }
    return ret;
}

/* A buffer for [start, stop): fill those parts of the first and last block that the write of
 * [pos, end) leaves alone. To a fault filter, blocks side by side are one read. */
static int fill_ends(struct bdrv_rw *rw, uint8_t *buf, uint64_t start, uint64_t stop, uint64_t end)
{
    BlockDriverState *bs = rw->bs;
    uint32_t align = bs->bl.request_alignment;
    uint64_t last = align_down(stop - 1, align);
    bool head = rw->pos > start;
    bool tail = end < stop;
    bool one = head && tail && last <= start + align;
    int ret = 0;

    if (head) {
        bdrv_debug_node_event(bs, BLKDBG_PWRITEV_RMW_HEAD);
    }
    if (one) {
        bdrv_debug_node_event(bs, BLKDBG_PWRITEV_RMW_TAIL);
    }
    if (head) {
        ret = read_old(rw, start, buf, min_u64(align, stop - start));
    }
    if (ret == 0 && head && !one) {
        bdrv_debug_node_event(bs, BLKDBG_PWRITEV_RMW_AFTER_HEAD);
    }
    if (ret == 0 && tail && !one) {
        bdrv_debug_node_event(bs, BLKDBG_PWRITEV_RMW_TAIL);
    }
    if (ret == 0 && tail && (last > start || !head)) {
        ret = read_old(rw, last, buf + (last - start), stop - last);
    }
    if (ret == 0 && one) {
        bdrv_debug_node_event(bs, BLKDBG_PWRITEV_RMW_AFTER_HEAD);
    }
    if (ret == 0 && tail) {
        bdrv_debug_node_event(bs, BLKDBG_PWRITEV_RMW_AFTER_TAIL);
    }
    return ret;
}

/* Length of the bounce that begins in the block of rw->pos. */
static uint64_t bounce_bytes(const struct bdrv_rw *rw, uint64_t start)
{
    const struct bdrv_limits *bl = &rw->bs->bl;
    uint64_t whole = align_up(rw->end, bl->request_alignment) - start;
    uint64_t max = min_u64(align_down(BOUNCE_MAX, bl->request_alignment), transfer_max(bl));
    uint64_t next = start + bl->request_alignment;
    struct bdrv_rw_mem mem = rw->mem;
    size_t niov;

    max = max_u64(max, bl->request_alignment);
    if (whole <= min_u64(max, BOUNCE_WHOLE) || rw->pos == start || next >= rw->end) {
        return min_u64(whole, max);
    }
    /* an unaligned head: its block only, where what follows needs no copy */
    mem_advance(&mem, next - rw->pos);
    return direct_bytes(bl, &mem, rw->end - next, &niov) > 0 ? bl->request_alignment
                                                             : min_u64(whole, max);
}

static int rw_bounce(struct bdrv_rw *rw)
{
    BlockDriverState *bs = rw->bs;
    uint64_t start = align_down(rw->pos, bs->bl.request_alignment);
    uint64_t stop = start + bounce_bytes(rw, start);
    uint64_t end = min_u64(rw->end, stop);
    uint64_t bytes = end - rw->pos;
    uint8_t *buf;
    int ret;

    if (!is_protocol(bs)) {
        stop = min_u64(stop, max_u64(rw->size, end));
    }
    buf = bdrv_buffer_alloc(bs, stop - start);
    if (buf == NULL) {
        return -ENOMEM;
    }
    if (rw->op == BDRV_OP_READ) {
        if (bs->caps & BDRV_CAP_READS_NOTHING) { /* else what this memory held before is told */
            memset(buf, 0, stop - start);
            iov_to_buf(rw->mem.iov, rw->mem.niov, rw->mem.skip, buf + (rw->pos - start), bytes);
        }
        ret = driver_rw_buf(rw, BDRV_OP_READ, start, buf, stop - start);
        if (ret == 0) {
            iov_from_buf(rw->mem.iov, rw->mem.niov, rw->mem.skip, buf + (rw->pos - start), bytes);
        }
    } else {
        ret = fill_ends(rw, buf, start, stop, end);
        if (ret == 0) {
            iov_to_buf(rw->mem.iov, rw->mem.niov, rw->mem.skip, buf + (rw->pos - start), bytes);
            ret = driver_rw_buf(rw, BDRV_OP_WRITE, start, buf, stop - start);
        }
    }
    bdrv_buffer_free(bs, buf, stop - start);
    rw->pos = end;
    mem_advance(&rw->mem, bytes);
    return ret;
}

void bdrv_rw_init(struct bdrv_rw *rw, BlockDriverState *bs, const struct bdrv_req *req)
{
    *rw = (struct bdrv_rw){
        .bs = bs,
        .op = req->op,
        .pos = req->offset,
        .end = req->offset + req->bytes,
        .size = bdrv_node_size(bs),
        .mem = {.iov = req->iov, .niov = req->niov},
    };
    mem_advance(&rw->mem, req->iov_offset);
}

/* Whether one bounced request is the better way although a part of it needs no copy. */
static bool bounce_whole(const struct bdrv_rw *rw)
{
    uint32_t align = rw->bs->bl.request_alignment;
    uint64_t start = align_down(rw->pos, align);
    uint64_t bytes = rw->end - start;

    return !is_aligned(rw->pos | rw->end, align) &&
           bytes <= min_u64(BOUNCE_WHOLE, transfer_max(&rw->bs->bl)) && bytes > align;
}

/* Where a request is split, so that a cut of power between the pieces tears no sector: as much of
 * bytes as ends at one; 0: the bounce buffer takes it. */
static uint64_t whole_sectors(uint64_t pos, uint64_t bytes)
{
    uint64_t end = align_down(pos + bytes, SECTOR_BYTES);

    return end > pos ? end - pos : 0;
}

int bdrv_rw_run(struct bdrv_rw *rw)
{
    const struct bdrv_limits *bl = &rw->bs->bl;
    bool whole = bounce_whole(rw);
    int ret = 0;

    while (rw->pos < rw->end && ret == 0) {
        uint64_t bytes = 0;
        size_t niov = 0;

        if (!whole && is_aligned(rw->pos, bl->request_alignment)) {
            bytes = direct_bytes(bl, &rw->mem, rw->end - rw->pos, &niov);
            if (bytes < rw->end - rw->pos) {
                bytes = whole_sectors(rw->pos, bytes);
            }
        }
        if (bytes > 0) {
            ret = driver_rw(rw, rw->op, rw->pos, bytes, &rw->mem, niov);
            rw->pos += bytes;
            mem_advance(&rw->mem, bytes);
        } else {
            ret = rw_bounce(rw);
        }
    }
    return ret;
}

int bdrv_rw_trim(struct bdrv_rw *rw, uint64_t end)
{
    BlockDriverState *bs = rw->bs;
    uint64_t right = max_u64(rw->size, end);

    if (is_aligned(end, bs->bl.request_alignment) || !is_protocol(bs) ||
        !(bs->caps & BDRV_CAP_GROWS_ON_WRITE) || bs->drv->truncate_co == NULL ||
        align_up(end, bs->bl.request_alignment) <= right) {
        return 0;
    }
    return bs->drv->truncate_co(bs, right, true, BDRV_PREALLOC_OFF, 0, NULL);
}
