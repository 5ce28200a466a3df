/* SPDX-License-Identifier: MIT */
/* Persistent dirty bitmaps. bitmap_int.h is what the files of the second part share. */
#ifndef PLATTER_QCOW2_BITMAP_H
#define PLATTER_QCOW2_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "block/driver.h"

#include "header.h"

struct qcow2;

/* ---- bitmap_directory.c: what is stored of bitmaps (pure) ---- */

/* One entry of the directory, host order. */
struct q2_bitmap_entry {
    uint64_t table_offset;
    uint32_t table_entries;
    uint32_t flags; /* enum q2_bitmap_flags */
    uint8_t type;
    uint8_t granularity_bits;
    uint32_t extra_bytes;
    uint8_t *extra; /* owned; NULL: none */
    char *name;     /* owned */
    bool damaged;   /* not in the file: its clusters may be somebody else's, so are not freed */
};
struct q2_bitmap_directory {
    struct q2_bitmap_entry *entries; /* owned */
    uint32_t count;
};

/* The bitmap_* fields of h (has_bitmaps_ext) against the limits and the file. 0, or -EINVAL with
 * errp. */
int q2_bitmaps_ext_check(const struct q2_header *h, uint64_t file_bytes, Error **errp);
/* The directory as read. -EINVAL: its structure is broken, two have one name; -ENOMEM. ret_dir is
 * for q2_bitmap_directory_fini also after a failure. Entries are then for q2_bitmap_entry_check. */
int q2_bitmap_directory_parse(const uint8_t *buf, uint64_t bytes, uint32_t count,
                              struct q2_bitmap_directory *ret_dir, Error **errp);
void q2_bitmap_directory_fini(struct q2_bitmap_directory *dir);
void q2_bitmap_entry_fini(struct q2_bitmap_entry *e);
/* What an entry says by itself; whether the table is inside the file, of the right length and not
 * on top of something is for whoever follows it. 0, or -EINVAL with errp. */
int q2_bitmap_entry_check(const struct q2_bitmap_entry *e, const struct q2_geometry *geo,
                          Error **errp);
/* Bits of a bitmap, and clusters of them: the entries its table must have. */
uint64_t q2_bitmap_bits(uint64_t disk_bytes, unsigned granularity_bits);
uint64_t q2_bitmap_table_entries(uint64_t disk_bytes, unsigned granularity_bits,
                                 unsigned cluster_bits);
#define Q2_BITMAP_ZEROES UINT64_C(0)
#define Q2_BITMAP_ONES UINT64_MAX
/* An entry (host order) of a bitmap table: the cluster's offset, or Q2_BITMAP_ZEROES or _ONES where
 * there is none. -EINVAL: it means nothing. */
int q2_bitmap_table_decode(const struct q2_geometry *geo, uint64_t raw, uint64_t *ret_offset);
/* malloc'd. -EFBIG, -ENOMEM with errp. */
int q2_bitmap_directory_build(const struct q2_bitmap_directory *dir, uint8_t **ret_buf,
                              uint64_t *ret_bytes, Error **errp);
/* Bytes of an entry in the directory. */
uint64_t q2_bitmap_entry_bytes(const struct q2_bitmap_entry *e);

/* ---- bitmap.c, bitmap_load.c, bitmap_store.c: the bitmaps of an image ---- */

struct q2_bitmaps; /* bitmap_int.h */

/* Read them (bits only where requests are expected). After the header, the L1 and refcount tables
 * and the overlap set; at open, control thread. -EINVAL: the directory is broken (under
 * BDRV_O_CHECK they are left alone then); -EIO, -ENOMEM; with errp. */
int q2_bitmaps_open(struct qcow2 *s, Error **errp);
void q2_bitmaps_fini(struct qcow2 *s); /* forget them; the node's own are block/'s */
/* Store what changed and make it durable: before the image is closed or becomes read-only (and
 * before q2_free_all_co). Nothing to do: 0. Drained; coroutine. After a failure those that changed
 * stay flagged in the image, or as they were. */
int q2_bitmaps_store_co(struct qcow2 *s, Error **errp);
/* Open flags change: becoming read-only stores; becoming writable is refused where the bits were
 * not read. Part of reopen_prepare; control thread. */
int q2_bitmaps_reopen_prepare(struct qcow2 *s, int new_flags, Error **errp);
/* "bitmaps" of "format-specific", from the directory; empty: there is none. NULL: no memory. */
json_t *q2_bitmaps_info(struct qcow2 *s);
/* What the persistent bitmaps of source need in an image of that cluster size; false: source
 * cannot have any. */
bool q2_bitmaps_measure(BlockDriverState *source, uint64_t disk_bytes, uint32_t cluster_bytes,
                        uint64_t *ret_bytes);
extern const struct bdrv_bitmap_ops q2_bitmap_ops;

#endif
