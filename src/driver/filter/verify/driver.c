/* SPDX-License-Identifier: MIT */
/*
 * blkverify: all changes go to the child "test", which is to be tried, and to the child "raw",
 * which is believed; what is read of both is compared. File names: blkverify:RAW:TEST.
 *
 * A difference is an error of the request (EIO), and the first one is told with its place
 * (bdrv_image_corrupted); the program that reads goes on. Where just one child fails, that is a
 * difference too, but the answer is its error.
 *
 * Invariants
 *  V1 changes go one by one and no read is beside one: both children see the same order, so a
 *     difference is never that of two requests which overlap.
 *  V2 nothing changes one child alone: discards, whose result is the child's choice, go to neither.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/coroutine.h>

#include "block/driver.h"
#include "loop/co_group.h"
#include "schema/opts.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/mem.h"

#define PREFIX "blkverify:"
#define SECTOR_BYTES 512
#define VERIFY_CAPS (BDRV_CAP_FILTER | BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA | BDRV_CAP_ZERO_UNMAP)

struct verify_state {
    BdrvEdge *test; /* "raw" is the primary child */
    CoRwlock lock;  /* keeps V1 */
};

/* ---- open ---- */

static int verify_parse_filename(const char *filename, BlockOptions *options, Error **errp)
{
    const char *raw = filename + strlen(PREFIX);
    const char *test = strchr(raw, ':');
    char *name;
    int rc;

    if (test == NULL) {
        return error_set(errp, EINVAL, "blkverify requires raw copy and original image path");
    }
    name = strndup(raw, (size_t)(test - raw));
    rc = name == NULL ? -ENOMEM : block_options_set_str(options, "x-raw", name);
    free(name);
    if (rc == 0) {
        rc = block_options_set_str(options, "x-image", test + 1);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "Cannot use the file name '%s'", filename) : 0;
}

static bool name_is_plain(const char *name)
{
    return name[0] != '\0' && strncmp(name, "json:", strlen("json:")) != 0;
}

/* The name that says all, where there is one: the first colon must be the one that we put. */
static void set_name(BlockDriverState *bs, BdrvEdge *raw_edge, BdrvEdge *test_edge)
{
    const char *raw = bdrv_get_filename(bdrv_edge_node(raw_edge));
    const char *test = bdrv_get_filename(bdrv_edge_node(test_edge));
    size_t bytes = strlen(PREFIX) + strlen(raw) + strlen(test) + 2;
    char *name;

    if (!name_is_plain(raw) || !name_is_plain(test) || strchr(raw, ':') != NULL) {
        return;
    }
    name = malloc(bytes);
    if (name != NULL) {
        snprintf(name, bytes, PREFIX "%s:%s", raw, test);
        bdrv_set_filename(bs, name);
        bdrv_set_caps(bs, VERIFY_CAPS | BDRV_CAP_FULL_NAME);
    }
    free(name);
}

static int check_sizes(BdrvEdge *raw, BdrvEdge *test, Error **errp)
{
    int64_t raw_bytes = bdrv_edge_getlength(raw);
    int64_t test_bytes = bdrv_edge_getlength(test);

    if (raw_bytes != test_bytes) {
        return error_set(errp, EINVAL,
                         "The disks to be compared differ in size: '%s' has %" PRId64
                         " bytes, '%s' has %" PRId64,
                         bdrv_get_filename(bdrv_edge_node(raw)), raw_bytes,
                         bdrv_get_filename(bdrv_edge_node(test)), test_bytes);
    }
    return 0;
}

static int verify_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct verify_state *s = bdrv_opaque(bs);
    struct opts_node_blkverify o;
    BdrvEdge *raw;
    int rc = opts_node_blkverify_parse(options, &o, errp);

    if (rc < 0) {
        return rc;
    }
    raw = bdrv_open_child(bs, o.x_raw, options, "raw", BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY,
                          false, errp);
    s->test = raw != NULL
                  ? bdrv_open_child(bs, o.x_image, options, "test", BDRV_ROLE_FILTERED, false, errp)
                  : NULL;
    opts_node_blkverify_fini(&o);
    if (s->test == NULL) {
        return -EINVAL;
    }
    rc = check_sizes(raw, s->test, errp);
    if (rc == 0) {
        co_rwlock_init(&s->lock);
        set_name(bs, raw, s->test);
    }
    return rc;
}

/* ---- both children at once ---- */

struct verify_piece {
    BdrvEdge *edge;
    struct bdrv_req req;
    int *ret_ret;
};

static int piece_run_co(void *opaque)
{
    struct verify_piece *piece = opaque;

    *piece->ret_ret = bdrv_edge_request_co(piece->edge, &piece->req);
    return 0;
}

/* What happened is told; the answer: the error of the copy that is believed comes first. */
static int verify_results(BlockDriverState *bs, const struct bdrv_req *req, const char *what,
                          int raw_ret, int test_ret)
{
    if ((raw_ret < 0) != (test_ret < 0)) {
        bdrv_image_corrupted(bs, false, req->offset, req->bytes,
                             "blkverify: %s offset=%" PRIu64 " bytes=%" PRIu64
                             " ends differently: raw: %s, test: %s",
                             what, req->offset, req->bytes, strerror(-raw_ret),
                             strerror(-test_ret));
    }
    return raw_ret < 0 ? raw_ret : test_ret;
}

/* test_iov: for the memory of the child "test"; NULL: the same as for "raw". */
static int both_co(BlockDriverState *bs, const struct bdrv_req *req, const struct iovec *test_iov,
                   const char *what)
{
    struct verify_state *s = bdrv_opaque(bs);
    struct verify_piece pieces[2];
    struct verify_piece *piece;
    struct co_group group;
    int raw_ret;
    int test_ret;

    co_group_init_max(&group, pieces, sizeof(pieces[0]), 2);
    piece = co_group_piece_co(&group);
    *piece = (struct verify_piece){bdrv_primary_child(bs), *req, &raw_ret};
    co_group_start_co(&group, piece, piece_run_co);
    piece = co_group_piece_co(&group);
    *piece = (struct verify_piece){s->test, *req, &test_ret};
    if (test_iov != NULL) {
        piece->req.iov = test_iov;
        piece->req.niov = 1;
        piece->req.iov_offset = 0;
    }
    co_group_start_co(&group, piece, piece_run_co);
    (void)co_group_wait_co(&group);
    return verify_results(bs, req, what, raw_ret, test_ret);
}

/* ---- requests ---- */

/* The first byte of req in which its memory is not like buf; req->bytes: none. */
static uint64_t first_difference(const struct bdrv_req *req, const uint8_t *buf)
{
    uint64_t skip = req->iov_offset;
    uint64_t done = 0;

    for (size_t i = 0; i < req->niov && done < req->bytes; i++) {
        const uint8_t *mem = req->iov[i].iov_base;
        uint64_t len = req->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = min_u64(len - skip, req->bytes - done);
        if (memcmp(mem + skip, buf + done, len) != 0) {
            while (mem[skip] == buf[done]) {
                skip++;
                done++;
            }
            return done;
        }
        done += len;
        skip = 0;
    }
    return req->bytes;
}

static int compare(BlockDriverState *bs, const struct bdrv_req *req, const uint8_t *buf)
{
    uint64_t at = first_difference(req, buf);

    if (at == req->bytes) {
        return 0;
    }
    at += req->offset;
    bdrv_image_corrupted(bs, false, at, 1,
                         "blkverify: read offset=%" PRIu64 " bytes=%" PRIu64
                         " contents mismatch at offset %" PRIu64 " (sector %" PRIu64 ")",
                         req->offset, req->bytes, at, at / SECTOR_BYTES);
    return -EIO;
}

static int verify_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct verify_state *s = bdrv_opaque(bs);
    struct iovec iov = {.iov_base = bdrv_buffer_alloc(bs, req->bytes), .iov_len = req->bytes};
    int ret;

    if (iov.iov_base == NULL) {
        return -ENOMEM;
    }
    co_rwlock_rdlock(&s->lock);
    ret = both_co(bs, req, &iov, "read");
    co_rwlock_unlock(&s->lock);
    if (ret == 0) {
        ret = compare(bs, req, iov.iov_base);
    }
    bdrv_buffer_free(bs, iov.iov_base, req->bytes);
    return ret;
}

static int change_co(BlockDriverState *bs, const struct bdrv_req *req, const char *what)
{
    struct verify_state *s = bdrv_opaque(bs);
    int ret;

    co_rwlock_wrlock(&s->lock);
    ret = both_co(bs, req, NULL, what);
    co_rwlock_unlock(&s->lock);
    return ret;
}

static int verify_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    return change_co(bs, req, "write");
}

static int verify_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                  unsigned flags)
{
    const struct bdrv_req req = {
        .op = BDRV_OP_WRITE_ZEROES,
        .flags = flags & ~(unsigned)BDRV_REQ_NO_FALLBACK,
        .offset = offset,
        .bytes = bytes,
    };

    if (flags & BDRV_REQ_NO_FALLBACK) {
        return -ENOTSUP; /* one of them may not be fast */
    }
    return change_co(bs, &req, "write zeroes");
}

/* Keeps V2: nothing happens, which a discard may always mean. */
static int verify_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    return -ENOTSUP;
}

static int verify_flush_co(BlockDriverState *bs)
{
    struct verify_state *s = bdrv_opaque(bs);
    const struct bdrv_req req = {.op = BDRV_OP_FLUSH};

    bdrv_debug_event(bdrv_primary_child(bs), BLKDBG_FLUSH_TO_DISK);
    bdrv_debug_event(s->test, BLKDBG_FLUSH_TO_DISK);
    return both_co(bs, &req, NULL, "flush");
}

/* Copied through memory, where it is compared. */
static int verify_copy_range_co(BlockDriverState *src, uint64_t src_offset, BlockDriverState *dst,
                                uint64_t dst_offset, uint64_t bytes, unsigned write_flags)
{
    return -ENOTSUP;
}

/* The one under test first: it is the more likely to refuse, and then nothing has changed. */
static int verify_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                              enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    struct verify_state *s = bdrv_opaque(bs);
    int64_t old = bdrv_edge_getlength(s->test);
    int ret;

    co_rwlock_wrlock(&s->lock);
    ret = bdrv_edge_truncate_co(s->test, size_bytes, exact, prealloc, flags, errp);
    if (ret == 0) {
        ret =
            bdrv_edge_truncate_co(bdrv_primary_child(bs), size_bytes, exact, prealloc, flags, errp);
        if (ret < 0 && old >= 0) {
            (void)bdrv_edge_truncate_co(s->test, (uint64_t)old, exact, BDRV_PREALLOC_OFF, 0, NULL);
        }
    }
    co_rwlock_unlock(&s->lock);
    return ret;
}

static int verify_ioctl_co(BlockDriverState *bs, unsigned long request, void *buf)
{
    return -ENOTSUP; /* it could change one alone: V2 */
}

static int64_t verify_getlength(BlockDriverState *bs)
{
    const struct verify_state *s = bdrv_opaque(bs);

    return bdrv_edge_getlength(s->test);
}

static int64_t verify_allocated(BlockDriverState *bs)
{
    return -ENOTSUP; /* of which of them? */
}

const BlockDriver bdrv_blkverify = {
    .format_name = "blkverify",
    .protocol_name = "blkverify",
    .primary_name = "raw",
    .option_keys = opts_node_blkverify_keys,
    .instance_size = sizeof(struct verify_state),
    .caps = VERIFY_CAPS,
    .parse_filename = verify_parse_filename,
    .open = verify_open,
    .read_co = verify_read_co,
    .write_co = verify_write_co,
    .write_zeroes_co = verify_write_zeroes_co,
    .discard_co = verify_discard_co,
    .flush_co = verify_flush_co,
    .copy_range_co = verify_copy_range_co,
    .truncate_co = verify_truncate_co,
    .ioctl_co = verify_ioctl_co,
    .getlength = verify_getlength,
    .get_allocated_file_size = verify_allocated,
};
