/* SPDX-License-Identifier: MIT */
/*
 * The codecs of compressed clusters, pure: for worker threads.
 *
 * zlib type: a raw deflate stream (RFC 1951). It is written and read with libdeflate; by zlib where
 * that is missing, where a window of 4 KiB is asked for (compat_window), and for streams that do
 * not end where the cluster does. zstd type: one frame.
 *
 * The reference writes with a window of 4 KiB. Ours reach back up to 32 KiB, which it reads all the
 * same, as it has the whole cluster at hand; a reader that keeps no more than the last 4 KiB does
 * not, and compat_window is for it. Level 3 of libdeflate takes about a third of the time of zlib's
 * default with the small window, and a twentieth less room (64 KiB clusters of program files).
 * Level 2 of zstd takes three quarters of the time of its default, and a hundredth more room.
 *
 * What is read is hostile: output never passes its end, and memory is bounded whatever a stream
 * asks for (the window of a zstd frame by ZSTD_WINDOW_BITS).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef PLATTER_HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef PLATTER_HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef PLATTER_HAVE_ZSTD
#include <zstd.h>
#include <zstd_errors.h>
#endif

#include "compress.h"
#include "qcow2.h"

#define LIBDEFLATE_LEVEL 3
#define ZSTD_LEVEL 2
#define ZSTD_WINDOW_BITS 23 /* of a frame that is read: what level 19 writes */
#define COMPAT_WINDOW_BITS 12

/* ---- zlib ---- */

#ifdef PLATTER_HAVE_ZLIB

static int64_t zlib_compress(int window_bits, const void *in, size_t in_bytes, void *out,
                             size_t out_bytes)
{
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)in,
        .avail_in = (uInt)in_bytes,
        .next_out = out,
        .avail_out = (uInt)out_bytes,
    };
    int rc = deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -window_bits, MAX_MEM_LEVEL,
                          Z_DEFAULT_STRATEGY);
    int64_t used;

    if (rc != Z_OK) {
        return -ENOMEM;
    }
    rc = deflate(&z, Z_FINISH);
    used = rc == Z_STREAM_END ? (int64_t)(out_bytes - z.avail_out) : 0;
    deflateEnd(&z);
    return used;
}

static int zlib_decompress(const void *in, size_t in_bytes, void *out, size_t out_bytes)
{
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)in,
        .avail_in = (uInt)in_bytes,
        .next_out = out,
        .avail_out = (uInt)out_bytes,
    };
    int rc = inflateInit2(&z, -MAX_WBITS);

    if (rc != Z_OK) {
        return -ENOMEM;
    }
    rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* a full cluster ends it, whatever the stream would say next */
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR || rc == Z_OK) && z.avail_out == 0 ? 0 : -EIO;
}

#else

static int64_t zlib_compress(int window_bits, const void *in, size_t in_bytes, void *out,
                             size_t out_bytes)
{
    return -ENOTSUP;
}
static int zlib_decompress(const void *in, size_t in_bytes, void *out, size_t out_bytes)
{
    return -ENOTSUP;
}

#endif

/* ---- deflate ---- */

#ifdef PLATTER_HAVE_LIBDEFLATE

static int64_t deflate_compress(struct q2_packer *packer, const void *in, size_t in_bytes,
                                void *out, size_t out_bytes)
{
    if (packer->deflate == NULL) {
        packer->deflate = libdeflate_alloc_compressor(LIBDEFLATE_LEVEL);
    }
    if (packer->deflate == NULL) {
        return -ENOMEM;
    }
    return (int64_t)libdeflate_deflate_compress(packer->deflate, in, in_bytes, out, out_bytes);
}

static void deflate_fini(struct q2_packer *packer)
{
    libdeflate_free_compressor(packer->deflate);
}

static int deflate_decompress(const void *in, size_t in_bytes, void *out, size_t out_bytes)
{
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    enum libdeflate_result result;
    size_t read;
    int ret;

    if (d == NULL) {
        return -ENOMEM;
    }
    result = libdeflate_deflate_decompress_ex(d, in, in_bytes, out, out_bytes, &read, NULL);
    libdeflate_free_decompressor(d);
    if (result == LIBDEFLATE_SUCCESS) {
        return 0;
    }
    ret = zlib_decompress(in, in_bytes, out, out_bytes);
    return ret == -ENOTSUP ? -EIO : ret;
}

#else

static int64_t deflate_compress(struct q2_packer *packer, const void *in, size_t in_bytes,
                                void *out, size_t out_bytes)
{
    return zlib_compress(15, in, in_bytes, out, out_bytes);
}
static void deflate_fini(struct q2_packer *packer)
{
}
static int deflate_decompress(const void *in, size_t in_bytes, void *out, size_t out_bytes)
{
    return zlib_decompress(in, in_bytes, out, out_bytes);
}

#endif

/* ---- zstd ---- */

#ifdef PLATTER_HAVE_ZSTD

static int64_t zstd_compress(struct q2_packer *packer, const void *in, size_t in_bytes, void *out,
                             size_t out_bytes)
{
    size_t used;

    if (packer->zstd == NULL) {
        packer->zstd = ZSTD_createCCtx();
    }
    if (packer->zstd == NULL) {
        return -ENOMEM;
    }
    used = ZSTD_compressCCtx(packer->zstd, out, out_bytes, in, in_bytes, ZSTD_LEVEL);
    if (!ZSTD_isError(used)) {
        return (int64_t)used;
    }
    return ZSTD_getErrorCode(used) == ZSTD_error_memory_allocation ? -ENOMEM : 0;
}

static void zstd_fini(struct q2_packer *packer)
{
    ZSTD_freeCCtx(packer->zstd);
}

static int zstd_error(size_t rc)
{
    return ZSTD_getErrorCode(rc) == ZSTD_error_memory_allocation ? -ENOMEM : -EIO;
}

/* A frame that does not end with the cluster. */
static int zstd_decompress_stream(ZSTD_DCtx *ctx, const void *in, size_t in_bytes, void *out,
                                  size_t out_bytes)
{
    ZSTD_inBuffer from = {.src = in, .size = in_bytes};
    ZSTD_outBuffer to = {.dst = out, .size = out_bytes};

    ZSTD_DCtx_reset(ctx, ZSTD_reset_session_only);
    ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, ZSTD_WINDOW_BITS);
    while (to.pos < to.size) {
        size_t before_in = from.pos;
        size_t before_out = to.pos;
        size_t rc = ZSTD_decompressStream(ctx, &to, &from);

        if (ZSTD_isError(rc)) {
            return zstd_error(rc);
        }
        if (from.pos == before_in && to.pos == before_out) {
            return -EIO; /* the data is cut short */
        }
    }
    return 0;
}

static int zstd_decompress(const void *in, size_t in_bytes, void *out, size_t out_bytes)
{
    size_t frame = ZSTD_findFrameCompressedSize(in, in_bytes);
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    int ret = -EIO;

    if (ctx == NULL) {
        return -ENOMEM;
    }
    /* in one step no window is needed: the output is the window */
    if (ZSTD_isError(frame) || ZSTD_decompressDCtx(ctx, out, out_bytes, in, frame) != out_bytes) {
        ret = zstd_decompress_stream(ctx, in, in_bytes, out, out_bytes);
    } else {
        ret = 0;
    }
    ZSTD_freeDCtx(ctx);
    return ret;
}

#else

static int64_t zstd_compress(struct q2_packer *packer, const void *in, size_t in_bytes, void *out,
                             size_t out_bytes)
{
    return -ENOTSUP;
}
static void zstd_fini(struct q2_packer *packer)
{
}
static int zstd_decompress(const void *in, size_t in_bytes, void *out, size_t out_bytes)
{
    return -ENOTSUP;
}

#endif

/* ---- both ---- */

bool q2_compression_known(enum q2_compression type)
{
    switch (type) {
    case Q2_COMPRESSION_ZLIB:
#if defined(PLATTER_HAVE_LIBDEFLATE) || defined(PLATTER_HAVE_ZLIB)
        return true;
#else
        return false;
#endif
    case Q2_COMPRESSION_ZSTD:
#ifdef PLATTER_HAVE_ZSTD
        return true;
#else
        return false;
#endif
    }
    return false;
}

void q2_packer_fini(struct q2_packer *packer)
{
    deflate_fini(packer);
    zstd_fini(packer);
    *packer = (struct q2_packer){0};
}

int64_t q2_compress(struct q2_packer *packer, enum q2_compression type, bool compat_window,
                    const void *in, size_t in_bytes, void *out, size_t out_bytes)
{
    /* what does not shrink has no room */
    size_t room = out_bytes < in_bytes ? out_bytes : in_bytes - 1;

    switch (type) {
    case Q2_COMPRESSION_ZLIB:
        return compat_window ? zlib_compress(COMPAT_WINDOW_BITS, in, in_bytes, out, room)
                             : deflate_compress(packer, in, in_bytes, out, room);
    case Q2_COMPRESSION_ZSTD:
        return zstd_compress(packer, in, in_bytes, out, room);
    }
    return -ENOTSUP;
}

int q2_decompress(enum q2_compression type, const void *in, size_t in_bytes, void *out,
                  size_t out_bytes)
{
    switch (type) {
    case Q2_COMPRESSION_ZLIB:
        return deflate_decompress(in, in_bytes, out, out_bytes);
    case Q2_COMPRESSION_ZSTD:
        return zstd_decompress(in, in_bytes, out, out_bytes);
    }
    return -ENOTSUP;
}
