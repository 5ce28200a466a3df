/* SPDX-License-Identifier: MIT */
/*
 * Opening, closing and names in the simulated world. Descriptors and paths that are not simulated
 * go to the base table, which asks the same rules.
 */
#include "os/sim/sim_world.h"

#include <errno.h>
#include <stdlib.h>

static int open_locked(struct sim_world *world, const char *path, int flags)
{
    struct sim_file *file = sim_file_find(world, path);
    struct sim_ofd *ofd;
    int fd;

    if (!file) {
        return -ENOENT;
    }
    if (file->opts.read_only && (flags & O_ACCMODE) != O_RDONLY) {
        return -EACCES;
    }
    ofd = calloc(1, sizeof(*ofd));
    if (!ofd) {
        return -ENOMEM;
    }
    ofd->file = file;
    ofd->flags = flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | O_NOCTTY);
    fd = sim_fd_new(world, ofd);
    if (fd < 0) {
        free(ofd);
        return fd;
    }
    file->users++;
    return fd;
}

static int sim_open(const char *path, int flags, mode_t mode)
{
    struct sim_call_state call;
    int rc;

    if (!sim_is_path(path)) {
        return sim_base()->open(path, flags, mode);
    }
    rc = sim_call_begin(&call, SIM_CALL_OPEN, 0, 0);
    if (rc < 0) {
        return rc;
    }
    if (flags & O_CREAT) {
        struct sim_file *file = sim_file_find(call.world, path);

        if (file && (flags & O_EXCL)) {
            rc = -EEXIST;
        } else if (!file) {
            os_mutex_unlock(&call.world->lock);
            rc = sim_world_add_file(call.world, path, 0, 0);
            os_mutex_lock(&call.world->lock);
        }
    }
    rc = rc < 0 ? rc : open_locked(call.world, path, flags);
    if (rc >= 0 && (flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY) {
        struct sim_file *file = sim_fd_get(call.world, rc)->file;

        sim_disk_truncate(file->disk, 0);
        sim_call_changed(&call, file);
    }
    sim_call_end(&call);
    return rc;
}

static void fd_drop(struct sim_world *world, int fd)
{
    struct sim_ofd *ofd = sim_fd_get(world, fd);

    world->fds[fd - SIM_FD_BASE] = 0;
    if (--ofd->fds == 0) {
        sim_locks_drop(ofd->file, ofd);
        sim_file_unref(ofd->file);
        free(ofd);
    }
}

/* A failing close closes nevertheless, as the kernel does it. */
static int sim_close(int fd)
{
    struct sim_world *world = sim_world_now;
    struct sim_verdict verdict;
    int rc = 0;

    if (!sim_is_fd(fd)) {
        os_mutex_lock(&world->time_lock);
        for (unsigned i = 0; i < SIM_TIMERS_MAX; i++) {
            if (world->timers[i].fd == fd) {
                world->timers[i] = (struct sim_timer){.fd = -1};
            }
        }
        os_mutex_unlock(&world->time_lock);
        return sim_base()->close(fd);
    }
    sim_faults_check(&world->faults, SIM_CALL_CLOSE, 0, 0, &verdict);
    os_mutex_lock(&world->lock);
    if (sim_fd_get(world, fd)) {
        fd_drop(world, fd);
    } else {
        rc = -EBADF;
    }
    os_mutex_unlock(&world->lock);
    return rc < 0 ? rc : -verdict.error;
}

static int sim_dup(int fd)
{
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->dup(fd);
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_DUP, fd, 0, 0);
    if (rc < 0) {
        return rc;
    }
    rc = sim_fd_new(call.world, call.ofd);
    sim_call_end(&call);
    return rc;
}

static int sim_unlink(const char *path)
{
    struct sim_file *file;
    struct sim_call_state call;
    int rc;

    if (!sim_is_path(path)) {
        return sim_base()->unlink(path);
    }
    rc = sim_call_begin(&call, SIM_CALL_UNLINK, 0, 0);
    if (rc < 0) {
        return rc;
    }
    file = sim_file_find(call.world, path);
    if (file) {
        LIST_REMOVE(file, link);
        free(file->path);
        file->path = 0;
        sim_file_unref(file);
    }
    sim_call_end(&call);
    return file ? 0 : -ENOENT;
}

static int64_t sim_readlink(const char *path, char *buf, size_t size)
{
    return sim_is_path(path) ? -EINVAL : sim_base()->readlink(path, buf, size);
}

void sim_os_name_members(struct os_table *table)
{
    table->open = sim_open;
    table->close = sim_close;
    table->dup = sim_dup;
    table->unlink = sim_unlink;
    table->readlink = sim_readlink;
}
