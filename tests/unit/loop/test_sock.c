/* SPDX-License-Identifier: MIT */
/* Socket I/O of coroutines, the same for both engines. */
#include "io_test.h"

#include <errno.h>
#include <sys/socket.h>

enum { STREAM = 3 << 20 };

struct stream {
    int fd[2];
    uint8_t *out;
    uint8_t *in;
    int left;
};

static void stream_send(void *opaque)
{
    struct stream *s = opaque;
    struct iovec iov[3] = {{s->out, 100}, {s->out + 100, 0}, {s->out + 100, STREAM - 200}};
    struct iovec last = {s->out + STREAM - 100, 100};
    struct iovec empty = {0, 0};

    assert_int_equal(aio_send_co(s->fd[0], iov, 3, MSG_MORE), 0);
    assert_int_equal(aio_send_co(s->fd[0], &empty, 1, 0), 0);
    assert_int_equal(aio_send_co(s->fd[0], &last, 1, 0), 0);
    shutdown(s->fd[0], SHUT_WR);
    s->left--;
}

static void stream_recv(void *opaque)
{
    struct stream *s = opaque;
    size_t got = 0;
    int64_t n;

    do {
        struct iovec iov[2] = {
            {s->in + got, (STREAM - got) / 2},
            {s->in + got + (STREAM - got) / 2, STREAM - got - (STREAM - got) / 2}};

        n = got % 2 ? aio_recvv_co(s->fd[1], iov, 2)
                    : aio_recv_co(s->fd[1], s->in + got, STREAM - got);
        assert_true(n > 0);
        got += (size_t)n;
    } while (got < STREAM);
    assert_int_equal(aio_recv_co(s->fd[1], s->in, 1), 0);
    s->left--;
}

static bool stream_busy(void *opaque)
{
    return ((struct stream *)opaque)->left > 0;
}

static void stream_open(struct stream *s)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s->fd), 0);
}

static void test_stream(void **state)
{
    AioContext *ctx = test_context_new();
    struct stream s = {.out = malloc(STREAM), .in = calloc(1, STREAM)};

    stream_open(&s);
    fill(s.out, STREAM, 5);
    aio_context_set_current(ctx);
    for (int round = 0; round < 2; round++) { /* the same descriptor numbers, other sockets */
        s.left = 2;
        coroutine_enter(coroutine_create(round ? stream_send : stream_recv, &s));
        coroutine_enter(coroutine_create(round ? stream_recv : stream_send, &s));
        aio_wait_while(ctx, stream_busy, &s);
        assert_memory_equal(s.in, s.out, STREAM - 1);
        close(s.fd[0]);
        close(s.fd[1]);
        stream_open(&s);
    }
    close(s.fd[0]);
    close(s.fd[1]);
    free(s.in);
    free(s.out);
    aio_context_unref(ctx);
}

static void cancelled_recv(void *opaque)
{
    struct stream *s = opaque;
    uint8_t byte;

    assert_int_equal(aio_recv_co(s->fd[1], &byte, 1), -ECANCELED);
    s->left--;
}

static void cancelled_send(void *opaque)
{
    struct stream *s = opaque;
    struct iovec iov = {s->out, STREAM};

    assert_int_equal(aio_send_co(s->fd[1], &iov, 1, 0), -ECANCELED);
    s->left--;
}

static void test_sock_cancel(void **state)
{
    AioContext *ctx = test_context_new();
    struct stream s = {.out = calloc(1, STREAM), .left = 2};

    stream_open(&s);
    aio_context_set_current(ctx);
    aio_sock_cancel(ctx, s.fd[1]);
    for (int early = 0; early < 2; early++) {
        s.left = 2;
        coroutine_enter(coroutine_create(cancelled_recv, &s));
        coroutine_enter(coroutine_create(cancelled_send, &s));
        while (!early && aio_poll(ctx, false)) {
        }
        assert_int_equal(s.left, 2);
        aio_sock_cancel(ctx, s.fd[1]);
        aio_wait_while(ctx, stream_busy, &s);
    }
    /* and the descriptor is as good as before */
    close(s.fd[0]);
    close(s.fd[1]);
    stream_open(&s);
    s.in = calloc(1, STREAM);
    s.left = 2;
    coroutine_enter(coroutine_create(stream_recv, &s));
    coroutine_enter(coroutine_create(stream_send, &s));
    aio_wait_while(ctx, stream_busy, &s);
    close(s.fd[0]);
    close(s.fd[1]);
    free(s.in);
    free(s.out);
    aio_context_unref(ctx);
}

static bool epoll_full;

static int full_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return epoll_full && op != EPOLL_CTL_DEL ? -ENOMEM : os_linux.epoll_ctl(epfd, op, fd, event);
}

struct waiter {
    struct stream *s;
    int64_t ret;
};

static void recv_waits(void *opaque)
{
    struct waiter *w = opaque;
    uint8_t byte;

    w->ret = aio_recv_co(w->s->fd[1], &byte, 1);
    w->s->left--;
}

/* The second waits for a poller that takes nothing more: it is told. */
static void test_poller_refuses(void **state)
{
    struct os_table table = os_linux;
    struct stream s = {.left = 2};
    struct waiter w[2] = {{&s, 0}, {&s, 0}};
    AioContext *ctx;

    table.epoll_ctl = full_epoll_ctl;
    os_replace(&table);
    ctx = test_context_new();
    stream_open(&s);
    aio_context_set_current(ctx);
    for (int i = 0; i < 2; i++) {
        coroutine_enter(coroutine_create(recv_waits, &w[i]));
    }
    while (aio_poll(ctx, false)) {
    }
    assert_int_equal(s.left, 2);
    epoll_full = true;
    assert_int_equal(write(s.fd[0], "xy", ctx->ring ? 2 : 1), ctx->ring ? 2 : 1);
    aio_wait_while(ctx, stream_busy, &s);
    epoll_full = false;
    assert_int_equal(w[0].ret, 1);
    assert_int_equal(w[1].ret, ctx->ring ? 1 : -ENOMEM);
    aio_context_unref(ctx);
    os_replace(0);
    close(s.fd[0]);
    close(s.fd[1]);
}

static void peer_gone(void *arg)
{
    struct stream *s = arg;
    struct iovec iov = {s->fd, 4};

    assert_int_equal(aio_send_co(s->fd[1], &iov, 1, 0), -EPIPE);
    assert_int_equal(aio_recv_co(s->fd[1], &iov, 1), 0);
    assert_int_equal(aio_recv_co(9999, &iov, 1), -EBADF);
}

static void test_peer_gone(void **state)
{
    AioContext *ctx = test_context_new();
    struct stream s = {0};

    stream_open(&s);
    close(s.fd[0]);
    run_co(ctx, peer_gone, &s);
    close(s.fd[1]);
    aio_context_unref(ctx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_sock_cancel),
        cmocka_unit_test(test_poller_refuses),
        cmocka_unit_test(test_peer_gone),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
