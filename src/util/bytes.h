/* SPDX-License-Identifier: MIT */
/* Loads and stores of unaligned integers in a stated byte order. */
#ifndef PLATTER_UTIL_BYTES_H
#define PLATTER_UTIL_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define BYTES_DEFINE(name, bits, from, to)                                                         \
    static inline uint##bits##_t load_##name(const void *p)                                        \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof(v));                                                                  \
        return from(v);                                                                            \
    }                                                                                              \
    static inline void store_##name(void *p, uint##bits##_t v)                                     \
    {                                                                                              \
        v = to(v);                                                                                 \
        memcpy(p, &v, sizeof(v));                                                                  \
    }

BYTES_DEFINE(be16, 16, be16toh, htobe16)
BYTES_DEFINE(be32, 32, be32toh, htobe32)
BYTES_DEFINE(be64, 64, be64toh, htobe64)
BYTES_DEFINE(le16, 16, le16toh, htole16)
BYTES_DEFINE(le32, 32, le32toh, htole32)
BYTES_DEFINE(le64, 64, le64toh, htole64)
#undef BYTES_DEFINE

#endif
