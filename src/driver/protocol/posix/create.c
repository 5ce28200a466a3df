/* SPDX-License-Identifier: MIT */
/* Creating image files. A file that is there already is emptied only when nobody uses it. Reserving
 * or writing its space may take long, so a worker thread does that while the loop of the control
 * thread is polled. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>

#include "loop/context.h"
#include "os/os.h"
#include "posix.h"
#include "schema/opts.h"
#include "util/error.h"

static const enum bdrv_prealloc prealloc_of[] = {
    [OPTS_PREALLOC_OFF] = BDRV_PREALLOC_OFF,
    [OPTS_PREALLOC_METADATA] = BDRV_PREALLOC_METADATA,
    [OPTS_PREALLOC_FALLOC] = BDRV_PREALLOC_FALLOC,
    [OPTS_PREALLOC_FULL] = BDRV_PREALLOC_FULL,
};

/* Wishes that a file system may not know; not granting them is no failure. */
static void ask_no_copy_on_write(int fd)
{
#ifdef FS_NOCOW_FL
    int attr;

    if (os->ioctl(fd, FS_IOC_GETFLAGS, &attr) == 0) {
        attr |= FS_NOCOW_FL;
        os->ioctl(fd, FS_IOC_SETFLAGS, &attr);
    }
#endif
}

static void ask_extent_size(int fd, uint64_t bytes)
{
#ifdef FS_IOC_FSSETXATTR
    struct fsxattr attr;

    if (bytes > 0 && os->ioctl(fd, FS_IOC_FSGETXATTR, &attr) == 0) {
        attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
        attr.fsx_extsize = (uint32_t)bytes;
        os->ioctl(fd, FS_IOC_FSSETXATTR, &attr);
    }
#endif
}

/* A new file, or the one that is there, checked. */
static int open_for_create(Platter *pl, const char *path, bool *ret_is_new, Error **errp)
{
    struct stat st;
    int fd, rc;

    fd = bdrv_os_open(pl, path, O_RDWR | O_CREAT | O_EXCL, 0644, NULL);
    *ret_is_new = fd >= 0;
    if (fd >= 0) {
        return fd;
    }
    fd = bdrv_os_open(pl, path, O_RDWR | O_CREAT | O_NONBLOCK, 0644, errp);
    if (fd < 0) {
        return fd;
    }
    rc = os->fstat(fd, &st);
    if (rc == 0 && !S_ISREG(st.st_mode)) {
        rc = error_set(errp, EINVAL, "'file' driver requires '%s' to be a regular file", path);
    } else if (rc < 0) {
        error_set_errno(errp, -rc, "Could not look at '%s'", path);
    }
    if (rc < 0) {
        os->close(fd);
        return rc;
    }
    return fd;
}

struct fill_job {
    int fd;
    const struct opts_create_file *opts;
    const char *step; /* that failed */
    int rc;
    bool done;
};

static int64_t fill_run(void *arg)
{
    struct fill_job *job = arg;
    int rc = os->ftruncate(job->fd, 0);

    if (rc < 0) {
        return rc;
    }
    if (job->opts->nocow) {
        ask_no_copy_on_write(job->fd);
    }
    if (job->opts->has_extent_size_hint) {
        ask_extent_size(job->fd, job->opts->extent_size_hint);
    }
    return posix_resize(job->fd, 0, job->opts->size, prealloc_of[job->opts->preallocation], 1,
                        &job->step);
}

static void fill_entry(void *opaque)
{
    struct fill_job *job = opaque;

    job->rc = (int)aio_worker_co(fill_run, job);
    job->done = true;
}

static bool fill_pending(void *opaque)
{
    const struct fill_job *job = opaque;

    return !job->done;
}

static int fill_file(int fd, const char *path, const struct opts_create_file *opts, Error **errp)
{
    struct fill_job job = {.fd = fd, .opts = opts, .step = "Could not resize file"};
    Coroutine *co = coroutine_create(fill_entry, &job);

    if (co == NULL) {
        return error_set(errp, ENOMEM, "out of memory for making '%s'", path);
    }
    coroutine_enter(co);
    aio_wait_while(aio_context_current(), fill_pending, &job);
    if (job.rc < 0) {
        error_set_errno(errp, -job.rc, "%s", job.step);
        error_set_hint(errp, "'%s' was to have %" PRIu64 " bytes", path, opts->size);
        return job.rc;
    }
    return 0;
}

static int create_locked(Platter *pl, const char *path, const struct opts_create_file *opts,
                         Error **errp)
{
    struct posix_locks locks;
    bool is_new;
    int fd = open_for_create(pl, path, &is_new, errp);
    int rc;

    if (fd < 0) {
        return fd;
    }
    rc = posix_locks_init(&locks, fd, false, false, path, errp);
    if (rc == 0) {
        rc = posix_locks_check(&locks, fd, path, BDRV_PERM_WRITE | BDRV_PERM_RESIZE,
                               BDRV_PERM_ALL & ~BDRV_PERM_RESIZE, errp);
    }
    if (rc == 0) {
        rc = fill_file(fd, path, opts, errp);
        if (rc < 0 && is_new) {
            os->unlink(path);
        }
    }
    os->close(fd); /* ends the locks */
    return rc;
}

int posix_create_file(Platter *pl, const char *filename, BlockOptions *options, Error **errp)
{
    struct opts_create_file opts;
    int rc = opts_create_file_parse(options, &opts, errp);

    if (rc < 0) {
        return rc;
    }
    if (opts.preallocation == OPTS_PREALLOC_METADATA) {
        rc = error_set(errp, ENOTSUP, "Unsupported preallocation mode: metadata");
    } else if (opts.extent_size_hint > UINT32_MAX) {
        rc = error_set(errp, EINVAL, "Extent size hint is too large");
    } else {
        rc = create_locked(pl, filename, &opts, errp);
    }
    opts_create_file_fini(&opts);
    return rc;
}

/* A link to nothing is something: it stays, and so does what is made behind it, since where a link
 * leads may be another's to say. */
bool posix_create_is_new(const char *filename)
{
    struct stat st;
    char target[1];

    return os->stat(filename, &st) == -ENOENT && os->readlink(filename, target, sizeof(target)) < 0;
}

void posix_create_undo(const char *filename)
{
    (void)os->unlink(filename); /* the failure that it follows is what is told */
}
