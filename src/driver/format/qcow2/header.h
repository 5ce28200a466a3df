/* SPDX-License-Identifier: MIT */
/* The header of an image: as a struct, in bytes, and written to the file. */
#ifndef PLATTER_QCOW2_HEADER_H
#define PLATTER_QCOW2_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "block/driver.h"

#include "format.h"

struct qcow2;

/* ---- header.c, header_build.c: the header as a struct (pure) ---- */

struct q2_extension {
    uint32_t type;
    uint32_t bytes;
    uint8_t *data; /* owned */
    TAILQ_ENTRY(q2_extension) entry;
};
TAILQ_HEAD(q2_extension_list, q2_extension);

/* Host order. Pointers are owned; NULL: not there. */
struct q2_header {
    uint32_t version;
    uint64_t backing_file_offset; /* as found; q2_header_build chooses anew */
    uint32_t cluster_bits;
    uint64_t size_bytes;
    uint32_t crypt_method;
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible;
    uint64_t compatible;
    uint64_t autoclear;
    uint32_t refcount_order;
    uint32_t header_bytes;
    uint8_t compression_type;
    uint8_t padding[7];      /* kept: a later version may give it a meaning */
    uint8_t *unknown_fields; /* header bytes from Q2_HEADER_BYTES_NOW on, kept as they are */
    uint32_t unknown_bytes;  /* of them */
    uint64_t extensions_end; /* as found or built: behind the end mark, in the first cluster */
    char *backing_file;
    char *backing_format;
    char *data_file;
    bool has_feature_names;
    bool has_bitmaps_ext;
    uint32_t bitmap_count;
    uint64_t bitmap_directory_bytes;
    uint64_t bitmap_directory_offset;
    bool has_crypt_header;
    uint64_t crypt_header_offset;
    uint64_t crypt_header_bytes;
    /* every extension in the order found, known ones too (their place is kept on rewriting where
     * the reference keeps it); data of the known ones is in the fields above */
    struct q2_extension_list extensions;
};

/* Constants that follow from the header. Change only in exclusive sections (amend). */
struct q2_geometry {
    unsigned version;
    unsigned cluster_bits;
    uint32_t cluster_bytes;
    unsigned l2_bits;        /* log2 of l2_entries */
    uint32_t l2_entries;     /* per table */
    unsigned l2_entry_bytes; /* 8, or 16 with extended L2 entries */
    unsigned subclusters;    /* per cluster: 1 or 32 */
    uint32_t subcluster_bytes;
    unsigned refcount_order;
    unsigned refcount_bits;
    uint64_t refcount_max;
    unsigned refblock_bits; /* log2 of the refcounts in a block */
    uint64_t refblock_entries;
    bool extended_l2;
    bool external_data; /* guest clusters are in another file */
    bool data_file_raw;
};

/* How many bytes q2_header_parse wants of an image that begins with these (Q2_HEADER_BYTES_V2 at
 * least): its first cluster. */
size_t q2_header_wants(const uint8_t *buf, size_t bytes);
/* Parse the first bytes of an image (up to one cluster; bytes may be all there is). Only what can
 * be judged from them; file_bytes is the size of the whole file, for what must lie inside
 * (UINT64_MAX, for a check: not looked at, nor the snapshot table). size_bytes is cut to whole
 * sectors, as the reference does. Refuses what format.h's limits refuse. 0, or -EINVAL, -ENOTSUP
 * (version, unknown incompatible feature, named from the table), -EFBIG (a table), -ENOMEM with
 * errp. ret is for q2_header_fini also after a failure. */
int q2_header_parse(const uint8_t *buf, size_t bytes, uint64_t file_bytes, struct q2_header *ret,
                    Error **errp);
void q2_header_fini(struct q2_header *h);
int q2_header_copy(const struct q2_header *from, struct q2_header *ret); /* 0 or -ENOMEM */
void q2_geometry_init(const struct q2_header *h, struct q2_geometry *ret);
/* The header's part of the first cluster: *ret_bytes used of buf (cluster_bytes long, the rest
 * zeroed). Same order and padding as the reference. Updates h->backing_file_offset and
 * h->header_bytes. 0, or -ENOSPC with errp: names and extensions do not fit. */
int q2_header_build(struct q2_header *h, uint8_t *buf, size_t cluster_bytes, size_t *ret_bytes,
                    Error **errp);

/* ---- header_write.c ---- */

/* Write s->header to the file (W6), durable on return. Takes header_lock. A cut of power leaves the
 * old or the new one; so does a failure, and then s->header_unsure says that it is not known which.
 * Coroutine. */
int q2_header_write_co(struct qcow2 *s, Error **errp);
/* Set and clear incompatible or autoclear bits, durable on return; a failure is as above. */
int q2_header_bits_co(struct qcow2 *s, uint64_t incompatible_set, uint64_t incompatible_clear,
                      uint64_t autoclear_clear);

#endif
