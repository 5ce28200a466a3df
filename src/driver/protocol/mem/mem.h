/* SPDX-License-Identifier: MIT */
/*
 * The store of a disk in memory: a sparse map from offsets to chunks. It knows no requests and no
 * nodes. Every call may run in several threads at once; reads and writes take one lock that only
 * threads of the same slot share.
 */
#ifndef PLATTER_DRIVER_MEM_H
#define PLATTER_DRIVER_MEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "os/os.h"
#include "os/thread.h"
#include "util/budget.h"

#define MEM_CHUNK_BITS 16
#define MEM_CHUNK_BYTES (UINT64_C(1) << MEM_CHUNK_BITS)
#define MEM_LEVEL_BITS 11
#define MEM_LEVEL_ENTRIES (1u << MEM_LEVEL_BITS)
#define MEM_LEVELS 4
#define MEM_SIZE_MAX (UINT64_C(1) << (MEM_CHUNK_BITS + MEM_LEVELS * MEM_LEVEL_BITS)) /* 1 EiB */

/* A table; entries point to tables of the next level, those of the last level to chunks. */
struct mem_table {
    _Atomic(void *) entry[MEM_LEVEL_ENTRIES];
};

/* Held while a thread touches chunks; whoever frees chunks passes through every one that was ever
 * taken, after having unlinked them. */
struct mem_door {
    struct os_mutex lock;
} __attribute__((aligned(64)));

struct mem_store {
    struct mem_budget *budget; /* borrowed */
    struct mem_table root;
    _Atomic uint64_t chunks;     /* now allocated */
    _Atomic uint64_t doors_used; /* bit per door */
    struct mem_door door[OS_SLOTS];
};

/* NULL: no memory. */
struct mem_store *mem_store_new(struct mem_budget *budget);
void mem_store_free(struct mem_store *store); /* NULL allowed; nobody uses it any more */

void mem_store_read(struct mem_store *store, unsigned slot, uint64_t offset, uint64_t bytes,
                    const struct iovec *iov, size_t niov, uint64_t iov_offset);
/* 0, -ENOMEM, or -ENOSPC when the budget is used up; then a part may be written. */
int mem_store_write(struct mem_store *store, unsigned slot, uint64_t offset, uint64_t bytes,
                    const struct iovec *iov, size_t niov, uint64_t iov_offset);
/* Make the range read as zeroes; whole chunks are freed. Cannot fail. */
void mem_store_zero(struct mem_store *store, unsigned slot, uint64_t offset, uint64_t bytes);
/* Whether offset is backed by a chunk; *ret_bytes (at most bytes) have the same answer. */
bool mem_store_status(struct mem_store *store, unsigned slot, uint64_t offset, uint64_t bytes,
                      uint64_t *ret_bytes);
uint64_t mem_store_allocated_bytes(struct mem_store *store);

#endif
