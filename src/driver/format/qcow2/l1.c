/* SPDX-License-Identifier: MIT */
/*
 * The active L1 table: its copy in memory, which sectors of it the file does not have yet, and
 * growing it.
 *
 * Readers take entries without a lock. Writers and the commit hold the L2 cache lock. A commit
 * writes the sectors as they were when it began, when every table that they refer to was in the
 * cache or durable (W3): q2_l1_set comes after q2_l2_new_table_co, and q2_l1_commit_begin before
 * q2_l2_commit_begin.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "l1.h"
#include "overlap.h"
#include "qcow2.h"
#include "util/budget.h"
#include "util/error.h"

#define L1_WRITE_BYTES (UINT32_C(1) << 20) /* of a new table, at a time */

static uint32_t sectors_of(uint32_t entries)
{
    return entries / Q2_L1_SECTOR_ENTRIES + (entries % Q2_L1_SECTOR_ENTRIES != 0);
}

static size_t dirty_words(uint32_t entries)
{
    return sectors_of(entries) / 64 + 1;
}

static size_t l1_bytes(uint32_t entries)
{
    return sizeof(struct q2_l1) + ((size_t)entries + dirty_words(entries)) * 8;
}

static struct q2_l1 *l1_new(struct qcow2 *s, uint32_t entries)
{
    size_t bytes = l1_bytes(entries);
    struct q2_l1 *l1;

    if (!mem_budget_take(bdrv_budget(s->bs), bytes)) {
        return NULL;
    }
    l1 = calloc(1, bytes);
    if (l1 == NULL) {
        mem_budget_give(bdrv_budget(s->bs), bytes);
        return NULL;
    }
    l1->s = s;
    l1->entries = entries;
    l1->dirty = (uint64_t *)(void *)&l1->e[entries];
    return l1;
}

static void l1_free(struct q2_l1 *l1)
{
    if (l1 != NULL) {
        mem_budget_give(bdrv_budget(l1->s->bs), l1_bytes(l1->entries));
        free(l1);
    }
}

static void l1_end(struct q2_retired *r)
{
    l1_free(CONTAINER_OF(r, struct q2_l1, retired));
}

/* Put l1 in the place of the one that is there. */
static void l1_publish(struct qcow2 *s, struct q2_l1 *l1)
{
    struct q2_l1 *old = atomic_exchange_explicit(&s->l1, l1, memory_order_seq_cst);

    if (old != NULL) {
        old->retired.end = l1_end;
        q2_retire(s, &old->retired);
    }
}

static int l1_read(struct qcow2 *s, uint64_t offset, struct q2_l1 *l1)
{
    size_t bytes = (size_t)l1->entries * 8;
    int ret;

    if (bytes == 0) {
        return 0;
    }
    ret = in_coroutine() ? bdrv_edge_read_co(s->file, offset, (void *)l1->e, bytes)
                         : bdrv_edge_pread(s->file, offset, (void *)l1->e, bytes);
    if (ret < 0) {
        return ret;
    }
    for (uint32_t i = 0; i < l1->entries; i++) {
        atomic_init(&l1->e[i], be64toh(atomic_load_explicit(&l1->e[i], memory_order_relaxed)));
    }
    return 0;
}

int q2_l1_load(struct qcow2 *s, uint64_t offset, uint32_t entries, Error **errp)
{
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    uint64_t bytes = (uint64_t)entries * 8;
    struct q2_l1 *l1;
    int ret;

    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "Could not learn the size of the file");
    }
    if (bytes > Q2_L1_BYTES_MAX) {
        return error_set(errp, EFBIG, "Active L1 table too large: %" PRIu32 " entries", entries);
    }
    if (!is_aligned(offset, s->geo.cluster_bytes) ||
        !range_inside(offset, bytes, (uint64_t)file_bytes)) {
        return error_set(errp, EINVAL,
                         "Active L1 table at offset 0x%" PRIx64 " with %" PRIu32
                         " entries is not aligned or not inside the file",
                         offset, entries);
    }
    l1 = l1_new(s, entries);
    if (l1 == NULL) {
        return error_set(errp, ENOMEM, "No memory for the L1 table (%" PRIu64 " bytes)", bytes);
    }
    ret = l1_read(s, offset, l1);
    if (ret < 0) {
        l1_free(l1);
        return error_set_errno(errp, -ret, "Could not read the L1 table at offset 0x%" PRIx64,
                               offset);
    }
    l1_publish(s, l1);
    return 0;
}

void q2_l1_free(struct qcow2 *s)
{
    l1_free(atomic_exchange(&s->l1, NULL));
}

/* Cache lock held. */
static void sector_mark(struct q2_l1 *l1, uint32_t sector)
{
    uint64_t bit = UINT64_C(1) << sector % 64;

    if ((l1->dirty[sector / 64] & bit) == 0) {
        l1->dirty[sector / 64] |= bit;
        l1->dirty_sectors++;
    }
}

void q2_l1_set(struct qcow2 *s, uint32_t index, uint64_t entry)
{
    struct q2_l1 *l1;

    os_mutex_lock(&s->l2.lock);
    l1 = q2_l1_get(s);
    assert(index < l1->entries);
    atomic_store_explicit(&l1->e[index], entry, memory_order_seq_cst);
    sector_mark(l1, index / Q2_L1_SECTOR_ENTRIES);
    os_mutex_unlock(&s->l2.lock);
}

/* ---- the commit's part ---- */

/* The sector that holds entry first as the file shall have it; past the last entry it is zero. */
static void sector_copy(const struct q2_l1 *l1, uint32_t first, uint8_t *buf)
{
    for (uint32_t i = 0; i < Q2_L1_SECTOR_ENTRIES; i++) {
        uint64_t e = first + i < l1->entries ? q2_l1_entry(l1, first + i) : 0;

        store_be64(buf + (size_t)i * 8, e);
    }
}

static void due_fini(struct qcow2 *s, struct q2_l1_due *due)
{
    free(due->index);
    bdrv_buffer_free(s->bs, due->bytes, (size_t)due->room * Q2_L1_SECTOR);
    *due = (struct q2_l1_due){0};
}

static int due_init(struct qcow2 *s, struct q2_l1_due *due, uint32_t room)
{
    due->room = room;
    due->index = malloc((size_t)room * sizeof(*due->index));
    due->bytes = bdrv_buffer_alloc(s->bs, (size_t)room * Q2_L1_SECTOR);
    if (due->index == NULL || due->bytes == NULL) {
        due_fini(s, due);
        return -ENOMEM;
    }
    return 0;
}

/* Cache lock held; there is room. */
static void due_fill(struct q2_l1 *l1, struct q2_l1_due *due)
{
    for (uint32_t word = 0; l1->dirty_sectors > 0; word++) {
        while (l1->dirty[word] != 0) {
            uint32_t sector = word * 64 + (uint32_t)__builtin_ctzll(l1->dirty[word]);

            sector_copy(l1, sector * Q2_L1_SECTOR_ENTRIES,
                        due->bytes + (size_t)due->count * Q2_L1_SECTOR);
            due->index[due->count++] = sector;
            l1->dirty[word] &= l1->dirty[word] - 1;
            l1->dirty_sectors--;
        }
    }
}

int q2_l1_commit_begin(struct qcow2 *s, struct q2_l1_due *due)
{
    struct q2_l1 *l1;
    int ret = 0;

    *due = (struct q2_l1_due){0};
    os_mutex_lock(&s->l2.lock);
    for (;;) {
        uint32_t wanted;

        l1 = q2_l1_get(s);
        wanted = l1 != NULL ? l1->dirty_sectors : 0;
        if (wanted <= due->room) {
            break;
        }
        os_mutex_unlock(&s->l2.lock);
        due_fini(s, due);
        ret = due_init(s, due, wanted);
        os_mutex_lock(&s->l2.lock);
        if (ret < 0) {
            break;
        }
    }
    if (ret == 0 && l1 != NULL) {
        due_fill(l1, due);
    }
    os_mutex_unlock(&s->l2.lock);
    return ret;
}

int q2_l1_commit_write_co(struct qcow2 *s, const struct q2_l1_due *due)
{
    uint32_t i = 0;

    while (i < due->count) {
        uint64_t offset = s->header.l1_offset + (uint64_t)due->index[i] * Q2_L1_SECTOR;
        const uint8_t *sectors = due->bytes + (size_t)i * Q2_L1_SECTOR;
        uint64_t end = s->header.l1_offset + (uint64_t)s->header.l1_entries * 8;
        uint32_t n = 1;
        uint64_t bytes;
        int ret;

        while (i + n < due->count && due->index[i + n] == due->index[i] + n) {
            n++;
        }
        bytes = min_u64((uint64_t)n * Q2_L1_SECTOR, end - offset); /* no longer than the table */
        ret = q2_overlap_check_co(s, Q2_OL_ACTIVE_L1, offset, bytes);
        if (ret == 0) {
            bdrv_debug_event(s->file, BLKDBG_L1_UPDATE);
            ret = bdrv_edge_write_co(s->file, offset, sectors, (size_t)bytes, 0);
        }
        if (ret < 0) {
            return ret;
        }
        i += n;
    }
    return 0;
}

void q2_l1_commit_end(struct qcow2 *s, struct q2_l1_due *due, bool durable)
{
    if (!durable) {
        os_mutex_lock(&s->l2.lock);
        for (uint32_t i = 0; i < due->count; i++) {
            sector_mark(q2_l1_get(s), due->index[i]);
        }
        os_mutex_unlock(&s->l2.lock);
    }
    due_fini(s, due);
}

/* ---- growing ---- */

/* The table, and not a byte more: it may end the file. */
static int table_write_co(struct qcow2 *s, const struct q2_l1 *l1, uint64_t offset)
{
    uint64_t bytes = (uint64_t)l1->entries * 8;
    size_t room = (size_t)min_u64(align_up(bytes, Q2_L1_SECTOR), L1_WRITE_BYTES);
    uint8_t *buf = bdrv_buffer_alloc(s->bs, room);
    int ret = buf == NULL ? -ENOMEM : q2_overlap_check_co(s, Q2_OL_ACTIVE_L1, offset, bytes);

    for (uint64_t at = 0; ret == 0 && at < bytes; at += room) {
        size_t n = (size_t)min_u64(room, bytes - at);

        for (size_t i = 0; i < n; i += Q2_L1_SECTOR) {
            sector_copy(l1, (uint32_t)((at + i) / 8), buf + i);
        }
        bdrv_debug_event(s->file, BLKDBG_L1_GROW_WRITE_TABLE);
        ret = bdrv_edge_write_co(s->file, offset + at, buf, n, 0);
    }
    bdrv_buffer_free(s->bs, buf, room);
    return ret;
}

/* The header shall say offset and entries (W6). When that fails, the file may have either header:
 * only after the old one was written once more is it known, and the new clusters may go. */
static int header_switch_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, uint32_t entries,
                            Error **errp)
{
    uint64_t old_offset = s->header.l1_offset;
    uint32_t old_entries = s->header.l1_entries;
    int ret;

    s->header.l1_offset = offset;
    s->header.l1_entries = entries;
    ret = q2_header_write_co(s, errp);
    if (ret == 0) {
        return 0;
    }
    s->header.l1_offset = old_offset;
    s->header.l1_entries = old_entries;
    if (q2_header_write_co(s, NULL) == 0) {
        q2_overlap_del_range(s, Q2_OL_ACTIVE_L1, offset, bytes);
        q2_unalloc_co(s, offset, bytes);
    } else {
        bdrv_mark_broken(s->bs, "The header may refer to either of two L1 tables");
    }
    return ret;
}

/* below: it must lie in front of that offset, else nothing is done and *ret_done false. */
static int place_co(struct qcow2 *s, struct q2_l1 *l1, uint64_t below, bool *ret_done, Error **errp)
{
    uint64_t bytes = align_up((uint64_t)l1->entries * 8, s->geo.cluster_bytes);
    uint64_t offset;
    int ret;

    bdrv_debug_event(s->file, BLKDBG_L1_GROW_ALLOC_TABLE);
    ret = q2_alloc_clusters_co(s, bytes >> s->geo.cluster_bits, &offset);
    if (ret < 0) {
        return error_set_errno(errp, -ret, "Could not allocate an L1 table");
    }
    *ret_done = offset < below;
    if (!*ret_done) {
        q2_unalloc_co(s, offset, bytes);
        return 0;
    }
    ret = q2_overlap_add_range(s, Q2_OL_ACTIVE_L1, offset, bytes);
    if (ret == 0) {
        ret = table_write_co(s, l1, offset);
    }
    if (ret == 0) {
        ret = q2_commit_co(s, true); /* the table and its refcounts before the header (W1, W6) */
    }
    if (ret < 0) {
        q2_overlap_del_range(s, Q2_OL_ACTIVE_L1, offset, bytes);
        q2_unalloc_co(s, offset, bytes);
        return error_set_errno(errp, -ret, "Could not write the new L1 table");
    }
    bdrv_debug_event(s->file, BLKDBG_L1_GROW_ACTIVATE_TABLE);
    return header_switch_co(s, offset, bytes, l1->entries, errp);
}

/* A table of entries, in front of below, takes the place of the active one. */
static int replace_co(struct qcow2 *s, uint32_t entries, uint64_t below, Error **errp)
{
    struct q2_l1 *old = q2_l1_get(s);
    uint64_t old_offset = s->header.l1_offset;
    uint32_t old_entries = old->entries;
    struct q2_l1 *l1;
    bool done = false;
    int ret;

    ret = q2_commit_co(s, false); /* what the entries refer to is durable then (W3) */
    if (ret < 0) {
        return error_set_errno(errp, -ret, "Could not write the metadata");
    }
    l1 = l1_new(s, entries);
    if (l1 == NULL) {
        return error_set(errp, ENOMEM, "No memory for an L1 table of %" PRIu32 " entries", entries);
    }
    for (uint32_t i = 0; i < old->entries; i++) {
        atomic_init(&l1->e[i], q2_l1_entry(old, i));
    }
    ret = place_co(s, l1, below, &done, errp);
    if (ret < 0 || !done) {
        l1_free(l1);
        return ret;
    }
    l1_publish(s, l1);
    if (old_entries > 0) {
        q2_overlap_del_range(s, Q2_OL_ACTIVE_L1, old_offset, (uint64_t)old_entries * 8);
        q2_free_later(s, old_offset, (uint64_t)old_entries * 8, Q2_DISCARD_OTHER);
        /* only the header referred to it, and nobody is inside: what comes next may lie there, as
         * in the reference */
        (void)q2_free_all_co(s);
    }
    return 0;
}

int q2_l1_grow_co(struct qcow2 *s, uint32_t entries, Error **errp)
{
    if (entries <= q2_l1_get(s)->entries) {
        return 0;
    }
    if ((uint64_t)entries * 8 > Q2_L1_BYTES_MAX) {
        return error_set(errp, EFBIG, "The L1 table would be too large: %" PRIu32 " entries",
                         entries);
    }
    return replace_co(s, entries, UINT64_MAX, errp);
}

int q2_l1_move_co(struct qcow2 *s, Error **errp)
{
    return replace_co(s, q2_l1_get(s)->entries, s->header.l1_offset, errp);
}
