/* SPDX-License-Identifier: MIT */
/*
 * Sockets that listen, for whoever serves clients, and the way to such a unix socket.
 *
 * A unix socket is made at a path where nothing is, or where a socket is that nobody serves any
 * more; nothing else is ever replaced, and no symbolic link is followed. Its mode is 0600 from the
 * first moment, unless that is left to the umask. It is removed at the end only if it is still
 * ours. Any thread; may block for as long as a name server lets it.
 */
#ifndef PLATTER_OS_LISTEN_H
#define PLATTER_OS_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

#include <platter/error.h>

#define OS_LISTENERS_MAX 16 /* addresses of one host */

struct os_listener {
    int fd;          /* owned; non-blocking */
    char *path;      /* owned; NULL: not unix */
    char *host_port; /* owned; NULL: not TCP. "127.0.0.1:10809", "[::1]:10809" */
    uint64_t path_dev, path_ino;
};

/* Unix sockets of this process get the mode that its umask leaves, from now on. Any thread. */
void os_listen_by_umask(void);
/* 0 or -errno with errp; then there is nothing to close. */
int os_listen_unix(const char *path, struct os_listener *ret_listener, Error **errp);
/* Each address of the host (NULL or empty: of the machine) is tried; it is enough that one can be
 * listened on, since a machine may have no IPv6. Port "0": one that is free, the same for all.
 * loopback_only: -EINVAL, and nothing listens, when one of the addresses can be reached from
 * another machine. ret_listeners has room for OS_LISTENERS_MAX. The number of them, or -errno with
 * errp. */
int os_listen_tcp(const char *host, const char *port, bool loopback_only,
                  struct os_listener *ret_listeners, Error **errp);
/* One that somebody else made (socket activation); fd is owned from now on, also on failure. The
 * file of a unix socket stays when it is closed. -EINVAL: it does not listen, or is neither unix
 * nor TCP; -ENOTSOCK, -EBADF, -ENOMEM. */
int os_listen_fd(int fd, struct os_listener *ret_listener, Error **errp);
/* Close it and remove its path. */
void os_listener_close(struct os_listener *listener);

/* A stream connected to the unix socket at path; flags: 0 or SOCK_NONBLOCK. A descriptor that the
 * caller owns, or -errno with errp: -ENAMETOOLONG, what socket(2) and connect(2) say. */
int os_connect_unix(const char *path, int flags, Error **errp);

#endif
