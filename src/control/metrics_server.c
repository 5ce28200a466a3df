/* SPDX-License-Identifier: MIT */
/*
 * HTTP for one resource: GET (or HEAD) /metrics, an answer, the end of the connection. What a
 * client may send is bounded, in bytes and in time, and so are the clients; who comes later waits
 * in the queue of the kernel.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "control/metrics.h"
#include "os/listen.h"
#include "os/os.h"
#include "util/error.h"
#include "util/size.h"

#define ACCEPT_RETRY_NS (METRICS_CLIENT_NS / 100)

struct metrics_client {
    struct metrics_server *server;
    int fd;          /* -1: the place is free */
    AioTimer *timer; /* owned, kept for the next client */
    char request[METRICS_REQUEST_MAX + 1];
    size_t request_bytes;
    bool asked; /* the request is whole: an answer is to be made */
    char *answer;
    size_t answer_bytes;
    size_t sent;
};

struct metrics_listener {
    struct metrics_server *server;
    struct os_listener sock;
};

struct metrics_server {
    AioContext *ctx;
    struct metrics_source source;
    struct metrics_listener listeners[OS_LISTENERS_MAX];
    unsigned listener_count;
    bool accepts;
    AioTimer *retry; /* owned: accept again */
    char *where;     /* owned */
    struct metrics_client clients[METRICS_CLIENTS_MAX];
};

static void accept_client(void *opaque);

static void set_accepts(struct metrics_server *s, bool accepts)
{
    for (unsigned i = 0; s->accepts != accepts && i < s->listener_count; i++) {
        struct metrics_listener *l = &s->listeners[i];

        aio_set_fd_handler(s->ctx, l->sock.fd, accepts ? accept_client : NULL, NULL, l);
    }
    s->accepts = accepts;
}

/* ---- a client ---- */

static void client_end(struct metrics_client *c)
{
    aio_set_fd_handler(c->server->ctx, c->fd, NULL, NULL, NULL);
    os->close(c->fd);
    c->fd = -1;
    aio_timer_del(c->timer);
    free(c->answer);
    c->answer = NULL;
    c->request_bytes = c->answer_bytes = c->sent = 0;
    c->asked = false;
    set_accepts(c->server, true);
}

static void client_late(void *opaque)
{
    client_end(opaque);
}

static void client_send(void *opaque)
{
    struct metrics_client *c = opaque;
    struct iovec iov = {c->answer + c->sent, c->answer_bytes - c->sent};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    int64_t n = os->sendmsg(c->fd, &msg, 0);

    if (n == -EAGAIN || n == -EINTR) {
        return;
    }
    if (n > 0) {
        c->sent += (size_t)n;
    }
    if (n < 0 || c->sent == c->answer_bytes) {
        client_end(c);
    }
}

/* Whether the head of the request is whole: it ends with an empty line. */
static bool is_whole(const struct metrics_client *c)
{
    return strstr(c->request, "\r\n\r\n") || strstr(c->request, "\n\n");
}

static void client_receive(void *opaque)
{
    struct metrics_client *c = opaque;
    struct iovec iov = {c->request + c->request_bytes, METRICS_REQUEST_MAX - c->request_bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    int64_t n = os->recvmsg(c->fd, &msg, 0);

    if (n == -EAGAIN || n == -EINTR) {
        return;
    }
    if (n <= 0) {
        client_end(c);
        return;
    }
    c->request_bytes += (size_t)n;
    c->request[c->request_bytes] = '\0';
    if (is_whole(c) || c->request_bytes == METRICS_REQUEST_MAX) {
        c->asked = true; /* metrics_server_turn goes on */
        aio_set_fd_handler(c->server->ctx, c->fd, NULL, NULL, NULL);
    }
}

/* ---- answers ---- */

/* Whether the request line is METHOD followed by the one resource there is. */
static bool asks(const char *request, const char *method, bool *ret_found)
{
    static const char path[] = "/metrics";
    size_t n = strlen(method);

    if (strncmp(request, method, n) != 0 || request[n] != ' ') {
        return false;
    }
    request += n + 1;
    n = sizeof(path) - 1;
    *ret_found = strncmp(request, path, n) == 0 && (request[n] == ' ' || request[n] == '?');
    return true;
}

/* The status line's text; NULL: the figures are to be sent, their head alone if *ret_head. */
static const char *refusal(const struct metrics_client *c, bool *ret_head)
{
    size_t line = strcspn(c->request, "\r\n");
    const char *version = memmem(c->request, line, " HTTP/1.", 8);
    bool found = false;
    bool get;

    if (!is_whole(c)) {
        return "431 Request Header Fields Too Large";
    }
    /* a zero byte in the request ends its text here: what is behind it is not looked at */
    if (!version) {
        return "400 Bad Request";
    }
    get = asks(c->request, "GET", &found);
    *ret_head = !get && asks(c->request, "HEAD", &found);
    if (!get && !*ret_head) {
        return "405 Method Not Allowed";
    }
    return found ? NULL : "404 Not Found";
}

static int make_answer(struct metrics_client *c)
{
    char *text = NULL;
    size_t bytes = 0;
    bool head = false;
    const char *status = refusal(c, &head);
    int n;

    if (!status && metrics_render(&c->server->source, &text, &bytes) < 0) {
        status = "503 Service Unavailable";
    }
    n = asprintf(&c->answer,
                 "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                 "Content-Length: %zu\r\n%sConnection: close\r\n\r\n%s",
                 status ? status : "200 OK", bytes,
                 status && strncmp(status, "405", 3) == 0 ? "Allow: GET, HEAD\r\n" : "",
                 text && !head ? text : "");
    free(text);
    if (n < 0) {
        c->answer = NULL;
        return -ENOMEM;
    }
    c->answer_bytes = (size_t)n;
    return 0;
}

void metrics_server_turn(struct metrics_server *s)
{
    for (unsigned i = 0; s && i < METRICS_CLIENTS_MAX; i++) {
        struct metrics_client *c = &s->clients[i];

        if (c->fd < 0 || !c->asked) {
            continue;
        }
        c->asked = false;
        if (make_answer(c) < 0 || aio_set_fd_handler(s->ctx, c->fd, NULL, client_send, c) < 0) {
            client_end(c);
        }
    }
}

/* ---- clients that come ---- */

static struct metrics_client *free_client(struct metrics_server *s)
{
    for (unsigned i = 0; i < METRICS_CLIENTS_MAX; i++) {
        if (s->clients[i].fd < 0) {
            return &s->clients[i];
        }
    }
    return NULL;
}

static void accept_again(void *opaque)
{
    set_accepts(opaque, true);
}

static void accept_client(void *opaque)
{
    struct metrics_listener *l = opaque;
    struct metrics_server *s = l->server;
    struct metrics_client *c = free_client(s);
    int fd;

    if (!c) {
        set_accepts(s, false); /* until one has gone */
        return;
    }
    fd = os->accept(l->sock.fd, NULL, NULL);
    if (fd == -EAGAIN || fd == -EINTR || fd == -ECONNABORTED) {
        return;
    }
    if (fd < 0) { /* no descriptors, no memory */
        set_accepts(s, false);
        aio_timer_mod(s->retry, aio_clock_ns() + ACCEPT_RETRY_NS);
        return;
    }
    c->fd = fd;
    aio_timer_mod(c->timer, aio_clock_ns() + METRICS_CLIENT_NS);
    if (aio_set_fd_handler(s->ctx, fd, client_receive, NULL, c) < 0) {
        client_end(c);
    }
}

/* ---- addresses ---- */

int metrics_address_check(const char *address, Error **errp)
{
    const char *colon = strrchr(address, ':');
    uint64_t port;

    if (strncmp(address, "unix:", 5) == 0) {
        return 0;
    }
    if (!colon || colon == address || colon[1] == '\0') {
        return error_set(errp, EINVAL,
                         "'%s' is no address of metrics: it is unix:PATH or HOST:PORT", address);
    }
    return number_parse(colon + 1, "port", 0, 65535, &port,
                        errp); /* getaddrinfo takes it mod 2^16 */
}

static int listen_tcp(struct metrics_server *s, const char *address, Error **errp)
{
    struct os_listener socks[OS_LISTENERS_MAX];
    const char *colon = strrchr(address, ':');
    size_t bracket = address[0] == '[' && colon && colon > address + 1 && colon[-1] == ']';
    char *host = strndup(address + bracket, (size_t)(colon - address) - 2 * bracket);
    int n;

    n = host ? os_listen_tcp(host, colon + 1, true, socks, errp)
             : error_set(errp, ENOMEM, "out of memory");
    free(host);
    for (int i = 0; i < n; i++) {
        s->listeners[s->listener_count++].sock = socks[i];
    }
    return n < 0 ? n : 0;
}

static int listen_at(struct metrics_server *s, const char *address, Error **errp)
{
    int ret = metrics_address_check(address, errp);

    if (ret < 0) {
        return ret;
    }
    if (strncmp(address, "unix:", 5) == 0) {
        ret = os_listen_unix(address + 5, &s->listeners[0].sock, errp);
        s->listener_count = ret == 0 ? 1 : 0;
    } else {
        ret = listen_tcp(s, address, errp);
    }
    if (ret < 0) {
        return ret;
    }
    for (unsigned i = 0; i < s->listener_count; i++) {
        s->listeners[i].server = s;
    }
    ret = s->listeners[0].sock.path
              ? asprintf(&s->where, "unix:%s", s->listeners[0].sock.path)
              : asprintf(&s->where, "http://%s/metrics", s->listeners[0].sock.host_port);
    if (ret < 0) {
        s->where = NULL;
        return error_set(errp, ENOMEM, "out of memory");
    }
    return 0;
}

int metrics_server_new(AioContext *ctx, const char *address, const struct metrics_source *source,
                       struct metrics_server **ret_server, Error **errp)
{
    struct metrics_server *s = calloc(1, sizeof(*s));
    bool good = s != NULL;
    int ret;

    for (unsigned i = 0; s && i < METRICS_CLIENTS_MAX; i++) {
        struct metrics_client *c = &s->clients[i];

        c->server = s;
        c->fd = -1;
        c->timer = aio_timer_new(ctx, client_late, c);
        good = good && c->timer;
    }
    if (s) {
        s->ctx = ctx;
        s->source = *source;
        s->retry = aio_timer_new(ctx, accept_again, s);
        good = good && s->retry;
    }
    ret = good ? listen_at(s, address, errp) : error_set(errp, ENOMEM, "out of memory");
    if (ret < 0) {
        metrics_server_free(s);
        return ret;
    }
    set_accepts(s, true);
    *ret_server = s;
    return 0;
}

const char *metrics_server_where(const struct metrics_server *s)
{
    return s->where;
}

void metrics_server_free(struct metrics_server *s)
{
    if (!s) {
        return;
    }
    for (unsigned i = 0; i < METRICS_CLIENTS_MAX; i++) {
        if (s->clients[i].fd >= 0) {
            client_end(&s->clients[i]);
        }
        aio_timer_free(s->clients[i].timer);
    }
    set_accepts(s, false);
    for (unsigned i = 0; i < s->listener_count; i++) {
        os_listener_close(&s->listeners[i].sock);
    }
    aio_timer_free(s->retry);
    free(s->where);
    free(s);
}
