/* SPDX-License-Identifier: MIT */
/*
 * Streams at unix addresses. What is sent is there for the peer at once, as far as its buffer has
 * room; a transfer may come short or be refused by a fault rule. Descriptors do not travel.
 */
#include "os/sim/sim_machine_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

struct sim_address *sim_address_find(struct sim_machine *machine, const char *path)
{
    struct sim_address *address;

    LIST_FOREACH (address, &machine->addresses, link) {
        if (strcmp(address->path, path) == 0) {
            return address;
        }
    }
    return 0;
}

void sim_address_free(struct sim_address *address)
{
    if (address->socket) {
        address->socket->socket.address = 0;
    }
    LIST_REMOVE(address, link);
    free(address->path);
    free(address);
}

/* ---- one end ---- */

void sim_socket_init(struct sim_thing *thing)
{
    TAILQ_INIT(&thing->socket.queue);
}

void sim_socket_fini(struct sim_thing *thing)
{
    struct sim_socket *s = &thing->socket;
    struct sim_thing *waiting;

    while ((waiting = TAILQ_FIRST(&s->queue))) {
        TAILQ_REMOVE(&s->queue, waiting, in_queue);
        sim_thing_unref(waiting);
    }
    if (s->address) {
        s->address->socket = 0;
    }
    if (s->peer) {
        s->peer->socket.peer = 0;
        s->peer->socket.ended = true;
        s->peer->socket.reset = s->used > 0;
    }
    free(s->bytes);
}

static void socket_join(struct sim_thing *a, struct sim_thing *b)
{
    a->socket.peer = b;
    b->socket.peer = a;
    a->socket.connected = b->socket.connected = true;
    a->socket.room = b->socket.room = sim_machine_now->opts.socket_bytes;
}

/* Room for what comes; made when first needed. */
static bool socket_buffer(struct sim_socket *s)
{
    s->bytes = s->bytes ? s->bytes : malloc(s->room);
    return s->bytes != 0;
}

uint32_t sim_socket_ready(const struct sim_socket *s)
{
    uint32_t events = 0;

    if (s->listens) {
        return s->waiting > 0 ? EPOLLIN : 0;
    }
    if (!s->connected) {
        return EPOLLOUT | EPOLLHUP;
    }
    if (s->used > 0 || s->ended) {
        events |= EPOLLIN;
    }
    if (!s->peer) {
        return events | EPOLLOUT | EPOLLHUP;
    }
    /* As kernels do it, only when a good part is free: else each byte read would wake the sender */
    if (s->peer->socket.used <= s->peer->socket.room / 2) {
        events |= EPOLLOUT;
    }
    return events;
}

static void put(struct sim_socket *s, const uint8_t *from, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t end = (s->at + s->used) % s->room;
        size_t n = s->room - end < bytes - done ? s->room - end : bytes - done;

        memcpy(s->bytes + end, from + done, n);
        s->used += n;
        done += n;
    }
}

static void take(struct sim_socket *s, uint8_t *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t n = s->room - s->at < bytes - done ? s->room - s->at : bytes - done;

        memcpy(to + done, s->bytes + s->at, n);
        s->at = (s->at + n) % s->room;
        s->used -= n;
        done += n;
    }
}

static size_t list_bytes(const struct msghdr *msg)
{
    size_t sum = 0;

    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        sum += msg->msg_iov[i].iov_len;
    }
    return sum;
}

/* How much of a transfer is done at once. */
static size_t some_of(const struct sim_verdict *verdict, size_t bytes)
{
    struct sim_machine *machine = sim_machine_now;

    bytes = (size_t)sim_verdict_bytes(verdict, bytes);
    if (bytes > 1 && sim_rng_percent(&machine->rng, machine->opts.short_percent)) {
        bytes = 1 + (size_t)sim_rng_below(&machine->rng, bytes - 1);
    }
    return bytes;
}

/* ---- calls ---- */

static int machine_socket(int domain, int type, int protocol)
{
    struct sim_verdict verdict;
    int rc = sim_machine_ask(SIM_CALL_SOCKET, &verdict);
    struct sim_thing *thing;

    if (rc < 0) {
        return rc;
    }
    if (domain != AF_UNIX || (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM) {
        return -EAFNOSUPPORT;
    }
    thing = sim_thing_new(SIM_THING_SOCKET);
    if (!thing) {
        return -ENOMEM;
    }
    thing->flags |= type & SOCK_NONBLOCK ? O_NONBLOCK : 0;
    return sim_thing_fd(thing);
}

static const char *path_of(const struct sockaddr *addr, socklen_t len)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)addr;

    return len == sizeof(*un) && un->sun_family == AF_UNIX && sim_is_path(un->sun_path)
               ? un->sun_path
               : 0;
}

static int machine_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sim_machine *machine = sim_machine_now;
    struct sim_thing *thing = sim_thing_of_kind(fd, SIM_THING_SOCKET);
    const char *path = path_of(addr, len);
    struct sim_address *address;
    struct stat st;

    if (!thing || !path || thing->socket.address || thing->socket.connected) {
        return thing ? -EINVAL : -EBADF;
    }
    if (os->stat(path, &st) == 0) {
        return -EADDRINUSE;
    }
    address = calloc(1, sizeof(*address));
    if (!address || !(address->path = strdup(path))) {
        free(address);
        return -ENOMEM;
    }
    address->ino = machine->world->next_ino++;
    address->socket = thing;
    thing->socket.address = address;
    LIST_INSERT_HEAD(&machine->addresses, address, link);
    return 0;
}

static int machine_listen(int fd, int backlog)
{
    struct sim_thing *thing = sim_thing_of_kind(fd, SIM_THING_SOCKET);

    if (!thing || !thing->socket.address) {
        return thing ? -EINVAL : -EBADF;
    }
    thing->socket.listens = true;
    thing->socket.backlog = backlog > 0 ? (unsigned)backlog : 1;
    return 0;
}

static int machine_accept(int fd, struct sockaddr *addr, socklen_t *len)
{
    struct sim_thing *thing = sim_thing_of_kind(fd, SIM_THING_SOCKET);
    struct sim_thing *client;
    struct sim_verdict verdict;
    int rc;

    if (!thing || !thing->socket.listens) {
        return thing ? -EINVAL : -EBADF;
    }
    client = TAILQ_FIRST(&thing->socket.queue);
    if (!client) {
        return -EAGAIN;
    }
    rc = sim_machine_ask(SIM_CALL_ACCEPT, &verdict);
    if (rc < 0) {
        return rc;
    }
    TAILQ_REMOVE(&thing->socket.queue, client, in_queue);
    thing->socket.waiting--;
    client->flags |= O_NONBLOCK;
    rc = sim_thing_fd(client);
    if (rc >= 0) {
        client->fds--; /* that it had while it waited */
    }
    return rc;
}

static int machine_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sim_thing *thing = sim_thing_of_kind(fd, SIM_THING_SOCKET);
    const char *path = path_of(addr, len);
    struct sim_address *address = path ? sim_address_find(sim_machine_now, path) : 0;
    struct sim_verdict verdict;
    struct sim_thing *server;
    struct sim_thing *end;
    int rc = sim_machine_ask(SIM_CALL_CONNECT, &verdict);

    if (rc < 0) {
        return rc;
    }
    if (!thing || thing->socket.connected) {
        return thing ? -EISCONN : -EBADF;
    }
    server = address ? address->socket : 0;
    if (!server || !server->socket.listens) {
        return address ? -ECONNREFUSED : -ENOENT;
    }
    if (server->socket.waiting >= server->socket.backlog) {
        return -EAGAIN;
    }
    end = sim_thing_new(SIM_THING_SOCKET);
    if (!end) {
        return -ENOMEM;
    }
    end->fds = 1;
    socket_join(thing, end);
    TAILQ_INSERT_TAIL(&server->socket.queue, end, in_queue);
    server->socket.waiting++;
    return 0;
}

int sim_machine_pair(struct sim_machine *machine, int ret_fds[2])
{
    struct sim_thing *ends[2];

    for (int i = 0; i < 2; i++) {
        ends[i] = sim_thing_new(SIM_THING_SOCKET);
        ret_fds[i] = ends[i] ? sim_thing_fd(ends[i]) : -ENOMEM;
        if (ret_fds[i] < 0) {
            if (i == 1) {
                os->close(ret_fds[0]);
            }
            return ret_fds[i];
        }
        ends[i]->flags |= O_NONBLOCK;
    }
    socket_join(ends[0], ends[1]);
    return 0;
}

static int64_t machine_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct sim_thing *thing = sim_thing_of_kind(fd, SIM_THING_SOCKET);
    struct sim_socket *to;
    struct sim_verdict verdict;
    size_t bytes = list_bytes(msg);
    size_t left;
    int rc;

    if (!thing || !thing->socket.connected) {
        return !thing ? -ENOTSOCK : -ENOTCONN;
    }
    if (thing->socket.mute || !thing->socket.peer) {
        return -EPIPE;
    }
    rc = sim_machine_ask(SIM_CALL_SEND, &verdict);
    if (rc < 0 || bytes == 0) {
        return rc;
    }
    to = &thing->socket.peer->socket;
    if (!socket_buffer(to)) {
        return -ENOMEM;
    }
    if (to->used == to->room) {
        return -EAGAIN;
    }
    bytes = some_of(&verdict, bytes);
    bytes = bytes < to->room - to->used ? bytes : to->room - to->used;
    left = bytes;
    for (size_t i = 0; left > 0; i++) {
        size_t n = msg->msg_iov[i].iov_len < left ? msg->msg_iov[i].iov_len : left;

        put(to, msg->msg_iov[i].iov_base, n);
        left -= n;
    }
    return (int64_t)bytes;
}

static int64_t machine_recvmsg(int fd, struct msghdr *msg, int flags)
{
    struct sim_thing *thing = sim_thing_of_kind(fd, SIM_THING_SOCKET);
    struct sim_socket *s = thing ? &thing->socket : 0;
    struct sim_verdict verdict;
    size_t bytes = list_bytes(msg);
    size_t left;
    int rc;

    if (!s || !s->connected) {
        return !s ? -ENOTSOCK : -ENOTCONN;
    }
    rc = sim_machine_ask(SIM_CALL_RECV, &verdict);
    if (rc < 0) {
        return rc;
    }
    msg->msg_controllen = 0;
    msg->msg_flags = 0;
    if (s->used == 0) {
        if (s->reset) {
            s->reset = false;
            return -ECONNRESET;
        }
        return s->ended ? 0 : -EAGAIN;
    }
    bytes = some_of(&verdict, bytes < s->used ? bytes : s->used);
    left = bytes;
    for (size_t i = 0; left > 0; i++) {
        size_t n = msg->msg_iov[i].iov_len < left ? msg->msg_iov[i].iov_len : left;

        take(s, msg->msg_iov[i].iov_base, n);
        left -= n;
    }
    return (int64_t)bytes;
}

static int machine_shutdown(int fd, int how)
{
    struct sim_thing *thing = sim_thing_of_kind(fd, SIM_THING_SOCKET);

    if (!thing) {
        return -ENOTSOCK;
    }
    if (!thing->socket.connected) {
        return -ENOTCONN;
    }
    if (how != SHUT_WR) {
        thing->socket.ended = true;
        if (thing->socket.peer) {
            thing->socket.peer->socket.mute = true;
        }
    }
    if (how != SHUT_RD) {
        thing->socket.mute = true;
        if (thing->socket.peer) {
            thing->socket.peer->socket.ended = true;
        }
    }
    return 0;
}

static int machine_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return sim_thing_of_kind(fd, SIM_THING_SOCKET) ? 0 : -ENOTSOCK;
}

static int machine_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    struct sim_thing *thing = sim_thing_of_kind(fd, SIM_THING_SOCKET);
    const struct ucred us = {.pid = getpid()};
    int number = 0;

    if (!thing) {
        return -ENOTSOCK;
    }
    if (level != SOL_SOCKET) {
        return -ENOPROTOOPT;
    }
    if (name == SO_PEERCRED && *len >= sizeof(us)) {
        memcpy(value, &us, sizeof(us));
        return 0;
    }
    if (name == SO_TYPE) {
        number = SOCK_STREAM;
    } else if (name == SO_ACCEPTCONN) {
        number = thing->socket.listens;
    } else if (name != SO_ERROR) {
        return -ENOPROTOOPT;
    }
    memcpy(value, &number, *len < sizeof(number) ? *len : sizeof(number));
    return 0;
}

static int machine_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    struct sim_thing *thing = sim_thing_of_kind(fd, SIM_THING_SOCKET);
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    if (!thing) {
        return -ENOTSOCK;
    }
    if (thing->socket.address) {
        strncpy(un.sun_path, thing->socket.address->path, sizeof(un.sun_path) - 1);
    }
    memcpy(addr, &un, *len < sizeof(un) ? *len : sizeof(un));
    *len = sizeof(un);
    return 0;
}

void sim_machine_socket_members(struct os_table *table)
{
    table->socket = machine_socket;
    table->bind = machine_bind;
    table->listen = machine_listen;
    table->accept = machine_accept;
    table->connect = machine_connect;
    table->recvmsg = machine_recvmsg;
    table->sendmsg = machine_sendmsg;
    table->shutdown = machine_shutdown;
    table->setsockopt = machine_setsockopt;
    table->getsockopt = machine_getsockopt;
    table->getsockname = machine_getsockname;
}
