/* SPDX-License-Identifier: MIT */
/*
 * Write zeroes and discard. What a file system or device turns out not to know is remembered per
 * node, so that it is asked once.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include "os/os.h"
#include "posix.h"

static bool unsupported(int rc)
{
    return rc == -EOPNOTSUPP || rc == -ENOTSUP || rc == -ENOSYS || rc == -ENOTTY;
}

/* 0, -ENOTSUP or the error. known_not: what is remembered; NULL: nothing. */
static int fallocate_co(struct posix_state *s, int mode, uint64_t offset, uint64_t bytes,
                        _Atomic bool *known_not)
{
    struct aio_file_io io = {
        .op = AIO_FILE_FALLOCATE,
        .engine = s->engine,
        .fd = s->fd,
        .flags = s->io_flags,
        .arg = mode,
        .offset = offset,
        .bytes = bytes,
    };
    int rc;

    if (known_not != NULL && atomic_load_explicit(known_not, memory_order_relaxed)) {
        return -ENOTSUP;
    }
    atomic_fetch_add_explicit(&s->space_ops, 1, memory_order_relaxed);
    rc = (int)aio_file_co(&io);
    atomic_fetch_sub_explicit(&s->space_ops, 1, memory_order_relaxed);
    if (unsupported(rc)) {
        if (known_not != NULL) {
            atomic_store_explicit(known_not, true, memory_order_relaxed);
        }
        return -ENOTSUP;
    }
    /* EINVAL: this range or file cannot; another may. */
    return rc == -EINVAL ? -ENOTSUP : rc;
}

static int punch_hole_co(struct posix_state *s, uint64_t offset, uint64_t bytes)
{
    return fallocate_co(s, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes,
                        &s->no_punch_hole);
}

struct ioctl_range {
    int fd;
    unsigned long request;
    uint64_t range[2]; /* offset, bytes: as the kernel wants it */
};

static int64_t ioctl_range_run(void *arg)
{
    struct ioctl_range *job = arg;

    return os->ioctl(job->fd, job->request, job->range);
}

static int ioctl_range_co(const struct posix_state *s, unsigned long request, uint64_t offset,
                          uint64_t bytes)
{
    struct ioctl_range job = {s->fd, request, {offset, bytes}};
    int rc = (int)aio_worker_co(ioctl_range_run, &job);

    return unsupported(rc) ? -ENOTSUP : rc;
}

/* A device that cannot zero by itself is written to by the kernel; under NO_FALLBACK only what is
 * sure to be quick is tried. */
static int device_zeroes_co(struct posix_state *s, uint64_t offset, uint64_t bytes, unsigned flags)
{
    int rc = -ENOTSUP;

    if ((flags & BDRV_REQ_MAY_UNMAP) != 0) {
        rc = punch_hole_co(s, offset, bytes);
    }
    if (rc == -ENOTSUP && (flags & BDRV_REQ_NO_FALLBACK) == 0) {
        rc = ioctl_range_co(s, BLKZEROOUT, offset, bytes);
    }
    return rc;
}

int posix_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct posix_state *s = bdrv_opaque(bs);
    bool inside = (int64_t)(offset + bytes) <= bdrv_getlength(bs);
    int rc = -ENOTSUP;

    if (s->kind == POSIX_DEVICE) {
        return device_zeroes_co(s, offset, bytes, flags);
    }
    /* A hole does not make the file longer, so it cannot stand for a write past the end. */
    if (inside && (flags & BDRV_REQ_MAY_UNMAP) != 0) {
        rc = punch_hole_co(s, offset, bytes);
    }
    if (rc == -ENOTSUP) {
        rc = fallocate_co(s, FALLOC_FL_ZERO_RANGE, offset, bytes, &s->no_zero_range);
    }
    if (rc == -ENOTSUP && inside && (flags & BDRV_REQ_NO_FALLBACK) == 0) {
        /* Space that reads as zeroes in two steps; in between it is a hole that does so too. */
        rc = punch_hole_co(s, offset, bytes);
        if (rc == 0) {
            rc = fallocate_co(s, 0, offset, bytes, NULL);
        }
    }
    return rc;
}

static int discard_co(struct posix_state *s, uint64_t offset, uint64_t bytes)
{
    int rc;

    if (s->kind == POSIX_FILE) {
        return punch_hole_co(s, offset, bytes);
    }
    if (atomic_load_explicit(&s->no_discard, memory_order_relaxed)) {
        return -ENOTSUP;
    }
    rc = ioctl_range_co(s, BLKDISCARD, offset, bytes);
    if (rc == -ENOTSUP) {
        atomic_store_explicit(&s->no_discard, true, memory_order_relaxed);
    }
    return rc;
}

int posix_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    struct posix_state *s = bdrv_opaque(bs);
    int rc = discard_co(s, offset, bytes);

    if (rc < 0) {
        atomic_fetch_add_explicit(&s->discards_failed, 1, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(&s->discards_ok, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&s->discards_ok_bytes, bytes, memory_order_relaxed);
    }
    return rc;
}

void posix_get_discard_stats(BlockDriverState *bs, struct bdrv_discard_stats *ret_stats)
{
    const struct posix_state *s = bdrv_opaque(bs);

    *ret_stats = (struct bdrv_discard_stats){
        .ok = atomic_load_explicit(&s->discards_ok, memory_order_relaxed),
        .failed = atomic_load_explicit(&s->discards_failed, memory_order_relaxed),
        .ok_bytes = atomic_load_explicit(&s->discards_ok_bytes, memory_order_relaxed),
    };
}
