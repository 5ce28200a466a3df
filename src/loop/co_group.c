/* SPDX-License-Identifier: MIT */
/*
 * Groups of child coroutines. All of them run in the parent's context, one at a time, so the fields
 * need no lock.
 *
 * Invariant: after its bit has fallen and the parent was woken, a child touches nothing of the
 * group; it ends before the thread can go on with the parent.
 */
#include "loop/co_group.h"

#include <assert.h>

static void child_ended(struct co_group *group, unsigned index, int ret)
{
    assert(ret <= 0);
    if (group->ret == 0) {
        group->ret = ret;
    }
    group->busy &= ~(1u << index);
    if (group->waits) {
        group->waits = false;
        aio_co_wake(group->parent);
    }
}

static void child_main(void *opaque)
{
    struct co_group_child *child = opaque;
    struct co_group *group = child->group;

    child_ended(group, (unsigned)(child - group->children), child->run(child->piece));
}

static void wait_for_one(struct co_group *group)
{
    group->waits = true;
    coroutine_yield();
    assert(!group->waits);
}

void co_group_init(struct co_group *group, void *pieces, size_t piece_bytes)
{
    co_group_init_max(group, pieces, piece_bytes, CO_GROUP_MAX);
}

void co_group_init_max(struct co_group *group, void *pieces, size_t piece_bytes, unsigned max)
{
    assert(max > 0 && max <= CO_GROUP_CHILDREN_MAX);
    group->max = max;
    group->parent = coroutine_self();
    group->pieces = pieces;
    group->piece_bytes = piece_bytes;
    group->busy = 0;
    group->waits = false;
    group->ret = 0;
}

void *co_group_piece_co(struct co_group *group)
{
    assert(coroutine_self() == group->parent);
    while (group->busy == (1u << group->max) - 1) {
        wait_for_one(group);
    }
    return (char *)group->pieces + (size_t)__builtin_ctz(~group->busy) * group->piece_bytes;
}

void co_group_start_co(struct co_group *group, void *piece, int (*run)(void *piece))
{
    unsigned index = (unsigned)(((char *)piece - (char *)group->pieces) / group->piece_bytes);
    struct co_group_child *child = &group->children[index];
    Coroutine *co;

    assert(index < group->max && !(group->busy & 1u << index));
    *child = (struct co_group_child){.group = group, .run = run, .piece = piece};
    group->busy |= 1u << index;
    co = coroutine_create(child_main, child);
    if (co != NULL) {
        coroutine_enter(co);
    } else {
        child_main(child);
    }
}

int co_group_wait_co(struct co_group *group)
{
    int ret;

    while (group->busy != 0) {
        wait_for_one(group);
    }
    ret = group->ret;
    group->ret = 0;
    return ret;
}
