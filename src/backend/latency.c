/* SPDX-License-Identifier: MIT */
/* Bins of times, read. */
#include "backend/latency.h"

#include <assert.h>

_Static_assert(BLOCK_ACCT_LATENCY_BINS == 4 * (LATENCY_MAX_BITS - LATENCY_UNIT_BITS - 1) + 1,
               "four bins to a power of two, and one behind them");

uint64_t block_acct_latency_bound(size_t bin)
{
    size_t next = bin + 1;
    size_t shift = next < 8 ? 0 : next / 4 - 1;

    assert(bin < BLOCK_ACCT_LATENCY_BINS);
    if (next == BLOCK_ACCT_LATENCY_BINS) {
        return UINT64_MAX;
    }
    return (uint64_t)(next - 4 * shift) << shift << LATENCY_UNIT_BITS;
}

uint64_t block_acct_latency_quantile(const struct block_acct_latency *latency, unsigned per_mille)
{
    /* The place of the request among all, from 1 on, rounded up; exact also where the product is
     * too large for 64 bits. */
    uint64_t wanted =
        latency->count / 1000 * per_mille + (latency->count % 1000 * per_mille + 999) / 1000;
    uint64_t seen = 0;

    assert(per_mille <= 1000);
    for (size_t bin = 0; latency->count > 0 && bin < BLOCK_ACCT_LATENCY_BINS; bin++) {
        seen += latency->bins[bin];
        if (seen >= wanted && seen > 0) {
            return bin + 1 < BLOCK_ACCT_LATENCY_BINS ? block_acct_latency_bound(bin)
                                                     : UINT64_C(1) << LATENCY_MAX_BITS;
        }
    }
    return 0;
}
