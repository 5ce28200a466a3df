/* SPDX-License-Identifier: MIT */
/*
 * The server and nothing else, for tests that need settings which the program does not offer:
 *   nbd_serve [-r] [-e N] [-H handshake_ms] [-S shutdown_ms] [-t threads] [-x name] [-d] [-D]
 *             [-E io_uring|threads] -k SOCKET | -p PORT  DRIVER:PATH|PATH ...
 * Several disks get the names disk0, disk1, ... Prints the URI of the first, runs until SIGTERM.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <platter/backend.h>
#include <platter/export.h>

static int signal_pipe[2];

static void on_signal(int sig)
{
    char c = (char)sig;

    (void)!write(signal_pipe[1], &c, 1);
}

static void on_stop(void *opaque)
{
    *(bool *)opaque = true;
}

static void die(Error *err)
{
    fprintf(stderr, "nbd_serve: %s\n", error_get_pretty(err));
    exit(1);
}

static BlockBackend *open_disk(Platter *pl, const char *arg, unsigned i, bool writable, bool direct,
                               enum aio_engine engine)
{
    BlockOptions *opts;
    BlockBackend *blk;
    Error *err = NULL;
    char name[32];

    snprintf(name, sizeof(name), "hd%u", i);
    if (strchr(arg, '=')) {
        opts = block_options_parse(arg, NULL, &err);
    } else {
        opts = block_options_new();
        block_options_set_str(opts, "driver", "raw");
        block_options_set_str(opts, "file.driver", "file");
        block_options_set_str(opts, "file.filename", arg);
        block_options_set_str(opts, "file.discard", "unmap");
        if (engine != AIO_ENGINE_AUTO) {
            block_options_set_str(opts, "file.aio",
                                  engine == AIO_ENGINE_THREADS ? "threads" : "io_uring");
        }
        if (direct) {
            block_options_set_str(opts, "file.cache.direct", "on");
        }
        block_options_set_str(opts, "discard", "unmap");
    }
    if (!opts) {
        die(err);
    }
    blk = blk_new_open(pl, name, NULL, NULL, opts, writable ? BDRV_O_RDWR : 0, &err);
    if (!blk) {
        die(err);
    }
    return blk;
}

int main(int argc, char **argv)
{
    struct nbd_server_options so = {.size = sizeof(so)};
    struct nbd_export_options eo = {.size = sizeof(eo), .writable = true};
    struct nbd_address addr = {.kind = NBD_ADDRESS_UNIX};
    struct aio_context_options co = {.size = sizeof(co)};
    struct platter_options po = {.size = sizeof(po)};
    IOThread *threads[16];
    AioContext *contexts[16];
    const char *name = "";
    bool stop = false;
    bool direct = false;
    unsigned nthreads = 0;
    Error *err = NULL;
    NbdServer *server;
    Platter *pl;
    char *uri;
    int opt;
    int i;

    while ((opt = getopt(argc, argv, "re:H:S:t:x:dDE:k:p:")) != -1) {
        switch (opt) {
        case 'r':
            eo.writable = false;
            break;
        case 'e':
            so.max_connections = (unsigned)atoi(optarg);
            break;
        case 'H':
            so.handshake_timeout_ns = atoll(optarg) * 1000000;
            break;
        case 'S':
            so.shutdown_timeout_ns = atoll(optarg) * 1000000;
            break;
        case 't':
            nthreads = (unsigned)atoi(optarg);
            break;
        case 'x':
            name = optarg;
            break;
        case 'd':
            direct = true;
            break;
        case 'D':
            eo.allocation_depth = true;
            break;
        case 'E':
            co.engine = strcmp(optarg, "threads") ? AIO_ENGINE_IO_URING : AIO_ENGINE_THREADS;
            break;
        case 'k':
            addr.path = optarg;
            break;
        case 'p':
            addr =
                (struct nbd_address){.kind = NBD_ADDRESS_TCP, .host = "127.0.0.1", .port = optarg};
            break;
        default:
            return 2;
        }
    }
    po.main_context = aio_context_new(&co, &err);
    if (!po.main_context || !(pl = platter_new(&po, &err))) {
        die(err);
    }
    for (i = 0; i < (int)nthreads && i < 16; i++) {
        threads[i] = iothread_new("serve", &co, &err);
        if (!threads[i]) {
            die(err);
        }
        contexts[i] = iothread_get_aio_context(threads[i]);
    }
    so.contexts = contexts;
    so.context_count = nthreads;
    server = nbd_server_new(pl, &so, &err);
    if (!server || nbd_server_listen(server, &addr, &err) < 0) {
        die(err);
    }
    for (i = optind; i < argc; i++) {
        BlockBackend *blk =
            open_disk(pl, argv[i], (unsigned)(i - optind), eo.writable, direct, co.engine);
        char disk[32];

        snprintf(disk, sizeof(disk), "disk%d", i - optind);
        eo.name = argc - optind == 1 ? name : disk;
        eo.description = "a disk for tests";
        if (nbd_server_add_export(server, blk, &eo, &err) < 0) {
            die(err);
        }
        blk_unref(blk);
    }
    if (pipe(signal_pipe) < 0) {
        return 1;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    aio_set_fd_handler(po.main_context, signal_pipe[0], on_stop, NULL, &stop);
    uri = nbd_server_get_uri(server, 0, argc - optind == 1 ? name : "disk0");
    printf("%s\n", uri);
    fflush(stdout);
    free(uri);
    while (!stop) {
        aio_poll(po.main_context, true);
    }
    aio_set_fd_handler(po.main_context, signal_pipe[0], NULL, NULL, NULL);
    nbd_server_free(server);
    for (i = 0; i < (int)nthreads && i < 16; i++) {
        iothread_free(threads[i]);
    }
    platter_free(pl);
    aio_context_unref(po.main_context);
    return 0;
}
