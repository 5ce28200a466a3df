/* SPDX-License-Identifier: MIT */
/*
 * Nodes (BlockDriverState): opening, naming, facts. Data travels through a BlockBackend
 * (platter/backend.h); a node by itself has no read or write.
 */
#ifndef PLATTER_BLOCK_H
#define PLATTER_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/error.h>
#include <platter/options.h>
#include <platter/platter.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct BlockDriverState BlockDriverState;

/* Open flags. What options say wins over flags where both speak. */
enum bdrv_open_flags {
    BDRV_O_RDWR = 1 << 0,        /* writable */
    BDRV_O_NOCACHE = 1 << 1,     /* cache.direct=on */
    BDRV_O_NO_FLUSH = 1 << 2,    /* cache.no-flush=on: a flush does nothing */
    BDRV_O_UNMAP = 1 << 3,       /* discard=unmap: discards reach the storage */
    BDRV_O_AUTO_RDONLY = 1 << 4, /* auto-read-only=on: fall back to read-only */
    BDRV_O_FORCE_SHARE = 1 << 5, /* force-share=on: writers beside it; read-only nodes only */
    BDRV_O_NO_IO = 1 << 6,       /* for looking only: reads of guest data are not expected */
    BDRV_O_PROBE = 1 << 7,       /* guess the format when driver is not given */
    BDRV_O_NO_BACKING = 1 << 8,  /* leave the backing file closed: only this layer is seen */
    BDRV_O_CHECK = 1 << 9,       /* for checking: damage does not stop the open where it can be */
};

/* Permission bits of an edge; what it needs, and what it lets others do. */
enum bdrv_perm {
    BDRV_PERM_CONSISTENT_READ = 1,
    BDRV_PERM_WRITE = 2,
    BDRV_PERM_WRITE_UNCHANGED = 4,
    BDRV_PERM_RESIZE = 8,
    BDRV_PERM_ALL = 15,
};

/* Flags of a request; each call says which it takes. */
enum bdrv_req_flags {
    BDRV_REQ_FUA = 1 << 0,         /* on stable storage before completion */
    BDRV_REQ_ZERO_WRITE = 1 << 1,  /* internal mark of write zeroes */
    BDRV_REQ_MAY_UNMAP = 1 << 2,   /* write zeroes may give the space back */
    BDRV_REQ_NO_FALLBACK = 1 << 3, /* write zeroes: -ENOTSUP rather than writing zero buffers */
    BDRV_REQ_COPY_ON_READ = 1 << 4,
    BDRV_REQ_WRITE_COMPRESSED = 1 << 5,
    BDRV_REQ_WRITE_UNCHANGED = 1 << 6,
    BDRV_REQ_SERIALISING = 1 << 7, /* wait for, and hold off, every overlapping request */
    BDRV_REQ_NO_WAIT = 1 << 8,
    /* such writes, of data or zeroes, get new room in the order of their calls */
    BDRV_REQ_IN_ORDER = 1 << 9,
};

/* Answers of block status. */
enum bdrv_block_flags {
    BDRV_BLOCK_DATA = 1 << 0,         /* reads need storage */
    BDRV_BLOCK_ZERO = 1 << 1,         /* reads as zeroes */
    BDRV_BLOCK_OFFSET_VALID = 1 << 2, /* map is the offset in file */
    BDRV_BLOCK_RAW = 1 << 3,          /* internal: ask the file at map */
    BDRV_BLOCK_ALLOCATED = 1 << 4,    /* this layer decides the content */
    BDRV_BLOCK_EOF = 1 << 5,          /* the extent reaches the end of the node */
    BDRV_BLOCK_RECURSE = 1 << 6,      /* internal: the file below may know holes */
    BDRV_BLOCK_COMPRESSED = 1 << 7,
};

/* What is done to a node as a whole, and may be blocked (blk_op_block). */
typedef enum BlockOpType {
    BLOCK_OP_TYPE_BACKUP_SOURCE = 0,
    BLOCK_OP_TYPE_BACKUP_TARGET,
    BLOCK_OP_TYPE_CHANGE,
    BLOCK_OP_TYPE_COMMIT_SOURCE,
    BLOCK_OP_TYPE_COMMIT_TARGET,
    BLOCK_OP_TYPE_DATAPLANE,
    BLOCK_OP_TYPE_DRIVE_DEL,
    BLOCK_OP_TYPE_EJECT,
    BLOCK_OP_TYPE_EXTERNAL_SNAPSHOT,
    BLOCK_OP_TYPE_INTERNAL_SNAPSHOT,
    BLOCK_OP_TYPE_INTERNAL_SNAPSHOT_DELETE,
    BLOCK_OP_TYPE_MIRROR_SOURCE,
    BLOCK_OP_TYPE_MIRROR_TARGET,
    BLOCK_OP_TYPE_RESIZE,
    BLOCK_OP_TYPE_STREAM,
    BLOCK_OP_TYPE_REPLACE,
    BLOCK_OP_TYPE_MAX
} BlockOpType;

enum bdrv_prealloc {
    BDRV_PREALLOC_OFF = 0,
    BDRV_PREALLOC_METADATA,
    BDRV_PREALLOC_FALLOC,
    BDRV_PREALLOC_FULL,
};

enum bdrv_detect_zeroes {
    BDRV_DETECT_ZEROES_OFF = 0,
    BDRV_DETECT_ZEROES_ON,
    BDRV_DETECT_ZEROES_UNMAP, /* also lets the zeroes give space back */
};

/* Limits of a node; 0 means none. Lengths in bytes. */
struct bdrv_limits {
    uint32_t request_alignment; /* power of two, >= 1 */
    uint32_t mem_alignment;     /* of buffers, power of two, >= 1: required */
    uint32_t opt_mem_alignment; /* wished for */
    /* A write that makes the file longer also changes the block of so many bytes that the old end
     * lies in. Power of two, >= 1; 1: it does not. */
    uint32_t eof_alignment;
    uint32_t max_iov;
    uint64_t max_transfer;
    uint64_t opt_transfer;
    uint64_t max_pdiscard;
    uint64_t pdiscard_alignment;
    uint64_t max_pwrite_zeroes;
    uint64_t pwrite_zeroes_alignment;
};

struct bdrv_info {
    uint64_t cluster_size_bytes; /* 0: the format has none */
    bool is_dirty;
    uint64_t vm_state_offset_bytes;
};

struct bdrv_block_sizes {
    uint32_t phys;
    uint32_t log;
};
struct bdrv_geometry {
    uint32_t heads;
    uint32_t sectors;
    uint32_t cylinders;
};

/* Open a node tree. [control]; may poll the main context.
 * filename   a path, "json:{...}", "PROTOCOL:..." or NULL
 * reference  name of a node that exists: a new reference to it is returned, options must be empty
 * options    ownership passes in, also on failure; NULL: none
 * flags      BDRV_O_*
 * Without a driver option the format is raw, or guessed with BDRV_O_PROBE (reported by
 * bdrv_format_probed; a guessed raw node refuses writes to its first sector that would make it look
 * like another format).
 * Errors: ENOENT, EACCES, EROFS, EBUSY or EAGAIN (locked by another process), EPERM (permission
 * conflict inside the instance), EINVAL (an option), EEXIST (node-name in use), ENOMEM, EMFILE. */
BlockDriverState *bdrv_open(Platter *pl, const char *filename, const char *reference,
                            BlockOptions *options, int flags, Error **errp);
/* Create an image file. options (owned, as above) hold driver and the driver's create options
 * (size in bytes, preallocation, ...). 0 or -errno. [control] */
int bdrv_create(Platter *pl, const char *filename, BlockOptions *options, Error **errp);

/* The same on an open node instead of a file, for formats: what is in it is lost. */
int bdrv_create_on(BlockDriverState *file, BlockOptions *options, Error **errp);

void bdrv_ref(BlockDriverState *bs); /* [control] */
/* At zero: flushes, closes and lets go of its children. NULL allowed. [control]; from another
 * thread the destruction is handed to the control thread. */
void bdrv_unref(BlockDriverState *bs);
int bdrv_get_refcnt(const BlockDriverState *bs); /* [control] */

BlockDriverState *bdrv_find_node(Platter *pl, const char *node_name); /* [control] */
/* Walk the nodes; NULL gives the first. [control] */
BlockDriverState *bdrv_next_node(Platter *pl, BlockDriverState *bs);
const char *bdrv_get_node_name(const BlockDriverState *bs); /* never NULL; generated "#block123" */
const char *bdrv_get_format_name(const BlockDriverState *bs); /* "raw", "file", ... */
/* The name to show: a path where plain options suffice, else json:{...}. Borrowed until the graph
 * changes. [control] */
const char *bdrv_get_filename(const BlockDriverState *bs);
bool bdrv_format_probed(const BlockDriverState *bs);
/* The child by name ("file"), or NULL. [control] */
BlockDriverState *bdrv_get_child(const BlockDriverState *bs, const char *name);
bool bdrv_is_read_only(const BlockDriverState *bs);
bool bdrv_is_inserted(BlockDriverState *bs);
bool bdrv_is_sg(const BlockDriverState *bs);
int bdrv_get_flags(const BlockDriverState *bs);
/* Why the node answers -EIO to everything, or NULL when it does not. [control] */
const char *bdrv_broken_reason(const BlockDriverState *bs);

/* Size in bytes or -errno. [any] */
int64_t bdrv_getlength(BlockDriverState *bs);
/* Where the write (or write zeroes) that went furthest ended since the node was opened; 0: there
 * was none. [control] */
uint64_t bdrv_get_wr_highest_offset(BlockDriverState *bs);
/* Bytes on the host, or -ENOTSUP. [control] */
int64_t bdrv_get_allocated_file_size(BlockDriverState *bs);
/* Discards that the storage of this node itself was asked for, since it was opened. False: its
 * driver does not count them. [any] */
struct bdrv_discard_stats {
    uint64_t ok;
    uint64_t failed;
    uint64_t ok_bytes;
};
bool bdrv_get_discard_stats(BlockDriverState *bs, struct bdrv_discard_stats *ret_stats);
const struct bdrv_limits *bdrv_get_limits(const BlockDriverState *bs);
int bdrv_get_info(BlockDriverState *bs, struct bdrv_info *ret_info); /* [control] */
/* Engine that carries the I/O of this node: "io_uring", "threads", or NULL when none is needed. */
const char *bdrv_get_engine_name(const BlockDriverState *bs);

/* Raise PLATTER_EVENT_BLOCK_WRITE_THRESHOLD when a write, zero write or discard of bs (not of what
 * is above or below it) first ends beyond this byte, before it is done; then there is no threshold
 * any more. It replaces the one before; 0: none. Drains. 0 or -ENOMEM. [control] */
int bdrv_set_write_threshold(BlockDriverState *bs, uint64_t bytes, Error **errp);
uint64_t bdrv_get_write_threshold(const BlockDriverState *bs); /* 0: none. [control] */

/* Stop requests to bs from every parent and wait until none is in flight; nests. [control] */
void bdrv_drained_begin(BlockDriverState *bs);
void bdrv_drained_end(BlockDriverState *bs);
void bdrv_drain_all_begin(Platter *pl);
void bdrv_drain_all_end(Platter *pl);
/* Flush every node; goes on after an error, returns the first. [control] */
int bdrv_flush_all(Platter *pl);

/* Breakpoints of a fault filter (driver blkdebug): of bs itself, or the first one going down from
 * it over primary children. -ENOTSUP: there is none. [control] The next request that comes to the
 * event, in a coroutine, is suspended until the tag is resumed or removed; the breakpoint is used
 * up by it. A drain, so also closing, lets everything suspended go on, and while it lasts nothing
 * is held. */
/* -ENOENT: no such event; -ENOMEM. */
int bdrv_debug_breakpoint(BlockDriverState *bs, const char *event, const char *tag);
/* Let the first request go on that is suspended under the tag; -ENOENT. */
int bdrv_debug_resume(BlockDriverState *bs, const char *tag);
/* Take away what is not used up, and let all requests of the tag go on; -ENOENT: all were used up.
 */
int bdrv_debug_remove_breakpoint(BlockDriverState *bs, const char *tag);
/* 1 when a request is suspended under the tag, else 0. */
int bdrv_debug_is_suspended(BlockDriverState *bs, const char *tag);

/* The drivers of this build, sorted by name; NULL ends. Borrowed for ever. */
const char *const *bdrv_list_formats(void);

#ifdef __cplusplus
}
#endif
#endif
