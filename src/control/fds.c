/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that a client sends beside its text. The kernel does not say at which byte of what
 * was received they came, so each notes how many values were complete before.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "control/monitor_internal.h"
#include "os/os.h"

static void fd_remove(struct monitor *mon, unsigned at)
{
    mon->nfds--;
    memmove(&mon->fds[at], &mon->fds[at + 1], (mon->nfds - at) * sizeof(mon->fds[0]));
}

void monitor_fds_drop(struct monitor *mon)
{
    while (mon->nfds > 0) {
        os->close(mon->fds[--mon->nfds].fd);
    }
}

/* Those whose request has ended without taking them. */
static void drop_stale(struct monitor *mon)
{
    const struct qmp_request *first = STAILQ_FIRST(&mon->requests);
    uint64_t oldest = mon->running != 0 ? mon->running : first ? first->number : mon->count + 1;
    unsigned i = 0;

    while (i < mon->nfds) {
        if (mon->fds[i].behind + 1 < oldest) {
            os->close(mon->fds[i].fd);
            fd_remove(mon, i);
        } else {
            i++;
        }
    }
}

static void keep(struct monitor *mon, const struct cmsghdr *cmsg)
{
    size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

    drop_stale(mon);
    for (size_t i = 0; i < n; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd), sizeof(fd));
        if (mon->nfds < MONITOR_FDS_MAX) {
            mon->fds[mon->nfds++] = (struct monitor_fd){fd, mon->count};
        } else {
            os->close(fd);
        }
    }
}

ssize_t monitor_receive(struct monitor *mon, char *buf, size_t bytes)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MONITOR_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {buf, bytes};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *cmsg;
    int64_t n;

    if (!mon->in_is_socket) {
        return (ssize_t)os->read(mon->in_fd, buf, bytes);
    }
    n = os->recvmsg(mon->in_fd, &msg, MSG_DONTWAIT);
    for (cmsg = n >= 0 ? CMSG_FIRSTHDR(&msg) : NULL; cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
        if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
            keep(mon, cmsg);
        }
    }
    return (ssize_t)n;
}

int monitor_take_fd(struct monitor *mon)
{
    const uint64_t now = mon->serving != 0 ? mon->serving : mon->count + 1;
    unsigned best = mon->nfds;
    unsigned i;
    int fd;

    for (i = 0; i < mon->nfds; i++) {
        if (mon->fds[i].behind < now &&
            (best == mon->nfds || mon->fds[i].behind > mon->fds[best].behind)) {
            best = i;
        }
    }
    if (best == mon->nfds) {
        return -1;
    }
    fd = mon->fds[best].fd;
    fd_remove(mon, best);
    return fd;
}
