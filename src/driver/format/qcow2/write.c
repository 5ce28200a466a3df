/* SPDX-License-Identifier: MIT */
/*
 * Writes. Data clusters that are ours alone (COPIED) are written in place; the rest of a request is
 * cut into pieces, each a run of clusters that is contiguous in the file, within one slice of an L2
 * table: clusters, one write, one change of the mapping. Room that zero clusters and subclusters
 * hold is used again.
 *
 * Pieces are prepared one after the other, so that a request's clusters lie in its order, and are
 * then in flight together. The range lock of a piece is held from before its entries are looked at
 * until they are changed.
 */
#include <errno.h>
#include <inttypes.h>

#include "compress.h"
#include "driver.h"
#include "loop/co_group.h"
#include "request.h"

#define PIECE_BYTES (UINT64_C(64) << 20)

struct write_piece {
    struct qcow2 *s;
    struct bdrv_req req; /* the guest's part; offset: on the disk */
    uint64_t host;       /* of its first byte */
    /* a new mapping: */
    struct q2_cow cow;
    struct q2_range range;
    struct q2_slot slot; /* of its first cluster */
    uint32_t clusters;
};

/* ---- in place ---- */

static int write_in_place_co(struct qcow2 *s, const struct bdrv_req *req, uint64_t host)
{
    struct bdrv_req below = *req;
    int64_t file_bytes = bdrv_edge_getlength(s->data);

    if (UNLIKELY(file_bytes < 0 || !range_inside(host, req->bytes, (uint64_t)file_bytes))) {
        int ret = q2_inside_co(s, true, req->offset, host, req->bytes);

        if (ret < 0) {
            return ret;
        }
    }
    below.offset = host;
    below.flags = 0;
    return q2_data_write_co(s, &below);
}

static int piece_in_place_co(void *opaque)
{
    const struct write_piece *piece = opaque;

    return write_in_place_co(piece->s, &piece->req, piece->host);
}

/* ---- a new mapping: what it will be ---- */

/* Bits of the subclusters of the cluster at guest that [start, end) touches. */
static uint64_t touched_bits(const struct q2_geometry *geo, uint64_t guest, uint64_t start,
                             uint64_t end)
{
    uint64_t from = max_u64(start, guest) - guest;
    uint64_t to = min_u64(end, guest + geo->cluster_bytes) - guest;
    unsigned shift = (unsigned)__builtin_ctz(geo->subcluster_bytes);

    return q2_bits((unsigned)(from >> shift),
                   (unsigned)((to + geo->subcluster_bytes - 1) >> shift));
}

/* What becomes of an entry. */
enum entry_way {
    WAY_IN_PLACE, /* all that is written is data already */
    WAY_ROOM,     /* its cluster is ours and takes the data */
    WAY_FRESH,    /* it gets a new cluster */
};

static enum entry_way entry_way(const struct q2_geometry *geo, struct q2_l2_entry e, uint64_t guest,
                                uint64_t start, uint64_t end)
{
    uint64_t bits;

    if (!q2_l2_has_host(geo, e.word) || !q2_l2_copied(geo, e.word)) {
        return WAY_FRESH;
    }
    if (!geo->extended_l2) {
        return q2_l2_kind(geo, e, 0) == Q2_DATA ? WAY_IN_PLACE : WAY_ROOM;
    }
    bits = touched_bits(geo, guest, start, end);
    return (e.bitmap & bits) == bits ? WAY_IN_PLACE : WAY_ROOM;
}

/* The run of entries from the piece's slot on, at most max, that go the way of the first:
 * *ret_count. -EIO told. */
static int run_look_co(const struct write_piece *piece, uint32_t max, enum entry_way *ret_way,
                       uint32_t *ret_count)
{
    struct qcow2 *s = piece->s;
    const struct q2_geometry *geo = &s->geo;
    uint64_t guest = align_down(piece->req.offset, geo->cluster_bytes);
    uint64_t end = piece->req.offset + piece->req.bytes;
    uint64_t host = UINT64_MAX;

    for (*ret_count = 0; *ret_count < max; (*ret_count)++, guest += geo->cluster_bytes) {
        struct q2_l2_entry e = q2_slice_entry(s, piece->slot.slice, piece->slot.index + *ret_count);
        const char *wrong = q2_l2_wrong(geo, e, guest);
        enum entry_way way;

        if (wrong != NULL) {
            return *ret_count > 0 ? 0
                                  : q2_entry_corrupt_co(s, true, piece->slot.slice, guest, wrong);
        }
        way = entry_way(geo, e, guest, piece->req.offset, end);
        if (*ret_count == 0) {
            *ret_way = way;
        } else if (way != *ret_way ||
                   (way == WAY_ROOM && q2_l2_host(geo, e.word) != host + geo->cluster_bytes)) {
            return 0;
        }
        host = q2_l2_host(geo, e.word);
    }
    return 0;
}

/* Where the copy in the first cluster begins: old is its entry. */
static uint64_t cow_start(const struct q2_geometry *geo, struct q2_l2_entry old, bool fresh,
                          uint64_t offset)
{
    uint64_t guest = align_down(offset, geo->cluster_bytes);
    uint64_t start = align_down(offset, geo->subcluster_bytes);
    unsigned sub = (unsigned)((offset - guest) / geo->subcluster_bytes);
    uint64_t data = old.bitmap & Q2_BITMAP_ALL;

    if (!geo->extended_l2 || (old.word & Q2_COMPRESSED) != 0) {
        return guest;
    }
    if (!fresh) {
        return (data >> sub & 1) != 0 ? offset : start;
    }
    if (data != 0) { /* all of its data moves */
        start = min_u64(start, guest + (uint64_t)__builtin_ctzll(data) * geo->subcluster_bytes);
    }
    return start;
}

/* Where the copy in the last cluster ends, for a write that ends at end. */
static uint64_t cow_end(const struct q2_geometry *geo, struct q2_l2_entry old, bool fresh,
                        uint64_t end)
{
    uint64_t guest = align_down(end - 1, geo->cluster_bytes);
    uint64_t stop = align_up(end, geo->subcluster_bytes);
    unsigned sub = (unsigned)((end - 1 - guest) / geo->subcluster_bytes);
    uint64_t data = old.bitmap & Q2_BITMAP_ALL;

    if (!geo->extended_l2 || (old.word & Q2_COMPRESSED) != 0) {
        return guest + geo->cluster_bytes;
    }
    if (!fresh) {
        return (data >> sub & 1) != 0 ? end : stop;
    }
    if (data != 0) {
        stop =
            max_u64(stop, guest + (uint64_t)(64 - __builtin_clzll(data)) * geo->subcluster_bytes);
    }
    return stop;
}

/* ---- a new mapping: preparing it ---- */

/* Room that an entry claims must be where the file is, or nearly: nothing else vouches for it. */
static int room_check_co(const struct write_piece *piece, uint64_t host)
{
    struct qcow2 *s = piece->s;

    return s->geo.external_data ? 0 : q2_inside_co(s, true, piece->req.offset, host, 1);
}

/* The piece's clusters, as many as there are, and what is copied. */
static int piece_place_co(struct write_piece *piece, bool fresh, uint32_t clusters, uint64_t near)
{
    struct qcow2 *s = piece->s;
    const struct q2_geometry *geo = &s->geo;
    uint64_t guest = align_down(piece->req.offset, geo->cluster_bytes);
    struct q2_l2_entry first = q2_slice_entry(s, piece->slot.slice, piece->slot.index);
    struct q2_l2_entry last;
    uint64_t count = clusters;
    uint64_t host = q2_l2_host(geo, first.word);
    int ret = fresh ? q2_alloc_data_co(s, guest, clusters, near, &host, &count)
                    : room_check_co(piece, host);

    if (ret < 0) {
        return ret;
    }
    piece->clusters = (uint32_t)count;
    piece->req.bytes =
        min_u64(piece->req.bytes, guest + (count << geo->cluster_bits) - piece->req.offset);
    last = q2_slice_entry(s, piece->slot.slice, piece->slot.index + piece->clusters - 1);
    piece->cow = (struct q2_cow){
        .start = cow_start(geo, first, fresh, piece->req.offset),
        .end = cow_end(geo, last, fresh, piece->req.offset + piece->req.bytes),
        .fresh = fresh,
    };
    piece->cow.host = host + (piece->cow.start - guest);
    piece->host = host + (piece->req.offset - guest);
    if (geo->external_data) { /* it may end where the disk ends */
        piece->cow.end = min_u64(piece->cow.end,
                                 max_u64(q2_disk_bytes(s), piece->req.offset + piece->req.bytes));
    }
    return 0;
}

/* The range is locked. 1: prepared; 0: to be mapped again, somebody else was faster. */
static int piece_prepare_locked_co(struct write_piece *piece, uint64_t near)
{
    struct qcow2 *s = piece->s;
    uint32_t clusters = (uint32_t)(piece->range.last - piece->range.first + 1);
    enum entry_way way = WAY_IN_PLACE;
    int ret = q2_slot_get_co(s, piece->req.offset, &piece->slot);

    if (ret < 0) {
        return ret;
    }
    ret = run_look_co(piece, clusters, &way, &clusters);
    if (ret == 0 && way != WAY_IN_PLACE) {
        ret = piece_place_co(piece, way == WAY_FRESH, clusters, near);
        if (ret == 0) {
            q2_range_trim(s, &piece->range, piece->range.first + piece->clusters - 1);
            return 1;
        }
    }
    q2_l2_put(s, piece->slot.slice);
    return ret;
}

/* The beginning of what req has from done on: a piece that needs a new mapping. As above. */
static int piece_prepare_co(struct write_piece *piece, const struct bdrv_req *req, uint64_t done,
                            uint64_t near)
{
    struct qcow2 *s = piece->s;
    unsigned bits = s->geo.cluster_bits;
    uint64_t guest = req->offset + done;
    uint64_t bytes = min_u64(min_u64(req->bytes - done, PIECE_BYTES), q2_slice_left(s, guest));
    int ret = q2_table_own_co(s, guest);

    if (ret < 0) {
        return ret;
    }
    piece->req = q2_req_part(req, done, bytes);
    q2_range_lock_co(s, &piece->range, guest >> bits, (guest + bytes - 1) >> bits);
    ret = piece_prepare_locked_co(piece, near);
    if (ret <= 0) {
        q2_range_unlock(s, &piece->range);
    }
    return ret;
}

/* ---- a new mapping: doing it ---- */

static struct q2_l2_entry entry_new(const struct write_piece *piece, struct q2_l2_entry old,
                                    uint64_t guest, uint64_t host)
{
    const struct q2_geometry *geo = &piece->s->geo;
    struct q2_l2_entry e = {.word = host | Q2_COPIED};

    if (geo->extended_l2) {
        uint64_t bits = touched_bits(geo, guest, piece->cow.start, piece->cow.end);

        e.bitmap = (old.word & Q2_COMPRESSED) != 0 ? 0 : old.bitmap;
        e.bitmap = (e.bitmap | bits) & ~(bits << Q2_SUBCLUSTERS);
    }
    return e;
}

/* The mapping takes over. What it had before is freed after it is gone. */
static int piece_link_co(const struct write_piece *piece)
{
    struct qcow2 *s = piece->s;
    unsigned bits = s->geo.cluster_bits;
    uint64_t guest = align_down(piece->req.offset, s->geo.cluster_bytes);
    uint64_t host = piece->host - (piece->req.offset - guest);
    struct q2_l2_entry old[Q2_CHUNK];
    struct q2_l2_entry now[Q2_CHUNK];

    for (uint32_t done = 0; done < piece->clusters;) {
        uint32_t index = piece->slot.index + done;
        uint32_t n = (uint32_t)min_u64(piece->clusters - done, Q2_CHUNK);
        int ret;

        for (uint32_t i = 0; i < n; i++) {
            uint64_t at = (uint64_t)(done + i) << bits;

            old[i] = q2_slice_entry(s, piece->slot.slice, index + i);
            now[i] = entry_new(piece, old[i], guest + at, host + at);
        }
        ret = q2_entries_set_co(s, piece->slot.slice, index, now, n);
        if (ret < 0) {
            return ret;
        }
        for (uint32_t i = 0; i < n; i++) {
            q2_entry_replaced(s, old[i], now[i], Q2_DISCARD_OTHER);
        }
        done += n;
    }
    return 0;
}

static int piece_new_co(void *opaque)
{
    struct write_piece *piece = opaque;
    struct qcow2 *s = piece->s;
    int ret = q2_cow_write_co(s, &piece->cow, &piece->req);

    if (ret == 0) {
        ret = piece_link_co(piece);
    } else if (piece->cow.fresh) {
        uint64_t before = piece->req.offset & (s->geo.cluster_bytes - 1);

        q2_unalloc_data_co(s, piece->host - before, piece->clusters);
    }
    q2_l2_put(s, piece->slot.slice);
    q2_range_unlock(s, &piece->range);
    return ret;
}

/* ---- a request ---- */

/* The next piece of req, from done on: *ret_run does it. -errno. */
static int piece_next_co(struct write_piece *piece, const struct bdrv_req *req, uint64_t done,
                         uint64_t near, int (**ret_run)(void *piece))
{
    struct qcow2 *s = piece->s;
    int ret;

    for (;;) {
        struct q2_extent extent;

        ret = q2_map_write_co(s, req->offset + done, req->bytes - done, &extent);
        if (ret < 0) {
            return ret;
        }
        if (extent.kind == Q2_DATA && extent.copied) {
            piece->req = q2_req_part(req, done, extent.bytes);
            piece->host = extent.host;
            *ret_run = piece_in_place_co;
            return 0;
        }
        ret = piece_prepare_co(piece, req, done, near);
        if (ret != 0) {
            *ret_run = piece_new_co;
            return ret < 0 ? ret : 0;
        }
    }
}

int q2_write_placed_co(struct qcow2 *s, const struct bdrv_req *req, void (*placed)(void *opaque),
                       void *opaque)
{
    struct write_piece pieces[CO_GROUP_MAX];
    struct co_group group;
    uint64_t near = 0;
    uint64_t done = 0;
    int ret = 0;

    co_group_init(&group, pieces, sizeof(pieces[0]));
    while (done < req->bytes && !co_group_failed(&group)) {
        struct write_piece *piece = co_group_piece_co(&group);
        int (*run)(void *piece);

        piece->s = s;
        ret = piece_next_co(piece, req, done, near, &run);
        if (ret < 0) {
            break;
        }
        done += piece->req.bytes;
        near = piece->host + piece->req.bytes;
        if (!is_aligned(near, s->geo.cluster_bytes)) {
            /* part of a cluster, which somebody may discard before its rest is looked at */
            near = 0;
        }
        if (done == req->bytes && placed != NULL) {
            placed(opaque);
        }
        if (piece->req.bytes == req->bytes) {
            return run(piece);
        }
        co_group_start_co(&group, piece, run);
    }
    if (ret < 0) {
        co_group_wait_co(&group);
        return ret;
    }
    return co_group_wait_co(&group);
}

int q2_write_co(struct qcow2 *s, const struct bdrv_req *req)
{
    return q2_write_placed_co(s, req, NULL, NULL);
}

/* ---- in order ---- */

static int write_in_order_co(struct qcow2 *s, const struct bdrv_req *req)
{
    struct co_turn turn = co_turn_take(&s->turns);
    int ret;

    co_turn_wait_co(&turn);
    ret = q2_write_placed_co(s, req, co_turn_pass_co, &turn);
    co_turn_pass_co(&turn);
    return ret;
}

/* ---- the driver's call ---- */

static int __attribute__((noinline))
write_slow_co(struct qcow2 *s, const struct bdrv_req *req, q2_token token)
{
    int ret;

    if (s->data == NULL) {
        ret = -EIO;
    } else if ((req->flags & BDRV_REQ_WRITE_COMPRESSED) != 0) {
        ret = q2_write_compressed_co(s, req);
    } else if ((req->flags & BDRV_REQ_IN_ORDER) != 0) {
        ret = write_in_order_co(s, req);
    } else {
        ret = q2_write_co(s, req);
    }
    return q2_leave_ret_co(s, token, ret);
}

int q2_driver_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct qcow2 *s = q2_of(bs);
    q2_token token = q2_enter_co(s);
    struct q2_extent extent;

    if (UNLIKELY((req->flags & BDRV_REQ_WRITE_COMPRESSED) != 0 || s->data == NULL ||
                 !q2_map_data(s, req->offset, &extent) || !extent.copied ||
                 extent.bytes < req->bytes)) {
        return write_slow_co(s, req, token);
    }
    return q2_leave_ret_co(s, token, write_in_place_co(s, req, extent.host));
}
