/* SPDX-License-Identifier: MIT */
/*
 * The numbers of the qcow2 format, as docs/interop/qcow2.rst of the qemu project gives them, and
 * the named limits of this driver. No code, no state.
 */
#ifndef PLATTER_QCOW2_FORMAT_H
#define PLATTER_QCOW2_FORMAT_H

#include <stdint.h>

#define Q2_MAGIC UINT32_C(0x514649fb) /* "QFI\xfb" */

/* "Header" */
#define Q2_HEADER_BYTES_V2 72
#define Q2_HEADER_BYTES_V3 104 /* the shortest of version 3 */
#define Q2_HEADER_BYTES_NOW 112

enum q2_incompatible {
    Q2_INCOMPAT_DIRTY = 1 << 0,
    Q2_INCOMPAT_CORRUPT = 1 << 1,
    Q2_INCOMPAT_DATA_FILE = 1 << 2,
    Q2_INCOMPAT_COMPRESSION = 1 << 3,
    Q2_INCOMPAT_EXTENDED_L2 = 1 << 4,
    Q2_INCOMPAT_KNOWN = (1 << 5) - 1,
};
enum q2_compatible { Q2_COMPAT_LAZY_REFCOUNTS = 1 << 0 };
enum q2_autoclear {
    Q2_AUTOCLEAR_BITMAPS = 1 << 0,
    Q2_AUTOCLEAR_DATA_FILE_RAW = 1 << 1,
    Q2_AUTOCLEAR_KNOWN = (1 << 2) - 1,
};
enum q2_crypt { Q2_CRYPT_NONE = 0, Q2_CRYPT_AES = 1, Q2_CRYPT_LUKS = 2 };
enum q2_compression { Q2_COMPRESSION_ZLIB = 0, Q2_COMPRESSION_ZSTD = 1 };

/* "Header extensions" */
enum q2_extension_type {
    Q2_EXT_END = 0,
    Q2_EXT_BACKING_FORMAT = 0xe2792aca,
    Q2_EXT_FEATURE_NAMES = 0x6803f857,
    Q2_EXT_BITMAPS = 0x23852875,
    Q2_EXT_CRYPT_HEADER = 0x0537be77,
    Q2_EXT_DATA_FILE = 0x44415441,
};

/* "L1 table entry", "L2 table entry", "Refcount table entry", "Bitmap table entry" */
#define Q2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)          /* bits 9-55 */
#define Q2_REFTABLE_OFFSET_MASK UINT64_C(0xfffffffffffffe00) /* bits 9-63 */
#define Q2_COPIED (UINT64_C(1) << 63)
#define Q2_COMPRESSED (UINT64_C(1) << 62)
#define Q2_ZERO UINT64_C(1) /* without extended L2 entries, version 3 */
#define Q2_L1_RESERVED UINT64_C(0x7f000000000001ff)
#define Q2_L2_RESERVED UINT64_C(0x3f000000000001fe) /* of standard clusters */
#define Q2_COMPRESSED_SECTOR 512
#define Q2_SUBCLUSTERS 32
#define Q2_SNAPSHOT_FIXED_BYTES 40 /* "Snapshot table entry" */
#define Q2_SNAPSHOT_ALIGN 8

/* "Bitmap directory", "Bitmap table" */
#define Q2_BITMAP_ENTRY_BYTES 24 /* and extra data, name, padding */
#define Q2_BITMAP_TYPE_DIRTY 1
enum q2_bitmap_flags {
    Q2_BITMAP_IN_USE = 1 << 0,
    Q2_BITMAP_AUTO = 1 << 1,
    Q2_BITMAP_EXTRA_COMPATIBLE = 1 << 2,
    Q2_BITMAP_FLAGS_KNOWN = (1 << 3) - 1,
};
#define Q2_BITMAP_TABLE_RESERVED UINT64_C(0xff000000000001fe)

/* ---- limits: what an image may not go beyond, whatever its header says ---- */

#define Q2_CLUSTER_BITS_MIN 9
#define Q2_CLUSTER_BITS_MAX 21
#define Q2_CLUSTER_BITS_MIN_EXTENDED 14
#define Q2_REFCOUNT_ORDER_MAX 6
#define Q2_L1_BYTES_MAX (UINT64_C(32) << 20)
#define Q2_REFTABLE_BYTES_MAX (UINT64_C(8) << 20)
#define Q2_SNAPSHOTS_MAX 65536
#define Q2_SNAPSHOT_TABLE_BYTES_MAX (UINT64_C(64) << 20)
#define Q2_SNAPSHOT_EXTRA_BYTES_MAX 1024
#define Q2_SNAPSHOT_ENTRY_BYTES_MAX /* of one that is accepted */                                  \
    (Q2_SNAPSHOT_FIXED_BYTES + Q2_SNAPSHOT_EXTRA_BYTES_MAX + 2 * UINT64_C(65535))
#define Q2_BACKING_NAME_BYTES_MAX 1023
#define Q2_BACKING_FORMAT_BYTES_MAX 15
#define Q2_DATA_FILE_NAME_BYTES_MAX 1023
#define Q2_BITMAPS_MAX 65535
#define Q2_BITMAP_DIRECTORY_BYTES_MAX (UINT64_C(65535) * 1024) /* what the reference reads */
#define Q2_BITMAP_TABLE_ENTRIES_MAX UINT32_C(0x8000000)
#define Q2_BITMAP_GRANULARITY_BITS_MIN 9
#define Q2_BITMAP_GRANULARITY_BITS_MAX 31
#define Q2_BITMAP_NAME_BYTES_MAX 1023
#define Q2_BITMAP_BYTES_MAX (UINT64_C(512) << 20) /* of its bits, in memory and in the file */
#define Q2_EXTENSIONS_MAX 256                     /* in one header */

#endif
