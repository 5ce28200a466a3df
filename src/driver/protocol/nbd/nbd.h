/* SPDX-License-Identifier: MIT */
/*
 * The NBD client driver, over libnbd; our functions begin with nbdc_.
 *
 * A pool keeps a few connections; a connection is a link (one libnbd handle) or waits to get a new
 * one. A request picks a connection and drives it itself, in its own context:
 *
 * L1: a link's socket is watched only while requests are in flight on it, by one of them, the
 *     leader, in the leader's context. When the leader's own answer has come, it hands over to the
 *     next. So no context serves another one's requests after its own, and an idle link needs
 *     nothing of any context: it can be closed from anywhere.
 * L2: order of locks: the handle's own inside libnbd, then link.lock; pool.lock stands alone.
 * L3: a link that was lost is not used again; it ends with the last request that used it.
 */
#ifndef PLATTER_DRIVER_NBD_H
#define PLATTER_DRIVER_NBD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sys/queue.h>

#include "block/driver.h"
#include "os/nbd_library.h"
#include "os/thread.h"
#include "tls/tls.h"

#define NBD_PORT_DEFAULT "10809"
/* Of an export's or a metadata context's name, by the protocol. */
#define NBD_STRING_BYTES_MAX 4096
#define NBD_CONNECTIONS_MAX 16
#define NBD_NS_PER_S INT64_C(1000000000)

/* Where the disk is. Strings owned; never NULL but as said. */
struct nbdc_address {
    char *path; /* NULL: TCP */
    char *host; /* NULL: a unix socket */
    char *port;
    char *export_name;
};

/* name.c: "nbd:..." and URIs. 0 or -errno; ret is filled on success only. */
int nbdc_name_parse(const char *name, struct nbdc_address *ret_address, Error **errp);
char *nbdc_name_build(const struct nbdc_address *address); /* a URI; NULL: out of memory */
/* address.c */
void nbdc_address_fini(struct nbdc_address *address);
int nbdc_parse_filename(const char *filename, BlockOptions *options, Error **errp);
struct opts_node_nbd;
/* Takes its strings out of opts. */
int nbdc_address_from_options(const struct opts_node_nbd *opts, struct nbdc_address *ret_address,
                              Error **errp);

/* What the server said of the export, checked. */
struct nbd_facts {
    uint64_t size_bytes;
    uint32_t block_min; /* power of two, 1..64 KiB */
    uint32_t block_preferred;
    uint32_t payload_max; /* multiple of block_min */
    bool read_only;
    bool flush;
    bool fua;
    bool trim;
    bool zero;
    bool fast_zero;
    bool multi_conn;
    bool status; /* the metadata context was granted */
};

/* What every connection asks for. Constant once open. */
struct nbd_target {
    struct nbdc_address address;
    char *shown;         /* "host:port" or the path, for messages; owned */
    const char *context; /* metadata context of block status; into context_given or constant */
    char *context_given; /* x-dirty-bitmap, owned, or NULL */
    TlsCreds *tls_creds; /* counted, or NULL: no TLS */
    char *tls_hostname;  /* owned, or NULL: that of the address */
};

/* ---- sleep.c ---- */
/* One wait of a coroutine for a socket; a struct of zeroes with co is ready for use. */
struct nbd_sleep {
    Coroutine *co;
    atomic_bool woken;
    unsigned ready; /* LIBNBD_AIO_DIRECTION_*; its own thread only */
};
/* Wait until fd is ready for dir, the deadline (INT64_MAX: none) or a wake. Returns what fd is
 * ready for (0: nothing) or -errno. Coroutine; nobody else watches fd in this context. */
int nbdc_sleep_co(struct nbd_sleep *sleep, int fd, unsigned dir, int64_t deadline_ns);
void nbdc_sleep_wake(struct nbd_sleep *sleep); /* [any]; the sleep must still be there */
/* Give the handle what its socket is ready for. */
void nbdc_handle_notify(struct nbd_handle *h, unsigned ready);

/* ---- negotiate.c ---- */
/* Connect and agree until deadline_ns: a handle in the ready state, or NULL with *ret_rc and errp.
 * Looking up a host name blocks the thread. Coroutine. */
struct nbd_handle *nbdc_negotiate_co(const struct nbd_target *target, int64_t deadline_ns,
                                     struct nbd_facts *ret_facts, int *ret_rc, Error **errp);
/* Whether a server with these facts can go on for one with those. */
bool nbdc_facts_cover(const struct nbd_facts *now, const struct nbd_facts *before);

/* ---- link.c ---- */
struct nbd_call; /* a request on its way */
TAILQ_HEAD(nbd_call_list, nbd_call);

struct nbd_link {
    struct nbd_handle *h; /* owned; has its own lock */
    int fd;               /* owned: a duplicate of the handle's, so that its number stays ours as
                             long as somebody may watch it */
    atomic_uint refs;
    struct os_mutex lock;    /* guards what follows */
    Coroutine *leader;       /* who watches the socket, or NULL */
    struct nbd_sleep *sleep; /* the leader's, while it has one */
    bool kicked;             /* what the handle waits for has changed since the leader looked */
    struct nbd_call_list followers;
};

enum nbd_op {
    NBD_OP_READ,
    NBD_OP_WRITE,
    NBD_OP_ZERO,
    NBD_OP_TRIM,
    NBD_OP_FLUSH,
    NBD_OP_STATUS,
};

struct nbd_call {
    enum nbd_op op;
    uint32_t flags; /* LIBNBD_CMD_FLAG_* */
    uint64_t offset;
    uint64_t bytes;
    void *buf;           /* READ, WRITE */
    const char *context; /* STATUS */
    uint64_t ret_extent_bytes;
    uint32_t ret_extent_flags;
    /* link.c's, under the link's lock */
    struct nbd_link *link;
    Coroutine *co;
    bool done;
    bool follows;
    int err;             /* positive */
    uint64_t read_bytes; /* READ: that came */
    TAILQ_ENTRY(nbd_call) entry;
};

/* Owns h, also on failure (NULL: out of memory). One reference. */
struct nbd_link *nbdc_link_new(struct nbd_handle *h);
void nbdc_link_ref(struct nbd_link *link);
void nbdc_link_unref(struct nbd_link *link); /* the last one says goodbye and closes */
/* 0 or -errno; *ret_lost: the link is of no use any more, the call may or may not have been done.
 */
int nbdc_link_call_co(struct nbd_link *link, struct nbd_call *call, bool *ret_lost);

/* ---- pool.c ---- */
struct nbd_conn {
    atomic_uint calls;        /* in flight or waiting */
    struct nbd_link *link;    /* counted, under the pool's lock; NULL: down */
    int64_t down_since_ns;    /* under the pool's lock */
    CoMutex connecting;       /* one at a time tries */
    int64_t next_try_ns;      /* under connecting: not before */
    _Atomic int64_t pause_ns; /* after the next attempt */
};

struct nbd_pool {
    struct nbd_target target;
    struct nbd_facts facts; /* of the first connection; constant once open */
    int64_t reconnect_delay_ns;
    int64_t open_timeout_ns;
    struct os_mutex lock;
    unsigned n_conns; /* constant once open */
    struct nbd_conn conns[NBD_CONNECTIONS_MAX];
};

/* Connect the first one; learn the facts. Then at most n connections. Coroutine. */
int nbdc_pool_open_co(struct nbd_pool *pool, unsigned n, Error **errp);
void nbdc_pool_close(struct nbd_pool *pool); /* no call is in flight */
/* Serve one call, over a new connection where the one was lost and that may be waited for. */
int nbdc_pool_call_co(struct nbd_pool *pool, struct nbd_call *call);

/* ---- request.c, create.c: entries of the table ---- */
int nbdc_read_co(BlockDriverState *bs, const struct bdrv_req *req);
int nbdc_write_co(BlockDriverState *bs, const struct bdrv_req *req);
int nbdc_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes, unsigned flags);
int nbdc_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes);
int nbdc_flush_co(BlockDriverState *bs);
int nbdc_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                         struct bdrv_status *ret_status);
int nbdc_create(Platter *pl, const char *filename, BlockOptions *options, Error **errp);

#endif
