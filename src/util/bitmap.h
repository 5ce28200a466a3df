/* SPDX-License-Identifier: MIT */
/*
 * A set of bits, numbered below 2^60, of which memory is taken only for the parts that hold both
 * set and clear bits. Any thread, without locks, unless a call says otherwise.
 *
 * Setting cannot fail: where memory is short (or the budget says no) a whole part counts as set, so
 * that no set bit is ever lost. That makes it right for "has changed", and for nothing that must
 * not be set too often.
 */
#ifndef PLATTER_UTIL_BITMAP_H
#define PLATTER_UTIL_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/budget.h"

#define BITMAP_ROOTS 6
#define BITMAP_BITS_MAX (UINT64_C(1) << 60)

struct bitmap {
    _Atomic uintptr_t roots[BITMAP_ROOTS];
    struct mem_budget *budget; /* borrowed; NULL: unlimited */
};

/* All clear. */
void bitmap_init(struct bitmap *b, struct mem_budget *budget);
/* Give the memory back: all clear again. Nobody else may use it meanwhile. */
void bitmap_fini(struct bitmap *b);

/* All that is set in from, to an empty one of the same budget; from is all clear then. Cannot fail;
 * nobody else may use either. */
void bitmap_move(struct bitmap *to, struct bitmap *from);

/* Whoever clears a bit and then reads what it stands for, and whoever changes that and then sets
 * the bit, see each other: one of them sees what the other did. */
void bitmap_set(struct bitmap *b, uint64_t first, uint64_t count);
/* -ENOMEM: some of them are still set. */
int bitmap_reset(struct bitmap *b, uint64_t first, uint64_t count);

bool bitmap_get(const struct bitmap *b, uint64_t bit);
/* The first set (clear) bit in [from, end); false: there is none. Empty and full parts are passed
 * in one step. */
bool bitmap_next_set(const struct bitmap *b, uint64_t from, uint64_t end, uint64_t *ret_bit);
bool bitmap_next_clear(const struct bitmap *b, uint64_t from, uint64_t end, uint64_t *ret_bit);
/* Set bits in [first, first + count). */
uint64_t bitmap_count(const struct bitmap *b, uint64_t first, uint64_t count);

/* Set the bits below end that are set in from. */
void bitmap_merge(struct bitmap *b, const struct bitmap *from, uint64_t end);

/* As bytes, bit n of the set at bit n % 8 of byte n / 8. first: a multiple of 64. Export fills
 * (count + 7) / 8 bytes, the bits after the last one are 0. Import sets what is set there and
 * leaves the rest alone. */
void bitmap_export(const struct bitmap *b, uint64_t first, uint64_t count, uint8_t *ret_bytes);
void bitmap_import(struct bitmap *b, uint64_t first, uint64_t count, const uint8_t *bytes);

#endif
