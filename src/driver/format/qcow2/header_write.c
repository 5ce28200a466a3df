/* SPDX-License-Identifier: MIT */
/*
 * The header's cluster in the file is changed so that a cut of power leaves the old or the new
 * header (W6).
 *
 * A disk writes a sector of 512 bytes whole or not at all. The first sector has all fields and says
 * where everything else of the header is; that is what the header "lives in": the fields and
 * extensions up to the end mark, and the name of the backing file. The rules:
 *  H1 a step changes either one sector, or only bytes that the header now in the file does not live
 *     in; a flush stands between steps.
 *  H2 where old and new header live in the same bytes, a detour is taken: what the old one needs is
 *     copied to where neither lives, the first sector is switched to the copy (a table of feature
 *     names whose length skips what is in between), the rest of the new header is written, then its
 *     first sector. Instead of the old one's, a copy of the new one may be made, where only that
 *     fits. Names of features may be lost by a cut on a detour; nothing relies on them.
 *  H3 each first sector is parsed together with the rest it will stand before, and must mean the
 *     old or the new header, before it is written.
 *
 * Not atomic: a header whose old and new names and extensions, and one copy, do not fit into the
 * cluster together (clusters of 1 or 2 KiB with long names), or with so many unknown fields that
 * its extensions begin behind the first sector, or that cannot be parsed (repair). It is written
 * rest first, then its first sector.
 */
#include <errno.h>
#include <string.h>

#include "util/error.h"

#include "header_int.h"
#include "overlap.h"

/* Of the header in some bytes. */
struct live {
    uint64_t extensions_end;
    uint64_t name_at; /* with name_bytes 0: none */
    uint64_t name_bytes;
};

/* Buffers are a cluster each, owned. */
struct change {
    struct qcow2 *s;
    size_t bytes;
    uint8_t *file;    /* what the file has */
    uint8_t *want;    /* what it shall have */
    uint8_t *mix;     /* scratch */
    uint8_t *meaning; /* scratch */
    uint8_t *plan;    /* of the detour: the file with the copy in it */
    bool old_known;
    struct q2_header old; /* of file, when the change began */
    struct live from, to;
};

static struct live live_of(const struct q2_header *h)
{
    return (struct live){
        .extensions_end = h->extensions_end,
        .name_at = h->backing_file_offset,
        .name_bytes = h->backing_file != NULL ? strlen(h->backing_file) : 0,
    };
}

static uint64_t live_end(const struct live *live)
{
    return max_u64(live->extensions_end, live->name_at + live->name_bytes);
}

static bool lives_at(const struct live *live, uint64_t at)
{
    return at < live->extensions_end ||
           (at >= live->name_at && at - live->name_at < live->name_bytes);
}

/* ---- what bytes mean ---- */

/* h as bytes, without names of features: two headers mean the same when these are the same. */
static bool canonical(struct q2_header *h, uint8_t *buf, size_t cluster_bytes)
{
    size_t used;

    return q2_header_build_as(h, false, buf, cluster_bytes, &used, NULL) == 0;
}

/* Whether first, standing before the rest of rest, means h (H3): 1, 0 or -ENOMEM. */
static int means(struct change *c, const uint8_t *first, const uint8_t *rest,
                 const struct q2_header *h)
{
    struct q2_header parsed, copy;
    bool same;
    int rc;

    memcpy(c->mix, first, Q2_SECTOR);
    memcpy(c->mix + Q2_SECTOR, rest + Q2_SECTOR, c->bytes - Q2_SECTOR);
    rc = q2_header_parse(c->mix, c->bytes, UINT64_MAX, &parsed, NULL);
    if (rc == 0) {
        rc = q2_header_copy(h, &copy);
    }
    if (rc < 0) {
        q2_header_fini(&parsed);
        return rc == -ENOMEM ? rc : 0;
    }
    same = canonical(&parsed, c->mix, c->bytes) && canonical(&copy, c->meaning, c->bytes) &&
           memcmp(c->mix, c->meaning, c->bytes) == 0;
    q2_header_fini(&parsed);
    q2_header_fini(&copy);
    return same;
}

/* ---- writing ---- */

/* Bring [from, to) of buf to the file. */
static int put_co(struct change *c, const uint8_t *buf, size_t from, size_t to)
{
    int rc = bdrv_edge_write_co(c->s->file, from, buf + from, to - from, 0);

    if (rc == 0) {
        memcpy(c->file + from, buf + from, to - from);
    }
    return rc;
}

static int flush_co(struct change *c)
{
    return bdrv_edge_flush_co(c->s->file);
}

/* The sectors behind the first that are to change: [*ret_from, *ret_to), empty when none is. */
static void rest_range(const struct change *c, size_t *ret_from, size_t *ret_to)
{
    size_t from = Q2_SECTOR, to = c->bytes;

    while (from < to && memcmp(c->file + from, c->want + from, Q2_SECTOR) == 0) {
        from += Q2_SECTOR;
    }
    while (to > from &&
           memcmp(c->file + to - Q2_SECTOR, c->want + to - Q2_SECTOR, Q2_SECTOR) == 0) {
        to -= Q2_SECTOR;
    }
    *ret_from = from;
    *ret_to = to;
}

static int put_rest_co(struct change *c)
{
    size_t from, to;

    rest_range(c, &from, &to);
    return from < to ? put_co(c, c->want, from, to) : 0;
}

static int put_first_co(struct change *c, const uint8_t *buf)
{
    int rc = flush_co(c);

    if (rc == 0) {
        rc = put_co(c, buf, 0, Q2_SECTOR);
    }
    return rc == 0 ? flush_co(c) : rc;
}

static bool first_differs(const struct change *c)
{
    return memcmp(c->file, c->want, Q2_SECTOR) != 0;
}

/* Whether no byte that is to change behind the first sector is one that live lives in. */
static bool rest_is_free(const struct change *c, const struct live *live)
{
    for (size_t i = Q2_SECTOR; i < c->bytes; i++) {
        if (c->file[i] != c->want[i] && lives_at(live, i)) {
            return false;
        }
    }
    return true;
}

/* ---- the detour (H2) ---- */

struct detour {
    uint8_t first[Q2_SECTOR]; /* that refers to the copy */
    size_t at;                /* of the copy */
    size_t bytes;
};

/* Put a copy of h's extensions and name into c->plan. 1, 0 where it does not fit, -ENOMEM. */
static int detour_plan(struct change *c, const struct q2_header *h, struct detour *d)
{
    struct q2_header copy;
    size_t head, used;
    int rc = q2_header_copy(h, &copy);

    if (rc < 0) {
        return rc;
    }
    d->at =
        align_up(max_u64(max_u64(live_end(&c->from), live_end(&c->to)), Q2_SECTOR), Q2_EXT_ALIGN);
    rc = q2_header_build_as(&copy, false, c->mix, c->bytes, &used, NULL);
    head = copy.header_bytes;
    d->bytes = used - head;
    if (rc == 0 && head + Q2_EXT_HEAD_BYTES <= Q2_SECTOR &&
        range_inside(d->at, d->bytes, c->bytes)) {
        memset(d->first, 0, Q2_SECTOR);
        memcpy(d->first, c->mix, head);
        store_be32(d->first + head, Q2_EXT_FEATURE_NAMES);
        store_be32(d->first + head + 4, (uint32_t)(d->at - head - Q2_EXT_HEAD_BYTES));
        if (copy.backing_file_offset != 0) {
            store_be64(d->first + 8, d->at + (copy.backing_file_offset - head));
        }
        memcpy(c->plan, c->file, c->bytes);
        memcpy(c->plan + d->at, c->mix + head, d->bytes);
        rc = 1;
    }
    q2_header_fini(&copy);
    return rc < 0 && rc != -ENOMEM ? 0 : rc;
}

/* Before and after the new header's rest has been written, first and its copy must mean h. */
static int detour_verify(struct change *c, const struct q2_header *h, const struct detour *d)
{
    int rc = means(c, d->first, c->plan, h);

    if (rc <= 0) {
        return rc;
    }
    memcpy(c->plan + Q2_SECTOR, c->want + Q2_SECTOR, d->at - Q2_SECTOR);
    return means(c, d->first, c->plan, h);
}

/* By way of a copy of h, which is the old or the new header. 1 when the file has the new one, 0:
 * that is no way, nothing was changed; or -errno. */
static int detour_co(struct change *c, const struct q2_header *h)
{
    struct detour d;
    int rc = detour_plan(c, h, &d);

    if (rc > 0) {
        rc = detour_verify(c, h, &d);
    }
    if (rc <= 0) {
        return rc;
    }
    rc = put_co(c, c->plan, d.at, d.at + d.bytes);
    if (rc == 0) {
        rc = put_first_co(c, d.first);
    }
    if (rc == 0 && d.at > Q2_SECTOR) {
        rc = put_co(c, c->want, Q2_SECTOR, d.at);
    }
    if (rc == 0) {
        rc = put_first_co(c, c->want);
    }
    if (rc == 0) {
        rc = put_rest_co(c); /* the copy goes; nobody lives there */
    }
    return rc < 0 ? rc : 1;
}

/* ---- which way ---- */

/* Rest first, or the first sector first, where the old or the new header does not live in what
 * changes. 1, 0, -errno as detour_co. */
static int straight_co(struct change *c)
{
    int rc = rest_is_free(c, &c->from) ? means(c, c->file, c->want, &c->old) : 0;

    if (rc > 0) {
        rc = put_rest_co(c);
        if (rc == 0) {
            rc = put_first_co(c, c->want);
        }
        return rc < 0 ? rc : 1;
    }
    if (rc == 0 && rest_is_free(c, &c->to)) {
        rc = means(c, c->want, c->file, &c->s->header);
    }
    if (rc > 0) {
        rc = put_first_co(c, c->want);
        if (rc == 0) {
            rc = put_rest_co(c);
        }
        return rc < 0 ? rc : 1;
    }
    return rc;
}

static int one_sector_co(struct change *c)
{
    int rc;

    if (first_differs(c)) {
        return put_first_co(c, c->want);
    }
    rc = flush_co(c);
    if (rc == 0) {
        rc = put_rest_co(c);
    }
    return rc == 0 ? flush_co(c) : rc;
}

static int change_co(struct change *c)
{
    size_t from, to;
    int rc = 0;

    rest_range(c, &from, &to);
    if (to - from + (first_differs(c) ? Q2_SECTOR : 0) <= Q2_SECTOR) {
        return one_sector_co(c);
    }
    if (c->old_known) {
        rc = straight_co(c);
        if (rc == 0) {
            rc = detour_co(c, &c->old);
        }
        if (rc == 0) {
            rc = detour_co(c, &c->s->header);
        }
    }
    if (rc != 0) {
        return rc < 0 ? rc : 0;
    }
    rc = put_rest_co(c);
    return rc == 0 ? put_first_co(c, c->want) : rc;
}

/* ---- exported ---- */

static void change_fini(struct change *c)
{
    uint8_t *all[] = {c->file, c->want, c->mix, c->meaning, c->plan};

    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        bdrv_buffer_free(c->s->bs, all[i], c->bytes);
    }
    q2_header_fini(&c->old);
}

static int change_init(struct change *c, struct qcow2 *s)
{
    uint8_t **all[] = {&c->file, &c->want, &c->mix, &c->meaning, &c->plan};
    int rc = 0;

    *c = (struct change){.s = s, .bytes = s->geo.cluster_bytes};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        *all[i] = bdrv_buffer_alloc(s->bs, c->bytes);
        rc = *all[i] == NULL ? -ENOMEM : rc;
    }
    return rc;
}

static int read_old_co(struct change *c, Error **errp)
{
    int64_t file_bytes = bdrv_edge_getlength(c->s->file);
    size_t bytes = file_bytes < 0 ? 0 : (size_t)min_u64((uint64_t)file_bytes, c->bytes);
    int rc;

    memset(c->file, 0, c->bytes);
    rc = file_bytes < 0 ? (int)file_bytes : bdrv_edge_read_co(c->s->file, 0, c->file, bytes);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "Could not read the header");
    }
    rc = q2_header_parse(c->file, c->bytes, UINT64_MAX, &c->old, NULL);
    c->old_known = rc == 0;
    if (rc == 0) {
        c->from = live_of(&c->old);
    }
    return rc == -ENOMEM ? error_set(errp, ENOMEM, "out of memory") : 0;
}

static int header_write_co(struct qcow2 *s, struct change *c, Error **errp)
{
    size_t used;
    int rc = read_old_co(c, errp);

    if (rc == 0) {
        rc = q2_header_build(&s->header, c->want, c->bytes, &used, errp);
    }
    if (rc < 0) {
        return rc;
    }
    c->to = live_of(&s->header);
    rc = change_co(c);
    return rc < 0 ? error_set_errno(errp, -rc, "Could not write the header") : 0;
}

int q2_header_write_co(struct qcow2 *s, Error **errp)
{
    struct change c;
    int rc =
        s->overlap != NULL ? q2_overlap_check_co(s, Q2_OL_MAIN_HEADER, 0, s->geo.cluster_bytes) : 0;

    if (rc < 0) {
        return error_set_errno(errp, -rc, "Could not write the header");
    }
    rc = change_init(&c, s);
    if (rc < 0) {
        change_fini(&c);
        return error_set(errp, ENOMEM, "out of memory");
    }
    co_mutex_lock(&s->header_lock);
    rc = header_write_co(s, &c, errp);
    s->header_unsure = rc < 0;
    co_mutex_unlock(&s->header_lock);
    change_fini(&c);
    return rc;
}

/* The header lock is held. */
static int bits_write_co(struct qcow2 *s, uint64_t incompatible, uint64_t autoclear, bool clears)
{
    uint8_t *buf = bdrv_buffer_alloc(s->bs, Q2_SECTOR);
    int rc = buf == NULL ? -ENOMEM : 0;

    if (rc == 0 && clears) {
        rc = bdrv_edge_flush_co(s->file); /* what the bits warned of is durable first */
    }
    if (rc == 0) {
        rc = bdrv_edge_read_co(s->file, 0, buf, Q2_SECTOR);
    }
    if (rc == 0 && (load_be32(buf) != Q2_MAGIC || load_be32(buf + 4) != s->header.version)) {
        rc = -EIO; /* somebody else wrote there */
    }
    if (rc == 0) {
        store_be64(buf + 72, incompatible);
        store_be64(buf + 88, autoclear);
        rc = bdrv_edge_write_co(s->file, 0, buf, Q2_SECTOR, 0);
    }
    if (rc == 0) {
        rc = bdrv_edge_flush_co(s->file);
    }
    bdrv_buffer_free(s->bs, buf, Q2_SECTOR);
    return rc;
}

int q2_header_bits_co(struct qcow2 *s, uint64_t incompatible_set, uint64_t incompatible_clear,
                      uint64_t autoclear_clear)
{
    uint64_t incompatible, autoclear;
    int rc = 0;

    if (s->geo.version < 3) {
        return 0; /* there are none */
    }
    co_mutex_lock(&s->header_lock);
    incompatible = (s->header.incompatible | incompatible_set) & ~incompatible_clear;
    autoclear = s->header.autoclear & ~autoclear_clear;
    if (incompatible != s->header.incompatible || autoclear != s->header.autoclear ||
        s->header_unsure) {
        rc = bits_write_co(s, incompatible, autoclear, (incompatible_clear | autoclear_clear) != 0);
        s->header_unsure = rc < 0;
    }
    if (rc == 0) {
        /* q2_header_incompatible looks without the lock */
        __atomic_store_n(&s->header.incompatible, incompatible, __ATOMIC_RELAXED);
        s->header.autoclear = autoclear;
    }
    co_mutex_unlock(&s->header_lock);
    return rc;
}
