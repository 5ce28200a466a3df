/* SPDX-License-Identifier: MIT */
/*
 * What the loop costs: instructions are counted by running this under callgrind with two counts and
 * taking the difference.
 *
 *   bench_loop co|bh|lock|read|recv COUNT [DEPTH]
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <platter/coroutine.h>

#include "loop/context.h"
#include "loop/io.h"

static AioContext *ctx;
static long left;
static long running;
static int fd[2];

static void yields_once(void *opaque)
{
    coroutine_yield();
}

static void bench_co(long count)
{
    while (count-- > 0) {
        Coroutine *co = coroutine_create(yields_once, 0);

        coroutine_enter(co);
        coroutine_enter(co);
    }
}

static void bh_runs(void *opaque)
{
    if (--left > 0) {
        aio_bh_schedule(*(QEMUBH **)opaque);
    }
}

static void bench_bh(long count)
{
    QEMUBH *bh = aio_bh_new(ctx, bh_runs, &bh);

    left = count;
    aio_bh_schedule(bh);
    while (left > 0) {
        aio_poll(ctx, true);
    }
    aio_bh_delete(bh);
}

static void locks(void *opaque)
{
    CoMutex mutex;

    co_mutex_init(&mutex);
    for (; left > 0; left--) {
        co_mutex_lock(&mutex);
        co_mutex_unlock(&mutex);
    }
}

static void reads(void *opaque)
{
    static char buf[4096];
    struct iovec iov = {buf, sizeof(buf)};
    struct aio_file_io io = {
        .op = AIO_FILE_READ, .fd = fd[0], .bytes = sizeof(buf), .iov = &iov, .niov = 1};

    if (aio_file_co(&io) != sizeof(buf)) {
        abort();
    }
    running--;
}

/* As requests come: one coroutine each, DEPTH at a time. */
static void bench_read(long count, long depth)
{
    while (count > 0 || running > 0) {
        while (running < depth && count > 0) {
            running++;
            count--;
            coroutine_enter(coroutine_create(reads, 0));
        }
        aio_poll(ctx, true);
    }
}

static void receives(void *opaque)
{
    char byte;

    for (; left > 0; left--) {
        if (aio_recv_co(fd[0], &byte, 1) != 1) {
            abort();
        }
    }
}

static void sends(void *opaque)
{
    char byte = 0;
    long n = left;

    while (n-- > 0) {
        struct iovec iov = {&byte, 1};

        if (aio_send_co(fd[1], &iov, 1, 0) != 0) {
            abort();
        }
    }
}

static void poll_out(void)
{
    while (left > 0) {
        aio_poll(ctx, true);
    }
    while (aio_poll(ctx, false)) {
    }
}

static void open_file(void)
{
    char path[] = "/tmp/bench-loop-XXXXXX";

    fd[0] = mkstemp(path);
    if (fd[0] < 0 || ftruncate(fd[0], 1 << 20) != 0) {
        abort();
    }
    unlink(path);
}

int main(int argc, char **argv)
{
    struct aio_context_options opts = {.size = sizeof(opts)};
    const char *what = argc > 1 ? argv[1] : "co";
    long depth = argc > 3 ? atol(argv[3]) : 64;

    left = argc > 2 ? atol(argv[2]) : 1000;
    if (getenv("BENCH_THREADS")) {
        opts.engine = AIO_ENGINE_THREADS;
    }
    ctx = aio_context_new(&opts, 0);
    if (!ctx) {
        return 1;
    }
    aio_context_set_current(ctx);
    if (strcmp(what, "co") == 0) {
        bench_co(left);
    } else if (strcmp(what, "bh") == 0) {
        bench_bh(left);
    } else if (strcmp(what, "lock") == 0) {
        coroutine_enter(coroutine_create(locks, 0));
    } else if (strcmp(what, "read") == 0) {
        open_file();
        bench_read(left, depth);
    } else if (strcmp(what, "recv") == 0) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) != 0) {
            return 1;
        }
        coroutine_enter(coroutine_create(receives, 0));
        coroutine_enter(coroutine_create(sends, 0));
        poll_out();
    }
    aio_context_unref(ctx);
    return 0;
}
