/* SPDX-License-Identifier: MIT */
/* A host's own poll() loop drives a context through its one descriptor. Every test sleeps in poll()
 * only, with a limit that stands for "for ever": a wake that gets lost fails the test. */
#include "loop_test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop/context.h"
#include "loop/io.h"
#include "os/os.h"

#define LIMIT_MS 20000

struct host {
    AioContext *ctx;
    int fd;
};

static struct host host_open(void)
{
    struct host h = {.ctx = test_context_new()};

    aio_context_set_current(h.ctx);
    h.fd = aio_context_get_fd(h.ctx);
    assert_true(h.fd >= 0);
    assert_int_equal(aio_context_get_fd(h.ctx), h.fd);
    return h;
}

static bool is_readable(const struct host *h, int timeout_ms)
{
    struct pollfd pfd = {.fd = h->fd, .events = POLLIN};

    return poll(&pfd, 1, timeout_ms) == 1;
}

static void host_run(const struct host *h, const bool *done)
{
    while (aio_poll(h->ctx, false)) {
    }
    while (!*done) {
        assert_true(is_readable(h, LIMIT_MS));
        while (aio_poll(h->ctx, false)) {
        }
    }
}

/* Until nothing is left to tell: a quiet context must not keep its host awake. */
static void host_quiet(const struct host *h)
{
    for (int i = 0; i < 10 && is_readable(h, 0); i++) {
        while (aio_poll(h->ctx, false)) {
        }
    }
    assert_false(is_readable(h, 0));
}

static void set(void *opaque)
{
    *(bool *)opaque = true;
}

static void test_bh_and_timer(void **state)
{
    struct host h = host_open();
    bool done = false;
    AioTimer *timer;

    host_quiet(&h);
    assert_int_equal(aio_bh_schedule_oneshot(h.ctx, set, &done), 0);
    host_run(&h, &done);
    host_quiet(&h);
    done = false;
    timer = aio_timer_new(h.ctx, set, &done);
    aio_timer_mod(timer, aio_clock_ns() + 3000000);
    host_run(&h, &done);
    host_quiet(&h);
    done = false;
    aio_timer_mod(timer, aio_clock_ns() - 1);
    host_run(&h, &done);
    aio_timer_mod(timer, aio_clock_ns() + INT64_C(3600000000000));
    host_quiet(&h);
    aio_timer_free(timer);
    host_quiet(&h);
    aio_context_unref(h.ctx);
}

struct io_test {
    int fd[2];
    bool done;
    AioContext *ctx;
};

static void file_entry(void *opaque)
{
    struct io_test *t = opaque;
    char buf[512] = "x";
    struct iovec iov = {buf, sizeof(buf)};
    struct aio_file_io io = {
        .op = AIO_FILE_WRITE, .fd = t->fd[0], .bytes = 512, .iov = &iov, .niov = 1};

    for (int i = 0; i < 20; i++) {
        io.offset = (uint64_t)i * 512;
        if (aio_file_co(&io) != 0) {
            abort();
        }
    }
    if (co_sleep_ns(1000000) != 0) {
        abort();
    }
    t->done = true;
}

static void test_file(void **state)
{
    struct host h = host_open();
    struct io_test t = {.ctx = h.ctx};
    char path[] = "/tmp/platter-test-XXXXXX";

    t.fd[0] = mkstemp(path);
    assert_true(t.fd[0] >= 0);
    unlink(path);
    for (int i = 0; i < 3; i++) {
        t.done = false;
        coroutine_enter(coroutine_create(file_entry, &t)); /* outside aio_poll */
        host_run(&h, &t.done);
        host_quiet(&h);
    }
    close(t.fd[0]);
    aio_context_unref(h.ctx);
}

static void recv_entry(void *opaque)
{
    struct io_test *t = opaque;
    char byte = 0;

    if (aio_recv_co(t->fd[0], &byte, 1) != 1 || byte != 'y') {
        abort();
    }
    t->done = true;
}

static void readable(void *opaque)
{
    struct io_test *t = opaque;
    char byte;

    if (read(t->fd[0], &byte, 1) != 1) {
        abort();
    }
    t->done = true;
}

static void test_socket_and_handler(void **state)
{
    struct host h = host_open();
    struct io_test t = {.ctx = h.ctx};

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, t.fd), 0);
    coroutine_enter(coroutine_create(recv_entry, &t));
    host_quiet(&h);
    assert_int_equal(write(t.fd[1], "y", 1), 1);
    host_run(&h, &t.done);
    host_quiet(&h);
    for (int i = 0; i < 3; i++) {
        t.done = false;
        assert_int_equal(aio_set_fd_handler(h.ctx, t.fd[0], readable, 0, &t), 0);
        host_quiet(&h);
        assert_int_equal(write(t.fd[1], "z", 1), 1);
        host_run(&h, &t.done);
        assert_int_equal(aio_set_fd_handler(h.ctx, t.fd[0], 0, 0, 0), 0);
        host_quiet(&h);
    }
    close(t.fd[0]);
    close(t.fd[1]);
    aio_context_unref(h.ctx);
}

static void *thread_main(void *arg)
{
    struct io_test *t = arg;

    if (aio_bh_schedule_oneshot(t->ctx, set, &t->done) != 0) {
        abort();
    }
    return 0;
}

static void test_other_thread(void **state)
{
    struct host h = host_open();

    for (int i = 0; i < 200; i++) {
        struct io_test t = {.ctx = h.ctx};
        os_thread *thread;

        assert_int_equal(os->thread_create("t", thread_main, &t, &thread), 0);
        host_run(&h, &t.done);
        os->thread_join(thread);
    }
    host_quiet(&h);
    aio_context_unref(h.ctx);
}

static void wake_me(void *opaque)
{
    struct io_test *t = opaque;

    /* local work that is made outside of aio_poll */
    aio_co_schedule(t->ctx, coroutine_self());
    coroutine_yield();
    t->done = true;
}

static void test_local_work(void **state)
{
    struct host h = host_open();
    struct io_test t = {.ctx = h.ctx};

    host_quiet(&h);
    coroutine_enter(coroutine_create(wake_me, &t));
    host_run(&h, &t.done);
    aio_notify(h.ctx);
    assert_true(is_readable(&h, 0));
    host_quiet(&h);
    aio_context_unref(h.ctx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bh_and_timer),       cmocka_unit_test(test_file),
        cmocka_unit_test(test_socket_and_handler), cmocka_unit_test(test_other_thread),
        cmocka_unit_test(test_local_work),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
