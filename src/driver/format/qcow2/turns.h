/* SPDX-License-Identifier: MIT */
/* Turns: writes that get their room in the file in the order in which they were called. */
#ifndef PLATTER_QCOW2_TURNS_H
#define PLATTER_QCOW2_TURNS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <platter/coroutine.h>

struct q2_turns {
    _Atomic uint64_t next; /* the turn that is given out next */
    CoMutex lock;          /* guards now and queue */
    uint64_t now;          /* whose turn it is */
    CoQueue queue;
};

/* One of them, of a request or a part of it. */
struct q2_turn {
    struct q2_turns *turns;
    uint64_t number;
    bool passed;
};

void q2_turns_init(struct q2_turns *t);
/* The first of n turns that belong to the caller from now on, each of which must be passed. Whoever
 * waits for a turn may hold nothing that an earlier one needs. Any thread. */
uint64_t q2_turns_take(struct q2_turns *t, uint64_t n);
/* Until it is this turn. Coroutine. */
void q2_turn_wait_co(const struct q2_turn *turn);
/* A struct q2_turn is over, if it was not already; waits until it is its turn. Coroutine. */
void q2_turn_pass_co(void *opaque);
/* The next n turns are over, from turn on; waits until it is turn. Coroutine. */
void q2_turns_pass_co(struct q2_turns *t, uint64_t turn, uint64_t n);

#endif
