/* SPDX-License-Identifier: MIT */
/*
 * Random requests and what must be true of each.
 *
 * A worker owns its range: nobody else changes it, so the model of it is exact. Ranges meet inside
 * blocks, so that workers of several contexts write parts of one block at the same time.
 */
#include "suite.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/coroutine.h>

#define IOV_LONG 1100
#define RETRY_MAX 2000
#define PIECE 4096u

/* A request's memory: a buffer with a random list of pieces over it. */
struct memory {
    uint8_t *block; /* owned */
    uint8_t *data;  /* begins somewhere in block */
    struct iovec iov[IOV_LONG];
    struct iov_view view;
};

static void memory_init(struct memory *m, struct rng *rng, uint64_t bytes)
{
    uint64_t skew = rng_one_in(rng, 2) ? 0 : rng_below(rng, 4096);
    size_t pieces = rng_one_in(rng, 60)  ? IOV_LONG
                    : rng_one_in(rng, 2) ? 1
                                         : 1 + rng_below(rng, 20);
    bool round = rng_one_in(rng, 2);
    uint64_t at = 0;
    size_t n = 0;

    m->block = aligned_alloc(4096, (bytes + 3 * 4096 - 1) / 4096 * 4096);
    assert(m->block != NULL);
    m->data = m->block + skew;
    for (; n + 1 < pieces && at < bytes; n++) {
        uint64_t len = rng_below(rng, 2 * (bytes - at) / (pieces - n) + 1);

        len = round && len > SECTOR ? len / SECTOR * SECTOR : len;
        len = len < bytes - at ? len : bytes - at;
        m->iov[n] = (struct iovec){m->data + at, len};
        at += len;
    }
    m->iov[n++] = (struct iovec){m->data + at, bytes - at};
    m->view = (struct iov_view){m->iov, n, bytes};
}

static void memory_fini(struct memory *m)
{
    free(m->block);
}

static void random_range(struct worker *w, uint64_t *ret_offset, uint64_t *ret_bytes)
{
    static const uint64_t units[] = {1, 1, 512, 4096, 65536};
    struct rng *rng = &w->rng;
    uint64_t room = w->hi - w->lo;
    uint64_t unit = units[rng_below(rng, 5)];
    uint64_t max = rng_one_in(rng, 20) ? room : rng_one_in(rng, 3) ? 128 << 10 : 9000;
    uint64_t offset = rng_below(rng, room);
    uint64_t bytes;

    offset = w->lo + offset;
    if (offset / unit * unit >= w->lo) {
        offset = offset / unit * unit;
    }
    bytes = 1 + rng_below(rng, max);
    bytes = bytes < unit ? unit : bytes / unit * unit;
    *ret_offset = offset;
    *ret_bytes = bytes < w->hi - offset ? bytes : w->hi - offset;
}

static bool by_rule(struct run *run, int rc)
{
    if (run->faults != NULL && (rc == -EIO || rc == -ENOSPC || rc == -ENOMEM)) {
        atomic_fetch_add(&run->failed_by_rule, 1);
        return true;
    }
    return false;
}

static int read_often_co(struct run *run, uint64_t offset, const struct iov_view *view, int times)
{
    int rc = -EIO;

    for (int i = 0; i < times && rc < 0; i++) {
        rc = blk_co_preadv(run->blk, (int64_t)offset, view, 0);
        if (rc < 0 && !by_rule(run, rc)) {
            break;
        }
    }
    return rc;
}

/* Read until it works: errors by rule come and go. What needs many reads of the file would meet one
 * for ever, so it is then read in small pieces; the memory behind view is one piece. */
static void read_surely_co(struct run *run, uint64_t offset, const struct iov_view *view)
{
    uint8_t *data = view->iov[0].iov_base;
    int rc = read_often_co(run, offset, view, 5);

    for (uint64_t at = 0; rc < 0 && run->faults != NULL && at < view->bytes; at += PIECE) {
        uint64_t n = view->bytes - at < PIECE ? view->bytes - at : PIECE;
        struct iovec iov = {data + at, n};
        int piece = read_often_co(run, offset + at, &(struct iov_view){&iov, 1, n}, RETRY_MAX);

        if (piece < 0 || at + n == view->bytes) {
            rc = piece;
            break;
        }
    }
    if (rc < 0) {
        run_fail(run, "read of %llu bytes at %llu: %s", (unsigned long long)view->bytes,
                 (unsigned long long)offset, strerror(-rc));
    }
}

static void expect_equal(struct run *run, const char *what, uint64_t offset, const uint8_t *got,
                         uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        if (got[i] != run->model.now[offset + i]) {
            run_fail(run, "%s: byte %llu (of %llu at %llu) is 0x%02x, must be 0x%02x", what,
                     (unsigned long long)(offset + i), (unsigned long long)bytes,
                     (unsigned long long)offset, got[i], run->model.now[offset + i]);
        }
    }
}

static void op_read(struct worker *w)
{
    struct run *run = w->run;
    struct memory m;
    uint64_t offset, bytes;

    random_range(w, &offset, &bytes);
    memory_init(&m, &w->rng, bytes);
    memset(m.data, 0xa5, bytes);
    read_surely_co(run, offset, &m.view);
    if (run->drive->facts & D_UNTOUCHED) {
        for (uint64_t i = 0; i < bytes; i++) {
            if (m.data[i] != 0xa5) {
                run_fail(run, "a read changed the memory, which it must leave alone");
            }
        }
    } else {
        expect_equal(run, "read", offset, m.data, bytes);
    }
    memory_fini(&m);
}

/* A change of the range failed, or may have been done in part: each byte is the old or the new one
 * (NULL: zero); the model learns which. */
static void settle(struct worker *w, uint64_t offset, const uint8_t *new_data, uint64_t bytes)
{
    struct run *run = w->run;
    uint8_t *now = run->model.now + offset;
    struct memory m;

    memory_init(&m, &w->rng, bytes);
    read_surely_co(run, offset, &m.view);
    for (uint64_t i = 0; i < bytes; i++) {
        uint8_t fresh = new_data != NULL ? new_data[i] : 0;

        if (m.data[i] != now[i] && m.data[i] != fresh) {
            run_fail(run, "byte %llu is 0x%02x, neither the old 0x%02x nor the new 0x%02x",
                     (unsigned long long)(offset + i), m.data[i], now[i], fresh);
        }
        now[i] = m.data[i];
    }
    model_changed(&run->model, offset, bytes);
    memory_fini(&m);
}

static void trace(struct run *run, const char *what, uint64_t offset, uint64_t bytes, int flags,
                  int rc)
{
    if (run->trace) {
        printf("%s %llu+%llu flags %x: %d\n", what, (unsigned long long)offset,
               (unsigned long long)bytes, (unsigned)flags, rc);
    }
}

static bool keeps_nothing(const struct run *run)
{
    return (run->drive->facts & (D_ZEROES | D_UNTOUCHED)) != 0;
}

static void change_done(struct worker *w, const char *what, int rc, uint64_t offset,
                        const uint8_t *new_data, uint64_t bytes, int flags)
{
    struct run *run = w->run;

    trace(run, what, offset, bytes, flags, rc);
    if (keeps_nothing(run)) {
        if (rc < 0) {
            run_fail(run, "%s: %s", what, strerror(-rc));
        }
        return;
    }
    if (rc < 0) {
        bool flush_final = atomic_load(&run->flush_failed) && (flags & BDRV_REQ_FUA) != 0;

        if (!flush_final && !by_rule(run, rc)) {
            run_fail(run, "%s of %llu bytes at %llu: %s", what, (unsigned long long)bytes,
                     (unsigned long long)offset, strerror(-rc));
        }
        if ((flags & BDRV_REQ_FUA) != 0) {
            atomic_store(&run->flush_failed, true); /* it may have been the flush */
        }
        settle(w, offset, new_data, bytes);
        return;
    }
    if (new_data != NULL) {
        memcpy(run->model.now + offset, new_data, bytes);
    } else {
        memset(run->model.now + offset, 0, bytes);
    }
    model_changed(&run->model, offset, bytes);
    if ((flags & BDRV_REQ_FUA) != 0) {
        model_made_stable(&run->model, offset, bytes);
    }
}

static void op_write(struct worker *w)
{
    struct memory m;
    uint64_t offset, bytes;
    uint64_t word = rng_next(&w->rng);
    int flags = rng_one_in(&w->rng, 8) ? BDRV_REQ_FUA : 0;
    int rc;

    random_range(w, &offset, &bytes);
    memory_init(&m, &w->rng, bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        word = word * UINT64_C(6364136223846793005) + 1442695040888963407u;
        m.data[i] = (uint8_t)(word >> 56);
    }
    if (rng_one_in(&w->rng, 20)) {
        memset(m.data, 0, bytes);
    }
    rc = blk_co_pwritev(w->run->blk, (int64_t)offset, &m.view, flags);
    change_done(w, "write", rc, offset, m.data, bytes, flags);
    memory_fini(&m);
}

/* Whole clusters; what does not shrink is stored as it is. */
static void op_write_compressed(struct worker *w)
{
    uint64_t cluster = w->run->drive->cluster_bytes;
    uint64_t first = (w->lo + cluster - 1) / cluster;
    uint64_t end = w->hi / cluster;
    uint64_t word = rng_next(&w->rng);
    struct memory m;
    uint64_t offset, bytes;
    int rc;

    if (first >= end) {
        return;
    }
    offset = (first + rng_below(&w->rng, end - first)) * cluster;
    bytes = (1 + rng_below(&w->rng, 3)) * cluster;
    bytes = bytes < end * cluster - offset ? bytes : end * cluster - offset;
    memory_init(&m, &w->rng, bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        bool noise = (i / cluster) % 3 == 2;

        word = noise || i % 512 == 0 ? word * UINT64_C(6364136223846793005) + 1442695040888963407u
                                     : word;
        m.data[i] = (uint8_t)(word >> 56);
    }
    rc = blk_co_pwritev(w->run->blk, (int64_t)offset, &m.view, BDRV_REQ_WRITE_COMPRESSED);
    change_done(w, "compressed write", rc, offset, m.data, bytes, 0);
    memory_fini(&m);
}

static void op_write_zeroes(struct worker *w)
{
    static const int kinds[] = {0, BDRV_REQ_MAY_UNMAP, BDRV_REQ_NO_FALLBACK,
                                BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK};
    int flags = kinds[rng_below(&w->rng, 4)] | (rng_one_in(&w->rng, 8) ? BDRV_REQ_FUA : 0);
    uint64_t offset, bytes;
    int rc;

    random_range(w, &offset, &bytes);
    rc = blk_co_pwrite_zeroes(w->run->blk, (int64_t)offset, (int64_t)bytes, flags);
    if (rc == -ENOTSUP && (flags & BDRV_REQ_NO_FALLBACK) != 0) {
        trace(w->run, "fast zeroes", offset, bytes, flags, rc);
        settle(w, offset, NULL, bytes); /* fast zeroes may have been made of a part */
        return;
    }
    change_done(w, "write zeroes", rc, offset, NULL, bytes, flags);
}

static void op_discard(struct worker *w)
{
    struct run *run = w->run;
    uint64_t offset, bytes;
    int rc;

    random_range(w, &offset, &bytes);
    rc = blk_co_pdiscard(run->blk, (int64_t)offset, (int64_t)bytes);
    trace(run, "discard", offset, bytes, 0, rc);
    if (rc < 0 && !by_rule(run, rc)) {
        run_fail(run, "discard of %llu bytes at %llu: %s", (unsigned long long)bytes,
                 (unsigned long long)offset, strerror(-rc));
    }
    if (!keeps_nothing(run)) {
        settle(w, offset, NULL, bytes);
    }
}

static void op_flush(struct worker *w)
{
    struct run *run = w->run;
    bool failed_before = atomic_load(&run->flush_failed);
    int rc = blk_co_flush(run->blk);

    trace(run, "flush", 0, 0, 0, rc);
    if (rc == 0) {
        if (run->flush_final) {
            run_fail(run, "a flush works after one that failed");
        }
        model_flushed(&run->model);
        return;
    }
    if (!failed_before && !by_rule(run, rc)) {
        run_fail(run, "flush: %s", strerror(-rc));
    }
    atomic_store(&run->flush_failed, true);
    run->flush_final |= run->single && rc == -EIO && (run->drive->facts & D_PAGE_CACHE) != 0;
}

static void op_status(struct worker *w)
{
    struct run *run = w->run;
    uint64_t offset, bytes;
    int64_t n = -1, map = -1;
    int depth = -1;
    int rc;

    random_range(w, &offset, &bytes);
    rc = blk_co_block_status(run->blk, (int64_t)offset, (int64_t)bytes, &n, &map, &depth);
    if (rc < 0) {
        if (!by_rule(run, rc)) {
            run_fail(run, "block status at %llu: %s", (unsigned long long)offset, strerror(-rc));
        }
        return;
    }
    if (n < 1 || (uint64_t)n > bytes) {
        run_fail(run, "block status of %llu bytes answers for %lld", (unsigned long long)bytes,
                 (long long)n);
    }
    for (int64_t i = 0; (rc & BDRV_BLOCK_ZERO) != 0 && i < n && !keeps_nothing(run); i++) {
        if (run->model.now[offset + (uint64_t)i] != 0) {
            run_fail(run, "block status says zero at %llu, where data is",
                     (unsigned long long)(offset + (uint64_t)i));
        }
    }
}

void worker_entry(void *opaque)
{
    struct worker *w = opaque;
    AioContext *main_ctx;

    for (unsigned i = 0; i < w->ops && w->hi > w->lo; i++) {
        uint64_t dice = rng_below(&w->rng, 100);

        if (dice < 5 && (w->run->drive->facts & D_COMPRESSED) != 0) {
            op_write_compressed(w);
        } else if (dice < 35) {
            op_write(w);
        } else if (dice < 65) {
            op_read(w);
        } else if (dice < 77) {
            op_write_zeroes(w);
        } else if (dice < 84) {
            op_discard(w);
        } else if (dice < 93) {
            op_status(w);
        } else {
            op_flush(w);
        }
        atomic_fetch_add_explicit(&w->run->done_ops, 1, memory_order_relaxed);
    }
    main_ctx = platter_get_main_context(w->run->pl);
    if (atomic_fetch_sub(w->running, 1) == 1) { /* w may be gone from here on */
        aio_notify(main_ctx);
    }
}

/* ---- alone ---- */

void check_all_co(struct run *run)
{
    uint64_t bytes = run->model.size_bytes;
    struct iovec iov = {malloc(bytes + 1), bytes};
    struct iov_view view = {&iov, 1, bytes};

    assert(iov.iov_base != NULL);
    if (blk_getlength(run->blk) != (int64_t)bytes) {
        run_fail(run, "the size is %lld, must be %llu", (long long)blk_getlength(run->blk),
                 (unsigned long long)bytes);
    }
    if (bytes > 0 && (run->drive->facts & D_UNTOUCHED) == 0) {
        read_surely_co(run, 0, &view);
        expect_equal(run, "the whole disk", 0, iov.iov_base, bytes);
    }
    free(iov.iov_base);
}

void resize_co(struct run *run, struct rng *rng)
{
    struct model *model = &run->model;
    static const enum bdrv_prealloc modes[] = {BDRV_PREALLOC_OFF, BDRV_PREALLOC_OFF,
                                               BDRV_PREALLOC_FALLOC, BDRV_PREALLOC_FULL,
                                               BDRV_PREALLOC_METADATA};
    uint64_t size = rng_below(rng, model->room_bytes);
    enum bdrv_prealloc mode = modes[rng_below(rng, 5)];
    Error *err = NULL;
    int rc;

    size = rng_one_in(rng, 2) ? size : size / 4096 * 4096;
    if ((run->drive->facts & D_SECTORS) != 0) {
        size = size / SECTOR * SECTOR;
    }
    mode = size < model->size_bytes ? BDRV_PREALLOC_OFF : mode;
    rc = blk_co_truncate(run->blk, (int64_t)size, true, mode, 0, &err);
    if (rc == -ENOTSUP && mode != BDRV_PREALLOC_OFF) {
        error_free(err);
        return;
    }
    if (rc < 0) {
        run_fail(run, "resize from %llu to %llu: %s", (unsigned long long)model->size_bytes,
                 (unsigned long long)size, error_get_pretty(err));
    }
    if (size < model->size_bytes) {
        memset(model->now + size, 0, model->size_bytes - size);
    }
    model->size_bytes = size;
}

void copy_co(struct run *run, struct rng *rng)
{
    struct model *model = &run->model;
    uint64_t half = model->size_bytes / 2;
    uint64_t unit = rng_one_in(rng, 2) ? 4096 : 1;
    uint64_t from = rng_below(rng, half) / unit * unit;
    uint64_t to = (half + rng_below(rng, half)) / unit * unit;
    uint64_t bytes = 1 + rng_below(rng, 200000);
    int rc;

    to = to < half ? half : to;
    bytes = bytes < half - from ? bytes : half - from;
    bytes = bytes < model->size_bytes - to ? bytes : model->size_bytes - to;
    bytes = bytes / unit * unit;
    rc = blk_co_copy_range(run->blk, (int64_t)from, run->blk, (int64_t)to, (int64_t)bytes, 0, 0);
    trace(run, "copy to", to, bytes, 0, rc);
    if (rc == -ENOTSUP) {
        return;
    }
    if (rc < 0) {
        run_fail(run, "copy of %llu bytes from %llu to %llu: %s", (unsigned long long)bytes,
                 (unsigned long long)from, (unsigned long long)to, strerror(-rc));
    }
    memmove(model->now + to, model->now + from, bytes);
    model_changed(model, to, bytes);
}

void bad_requests_co(struct run *run, struct rng *rng)
{
    int64_t size = (int64_t)run->model.size_bytes;
    uint8_t byte[2] = {1, 1};
    struct iovec iov = {byte, 2};
    struct iov_view view = {&iov, 1, 2};
    int64_t offset = rng_one_in(rng, 3) ? INT64_MAX - 1 : size - (int64_t)rng_below(rng, 2);

    if (blk_co_preadv(run->blk, offset, &view, 0) != -EIO ||
        blk_co_pwritev(run->blk, offset, &view, 0) != -EIO ||
        blk_co_pwrite_zeroes(run->blk, offset, 2, 0) != -EIO ||
        blk_co_pdiscard(run->blk, offset, 2) != -EIO) {
        run_fail(run, "a request past the end is not refused with EIO");
    }
    if (blk_co_pwritev(run->blk, -1, &view, 0) != -EIO) {
        run_fail(run, "a request at a negative offset is not refused with EIO");
    }
}
