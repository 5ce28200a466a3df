/* SPDX-License-Identifier: MIT */
/*
 * A context's ring, shared by its poller and its I/O engine. Everything here belongs to the thread
 * that runs the context.
 *
 * The queues are driven here and not through liburing's helpers, because one turn needs exactly one
 * io_uring_enter. The submission array is the identity, so publishing is one store of the tail.
 */
#ifndef PLATTER_LOOP_RING_H
#define PLATTER_LOOP_RING_H

#include <liburing.h>
#include <sys/queue.h>

#include "loop/internal.h"

/* One operation in flight, on the stack of the coroutine that waits for it. Its address is the
 * completion's user_data (tag 0). */
struct ring_op {
    Coroutine *co;
    int res;
};

enum ring_tag { RING_OP = 0, RING_POLL = 1, RING_NOTIFY = 2, RING_IGNORE = 3, RING_TAG_MASK = 7 };

struct sock_op {
    struct ring_op op; /* first: its address is known to the kernel */
    int fd;
    unsigned fruitless; /* see io_again */
    bool cancelled;
    bool cancel_sent;
    bool queued; /* the kernel has it, or will */
    TAILQ_ENTRY(sock_op) entry;
};

struct sqe_wait {
    Coroutine *co;
    STAILQ_ENTRY(sqe_wait) entry;
};

#define RING_UNBOUND UINT64_MAX

struct ring {
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    unsigned sq_mask;
    unsigned sq_entries;
    unsigned sq_tail; /* ours; the kernel is told by ring_enter */
    unsigned cq_mask;
    unsigned cq_head; /* ours and the kernel's are the same outside ring_reap's two lines */
    unsigned inflight;
    int enter_fd;
    int signal_fd; /* owned; for a host's loop, else -1 */
    unsigned enter_flags;
    bool notify_armed;
    bool cancel_due;  /* a cancelled sock_op has found no submission entry */
    bool on_memcheck; /* tell it what the kernel writes */
    bool on_valgrind; /* wait by sleeping, which valgrind understands */
    bool fd_registered;
    uint64_t owner; /* loop_tls.id of the thread that it is enabled for, or RING_UNBOUND */
    TAILQ_HEAD(sock_op_list, sock_op) sock_ops; /* all of ring_recv_co and ring_send_co */
    STAILQ_HEAD(sqe_wait_list, sqe_wait)
    sqe_waits; /* the submission queue was full and stayed so */
    struct io_uring u;
};

static inline unsigned ring_load(const unsigned *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void ring_store(unsigned *p, unsigned v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

/* Submit what is queued, with wait also wait for a completion up to timeout_ns (< 0: for ever). The
 * kernel may take less than all; the rest stays queued. */
void ring_enter(AioContext *ctx, bool submit, bool wait, int64_t timeout_ns);

/* Make room in a full submission queue; whether there is some. */
bool ring_make_room(AioContext *ctx);

/* A submission entry that the next ring_enter will submit, or NULL. Whoever gets it sets all of it:
 * there is an old one in it. */
static inline struct io_uring_sqe *ring_get_sqe(AioContext *ctx)
{
    struct ring *r = ctx->ring;

    if (UNLIKELY(r->sq_tail - ring_load(r->u.sq.khead) >= r->sq_entries) && !ring_make_room(ctx)) {
        return 0;
    }
    r = ctx->ring; /* making room may have moved it */
    if (UNLIKELY(ctx->outer_fd >= 0 && ctx->poll_depth == 0)) {
        aio_kick(ctx); /* a host sleeps and does not know */
    }
    return &r->sqes[r->sq_tail++ & r->sq_mask];
}

/* The same, cleared: what io_uring_prep_... leaves alone differs between versions of liburing. */
static inline struct io_uring_sqe *ring_get_clear_sqe(AioContext *ctx)
{
    struct io_uring_sqe *sqe = ring_get_sqe(ctx);

    if (LIKELY(sqe)) {
        *sqe = (struct io_uring_sqe){0};
    }
    return sqe;
}

/* Send the cancellations that are due. */
void ring_sock_cancel_due(AioContext *ctx);

#endif
