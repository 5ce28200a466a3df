/* SPDX-License-Identifier: MIT */
/*
 * I/O of coroutines, carried by the engines of the current context. Everything here suspends the
 * calling coroutine; its thread goes on. Submissions of one loop turn are gathered and given to the
 * kernel together.
 *
 * The engine (ring or worker threads) decides how, never what: short transfers, -EINTR and -EAGAIN
 * are handled inside; the results are the same.
 */
#ifndef PLATTER_LOOP_IO_H
#define PLATTER_LOOP_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <platter/aio.h>
#include <platter/coroutine.h>

enum aio_file_op {
    AIO_FILE_READ,
    AIO_FILE_WRITE,
    AIO_FILE_FDATASYNC,
    AIO_FILE_FALLOCATE, /* mode in arg */
};

enum aio_file_flags {
    AIO_FILE_DSYNC = 1,  /* write: RWF_DSYNC */
    AIO_FILE_INLINE = 2, /* the file lives in memory: the loop thread may do it itself at once */
};

/* One operation on a file. Filled by the caller, borrowed until aio_file_co returns. */
struct aio_file_io {
    enum aio_file_op op;
    enum aio_engine engine; /* AUTO: that of the context */
    int fd;
    int flags;
    int arg;
    uint64_t offset;
    uint64_t bytes;
    const struct iovec *iov;
    int niov; /* at most IOV_MAX */
};

/* Coroutine. READ: bytes read, less than asked only at end of file. WRITE: 0 when all is written.
 * Else -errno. */
int64_t aio_file_co(const struct aio_file_io *io);

/* Whether engine works in the current context; 0, or -errno with errp naming why not. [loop] */
int aio_engine_probe(AioContext *ctx, enum aio_engine engine, Error **errp);

/* Run fn(arg) on a worker thread of the current context and return its result; for system calls
 * that may block and that no engine knows. Coroutine. -ENOMEM when no worker could be had. */
int64_t aio_worker_co(int64_t (*fn)(void *arg), void *arg);
/* The same for what keeps a processor at work and waits for nobody: as many at a time as there are
 * processors, in the order they came. */
int64_t aio_compute_co(int64_t (*fn)(void *arg), void *arg);

/* Non-blocking stream sockets. Coroutine.
 * recv: bytes received (at least 1), 0 at end of stream, or -errno.
 * send: sends all of the message's list (which it changes), 0 or -errno. flags: MSG_MORE.
 * Both return -ECANCELED when aio_sock_cancel ran for that descriptor. */
int64_t aio_recv_co(int fd, void *buf, size_t bytes);
int64_t aio_recvv_co(int fd, struct iovec *iov, int niov);
int aio_send_co(int fd, struct iovec *iov, int niov, int flags);

/* Pending recv and send of fd in ctx end with -ECANCELED (or, when they have completed already,
 * with their result). For timeouts and shutdown, and before fd is closed while one may be pending.
 * [loop] */
void aio_sock_cancel(AioContext *ctx, int fd);

/* Hold submissions back (nests) so that a burst goes in one system call. [loop] */
void aio_plug(AioContext *ctx);
void aio_unplug(AioContext *ctx);

#endif
