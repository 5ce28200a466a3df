/* SPDX-License-Identifier: MIT */
/*
 * Changing the mapping of whole clusters from outside the request path: what growing, shrinking and
 * preallocation do. In an exclusive section, so no range is locked and nobody looks; what is
 * found in memory is let go after each table, so that large disks need no more of it than small
 * ones.
 *
 * The order in the file comes from the commit (W1, W3) and from q2_free_later (W4): an entry is
 * changed first, what it referred to is given away after that.
 */
#include <errno.h>
#include <string.h>

#include "entry.h"
#include "l1.h"
#include "map_edit.h"
#include "overlap.h"
#include "qcow2.h"

#define STEP_WORDS 128 /* of a slice that are changed at a time */

int q2_edit_table_co(struct qcow2 *s, uint32_t l1_index, uint64_t *ret_offset)
{
    uint64_t entry = q2_l1_entry(q2_l1_get(s), l1_index);
    uint64_t old = q2_l1_table(entry);

    if (q2_l1_wrong(&s->geo, entry) != NULL) {
        return -EIO;
    }
    if (old != 0 && (entry & Q2_COPIED)) {
        *ret_offset = old;
        return 0;
    }
    return q2_l1_new_table_co(s, l1_index, old, ret_offset);
}

/* What entries become. */
struct change {
    uint64_t host; /* of the first cluster */
    uint64_t step; /* from one's to the next one's; 0: they have none */
    uint64_t flags;
    uint64_t bitmap; /* extended L2 entries */
    enum q2_discard discard;
};

/* Entries [first, first + count) of a pinned slice; what they referred to is given away. */
static int change_slice(struct qcow2 *s, struct q2_slice *slice, uint32_t first, uint32_t count,
                        const struct change *c)
{
    uint32_t words = s->geo.l2_entry_bytes / 8;
    uint64_t host = c->host;

    for (uint32_t done = 0; done < count;) {
        uint64_t old[STEP_WORDS];
        uint64_t now[STEP_WORDS];
        uint32_t n = (uint32_t)min_u64(STEP_WORDS / words, count - done);
        int rc;

        for (uint32_t i = 0; i < n; i++) {
            old[i] = q2_slice_word(slice, (first + done + i) * words);
            now[i * words] = host | c->flags;
            if (words > 1) {
                now[i * words + 1] = c->bitmap;
            }
            host += c->step;
        }
        rc = q2_l2_set_co(s, slice, (first + done) * words, now, n * words);
        if (rc < 0) {
            return rc;
        }
        for (uint32_t i = 0; i < n; i++) {
            q2_free_entry_later(s, old[i], c->discard);
        }
        done += n;
    }
    return 0;
}

/* The same over the slices of a table that is ours. */
static int change_table(struct qcow2 *s, uint64_t table, uint32_t first, uint32_t count,
                        const struct change *c)
{
    struct change part = *c;
    int rc = 0;

    while (rc == 0 && count > 0) {
        uint32_t in_slice = first % s->l2.slice_entries;
        uint32_t n = (uint32_t)min_u64(count, s->l2.slice_entries - in_slice);
        uint64_t key = table + (uint64_t)(first - in_slice) * s->geo.l2_entry_bytes;
        struct q2_slice *slice;

        rc = q2_l2_get_co(s, key, &slice);
        if (rc < 0) {
            return rc;
        }
        rc = change_slice(s, slice, in_slice, n, &part);
        q2_l2_put(s, slice);
        part.host += n * part.step;
        first += n;
        count -= n;
    }
    return rc;
}

int q2_edit_set_co(struct qcow2 *s, uint64_t guest, uint64_t clusters, uint64_t host,
                   uint64_t flags, uint64_t bitmap)
{
    /* the first cluster of an external data file is at 0 */
    bool has_host = (flags & Q2_COPIED) != 0;
    struct change c = {.host = host,
                       .step = has_host ? s->geo.cluster_bytes : 0,
                       .flags = flags,
                       .bitmap = bitmap,
                       .discard = Q2_DISCARD_REQUEST};

    while (clusters > 0) {
        uint32_t first = q2_l2_index(&s->geo, guest);
        uint32_t n = (uint32_t)min_u64(clusters, s->geo.l2_entries - first);
        uint64_t bytes = (uint64_t)n << s->geo.cluster_bits;
        uint64_t table;
        int rc = q2_edit_table_co(s, (uint32_t)q2_l1_index(&s->geo, guest), &table);

        if (rc == 0) {
            rc = change_table(s, table, first, n, &c);
        }
        if (rc < 0) {
            return rc;
        }
        c.host += n * c.step;
        guest += bytes;
        clusters -= n;
        q2_exclusive_let_go(s);
    }
    return 0;
}

int q2_edit_bitmap_co(struct qcow2 *s, uint64_t guest, uint64_t *ret)
{
    uint64_t entry = q2_l1_entry(q2_l1_get(s), (uint32_t)q2_l1_index(&s->geo, guest));
    uint32_t index = q2_l2_index(&s->geo, guest);
    uint32_t in_slice = index % s->l2.slice_entries;
    struct q2_slice *slice;
    int rc = q2_l1_wrong(&s->geo, entry) != NULL ? -EIO : 0;

    *ret = 0;
    if (rc < 0 || !s->geo.extended_l2 || q2_l1_table(entry) == 0) {
        return rc;
    }
    rc = q2_l2_get_co(s, q2_l1_table(entry) + (uint64_t)(index - in_slice) * s->geo.l2_entry_bytes,
                      &slice);
    if (rc == 0) {
        bool compressed = (q2_slice_word(slice, in_slice * 2) & Q2_COMPRESSED) != 0;

        *ret = compressed ? Q2_BITMAP_ALL : q2_slice_word(slice, in_slice * 2 + 1);
        q2_l2_put(s, slice);
    }
    return rc;
}

/* A table leaves the tree with all that it refers to. What of it cannot be read leaks. */
static void drop_table(struct qcow2 *s, uint32_t l1_index)
{
    uint64_t entry = q2_l1_entry(q2_l1_get(s), l1_index);
    uint64_t table = q2_l1_table(entry);
    uint32_t words = s->geo.l2_entry_bytes / 8;

    q2_l1_set(s, l1_index, 0);
    if (q2_l1_wrong(&s->geo, entry) != NULL) {
        return;
    }
    for (uint32_t at = 0; at < s->geo.cluster_bytes; at += s->l2.slice_bytes) {
        struct q2_slice *slice;

        if (q2_l2_get_co(s, table + at, &slice) < 0) {
            continue;
        }
        for (uint32_t i = 0; i < s->l2.slice_entries; i++) {
            q2_free_entry_later(s, q2_slice_word(slice, i * words), Q2_DISCARD_ALWAYS);
        }
        q2_l2_put(s, slice);
    }
    q2_l2_drop_table(s, table);
    q2_overlap_del(s, Q2_OL_ACTIVE_L2, table);
    q2_free_later(s, table, s->geo.cluster_bytes, Q2_DISCARD_ALWAYS);
}

/* Whether any of the entries is in use. */
static int is_used(struct qcow2 *s, uint64_t table, uint32_t first, uint32_t count, bool *ret)
{
    uint32_t words = s->geo.l2_entry_bytes / 8;

    *ret = false;
    while (count > 0 && !*ret) {
        uint32_t in_slice = first % s->l2.slice_entries;
        uint32_t n = (uint32_t)min_u64(count, s->l2.slice_entries - in_slice);
        struct q2_slice *slice;
        int rc =
            q2_l2_get_co(s, table + (uint64_t)(first - in_slice) * s->geo.l2_entry_bytes, &slice);

        if (rc < 0) {
            return rc;
        }
        for (uint32_t i = in_slice * words; i < (in_slice + n) * words && !*ret; i++) {
            *ret = q2_slice_word(slice, i) != 0;
        }
        q2_l2_put(s, slice);
        first += n;
        count -= n;
    }
    return 0;
}

static int unmap_part(struct qcow2 *s, uint32_t l1_index, uint32_t first, uint32_t count)
{
    const struct change none = {.discard = Q2_DISCARD_ALWAYS};
    uint64_t entry = q2_l1_entry(q2_l1_get(s), l1_index);
    uint64_t table;
    bool used;
    int rc = q2_l1_wrong(&s->geo, entry) != NULL ? -EIO : 0;

    if (rc == 0) {
        rc = is_used(s, q2_l1_table(entry), first, count, &used);
    }
    if (rc < 0 || !used) {
        return rc;
    }
    rc = q2_edit_table_co(s, l1_index, &table);
    return rc < 0 ? rc : change_table(s, table, first, count, &none);
}

int q2_edit_unmap_co(struct qcow2 *s, uint64_t from, uint64_t to)
{
    uint64_t span = q2_table_span(&s->geo);
    uint32_t entries = q2_l1_get(s)->entries;

    for (uint64_t i = q2_l1_index(&s->geo, from); from < to && i < entries; i++) {
        uint64_t end = min_u64(to, (i + 1) * span);
        int rc = 0;

        if (q2_l1_entry(q2_l1_get(s), (uint32_t)i) == 0) {
            from = end;
            continue;
        }
        if (end - from == span) {
            drop_table(s, (uint32_t)i);
        } else {
            rc = unmap_part(
                s, (uint32_t)i, q2_l2_index(&s->geo, from),
                (uint32_t)((end - from + s->geo.cluster_bytes - 1) >> s->geo.cluster_bits));
        }
        if (rc == 0 && (atomic_load(&s->freed.due) & Q2_FREE_MANY)) {
            rc = q2_free_all_co(s);
        }
        if (rc < 0) {
            return rc;
        }
        from = end;
        q2_exclusive_let_go(s);
    }
    return 0;
}
