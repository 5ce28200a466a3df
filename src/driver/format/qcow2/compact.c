/* SPDX-License-Identifier: MIT */
/*
 * Giving space back in place (compact_int.h says how what is moved stays whole): leaks go, the end
 * of the file is moved into free clusters in front of it and cut, and what is still free in
 * between is discarded in the file.
 *
 * Moving frees refcount blocks, and may leave a table that found no place in one piece, so it is
 * done again as long as the file gets shorter.
 */
#include <errno.h>
#include <inttypes.h>

#include "util/error.h"
#include "util/iov.h"

#include "check.h"
#include "compact_int.h"
#include "entry.h"
#include "io.h"
#include "l1.h"
#include "overlap.h"
#include "refcount_int.h"
#include "resize.h"
#include "tree.h"

#define PASSES_MAX 8
#define HOLE_BYTES 4096 /* what file systems keep holes in units of */
/* Each window reads all L2 tables twice: it is so much larger than they are. */
#define WINDOW_TIMES_TABLES 16
#define WINDOW_BYTES_MIN (UINT64_C(64) << 20)
#define WINDOW_CLUSTERS_MAX (UINT64_C(1) << 20)

/* ---- what all its files use ---- */

void q2_compact_turn_co(struct q2_compact *c, uint64_t bytes)
{
    c->res->moved_bytes += bytes;
    if (c->cancelled == 0) {
        c->cancelled = c->calls->turn_co(c->calls->opaque, bytes);
    }
}

int q2_compact_try_co(struct q2_compact *c, bool reading, int (*step)(struct q2_compact *c))
{
    int rc = step(c);

    while (rc < 0 && (rc = c->calls->retry_co(c->calls->opaque, reading, rc)) == 0) {
        rc = step(c);
    }
    return rc;
}

int q2_compact_settle_co(struct q2_compact *c)
{
    int rc = q2_commit_co(c->s, true);

    return rc == 0 ? q2_free_all_co(c->s) : rc;
}

static void forget_hints_co(struct qcow2 *s)
{
    co_mutex_lock(&s->refs.lock);
    s->refs.free_hint = 0;
    s->refs.packed_end = 0; /* it may be in the tail */
    co_mutex_unlock(&s->refs.lock);
}

int q2_compact_alloc_co(struct q2_compact *c, uint64_t count, uint64_t end, uint64_t *ret_offset)
{
    uint64_t offset;
    int rc = q2_alloc_clusters_co(c->s, count, &offset);

    *ret_offset = 0;
    if (rc == 0 && (offset >> c->s->geo.cluster_bits) + count > end) {
        q2_unalloc_co(c->s, offset, count << c->s->geo.cluster_bits);
    } else if (rc == 0) {
        *ret_offset = offset;
    }
    return rc;
}

void q2_compact_lower_co(struct q2_compact *c, uint64_t offset, uint64_t bytes, uint64_t times)
{
    while (times > 0) {
        int n = (int)min_u64(times, INT32_MAX);

        (void)q2_refcount_add_co(c->s, offset, bytes, -n);
        times -= (uint64_t)n;
    }
}

/* How many bytes of the buffer are alike, zeroes that a file may keep as a hole or not; at is where
 * they come in the file. */
static uint64_t alike_bytes(const uint8_t *buf, uint64_t at, uint64_t bytes, bool *ret_zero)
{
    uint64_t n = 0;

    *ret_zero = false;
    while (n < bytes) {
        uint64_t step = min_u64(HOLE_BYTES - ((at + n) & (HOLE_BYTES - 1)), bytes - n);
        bool zero = step == HOLE_BYTES && buffer_is_zero(buf + n, HOLE_BYTES);

        if (n > 0 && zero != *ret_zero) {
            break;
        }
        *ret_zero = zero;
        n += step;
    }
    return n;
}

/* What was a hole inside of a cluster, or could be one, takes no space where it comes to. */
static int write_copy_co(struct q2_compact *c, uint64_t to, uint64_t bytes)
{
    BdrvEdge *file = c->s->file;
    int rc = 0;

    for (uint64_t done = 0, n; rc == 0 && done < bytes; done += n) {
        bool zero;

        n = alike_bytes(c->buf + done, to + done, bytes - done, &zero);
        rc = zero ? bdrv_edge_write_zeroes_co(file, to + done, n, BDRV_REQ_MAY_UNMAP)
                  : bdrv_edge_write_co(file, to + done, c->buf + done, n, 0);
    }
    return rc;
}

int q2_compact_copy_co(struct q2_compact *c, uint64_t from, uint64_t to, uint64_t bytes)
{
    int64_t file_bytes = bdrv_edge_getlength(c->s->file);
    int rc = file_bytes < 0 ? (int)file_bytes : 0;

    for (uint64_t done = 0; rc == 0 && done < bytes;) {
        uint64_t n = min_u64(bytes - done, c->buf_bytes);
        uint64_t there = (uint64_t)file_bytes - min_u64((uint64_t)file_bytes, from + done);

        there = min_u64(there, n); /* the last cluster need not be whole */
        memset(c->buf + there, 0, n - there);
        if (there > 0) {
            rc = bdrv_edge_read_co(c->s->file, from + done, c->buf, there);
        }
        rc = rc == 0 ? q2_overlap_check_co(c->s, Q2_OL_NONE, to + done, n) : rc;
        rc = rc == 0 ? write_copy_co(c, to + done, n) : rc;
        done += n;
    }
    return rc;
}

/* ---- counting ---- */

/* The next clusters in a row, from *first on and in front of end, that are free or not; *ret_count
 * 0: there are none. Runs end at those of refcount blocks. refs.lock is held. */
static int next_run_co(struct qcow2 *s, bool is_free, uint64_t end, uint64_t *first,
                       uint64_t *ret_count)
{
    *ret_count = 0;
    while (*first < end && *ret_count == 0) {
        uint64_t at = *first & (s->geo.refblock_entries - 1);
        uint64_t n = min_u64(s->geo.refblock_entries, at + (end - *first));
        uint64_t from = is_free ? at : n;
        uint64_t to = n;
        struct q2_refblock *b;
        int rc = q2_refblock_get_co(s, q2_refblock_index(s, *first), &b);

        if (rc < 0) {
            return rc;
        }
        if (b != NULL) {
            from = q2_refbits_find(b->data, s->geo.refcount_order, at, n, is_free);
            to = q2_refbits_find(b->data, s->geo.refcount_order, from, n, !is_free);
        }
        *first += from - at;
        *ret_count = to - from;
    }
    return 0;
}

static int count_used_co(struct qcow2 *s, uint64_t from, uint64_t end, uint64_t *ret_used)
{
    uint64_t count = 1;
    int rc = 0;

    *ret_used = 0;
    co_mutex_lock(&s->refs.lock);
    while (rc == 0 && count > 0) {
        rc = next_run_co(s, false, end, &from, &count);
        from += count;
        *ret_used += count;
    }
    co_mutex_unlock(&s->refs.lock);
    return rc;
}

static int measure_co(struct q2_compact *c, uint64_t *ret_end, uint64_t *ret_used)
{
    uint64_t end;
    int rc = q2_file_end_co(c->s, &end);

    *ret_end = end >> c->s->geo.cluster_bits;
    return rc == 0 ? count_used_co(c->s, 0, *ret_end, ret_used) : rc;
}

/* ---- leaks ---- */

static int try_check_co(struct q2_compact *c, unsigned fix, struct bdrv_check_result *ret,
                        Error **errp)
{
    struct bdrv_check_options options = {.size = sizeof(options), .fix = fix};

    for (;;) {
        Error *err = NULL;
        int rc = q2_check_co(c->s, &options, ret, &err);

        rc = rc < 0 ? c->calls->retry_co(c->calls->opaque, fix == 0, rc) : 1;
        if (rc != 0) {
            error_propagate(errp, err);
            return rc < 0 ? rc : 0;
        }
        error_free(err);
    }
}

static int check_co(struct q2_compact *c, bool dry_run, Error **errp)
{
    struct bdrv_check_result found = {0};
    int rc = try_check_co(c, 0, &found, errp);

    if (rc < 0) {
        return rc;
    }
    if (found.corruptions > 0 || found.check_errors > 0) {
        rc = error_set(errp, EIO, "The image is corrupt or cannot be read as a whole");
        error_set_hint(errp, "Look at it with 'check', which can mend it with '-r all'");
        return rc;
    }
    c->res->leaked_bytes = found.leaks << c->s->geo.cluster_bits;
    return dry_run || found.leaks == 0 ? 0 : try_check_co(c, BDRV_FIX_LEAKS, &found, errp);
}

/* ---- one pass ---- */

static uint64_t window_clusters(const struct qcow2 *s)
{
    uint64_t tables = 0;
    uint64_t n = WINDOW_BYTES_MIN >> s->geo.cluster_bits;

    for (uint32_t i = 0; i < s->header.l1_entries; i++) {
        tables += i < q2_l1_get(s)->entries && q2_l1_table(q2_l1_entry(q2_l1_get(s), i)) != 0;
    }
    n = max_u64(n, tables * WINDOW_TIMES_TABLES);
    return min_u64(n, WINDOW_CLUSTERS_MAX);
}

static int windows_co(struct q2_compact *c, uint64_t end, Error **errp)
{
    int rc = 0;

    while (rc == 0 && end > c->limit && !c->full && c->cancelled == 0) {
        c->high = end;
        c->low = max_u64(c->limit, end - min_u64(end, c->room));
        rc = q2_compact_window_co(c, errp);
        end = c->low;
    }
    return rc;
}

static int pass_co(struct q2_compact *c, uint64_t end, uint64_t used, Error **errp)
{
    uint64_t tail;
    int rc;

    c->limit = used - min_u64(used - 1, q2_compact_long_tables(c, used));
    c->full = false;
    forget_hints_co(c->s);
    rc = count_used_co(c->s, c->limit, end, &tail);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot read the refcounts");
    }
    c->calls->planned(c->calls->opaque, tail << c->s->geo.cluster_bits);
    rc = windows_co(c, end, errp);
    if (rc == 0 && c->cancelled == 0) {
        rc = q2_compact_meta_co(c, errp);
    }
    forget_hints_co(c->s);
    if (rc == 0) {
        q2_file_trim_co(c->s);
    }
    return rc;
}

static int passes_co(struct q2_compact *c, Error **errp)
{
    uint64_t before = UINT64_MAX;
    uint64_t end, used;
    int rc = 0;

    q2_file_trim_co(c->s);
    for (unsigned i = 0; rc == 0; i++) {
        q2_compact_turn_co(c, 0);
        rc = measure_co(c, &end, &used);
        if (rc < 0) {
            return error_set_errno(errp, -rc, "cannot read the refcounts");
        }
        c->res->end_bytes = end << c->s->geo.cluster_bits;
        c->res->free_bytes = (end - used) << c->s->geo.cluster_bits;
        if (end <= used || end >= before || i == PASSES_MAX || c->cancelled != 0) {
            break;
        }
        before = end;
        rc = pass_co(c, end, used, errp);
    }
    return rc == 0 ? c->cancelled : rc;
}

/* ---- holes ---- */

static int punch_co(struct q2_compact *c, Error **errp)
{
    uint64_t end = c->res->end_bytes >> c->s->geo.cluster_bits;
    uint64_t first = 0;
    uint64_t count = 1;
    int rc = 0;

    while (rc == 0 && c->cancelled == 0) {
        co_mutex_lock(&c->s->refs.lock);
        rc = next_run_co(c->s, true, end, &first, &count);
        co_mutex_unlock(&c->s->refs.lock);
        if (rc < 0 || count == 0) {
            break;
        }
        (void)bdrv_edge_discard_co(c->s->file, first << c->s->geo.cluster_bits,
                                   count << c->s->geo.cluster_bits); /* a hint */
        first += count;
        q2_compact_turn_co(c, 0);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "cannot read the refcounts") : c->cancelled;
}

/* What the disk does not have in an external data file, which is the guest clusters' alone. */
static int punch_data_co(struct q2_compact *c, Error **errp)
{
    uint64_t disk = q2_disk_bytes(c->s);
    int rc = 0;

    for (uint64_t at = 0; rc == 0 && at < disk && c->cancelled == 0;) {
        struct q2_extent e;
        q2_token token = q2_enter_co(c->s);

        rc = q2_map_co(c->s, at, disk - at, &e);
        q2_leave(c->s, token);
        if (rc < 0) {
            return error_set_errno(errp, -rc, "cannot read the L2 tables");
        }
        if (e.host == UINT64_MAX && e.kind != Q2_COMPRESSED_DATA) {
            (void)bdrv_edge_discard_co(c->s->data, at, min_u64(e.bytes, disk - at));
        }
        at += e.bytes;
        q2_compact_turn_co(c, 0);
    }
    return rc == 0 ? c->cancelled : rc;
}

/* ---- all of it ---- */

static int begin_co(struct q2_compact *c, Error **errp)
{
    struct qcow2 *s = c->s;
    int rc = q2_walk_begin_co(s, &c->w, errp);

    if (rc < 0) {
        return rc;
    }
    c->room = window_clusters(s);
    c->buf_bytes = max_u64(s->geo.cluster_bytes, Q2_COMPACT_BUF_BYTES);
    c->to = bdrv_buffer_alloc(s->bs, c->room * sizeof(*c->to));
    c->kinds = bdrv_buffer_alloc(s->bs, c->room);
    c->blobs = bdrv_buffer_alloc(s->bs, Q2_COMPACT_BLOBS_MAX * sizeof(*c->blobs));
    c->buf = bdrv_buffer_alloc(s->bs, c->buf_bytes);
    q2_refmap_init(&c->seen, bdrv_budget(s->bs));
    if (c->to == NULL || c->kinds == NULL || c->blobs == NULL || c->buf == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    return 0;
}

static void free_all(struct q2_compact *c)
{
    BlockDriverState *bs = c->s->bs;

    if (c->w.s == NULL) {
        return;
    }
    q2_walk_end(&c->w);
    bdrv_buffer_free(bs, c->to, c->room * sizeof(*c->to));
    bdrv_buffer_free(bs, c->kinds, c->room);
    bdrv_buffer_free(bs, c->blobs, Q2_COMPACT_BLOBS_MAX * sizeof(*c->blobs));
    bdrv_buffer_free(bs, c->buf, c->buf_bytes);
    q2_refmap_fini(&c->seen);
}

static int estimate_co(struct q2_compact *c, Error **errp)
{
    uint64_t end_at, used;
    int rc = measure_co(c, &end_at, &used);

    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot read the refcounts");
    }
    c->res->end_bytes = (used << c->s->geo.cluster_bits) - c->res->leaked_bytes;
    return 0;
}

static int compact_all_co(struct q2_compact *c, Error **errp)
{
    int rc = q2_settle_co(c->s, errp);

    /* lazy refcounts are written, and the image is a clean one, before anything is moved */
    if (rc == 0 && q2_commit_clean_co(c->s) < 0) {
        rc = error_set(errp, EIO, "cannot write the image's metadata");
    }
    c->s->opt.lazy_refcounts = false;
    rc = rc == 0 ? check_co(c, false, errp) : rc;
    rc = rc == 0 ? begin_co(c, errp) : rc;
    rc = rc == 0 ? passes_co(c, errp) : rc;
    rc = rc == 0 ? punch_co(c, errp) : rc;
    if (rc == 0 && c->s->geo.external_data && c->s->data != NULL) {
        rc = punch_data_co(c, errp);
    }
    free_all(c);
    return rc;
}

int q2_compact_co(BlockDriverState *bs, const struct bdrv_compact_calls *calls, bool dry_run,
                  struct bdrv_compact_result *ret_result, Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    struct q2_compact c = {.s = s, .calls = calls, .res = ret_result};
    bool lazy = s->opt.lazy_refcounts;
    int rc;

    if (s->snapshot_shown) {
        return error_set(errp, ENOTSUP, "an internal snapshot is shown");
    }
    if (dry_run) {
        rc = check_co(&c, true, errp);
        return rc == 0 ? estimate_co(&c, errp) : rc;
    }
    rc = compact_all_co(&c, errp);
    s->opt.lazy_refcounts = lazy;
    return rc;
}
