/* SPDX-License-Identifier: MIT */
/* The tree of hashes over the chunks of a disk. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "tools/img/tree_hash.h"
#include "util/bytes.h"
#include "util/mem.h"

static const char root_label[] = "platter-tree1"; /* 13 bytes are hashed, without the zero byte */

static const struct hash_algorithm algorithms[] = {
    {"sha256", GNUTLS_DIG_SHA256, 32},
    {"sha384", GNUTLS_DIG_SHA384, 48},
    {"sha512", GNUTLS_DIG_SHA512, 64},
};

const struct hash_algorithm *hash_algorithm_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(algorithms); i++) {
        if (strcmp(algorithms[i].name, name) == 0) {
            return &algorithms[i];
        }
    }
    return NULL;
}

int hash_errno(int rc)
{
    return rc == GNUTLS_E_MEMORY_ERROR || rc == GNUTLS_E_HASH_FAILED ? -ENOMEM : rc < 0 ? -EIO : 0;
}

int hash_bytes(const struct hash_algorithm *alg, const void *data, size_t bytes, void *ret_hash)
{
    return hash_errno(
        gnutls_hash_fast((gnutls_digest_algorithm_t)alg->digest, data, bytes, ret_hash));
}

void hash_text(const void *hash, size_t bytes, char *ret_text)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *in = hash;

    for (size_t i = 0; i < bytes; i++) {
        ret_text[2 * i] = digits[in[i] >> 4];
        ret_text[2 * i + 1] = digits[in[i] & 15];
    }
    ret_text[2 * bytes] = '\0';
}

/* The hash of two nodes side by side; ret_hash may be one of them. */
static int join(const struct hash_algorithm *alg, const void *left, const void *right,
                void *ret_hash)
{
    unsigned char both[2 * TREE_HASH_BYTES_MAX];

    memcpy(both, left, alg->bytes);
    memcpy(both + alg->bytes, right, alg->bytes);
    return hash_bytes(alg, both, 2 * alg->bytes, ret_hash);
}

int tree_hash_init(struct tree_hash *tree, const struct hash_algorithm *alg)
{
    void *chunk = calloc(1, (size_t)TREE_HASH_CHUNK_BYTES);
    int ret;

    if (!chunk) {
        return -ENOMEM;
    }
    *tree = (struct tree_hash){.alg = alg};
    ret = hash_bytes(alg, chunk, (size_t)TREE_HASH_CHUNK_BYTES, tree->zeroes[0]);
    for (unsigned k = 1; ret == 0 && k < TREE_HASH_LEVELS; k++) {
        ret = join(alg, tree->zeroes[k - 1], tree->zeroes[k - 1], tree->zeroes[k]);
    }
    free(chunk);
    return ret;
}

/* A node of 2^level chunks, which begins at a multiple of them. */
static int add_node(struct tree_hash *tree, unsigned level, const void *hash)
{
    unsigned char node[TREE_HASH_BYTES_MAX];
    int ret = 0;

    assert((tree->chunks & ((UINT64_C(1) << level) - 1)) == 0);
    tree->chunks += UINT64_C(1) << level;
    memcpy(node, hash, tree->alg->bytes);
    for (; ret == 0 && tree->waits[level]; level++) {
        tree->waits[level] = false;
        ret = join(tree->alg, tree->nodes[level], node, node);
        assert(level + 1 < TREE_HASH_LEVELS);
    }
    memcpy(tree->nodes[level], node, tree->alg->bytes);
    tree->waits[level] = true;
    return ret;
}

int tree_hash_add(struct tree_hash *tree, const void *hash)
{
    return add_node(tree, 0, hash);
}

int tree_hash_add_zeroes(struct tree_hash *tree, uint64_t chunks)
{
    int ret = 0;

    while (ret == 0 && chunks > 0) {
        unsigned level = 0;

        /* the largest node that begins here and is not longer than what is left */
        while (level + 1 < TREE_HASH_LEVELS && (UINT64_C(2) << level) <= chunks &&
               (tree->chunks & ((UINT64_C(2) << level) - 1)) == 0) {
            level++;
        }
        chunks -= UINT64_C(1) << level;
        ret = add_node(tree, level, tree->zeroes[level]);
    }
    return ret;
}

int tree_hash_end(struct tree_hash *tree, uint64_t disk_bytes, void *ret_hash)
{
    unsigned char root[sizeof(root_label) - 1 + 8 + TREE_HASH_BYTES_MAX];
    unsigned char *to = root;
    unsigned height = 0;
    int ret;

    while (((uint64_t)TREE_HASH_CHUNK_BYTES << height) < disk_bytes) {
        height++;
    }
    assert(tree->chunks <= UINT64_C(1) << height);
    ret = tree_hash_add_zeroes(tree, (UINT64_C(1) << height) - tree->chunks);
    if (ret < 0) {
        return ret;
    }
    assert(tree->waits[height]);
    memcpy(to, root_label, sizeof(root_label) - 1);
    to += sizeof(root_label) - 1;
    store_be64(to, disk_bytes);
    to += 8;
    memcpy(to, tree->nodes[height], tree->alg->bytes);
    to += tree->alg->bytes;
    return hash_bytes(tree->alg, root, (size_t)(to - root), ret_hash);
}
