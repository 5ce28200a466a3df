/* SPDX-License-Identifier: MIT */
/*
 * Opening, closing and reopening a file or block device: which flags, what is refused, which engine
 * carries its I/O.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"
#include "posix.h"
#include "schema/opts.h"
#include "util/error.h"

/* Refuse what is not of this kind: other things than disks may hang, or do something when they are
 * opened or read. */
static int check_kind(const struct stat *st, enum posix_kind kind, const char *path, Error **errp)
{
    if (kind == POSIX_FILE && !S_ISREG(st->st_mode)) {
        return error_set(errp, EINVAL, "'file' driver requires '%s' to be a regular file", path);
    }
    if (kind == POSIX_DEVICE && !S_ISBLK(st->st_mode) && !S_ISCHR(st->st_mode)) {
        return error_set(errp, EINVAL,
                         "'host_device' driver requires '%s' to be either a character or block "
                         "device",
                         path);
    }
    return 0;
}

/* What is no folder, which does nothing and may have a fault that is told before that it is one. */
static int check_no_folder(const struct stat *st, enum posix_kind kind, const char *path,
                           Error **errp)
{
    return S_ISDIR(st->st_mode) ? 0 : check_kind(st, kind, path, errp);
}

static int open_plain(Platter *pl, const char *path, int oflags, Error **errp)
{
    Error *err = NULL;
    int fd = bdrv_os_open(pl, path, oflags, 0, &err);
    bool by_name = strncmp(path, BDRV_FDSET_PREFIX, strlen(BDRV_FDSET_PREFIX)) != 0;

    if (fd == -EINVAL && (oflags & O_DIRECT) != 0 && by_name) {
        error_free(err);
        return error_set(errp, EINVAL, "Could not open '%s': filesystem does not support O_DIRECT",
                         path);
    }
    if (fd < 0) {
        error_propagate(errp, err);
    }
    return fd;
}

/* A descriptor in blocking mode, checked unless it is a folder's, or -errno. oflags: access mode
 * and O_DIRECT. */
static int open_checked(Platter *pl, enum posix_kind kind, const char *path, int oflags,
                        Error **errp)
{
    struct stat st;
    int fd, fl, want, rc;

    /* Before the open where the name can be looked at, because opening some devices is an act. */
    if (os->stat(path, &st) == 0) {
        rc = check_no_folder(&st, kind, path, errp);
        if (rc < 0) {
            return rc;
        }
    }
    fd = open_plain(pl, path, oflags | O_NONBLOCK, errp);
    if (fd < 0) {
        return fd;
    }
    rc = os->fstat(fd, &st);
    if (rc < 0) {
        error_set_errno(errp, -rc, "Could not look at '%s'", path);
        goto fail;
    }
    rc = check_no_folder(&st, kind, path, errp);
    if (rc < 0) {
        goto fail;
    }
    /* It loses the non-blocking mode again. Nothing else changes: a descriptor from outside may be
     * another node's as well. */
    fl = os->fcntl_getfl(fd);
    want = fl < 0 ? fl : (fl & ~(O_NONBLOCK | O_DIRECT)) | (oflags & O_DIRECT);
    rc = want < 0 || want == fl ? want : os->fcntl_setfl(fd, want);
    if (rc < 0) {
        error_set_errno(errp, -rc, "Could not set the flags of '%s'", path);
        goto fail;
    }
    return fd;

fail:
    os->close(fd);
    return rc;
}

static bool is_access_error(int rc)
{
    return rc == -EACCES || rc == -EROFS || rc == -EPERM;
}

/* Open as flags ask; *ret_writable says what it became. */
static int open_with_fallback(BlockDriverState *bs, enum posix_kind kind, const char *path,
                              int flags, bool *ret_writable, Error **errp)
{
    Platter *pl = bdrv_platter(bs);
    int direct = (flags & BDRV_O_NOCACHE) != 0 ? O_DIRECT : 0;
    bool writable = (flags & BDRV_O_RDWR) != 0;
    Error *err = NULL;
    int fd = open_checked(pl, kind, path, (writable ? O_RDWR : O_RDONLY) | direct, &err);

    if (is_access_error(fd) && writable && (flags & BDRV_O_AUTO_RDONLY) != 0) {
        int rc = bdrv_apply_auto_read_only(bs, error_get_pretty(err), errp);

        error_free(err);
        err = NULL;
        if (rc < 0) {
            return rc;
        }
        writable = false;
        fd = open_checked(pl, kind, path, O_RDONLY | direct, &err);
    }
    if (fd < 0) {
        error_propagate(errp, err);
        return fd;
    }
    *ret_writable = writable;
    return fd;
}

static int choose_engine(BlockDriverState *bs, struct posix_state *s,
                         const struct opts_node_file *opts, Error **errp)
{
    AioContext *ctx = platter_get_main_context(bdrv_platter(bs));

    s->engine = AIO_ENGINE_AUTO;
    if (!opts->has_aio) {
        return 0;
    }
    switch (opts->aio) {
    case OPTS_AIO_THREADS:
        s->engine = AIO_ENGINE_THREADS;
        break;
    case OPTS_AIO_IO_URING:
        s->engine = AIO_ENGINE_IO_URING;
        return aio_engine_probe(ctx, AIO_ENGINE_IO_URING, errp);
    case OPTS_AIO_NATIVE:
        if (!s->direct) {
            return error_set(
                errp, EINVAL,
                "aio=native was specified, but it requires cache.direct=on, which was not "
                "specified.");
        }
        /* The ring does what people ask of "native"; threads stand in where there is no ring. */
        s->engine = aio_engine_probe(ctx, AIO_ENGINE_IO_URING, NULL) == 0 ? AIO_ENGINE_IO_URING
                                                                          : AIO_ENGINE_THREADS;
        break;
    }
    return 0;
}

static int check_folder(const struct posix_state *s, Error **errp)
{
    struct stat st;
    int rc = os->fstat(s->fd, &st);

    return rc < 0 ? error_set_errno(errp, -rc, "Could not look at '%s'", s->filename)
                  : check_kind(&st, s->kind, s->filename, errp);
}

/* A file that has no end to be looked for (those of /proc) is not as empty as it says. */
static int check_end(const struct posix_state *s, Error **errp)
{
    int64_t end = s->kind == POSIX_FILE ? os->lseek(s->fd, 0, SEEK_END) : 0;

    return end < 0 ? error_set_errno(errp, (int)-end, "Could not find the end of '%s'", s->filename)
                   : 0;
}

/* All that follows once the descriptor is there. */
static int open_finish(BlockDriverState *bs, struct posix_state *s,
                       const struct opts_node_file *opts, Error **errp)
{
    bool off = opts->locking == OPTS_ON_OFF_AUTO_OFF;
    bool on = opts->locking == OPTS_ON_OFF_AUTO_ON;
    int rc = choose_engine(bs, s, opts, errp);

    rc = rc < 0 ? rc : check_folder(s, errp);
    rc = rc < 0 ? rc : check_end(s, errp);
    if (rc < 0) {
        return rc;
    }
    rc = posix_probe_limits(s, errp);
    if (rc < 0) {
        return rc;
    }
    return posix_locks_init(&s->locks, s->fd, on, off, s->filename, errp);
}

int posix_open(BlockDriverState *bs, BlockOptions *options, int flags, enum posix_kind kind,
               Error **errp)
{
    struct posix_state *s = bdrv_opaque(bs);
    struct opts_node_file opts;
    const char *name = block_options_get_str(options, "filename");
    int rc;

    if (!block_options_has(options, "filename") || (name != NULL && *name == '\0')) {
        error_set(errp, EINVAL, "The '%s' block driver requires a file name",
                  bdrv_get_format_name(bs));
        error_set_hint(errp, "It is the option 'filename'");
        return -EINVAL;
    }
    rc = opts_node_file_parse(options, &opts, errp);

    if (rc < 0) {
        return rc;
    }
    s->kind = kind;
    s->fd = -1;
    s->reopen_fd = -1;
    s->direct = (flags & BDRV_O_NOCACHE) != 0;
    s->filename = strdup(opts.filename);
    if (s->filename == NULL) {
        rc = error_set(errp, ENOMEM, "out of memory");
        goto out;
    }
    rc = open_with_fallback(bs, kind, s->filename, flags, &s->writable, errp);
    if (rc < 0) {
        goto out;
    }
    s->fd = rc;
    rc = open_finish(bs, s, &opts, errp);
    if (rc < 0) {
        goto out;
    }
    if (kind == POSIX_FILE) {
        enum posix_storage storage = posix_storage(s->fd);

        s->seek_inline = storage != POSIX_STORAGE_ANY;
        s->io_flags = !s->direct && storage == POSIX_STORAGE_MEMORY ? AIO_FILE_INLINE : 0;
    }
    bdrv_set_filename(bs, s->filename);
    bdrv_set_engine(bs, s->engine);

out:
    if (rc < 0) {
        posix_close(bs);
    }
    opts_node_file_fini(&opts);
    return rc < 0 ? rc : 0;
}

void posix_close(BlockDriverState *bs)
{
    struct posix_state *s = bdrv_opaque(bs);

    if (s->fd >= 0) {
        posix_locks_release(&s->locks, s->fd);
        os->close(s->fd);
    }
    s->fd = -1;
    free(s->filename);
    s->filename = NULL;
}

static bool same_file(int fd_a, int fd_b)
{
    struct stat a, b;

    return os->fstat(fd_a, &a) == 0 && os->fstat(fd_b, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino && a.st_rdev == b.st_rdev;
}

/* The file that is open, once more: one that has lost its name, as that of a temporary layer has,
 * is still there behind its descriptor. */
static int open_again(BlockDriverState *bs, int oflags, Error **errp)
{
    const struct posix_state *s = bdrv_opaque(bs);
    Error *err = NULL;
    int fd = open_checked(bdrv_platter(bs), s->kind, s->filename, oflags, &err);
    char path[32];

    if (fd == -ENOENT) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", s->fd);
        fd = open_checked(bdrv_platter(bs), s->kind, path, oflags, NULL);
        fd = fd < 0 ? -ENOENT : fd;
    }
    if (fd < 0) {
        error_propagate(errp, err);
    } else {
        error_free(err);
    }
    return fd;
}

int posix_reopen_prepare(BlockDriverState *bs, int new_flags, Error **errp)
{
    struct posix_state *s = bdrv_opaque(bs);
    bool direct = (new_flags & BDRV_O_NOCACHE) != 0;
    bool writable = (new_flags & BDRV_O_RDWR) != 0;
    int fd;

    s->reopen_fd = -1;
    if (direct == s->direct && writable == s->writable) {
        return 0;
    }
    fd = open_again(bs, (writable ? O_RDWR : O_RDONLY) | (direct ? O_DIRECT : 0), errp);
    if (fd < 0) {
        return fd;
    }
    if (!same_file(fd, s->fd)) {
        os->close(fd);
        return error_set(errp, ESTALE, "'%s' is another file by now than the one that is open",
                         s->filename);
    }
    s->reopen_fd = fd;
    s->reopen_direct = direct;
    s->reopen_writable = writable;
    return 0;
}

void posix_reopen_commit(BlockDriverState *bs)
{
    struct posix_state *s = bdrv_opaque(bs);

    if (s->reopen_fd < 0) {
        return;
    }
    if (posix_locks_move(&s->locks, s->reopen_fd) < 0) {
        bdrv_mark_broken(bs, "'%s': the image locks could not be kept over a reopen", s->filename);
    }
    posix_locks_release(&s->locks, s->fd);
    os->close(s->fd);
    s->fd = s->reopen_fd;
    s->reopen_fd = -1;
    s->direct = s->reopen_direct;
    s->writable = s->reopen_writable;
    atomic_store(&s->flush_failed, false);
    if (posix_probe_limits(s, NULL) < 0) {
        bdrv_mark_broken(bs, "'%s': its alignment is not known after a reopen", s->filename);
    }
}

void posix_reopen_abort(BlockDriverState *bs)
{
    struct posix_state *s = bdrv_opaque(bs);

    if (s->reopen_fd >= 0) {
        os->close(s->reopen_fd);
    }
    s->reopen_fd = -1;
}
