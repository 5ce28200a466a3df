/* SPDX-License-Identifier: MIT */
/*
 * A convert whose source gives its bytes once, and its size only with its end. The target grows in
 * large steps ahead of what is written and gets its right size at the end. A sink takes it as it
 * comes.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "job/convert_int.h"
#include "util/checked.h"
#include "util/error.h"

#define GROW_BYTES (UINT64_C(1) << 30)

static int resize_co(struct convert *c, uint64_t bytes)
{
    Error *err = NULL;
    int ret = blk_co_truncate(c->target, (int64_t)bytes, false, BDRV_PREALLOC_OFF, 0, &err);

    if (ret < 0 && c->ret == 0) {
        c->ret = ret;
        error_prepend(&err, "error while growing the target: ");
        error_propagate(&c->err, err);
    } else {
        error_free(err);
    }
    return ret;
}

/* Room for bytes more, after those in flight, which a change of the size would meet. */
static int grow_co(struct convert *c, struct co_group *group, uint64_t bytes)
{
    int64_t have;
    uint64_t wanted;

    if (c->target == NULL) { /* a sink takes what comes */
        return 0;
    }
    have = blk_getlength(c->target);
    if (have < 0) {
        convert_fail(c, (int)have, "asking for the size of the target at byte", c->total);
        return (int)have;
    }
    wanted = c->total + bytes;
    if (wanted <= (uint64_t)have) {
        return 0;
    }
    if (wanted > INT64_MAX - CONVERT_SECTOR_BYTES) {
        convert_fail(c, -EFBIG, "growing the target at byte", c->total);
        return -EFBIG;
    }
    if (wanted < INT64_MAX / 4) {
        wanted = align_up(2 * wanted, GROW_BYTES);
    }
    (void)co_group_wait_co(group);
    return c->ret < 0 ? c->ret : resize_co(c, wanted);
}

/* Fill the buffer as far as the feed goes on. *ret_bytes is less than its size only at the end. */
static int fill_co(struct convert *c, uint8_t *buf, uint64_t *ret_bytes)
{
    uint64_t have = 0;

    while (have < c->room.chunk_bytes) {
        int64_t n = c->o.feed->read_co(c->o.feed->opaque, buf + have, c->room.chunk_bytes - have);

        if (n < 0) {
            convert_fail(c, (int)n, "reading at byte", c->total + have);
            return (int)n;
        }
        if (n == 0) {
            break;
        }
        have += (uint64_t)n;
    }
    *ret_bytes = have;
    return 0;
}

/* Whether what came, before it is written, is no more and at the end no less than was promised. */
static bool is_promised(struct convert *c, uint64_t came, bool ended)
{
    uint64_t promised = c->o.feed->bytes;

    if (c->ret < 0 || promised == 0) {
        return c->ret == 0;
    }
    if (came > promised) {
        c->ret = error_set(&c->err, EFBIG, "the source goes on behind byte %" PRIu64, promised);
    } else if (ended && came < promised) {
        c->ret = error_set(&c->err, EIO, "the source ended at byte %" PRIu64 " of %" PRIu64, came,
                           promised);
    }
    return c->ret == 0;
}

/* False: the end, or a failure. */
static bool feed_piece_co(struct convert *c, struct co_group *group)
{
    struct convert_piece *piece = co_group_piece_co(group);
    struct convert_chunk chunk = {.offset = c->total, .kind = CONVERT_DATA};
    uint64_t bytes = 0;

    piece->c = c;
    piece->chunk.offset = c->total;
    if (!convert_piece_buffer(piece) || fill_co(c, piece->buf, &bytes) < 0 ||
        !is_promised(c, c->total + bytes, bytes < c->room.chunk_bytes) || bytes == 0) {
        return false;
    }
    chunk.bytes = align_up(bytes, c->sector_bytes);
    memset(piece->buf + bytes, 0, chunk.bytes - bytes);
    if (grow_co(c, group, chunk.bytes) < 0) {
        return false;
    }
    c->total += chunk.bytes;
    piece->filled = true;
    job_progress_set_total(&c->job, c->total);
    convert_wait_to_go_on_co(c, group, bytes);
    if (job_is_cancelled(&c->job)) {
        return false;
    }
    convert_piece_start_co(c, group, piece, &chunk);
    return bytes == c->room.chunk_bytes;
}

void convert_feed_co(struct convert *c)
{
    struct co_group group;

    if (convert_sink_begin_co(c) < 0) {
        return;
    }
    co_group_init_max(&group, c->pieces, sizeof(c->pieces[0]), c->room.pieces_max);
    while (c->ret == 0 && !job_is_cancelled(&c->job) && feed_piece_co(c, &group)) {
    }
    (void)co_group_wait_co(&group);
    if (c->ret == 0 && c->target != NULL && !job_is_cancelled(&c->job)) {
        (void)resize_co(c, c->total);
    }
}
