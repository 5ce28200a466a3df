/* SPDX-License-Identifier: MIT */
/* What open.c (a node) and open_child.c (the children of one) share. */
#ifndef PLATTER_BLOCK_OPEN_INT_H
#define PLATTER_BLOCK_OPEN_INT_H

#include <stdbool.h>

#include "block/graph_int.h"

/* One node to open. */
struct open_request {
    Platter *pl;
    const char *filename;  /* positional, borrowed, or NULL */
    BlockOptions *options; /* owned */
    int flags;
    BlockDriverState *parent; /* borrowed: for whom it is opened, or NULL */
    unsigned bounds;          /* BDRV_OPEN_* */
    unsigned backing_depth;
    bool wants_protocol; /* a child that stores bytes: no format is put on top by default */
    bool only_protocol;  /* nor may options put one there */
};

int open_no_memory(Error **errp); /* -ENOMEM */

/* ---- open.c ---- */

struct opts_node_common;
/* Flags as options say where they speak. 0, or -EINVAL. */
int open_flags_from_options(const struct opts_node_common *o, int *flags, Error **errp);
enum bdrv_detect_zeroes open_detect_zeroes(const struct opts_node_common *o);

/* With its chain. Ends req->options. */
BlockDriverState *open_request_run(struct open_request *req, Error **errp);

/* ---- open_child.c ---- */

/* What a child of that role has of its parent's flags, when its own options say nothing. */
int open_child_flags(int parent_flags, unsigned role);

/* What a child of that role inherits from parent. It takes options. */
struct open_request open_request_for_child(BlockDriverState *parent, const char *filename,
                                           BlockOptions *options, unsigned role, unsigned bounds);
/* The node of a child: the one that the probe opened, an existing one, or a new one. It takes
 * from->options. The caller's reference, or NULL. */
BlockDriverState *open_child_node(BlockDriverState *bs, const char *filename,
                                  struct bdrv_child_options *from, unsigned role, unsigned bounds,
                                  Error **errp);

#endif
