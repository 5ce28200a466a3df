/* SPDX-License-Identifier: MIT */
/*
 * What the files that keep the graph share: walks, bare edges, permission changes, what follows
 * from a change (fold, limits, sizes, drained state). Control thread, all of it. Nobody else
 * includes this.
 */
#ifndef PLATTER_BLOCK_GRAPH_INT_H
#define PLATTER_BLOCK_GRAPH_INT_H

#include "block/instance.h"
#include "block/node.h"

#define BDRV_NODE_NAME_BYTES_MAX 255
/* Opens inside opens: nodes that options may put above each other. */
#define BDRV_OPEN_DEPTH_MAX 64
/* Nodes that images may name, for each layer that a chain may have. */
#define BDRV_OPEN_REFS_PER_LAYER 8u
#define BDRV_BACKING_DEPTH_DEFAULT 64

/* ---- walk.c: iteration over the graph, whatever its depth ---- */

/* Nodes in topological order, linked by walk.next. Valid until the next walk of the instance. */
struct node_walk {
    Platter *pl;
    uint64_t gen;
    BlockDriverState *first;
};

struct node_walk node_walk_begin(Platter *pl);
/* Add bs and everything below it; parents come before their children. */
void node_walk_add_below(struct node_walk *walk, BlockDriverState *bs);
/* Add bs and everything above it; children come before their parents. Not to be mixed with the
 * other direction in one walk. */
void node_walk_add_above(struct node_walk *walk, BlockDriverState *bs);
bool node_walk_has(const struct node_walk *walk, const BlockDriverState *bs);

/* The parent of an edge when that is a node, else NULL. */
static inline BlockDriverState *edge_parent_node(const BdrvEdge *edge)
{
    return edge->klass->parent_is_node ? (BlockDriverState *)edge->parent : NULL;
}

/* ---- edge.c: bare edges; permissions are perm.c's, drained state is kept right ---- */

extern const struct bdrv_parent_class bdrv_node_parent_class;

/* Not in the graph yet. NULL out of memory. */
BdrvEdge *edge_new(const char *name, const struct bdrv_parent_class *klass, void *parent,
                   unsigned role, uint64_t perm, uint64_t shared);
void edge_free(BdrvEdge *edge);
/* Put into the graph, taking a reference to bs; the opposite gives it to the caller. */
void edge_link(BdrvEdge *edge, BlockDriverState *bs);
BlockDriverState *edge_unlink(BdrvEdge *edge);
/* Point to bs (taking a reference); the caller gets the one to the node before. */
BlockDriverState *edge_move(BdrvEdge *edge, BlockDriverState *bs);

/* An edge from parent to child, transaction and all. NULL with errp. */
BdrvEdge *bdrv_attach_child(BlockDriverState *parent, BlockDriverState *child, const char *name,
                            unsigned role, Error **errp);
/* Take an edge away; cannot fail. The reference to the child is given back by the caller. */
BlockDriverState *edge_detach(BdrvEdge *edge);

/* ---- perm.c ---- */

/* A change of permissions under way: all or nothing. */
struct perm_change {
    BdrvEdge *edges;         /* changed, by next_changed */
    BlockDriverState *nodes; /* whose driver agreed, by next_checked */
};
/* Work out the permissions of the nodes of a walk (below) anew. 0, or -errno with errp and nothing
 * changed. No allocation. */
int perm_change_prepare(struct perm_change *change, const struct node_walk *walk, Error **errp);
void perm_change_commit(struct perm_change *change);
void perm_change_abort(struct perm_change *change);
/* After users went away from bs: needs less, so it cannot fail. */
void perm_loosen(BlockDriverState *bs);

/* ---- drain.c ---- */

/* bs has another child or drained section now: tell the roots above. */
void drain_update(BlockDriverState *bs);
/* After any change of what is held or of the graph: D4 of drain.c. Walks. */
void drain_update_drivers(Platter *pl);
/* The same for one edge of a user that is no node. */
void drain_update_root(BdrvEdge *edge);

/* ---- settle.c: what follows from the children ---- */

/* Limits, folding and sizes of bs and everything above it. */
void graph_settle(BlockDriverState *bs);
/* facts.c: a size that a driver told, or -errno, as the node tells it. */
int64_t bdrv_size_told(const BlockDriverState *bs, int64_t size_bytes);
/* Tell the users whose node's size changed. May call back into anything. */
void graph_tell_sizes(Platter *pl);

/* Sizes only, of what is above bs. May run while requests do. */
void graph_sizes_above(BlockDriverState *bs);
/* Where reads, writes and flushes of bs go. bs and its users are drained. */
void graph_fold(BlockDriverState *bs);

/* ---- late.c: work that other threads leave for the control thread ---- */

int late_init(Platter *pl); /* 0 or -ENOMEM */
void late_fini(Platter *pl);
void late_run(Platter *pl);            /* do what is queued */
void late_unref(BlockDriverState *bs); /* any thread, coroutines too */
void late_size(BlockDriverState *bs);  /* any thread: its size grew */
void late_fold(BlockDriverState *bs);  /* any thread: it is broken now, or not watched any more */
void late_forget(BlockDriverState *bs);

/* ---- node.c ---- */

/* A node without driver, reference count 1, registered under its name (NULL: a generated one).
 * NULL with errp: EINVAL, EEXIST, ENOMEM. */
BlockDriverState *node_new(Platter *pl, const char *node_name, Error **errp);
/* Give it a driver. 0 or -ENOMEM. */
int node_set_driver(BlockDriverState *bs, const BlockDriver *drv);
/* End a node whose driver is not open. */
void node_abandon(BlockDriverState *bs);

/* ---- open.c, open_child.c ---- */

/* What the open in progress of a node knows beyond its options. */
struct bdrv_opening {
    const char *filename;   /* borrowed: positional, for the primary child; NULL: none */
    BlockDriverState *file; /* counted: the primary child that was opened for probing, or NULL */
};

/* Bounds of an open that no option lifts; nodes below inherit them. */
enum bdrv_open_bounds {
    BDRV_OPEN_READ_ONLY = 1 << 0,
    BDRV_OPEN_FROM_IMAGE = 1 << 1,    /* the name came out of an image */
    BDRV_OPEN_NO_REFERENCES = 1 << 2, /* options too: they may not name nodes of ours */
};

/* What the options under "NAME" and "NAME." say of a child. */
struct bdrv_child_options {
    const char *reference; /* borrowed from the options, or NULL */
    BlockOptions *options; /* owned; NULL: none */
    bool is_null;          /* "NAME": null, no child on purpose */
};
/* Keys under "NAME." are taken out; "NAME" itself stays for the caller to delete. 0 or -errno. */
int bdrv_child_options_take(BlockDriverState *bs, BlockOptions *options, const char *name,
                            struct bdrv_child_options *ret, Error **errp);
BlockDriverState *bdrv_find_reference(Platter *pl, const char *name, Error **errp); /* counted */
/* bdrv_open_child with bounds. */
BdrvEdge *bdrv_open_child_within(BlockDriverState *bs, const char *filename, BlockOptions *options,
                                 const char *name, unsigned role, unsigned bounds, bool allow_none,
                                 Error **errp);
/* A backing file of parent without the one that it names in turn. Ends options. */
BlockDriverState *bdrv_open_backing_node(BlockDriverState *parent, const char *filename,
                                         BlockOptions *options, unsigned bounds, Error **errp);
/* Open what stores the bytes under a positional file name (or json:), and nothing else. */
BlockDriverState *bdrv_open_storage(Platter *pl, const char *filename, int flags, Error **errp);

/* ---- reopen.c ---- */

/* The driver of an open node takes new options, those that it cannot change are compared. Then its
 * reopen_commit or reopen_abort follows. 0, or -errno and the driver has nothing to end. */
int reopen_driver_options(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp);

/* ---- backing.c ---- */

/* Open and attach the backing file that bs wants, then the one that this wants, and so on. 0, or
 * -errno: then bs has part of its chain, and is to be ended. */
int backing_open_chain(BlockDriverState *bs, Error **errp);
void backing_wanted_free(BlockDriverState *bs);
/* Backing edges below bs. */
unsigned backing_chain_depth(BlockDriverState *bs);

/* ---- backing_path.c ---- */

/* The protocol node that stores the bytes of bs, or NULL. */
BlockDriverState *backing_storage(BlockDriverState *bs);
/* The path that a name in the image of bs means; malloc'd. 0 or -errno. */
int backing_path(BlockDriverState *bs, const char *name, char **ret, Error **errp);
/* An absolute path without symbolic links; what does not exist at its end is taken as it stands.
 * malloc'd. 0 or -errno. */
int backing_resolve(const char *path, char **ret);

/* ---- refs.c: which files an image may open ---- */

void instance_refs_free(Platter *pl);
/* Whether bs may open what its image names: what ("backing file"), name as the image has it, path
 * what that means on this machine (NULL: no path). 0, or -EPERM with the way out as hint. */
int refs_check(BlockDriverState *bs, const char *what, const char *name, const char *path,
               Error **errp);
/* The same for a descriptor that was opened by such a path: where is it really? 0 or -EPERM. */
int refs_check_fd(Platter *pl, const char *path, int fd, Error **errp);

/* ---- hint.c: what somebody may have meant ---- */

struct hint {
    const char *wanted; /* borrowed */
    const char *best;   /* borrowed, or NULL: nothing is near */
    size_t best_distance;
};
struct hint hint_begin(const char *wanted);
void hint_offer(struct hint *hint, const char *word);
/* Refuse what is left of a node's options: 0, or -EINVAL naming the first key and a near one. */
int bdrv_refuse_options(const BlockDriver *drv, const BlockOptions *options, Error **errp);
/* Refuse a key that is not among keys (NULL: nothing is known of them), before anything is touched:
 * 0 or -EINVAL. */
int bdrv_refuse_unknown_keys(const struct opts_key *keys, const BlockOptions *options,
                             Error **errp);

/* ---- protocol.c: which driver a name asks for ---- */

/* EINVAL naming it, with a hint. */
int bdrv_unknown_driver(const char *format_name, Error **errp);
/* "nbd:..." gives the length of "nbd"; 0 when the name has no protocol. */
size_t bdrv_protocol_prefix(const char *filename);
/* The protocol driver of a positional file name. NULL with errp. */
const BlockDriver *bdrv_find_protocol(const char *filename, Error **errp);
/* The protocol driver of a path: a block device or a file. NULL with errp. */
const BlockDriver *bdrv_find_path(const char *path, Error **errp);
/* Whether the file name begins with a protocol of drv. */
bool bdrv_speaks_protocol(const BlockDriver *drv, const char *filename);
/* Turn a positional file name into options of drv: 0 or -errno. */
int bdrv_filename_to_options(const BlockDriver *drv, const char *filename, BlockOptions *options,
                             Error **errp);

/* ---- probe.c ---- */

/* Guess the format of what file holds. NULL with errp: read error, two signatures, a format that
 * this build does not have. shown: the name for messages. */
const BlockDriver *bdrv_probe(BlockDriverState *file, const char *shown, Error **errp);

#endif
