/* SPDX-License-Identifier: MIT */
/*
 * All that a driver sees of the block floor: the table it fills, the request it is given, and the
 * calls it may make on its node and children. No other header of src/block/ is for drivers.
 */
#ifndef PLATTER_BLOCK_DRIVER_H
#define PLATTER_BLOCK_DRIVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include <platter/bitmap.h>
#include <platter/block.h>
#include <platter/coroutine.h>
#include <platter/image.h>
#include <platter/iov.h>

#include "block/debug_event.h"
#include "loop/io.h"

typedef struct BdrvEdge BdrvEdge; /* parent -> child */
typedef struct BlockDriver BlockDriver;
struct mem_budget;
struct throttle_member;
struct opts_key; /* schema/opts.h */

enum bdrv_op {
    BDRV_OP_READ,
    BDRV_OP_WRITE,
    BDRV_OP_WRITE_ZEROES,
    BDRV_OP_DISCARD,
    BDRV_OP_FLUSH,
};

/* One request, passed down by pointer. A layer that changes something makes its own copy.
 * iov, niov, iov_offset: bytes of memory begin iov_offset into the list; READ and WRITE only. */
struct bdrv_req {
    enum bdrv_op op;
    unsigned flags; /* BDRV_REQ_* */
    uint64_t offset;
    uint64_t bytes;
    const struct iovec *iov;
    size_t niov;
    uint64_t iov_offset;
};

/* What an edge is to its parent. */
enum bdrv_role {
    BDRV_ROLE_DATA = 1 << 0, /* guest data is stored there */
    BDRV_ROLE_METADATA = 1 << 1,
    BDRV_ROLE_FILTERED = 1 << 2, /* the parent shows the child's content */
    BDRV_ROLE_COW = 1 << 3,      /* backing file */
    BDRV_ROLE_PRIMARY = 1 << 4,  /* the child that stands for the image ("file") */
};

/* Which file of this machine it is. */
struct bdrv_file_id {
    uint64_t dev;
    uint64_t ino;
};

/* Answer of a driver's block_status_co. */
struct bdrv_status {
    int flags;              /* BDRV_BLOCK_* */
    uint64_t bytes;         /* length of the extent, > 0 */
    uint64_t map;           /* offset in file when BDRV_BLOCK_OFFSET_VALID */
    BlockDriverState *file; /* node that map speaks of */
};

enum bdrv_driver_caps {
    BDRV_CAP_PROTOCOL = 1 << 0, /* ends the graph; opened from a filename */
    BDRV_CAP_FILTER = 1 << 1,   /* NULL operations forward to the primary child */
    BDRV_CAP_FORMAT = 1 << 2,
    BDRV_CAP_FUA = 1 << 3,              /* write_co honours BDRV_REQ_FUA */
    BDRV_CAP_ZERO_FUA = 1 << 4,         /* write_zeroes_co honours BDRV_REQ_FUA */
    BDRV_CAP_ZERO_UNMAP = 1 << 5,       /* write_zeroes_co honours BDRV_REQ_MAY_UNMAP */
    BDRV_CAP_ZERO_NO_FALLBACK = 1 << 6, /* write_zeroes_co is fast or -ENOTSUP under NO_FALLBACK */
    BDRV_CAP_GROWS_ON_WRITE = 1 << 7,   /* a write past the end extends the file */
    BDRV_CAP_TRUNCATE_ZEROES = 1 << 8,  /* what truncate adds reads as zeroes,
                                         * whatever a backing file has there */
    BDRV_CAP_PASSTHROUGH = 1 << 9, /* set in node->caps at open: reads, writes and flushes of this
                                      node are its primary child's, unchanged; it is folded away */
    BDRV_CAP_COMPRESSED = 1 << 10, /* write_co honours BDRV_REQ_WRITE_COMPRESSED; such a request
                                      comes whole, whatever the limits say */
    BDRV_CAP_FULL_NAME = 1 << 11,  /* the name that open set with bdrv_set_filename says all that
                                      strong_options would; parse_filename understands it */
    BDRV_CAP_READS_NOTHING = 1 << 12, /* a read may leave memory as it is, and callers know */
    BDRV_CAP_ZERO_TAIL = 1 << 13,  /* what lies behind the end reads as zeroes, so that the size may
                                      be told as more than getlength says: see bdrv_size_unit */
    BDRV_CAP_ZERO_PARTS = 1 << 14, /* write_zeroes_co is also asked for a part of one unit; -ENOTSUP
                                      where it cannot */
    BDRV_CAP_END_UNKNOWN = 1 << 15, /* getlength is a claim, as of a pipe: where the data ends shows
                                       in that reads past it are -EIO */
    BDRV_CAP_SECTORS = 1 << 16,     /* its disk has whole sectors: what it is made with is rounded
                                       up, and no other size is set */
};

/* Internal snapshots. The node is drained and flushed; coroutine. As the calls of platter/image.h.
 */
struct bdrv_snapshot_ops {
    int (*create_co)(BlockDriverState *bs, const struct bdrv_snapshot_info *info, Error **errp);
    int (*apply_co)(BlockDriverState *bs, const char *id_or_name, Error **errp);
    int (*delete_co)(BlockDriverState *bs, const char *id, const char *name, Error **errp);
    int (*list)(BlockDriverState *bs, struct bdrv_snapshot_list *ret_list, Error **errp);
    int (*load_tmp_co)(BlockDriverState *bs, const char *id, const char *name, Error **errp);
};

/* Dirty bitmaps that the image stores. The driver loads them at open (bdrv_bitmap_load, in the
 * order of the image), and stores them when it closes and when the node becomes read-only. */
struct bdrv_bitmap_ops {
    /* Whether this image can have any. */
    bool (*supported)(const BlockDriverState *bs);
    /* Whether one more may be stored: 0, or -errno with errp. Control thread. */
    int (*can_store)(BlockDriverState *bs, const char *name, uint64_t granularity_bytes,
                     Error **errp);
    /* Whether they can be stored of a disk of another size. Coroutine; errp may be NULL. */
    int (*can_resize)(BlockDriverState *bs, uint64_t disk_bytes, Error **errp);
    /* The disk is about to change: flag as in use, durably, what the image has of each persistent
     * bitmap that records here or there (all: of each), and tell with bdrv_bitmap_set_in_use.
     * Coroutine, any context, one call at a time; the request that waits for it is inside the
     * driver's parent. */
    int (*flag_co)(BlockDriverState *bs, bool all);
    /* Store each persistent bitmap that needs it, durably, and tell with bdrv_bitmap_set_stored.
     * Drained and flushed; coroutine. */
    int (*store_co)(BlockDriverState *bs, Error **errp);
    /* What the image has of this one, if anything, is gone, durably. As store_co. */
    int (*remove_co)(BlockDriverState *bs, const BdrvDirtyBitmap *bitmap, Error **errp);
};

/* How giving space back is steered by whoever runs it. In the coroutine of the call. */
struct bdrv_compact_calls {
    /* A safe point, after bytes more were moved; may suspend for long. 0, or -errno: what was begun
     * is brought to an end in order, and the call returns that. */
    int (*turn_co)(void *opaque, uint64_t bytes);
    /* So many bytes more will be moved. */
    void (*planned)(void *opaque, uint64_t bytes);
    /* A step failed with ret and may be tried again: 0: do so; else what to fail with. */
    int (*retry_co)(void *opaque, bool reading, int ret);
    void *opaque;
};

struct bdrv_compact_result {
    uint64_t leaked_bytes; /* of the file, that nothing referred to */
    uint64_t moved_bytes;  /* nearer to the start of the file */
    uint64_t end_bytes;    /* of the file: behind the last that is in use, or would be */
    uint64_t free_bytes;   /* in front of that, in holes */
};

/* What is done to an image as a whole. The node is drained and flushed; coroutine, but for measure
 * and inspect, which are control calls and may poll. NULL: -ENOTSUP. */
struct bdrv_image_ops {
    int (*check_co)(BlockDriverState *bs, const struct bdrv_check_options *options,
                    struct bdrv_check_result *ret_result, Error **errp);
    int (*amend_co)(BlockDriverState *bs, BlockOptions *options, bool force,
                    const struct bdrv_progress *progress, Error **errp);
    int (*change_backing_file_co)(BlockDriverState *bs, const char *backing_file,
                                  const char *backing_format, Error **errp);
    int (*make_empty_co)(BlockDriverState *bs, Error **errp);
    /* Give back what the image's files hold without need: what nothing refers to, and their ends,
     * by moving what is there. Nobody else uses the node. After a cut of power at any time the
     * image holds the same. dry_run: only tell what would be; the node may be read-only. */
    int (*compact_co)(BlockDriverState *bs, const struct bdrv_compact_calls *calls, bool dry_run,
                      struct bdrv_compact_result *ret_result, Error **errp);
    /* The range reads as zeroes, or (drop, whole clusters) as the backing file does: let go of what
     * the image has there, as far as that gives space back; *ret_bytes of the disk. The disk stays
     * what it is. Likewise. -ENOTSUP. */
    int (*give_co)(BlockDriverState *bs, uint64_t offset, uint64_t bytes, bool drop,
                   uint64_t *ret_bytes);
    /* source is drained, or NULL. */
    int (*measure)(Platter *pl, BlockOptions *options, BlockDriverState *source,
                   struct bdrv_measure_result *ret_result, Error **errp);
    /* As bdrv_stream_head; may be in a coroutine. */
    int (*stream_head)(BlockOptions *options, const struct bdrv_stream_layout *layout,
                       uint32_t *ret_unit_bytes, Error **errp);
    /* The object "data" of "format-specific". NULL: out of memory. */
    json_t *(*specific_info)(BlockDriverState *bs);
    /* file: the bytes of an image, read-only. */
    json_t *(*inspect)(BdrvEdge *file, Error **errp);
    const struct opts_key *amend_keys;
};

/* What a fault filter does at the points of block/debug_event.h. */
struct bdrv_debug_ops {
    /* A parent has come to this point. Any context; in a coroutine it may suspend. */
    void (*event)(BlockDriverState *bs, enum bdrv_debug_event event);
    /* As the calls of platter/block.h. Control thread. */
    int (*breakpoint)(BlockDriverState *bs, enum bdrv_debug_event event, const char *tag);
    int (*remove_breakpoint)(BlockDriverState *bs, const char *tag);
    int (*resume)(BlockDriverState *bs, const char *tag);
    bool (*is_suspended)(BlockDriverState *bs, const char *tag);
};

/*
 * The driver table. Calls tagged co run in a coroutine of any context, several at once; the others
 * in the control thread with the node drained. Data calls return 0 or -errno. A request given to a
 * driver is inside the node, aligned to the node's limits and not above its maxima; each piece of
 * its memory begins at a multiple of mem_alignment and, where that is more than 1, is a multiple of
 * request_alignment long. max_iov bounds the elements a request touches, not those of the list.
 *
 * The end of a node whose size is no multiple of request_alignment: a driver with
 * BDRV_CAP_PROTOCOL is given the last block whole. What it reads past the end is zeroes; what it
 * writes there is zeroes, and when the file grew by it (BDRV_CAP_GROWS_ON_WRITE) block/ calls
 * truncate_co with the right size before anybody else writes there. The other drivers are given a
 * request that stops at the node's end, so that their child does the same.
 * The last unit of a discard or of write zeroes is then as long as the node goes.
 *
 * NULL: a filter forwards to its primary child, else block/ emulates or refuses, as said at each.
 */
struct BlockDriver {
    const char *format_name;             /* required: "raw", "file" */
    const char *protocol_name;           /* prefix of file names ("nbd" in nbd:...), or NULL */
    const char *const *protocol_aliases; /* further ones ("nbd+unix"); NULL ends, NULL: none */
    const char *primary_name;            /* of a filter's primary child; NULL: "file" */
    size_t instance_size;                /* node->opaque, zeroed */
    unsigned caps;

    /* How sure the first bytes are of this format, 0..100. Required of formats that can be guessed.
     */
    int (*probe)(const uint8_t *buf, size_t len, const char *filename);
    /* Whether the path is this protocol's (host_device: a block device), 0..100. Optional. */
    int (*probe_device)(const char *filename);
    /* Turn "PROTOCOL:rest" into options. Protocols only; NULL: option filename. */
    int (*parse_filename)(const char *filename, BlockOptions *options, Error **errp);

    /* Take this driver's keys out of options (generated parsers do), open children with
     * bdrv_open_child, fill node->caps. flags: BDRV_O_*. Required. After a failure close is not
     * called: open undoes what it did (edges are let go by block/). */
    int (*open)(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp);
    void (*close)(BlockDriverState *bs);
    /* Read-only or cache flags of an open node change: prepare may fail and changes nothing that is
     * seen; then commit or abort. NULL: never refuses. */
    int (*reopen_prepare)(BlockDriverState *bs, int new_flags, Error **errp);
    /* Before that, where the options of an open node change too: take the keys that can change out
     * of options, which holds all that open would be given but children and what every node has,
     * and keep what they say aside until commit or abort; a key that is not there goes back to its
     * default. Keys that are left must be as they were at open. After a failure nothing is kept.
     * Children may be new ones already. NULL: no option can change. */
    int (*reopen_options)(BlockDriverState *bs, BlockOptions *options, int new_flags, Error **errp);
    void (*reopen_commit)(BlockDriverState *bs);
    void (*reopen_abort)(BlockDriverState *bs);
    /* Permissions the node now has of its storage change (locks). As reopen. NULL: nothing to do.
     */
    int (*perm_check)(BlockDriverState *bs, uint64_t perm, uint64_t shared, Error **errp);
    void (*perm_set)(BlockDriverState *bs, uint64_t perm, uint64_t shared);
    void (*perm_abort)(BlockDriverState *bs);
    /* What an edge to a child needs and shares, given the node's own. NULL: the usual for its role.
     */
    void (*child_perm)(BlockDriverState *bs, const char *child_name, unsigned role, uint64_t perm,
                       uint64_t shared, uint64_t *ret_perm, uint64_t *ret_shared);
    /* Fill *limits (given: merged from the children). NULL: as given. */
    void (*refresh_limits)(BlockDriverState *bs, struct bdrv_limits *limits);

    int (*read_co)(BlockDriverState *bs, const struct bdrv_req *req);  /* required but in filters */
    int (*write_co)(BlockDriverState *bs, const struct bdrv_req *req); /* NULL: read-only driver */
    /* NULL or -ENOTSUP: zero buffers are written, or the request fails under NO_FALLBACK. */
    int (*write_zeroes_co)(BlockDriverState *bs, uint64_t offset, uint64_t bytes, unsigned flags);
    /* NULL or -ENOTSUP: nothing happens, success. */
    int (*discard_co)(BlockDriverState *bs, uint64_t offset, uint64_t bytes);
    /* Make all completed writes durable. NULL: flush the primary child. A driver that flushes a
     * child tells it BLKDBG_FLUSH_TO_DISK first. */
    int (*flush_co)(BlockDriverState *bs);
    /* NULL: everything is data. */
    int (*block_status_co)(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                           struct bdrv_status *ret_status);
    /* Copy from src to dst, both of this driver, without bytes passing through us. NULL: -ENOTSUP.
     */
    int (*copy_range_co)(BlockDriverState *src, uint64_t src_offset, BlockDriverState *dst,
                         uint64_t dst_offset, uint64_t bytes, unsigned write_flags);
    /* Go down: a driver that stands above a child says which range of it (raw). NULL: -ENOTSUP. */
    int (*map_range)(BlockDriverState *bs, uint64_t offset, uint64_t bytes, BdrvEdge **ret_child,
                     uint64_t *ret_offset);
    /* A driver that has nothing to preallocate in when it shrinks refuses a mode but 'off' then. */
    int (*truncate_co)(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                       enum bdrv_prealloc prealloc, unsigned flags, Error **errp);
    int (*ioctl_co)(BlockDriverState *bs, unsigned long request, void *buf);

    /* Size now. Required but in filters. Called at open, after truncate and by bdrv_refresh_size.
     */
    int64_t (*getlength)(BlockDriverState *bs);
    int64_t (*get_allocated_file_size)(BlockDriverState *bs); /* NULL: that of the primary child */
    void (*get_discard_stats)(BlockDriverState *bs,
                              struct bdrv_discard_stats *ret_stats); /* NULL: not counted */
    int (*get_info)(BlockDriverState *bs, struct bdrv_info *ret_info);
    int (*probe_blocksizes)(BlockDriverState *bs, struct bdrv_block_sizes *ret_sizes);
    int (*probe_geometry)(BlockDriverState *bs, struct bdrv_geometry *ret_geo);
    bool (*get_file_id)(BlockDriverState *bs, struct bdrv_file_id *ret_id); /* NULL: no file */
    bool (*is_inserted)(BlockDriverState *bs);                              /* NULL: true */
    void (*lock_medium)(BlockDriverState *bs, bool locked);
    void (*eject)(BlockDriverState *bs, bool eject_flag);
    void (*invalidate_cache)(BlockDriverState *bs, Error **errp);
    /* A drain waits for requests that may be in this driver: from begin to end none is to be held
     * back. Control thread; not nested. Both or neither. */
    void (*drained_begin)(BlockDriverState *bs);
    void (*drained_end)(BlockDriverState *bs);

    /* Make an image. options: what the caller gave, without "driver"; leftovers are refused by
     * block/. NULL: "cannot create". May poll. */
    int (*create)(Platter *pl, const char *filename, BlockOptions *options, Error **errp);
    /* Whether nothing has that name yet, not even a link, so that what create makes there may be
     * taken away again while nobody has it open. Both or neither; NULL: it stays. */
    bool (*create_is_new)(const char *filename);
    void (*create_undo)(const char *filename);
    /* What create takes: others are refused before it is called, so that nothing was touched then.
     * NULL: they are refused only afterwards. */
    const struct opts_key *create_keys;

    /* The machine's state, stored in the image beside the disk. NULL: -ENOTSUP. */
    int (*save_vmstate_co)(BlockDriverState *bs, const struct bdrv_req *req);
    int (*load_vmstate_co)(BlockDriverState *bs, const struct bdrv_req *req);

    const struct bdrv_image_ops *image;       /* NULL: none of them */
    const struct bdrv_snapshot_ops *snapshot; /* NULL: no internal snapshots */
    const struct bdrv_bitmap_ops *bitmap;     /* NULL: bitmaps cannot be stored */
    const struct bdrv_debug_ops *debug;       /* fault filters only */

    const char *const *strong_options;  /* options that change content; for bdrv_get_filename */
    const struct opts_key *option_keys; /* what open takes, as generated; for hints. May be NULL */
};

/* ---- node, as drivers see it ---- */

/* The driver's instance_size bytes; a node begins with the pointer to them. */
static inline void *bdrv_opaque(const BlockDriverState *bs)
{
    return *(void *const *)(const void *)bs;
}
Platter *bdrv_platter(const BlockDriverState *bs);
struct mem_budget *bdrv_budget(const BlockDriverState *bs);
int bdrv_open_flags(const BlockDriverState *bs);         /* BDRV_O_*, as options ended up */
void bdrv_set_caps(BlockDriverState *bs, unsigned caps); /* replaces those of the table; at open */
/* Turn a writable open into a read-only one where auto-read-only allows it: 0, or -EACCES with errp
 * set from the text. At open. */
int bdrv_apply_auto_read_only(BlockDriverState *bs, const char *why, Error **errp);
void bdrv_set_filename(BlockDriverState *bs,
                       const char *filename); /* plain name; copied; at open */
void bdrv_set_engine(BlockDriverState *bs, enum aio_engine engine); /* for bdrv_get_engine_name */
/* What the image says of its backing file (NULL: none; format NULL: not said), for
 * bdrv_get_backing_file. Copied; 0 or -ENOMEM. At open, and when an amend changed it; not in
 * change_backing_file_co, after which block/ does it. Control thread, coroutines too. */
int bdrv_set_backing_name(BlockDriverState *bs, const char *file, const char *format);

/* Open the child NAME of bs from the keys "NAME" (reference) or "NAME.*", or from filename when not
 * NULL. The edge is the node's. NULL with errp. */
BdrvEdge *bdrv_open_child(BlockDriverState *bs, const char *filename, BlockOptions *options,
                          const char *name, unsigned role, bool allow_none, Error **errp);
/* The backing file that the image names: from the options "backing" / "backing.*" when they say
 * which file (null: none is opened), else from name and format (NULL: none given) where the policy
 * of the instance allows it. Relative names count from the folder of bs's own file, so the primary
 * child comes first. It is opened after the driver's open has returned, so that a chain may be
 * long: ret_edge points into bdrv_opaque(bs) and is NULL until then; it stays NULL when there is no
 * backing file, on purpose or because bs is opened with BDRV_O_NO_BACKING. Later changes of the
 * graph (an overlay gets its backing file, bs is reopened with another one) change it while bs is
 * drained. Also does bdrv_set_backing_name. 0 or -errno. At open. */
int bdrv_open_backing(BlockDriverState *bs, BlockOptions *options, const char *name,
                      const char *format, BdrvEdge **ret_edge, Error **errp);
/* The same for another file that an image names and cannot do without ("data-file"), opened at
 * once: role as given; name, which is always a path, may be NULL where only options count. Under
 * BDRV_O_NO_IO only options count: *ret_edge is NULL without them. */
int bdrv_open_referenced(BlockDriverState *bs, BlockOptions *options, const char *child_name,
                         const char *name, unsigned role, BdrvEdge **ret_edge, Error **errp);
BlockDriverState *bdrv_edge_node(const BdrvEdge *edge);
BdrvEdge *bdrv_primary_child(const BlockDriverState *bs);

#define BDRV_FDSET_PREFIX "/dev/fdset/" /* of a name that stands for a given descriptor */
/* A descriptor for a path, "/dev/fdset/N" included; -errno with errp. flags: O_*. */
int bdrv_os_open(Platter *pl, const char *path, int flags, int mode, Error **errp);

/* The size changed behind our back or by a write past the end (at least new_size_bytes). Any
 * thread. */
void bdrv_grow_size(BlockDriverState *bs, uint64_t new_size_bytes);
/* The size of the node is a multiple of it: 512 where the instance wants whole sectors and the
 * driver has BDRV_CAP_ZERO_TAIL, else 1. [any] */
uint32_t bdrv_size_unit(const BlockDriverState *bs);
/* Whether load_tmp_co keeps the size of the disk (platter_options.snapshots_fit_disk). [any] */
bool bdrv_snapshots_fit_disk(const BlockDriverState *bs);
/* What is copied becomes a disk of a multiple of it: 512 where the instance wants whole sectors, or
 * the driver has nothing else, else 1. bs may be NULL: the instance alone counts. [any] */
uint32_t bdrv_copy_unit(const Platter *pl, const BlockDriverState *bs);

/* ---- throttle groups, for a filter that is a member; platter/throttle.h is the rest ---- */

/* bs joins the group of that name; NULL with errp when there is none (ENOENT) or no memory. Control
 * thread. */
struct throttle_member *bdrv_throttle_join(BlockDriverState *bs, const char *group_name,
                                           Error **errp);
void bdrv_throttle_leave(struct throttle_member *member); /* NULL allowed; no request under way */
void bdrv_throttle_drained_begin(struct throttle_member *member);
void bdrv_throttle_drained_end(struct throttle_member *member);
/* Wait for the turn and count the request. Coroutine, any context. */
int bdrv_throttle_wait_co(struct throttle_member *member, bool is_write, uint64_t bytes);

/* ---- messages ---- */

/* What a message calls a node: platter_options.tells_files; a node without a file by its driver.
 * Never NULL; borrowed until the graph changes. Any thread. */
const char *bdrv_get_told_name(const BlockDriverState *bs);
/* For what a parent calls itself, whose file may have a long name: that is cut then. */
#define BDRV_PARENT_TEXT_BYTES 512

/* ---- fault injection ---- */

/* Tell the child of edge, should it be a fault filter, that its parent is at this point. A driver
 * calls it right before the request to the child that the point is named after. Any context;
 * coroutine: may suspend. One branch where there is no such filter. */
void bdrv_debug_event(const BdrvEdge *edge, enum bdrv_debug_event event);
const char *bdrv_debug_event_name(enum bdrv_debug_event event);
/* Raise PLATTER_EVENT_REQUEST_SUSPENDED or _RESUMED of bs. Any thread. */
void bdrv_debug_tell(BlockDriverState *bs, const char *tag, bool suspended);
/* 0, or -EINVAL with a hint. */
int bdrv_debug_event_find(const char *name, enum bdrv_debug_event *ret_event, Error **errp);

/* ---- dirty bitmaps, for drivers that store them; platter/bitmap.h is the rest ---- */

enum bdrv_bitmap_state {
    BDRV_BITMAP_STATE_PERSISTENT = 1 << 0,
    BDRV_BITMAP_STATE_STORED = 1 << 1, /* the image has it */
    BDRV_BITMAP_STATE_INCONSISTENT = 1
                                     << 2, /* its bits mean nothing; the image's stay as they are */
    BDRV_BITMAP_STATE_RECORDING = 1 << 3,
    BDRV_BITMAP_STATE_IN_USE = 1 << 4,  /* what the image has is flagged as in use */
    BDRV_BITMAP_STATE_CHANGED = 1 << 5, /* changed by other means than recording */
};
/* A bitmap of the image enters the node, clear: name (not that of another), state INCONSISTENT,
 * RECORDING, IN_USE. At open. NULL with errp: no memory. */
BdrvDirtyBitmap *bdrv_bitmap_load(BlockDriverState *bs, const char *name, unsigned granularity_bits,
                                  unsigned state, Error **errp);
unsigned bdrv_bitmap_state(const BdrvDirtyBitmap *bitmap);
/* Whether the image of bs itself can store bitmaps. */
bool bdrv_stores_bitmaps(const BlockDriverState *bs);
/* The backing file of bs, or of what bs shows as a filter; NULL: none. Borrowed. Control thread. */
BlockDriverState *bdrv_chain_below(BlockDriverState *bs);
/* Whether name is what the image, also that below filters, would call its backing file: the same
 * path from its own folder, symbolic links followed; of a protocol, the same text. One that options
 * put there is called what it is shown as. Control thread. */
bool bdrv_backing_is_called(BlockDriverState *bs, const char *name);
/* Whether the image, also that below filters, can be told to name another backing file. */
bool bdrv_stores_backing_name(BlockDriverState *bs);
void bdrv_bitmap_set_in_use(BdrvDirtyBitmap *bitmap);
/* flag_co is called before the next change, whatever was flagged before. */
void bdrv_bitmaps_flag_again(BlockDriverState *bs);
void bdrv_bitmap_set_stored(BdrvDirtyBitmap *bitmap);       /* as it is now, not in use */
void bdrv_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap); /* at open */
/* The disk is about to get another size: 0, or -errno with errp where its bitmaps do not allow it.
 * truncate_co is called after this; a driver that resizes by itself (amend) calls it first. Drained
 * or as truncate_co; coroutine. */
int bdrv_bitmaps_resize_begin_co(BlockDriverState *bs, uint64_t size_bytes, Error **errp);
/* Bits [first_bit, first_bit + bits), first_bit a multiple of 64: whether all are clear; as bytes,
 * bit n at bit n % 8 of byte n / 8; import adds them (bytes NULL: all of them). */
bool bdrv_bitmap_is_clear(const BdrvDirtyBitmap *bitmap, uint64_t first_bit, uint64_t bits);
void bdrv_bitmap_export(const BdrvDirtyBitmap *bitmap, uint64_t first_bit, uint64_t bits,
                        uint8_t *ret_bytes);
void bdrv_bitmap_import(BdrvDirtyBitmap *bitmap, uint64_t first_bit, uint64_t bits,
                        const uint8_t *bytes);

/* The image was found corrupt: told once (PLATTER_EVENT_IMAGE_CORRUPTED), and once more when it
 * becomes fatal: then the node cannot be used any more, and is marked broken too. offset
 * UINT64_MAX: none. Any thread. */
void bdrv_image_corrupted(BlockDriverState *bs, bool fatal, uint64_t offset, uint64_t bytes,
                          const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* At open, which does not fail for it: what the user of the image should know
 * (PLATTER_EVENT_IMAGE_WARNING). */
void bdrv_image_warning(BlockDriverState *bs, const char *message, bool leaks);
/* The node cannot be trusted any more: all later requests answer -EIO; reported once. Any thread.
 */
void bdrv_mark_broken(BlockDriverState *bs, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- requests to children: coroutine; any alignment ---- */
int bdrv_edge_request_co(BdrvEdge *edge, const struct bdrv_req *req);
/* A READ of what the backing chain below edge holds: goes down by iteration to the layer that
 * decides each part, and gives zeroes past the end of a shorter one. */
int bdrv_backing_read_co(BdrvEdge *edge, const struct bdrv_req *req);
/* Status of the chain below edge as above: *ret_depth 0 when no layer decides (or all past the end
 * of it): then it reads as zeroes. */
int bdrv_backing_status_co(BdrvEdge *edge, bool want_zero, uint64_t offset, uint64_t bytes,
                           struct bdrv_status *ret_status, int *ret_depth);
/* How far down the chain below edge the node of that name is: 1, edge's own layer; 0: it is not in
 * the chain. A depth as above. Graph unchanged meanwhile; any context. */
int bdrv_backing_depth(const BdrvEdge *edge, const char *node_name);
int bdrv_edge_read_co(BdrvEdge *edge, uint64_t offset, void *buf, size_t bytes);
int bdrv_edge_write_co(BdrvEdge *edge, uint64_t offset, const void *buf, size_t bytes,
                       unsigned flags);
int bdrv_edge_write_zeroes_co(BdrvEdge *edge, uint64_t offset, uint64_t bytes, unsigned flags);
int bdrv_edge_discard_co(BdrvEdge *edge, uint64_t offset, uint64_t bytes);
int bdrv_edge_flush_co(BdrvEdge *edge);
int bdrv_edge_truncate_co(BdrvEdge *edge, uint64_t size_bytes, bool exact,
                          enum bdrv_prealloc prealloc, unsigned flags, Error **errp);
int bdrv_edge_block_status_co(BdrvEdge *edge, bool want_zero, uint64_t offset, uint64_t bytes,
                              struct bdrv_status *ret_status);
int64_t bdrv_edge_getlength(BdrvEdge *edge);
/* For measure: status of its source down the whole chain, ALLOCATED where a layer decides. Control
 * call: polls the main context. */
int bdrv_measure_status(BlockDriverState *source, uint64_t offset, uint64_t bytes,
                        struct bdrv_status *ret_status);
/* The same for control calls outside coroutines (open, create): polls the main context. */
int bdrv_edge_pread(BdrvEdge *edge, uint64_t offset, void *buf, size_t bytes);
int bdrv_edge_pwrite(BdrvEdge *edge, uint64_t offset, const void *buf, size_t bytes,
                     unsigned flags);
int bdrv_edge_flush(BdrvEdge *edge);
/* Run run_co in a coroutine of this thread's context and poll until it has ended; in a coroutine,
 * just call it. What it returned, or -ENOMEM. Control thread. */
int bdrv_run_co(int (*run_co)(void *opaque), void *opaque);

/* A name that begins so (no user types it) stands for an open node, in create and in the calls that
 * create makes: bdrv_create empties it, bdrv_create_open uses it. */
#define BDRV_CREATE_ON_NODE "\001node:"

/* For create: the bytes of the file that was just made, or, with options (owned; they name the
 * driver), the image in it, to be written and grown; without its backing file. NULL with errp. */
BdrvEdge *bdrv_create_open(Platter *pl, const char *filename, BlockOptions *options, Error **errp);
void bdrv_create_close(BdrvEdge *edge); /* flush first where it matters: errors are lost here */
/* An image in storage that is there already and does not grow. */
struct bdrv_create_place {
    uint64_t size_bytes;
    const char *preallocation; /* the word for it: nothing but "off" can be had */
    const char *protocol;
    const char *cannot_grow; /* told when the storage is too small */
};
/* For create of such a protocol: the first sector is zeroed, so that nothing of what was there is
 * taken for the new image. 0 or -errno. */
int bdrv_create_in_place(Platter *pl, const char *filename, const struct bdrv_create_place *place,
                         Error **errp);
/* For create. Before: whether a file made here would be a new one that can be taken away again. */
bool bdrv_create_can_undo(Platter *pl, const char *filename);
void bdrv_create_undo(Platter *pl, const char *filename); /* then, after a failure */

/* Whether bs itself takes BDRV_REQ_WRITE_COMPRESSED. */
bool bdrv_can_compress(const BlockDriverState *bs);

/* The largest cluster that bs, or a node below it, may have compressed, in bytes; 0: none has.
 * Control thread. */
uint64_t bdrv_compressed_cluster_bytes(BlockDriverState *bs);

/* A buffer aligned as I/O on bs needs it (mem_alignment) and charged to the budget; NULL: no
 * memory. Any thread. */
void *bdrv_buffer_alloc(BlockDriverState *bs, size_t bytes);
void bdrv_buffer_free(BlockDriverState *bs, void *buf, size_t bytes);

/* ---- the build list ---- */
extern const BlockDriver *const bdrv_drivers[];               /* src/driver/list.c; NULL ends */
const BlockDriver *bdrv_find_driver(const char *format_name); /* NULL: not in this build */
/* The protocol that makes a file of that name; NULL with errp: none does. */
const BlockDriver *bdrv_find_creator(const char *filename, Error **errp);

#endif
