/* SPDX-License-Identifier: MIT */
/*
 * What the files of the loop share: the thread's state, a coroutine, a context.
 *
 * Threads: the fields of a context above `remote` belong to the thread that runs it; those from
 * there on are touched by anybody, each says how. A sleeper and its wakers keep this protocol: the
 * waker first puts its work in place, then reads notify_me; the loop first sets notify_me, then
 * looks for work once more, then sleeps. All four are sequentially consistent, so one of the two
 * sees the other.
 */
#ifndef PLATTER_LOOP_INTERNAL_H
#define PLATTER_LOOP_INTERNAL_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include <platter/aio.h>
#include <platter/coroutine.h>

#include "loop/context.h"
#include "util/mem.h"

struct mem_budget;
struct ring;
struct workers;

/* ---- coroutines ---- */

/* What a request may keep in the coroutine that serves it (task.h). */
#define COROUTINE_ROOM_BYTES 160

struct Coroutine {
    void *sp;        /* where it goes on, while it does not run */
    void *caller_sp; /* where its enterer goes on, while it runs; else NULL */
    CoroutineEntry *entry;
    void *opaque;
    void (*farewell)(void *opaque); /* of opaque, once entry has returned; or NULL */
    bool ended;                     /* entry has returned, farewell is in the ready list */
    Coroutine *next;                /* in a ready list or a pool */
    AioContext *_Atomic ctx;        /* entered there last, or scheduled there */
    AioContext *move_to;            /* of a switch out with CO_MOVED */
    struct mem_budget *budget;      /* charged while in use, or NULL */
    void *map;                      /* owned: guard page, stack, this struct */
    size_t map_bytes;
    void *stack_bottom;
    size_t stack_bytes;
    unsigned valgrind_id;
    void *asan_fake; /* AddressSanitizer: fake stacks of both sides, stack of the enterer */
    void *asan_caller_fake;
    const void *asan_caller_bottom;
    size_t asan_caller_bytes;
    void *tsan_fiber; /* ThreadSanitizer's */
    void *tsan_caller;
    _Alignas(16) unsigned char room[COROUTINE_ROOM_BYTES];
};

/* Why a coroutine switched out; handed to its enterer. */
enum co_switched { CO_YIELDED, CO_ENDED, CO_MOVED };

#define CO_STACK_CHARGE_BYTES (64u << 10)

/* ---- the thread ---- */

struct loop_tls {
    Coroutine *self;
    AioContext *ctx;
    Coroutine *pool; /* idle coroutines that no context keeps */
    int pool_room;   /* how many more the pool takes */
    unsigned colour;
    bool exit_hooked;
    uint64_t id; /* never another thread's, unlike this struct's address; 0: not asked for yet */
};

/* Never read it after a possible switch in the same function: the compiler may keep its address,
 * and the coroutine may have moved to another thread. loop_current() is for there. */
extern __thread struct loop_tls loop_tls
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* aio_context_current, safe after a switch. */
AioContext *loop_current(void);

/* ---- descriptors ---- */

/* A coroutine that waits for a socket (only where the poller is epoll). On its stack. */
struct fd_wait {
    Coroutine *co;
    uint32_t events; /* EPOLLIN or EPOLLOUT */
    int rc;          /* why it waits no longer without an event, or 0 */
    TAILQ_ENTRY(fd_wait) entry;
};
TAILQ_HEAD(fd_wait_list, fd_wait);

/* What is watched of one descriptor. Loop thread only. Freed at the end of the outermost aio_poll,
 * and not before the ring has given its poll back. */
struct aio_fd {
    int fd;
    AioFdFunc *read_cb;
    AioFdFunc *write_cb;
    void *opaque;
    struct fd_wait_list waits;
    uint32_t armed;    /* events the poller was told, 0: none */
    bool in_kernel;    /* epoll: believed to be in the set; ring: a poll is in flight */
    bool cancel_sent;  /* ring: that poll is being cancelled */
    bool queued_rearm; /* ring: in the list of those to arm */
    bool oneshot;      /* epoll: disarmed by its first event */
    bool dead;
    TAILQ_ENTRY(aio_fd) entry;       /* in its bucket, or among the dead */
    TAILQ_ENTRY(aio_fd) rearm_entry; /* ring */
};
TAILQ_HEAD(aio_fd_list, aio_fd);
#define AIO_FD_BUCKETS 64

struct poller {
    /* Wait up to timeout_ns (0: not at all, < 0: without limit), having given the kernel what is
     * queued, and run what it reports. Clears notify_me as soon as it is awake. Returns whether a
     * handler or a coroutine ran. */
    bool (*wait)(AioContext *ctx, int64_t timeout_ns);
    /* What aio_fd_wanted says of afd has changed. 0 or -errno. */
    int (*fd_update)(AioContext *ctx, struct aio_fd *afd);
    /* A descriptor that is readable when wait(0) would do something. */
    int (*fd)(AioContext *ctx);
    /* The host was woken by that descriptor. */
    void (*awake)(AioContext *ctx);
    /* Before the host sleeps on that descriptor: leave nothing unsubmitted. */
    void (*settle)(AioContext *ctx);
    void (*close)(AioContext *ctx);
};
extern const struct poller poller_epoll;
extern const struct poller poller_uring;

uint32_t aio_fd_wanted(const struct aio_fd *afd);
struct aio_fd *aio_fd_find(AioContext *ctx, int fd, bool create);
/* Run what an event asks for; whether something ran. */
bool aio_fd_dispatch(AioContext *ctx, struct aio_fd *afd, uint32_t events);
/* Take afd out when nobody wants it any more. */
void aio_fd_drop_unused(AioContext *ctx, struct aio_fd *afd);
/* Whoever waits for afd goes on with rc. */
void aio_fd_fail_waits(AioContext *ctx, struct aio_fd *afd, int rc);
void aio_fds_reap_dead(AioContext *ctx);
void aio_fds_free(AioContext *ctx);
/* The poller has changed: tell the new one everything. */
void aio_fds_rearm_all(AioContext *ctx);

/* ---- a context ---- */

struct AioTimer {
    AioContext *ctx;
    QEMUBHFunc *cb;
    void *opaque;
    int64_t expire_ns;
    uint64_t seq; /* order among equals, and of arming */
    AioTimer *child, *sibling, *prev;
    bool armed;
};

enum bh_flags { BH_PENDING = 1, BH_SCHEDULED = 2, BH_ONESHOT = 4, BH_DELETED = 8 };

struct QEMUBH {
    AioContext *ctx;
    QEMUBHFunc *cb;
    void *opaque;
    QEMUBH *next; /* in the list, while BH_PENDING */
    atomic_uint flags;
};

struct AioContext {
    /* loop thread */
    const struct poller *poller;
    struct ring *ring;     /* owned; NULL: not with io_uring, or not started */
    Coroutine *ready_head; /* coroutines to enter, in order */
    Coroutine *ready_tail;
    unsigned ready_n;
    unsigned poll_depth;
    QEMUBH *bh_head; /* taken from bh_list, in order */
    QEMUBH *bh_tail;
    unsigned bh_n;
    unsigned plugged;
    bool started;
    uint64_t notify_count; /* ring: event_fd is read to here, perhaps after the ring has gone */
    AioTimer *timers;      /* heap, the earliest first */
    uint64_t timer_seq;
    int64_t turn_ns;         /* the clock in this turn; 0: nobody asked yet */
    int64_t timers_floor_ns; /* earliest expiry; the clock of a run while one is going on */
    int epoll_fd;
    int outer_fd; /* for a host's own poll loop; -1: nobody asked */
    int outer_timer_fd;
    int64_t outer_deadline_ns;
    struct aio_fd_list fds[AIO_FD_BUCKETS];
    struct aio_fd_list dead_fds;
    struct aio_fd_list rearm_fds; /* ring: whose poll found no submission entry */
    struct aio_fd notify_afd;
    struct workers *workers; /* owned; made on demand */
    unsigned workers_max;
    int64_t workers_idle_ns; /* how long one waits for work before it ends */
    unsigned ring_entries;
    struct mem_budget *budget;
    Coroutine *idle; /* coroutines charged to budget, the one that ended last first */
    unsigned idle_n;

    /* set at creation */
    unsigned slot;
    int event_fd;
    enum aio_engine engine;

    /* any thread; away from the loop's own lines */
    _Alignas(64) Coroutine *_Atomic remote; /* scheduled from elsewhere, last first */
    QEMUBH *_Atomic bh_list;                /* scheduled, last first */
    atomic_int notify_me;                   /* the loop sleeps, or is about to */
    atomic_bool notified;                   /* event_fd was written and not yet drained */
    atomic_bool poked;                      /* aio_notify since the loop slept last */
    atomic_int wakers;                      /* threads between giving us work and having kicked */
    atomic_int ref;
};

/* Write event_fd when the loop may be asleep; after the work was put in place. */
void aio_notify_slow(AioContext *ctx);
static inline void aio_kick(AioContext *ctx)
{
    if (UNLIKELY(atomic_load(&ctx->notify_me))) {
        aio_notify_slow(ctx);
    }
}

/* Around giving work to a context of another thread and kicking it: that work may be what makes its
 * owner free it, which waits for us. */
static inline void aio_waker_begin(AioContext *ctx)
{
    atomic_fetch_add_explicit(&ctx->wakers, 1, memory_order_relaxed);
}
static inline void aio_waker_end(AioContext *ctx)
{
    atomic_fetch_sub_explicit(&ctx->wakers, 1, memory_order_release);
}

/* Push co, which is suspended or about to be, for ctx's loop; own thread only. */
static inline void aio_ready_push(AioContext *ctx, Coroutine *co)
{
    co->next = 0;
    if (ctx->ready_tail) {
        ctx->ready_tail->next = co;
    } else {
        ctx->ready_head = co;
    }
    ctx->ready_tail = co;
    ctx->ready_n++;
}

/* event_fd has fired (must_read: and is still to be read). */
void aio_notify_drain(AioContext *ctx, bool must_read);

/* The context has no idle coroutine: one of the thread's, or a new one, charged. NULL: no memory.
 */
Coroutine *coroutine_take_slow(void);
/* Give the charge back, and co to the thread's pool. */
void coroutine_let_go(Coroutine *co);

#define CO_IDLE_MAX 64 /* that a context keeps */

/* co has ended in the thread that runs ctx (NULL: it runs none). */
static inline void coroutine_recycle(AioContext *ctx, Coroutine *co)
{
    if (LIKELY(ctx && ctx->budget == co->budget && ctx->idle_n < CO_IDLE_MAX)) {
        co->next = ctx->idle;
        ctx->idle = co;
        ctx->idle_n++;
    } else {
        coroutine_let_go(co);
    }
}

/* First use in the thread that runs ctx: what was asked for before goes to the poller. */
void aio_context_start(AioContext *ctx);
/* The thread that ran ctx is about to end: give back what is bound to it. */
void aio_context_leave_thread(AioContext *ctx);
int aio_epoll_open(AioContext *ctx);

bool aio_bh_run(AioContext *ctx);
void aio_bhs_free(AioContext *ctx);
bool aio_timers_run(AioContext *ctx);
/* ns until the first timer; < 0: none. */
int64_t aio_timers_timeout_ns(const AioContext *ctx);

/* Let the idle coroutines go. */
void aio_idle_free(AioContext *ctx);

/* ---- engines ---- */

struct aio_file_io;

/* A ring for ctx, to be enabled in its thread. 0 or -errno. */
int ring_open(AioContext *ctx);
/* As the calls of loop/io.h; ctx has a ring. */
int64_t ring_file_co(AioContext *ctx, const struct aio_file_io *io);
int64_t ring_recv_co(AioContext *ctx, int fd, struct iovec *iov, int niov);
int ring_send_co(AioContext *ctx, int fd, struct iovec *iov, int niov, int flags);
void ring_sock_cancel(AioContext *ctx, int fd);

/* Whether a call that answered rc is worth another try: -EINTR and -EAGAIN, but not for ever, since
 * storage that only ever answers so is an error and not a hang. *fruitless: tries in a row that did
 * nothing, 0 at first and after progress. */
bool io_again(int64_t rc, unsigned *fruitless);
/* All of io that is left after done, by calls that may block. As aio_file_co. */
int64_t file_sync(const struct aio_file_io *io, uint64_t done);
/* The same on a worker thread. Coroutine. */
int64_t file_worker_co(const struct aio_file_io *io, uint64_t done);
/* Result of a transfer that stopped after done bytes with the system's answer n <= 0. */
int64_t file_transfer_end(const struct aio_file_io *io, uint64_t done, int64_t n);

void workers_free(struct workers *workers);
/* Pieces of work that are under way, or that a thread is about to take up. In ctx's thread; for
 * tests that decide when time passes. */
unsigned workers_pending(const AioContext *ctx);
uint64_t workers_current(void); /* in a worker: its work is the so manieth that was submitted */

#endif
