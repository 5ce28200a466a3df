/* SPDX-License-Identifier: MIT */
/*
 * NBD_CMD_BLOCK_STATUS. The node is walked once for all contexts that are asked for; neighbours of
 * the same state become one extent. What an answer may hold, and how often the node is asked for
 * it, is bounded: a client goes on where the answer ends.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "export/nbd/internal.h"
#include "util/checked.h"

struct extent {
    uint64_t bytes;
    uint32_t state;
};
struct extents {
    bool wanted;
    struct extent *list;
    unsigned count, cap;
};
struct status {
    unsigned max; /* extents of one context */
    struct extents of[NBD_CONTEXTS_MAX];
};

static int extents_add(struct extents *e, uint64_t bytes, uint32_t state)
{
    if (e->count > 0 && e->list[e->count - 1].state == state) {
        e->list[e->count - 1].bytes += bytes;
        return 0;
    }
    if (e->count == e->cap) {
        unsigned cap = e->cap > 0 ? e->cap * 4 : 16;
        struct extent *list = realloc(e->list, cap * sizeof(*list));

        if (list == NULL) {
            return -ENOMEM;
        }
        e->list = list;
        e->cap = cap;
    }
    e->list[e->count++] = (struct extent){bytes, state};
    return 0;
}

/* Whether a list of what the node says has all that it may have. One extent more than wanted shows
 * that the one before has ended. */
static bool node_full(const struct status *st)
{
    return st->of[NBD_CONTEXT_ALLOCATION].count > st->max ||
           st->of[NBD_CONTEXT_DEPTH].count > st->max;
}

static uint32_t allocation_state(int flags)
{
    return (flags & BDRV_BLOCK_DATA ? 0 : NBD_STATE_HOLE) |
           (flags & BDRV_BLOCK_ZERO ? NBD_STATE_ZERO : 0);
}

/* What the node says: allocation and depth. */
static int node_walk_co(struct nbd_req *req, uint64_t length, struct status *st)
{
    struct nbd_conn *conn = req->conn;
    struct extents *allocation = &st->of[NBD_CONTEXT_ALLOCATION];
    struct extents *depths = &st->of[NBD_CONTEXT_DEPTH];
    uint64_t offset = req->h.offset;
    uint64_t end = offset + length;
    unsigned steps = 0;
    int rc = 0;

    if (!allocation->wanted && !depths->wanted) {
        return 0;
    }
    while (offset < end && !node_full(st) && steps++ < NBD_STATUS_STEPS_MAX && rc == 0) {
        int64_t bytes = 0;
        int64_t map = 0;
        int depth = 0;
        int flags = blk_co_block_status(conn->export->blk, (int64_t)offset, (int64_t)(end - offset),
                                        &bytes, &map, depths->wanted ? &depth : NULL);

        if (flags < 0) {
            return offset > req->h.offset ? 0 : flags; /* the client meets it when it goes on */
        }
        if (bytes <= 0) {
            return offset > req->h.offset ? 0 : -EIO;
        }
        bytes = (int64_t)min_u64((uint64_t)bytes, end - offset);
        if (allocation->wanted) {
            rc = extents_add(allocation, (uint64_t)bytes, allocation_state(flags));
        }
        if (depths->wanted && rc == 0) {
            rc = extents_add(depths, (uint64_t)bytes, (uint32_t)depth);
        }
        offset += (uint64_t)bytes;
    }
    return rc;
}

/* What is dirty, each granule as it is when it is looked at. Beyond the end of the bitmap nothing
 * is: its disk cannot grow while it is exported. */
static int bitmap_walk(const BdrvDirtyBitmap *bitmap, uint64_t offset, uint64_t length,
                       unsigned max, struct extents *e)
{
    uint64_t end = offset + length;
    int rc = 0;

    while (offset < end && e->count < max && rc == 0) {
        uint64_t from, bytes;

        if (!bdrv_bitmap_next_dirty(bitmap, offset, end, &from, &bytes)) {
            return extents_add(e, end - offset, 0);
        }
        if (from > offset) {
            rc = extents_add(e, from - offset, 0);
        }
        if (rc == 0 && e->count < max) {
            rc = extents_add(e, bytes, NBD_STATE_DIRTY);
        }
        offset = from + bytes;
    }
    return rc;
}

static int status_walk_co(struct nbd_req *req, uint64_t length, struct status *st)
{
    const struct nbd_export *export = req->conn->export;
    int rc = node_walk_co(req, length, st);

    for (unsigned i = 0; i < export->bitmap_count && rc == 0; i++) {
        struct extents *e = &st->of[NBD_CONTEXT_BITMAP + i];

        if (e->wanted) {
            rc = bitmap_walk(export->bitmaps[i].bitmap, req->h.offset, length, st->max, e);
        }
    }
    return rc;
}

static int status_encode(struct nbd_req *req, const struct status *st)
{
    enum nbd_mode mode = req->conn->mode;
    bool wide = mode == NBD_MODE_EXTENDED;
    size_t bytes = 0;
    unsigned left = 0;
    uint8_t *p;
    unsigned c;
    unsigned i;

    for (c = 0; c < NBD_CONTEXTS_MAX; c++) {
        if (st->of[c].wanted) {
            left++;
            bytes += NBD_STATUS_CHUNK_BYTES_MAX +
                     min_u64(st->of[c].count, st->max) * nbd_status_desc_bytes(wide);
        }
    }
    p = req->heap = malloc(bytes);
    if (p == NULL) {
        return -ENOMEM;
    }
    for (c = 0; c < NBD_CONTEXTS_MAX; c++) {
        const struct extents *e = &st->of[c];
        unsigned n = (unsigned)min_u64(e->count, st->max);

        if (!e->wanted) {
            continue;
        }
        p += nbd_status_chunk_encode(mode, p, --left == 0 ? NBD_REPLY_FLAG_DONE : 0, &req->h,
                                     nbd_context_id(c), wide, n);
        for (i = 0; i < n; i++) {
            p += nbd_status_desc_encode(p, wide, e->list[i].bytes, e->list[i].state);
        }
    }
    req->out_bytes = (size_t)(p - (uint8_t *)req->heap);
    assert(req->out_bytes <= bytes);
    req->out_own[0] = (struct iovec){req->heap, req->out_bytes};
    req->out = req->out_own;
    req->nout = 1;
    return 0;
}

/* The ids a payload names must have been negotiated, and each only once. */
static int filter_contexts(const struct nbd_conn *conn, const struct nbd_status_filter *filter,
                           uint64_t *ret_contexts)
{
    uint64_t contexts = 0;
    size_t i;

    for (i = 0; i < filter->nids; i++) {
        uint32_t id = nbd_status_filter_id(filter, i);

        uint64_t bit =
            id > 0 && id <= NBD_CONTEXTS_MAX ? NBD_CONTEXT_BIT(id - nbd_context_id(0)) : 0;

        if (!(conn->contexts & bit) || (contexts & bit)) {
            return -EINVAL;
        }
        contexts |= bit;
    }
    *ret_contexts = contexts;
    return 0;
}

/* Which contexts, and how many extents each of them may have. */
static void status_begin(struct status *st, uint64_t contexts, bool only_one)
{
    uint64_t count = 0;

    for (unsigned c = 0; c < NBD_CONTEXTS_MAX; c++) {
        st->of[c].wanted = (contexts & NBD_CONTEXT_BIT(c)) != 0;
        count += st->of[c].wanted;
    }
    st->max = only_one ? 1
                       : (unsigned)min_u64(NBD_STATUS_EXTENTS_MAX,
                                           NBD_STATUS_EXTENTS_ALL / (count > 0 ? count : 1));
}

int nbd_status_co(struct nbd_req *req)
{
    struct nbd_conn *conn = req->conn;
    uint64_t contexts = conn->contexts;
    uint64_t length = req->h.length;
    struct status st = {0};
    int rc;

    if (req->h.flags & NBD_CMD_FLAG_PAYLOAD_LEN) {
        struct nbd_status_filter filter;

        if (nbd_status_filter_decode(req->iov[0].iov_base, req->iov[0].iov_len, &filter) < 0 ||
            filter_contexts(conn, &filter, &contexts) < 0 || filter.length == 0 ||
            !range_inside(req->h.offset, filter.length, conn->size_bytes)) {
            return -EINVAL;
        }
        length = filter.length;
    }
    status_begin(&st, contexts, req->h.flags & NBD_CMD_FLAG_REQ_ONE);
    rc = status_walk_co(req, length, &st);
    if (rc == 0) {
        rc = status_encode(req, &st);
    }
    for (unsigned c = 0; c < NBD_CONTEXTS_MAX; c++) {
        free(st.of[c].list);
    }
    return rc;
}
