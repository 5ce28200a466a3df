/* SPDX-License-Identifier: MIT */
/* The table of snapshots as `qemu-img snapshot -l` and `qemu-img info` print it. */
#ifndef PLATTER_TOOLS_IMG_SNAPSHOT_LIST_H
#define PLATTER_TOOLS_IMG_SNAPSHOT_LIST_H

#include <platter/image.h>

#include "tools/cli.h"

/* Nothing when the list is empty. */
void snapshot_list_print(struct cli *cli, const struct bdrv_snapshot_list *list);

#endif
