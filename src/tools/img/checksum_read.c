/* SPDX-License-Identifier: MIT */
/*
 * Reading a disk for its hash. The walk asks for block status and gives each chunk that may hold
 * data to a child coroutine; children read, and hash on worker threads, side by side. What has an
 * order (the nodes of the tree, the bytes of a flat hash) is done in turn: a child keeps its buffer
 * until those before it are done, so there are never more than PIECES_MAX of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <gnutls/crypto.h>
#include <platter/coroutine.h>
#include <platter/platter.h>

#include "loop/co_group.h"
#include "loop/io.h"
#include "tools/disk.h"
#include "tools/img/checksum_read.h"
#include "util/checked.h"

#define PIECES_MAX CO_GROUP_CHILDREN_MAX
#define CHUNK TREE_HASH_CHUNK_BYTES
#define FLAT_ZEROES_MAX (64 * CHUNK) /* hashed at a time, so that progress is told */

struct reading;

/* A chunk to read, with the zeroes that stand before it. */
struct piece {
    struct reading *r;
    unsigned char *buf; /* CHUNK bytes; NULL until it is used first */
    uint64_t number;    /* its turn */
    int64_t zero_bytes; /* whole chunks, but at the end of the disk */
    int64_t offset;
    size_t bytes; /* of the disk; the chunk is filled up with zeroes. 0: there is only the run */
    unsigned char hash[TREE_HASH_BYTES_MAX];
};

struct reading {
    BlockBackend *blk;
    const struct hash_algorithm *alg;
    bool flat;
    void (*report)(void *opaque, uint64_t done, uint64_t total);
    void *report_opaque;
    int64_t disk_bytes;
    int64_t read_bytes;

    struct tree_hash tree;
    gnutls_hash_hd_t hash; /* flat */
    const char *step;      /* of the first failure */
    int ret;

    /* in turn */
    uint64_t turn;
    CoQueue turns;

    /* the walk's */
    int64_t zero_from; /* from here on no piece has anything yet: a multiple of CHUNK, or the end */
    uint64_t given;    /* numbers */
    struct co_group group;
    struct piece pieces[PIECES_MAX];
};

/* ---- a piece ---- */

static int64_t hash_chunk(void *opaque)
{
    struct piece *p = opaque;

    return hash_bytes(p->r->alg, p->buf, (size_t)CHUNK, p->hash);
}

static int piece_read_co(struct piece *p)
{
    struct reading *r = p->r;
    struct iovec iov;
    struct iov_view view;
    int ret;

    if (!p->buf) {
        p->buf = blk_blockalign(r->blk, (size_t)CHUNK);
    }
    if (!p->buf) {
        return -ENOMEM;
    }
    iov = (struct iovec){p->buf, p->bytes};
    view = iov_view_of(&iov, 1);
    ret = blk_co_preadv(r->blk, p->offset, &view, 0);
    r->read_bytes += ret == 0 ? (int64_t)p->bytes : 0;
    if (ret < 0 || r->flat) {
        return ret;
    }
    memset(p->buf + p->bytes, 0, (size_t)CHUNK - p->bytes);
    return (int)aio_compute_co(hash_chunk, p);
}

/* On a worker thread, in turn: nobody else uses r->hash. */
static int64_t hash_flat(void *opaque)
{
    static const unsigned char zeroes[65536];
    struct piece *p = opaque;
    int ret = 0;

    for (uint64_t left = (uint64_t)p->zero_bytes; ret >= 0 && left > 0;) {
        size_t n = (size_t)min_u64(left, sizeof(zeroes));

        ret = gnutls_hash(p->r->hash, zeroes, n);
        left -= n;
    }
    if (ret >= 0 && p->bytes > 0) {
        ret = gnutls_hash(p->r->hash, p->buf, p->bytes);
    }
    return ret < 0 ? -EIO : 0;
}

static int piece_add_co(struct piece *p)
{
    struct reading *r = p->r;
    int ret;

    if (r->flat) {
        return (int)aio_compute_co(hash_flat, p);
    }
    ret = tree_hash_add_zeroes(&r->tree, (uint64_t)(p->zero_bytes / CHUNK));
    return ret == 0 && p->bytes > 0 ? tree_hash_add(&r->tree, p->hash) : ret;
}

static int piece_run_co(void *opaque)
{
    struct piece *p = opaque;
    struct reading *r = p->r;
    int ret = p->bytes > 0 ? piece_read_co(p) : 0;

    while (r->turn != p->number) {
        co_queue_wait(&r->turns, NULL);
    }
    if (ret == 0 && r->ret == 0) {
        ret = piece_add_co(p);
    }
    if (ret < 0 && r->ret == 0) {
        r->ret = ret;
        r->step = "reading";
    }
    if (r->report && r->ret == 0) {
        r->report(r->report_opaque, (uint64_t)p->offset + p->bytes, (uint64_t)r->disk_bytes);
    }
    r->turn++;
    co_queue_wake_all(&r->turns);
    return r->ret;
}

/* ---- the walk ---- */

static void start_piece_co(struct reading *r, int64_t zero_bytes, int64_t offset, int64_t bytes)
{
    struct piece *p = co_group_piece_co(&r->group);

    p->r = r;
    p->number = r->given++;
    p->zero_bytes = zero_bytes;
    p->offset = offset;
    p->bytes = (size_t)bytes;
    co_group_start_co(&r->group, p, piece_run_co);
}

/* The zeroes from r->zero_from on and the bytes at offset behind them, in as many pieces as keep
 * each short. */
static void start_pieces_co(struct reading *r, int64_t offset, int64_t bytes)
{
    while (r->flat && offset - r->zero_from > FLAT_ZEROES_MAX && !co_group_failed(&r->group)) {
        r->zero_from += FLAT_ZEROES_MAX;
        start_piece_co(r, FLAT_ZEROES_MAX, r->zero_from, 0);
    }
    start_piece_co(r, offset - r->zero_from, offset, bytes);
    r->zero_from = offset + bytes;
}

/* Bytes from offset on that are known to be zeroes, or are not, as *ret_zero says. */
static int look_co(struct reading *r, int64_t offset, bool *ret_zero, int64_t *ret_bytes)
{
    int ret = blk_co_block_status(r->blk, offset, r->disk_bytes - offset, ret_bytes, NULL, NULL);

    if (ret < 0) {
        return ret;
    }
    *ret_zero = (ret & BDRV_BLOCK_ZERO) || !(ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED));
    return 0;
}

static int walk_co(struct reading *r)
{
    int64_t end = 0; /* of what is known */

    while (end < r->disk_bytes && !co_group_failed(&r->group)) {
        int64_t bytes;
        bool zero;
        int ret = look_co(r, end, &zero, &bytes);

        if (ret < 0) {
            return ret;
        }
        if (zero) {
            end += bytes;
            continue;
        }
        /* all chunks that this data touches; the next look is behind them */
        for (int64_t chunk = end / CHUNK * CHUNK;
             chunk < end + bytes && chunk < r->disk_bytes && !co_group_failed(&r->group);
             chunk += CHUNK) {
            start_pieces_co(r, chunk,
                            r->disk_bytes - chunk < CHUNK ? r->disk_bytes - chunk : CHUNK);
        }
        end = r->zero_from > end + bytes ? r->zero_from : end + bytes;
    }
    if (!co_group_failed(&r->group) && r->zero_from < r->disk_bytes) {
        start_pieces_co(r, r->disk_bytes, 0);
    }
    return 0;
}

static void read_co(void *opaque)
{
    struct reading *r = opaque;
    int ret;

    co_queue_init(&r->turns);
    co_group_init_max(&r->group, r->pieces, sizeof(r->pieces[0]), PIECES_MAX);
    ret = walk_co(r);
    if (r->ret == 0 && ret < 0) {
        r->ret = ret;
        r->step = "block status of";
    }
    ret = co_group_wait_co(&r->group);
    r->ret = r->ret == 0 ? ret : r->ret;
}

static int end_hash(struct reading *r, void *ret_hash)
{
    if (r->flat) {
        gnutls_hash_output(r->hash, ret_hash);
        return 0;
    }
    return tree_hash_end(&r->tree, (uint64_t)r->disk_bytes, ret_hash);
}

static int begin_hash(struct reading *r)
{
    if (r->flat) {
        int ret = hash_errno(gnutls_hash_init(&r->hash, (gnutls_digest_algorithm_t)r->alg->digest));

        if (ret < 0) {
            r->hash = NULL; /* GnuTLS may leave what it has freed */
        }
        return ret;
    }
    return tree_hash_init(&r->tree, r->alg);
}

int checksum_read(BlockBackend *blk, const struct hash_algorithm *alg, bool flat,
                  void (*report)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                  struct checksum_result *ret_result, const char **ret_step)
{
    struct checksum_result result = {0};
    struct reading *r = calloc(1, sizeof(*r));
    int ret = r ? 0 : -ENOMEM;

    *ret_step = "reading";
    if (!r) {
        return ret;
    }
    *r = (struct reading){.blk = blk,
                          .alg = alg,
                          .flat = flat,
                          .report = report,
                          .report_opaque = opaque,
                          .disk_bytes = blk_getlength(blk)};
    ret = r->disk_bytes < 0 ? (int)r->disk_bytes : begin_hash(r);
    if (ret == 0) {
        ret = disk_run_co(blk_get_platter(blk), read_co, r);
        ret = ret < 0 ? ret : r->ret;
    }
    *ret_step = r->step ? r->step : *ret_step;
    ret = ret == 0 ? end_hash(r, result.hash) : ret;
    if (r->hash) {
        gnutls_hash_deinit(r->hash, NULL);
    }
    for (unsigned i = 0; i < PIECES_MAX; i++) {
        blk_blockfree(r->pieces[i].buf);
    }
    result.disk_bytes = r->disk_bytes;
    result.read_bytes = r->read_bytes;
    free(r);
    if (ret == 0) {
        *ret_result = result;
    }
    return ret;
}
