/* SPDX-License-Identifier: MIT */
/*
 * How an operation on an image as a whole runs: the one door of all of them. Private to the files
 * that offer them (image.c, snapshot.c).
 */
#ifndef PLATTER_BLOCK_IMAGE_H
#define PLATTER_BLOCK_IMAGE_H

#include "block/node.h"

struct image_op {
    const char *name; /* "checking": "Driver 'raw' ... does not support checking" */
    uint64_t perm;    /* what it needs of the node while it runs; 0: nothing */
    bool (*has)(const BlockDriver *drv);
    /* In a coroutine; bs is drained and flushed. args: the caller's. */
    int (*run_co)(BlockDriverState *bs, void *args, Error **errp);
};

/* The node that does op for bs: itself, or what is below filters. NULL with errp (-ENOTSUP,
 * -ENOMEDIUM in *ret). */
BlockDriverState *image_node(BlockDriverState *bs, const struct image_op *op, int *ret,
                             Error **errp);
/* Run op on bs or below its filters: medium, broken, read-only and permissions are checked, the
 * node is drained and flushed, and afterwards its size is asked for anew. 0 or -errno with errp.
 */
int image_run(BlockDriverState *bs, const struct image_op *op, void *args, Error **errp);

#endif
