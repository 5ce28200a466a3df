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
    uint32_t id; /* NBD_CONTEXT_*; 0: not asked for */
    struct extent *list;
    unsigned count, cap;
};
struct status {
    struct extents of[NBD_CONTEXT_COUNT];
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

/* Whether any list has all that it may have. One extent more than wanted shows that the one before
 * has ended. */
static bool status_full(const struct status *st, unsigned max)
{
    return st->of[0].count > max || st->of[1].count > max;
}

static uint32_t allocation_state(int flags)
{
    return (flags & BDRV_BLOCK_DATA ? 0 : NBD_STATE_HOLE) |
           (flags & BDRV_BLOCK_ZERO ? NBD_STATE_ZERO : 0);
}

static int status_walk_co(struct nbd_req *req, uint64_t length, unsigned max, struct status *st)
{
    struct nbd_conn *conn = req->conn;
    uint64_t offset = req->h.offset;
    uint64_t end = offset + length;
    unsigned steps = 0;
    int rc = 0;

    while (offset < end && !status_full(st, max) && steps++ < NBD_STATUS_STEPS_MAX && rc == 0) {
        int64_t bytes = 0;
        int64_t map = 0;
        int depth = 0;
        int flags = blk_co_block_status(conn->export->blk, (int64_t)offset, (int64_t)(end - offset),
                                        &bytes, &map, st->of[1].id ? &depth : NULL);

        if (flags < 0) {
            return offset > req->h.offset ? 0 : flags; /* the client meets it when it goes on */
        }
        if (bytes <= 0) {
            return offset > req->h.offset ? 0 : -EIO;
        }
        bytes = (int64_t)min_u64((uint64_t)bytes, end - offset);
        if (st->of[0].id) {
            rc = extents_add(&st->of[0], (uint64_t)bytes, allocation_state(flags));
        }
        if (st->of[1].id && rc == 0) {
            rc = extents_add(&st->of[1], (uint64_t)bytes, (uint32_t)depth);
        }
        offset += (uint64_t)bytes;
    }
    return rc;
}

static int status_encode(struct nbd_req *req, const struct status *st, unsigned max)
{
    enum nbd_mode mode = req->conn->mode;
    bool wide = mode == NBD_MODE_EXTENDED;
    size_t bytes = 0;
    unsigned left = 0;
    uint8_t *p;
    unsigned c;
    unsigned i;

    for (c = 0; c < NBD_CONTEXT_COUNT; c++) {
        if (st->of[c].id) {
            left++;
            bytes += NBD_STATUS_CHUNK_BYTES_MAX +
                     min_u64(st->of[c].count, max) * nbd_status_desc_bytes(wide);
        }
    }
    p = req->heap = malloc(bytes);
    if (p == NULL) {
        return -ENOMEM;
    }
    for (c = 0; c < NBD_CONTEXT_COUNT; c++) {
        const struct extents *e = &st->of[c];
        unsigned n = (unsigned)min_u64(e->count, max);

        if (e->id == 0) {
            continue;
        }
        p += nbd_status_chunk_encode(mode, p, --left == 0 ? NBD_REPLY_FLAG_DONE : 0, &req->h, e->id,
                                     wide, n);
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
                           uint32_t *ret_contexts)
{
    uint32_t contexts = 0;
    size_t i;

    for (i = 0; i < filter->nids; i++) {
        uint32_t id = nbd_status_filter_id(filter, i);

        if ((id != NBD_CONTEXT_ALLOCATION && id != NBD_CONTEXT_DEPTH) || !(conn->contexts & id) ||
            (contexts & id)) {
            return -EINVAL;
        }
        contexts |= id;
    }
    *ret_contexts = contexts;
    return 0;
}

int nbd_status_co(struct nbd_req *req)
{
    struct nbd_conn *conn = req->conn;
    uint32_t contexts = conn->contexts;
    uint64_t length = req->h.length;
    unsigned max = req->h.flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_STATUS_EXTENTS_MAX;
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
    st.of[0].id = contexts & NBD_CONTEXT_ALLOCATION;
    st.of[1].id = contexts & NBD_CONTEXT_DEPTH;
    rc = status_walk_co(req, length, max, &st);
    if (rc == 0) {
        rc = status_encode(req, &st, max);
    }
    free(st.of[0].list);
    free(st.of[1].list);
    return rc;
}
