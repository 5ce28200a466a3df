/* SPDX-License-Identifier: MIT */
/*
 * A simulated disk (or file) with a volatile write cache. Reads see every write at once; a power
 * cut keeps what was flushed or written with FUA, and of what was not, any part.
 *
 * Numbered rules, which the tests check:
 *  D1  After a flush all earlier changes are durable; after a FUA write that write is, and the size
 *      it needs.
 *  D2  After a power cut each 512-byte sector holds its durable version or any later version it
 *      had since, as a whole. (Of a sector that a truncate cut, the part behind the end may also be
 *      zero alone.)
 *  D3  A sector that no unflushed change touched never changes.
 *  D4  The size is the durable one, one that was set since, or one that a surviving write needs.
 *
 * Memory is bounded: unflushed bytes above a limit become durable, oldest first, as in a real
 * cache. Not locked (sim_world locks). Errors: -ENOMEM only, the disk is then of no use any more.
 */
#ifndef PLATTER_OS_SIM_DISK_H
#define PLATTER_OS_SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/sim/sim_rng.h"

#define SIM_SECTOR_BYTES 512u
#define SIM_PENDING_BYTES_MAX (64u << 20)
#define SIM_PENDING_MAX 65536u

struct sim_disk;

struct sim_disk *sim_disk_new(uint64_t size_bytes);           /* NULL out of memory */
struct sim_disk *sim_disk_clone(const struct sim_disk *disk); /* pending changes included */
void sim_disk_free(struct sim_disk *disk);                    /* NULL allowed */

uint64_t sim_disk_size(const struct sim_disk *disk);
uint64_t sim_disk_data_bytes(const struct sim_disk *disk);
/* Zeroes beyond the size. */
void sim_disk_read(const struct sim_disk *disk, uint64_t offset, void *buf, size_t bytes);
void sim_disk_read_durable(const struct sim_disk *disk, uint64_t offset, void *buf, size_t bytes);
/* A write past the end extends. */
int sim_disk_write(struct sim_disk *disk, uint64_t offset, const void *buf, size_t bytes, bool fua);
/* Zero a range inside the size: whole 4 KiB blocks become holes. */
int sim_disk_zero(struct sim_disk *disk, uint64_t offset, uint64_t bytes);
int sim_disk_truncate(struct sim_disk *disk, uint64_t size_bytes);
int sim_disk_flush(struct sim_disk *disk);
/* Next data or hole, as sim_image_next. */
uint64_t sim_disk_next(const struct sim_disk *disk, uint64_t offset, bool data);

/* Forget unflushed changes without making them durable, while reads still see them: what a kernel
 * may do after a failed write-back. */
void sim_disk_lose_pending(struct sim_disk *disk);

/* ---- power cuts: durable content becomes the content, nothing is pending ---- */

/* What of one pending change survives: sectors first .. first + count - 1 of it, and of these only
 * those whose bit (number modulo 64) is set in mask. */
struct sim_survival {
    uint64_t first;
    uint64_t count;
    uint64_t mask;
};
typedef void sim_survival_func(void *opaque, size_t change, uint64_t sectors,
                               struct sim_survival *ret);

size_t sim_disk_pending(const struct sim_disk *disk); /* changes not yet durable, oldest first */
/* Each pending change survives wholly, partly or not. */
int sim_disk_power_cut(struct sim_disk *disk, struct sim_rng *rng);
/* Change i survives wholly when bit i % 8 of keep[i / 8] is set. */
int sim_disk_power_cut_subset(struct sim_disk *disk, const uint8_t *keep);
int sim_disk_power_cut_by(struct sim_disk *disk, sim_survival_func *func, void *opaque);

#endif
