/* SPDX-License-Identifier: MIT */
/*
 * Sparse bytes in memory: chunks of 64 KiB found by hash, shared between images until one of them
 * writes. What was never written, or was zeroed by whole 4 KiB blocks, is a hole. Not locked.
 *
 * Invariant: bytes at or beyond size_bytes read as zeroes when the size grows over them.
 */
#ifndef PLATTER_OS_SIM_IMAGE_H
#define PLATTER_OS_SIM_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_CHUNK_BYTES 65536u
#define SIM_BLOCK_BYTES 4096u

struct sim_chunk_ref;

struct sim_image {
    uint64_t size_bytes;
    struct sim_chunk_ref **buckets; /* owned */
    size_t nbuckets;
    size_t nchunks;
};

int sim_image_init(struct sim_image *image, uint64_t size_bytes); /* 0 or -ENOMEM */
void sim_image_fini(struct sim_image *image);
/* dst is filled, not replaced. 0 or -ENOMEM (dst is then not valid). */
int sim_image_init_clone(struct sim_image *dst, const struct sim_image *src);

/* Any range; what lies beyond the size reads as zeroes. */
void sim_image_read(const struct sim_image *image, uint64_t offset, void *buf, size_t bytes);
/* Does not move the size. 0 or -ENOMEM (part may be written). */
int sim_image_write(struct sim_image *image, uint64_t offset, const void *buf, size_t bytes);
int sim_image_zero(struct sim_image *image, uint64_t offset, uint64_t bytes);
int sim_image_truncate(struct sim_image *image, uint64_t size_bytes);

/* The first offset >= offset that is data (or hole), below the size; size_bytes when there is
 * none. */
uint64_t sim_image_next(const struct sim_image *image, uint64_t offset, bool data);
uint64_t sim_image_data_bytes(const struct sim_image *image); /* of 4 KiB blocks that hold data */

#endif
