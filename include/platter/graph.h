/* SPDX-License-Identifier: MIT */
/*
 * Changes of a live graph: filters come and go, nodes are replaced, overlays are put on top, while
 * requests run in any number of contexts. Each call does all of it or nothing; the nodes concerned
 * are drained over all contexts meanwhile, and no request fails or is lost for it. Several changes
 * that are one go into a transaction (platter/transaction.h).
 *
 * All calls: [control], they poll the main context. "0 or -errno" with errp set: EPERM (permissions
 * of the users, named), EBUSY (an op blocker, or a link that a job holds), ELOOP (a cycle), ENOENT
 * (no such link), EINVAL, ENOMEM, or what a driver says of its storage.
 *
 * A node belongs to no context here, so none has to be compared: who uses a node may go on sending
 * requests from the contexts it sends them from.
 */
#ifndef PLATTER_GRAPH_H
#define PLATTER_GRAPH_H

#include <stddef.h>

#include <platter/block.h>
#include <platter/options.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A link of the graph, by the name of its user (a node, a block device, a job) and its own ("file",
 * "backing", "root"; NULL: the only one that user has to the node). */
struct bdrv_link {
    const char *user;
    const char *name;
};

/* Put a filter on a live node: options (owned, also on failure) open a new node as bdrv_open does,
 * but for their child "file" ("image" of blkdebug, "raw" of blkverify), which is bs, and for what
 * they do not say, which is as bs has it (read-only, cache.*, discard). Then those who use bs use
 * the filter: all of them (links NULL), or those n_links; a filter below a node P is one on the
 * link {P, "file"}. Returns the filter, whose reference is the caller's; NULL with errp. */
BlockDriverState *bdrv_insert_filter(BlockDriverState *bs, BlockOptions *options,
                                     const struct bdrv_link *links, size_t n_links, Error **errp);
/* The same with a filter that is open and has bs as its child. */
int bdrv_insert_node(BlockDriverState *filter, BlockDriverState *bs, const struct bdrv_link *links,
                     size_t n_links, Error **errp);
/* Those who use the filter use its child. The filter keeps its child, does nothing, and ends with
 * its last reference. */
int bdrv_remove_filter(BlockDriverState *filter, Error **errp);
/* Those who use from use to; where to stands above from, it keeps what it has. Sizes may differ:
 * users are told. */
int bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, Error **errp);
/* An external snapshot: overlay, an image open without backing file that nobody uses, gets bs as
 * its backing file, and those who use bs use overlay. What overlay says of its backing file is not
 * changed. EINVAL also when overlay cannot have one. */
int bdrv_append(BlockDriverState *overlay, BlockDriverState *bs, Error **errp);
/* The opposite: those who use overlay use its backing file, which it lets go. */
int bdrv_unappend(BlockDriverState *overlay, Error **errp);

/* One node with a whole new set of options: what is not given goes back to its default. */
struct bdrv_reopen {
    BlockDriverState *bs;  /* NULL: the one that options name (node-name) */
    BlockOptions *options; /* owned: as for bdrv_open, driver included */
};
/* Give open nodes other options, all of them or none. What may change: read-only, auto-read-only,
 * cache.*, discard, detect-zeroes; options that the driver can change (drivers qcow2, raw and
 * throttle: all of theirs; copy-on-read, file, host_device, nbd, null and mem: none); the child
 * "file", to another node by its name; "backing", to a node by its name or to null. A child that
 * the node's own options opened is given as options again, and changes with it.
 * Errors besides those above: EINVAL "Cannot change the option 'X'" and the like, ENOENT for a node
 * that is not there. An option set that names a node twice: the last one counts. */
int bdrv_reopen_with_options(Platter *pl, struct bdrv_reopen *nodes, size_t n_nodes, Error **errp);
/* The same for one node of which only changes (owned, also on failure) are given: what they do not
 * name stays as it is, also in children ("file.KEY", "backing.KEY"). What the node took from above
 * (read-only, cache.*, discard) is its own from then on. */
int bdrv_reopen_changed(BlockDriverState *bs, BlockOptions *changes, Error **errp);

#ifdef __cplusplus
}
#endif
#endif
