/* SPDX-License-Identifier: MIT */
/*
 * blklogwrites: the log, in the format of the Linux target dm-log-writes. All numbers are
 * little-endian.
 *
 *     superblock   a sector: magic, version, number of entries, bytes of a sector
 *     entry        a sector: first sector, sectors, flags, bytes of data behind a mark; then the
 *     ...          sectors that were written, but for a discard
 */
#ifndef PLATTER_DRIVER_LOG_WRITES_H
#define PLATTER_DRIVER_LOG_WRITES_H

#include "block/driver.h"

#define LOG_SECTOR_BYTES_MIN 512u
#define LOG_SECTOR_BYTES_MAX (8u << 20)

enum log_flags {
    LOG_FLUSH = 1 << 0,
    LOG_FUA = 1 << 1,
    LOG_DISCARD = 1 << 2,
    LOG_MARK = 1 << 3,
};

struct log_state {
    /* set at open, then constant */
    BdrvEdge *edge;
    uint32_t sector_bytes;
    uint64_t super_interval;

    CoMutex lock; /* guards what follows; held while the log is written */
    uint64_t end; /* where the next entry begins, in sectors */
    uint64_t entries;
    bool began;   /* the superblock is ours */
    bool changed; /* something was logged since the last flush was */
    int failed;   /* -errno: an entry could not be written, so the log ends before it */
};

struct log_entry {
    uint64_t offset;
    uint64_t bytes;
    unsigned flags;
    const struct bdrv_req *data; /* NULL: zeroes, or none where flags say so */
};

/* Find the end of a log that is to be continued, or begin one where there is none. s->edge is set.
 * 0 or -errno. At open. */
int log_continue(struct log_state *s, Error **errp);
/* Add an entry. lock is held. 0 or -errno, from then on for ever. */
int log_append_co(struct log_state *s, BlockDriverState *bs, const struct log_entry *entry);
/* Write the superblock. lock is held. */
int log_super_co(struct log_state *s, BlockDriverState *bs);

#endif
