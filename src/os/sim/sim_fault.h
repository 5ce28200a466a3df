/* SPDX-License-Identifier: MIT */
/*
 * Rules that make calls fail, come short or take long; the same for the simulated files and for a
 * table over the real system. Thread safe.
 */
#ifndef PLATTER_OS_SIM_FAULT_H
#define PLATTER_OS_SIM_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "os/sim/sim_rng.h"
#include "os/thread.h"

/* Kinds of calls a rule can name. */
enum sim_call {
    SIM_CALL_OPEN,
    SIM_CALL_CLOSE,
    SIM_CALL_DUP,
    SIM_CALL_READ,  /* preadv */
    SIM_CALL_WRITE, /* pwritev */
    SIM_CALL_SYNC,
    SIM_CALL_TRUNCATE,
    SIM_CALL_FALLOCATE,
    SIM_CALL_LSEEK,
    SIM_CALL_COPY,
    SIM_CALL_STAT, /* stat, fstat, statx, fstatfs */
    SIM_CALL_FCNTL,
    SIM_CALL_LOCK,
    SIM_CALL_IOCTL,
    SIM_CALL_UNLINK,
    SIM_CALL_READLINK,
    SIM_CALL_FDREAD, /* read and write of plain descriptors: eventfds, pipes */
    SIM_CALL_FDWRITE,
    SIM_CALL_SOCKET, /* socket, bind, listen, set and get options */
    SIM_CALL_ACCEPT,
    SIM_CALL_CONNECT,
    SIM_CALL_RECV,
    SIM_CALL_SEND,
    SIM_CALL_EVENTFD, /* eventfd, timerfd_create, epoll_create */
    SIM_CALL_TIMERFD_SET,
    SIM_CALL_EPOLL_CTL,
    SIM_CALL_EPOLL_WAIT,
    SIM_CALL_MMAP, /* mmap, mprotect */
    SIM_CALL_THREAD,
    SIM_CALL_MAX,
};

#define SIM_CALLS(call) (UINT64_C(1) << (call))
#define SIM_CALLS_DATA                                                                             \
    (SIM_CALLS(SIM_CALL_READ) | SIM_CALLS(SIM_CALL_WRITE) | SIM_CALLS(SIM_CALL_SYNC) |             \
     SIM_CALLS(SIM_CALL_FALLOCATE) | SIM_CALLS(SIM_CALL_COPY))
#define SIM_CALLS_FILE                                                                             \
    (SIM_CALLS_DATA | SIM_CALLS(SIM_CALL_OPEN) | SIM_CALLS(SIM_CALL_CLOSE) |                       \
     SIM_CALLS(SIM_CALL_DUP) | SIM_CALLS(SIM_CALL_TRUNCATE) | SIM_CALLS(SIM_CALL_LSEEK) |          \
     SIM_CALLS(SIM_CALL_STAT) | SIM_CALLS(SIM_CALL_FCNTL) | SIM_CALLS(SIM_CALL_LOCK) |             \
     SIM_CALLS(SIM_CALL_IOCTL) | SIM_CALLS(SIM_CALL_UNLINK))
#define SIM_CALLS_SOCKET                                                                           \
    (SIM_CALLS(SIM_CALL_SOCKET) | SIM_CALLS(SIM_CALL_ACCEPT) | SIM_CALLS(SIM_CALL_CONNECT) |       \
     SIM_CALLS(SIM_CALL_RECV) | SIM_CALLS(SIM_CALL_SEND))

/* What happens to a call that the rule matches. */
struct sim_rule {
    uint64_t calls;  /* SIM_CALLS bits */
    uint64_t offset; /* only calls that touch [offset, offset + bytes); bytes 0: any */
    uint64_t bytes;
    uint64_t nth;        /* the n-th call that fits (1 is the first); 0: every one */
    bool forever;        /* with nth: that one and all later ones */
    uint64_t times;      /* strikes at most so often; 0: no limit */
    unsigned percent;    /* of those, by chance; 0: always */
    int error;           /* positive errno; 0: none */
    bool short_transfer; /* move about half of the bytes (at least one) */
    bool lose_cache;     /* with a failing sync: unflushed data is lost, as kernels may do */
    uint64_t delay_ns;   /* simulated files only: the call takes this long */
    /* And up to this much longer, by its kind, offset and length: the same call takes the same time
     * whichever thread makes it. */
    uint64_t delay_spread_ns;
};

/* What a call has to do. */
struct sim_verdict {
    int error; /* positive; 0: go on */
    bool short_transfer;
    bool lose_cache;
    uint64_t delay_ns;
};

#define SIM_RULES_MAX 32

struct sim_faults {
    struct os_mutex lock; /* guards all below */
    struct sim_rng rng;
    uint64_t seed;
    struct sim_rule rules[SIM_RULES_MAX];
    uint64_t matched[SIM_RULES_MAX]; /* calls that fitted each rule */
    uint64_t struck[SIM_RULES_MAX];  /* and how many of them it changed */
    unsigned nrules;
    uint64_t hits; /* calls that a rule changed */
    uint64_t counts[SIM_CALL_MAX];
};

void sim_faults_init(struct sim_faults *faults, uint64_t seed);
void sim_faults_fini(struct sim_faults *faults);
/* Add a rule; its number (for sim_faults_matched). At most SIM_RULES_MAX. */
unsigned sim_faults_add(struct sim_faults *faults, const struct sim_rule *rule);
void sim_faults_clear(struct sim_faults *faults); /* rules and counters */
/* Count one call and ask all rules; the first error wins, delays add up. */
void sim_faults_check(struct sim_faults *faults, enum sim_call call, uint64_t offset,
                      uint64_t bytes, struct sim_verdict *ret);
/* How many calls of these kinds were made since the last clear. */
uint64_t sim_faults_count(struct sim_faults *faults, uint64_t calls);
uint64_t sim_faults_hits(struct sim_faults *faults);

/* The bytes that a transfer of so many moves under the verdict. */
static inline uint64_t sim_verdict_bytes(const struct sim_verdict *verdict, uint64_t bytes)
{
    return verdict->short_transfer && bytes > 1 ? bytes / 2 : bytes;
}

#endif
