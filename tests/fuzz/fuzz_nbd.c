/* SPDX-License-Identifier: MIT */
/*
 * The NBD server from the first byte to the last: handshake and transmission of two clients over
 * socket pairs, on disks in memory. An input is a byte that says what the server is like and then
 * frames, most of them well formed with fields of the input's choice, some raw bytes:
 *
 *   kind (1), then what the kind reads (see frame())
 *
 * Whatever the clients do: once they have hung up, both connections end, and when the server and
 * the disk are gone the instance holds no memory. Nothing waits for a clock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <platter/export.h>

#include "fuzz.h"
#include "util/bytes.h"
#include "util/mem.h"
#include "wire/nbd/nbd.h"

#define DISK_BYTES (192u * 1024u + 512u)
#define FRAMES_MAX 64
#define CLIENTS 2
#define SETTLE_MAX 100000
#define SKIP_MAX (256u * 1024u) /* payload one frame sends */
#define FOREVER_NS (INT64_C(3600) * 1000 * 1000 * 1000)

struct client {
    int fd; /* -1: hung up */
    bool at_end;
    bool extended; /* what it believes */
    uint64_t received;
};

struct fuzz {
    Platter *pl;
    BlockBackend *blk;
    NbdServer *server;
    struct client clients[CLIENTS];
    struct client *client; /* the one whose turn it is */
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_close_world();
    return 0;
}

/* ---- clients ---- */

/* Take what the server has sent. */
static bool drain(struct client *c)
{
    static uint8_t buf[64 * 1024];
    bool any = false;
    ssize_t n;

    while (c->fd >= 0 && !c->at_end && (n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT)) != -1) {
        c->at_end = n == 0;
        c->received += (uint64_t)n;
        any = true;
    }
    if (c->fd >= 0 && !c->at_end && errno != EAGAIN) {
        c->at_end = true;
    }
    return any;
}

/* Run the server until it waits for us; with reading, we take its replies meanwhile. */
static void settle(struct fuzz *f, bool reading)
{
    unsigned rounds = 0;
    bool any;

    do {
        any = aio_poll(platter_get_main_context(f->pl), false);
        for (unsigned i = 0; reading && i < CLIENTS; i++) {
            any |= drain(&f->clients[i]);
        }
        FUZZ_CHECK(++rounds < SETTLE_MAX);
    } while (any);
}

static void client_connect(struct fuzz *f, struct client *c)
{
    int sv[2];

    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    *c = (struct client){.fd = sv[0]};
    if (nbd_server_accept_fd(f->server, sv[1]) < 0) {
        c->at_end = true;
    }
}

static void client_send(struct fuzz *f, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    struct client *c = f->client;
    bool full = false;

    while (bytes > 0 && c->fd >= 0 && !c->at_end) {
        ssize_t n = send(c->fd, p, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN && !full) {
            settle(f, true);
            full = true;
            continue;
        }
        if (n < 0) {
            return; /* hung up, or the server reads no more: it waits for a place */
        }
        full = false;
        p += n;
        bytes -= (size_t)n;
    }
}

/* ---- frames ---- */

static void send_option(struct fuzz *f, uint32_t option, const void *data, uint32_t bytes,
                        int32_t length_lie)
{
    uint8_t head[NBD_OPTION_BYTES];

    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, option);
    store_be32(head + 12, bytes + (uint32_t)length_lie);
    client_send(f, head, sizeof(head));
    client_send(f, data, bytes);
}

static const char *const names[] = {"disk", "", "ro", "absent", "\xff", "disk\n", "\xc3\xa4", "d"};
static const char *const queries[] = {
    "base:allocation", "qemu:allocation-depth", "base:", "qemu:", "x", "",
    "base:\xff",       "base:allocation2"};

static size_t put_string(uint8_t *p, const char *text)
{
    size_t n = strlen(text);

    store_be32(p, (uint32_t)n);
    memcpy(p + 4, text, n);
    return 4 + n;
}

/* NBD_OPT_INFO, GO and EXPORT_NAME. */
static void frame_name(struct fuzz *f, struct fuzz_in *in)
{
    static const uint32_t options[] = {NBD_OPT_GO, NBD_OPT_INFO, NBD_OPT_EXPORT_NAME, NBD_OPT_GO};
    uint8_t how = fuzz_u8(in);
    uint32_t option = options[how & 3];
    const char *name = names[how >> 2 & 7];
    unsigned infos = how >> 5;
    uint8_t buf[128];
    size_t n;

    if (option == NBD_OPT_EXPORT_NAME) {
        send_option(f, option, name, (uint32_t)strlen(name), 0);
        return;
    }
    n = put_string(buf, name);
    store_be16(buf + n, (uint16_t)infos);
    n += 2;
    for (unsigned i = 0; i < infos; i++, n += 2) {
        store_be16(buf + n, (uint16_t)(fuzz_u8(in) % 6));
    }
    send_option(f, option, buf, (uint32_t)n, 0);
}

static void frame_meta(struct fuzz *f, struct fuzz_in *in)
{
    uint8_t how = fuzz_u8(in);
    uint8_t buf[512];
    size_t n = put_string(buf, names[how >> 1 & 7]);
    unsigned count = how >> 4 & 7;

    store_be32(buf + n, count);
    n += 4;
    for (unsigned i = 0; i < count; i++) {
        n += put_string(buf + n, queries[fuzz_u8(in) & 7]);
    }
    send_option(f, how & 1 ? NBD_OPT_SET_META_CONTEXT : NBD_OPT_LIST_META_CONTEXT, buf, (uint32_t)n,
                0);
}

/* Any option with data of the input; its length may lie. */
static void frame_option(struct fuzz *f, struct fuzz_in *in)
{
    uint32_t option = fuzz_u8(in);
    int8_t lie = (int8_t)fuzz_u8(in);
    size_t bytes;
    uint8_t *data = fuzz_take(in, fuzz_u8(in), &bytes);

    if (option == NBD_OPT_EXTENDED_HEADERS && bytes == 0 && lie == 0) {
        f->client->extended = true;
    }
    send_option(f, option, data, (uint32_t)bytes, lie < -64 || lie > 64 ? lie * 65536 : lie % 4);
    free(data);
}

/* A place on the disk, or beyond: units of 512 bytes with the ends and the extremes. */
static uint64_t place(struct fuzz_in *in)
{
    uint16_t code = fuzz_u16(in);

    switch (code >> 13) {
    case 7:
        return UINT64_MAX - (code & 0x1fff);
    case 6:
        return (uint64_t)1 << (code & 63);
    case 5:
        return DISK_BYTES - (code & 0x1fff);
    case 4:
        return DISK_BYTES + (code & 0x1fff) - 0x1000;
    case 3:
        return code & 0x1fff;
    default:
        return (uint64_t)(code & 0x1ff) * 512;
    }
}

static void send_payload(struct fuzz *f, struct fuzz_in *in, uint64_t bytes)
{
    uint8_t block[4096];

    memset(block, fuzz_u8(in), sizeof(block));
    while (bytes > 0 && !f->client->at_end) {
        size_t n = bytes < sizeof(block) ? (size_t)bytes : sizeof(block);

        client_send(f, block, n);
        bytes -= n;
    }
}

/* A request; how many of its payload bytes follow is the input's choice too. */
static void frame_request(struct fuzz *f, struct fuzz_in *in)
{
    uint8_t type = fuzz_u8(in), flags = fuzz_u8(in), how = fuzz_u8(in);
    uint64_t offset = place(in), length = place(in);
    bool extended = f->client->extended != (how == 0xff);
    struct nbd_request req = {.length = length, .flags = flags & 0x3f, .type = type & 15};
    uint8_t buf[NBD_REQUEST_BYTES_MAX];
    uint64_t payload;

    if (how == 0xfe) {
        req.flags = (uint16_t)(flags << 8);
    }
    store_be32(buf, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    store_be16(buf + 4, req.flags);
    store_be16(buf + 6, how == 0xfd ? (uint16_t)(type << 8) : req.type);
    store_be64(buf + 8, how);
    store_be64(buf + 16, offset);
    if (extended) {
        store_be64(buf + 24, length);
    } else {
        req.length = (uint32_t)length;
        store_be32(buf + 24, (uint32_t)length);
    }
    client_send(f, buf, extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES);
    payload = nbd_request_payload_bytes(extended ? NBD_MODE_EXTENDED : NBD_MODE_STRUCTURED, &req);
    if (payload <= SKIP_MAX && req.type == NBD_CMD_BLOCK_STATUS) {
        size_t bytes;
        uint8_t *data = fuzz_take(in, (size_t)payload, &bytes);

        client_send(f, data, bytes);
        free(data);
        send_payload(f, in, payload - bytes);
    } else {
        send_payload(f, in, payload <= SKIP_MAX ? payload : (uint64_t)how * 1024);
    }
}

static void frame_raw(struct fuzz *f, struct fuzz_in *in)
{
    size_t bytes;
    uint8_t *data = fuzz_take(in, fuzz_u8(in), &bytes);

    client_send(f, data, bytes);
    free(data);
}

/* Things that happen beside the clients' bytes. */
static void frame_event(struct fuzz *f, struct fuzz_in *in)
{
    struct client *c = f->client;

    switch (fuzz_u8(in) % 8) {
    case 0:
        shutdown(c->fd, SHUT_WR);
        break;
    case 1:
        if (c->fd >= 0) {
            close(c->fd);
            c->fd = -1;
        }
        break;
    case 2:
        nbd_server_remove_export(f->server, "disk", NBD_REMOVE_HARD, NULL);
        break;
    case 3:
        blk_resize(f->blk, DISK_BYTES / 2, true, BDRV_PREALLOC_OFF, NULL);
        break;
    case 4:
        blk_drain(f->blk);
        break;
    case 5:
        settle(f, false);
        break;
    case 6:
        blk_remove_bs(f->blk);
        break;
    default:
        settle(f, true);
        break;
    }
}

/* Client flags, then the options of an ordinary beginning that the bits ask for. */
static void frame_begin(struct fuzz *f, struct fuzz_in *in)
{
    uint8_t how = fuzz_u8(in);
    uint8_t buf[64];
    size_t n;

    store_be32(buf, how & 3);
    client_send(f, buf, 4);
    if (how & 4) {
        send_option(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0, 0);
    }
    if (how & 8) {
        send_option(f, NBD_OPT_EXTENDED_HEADERS, NULL, 0, 0);
        f->client->extended = true;
    }
    if (how & 16) {
        n = put_string(buf, "disk");
        store_be32(buf + n, 1);
        n += 4;
        n += put_string(buf + n, queries[0]);
        send_option(f, NBD_OPT_SET_META_CONTEXT, buf, (uint32_t)n, 0);
    }
    if (how & 32) {
        n = put_string(buf, how & 64 ? "ro" : "disk");
        store_be16(buf + n, 0);
        send_option(f, NBD_OPT_GO, buf, (uint32_t)n + 2, 0);
    }
}

static void frame(struct fuzz *f, struct fuzz_in *in)
{
    static void (*const kinds[])(struct fuzz *, struct fuzz_in *) = {
        frame_begin,   frame_name,    frame_meta, frame_option,
        frame_request, frame_request, frame_raw,  frame_event};
    uint8_t kind = fuzz_u8(in);

    f->client = &f->clients[kind >> 3 & 1];
    kinds[kind & 7](f, in);
    if (kind & 16) {
        settle(f, !(kind & 32));
    }
}

/* ---- a run ---- */

static void add_export(struct fuzz *f, const char *name, bool writable, bool depth)
{
    struct nbd_export_options eo = {.size = sizeof(eo),
                                    .name = name,
                                    .description = "a disk",
                                    .writable = writable,
                                    .allocation_depth = depth};

    FUZZ_CHECK(nbd_server_add_export(f->server, f->blk, &eo, NULL) == 0);
}

static void begin(struct fuzz *f, uint8_t how)
{
    static const uint64_t limits[] = {0, 0, 8 << 20, 700 << 10};
    struct nbd_server_options so = {.size = sizeof(so),
                                    .max_connections = how & 1 ? 1 : 0,
                                    .handshake_timeout_ns = FOREVER_NS,
                                    .shutdown_timeout_ns = FOREVER_NS};
    BlockOptions *opts = block_options_new();

    f->pl = fuzz_platter(limits[how >> 1 & 3]);
    FUZZ_CHECK(opts != NULL && block_options_set_str(opts, "driver", "mem") == 0);
    FUZZ_CHECK(block_options_set_u64(opts, "size", DISK_BYTES) == 0);
    f->blk = blk_new_open(f->pl, "hd0", NULL, NULL, opts, BDRV_O_RDWR | BDRV_O_UNMAP, NULL);
    FUZZ_CHECK(f->blk != NULL);
    f->server = nbd_server_new(f->pl, &so, NULL);
    FUZZ_CHECK(f->server != NULL);
    add_export(f, "disk", true, how & 8);
    add_export(f, "ro", false, false);
    for (int i = 0; i < CLIENTS; i++) {
        client_connect(f, &f->clients[i]);
    }
    settle(f, true);
}

static void end(struct fuzz *f, bool politely)
{
    struct nbd_server_stats stats = {.size = sizeof(stats)};

    for (int i = 0; politely && i < CLIENTS; i++) {
        shutdown(f->clients[i].fd, SHUT_WR);
        settle(f, true);
    }
    for (int i = 0; i < CLIENTS; i++) {
        FUZZ_CHECK(!politely || f->clients[i].fd < 0 || f->clients[i].at_end);
        if (f->clients[i].fd >= 0) {
            close(f->clients[i].fd);
        }
    }
    if (politely) {
        nbd_server_get_stats(f->server, &stats);
        FUZZ_CHECK(stats.connections == 0 && stats.handshakes == 0);
    }
    nbd_server_free(f->server);
    blk_unref(f->blk);
    settle(f, false);
    FUZZ_CHECK(platter_memory_used_bytes(f->pl) == 0);
    platter_free(f->pl);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_in in = {data, bytes};
    struct fuzz f = {0};
    uint8_t how = fuzz_u8(&in);

    begin(&f, how);
    for (int i = 0; i < FRAMES_MAX && in.bytes > 0; i++) {
        frame(&f, &in);
    }
    end(&f, !(how & 16));
    return 0;
}
