/* SPDX-License-Identifier: MIT */
/* What a convert copies at a time, and how many pieces of it, within a cap of memory. */
#include <errno.h>
#include <inttypes.h>

#include "block/driver.h"
#include "job/convert_int.h"
#include "util/checked.h"
#include "util/error.h"

/* What a piece holds, unless units are larger or memory is short: large enough that a request costs
 * little beside its bytes, small enough that they are still in a processor's cache when they are
 * written. */
#define CHUNK_BYTES (UINT64_C(512) << 10)
/* What it holds at the most so that zeroes can be counted in it. */
#define SPARSE_BYTES (UINT64_C(2) << 20)
/* A piece of what the source has compressed, where a cluster is no larger: each of its clusters
 * takes the memory of two while it is read. */
#define PACKED_BYTES (UINT64_C(128) << 10)
/* What one compressor works with; the second where units are larger than COMPRESSOR_UNIT. */
#define COMPRESSOR_UNIT (UINT64_C(256) << 10)
#define COMPRESSOR_BYTES (UINT64_C(704) << 10)
#define COMPRESSOR_BYTES_LARGE (UINT64_C(1) << 20)
/* A piece that only tells the storage what to copy. */
#define OFFLOAD_BYTES (UINT64_C(16) << 20)

/* The largest cluster that a source may have compressed; 0: none has. */
static uint64_t packed_cluster(const struct convert_options *o)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < o->sources_count; i++) {
        bytes = max_u64(bytes, bdrv_compressed_cluster_bytes(blk_bs(o->sources[i].blk)));
    }
    return bytes;
}

/* What a piece takes at the most that has bytes of the target. */
static uint64_t piece_memory(const struct convert_options *o, uint64_t unit_bytes, uint64_t bytes,
                             uint64_t cluster)
{
    uint64_t read = cluster > 0 ? max_u64(min_u64(bytes, PACKED_BYTES), 2 * cluster) : 0;
    uint64_t units = o->compressed ? min_u64(bytes / unit_bytes, CO_GROUP_MAX) : 0;
    uint64_t compressor = unit_bytes > COMPRESSOR_UNIT ? COMPRESSOR_BYTES_LARGE : COMPRESSOR_BYTES;

    return bytes + max_u64(read, 2 * units * unit_bytes) + units * compressor;
}

static int too_few(const struct convert_options *o, uint64_t each, uint64_t disks, Error **errp)
{
    return disks == 0
               ? error_set(errp, ENOMEM,
                           "%" PRIu64 " bytes of memory are too few: one coroutine needs %" PRIu64,
                           o->memory_max_bytes, each)
               : error_set(errp, ENOMEM,
                           "%" PRIu64 " bytes of memory are too few: %" PRIu64
                           " are needed, for one coroutine and the tables of the disks",
                           o->memory_max_bytes, each + o->memory_disks_bytes);
}

/* The zeroes that are looked for. What is compressed is judged by the cluster. */
static uint64_t sparse_bytes(const struct convert_options *o, uint64_t unit_bytes)
{
    return o->compressed ? min_u64(o->sparse_bytes, unit_bytes) : o->sparse_bytes;
}

int convert_find_room(const struct convert_options *o, uint64_t unit_bytes,
                      struct convert_room *ret_room, Error **errp)
{
    uint64_t sparse = min_u64(sparse_bytes(o, unit_bytes), SPARSE_BYTES);
    uint64_t least = max_u64(unit_bytes, sparse > 0 ? 2 * pow2_floor(sparse - 1) : 1);
    uint64_t disks = min_u64(o->memory_disks_bytes, o->memory_max_bytes);
    uint64_t max = o->memory_max_bytes > 0 ? o->memory_max_bytes - disks : UINT64_MAX;
    uint64_t cluster = packed_cluster(o);
    unsigned pieces = o->coroutines > 0 ? o->coroutines : CONVERT_COROUTINES;
    /* what is compressed is much work for each byte: pieces of one unit keep all workers at it */
    uint64_t chunk = max_u64(o->copy_offload ? OFFLOAD_BYTES
                             : o->compressed ? unit_bytes
                                             : CHUNK_BYTES,
                             least);
    uint64_t each;

    /* fewer bytes at a time, then fewer pieces, until they fit */
    while (chunk > least && piece_memory(o, unit_bytes, chunk, cluster) > max / pieces) {
        chunk /= 2;
    }
    each = piece_memory(o, unit_bytes, chunk, cluster);
    if (each > max / pieces) {
        pieces = (unsigned)(max / each);
    }
    if (pieces == 0) {
        return too_few(o, each, disks, errp);
    }
    *ret_room = (struct convert_room){
        .chunk_bytes = chunk,
        .packed_bytes = min_u64(chunk, max_u64(max_u64(PACKED_BYTES, cluster), least)),
        .zero_bytes = max_u64(unit_bytes, pow2_floor(sparse_bytes(o, unit_bytes))),
        .sparse_bytes = sparse,
        .pieces_max = pieces,
    };
    return 0;
}

uint64_t convert_unit_bytes(const struct convert_options *o, uint64_t target_bytes)
{
    uint64_t sparse = min_u64(pow2_floor(o->sparse_bytes), CONVERT_SPARSE_BYTES);

    return max_u64(max_u64(CONVERT_SECTOR_BYTES, target_bytes), sparse);
}

int convert_judge_memory(const struct convert_options *o, uint64_t target_bytes, Error **errp)
{
    struct convert_room room;

    return convert_find_room(o, convert_unit_bytes(o, target_bytes), &room, errp);
}
