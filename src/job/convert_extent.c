/* SPDX-License-Identifier: MIT */
/* The sources of a convert as one disk, cut into chunks that are copied, zeroed or left. */
#include <assert.h>
#include <errno.h>

#include "job/convert_int.h"
#include "util/checked.h"

/* A request for zeroes; the pause of a job waits for its end. */
#define ZERO_BYTES_MAX (UINT64_C(1) << 30)
/* Where nothing is known and nothing can be read this much is tried at a time. */
#define UNKNOWN_BYTES_MAX (UINT64_C(2) << 20)

const struct convert_input *convert_input_at(const struct convert *c, uint64_t offset)
{
    size_t low = 0, high = c->inputs_count;

    assert(offset < c->total);
    while (high - low > 1) { /* inputs[low].start <= offset < inputs[high].start */
        size_t middle = low + (high - low) / 2;

        if (c->inputs[middle].start <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &c->inputs[low];
}

static bool over_backing(const struct convert *c, uint64_t offset)
{
    return c->o.own_layers > 0 && offset < c->o.backing_bytes;
}

/* What flags and depth of a block status mean. */
static enum convert_kind kind_of(const struct convert *c, uint64_t offset, int flags, int depth)
{
    bool shared = offset < c->shared_bytes;

    if (shared && (depth == 0 || (unsigned)depth > c->o.own_layers)) {
        return CONVERT_LEAVE;
    }
    if ((flags & BDRV_BLOCK_ZERO) || !(flags & (BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED))) {
        return CONVERT_ZERO;
    }
    return CONVERT_DATA;
}

/* Ask for the extent at offset into c->extent. */
static int extent_look_co(struct convert *c, uint64_t offset)
{
    const struct convert_input *in = convert_input_at(c, offset);
    uint64_t at = offset - in->start;
    struct convert_chunk *e = &c->extent;
    int64_t bytes = 0;
    int depth = 0;
    int flags;

    e->offset = offset;
    e->packed = false;
    if (at >= in->bytes) {
        e->bytes = in->span - at;
        e->kind = CONVERT_ZERO;
        return 0;
    }
    e->bytes = in->bytes - at;
    if (offset < c->shared_bytes) {
        e->bytes = min_u64(e->bytes, c->shared_bytes - offset);
    } else if (over_backing(c, offset)) {
        e->bytes = min_u64(e->bytes, c->o.backing_bytes - offset);
    }
    flags = blk_co_block_status(in->blk, (int64_t)(in->offset + at), (int64_t)e->bytes, &bytes,
                                NULL, &depth);
    if (flags < 0 && c->o.salvage) {
        e->bytes = min_u64(e->bytes, UNKNOWN_BYTES_MAX);
        e->kind = CONVERT_DATA;
        return 0;
    }
    if (flags < 0) {
        e->bytes = 0;
        convert_fail(c, flags, "reading block status at offset", offset);
        return flags;
    }
    e->bytes = (uint64_t)bytes;
    e->kind = kind_of(c, offset, flags, depth);
    e->packed = (flags & BDRV_BLOCK_COMPRESSED) != 0;
    return 0;
}

static int extent_at_co(struct convert *c, uint64_t offset)
{
    struct convert_chunk *e = &c->extent;
    uint64_t skip = offset - e->offset;

    if (offset < e->offset || skip >= e->bytes) {
        return extent_look_co(c, offset);
    }
    e->offset += skip;
    e->bytes -= skip;
    return 0;
}

/* A unit of which block status says several things is copied as data. */
int convert_next_chunk_co(struct convert *c, uint64_t offset, struct convert_chunk *ret_chunk)
{
    int ret = extent_at_co(c, offset);
    uint64_t end = offset + c->extent.bytes;
    enum convert_kind kind = c->extent.kind;
    uint64_t most = c->extent.packed ? c->room.packed_bytes : c->room.chunk_bytes;
    uint64_t whole_end = end >= c->total ? c->total : align_down(end, c->unit_bytes);

    assert(is_aligned(offset, c->unit_bytes));
    if (ret < 0) {
        return ret;
    }
    if (kind == CONVERT_ZERO && c->o.sparse_bytes == 0) {
        kind = CONVERT_DATA; /* zeroes are written as what they are */
    }
    if (kind == CONVERT_DATA || whole_end <= offset) {
        kind = CONVERT_DATA;
        end = min_u64(align_up(end, c->unit_bytes), c->total);
        end = min_u64(end, align_down(offset, most) + most);
    } else if (kind == CONVERT_ZERO && c->zeroed && !over_backing(c, offset)) {
        kind = CONVERT_LEAVE;
        end = whole_end;
    } else {
        end = whole_end;
        if (kind == CONVERT_ZERO) {
            end = min_u64(end, align_down(offset, ZERO_BYTES_MAX) + ZERO_BYTES_MAX);
        }
    }
    *ret_chunk = (struct convert_chunk){.offset = offset, .bytes = end - offset, .kind = kind};
    return 0;
}
