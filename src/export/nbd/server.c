/* SPDX-License-Identifier: MIT */
/*
 * The server: options, exports, statistics, and the orderly end. Servers that nobody freed end with
 * their instance.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/pass.h"
#include "block/instance.h"
#include "export/nbd/internal.h"
#include "loop/context.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/mem.h"

#define PREFERRED_BYTES 4096u

/* ---- the instance's room ---- */

LIST_HEAD(server_list, NbdServer);

static void room_fini(Platter *pl, void *data)
{
    struct server_list *list = data;

    while (!LIST_EMPTY(list)) {
        nbd_server_free(LIST_FIRST(list));
    }
    free(list);
}

static struct server_list *room_get(Platter *pl)
{
    struct server_list *list = pl->rooms[INSTANCE_ROOM_EXPORTS].data;

    if (list == NULL) {
        list = malloc(sizeof(*list));
        if (list != NULL) {
            LIST_INIT(list);
            pl->rooms[INSTANCE_ROOM_EXPORTS].data = list;
            pl->rooms[INSTANCE_ROOM_EXPORTS].fini = room_fini;
        }
    }
    return list;
}

/* ---- new and free ---- */

/* A connection has ended: somebody else may come, or nobody is left. */
static void ended_bh(void *opaque)
{
    NbdServer *server = opaque;
    bool idle;

    nbd_accept_resume(server);
    os_mutex_lock(&server->lock);
    idle = server->became_idle && server->established_count + server->handshake_count == 0;
    server->became_idle = false;
    os_mutex_unlock(&server->lock);
    if (idle && server->idle_cb != NULL && !atomic_load(&server->stopping)) {
        server->idle_cb(server->idle_opaque);
    }
}

static int contexts_set(NbdServer *server, const struct nbd_server_options *opts)
{
    unsigned n = opts->context_count > 0 ? opts->context_count : 1;
    unsigned i;

    server->contexts = calloc(n, sizeof(*server->contexts));
    if (server->contexts == NULL) {
        return -ENOMEM;
    }
    for (i = 0; i < n; i++) {
        AioContext *ctx = opts->context_count > 0 ? opts->contexts[i] : server->main_ctx;

        aio_context_ref(ctx);
        server->contexts[i].ctx = ctx;
    }
    server->context_count = n;
    return 0;
}

static void server_release(NbdServer *server)
{
    unsigned i;

    if (server->ended_bh != NULL) {
        aio_bh_delete(server->ended_bh);
    }
    if (server->accept_timer != NULL) {
        aio_timer_free(server->accept_timer);
    }
    for (i = 0; i < server->context_count; i++) {
        aio_context_unref(server->contexts[i].ctx);
    }
    free(server->contexts);
    tls_creds_unref(server->tls_creds);
    tls_authz_unref(server->tls_authz);
    aio_context_unref(server->main_ctx);
    os_mutex_fini(&server->lock);
    free(server);
}

static int tls_check(const struct nbd_server_options *o, Error **errp)
{
    const TlsCreds *creds = o->tls_creds;

    if (creds->endpoint != TLS_ENDPOINT_SERVER) {
        return error_set(errp, EINVAL, "Expected TLS credentials for a server endpoint");
    }
    if (o->tls_authz != NULL &&
        (creds->kind == TLS_CREDS_ANON || (creds->kind == TLS_CREDS_X509 && !creds->verify_peer))) {
        return error_set(errp, EINVAL,
                         "TLS credentials '%s' give a client no identity, so '%s' would refuse all",
                         creds->id, o->tls_authz->id);
    }
    return 0;
}

static void tls_take(NbdServer *server, const struct nbd_server_options *o)
{
    if (o->tls_creds != NULL) {
        tls_creds_ref(o->tls_creds);
        server->tls_creds = o->tls_creds;
        if (o->tls_authz != NULL) {
            tls_authz_ref(o->tls_authz);
            server->tls_authz = o->tls_authz;
        }
    }
}

NbdServer *nbd_server_new(Platter *pl, const struct nbd_server_options *opts, Error **errp)
{
    struct nbd_server_options o = {.size = sizeof(o)};
    struct server_list *list = room_get(pl);
    NbdServer *server;
    void *mem;

    if (opts != NULL) {
        memcpy(&o, opts, min_u64(opts->size, sizeof(o)));
    }
    if (o.handshake_timeout_ns < 0 || o.shutdown_timeout_ns < 0) {
        error_set(errp, EINVAL, "a timeout must not be negative");
        return NULL;
    }
    if (o.tls_creds != NULL && tls_check(&o, errp) < 0) {
        return NULL;
    }
    /* The counters have cache lines of their own. */
    if (list == NULL || posix_memalign(&mem, 64, sizeof(*server)) != 0) {
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    server = memset(mem, 0, sizeof(*server));
    server->pl = pl;
    server->main_ctx = platter_get_main_context(pl);
    aio_context_ref(server->main_ctx);
    os_mutex_init(&server->lock);
    server->max_connections = o.max_connections ? o.max_connections : NBD_MAX_CONNECTIONS_DEFAULT;
    server->handshake_timeout_ns =
        o.handshake_timeout_ns ? o.handshake_timeout_ns : NBD_HANDSHAKE_TIMEOUT_DEFAULT_NS;
    server->shutdown_timeout_ns =
        o.shutdown_timeout_ns ? o.shutdown_timeout_ns : NBD_SHUTDOWN_TIMEOUT_DEFAULT_NS;
    LIST_INIT(&server->listeners);
    LIST_INIT(&server->exports);
    TAILQ_INIT(&server->handshaking);
    TAILQ_INIT(&server->established);
    co_mutex_init(&server->slot_mutex);
    co_queue_init(&server->slot_queue);
    server->idle_cb = o.idle_cb;
    server->idle_opaque = o.idle_opaque;
    server->queue_clients = o.queue_clients;
    tls_take(server, &o);
    server->ended_bh = aio_bh_new(server->main_ctx, ended_bh, server);
    server->accept_timer = aio_timer_new(server->main_ctx, nbd_accept_timer_cb, server);
    if (contexts_set(server, &o) < 0 || server->ended_bh == NULL || server->accept_timer == NULL) {
        server_release(server);
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    LIST_INSERT_HEAD(list, server, in_instance);
    return server;
}

/* ---- waiting for connections to end ---- */

struct stop_scope {
    NbdServer *server;
    struct nbd_export *export; /* NULL: all connections, handshakes included */
};

static bool scope_has(const struct stop_scope *scope, const struct nbd_conn *conn)
{
    return scope->export == NULL || conn->export == scope->export ||
           conn->meta_export == scope->export;
}

static void scope_each(const struct stop_scope *scope, void (*fn)(struct nbd_export *export))
{
    struct nbd_export *export;

    if (scope->export != NULL) {
        fn(scope->export);
        return;
    }
    LIST_FOREACH (export, &scope->server->exports, link) {
        fn(export);
    }
}

/* What the error policy of its backend holds back is given up. */
static void export_unpark(struct nbd_export *export)
{
    if (export->error_policy) {
        instance_unpark(export->server->pl, export->blk, -ECANCELED);
    }
}

/* What limits and filters hold back goes on. */
static void export_pass_begin(struct nbd_export *export)
{
    export->passing = blk_pass_begin(export->blk);
}

static void export_pass_end(struct nbd_export *export)
{
    blk_pass_end(export->blk, export->passing);
}

static void scope_stop(const struct stop_scope *scope, bool hard)
{
    NbdServer *server = scope->server;
    struct nbd_conn *conn;

    os_mutex_lock(&server->lock);
    TAILQ_FOREACH (conn, &server->established, link) {
        if (scope_has(scope, conn)) {
            nbd_conn_stop(conn, hard);
        }
    }
    TAILQ_FOREACH (conn, &server->handshaking, link) {
        if (scope_has(scope, conn)) {
            nbd_conn_stop(conn, hard);
        }
    }
    os_mutex_unlock(&server->lock);
    scope_each(scope, export_unpark);
    co_queue_wake_all(&server->slot_queue);
}

static bool scope_busy(void *opaque)
{
    const struct stop_scope *scope = opaque;
    NbdServer *server = scope->server;
    bool busy;

    os_mutex_lock(&server->lock);
    busy = scope->export ? scope->export->users > 0
                         : server->handshake_count + server->established_count > 0;
    os_mutex_unlock(&server->lock);
    return busy;
}

static void scope_cut(void *opaque)
{
    scope_stop(opaque, true);
}

/* Let the connections of the scope answer what is in flight and end, past what holds requests back;
 * those that are not gone in time are cut. */
static void scope_end(struct stop_scope *scope)
{
    NbdServer *server = scope->server;
    AioTimer *timer = aio_timer_new(server->main_ctx, scope_cut, scope);

    scope_each(scope, export_pass_begin);
    scope_stop(scope, timer == NULL);
    if (timer != NULL) {
        aio_timer_mod(timer, aio_clock_ns() + server->shutdown_timeout_ns);
    }
    aio_wait_while(server->main_ctx, scope_busy, scope);
    scope_each(scope, export_pass_end);
    if (timer != NULL) {
        aio_timer_free(timer);
    }
}

static void export_free(struct nbd_export *export)
{
    nbd_export_bitmaps_end(export);
    blk_unref(export->blk);
    block_acct_free(export->stats);
    if (export->place.ctx != NULL) {
        aio_context_unref(export->place.ctx);
    }
    free(export->name);
    free(export->description);
    free(export);
}

void nbd_server_free(NbdServer *server)
{
    struct nbd_listener *listener;
    struct nbd_export *export;
    struct stop_scope scope = {server, NULL};

    if (server == NULL) {
        return;
    }
    atomic_store(&server->stopping, true);
    while ((listener = LIST_FIRST(&server->listeners)) != NULL) {
        LIST_REMOVE(listener, link);
        nbd_listener_free(listener);
    }
    scope_end(&scope);
    while ((export = LIST_FIRST(&server->exports)) != NULL) {
        LIST_REMOVE(export, link);
        export_free(export);
    }
    LIST_REMOVE(server, in_instance);
    server_release(server);
}

/* ---- exports ---- */

static struct nbd_export *export_find(NbdServer *server, struct nbd_string name)
{
    struct nbd_export *export;

    LIST_FOREACH (export, &server->exports, link) {
        if (nbd_string_equal(name, export->name)) {
            return export;
        }
    }
    return NULL;
}

struct nbd_export *nbd_export_use(NbdServer *server, struct nbd_string name)
{
    struct nbd_export *export;

    os_mutex_lock(&server->lock);
    export = export_find(server, name);
    if (export != NULL) {
        export->users++;
    }
    os_mutex_unlock(&server->lock);
    return export;
}

void nbd_export_unuse(struct nbd_export *export)
{
    NbdServer *server = export->server;

    os_mutex_lock(&server->lock);
    export->users--;
    aio_notify(server->main_ctx); /* nbd_server_remove_export may wait for it */
    os_mutex_unlock(&server->lock);
}

static int export_check(NbdServer *server, BlockBackend *blk, const struct nbd_export_options *o,
                        struct nbd_string name, Error **errp)
{
    struct nbd_string text = {o->description,
                              o->description ? (uint32_t)strlen(o->description) : 0};

    if (!nbd_string_valid(name) || !nbd_string_valid(text)) {
        return error_set(errp, EINVAL,
                         "name and description of an export must be UTF-8 of at most %u bytes",
                         NBD_STRING_BYTES_MAX);
    }
    if (export_find(server, name) != NULL) {
        return error_set(errp, EEXIST, "an export named '%.*s' exists", (int)name.bytes, name.data);
    }
    if (blk_bs(blk) == NULL) {
        return error_set(errp, ENOMEDIUM, "cannot export '%s': no medium", blk_name(blk));
    }
    if (o->writable && blk_is_read_only(blk)) {
        return error_set(errp, EACCES, "cannot export '%s' writable: it is read-only",
                         blk_name(blk));
    }
    return 0;
}

int nbd_server_add_export(NbdServer *server, BlockBackend *blk,
                          const struct nbd_export_options *opts, Error **errp)
{
    struct nbd_export_options o = {.size = sizeof(o)};
    const struct bdrv_limits *limits;
    struct nbd_export *export;
    struct nbd_string name;
    int rc;

    if (opts != NULL) {
        memcpy(&o, opts, min_u64(opts->size, sizeof(o)));
    }
    name.data = o.name ? o.name : "";
    name.bytes = (uint32_t)min_u64(strlen(name.data), UINT32_MAX);
    rc = export_check(server, blk, &o, name, errp);
    if (rc < 0) {
        return rc;
    }
    export = calloc(1, sizeof(*export));
    if (export == NULL || (export->name = strdup(name.data)) == NULL ||
        (export->stats = block_acct_new()) == NULL ||
        (o.description && (export->description = strdup(o.description)) == NULL)) {
        if (export != NULL) {
            block_acct_free(export->stats);
            free(export->name);
            free(export);
        }
        return error_set(errp, ENOMEM, "out of memory");
    }
    limits = bdrv_get_limits(blk_bs(blk));
    export->server = server;
    export->blk = blk;
    blk_ref(blk);
    export->blk_stats = *blk_name(blk) != '\0' ? blk_get_stats(blk) : NULL;
    export->writable = o.writable;
    export->allocation_depth = o.allocation_depth;
    export->error_policy = o.error_policy;
    if (o.context != NULL) {
        aio_context_ref(o.context);
        export->place.ctx = o.context;
    }
    export->mem_alignment = limits->mem_alignment;
    export->preferred_bytes = limits->request_alignment > PREFERRED_BYTES
                                  ? (uint32_t)min_u64(limits->request_alignment, 65536)
                                  : PREFERRED_BYTES;
    rc = nbd_export_bitmaps_begin(export, &o, errp);
    if (rc < 0) {
        export_free(export);
        return rc;
    }
    os_mutex_lock(&server->lock);
    LIST_INSERT_HEAD(&server->exports, export, link);
    os_mutex_unlock(&server->lock);
    return 0;
}

int nbd_server_remove_export(NbdServer *server, const char *name, enum nbd_remove_mode mode,
                             Error **errp)
{
    struct nbd_export *export;
    bool busy;

    os_mutex_lock(&server->lock);
    export = export_find(server, (struct nbd_string){name, (uint32_t)strlen(name)});
    busy = export != NULL && export->users > 0 && mode == NBD_REMOVE_SAFE;
    if (export != NULL && !busy) {
        LIST_REMOVE(export, link); /* no new client finds it */
    }
    os_mutex_unlock(&server->lock);
    if (export == NULL) {
        return error_set(errp, ENOENT, "no export named '%s'", name);
    }
    if (busy) {
        return error_set(errp, EBUSY, "export '%s' is in use", name);
    }
    scope_end(&(struct stop_scope){server, export});
    export_free(export);
    return 0;
}

/* ---- statistics ---- */

/* The list is changed by this thread only. */
const char *nbd_server_get_export_name(NbdServer *server, unsigned n)
{
    const struct nbd_export *export = LIST_FIRST(&server->exports);

    while (export != NULL && n-- > 0) {
        export = LIST_NEXT(export, link);
    }
    return export != NULL ? export->name : NULL;
}

BlockAcctStats *nbd_server_get_export_stats(NbdServer *server, const char *name)
{
    struct nbd_export *export =
        export_find(server, (struct nbd_string){name, (uint32_t)strlen(name)});

    return export != NULL ? export->stats : NULL;
}

void nbd_server_get_stats(NbdServer *server, struct nbd_server_stats *ret_stats)
{
    struct nbd_server_stats s = {.size = ret_stats->size};
    unsigned i;

    for (i = 0; i < OS_SLOTS; i++) {
        const struct nbd_counters *c = &server->counters[i];

        s.read_requests += atomic_load_explicit(&c->reads, memory_order_relaxed);
        s.write_requests += atomic_load_explicit(&c->writes, memory_order_relaxed);
        s.other_requests += atomic_load_explicit(&c->others, memory_order_relaxed);
        s.failed_requests += atomic_load_explicit(&c->failed, memory_order_relaxed);
        s.read_bytes += atomic_load_explicit(&c->read_bytes, memory_order_relaxed);
        s.write_bytes += atomic_load_explicit(&c->write_bytes, memory_order_relaxed);
        s.latency_total_ns += atomic_load_explicit(&c->latency_ns, memory_order_relaxed);
    }
    os_mutex_lock(&server->lock);
    s.connections = server->established_count;
    s.handshakes = server->handshake_count;
    s.connections_total = server->connections_total;
    os_mutex_unlock(&server->lock);
    memcpy(ret_stats, &s, min_u64(ret_stats->size, sizeof(s)));
}
