/* SPDX-License-Identifier: MIT */
/*
 * Addresses: making sockets that listen, and telling their URIs
 * (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md).
 *
 * A unix socket is made at a path where nothing is, or where a socket is that nobody serves any
 * more; nothing else is ever replaced, and no symbolic link is followed. It is removed at the end
 * only if it is still ours.
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "export/nbd/internal.h"
#include "util/error.h"

#define LISTEN_BACKLOG 1024

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
    rc = os->fchmod(fd, 0600);
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
    return rc < 0 ? error_set_errno(errp, -rc, "cannot make the socket '%s'", path) : 0;
}

int nbd_listen_unix(const char *path, struct nbd_listener *listener, Error **errp)
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

void nbd_listener_unlink_path(const struct nbd_listener *listener)
{
    struct stat st;

    if (listener->path != NULL && listener->path_ino != 0 && os->stat(listener->path, &st) == 0 &&
        st.st_dev == listener->path_dev && st.st_ino == listener->path_ino) {
        os->unlink(listener->path);
    }
}

/* "127.0.0.1:10809", "[::1]:10809": where the socket really is. */
static int tcp_name(struct nbd_listener *listener, Error **errp)
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

static int tcp_listen(struct nbd_listener *listener, const struct addrinfo *ai, const char *what,
                      Error **errp)
{
    int one = 1;
    int rc;

    listener->tcp = true;
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

static int tcp_listen_one(NbdServer *server, const struct addrinfo *ai, const char *what,
                          struct nbd_listener **ret_listener, Error **errp)
{
    struct nbd_listener *listener = calloc(1, sizeof(*listener));
    int rc;

    if (listener == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    listener->fd = -1;
    rc = tcp_listen(listener, ai, what, errp);
    if (rc == 0) {
        rc = nbd_listener_add(server, listener, errp);
    }
    if (rc < 0) {
        nbd_listener_free(listener);
    } else {
        *ret_listener = listener;
    }
    return rc;
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

/* Each address of the host is tried; it is enough that one can be listened on (a machine may have
 * no IPv6). */
int nbd_listen_tcp(NbdServer *server, const char *host, const char *port, Error **errp)
{
    static const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    const char *service = port ? port : "10809";
    struct nbd_listener *first = NULL;
    struct nbd_listener *listener = NULL;
    struct addrinfo *list;
    struct addrinfo *ai;
    Error *err = NULL;
    char what[300];
    int rc;

    snprintf(what, sizeof(what), "%s port %s", host && *host ? host : "all addresses", service);
    rc = getaddrinfo(host && *host ? host : NULL, service, &hints, &list);
    if (rc != 0) {
        return error_set(errp, EINVAL, "cannot listen on %s: %s", what, gai_strerror(rc));
    }
    rc = -EADDRNOTAVAIL;
    for (ai = list; ai != NULL; ai = ai->ai_next) {
        Error *one = NULL;
        int this_rc;

        if (first != NULL) {
            port_copy(ai->ai_addr, first->fd);
        }
        this_rc = tcp_listen_one(server, ai, what, &listener, &one);
        if (this_rc == 0) {
            first = first ? first : listener;
        } else {
            rc = err ? rc : this_rc;
        }
        error_propagate(&err, one);
    }
    freeaddrinfo(list);
    if (first != NULL) {
        error_free(err);
        return 0;
    }
    error_propagate(errp, err);
    return rc;
}

/* ---- URIs ---- */

static char *escape(char *to, const char *text, const char *keep)
{
    static const char hex[] = "0123456789ABCDEF";

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
            strchr(keep, c)) {
            *to++ = (char)c;
        } else {
            *to++ = '%';
            *to++ = hex[c >> 4];
            *to++ = hex[c & 15];
        }
    }
    *to = 0;
    return to;
}

char *nbd_server_get_uri(const NbdServer *server, unsigned index, const char *export_name)
{
    const struct nbd_listener *listener;
    const char *name = export_name ? export_name : "";
    size_t room;
    char *uri;
    char *p;

    LIST_FOREACH (listener, &server->listeners, link) {
        if (index-- == 0) {
            break;
        }
    }
    if (listener == NULL) {
        return NULL;
    }
    room = 3 * (strlen(name) + strlen(listener->tcp ? listener->host_port : listener->path)) + 32;
    uri = malloc(room);
    if (uri == NULL) {
        return NULL;
    }
    if (listener->tcp) {
        p = uri + snprintf(uri, room, "nbd://%s/", listener->host_port);
        escape(p, name, "-._~/");
        return uri;
    }
    p = stpcpy(uri, "nbd+unix:///");
    p = escape(p, name, "-._~/");
    p = stpcpy(p, "?socket=");
    escape(p, listener->path, "-._~/");
    return uri;
}
