/* SPDX-License-Identifier: MIT */
/* What the disk of an image, or one of its snapshots, holds. */
#include <stdlib.h>
#include <string.h>

#include <zlib.h>
#include <zstd.h>

#include "qcow2_verify.h"

#define MEMO_SLOTS 256

/* Compressed data that was seen before and what it holds: states of one disk differ little. */
struct memo_slot {
    uint8_t *packed; /* owned */
    size_t packed_bytes;
    uint8_t *plain; /* owned */
    uint32_t plain_bytes;
    uint8_t type;
};
struct qv_memo {
    struct memo_slot slots[MEMO_SLOTS];
};

void qv_memo_free(struct qv_memo *memo)
{
    for (size_t i = 0; memo && i < MEMO_SLOTS; i++) {
        free(memo->slots[i].packed);
        free(memo->slots[i].plain);
    }
    free(memo);
}

/* ---- decompression ---- */

static bool inflate_all(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)in,
        .avail_in = (uInt)in_bytes,
        .next_out = out,
        .avail_out = (uInt)out_bytes,
    };
    int ret;

    if (inflateInit2(&z, -15) != Z_OK) {
        return false;
    }
    ret = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return z.avail_out == 0 && (ret == Z_STREAM_END || ret == Z_BUF_ERROR);
}

static bool unzstd_all(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    ZSTD_outBuffer o = {out, out_bytes, 0};
    ZSTD_inBuffer i = {in, in_bytes, 0};
    size_t ret = 1;

    while (ctx && o.pos < out_bytes) {
        size_t before = o.pos + i.pos;

        ret = ZSTD_decompressStream(ctx, &o, &i);
        if (ZSTD_isError(ret) || (o.pos + i.pos == before)) {
            break;
        }
    }
    ZSTD_freeDCtx(ctx);
    return o.pos == out_bytes && !ZSTD_isError(ret);
}

static size_t hash_of(const uint8_t *data, size_t bytes)
{
    return crc32(0, data, (uInt)bytes) % MEMO_SLOTS;
}

/* The plain cluster, borrowed until the next call; NULL: it cannot be decompressed. */
static const uint8_t *unpack(struct qv_image *im, uint64_t entry)
{
    uint64_t offset, bytes;
    struct memo_slot *slot;
    const uint8_t *packed;
    bool good;

    qv_compressed_range(im, entry, &offset, &bytes);
    if (offset >= im->file.bytes) {
        return NULL;
    }
    bytes = bytes < im->file.bytes - offset ? bytes : im->file.bytes - offset;
    packed = im->file.data + offset;
    im->memo = im->memo ? im->memo : calloc(1, sizeof(*im->memo));
    if (!im->memo) {
        return NULL;
    }
    slot = &im->memo->slots[hash_of(packed, bytes)];
    if (slot->packed_bytes == bytes && slot->plain_bytes == im->cluster_bytes &&
        slot->type == im->h.compression && memcmp(slot->packed, packed, bytes) == 0) {
        return slot->plain;
    }
    free(slot->packed);
    free(slot->plain);
    *slot = (struct memo_slot){.packed = malloc(bytes), .plain = malloc(im->cluster_bytes)};
    if (!slot->packed || !slot->plain) {
        return NULL;
    }
    good = im->h.compression == 1 ? unzstd_all(packed, bytes, slot->plain, im->cluster_bytes)
                                  : inflate_all(packed, bytes, slot->plain, im->cluster_bytes);
    if (!good) {
        return NULL;
    }
    memcpy(slot->packed, packed, bytes);
    slot->packed_bytes = bytes;
    slot->plain_bytes = im->cluster_bytes;
    slot->type = im->h.compression;
    return slot->plain;
}

/* ---- reading ---- */

static void copy_from(struct qv_bytes from, uint64_t offset, uint8_t *buf, size_t bytes)
{
    size_t have = offset >= from.bytes                    ? 0
                  : from.bytes - offset < (uint64_t)bytes ? (size_t)(from.bytes - offset)
                                                          : bytes;

    if (have > 0) {
        memcpy(buf, from.data + offset, have);
    }
    memset(buf + have, 0, bytes - have);
}

/* A piece that is of one kind: a cluster's, or a subcluster's. */
static bool read_standard(struct qv_image *im, uint64_t entry, uint64_t bitmap, uint64_t offset,
                          uint8_t *buf, size_t bytes)
{
    uint64_t in_cluster = offset % im->cluster_bytes;
    uint64_t host = entry & QV_OFFSET;
    bool here = host != 0 || (qv_external(im) && (entry & QV_COPIED));
    bool zero = entry & 1;

    if (qv_extended(im)) {
        unsigned sub = (unsigned)(in_cluster / (im->cluster_bytes / 32));

        here = here && (bitmap >> sub & 1);
        zero = bitmap >> (32 + sub) & 1;
    }
    if (zero) {
        memset(buf, 0, bytes);
    } else if (here) {
        copy_from(qv_external(im) ? im->data : im->file, host + in_cluster, buf, bytes);
    } else {
        copy_from(im->backing, offset, buf, bytes);
    }
    return true;
}

static bool read_piece(struct qv_image *im, uint64_t l1_offset, uint32_t l1_entries,
                       uint64_t offset, uint8_t *buf, size_t bytes)
{
    uint64_t guest = offset / im->cluster_bytes;
    uint64_t l1_index = guest / im->l2_entries;
    uint64_t entry = 0, bitmap = 0;

    if (l1_index < l1_entries) {
        uint64_t l2 = qv_be64(im->file, l1_offset + l1_index * 8) & QV_OFFSET;

        if (l2 != 0) {
            uint64_t at = l2 + guest % im->l2_entries * im->l2_words * 8;

            entry = qv_be64(im->file, at);
            bitmap = im->l2_words == 2 ? qv_be64(im->file, at + 8) : 0;
        }
    }
    if (entry & QV_COMPRESSED) {
        const uint8_t *plain = unpack(im, entry);

        if (!plain) {
            qv_found(im, QV_CORRUPT, "compressed cluster %llu does not decompress",
                     (unsigned long long)guest);
            return false;
        }
        memcpy(buf, plain + offset % im->cluster_bytes, bytes);
        return true;
    }
    return read_standard(im, entry, bitmap, offset, buf, bytes);
}

bool qv_read(struct qv_image *im, int snapshot, uint64_t offset, void *buf, size_t bytes)
{
    uint64_t l1_offset = snapshot < 0 ? im->h.l1_offset : im->snapshots[snapshot].l1_offset;
    uint32_t l1_entries = snapshot < 0 ? im->h.l1_entries : im->snapshots[snapshot].l1_entries;
    uint32_t unit = qv_extended(im) ? im->cluster_bytes / 32 : im->cluster_bytes;
    uint8_t *out = buf;

    while (bytes > 0) {
        uint64_t room = unit - offset % unit;
        size_t n = bytes < room ? bytes : (size_t)room;

        if (!read_piece(im, l1_offset, l1_entries, offset, out, n)) {
            return false;
        }
        out += n;
        offset += n;
        bytes -= n;
    }
    return true;
}
