/* SPDX-License-Identifier: MIT */
/* What the parts of a control ask each other, and how they end; control_free calls that in order.
 */
#ifndef PLATTER_CONTROL_PARTS_H
#define PLATTER_CONTROL_PARTS_H

#include <platter/accounting.h>

#include "control/control.h"

/* The figures of an export; NULL: there is none of that id. */
BlockAcctStats *control_export_stats(struct control *c, const char *id);
/* As BlockDeviceStats; stats NULL: of a node, which counts nothing by itself but how far it was
 * written (bs; NULL: none). NULL: no memory. */
json_t *control_stats_json(BlockAcctStats *stats, BlockDriverState *bs);
/* As BlockLatency; stats NULL: all is 0. NULL: no memory. */
json_t *control_latency_json(BlockAcctStats *stats);
bool control_exports_use(struct control *c, BlockBackend *blk); /* whether one serves it */
/* Clients were told a size, which stays: -EPERM with errp when what is exported would change with
 * bs, which filters may stand above or below of. */
int control_exports_keep_size(struct control *c, BlockDriverState *bs, Error **errp);
void control_exports_end(struct control *c);                    /* and the server; polls */
void control_backends_end(struct control *c);                   /* those that commands made */
void control_fds_end(struct control *c);
void control_objects_end(struct control *c); /* when nodes and exports are gone */

#endif
