/* SPDX-License-Identifier: MIT */
/* Turns: pieces of work that are at it together, and each do one thing in the order in which they
 * were begun, such as writes that get their room in a file. */
#ifndef PLATTER_LOOP_CO_TURNS_H
#define PLATTER_LOOP_CO_TURNS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <platter/coroutine.h>

struct co_turns {
    _Atomic uint64_t next; /* the turn that is given out next */
    CoMutex lock;          /* guards now and queue */
    uint64_t now;          /* whose turn it is */
    CoQueue queue;
};

/* One of them, of a piece of work. */
struct co_turn {
    struct co_turns *turns;
    uint64_t number;
    bool passed;
};

void co_turns_init(struct co_turns *t);
/* The first of n turns that belong to the caller from now on, each of which must be passed. Whoever
 * waits for a turn may hold nothing that an earlier one needs. Any thread. */
uint64_t co_turns_take(struct co_turns *t, uint64_t n);
/* One turn. Any thread. */
struct co_turn co_turn_take(struct co_turns *t);
/* Until it is this turn, or it is over. Coroutine. */
void co_turn_wait_co(const struct co_turn *turn);
/* A struct co_turn is over, if it was not already; waits until it is its turn. Coroutine. */
void co_turn_pass_co(void *opaque);
/* The next n turns are over, from turn on; waits until it is turn. Coroutine. */
void co_turns_pass_co(struct co_turns *t, uint64_t turn, uint64_t n);

#endif
