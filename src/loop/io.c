/* SPDX-License-Identifier: MIT */
/*
 * File I/O of coroutines: which engine carries an operation, and the loop that makes whole
 * transfers of what the system did in pieces.
 */
#include "loop/io.h"

#include <errno.h>
#include <sys/uio.h>

#include "loop/internal.h"
#include "os/os.h"
#include "util/error.h"
#include "util/iov.h"

#define SLICE_MAX 64
#define FRUITLESS_MAX 64

#ifndef RWF_DSYNC
#define RWF_DSYNC 2
#endif

bool io_again(int64_t rc, unsigned *fruitless)
{
    return (rc == -EINTR || rc == -EAGAIN) && (*fruitless)++ < FRUITLESS_MAX;
}

/* One call for what is left of a read or write after done bytes. */
static int64_t transfer_once(const struct aio_file_io *io, uint64_t done)
{
    int rwf = io->op == AIO_FILE_WRITE && (io->flags & AIO_FILE_DSYNC) ? RWF_DSYNC : 0;
    const struct iovec *iov = io->iov;
    int niov = io->niov;
    struct iovec slice[SLICE_MAX];

    if (done > 0) {
        uint64_t bytes;

        niov = (int)iov_slice(io->iov, (size_t)io->niov, done, io->bytes - done, slice, SLICE_MAX,
                              &bytes);
        iov = slice;
    }
    if (io->op == AIO_FILE_READ) {
        return os->preadv(io->fd, iov, niov, io->offset + done, rwf);
    }
    return os->pwritev(io->fd, iov, niov, io->offset + done, rwf);
}

static int64_t transfer_sync(const struct aio_file_io *io, uint64_t done)
{
    unsigned fruitless = 0;

    while (done < io->bytes) {
        int64_t n = transfer_once(io, done);

        if (n > 0) {
            done += (uint64_t)n;
            fruitless = 0;
        } else if (!io_again(n, &fruitless)) {
            return file_transfer_end(io, done, n);
        }
    }
    return io->op == AIO_FILE_READ ? (int64_t)done : 0;
}

/* Result of a transfer that stopped after done bytes with the system's answer n <= 0. */
int64_t file_transfer_end(const struct aio_file_io *io, uint64_t done, int64_t n)
{
    if (io->op == AIO_FILE_WRITE) {
        return n < 0 ? n : -ENOSPC;
    }
    /* A direct read that ended inside a block (of 512 bytes or more) ended at the end of the file;
     * the system will not read on from there, which is all that is wrong with what was left */
    if (n == -EINVAL && done > 0) {
        n = 0;
    }
    return n < 0 ? n : (int64_t)done;
}

static int64_t other_once(const struct aio_file_io *io)
{
    if (io->op == AIO_FILE_FDATASYNC) {
        return os->fdatasync(io->fd);
    }
    return os->fallocate(io->fd, io->arg, io->offset, io->bytes);
}

int64_t file_sync(const struct aio_file_io *io, uint64_t done)
{
    unsigned fruitless = 0;
    int64_t rc;

    if (io->op == AIO_FILE_READ || io->op == AIO_FILE_WRITE) {
        return transfer_sync(io, done);
    }
    do {
        rc = other_once(io);
    } while (io_again(rc, &fruitless));
    return rc;
}

struct file_job {
    const struct aio_file_io *io;
    uint64_t done;
};

static int64_t file_job_run(void *arg)
{
    struct file_job *job = arg;

    return file_sync(job->io, job->done);
}

int64_t file_worker_co(const struct aio_file_io *io, uint64_t done)
{
    struct file_job job = {io, done};

    return aio_worker_co(file_job_run, &job);
}

int64_t aio_file_co(const struct aio_file_io *io)
{
    AioContext *ctx = loop_tls.ctx;

    assert(ctx);
    if (io->flags & AIO_FILE_INLINE) {
        return file_sync(io, 0);
    }
    if (LIKELY(ctx->ring && io->engine != AIO_ENGINE_THREADS)) {
        return ring_file_co(ctx, io);
    }
    return file_worker_co(io, 0);
}

int aio_engine_probe(AioContext *ctx, enum aio_engine engine, Error **errp)
{
    if (engine == AIO_ENGINE_IO_URING && !ctx->ring) {
        return error_set(errp, ENOSYS, "The engine 'io_uring' is not available in this context");
    }
    return 0;
}

void aio_plug(AioContext *ctx)
{
    ctx->plugged++;
}

void aio_unplug(AioContext *ctx)
{
    assert(ctx->plugged > 0);
    ctx->plugged--;
}
