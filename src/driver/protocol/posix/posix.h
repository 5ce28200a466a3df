/* SPDX-License-Identifier: MIT */
/*
 * What the drivers file and host_device share: a node over one descriptor of this machine. They
 * differ in what they accept (kind) and in a few system calls.
 */
#ifndef PLATTER_DRIVER_POSIX_H
#define PLATTER_DRIVER_POSIX_H

#include "block/driver.h"

enum posix_kind {
    POSIX_FILE,   /* a regular file */
    POSIX_DEVICE, /* a block device; or a character device, which is a disk of no bytes */
};

/* Image locks of one open file description. Control thread. */
struct posix_locks {
    bool enabled;
    bool required; /* locking=on: a file system without locks is an error */
    uint64_t perm; /* in force */
    uint64_t unshared;
    uint64_t next_perm; /* agreed in perm_check, until perm_set or perm_abort */
    uint64_t next_unshared;
    uint64_t held_perm;     /* bytes 100 + bit that are locked: those of both */
    uint64_t held_unshared; /* bytes 200 + bit */
};

struct posix_state {
    /* set at open and by reopen (drained), then constant */
    int fd; /* owned */
    enum posix_kind kind;
    enum aio_engine engine;
    int io_flags;     /* AIO_FILE_INLINE or 0 */
    bool seek_inline; /* holes are looked up by the loop: it only reads memory, as a rule */
    bool direct;      /* O_DIRECT */
    bool writable;
    bool is_char;          /* a character device */
    uint32_t offset_align; /* what direct I/O asks; 1 without */
    uint32_t mem_align;
    uint32_t block_bytes; /* logical block of a device; 1 for files */
    char *filename;       /* owned */

    /* what was learned about the file system or device; any thread */
    _Atomic bool flush_failed; /* dirty pages may be lost: see posix_flush_co */
    _Atomic bool no_punch_hole;
    _Atomic bool no_zero_range;
    _Atomic bool no_discard;
    _Atomic bool no_copy_range;

    /* fallocate, truncate and copies in flight, which hold the lock of the inode long; any thread
     */
    _Atomic unsigned space_ops;

    /* what discards came to; any thread */
    _Atomic uint64_t discards_ok;
    _Atomic uint64_t discards_failed;
    _Atomic uint64_t discards_ok_bytes;

    /* control thread */
    struct posix_locks locks;
    int reopen_fd; /* owned; -1: the same stays */
    bool reopen_direct;
    bool reopen_writable;
};

/* ---- open.c ---- */
int posix_open(BlockDriverState *bs, BlockOptions *options, int flags, enum posix_kind kind,
               Error **errp);
void posix_close(BlockDriverState *bs);
int posix_reopen_prepare(BlockDriverState *bs, int new_flags, Error **errp);
void posix_reopen_commit(BlockDriverState *bs);
void posix_reopen_abort(BlockDriverState *bs);

/* ---- limits.c ---- */
/* Fill offset_align, mem_align and block_bytes for s->fd. 0 or -errno with errp. */
int posix_probe_limits(struct posix_state *s, Error **errp);
enum posix_storage {
    POSIX_STORAGE_ANY,
    POSIX_STORAGE_LOCAL,  /* where the holes are is known without a network or another process */
    POSIX_STORAGE_MEMORY, /* all of it is memory */
};
enum posix_storage posix_storage(int fd);
void posix_refresh_limits(BlockDriverState *bs, struct bdrv_limits *limits);
bool posix_get_file_id(BlockDriverState *bs, struct bdrv_file_id *ret_id);
int64_t posix_getlength(BlockDriverState *bs);
int64_t posix_get_allocated_file_size(BlockDriverState *bs);
int posix_get_info(BlockDriverState *bs, struct bdrv_info *ret_info);
int posix_probe_blocksizes(BlockDriverState *bs, struct bdrv_block_sizes *ret_sizes);

/* ---- lock.c ---- */
int posix_locks_init(struct posix_locks *locks, int fd, bool on, bool off, const char *filename,
                     Error **errp);
/* Hold what perm and shared ask on fd besides what is held, and look for others in the way. */
int posix_locks_check(struct posix_locks *locks, int fd, const char *filename, uint64_t perm,
                      uint64_t shared, Error **errp);
/* Hold exactly what the last check asked / what was held before it. */
void posix_locks_commit(struct posix_locks *locks, int fd);
void posix_locks_abort(struct posix_locks *locks, int fd);
/* Give back what is held on fd, which is to be closed. */
void posix_locks_release(const struct posix_locks *locks, int fd);
/* Hold on another description of the file what is held on the old one, which ends soon. */
int posix_locks_move(const struct posix_locks *locks, int new_fd);
int posix_perm_check(BlockDriverState *bs, uint64_t perm, uint64_t shared, Error **errp);
void posix_perm_set(BlockDriverState *bs, uint64_t perm, uint64_t shared);
void posix_perm_abort(BlockDriverState *bs);

/* ---- lock_holder.c ---- */
/* Name a process ("1234 (qemu-nbd)") that holds an OFD lock on byte of fd's file. False: not found.
 */
bool posix_lock_holder(int fd, uint64_t byte, char *buf, size_t size);

/* ---- io.c ---- */
int posix_read_co(BlockDriverState *bs, const struct bdrv_req *req);
int posix_write_co(BlockDriverState *bs, const struct bdrv_req *req);
int posix_flush_co(BlockDriverState *bs);

/* ---- space.c ---- */
int posix_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes, unsigned flags);
int posix_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes);
void posix_get_discard_stats(BlockDriverState *bs, struct bdrv_discard_stats *ret_stats);

/* ---- map.c ---- */
int posix_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                          struct bdrv_status *ret_status);
int posix_copy_range_co(BlockDriverState *src, uint64_t src_offset, BlockDriverState *dst,
                        uint64_t dst_offset, uint64_t bytes, unsigned write_flags);

/* ---- resize.c ---- */
/* Blocking. Set the size of a file and reserve or write what is added; after a failure the old size
 * is back, and *ret_step tells which step could not be done. align: of direct I/O, 1 without. 0 or
 * -errno. */
int posix_resize(int fd, uint64_t old_bytes, uint64_t new_bytes, enum bdrv_prealloc prealloc,
                 uint32_t align, const char **ret_step);
int posix_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                      enum bdrv_prealloc prealloc, unsigned flags, Error **errp);

/* ---- create.c ---- */
int posix_create_file(Platter *pl, const char *filename, BlockOptions *options, Error **errp);
bool posix_create_is_new(const char *filename);
void posix_create_undo(const char *filename);

#endif
