/* SPDX-License-Identifier: MIT */
/*
 * The job "convert": copy what one disk holds, or several one behind the other, to another disk.
 * Block status of the sources says where there is something to copy; several pieces are read and
 * written at a time. Every call is [control].
 */
#ifndef PLATTER_CONVERT_H
#define PLATTER_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/backend.h>
#include <platter/image.h>
#include <platter/job.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CONVERT_COROUTINES_MAX 16
#define CONVERT_COROUTINES 8                          /* when nothing else is asked for */
#define CONVERT_SPARSE_BYTES_MAX (UINT64_C(16) << 20) /* 16 MiB */
#define CONVERT_SPARSE_BYTES 4096                     /* what is usual */
/* Each source is filled up with zeroes to a multiple of it in an instance of whole sectors
 * (platter_options); elsewhere the last one, if the target has whole sectors itself, as qcow2. */
#define CONVERT_SECTOR_BYTES 512

struct convert_source {
    BlockBackend *blk;
    uint64_t offset;
    uint64_t bytes; /* from offset on, inside the disk */
};

enum convert_plan {
    CONVERT_PLAN_NONE = 0, /* stays as it is: the backing file's, or zeroes */
    CONVERT_PLAN_ZERO,
    CONVERT_PLAN_DATA,
};

/* A target that is no disk: it takes all data once, in ascending order. Coroutine calls, of the
 * job's context; 0, or -errno, which fails the job (with errp). */
struct convert_sink {
    uint64_t
        unit_bytes; /* power of two; what is planned and written is whole units, but the last */
    /* What will come; NULL: it need not be known, and the sources are looked at only once. */
    int (*plan)(void *opaque, uint64_t offset, uint64_t bytes, enum convert_plan plan);
    int (*begin_co)(void *opaque, Error **errp); /* all is planned */
    /* Called before the call for what is in front of it has returned, never before it began. */
    int (*write_co)(void *opaque, uint64_t offset, const void *buf, uint64_t bytes);
    int (*end_co)(void *opaque, Error **errp);
    void *opaque;
};

/* A source that is no disk: it gives its bytes once. */
struct convert_feed {
    /* The next bytes: how many, 0 at the end, or -errno. Coroutine. */
    int64_t (*read_co)(void *opaque, void *buf, size_t bytes);
    uint64_t bytes; /* what it must give, no more and no less; 0: whatever comes */
    void *opaque;
};

struct convert_options {
    size_t size;                          /* sizeof(struct convert_options) */
    const struct convert_source *sources; /* borrowed during the call; at least one */
    size_t sources_count;
    BlockBackend *target; /* at least as large as the sources together */
    /* Instead of target; borrowed until the job is dismissed. Goes with neither compressed nor
     * copy_offload; all data is written, zeroes in it too. */
    const struct convert_sink *sink;
    /* Instead of sources; borrowed likewise. The target, which must be allowed to change its size,
     * gets that of what came, filled up as a source is; there is no backing file. A sink gets all
     * of it as data and plans nothing. */
    const struct convert_feed *feed;
    /* So many zero bytes are not written as data; 0: everything is, holes of the sources too. A
     * multiple of CONVERT_SECTOR_BYTES, at most CONVERT_SPARSE_BYTES_MAX. */
    uint64_t sparse_bytes;
    uint64_t bytes_per_second; /* 0: no limit; job_set_speed changes it */
    /* Of buffers and compressors at a time, and of the tables that the disks keep; 0: what suits.
     */
    uint64_t memory_max_bytes;
    uint64_t memory_disks_bytes; /* what of it those tables may take, as the disks were told */
    unsigned coroutines;         /* pieces at a time, 1 .. CONVERT_COROUTINES_MAX; 0: the usual */
    /* The target has a backing file of backing_bytes that holds what the source has below its first
     * own_layers layers: only what those hold is copied. Where the source has no layer below them,
     * or one that ends earlier, it has zeroes. 0: no backing file. One source then. */
    unsigned own_layers;
    uint64_t backing_bytes;
    bool target_is_zero; /* and need not be made so; with a backing file: behind its end */
    bool compressed;     /* write compressed clusters */
    bool copy_offload;   /* let the storage copy by itself where it can */
    /* A write may begin before those of lower offsets have, and get its room in the file before
     * them; else the same sources make the same file. */
    bool out_of_order;
    bool salvage;     /* what cannot be read becomes zeroes */
    bool count_first; /* look at all extents before the first is copied, so that the progress
                       * counts what is copied; else it counts the bytes of the disk */
    /* To go on after an interruption: a convert of the same sources and options with checkpoints
     * got as far as start (0: it is the first), and the target is the same; target_is_zero is what
     * was told with start. After each checkpoint_bytes (0: no checkpoints) and at the beginning,
     * what was copied before offset is flushed and told. Not with a feed or a sink. Coroutine; 0,
     * or -errno, which fails the job. */
    uint64_t start;
    uint64_t checkpoint_bytes;
    int (*checkpoint)(void *opaque, uint64_t offset, bool target_is_zero);
    /* Told in the loop of the job how far it is. Borrowed during the call; it must not call into
     * the job. NULL: nobody. */
    const struct bdrv_progress *progress;
    /* With salvage, for each sector of the target that was lost; may be NULL. Loop of the job. */
    void (*lost)(void *opaque, uint64_t offset, int error);
    void *opaque;
};

/* The size of a raw disk that holds the sources; UINT64_MAX: it is too large. */
uint64_t convert_total_bytes(const struct convert_source *sources, size_t count);

/* Whether memory_max_bytes is enough where the target (which options need not have) is still to be
 * made: target_bytes is what it will give room in, its clusters with compressed. 0; -ENOMEM with
 * errp. */
int convert_judge_memory(const struct convert_options *options, uint64_t target_bytes,
                         Error **errp);

/* A job that runs; it keeps its own references to the backends. flags: enum job_flags; without
 * JOB_MANUAL_DISMISS it may be gone when this returns. When it
 * ends well the target holds everything, flushed as far as its cache mode wants. When it fails or
 * is cancelled the target holds any part. Sources are only read.
 * NULL with errp: EINVAL (options that do not go together, a target that is too small), ENOTSUP
 * (compressed, and the target cannot), ENOMEM (also: memory_max_bytes is less than one piece
 * needs), those of job_create. */
Job *convert_start(Platter *pl, const char *id, const struct convert_options *options,
                   unsigned flags, Error **errp);

#ifdef __cplusplus
}
#endif
#endif
