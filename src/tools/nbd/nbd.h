/* SPDX-License-Identifier: MIT */
/*
 * platter nbd, which is qemu-nbd: one disk for NBD clients, or what a server offers.
 *
 *   args.c     the command line      nbd.c   the server's life
 *   part.c     the part of the disk that is served
 *   list.c     the client that lists (no_list.c in a build without libnbd)
 */
#ifndef PLATTER_TOOLS_NBD_NBD_H
#define PLATTER_TOOLS_NBD_NBD_H

#include <platter/export.h>

#include "tools/disk.h"
#include "tools/trace_option.h"

#define NBD_PORT_DEFAULT "10809"
#define NBD_FIRST_ACTIVATED 3 /* sd_listen_fds(3) */

struct nbd_args {
    struct disk_args disk;
    struct trace_option trace;
    const char *socket; /* NULL: TCP */
    const char *port;
    const char *bind; /* NULL: the usual */
    const char *name;
    const char *description;
    const char *pid_file;
    const char *device; /* -c, -d */
    const char *tls_creds;
    const char *tls_hostname;
    const char *tls_authz;
    struct nbd_export_bitmap bitmaps[NBD_MAX_EXPORT_BITMAPS];
    unsigned bitmap_count;
    uint64_t offset;
    unsigned shared;    /* 0: as many as come */
    unsigned activated; /* sockets that were passed in, from descriptor 3 on */
    int activation_err; /* -errno: bad_activated is none of them */
    int bad_activated;
    bool read_only;
    bool scratch; /* -s */
    bool allocation_depth;
    bool persistent;
    bool fork;
    bool verbose;
    bool list;
    bool disconnect;
    bool per_device; /* something was said that makes no sense when listing */
};

/* args.c: false: the command ends with *ret_code. */
bool nbd_args_parse(struct cli *cli, int argc, char **argv, struct nbd_args *args, int *ret_code);
/* What does not go together, which is told after a log of traces that cannot be opened. */
int nbd_args_check(struct cli *cli, const struct nbd_args *args);
extern const struct cli_option nbd_tool_options[];
/* Where it listens, or connects to, when no address is named. */
const char *nbd_args_host(const struct cli *cli, const struct nbd_args *args);
const char *nbd_args_port(const struct nbd_args *args);
/* A socket that was passed in is none. */
int nbd_report_activated(struct cli *cli, int fd, int ret);
/* The unix socket's path does not fit an address. */
int nbd_report_long_path(struct cli *cli, const struct nbd_args *args);
/* Name resolution failed, for the reason that ends text. */
int nbd_report_resolution(struct cli *cli, const struct nbd_args *args, const char *text);

/* part.c: wrap_check and wrap of a struct disk_args; opaque is the struct nbd_args. */
int nbd_part_check(BlockDriverState *bs, void *opaque, Error **errp);
BlockDriverState *nbd_part(Platter *pl, BlockDriverState *bs, void *opaque, Error **errp);

/* nbd.c: those of --tls-creds, with a reference; NULL with errp. */
TlsCreds *nbd_tls_creds(Platter *pl, const struct nbd_args *args, enum tls_endpoint endpoint,
                        Error **errp);

/* list.c: print what the server offers; the exit code. */
int nbd_list(struct cli *cli, const struct nbd_args *args);

#endif
