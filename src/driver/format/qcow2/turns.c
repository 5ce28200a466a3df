/* SPDX-License-Identifier: MIT */
#include "turns.h"

#include <assert.h>

void q2_turns_init(struct q2_turns *t)
{
    co_mutex_init(&t->lock);
    co_queue_init(&t->queue);
}

uint64_t q2_turns_take(struct q2_turns *t, uint64_t n)
{
    return atomic_fetch_add_explicit(&t->next, n, memory_order_relaxed);
}

static void wait_locked_co(struct q2_turns *t, uint64_t turn)
{
    while (t->now < turn) {
        co_queue_wait(&t->queue, &t->lock);
    }
    assert(t->now == turn); /* each is passed once */
}

void q2_turn_wait_co(const struct q2_turn *turn)
{
    co_mutex_lock(&turn->turns->lock);
    wait_locked_co(turn->turns, turn->number);
    co_mutex_unlock(&turn->turns->lock);
}

void q2_turns_pass_co(struct q2_turns *t, uint64_t turn, uint64_t n)
{
    co_mutex_lock(&t->lock);
    wait_locked_co(t, turn);
    t->now = turn + n;
    co_queue_wake_all(&t->queue);
    co_mutex_unlock(&t->lock);
}

void q2_turn_pass_co(void *opaque)
{
    struct q2_turn *turn = opaque;

    if (!turn->passed) {
        q2_turns_pass_co(turn->turns, turn->number, 1);
        turn->passed = true;
    }
}
