/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters: several share a cluster of the file, and one may lie across two. Each is
 * moved by itself, the last first, and the copies are packed as new ones are. An entry says in
 * sectors how long it is; where the next one begins before their end, it is tried whether it can be
 * read without what is behind that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compact_int.h"
#include "compress.h"
#include "entry.h"
#include "overlap.h"

static int compare(const void *a, const void *b)
{
    const struct q2_blob *x = a, *y = b;

    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    return x->word < y->word ? -1 : x->word > y->word;
}

void q2_blobs_sort(struct q2_compact *c)
{
    size_t n = 0;

    qsort(c->blobs, c->blobs_count, sizeof(*c->blobs), compare);
    for (size_t i = 0; i < c->blobs_count; i++) {
        if (n > 0 && c->blobs[n - 1].word == c->blobs[i].word) {
            c->blobs[n - 1].times += c->blobs[i].times;
        } else {
            c->blobs[n++] = c->blobs[i];
        }
    }
    c->blobs_count = n;
}

void q2_blob_note(struct q2_compact *c, uint64_t word, uint64_t times)
{
    unsigned bits = c->s->geo.cluster_bits;
    uint64_t offset = q2_compressed_offset(&c->s->geo, word);
    uint64_t first = offset >> bits;
    uint64_t last = (offset + q2_compressed_bytes(&c->s->geo, word) - 1) >> bits;

    if (last < c->low || first >= c->high) {
        return;
    }
    for (uint64_t i = max_u64(first, c->low); i <= min_u64(last, c->high - 1); i++) {
        c->kinds[i - c->low] |= Q2_COMPACT_PACKED;
    }
    if (c->blobs_count == Q2_COMPACT_BLOBS_MAX && !c->blobs_overflow) {
        q2_blobs_sort(c); /* those that snapshots share become one */
        c->blobs_overflow = c->blobs_count > Q2_COMPACT_BLOBS_MAX / 2;
    }
    if (!c->blobs_overflow) {
        c->blobs[c->blobs_count++] =
            (struct q2_blob){.offset = offset, .word = word, .times = times};
    }
}

uint64_t q2_blob_now(const struct q2_compact *c, uint64_t word)
{
    struct q2_blob key = {.offset = q2_compressed_offset(&c->s->geo, word), .word = word};
    const struct q2_blob *b = bsearch(&key, c->blobs, c->blobs_count, sizeof(key), compare);

    return b != NULL ? b->now : 0;
}

static void no_packing_co(struct qcow2 *s)
{
    co_mutex_lock(&s->refs.lock);
    s->refs.packed_end = 0;
    co_mutex_unlock(&s->refs.lock);
}

/* *ret_offset 0: it stays. */
static int place_co(struct q2_compact *c, const struct q2_blob *b, uint32_t bytes,
                    uint64_t *ret_offset)
{
    struct qcow2 *s = c->s;
    uint64_t offset;
    int rc = q2_alloc_packed_co(s, bytes, &offset);
    bool fits;

    *ret_offset = 0;
    if (rc < 0) {
        return rc;
    }
    fits = (offset + bytes - 1) >> s->geo.cluster_bits < c->limit;
    c->full = c->full || !fits;
    if (fits && b->times > 1) {
        rc = q2_refcount_add_co(s, offset, bytes, (int)min_u64(b->times - 1, INT32_MAX));
        fits = rc == 0;
        rc = rc == -ERANGE ? 0 : rc; /* narrow refcounts: no more on that cluster */
    }
    if (!fits) {
        q2_unalloc_co(s, offset, bytes);
        no_packing_co(s);
        return rc;
    }
    *ret_offset = offset;
    return 0;
}

struct trial {
    const struct q2_compact *c;
    uint32_t bytes;
};

static int64_t trial_run(void *opaque)
{
    const struct trial *t = opaque;

    return q2_decompress((enum q2_compression)t->c->s->header.compression_type, t->c->buf, t->bytes,
                         t->c->w.table, t->c->s->geo.cluster_bytes);
}

/* To c->buf; *ret_bytes: how many of them are needed, as far as can be told. */
static int read_co(struct q2_compact *c, const struct q2_blob *b, uint32_t *ret_bytes)
{
    uint32_t bytes = q2_compressed_bytes(&c->s->geo, b->word);
    int64_t file_bytes = bdrv_edge_getlength(c->s->file);
    struct trial t = {.c = c};
    int rc;

    if (file_bytes < 0) {
        return (int)file_bytes;
    }
    bytes =
        (uint32_t)min_u64(bytes, (uint64_t)file_bytes - min_u64((uint64_t)file_bytes, b->offset));
    *ret_bytes = bytes;
    rc = bytes > 0 ? bdrv_edge_read_co(c->s->file, b->offset, c->buf, bytes) : 0;
    if (rc == 0 && b + 1 < c->blobs + c->blobs_count && b[1].offset > b->offset &&
        b[1].offset < b->offset + bytes) {
        t.bytes = (uint32_t)(b[1].offset - b->offset);
        *ret_bytes = aio_compute_co(trial_run, &t) == 0 ? t.bytes : bytes;
    }
    return rc;
}

static int copy_co(struct q2_compact *c, struct q2_blob *b)
{
    const struct q2_geometry *geo = &c->s->geo;
    uint32_t bytes = 0;
    uint64_t word;
    uint64_t offset;
    int rc;

    rc = read_co(c, b, &bytes);
    if (rc < 0 || bytes == 0 || bytes > geo->cluster_bytes) {
        return rc; /* it stays: no new one is as long */
    }
    rc = place_co(c, b, bytes, &offset);
    if (rc < 0 || offset == 0) {
        return rc;
    }
    word = q2_compressed_word(geo, offset, bytes);
    if (word != 0) {
        rc = q2_overlap_check_co(c->s, Q2_OL_NONE, offset, bytes);
        rc = rc == 0 ? bdrv_edge_write_co(c->s->file, offset, c->buf, bytes, 0) : rc;
    }
    if (word == 0 || rc < 0) {
        q2_compact_lower_co(c, offset, bytes, b->times);
        no_packing_co(c->s);
        return rc;
    }
    b->now = word;
    q2_compact_turn_co(c, bytes);
    return 0;
}

int q2_blobs_copy_co(struct q2_compact *c)
{
    int rc = 0;

    no_packing_co(c->s);
    for (size_t i = c->blobs_count; rc == 0 && i-- > 0 && !c->full && c->cancelled == 0;) {
        while ((rc = copy_co(c, &c->blobs[i])) < 0) {
            rc = c->calls->retry_co(c->calls->opaque, false, rc);
            if (rc < 0) {
                break;
            }
        }
    }
    no_packing_co(c->s);
    return rc;
}

void q2_blobs_release_co(struct q2_compact *c, bool undo)
{
    for (size_t i = 0; i < c->blobs_count; i++) {
        const struct q2_blob *b = &c->blobs[i];
        uint64_t word = undo ? b->now : b->word;

        if (b->now != 0) {
            q2_compact_lower_co(c, q2_compressed_offset(&c->s->geo, word),
                                q2_compressed_bytes(&c->s->geo, word), b->times);
        }
    }
}
