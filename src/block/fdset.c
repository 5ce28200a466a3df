/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that the host gave the instance, and the opening of paths: "/dev/fdset/N" is the file
 * of a descriptor of set N whose access mode fits, every other path goes to the system.
 *
 * The file is opened anew through /proc/self/fd, so that each node has status flags and image locks
 * of its own. Where that is not possible (no /proc, a file that this process may not open) it is a
 * duplicate, which shares both with the descriptor it came from: then direct I/O must be as the
 * host chose it, since changing it would change it under every other user, and the locks end with
 * the last duplicate. Either way a set can be removed while nodes use its files.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "os/os.h"
#include "util/error.h"

/* Status flags that no user of a shared descriptor wants otherwise than the next. */
#define PLAIN_FLAGS (O_APPEND | O_NOATIME | O_NONBLOCK)
/* What of the flags of an open means a descriptor that exists. */
#define REOPEN_FLAGS (O_ACCMODE | O_DIRECT | PLAIN_FLAGS)
#define OPEN_TRIES 100

struct instance_fd {
    struct instance_fd *next;
    int64_t set;
    int fd; /* owned */
    int access_mode;
};

int platter_add_fd(Platter *pl, int64_t set, int fd, Error **errp)
{
    struct instance_fd *entry;
    int flags;

    assert(instance_in_control_thread(pl));
    flags = fd < 0 ? -EBADF : os->fcntl_getfl(fd);
    if (flags < 0) {
        if (flags != -EBADF) { /* open, and ours in any case */
            os->close(fd);
        }
        return error_set(errp, EINVAL, "descriptor %d is not open", fd);
    }
    if (set < 0) {
        os->close(fd);
        return error_set(errp, EINVAL, "descriptor set %lld: the number must not be negative",
                         (long long)set);
    }
    entry = malloc(sizeof(*entry));
    if (entry == NULL) {
        os->close(fd);
        return error_set(errp, ENOMEM, "out of memory for descriptor set %lld", (long long)set);
    }
    *entry = (struct instance_fd){
        .next = pl->fds,
        .set = set,
        .fd = fd,
        .access_mode = flags & O_ACCMODE,
    };
    pl->fds = entry;
    return 0;
}

/* Close what is in the set: all, or (only >= 0) one of it. */
static bool remove_fds(Platter *pl, int64_t set, int only)
{
    struct instance_fd **link = &pl->fds;
    bool found = false;

    assert(instance_in_control_thread(pl));
    while (*link != NULL) {
        struct instance_fd *entry = *link;

        if (entry->set != set || (only >= 0 && entry->fd != only)) {
            link = &entry->next;
            continue;
        }
        *link = entry->next;
        os->close(entry->fd);
        free(entry);
        found = true;
    }
    return found;
}

int platter_remove_fd(Platter *pl, int64_t set, Error **errp)
{
    if (!remove_fds(pl, set, -1)) {
        return error_set(errp, ENOENT, "there is no descriptor set %lld", (long long)set);
    }
    return 0;
}

int platter_remove_one_fd(Platter *pl, int64_t set, int fd)
{
    return remove_fds(pl, set, fd) ? 0 : -ENOENT;
}

void instance_fds_free(Platter *pl)
{
    while (pl->fds != NULL) {
        struct instance_fd *entry = pl->fds;

        pl->fds = entry->next;
        os->close(entry->fd);
        free(entry);
    }
}

/* Number behind the prefix, or -1. */
static int64_t set_number(const char *text)
{
    int64_t set = 0;

    if (*text == '\0') {
        return -1;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(set, 10, &set) ||
            __builtin_add_overflow(set, *text - '0', &set)) {
            return -1;
        }
    }
    return set;
}

static bool same_file(int fd_a, int fd_b)
{
    struct stat a, b;

    return os->fstat(fd_a, &a) == 0 && os->fstat(fd_b, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino && a.st_rdev == b.st_rdev;
}

/* Signals may interrupt an open, but not for ever. */
static int open_path(const char *path, int flags, int mode)
{
    int fd = -EINTR;

    for (int i = 0; fd == -EINTR && i < OPEN_TRIES; i++) {
        fd = os->open(path, flags, (mode_t)mode);
    }
    return fd;
}

/* The file of a descriptor, opened anew; -errno where that is not possible. */
static int fd_open_anew(int old, int flags)
{
    char path[32];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", old);
    fd = open_path(path, flags & REOPEN_FLAGS, 0);
    if (fd >= 0 && !same_file(fd, old)) {
        os->close(fd);
        return -ENOENT;
    }
    return fd;
}

static int fd_duplicate(int old, const char *path, int flags, Error **errp)
{
    int now, rc;
    int fd = os->dup(old);

    if (fd < 0) {
        return error_set_errno(errp, -fd, "Could not duplicate a descriptor of '%s'", path);
    }
    now = os->fcntl_getfl(fd);
    if (now >= 0 && ((now ^ flags) & O_DIRECT) != 0) {
        os->close(fd);
        error_set(errp, EINVAL,
                  "Could not open '%s' with cache.direct=%s: its descriptor cannot be "
                  "opened anew",
                  path, (flags & O_DIRECT) != 0 ? "on" : "off");
        error_set_hint(errp, "Give a descriptor that was opened %s O_DIRECT",
                       (flags & O_DIRECT) != 0 ? "with" : "without");
        return -EINVAL;
    }
    rc = now;
    if (now >= 0 && ((now ^ flags) & PLAIN_FLAGS) != 0) {
        rc = os->fcntl_setfl(fd, (now & ~PLAIN_FLAGS) | (flags & PLAIN_FLAGS));
    }
    if (rc < 0) {
        os->close(fd);
        return error_set_errno(errp, -rc, "Could not set the status flags of '%s'", path);
    }
    return fd;
}

static int fdset_open(Platter *pl, const char *path, int flags, Error **errp)
{
    static const char *const mode_names[] = {"read-only", "write-only", "read-write"};
    int64_t set = set_number(path + strlen(BDRV_FDSET_PREFIX));
    bool found = false;

    for (struct instance_fd *e = pl->fds; e != NULL && set >= 0; e = e->next) {
        int fd;

        if (e->set != set) {
            continue;
        }
        found = true;
        if (e->access_mode != (flags & O_ACCMODE)) {
            continue;
        }
        fd = fd_open_anew(e->fd, flags);
        return fd >= 0 ? fd : fd_duplicate(e->fd, path, flags, errp);
    }
    if (!found) {
        error_set(errp, ENOENT, "Could not open '%s': there is no such descriptor set", path);
        error_set_hint(errp, "Give the descriptor to the instance first");
        return -ENOENT;
    }
    return error_set(errp, EACCES, "Could not open '%s': the set has no %s descriptor", path,
                     mode_names[(flags & O_ACCMODE) % 3]);
}

int bdrv_os_open(Platter *pl, const char *path, int flags, int mode, Error **errp)
{
    int fd, rc;

    if (strncmp(path, BDRV_FDSET_PREFIX, strlen(BDRV_FDSET_PREFIX)) == 0) {
        return fdset_open(pl, path, flags, errp);
    }
    fd = open_path(path, flags, mode);
    if (fd < 0) {
        return error_set_errno(errp, -fd, "Could not %s '%s'",
                               (flags & O_CREAT) ? "create" : "open", path);
    }
    rc = refs_check_fd(pl, path, fd, errp);
    if (rc < 0) {
        os->close(fd);
        return rc;
    }
    return fd;
}
