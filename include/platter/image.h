/* SPDX-License-Identifier: MIT */
/*
 * What can be done to an image besides reading and writing its disk: check and repair, internal
 * snapshots, amending, changing its backing file, measuring, inspecting.
 *
 * Unless a call says otherwise: [control]; it drains the node while it works and polls the main
 * context; -ENOTSUP with errp when the node's driver cannot; -EPERM when the node is read-only and
 * the call writes; -EIO when the node is broken. "0 or -errno" with errp set.
 */
#ifndef PLATTER_IMAGE_H
#define PLATTER_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/block.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How far long work is; total may grow while it goes on. In the thread that does the work; it must
 * not call back into the node. */
struct bdrv_progress {
    void (*report)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};

/* ---- check and repair ---- */

enum bdrv_fix {
    BDRV_FIX_LEAKS = 1 << 0,  /* give back clusters that nothing refers to */
    BDRV_FIX_ERRORS = 1 << 1, /* mend corruption */
};

struct bdrv_check_result {
    uint64_t corruptions; /* that are still there; what was mended counts below */
    uint64_t leaks;
    uint64_t check_errors; /* what could not be looked at */
    uint64_t corruptions_fixed;
    uint64_t leaks_fixed;
    uint64_t image_end_offset; /* first byte behind everything in use */
    uint64_t total_clusters;   /* of the disk; the next three count clusters of the disk too */
    uint64_t allocated_clusters;
    uint64_t fragmented_clusters;
    uint64_t compressed_clusters;
};

struct bdrv_check_options {
    size_t size;                          /* sizeof(struct bdrv_check_options) */
    unsigned fix;                         /* BDRV_FIX_*; needs a writable node */
    const struct bdrv_progress *progress; /* may be NULL */
    /* Each finding, one line without its end; may be NULL. */
    void (*finding)(void *opaque, const char *text);
    void *opaque;
};

/* 0 when the check ran, whatever it found; *ret_result then tells. */
int bdrv_check(BlockDriverState *bs, const struct bdrv_check_options *options,
               struct bdrv_check_result *ret_result, Error **errp);

/* ---- internal snapshots ---- */

struct bdrv_snapshot_info {
    const char *id;
    const char *name;
    uint64_t vm_state_bytes;
    uint64_t disk_bytes;
    uint32_t date_sec; /* since the epoch */
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t icount; /* UINT64_MAX: not recorded */
};
struct bdrv_snapshot_list {
    size_t count;
    struct bdrv_snapshot_info *snapshots; /* owned, with their strings */
};

/* info: name (may be empty), date, vm_clock, icount, vm_state_bytes are taken; id NULL makes the
 * next free number. -EEXIST: the id is taken; -EFBIG, -ENOSPC: too many. */
int bdrv_snapshot_create(BlockDriverState *bs, const struct bdrv_snapshot_info *info, Error **errp);
/* The disk becomes what it was; what it is now is lost. -ENOENT. */
int bdrv_snapshot_apply(BlockDriverState *bs, const char *id_or_name, Error **errp);
/* id or name may be NULL; where both are given both must fit. -ENOENT. */
int bdrv_snapshot_delete(BlockDriverState *bs, const char *id, const char *name, Error **errp);
int bdrv_snapshot_list(BlockDriverState *bs, struct bdrv_snapshot_list *ret_list, Error **errp);
void bdrv_snapshot_list_free(struct bdrv_snapshot_list *list);
/* Show a snapshot instead of the disk, on a read-only node, until it is closed. id or name may be
 * NULL, as above. Its size: platter_options.snapshots_fit_disk. */
int bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *id, const char *name, Error **errp);

/* ---- shape ---- */

/* Change options of the image (a driver's amend options, as at creation). options are owned, also
 * on failure. force: also what is not quite safe. */
int bdrv_amend(BlockDriverState *bs, BlockOptions *options, bool force,
               const struct bdrv_progress *progress, Error **errp);
/* What the image says of its backing file; NULL: none. The open backing node, if any, stays as it
 * is. The content of the overlay is not looked at. */
int bdrv_change_backing_file(BlockDriverState *bs, const char *backing_file,
                             const char *backing_format, Error **errp);
/* What the image says, or NULL. Borrowed until it changes. */
const char *bdrv_get_backing_file(const BlockDriverState *bs);
const char *bdrv_get_backing_format(const BlockDriverState *bs);
/* What a name of a backing file means in the image of bs: a relative path counts from the folder of
 * its own file, the rest stays as it is. malloc'd; NULL with errp: EINVAL (the image has no
 * folder), ENOMEM. Does not drain, opens nothing. */
char *bdrv_get_backing_path(BlockDriverState *bs, const char *name, Error **errp);
/* Make an overlay empty: everything reads from its backing file again (after a commit). */
int bdrv_make_empty(BlockDriverState *bs, Error **errp);

/* ---- facts ---- */

struct bdrv_measure_result {
    uint64_t required_bytes; /* file size of a new image that holds the same data */
    uint64_t fully_allocated_bytes;
    bool has_bitmaps;
    uint64_t bitmaps_bytes;
};
/* Size of a new image of a format. options (owned): the format's create options; size may be left
 * out when source is given. source (may be NULL): the disk it will hold. */
int bdrv_measure(Platter *pl, const char *format, BlockOptions *options, BlockDriverState *source,
                 struct bdrv_measure_result *ret_result, Error **errp);

/* ---- an image as a stream: all of its metadata, then its data in the order of the disk ---- */

/* What a unit of the disk (a cluster) is to be. */
enum bdrv_stream_unit {
    BDRV_STREAM_NONE = 0, /* not there: the backing file's, or zeroes */
    BDRV_STREAM_ZERO,     /* reads as zeroes */
    BDRV_STREAM_DATA,
};

struct bdrv_stream_layout {
    size_t size; /* sizeof(struct bdrv_stream_layout) */
    uint64_t disk_bytes;
    /* Of each unit, asked for several times. NULL: the options are judged, nothing is emitted. */
    enum bdrv_stream_unit (*unit)(void *opaque, uint64_t index);
    int (*emit)(void *opaque, const void *buf, size_t bytes); /* 0 or -errno, which ends it */
    void *opaque;
};

/* Emit the metadata of a new image whose data, the units that are DATA, whole and in ascending
 * order, is what follows in the same stream. options (owned): the format's create options, without
 * size. *ret_unit_bytes: a power of two. May be called in a coroutine; does not poll. -ENOTSUP: not
 * this format, or not with these options. */
int bdrv_stream_head(Platter *pl, const char *format, BlockOptions *options,
                     const struct bdrv_stream_layout *layout, uint32_t *ret_unit_bytes,
                     Error **errp);

/* The facts that only its format has ("format-specific" of `qemu-img info`) as JSON text, or NULL
 * when there are none. malloc'd. [control], does not drain. */
char *bdrv_get_specific_info(BlockDriverState *bs, Error **errp);

/* All that the metadata of an image says about it (format, sizes, features, references, tables,
 * snapshots, bitmaps) as JSON text, malloc'd, in bounded memory and time; NULL with errp. Only
 * filename itself is opened, read-only: nothing an image names. format NULL: guessed. */
char *bdrv_inspect(Platter *pl, const char *filename, const char *format, Error **errp);

#ifdef __cplusplus
}
#endif
#endif
