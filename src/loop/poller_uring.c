/* SPDX-License-Identifier: MIT */
/*
 * The ring as poller: descriptors are one-shot polls that are armed again, the eventfd is a pending
 * read, timers are the timeout of the wait. So one turn is one io_uring_enter that submits
 * everything the turn has queued and waits; none at all when completions lie ready and nothing is
 * to be submitted.
 *
 * The ring is made disabled, with the context, and enabled in the thread that runs it first: the
 * kernel then lets nobody else submit, which it rewards.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "loop/internal.h"
#include "loop/ring.h"
#include "loop/sanitizer.h"
#include "os/os.h"

#define NS_PER_SEC 1000000000
#define BACKOFF_NS 1000000
#define VALGRIND_SLEEP_NS 100000
#define FEATURES_NEEDED                                                                            \
    (IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_FAST_POLL | IORING_FEAT_EXT_ARG)

/* ---- making and ending ---- */

/* The best the kernel knows, then what older ones know. */
static const unsigned setups[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
        IORING_SETUP_R_DISABLED,
    IORING_SETUP_R_DISABLED,
};

static int ring_init(struct ring *r, unsigned entries)
{
    int rc = -ENOSYS;

    for (size_t i = 0; i < ARRAY_SIZE(setups); i++) {
        struct io_uring_params p = {
            .flags = setups[i] | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
            .cq_entries = entries * 8,
        };

        rc = io_uring_queue_init_params(entries, &r->u, &p);
        if (rc != -EINVAL) {
            break;
        }
    }
    if (rc < 0) {
        return rc;
    }
    if ((r->u.features & FEATURES_NEEDED) != FEATURES_NEEDED) {
        io_uring_queue_exit(&r->u);
        return -ENOSYS;
    }
    r->sqes = r->u.sq.sqes;
    r->cqes = r->u.cq.cqes;
    r->sq_mask = r->u.sq.ring_mask;
    r->sq_entries = r->u.sq.ring_entries;
    r->cq_mask = r->u.cq.ring_mask;
    r->enter_fd = r->u.ring_fd;
    r->enter_flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    r->on_memcheck = san_on_memcheck();
    r->on_valgrind = san_on_valgrind();
    for (unsigned i = 0; i < r->sq_entries; i++) {
        r->u.sq.array[i] = i;
    }
    return 0;
}

static struct ring *ring_new(unsigned entries, int *ret_rc)
{
    struct ring *r = calloc(1, sizeof(*r));

    if (!r) {
        *ret_rc = -ENOMEM;
        return 0;
    }
    TAILQ_INIT(&r->sock_ops);
    STAILQ_INIT(&r->sqe_waits);
    r->signal_fd = -1;
    r->owner = RING_UNBOUND;
    *ret_rc = ring_init(r, entries);
    if (*ret_rc < 0) {
        free(r);
        return 0;
    }
    return r;
}

/* The registration belongs to the thread: there it is undone, elsewhere it must not be. */
static void ring_unregister_fd(struct ring *r)
{
    if (r->fd_registered && r->owner == loop_tls.id) {
        io_uring_unregister_ring_fd(&r->u);
    }
    r->fd_registered = false;
    r->u.int_flags = 0;
    r->u.enter_ring_fd = r->u.ring_fd;
    r->enter_fd = r->u.ring_fd;
    r->enter_flags &= ~IORING_ENTER_REGISTERED_RING;
}

static void ring_free(struct ring *r)
{
    assert(r->inflight == 0); /* the kernel would write to stacks that are gone */
    ring_unregister_fd(r);
    io_uring_queue_exit(&r->u);
    if (r->signal_fd >= 0) {
        os->close(r->signal_fd);
    }
    free(r);
}

int ring_open(AioContext *ctx)
{
    int rc;

    ctx->ring = ring_new(ctx->ring_entries, &rc);
    return rc;
}

static void ring_enable(struct ring *r)
{
    if (loop_tls.id == 0) {
        loop_tls.id = os_unique_number();
    }
    r->owner = loop_tls.id;
    /* Cannot fail for a disabled ring of ours */
    (void)io_uring_register((unsigned)r->u.ring_fd, IORING_REGISTER_ENABLE_RINGS, 0, 0);
    if (io_uring_register_ring_fd(&r->u) == 1) { /* saves the kernel a look-up at each call */
        r->fd_registered = true;
        r->enter_fd = r->u.enter_ring_fd;
        r->enter_flags |= IORING_ENTER_REGISTERED_RING;
    }
}

/* What is queued in old for coroutines goes to r; polls and the read of event_fd are armed anew. */
static void ring_move_queued(struct ring *r, struct ring *old)
{
    unsigned ops = 0;

    for (unsigned i = ring_load(old->u.sq.khead); i != old->sq_tail; i++) {
        const struct io_uring_sqe *sqe = &old->sqes[i & old->sq_mask];
        bool is_op = (sqe->user_data & RING_TAG_MASK) == RING_OP;

        if (is_op || sqe->opcode == IORING_OP_ASYNC_CANCEL) {
            r->sqes[r->sq_tail++ & r->sq_mask] = *sqe;
            ops += is_op;
        }
    }
    assert(old->inflight == ops); /* what the kernel has already belongs to the other thread */
    r->inflight = ops;
    old->inflight = 0;
    TAILQ_CONCAT(&r->sock_ops, &old->sock_ops, entry);
    STAILQ_CONCAT(&r->sqe_waits, &old->sqe_waits);
    r->cancel_due = old->cancel_due;
}

/* Another thread has taken over the context, with nothing of any coroutine in the kernel: make a
 * ring that is that thread's. */
static void ring_move(AioContext *ctx)
{
    struct ring *old = ctx->ring;
    struct ring *r;
    int old_signal_fd;
    int rc;

    r = ring_new(ctx->ring_entries, &rc);
    if (!r) {
        return; /* the old one refuses this thread; tried again at the next turn */
    }
    ring_move_queued(r, old);
    ctx->ring = r;
    old_signal_fd = old->signal_fd;
    old->signal_fd = -1;
    ring_enable(r);
    ring_free(old);
    if (old_signal_fd >= 0) {
        r->signal_fd = old_signal_fd;
        (void)io_uring_register_eventfd(&r->u, r->signal_fd);
    }
    aio_fds_rearm_all(ctx);
}

static void ring_bind(AioContext *ctx)
{
    if (ctx->ring->owner == RING_UNBOUND) {
        ring_enable(ctx->ring);
    } else {
        ring_move(ctx);
    }
}

void aio_context_leave_thread(AioContext *ctx)
{
    if (ctx->ring) {
        ring_unregister_fd(ctx->ring);
    }
}

/* ---- entering the kernel ---- */

static int enter(struct ring *r, unsigned submit, unsigned wait_nr, int64_t timeout_ns)
{
    struct io_uring_getevents_arg arg = {0};
    struct __kernel_timespec ts;

    if (timeout_ns >= 0) {
        ts.tv_sec = timeout_ns / NS_PER_SEC;
        ts.tv_nsec = timeout_ns % NS_PER_SEC;
        arg.ts = (uint64_t)(uintptr_t)&ts;
    }
    return io_uring_enter2((unsigned)r->enter_fd, submit, wait_nr, r->enter_flags, (void *)&arg,
                           sizeof(arg));
}

static bool completions_ready(const struct ring *r)
{
    return r->cq_head != ring_load(r->u.cq.ktail);
}

/* See san_on_valgrind: a short sleep for a wait. The loop comes back until there is something. */
static __attribute__((noinline)) int enter_on_valgrind(struct ring *r, unsigned submit)
{
    int rc = enter(r, submit, 0, 0);

    if (rc >= 0 && !completions_ready(r)) {
        os->sleep_ns(VALGRIND_SLEEP_NS);
    }
    return rc;
}

static bool enter_failed(int rc)
{
    return rc < 0 && rc != -ETIME && rc != -EINTR;
}

void ring_enter(AioContext *ctx, bool submit, bool wait, int64_t timeout_ns)
{
    struct ring *r = ctx->ring;
    unsigned n = 0;
    int rc;

    if (UNLIKELY(r->owner != loop_tls.id)) {
        ring_bind(ctx);
        r = ctx->ring;
    }
    if (submit) {
        ring_store(r->u.sq.ktail, r->sq_tail);
        n = r->sq_tail - ring_load(r->u.sq.khead);
    }
    if (UNLIKELY(wait && r->on_valgrind)) {
        rc = enter_on_valgrind(r, n);
    } else {
        rc = enter(r, n, wait, timeout_ns);
    }
    if (UNLIKELY(enter_failed(rc)) && wait && !completions_ready(r)) {
        /* The kernel is short of something (EAGAIN, EBUSY, ENOMEM). What was not taken stays
         * queued; let it finish other things meanwhile */
        if (enter_failed(enter(r, 0, 1, BACKOFF_NS)) && !completions_ready(r)) {
            os->sleep_ns(BACKOFF_NS);
        }
    }
}

bool ring_make_room(AioContext *ctx)
{
    struct ring *r;

    ring_enter(ctx, true, false, 0);
    r = ctx->ring;
    if (r->sq_tail - ring_load(r->u.sq.khead) < r->sq_entries) {
        return true;
    }
    if (ctx->outer_fd >= 0 && ctx->poll_depth == 0) {
        aio_kick(ctx); /* the caller waits for a turn, and a host sleeps and does not know */
    }
    return false;
}

/* ---- descriptors ---- */

static void fd_retry_later(AioContext *ctx, struct aio_fd *afd)
{
    if (!afd->queued_rearm) {
        afd->queued_rearm = true;
        TAILQ_INSERT_TAIL(&ctx->rearm_fds, afd, rearm_entry);
    }
}

static void fd_arm(AioContext *ctx, struct aio_fd *afd, uint32_t wanted)
{
    struct io_uring_sqe *sqe = ring_get_clear_sqe(ctx);

    if (!sqe) {
        fd_retry_later(ctx, afd);
        return;
    }
    io_uring_prep_poll_add(sqe, afd->fd, wanted);
    sqe->user_data = (uint64_t)(uintptr_t)afd | RING_POLL;
    afd->armed = wanted;
    afd->in_kernel = true;
}

static void fd_cancel(AioContext *ctx, struct aio_fd *afd)
{
    struct io_uring_sqe *sqe = ring_get_clear_sqe(ctx);

    if (!sqe) {
        fd_retry_later(ctx, afd);
        return;
    }
    io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)afd | RING_POLL);
    sqe->user_data = RING_IGNORE;
    afd->cancel_sent = true;
}

/* A poll whose events no longer fit is cancelled; its completion arms the right one. */
static int uring_fd_update(AioContext *ctx, struct aio_fd *afd)
{
    uint32_t wanted = aio_fd_wanted(afd);

    if (!afd->in_kernel && wanted) {
        fd_arm(ctx, afd, wanted);
    } else if (afd->in_kernel && wanted != afd->armed && !afd->cancel_sent) {
        fd_cancel(ctx, afd);
        if (!wanted) {
            ring_enter(ctx, true, false, 0); /* the caller may close it: let go of the file now */
        }
    }
    return 0;
}

static void fd_retry(AioContext *ctx)
{
    struct aio_fd_list list = TAILQ_HEAD_INITIALIZER(list);
    struct aio_fd *afd;

    TAILQ_CONCAT(&list, &ctx->rearm_fds, rearm_entry);
    while ((afd = TAILQ_FIRST(&list))) {
        TAILQ_REMOVE(&list, afd, rearm_entry);
        afd->queued_rearm = false;
        uring_fd_update(ctx, afd);
    }
}

static bool fd_completed(AioContext *ctx, struct aio_fd *afd, int res)
{
    uint32_t wanted = aio_fd_wanted(afd);
    bool progress = false;

    afd->in_kernel = false;
    afd->cancel_sent = false;
    afd->armed = 0;
    if (afd->dead) {
        return false;
    }
    if (res == -ENOMEM || res == -EAGAIN || res == -EINTR) { /* nothing of the descriptor's */
        fd_retry_later(ctx, afd);
        return false;
    }
    if (res < 0 && res != -ECANCELED) {
        /* Closed under us, most likely: tell once, and do not ask again */
        return aio_fd_dispatch(ctx, afd, EPOLLERR);
    }
    if (res > 0) {
        progress = aio_fd_dispatch(ctx, afd, (uint32_t)res & (wanted | EPOLLERR | EPOLLHUP));
    }
    if (!afd->dead) {
        uring_fd_update(ctx, afd);
    }
    return progress;
}

/* ---- the turn ---- */

static void notify_arm(AioContext *ctx)
{
    struct ring *r = ctx->ring;
    struct io_uring_sqe *sqe = ring_get_clear_sqe(ctx);

    if (sqe) {
        io_uring_prep_read(sqe, ctx->event_fd, &ctx->notify_count, sizeof(ctx->notify_count), 0);
        sqe->user_data = RING_NOTIFY;
        r->notify_armed = true;
    }
}

/* Read or not (a read that failed leaves the descriptor as it was): armed again by the next sleep.
 */
static void notify_completed(AioContext *ctx)
{
    ctx->ring->notify_armed = false;
    aio_notify_drain(ctx, false);
}

static bool completed(AioContext *ctx, uint64_t user_data, int res)
{
    void *p = (void *)(uintptr_t)(user_data & ~(uint64_t)RING_TAG_MASK);

    switch (user_data & RING_TAG_MASK) {
    case RING_OP:
        ctx->ring->inflight--;
        ((struct ring_op *)p)->res = res;
        coroutine_enter(((struct ring_op *)p)->co);
        return true;
    case RING_POLL:
        return fd_completed(ctx, p, res);
    case RING_NOTIFY:
        notify_completed(ctx);
        return false;
    default:
        return false;
    }
}

/* Each completion is given back to the kernel before it is acted upon, so that a nested poll goes
 * on with the next. */
static bool ring_reap(AioContext *ctx)
{
    struct ring *r = ctx->ring;
    unsigned n = ring_load(r->u.cq.ktail) - r->cq_head;
    bool progress = false;

    for (; n > 0 && completions_ready(r); n--) {
        const struct io_uring_cqe *cqe = &r->cqes[r->cq_head & r->cq_mask];
        uint64_t user_data = cqe->user_data;
        int res = cqe->res;

        ring_store(r->u.cq.khead, ++r->cq_head);
        progress |= completed(ctx, user_data, res);
    }
    return progress;
}

/* Whether somebody found no submission entry. */
static inline bool leftovers_wait(const AioContext *ctx)
{
    return !TAILQ_EMPTY(&ctx->rearm_fds) || ctx->ring->cancel_due ||
           !STAILQ_EMPTY(&ctx->ring->sqe_waits);
}

static __attribute__((noinline)) void ring_leftovers(AioContext *ctx)
{
    struct sqe_wait *w;

    if (!TAILQ_EMPTY(&ctx->rearm_fds)) {
        fd_retry(ctx);
    }
    if (ctx->ring->cancel_due) {
        ring_sock_cancel_due(ctx);
    }
    while ((w = STAILQ_FIRST(&ctx->ring->sqe_waits))) {
        STAILQ_REMOVE_HEAD(&ctx->ring->sqe_waits, entry);
        aio_co_schedule(ctx, w->co);
    }
}

static bool uring_wait(AioContext *ctx, int64_t timeout_ns)
{
    struct ring *r = ctx->ring;
    bool submit;
    bool progress;

    if (UNLIKELY(r->owner != loop_tls.id)) { /* first: what is armed below must be this thread's */
        ring_bind(ctx);
        r = ctx->ring;
    }
    if (timeout_ns != 0 && !r->notify_armed) {
        notify_arm(ctx);
        if (UNLIKELY(!r->notify_armed)) { /* nobody could wake us */
            timeout_ns = timeout_ns < 0 || timeout_ns > BACKOFF_NS ? BACKOFF_NS : timeout_ns;
        }
    }
    if (completions_ready(r) || UNLIKELY(leftovers_wait(ctx))) {
        timeout_ns = 0;
    }
    submit = r->sq_tail != ring_load(r->u.sq.khead) && (timeout_ns != 0 || !ctx->plugged);
    if (timeout_ns != 0 || submit ||
        (ring_load(r->u.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) {
        ring_enter(ctx, submit, timeout_ns != 0, timeout_ns);
        ctx->turn_ns = 0;
    }
    atomic_store_explicit(&ctx->notify_me, 0, memory_order_relaxed);
    progress = ring_reap(ctx);
    if (UNLIKELY(leftovers_wait(ctx))) {
        ring_leftovers(ctx);
        progress = true;
    }
    return progress;
}

/* Polling the ring's own descriptor would miss completions that wait for this thread to collect
 * them (deferred task work); a registered eventfd is told of those too. */
static int uring_fd(AioContext *ctx)
{
    struct ring *r;
    int rc;

    if (ctx->ring->owner != loop_tls.id) {
        ring_bind(ctx);
    }
    r = ctx->ring;
    if (r->signal_fd < 0) {
        r->signal_fd = os->eventfd(0, EFD_NONBLOCK);
        if (r->signal_fd < 0) {
            return r->signal_fd;
        }
        rc = io_uring_register_eventfd(&r->u, r->signal_fd);
        if (rc < 0) {
            os->close(r->signal_fd);
            r->signal_fd = -1;
            return rc;
        }
    }
    return r->signal_fd;
}

static void uring_awake(AioContext *ctx)
{
    uint64_t count;

    if (ctx->ring->signal_fd >= 0) {
        (void)os->read(ctx->ring->signal_fd, &count, sizeof(count));
    }
}

static void uring_settle(AioContext *ctx)
{
    struct ring *r = ctx->ring;
    uint64_t one = 1;

    if (!r->notify_armed) {
        notify_arm(ctx);
    }
    if (r->sq_tail != ring_load(r->u.sq.khead)) {
        ring_enter(ctx, true, false, 0);
    }
    /* Completions of before the signal was last reset, perhaps; or the kernel has left something
     * to us or us with something */
    if (completions_ready(r) || !r->notify_armed || r->sq_tail != ring_load(r->u.sq.khead) ||
        (ring_load(r->u.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) ||
        leftovers_wait(ctx)) {
        (void)os->write(r->signal_fd, &one, sizeof(one));
    }
}

static void uring_close(AioContext *ctx)
{
    if (ctx->ring) {
        ring_free(ctx->ring);
        ctx->ring = 0;
    }
}

const struct poller poller_uring = {
    .wait = uring_wait,
    .fd_update = uring_fd_update,
    .fd = uring_fd,
    .awake = uring_awake,
    .settle = uring_settle,
    .close = uring_close,
};
