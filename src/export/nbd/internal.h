/* SPDX-License-Identifier: MIT */
/*
 * The NBD server's own structures.
 *
 *   server.c    the server: options, exports, statistics, orderly end
 *   listener.c  sockets that listen, accepting            address.c  their URIs
 *   conn.c      life of one connection: slots, stop, end
 *   handshake.c negotiation loop      options.c  one function per option      meta.c  contexts
 *   bitmaps.c   dirty bitmaps of exports
 *   tls.c       TLS between a connection and its socket
 *   session.c   transmission: parses bursts of requests out of the receive buffer
 *   request.c   carries one request out                   read.c  reads and their holes
 *   status.c    block status
 *   reply.c     the queue of replies and the one sender that gathers them
 *   buffer.c    recycled memory of a connection
 *
 * Threads. server->lock guards the lists, counts and references of exports and connections. A
 * connection lives in its context: everything in it that is not said to be under the lock is
 * touched only by that context's thread. Lock order: server->lock is a leaf.
 *
 * Bounds of a connection: NBD_MAX_IN_FLIGHT requests and NBD_MAX_IN_FLIGHT_BYTES of payload are
 * held at most, counted from the request's parsing until its reply has been given to the kernel; so
 * a client that does not read its replies stops its own reader and nobody else's. All of it is
 * charged to the budget of the instance. Of that a client may always take its share, which is half
 * the budget over the number of clients; what it takes beyond comes from the other half only. So
 * clients that hold all they can never take the share of another: that one's large requests may be
 * answered ENOMEM, or wait for its own, while the others hold on, but it is served.
 */
#ifndef PLATTER_EXPORT_NBD_INTERNAL_H
#define PLATTER_EXPORT_NBD_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <platter/bitmap.h>
#include <platter/coroutine.h>
#include <platter/export.h>

#include "loop/io.h"
#include "os/listen.h"
#include "os/os.h"
#include "os/thread.h"
#include "tls/tls.h"
#include "util/budget.h"
#include "util/mem.h"
#include "wire/nbd/nbd.h"

#define NBD_HANDSHAKES_MAX 64u              /* clients that negotiate at once */
#define NBD_OPTION_DATA_MAX (64u * 1024)    /* of an option we look into */
#define NBD_DRAIN_MAX NBD_MAX_PAYLOAD_BYTES /* skipped to stay in step with a client */
#define NBD_CHUNK_BYTES (256u * 1024)       /* receive buffer */
#define NBD_PAYLOAD_IN_CHUNK_MAX (64u * 1024)
#define NBD_UNSENT_BYTES_MAX (64u * 1024) /* finished replies that wait before reading pauses */
#define NBD_SEND_BYTES_MAX (512u * 1024)  /* gathered for one send, at least one reply */
#define NBD_SEND_IOV_MAX 512u
#define NBD_HOLE_READ_MIN (64u * 1024) /* shorter reads do not ask for holes */
#define NBD_HOLE_MIN (32u * 1024)      /* shorter holes are read */
#define NBD_READ_PIECES_MAX 32u
#define NBD_STATUS_EXTENTS_MAX 4096u /* in one chunk of a status reply */
#define NBD_STATUS_EXTENTS_ALL 8192u /* in all chunks of one, shared by the contexts */
#define NBD_STATUS_STEPS_MAX 8192u   /* questions to the node for one status request */
#define NBD_ZERO_STEP_BYTES (INT64_C(1) << 30)
#define NBD_CACHE_STEP_BYTES (1024u * 1024)

/* Metadata contexts by number; a set of them is a mask of bits. The bitmaps of an export follow
 * one another from NBD_CONTEXT_BITMAP on. */
enum {
    NBD_CONTEXT_ALLOCATION,
    NBD_CONTEXT_DEPTH,
    NBD_CONTEXT_BITMAP,
};
#define NBD_CONTEXTS_MAX (NBD_CONTEXT_BITMAP + NBD_MAX_EXPORT_BITMAPS)
#define NBD_CONTEXT_BIT(number) (UINT64_C(1) << (number))
_Static_assert(NBD_CONTEXTS_MAX <= 64, "a set of contexts is a mask");
/* What a context is called on the wire. */
static inline uint32_t nbd_context_id(unsigned number)
{
    return number + 1;
}

/* ---- memory (buffer.c) ---- */

#define NBD_BUF_SHIFT_MIN 12
#define NBD_BUF_CLASSES 14 /* 4 KiB .. 32 MiB */
#define NBD_BUF_CACHED_MAX (16u * 1024 * 1024)
#define NBD_BUF_SHARE_MIN (4u * NBD_CHUNK_BYTES) /* with very many clients: the budget may end */

struct nbd_buf_free {
    struct nbd_buf_free *next;
};
struct nbd_bufs {
    struct mem_budget *budget; /* borrowed */
    uint64_t share_bytes;      /* may always be held */
    uint64_t reserve_bytes;    /* of the budget: left alone by who holds more than that */
    uint64_t held_bytes;       /* cached ones included */
    struct nbd_buf_free *free[NBD_BUF_CLASSES];
    uint64_t cached_bytes;
};
/* Set up for one of max_users users of the budget. */
void nbd_bufs_init(struct nbd_bufs *bufs, struct mem_budget *budget, unsigned max_users);
/* Whether bytes more could be had now. */
bool nbd_bufs_room(const struct nbd_bufs *bufs, uint64_t bytes);
/* A page-aligned buffer of at least bytes (1 .. 32 MiB); its capacity in *ret_cap. NULL: none to be
 * had. */
void *nbd_bufs_get(struct nbd_bufs *bufs, size_t bytes, size_t *ret_cap);
void nbd_bufs_put(struct nbd_bufs *bufs, void *buf, size_t cap);
void nbd_bufs_trim(struct nbd_bufs *bufs); /* give back what is cached */

/* Memory that receives from the socket. Write requests point into it while they run. */
struct nbd_chunk {
    unsigned refs;
    uint8_t *data; /* NBD_CHUNK_BYTES */
};
struct nbd_chunk *nbd_chunk_new(struct nbd_bufs *bufs);
void nbd_chunk_unref(struct nbd_bufs *bufs, struct nbd_chunk *chunk);

/* ---- server ---- */

struct nbd_context {
    AioContext *ctx; /* counted */
    unsigned load;   /* lock: connections */
};

struct nbd_bitmap {
    BdrvDirtyBitmap *bitmap; /* borrowed: busy, and its node counted */
    BlockDriverState *node;
    char *context; /* owned: "qemu:dirty-bitmap:NAME" */
};

struct nbd_export {
    LIST_ENTRY(nbd_export) link; /* lock */
    NbdServer *server;           /* borrowed */
    BlockBackend *blk;           /* counted */
    BlockAcctStats *stats;       /* owned: of its clients alone */
    BlockAcctStats *blk_stats;   /* of blk, which others know by its name; or NULL */
    BlockDriverState *passing;   /* of blk_pass_begin, while it ends */
    char *name;                  /* owned */
    char *description;           /* owned or NULL */
    bool writable;
    bool allocation_depth;
    bool error_policy;
    struct nbd_bitmap *bitmaps; /* owned */
    unsigned bitmap_count;
    struct nbd_context place; /* ctx counted, or NULL: connections stay where they are */
    uint32_t mem_alignment;
    uint32_t preferred_bytes;
    unsigned users;             /* lock: connections */
    _Atomic uint64_t new_holes; /* counts requests that may have made holes; any thread */
};
LIST_HEAD(nbd_export_list, nbd_export);

struct nbd_listener {
    LIST_ENTRY(nbd_listener) link; /* control thread */
    NbdServer *server;             /* borrowed */
    struct os_listener sock;       /* owned */
    bool watched;
};
LIST_HEAD(nbd_listener_list, nbd_listener);

/* Counters of the contexts with one slot number. */
struct nbd_counters {
    _Atomic uint64_t reads, writes, others, failed, read_bytes, write_bytes, latency_ns;
} __attribute__((aligned(64)));

struct nbd_conn;
struct nbd_tls;
TAILQ_HEAD(nbd_conn_list, nbd_conn);

struct NbdServer {
    LIST_ENTRY(NbdServer) in_instance;
    Platter *pl;          /* borrowed */
    AioContext *main_ctx; /* counted */
    struct nbd_context *contexts;
    unsigned context_count;
    unsigned max_connections;
    int64_t handshake_timeout_ns;
    int64_t shutdown_timeout_ns;
    void (*idle_cb)(void *opaque);
    void *idle_opaque;
    bool queue_clients;
    TlsCreds *tls_creds; /* counted, or NULL */
    TlsAuthz *tls_authz; /* counted, or NULL */

    /* control thread */
    struct nbd_listener_list listeners;
    unsigned listener_count;
    bool accept_paused;
    AioTimer *accept_timer; /* owned: goes on after EMFILE */
    QEMUBH *ended_bh;       /* owned: a connection has ended */

    _Atomic bool stopping;

    struct os_mutex lock;
    struct nbd_export_list exports;
    struct nbd_conn_list handshaking; /* least recent progress first */
    struct nbd_conn_list established;
    unsigned handshake_count;
    unsigned established_count;
    bool became_idle; /* tell it: see idle_cb */
    uint64_t connections_total;

    /* who waits for a place among the established: see nbd_conn_take_slot_co */
    CoMutex slot_mutex;
    CoQueue slot_queue;
    unsigned slots_used; /* slot_mutex */

    struct nbd_counters counters[OS_SLOTS];
};

/* ---- connection ---- */

struct nbd_req;
STAILQ_HEAD(nbd_req_list, nbd_req);

struct nbd_conn {
    TAILQ_ENTRY(nbd_conn) link; /* lock */
    NbdServer *server;          /* borrowed; outlives it */
    struct nbd_context *home;
    AioContext *ctx;                /* borrowed from home */
    int fd;                         /* closed after the connection left the lists */
    bool is_established;            /* lock */
    struct nbd_export *export;      /* lock to change; used (counted) once chosen */
    struct nbd_export *meta_export; /* the same: what contexts were chosen for; or NULL */
    _Atomic bool cancelled;         /* the socket was shut down by us; any thread */
    _Atomic bool stop;              /* new requests answer ESHUTDOWN; any thread */
    Coroutine *co;                  /* the reader */
    struct nbd_tls *tls;            /* owned; NULL: the socket's bytes are the stream's */

    /* negotiation */
    AioTimer *timer; /* owned: handshake limit, later idle memory */
    enum nbd_mode mode;
    bool no_zeroes;
    unsigned noptions;
    uint64_t contexts;   /* mask of NBD_CONTEXT_* */
    uint64_t size_bytes; /* as told to the client */
    uint8_t *out;        /* owned: replies to the current option */
    size_t out_bytes, out_cap;

    /* receiving: bytes [head, tail) of chunk are not parsed yet */
    struct nbd_bufs bufs;
    struct nbd_chunk *chunk;
    size_t head, tail;
    int64_t now_ns;
    bool in_burst;     /* the parser will flush replies itself */
    bool waiting;      /* the reader waits for nbd_conn_wake */
    bool transmitting; /* negotiation is over */

    /* requests in flight, and their replies */
    unsigned in_flight;
    uint64_t in_flight_bytes;
    struct nbd_req_list free_reqs;
    struct nbd_req_list replies; /* finished, not yet sent */
    uint64_t unsent_bytes;       /* payload of them */
    bool sending;
    bool flush_scheduled;
    bool dead;        /* nothing can be sent any more */
    QEMUBH *flush_bh; /* owned */
    uint64_t requests_total, requests_at_tick;
    struct iovec *send_iov; /* owned: NBD_SEND_IOV_MAX */
    uint8_t *send_heads;    /* owned: headers of replies without payload, packed */

    /* part of the export known to hold data; found by reads, void when new_holes changes */
    uint64_t data_begin, data_end, data_holes;
};

/* One request. From a list of its connection; freed when its reply has been sent. */
struct nbd_req {
    STAILQ_ENTRY(nbd_req) link;
    struct nbd_conn *conn;
    struct nbd_request h;
    int64_t start_ns;
    uint64_t charged_bytes;  /* to in_flight_bytes */
    struct nbd_chunk *chunk; /* counted: holds payload; or NULL */
    void *buf;               /* owned, buf_cap bytes; or NULL */
    size_t buf_cap;
    struct iovec iov[2]; /* memory of a write or read */
    int niov;
    /* the reply: out[0..nout), its first bytes usually in head */
    struct iovec *out; /* out_own, or in heap */
    unsigned nout;
    struct iovec out_own[2];
    size_t out_bytes;
    void *heap; /* owned or NULL */
    bool failed;
    uint8_t head[NBD_ERROR_CHUNK_BYTES_MAX];
};

/* bitmaps.c: what the options ask for; 0 or -errno. Ends also one that was begun in part. */
int nbd_export_bitmaps_begin(struct nbd_export *export, const struct nbd_export_options *opts,
                             Error **errp);
void nbd_export_bitmaps_end(struct nbd_export *export);

/* server.c */
struct nbd_export *nbd_export_use(NbdServer *server, struct nbd_string name); /* any; or NULL */
void nbd_export_unuse(struct nbd_export *export);                             /* any */

/* listener.c */
void nbd_listener_free(struct nbd_listener *listener);
static inline bool nbd_listener_is_tcp(const struct nbd_listener *listener)
{
    return listener->sock.host_port != NULL;
}
void nbd_accept_resume(NbdServer *server);
void nbd_accept_timer_cb(void *opaque);
/* Take a connected socket; it is owned from now on. 0 or -errno. Control thread. */
int nbd_conn_start(NbdServer *server, int fd, bool tcp);

/* conn.c */
void nbd_conn_progress(struct nbd_conn *conn);
/* Become an established connection to export, which (used) passes in, also on failure; then the
 * connection must end. */
int nbd_conn_take_slot_co(struct nbd_conn *conn, struct nbd_export *export);
void nbd_conn_cut(struct nbd_conn *conn);             /* under lock: shut the socket down */
void nbd_conn_stop(struct nbd_conn *conn, bool hard); /* under lock */
void nbd_conn_wait_co(struct nbd_conn *conn);         /* until nbd_conn_wake */
void nbd_conn_wake(struct nbd_conn *conn);
void nbd_conn_tick(struct nbd_conn *conn); /* memory was cached: have it looked after */

/* Receive until at least bytes (<= NBD_CHUNK_BYTES) stand at the head of the chunk. 0, -errno,
 * -ECONNRESET at the end of the stream. */
int nbd_recv_need_co(struct nbd_conn *conn, size_t bytes);
/* Drop bytes of the stream. */
int nbd_recv_skip_co(struct nbd_conn *conn, uint64_t bytes);
static inline const uint8_t *nbd_conn_data(const struct nbd_conn *conn)
{
    return conn->chunk->data + conn->head;
}

/* tls.c. What goes between a connection and its socket when both sides have agreed on TLS; the
 * calls for streams as aio_recvv_co and aio_send_co, iov being changed by both. */
/* The client was told to begin. 0, or -errno: the connection ends. */
int nbd_tls_begin_co(struct nbd_conn *conn);
int64_t nbd_tls_recv_co(struct nbd_conn *conn, struct iovec *iov, int niov);
int nbd_tls_send_co(struct nbd_conn *conn, struct iovec *iov, int niov);
void nbd_tls_end(struct nbd_conn *conn); /* the farewell, if it can be sent at once */

static inline int64_t nbd_stream_recv_co(struct nbd_conn *conn, struct iovec *iov, int niov)
{
    return UNLIKELY(conn->tls != NULL) ? nbd_tls_recv_co(conn, iov, niov)
                                       : aio_recvv_co(conn->fd, iov, niov);
}

/* handshake.c: 0 when transmission begins, -errno when the connection ends. */
int nbd_handshake_co(struct nbd_conn *conn);
void *nbd_out_add(struct nbd_conn *conn, size_t bytes); /* NULL: no memory */
int nbd_out_reply(struct nbd_conn *conn, uint32_t option, uint32_t type, const void *data,
                  uint32_t bytes);
int nbd_out_error(struct nbd_conn *conn, uint32_t option, uint32_t type, const char *text);

/* options.c: carry one option out. 0 go on; what the next two say; -errno drop. */
#define NBD_OPTION_TRANSMIT 1
#define NBD_OPTION_TLS 2 /* when the reply has been sent */
int nbd_option_run_co(struct nbd_conn *conn, uint32_t option, const uint8_t *data, uint32_t bytes);
/* meta.c */
int nbd_option_meta(struct nbd_conn *conn, uint32_t option, const uint8_t *data, uint32_t bytes);

/* session.c */
void nbd_session_co(struct nbd_conn *conn);
void *nbd_session_buffer_co(struct nbd_conn *conn, size_t bytes, size_t *ret_cap);

/* request.c */
struct nbd_req *nbd_req_get(struct nbd_conn *conn);
void nbd_req_put(struct nbd_req *req);
void nbd_req_start(struct nbd_req *req);
/* 0, or the NBD error to answer with *ret_text. */
uint32_t nbd_req_check(const struct nbd_conn *conn, const struct nbd_request *h,
                       const char **ret_text);

/* read.c, status.c: coroutine; fill the reply and return 0, or -errno */
int nbd_read_co(struct nbd_req *req);
int nbd_status_co(struct nbd_req *req);
int nbd_read_zeroes(struct nbd_req *req); /* 0 or -ENOMEM */

/* reply.c: fill the reply of req, then queue it. */
void nbd_reply_ok(struct nbd_req *req);
void nbd_reply_error(struct nbd_req *req, uint32_t error, const char *text);
void nbd_reply_data(struct nbd_req *req, uint32_t bytes);
void nbd_reply_queue(struct nbd_req *req);
void nbd_reply_flush(struct nbd_conn *conn);
void nbd_reply_flush_bh(void *opaque);

#endif
