/* SPDX-License-Identifier: MIT */
/*
 * A node without a graph for tests of the request path: a recording driver over memory whose
 * limits, suspensions and errors a test sets. What the graph gives to requests (budget, names,
 * sizes) stands here in its place, so that these tests link the request path alone.
 *
 * The driver checks everything that driver.h promises it, and aborts when it is not kept.
 */
#ifndef PLATTER_TESTS_FAKE_NODE_H
#define PLATTER_TESTS_FAKE_NODE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "block/dirty_bitmap.h"
#include "block/instance.h"
#include "block/node.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/iov.h"

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #cond);               \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define FAKE_CAPACITY (UINT64_C(4) << 20)

struct fake {
    BlockDriver drv; /* first: a copy that a test may change */
    struct Platter *pl;
    uint8_t *data;
    struct os_mutex lock;       /* one copy at a time: what is torn or lost shows in the bytes */
    _Atomic uint64_t file_size; /* what the file really has */
    unsigned suspend;           /* times an operation lets others run first */
    /* errors */
    int read_error;
    int write_error;
    int zeroes_error;
    int discard_error;
    int flush_error;
    int truncate_error;
    uint64_t error_offset; /* a read or write fails when it touches this byte */
    bool error_at;
    /* counters */
    _Atomic unsigned reads;
    _Atomic unsigned writes;
    _Atomic unsigned zeroes;
    _Atomic unsigned discards;
    _Atomic unsigned flushes;
    _Atomic unsigned truncates;
    _Atomic unsigned copies;
    unsigned last_flags; /* of a write or write zeroes */
    uint64_t last_offset;
    uint64_t last_bytes;
    uint64_t max_write_bytes;
    _Atomic int flushing; /* in the driver now */
    int max_flushing;
    int (*status)(struct fake *f, uint64_t offset, uint64_t bytes, struct bdrv_status *ret);
};

/* ---- the driver ---- */

static inline struct fake *fake_of(BlockDriverState *bs)
{
    return bs->opaque;
}

static inline void fake_suspend(struct fake *f)
{
    for (unsigned i = 0; i < f->suspend; i++) {
        aio_co_schedule(aio_context_current(), coroutine_self());
        coroutine_yield();
    }
}

/* The end as the driver knows it: while a truncate works, the node does not know yet. */
static inline uint64_t fake_end(BlockDriverState *bs)
{
    int64_t size = atomic_load(&bs->size_bytes);

    CHECK(size >= 0);
    return max_u64((uint64_t)size, atomic_load(&fake_of(bs)->file_size));
}

static inline void fake_check_range(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    uint32_t align = bs->bl.request_alignment;
    uint64_t size = fake_end(bs);
    uint64_t end = offset + bytes;

    CHECK(bytes > 0 && is_aligned(offset, align));
    CHECK(end <= FAKE_CAPACITY);
    if (!(bs->caps & BDRV_CAP_GROWS_ON_WRITE)) {
        CHECK(end <= align_up(size, align));
    }
    if (bs->caps & BDRV_CAP_PROTOCOL) {
        CHECK(is_aligned(end, align));
    } else {
        CHECK(is_aligned(end, align) || end >= size);
    }
}

static inline void fake_check_req(BlockDriverState *bs, const struct bdrv_req *req)
{
    const struct bdrv_limits *bl = &bs->bl;
    uint64_t skip = req->iov_offset;
    uint64_t left = req->bytes;
    size_t touched = 0;

    fake_check_range(bs, req->offset, req->bytes);
    if (req->flags & BDRV_REQ_WRITE_COMPRESSED) {
        return; /* comes whole, whatever the limits say */
    }
    CHECK(bl->max_transfer == 0 || req->bytes <= bl->max_transfer);
    for (size_t i = 0; i < req->niov && left > 0; i++) {
        uint64_t len = req->iov[i].iov_len;
        uint64_t take;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        take = min_u64(len - skip, left);
        CHECK(is_aligned((uintptr_t)req->iov[i].iov_base + skip, bl->mem_alignment));
        if (bl->mem_alignment > 1 && (bs->caps & BDRV_CAP_PROTOCOL)) {
            CHECK(is_aligned(take, bl->request_alignment));
        }
        left -= take;
        skip = 0;
        touched++;
    }
    CHECK(left == 0);
    CHECK(bl->max_iov == 0 || touched <= bl->max_iov);
}

static inline bool fake_hits(const struct fake *f, uint64_t offset, uint64_t bytes)
{
    return !f->error_at || (f->error_offset >= offset && f->error_offset - offset < bytes);
}

static inline int fake_read(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct fake *f = fake_of(bs);
    uint64_t inside;

    fake_check_req(bs, req);
    atomic_fetch_add(&f->reads, 1);
    fake_suspend(f);
    if (f->read_error != 0 && fake_hits(f, req->offset, req->bytes)) {
        return f->read_error;
    }
    inside = atomic_load(&f->file_size);
    inside = req->offset < inside ? min_u64(req->bytes, inside - req->offset) : 0;
    os_mutex_lock(&f->lock);
    iov_from_buf(req->iov, req->niov, req->iov_offset, f->data + req->offset, inside);
    os_mutex_unlock(&f->lock);
    iov_fill(req->iov, req->niov, req->iov_offset + inside, 0, req->bytes - inside);
    fake_suspend(f);
    return 0;
}

/* A write may leave a gap, which reads as zeroes. Under the lock. */
static inline void fake_grow(struct fake *f, uint64_t offset, uint64_t end)
{
    uint64_t size = atomic_load(&f->file_size);

    if (offset > size) {
        memset(f->data + size, 0, offset - size);
    }
    if (end > size) {
        atomic_store(&f->file_size, end);
    }
}

static inline int fake_write(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct fake *f = fake_of(bs);

    fake_check_req(bs, req);
    atomic_fetch_add(&f->writes, 1);
    fake_suspend(f);
    if (f->write_error != 0 && fake_hits(f, req->offset, req->bytes)) {
        return f->write_error;
    }
    os_mutex_lock(&f->lock);
    if (bs->caps & BDRV_CAP_GROWS_ON_WRITE) {
        fake_grow(f, req->offset, req->offset + req->bytes);
    }
    iov_to_buf(req->iov, req->niov, req->iov_offset, f->data + req->offset, req->bytes);
    os_mutex_unlock(&f->lock);
    fake_suspend(f);
    return 0;
}

/* Remembers flags; for single-threaded tests. */
static inline int fake_write_recorded(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct fake *f = fake_of(bs);

    f->last_flags = req->flags;
    f->last_offset = req->offset;
    f->last_bytes = req->bytes;
    f->max_write_bytes = max_u64(f->max_write_bytes, req->bytes);
    return fake_write(bs, req);
}

/* The last unit of a format node may be shorter. */
static inline bool fake_is_tail(BlockDriverState *bs, uint64_t end)
{
    return !(bs->caps & BDRV_CAP_PROTOCOL) &&
           (end == (uint64_t)atomic_load(&bs->size_bytes) ||
            end == atomic_load(&fake_of(bs)->file_size)); /* before the node's size is told */
}

static inline int fake_zeroes(BlockDriverState *bs, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct fake *f = fake_of(bs);
    uint64_t unit = max_u64(bs->bl.request_alignment, bs->bl.pwrite_zeroes_alignment);

    bool whole = offset % unit == 0 && (bytes % unit == 0 || fake_is_tail(bs, offset + bytes));
    bool part = (bs->caps & BDRV_CAP_ZERO_PARTS) && offset / unit == (offset + bytes - 1) / unit;

    CHECK(bytes > 0 && (whole || part));
    if (whole) {
        fake_check_range(bs, offset, bytes);
    } else if (offset / unit % 2 == 1) {
        return -ENOTSUP; /* a driver may find the rest of a unit not to be zero */
    }
    CHECK(bs->bl.max_pwrite_zeroes == 0 || bytes <= max_u64(bs->bl.max_pwrite_zeroes, unit));
    CHECK(offset + bytes <= fake_end(bs));
    atomic_fetch_add(&f->zeroes, 1);
    fake_suspend(f);
    f->last_flags = flags;
    if (f->zeroes_error != 0) {
        return f->zeroes_error;
    }
    os_mutex_lock(&f->lock);
    memset(f->data + offset, 0, bytes);
    os_mutex_unlock(&f->lock);
    fake_suspend(f);
    return 0;
}

static inline int fake_discard(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    struct fake *f = fake_of(bs);
    uint64_t unit = max_u64(bs->bl.request_alignment, bs->bl.pdiscard_alignment);

    CHECK(offset % unit == 0 && bytes > 0);
    CHECK(bytes % unit == 0 || fake_is_tail(bs, offset + bytes));
    CHECK(bs->bl.max_pdiscard == 0 || bytes <= max_u64(bs->bl.max_pdiscard, unit));
    CHECK(offset + bytes <= fake_end(bs));
    atomic_fetch_add(&f->discards, 1);
    f->last_offset = offset;
    f->last_bytes = bytes;
    fake_suspend(f);
    if (f->discard_error != 0) {
        return f->discard_error;
    }
    memset(f->data + offset, 0xdd, bytes);
    return 0;
}

static inline int fake_flush(BlockDriverState *bs)
{
    struct fake *f = fake_of(bs);
    int now = atomic_fetch_add(&f->flushing, 1) + 1;

    f->max_flushing = now > f->max_flushing ? now : f->max_flushing;
    atomic_fetch_add(&f->flushes, 1);
    fake_suspend(f);
    atomic_fetch_sub(&f->flushing, 1);
    return f->flush_error;
}

static inline int fake_truncate(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                                enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    struct fake *f = fake_of(bs);
    uint64_t old = atomic_load(&f->file_size);

    atomic_fetch_add(&f->truncates, 1);
    fake_suspend(f);
    if (f->truncate_error != 0) {
        return f->truncate_error;
    }
    if (size_bytes > FAKE_CAPACITY) {
        return -EFBIG;
    }
    if (size_bytes > old) {
        memset(f->data + old, (bs->caps & BDRV_CAP_TRUNCATE_ZEROES) ? 0 : 0xee, size_bytes - old);
    }
    atomic_store(&f->file_size, size_bytes);
    return 0;
}

static inline int fake_status(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                              struct bdrv_status *ret)
{
    struct fake *f = fake_of(bs);

    fake_suspend(f);
    return f->status(f, offset, bytes, ret);
}

static inline int64_t fake_getlength(BlockDriverState *bs)
{
    return (int64_t)atomic_load(&fake_of(bs)->file_size);
}

static const BlockDriver fake_driver = {
    .format_name = "fake",
    .caps = BDRV_CAP_PROTOCOL,
    .read_co = fake_read,
    .write_co = fake_write_recorded,
    .write_zeroes_co = fake_zeroes,
    .discard_co = fake_discard,
    .flush_co = fake_flush,
    .truncate_co = fake_truncate,
    .getlength = fake_getlength,
};

/* ---- a node and an edge to it ---- */

struct fake_node {
    struct fake f;
    BlockDriverState bs;
    BdrvEdge edge;
};

static inline void fake_node_init(struct fake_node *n, struct Platter *pl, uint64_t size)
{
    memset(n, 0, sizeof(*n));
    n->f.drv = fake_driver;
    n->f.pl = pl;
    n->f.data = calloc(1, FAKE_CAPACITY);
    CHECK(n->f.data != NULL);
    n->f.file_size = size;
    n->bs.pl = pl;
    n->bs.drv = &n->f.drv;
    n->bs.opaque = &n->f;
    n->bs.caps = fake_driver.caps;
    n->bs.open_flags = BDRV_O_RDWR | BDRV_O_UNMAP;
    n->bs.through = &n->bs;
    n->bs.bl = (struct bdrv_limits){.request_alignment = 1, .mem_alignment = 1, .eof_alignment = 1};
    n->bs.size_bytes = (int64_t)size;
    n->bs.node_name = (char *)"fake0";
    TAILQ_INIT(&n->bs.children);
    TAILQ_INIT(&n->bs.parents);
    bdrv_io_init(&n->bs);
    os_mutex_init(&n->f.lock);
    n->edge.bs = &n->bs;
    n->edge.perm = BDRV_PERM_ALL;
}

static inline void fake_node_fini(struct fake_node *n)
{
    bdrv_io_fini(&n->bs);
    os_mutex_fini(&n->f.lock);
    free(n->f.data);
}

/* Make bs of below the primary child of n. */
static inline void fake_node_put_on(struct fake_node *n, struct fake_node *below, unsigned role)
{
    below->edge.role = role;
    if (role & BDRV_ROLE_PRIMARY) {
        n->bs.file = &below->edge;
    }
    TAILQ_INSERT_TAIL(&n->bs.children, &below->edge, in_parent);
}

/* ---- an instance, and what the graph gives to requests ---- */

static struct Platter fake_pl;
static AioContext *fake_ctx;
static unsigned fake_guarded; /* requests that the probe guard saw */
static int fake_guard_answer;

struct mem_budget *bdrv_budget(const BlockDriverState *bs)
{
    return &bs->pl->budget;
}
const char *bdrv_get_node_name(const BlockDriverState *bs)
{
    return bs->node_name;
}
int64_t bdrv_getlength(BlockDriverState *bs)
{
    return atomic_load(&bs->size_bytes);
}
bool instance_in_control_thread(const Platter *pl)
{
    return aio_context_current() == fake_ctx;
}
int64_t bdrv_refresh_size(BlockDriverState *bs)
{
    int64_t size = bs->drv->getlength(bs);

    CHECK(instance_in_control_thread(bs->pl));
    if (size >= 0) {
        atomic_store(&bs->size_bytes, size);
    }
    return size;
}
void bdrv_shrink_size(BlockDriverState *bs, uint64_t size_bytes)
{
    CHECK(instance_in_control_thread(bs->pl));
    if (bdrv_getlength(bs) > (int64_t)size_bytes) {
        atomic_store(&bs->size_bytes, (int64_t)size_bytes);
    }
}
void bdrv_grow_size(BlockDriverState *bs, uint64_t new_size_bytes)
{
    int64_t size = atomic_load(&bs->size_bytes);

    while (size < (int64_t)new_size_bytes &&
           !atomic_compare_exchange_weak(&bs->size_bytes, &size, (int64_t)new_size_bytes)) {
    }
}
void bdrv_ref(BlockDriverState *bs)
{
    bs->refcnt++;
}
void bdrv_unref(BlockDriverState *bs)
{
    bs->refcnt--;
}
void bdrv_threshold_passed(BlockDriverState *bs, uint64_t end, uint64_t threshold)
{
    CHECK(end > threshold);
}
int bdrv_probe_guard_write(BlockDriverState *bs, const struct bdrv_req *req)
{
    fake_guarded++;
    return fake_guard_answer;
}

static inline void fake_instance_init(void)
{
    Error *err = NULL;

    memset(&fake_pl, 0, sizeof(fake_pl));
    fake_pl.budget.limit_bytes = UINT64_C(64) << 20;
    fake_ctx = aio_context_new(NULL, &err);
    CHECK(fake_ctx != NULL);
    aio_context_set_current(fake_ctx);
    fake_pl.main_ctx = fake_ctx;
}

static inline void fake_instance_fini(void)
{
    CHECK(fake_pl.budget.used_bytes == 0);
    aio_context_set_current(NULL);
    aio_context_unref(fake_ctx);
}

/* ---- running a function as a coroutine of the main context ---- */

struct fake_run {
    int (*fn)(void *arg);
    void *arg;
    int ret;
    bool done;
};

static inline void fake_run_entry(void *opaque)
{
    struct fake_run *run = opaque;

    run->ret = run->fn(run->arg);
    run->done = true;
}

static inline void fake_start(struct fake_run *run, int (*fn)(void *arg), void *arg)
{
    Coroutine *co;

    *run = (struct fake_run){.fn = fn, .arg = arg};
    co = coroutine_create(fake_run_entry, run);
    CHECK(co != NULL);
    coroutine_enter(co);
}

static inline int fake_wait(struct fake_run *run)
{
    while (!run->done) {
        aio_poll(fake_ctx, true);
    }
    return run->ret;
}

static inline int fake_do(int (*fn)(void *arg), void *arg)
{
    struct fake_run run;

    fake_start(&run, fn, arg);
    return fake_wait(&run);
}

struct fake_call {
    BdrvEdge *edge;
    struct bdrv_req req;
    struct iovec iov;
};

static inline int fake_call_run(void *opaque)
{
    struct fake_call *call = opaque;

    return bdrv_edge_request_co(call->edge, &call->req);
}

static inline struct fake_call fake_call_of(BdrvEdge *edge, enum bdrv_op op, uint64_t offset,
                                            uint64_t bytes, unsigned flags)
{
    return (struct fake_call){.edge = edge,
                              .req = {.op = op, .flags = flags, .offset = offset, .bytes = bytes}};
}

/* A request without memory. */
static inline int fake_request(BdrvEdge *edge, enum bdrv_op op, uint64_t offset, uint64_t bytes,
                               unsigned flags)
{
    struct fake_call call = fake_call_of(edge, op, offset, bytes, flags);

    return fake_do(fake_call_run, &call);
}

static inline int fake_rw(BdrvEdge *edge, enum bdrv_op op, uint64_t offset, void *buf,
                          uint64_t bytes, unsigned flags)
{
    struct fake_call call = fake_call_of(edge, op, offset, bytes, flags);

    call.iov = (struct iovec){.iov_base = buf, .iov_len = bytes};
    call.req.iov = &call.iov;
    call.req.niov = 1;
    return fake_do(fake_call_run, &call);
}

/* ---- random numbers: xorshift, the seed from PLATTER_SEED ---- */

static inline uint64_t fake_rand(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}
static inline uint64_t fake_rand_below(uint64_t *state, uint64_t n)
{
    return fake_rand(state) % n;
}
static inline uint64_t fake_seed(const char *test)
{
    const char *env = getenv("PLATTER_SEED");
    uint64_t seed = env != NULL ? strtoull(env, NULL, 0) : (uint64_t)time(NULL);

    seed = seed != 0 ? seed : 1;
    fprintf(stderr, "%s: PLATTER_SEED=%llu\n", test, (unsigned long long)seed);
    return seed;
}

#endif
