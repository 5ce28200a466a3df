/* SPDX-License-Identifier: MIT */
/* Requests of an NBD client. */
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "util/bytes.h"
#include "wire/nbd/proto.h"

#define ODD_COMMAND 99

static void put_request(struct nbd_client *c, const struct nbd_ask *ask, uint16_t flags,
                        uint64_t offset, uint32_t bytes)
{
    uint8_t *p = nbd_client_out(c, NBD_REQUEST_BYTES);

    store_be32(p, NBD_REQUEST_MAGIC);
    store_be16(p + 4, flags);
    store_be16(p + 6, ask->type);
    store_be64(p + 8, ask->cookie);
    store_be64(p + 16, offset);
    store_be32(p + 24, bytes);
    daemon_trace(c->run, "nbd asks", c->id, p, NBD_REQUEST_BYTES);
}

static struct nbd_ask *ask_new(struct nbd_client *c, uint16_t type)
{
    struct nbd_ask *ask = c->asks;

    while (ask->used) {
        ask++;
    }
    *ask = (struct nbd_ask){.used = true, .type = type};
    ask->cookie = ((uint64_t)c->id << 56) + ++c->next_cookie;
    return ask;
}

/* Requests that must be refused, and leave the connection as it is. */
static void ask_wrongly(struct nbd_client *c)
{
    struct nbd_ask *ask;

    switch (daemon_below(c->run, 4)) {
    case 0:
        ask = ask_new(c, NBD_CMD_READ);
        put_request(c, ask, 0, MODEL_BYTES, 512);
        break;
    case 1:
        ask = ask_new(c, ODD_COMMAND);
        put_request(c, ask, 0, 0, 512);
        break;
    case 2:
        ask = ask_new(c, NBD_CMD_TRIM);
        put_request(c, ask, 0, UINT64_MAX - 511, 512);
        break;
    default:
        ask = ask_new(c, NBD_CMD_WRITE);
        put_request(c, ask, 0, MODEL_BYTES - 512, 1024);
        memset(nbd_client_out(c, 1024), 0x33, 1024);
        break;
    }
    ask->wrong = true;
}

static void ask_change(struct nbd_client *c, enum model_kind kind)
{
    static const uint16_t types[] = {[MODEL_WRITE] = NBD_CMD_WRITE,
                                     [MODEL_ZERO] = NBD_CMD_WRITE_ZEROES,
                                     [MODEL_TRIM] = NBD_CMD_TRIM};
    struct model *m = &c->run->disks[c->disk];
    unsigned count = 1 + (unsigned)daemon_below(c->run, daemon_chance(c->run, 70) ? 8 : 64);
    unsigned first = (unsigned)daemon_below(c->run, MODEL_SECTORS - count + 1);
    bool fua = daemon_chance(c->run, 15);
    struct model_op *op = model_begin(m, kind, first, count);
    struct nbd_ask *ask;

    if (!op) {
        return; /* written often enough */
    }
    ask = ask_new(c, types[kind]);
    ask->first = first;
    ask->count = count;
    ask->op = op;
    ask->fua = fua;
    put_request(
        c, ask,
        (uint16_t)((fua ? NBD_CMD_FLAG_FUA : 0) |
                   (kind == MODEL_ZERO && daemon_chance(c->run, 30) ? NBD_CMD_FLAG_NO_HOLE : 0)),
        (uint64_t)first * MODEL_SECTOR, count * MODEL_SECTOR);
    if (kind == MODEL_WRITE) {
        uint8_t *data = nbd_client_out(c, (size_t)count * MODEL_SECTOR);

        for (unsigned i = 0; i < count; i++) {
            model_fill(m, data + (size_t)i * MODEL_SECTOR, first + i, op->version[i]);
        }
    }
}

static void ask_read(struct nbd_client *c, uint16_t type)
{
    unsigned count = 1 + (unsigned)daemon_below(c->run, MODEL_REQUEST_SECTORS);
    struct nbd_ask *ask = ask_new(c, type);

    ask->count = count;
    ask->first = (unsigned)daemon_below(c->run, MODEL_SECTORS - count + 1);
    ask->bytes_left = type == NBD_CMD_READ ? count * MODEL_SECTOR : 0;
    ask->data = calloc(count, MODEL_SECTOR);
    assert(ask->data);
    if (c->disk < DISKS) {
        ask->op = model_begin(&c->run->disks[c->disk], MODEL_READ, ask->first, count);
    }
    put_request(c, ask, 0, (uint64_t)ask->first * MODEL_SECTOR, count * MODEL_SECTOR);
}

static void ask_flush(struct nbd_client *c)
{
    struct nbd_ask *ask = ask_new(c, NBD_CMD_FLUSH);

    if (c->disk < DISKS) {
        ask->op = model_begin(&c->run->disks[c->disk], MODEL_FLUSH, 0, 0);
    }
    put_request(c, ask, 0, 0, 0);
}

void nbd_client_ask(struct nbd_client *c)
{
    unsigned kind = (unsigned)daemon_below(c->run, 100);

    if (kind < 3) {
        ask_wrongly(c);
    } else if (kind < 8 && c->context) {
        ask_read(c, NBD_CMD_BLOCK_STATUS);
    } else if (c->disk == DISKS || kind < 40) {
        ask_read(c, NBD_CMD_READ);
    } else if (kind < 70) {
        ask_change(c, MODEL_WRITE);
    } else if (kind < 80) {
        ask_change(c, MODEL_ZERO);
    } else if (kind < 88) {
        ask_change(c, MODEL_TRIM);
    } else {
        ask_flush(c);
    }
}
