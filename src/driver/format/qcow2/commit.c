/* SPDX-License-Identifier: MIT */
/*
 * Memory to the file, in an order that is right after every cut of power.
 *
 *   0  fix what is written: the runs that wait to be freed, then the dirty sectors of the L1 table
 *      (copied), then the dirty slices. Each was queued after what it depends on had changed, so in
 *      this order all that a part needs is in the set or durable.
 *   0b the header, where a write of it failed: a file that names another size, table or version
 *      than memory, or has the dirty bit no more, would lose what is written from now on
 *   1  refcount blocks; flush data file and file: data of new clusters and their refcounts are
 *      durable (W1)
 *   1b the refcount table, if it is dirty; flush (W2)
 *   2  the slices, as they were in 0
 *   3  flush; the L1 sectors, as they were in 0 (W3)
 *   4  flush; only now may refcounts of the freed runs go down (W4)
 *
 * A step that has nothing to write is left out, with its flush. When one fails, the rest is left
 * out, and all of the set is dirty or waits again: what was written without a flush that succeeded
 * may not be in the file.
 *
 * Lazy refcounts: step 1 makes the dirty bit durable instead of writing refcounts (and 1b falls
 * away), so no slice is written before the bit is; from then on the refcounts in the file mean
 * nothing until q2_commit_clean_co has written them and cleared the bit, or the next writable open
 * has rebuilt them.
 *
 * Sharing: a commit has a number, given when it begins, under the lock. A caller needs the result
 * of one that begins after the call: the first of the waiters runs it, the others find its number.
 */
#include <errno.h>

#include "l1.h"
#include "overlap.h"
#include "qcow2.h"

#define COMMIT_BUFFER_BYTES (UINT32_C(256) << 10) /* neighbouring slices are one write */

void q2_commit_init(struct qcow2 *s)
{
    co_mutex_init(&s->commit.lock);
}

static int flush_both_co(struct qcow2 *s)
{
    int ret = s->data != NULL && s->data != s->file ? bdrv_edge_flush_co(s->data) : 0;

    return ret < 0 ? ret : bdrv_edge_flush_co(s->file);
}

static bool is_lazy(const struct qcow2 *s)
{
    return s->opt.lazy_refcounts && s->geo.version >= 3;
}

static bool dirty_bit_is_set_co(struct qcow2 *s)
{
    bool set;

    co_mutex_lock(&s->header_lock);
    set = (s->header.incompatible & Q2_INCOMPAT_DIRTY) != 0;
    co_mutex_unlock(&s->header_lock);
    return set;
}

/* Step 0b. The refcounts' lock: nobody is about to switch their table. */
static int header_co(struct qcow2 *s)
{
    int ret = 0;

    if (UNLIKELY(s->header_unsure)) {
        co_mutex_lock(&s->refs.lock);
        ret = q2_header_write_co(s, NULL);
        co_mutex_unlock(&s->refs.lock);
    }
    return ret;
}

/* Step 1 without its flush. */
static int refcounts_co(struct qcow2 *s, bool lazy)
{
    if (!lazy) {
        return q2_refcounts_write_blocks_co(s);
    }
    return dirty_bit_is_set_co(s) ? 0 : q2_header_bits_co(s, Q2_INCOMPAT_DIRTY, 0, 0);
}

/* Step 1b. */
static int refcount_table_co(struct qcow2 *s)
{
    int ret;

    if (!q2_refcounts_table_dirty(s)) {
        return 0;
    }
    ret = q2_refcounts_write_table_co(s);
    return ret < 0 ? ret : bdrv_edge_flush_co(s->file);
}

/* Step 2. */
static int slices_co(struct qcow2 *s)
{
    size_t room = max_u64(COMMIT_BUFFER_BYTES, s->l2.slice_bytes);
    uint8_t *buf = bdrv_buffer_alloc(s->bs, room);
    uint64_t offset;
    size_t bytes;
    int ret = buf == NULL ? -ENOMEM : 0;

    while (ret == 0 && q2_l2_commit_next(s, buf, room, &offset, &bytes)) {
        ret = q2_overlap_check_co(s, Q2_OL_ACTIVE_L2, offset, bytes);
        if (ret == 0) {
            bdrv_debug_event(s->file, BLKDBG_L2_UPDATE);
            ret = bdrv_edge_write_co(s->file, offset, buf, bytes, 0);
        }
    }
    bdrv_buffer_free(s->bs, buf, room);
    return ret;
}

/* Step 3. */
static int l1_co(struct qcow2 *s, const struct q2_l1_due *l1, bool slices)
{
    int ret = slices ? bdrv_edge_flush_co(s->file) : 0;

    return ret < 0 ? ret : q2_l1_commit_write_co(s, l1);
}

/* Steps 1 to 4 of a set that is fixed. *ret_flushed: completed data is durable too. */
static int write_set_co(struct qcow2 *s, const struct q2_l1_due *l1, bool slices, bool lazy,
                        bool flush, bool *ret_flushed)
{
    bool tables = slices || l1->count > 0;
    bool refcounts = q2_refcounts_dirty(s);
    int ret = header_co(s);

    if (ret == 0 && (tables || refcounts)) {
        ret = refcounts_co(s, lazy);
    }
    if (ret == 0 && (tables || flush || (refcounts && !lazy))) {
        if (flush && !tables) {
            bdrv_debug_event(s->file, BLKDBG_FLUSH_TO_DISK);
        }
        ret = flush_both_co(s);
        *ret_flushed = ret == 0;
    }
    if (ret == 0 && (tables || refcounts) && !lazy) {
        ret = refcount_table_co(s);
    }
    if (ret == 0 && slices) {
        ret = slices_co(s);
    }
    if (ret == 0 && l1->count > 0) {
        ret = l1_co(s, l1, slices);
    }
    if (ret == 0 && tables) {
        if (flush) {
            bdrv_debug_event(s->file, BLKDBG_FLUSH_TO_DISK);
        }
        ret = bdrv_edge_flush_co(s->file);
    }
    return ret;
}

static int run_co(struct qcow2 *s, bool lazy, bool flush)
{
    struct q2_commit *c = &s->commit;
    uint64_t number = atomic_fetch_add(&c->begun, 1) + 1;
    struct q2_l1_due l1;
    bool flushed = false;
    int ret;

    q2_free_commit_begin(s);
    ret = q2_l1_commit_begin(s, &l1);
    if (ret == 0) {
        bool slices = q2_l2_commit_begin(s);

        /* a corrupt image is not touched any more */
        ret = atomic_load(&s->corrupt_told) ? -EIO
                                            : write_set_co(s, &l1, slices, lazy, flush, &flushed);
        q2_l2_commit_end(s, ret == 0);
        q2_l1_commit_end(s, &l1, ret == 0);
    }
    q2_free_commit_end(s, ret == 0);
    if (ret < 0) {
        c->failed = number;
        c->failed_ret = ret;
    } else {
        c->done = number;
        c->done_flush = flushed ? number : c->done_flush;
    }
    return ret;
}

int q2_commit_co(struct qcow2 *s, bool flush)
{
    struct q2_commit *c = &s->commit;
    /* One that begins later fixes its set after this load, so after all that the caller changed */
    uint64_t wanted = atomic_load(&c->begun) + 1;
    int ret;

    co_mutex_lock(&c->lock);
    if ((flush ? c->done_flush : c->done) >= wanted) {
        ret = 0;
    } else if (c->failed >= wanted) {
        ret = c->failed_ret;
    } else {
        ret = run_co(s, is_lazy(s), flush);
    }
    co_mutex_unlock(&c->lock);
    return ret;
}

int q2_commit_clean_co(struct qcow2 *s)
{
    int ret;

    co_mutex_lock(&s->commit.lock);
    ret = run_co(s, false, true);
    if (ret == 0 && !s->stale && dirty_bit_is_set_co(s)) {
        ret = q2_header_bits_co(s, 0, Q2_INCOMPAT_DIRTY, 0);
    }
    co_mutex_unlock(&s->commit.lock);
    return ret;
}
