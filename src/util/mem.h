/* SPDX-License-Identifier: MIT */
/* Cleanup attributes and small memory helpers. Allocation itself is malloc, always checked. */
#ifndef PLATTER_UTIL_MEM_H
#define PLATTER_UTIL_MEM_H

#include <stdlib.h>

static inline void auto_free_func(void *p)
{
    free(*(void **)p);
}
#define AUTO_FREE __attribute__((cleanup(auto_free_func)))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#endif
