/* SPDX-License-Identifier: MIT */
#include "loop/co_turns.h"

#include <assert.h>

void co_turns_init(struct co_turns *t)
{
    co_mutex_init(&t->lock);
    co_queue_init(&t->queue);
}

uint64_t co_turns_take(struct co_turns *t, uint64_t n)
{
    return atomic_fetch_add_explicit(&t->next, n, memory_order_relaxed);
}

struct co_turn co_turn_take(struct co_turns *t)
{
    return (struct co_turn){.turns = t, .number = co_turns_take(t, 1)};
}

static void wait_locked_co(struct co_turns *t, uint64_t turn)
{
    while (t->now < turn) {
        co_queue_wait(&t->queue, &t->lock);
    }
    assert(t->now == turn); /* each is passed once */
}

void co_turn_wait_co(const struct co_turn *turn)
{
    if (!turn->passed) {
        co_mutex_lock(&turn->turns->lock);
        wait_locked_co(turn->turns, turn->number);
        co_mutex_unlock(&turn->turns->lock);
    }
}

void co_turns_pass_co(struct co_turns *t, uint64_t turn, uint64_t n)
{
    co_mutex_lock(&t->lock);
    wait_locked_co(t, turn);
    t->now = turn + n;
    co_queue_wake_all(&t->queue);
    co_mutex_unlock(&t->lock);
}

void co_turn_pass_co(void *opaque)
{
    struct co_turn *turn = opaque;

    if (!turn->passed) {
        co_turns_pass_co(turn->turns, turn->number, 1);
        turn->passed = true;
    }
}
