/* SPDX-License-Identifier: MIT */
/* A disk read once, several chunks at a time, and hashed: as a tree, or in one go. */
#ifndef PLATTER_TOOLS_IMG_CHECKSUM_READ_H
#define PLATTER_TOOLS_IMG_CHECKSUM_READ_H

#include <platter/backend.h>

#include "tools/img/tree_hash.h"

struct checksum_result {
    unsigned char hash[TREE_HASH_BYTES_MAX];
    int64_t disk_bytes;
    int64_t read_bytes; /* the rest was known to be zeroes */
};

/* Hash the disk of blk. report (may be NULL) is told how far it is. Control thread, outside a
 * coroutine. 0, or -errno of the first that failed; then *ret_step (static) says what: "block
 * status of", "reading". */
int checksum_read(BlockBackend *blk, const struct hash_algorithm *alg, bool flat,
                  void (*report)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                  struct checksum_result *ret_result, const char **ret_step);

#endif
