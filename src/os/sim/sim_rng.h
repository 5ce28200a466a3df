/* SPDX-License-Identifier: MIT */
/* A small seeded generator (splitmix64): the same seed gives the same run on every machine. */
#ifndef PLATTER_OS_SIM_RNG_H
#define PLATTER_OS_SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct sim_rng {
    uint64_t state;
};

static inline void sim_rng_init(struct sim_rng *rng, uint64_t seed)
{
    rng->state = seed;
}
static inline uint64_t sim_rng_u64(struct sim_rng *rng)
{
    uint64_t z = rng->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}
/* 0 .. below - 1; below > 0. The bias of the remainder does not matter for tests. */
static inline uint64_t sim_rng_below(struct sim_rng *rng, uint64_t below)
{
    return sim_rng_u64(rng) % below;
}
static inline bool sim_rng_percent(struct sim_rng *rng, unsigned percent)
{
    return sim_rng_below(rng, 100) < percent;
}

#endif
