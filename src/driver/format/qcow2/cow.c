/* SPDX-License-Identifier: MIT */
/*
 * Writes with copy-on-write: what the guest wrote and what its clusters hold around it go to the
 * data file together, in one write where that is cheaper.
 *
 * Around it are two sides, head and tail. One that reads as zeroes is not read; where the clusters
 * lie past the end of the file its zeroes are there already, and only the file must reach the end
 * of the last cluster (reach.c); elsewhere few zeroes are merged into the write and many are
 * written beside it, by the storage's own means where it has some.
 *
 * Nothing refers to the places that are written, so the order of these writes is free (W1 makes
 * them durable before the mapping).
 */
#include <assert.h>
#include <errno.h>

#include "compress.h"
#include "loop/co_group.h"
#include "overlap.h"
#include "request.h"
#include "util/iov.h"

#define MERGE_ZEROES (UINT64_C(16) << 10) /* of a side, merged into the write */
#define ZERO_PAGE 4096
#define IOV_ON_STACK 32

static const uint8_t zero_page[ZERO_PAGE] __attribute__((aligned(ZERO_PAGE)));

/* [offset, offset + bytes) of the disk. The bytes beside the guest's are merged: from buf, or
 * zeroes; the rest is zeroes of their own (beside), or nothing. */
struct cow_side {
    uint64_t offset;
    uint64_t bytes;
    const uint8_t *buf; /* NULL: zeroes */
    uint8_t *owned;     /* to be freed, bytes long */
    uint64_t merged;
    uint64_t beside;
};

struct cow_job {
    struct qcow2 *s;
    const struct q2_cow *cow;
    const struct bdrv_req *req;
    struct cow_side head;
    struct cow_side tail;
    bool virgin; /* nothing was ever written at the clusters: they lie past the end of the file */
};

/* One of the things that go on together. */
struct cow_piece {
    struct cow_job *job;
    struct cow_side *side;
};

static uint64_t host_of(const struct cow_job *job, uint64_t guest)
{
    return job->cow->host + (guest - job->cow->start);
}

/* ---- what is around ---- */

static int side_read_co(void *opaque)
{
    const struct cow_piece *piece = opaque;
    struct cow_side *side = piece->side;

    bdrv_debug_event(piece->job->s->file, BLKDBG_COW_READ);
    return q2_read_buf_co(piece->job->s, side->offset, side->owned, side->bytes);
}

/* Whether the side must be read: 1, 0 or -errno; then its buffer is there. */
static int side_begin_co(struct qcow2 *s, struct cow_side *side)
{
    int zero = 1;

    /* behind the disk, in the state of the machine, it is read in any case: who watches the points
     * that a request comes to finds them there as in the reference */
    if (side->bytes > 0 && side->offset >= q2_disk_bytes(s)) {
        zero = 0;
    } else if (side->bytes > 0) {
        zero = q2_reads_zero_co(s, side->offset, side->bytes, false);
    }
    if (zero != 0) {
        return zero < 0 ? zero : 0;
    }
    side->owned = bdrv_buffer_alloc(s->bs, side->bytes);
    side->buf = side->owned;
    side->merged = side->bytes;
    return side->owned != NULL ? 1 : -ENOMEM;
}

/* Both sides, of one cluster that is compressed: it is decompressed once. 1: done; 0: it is not. */
static int sides_compressed_co(struct cow_job *job)
{
    struct qcow2 *s = job->s;
    uint64_t cluster = align_down(job->cow->start, s->geo.cluster_bytes);
    struct q2_extent extent;
    uint8_t *buf;
    int ret;

    if (job->head.bytes == 0 || job->tail.bytes == 0 ||
        job->cow->end - cluster > s->geo.cluster_bytes) {
        return 0;
    }
    ret = q2_map_write_co(s, cluster, s->geo.cluster_bytes, &extent);
    if (ret < 0 || extent.kind != Q2_COMPRESSED_DATA) {
        return ret;
    }
    assert(job->cow->end - job->cow->start == s->geo.cluster_bytes);
    buf = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    if (buf == NULL) {
        return -ENOMEM;
    }
    job->head.owned = buf;
    job->head.buf = buf;
    job->head.merged = job->head.bytes;
    job->tail.buf = buf + (job->tail.offset - cluster);
    job->tail.merged = job->tail.bytes;
    bdrv_debug_event(s->file, BLKDBG_COW_READ);
    ret = q2_read_compressed_co(s, extent.l2_entry, buf);
    return ret < 0 ? ret : 1;
}

static int sides_read_co(struct cow_job *job)
{
    struct cow_piece pieces[CO_GROUP_MAX];
    struct cow_piece head = {.job = job, .side = &job->head};
    struct cow_piece tail = {.job = job, .side = &job->tail};
    struct co_group group;
    int read_head;
    int read_tail;
    int ret = sides_compressed_co(job);

    if (ret != 0) {
        return ret < 0 ? ret : 0;
    }
    read_head = side_begin_co(job->s, &job->head);
    read_tail = read_head < 0 ? read_head : side_begin_co(job->s, &job->tail);
    if (read_tail < 0) {
        return read_tail;
    }
    if (read_head == 0 || read_tail == 0) {
        return read_head ? side_read_co(&head) : read_tail ? side_read_co(&tail) : 0;
    }
    co_group_init(&group, pieces, sizeof(pieces[0]));
    pieces[0] = head;
    co_group_start_co(&group, co_group_piece_co(&group), side_read_co);
    ret = side_read_co(&tail);
    read_head = co_group_wait_co(&group);
    return ret < 0 ? ret : read_head;
}

static void sides_free(struct cow_job *job)
{
    size_t head = job->tail.buf != NULL && job->tail.owned == NULL ? job->s->geo.cluster_bytes
                                                                   : job->head.bytes;

    bdrv_buffer_free(job->s->bs, job->head.owned, head);
    bdrv_buffer_free(job->s->bs, job->tail.owned, job->tail.bytes);
}

/* ---- zeroes ---- */

/* How the zeroes of the sides get into the file. */
static int sides_plan(struct cow_job *job)
{
    int64_t file_bytes = bdrv_edge_getlength(job->s->data);
    struct cow_side *head = &job->head;
    struct cow_side *tail = &job->tail;

    if (file_bytes < 0) {
        return (int)file_bytes;
    }
    job->virgin = job->cow->fresh && job->cow->host >= (uint64_t)file_bytes;
    if (head->buf == NULL && !job->virgin) {
        /* whole pages beside, so that the write has a good beginning */
        head->merged = head->bytes <= MERGE_ZEROES
                           ? head->bytes
                           : min_u64(head->bytes, host_of(job, job->req->offset) % ZERO_PAGE);
        head->beside = head->bytes - head->merged;
    }
    if (tail->buf == NULL) {
        uint64_t end = host_of(job, tail->offset);

        tail->merged = tail->bytes <= MERGE_ZEROES
                           ? tail->bytes
                           : min_u64(tail->bytes, align_up(end, ZERO_PAGE) - end);
        tail->beside = tail->bytes - tail->merged;
    }
    return 0;
}

static int zeroes_beside_co(void *opaque)
{
    const struct cow_piece *piece = opaque;
    const struct cow_side *side = piece->side;
    const struct cow_job *job = piece->job;
    uint64_t skip = side == &job->tail ? side->merged : 0;
    uint64_t start = host_of(job, side->offset) + skip;

    bdrv_debug_event(job->s->data, BLKDBG_CLUSTER_ALLOC_SPACE);
    return job->virgin ? q2_reach_co(job->s, start, start + side->beside)
                       : bdrv_edge_write_zeroes_co(job->s->data, start, side->beside, 0);
}

/* ---- the write ---- */

static size_t side_iov_count(const struct cow_side *side)
{
    if (side->buf != NULL || side->merged == 0) {
        return side->merged != 0;
    }
    return (size_t)((side->merged + ZERO_PAGE - 1) / ZERO_PAGE);
}

static size_t side_iov(const struct cow_side *side, struct iovec *out)
{
    uint64_t done = 0;
    size_t n = 0;

    while (done < side->merged) {
        uint64_t bytes = side->buf != NULL ? side->merged : min_u64(side->merged - done, ZERO_PAGE);
        const uint8_t *from = side->buf != NULL ? side->buf : zero_page;

        out[n++] = (struct iovec){.iov_base = (void *)(uintptr_t)from, .iov_len = (size_t)bytes};
        done += bytes;
    }
    return n;
}

static int merged_write_co(struct cow_job *job)
{
    const struct bdrv_req *req = job->req;
    size_t middle = iov_count(req->iov, req->niov, req->iov_offset, req->bytes);
    size_t count = side_iov_count(&job->head) + middle + side_iov_count(&job->tail);
    struct iovec on_stack[IOV_ON_STACK];
    struct iovec *iov = count <= IOV_ON_STACK ? on_stack : malloc(count * sizeof(*iov));
    struct bdrv_req below = {.op = BDRV_OP_WRITE,
                             .offset = host_of(job, req->offset) - job->head.merged,
                             .bytes = job->head.merged + req->bytes + job->tail.merged,
                             .iov = iov};
    uint64_t bytes;
    int ret;

    if (iov == NULL) {
        return -ENOMEM;
    }
    below.niov = side_iov(&job->head, iov);
    below.niov += iov_slice(req->iov, req->niov, req->iov_offset, req->bytes, iov + below.niov,
                            middle, &bytes);
    below.niov += side_iov(&job->tail, iov + below.niov);
    if (job->head.buf != NULL || job->tail.buf != NULL) {
        bdrv_debug_event(job->s->data, BLKDBG_COW_WRITE);
    }
    bdrv_debug_event(job->s->data, BLKDBG_WRITE_AIO);
    ret = bdrv_edge_request_co(job->s->data, &below);
    if (iov != on_stack) {
        free(iov);
    }
    return ret;
}

static int sides_write_co(struct cow_job *job)
{
    struct cow_side *sides[] = {&job->head, &job->tail};
    struct cow_piece pieces[CO_GROUP_MAX];
    struct co_group group;
    int ret;
    int beside;

    if (job->head.beside == 0 && job->tail.beside == 0) {
        return merged_write_co(job);
    }
    co_group_init(&group, pieces, sizeof(pieces[0]));
    for (size_t i = 0; i < ARRAY_SIZE(sides); i++) {
        if (sides[i]->beside > 0) {
            struct cow_piece *piece = co_group_piece_co(&group);

            *piece = (struct cow_piece){.job = job, .side = sides[i]};
            co_group_start_co(&group, piece, zeroes_beside_co);
        }
    }
    ret = merged_write_co(job);
    beside = co_group_wait_co(&group);
    return ret < 0 ? ret : beside;
}

int q2_data_write_co(struct qcow2 *s, const struct bdrv_req *req)
{
    int ret =
        s->geo.external_data ? 0 : q2_overlap_check_co(s, Q2_OL_NONE, req->offset, req->bytes);

    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(s->data, BLKDBG_WRITE_AIO);
    return bdrv_edge_request_co(s->data, req);
}

int q2_cow_write_co(struct qcow2 *s, const struct q2_cow *cow, const struct bdrv_req *req)
{
    uint64_t end = req->offset + req->bytes;
    struct cow_job job = {
        .s = s,
        .cow = cow,
        .req = req,
        .head = {.offset = cow->start, .bytes = req->offset - cow->start},
        .tail = {.offset = end, .bytes = cow->end - end},
    };
    int ret = 0;

    assert(cow->start <= req->offset && end <= cow->end);
    if (!s->geo.external_data) {
        ret = q2_overlap_check_co(s, Q2_OL_NONE, cow->host, cow->end - cow->start);
    }
    if (ret == 0) {
        ret = sides_read_co(&job);
    }
    if (ret == 0) {
        ret = sides_plan(&job);
    }
    if (ret == 0) {
        ret = sides_write_co(&job);
    }
    sides_free(&job);
    return ret;
}
