/* SPDX-License-Identifier: MIT */
/* Creating image files. A file that is there already is emptied only when nobody uses it. Reserving
 * or writing its space may take long, so a worker thread does that while the loop of the control
 * thread is polled. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

#include "loop/context.h"
#include "os/os.h"
#include "posix.h"
#include "schema/opts.h"
#include "util/error.h"

#define LINKS_MAX 40 /* as the kernel */
#define LINK_BYTES_MAX 4095

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

/* A link's target, seen from where the link is seen from. */
static char *path_beside(const char *link, const char *target)
{
    const char *slash = strrchr(link, '/');
    size_t dir_len = target[0] != '/' && slash != NULL ? (size_t)(slash - link) + 1 : 0;
    char *path = malloc(dir_len + strlen(target) + 1);

    if (path != NULL) {
        memcpy(path, link, dir_len);
        memcpy(path + dir_len, target, strlen(target) + 1);
    }
    return path;
}

/* Where path leads by links of its last component, also where nothing is. NULL: no memory, or round
 * and round. */
static char *behind_links(const char *path)
{
    char *at = strdup(path);

    for (unsigned links = 0; at != NULL && links < LINKS_MAX; links++) {
        char target[LINK_BYTES_MAX + 1];
        int64_t len = os->readlink(at, target, LINK_BYTES_MAX);
        char *next;

        if (len < 0) {
            return at;
        }
        target[len] = '\0';
        next = path_beside(at, target);
        free(at);
        at = next;
    }
    free(at);
    return NULL;
}

/* The file, not a link that leads to it. */
static void unlink_file(const char *path)
{
    char *at = behind_links(path);

    if (at != NULL) {
        (void)os->unlink(at); /* a failure before it is what is told */
    }
    free(at);
}

/* A new file, or the one that is there, checked. */
static int open_for_create(Platter *pl, const char *path, bool *ret_is_new, Error **errp)
{
    char *at = behind_links(path); /* exclusively a link is not followed */
    struct stat st;
    int fd, rc;

    fd = at != NULL ? bdrv_os_open(pl, at, O_RDWR | O_CREAT | O_EXCL, 0644, NULL) : -ENOMEM;
    free(at);
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
    int rc;
    bool done;
};

static int64_t fill_run(void *arg)
{
    const struct fill_job *job = arg;
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
    return posix_resize(job->fd, 0, job->opts->size, prealloc_of[job->opts->preallocation], 1);
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
    struct fill_job job = {.fd = fd, .opts = opts};
    Coroutine *co = coroutine_create(fill_entry, &job);

    if (co == NULL) {
        return error_set(errp, ENOMEM, "out of memory for making '%s'", path);
    }
    coroutine_enter(co);
    aio_wait_while(aio_context_current(), fill_pending, &job);
    if (job.rc < 0) {
        return error_set_errno(errp, -job.rc, "Could not make '%s' %" PRIu64 " bytes large", path,
                               opts->size);
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
            unlink_file(path);
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

bool posix_create_is_new(const char *filename)
{
    struct stat st;

    return os->stat(filename, &st) == -ENOENT;
}

void posix_create_undo(const char *filename)
{
    unlink_file(filename);
}
