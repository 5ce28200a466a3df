/* SPDX-License-Identifier: MIT */
/*
 * A bounded group of child coroutines of one coroutine: several pieces of its work in flight at a
 * time, in its own context. The parent starts them one after the other and waits for the end of
 * all; the first failure is the group's.
 *
 * The memory of the pieces is an array of the caller's; the group says which element is free. Where
 * no coroutine can be had, the parent does the piece itself: slower, never an error.
 */
#ifndef PLATTER_LOOP_CO_GROUP_H
#define PLATTER_LOOP_CO_GROUP_H

#include <stdbool.h>
#include <stddef.h>

#include <platter/coroutine.h>

#define CO_GROUP_MAX 8           /* children at a time, of a group that says nothing else */
#define CO_GROUP_CHILDREN_MAX 16 /* of any */

struct co_group_child {
    struct co_group *group;
    int (*run)(void *piece);
    void *piece;
};

struct co_group {
    Coroutine *parent;
    void *pieces; /* borrowed: max elements */
    size_t piece_bytes;
    unsigned max;  /* children at a time */
    unsigned busy; /* a bit for each element in use */
    bool waits;    /* the parent is suspended until a bit falls */
    int ret;       /* the first failure */
    struct co_group_child children[CO_GROUP_CHILDREN_MAX];
};

/* The running coroutine is the parent; nothing else may wake it between start and wait. */
void co_group_init(struct co_group *group, void *pieces, size_t piece_bytes);
/* The same with max pieces, 1 .. CO_GROUP_CHILDREN_MAX, instead of CO_GROUP_MAX. */
void co_group_init_max(struct co_group *group, void *pieces, size_t piece_bytes, unsigned max);
/* A free element, the caller's until co_group_start_co; waits for one. Coroutine, the parent. */
void *co_group_piece_co(struct co_group *group);
/* Run run(piece) in a child, which begins at once; piece is what co_group_piece_co gave last. It
 * returns 0 or -errno. Coroutine, the parent. */
void co_group_start_co(struct co_group *group, void *piece, int (*run)(void *piece));
/* Wait for all; 0 or the first failure. The group is then as new. Coroutine, the parent. */
int co_group_wait_co(struct co_group *group);
/* Whether a piece has failed: what is left need not be started. */
static inline bool co_group_failed(const struct co_group *group)
{
    return group->ret < 0;
}

#endif
