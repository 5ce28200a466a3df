/* SPDX-License-Identifier: MIT */
/*
 * The clusters of one window of the tail: guest data, compressed clusters, then L2 tables, of the
 * active tree and of all snapshots (compact_int.h).
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/error.h"

#include "compact_int.h"
#include "entry.h"
#include "l1.h"
#include "overlap.h"
#include "snapshot.h"
#include "tree.h"

/* ---- all L2 tables, each once ---- */

static int walk_l1_co(struct q2_compact *c, const uint64_t *l1, uint32_t entries,
                      int (*fn)(struct q2_compact *c, uint64_t offset))
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < entries; i++) {
        uint64_t offset = q2_l1_table(l1[i]);
        uint64_t cluster = offset >> c->s->geo.cluster_bits;

        if (offset == 0 || q2_refmap_get(&c->seen, cluster) > 0) {
            continue;
        }
        rc = q2_refmap_add(&c->seen, cluster, 1);
        rc = rc == 0 ? q2_walk_read_co(&c->w, offset, NULL) : rc;
        rc = rc == 0 ? fn(c, offset) : rc;
    }
    return rc;
}

static int each_table_co(struct q2_compact *c, int (*fn)(struct q2_compact *c, uint64_t offset))
{
    struct qcow2 *s = c->s;
    uint32_t entries = q2_l1_get(s)->entries;
    uint64_t *l1;
    int rc = q2_l1_copy_active(s, &l1, NULL);

    q2_refmap_fini(&c->seen);
    q2_refmap_init(&c->seen, bdrv_budget(s->bs));
    if (rc == 0) {
        rc = walk_l1_co(c, l1, entries, fn);
        q2_l1_copy_free(s, l1, entries);
    }
    for (uint32_t i = 0; rc == 0 && i < s->snapshot_count; i++) {
        const struct q2_snapshot *sn = &s->snapshots[i];

        rc = q2_snapshot_l1_copy_co(s, sn, &l1, NULL);
        if (rc == 0) {
            rc = walk_l1_co(c, l1, sn->l1_entries, fn);
            q2_l1_copy_free(s, l1, sn->l1_entries);
        }
    }
    return rc;
}

/* ---- what is in the window ---- */

/* Index in the window; UINT64_MAX: it is outside. */
static uint64_t window_index(const struct q2_compact *c, uint64_t offset)
{
    uint64_t cluster = offset >> c->s->geo.cluster_bits;

    return cluster >= c->low && cluster < c->high ? cluster - c->low : UINT64_MAX;
}

static void mark(struct q2_compact *c, uint64_t offset, enum q2_compact_kind kind)
{
    uint64_t i = window_index(c, offset);

    if (i != UINT64_MAX) {
        c->kinds[i] |= (uint8_t)kind;
    }
}

static int collect_table_co(struct q2_compact *c, uint64_t offset)
{
    const struct q2_geometry *geo = &c->s->geo;
    size_t words = q2_walk_entry_words(geo);
    uint64_t times;
    int rc = q2_refcount_get_co(c->s, offset >> geo->cluster_bits, &times);

    mark(c, offset, Q2_COMPACT_TABLE);
    for (size_t i = 0; rc == 0 && i < geo->l2_entries; i++) {
        uint64_t word = q2_walk_word(&c->w, i * words);

        if (word & Q2_COMPRESSED) {
            q2_blob_note(c, word, times);
        } else if ((word & Q2_OFFSET_MASK) != 0 && !geo->external_data) {
            mark(c, word & Q2_OFFSET_MASK, Q2_COMPACT_DATA);
        }
    }
    return rc;
}

/* A smaller window, at the end of this one, where it has too many compressed clusters. */
static int collect_co(struct q2_compact *c)
{
    int rc;

    for (;;) {
        memset(c->to, 0, c->room * sizeof(*c->to));
        memset(c->kinds, 0, c->room);
        c->blobs_count = 0;
        c->blobs_overflow = false;
        rc = each_table_co(c, collect_table_co);
        if (rc < 0 || !c->blobs_overflow || c->high - c->low == 1) {
            break;
        }
        c->low += (c->high - c->low) / 2;
    }
    if (c->blobs_overflow) {
        c->blobs_count = 0; /* they stay */
    }
    q2_blobs_sort(c);
    return rc;
}

/* ---- copies (M1) ---- */

/* Neighbours that are copied to neighbours. */
struct run {
    uint64_t from;
    uint64_t to;
    uint64_t bytes;
};

static int run_copy_co(struct q2_compact *c, struct run *run)
{
    int rc = 0;

    while (run->bytes > 0 && (rc = q2_compact_copy_co(c, run->from, run->to, run->bytes)) < 0) {
        rc = c->calls->retry_co(c->calls->opaque, false, rc);
        if (rc < 0) {
            return rc;
        }
    }
    if (run->bytes > 0) {
        q2_compact_turn_co(c, run->bytes);
    }
    run->bytes = 0;
    return 0;
}

/* A place for cluster i of the window, with its refcount; *ret 0: there is none. */
static int place_co(struct q2_compact *c, uint64_t i, uint64_t *ret)
{
    struct qcow2 *s = c->s;
    uint64_t times;
    int rc = q2_refcount_get_co(s, c->low + i, &times);

    *ret = 0;
    if (rc < 0 || times == 0) {
        return rc;
    }
    rc = q2_compact_alloc_co(c, 1, c->limit, ret);
    c->full = c->full || (rc == 0 && *ret == 0);
    if (rc == 0 && *ret != 0 && times > 1) {
        rc = q2_refcount_add_co(s, *ret, s->geo.cluster_bytes, (int)min_u64(times - 1, INT32_MAX));
        if (rc < 0) {
            q2_unalloc_co(s, *ret, s->geo.cluster_bytes);
        }
    }
    return rc;
}

static int copy_clusters_co(struct q2_compact *c, enum q2_compact_kind kind)
{
    uint64_t size = c->s->geo.cluster_bytes;
    struct run run = {0};
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < c->high - c->low && !c->full && c->cancelled == 0;) {
        uint64_t from = (c->low + i) << c->s->geo.cluster_bits;
        uint64_t to;

        if (c->kinds[i] != kind) {
            i++;
            continue;
        }
        rc = place_co(c, i, &to);
        if (rc < 0) {
            rc = c->calls->retry_co(c->calls->opaque, false, rc);
            continue;
        }
        if (to == 0) {
            i++;
            continue;
        }
        c->to[i++] = to;
        if (run.bytes + size > c->buf_bytes || run.from + run.bytes != from ||
            run.to + run.bytes != to) {
            rc = run_copy_co(c, &run);
            run = (struct run){.from = from, .to = to};
        }
        run.bytes += size;
    }
    return rc == 0 ? run_copy_co(c, &run) : rc;
}

/* Take away the references of the originals (M3), or of the copies. */
static void release_co(struct q2_compact *c, bool undo)
{
    unsigned bits = c->s->geo.cluster_bits;

    for (uint64_t i = 0; i < c->high - c->low; i++) {
        uint64_t old = (c->low + i) << bits;
        uint64_t times;

        if (c->to[i] != 0 && q2_refcount_get_co(c->s, c->low + i, &times) == 0) {
            q2_compact_lower_co(c, undo ? c->to[i] : old, c->s->geo.cluster_bytes, times);
        }
        c->to[i] = 0;
    }
}

/* ---- references (M2) ---- */

static uint64_t word_now(const struct q2_compact *c, uint64_t word)
{
    uint64_t i;

    if (word & Q2_COMPRESSED) {
        uint64_t now = q2_blob_now(c, word);

        return now != 0 ? now : word;
    }
    i = c->s->geo.external_data ? UINT64_MAX : window_index(c, word & Q2_OFFSET_MASK);
    return i != UINT64_MAX && c->to[i] != 0 ? (word & ~Q2_OFFSET_MASK) | c->to[i] : word;
}

static int rewrite_table_co(struct q2_compact *c, uint64_t offset)
{
    size_t words = q2_walk_entry_words(&c->s->geo);
    size_t first = SIZE_MAX;
    size_t last = 0;

    for (size_t i = 0; i < c->s->geo.l2_entries; i++) {
        uint64_t word = q2_walk_word(&c->w, i * words);
        uint64_t now = word_now(c, word);

        if (now != word) {
            store_be64(c->w.table + i * words * sizeof(uint64_t), now);
            first = min_u64(first, i * words);
            last = (i + 1) * words;
        }
    }
    return last > 0 ? q2_walk_write_co(&c->w, offset, first, last, NULL) : 0;
}

static int rewrite_tables_co(struct q2_compact *c)
{
    int rc = each_table_co(c, rewrite_table_co);

    return rc == 0 ? bdrv_edge_flush_co(c->s->file) : rc;
}

/* Entries of an L1 table that refer to tables which moved; whole sectors of it are written, but no
 * byte behind its end. */
static int rewrite_inactive_l1_co(struct q2_compact *c, const struct q2_snapshot *sn, uint64_t *l1)
{
    uint32_t first = UINT32_MAX;
    uint32_t last = 0;
    uint64_t at;
    int rc;

    for (uint32_t i = 0; i < sn->l1_entries; i++) {
        uint64_t w = window_index(c, q2_l1_table(l1[i]));

        if (q2_l1_table(l1[i]) != 0 && w != UINT64_MAX && c->to[w] != 0) {
            l1[i] = (l1[i] & ~Q2_OFFSET_MASK) | c->to[w];
            first = first == UINT32_MAX ? i : first;
            last = i + 1;
        }
        l1[i] = htobe64(l1[i]);
    }
    if (last == 0) {
        return 0;
    }
    first = (uint32_t)align_down(first, Q2_L1_SECTOR_ENTRIES);
    last = (uint32_t)min_u64(align_up(last, Q2_L1_SECTOR_ENTRIES), sn->l1_entries);
    at = sn->l1_offset + (uint64_t)first * sizeof(uint64_t);
    rc = q2_overlap_check_co(c->s, Q2_OL_INACTIVE_L1, at, (last - first) * sizeof(uint64_t));
    return rc == 0 ? bdrv_edge_write_co(c->s->file, at, l1 + first,
                                        (last - first) * sizeof(uint64_t), 0)
                   : rc;
}

static int rewrite_l1s_co(struct q2_compact *c)
{
    struct qcow2 *s = c->s;
    struct q2_l1 *active = q2_l1_get(s);
    int rc = 0;

    for (uint32_t i = 0; i < active->entries; i++) {
        uint64_t entry = q2_l1_entry(active, i);
        uint64_t w = window_index(c, q2_l1_table(entry));

        if (q2_l1_table(entry) != 0 && w != UINT64_MAX && c->to[w] != 0) {
            q2_l2_drop_table(s, q2_l1_table(entry));
            q2_l1_set(s, i, (entry & ~Q2_OFFSET_MASK) | c->to[w]);
        }
    }
    for (uint32_t i = 0; rc == 0 && i < s->snapshot_count; i++) {
        const struct q2_snapshot *sn = &s->snapshots[i];
        uint64_t *l1;

        rc = q2_snapshot_l1_copy_co(s, sn, &l1, NULL);
        if (rc == 0) {
            rc = rewrite_inactive_l1_co(c, sn, l1);
            q2_l1_copy_free(s, l1, sn->l1_entries);
        }
    }
    rc = rc == 0 ? q2_commit_co(s, true) : rc;
    return rc == 0 ? bdrv_edge_flush_co(s->file) : rc;
}

/* ---- rounds ---- */

/* After the copies were made, or not (rc). */
static int finish_round_co(struct q2_compact *c, int rc, int (*rewrite)(struct q2_compact *c),
                           const char *what, Error **errp)
{
    bool undo;

    rc = rc == 0 ? q2_compact_try_co(c, false, q2_compact_settle_co) : rc;
    undo = rc < 0;
    rc = rc == 0 ? q2_compact_try_co(c, false, rewrite) : rc;
    if (rc == 0 || undo) {
        q2_blobs_release_co(c, undo);
        release_co(c, undo);
        rc = rc == 0 ? q2_compact_try_co(c, false, q2_compact_settle_co)
                     : (q2_compact_settle_co(c), rc);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "moving %s failed", what) : 0;
}

static int move_data_co(struct q2_compact *c)
{
    int rc = copy_clusters_co(c, Q2_COMPACT_DATA);

    return rc == 0 ? q2_blobs_copy_co(c) : rc;
}

int q2_compact_window_co(struct q2_compact *c, Error **errp)
{
    int rc = q2_compact_try_co(c, true, collect_co);

    if (rc < 0) {
        return error_set_errno(errp, -rc, "reading the L2 tables failed");
    }
    rc = finish_round_co(c, move_data_co(c), rewrite_tables_co, "guest clusters", errp);
    c->blobs_count = 0;
    if (rc == 0) {
        rc = finish_round_co(c, copy_clusters_co(c, Q2_COMPACT_TABLE), rewrite_l1s_co, "L2 tables",
                             errp);
        q2_overlap_renew(c->s);
    }
    return rc;
}
