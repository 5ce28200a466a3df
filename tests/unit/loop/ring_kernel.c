/* SPDX-License-Identifier: MIT */
#include "ring_kernel.h"

#include <errno.h>
#include <unistd.h>

#include "loop/context.h"

struct ring_kernel kernel;

static unsigned dice(unsigned n)
{
    kernel.random = kernel.random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (unsigned)(kernel.random >> 33) % n;
}

static bool is_op(uint64_t user_data)
{
    return (user_data & RING_TAG_MASK) == RING_OP;
}

static void spoil_sqe(struct io_uring_sqe *sqe)
{
    bool transfer = sqe->opcode == IORING_OP_READ || sqe->opcode == IORING_OP_WRITE;
    bool vector = sqe->opcode == IORING_OP_READV || sqe->opcode == IORING_OP_WRITEV;

    if (!is_op(sqe->user_data)) {
        return;
    }
    if ((kernel.moods & PIECES) && (transfer || vector) && sqe->len > 1 && dice(2)) {
        sqe->len = 1 + dice(sqe->len - 1);
        kernel.pieces++;
    }
    if ((kernel.moods & ALWAYS_EINTR) || ((kernel.moods & INTERRUPT) && dice(4) == 0)) {
        uint64_t user_data = sqe->user_data;

        if (kernel.nforced < 1024) {
            kernel.forced[kernel.nforced].user_data = user_data;
            kernel.forced[kernel.nforced++].res =
                !(kernel.moods & ALWAYS_EINTR) && dice(3) == 0 ? -EAGAIN : -EINTR;
            memset(sqe, 0, sizeof(*sqe));
            sqe->opcode = IORING_OP_NOP;
            sqe->user_data = user_data;
            kernel.interrupted++;
        }
    }
}

static void force_results(struct ring *r)
{
    for (; kernel.cqe_seen != ring_load(r->u.cq.ktail); kernel.cqe_seen++) {
        struct io_uring_cqe *cqe = &r->cqes[kernel.cqe_seen & r->cq_mask];

        for (unsigned i = 0; i < kernel.nforced; i++) {
            if (kernel.forced[i].user_data == cqe->user_data) {
                cqe->res = kernel.forced[i].res;
                kernel.forced[i] = kernel.forced[--kernel.nforced];
                break;
            }
        }
    }
}

int __real_io_uring_enter2(unsigned fd, unsigned submit, unsigned wait, unsigned flags,
                           sigset_t *sig, size_t size);
int __wrap_io_uring_enter2(unsigned fd, unsigned submit, unsigned wait, unsigned flags,
                           sigset_t *sig, size_t size);

int __wrap_io_uring_enter2(unsigned fd, unsigned submit, unsigned wait, unsigned flags,
                           sigset_t *sig, size_t size)
{
    static const int errors[] = {EAGAIN, EBUSY, ENOMEM, EINTR};
    struct ring *r = kernel.ctx ? kernel.ctx->ring : 0;
    int rc;

    if (!r) {
        return __real_io_uring_enter2(fd, submit, wait, flags, sig, size);
    }
    if (r != kernel.ring) {
        kernel.ring = r;
        kernel.sqe_seen = ring_load(r->u.sq.khead);
        kernel.cqe_seen = r->cq_head;
    }
    if ((kernel.moods & REFUSE_ALL) || ((kernel.moods & REFUSE) && submit > 0 && dice(2))) {
        kernel.refused++;
        return -errors[dice(4)];
    }
    for (; kernel.sqe_seen != ring_load(r->u.sq.ktail); kernel.sqe_seen++) {
        spoil_sqe(&r->sqes[kernel.sqe_seen & r->sq_mask]);
    }
    /* the first always: how many there are depends on how fast the storage is */
    if ((kernel.moods & PARTIAL) && submit > 1 && (kernel.parts == 0 || dice(2))) {
        kernel.parts++;
        submit = 1 + dice(submit - 1);
        wait = 0;
    }
    rc = __real_io_uring_enter2(fd, submit, wait, flags, sig, size);
    force_results(r);
    return rc;
}

AioContext *kernel_start(unsigned entries, unsigned moods)
{
    struct aio_context_options opts = {
        .size = sizeof(opts), .engine = AIO_ENGINE_IO_URING, .ring_entries = entries};
    const char *seed = getenv("PLATTER_SEED");
    uint64_t random = kernel.random;

    if (!random) {
        random = seed ? strtoull(seed, 0, 0) : (uint64_t)getpid();
        print_message("PLATTER_SEED=%llu\n", (unsigned long long)random);
    }
    memset(&kernel, 0, sizeof(kernel));
    kernel.random = random;
    kernel.moods = moods;
    kernel.ctx = aio_context_new(&opts, 0);
    assert_non_null(kernel.ctx);
    aio_context_set_current(kernel.ctx);
    return kernel.ctx;
}

void kernel_stop(void)
{
    AioContext *ctx = kernel.ctx;

    assert_int_equal(ctx->ring->inflight, 0);
    assert_int_equal(kernel.nforced, 0);
    kernel.ctx = 0;
    aio_context_unref(ctx);
}
