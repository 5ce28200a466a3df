/* SPDX-License-Identifier: MIT */
/*
 * The refcounts in the file against the references that were found, and the COPIED flags of the
 * active tree against the refcounts.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/mem.h"

#include "check_int.h"

enum q2_check_block q2_check_block_at(const struct q2_check *c, uint64_t index,
                                      uint64_t *ret_offset)
{
    uint64_t entry = index < c->s->refs.table_entries ? c->s->refs.table[index] : 0;

    *ret_offset = entry & Q2_REFTABLE_OFFSET_MASK;
    if (*ret_offset == 0 || *ret_offset >= c->file_bytes) {
        return Q2_BLOCK_NONE; /* one outside was told as such: all it would count is 0 */
    }
    return is_aligned(entry, c->s->geo.cluster_bytes) ? Q2_BLOCK_USABLE : Q2_BLOCK_UNALIGNED;
}

/* ---- refcounts ---- */

struct compare {
    struct q2_check *c;
    unsigned fix;
    uint64_t highest; /* cluster in use, + 1 */
    uint64_t offset;  /* of the block in c->table; 0: there is none, all counts are 0 */
    uint64_t dirty_from, dirty_to; /* bytes of it */
};

/* A refcount that is not what it should be. Returns what the file has then. */
static uint64_t compare_wrong(struct compare *m, uint64_t cluster, uint64_t index, uint64_t stored,
                              uint64_t refs)
{
    struct q2_check *c = m->c;
    unsigned order = c->s->geo.refcount_order;
    bool leak = stored > refs;
    bool mend = (m->fix & (leak ? BDRV_FIX_LEAKS : BDRV_FIX_ERRORS)) != 0 && m->offset != 0 &&
                refs <= c->s->geo.refcount_max;
    uint64_t from = (index << order) / 8;
    uint64_t to = ((index + 1) << order) / 8 + (((index + 1) << order) % 8 != 0);

    q2_check_tell(c, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                  mend   ? "Repairing"
                  : leak ? "Leaked"
                         : "ERROR",
                  cluster, stored, refs);
    if (stored == 0) {
        c->rebuild = true; /* nobody knows how much more is in use without being counted */
    }
    if (!mend) {
        *(leak ? &c->res->leaks : &c->res->corruptions) += 1;
        return stored;
    }
    q2_refbits_set(c->table, order, index, refs);
    m->dirty_from = min_u64(m->dirty_from, from);
    m->dirty_to = max_u64(m->dirty_to, to);
    *(leak ? &c->res->leaks_fixed : &c->res->corruptions_fixed) += 1;
    return refs;
}

static int compare_block(struct compare *m, uint64_t block)
{
    struct q2_check *c = m->c;
    uint64_t first = block << c->s->geo.refblock_bits;
    uint64_t count = min_u64(c->s->geo.refblock_entries, c->clusters - first);

    for (uint64_t i = 0; i < count; i++) {
        uint64_t stored =
            m->offset != 0 ? q2_refbits_get(c->table, c->s->geo.refcount_order, i) : 0;
        uint64_t refs = q2_refmap_get(&c->refs, first + i);

        if (stored != 0 || refs != 0) {
            m->highest = max_u64(m->highest, first + i + 1);
        }
        if (stored != refs) {
            stored = compare_wrong(m, first + i, i, stored, refs);
        }
        if (stored != refs) {
            int ret = q2_refmap_add(&c->stored, first + i, stored + 1);

            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

/* Nothing can be said of the clusters that this block counts. */
static int compare_unreadable(struct q2_check *c, uint64_t block, int err)
{
    uint64_t first = block << c->s->geo.refblock_bits;
    uint64_t end = min_u64(c->clusters, first + c->s->geo.refblock_entries);

    c->rebuild = true;
    for (uint64_t i = first; i < end; i++) {
        if (q2_refmap_next(&c->refs, i, &i) != 0 || i >= end) {
            break;
        }
        q2_check_tell(c, "Can't get refcount for cluster %" PRIu64 ": %s", i, strerror(-err));
        c->res->check_errors++;
    }
    return 0;
}

static int compare_one_co(struct compare *m, uint64_t block)
{
    struct q2_check *c = m->c;
    enum q2_check_block what = q2_check_block_at(c, block, &m->offset);
    int ret = 0;

    m->dirty_from = UINT64_MAX;
    m->dirty_to = 0;
    if (what == Q2_BLOCK_UNALIGNED) {
        return compare_unreadable(c, block, -EIO);
    }
    if (what == Q2_BLOCK_NONE) {
        m->offset = 0;
    } else {
        ret = q2_check_read_co(c, m->offset, c->table, c->s->geo.cluster_bytes);
    }
    if (ret < 0) {
        return compare_unreadable(c, block, ret);
    }
    ret = compare_block(m, block);
    if (ret == 0 && m->dirty_from < m->dirty_to) {
        ret = q2_check_write_co(c, Q2_OL_REFCOUNT_BLOCK, m->offset, m->dirty_from,
                                m->dirty_to - m->dirty_from);
    }
    return ret;
}

/* The first block from block on that counts something, or should. */
static uint64_t next_block(struct q2_check *c, uint64_t block)
{
    uint64_t referred = UINT64_MAX;
    uint64_t i = block;

    if (q2_refmap_next(&c->refs, block << c->s->geo.refblock_bits, &referred) == 0) {
        referred >>= c->s->geo.refblock_bits;
    } else {
        referred = UINT64_MAX;
    }
    while (i < c->s->refs.table_entries && i < referred && c->s->refs.table[i] == 0) {
        i++;
    }
    return i < c->s->refs.table_entries ? min_u64(i, referred) : referred;
}

int q2_check_compare_co(struct q2_check *c, unsigned fix)
{
    struct compare m = {.c = c, .fix = fix};
    uint64_t blocks = (c->clusters + c->s->geo.refblock_entries - 1) >> c->s->geo.refblock_bits;
    int ret = 0;

    q2_refmap_fini(&c->stored);
    for (uint64_t i = next_block(c, 0); ret == 0 && i < blocks; i = next_block(c, i + 1)) {
        ret = compare_one_co(&m, i);
        q2_check_step(c);
    }
    c->res->image_end_offset = m.highest << c->s->geo.cluster_bits;
    return ret;
}

/* ---- COPIED ---- */

struct copied {
    struct q2_check *c;
    bool mend;
};

/* As the file has it now; outside of it: 0. */
static uint64_t refcount_of(struct q2_check *c, uint64_t offset)
{
    uint64_t cluster = offset >> c->s->geo.cluster_bits;
    uint32_t stored = q2_refmap_get(&c->stored, cluster);

    return stored != 0 ? stored - 1 : q2_refmap_get(&c->refs, cluster);
}

/* Whether the flag of an entry must change. */
static bool copied_wrong(struct copied *m, uint64_t entry, uint64_t refcount)
{
    struct q2_check *c = m->c;

    if ((refcount == 1) == ((entry & Q2_COPIED) != 0)) {
        return false;
    }
    *(m->mend ? &c->res->corruptions_fixed : &c->res->corruptions) += 1;
    return true;
}

static int copied_table_co(struct copied *m, uint64_t offset)
{
    struct q2_check *c = m->c;
    const struct q2_geometry *geo = &c->s->geo;
    uint64_t from = UINT64_MAX, to = 0;
    int ret;

    if (offset >= c->file_bytes || geo->external_data) {
        return 0;
    }
    ret = q2_check_read_co(c, offset, c->table, geo->cluster_bytes);
    if (ret < 0) {
        q2_check_tell(c, "ERROR: I/O error while reading the L2 table at 0x%" PRIx64, offset);
        c->res->check_errors++;
        return 0;
    }
    for (uint32_t i = 0; i < geo->l2_entries; i++) {
        uint64_t at = (uint64_t)i * geo->l2_entry_bytes;
        struct q2_check_entry e;
        uint64_t refcount;

        q2_check_decode(geo, c->table + at, &e);
        if (e.compressed || !e.allocated) {
            continue;
        }
        refcount = refcount_of(c, e.offset);
        if (copied_wrong(m, e.raw, refcount)) {
            q2_check_tell(c, "%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64,
                          m->mend ? "Repairing" : "ERROR", e.raw, refcount);
            store_be64(c->table + at, e.raw ^ Q2_COPIED);
            from = min_u64(from, at);
            to = at + sizeof(uint64_t);
        }
    }
    if (m->mend && from < to) {
        ret = q2_check_write_co(c, Q2_OL_ACTIVE_L2, offset, from, to - from);
    }
    return ret;
}

int q2_check_copied_co(struct q2_check *c)
{
    const struct bdrv_check_result *res = c->res;
    const struct q2_l1 *l1 = q2_l1_get(c->s);
    struct copied m = {.c = c};
    int ret = 0;

    /* asked to mend leaks only, flags are mended where nothing else is wrong */
    m.mend = (c->fix & BDRV_FIX_ERRORS) != 0 ||
             (c->fix != 0 && res->check_errors == 0 && res->corruptions == 0 && res->leaks == 0);
    for (uint32_t i = 0; ret == 0 && l1 != NULL && i < l1->entries; i++) {
        uint64_t entry = q2_l1_entry(l1, i);
        uint64_t offset = entry & Q2_OFFSET_MASK;
        uint64_t refcount;

        if (offset == 0) {
            continue;
        }
        refcount = refcount_of(c, offset);
        if (copied_wrong(&m, entry, refcount)) {
            q2_check_tell(c,
                          "%s OFLAG_COPIED L2 cluster: l1_index=%" PRIu32 " l1_entry=%" PRIx64
                          " refcount=%" PRIu64,
                          m.mend ? "Repairing" : "ERROR", i, entry, refcount);
            if (m.mend) {
                q2_l1_set(c->s, i, entry ^ Q2_COPIED);
            }
        }
        if (is_aligned(offset, c->s->geo.cluster_bytes)) {
            ret = copied_table_co(&m, offset);
        }
        if (i % 1024 == 0) {
            q2_check_step(c);
        }
    }
    return ret;
}
