/* SPDX-License-Identifier: MIT */
/* Sockets and the standard streams as places of monitors. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/chardev.h"
#include "os/listen.h"
#include "os/os.h"
#include "util/error.h"
#include "util/json.h"
#include "util/size.h"
#include "util/text.h"

#define SECOND_NS INT64_C(1000000000)
#define ACCEPT_RETRY_NS (SECOND_NS / 10)

struct chardev;

/* A socket that listens for one. */
struct chardev_listener {
    struct chardev *chr;
    struct os_listener sock; /* owned */
};

struct chardev {
    LIST_ENTRY(chardev) entry;
    char *id;       /* owned */
    char *filename; /* owned: as query-chardev shows it */
    AioContext *ctx;
    bool is_socket;
    bool waits;       /* for its first client, before anything else is done */
    bool nodelay;     /* TCP */
    int64_t retry_ns; /* a client: between tries; 0: one try */
    unsigned tries;   /* of these; each takes the next address of the host */
    struct chardev_listener listeners[OS_LISTENERS_MAX]; /* a host may have several addresses */
    unsigned listener_count;
    int fd;           /* of the connection; -1: none */
    int stdout_flags; /* to put back; -1: as they were */
    char *path;       /* owned or NULL: unix */
    char *host;       /* owned or NULL: TCP */
    char *port;
    struct monitors *monitors; /* NULL: no monitor yet */
    bool pretty;
    struct monitor *monitor; /* NULL: no client */
    AioTimer *timer;         /* owned: tries again */
};

static void accept_client(void *opaque);
static void connect_again(struct chardev *chr);

/* ---- sessions ---- */

/* Whether the next client is let in. 0 or -errno. */
static int listen_on(struct chardev *chr, bool on)
{
    int ret = 0;

    for (unsigned i = 0; i < chr->listener_count && ret == 0; i++) {
        struct chardev_listener *l = &chr->listeners[i];

        ret = aio_set_fd_handler(chr->ctx, l->sock.fd, on ? accept_client : NULL, NULL, l);
    }
    return ret;
}

static void client_gone(void *opaque)
{
    struct chardev *chr = opaque;

    chr->monitor = NULL;
    if (chr->is_socket && chr->fd >= 0) {
        os->close(chr->fd);
        chr->fd = -1;
    }
    if (chr->listener_count > 0) {
        listen_on(chr, true);
    } else if (chr->retry_ns > 0) {
        aio_timer_mod(chr->timer, aio_clock_ns() + chr->retry_ns);
    }
}

static int session_begin(struct chardev *chr, int in_fd, int out_fd, Error **errp)
{
    int one = 1;

    chr->waits = false;
    if (chr->nodelay) {
        os->setsockopt(in_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    chr->monitor = monitor_new(chr->monitors, in_fd, out_fd, chr->pretty, client_gone, chr);
    return chr->monitor ? 0 : error_set(errp, EIO, "chardev '%s': cannot begin a session", chr->id);
}

/* ---- server ---- */

static void accept_client(void *opaque)
{
    struct chardev_listener *l = opaque;
    struct chardev *chr = l->chr;
    int fd = os->accept(l->sock.fd, NULL, NULL);

    if (fd == -EAGAIN || fd == -EINTR || fd == -ECONNABORTED) {
        return;
    }
    listen_on(chr, false);
    if (fd < 0) { /* no descriptors, no memory: the client stays in the queue of the kernel */
        aio_timer_mod(chr->timer, aio_clock_ns() + ACCEPT_RETRY_NS);
        return;
    }
    chr->fd = fd;
    if (session_begin(chr, fd, fd, NULL) < 0) {
        client_gone(chr);
    }
}

static void timer_cb(void *opaque)
{
    struct chardev *chr = opaque;

    if (chr->listener_count > 0) {
        listen_on(chr, true);
    } else {
        connect_again(chr);
    }
}

/* ---- client ---- */

static int connect_to(const struct addrinfo *ai, bool wait)
{
    int fd =
        os->socket(ai->ai_family, ai->ai_socktype | (wait ? 0 : SOCK_NONBLOCK), ai->ai_protocol);
    int rc = fd < 0 ? fd : os->connect(fd, ai->ai_addr, ai->ai_addrlen);

    if (rc < 0 && fd >= 0 && (wait || rc != -EINPROGRESS)) {
        os->close(fd);
        return rc;
    }
    return fd;
}

/* A client that tries once tries each address, and waits. One that tries again and again does not
 * wait, but begins a session at once, whose first write tells whether there is anybody; the next
 * try takes the next address. */
static int tcp_connect(struct chardev *chr, Error **errp)
{
    static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    const bool once = chr->retry_ns == 0;
    struct addrinfo *list;
    struct addrinfo *ai;
    unsigned count = 0;
    unsigned at = 0;
    int rc = getaddrinfo(*chr->host ? chr->host : NULL, chr->port, &hints, &list);
    int fd = -EADDRNOTAVAIL;

    if (rc != 0) {
        return error_set(errp, EINVAL, "address resolution failed for %s:%s: %s", chr->host,
                         chr->port, gai_strerror(rc));
    }
    for (ai = list; ai; ai = ai->ai_next) {
        count++;
    }
    for (ai = list; ai && fd < 0; ai = ai->ai_next, at++) {
        if (once || at == chr->tries % count) {
            fd = connect_to(ai, once);
        }
    }
    chr->tries++;
    freeaddrinfo(list);
    return fd >= 0
               ? fd
               : error_set_errno(errp, -fd, "Failed to connect to '%s:%s'", chr->host, chr->port);
}

static int client_connect(struct chardev *chr, Error **errp)
{
    int fd = chr->path ? os_connect_unix(chr->path, SOCK_NONBLOCK, errp) : tcp_connect(chr, errp);

    if (fd >= 0) {
        chr->fd = fd;
    }
    return fd < 0 ? fd : 0;
}

static void connect_again(struct chardev *chr)
{
    if (client_connect(chr, NULL) < 0 || session_begin(chr, chr->fd, chr->fd, NULL) < 0) {
        client_gone(chr);
    }
}

/* ---- making ---- */

static int socket_check(const struct qmp_chardev_options *o, Error **errp)
{
    const struct qmp_chardev_socket *s = &o->u.socket;
    int kinds = s->has_path + (s->has_host || s->has_port) + s->has_fd;

    if (kinds != 1) {
        return kinds == 0 ? error_set(errp, EINVAL,
                                      "chardev '%s': no 'path', 'host' or 'fd' is given", o->id)
                          : error_set(errp, EINVAL,
                                      "None or one of 'path', 'fd' or 'host' option required.");
    }
    if (!s->has_path && !s->has_fd && !s->has_port) {
        return error_set(errp, EINVAL, "chardev: socket: no port given");
    }
    if (s->has_server && s->server && s->has_reconnect && s->reconnect) {
        return error_set(errp, EINVAL,
                         "'reconnect' option is incompatible with socket in server listen mode");
    }
    if (!(s->has_server && s->server) && s->has_wait) {
        return error_set(errp, EINVAL,
                         "'wait' option is incompatible with socket in client connect mode");
    }
    if (s->has_fd && s->has_reconnect && s->reconnect) {
        return error_set(errp, EINVAL, "'reconnect' option is incompatible with 'fd'");
    }
    return 0;
}

/* A connected socket that the daemon was started with. */
static int adopt_fd(struct chardev *chr, int fd, Error **errp)
{
    int listens;
    socklen_t len = sizeof(listens);

    if (os->getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0) {
        return error_set(errp, EINVAL, "File descriptor '%d' is not a socket", fd);
    }
    if (listens) {
        return error_set(errp, EINVAL, "File descriptor '%d' listens: server=on is missing", fd);
    }
    chr->fd = fd;
    return 0;
}

/* The sockets of a server; fd: one that listens, or -1. */
static int server_init(struct chardev *chr, int fd, Error **errp)
{
    struct os_listener socks[OS_LISTENERS_MAX];
    int count;

    if (fd >= 0) {
        count = os_listen_fd(fd, socks, errp);
    } else if (chr->path) {
        count = os_listen_unix(chr->path, socks, errp);
    } else {
        count = os_listen_tcp(chr->host, chr->port, false, socks, errp);
    }
    if (count < 0) {
        return count;
    }
    chr->listener_count = count > 0 ? (unsigned)count : 1;
    for (unsigned i = 0; i < chr->listener_count; i++) {
        chr->listeners[i] = (struct chardev_listener){chr, socks[i]};
    }
    return 0;
}

/* Copies of where it is, and how that is shown. */
static int socket_names(struct chardev *chr, const struct qmp_chardev_socket *s, Error **errp)
{
    int shown;

    chr->path = s->has_path ? strdup(s->path) : NULL;
    chr->host = s->has_port ? strdup(s->has_host ? s->host : "") : NULL;
    chr->port = s->has_port ? strdup(s->port) : NULL;
    if ((s->has_path && !chr->path) || (s->has_port && (!chr->host || !chr->port))) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (s->has_port) {
        shown = asprintf(&chr->filename, "tcp:%s:%s", chr->host, chr->port);
    } else {
        shown = asprintf(&chr->filename, s->has_path ? "unix:%s" : "fd:%s",
                         s->has_path ? s->path : s->fd);
    }
    if (shown < 0) {
        chr->filename = NULL;
        return error_set(errp, ENOMEM, "out of memory");
    }
    return 0;
}

static int socket_init(struct chardev *chr, const struct qmp_chardev_options *o, Error **errp)
{
    const struct qmp_chardev_socket *s = &o->u.socket;
    bool server = s->has_server && s->server;
    uint64_t fd = 0;
    int ret = socket_check(o, errp);

    if (ret == 0 && s->has_fd && number_parse(s->fd, "fd", 0, INT32_MAX, &fd, NULL) < 0) {
        ret = error_set(errp, EINVAL, "Unable to parse FD number %s", s->fd);
    }
    if (ret == 0) {
        ret = socket_names(chr, s, errp);
    }
    if (ret < 0) {
        return ret;
    }
    chr->is_socket = true;
    chr->waits = server && (!s->has_wait || s->wait);
    chr->retry_ns = s->has_reconnect ? s->reconnect * SECOND_NS : 0;
    chr->nodelay = s->has_nodelay && s->nodelay && s->has_port;
    chr->timer = aio_timer_new(chr->ctx, timer_cb, chr);
    if (!chr->timer) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (server) {
        return server_init(chr, s->has_fd ? (int)fd : -1, errp);
    }
    if (s->has_fd) {
        return adopt_fd(chr, (int)fd, errp);
    }
    if (chr->retry_ns) {
        client_connect(chr, NULL); /* it may come later */
        return 0;
    }
    return client_connect(chr, errp);
}

static int stdio_init(struct chardev *chr, struct chardev_list *list, Error **errp)
{
    struct chardev *other;

    LIST_FOREACH (other, list, entry) {
        if (!other->is_socket) {
            return error_set(errp, EBUSY, "cannot use stdio by multiple character devices");
        }
    }
    chr->filename = strdup("stdio");
    return chr->filename ? 0 : error_set(errp, ENOMEM, "out of memory");
}

static void chardev_free(struct chardev *chr)
{
    if (chr->monitor) {
        monitor_close(chr->monitor);
    }
    listen_on(chr, false);
    for (unsigned i = 0; i < chr->listener_count; i++) {
        os_listener_close(&chr->listeners[i].sock);
    }
    if (chr->is_socket && chr->fd >= 0) {
        os->close(chr->fd);
    }
    if (chr->stdout_flags >= 0) {
        os->fcntl_setfl(STDOUT_FILENO, chr->stdout_flags);
    }
    if (chr->timer) {
        aio_timer_free(chr->timer);
    }
    free(chr->id);
    free(chr->filename);
    free(chr->path);
    free(chr->host);
    free(chr->port);
    free(chr);
}

int chardev_new(struct chardev_list *list, AioContext *ctx,
                const struct qmp_chardev_options *options, Error **errp)
{
    struct chardev *chr = calloc(1, sizeof(*chr));
    int ret = 0;

    if (chardev_find(list, options->id)) {
        free(chr);
        return error_set(errp, EEXIST, "Chardev with id '%s' already exists", options->id);
    }
    if (!chr || !(chr->id = strdup(options->id))) {
        free(chr);
        return error_set(errp, ENOMEM, "out of memory");
    }
    chr->ctx = ctx;
    chr->fd = chr->stdout_flags = -1;
    if (options->backend == QMP_CHARDEV_KIND_SOCKET) {
        ret = socket_init(chr, options, errp);
    } else {
        ret = stdio_init(chr, list, errp);
    }
    if (ret < 0) {
        chardev_free(chr);
        return ret;
    }
    LIST_INSERT_HEAD(list, chr, entry);
    return 0;
}

struct chardev *chardev_find(struct chardev_list *list, const char *id)
{
    struct chardev *chr;

    LIST_FOREACH (chr, list, entry) {
        if (strcmp(chr->id, id) == 0) {
            return chr;
        }
    }
    return NULL;
}

struct chardev *chardev_next(struct chardev *chr)
{
    return LIST_NEXT(chr, entry);
}

/* Output to a pipe that nobody reads must not stop the loop. A terminal is let be: its flags are
 * the shell's too. */
static int stdio_begin(struct chardev *chr, Error **errp)
{
    int flags = os->fcntl_getfl(STDOUT_FILENO);

    if (flags >= 0 && !(flags & O_NONBLOCK) && !isatty(STDOUT_FILENO) &&
        os->fcntl_setfl(STDOUT_FILENO, flags | O_NONBLOCK) == 0) {
        chr->stdout_flags = flags;
    }
    return session_begin(chr, STDIN_FILENO, STDOUT_FILENO, errp);
}

static int server_begin(struct chardev *chr, Error **errp)
{
    int ret = listen_on(chr, true);

    if (ret < 0) {
        return error_set_errno(errp, -ret, "cannot watch the socket of chardev '%s'", chr->id);
    }
    return 0;
}

int chardev_attach(struct chardev *chr, struct monitors *monitors, bool pretty, Error **errp)
{
    if (chr->monitors) {
        return error_set(errp, EBUSY, "Device '%s' is in use", chr->id);
    }
    chr->monitors = monitors;
    chr->pretty = pretty;
    if (!chr->is_socket) {
        return stdio_begin(chr, errp);
    }
    if (chr->listener_count > 0) {
        return server_begin(chr, errp);
    }
    if (chr->fd < 0) { /* the other end was not there yet */
        client_gone(chr);
        return 0;
    }
    return session_begin(chr, chr->fd, chr->fd, errp);
}

bool chardev_is_waiting(const struct chardev *chr)
{
    return chr->waits;
}

const char *chardev_filename(const struct chardev *chr)
{
    return chr->filename;
}

/* The name with its state. NULL: no memory. */
static json_t *shown_name(const struct chardev *chr)
{
    struct text t = {0};
    json_t *value;
    char *text;

    text_puts(&t, chr->is_socket && chr->fd < 0 ? "disconnected:" : "");
    text_puts(&t, chr->filename);
    text_puts(&t, chr->listener_count > 0 ? ",server=on" : "");
    text = text_end(&t);
    value = text ? json_text(text) : NULL;
    free(text);
    return value;
}

json_t *chardev_list_json(struct chardev_list *chardevs)
{
    json_t *list = json_array();
    struct chardev *chr;
    int ret = list ? 0 : -ENOMEM;

    LIST_FOREACH (chr, chardevs, entry) {
        json_append(list,
                    json_pack("{s:o, s:o, s:b}", "label", json_text(chr->id), "filename",
                              shown_name(chr), "frontend-open", chr->monitors != NULL),
                    &ret);
    }
    return json_whole(list, ret);
}

void chardev_list_free(struct chardev_list *list)
{
    struct chardev *chr;

    while ((chr = LIST_FIRST(list)) != NULL) {
        LIST_REMOVE(chr, entry);
        chardev_free(chr);
    }
}
