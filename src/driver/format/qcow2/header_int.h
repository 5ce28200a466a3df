/* SPDX-License-Identifier: MIT */
/* What header.c, header_build.c and header_write.c share: the header in bytes. */
#ifndef PLATTER_QCOW2_HEADER_INT_H
#define PLATTER_QCOW2_HEADER_INT_H

#include "qcow2.h"

#define Q2_SECTOR 512 /* what a disk writes whole or not at all */

/* "Header extensions" */
#define Q2_EXT_HEAD_BYTES 8 /* type and length */
#define Q2_EXT_ALIGN 8
#define Q2_EXT_BITMAPS_BYTES 24
#define Q2_EXT_CRYPT_BYTES 16

/* "Feature name table" */
#define Q2_FEATURE_BYTES 48
#define Q2_FEATURE_NAME_BYTES 46
#define Q2_FEATURE_INCOMPATIBLE 0

static inline void *q2_bytes_dup(const void *data, size_t bytes)
{
    void *copy = malloc(bytes > 0 ? bytes : 1);

    if (copy != NULL) {
        memcpy(copy, data, bytes);
    }
    return copy;
}

/* NULL: no memory. */
struct q2_extension *q2_extension_new(uint32_t type, const uint8_t *data, uint32_t bytes);
/* As q2_header_build; names false: without the table of feature names. */
int q2_header_build_as(struct q2_header *h, bool names, uint8_t *buf, size_t cluster_bytes,
                       size_t *ret_bytes, Error **errp);

#endif
