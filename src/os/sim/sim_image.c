/* SPDX-License-Identifier: MIT */
/* Sparse bytes with shared chunks; see the header for what holds. */
#include "os/sim/sim_image.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_PER_CHUNK (SIM_CHUNK_BYTES / SIM_BLOCK_BYTES)
#define BUCKETS_MIN 16

struct sim_chunk {
    atomic_uint users;
    uint16_t data_map; /* bit per block: holds data */
    uint8_t bytes[SIM_CHUNK_BYTES];
};

struct sim_chunk_ref {
    uint64_t index;
    struct sim_chunk *chunk; /* counted */
    struct sim_chunk_ref *next;
};

static void chunk_unref(struct sim_chunk *chunk)
{
    if (atomic_fetch_sub(&chunk->users, 1) == 1) {
        free(chunk);
    }
}

static struct sim_chunk *chunk_new(const struct sim_chunk *copy_of)
{
    struct sim_chunk *chunk = copy_of ? malloc(sizeof(*chunk)) : calloc(1, sizeof(*chunk));

    if (!chunk) {
        return 0;
    }
    atomic_init(&chunk->users, 1);
    if (copy_of) {
        chunk->data_map = copy_of->data_map;
        memcpy(chunk->bytes, copy_of->bytes, SIM_CHUNK_BYTES);
    }
    return chunk;
}

static size_t bucket_of(const struct sim_image *image, uint64_t index)
{
    return (index * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (image->nbuckets - 1);
}

static struct sim_chunk_ref **find(const struct sim_image *image, uint64_t index)
{
    struct sim_chunk_ref **link = &image->buckets[bucket_of(image, index)];

    while (*link && (*link)->index != index) {
        link = &(*link)->next;
    }
    return link;
}

/* More buckets; without memory for them the chains just stay long. */
static void grow(struct sim_image *image)
{
    struct sim_image bigger = *image;

    bigger.nbuckets = image->nbuckets * 2;
    bigger.buckets = calloc(bigger.nbuckets, sizeof(*bigger.buckets));
    if (!bigger.buckets) {
        return;
    }
    for (size_t i = 0; i < image->nbuckets; i++) {
        while (image->buckets[i]) {
            struct sim_chunk_ref *ref = image->buckets[i];
            struct sim_chunk_ref **to = &bigger.buckets[bucket_of(&bigger, ref->index)];

            image->buckets[i] = ref->next;
            ref->next = *to;
            *to = ref;
        }
    }
    free(image->buckets);
    *image = bigger;
}

static int add(struct sim_image *image, uint64_t index, struct sim_chunk *chunk)
{
    struct sim_chunk_ref *ref = malloc(sizeof(*ref));
    struct sim_chunk_ref **to;

    if (!ref) {
        return -ENOMEM;
    }
    if (image->nchunks >= image->nbuckets) {
        grow(image);
    }
    to = &image->buckets[bucket_of(image, index)];
    *ref = (struct sim_chunk_ref){.index = index, .chunk = chunk, .next = *to};
    *to = ref;
    image->nchunks++;
    return 0;
}

static void drop(struct sim_image *image, struct sim_chunk_ref **link)
{
    struct sim_chunk_ref *ref = *link;

    *link = ref->next;
    chunk_unref(ref->chunk);
    free(ref);
    image->nchunks--;
}

/* The chunk of this image alone, made when missing. */
static struct sim_chunk *chunk_for_write(struct sim_image *image, uint64_t index)
{
    struct sim_chunk_ref *ref = *find(image, index);
    struct sim_chunk *chunk;

    if (ref && atomic_load(&ref->chunk->users) == 1) {
        return ref->chunk;
    }
    chunk = chunk_new(ref ? ref->chunk : 0);
    if (!chunk) {
        return 0;
    }
    if (ref) {
        chunk_unref(ref->chunk);
        ref->chunk = chunk;
        return chunk;
    }
    if (add(image, index, chunk) < 0) {
        free(chunk);
        return 0;
    }
    return chunk;
}

int sim_image_init(struct sim_image *image, uint64_t size_bytes)
{
    struct sim_chunk_ref **buckets = calloc(BUCKETS_MIN, sizeof(*buckets));

    if (!buckets) {
        return -ENOMEM;
    }
    *image = (struct sim_image){
        .size_bytes = size_bytes,
        .buckets = buckets,
        .nbuckets = BUCKETS_MIN,
    };
    return 0;
}

void sim_image_fini(struct sim_image *image)
{
    for (size_t i = 0; i < image->nbuckets; i++) {
        while (image->buckets[i]) {
            drop(image, &image->buckets[i]);
        }
    }
    free(image->buckets);
    *image = (struct sim_image){0};
}

int sim_image_init_clone(struct sim_image *dst, const struct sim_image *src)
{
    int rc = sim_image_init(dst, src->size_bytes);

    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < src->nbuckets; i++) {
        for (struct sim_chunk_ref *ref = src->buckets[i]; ref; ref = ref->next) {
            if (add(dst, ref->index, ref->chunk) < 0) {
                sim_image_fini(dst);
                return -ENOMEM;
            }
            atomic_fetch_add(&ref->chunk->users, 1);
        }
    }
    return 0;
}

static size_t piece_bytes(uint64_t offset, uint64_t bytes)
{
    uint64_t room = SIM_CHUNK_BYTES - offset % SIM_CHUNK_BYTES;

    return (size_t)(bytes < room ? bytes : room);
}

void sim_image_read(const struct sim_image *image, uint64_t offset, void *buf, size_t bytes)
{
    uint8_t *out = buf;

    while (bytes > 0) {
        size_t n = piece_bytes(offset, bytes);
        struct sim_chunk_ref *ref = *find(image, offset / SIM_CHUNK_BYTES);

        if (ref) {
            memcpy(out, ref->chunk->bytes + offset % SIM_CHUNK_BYTES, n);
        } else {
            memset(out, 0, n);
        }
        out += n;
        offset += n;
        bytes -= n;
    }
}

int sim_image_write(struct sim_image *image, uint64_t offset, const void *buf, size_t bytes)
{
    const uint8_t *in = buf;

    while (bytes > 0) {
        size_t n = piece_bytes(offset, bytes);
        unsigned at = offset % SIM_CHUNK_BYTES;
        struct sim_chunk *chunk = chunk_for_write(image, offset / SIM_CHUNK_BYTES);

        if (!chunk) {
            return -ENOMEM;
        }
        memcpy(chunk->bytes + at, in, n);
        for (unsigned b = at / SIM_BLOCK_BYTES; b <= (at + n - 1) / SIM_BLOCK_BYTES; b++) {
            chunk->data_map |= (uint16_t)(1u << b);
        }
        in += n;
        offset += n;
        bytes -= n;
    }
    return 0;
}

/* Zero [at, at + n) of one chunk. */
static int zero_piece(struct sim_image *image, uint64_t index, unsigned at, size_t n)
{
    struct sim_chunk_ref **link = find(image, index);
    struct sim_chunk *chunk;

    if (!*link) {
        return 0;
    }
    if (n == SIM_CHUNK_BYTES) {
        drop(image, link);
        return 0;
    }
    chunk = chunk_for_write(image, index);
    if (!chunk) {
        return -ENOMEM;
    }
    memset(chunk->bytes + at, 0, n);
    for (unsigned b = 0; b < BLOCKS_PER_CHUNK; b++) {
        if (at <= b * SIM_BLOCK_BYTES && (b + 1) * SIM_BLOCK_BYTES <= at + n) {
            chunk->data_map &= (uint16_t) ~(1u << b);
        }
    }
    if (chunk->data_map == 0) {
        drop(image, find(image, index));
    }
    return 0;
}

/* Drop all whole chunks of [first, end): by walking the table, whatever the length. */
static void drop_chunks(struct sim_image *image, uint64_t first, uint64_t end)
{
    for (size_t i = 0; i < image->nbuckets; i++) {
        struct sim_chunk_ref **link = &image->buckets[i];

        while (*link) {
            if ((*link)->index >= first && (*link)->index < end) {
                drop(image, link);
            } else {
                link = &(*link)->next;
            }
        }
    }
}

int sim_image_zero(struct sim_image *image, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        size_t n = piece_bytes(offset, bytes);
        int rc;

        if (n == SIM_CHUNK_BYTES && bytes / SIM_CHUNK_BYTES > 64) {
            uint64_t whole = bytes / SIM_CHUNK_BYTES;

            drop_chunks(image, offset / SIM_CHUNK_BYTES, offset / SIM_CHUNK_BYTES + whole);
            offset += whole * SIM_CHUNK_BYTES;
            bytes -= whole * SIM_CHUNK_BYTES;
            continue;
        }
        rc = zero_piece(image, offset / SIM_CHUNK_BYTES, offset % SIM_CHUNK_BYTES, n);
        if (rc < 0) {
            return rc;
        }
        offset += n;
        bytes -= n;
    }
    return 0;
}

int sim_image_truncate(struct sim_image *image, uint64_t size_bytes)
{
    if (size_bytes < image->size_bytes) {
        /* Up to the end of the chunk that holds the old end: sectors reach beyond the size */
        uint64_t end = (image->size_bytes / SIM_CHUNK_BYTES + 1) * SIM_CHUNK_BYTES;
        int rc = sim_image_zero(image, size_bytes, end - size_bytes);

        if (rc < 0) {
            return rc;
        }
    }
    image->size_bytes = size_bytes;
    return 0;
}

static bool block_is_data(const struct sim_image *image, uint64_t offset)
{
    struct sim_chunk_ref *ref = *find(image, offset / SIM_CHUNK_BYTES);

    return ref && (ref->chunk->data_map >> (offset % SIM_CHUNK_BYTES / SIM_BLOCK_BYTES) & 1);
}

/* The lowest chunk at or after index, or UINT64_MAX: skips over holes of any length. */
static uint64_t next_chunk(const struct sim_image *image, uint64_t index)
{
    uint64_t best = UINT64_MAX;

    if (*find(image, index)) {
        return index;
    }
    for (size_t i = 0; i < image->nbuckets; i++) {
        for (struct sim_chunk_ref *ref = image->buckets[i]; ref; ref = ref->next) {
            if (ref->index >= index && ref->index < best) {
                best = ref->index;
            }
        }
    }
    return best;
}

uint64_t sim_image_next(const struct sim_image *image, uint64_t offset, bool data)
{
    while (offset < image->size_bytes) {
        if (block_is_data(image, offset) == data) {
            return offset;
        }
        if (data && !*find(image, offset / SIM_CHUNK_BYTES)) {
            uint64_t index = next_chunk(image, offset / SIM_CHUNK_BYTES);

            if (index == UINT64_MAX) {
                break;
            }
            offset = index * SIM_CHUNK_BYTES;
            continue;
        }
        offset = (offset / SIM_BLOCK_BYTES + 1) * SIM_BLOCK_BYTES;
    }
    return image->size_bytes;
}

uint64_t sim_image_data_bytes(const struct sim_image *image)
{
    uint64_t blocks = 0;

    for (size_t i = 0; i < image->nbuckets; i++) {
        for (struct sim_chunk_ref *ref = image->buckets[i]; ref; ref = ref->next) {
            blocks += (unsigned)__builtin_popcount(ref->chunk->data_map);
        }
    }
    return blocks * SIM_BLOCK_BYTES;
}
