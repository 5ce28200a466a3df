/* SPDX-License-Identifier: MIT */
/* What an NBD client hears: replies to options and requests, judged. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "util/bytes.h"
#include "wire/nbd/proto.h"

static void take(struct nbd_client *c, size_t bytes)
{
    memmove(c->in, c->in + bytes, c->in_bytes -= bytes);
}

static void bad(struct nbd_client *c, const char *what)
{
    daemon_wrong(c->run, "nbd %u: %s", c->id, what);
    nbd_client_drop(c);
}

/* Of what an export says about itself; a tray may be empty. */
static bool is_right_size(const struct nbd_client *c, const uint8_t *info, uint32_t bytes)
{
    uint64_t size;

    if (bytes < 12 || load_be16(info) != NBD_INFO_EXPORT) {
        return true;
    }
    size = load_be64(info + 2);
    return size == MODEL_BYTES || (size == 0 && !c->run->strict);
}

bool nbd_client_take_option(struct nbd_client *c)
{
    uint32_t option, type, bytes;

    if (c->in_bytes < NBD_OPTION_REPLY_BYTES) {
        return false;
    }
    option = load_be32(c->in + 8);
    type = load_be32(c->in + 12);
    bytes = load_be32(c->in + 16);
    if (load_be64(c->in) != NBD_OPTION_REPLY_MAGIC || bytes > 8192) {
        bad(c, "no reply to an option");
        return false;
    }
    if (c->in_bytes < NBD_OPTION_REPLY_BYTES + bytes) {
        return false;
    }
    if (type == NBD_REP_INFO && !is_right_size(c, c->in + NBD_OPTION_REPLY_BYTES, bytes)) {
        daemon_wrong(c->run, "nbd %u: export %u has %llu bytes", c->id, c->disk,
                     (unsigned long long)load_be64(c->in + NBD_OPTION_REPLY_BYTES + 2));
        nbd_client_drop(c);
        return false;
    }
    take(c, NBD_OPTION_REPLY_BYTES + bytes);
    if (option == NBD_OPT_GO && type == NBD_REP_ACK) {
        c->state = NBD_TRANSMITS;
    } else if (option == NBD_OPT_GO && (type & NBD_REP_ERR(0))) {
        if (c->run->strict && type != NBD_REP_ERR_SHUTDOWN) {
            daemon_wrong(c->run, "nbd %u: export refused (%x)", c->id, type);
        }
        nbd_client_drop(c); /* it tries again later */
    } else if (option == NBD_OPT_SET_META_CONTEXT && (type & NBD_REP_ERR(0))) {
        c->context = false;
    }
    return c->fd >= 0;
}

/* ---- answers ---- */

static struct nbd_ask *find(struct nbd_client *c, uint64_t cookie)
{
    for (unsigned i = 0; i < NBD_ASKS_MAX; i++) {
        if (c->asks[i].used && c->asks[i].cookie == cookie) {
            return &c->asks[i];
        }
    }
    bad(c, "an answer to what was not asked, or a second one");
    return NULL;
}

static bool known_error(uint32_t error)
{
    static const uint32_t known[] = {NBD_EPERM,  NBD_EIO,       NBD_ENOMEM,  NBD_EINVAL,
                                     NBD_ENOSPC, NBD_EOVERFLOW, NBD_ENOTSUP, NBD_ESHUTDOWN};

    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (error == known[i]) {
            return true;
        }
    }
    return false;
}

/* The bytes are those of one of the media, all of them. */
static bool is_of_a_medium(const struct nbd_client *c, const struct nbd_ask *ask)
{
    for (unsigned i = 0; i < MEDIA; i++) {
        unsigned n = 0;

        while (n < ask->count && model_version(&c->run->media[i], ask->data + n * MODEL_SECTOR,
                                               ask->first + n) == 1) {
            n++;
        }
        if (n == ask->count) {
            return true;
        }
    }
    return false;
}

static void judge_read(struct nbd_client *c, struct nbd_ask *ask)
{
    int sector;

    if (ask->bytes_left != 0) {
        bad(c, "a read that told too little");
        return;
    }
    if (daemon_strikes(c->run, FAULT_FLIP_BYTE)) {
        ask->data[5] ^= 1;
    }
    if (c->disk == DISKS) {
        if (!is_of_a_medium(c, ask)) {
            daemon_wrong(c->run, "nbd %u: read bytes of no medium at sector %u", c->id, ask->first);
        }
        return;
    }
    sector = model_read_check(&c->run->disks[c->disk], ask->op, ask->data);
    if (sector >= 0) {
        const uint8_t *at = ask->data + ((unsigned)sector - ask->first) * MODEL_SECTOR;

        daemon_wrong(c->run, "nbd %u: disk %u sector %d read version %d, may be %llx", c->id,
                     c->disk, sector, model_version(&c->run->disks[c->disk], at, (unsigned)sector),
                     (unsigned long long)ask->op->seen[(unsigned)sector - ask->first]);
    }
}

/* The answer is whole. */
static void answered(struct nbd_client *c, struct nbd_ask *ask, uint32_t error)
{
    struct daemon_run *run = c->run;

    c->answered++;
    daemon_trace(run, "nbd answer", c->id, (uint64_t[]){ask->cookie, error}, 16);
    if (error != 0 && !known_error(error)) {
        daemon_wrong(run, "nbd %u: error %u is none of the protocol's", c->id, error);
    } else if (ask->wrong && error == 0) {
        daemon_wrong(run, "nbd %u: command %u was bad and not refused", c->id, ask->type);
    } else if (!ask->wrong && error != 0 && run->strict) {
        daemon_wrong(run, "nbd %u: command %u failed (%u) and nothing was made to", c->id,
                     ask->type, error);
    } else if (error == 0 && ask->type == NBD_CMD_READ) {
        judge_read(c, ask);
    } else if (error == 0 && ask->type == NBD_CMD_BLOCK_STATUS && !ask->status) {
        daemon_wrong(run, "nbd %u: no status in the answer", c->id);
    }
    if (c->fd < 0) {
        return; /* dropped, and all asks with it */
    }
    if (ask->op) {
        model_end(&run->disks[c->disk], ask->op, error == 0, ask->fua);
    }
    free(ask->data);
    *ask = (struct nbd_ask){0};
}

/* Tests of the gate itself: the answer is lost, or comes twice. True: lost. */
static bool strikes(struct nbd_client *c, uint64_t cookie)
{
    if (daemon_strikes(c->run, FAULT_DROP_ANSWER)) {
        return true;
    }
    if (daemon_strikes(c->run, FAULT_DOUBLE_ANSWER)) {
        (void)find(c, cookie + 1000000);
        return true;
    }
    return false;
}

static bool take_simple(struct nbd_client *c)
{
    uint32_t error = load_be32(c->in + 4);
    uint64_t cookie = load_be64(c->in + 8);
    struct nbd_ask *ask = find(c, cookie);
    size_t bytes;

    if (!ask) {
        return false;
    }
    bytes = error == 0 && ask->type == NBD_CMD_READ ? ask->count * MODEL_SECTOR : 0;
    if (c->in_bytes < NBD_SIMPLE_REPLY_BYTES + bytes) {
        return false;
    }
    if (bytes > 0) {
        memcpy(ask->data, c->in + NBD_SIMPLE_REPLY_BYTES, bytes);
        ask->bytes_left = 0;
    }
    take(c, NBD_SIMPLE_REPLY_BYTES + bytes);
    if (!strikes(c, cookie)) {
        answered(c, ask, error);
    }
    return c->fd >= 0;
}

/* Payload of a chunk of a read: data or a hole at an offset. */
static void take_data(struct nbd_client *c, struct nbd_ask *ask, const uint8_t *p, uint32_t bytes,
                      bool hole)
{
    uint64_t begin = (uint64_t)ask->first * MODEL_SECTOR;
    uint64_t offset = bytes >= 8 ? load_be64(p) : 0;
    uint64_t n = hole ? (bytes == 12 ? load_be32(p + 8) : 0) : bytes - 8u;

    if (ask->type != NBD_CMD_READ || bytes < 9 || offset < begin || n > ask->bytes_left ||
        offset + n > begin + ask->count * MODEL_SECTOR) {
        bad(c, "a piece of data that was not asked for");
        return;
    }
    if (!hole) {
        memcpy(ask->data + (offset - begin), p + 8, n);
    }
    ask->bytes_left -= (uint32_t)n;
}

/* What is said to read as zeroes must be able to. */
static void take_status(struct nbd_client *c, struct nbd_ask *ask, const uint8_t *p, uint32_t bytes)
{
    uint64_t at = 0;

    if (ask->type != NBD_CMD_BLOCK_STATUS || ask->status || bytes < 12 || (bytes - 4) % 8 != 0) {
        bad(c, "a status that was not asked for");
        return;
    }
    ask->status = true;
    for (uint32_t i = 4; i < bytes; i += 8) {
        uint32_t n = load_be32(p + i);

        if (n == 0 || n % MODEL_SECTOR != 0 || at >= ask->count * MODEL_SECTOR) {
            bad(c, "extents of another length");
            return;
        }
        for (uint32_t s = 0; s < n / MODEL_SECTOR; s++) {
            uint64_t sector = at / MODEL_SECTOR + s;

            if ((load_be32(p + i + 4) & NBD_STATE_ZERO) && ask->op && sector < ask->count &&
                !(ask->op->seen[sector] & 1)) {
                bad(c, "zeroes where data is");
                return;
            }
        }
        at += n;
    }
}

static bool take_chunk(struct nbd_client *c)
{
    uint16_t flags = load_be16(c->in + 4);
    uint16_t type = load_be16(c->in + 6);
    uint64_t cookie = load_be64(c->in + 8);
    uint32_t bytes = load_be32(c->in + 16);
    const uint8_t *p = c->in + NBD_STRUCTURED_REPLY_BYTES;
    struct nbd_ask *ask = find(c, cookie);

    if (!ask) {
        return false;
    }
    if (bytes > MODEL_REQUEST_SECTORS * MODEL_SECTOR + 64) {
        bad(c, "a chunk that is too long");
        return false;
    }
    if (c->in_bytes < NBD_STRUCTURED_REPLY_BYTES + bytes) {
        return false;
    }
    if (type == NBD_REPLY_TYPE_OFFSET_DATA || type == NBD_REPLY_TYPE_OFFSET_HOLE) {
        take_data(c, ask, p, bytes, type == NBD_REPLY_TYPE_OFFSET_HOLE);
    } else if (type == NBD_REPLY_TYPE_BLOCK_STATUS) {
        take_status(c, ask, p, bytes);
    } else if ((type & 0x8000) && bytes >= 6) {
        ask->error = load_be32(p);
    } else if (type != NBD_REPLY_TYPE_NONE || !(flags & NBD_REPLY_FLAG_DONE)) {
        bad(c, "a chunk of another kind");
    }
    if (c->fd < 0) {
        return false;
    }
    take(c, NBD_STRUCTURED_REPLY_BYTES + bytes);
    if ((flags & NBD_REPLY_FLAG_DONE) && !strikes(c, cookie)) {
        answered(c, ask, ask->error);
    }
    return c->fd >= 0;
}

bool nbd_client_take(struct nbd_client *c)
{
    uint32_t magic;

    if (c->in_bytes < NBD_SIMPLE_REPLY_BYTES) {
        return false;
    }
    magic = load_be32(c->in);
    if (magic == NBD_SIMPLE_REPLY_MAGIC) {
        return take_simple(c);
    }
    if (magic != NBD_STRUCTURED_REPLY_MAGIC || !c->structured) {
        bad(c, "no reply");
        return false;
    }
    return c->in_bytes >= NBD_STRUCTURED_REPLY_BYTES && take_chunk(c);
}
