/* SPDX-License-Identifier: MIT */
/* File, socket and worker I/O of coroutines, the same for both engines. */
#include "loop_test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop/context.h"
#include "loop/internal.h"
#include "loop/io.h"
#include "os/os.h"

/* ---- running a coroutine to its end ---- */

struct run {
    void (*fn)(void *arg);
    void *arg;
    bool done;
};

static void run_entry(void *opaque)
{
    struct run *run = opaque;

    run->fn(run->arg);
    run->done = true;
}

static bool run_busy(void *opaque)
{
    return !((struct run *)opaque)->done;
}

static void run_co(AioContext *ctx, void (*fn)(void *arg), void *arg)
{
    struct run run = {fn, arg, false};

    aio_context_set_current(ctx);
    coroutine_enter(coroutine_create(run_entry, &run));
    aio_wait_while(ctx, run_busy, &run);
}

/* ---- files ---- */

static int temp_file(void)
{
    char path[] = "/tmp/platter-test-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    unlink(path);
    return fd;
}

struct file_test {
    int fd;
    int flags;
    enum aio_engine engine;
};

static int64_t file_op(const struct file_test *t, enum aio_file_op op, uint64_t offset,
                       struct iovec *iov, int niov)
{
    struct aio_file_io io = {
        .op = op,
        .engine = t->engine,
        .fd = t->fd,
        .flags = t->flags,
        .offset = offset,
        .iov = iov,
        .niov = niov,
    };

    for (int i = 0; i < niov; i++) {
        io.bytes += iov[i].iov_len;
    }
    return aio_file_co(&io);
}

static void fill(uint8_t *buf, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        buf[i] = (uint8_t)((i * 31 + seed) >> 3);
    }
}

static void file_basics(void *arg)
{
    const struct file_test *t = arg;
    static uint8_t out[100000], in[100000];
    struct iovec one = {out, sizeof(out)};
    struct iovec in_one = {in, sizeof(in)};
    struct iovec three[3] = {{in, 10}, {in + 10, 5000}, {in + 5010, sizeof(in) - 5010}};
    struct iovec none = {in, 0};
    struct aio_file_io alloc = {.op = AIO_FILE_FALLOCATE,
                                .engine = t->engine,
                                .fd = t->fd,
                                .flags = t->flags,
                                .arg = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                .offset = 4096,
                                .bytes = 8192};

    fill(out, sizeof(out), 1);
    assert_int_equal(file_op(t, AIO_FILE_WRITE, 4096, &one, 1), 0);
    assert_int_equal(file_op(t, AIO_FILE_READ, 4096, &in_one, 1), sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    memset(in, 0, sizeof(in));
    assert_int_equal(file_op(t, AIO_FILE_READ, 4096, three, 3), sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    /* end of file */
    assert_int_equal(file_op(t, AIO_FILE_READ, 4096 + 60000, three, 3), 40000);
    assert_memory_equal(in, out + 60000, 40000);
    assert_int_equal(file_op(t, AIO_FILE_READ, 1 << 20, &in_one, 1), 0);
    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &none, 1), 0);
    assert_int_equal(file_op(t, AIO_FILE_WRITE, 0, &none, 1), 0);
    assert_int_equal(file_op(t, AIO_FILE_FDATASYNC, 0, 0, 0), 0);
    if (aio_file_co(&alloc) == 0) {
        assert_int_equal(file_op(t, AIO_FILE_READ, 4096, &in_one, 1), sizeof(in));
        assert_int_equal(in[0] | in[8191], 0);
        assert_memory_equal(in + 8192, out + 8192, sizeof(in) - 8192);
    }
}

static void file_errors(void *arg)
{
    struct file_test t = *(struct file_test *)arg;
    uint8_t byte = 1;
    struct iovec one = {&byte, 1};

    t.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(file_op(&t, AIO_FILE_WRITE, 0, &one, 1), -EBADF);
    close(t.fd);
    assert_int_equal(file_op(&t, AIO_FILE_READ, 0, &one, 1), -EBADF);
    t.fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_int_equal(file_op(&t, AIO_FILE_WRITE, 0, &one, 1), -ENOSPC);
    close(t.fd);
}

static void test_file(void **state)
{
    AioContext *ctx = test_context_new();
    struct file_test t = {.fd = temp_file()};

    run_co(ctx, file_basics, &t);
    t.flags = AIO_FILE_INLINE;
    run_co(ctx, file_basics, &t);
    t.flags = AIO_FILE_DSYNC;
    run_co(ctx, file_basics, &t);
    t.flags = 0;
    t.engine = AIO_ENGINE_THREADS;
    run_co(ctx, file_basics, &t);
    assert_int_equal(aio_engine_probe(ctx, AIO_ENGINE_THREADS, 0), 0);
    assert_int_equal(aio_engine_probe(ctx, AIO_ENGINE_IO_URING, 0),
                     test_engine == AIO_ENGINE_IO_URING ? 0 : -ENOSYS);
    t.engine = AIO_ENGINE_AUTO;
    run_co(ctx, file_errors, &t);
    close(t.fd);
    aio_context_unref(ctx);
}

/* More in flight than the ring has entries, in one turn. */
enum { MANY = 600 };

struct many {
    int fd;
    int left;
    uint32_t block[MANY];
};

struct many_one {
    struct many *m;
    unsigned i;
};

static void many_write(void *opaque)
{
    struct many_one *one = opaque;
    struct many *m = one->m;
    struct file_test t = {.fd = m->fd};
    uint32_t in = 0;
    struct iovec iov = {&m->block[one->i], 4};
    struct iovec in_iov = {&in, 4};

    assert_int_equal(file_op(&t, AIO_FILE_WRITE, one->i * 512, &iov, 1), 0);
    assert_int_equal(file_op(&t, AIO_FILE_READ, one->i * 512, &in_iov, 1), 4);
    assert_int_equal(in, m->block[one->i]);
    m->left--;
}

static bool many_busy(void *opaque)
{
    return ((struct many *)opaque)->left > 0;
}

static void test_many_in_flight(void **state)
{
    struct aio_context_options opts = {
        .size = sizeof(opts), .engine = test_engine, .ring_entries = 8, .worker_threads_max = 2};
    AioContext *ctx = aio_context_new(&opts, 0);
    static struct many m;
    static struct many_one one[MANY];

    m = (struct many){.fd = temp_file(), .left = MANY};
    aio_context_set_current(ctx);
    aio_plug(ctx);
    aio_plug(ctx);
    for (unsigned i = 0; i < MANY; i++) {
        m.block[i] = i * 2654435761u;
        one[i] = (struct many_one){&m, i};
        coroutine_enter(coroutine_create(many_write, &one[i]));
    }
    aio_unplug(ctx);
    aio_unplug(ctx);
    aio_wait_while(ctx, many_busy, &m);
    close(m.fd);
    aio_context_unref(ctx);
}

/* ---- a system that does things in pieces (worker threads and inline) ---- */

static atomic_uint whim;

static int64_t moody_preadv(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    unsigned w = atomic_fetch_add(&whim, 1) % 5;
    struct iovec part = *iov;

    if (w == 1) {
        return -EINTR;
    }
    if (w == 3) {
        return -EAGAIN;
    }
    part.iov_len = part.iov_len < 777 ? part.iov_len : 777;
    return w == 4 ? os_linux.preadv(fd, &part, 1, offset, rwf)
                  : os_linux.preadv(fd, iov, niov, offset, rwf);
}

static int64_t moody_pwritev(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    unsigned w = atomic_fetch_add(&whim, 1) % 5;
    struct iovec part = *iov;

    if (w == 0) {
        return -EINTR;
    }
    if (w == 2) {
        return -EAGAIN;
    }
    part.iov_len = part.iov_len < 555 ? part.iov_len : 555;
    return w != 4 ? os_linux.pwritev(fd, &part, 1, offset, rwf)
                  : os_linux.pwritev(fd, iov, niov, offset, rwf);
}

static int64_t always_again(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    return -EAGAIN;
}

static int moody_fdatasync(int fd)
{
    unsigned w = atomic_fetch_add(&whim, 1) % 3;

    return w == 0 ? -EINTR : w == 1 ? -EAGAIN : os_linux.fdatasync(fd);
}

static int moody_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    unsigned w = atomic_fetch_add(&whim, 1) % 3;

    return w == 0 ? -EINTR : w == 1 ? -EAGAIN : os_linux.fallocate(fd, mode, offset, bytes);
}

static int sync_always_interrupted(int fd)
{
    return -EINTR;
}

static int allocation_always_again(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    return -EAGAIN;
}

static void others_for_ever(void *arg)
{
    const struct file_test *t = arg;

    assert_int_equal(file_op(t, AIO_FILE_FDATASYNC, 0, 0, 0), -EINTR);
    assert_int_equal(file_op(t, AIO_FILE_FALLOCATE, 0, 0, 0), -EAGAIN);
}

/* Trouble now and then adds up over a long transfer, but is no trouble without end. */
static void long_and_moody(void *arg)
{
    const struct file_test *t = arg;
    static uint8_t out[200000], in[sizeof(out)];
    struct iovec iov = {out, sizeof(out)};
    struct iovec in_iov = {in, sizeof(in)};

    fill(out, sizeof(out), 3);
    assert_int_equal(file_op(t, AIO_FILE_WRITE, 0, &iov, 1), 0);
    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &in_iov, 1), sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
}

static void again_for_ever(void *arg)
{
    const struct file_test *t = arg;
    uint8_t byte = 0;
    struct iovec one = {&byte, 1};

    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &one, 1), -EAGAIN);
}

static void test_pieces(void **state)
{
    struct os_table table = os_linux;
    AioContext *ctx = test_context_new();
    struct file_test t = {.fd = temp_file(), .engine = AIO_ENGINE_THREADS};

    table.preadv = moody_preadv;
    table.pwritev = moody_pwritev;
    table.fdatasync = moody_fdatasync;
    table.fallocate = moody_fallocate;
    os_replace(&table);
    for (int i = 0; i < 5; i++) {
        atomic_store(&whim, (unsigned)i);
        t.flags = 0;
        run_co(ctx, file_basics, &t);
        t.flags = AIO_FILE_INLINE;
        run_co(ctx, file_basics, &t);
    }
    run_co(ctx, long_and_moody, &t);
    table.preadv = always_again;
    table.fdatasync = sync_always_interrupted;
    table.fallocate = allocation_always_again;
    for (int i = 0; i < 2; i++) {
        run_co(ctx, again_for_ever, &t);
        run_co(ctx, others_for_ever, &t);
        t.flags ^= AIO_FILE_INLINE;
    }
    aio_context_unref(ctx);
    os_replace(0);
    close(t.fd);
}

/* Direct reads that end inside a sector at the end of the file. */
static void direct_tail(void *arg)
{
    const struct file_test *t = arg;
    uint8_t *buf = aligned_alloc(4096, 8192);
    struct iovec iov = {buf, 8192};

    assert_non_null(buf);
    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &iov, 1), 5000);
    free(buf);
}

static void test_direct_tail(void **state)
{
    AioContext *ctx = test_context_new();
    struct file_test t = {0};
    char path[] = "/var/tmp/platter-test-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 5000), 0);
    t.fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    unlink(path);
    close(fd);
    if (t.fd >= 0) {
        run_co(ctx, direct_tail, &t);
        t.engine = AIO_ENGINE_THREADS;
        run_co(ctx, direct_tail, &t);
        close(t.fd);
    }
    aio_context_unref(ctx);
}

/* Storage of blocks of 4 KiB, under a file that ends at a sector inside one. */
static int64_t preadv_of_blocks(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    return offset % 4096 != 0 ? -EINVAL : os_linux.preadv(fd, iov, niov, offset, rwf);
}

static void block_tail(void *arg)
{
    const struct file_test *t = arg;
    static uint8_t buf[8192];
    struct iovec iov = {buf, sizeof(buf)};

    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &iov, 1), 4096 + 512);
    assert_int_equal(file_op(t, AIO_FILE_READ, 512, &iov, 1), -EINVAL);
}

static void test_block_tail(void **state)
{
    struct os_table table = os_linux;
    AioContext *ctx = test_context_new();
    struct file_test t = {.fd = temp_file(), .engine = AIO_ENGINE_THREADS};

    table.preadv = preadv_of_blocks;
    os_replace(&table);
    assert_int_equal(ftruncate(t.fd, 4096 + 512), 0);
    run_co(ctx, block_tail, &t);
    aio_context_unref(ctx);
    os_replace(0);
    close(t.fd);
}

/* A write that the system takes a part of and then refuses. */
static void beyond_the_limit(void *arg)
{
    const struct file_test *t = arg;
    static uint8_t out[9000], in[9000];
    struct iovec iov = {out, sizeof(out)};
    struct iovec in_iov = {in, sizeof(in)};

    fill(out, sizeof(out), 4);
    assert_int_equal(file_op(t, AIO_FILE_WRITE, 0, &iov, 1), -EFBIG);
    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &in_iov, 1), 5000);
    assert_memory_equal(in, out, 5000);
    assert_int_equal(ftruncate(t->fd, 0), 0);
}

static void test_size_limit(void **state)
{
    struct file_test t = {.fd = temp_file()};
    AioContext *ctx = test_context_new();
    struct rlimit old, low;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 5000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    run_co(ctx, beyond_the_limit, &t);
    t.engine = AIO_ENGINE_THREADS;
    run_co(ctx, beyond_the_limit, &t);
    t.flags = AIO_FILE_INLINE;
    run_co(ctx, beyond_the_limit, &t);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    close(t.fd);
    aio_context_unref(ctx);
}

/* ---- workers ---- */

static int64_t work(void *arg)
{
    return *(int *)arg * 2;
}

static void workers(void *arg)
{
    int n = 21;

    for (int i = 0; i < 50; i++) {
        assert_int_equal(aio_worker_co(work, &n), 42);
    }
}

static int no_thread(const char *name, void *(*run)(void *), void *arg, os_thread **ret_thread)
{
    return -EAGAIN;
}

static void no_worker(void *arg)
{
    int n = 1;

    assert_int_equal(aio_worker_co(work, &n), -ENOMEM);
}

static void test_workers(void **state)
{
    struct os_table table = os_linux;
    AioContext *ctx = test_context_new();

    table.thread_create = no_thread;
    os_replace(&table);
    run_co(ctx, no_worker, 0);
    os_replace(0);
    run_co(ctx, workers, 0);
    aio_context_unref(ctx);
}

/* Threads started and joined; one at a time may be had when scarce. */
static atomic_int started, joined;
static atomic_bool scarce;

static int counting_create(const char *name, void *(*run)(void *), void *arg,
                           os_thread **ret_thread)
{
    int rc = -EAGAIN;

    if (!atomic_load(&scarce) || atomic_load(&started) == atomic_load(&joined)) {
        rc = os_linux.thread_create(name, run, arg, ret_thread);
    }
    atomic_fetch_add(&started, rc == 0);
    return rc;
}

static void counting_join(os_thread *thread)
{
    os_linux.thread_join(thread);
    atomic_fetch_add(&joined, 1);
}

static void work_once(void *opaque)
{
    int n = 21;

    assert_int_equal(aio_worker_co(work, &n), 42);
    --*(int *)opaque;
}

static bool work_left(void *opaque)
{
    return *(int *)opaque > 0;
}

static void work_many(AioContext *ctx, int n)
{
    int left = n;

    aio_context_set_current(ctx);
    for (int i = 0; i < n; i++) {
        coroutine_enter(coroutine_create(work_once, &left));
    }
    aio_wait_while(ctx, work_left, &left);
}

/* Workers that find nothing to do end, whatever comes in at that moment; others take their place,
 * and all are joined. */
static void test_workers_come_and_go(void **state)
{
    struct os_table table = os_linux;
    AioContext *ctx;

    table.thread_create = counting_create;
    table.thread_join = counting_join;
    os_replace(&table);
    for (int s = 0; s < 2; s++) {
        atomic_store(&started, 0);
        atomic_store(&joined, 0);
        atomic_store(&scarce, s);
        ctx = test_context_new();
        ctx->workers_idle_ns = 1000;
        for (int i = 0; i < 100 || atomic_load(&started) < 3; i++) {
            work_many(ctx, 1 + i % 20);
        }
        assert_true(atomic_load(&joined) >= 1);
        aio_context_unref(ctx);
        assert_int_equal(atomic_load(&started), atomic_load(&joined));
    }
    os_replace(0);
}

/* The worker may still be about to wake us when its context goes. */
static void test_free_after_work(void **state)
{
    for (int i = 0; i < 100; i++) {
        AioContext *ctx = test_context_new();

        work_many(ctx, 1 + i % 3);
        aio_context_unref(ctx);
    }
}

/* ---- sockets ---- */

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
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_many_in_flight),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_direct_tail),
        cmocka_unit_test(test_block_tail),
        cmocka_unit_test(test_workers),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_workers_come_and_go),
        cmocka_unit_test(test_free_after_work),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_sock_cancel),
        cmocka_unit_test(test_poller_refuses),
        cmocka_unit_test(test_peer_gone),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
