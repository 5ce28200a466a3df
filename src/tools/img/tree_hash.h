/* SPDX-License-Identifier: MIT */
/*
 * A hash of a disk's content as the root of a tree over its chunks: doc/format/checksum.md. Chunks
 * are hashed apart, by anybody, and added in their order; a run of zeroes costs a few steps
 * whatever its length. What is kept is one hash for each level.
 */
#ifndef PLATTER_TOOLS_IMG_TREE_HASH_H
#define PLATTER_TOOLS_IMG_TREE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TREE_HASH_CHUNK_BYTES (INT64_C(1) << 20)
#define TREE_HASH_BYTES_MAX 64 /* of any digest */
#define TREE_HASH_LEVELS 44    /* 2^43 chunks are 2^63 bytes */

struct hash_algorithm {
    const char *name; /* "sha256" */
    int digest;       /* gnutls_digest_algorithm_t */
    size_t bytes;
};

/* The algorithm that is called name; NULL: there is none. */
const struct hash_algorithm *hash_algorithm_find(const char *name);
/* What GnuTLS returned when it made a hash, as 0 or -errno: it has one code for any failure of an
 * algorithm that it knows, as ours are, and that is a lack of memory. */
int hash_errno(int rc);
/* 0 or -errno. Any thread. */
int hash_bytes(const struct hash_algorithm *alg, const void *data, size_t bytes, void *ret_hash);
/* HEX of a hash with a zero byte at its end; ret_text has room for 2 * bytes + 1. */
void hash_text(const void *hash, size_t bytes, char *ret_text);

struct tree_hash {
    const struct hash_algorithm *alg;
    uint64_t chunks; /* that were added */
    /* waits[k]: nodes[k] is a left half of 2^k chunks that waits for its right half */
    bool waits[TREE_HASH_LEVELS];
    unsigned char nodes[TREE_HASH_LEVELS][TREE_HASH_BYTES_MAX];
    unsigned char zeroes[TREE_HASH_LEVELS][TREE_HASH_BYTES_MAX]; /* of 2^k chunks of zeroes */
};

/* 0, -ENOMEM or -EIO (the library of hashes fails). */
int tree_hash_init(struct tree_hash *tree, const struct hash_algorithm *alg);
/* The next chunk by the hash of its TREE_HASH_CHUNK_BYTES bytes. 0 or -EIO. */
int tree_hash_add(struct tree_hash *tree, const void *hash);
/* So many chunks of zeroes. 0 or -EIO. */
int tree_hash_add_zeroes(struct tree_hash *tree, uint64_t chunks);
/* The hash of a disk of disk_bytes, all whose chunks were added; nothing can be added then. 0 or
 * -EIO. */
int tree_hash_end(struct tree_hash *tree, uint64_t disk_bytes, void *ret_hash);

#endif
