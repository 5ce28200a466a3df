/* SPDX-License-Identifier: MIT */
/* Arithmetic on numbers that input decides: says false instead of wrapping. */
#ifndef PLATTER_UTIL_CHECKED_H
#define PLATTER_UTIL_CHECKED_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_add_overflow(a, b, ret);
}
static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_mul_overflow(a, b, ret);
}
/* Whether [offset, offset + bytes) lies inside [0, size). */
static inline bool range_inside(uint64_t offset, uint64_t bytes, uint64_t size)
{
    return offset <= size && bytes <= size - offset;
}
static inline bool ranges_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}
static inline bool is_pow2(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}
/* The largest power of two that is no larger; 1 for 0. */
static inline uint64_t pow2_floor(uint64_t v)
{
    return v == 0 ? 1 : UINT64_C(1) << (63 - __builtin_clzll(v));
}
/* align: a power of two. align_up: v must not be within align of UINT64_MAX. */
static inline uint64_t align_down(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}
static inline uint64_t align_up(uint64_t v, uint64_t align)
{
    assert(v <= UINT64_MAX - (align - 1));
    return (v + align - 1) & ~(align - 1);
}
static inline bool is_aligned(uint64_t v, uint64_t align)
{
    return (v & (align - 1)) == 0;
}
static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
