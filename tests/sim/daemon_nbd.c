/* SPDX-License-Identifier: MIT */
/* An NBD client: it comes, negotiates, asks and listens at moments of its own, and goes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "daemon.h"
#include "os/listen.h"
#include "util/bytes.h"
#include "wire/nbd/proto.h"

#define IN_ROOM (96u << 10)

static void step(void *opaque);

static const char *export_name(const struct nbd_client *c)
{
    static const char *const names[] = {"b0", "b1", "cd"};

    return names[c->disk];
}

void nbd_client_begin(struct nbd_client *c, struct daemon_run *run, unsigned id)
{
    *c = (struct nbd_client){.run = run, .id = id, .fd = -1, .in_room = IN_ROOM};
    c->in = malloc(c->in_room);
    assert(c->in);
    sim_machine_after(run->machine, (int64_t)daemon_below(run, 20 * MS), step, c);
}

void nbd_client_end(struct nbd_client *c)
{
    nbd_client_drop(c);
    free(c->in);
    free(c->out);
    c->in = c->out = NULL;
}

static void ask_end(struct nbd_client *c, struct nbd_ask *ask)
{
    if (ask->op) {
        model_abandon(&c->run->disks[c->disk], ask->op);
    }
    free(ask->data);
    *ask = (struct nbd_ask){0};
}

void nbd_client_drop(struct nbd_client *c)
{
    for (unsigned i = 0; i < NBD_ASKS_MAX; i++) {
        if (c->asks[i].used) {
            ask_end(c, &c->asks[i]);
        }
    }
    if (c->fd >= 0) {
        os->close(c->fd);
    }
    c->fd = -1;
    c->state = NBD_AWAY;
    c->in_bytes = c->out_bytes = 0;
}

unsigned nbd_client_asking(const struct nbd_client *c)
{
    unsigned n = 0;

    for (unsigned i = 0; i < NBD_ASKS_MAX; i++) {
        n += c->asks[i].used;
    }
    return n;
}

uint8_t *nbd_client_out(struct nbd_client *c, size_t bytes)
{
    uint8_t *at;

    if (c->out_bytes + bytes > c->out_room) {
        c->out_room = (c->out_bytes + bytes) * 2;
        c->out = realloc(c->out, c->out_room);
        assert(c->out);
    }
    at = c->out + c->out_bytes;
    c->out_bytes += bytes;
    return at;
}

/* ---- negotiation ---- */

static void dial(struct nbd_client *c)
{
    struct daemon_run *run = c->run;

    c->fd = os_connect_unix(NBD_PATH, SOCK_NONBLOCK, NULL);
    if (c->fd < 0) {
        return;
    }
    c->disk = (unsigned)daemon_below(run, 100);
    c->disk = c->disk < 40 ? 0 : c->disk < 85 ? 1 : DISKS;
    c->structured = daemon_chance(run, 60);
    c->context = c->structured && daemon_chance(run, 50);
    c->state = NBD_GREETING;
}

static void put_option(struct nbd_client *c, uint32_t option, const void *data, uint32_t bytes)
{
    uint8_t *p = nbd_client_out(c, NBD_OPTION_BYTES + bytes);

    store_be64(p, NBD_OPTION_MAGIC);
    store_be32(p + 8, option);
    store_be32(p + 12, bytes);
    if (bytes > 0) {
        memcpy(p + NBD_OPTION_BYTES, data, bytes);
    }
}

static uint32_t put_name(const struct nbd_client *c, uint8_t *data)
{
    const char *name = export_name(c);
    uint32_t bytes = (uint32_t)strlen(name);

    store_be32(data, bytes);
    memcpy(data + 4, name, bytes);
    return 4 + bytes;
}

static void greet(struct nbd_client *c)
{
    static const char context[] = "base:allocation";
    uint8_t data[64];
    uint32_t n;

    if (c->in_bytes < NBD_GREETING_BYTES) {
        return;
    }
    if (load_be64(c->in) != NBD_INIT_MAGIC || load_be64(c->in + 8) != NBD_OPTION_MAGIC) {
        daemon_wrong(c->run, "nbd %u: a greeting of other bytes", c->id);
    }
    memmove(c->in, c->in + NBD_GREETING_BYTES, c->in_bytes -= NBD_GREETING_BYTES);
    store_be32(nbd_client_out(c, 4), NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
    if (daemon_chance(c->run, 10)) { /* nobody knows it */
        put_option(c, 77, "xyz", 3);
    }
    if (c->structured) {
        put_option(c, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    }
    if (c->context) {
        n = put_name(c, data);
        store_be32(data + n, 1);
        store_be32(data + n + 4, sizeof(context) - 1);
        memcpy(data + n + 8, context, sizeof(context) - 1);
        put_option(c, NBD_OPT_SET_META_CONTEXT, data, n + 8 + (uint32_t)sizeof(context) - 1);
    }
    n = put_name(c, data);
    store_be16(data + n, 0);
    put_option(c, NBD_OPT_GO, data, n + 2);
    c->state = NBD_OPTIONS;
}

/* ---- bytes ---- */

static void hear(struct nbd_client *c)
{
    for (;;) {
        struct iovec iov = {c->in + c->in_bytes, c->in_room - c->in_bytes};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        int64_t n = c->in_bytes < c->in_room ? os->recvmsg(c->fd, &msg, 0) : -EAGAIN;

        if (n == -EAGAIN) {
            return;
        }
        if (n <= 0) { /* the daemon may end a connection, and then answers nothing any more */
            daemon_trace(c->run, "nbd end", c->id, &n, sizeof(n));
            if (c->run->strict && !c->run->over && nbd_client_asking(c) > 0) {
                daemon_wrong(c->run, "nbd %u: the connection ended without a reason", c->id);
            }
            nbd_client_drop(c);
            return;
        }
        daemon_trace(c->run, "nbd hears", c->id, iov.iov_base, (size_t)n);
        c->in_bytes += (size_t)n;
    }
}

static void tell(struct nbd_client *c)
{
    while (c->out_bytes > 0) {
        struct iovec iov = {c->out, c->out_bytes};
        const struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        int64_t n;

        if (daemon_chance(c->run, 20)) {
            iov.iov_len = 1 + (size_t)daemon_below(c->run, c->out_bytes);
        }
        n = os->sendmsg(c->fd, &msg, 0);
        if (n <= 0) {
            return; /* full; or gone, which hear() finds out */
        }
        memmove(c->out, c->out + n, c->out_bytes -= (size_t)n);
    }
}

static void take_all(struct nbd_client *c)
{
    bool more = true;

    while (more && c->fd >= 0) {
        if (c->state == NBD_GREETING) {
            greet(c);
            more = c->state == NBD_OPTIONS;
        } else if (c->state == NBD_OPTIONS) {
            more = nbd_client_take_option(c);
        } else {
            more = nbd_client_take(c);
        }
    }
}

/* How long until the next step: mostly soon, sometimes it stares at the wall. */
static int64_t pause_ns(struct nbd_client *c)
{
    unsigned kind = (unsigned)daemon_below(c->run, 100);

    if (kind < 70) {
        return (int64_t)daemon_below(c->run, MS);
    }
    return (int64_t)daemon_below(c->run, kind < 98 || c->run->over ? 20 * MS : 3 * SEC);
}

static void maybe_ask(struct nbd_client *c)
{
    struct daemon_run *run = c->run;
    unsigned n = (unsigned)daemon_below(run, 4);

    if (run->over) {
        if (nbd_client_asking(c) == 0) {
            nbd_client_drop(c);
            c->ended = true;
        }
        return;
    }
    for (unsigned i = 0; i < n && nbd_client_asking(c) < NBD_ASKS_MAX; i++) {
        nbd_client_ask(c);
    }
    if (daemon_chance(run, 1)) { /* with whatever is half said */
        tell(c);
        daemon_trace(run, "nbd drops", c->id, NULL, 0);
        nbd_client_drop(c);
    }
}

static void step(void *opaque)
{
    struct nbd_client *c = opaque;

    if (c->run->dead || c->ended) {
        return;
    }
    if (c->state == NBD_AWAY) {
        if (c->run->over) {
            c->ended = true;
            return;
        }
        dial(c);
    }
    if (c->fd >= 0) {
        hear(c);
    }
    take_all(c);
    if (c->state == NBD_TRANSMITS) {
        maybe_ask(c);
    } else if (c->run->over) {
        nbd_client_drop(c);
    }
    if (c->fd >= 0) {
        tell(c);
    }
    sim_machine_after(c->run->machine, pause_ns(c), step, c);
}
