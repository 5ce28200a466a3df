/* SPDX-License-Identifier: MIT */
/*
 * The bytes of the disk, for the whole driver: where they are, read and written by somebody who is
 * inside already. request.h is what the files of the request path share.
 */
#ifndef PLATTER_QCOW2_IO_H
#define PLATTER_QCOW2_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "block/driver.h"

struct qcow2;

/* ---- map.c: where the disk's bytes are ---- */

enum q2_kind {
    Q2_UNALLOCATED, /* the backing file decides; host may say that room is there (subclusters) */
    Q2_ZEROES,      /* reads as zeroes; host != UINT64_MAX: room is there */
    Q2_DATA,
    Q2_COMPRESSED_DATA,
};
struct q2_extent {
    enum q2_kind kind;
    bool copied;       /* COPIED: may be written in place where kind is DATA */
    uint64_t bytes;    /* of the same kind, contiguous in the file, from offset on */
    uint64_t host;     /* of its first byte in the data file; UINT64_MAX: none */
    uint64_t l2_entry; /* COMPRESSED_DATA: the entry; the extent is the rest of one cluster */
};
/* Lock-free where the slice is in memory. Offsets may lie past the disk (VM state). -EIO with the
 * node told (q2_corrupt_*) where the entry is impossible. Coroutine, inside. */
int q2_map_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, struct q2_extent *ret);

/* ---- read.c, write.c ---- */

/* [offset, offset + bytes) of the disk, or past it (VM state), in place or with allocation. */
int q2_write_co(struct qcow2 *s, const struct bdrv_req *req);
/* The same; placed is called (coroutine) when all of it has its room in the file, not where it
 * fails before. */
int q2_write_placed_co(struct qcow2 *s, const struct bdrv_req *req, void (*placed)(void *opaque),
                       void *opaque);
int q2_read_co(struct qcow2 *s, const struct bdrv_req *req);

#endif
