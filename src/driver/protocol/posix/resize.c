/* SPDX-License-Identifier: MIT */
/* Changing the size of a file, with the space reserved or written where that is asked for. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "os/full.h"
#include "os/os.h"
#include "posix.h"
#include "schema/opts.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/mem.h"

#define ZERO_PIECE_BYTES (UINT64_C(1) << 20)
#define ZERO_ALIGN 4096
#define INTERRUPTED_MAX 100 /* signals may come, but not for ever */

/* Write zeroes over [from, to), in bounded pieces; whole blocks of align. */
static int fill_zeroes(int fd, uint64_t from, uint64_t to, uint32_t align)
{
    uint8_t *zeroes;
    int rc = 0;

    if (posix_memalign((void **)&zeroes, align > ZERO_ALIGN ? align : ZERO_ALIGN,
                       ZERO_PIECE_BYTES) != 0) {
        return -ENOMEM;
    }
    memset(zeroes, 0, ZERO_PIECE_BYTES);
    /* The block that from lies in has space already. */
    for (uint64_t at = align_up(from, align); at < to && rc == 0;) {
        uint64_t len = min_u64(align_up(to, align) - at, ZERO_PIECE_BYTES);
        struct iovec iov = {zeroes, len};

        rc = os_pwritev_full(fd, &iov, 1, at, 0);
        at += len;
    }
    free(zeroes);
    return rc;
}

int posix_resize(int fd, uint64_t old_bytes, uint64_t new_bytes, enum bdrv_prealloc prealloc,
                 uint32_t align, const char **ret_step)
{
    int rc = os->ftruncate(fd, new_bytes);

    *ret_step = "Could not resize file";
    if (rc < 0 || new_bytes <= old_bytes) {
        return rc;
    }
    if (prealloc == BDRV_PREALLOC_FALLOC) {
        *ret_step = "Could not preallocate new data";
        rc = -EINTR;
        for (int i = 0; rc == -EINTR && i < INTERRUPTED_MAX; i++) {
            rc = os->fallocate(fd, 0, old_bytes, new_bytes - old_bytes);
        }
    } else if (prealloc == BDRV_PREALLOC_FULL) {
        *ret_step = "Could not write zeros for preallocation";
        rc = fill_zeroes(fd, old_bytes, new_bytes, align);
        if (rc == 0 && !is_aligned(new_bytes, align)) {
            rc = os->ftruncate(fd, new_bytes);
        }
    }
    if (rc < 0) {
        os->ftruncate(fd, old_bytes);
    }
    return rc;
}

struct resize_job {
    const struct posix_state *s;
    uint64_t new_bytes;
    enum bdrv_prealloc prealloc;
    const char *refused; /* why; NULL: it is not */
    const char *step;    /* that failed */
};

static int64_t resize_run(void *arg)
{
    struct resize_job *job = arg;
    struct stat st;
    int rc = os->fstat(job->s->fd, &st);

    if (rc < 0) {
        return rc;
    }
    if (job->prealloc != BDRV_PREALLOC_OFF && job->new_bytes < (uint64_t)st.st_size) {
        job->refused = "Cannot use preallocation for shrinking files";
        return -EINVAL;
    }
    if (job->prealloc == BDRV_PREALLOC_METADATA) {
        job->refused = "Unsupported preallocation mode: metadata";
        return -ENOTSUP;
    }
    return posix_resize(job->s->fd, (uint64_t)st.st_size, job->new_bytes, job->prealloc,
                        job->s->offset_align, &job->step);
}

static_assert((int)OPTS_PREALLOC_METADATA == (int)BDRV_PREALLOC_METADATA &&
                  (int)OPTS_PREALLOC_FALLOC == (int)BDRV_PREALLOC_FALLOC &&
                  (int)OPTS_PREALLOC_FULL == (int)BDRV_PREALLOC_FULL,
              "modes have one name");

static int device_truncate(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                           enum bdrv_prealloc prealloc, Error **errp)
{
    const struct posix_state *s = bdrv_opaque(bs);
    int64_t now = posix_getlength(bs);

    if (now < 0) {
        return error_set_errno(errp, (int)-now, "Could not tell the size of '%s'", s->filename);
    }
    if (prealloc != BDRV_PREALLOC_OFF) {
        return error_set(errp, ENOTSUP,
                         "Preallocation mode '%s' unsupported for this non-regular file",
                         opts_prealloc_str((enum opts_prealloc)prealloc));
    }
    if (exact && size_bytes != (uint64_t)now) {
        return error_set(errp, ENOTSUP, "Cannot resize device files");
    }
    if (size_bytes > (uint64_t)now) {
        return error_set(errp, EINVAL, "Cannot grow device files");
    }
    return 0;
}

int posix_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                      enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    struct posix_state *s = bdrv_opaque(bs);
    struct resize_job job = {
        .s = s, .new_bytes = size_bytes, .prealloc = prealloc, .step = "Could not resize file"};
    int rc;

    if (s->kind == POSIX_DEVICE) {
        return device_truncate(bs, size_bytes, exact, prealloc, errp);
    }
    atomic_fetch_add_explicit(&s->space_ops, 1, memory_order_relaxed);
    rc = (int)aio_worker_co(resize_run, &job);
    atomic_fetch_sub_explicit(&s->space_ops, 1, memory_order_relaxed);
    if (job.refused) {
        return error_set(errp, -rc, "%s", job.refused);
    }
    if (rc < 0) {
        error_set_errno(errp, -rc, "%s", job.step);
        error_set_hint(errp, "'%s' was to have %" PRIu64 " bytes", s->filename, size_bytes);
    }
    return rc < 0 ? rc : 0;
}
