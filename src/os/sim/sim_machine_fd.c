/* SPDX-License-Identifier: MIT */
/*
 * Descriptors and names of the machine. Those of simulated files go on to the world; all others do
 * not exist.
 */
#include "os/sim/sim_machine_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define SOCKET_DEV makedev(250, 8)

struct sim_thing *sim_thing_new(enum sim_thing_kind kind)
{
    struct sim_thing *thing = calloc(1, sizeof(*thing));

    if (thing) {
        thing->kind = kind;
        thing->flags = O_RDWR;
        if (kind == SIM_THING_SOCKET) {
            sim_socket_init(thing);
        } else if (kind == SIM_THING_EPOLL) {
            TAILQ_INIT(&thing->watches);
        }
    }
    return thing;
}

struct sim_thing *sim_thing_of(int fd)
{
    size_t i = (size_t)(fd - SIM_MACHINE_FD_BASE);

    return sim_is_machine_fd(fd) && i < sim_machine_now->nfds ? sim_machine_now->fds[i] : 0;
}

struct sim_thing *sim_thing_of_kind(int fd, enum sim_thing_kind kind)
{
    struct sim_thing *thing = sim_thing_of(fd);

    return thing && thing->kind == kind ? thing : 0;
}

/* The lowest number that is free, as kernels give it: old numbers come back soon. */
int sim_thing_fd(struct sim_thing *thing)
{
    struct sim_machine *machine = sim_machine_now;
    size_t i = 0;

    while (i < machine->nfds && machine->fds[i]) {
        i++;
    }
    thing->fds++;
    if (i == machine->nfds) {
        struct sim_thing **fds = realloc(machine->fds, (i + 16) * sizeof(*fds));

        if (!fds) {
            sim_thing_unref(thing);
            return -ENOMEM;
        }
        memset(fds + i, 0, 16 * sizeof(*fds));
        machine->fds = fds;
        machine->nfds += 16;
    }
    machine->fds[i] = thing;
    return SIM_MACHINE_FD_BASE + (int)i;
}

/* Whoever watches it does so no more. */
static void watches_drop(const struct sim_thing *thing)
{
    for (size_t i = 0; i < sim_machine_now->nfds; i++) {
        struct sim_thing *epoll = sim_machine_now->fds[i];
        struct sim_watch *watch;
        struct sim_watch *next;

        if (!epoll || epoll->kind != SIM_THING_EPOLL) {
            continue;
        }
        for (watch = TAILQ_FIRST(&epoll->watches); watch; watch = next) {
            next = TAILQ_NEXT(watch, link);
            if (watch->thing == thing) {
                TAILQ_REMOVE(&epoll->watches, watch, link);
                free(watch);
            }
        }
    }
}

void sim_thing_unref(struct sim_thing *thing)
{
    struct sim_watch *watch;

    if (--thing->fds > 0) {
        return;
    }
    watches_drop(thing);
    if (thing->kind == SIM_THING_SOCKET) {
        sim_socket_fini(thing);
    } else if (thing->kind == SIM_THING_EPOLL) {
        while ((watch = TAILQ_FIRST(&thing->watches))) {
            TAILQ_REMOVE(&thing->watches, watch, link);
            free(watch);
        }
    }
    free(thing);
}

/* ---- calls ---- */

static int machine_close(int fd)
{
    struct sim_thing *thing = sim_thing_of(fd);

    if (!sim_is_machine_fd(fd)) {
        return sim_is_fd(fd) ? sim_machine_now->base.close(fd) : -EBADF;
    }
    if (!thing) {
        return -EBADF;
    }
    sim_machine_now->fds[fd - SIM_MACHINE_FD_BASE] = 0;
    sim_thing_unref(thing);
    return 0;
}

static int machine_dup(int fd)
{
    struct sim_thing *thing = sim_thing_of(fd);

    if (!sim_is_machine_fd(fd)) {
        return sim_is_fd(fd) ? sim_machine_now->base.dup(fd) : -EBADF;
    }
    return thing ? sim_thing_fd(thing) : -EBADF;
}

static int64_t machine_read(int fd, void *buf, size_t bytes)
{
    struct sim_thing *thing = sim_thing_of(fd);
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    uint64_t one = 1;

    if (!thing) {
        return sim_is_fd(fd) && !sim_is_machine_fd(fd) ? -EINVAL : -EBADF;
    }
    switch (thing->kind) {
    case SIM_THING_SOCKET:
        return os->recvmsg(fd, &msg, 0);
    case SIM_THING_EVENT:
    case SIM_THING_TIMER:
        if (!(sim_thing_ready(thing) & EPOLLIN)) {
            return -EAGAIN; /* a blocking one would wait for ever: there is nobody else */
        }
        if (bytes < sizeof(one)) {
            return -EINVAL;
        }
        one = thing->kind == SIM_THING_EVENT ? thing->count : one;
        memcpy(buf, &one, sizeof(one));
        thing->count = 0; /* and disarms a timer, which fires once */
        thing->expire_ns = 0;
        return sizeof(one);
    default:
        return -EINVAL;
    }
}

static int64_t machine_write(int fd, const void *buf, size_t bytes)
{
    struct sim_thing *thing = sim_thing_of(fd);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = bytes};
    const struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    uint64_t add;

    if (!thing) {
        return sim_is_fd(fd) && !sim_is_machine_fd(fd) ? -EINVAL : -EBADF;
    }
    if (thing->kind == SIM_THING_SOCKET) {
        return os->sendmsg(fd, &msg, 0);
    }
    if (thing->kind != SIM_THING_EVENT || bytes < sizeof(add)) {
        return -EINVAL;
    }
    memcpy(&add, buf, sizeof(add));
    if (add > UINT64_MAX - 1 - thing->count) {
        return -EAGAIN;
    }
    thing->count += add;
    return sizeof(add);
}

static int machine_getfl(int fd)
{
    struct sim_thing *thing = sim_thing_of(fd);

    if (!sim_is_machine_fd(fd)) {
        return sim_is_fd(fd) ? sim_machine_now->base.fcntl_getfl(fd) : -EBADF;
    }
    return thing ? thing->flags : -EBADF;
}

static int machine_setfl(int fd, int flags)
{
    struct sim_thing *thing = sim_thing_of(fd);

    if (!sim_is_machine_fd(fd)) {
        return sim_is_fd(fd) ? sim_machine_now->base.fcntl_setfl(fd, flags) : -EBADF;
    }
    if (!thing) {
        return -EBADF;
    }
    thing->flags = (thing->flags & ~O_NONBLOCK) | (flags & O_NONBLOCK);
    return 0;
}

static int machine_fchmod(int fd, mode_t mode)
{
    return sim_thing_of(fd) ? 0 : -EBADF;
}

static int machine_open(const char *path, int flags, mode_t mode)
{
    if (sim_address_find(sim_machine_now, path)) {
        return -ENXIO;
    }
    return sim_is_path(path) ? sim_machine_now->base.open(path, flags, mode) : -ENOENT;
}

static int machine_stat(const char *path, struct stat *ret_st)
{
    const struct sim_address *address = sim_address_find(sim_machine_now, path);

    if (address) {
        *ret_st =
            (struct stat){.st_dev = SOCKET_DEV, .st_ino = address->ino, .st_mode = S_IFSOCK | 0600};
        return 0;
    }
    return sim_is_path(path) ? sim_machine_now->base.stat(path, ret_st) : -ENOENT;
}

static int machine_fstat(int fd, struct stat *ret_st)
{
    const struct sim_thing *thing = sim_thing_of(fd);

    if (!sim_is_machine_fd(fd)) {
        return sim_is_fd(fd) ? sim_machine_now->base.fstat(fd, ret_st) : -EBADF;
    }
    if (!thing) {
        return -EBADF;
    }
    *ret_st = (struct stat){.st_dev = SOCKET_DEV,
                            .st_mode = thing->kind == SIM_THING_SOCKET ? S_IFSOCK | 0777 : 0600};
    return 0;
}

static int machine_unlink(const char *path)
{
    struct sim_address *address = sim_address_find(sim_machine_now, path);

    if (address) {
        sim_address_free(address);
        return 0;
    }
    return sim_is_path(path) ? sim_machine_now->base.unlink(path) : -ENOENT;
}

static int64_t machine_readlink(const char *path, char *buf, size_t size)
{
    return sim_is_path(path) || strcmp(path, "/sim") == 0 ? -EINVAL : -ENOENT; /* no links */
}

void sim_machine_fd_members(struct os_table *table)
{
    table->open = machine_open;
    table->close = machine_close;
    table->dup = machine_dup;
    table->read = machine_read;
    table->write = machine_write;
    table->stat = machine_stat;
    table->fstat = machine_fstat;
    table->fcntl_getfl = machine_getfl;
    table->fcntl_setfl = machine_setfl;
    table->fchmod = machine_fchmod;
    table->unlink = machine_unlink;
    table->readlink = machine_readlink;
}
