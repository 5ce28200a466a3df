/* SPDX-License-Identifier: MIT */
/*
 * The counts in a refcount block: 1 << order bits each, big endian; below a byte, entry 0 is in the
 * least significant bits ("Refcount block entry"). Pure.
 */
#ifndef PLATTER_QCOW2_REFBITS_H
#define PLATTER_QCOW2_REFBITS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "util/bytes.h"

static inline uint64_t q2_refbits_get(const uint8_t *block, unsigned order, uint64_t i)
{
    switch (order) {
    case 3:
        return block[i];
    case 4:
        return load_be16(block + 2 * i);
    case 5:
        return load_be32(block + 4 * i);
    case 6:
        return load_be64(block + 8 * i);
    default: /* 1, 2 or 4 bits */
        return (unsigned)block[(i << order) / 8] >> ((i << order) % 8) &
               ((1u << (1u << order)) - 1);
    }
}

/* v fits. */
static inline void q2_refbits_set(uint8_t *block, unsigned order, uint64_t i, uint64_t v)
{
    unsigned shift = (unsigned)((i << order) % 8);
    uint8_t *byte = block + (i << order) / 8;

    switch (order) {
    case 3:
        *byte = (uint8_t)v;
        break;
    case 4:
        store_be16(byte, (uint16_t)v);
        break;
    case 5:
        store_be32(byte, (uint32_t)v);
        break;
    case 6:
        store_be64(byte, v);
        break;
    default:
        *byte = (uint8_t)((*byte & ~(((1u << (1u << order)) - 1) << shift)) | (unsigned)v << shift);
    }
}

/* Whether one of the counts in eight bytes of a block is zero. */
static inline bool q2_refbits_word_has_zero(uint64_t word, unsigned order)
{
    static const uint64_t low[7] = {UINT64_MAX,
                                    UINT64_C(0x5555555555555555),
                                    UINT64_C(0x1111111111111111),
                                    UINT64_C(0x0101010101010101),
                                    UINT64_C(0x0001000100010001),
                                    UINT64_C(0x0000000100000001),
                                    UINT64_C(1)}; /* the lowest bit of each count */

    if (order == 0) {
        return word != UINT64_MAX;
    }
    return ((word - low[order]) & ~word & low[order] << ((1u << order) - 1)) != 0;
}

/* The first count in [from, to) that is zero (or, with zero false, is not), or to. */
static inline uint64_t q2_refbits_find(const uint8_t *block, unsigned order, uint64_t from,
                                       uint64_t to, bool zero)
{
    uint64_t per_word = UINT64_C(64) >> order;

    while (from < to) {
        if (from % per_word == 0 && to - from >= per_word) {
            uint64_t word;

            memcpy(&word, block + from / per_word * 8, 8);
            if (zero ? !q2_refbits_word_has_zero(be64toh(word), order) : word == 0) {
                from += per_word;
                continue;
            }
        }
        if ((q2_refbits_get(block, order, from) == 0) == zero) {
            return from;
        }
        from++;
    }
    return to;
}

#endif
