/* SPDX-License-Identifier: MIT */
/*
 * A batch of writes: sorted by place, those that touch or overlap merged into one request, as far
 * as the node's limits go. Each element's callback runs once, with the result of the request it
 * became part of.
 *
 * A merged request owns a list of memory pieces that do not overlap; of two elements that do, the
 * one that is later in the caller's list wins, wherever it is.
 */
#include "backend/backend_int.h"

#include <stdlib.h>

#include "util/checked.h"
#include "util/iov.h"

/* One element, as it is known after the caller has its array back. */
struct mw_member {
    BlockCompletionFunc *cb;
    void *opaque;
    struct mw_member *next;
};

struct mw_merged {
    BlockBackend *blk;
    uint64_t offset;
    uint64_t bytes;
    int flags;
    struct iovec *iov;
    size_t niov;
    size_t room;
    struct iov_view view;
    struct mw_member *members; /* owned list */
    unsigned count;
};

static uint64_t place_of(const BlockRequest *r)
{
    return (uint64_t)r->sector * BDRV_SECTOR_SIZE;
}

static uint64_t end_of(const BlockRequest *r)
{
    return (uint64_t)(r->sector + r->nb_sectors) * BDRV_SECTOR_SIZE;
}

static void merged_free(struct mw_merged *m)
{
    struct mw_member *member;

    if (m == NULL) {
        return;
    }
    while ((member = m->members) != NULL) {
        m->members = member->next;
        free(member);
    }
    free(m->iov);
    free(m);
}

static void merged_done(void *opaque, int ret)
{
    struct mw_merged *m = opaque;
    struct mw_member *member;

    for (member = m->members; member != NULL; member = member->next) {
        member->cb(member->opaque, ret);
    }
    merged_free(m);
}

/* Put bytes of a list, from skip on, behind what m has. */
static int merged_append(struct mw_merged *m, const struct iovec *iov, size_t niov, uint64_t skip,
                         uint64_t bytes)
{
    size_t more = iov_count(iov, niov, skip, bytes);
    uint64_t covered;

    if (bytes == 0) {
        return 0;
    }
    if (m->niov + more > m->room) {
        struct iovec *larger = realloc(m->iov, (m->niov + more) * 2 * sizeof(*larger));

        if (larger == NULL) {
            return -ENOMEM;
        }
        m->iov = larger;
        m->room = (m->niov + more) * 2;
    }
    m->niov += iov_slice(iov, niov, skip, bytes, m->iov + m->niov, m->room - m->niov, &covered);
    assert(covered == bytes);
    m->bytes += bytes;
    return 0;
}

static int merged_join(struct mw_merged *m, const BlockRequest *r)
{
    struct mw_member **link = &m->members;
    struct mw_member *member = calloc(1, sizeof(*member));

    if (member == NULL) {
        return -ENOMEM;
    }
    member->cb = r->cb;
    member->opaque = r->opaque;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = member;
    m->count++;
    return 0;
}

/* Whether r may become part of m: it touches it, is of the same kind, and the limits allow it. An
 * overlap always does: two that are in flight together would be in no order. */
static bool may_merge(const struct blk_facts *facts, const struct mw_merged *m,
                      const BlockRequest *r)
{
    uint64_t offset = place_of(r);
    uint64_t end = end_of(r);
    size_t max_iov = facts->max_iov != 0 && facts->max_iov < IOV_MAX ? facts->max_iov : IOV_MAX;

    if (offset > m->offset + m->bytes || r->flags != m->flags) {
        return false;
    }
    if (offset < m->offset + m->bytes) {
        return true;
    }
    return m->niov + r->iov->niov <= max_iov &&
           (facts->max_transfer_bytes == 0 || end - m->offset <= facts->max_transfer_bytes);
}

struct mw_order {
    const BlockRequest *r;
    int index;
};

static int by_place(const void *a, const void *b)
{
    const struct mw_order *x = a;
    const struct mw_order *y = b;

    if (x->r->sector != y->r->sector) {
        return x->r->sector < y->r->sector ? -1 : 1;
    }
    return x->index - y->index;
}

/* As the gate and the checks of each would judge now. */
static int check_all(const struct blk_facts *facts, const BlockRequest *reqs, int num_reqs)
{
    for (int i = 0; i < num_reqs; i++) {
        const BlockRequest *r = &reqs[i];
        uint64_t bytes = (uint64_t)r->nb_sectors * BDRV_SECTOR_SIZE;

        if (r->sector < 0 || r->sector > INT64_MAX / (int64_t)BDRV_SECTOR_SIZE ||
            r->nb_sectors < 0 || r->nb_sectors > INT_MAX / (int)BDRV_SECTOR_SIZE) {
            return -EIO;
        }
        if (!facts->has_root || !facts->inserted || facts->tray_open) {
            return -ENOMEDIUM;
        }
        if (facts->size_bytes < 0) {
            return (int)facts->size_bytes;
        }
        if (!range_inside((uint64_t)r->sector * BDRV_SECTOR_SIZE, bytes,
                          (uint64_t)facts->size_bytes)) {
            return -EIO;
        }
        if (bytes != r->iov->bytes) {
            return -EINVAL;
        }
    }
    return 0;
}

/* Send m off; what cannot be sent is noted in its elements. */
static int merged_submit(struct mw_merged *m)
{
    m->view = (struct iov_view){.iov = m->iov, .niov = m->niov, .bytes = m->bytes};
    if (m->count > 1) {
        block_acct_merge_done(&m->blk->stats, BLOCK_ACCT_WRITE, m->count - 1);
    }
    return blk_aio_pwritev(m->blk, (int64_t)m->offset, &m->view, m->flags, merged_done, m) == NULL
               ? -ENOMEM
               : 0;
}

/* Of order[from, to) the element that wins at pos, and where another takes over. */
static const struct mw_order *winner_at(const struct mw_order *order, int from, int to,
                                        uint64_t pos, uint64_t *ret_end)
{
    const struct mw_order *winner = NULL;
    uint64_t end = UINT64_MAX;

    for (int i = from; i < to; i++) {
        if (place_of(order[i].r) <= pos && pos < end_of(order[i].r) &&
            (winner == NULL || order[i].index > winner->index)) {
            winner = &order[i];
        }
    }
    assert(winner != NULL); /* the elements of a run leave no gap */
    end = end_of(winner->r);
    for (int i = from; i < to; i++) {
        if (order[i].index > winner->index && place_of(order[i].r) > pos &&
            place_of(order[i].r) < end_of(order[i].r)) {
            end = min_u64(end, place_of(order[i].r));
        }
    }
    *ret_end = end;
    return winner;
}

/* The memory of a run, piece by piece. */
static int merged_fill(struct mw_merged *m, const struct mw_order *order, int from, int to,
                       uint64_t bytes)
{
    int ret = 0;

    while (ret == 0 && m->bytes < bytes) {
        uint64_t pos = m->offset + m->bytes;
        uint64_t end;
        const struct mw_order *w = winner_at(order, from, to, pos, &end);

        ret = merged_append(m, w->r->iov->iov, w->r->iov->niov, pos - place_of(w->r), end - pos);
    }
    return ret;
}

/* The elements order[from, to), which cover bytes from the first's place on, as one request. 0, or
 * -ENOMEM and none of their callbacks runs. */
static int submit_run(BlockBackend *blk, const struct mw_order *order, int from, int to,
                      uint64_t bytes)
{
    struct mw_merged *m = calloc(1, sizeof(*m));
    int ret = m != NULL ? 0 : -ENOMEM;

    for (int i = from; ret == 0 && i < to; i++) {
        ret = merged_join(m, order[i].r);
    }
    if (ret == 0) {
        m->blk = blk;
        m->offset = place_of(order[from].r);
        m->flags = order[from].r->flags;
        ret = merged_fill(m, order, from, to, bytes);
    }
    if (ret == 0) {
        ret = merged_submit(m);
    }
    if (ret < 0) {
        merged_free(m);
    }
    return ret;
}

/* How far the run that begins at from goes. Sizes only: nothing is built yet. */
static int run_end(const struct blk_facts *facts, const struct mw_order *order, int from, int count,
                   uint64_t *ret_bytes)
{
    struct mw_merged probe = {.offset = place_of(order[from].r),
                              .bytes = end_of(order[from].r) - place_of(order[from].r),
                              .niov = order[from].r->iov->niov,
                              .flags = order[from].r->flags};
    int to = from + 1;

    for (; to < count && may_merge(facts, &probe, order[to].r); to++) {
        probe.niov += order[to].r->iov->niov;
        probe.bytes = max_u64(probe.bytes, end_of(order[to].r) - probe.offset);
    }
    *ret_bytes = probe.bytes;
    return to;
}

int blk_aio_multiwrite(BlockBackend *blk, BlockRequest *reqs, int num_reqs)
{
    struct blk_facts facts;
    struct mw_order *order;
    int ret;

    if (num_reqs <= 0) {
        return 0;
    }
    blk_facts_get(blk, &facts);
    ret = check_all(&facts, reqs, num_reqs);
    if (ret < 0) {
        return ret;
    }
    order = calloc((size_t)num_reqs, sizeof(*order));
    if (order == NULL) {
        return -ENOMEM;
    }
    for (int i = 0; i < num_reqs; i++) {
        order[i] = (struct mw_order){.r = &reqs[i], .index = i};
        reqs[i].error = 0;
    }
    qsort(order, (size_t)num_reqs, sizeof(*order), by_place);
    blk_io_plug(blk);
    for (int from = 0, to; from < num_reqs; from = to) {
        uint64_t bytes;
        int rc;

        to = run_end(&facts, order, from, num_reqs, &bytes);
        rc = submit_run(blk, order, from, to, bytes);
        for (int i = from; rc < 0 && i < to; i++) {
            reqs[order[i].index].error = rc;
            ret = -1;
        }
    }
    blk_io_unplug(blk);
    free(order);
    return ret;
}
