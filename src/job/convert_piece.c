/* SPDX-License-Identifier: MIT */
/*
 * One piece of a convert: read a chunk, look for zeroes in it, write it.
 *
 * Unless writes may go out of order, a piece passes its turn on with its last write: that of the
 * next begins behind it, so that the target is filled from its beginning on while several writes
 * are in flight.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "job/convert_int.h"
#include "util/checked.h"
#include "util/iov.h"

/* Salvage reads what failed again in parts of these sizes. */
#define RETRY_BYTES 32768

/* ---- turns ---- */

static void turn_wait_co(const struct convert_piece *p)
{
    if (!p->c->o.out_of_order) {
        co_turn_wait_co(&p->turn);
    }
}

static void turn_pass_co(struct convert_piece *p)
{
    if (!p->c->o.out_of_order) {
        co_turn_pass_co(&p->turn);
    }
}

/* ---- reading ---- */

/* What all inputs have of [offset, offset + bytes). */
static int read_co(struct convert *c, uint64_t offset, uint8_t *buf, uint64_t bytes)
{
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        const struct convert_input *in = convert_input_at(c, offset);
        uint64_t at = offset - in->start;
        bool filler = at >= in->bytes;
        uint64_t n = min_u64(bytes, (filler ? in->span : in->bytes) - at);
        struct iovec iov = {buf, n};
        struct iov_view view = iov_view_of(&iov, 1);

        if (filler) {
            memset(buf, 0, n);
        } else {
            ret = blk_co_preadv(in->blk, (int64_t)(in->offset + at), &view, 0);
        }
        offset += n;
        buf += n;
        bytes -= n;
    }
    return ret;
}

static void salvage_sector_co(struct convert *c, uint64_t offset, uint8_t *buf, uint64_t bytes)
{
    int ret = read_co(c, offset, buf, bytes);

    if (ret < 0) {
        memset(buf, 0, bytes);
        if (c->o.lost != NULL) {
            c->o.lost(c->o.opaque, offset, -ret);
        }
    }
}

static void salvage_co(struct convert *c, uint64_t offset, uint8_t *buf, uint64_t bytes)
{
    uint64_t end = offset + bytes;

    for (uint64_t part; offset < end; offset += part, buf += part) {
        part = min_u64(RETRY_BYTES, end - offset);
        if (read_co(c, offset, buf, part) == 0) {
            continue;
        }
        for (uint64_t done = 0, n; done < part; done += n) {
            n = min_u64(CONVERT_SECTOR_BYTES, part - done);
            salvage_sector_co(c, offset + done, buf + done, n);
        }
    }
}

/* Block status says zeroes for all of the chunk; only where everything is written. */
static bool is_known_zero(const struct convert *c, const struct convert_chunk *chunk)
{
    const struct convert_chunk *e = &c->extent;

    return e->kind == CONVERT_ZERO && e->offset <= chunk->offset &&
           chunk->offset + chunk->bytes <= e->offset + e->bytes;
}

bool convert_piece_buffer(struct convert_piece *p)
{
    struct convert *c = p->c;

    if (p->buf == NULL) {
        BlockBackend *blk = c->target == NULL && c->inputs_count > 0 ? c->inputs[0].blk : c->target;

        p->buf = blk_blockalign(blk, c->room.chunk_bytes);
        if (p->buf == NULL) {
            convert_fail(c, -ENOMEM, "getting memory for what is at byte", p->chunk.offset);
        }
    }
    return p->buf != NULL;
}

static int piece_read_co(struct convert_piece *p)
{
    struct convert *c = p->c;
    int ret;

    if (p->filled) {
        return 0;
    }
    if (!convert_piece_buffer(p)) {
        return -ENOMEM;
    }
    if (is_known_zero(c, &p->chunk)) {
        memset(p->buf, 0, p->chunk.bytes);
        return 0;
    }
    ret = read_co(c, p->chunk.offset, p->buf, p->chunk.bytes);
    if (ret < 0 && c->o.salvage) {
        salvage_co(c, p->chunk.offset, p->buf, p->chunk.bytes);
        return 0;
    }
    if (ret < 0) {
        convert_fail(c, ret, "reading at byte", p->chunk.offset);
    }
    return ret;
}

/* ---- writing ---- */

static int order_flag(const struct convert *c)
{
    return c->o.out_of_order ? 0 : BDRV_REQ_IN_ORDER;
}

static int write_zeroes_co(struct convert *c, uint64_t offset, uint64_t bytes)
{
    return blk_co_pwrite_zeroes(c->target, (int64_t)offset, (int64_t)bytes,
                                BDRV_REQ_MAY_UNMAP | order_flag(c));
}

static int write_data_co(struct convert *c, uint64_t offset, uint8_t *buf, uint64_t bytes)
{
    /* a last part of a cluster can be compressed only where the disk ends with it */
    bool whole = is_aligned(offset + bytes, c->unit_bytes) ||
                 offset + bytes == (uint64_t)blk_getlength(c->target);
    uint64_t packed = !c->o.compressed ? 0 : whole ? bytes : align_down(bytes, c->unit_bytes);
    struct iovec iov = {buf, packed};
    struct iov_view view = iov_view_of(&iov, 1);
    int ret = 0;

    if (packed > 0) {
        ret = blk_co_pwritev(c->target, (int64_t)offset, &view, BDRV_REQ_WRITE_COMPRESSED);
    }
    if (ret == 0 && packed < bytes) {
        iov = (struct iovec){buf + packed, bytes - packed};
        view = iov_view_of(&iov, 1);
        ret = blk_co_pwritev(c->target, (int64_t)(offset + packed), &view, order_flag(c));
    }
    return ret;
}

/* How much of the chunk is in the part that at is in, from at on. */
static uint64_t part_bytes(const struct convert_piece *p, uint64_t at)
{
    uint64_t part = p->c->room.zero_bytes;

    return min_u64(part - (p->chunk.offset + at) % part, p->chunk.bytes - at);
}

/* Bytes from at on in parts that are all zero. */
static uint64_t zero_bytes(const struct convert_piece *p, uint64_t at)
{
    uint64_t end = at;

    while (end < p->chunk.bytes && buffer_is_zero(p->buf + end, part_bytes(p, end))) {
        end += part_bytes(p, end);
    }
    return end - at;
}

/* How many bytes from at on are alike: zeroes, or what is written. Zeroes between data are worth a
 * hole from sparse_bytes on, at either end of what was read any are. */
static uint64_t run_bytes(const struct convert_piece *p, uint64_t at, bool *ret_zero)
{
    uint64_t run = zero_bytes(p, at);

    *ret_zero = run > 0;
    while (!*ret_zero && at + run < p->chunk.bytes) {
        uint64_t zeroes = zero_bytes(p, at + run);

        if (zeroes > 0 &&
            (zeroes >= p->c->room.sparse_bytes || at + run + zeroes == p->chunk.bytes)) {
            break;
        }
        run += zeroes;
        run += part_bytes(p, at + run);
    }
    return run;
}

static int write_found_co(struct convert_piece *p)
{
    struct convert *c = p->c;
    uint64_t end = p->chunk.bytes;
    bool leaves = c->zeroed && (c->o.own_layers == 0 || p->chunk.offset >= c->o.backing_bytes);
    int ret = 0;

    for (uint64_t at = 0, run; ret == 0 && at < end; at += run) {
        uint64_t offset = p->chunk.offset + at;
        bool zero = false;

        run = c->room.sparse_bytes > 0 ? run_bytes(p, at, &zero) : end;
        if (at + run == end) {
            turn_pass_co(p);
        }
        if (!zero) {
            ret = write_data_co(c, offset, p->buf + at, run);
        } else if (!leaves) {
            ret = write_zeroes_co(c, offset, run);
        }
    }
    return ret;
}

static int piece_write_co(struct convert_piece *p)
{
    struct convert *c = p->c;
    int ret;

    turn_wait_co(p);
    if (c->ret < 0) {
        return c->ret;
    }
    if (c->o.sink != NULL) {
        turn_pass_co(p);
        ret = c->o.sink->write_co(c->o.sink->opaque, p->chunk.offset, p->buf, p->chunk.bytes);
    } else if (p->chunk.kind == CONVERT_ZERO) {
        turn_pass_co(p);
        ret = write_zeroes_co(c, p->chunk.offset, p->chunk.bytes);
    } else {
        ret = write_found_co(p);
    }
    if (ret < 0) {
        convert_fail(c, ret, "writing at byte", p->chunk.offset);
    }
    return ret;
}

/* ---- copying inside the storage ---- */

/* 0, or -errno: nothing that was written then is wrong, it is written again. */
static int offload_co(struct convert_piece *p)
{
    struct convert *c = p->c;
    uint64_t offset = p->chunk.offset;
    uint64_t end = offset + p->chunk.bytes;
    int ret = 0;

    turn_wait_co(p);
    turn_pass_co(p);
    for (uint64_t n; ret == 0 && offset < end; offset += n) {
        const struct convert_input *in = convert_input_at(c, offset);
        uint64_t at = offset - in->start;

        if (at >= in->bytes) {
            n = min_u64(end - offset, in->span - at);
            ret = write_zeroes_co(c, offset, n);
        } else {
            n = min_u64(end - offset, in->bytes - at);
            ret = blk_co_copy_range(in->blk, (int64_t)(in->offset + at), c->target, (int64_t)offset,
                                    (int64_t)n, 0, 0);
        }
    }
    return ret;
}

int convert_piece_run_co(void *opaque)
{
    struct convert_piece *p = opaque;
    struct convert *c = p->c;
    bool data = p->chunk.kind == CONVERT_DATA;
    int ret = 0;

    if (data && c->offload && offload_co(p) < 0) {
        c->offload = false; /* this storage will not do better next time */
    } else if (data && c->offload) {
        data = false;
    }
    if (data) {
        ret = piece_read_co(p);
    }
    if (ret == 0 && (data || p->chunk.kind == CONVERT_ZERO)) {
        ret = piece_write_co(p);
    }
    turn_pass_co(p);
    if (ret == 0) {
        job_progress_update(&c->job, p->chunk.bytes);
    }
    return ret;
}
