/* SPDX-License-Identifier: MIT */
/*
 * The kinds of jobs, and how each is started (platter/job.h steers them). All calls are [control].
 * A job that could not be started is NULL with errp: EINVAL (the id is not well formed), EEXIST (it
 * is taken), EBUSY (another of its transaction failed), ENOMEM, and what the kind says. It is the
 * registry's; job_ref to keep it.
 */
#ifndef PLATTER_JOBS_H
#define PLATTER_JOBS_H

#include <platter/backend.h>
#include <platter/image.h>
#include <platter/job.h>

#ifdef __cplusplus
extern "C" {
#endif

struct job_start {
    const char *id;
    JobTxn *txn;    /* NULL: by itself */
    unsigned flags; /* enum job_flags */
    /* Told in the loop of the job how far it is, each time that this changes. Borrowed during the
     * call; it must not call into the job. NULL: nobody. */
    const struct bdrv_progress *progress;
};

/* Create an image: of a file name, or (file_node not NULL, formats only) on an open node, which is
 * looked up when the work begins. options (owned, also on failure): driver and its create options.
 * The job cannot be paused once it works. */
Job *job_create_start(Platter *pl, const struct job_start *start, const char *filename,
                      const char *file_node, BlockOptions *options, Error **errp);
/* Change options of an image, as bdrv_amend does. options: owned, also on failure. */
Job *job_amend_start(Platter *pl, const struct job_start *start, BlockDriverState *bs,
                     BlockOptions *options, bool force, Error **errp);

/* Write what the layers of an image hold into the file that they stand on. */
struct job_commit_options {
    size_t size;                 /* sizeof(struct job_commit_options) */
    BlockBackend *const *layers; /* the uppermost first, each open without its backing file */
    size_t layers_count;         /* at least one */
    BlockBackend *base;          /* writable; grows to the size of the uppermost layer */
    uint64_t bytes_per_second;   /* 0: no limit; job_set_speed changes it */
    enum job_on_error on_error;  /* what is tried again is the same part of the disk */
    bool empty_top;              /* the only layer, writable, is emptied at the end */
};
/* The job "commit", in bytes of the disk. It copies, makes the base durable, and at its end empties
 * the layer: cut off or failed at any time, the disk reads as before. It keeps its own references.
 * Meanwhile nobody else may write to the disks, their own backends neither (EPERM); should one get
 * another medium, the job goes on with the one it began with. Also EINVAL (empty_top with several
 * layers), ENOMEDIUM, EBUSY (other jobs use the disks), EPERM (others write to them). */
Job *job_commit_start(Platter *pl, const struct job_start *start,
                      const struct job_commit_options *options, Error **errp);

/* Put an image on another backing file. */
struct job_rebase_options {
    size_t size;           /* sizeof(struct job_rebase_options) */
    BlockBackend *overlay; /* over the old chain; writable */
    BlockBackend *base;    /* the new backing file with its chain; NULL: none, zeroes */
    /* Where the new one stands in the old chain as block status counts (2: the old backing file
     * itself): what it or those below it decide is the same. 0: not in it. */
    int shared_depth;
    const char *backing_file;   /* what the image will say; NULL: none */
    const char *backing_format; /* NULL: nothing */
    bool unsafe;                /* only that; nothing is looked at or copied */
    uint64_t bytes_per_second;  /* 0: no limit; job_set_speed changes it */
    enum job_on_error on_error; /* what is tried again is the same part of the disk */
};
/* The job "rebase", in bytes of the disk. What the disk would lose, or show differently, is copied
 * into the image and made durable; at its end the image names the new backing file. Cut off or
 * failed at any time, the disk reads as before. It keeps its own references, and others off the
 * disks, as a commit does; several may read the same base. */
Job *job_rebase_start(Platter *pl, const struct job_start *start,
                      const struct job_rebase_options *options, Error **errp);

/* Give space back in place. */
struct job_compact_result {
    uint64_t file_bytes_before; /* length of the image's own file */
    uint64_t file_bytes_after;
    uint64_t allocated_bytes_before; /* what all its files take of their storage; UINT64_MAX: that
                                      * is not known */
    uint64_t allocated_bytes_after;
    uint64_t zeroed_bytes;  /* of the disk, that held zeroes as data and holds none now */
    uint64_t dropped_bytes; /* of the disk, that are the backing file's now */
    uint64_t leaked_bytes;  /* of the file, that nothing referred to */
    uint64_t moved_bytes;   /* of the file, nearer to its start */
};
struct job_compact_options {
    size_t size;                /* sizeof(struct job_compact_options) */
    BlockBackend *disk;         /* nobody else may use its medium meanwhile, nor may itself */
    bool keep_zeroes;           /* data is not looked at: zeroes stay what they are */
    bool drop_same;             /* clusters that hold what the backing file does are dropped */
    bool dry_run;               /* only tell, about, what would be; the disk may be read-only */
    uint64_t bytes_per_second;  /* read and moved; 0: no limit; job_set_speed changes it */
    enum job_on_error on_error; /* what is tried again is the same step */
    struct job_compact_result *result; /* filled at the end; borrowed until then; may be NULL */
};
/* The job "compact", in bytes read and moved. Data that reads as zeroes is let go, where it can be
 * said without it; then what the files of the image hold without need: unused clusters, and the end
 * of the file, by moving what is there. The disk, its snapshots, dirty bitmaps and chain stay what
 * they are. Cancelled, failed or cut off at any time, the image is whole; a cut may leave leaks.
 * Also EPERM (it is read-only, or somebody else uses it), ENOTSUP (drop_same without a backing
 * file). */
Job *job_compact_start(Platter *pl, const struct job_start *start,
                       const struct job_compact_options *options, Error **errp);

#ifdef __cplusplus
}
#endif
#endif
