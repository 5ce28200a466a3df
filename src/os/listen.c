/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "os/listen.h"
#include "os/os.h"
#include "util/error.h"

#define LISTEN_BACKLOG 1024

static _Atomic bool by_umask; /* the process's, as its umask is */

void os_listen_by_umask(void)
{
    atomic_store(&by_umask, true);
}

static int unix_address(const char *path, struct sockaddr_un *ret_addr, Error **errp)
{
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof(ret_addr->sun_path)) {
        return error_set(errp, len == 0 ? EINVAL : ENAMETOOLONG,
                         "socket path '%s' must have 1 to %zu bytes, it has %zu", path,
                         sizeof(ret_addr->sun_path) - 1, len);
    }
    *ret_addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret_addr->sun_path, path, len + 1);
    return 0;
}

/* Whether the process that listens at the other end of fd is no more: the kernel may keep what a
 * killed process had in its ring, a listening socket included, for a while after its end. */
static bool listener_is_gone(int fd)
{
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    char path[32];
    struct stat st;

    if (os->getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0) {
        return false; /* of a place we cannot see into: take it for alive */
    }
    snprintf(path, sizeof(path), "/proc/%ld", (long)peer.pid);
    return os->stat(path, &st) == -ENOENT && os->stat("/proc/self", &st) == 0;
}

/* Something is at the path: remove it if it is a socket that nobody serves. */
static int unix_clear(const char *path, const struct sockaddr_un *addr, Error **errp)
{
    struct stat st;
    char link[2];
    int fd;
    int rc;

    if (os->readlink(path, link, sizeof(link)) >= 0) {
        return error_set(errp, EEXIST, "'%s' is a symbolic link, not a socket", path);
    }
    rc = os->stat(path, &st);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot look at '%s'", path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return error_set(errp, EEXIST, "'%s' exists and is not a socket", path);
    }
    fd = os->socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return error_set_errno(errp, -fd, "cannot make a socket");
    }
    rc = os->connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
    if (rc == 0 && listener_is_gone(fd)) {
        rc = -ECONNREFUSED;
    }
    os->close(fd);
    if (rc != -ECONNREFUSED) {
        return error_set(errp, EADDRINUSE, "another process serves the socket '%s'", path);
    }
    rc = os->unlink(path);
    return rc < 0 ? error_set_errno(errp, -rc, "cannot remove the dead socket '%s'", path) : 0;
}

static int unix_bind(int fd, const char *path, Error **errp)
{
    struct sockaddr_un addr;
    int rc = unix_address(path, &addr, errp);

    if (rc < 0) {
        return rc;
    }
    /* The new file takes its mode from the socket: nobody else may connect, not even for a moment
     * between bind and a chmod. */
    rc = atomic_load(&by_umask) ? 0 : os->fchmod(fd, 0600);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot set the mode of the socket");
    }
    rc = os->bind(fd, (struct sockaddr *)&addr, sizeof(addr));
    if (rc == -EADDRINUSE) {
        rc = unix_clear(path, &addr, errp);
        if (rc < 0) {
            return rc;
        }
        rc = os->bind(fd, (struct sockaddr *)&addr, sizeof(addr));
    }
    return rc < 0 ? error_set_errno(errp, -rc, "Failed to bind socket to %s", path) : 0;
}

static void unlink_path(const struct os_listener *listener)
{
    struct stat st;

    if (listener->path != NULL && listener->path_ino != 0 && os->stat(listener->path, &st) == 0 &&
        st.st_dev == listener->path_dev && st.st_ino == listener->path_ino) {
        os->unlink(listener->path);
    }
}

void os_listener_close(struct os_listener *listener)
{
    if (listener->fd >= 0) {
        unlink_path(listener);
        os->close(listener->fd);
    }
    free(listener->path);
    free(listener->host_port);
    *listener = (struct os_listener){.fd = -1};
}

static int unix_listen(const char *path, struct os_listener *listener, Error **errp)
{
    struct stat st;
    int rc;

    listener->path = strdup(path);
    if (listener->path == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    listener->fd = os->socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener->fd < 0) {
        return error_set_errno(errp, -listener->fd, "cannot make a socket");
    }
    rc = unix_bind(listener->fd, path, errp);
    if (rc < 0) {
        return rc;
    }
    if (os->stat(path, &st) == 0) {
        listener->path_dev = st.st_dev;
        listener->path_ino = st.st_ino;
    }
    rc = os->listen(listener->fd, LISTEN_BACKLOG);
    return rc < 0 ? error_set_errno(errp, -rc, "cannot listen on '%s'", path) : 0;
}

int os_listen_unix(const char *path, struct os_listener *ret_listener, Error **errp)
{
    struct os_listener listener = {.fd = -1};
    int rc = unix_listen(path, &listener, errp);

    if (rc < 0) {
        os_listener_close(&listener);
        return rc;
    }
    *ret_listener = listener;
    return 0;
}

/* "127.0.0.1:10809", "[::1]:10809": where the socket really is. */
static int tcp_name(struct os_listener *listener, Error **errp)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    int rc = os->getsockname(listener->fd, (struct sockaddr *)&addr, &len);

    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot tell the address of the socket");
    }
    rc = getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port),
                     NI_NUMERICHOST | NI_NUMERICSERV);
    if (rc != 0) {
        return error_set(errp, EINVAL, "cannot tell the address of the socket: %s",
                         gai_strerror(rc));
    }
    if (asprintf(&listener->host_port, addr.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
                 port) < 0) {
        listener->host_port = NULL;
        return error_set(errp, ENOMEM, "out of memory");
    }
    return 0;
}

static int tcp_listen_on(struct os_listener *listener, const struct addrinfo *ai, const char *what,
                         Error **errp)
{
    int one = 1;
    int rc;

    listener->fd = os->socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK, ai->ai_protocol);
    if (listener->fd < 0) {
        return error_set_errno(errp, -listener->fd, "cannot make a socket for %s", what);
    }
    os->setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (ai->ai_family == AF_INET6) {
        /* An IPv4 socket of its own stands beside it. */
        os->setsockopt(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    }
    rc = os->bind(listener->fd, ai->ai_addr, ai->ai_addrlen);
    if (rc == 0) {
        rc = os->listen(listener->fd, LISTEN_BACKLOG);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "cannot listen on %s", what)
                  : tcp_name(listener, errp);
}

/* With port 0 all sockets of one host get the port that the first one was given. */
static void port_copy(struct sockaddr *to, int fd)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    in_port_t port;

    if (os->getsockname(fd, (struct sockaddr *)&from, &len) < 0) {
        return;
    }
    port = from.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&from)->sin6_port
                                      : ((struct sockaddr_in *)&from)->sin_port;
    if (to->sa_family == AF_INET6) {
        ((struct sockaddr_in6 *)to)->sin6_port = port;
    } else if (to->sa_family == AF_INET) {
        ((struct sockaddr_in *)to)->sin_port = port;
    }
}

static int tcp_listen_all(const struct addrinfo *list, const char *what,
                          struct os_listener *ret_listeners, Error **errp)
{
    const struct addrinfo *ai;
    Error *err = NULL;
    int rc = -EADDRNOTAVAIL;
    int n = 0;

    for (ai = list; ai != NULL && n < OS_LISTENERS_MAX; ai = ai->ai_next) {
        struct os_listener listener = {.fd = -1};
        Error *one = NULL;
        int this_rc;

        if (n > 0) {
            port_copy(ai->ai_addr, ret_listeners[0].fd);
        }
        this_rc = tcp_listen_on(&listener, ai, what, &one);
        if (this_rc == 0) {
            ret_listeners[n++] = listener;
        } else {
            os_listener_close(&listener);
            rc = err ? rc : this_rc;
        }
        error_propagate(&err, one);
    }
    if (n > 0) {
        error_free(err);
        return n;
    }
    error_propagate(errp, err);
    return rc;
}

static bool is_loopback(const struct sockaddr *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

    switch (address->sa_family) {
    case AF_INET:
        return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    default:
        return false;
    }
}

static bool all_loopback(const struct addrinfo *list)
{
    while (list != NULL && is_loopback(list->ai_addr)) {
        list = list->ai_next;
    }
    return list == NULL;
}

int os_listen_tcp(const char *host, const char *port, bool loopback_only,
                  struct os_listener *ret_listeners, Error **errp)
{
    static const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list;
    char what[300];
    int rc;

    snprintf(what, sizeof(what), "%s port %s", host && *host ? host : "all addresses", port);
    rc = getaddrinfo(host && *host ? host : NULL, port, &hints, &list);
    if (rc != 0) {
        return error_set(errp, EINVAL, "address resolution failed for %s:%s: %s", host ? host : "",
                         port, gai_strerror(rc));
    }
    rc = loopback_only && !all_loopback(list)
             ? error_set(errp, EINVAL,
                         "cannot listen on %s: only this machine may connect, and that is no "
                         "loopback address",
                         what)
             : tcp_listen_all(list, what, ret_listeners, errp);
    freeaddrinfo(list);
    return rc;
}

/* What it is called. */
static int fd_name(struct os_listener *listener, Error **errp)
{
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        struct sockaddr_storage room;
    } addr = {.any.sa_family = AF_UNSPEC};
    socklen_t len = sizeof(addr) - 1;
    int rc = os->getsockname(listener->fd, &addr.any, &len);

    if (rc < 0) {
        return error_set(errp, -rc, "File descriptor '%d' is not a socket", listener->fd);
    }
    if (addr.any.sa_family == AF_UNIX) {
        listener->path = strdup(addr.un.sun_path);
        return listener->path ? 0 : error_set(errp, ENOMEM, "out of memory");
    }
    if (addr.any.sa_family != AF_INET && addr.any.sa_family != AF_INET6) {
        return error_set(errp, EINVAL, "descriptor %d is neither a unix nor a TCP socket",
                         listener->fd);
    }
    return tcp_name(listener, errp);
}

int os_listen_fd(int fd, struct os_listener *ret_listener, Error **errp)
{
    struct os_listener listener = {.fd = fd};
    int listening = 0;
    socklen_t len = sizeof(listening);
    int flags = os->fcntl_getfl(fd);
    int rc = fd_name(&listener, errp);

    if (rc == 0 &&
        (os->getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening)) {
        rc = error_set(errp, EINVAL, "descriptor %d does not listen", fd);
    }
    if (rc == 0 && (flags < 0 || os->fcntl_setfl(fd, flags | O_NONBLOCK) < 0)) {
        rc = error_set(errp, EINVAL, "descriptor %d cannot be made non-blocking", fd);
    }
    if (rc < 0) {
        os_listener_close(&listener);
        return rc;
    }
    *ret_listener = listener;
    return 0;
}

int os_connect_unix(const char *path, int flags, Error **errp)
{
    struct sockaddr_un addr;
    int ret = unix_address(path, &addr, errp);
    int fd;

    if (ret < 0) {
        return ret;
    }
    fd = os->socket(AF_UNIX, SOCK_STREAM | flags, 0);
    if (fd < 0) {
        return error_set_errno(errp, -fd, "cannot make a socket");
    }
    ret = os->connect(fd, (struct sockaddr *)&addr, sizeof(addr));
    if (ret < 0) {
        os->close(fd);
        return error_set_errno(errp, -ret, "Failed to connect to '%s'", path);
    }
    return fd;
}
