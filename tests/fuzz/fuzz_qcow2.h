/* SPDX-License-Identifier: MIT */
/* The image that an input of the qcow2 target works on, and what is done to it. */
#ifndef PLATTER_TESTS_FUZZ_QCOW2_H
#define PLATTER_TESTS_FUZZ_QCOW2_H

#include <platter/backend.h>

#include "fuzz.h"
#include "qcow2_image.h"

struct fuzz_image {
    struct fuzz_in *in;
    struct qcow2_shape shape;
    uint8_t how; /* what it is opened with, HOW_* */
    uint64_t cluster;
    Platter *pl;
    BlockDriverState *file;    /* counted; the qcow2 bytes in memory */
    BlockDriverState *data;    /* counted; NULL: no data file */
    BlockDriverState *backing; /* counted; NULL: none is attached */
    BlockBackend *blk;         /* NULL: not open */
    bool clean;                /* the last check found nothing */
    bool harmed;               /* it was not right from the beginning */
    bool tell;                 /* what is done and found goes to stderr, for whoever looks at one */
    uint8_t *buf;              /* 4 clusters */
};

/* One operation, on an open image, that the input names. It may close the image. */
void fuzz_image_operate(struct fuzz_image *f);
void fuzz_image_close(struct fuzz_image *f);
bool fuzz_image_is_broken(const struct fuzz_image *f);
void fuzz_image_read(struct fuzz_image *f);
/* Check it, and hold the result against what is known. fix: BDRV_FIX_*. */
void fuzz_image_check(struct fuzz_image *f, unsigned fix);

/* Bits of how. */
#define HOW_OVERLAP 3u /* index into none, constant, cached, all */
#define HOW_LAZY (1u << 2)
#define HOW_NO_UNREF (1u << 3)
#define HOW_SMALL_CACHES (1u << 4)
#define HOW_BACKING (1u << 5) /* attach a backing file where the image names one */

#endif
