/* SPDX-License-Identifier: MIT */
/* The kernel's side of a ring, made to misbehave: io_uring_enter2 is wrapped at link time. */
#ifndef TESTS_UNIT_LOOP_RING_KERNEL_H
#define TESTS_UNIT_LOOP_RING_KERNEL_H

#include "loop_test.h"

#include "loop/ring.h"

enum mood {
    REFUSE_ALL = 1,
    REFUSE = 2,
    PARTIAL = 4,
    PIECES = 8,
    INTERRUPT = 16,
    ALWAYS_EINTR = 32
};

struct ring_kernel {
    AioContext *ctx;
    unsigned moods;
    uint64_t random;
    const struct ring *ring; /* of which sqe_seen and cqe_seen speak */
    unsigned sqe_seen;
    unsigned cqe_seen;
    struct {
        uint64_t user_data;
        int res;
    } forced[1024]; /* operations made into nothing, and what they are to answer */
    unsigned nforced;
    unsigned refused, parts, pieces, interrupted;
};
extern struct ring_kernel kernel;

/* A context, made the thread's own, with a ring of so many entries that the kernel serves in these
 * moods. Random choices go by PLATTER_SEED. */
AioContext *kernel_start(unsigned entries, unsigned moods);
/* It ends; nothing may be left in flight. */
void kernel_stop(void);

#endif
