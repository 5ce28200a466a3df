/* SPDX-License-Identifier: MIT */
/*
 * A client of the NBD server, on one end of a socket pair. It and the server take turns in one
 * thread: a request goes out, then the server's loop runs until the answer is there or the
 * connection is gone. Virtual time stands still meanwhile, so no timeout strikes.
 */
#include "scenarios.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <platter/export.h>

#include "util/bytes.h"

#define PATIENCE_TURNS 400 /* of at least a millisecond without anything to do */
#define OPT_GO 7
#define REP_ACK 1
#define REP_ERROR 0x80000000u
#define CMD_READ 0
#define CMD_WRITE 1
#define CMD_DISC 2
#define CMD_FLUSH 3
#define CMD_FUA 1
#define HEADER_BYTES 28
#define REPLY_BYTES 16

struct client {
    struct scenario_run *r;
    int fd;
};

/* Exactly bytes from the server, or -ECONNRESET. */
static int client_recv(struct client *c, void *buf, size_t bytes)
{
    AioContext *ctx = platter_get_main_context(c->r->h.pl);
    size_t done = 0;

    for (unsigned turn = 0; done < bytes && turn < PATIENCE_TURNS;) {
        ssize_t n = recv(c->fd, (char *)buf + done, bytes - done, MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            return -ECONNRESET;
        }
        if (n > 0) {
            done += (size_t)n;
        } else if (!aio_poll(ctx, false)) {
            struct pollfd pfd = {.fd = c->fd, .events = POLLIN};

            turn++;
            poll(&pfd, 1, 1);
        }
    }
    return done == bytes ? 0 : -ETIMEDOUT;
}

static int client_send(struct client *c, const void *buf, size_t bytes)
{
    return send(c->fd, buf, bytes, MSG_NOSIGNAL) == (ssize_t)bytes ? 0 : -ECONNRESET;
}

static int client_option_replies(struct client *c)
{
    uint8_t head[20];
    uint8_t data[256];

    for (;;) {
        int rc = client_recv(c, head, sizeof(head));
        uint32_t type = rc < 0 ? 0 : load_be32(head + 12);
        uint32_t len = rc < 0 ? 0 : load_be32(head + 16);

        if (rc == 0 && len > sizeof(data)) {
            rc = -EPROTO;
        }
        if (rc == 0) {
            rc = client_recv(c, data, len);
        }
        if (rc < 0) {
            return rc;
        }
        if (type == REP_ACK) {
            return 0;
        }
        if (type & REP_ERROR) {
            return -EIO;
        }
    }
}

static int client_handshake(struct client *c)
{
    uint8_t greeting[18];
    uint8_t go[4 + 16 + 6] = {0};
    int rc = client_recv(c, greeting, sizeof(greeting));

    if (rc < 0) {
        return rc;
    }
    if (memcmp(greeting, "NBDMAGICIHAVEOPT", 16) != 0) {
        return -EPROTO;
    }
    store_be32(go, 3); /* fixed newstyle, no zeroes */
    memcpy(go + 4, "IHAVEOPT", 8);
    store_be32(go + 12, OPT_GO);
    store_be32(go + 16, 6);
    rc = client_send(c, go, sizeof(go));
    return rc < 0 ? rc : client_option_replies(c);
}

/* One request and its answer; data goes with a write and comes with a read. */
static int client_request(struct client *c, uint16_t flags, uint16_t type, uint64_t offset,
                          uint32_t bytes, void *data)
{
    uint8_t head[HEADER_BYTES];
    uint8_t reply[REPLY_BYTES];
    int rc;

    store_be32(head, 0x25609513);
    store_be16(head + 4, flags);
    store_be16(head + 6, type);
    store_be64(head + 8, offset + type);
    store_be64(head + 16, offset);
    store_be32(head + 24, bytes);
    rc = client_send(c, head, sizeof(head));
    if (rc == 0 && type == CMD_WRITE) {
        rc = client_send(c, data, bytes);
    }
    if (rc < 0 || type == CMD_DISC) {
        return rc;
    }
    rc = client_recv(c, reply, sizeof(reply));
    if (rc < 0) {
        return rc;
    }
    if (load_be32(reply) != 0x67446698 || load_be64(reply + 8) != offset + type) {
        return -EPROTO;
    }
    if (load_be32(reply + 4) != 0) {
        return -EIO;
    }
    return type == CMD_READ ? client_recv(c, data, bytes) : 0;
}

/* A lost connection is a failed operation like others; a wrong answer is not. */
static int judge(struct scenario_run *r, const char *what, int rc)
{
    bool lost = rc == -ECONNRESET || rc == -ETIMEDOUT || rc == -EIO;

    return scenario_result(r, what, lost && !r->strict ? -r->injected : rc);
}

static int client_write(struct client *c, uint16_t flags, uint64_t offset)
{
    uint8_t buf[4096];
    unsigned version = shadow_begin(&c->r->h.shadow, offset, sizeof(buf), false);
    int rc;

    shadow_fill(buf, offset, sizeof(buf), version);
    rc = client_request(c, flags, CMD_WRITE, offset, sizeof(buf), buf);
    shadow_end(&c->r->h.shadow, offset, sizeof(buf), version, rc == 0, flags & CMD_FUA);
    return rc;
}

static int client_read(struct client *c, uint64_t offset)
{
    uint8_t buf[4096];
    int rc = client_request(c, 0, CMD_READ, offset, sizeof(buf), buf);

    if (rc == 0 && shadow_check_now(&c->r->h.shadow, offset, buf, sizeof(buf)) >= 0) {
        return -EBADMSG;
    }
    return rc;
}

static int client_flush(struct client *c)
{
    int rc;

    shadow_flush_begin(&c->r->h.shadow);
    rc = client_request(c, 0, CMD_FLUSH, 0, 0, 0);
    shadow_flush_end(&c->r->h.shadow, rc == 0);
    return rc;
}

static void client_steps(struct client *c)
{
    struct scenario_run *r = c->r;

    if (judge(r, "handshake", client_handshake(c)) < 0) {
        return;
    }
    judge(r, "nbd write", client_write(c, 0, 0));
    judge(r, "nbd write fua", client_write(c, CMD_FUA, 4096));
    judge(r, "nbd flush", client_flush(c));
    judge(r, "nbd read", client_read(c, 0));
    client_request(c, 0, CMD_DISC, 0, 0, 0);
}

static NbdServer *server_new(struct scenario_run *r)
{
    const struct nbd_server_options server_opts = {.size = sizeof(server_opts)};
    const struct nbd_export_options opts = {.size = sizeof(opts), .writable = true};
    Error *err = 0;
    NbdServer *server = nbd_server_new(r->h.pl, &server_opts, &err);

    if (server && nbd_server_add_export(server, r->h.blk, &opts, &err) < 0) {
        nbd_server_free(server);
        server = 0;
    }
    scenario_result(r, "server", server ? 0 : -error_get_errno(err));
    error_free(err);
    return server;
}

void scenario_nbd(struct scenario_run *r)
{
    NbdServer *server = server_new(r);
    struct client c = {.r = r};
    int sv[2];

    if (!server) {
        return;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) < 0) {
        scenario_wrong(r, "no socket pair");
        nbd_server_free(server);
        return;
    }
    c.fd = sv[0];
    sim_world_busy_begin(r->h.world);
    if (judge(r, "accept", nbd_server_accept_fd(server, sv[1])) == 0) {
        client_steps(&c);
    }
    sim_world_busy_end(r->h.world);
    close(sv[0]);
    nbd_server_free(server);
}
