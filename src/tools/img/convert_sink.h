/* SPDX-License-Identifier: MIT */
/* An image that is written to a descriptor from its first to its last byte, as a sink of a convert.
 */
#ifndef PLATTER_TOOLS_IMG_CONVERT_SINK_H
#define PLATTER_TOOLS_IMG_CONVERT_SINK_H

#include <platter/convert.h>
#include <platter/coroutine.h>
#include <platter/image.h>

struct sink_image {
    struct convert_sink calls; /* for the job */
    Platter *pl;
    int fd;                      /* borrowed */
    const char *format;          /* borrowed */
    const BlockOptions *options; /* borrowed; of the format */
    uint64_t disk_bytes;
    /* All is planned, nothing is written: 0, or -errno with errp where it would not go well. NULL:
     * nothing is asked. Coroutine. */
    int (*judge_co)(void *opaque, Error **errp);
    void *judge_opaque;
    bool packs; /* metadata first, then the units that are data; else the bytes of the disk */
    bool all;   /* where it packs: every unit is data, as nothing of them is known in advance */
    uint32_t unit_bytes;
    uint8_t *units; /* owned; enum bdrv_stream_unit, two bits each; where it packs, but not all */
    uint64_t next;  /* offset of the disk that comes next */
    CoMutex lock;   /* writes, in the order in which they were asked for */
};

/* pl, fd, format, options, disk_bytes, judge_co and all are set (disk_bytes of raw may be 0:
 * whatever comes). 0 or -errno with errp: ENOTSUP (the format cannot be written so), EFBIG, ENOMEM.
 */
int sink_image_init(struct sink_image *s, Error **errp);
void sink_image_fini(struct sink_image *s);

#endif
