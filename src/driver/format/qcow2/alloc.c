/* SPDX-License-Identifier: MIT */
/*
 * What a change of the mapping needs: an L2 table of the active L1's own, its slice, clusters.
 *
 * An L2 table is made, or copied where a snapshot has it too, under a range lock on all it
 * describes, so that it happens once; nobody who holds a range lock asks for another one, but for
 * the pieces of one request, which never wait while they hold theirs.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "l1.h"
#include "overlap.h"
#include "request.h"

/* ---- L2 tables ---- */

int q2_l1_new_table_co(struct qcow2 *s, uint32_t index, uint64_t old, uint64_t *ret_table)
{
    uint64_t table;
    int ret = q2_alloc_clusters_co(s, 1, &table);

    if (ret < 0) {
        return ret;
    }
    ret = q2_overlap_add(s, Q2_OL_ACTIVE_L2, table);
    if (ret == 0) {
        if (old != 0) {
            bdrv_debug_event(s->file, BLKDBG_L2_ALLOC_COW_READ);
        }
        bdrv_debug_event(s->file, BLKDBG_L2_ALLOC_WRITE);
        ret = q2_reserve_cluster_co(s, table);
        if (ret == 0) {
            ret = q2_l2_new_table_co(s, table, old);
        }
        if (ret < 0) {
            q2_overlap_del(s, Q2_OL_ACTIVE_L2, table);
        }
    }
    if (ret < 0) {
        q2_unalloc_co(s, table, s->geo.cluster_bytes);
        return ret;
    }
    q2_l1_set(s, index, table | Q2_COPIED);
    if (old != 0) {
        q2_overlap_del(s, Q2_OL_ACTIVE_L2, old);
        q2_free_later(s, old, s->geo.cluster_bytes, Q2_DISCARD_OTHER);
    }
    *ret_table = table;
    return 0;
}

/* 1: the table is there and ours; 0: not; -EIO told. */
static int table_state_co(struct qcow2 *s, uint64_t index, uint64_t *ret_table)
{
    const struct q2_l1 *l1 = q2_l1_get(s);
    const char *wrong;
    uint64_t entry;

    if (index >= l1->entries) {
        return -EIO; /* the disk is covered, VM state grows the table first */
    }
    entry = q2_l1_entry(l1, (uint32_t)index);
    wrong = q2_l1_wrong(&s->geo, entry);
    if (wrong != NULL) {
        return q2_corrupt_co(s, true, q2_l1_table(entry), s->geo.cluster_bytes,
                             "L1 entry %" PRIu64 " is impossible: %s", index, wrong);
    }
    *ret_table = q2_l1_table(entry);
    return *ret_table != 0 && (entry & Q2_COPIED) != 0;
}

int q2_table_own_co(struct qcow2 *s, uint64_t guest)
{
    uint64_t index = q2_l1_index(&s->geo, guest);
    struct q2_range range;
    uint64_t table;
    int ret = table_state_co(s, index, &table);

    if (ret != 0) {
        return ret < 0 ? ret : 0;
    }
    q2_range_lock_co(s, &range, index << s->geo.l2_bits, ((index + 1) << s->geo.l2_bits) - 1);
    ret = table_state_co(s, index, &table);
    if (ret == 0) {
        ret = q2_l1_new_table_co(s, (uint32_t)index, table, &table);
    }
    q2_range_unlock(s, &range);
    return ret < 0 ? ret : 0;
}

/* ---- slices ---- */

int q2_slot_get_co(struct qcow2 *s, uint64_t guest, struct q2_slot *ret)
{
    uint64_t table;
    int err = table_state_co(s, q2_l1_index(&s->geo, guest), &table);

    assert(err != 0);
    if (err < 0) {
        return err;
    }
    ret->index = q2_slice_index(s, guest);
    return q2_l2_get_co(s, q2_slice_key(s, table, guest), &ret->slice);
}

int q2_entries_set_co(struct qcow2 *s, struct q2_slice *slice, uint32_t index,
                      const struct q2_l2_entry *entries, uint32_t count)
{
    uint64_t words[2 * Q2_CHUNK];
    unsigned per = s->geo.extended_l2 ? 2 : 1;

    assert(count <= Q2_CHUNK);
    for (uint32_t i = 0; i < count; i++) {
        words[i * per] = entries[i].word;
        if (per == 2) {
            words[i * per + 1] = entries[i].bitmap;
        }
    }
    return q2_l2_set_co(s, slice, index * per, words, count * per);
}

/* ---- clusters ---- */

int q2_alloc_data_co(struct qcow2 *s, uint64_t guest, uint64_t count, uint64_t near,
                     uint64_t *ret_host, uint64_t *ret_count)
{
    int ret;

    if (s->geo.external_data) {
        *ret_host = guest;
        *ret_count = count;
        return 0;
    }
    if (near != 0) {
        ret = q2_alloc_at_co(s, near, count, ret_count);
        if (ret < 0) {
            return ret;
        }
        if (*ret_count > 0) {
            *ret_host = near;
            return 0;
        }
    }
    *ret_count = count;
    return q2_alloc_clusters_co(s, count, ret_host);
}

void q2_unalloc_data_co(struct qcow2 *s, uint64_t host, uint64_t count)
{
    if (!s->geo.external_data) {
        q2_unalloc_co(s, host, count << s->geo.cluster_bits);
    }
}

void q2_entry_replaced(struct qcow2 *s, struct q2_l2_entry old, struct q2_l2_entry now,
                       enum q2_discard type)
{
    bool compressed = (old.word & Q2_COMPRESSED) != 0;

    if (compressed || q2_l2_host(&s->geo, old.word) != q2_l2_host(&s->geo, now.word)) {
        q2_free_entry_later(s, old.word, type);
    }
}
