/* SPDX-License-Identifier: MIT */
/* Compressed clusters. */
#ifndef PLATTER_QCOW2_COMPRESS_H
#define PLATTER_QCOW2_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/driver.h"
#include "os/thread.h"

#include "format.h"

struct qcow2;

/* ---- compress.c: codecs (pure, any thread) ---- */

/* Whether this build can read and write the type. */
bool q2_compression_known(enum q2_compression type);
/* What a compressor works with, kept between clusters: to make it costs as much as a cluster. All
 * zero at first; one thread at a time. */
struct q2_packer {
    struct q2_packer *next; /* while it is idle */
    void *deflate;          /* owned */
    void *zstd;             /* owned */
};
void q2_packer_fini(struct q2_packer *packer);
/* Compress in (a cluster) to out (cluster_bytes room). The bytes used, or 0 when it does not
 * shrink, or -ENOMEM. */
int64_t q2_compress(struct q2_packer *packer, enum q2_compression type, bool compat_window,
                    const void *in, size_t in_bytes, void *out, size_t out_bytes);
/* Decompress to exactly out_bytes; what follows in the last sector is ignored. 0, -EIO, -ENOMEM. */
int q2_decompress(enum q2_compression type, const void *in, size_t in_bytes, void *out,
                  size_t out_bytes);

/* ---- compressed_io.c: clusters ---- */

/* The packers of an image: as many as ever were at work at a time. */
struct q2_packers {
    struct os_mutex lock;
    struct q2_packer *idle; /* owned; the one that worked last first */
};
void q2_packers_init(struct q2_packers *p);
void q2_packers_fini(struct q2_packers *p);

/* The cluster of a compressed entry. -EIO (told where the entry is at fault), -ENOMEM. Coroutine,
 * inside. */
int q2_read_compressed_co(struct qcow2 *s, uint64_t l2_entry, void *out_cluster);
/* Whole clusters; the last one may end with the disk. -EINVAL: they are not; -ENOTSUP: not with an
 * external data file, or not in this build. Coroutine, inside. */
int q2_write_compressed_co(struct qcow2 *s, const struct bdrv_req *req);

#endif
