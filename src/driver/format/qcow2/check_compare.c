/* SPDX-License-Identifier: MIT */
/*
 * The refcounts that are stored against the references that were counted, and the COPIED flags
 * against the refcounts. Both are mended in the file; the caches are empty meanwhile.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "check_int.h"
#include "l1.h"
#include "overlap.h"

#define UNREADABLE_TOLD_MAX 1024 /* lines about refcounts that cannot be read */
#define TABLES_AGAIN_MAX 64      /* L2 tables looked at once more, which no intact image has */

enum q2_check_block q2_check_block_at(const struct q2_check *c, uint64_t index,
                                      uint64_t *ret_offset)
{
    const struct q2_refcounts *refs = &c->s->refs;
    uint64_t offset =
        index < refs->table_entries ? refs->table[index] & Q2_REFTABLE_OFFSET_MASK : 0;

    *ret_offset = offset;
    if (offset == 0 || offset >> c->s->geo.cluster_bits >= c->clusters) {
        return Q2_BLOCK_NONE;
    }
    return is_aligned(offset, c->s->geo.cluster_bytes) ? Q2_BLOCK_USABLE : Q2_BLOCK_UNALIGNED;
}

/* ---- refcounts ---- */

struct compare {
    struct q2_check *c;
    unsigned fix;
    uint64_t highest;
    uint64_t unreadable;
    bool changed; /* the block in c->table */
};

/* A table that something else lies on, with a refcount that is right by number and hides it: a
 * write to one would harm the other. It cannot be repaired. */
static void tell_shared(struct q2_check *c, uint64_t cluster, uint32_t refs)
{
    if (refs > 1 && q2_refmap_get(&c->alone, cluster) > 0) {
        q2_check_tell(c,
                      "ERROR cluster %" PRIu64 " is a table and something else, reference=%" PRIu32,
                      cluster, refs);
        c->res->corruptions++;
    }
}

/* One cluster that is used or refers; the block is in c->table, with index i, or there is none. */
static int compare_one(struct compare *x, uint64_t cluster, uint64_t stored, bool has_block,
                       uint64_t i)
{
    struct q2_check *c = x->c;
    uint32_t refs = q2_refmap_get(&c->refs, cluster);
    bool too_low = stored < refs;
    bool mend = has_block && (x->fix & (too_low ? BDRV_FIX_ERRORS : BDRV_FIX_LEAKS)) != 0 &&
                !(too_low && stored == 0);

    x->highest = cluster;
    if (stored == refs) {
        tell_shared(c, cluster, refs);
        return 0;
    }
    c->rebuild = c->rebuild || (too_low && stored == 0);
    q2_check_tell(c, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu32,
                  mend      ? "Repairing"
                  : too_low ? "ERROR"
                            : "Leaked",
                  cluster, stored, refs);
    if (mend) {
        q2_refbits_set(c->table, c->s->geo.refcount_order, i, refs);
        x->changed = true;
        *(too_low ? &c->res->corruptions_fixed : &c->res->leaks_fixed) += 1;
        tell_shared(c, cluster, refs);
        return 0;
    }
    *(too_low ? &c->res->corruptions : &c->res->leaks) += 1;
    return q2_refmap_add(&c->stored, cluster, stored + (stored < UINT64_MAX));
}

/* The clusters [first, first + n) that a block at offset counts. */
static int compare_block_co(struct compare *x, uint64_t offset, uint64_t first, uint64_t n)
{
    struct q2_check *c = x->c;
    unsigned order = c->s->geo.refcount_order;
    uint64_t next = 0; /* index of the next cluster that is referred to */
    int ret = q2_check_read_co(c, offset, c->table, c->s->geo.cluster_bytes);

    if (ret < 0) {
        x->unreadable += n;
        q2_check_tell(c, "Can't get refcount for cluster %" PRIu64 ": %s", first, strerror(-ret));
        return 0;
    }
    x->changed = false;
    for (uint64_t i = 0; ret == 0 && i < n; i++) {
        uint64_t used = q2_refbits_find(c->table, order, i, n, false);

        if (next <= i) {
            ret = q2_refmap_next(&c->refs, first + i, &next);
            next = ret == -ENOENT ? n : next - first;
            ret = ret == -ENOENT ? 0 : ret;
        }
        i = min_u64(used, next);
        next = next == i ? 0 : next;
        if (ret == 0 && i < n) {
            ret = compare_one(x, first + i, q2_refbits_get(c->table, order, i), true, i);
        }
    }
    if (ret == 0 && x->changed) {
        ret = q2_check_write_co(c, Q2_OL_REFCOUNT_BLOCK, offset, 0, c->s->geo.cluster_bytes);
    }
    return ret;
}

/* The same where no block is: everything counts as unused. */
static int compare_gap(struct compare *x, uint64_t first, uint64_t n)
{
    uint64_t cluster = first;
    int ret = q2_refmap_next(&x->c->refs, first, &cluster);

    while (ret == 0 && cluster < first + n) {
        ret = compare_one(x, cluster, 0, false, 0);
        if (ret == 0) {
            ret = q2_refmap_next(&x->c->refs, cluster + 1, &cluster);
        }
    }
    return ret == -ENOENT ? 0 : ret;
}

/* A block at an impossible place: nothing can be said of its clusters. */
static void compare_unreadable(struct compare *x, uint64_t first, uint64_t n)
{
    for (uint64_t i = 0; i < n && x->unreadable + i < UNREADABLE_TOLD_MAX; i++) {
        q2_check_tell(x->c, "Can't get refcount for cluster %" PRIu64 ": %s", first + i,
                      strerror(EIO));
    }
    x->unreadable += n;
}

int q2_check_compare_co(struct q2_check *c, unsigned fix)
{
    const struct q2_geometry *geo = &c->s->geo;
    struct compare x = {.c = c, .fix = fix};
    int ret = 0;

    q2_refmap_fini(&c->stored);
    for (uint64_t first = 0; ret == 0 && first < c->clusters; first += geo->refblock_entries) {
        uint64_t n = min_u64(geo->refblock_entries, c->clusters - first);
        uint64_t index = first >> geo->refblock_bits;
        uint64_t offset;

        if (index >= c->s->refs.table_entries) {
            ret = compare_gap(&x, first, c->clusters - first);
            break;
        }
        switch (q2_check_block_at(c, index, &offset)) {
        case Q2_BLOCK_NONE:
            ret = compare_gap(&x, first, n);
            break;
        case Q2_BLOCK_UNALIGNED:
            compare_unreadable(&x, first, n);
            break;
        case Q2_BLOCK_USABLE:
            ret = compare_block_co(&x, offset, first, n);
            break;
        }
        q2_check_step(c);
    }
    c->res->check_errors += x.unreadable;
    c->res->image_end_offset = (x.highest + 1) << geo->cluster_bits;
    return ret;
}

/* ---- COPIED ---- */

/* The refcount of a cluster behind those that were compared. */
static int refcount_behind_co(struct q2_check *c, uint64_t block, uint64_t i, uint64_t *ret)
{
    unsigned order = c->s->geo.refcount_order;
    uint64_t per_byte = order < 3 ? 8u >> order : 1;
    uint8_t bytes[8] = {0};
    int rc =
        q2_check_read_co(c, block + (i << order) / 8, bytes, order < 3 ? 1 : (1u << order) / 8);

    *ret = q2_refbits_get(bytes, order, i & (per_byte - 1));
    return rc;
}

/* The refcount that the file has for a cluster: 0, or -EIO: it cannot be told. */
static int stored_refcount_co(struct q2_check *c, uint64_t cluster, uint64_t *ret)
{
    const struct q2_geometry *geo = &c->s->geo;
    uint64_t offset;
    enum q2_check_block block = q2_check_block_at(c, cluster >> geo->refblock_bits, &offset);

    if (block == Q2_BLOCK_UNALIGNED) {
        return -EIO;
    }
    if (cluster >= c->clusters && block == Q2_BLOCK_USABLE) {
        return refcount_behind_co(c, offset, cluster & (geo->refblock_entries - 1), ret);
    }
    *ret = 0;
    if (cluster < c->clusters) {
        uint32_t wrong = q2_refmap_get(&c->stored, cluster);

        *ret = wrong > 0 ? wrong - 1 : q2_refmap_get(&c->refs, cluster);
    }
    return 0;
}

struct flags {
    struct q2_check *c;
    bool mend;
    struct q2_refmap seen; /* L2 tables */
    unsigned again;
    uint64_t from, to; /* bytes of the L2 table that were changed */
};

static void flag_told(struct flags *f)
{
    *(f->mend ? &f->c->res->corruptions_fixed : &f->c->res->corruptions) += 1;
}

/* One entry of the L2 table in c->table. */
static void flag_entry_co(struct flags *f, uint32_t index)
{
    struct q2_check *c = f->c;
    const struct q2_geometry *geo = &c->s->geo;
    uint64_t at = (uint64_t)index * geo->l2_entry_bytes;
    struct q2_check_entry e;
    uint64_t refcount = 1;

    q2_check_decode(geo, c->table + at, &e);
    if (!e.allocated ||
        (!geo->external_data &&
         stored_refcount_co(c, e.offset >> geo->cluster_bits, &refcount) < 0) ||
        (refcount == 1) == ((e.raw & Q2_COPIED) != 0)) {
        return;
    }
    q2_check_tell(c, "%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64,
                  f->mend ? "Repairing" : "ERROR", e.raw, refcount);
    flag_told(f);
    if (f->mend) {
        store_be64(c->table + at, e.raw ^ Q2_COPIED);
        f->from = min_u64(f->from, at);
        f->to = at + 8;
    }
}

static int flag_table_co(struct flags *f, uint64_t offset)
{
    struct q2_check *c = f->c;

    if (q2_check_read_co(c, offset, c->table, c->s->geo.cluster_bytes) < 0) {
        q2_check_tell(c, "ERROR: I/O error in check_oflag_copied: L2 table at 0x%" PRIx64, offset);
        c->res->check_errors++;
        return 0;
    }
    f->from = UINT64_MAX;
    f->to = 0;
    for (uint32_t i = 0; i < c->s->geo.l2_entries; i++) {
        flag_entry_co(f, i);
    }
    if (f->to > 0 && q2_check_write_co(c, Q2_OL_ACTIVE_L2, offset, f->from, f->to - f->from) < 0) {
        q2_check_tell(c, "ERROR: Could not write the L2 table at 0x%" PRIx64, offset);
        c->res->check_errors++;
    }
    return 0;
}

/* A flag, and no table that it could be about: other readers take it for one at offset 0. */
static void flag_without_table(struct flags *f, uint32_t index, uint64_t entry)
{
    struct q2_check *c = f->c;
    bool mend = (c->fix & BDRV_FIX_ERRORS) != 0;

    q2_check_tell(c, "%s L1 entry without L2 table: l1_index=%" PRIu32 " l1_entry=%" PRIx64,
                  mend ? "Repairing" : "ERROR", index, entry);
    *(mend ? &c->res->corruptions_fixed : &c->res->corruptions) += 1;
    if (mend) {
        q2_l1_set(c->s, index, 0);
    }
}

static void flag_l1_entry_co(struct flags *f, uint32_t index, uint64_t entry)
{
    struct q2_check *c = f->c;
    uint64_t cluster = (entry & Q2_OFFSET_MASK) >> c->s->geo.cluster_bits;
    uint64_t refcount;

    if (stored_refcount_co(c, cluster, &refcount) < 0 ||
        (refcount == 1) == ((entry & Q2_COPIED) != 0)) {
        return;
    }
    q2_check_tell(c,
                  "%s OFLAG_COPIED L2 cluster: l1_index=%" PRIu32 " l1_entry=%" PRIx64
                  " refcount=%" PRIu64,
                  f->mend ? "Repairing" : "ERROR", index, entry, refcount);
    flag_told(f);
    if (f->mend) {
        q2_l1_set(c->s, index, entry ^ Q2_COPIED);
    }
}

/* Whether the L2 table is to be looked at: 1, 0 or -ENOMEM. */
static int flag_wanted(struct flags *f, uint64_t offset)
{
    uint64_t cluster = offset >> f->c->s->geo.cluster_bits;

    if (!is_aligned(offset, f->c->s->geo.cluster_bytes) || offset >= f->c->file_bytes) {
        return 0;
    }
    if (q2_refmap_get(&f->seen, cluster) > 0) {
        return f->again < TABLES_AGAIN_MAX ? (f->again++, 1) : 0;
    }
    return q2_refmap_add(&f->seen, cluster, 1) < 0 ? -ENOMEM : 1;
}

/* Flags are mended with errors; with leaks only where nothing else is wrong, since a wrong refcount
 * would make a wrong flag. */
int q2_check_copied_co(struct q2_check *c)
{
    const struct q2_l1 *l1 = q2_l1_get(c->s);
    struct flags f = {.c = c,
                      .mend = (c->fix & BDRV_FIX_ERRORS) != 0 ||
                              (c->fix != 0 && c->res->check_errors == 0 &&
                               c->res->corruptions == 0 && c->res->leaks == 0)};
    int ret = 0;

    q2_refmap_init(&f.seen, bdrv_budget(c->s->bs));
    for (uint32_t i = 0; ret >= 0 && l1 && i < l1->entries; i++) {
        uint64_t entry = q2_l1_entry(l1, i);

        if ((entry & Q2_OFFSET_MASK) == 0) {
            if (entry & Q2_COPIED) {
                flag_without_table(&f, i, entry);
            }
            continue;
        }
        flag_l1_entry_co(&f, i, entry);
        ret = flag_wanted(&f, entry & Q2_OFFSET_MASK);
        if (ret > 0) {
            ret = flag_table_co(&f, entry & Q2_OFFSET_MASK);
        }
        if (i % Q2_CHECK_STEP_ENTRIES == 0) {
            q2_check_step(c);
        }
    }
    q2_refmap_fini(&f.seen);
    return ret < 0 ? ret : 0;
}
