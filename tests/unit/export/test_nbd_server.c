/* SPDX-License-Identifier: MIT */
/*
 * The NBD server over socket pairs: exports coming and going, addresses and URIs, statistics, the
 * orderly end with clients in every state. What it says on the wire is tested end to end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <platter/bitmap.h>
#include <platter/export.h>

#include "export/nbd/internal.h"
#include "util/bytes.h"
#include "wire/nbd/nbd.h"

#define DISK_BYTES (1024 * 1024)

struct fixture {
    Platter *pl;
    BlockBackend *blk;
    NbdServer *server;
};

static BlockBackend *disk_new(Platter *pl, const char *name, int flags)
{
    BlockOptions *opts = block_options_new();
    Error *err = NULL;
    BlockBackend *blk;

    block_options_set_str(opts, "driver", "mem");
    block_options_set_u64(opts, "size", DISK_BYTES);
    blk = blk_new_open(pl, name, NULL, NULL, opts, flags, &err);
    assert_non_null(blk);
    return blk;
}

static int setup(void **state)
{
    struct nbd_server_options so = {.size = sizeof(so),
                                    .handshake_timeout_ns = INT64_C(2000000000),
                                    .shutdown_timeout_ns = INT64_C(300000000)};
    struct nbd_export_options eo = {
        .size = sizeof(eo), .name = "disk", .description = "text", .writable = true};
    struct fixture *f = calloc(1, sizeof(*f));

    f->pl = platter_new(NULL, NULL);
    assert_non_null(f->pl);
    f->blk = disk_new(f->pl, "hd0", BDRV_O_RDWR);
    f->server = nbd_server_new(f->pl, &so, NULL);
    assert_non_null(f->server);
    assert_int_equal(nbd_server_add_export(f->server, f->blk, &eo, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    nbd_server_free(f->server);
    blk_unref(f->blk);
    platter_free(f->pl);
    free(f);
    return 0;
}

/* ---- a client in the same thread: the loop runs until its bytes are there ---- */

static void spin(struct fixture *f)
{
    while (aio_poll(platter_get_main_context(f->pl), false)) {
    }
}

static int client_new(struct fixture *f)
{
    int sv[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    assert_int_equal(nbd_server_accept_fd(f->server, sv[1]), 0);
    return sv[0];
}

static void client_recv(struct fixture *f, int fd, void *buf, size_t bytes)
{
    uint8_t *p = buf;

    while (bytes > 0) {
        ssize_t n = recv(fd, p, bytes, MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            aio_poll(platter_get_main_context(f->pl), true);
            continue;
        }
        assert_true(n > 0);
        p += n;
        bytes -= (size_t)n;
    }
}

static bool client_at_end(struct fixture *f, int fd)
{
    char c;
    ssize_t n;

    while ((n = recv(fd, &c, 1, MSG_DONTWAIT)) < 0 && errno == EAGAIN) {
        aio_poll(platter_get_main_context(f->pl), true);
    }
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void client_send(int fd, const void *buf, size_t bytes)
{
    assert_int_equal(send(fd, buf, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

static void client_greet(struct fixture *f, int fd)
{
    uint8_t buf[NBD_GREETING_BYTES];

    client_recv(f, fd, buf, sizeof(buf));
    assert_memory_equal(buf, "NBDMAGICIHAVEOPT\0\3", 18);
    client_send(fd, "\0\0\0\3", 4);
}

static void client_option(int fd, uint32_t option, const void *data, uint32_t bytes)
{
    uint8_t buf[NBD_OPTION_BYTES];

    store_be64(buf, NBD_OPTION_MAGIC);
    store_be32(buf + 8, option);
    store_be32(buf + 12, bytes);
    client_send(fd, buf, sizeof(buf));
    if (bytes > 0) {
        client_send(fd, data, bytes);
    }
}

/* The final reply type of an option. */
static uint32_t client_option_end(struct fixture *f, int fd)
{
    uint8_t buf[NBD_OPTION_REPLY_BYTES + 4096];
    uint32_t type;

    do {
        client_recv(f, fd, buf, NBD_OPTION_REPLY_BYTES);
        assert_int_equal(load_be64(buf), NBD_OPTION_REPLY_MAGIC);
        type = load_be32(buf + 12);
        assert_true(load_be32(buf + 16) <= 4096);
        client_recv(f, fd, buf + NBD_OPTION_REPLY_BYTES, load_be32(buf + 16));
    } while (type == NBD_REP_INFO || type == NBD_REP_SERVER);
    return type;
}

static uint32_t client_go(struct fixture *f, int fd, const char *name)
{
    uint8_t data[64];
    uint32_t n = (uint32_t)strlen(name);

    client_greet(f, fd);
    store_be32(data, n);
    memcpy(data + 4, name, n);
    store_be16(data + 4 + n, 0);
    client_option(fd, NBD_OPT_GO, data, 6 + n);
    return client_option_end(f, fd);
}

static void client_request(int fd, uint16_t type, uint64_t offset, uint32_t bytes)
{
    uint8_t buf[NBD_REQUEST_BYTES];

    store_be32(buf, NBD_REQUEST_MAGIC);
    store_be16(buf + 4, 0);
    store_be16(buf + 6, type);
    store_be64(buf + 8, 77);
    store_be64(buf + 16, offset);
    store_be32(buf + 24, bytes);
    client_send(fd, buf, sizeof(buf));
}

static uint32_t client_reply(struct fixture *f, int fd)
{
    uint8_t buf[NBD_SIMPLE_REPLY_BYTES];

    client_recv(f, fd, buf, sizeof(buf));
    assert_int_equal(load_be32(buf), NBD_SIMPLE_REPLY_MAGIC);
    assert_int_equal(load_be64(buf + 8), 77);
    return load_be32(buf + 4);
}

/* ---- tests ---- */

static void test_read_write_stats(void **state)
{
    struct fixture *f = *state;
    struct nbd_server_stats stats = {.size = sizeof(stats)};
    uint8_t data[4096];
    int fd = client_new(f);

    assert_int_equal(client_go(f, fd, "disk"), NBD_REP_ACK);
    memset(data, 0x5a, sizeof(data));
    client_request(fd, NBD_CMD_WRITE, 8192, sizeof(data));
    client_send(fd, data, sizeof(data));
    assert_int_equal(client_reply(f, fd), 0);
    memset(data, 0, sizeof(data));
    client_request(fd, NBD_CMD_READ, 8192, sizeof(data));
    assert_int_equal(client_reply(f, fd), 0);
    client_recv(f, fd, data, sizeof(data));
    assert_int_equal(data[0], 0x5a);
    assert_int_equal(data[4095], 0x5a);
    client_request(fd, NBD_CMD_FLUSH, 0, 0);
    assert_int_equal(client_reply(f, fd), 0);
    client_request(fd, NBD_CMD_READ, DISK_BYTES, 1);
    assert_int_equal(client_reply(f, fd), NBD_EINVAL);
    spin(f);
    nbd_server_get_stats(f->server, &stats);
    assert_int_equal(stats.connections, 1);
    assert_int_equal(stats.connections_total, 1);
    assert_int_equal(stats.read_requests, 2);
    assert_int_equal(stats.write_requests, 1);
    assert_int_equal(stats.other_requests, 1);
    assert_int_equal(stats.failed_requests, 1);
    assert_int_equal(stats.read_bytes, 4096);
    assert_int_equal(stats.write_bytes, 4096);
    client_request(fd, NBD_CMD_DISC, 0, 0);
    assert_true(client_at_end(f, fd));
    close(fd);
}

static void test_exports(void **state)
{
    struct fixture *f = *state;
    struct nbd_export_options eo = {.size = sizeof(eo), .name = "disk"};
    BlockBackend *ro = disk_new(f->pl, "hd1", 0);
    Error *err = NULL;

    assert_int_equal(nbd_server_add_export(f->server, f->blk, &eo, &err), -EEXIST);
    assert_non_null(strstr(error_get_pretty(err), "disk"));
    error_free(err);
    eo.name = "\xff";
    assert_int_equal(nbd_server_add_export(f->server, f->blk, &eo, NULL), -EINVAL);
    eo.name = "ro";
    eo.writable = true;
    assert_int_equal(nbd_server_add_export(f->server, ro, &eo, NULL), -EACCES);
    eo.writable = false;
    assert_int_equal(nbd_server_add_export(f->server, ro, &eo, NULL), 0);
    assert_int_equal(nbd_server_remove_export(f->server, "no", NBD_REMOVE_SAFE, NULL), -ENOENT);
    assert_int_equal(nbd_server_remove_export(f->server, "ro", NBD_REMOVE_SAFE, NULL), 0);
    assert_int_equal(nbd_server_remove_export(f->server, "ro", NBD_REMOVE_SAFE, NULL), -ENOENT);
    blk_unref(ro);
}

/* Adding an export with these bitmaps gives ret; it is taken away again. */
static void expect_bitmaps(struct fixture *f, bool writable,
                           const struct nbd_export_bitmap *bitmaps, unsigned count, int ret)
{
    struct nbd_export_options eo = {.size = sizeof(eo),
                                    .name = "with bitmaps",
                                    .writable = writable,
                                    .bitmaps = bitmaps,
                                    .bitmap_count = count};

    assert_int_equal(nbd_server_add_export(f->server, f->blk, &eo, NULL), ret);
    if (ret == 0) {
        assert_int_equal(nbd_server_remove_export(f->server, eo.name, NBD_REMOVE_SAFE, NULL), 0);
    }
}

static bool is_busy(const BdrvDirtyBitmap *bitmap)
{
    struct bdrv_bitmap_info info;

    bdrv_bitmap_get_info(bitmap, &info);
    return info.busy;
}

static void test_bitmaps(void **state)
{
    struct fixture *f = *state;
    BlockDriverState *bs = blk_bs(f->blk);
    BdrvDirtyBitmap *b0 = bdrv_bitmap_create(bs, "b0", 4096, 0, NULL);
    BdrvDirtyBitmap *b1 = bdrv_bitmap_create(bs, "b1", 4096, BDRV_BITMAP_DISABLED, NULL);
    struct nbd_export_bitmap wishes[NBD_MAX_EXPORT_BITMAPS + 1] = {{"b0"}, {"b1", bs}, {"b0"}};
    struct nbd_export_options eo = {
        .size = sizeof(eo), .name = "both", .writable = true, .bitmaps = wishes, .bitmap_count = 3};

    assert_true(b0 != NULL && b1 != NULL);
    assert_int_equal(nbd_server_add_export(f->server, f->blk, &eo, NULL), 0);
    assert_true(is_busy(b0) && is_busy(b1));
    assert_int_equal(bdrv_bitmap_remove(b0, NULL), -EBUSY);
    expect_bitmaps(f, true, wishes, 1, -EBUSY);
    assert_int_equal(nbd_server_remove_export(f->server, "both", NBD_REMOVE_SAFE, NULL), 0);
    assert_false(is_busy(b0) || is_busy(b1));

    expect_bitmaps(f, false, wishes, 1, -EINVAL); /* it records, though clients cannot write */
    expect_bitmaps(f, false, wishes + 1, 1, 0);
    wishes[1].name = "none";
    expect_bitmaps(f, true, wishes, 2, -ENOENT);
    assert_false(is_busy(b0)); /* what had been found is let go */
    expect_bitmaps(f, true, wishes, NBD_MAX_EXPORT_BITMAPS + 1, -E2BIG);
    assert_int_equal(bdrv_bitmap_remove(b0, NULL), 0);
    assert_int_equal(bdrv_bitmap_remove(b1, NULL), 0);
}

static void count_call(void *opaque)
{
    ++*(unsigned *)opaque;
}

/* Told when the last one that was in transmission has gone, not by those that only negotiated. */
static void test_idle(void **state)
{
    struct fixture *f = *state;
    unsigned calls = 0;
    struct nbd_server_options so = {
        .size = sizeof(so), .idle_cb = count_call, .idle_opaque = &calls};
    struct nbd_export_options eo = {.size = sizeof(eo), .name = "disk"};
    int one, two;

    nbd_server_free(f->server);
    f->server = nbd_server_new(f->pl, &so, NULL);
    assert_int_equal(nbd_server_add_export(f->server, f->blk, &eo, NULL), 0);
    one = client_new(f);
    client_greet(f, one);
    client_option(one, NBD_OPT_ABORT, NULL, 0);
    assert_int_equal(client_option_end(f, one), NBD_REP_ACK);
    assert_true(client_at_end(f, one));
    close(one);
    spin(f);
    assert_int_equal(calls, 0);
    one = client_new(f);
    two = client_new(f);
    assert_int_equal(client_go(f, one, "disk"), NBD_REP_ACK);
    assert_int_equal(client_go(f, two, "disk"), NBD_REP_ACK);
    client_request(one, NBD_CMD_DISC, 0, 0);
    assert_true(client_at_end(f, one));
    spin(f);
    assert_int_equal(calls, 0);
    client_request(two, NBD_CMD_DISC, 0, 0);
    assert_true(client_at_end(f, two));
    spin(f);
    assert_int_equal(calls, 1);
    close(one);
    close(two);
}

static void test_empty_backend(void **state)
{
    struct fixture *f = *state;
    BlockBackend *empty = blk_new(f->pl, "cd0", NULL);
    struct nbd_export_options eo = {.size = sizeof(eo), .name = "cd"};

    assert_int_equal(nbd_server_add_export(f->server, empty, &eo, NULL), -ENOMEDIUM);
    blk_unref(empty);
}

static void test_medium_goes(void **state)
{
    struct fixture *f = *state;
    int fd = client_new(f);

    assert_int_equal(client_go(f, fd, "disk"), NBD_REP_ACK);
    blk_remove_bs(f->blk);
    client_request(fd, NBD_CMD_READ, 0, 512);
    assert_int_equal(client_reply(f, fd), NBD_EIO);
    client_request(fd, NBD_CMD_FLUSH, 0, 0);
    (void)client_reply(f, fd);
    close(fd);
    fd = client_new(f);
    assert_int_equal(client_go(f, fd, "disk"), NBD_REP_ERR_UNKNOWN);
    close(fd);
}

static void test_remove_in_use(void **state)
{
    struct fixture *f = *state;
    uint8_t rest[512];
    int fd = client_new(f);

    assert_int_equal(client_go(f, fd, "disk"), NBD_REP_ACK);
    assert_int_equal(nbd_server_remove_export(f->server, "disk", NBD_REMOVE_SAFE, NULL), -EBUSY);
    client_request(fd, NBD_CMD_READ, 0, 512);
    assert_int_equal(client_reply(f, fd), 0);
    assert_int_equal(nbd_server_remove_export(f->server, "disk", NBD_REMOVE_HARD, NULL), 0);
    client_recv(f, fd, rest, sizeof(rest)); /* it was in flight: answered */
    assert_true(client_at_end(f, fd));
    close(fd);
    fd = client_new(f);
    assert_int_equal(client_go(f, fd, "disk"), NBD_REP_ERR_UNKNOWN);
    close(fd);
}

/* Clients in every state when the server ends: not greeted, in an option, idle, with requests
 * sent, with replies they never read. */
static void test_free_with_clients(void **state)
{
    struct fixture *f = *state;
    int fd[5];
    int i;

    for (i = 0; i < 5; i++) {
        fd[i] = client_new(f);
    }
    client_greet(f, fd[1]);
    client_send(fd[1], "IHAVEOPT", 8);
    for (i = 2; i < 5; i++) {
        assert_int_equal(client_go(f, fd[i], "disk"), NBD_REP_ACK);
    }
    for (i = 0; i < 10; i++) {
        client_request(fd[3], NBD_CMD_READ, 0, 4096);
    }
    for (i = 0; i < 100; i++) {
        client_request(fd[4], NBD_CMD_READ, 0, DISK_BYTES);
    }
    spin(f);
    nbd_server_free(f->server);
    f->server = NULL;
    for (i = 0; i < 10; i++) {
        uint8_t data[4096];

        assert_int_equal(client_reply(f, fd[3]), 0);
        client_recv(f, fd[3], data, sizeof(data));
    }
    for (i = 0; i < 5; i++) {
        close(fd[i]);
    }
}

/* Nobody frees it: the instance does, before the backends go. */
static void test_freed_by_instance(void **state)
{
    struct fixture *f = *state;
    int fd = client_new(f);

    assert_int_equal(client_go(f, fd, "disk"), NBD_REP_ACK);
    f->server = NULL;
    blk_unref(f->blk);
    f->blk = NULL;
    platter_free(f->pl);
    f->pl = NULL;
    close(fd);
}

static void test_addresses(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/platter-nbd-XXXXXX";
    char path[200];
    char want[300];
    struct nbd_address addr = {.kind = NBD_ADDRESS_UNIX, .path = path};
    Error *err = NULL;
    struct stat st;
    char *uri;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/a b", dir);
    assert_int_equal(nbd_server_listen(f->server, &addr, NULL), 0);
    assert_int_equal(nbd_server_listen(f->server, &addr, &err), -EADDRINUSE);
    assert_non_null(strstr(error_get_pretty(err), path));
    error_free(err);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    addr = (struct nbd_address){.kind = NBD_ADDRESS_TCP, .host = "127.0.0.1", .port = "0"};
    assert_int_equal(nbd_server_listen(f->server, &addr, NULL), 0);
    assert_int_equal(nbd_server_listener_count(f->server), 2);
    uri = nbd_server_get_uri(f->server, 0, "n m");
    snprintf(want, sizeof(want), "nbd+unix:///n%%20m?socket=%s/a%%20b", dir);
    assert_string_equal(uri, want);
    free(uri);
    uri = nbd_server_get_uri(f->server, 1, NULL);
    assert_memory_equal(uri, "nbd://127.0.0.1:", 16);
    assert_true(atoi(uri + 16) > 0);
    free(uri);
    assert_null(nbd_server_get_uri(f->server, 2, ""));
    addr.port = "no such service";
    assert_int_equal(nbd_server_listen(f->server, &addr, NULL), -EINVAL);
    addr.host = "192.0.2.1";
    addr.port = "1";
    assert_true(nbd_server_listen(f->server, &addr, NULL) < 0);
    nbd_server_free(f->server);
    f->server = NULL;
    assert_int_equal(stat(path, &st), -1);
    rmdir(dir);
}

/* A socket that another program put at our path meanwhile is not removed at the end. */
static void test_replaced_socket_stays(void **state)
{
    struct fixture *f = *state;
    char path[] = "/tmp/platter-nbd-XXXXXX";
    struct nbd_address addr = {.kind = NBD_ADDRESS_UNIX, .path = path};
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = mkstemp(path);
    struct stat st;

    close(fd);
    unlink(path);
    assert_int_equal(nbd_server_listen(f->server, &addr, NULL), 0);
    assert_int_equal(unlink(path), 0);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(sun.sun_path, path);
    assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
    nbd_server_free(f->server);
    f->server = NULL;
    assert_int_equal(stat(path, &st), 0);
    close(fd);
    unlink(path);
}

static void test_bad_options(void **state)
{
    struct fixture *f = *state;
    struct nbd_server_options so = {.size = sizeof(so), .handshake_timeout_ns = -1};
    Error *err = NULL;

    assert_null(nbd_server_new(f->pl, &so, &err));
    assert_int_equal(error_get_errno(err), EINVAL);
    error_free(err);
    assert_true(nbd_server_accept_fd(f->server, 9999) < 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_read_write_stats),
        T(test_exports),
        T(test_bitmaps),
        T(test_idle),
        T(test_empty_backend),
        T(test_medium_goes),
        T(test_remove_in_use),
        T(test_free_with_clients),
        T(test_freed_by_instance),
        T(test_addresses),
        T(test_replaced_socket_stays),
        T(test_bad_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
