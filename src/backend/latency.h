/* SPDX-License-Identifier: MIT */
/* The bins of platter/accounting.h by time. */
#ifndef PLATTER_BACKEND_LATENCY_H
#define PLATTER_BACKEND_LATENCY_H

#include <platter/accounting.h>

#include "util/mem.h"

#define LATENCY_UNIT_BITS 8 /* the narrowest bin: 256 ns */
#define LATENCY_MAX_BITS 38 /* what takes longer is in the last bin */

/* With T the highest bit of ns, or 2^10 if that is more: bins of 2^(T-2) ns. Those of T = 10 are
 * the first eight; each further T adds four. */
static inline size_t latency_bin(uint64_t ns)
{
    uint64_t top = 63U ^ (unsigned)__builtin_clzll(ns | UINT64_C(4) << LATENCY_UNIT_BITS);

    if (UNLIKELY(top >= LATENCY_MAX_BITS)) {
        return BLOCK_ACCT_LATENCY_BINS - 1;
    }
    return (size_t)((ns << 2 >> top) + 4 * top - 4 * (LATENCY_UNIT_BITS + 2));
}

#endif
