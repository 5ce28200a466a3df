/* SPDX-License-Identifier: MIT */
/* Turns: writes that get their room in the file in the order in which they were called. */
#ifndef PLATTER_QCOW2_TURNS_H
#define PLATTER_QCOW2_TURNS_H

#include <stdatomic.h>
#include <stdint.h>

#include <platter/coroutine.h>

struct q2_turns {
    _Atomic uint64_t next; /* the turn that is given out next */
    CoMutex lock;          /* guards now and queue */
    uint64_t now;          /* whose turn it is */
    CoQueue queue;
};

void q2_turns_init(struct q2_turns *t);
/* The first of n turns that belong to the caller from now on, each of which must be passed. Whoever
 * waits for a turn may hold nothing that an earlier one needs. Any thread. */
uint64_t q2_turns_take(struct q2_turns *t, uint64_t n);
/* Until it is this turn. Coroutine. */
void q2_turn_wait_co(struct q2_turns *t, uint64_t turn);
/* The next n turns are over, from turn on; waits until it is turn. Coroutine. */
void q2_turns_pass_co(struct q2_turns *t, uint64_t turn, uint64_t n);

#endif
