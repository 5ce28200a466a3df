/* SPDX-License-Identifier: MIT */
/*
 * The ring against a kernel that refuses, takes a part, does things in pieces or answers -EINTR and
 * -EAGAIN (ring_kernel.h); and a context whose thread changes. No request may be lost, done twice
 * or left waiting.
 */
#include "ring_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop/context.h"
#include "loop/io.h"
#include "loop/ring.h"
#include "os/os.h"

/* ---- files ---- */

enum { MANY = 200, BLOCK = 3000 };

struct many {
    int fd;
    int left;
};

struct one {
    struct many *m;
    unsigned i;
    int ended;
};

static int64_t file_op(int fd, enum aio_file_op op, uint64_t offset, struct iovec *iov, int niov)
{
    struct aio_file_io io = {.op = op, .fd = fd, .offset = offset, .iov = iov, .niov = niov};

    for (int i = 0; i < niov; i++) {
        io.bytes += iov[i].iov_len;
    }
    return aio_file_co(&io);
}

static void one_entry(void *opaque)
{
    struct one *one = opaque;
    uint64_t offset = (uint64_t)one->i * BLOCK;
    uint8_t out[BLOCK], in[BLOCK] = {0};
    struct iovec iov = {out, BLOCK};
    struct iovec part[3] = {{out, 7}, {out + 7, 2000}, {out + 2007, BLOCK - 2007}};
    struct iovec in_part[3] = {{in, 1999}, {in + 1999, 1}, {in + 2000, BLOCK - 2000}};

    for (size_t i = 0; i < BLOCK; i++) {
        out[i] = (uint8_t)(i * 13 + one->i);
    }
    if (one->i % 2) {
        assert_int_equal(file_op(one->m->fd, AIO_FILE_WRITE, offset, &iov, 1), 0);
    } else {
        assert_int_equal(file_op(one->m->fd, AIO_FILE_WRITE, offset, part, 3), 0);
    }
    if (one->i % 8 == 0) {
        assert_int_equal(file_op(one->m->fd, AIO_FILE_FDATASYNC, 0, 0, 0), 0);
    }
    assert_int_equal(file_op(one->m->fd, AIO_FILE_READ, offset, in_part, 3), BLOCK);
    assert_memory_equal(in, out, BLOCK);
    one->ended++;
    one->m->left--;
}

static bool many_left(void *opaque)
{
    return ((struct many *)opaque)->left > 0;
}

static int temp_file(void)
{
    char path[] = "/tmp/platter-test-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    unlink(path);
    return fd;
}

static void many_run(unsigned entries, unsigned moods)
{
    static struct one one[MANY];
    struct many m = {.fd = temp_file(), .left = MANY};
    AioContext *ctx = kernel_start(entries, moods);

    for (unsigned i = 0; i < MANY; i++) {
        one[i] = (struct one){&m, i, 0};
        coroutine_enter(coroutine_create(one_entry, &one[i]));
    }
    aio_wait_while(ctx, many_left, &m);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(one[i].ended, 1);
    }
    assert_true(!(moods & REFUSE) || kernel.refused > 0);
    assert_true(!(moods & PARTIAL) || kernel.parts > 0);
    assert_true(!(moods & PIECES) || kernel.pieces > 0);
    assert_true(!(moods & INTERRUPT) || kernel.interrupted > 0);
    kernel_stop();
    close(m.fd);
}

static void test_files(void **state)
{
    many_run(64, 0);
    many_run(8, REFUSE);
    many_run(64, PARTIAL);
    many_run(64, PIECES);
    many_run(64, INTERRUPT);
    many_run(8, REFUSE | PARTIAL | PIECES | INTERRUPT);
}

static void ends_interrupted(void *opaque)
{
    struct many *m = opaque;
    uint8_t byte = 0;
    struct iovec iov = {&byte, 1};

    assert_int_equal(file_op(m->fd, AIO_FILE_WRITE, 0, &iov, 1), -EINTR);
    assert_int_equal(file_op(m->fd, AIO_FILE_FDATASYNC, 0, 0, 0), -EINTR);
    assert_int_equal(aio_recv_co(m->fd, &byte, 1), -EINTR);
    m->left--;
}

/* Whoever only ever answers -EINTR is an error and no hang. */
static void test_interrupted_for_ever(void **state)
{
    struct many m = {.fd = temp_file(), .left = 1};
    AioContext *ctx = kernel_start(8, ALWAYS_EINTR);

    coroutine_enter(coroutine_create(ends_interrupted, &m));
    aio_wait_while(ctx, many_left, &m);
    kernel_stop();
    close(m.fd);
}

/* A read that reaches the end in its middle, in pieces; the end moves meanwhile. */
static void reads_to_the_end(void *opaque)
{
    struct many *m = opaque;
    uint8_t in[BLOCK];
    struct iovec iov[2] = {{in, 1000}, {in + 1000, 2000}};

    assert_int_equal(ftruncate(m->fd, 2500), 0);
    assert_int_equal(file_op(m->fd, AIO_FILE_READ, 0, iov, 2), 2500);
    assert_int_equal(file_op(m->fd, AIO_FILE_READ, 100, iov, 1), 1000);
    assert_int_equal(ftruncate(m->fd, 2), 0);
    assert_int_equal(file_op(m->fd, AIO_FILE_READ, 0, iov, 2), 2);
    assert_int_equal(file_op(m->fd, AIO_FILE_READ, 2, iov, 2), 0);
    m->left--;
}

static void test_end_of_file(void **state)
{
    for (int i = 0; i < 20; i++) {
        struct many m = {.fd = temp_file(), .left = 1};
        AioContext *ctx = kernel_start(8, PIECES | INTERRUPT);

        coroutine_enter(coroutine_create(reads_to_the_end, &m));
        aio_wait_while(ctx, many_left, &m);
        kernel_stop();
        close(m.fd);
    }
}

/* ---- sockets and descriptors ---- */

enum { STREAM = 200000 };

struct stream {
    AioContext *ctx;
    int fd[2];
    uint8_t *out, *in;
    int left;
    int seen;
};

static bool stream_left(void *opaque)
{
    return ((struct stream *)opaque)->left > 0;
}

static void stream_send(void *opaque)
{
    struct stream *s = opaque;

    for (size_t at = 0; at < STREAM; at += 2000) {
        struct iovec iov[2] = {{s->out + at, 500}, {s->out + at + 500, 1500}};

        assert_int_equal(aio_send_co(s->fd[0], iov, 2, 0), 0);
    }
    s->left--;
}

static void stream_recv(void *opaque)
{
    struct stream *s = opaque;
    size_t got = 0;

    while (got < STREAM) {
        int64_t n = aio_recv_co(s->fd[1], s->in + got, STREAM - got < 700 ? STREAM - got : 700);

        assert_true(n > 0);
        got += (size_t)n;
    }
    s->left--;
}

static void stream_open(struct stream *s)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s->fd), 0);
}

static void test_stream(void **state)
{
    struct stream s = {.out = malloc(STREAM), .in = calloc(1, STREAM), .left = 2};
    AioContext *ctx = kernel_start(8, REFUSE | PARTIAL | INTERRUPT);

    for (size_t i = 0; i < STREAM; i++) {
        s.out[i] = (uint8_t)(i * 7 >> 4);
    }
    stream_open(&s);
    coroutine_enter(coroutine_create(stream_recv, &s));
    coroutine_enter(coroutine_create(stream_send, &s));
    aio_wait_while(ctx, stream_left, &s);
    assert_memory_equal(s.in, s.out, STREAM);
    kernel_stop();
    close(s.fd[0]);
    close(s.fd[1]);
    free(s.in);
    free(s.out);
}

static void recv_cancelled(void *opaque)
{
    struct stream *s = opaque;
    uint8_t byte;

    assert_int_equal(aio_recv_co(s->fd[1], &byte, 1), -ECANCELED);
    s->left--;
}

/* Cancelled while queued, while there is no entry for it, and while there is none for the cancel.
 */
static void test_cancel_without_room(void **state)
{
    enum { N = 40 };
    struct stream s = {.left = N}, another = {0};
    AioContext *ctx = kernel_start(8, REFUSE_ALL);
    char text[2];

    stream_open(&s);
    for (int i = 0; i < N; i++) {
        coroutine_enter(coroutine_create(recv_cancelled, &s));
    }
    aio_poll(ctx, false);
    aio_sock_cancel(ctx, s.fd[1]);
    aio_poll(ctx, false);
    assert_true(s.left >= 8);
    stream_open(&another); /* in place of the old one, with something to read */
    assert_int_equal(write(another.fd[0], "x", 1), 1);
    assert_int_equal(dup2(another.fd[1], s.fd[1]), s.fd[1]);
    kernel.moods = 0;
    aio_wait_while(ctx, stream_left, &s);
    assert_int_equal(read(another.fd[1], text, 2), 1);
    kernel_stop();
    close(another.fd[0]);
    close(another.fd[1]);
    close(s.fd[0]);
    close(s.fd[1]);
}

/* More that wait for others than there are entries: all must reach the kernel before the loop
 * sleeps, for no completion would come that lets the last in. */
static void recv_one(void *opaque)
{
    struct stream *s = opaque;
    uint8_t byte;

    assert_int_equal(aio_recv_co(s->fd[1], &byte, 1), 1);
    s->left--;
}

static void test_all_get_in(void **state)
{
    enum { N = 30 };
    struct stream s[N];
    AioContext *ctx = kernel_start(8, REFUSE_ALL);

    for (int i = 0; i < N; i++) {
        s[i] = (struct stream){.left = 1};
        stream_open(&s[i]);
        coroutine_enter(coroutine_create(recv_one, &s[i]));
    }
    kernel.moods = 0;
    assert_int_equal(write(s[N - 1].fd[0], "x", 1), 1);
    aio_wait_while(ctx, stream_left, &s[N - 1]);
    for (int i = 0; i < N; i++) {
        assert_int_equal(s[i].left, i < N - 1);
        assert_true(i == N - 1 || write(s[i].fd[0], "x", 1) == 1);
        aio_wait_while(ctx, stream_left, &s[i]);
        close(s[i].fd[0]);
        close(s[i].fd[1]);
    }
    kernel_stop();
}

static void readable(void *opaque)
{
    struct stream *s = opaque;
    uint8_t byte;

    assert_int_equal(read(s->fd[1], &byte, 1), 1);
    s->seen++;
}

enum { HANDLERS = 20 };

/* Every second one still has its handler. */
static void *handlers_poll(void *arg)
{
    struct stream *s = arg;
    AioContext *ctx = s->ctx;

    aio_context_set_current(ctx);
    aio_poll(ctx, false);
    kernel.moods = PARTIAL;
    for (int i = 1; i < HANDLERS; i += 2) {
        while (!s[i].seen) {
            aio_poll(ctx, true);
        }
    }
    for (int i = 0; i < HANDLERS; i++) {
        assert_int_equal(s[i].seen, i % 2);
        assert_int_equal(aio_set_fd_handler(ctx, s[i].fd[1], 0, 0, 0), 0);
    }
    aio_context_set_current(0);
    return 0;
}

static void handlers_without_room(bool other_thread)
{
    struct stream s[HANDLERS];
    AioContext *ctx = kernel_start(8, 0);
    os_thread *thread;

    aio_poll(ctx, false);
    kernel.moods = REFUSE_ALL;
    for (int i = 0; i < HANDLERS; i++) {
        s[i] = (struct stream){.ctx = ctx};
        stream_open(&s[i]);
        assert_int_equal(aio_set_fd_handler(ctx, s[i].fd[1], readable, 0, &s[i]), 0);
        assert_int_equal(write(s[i].fd[0], "x", 1), 1);
    }
    for (int i = 0; i < HANDLERS; i += 2) {
        assert_int_equal(aio_set_fd_handler(ctx, s[i].fd[1], 0, 0, 0), 0);
    }
    if (other_thread) {
        assert_int_equal(os->thread_create("t", handlers_poll, s, &thread), 0);
        os->thread_join(thread);
    } else {
        handlers_poll(s);
    }
    for (int i = 0; i < HANDLERS; i++) {
        close(s[i].fd[0]);
        close(s[i].fd[1]);
    }
    kernel_stop();
}

static void test_handlers_without_room(void **state)
{
    handlers_without_room(false);
    handlers_without_room(true);
}

/* ---- a host's loop ---- */

/* What the kernel did not take before the host went to sleep must wake it. */
static void test_host_sleeps_on_nothing_unsubmitted(void **state)
{
    static struct one one[20];
    struct many m = {.fd = temp_file(), .left = 20};
    AioContext *ctx = kernel_start(8, 0);
    int fd = aio_context_get_fd(ctx);

    assert_true(fd >= 0);
    while (aio_poll(ctx, false)) {
    }
    kernel.moods = REFUSE_ALL;
    for (unsigned i = 0; i < 20; i++) {
        one[i] = (struct one){&m, i, 0};
        coroutine_enter(coroutine_create(one_entry, &one[i]));
    }
    for (int i = 0; m.left > 0; i++) {
        struct pollfd pollfd = {.fd = fd, .events = POLLIN};

        assert_int_equal(poll(&pollfd, 1, 30000), 1);
        aio_poll(ctx, false);
        kernel.moods = i < 10 ? REFUSE_ALL : PARTIAL;
    }
    kernel_stop();
    close(m.fd);
}

/* ---- threads that follow one another ---- */

struct turn {
    AioContext *ctx;
    int fd;
    bool polls_first;
    atomic_bool woken;
};

static void woken(void *opaque)
{
    atomic_store((atomic_bool *)opaque, true);
}

static void *turn_main(void *arg)
{
    struct turn *turn = arg;
    struct many m = {.fd = turn->fd, .left = 1};
    struct one one = {&m, 1, 0};

    aio_context_set_current(turn->ctx);
    if (turn->polls_first) { /* the thread that waits is woken by another */
        while (!atomic_load(&turn->woken)) {
            aio_poll(turn->ctx, true);
        }
    }
    coroutine_enter(coroutine_create(one_entry, &one)); /* queued before this thread's first poll */
    aio_wait_while(turn->ctx, many_left, &m);
    aio_context_set_current(0);
    return 0;
}

/* Their thread-local storage lies at one address, one after the other. */
static void test_threads_in_turn(void **state)
{
    AioContext *ctx = kernel_start(8, 0);
    int fd = temp_file();

    aio_context_set_current(0);
    for (int i = 0; i < 12; i++) {
        struct turn turn = {.ctx = ctx, .fd = fd, .polls_first = i % 3 == 2};
        os_thread *thread;

        assert_int_equal(os->thread_create("t", turn_main, &turn, &thread), 0);
        if (turn.polls_first) {
            while (!atomic_load(&ctx->notify_me)) {
                os->thread_yield();
            }
            assert_int_equal(aio_bh_schedule_oneshot(ctx, woken, &turn.woken), 0);
        }
        os->thread_join(thread);
        if (i % 4 == 3) { /* ours among them */
            turn.polls_first = false;
            turn_main(&turn);
        }
    }
    kernel_stop();
    close(fd);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_interrupted_for_ever),
        cmocka_unit_test(test_end_of_file),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_cancel_without_room),
        cmocka_unit_test(test_all_get_in),
        cmocka_unit_test(test_handlers_without_room),
        cmocka_unit_test(test_host_sleeps_on_nothing_unsubmitted),
        cmocka_unit_test(test_threads_in_turn),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
