/* SPDX-License-Identifier: MIT */
/* The turn of a context: bottom halves, timers, descriptors, notification, nesting, threads. */
#include "loop_test.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop/context.h"
#include "loop/io.h"
#include "os/os.h"

/* ---- bottom halves ---- */

struct counter {
    int n;
    int limit;
    QEMUBH *bh;
    AioContext *ctx;
};

static void count(void *opaque)
{
    ((struct counter *)opaque)->n++;
}

static void test_bh(void **state)
{
    AioContext *ctx = test_context_new();
    struct counter c = {0};
    QEMUBH *bh = aio_bh_new(ctx, count, &c);

    assert_non_null(bh);
    assert_false(aio_poll(ctx, false));
    aio_bh_schedule(bh);
    aio_bh_schedule(bh);
    assert_true(aio_poll(ctx, true));
    assert_int_equal(c.n, 1);
    aio_bh_schedule(bh);
    aio_bh_cancel(bh);
    assert_false(aio_poll(ctx, false));
    assert_int_equal(c.n, 1);
    assert_int_equal(aio_bh_schedule_oneshot(ctx, count, &c), 0);
    assert_int_equal(aio_bh_schedule_oneshot(ctx, count, &c), 0);
    assert_true(aio_poll(ctx, true));
    assert_int_equal(c.n, 3);
    aio_bh_schedule(bh);
    aio_bh_delete(bh);
    aio_poll(ctx, false);
    assert_int_equal(c.n, 3);
    aio_context_unref(ctx);
}

static void again(void *opaque)
{
    struct counter *c = opaque;

    if (++c->n < c->limit) {
        aio_bh_schedule(c->bh);
    }
}

/* A bottom half that schedules itself runs once a turn and leaves room for others. */
static void test_bh_fair(void **state)
{
    AioContext *ctx = test_context_new();
    struct counter c = {.limit = 50};
    struct counter other = {0};

    c.bh = aio_bh_new(ctx, again, &c);
    aio_bh_schedule(c.bh);
    for (int i = 1; i <= 50; i++) {
        assert_int_equal(aio_bh_schedule_oneshot(ctx, count, &other), 0);
        assert_true(aio_poll(ctx, true));
        assert_int_equal(c.n, i);
        assert_int_equal(other.n, i);
    }
    aio_bh_delete(c.bh);
    aio_context_unref(ctx);
}

static void deletes_itself(void *opaque)
{
    struct counter *c = opaque;

    c->n++;
    aio_bh_delete(c->bh);
}

static void polls_inside(void *opaque)
{
    struct counter *c = opaque;

    while (c->n < c->limit) {
        assert_true(aio_poll(c->ctx, true));
    }
}

static void test_bh_nested(void **state)
{
    AioContext *ctx = test_context_new();
    struct counter c = {.limit = 2, .ctx = ctx};
    struct counter d = {0};

    d.bh = aio_bh_new(ctx, deletes_itself, &d);
    assert_int_equal(aio_bh_schedule_oneshot(ctx, polls_inside, &c), 0);
    assert_int_equal(aio_bh_schedule_oneshot(ctx, count, &c), 0);
    aio_bh_schedule(d.bh);
    assert_int_equal(aio_bh_schedule_oneshot(ctx, count, &c), 0);
    assert_true(aio_poll(ctx, true));
    assert_int_equal(c.n, 2);
    while (aio_poll(ctx, false)) {
    }
    assert_int_equal(d.n, 1);
    aio_context_unref(ctx);
}

enum { THREADS = 4, PER_THREAD = 2000 };

struct hammer {
    AioContext *ctx;
    QEMUBH *bh;
    atomic_int todo;
    atomic_int seen;
    int oneshots; /* loop thread */
};

static void hammered(void *opaque)
{
    struct hammer *h = opaque;

    atomic_store(&h->seen, atomic_load(&h->todo));
}

static void hammered_oneshot(void *opaque)
{
    ((struct hammer *)opaque)->oneshots++;
}

static void *hammer_thread(void *arg)
{
    struct hammer *h = arg;

    for (int i = 0; i < PER_THREAD; i++) {
        atomic_fetch_add(&h->todo, 1);
        aio_bh_schedule(h->bh);
        if (aio_bh_schedule_oneshot(h->ctx, hammered_oneshot, h) < 0) {
            abort();
        }
    }
    return 0;
}

/* Nothing scheduled from other threads is lost, and the loop is woken each time it sleeps. */
static void test_bh_from_threads(void **state)
{
    struct hammer h = {.ctx = test_context_new()};
    os_thread *thread[THREADS];

    h.bh = aio_bh_new(h.ctx, hammered, &h);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(os->thread_create("hammer", hammer_thread, &h, &thread[i]), 0);
    }
    while (h.oneshots < THREADS * PER_THREAD || atomic_load(&h.seen) < THREADS * PER_THREAD) {
        aio_poll(h.ctx, true);
    }
    for (int i = 0; i < THREADS; i++) {
        os->thread_join(thread[i]);
    }
    aio_bh_delete(h.bh);
    aio_context_unref(h.ctx);
}

/* ---- descriptors ---- */

struct pair {
    AioContext *ctx;
    int fd[2];
    int reads;
    int writes;
    char last;
};

static void readable(void *opaque)
{
    struct pair *p = opaque;

    p->reads++;
    assert_int_equal(read(p->fd[0], &p->last, 1), 1);
}

static void writable(void *opaque)
{
    struct pair *p = opaque;

    p->writes++;
    assert_int_equal(aio_set_fd_handler(p->ctx, p->fd[0], readable, 0, p), 0);
}

static void test_fd_handler(void **state)
{
    struct pair p = {.ctx = test_context_new()};

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p.fd), 0);
    assert_int_equal(aio_set_fd_handler(p.ctx, 9999, readable, 0, &p), -EBADF);
    assert_int_equal(aio_set_fd_handler(p.ctx, p.fd[0], readable, writable, &p), 0);
    while (p.writes == 0) {
        aio_poll(p.ctx, true);
    }
    while (aio_poll(p.ctx, false)) {
    }
    assert_int_equal(p.writes, 1);
    assert_int_equal(p.reads, 0);
    assert_int_equal(write(p.fd[1], "ab", 2), 2); /* level triggered: two calls */
    while (p.reads < 2) {
        aio_poll(p.ctx, true);
    }
    assert_int_equal(p.last, 'b');
    assert_int_equal(aio_set_fd_handler(p.ctx, p.fd[0], 0, 0, 0), 0);
    assert_int_equal(write(p.fd[1], "c", 1), 1);
    while (aio_poll(p.ctx, false)) {
    }
    assert_int_equal(p.reads, 2);
    assert_int_equal(aio_set_fd_handler(p.ctx, p.fd[0], readable, 0, &p), 0);
    while (p.reads < 3) {
        aio_poll(p.ctx, true);
    }
    assert_int_equal(aio_set_fd_handler(p.ctx, p.fd[0], 0, 0, 0), 0);
    close(p.fd[0]);
    close(p.fd[1]);
    aio_context_unref(p.ctx);
}

/* Taking a handler away lets go of the file at once: the peer sees the end when we close it. */
static void test_fd_let_go(void **state)
{
    struct pair p = {.ctx = test_context_new()};
    struct pollfd pfd;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p.fd), 0);
    assert_int_equal(aio_set_fd_handler(p.ctx, p.fd[0], readable, 0, &p), 0);
    while (aio_poll(p.ctx, false)) {
    }
    assert_int_equal(aio_set_fd_handler(p.ctx, p.fd[0], 0, 0, 0), 0);
    close(p.fd[0]);
    pfd = (struct pollfd){.fd = p.fd[1], .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, 1000), 1);
    assert_true(pfd.revents & POLLHUP);
    close(p.fd[1]);
    aio_context_unref(p.ctx);
}

/* A handler removes another one whose event is in the same batch. */
struct rivals {
    struct pair p[2];
    int ran;
};

static struct rivals *rivals;

static void removes_both(void *opaque)
{
    rivals->ran++;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(aio_set_fd_handler(rivals->p[0].ctx, rivals->p[i].fd[0], 0, 0, 0), 0);
    }
}

static void test_fd_removed_in_batch(void **state)
{
    AioContext *ctx = test_context_new();
    struct rivals r = {0};

    rivals = &r;
    for (int i = 0; i < 2; i++) {
        r.p[i].ctx = ctx;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, r.p[i].fd), 0);
        assert_int_equal(write(r.p[i].fd[1], "x", 1), 1);
        assert_int_equal(aio_set_fd_handler(ctx, r.p[i].fd[0], removes_both, 0, &r.p[i]), 0);
    }
    while (!r.ran) {
        aio_poll(ctx, true);
    }
    while (aio_poll(ctx, false)) {
    }
    assert_int_equal(r.ran, 1);
    for (int i = 0; i < 2; i++) {
        close(r.p[i].fd[0]);
        close(r.p[i].fd[1]);
    }
    aio_context_unref(ctx);
}

/* ---- notification ---- */

struct ping {
    AioContext *ctx;
    atomic_int turn;
    int rounds;
};

static bool not_my_turn(void *opaque)
{
    struct ping *p = opaque;

    return atomic_load(&p->turn) % 2 != 0;
}

static void *pong(void *arg)
{
    struct ping *p = arg;

    for (int i = 0; i < p->rounds; i++) {
        while (atomic_load(&p->turn) % 2 == 0) {
        }
        atomic_fetch_add(&p->turn, 1);
        aio_notify(p->ctx);
    }
    return 0;
}

/* The condition changes at any moment of the loop's falling asleep; the notification is not lost.
 */
static void test_wait_while(void **state)
{
    struct ping p = {.ctx = test_context_new(), .rounds = 3000};
    os_thread *thread;

    assert_int_equal(os->thread_create("pong", pong, &p, &thread), 0);
    for (int i = 0; i < p.rounds; i++) {
        atomic_fetch_add(&p.turn, 1);
        aio_wait_while(p.ctx, not_my_turn, &p);
    }
    os->thread_join(thread);
    aio_context_unref(p.ctx);
}

/* ---- contexts in threads ---- */

struct hop {
    AioContext *ctx[5];
    int n;
    int hops;
    atomic_bool done;
    AioContext *home;
};

static void hopper(void *opaque)
{
    struct hop *h = opaque;

    for (int i = 0; i < h->hops; i++) {
        AioContext *to = h->ctx[i % h->n];

        co_reschedule_self(to);
        assert_ptr_equal(aio_context_current(), to);
        assert_ptr_equal(coroutine_aio_context(coroutine_self()), to);
    }
    atomic_store(&h->done, true);
    aio_notify(h->home);
}

static bool hop_running(void *opaque)
{
    return !atomic_load(&((struct hop *)opaque)->done);
}

static void test_hop_between_threads(void **state)
{
    AioContext *home = test_context_new();
    enum { HOPPERS = 8 };
    IOThread *thread[4];
    static struct hop hop[HOPPERS];

    for (int i = 0; i < 4; i++) {
        thread[i] = test_iothread_new();
    }
    aio_context_set_current(home);
    for (int h = 0; h < HOPPERS; h++) {
        hop[h] = (struct hop){.n = 5, .hops = 300, .home = home};
        for (int i = 0; i < 4; i++) {
            hop[h].ctx[i] = iothread_get_aio_context(thread[(i + h) % 4]);
        }
        hop[h].ctx[4] = home;
        coroutine_enter(coroutine_create(hopper, &hop[h]));
    }
    for (int h = 0; h < HOPPERS; h++) {
        aio_wait_while(home, hop_running, &hop[h]);
    }
    for (int i = 0; i < 4; i++) {
        iothread_free(thread[i]);
    }
    aio_context_unref(home);
}

static void test_iothread_idle(void **state)
{
    for (int i = 0; i < 20; i++) {
        iothread_free(test_iothread_new());
    }
    iothread_free(0);
}

/* Two contexts polled in turn by one thread. */
static void test_two_contexts_one_thread(void **state)
{
    AioContext *a = test_context_new();
    AioContext *b = test_context_new();
    struct counter c = {0};

    aio_context_set_current(a);
    assert_int_equal(aio_bh_schedule_oneshot(b, count, &c), 0);
    assert_false(aio_poll(a, false));
    assert_true(aio_poll(b, true));
    assert_int_equal(c.n, 1);
    assert_ptr_equal(aio_context_current(), a);
    assert_int_equal(aio_context_slot(a) == aio_context_slot(b), 0);
    aio_context_unref(b);
    aio_context_unref(a);
    assert_null(aio_context_current());
}

static void test_bad_options(void **state)
{
    struct aio_context_options opts = {.size = sizeof(opts), .ring_entries = 1u << 20};
    Error *err = 0;

    assert_null(aio_context_new(&opts, &err));
    assert_int_equal(error_get_errno(err), EINVAL);
    error_free(err);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bh),
        cmocka_unit_test(test_bh_fair),
        cmocka_unit_test(test_bh_nested),
        cmocka_unit_test(test_bh_from_threads),
        cmocka_unit_test(test_fd_handler),
        cmocka_unit_test(test_fd_let_go),
        cmocka_unit_test(test_fd_removed_in_batch),
        cmocka_unit_test(test_wait_while),
        cmocka_unit_test(test_hop_between_threads),
        cmocka_unit_test(test_iothread_idle),
        cmocka_unit_test(test_two_contexts_one_thread),
        cmocka_unit_test(test_bad_options),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
