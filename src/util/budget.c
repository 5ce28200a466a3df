/* SPDX-License-Identifier: MIT */
/* The memory budget: a counter that never passes its limit. Relaxed order: it guards no data. */
#include <assert.h>

#include "util/budget.h"

bool mem_budget_take(struct mem_budget *budget, uint64_t bytes)
{
    return mem_budget_take_leaving(budget, bytes, 0);
}

bool mem_budget_take_leaving(struct mem_budget *budget, uint64_t bytes, uint64_t leave)
{
    uint64_t limit = budget->limit_bytes > leave ? budget->limit_bytes - leave : 0;
    uint64_t used = atomic_load_explicit(&budget->used_bytes, memory_order_relaxed);

    do {
        if (used > limit || bytes > limit - used) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&budget->used_bytes, &used, used + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void mem_budget_give(struct mem_budget *budget, uint64_t bytes)
{
    uint64_t used = atomic_fetch_sub_explicit(&budget->used_bytes, bytes, memory_order_relaxed);

    assert(used >= bytes);
    (void)used;
}
