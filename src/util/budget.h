/* SPDX-License-Identifier: MIT */
/*
 * A memory budget: buffers, caches and stacks are taken from it before they are allocated. Any
 * thread.
 */
#ifndef PLATTER_UTIL_BUDGET_H
#define PLATTER_UTIL_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct mem_budget {
    _Atomic uint64_t used_bytes;
    uint64_t limit_bytes; /* set before start */
};

/* Take bytes, or false when the limit would be passed. */
bool mem_budget_take(struct mem_budget *budget, uint64_t bytes);
/* The same, but only while at least leave bytes remain for others afterwards. */
bool mem_budget_take_leaving(struct mem_budget *budget, uint64_t bytes, uint64_t leave);
void mem_budget_give(struct mem_budget *budget, uint64_t bytes);

#endif
