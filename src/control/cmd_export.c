/* SPDX-License-Identifier: MIT */
/* The NBD server of a daemon and its exports. An export holds a backend of its own on the node. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/node.h"
#include "block/request.h"
#include "control/control.h"
#include "control/fd.h"
#include "control/object.h"
#include "control/parts.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/json.h"
#include "util/size.h"

struct control_export {
    char *id;                      /* owned */
    char *name;                    /* owned: what clients ask for */
    BlockBackend *blk;             /* counted */
    struct control_object *thread; /* used, or NULL */
    TAILQ_ENTRY(control_export) entry;
};

static struct control_export *find_export(struct control *c, const char *id)
{
    struct control_export *e;

    TAILQ_FOREACH (e, &c->exports, entry) {
        if (strcmp(e->id, id) == 0) {
            return e;
        }
    }
    return NULL;
}

static struct control_export *find_by_name(struct control *c, const char *name)
{
    struct control_export *e;

    TAILQ_FOREACH (e, &c->exports, entry) {
        if (strcmp(e->name, name) == 0) {
            return e;
        }
    }
    return NULL;
}

static void export_free(struct control_export *e)
{
    blk_unref(e->blk);
    if (e->thread) {
        e->thread->users--;
    }
    free(e->id);
    free(e->name);
    free(e);
}

BlockAcctStats *control_export_stats(struct control *c, const char *id)
{
    struct control_export *e = find_export(c, id);

    return e ? nbd_server_get_export_stats(c->nbd, e->name) : NULL;
}

/* It is out of the server; tell everybody. */
static void export_gone(struct control *c, struct control_export *e)
{
    TAILQ_REMOVE(&c->exports, e, entry);
    control_event(c, "BLOCK_EXPORT_DELETED", json_pack("{s:s}", "id", e->id));
    export_free(e);
}

/* ---- server ---- */

static int server_listen(struct control *c, const struct qmp_socket_address *addr, Error **errp)
{
    const struct qmp_inet_socket_address *inet = &addr->u.inet;
    struct nbd_address address = {.kind = NBD_ADDRESS_UNIX};
    int fd;

    switch (addr->type) {
    case QMP_SOCKET_ADDRESS_TYPE_UNIX:
        if (addr->u.unix_.has_abstract && addr->u.unix_.abstract) {
            return error_set(errp, ENOTSUP, "abstract unix sockets are not in this build");
        }
        address.path = addr->u.unix_.path;
        return nbd_server_listen(c->nbd, &address, errp);
    case QMP_SOCKET_ADDRESS_TYPE_INET:
        if (inet->has_to || (inet->has_mptcp && inet->mptcp)) {
            return error_set(errp, ENOTSUP, "'%s' of an address is not in this build",
                             inet->has_to ? "to" : "mptcp");
        }
        address.kind = NBD_ADDRESS_TCP;
        address.host = *inet->host ? inet->host : NULL;
        address.port = inet->port;
        return nbd_server_listen(c->nbd, &address, errp);
    case QMP_SOCKET_ADDRESS_TYPE_FD:
        fd = control_take_fd(c, addr->u.fd.str, errp);
        return fd < 0 ? fd : nbd_server_listen_fd(c->nbd, fd, errp);
    }
    return -EINVAL;
}

/* What clients must show. The references are the caller's to let go, also on failure. */
static int take_tls(struct control *c, const struct qmp_nbd_server_options *args,
                    struct nbd_server_options *options, Error **errp)
{
    if (args->has_tls_authz && !args->has_tls_creds) {
        return error_set(errp, EINVAL,
                         "'tls-authz' needs 'tls-creds': without TLS nobody's identity is known");
    }
    if (args->has_tls_creds) {
        options->tls_creds = tls_creds_find(c->pl, args->tls_creds, TLS_ENDPOINT_SERVER, errp);
        if (!options->tls_creds) {
            return -ENOENT;
        }
    }
    if (args->has_tls_authz) {
        options->tls_authz = tls_authz_find(c->pl, args->tls_authz, errp);
        if (!options->tls_authz) {
            return -ENOENT;
        }
    }
    return 0;
}

int control_nbd_start(struct control *c, const struct qmp_nbd_server_options *args, Error **errp)
{
    struct nbd_server_options options = {.size = sizeof(options)};
    int ret;

    if (c->nbd) {
        return error_set(errp, EBUSY, "NBD server already running");
    }
    options.max_connections = args->has_max_connections ? args->max_connections : 0;
    ret = take_tls(c, args, &options, errp);
    if (ret == 0) {
        c->nbd = nbd_server_new(c->pl, &options, errp);
        ret = c->nbd ? 0 : -EINVAL;
    }
    tls_creds_unref(options.tls_creds);
    tls_authz_unref(options.tls_authz);
    if (ret < 0) {
        return ret;
    }
    ret = server_listen(c, &args->addr, errp);
    if (ret < 0) {
        nbd_server_free(c->nbd);
        c->nbd = NULL;
    }
    return ret;
}

int qmp_nbd_server_start(struct qmp_call *call, const struct qmp_nbd_server_start *args,
                         Error **errp)
{
    struct qmp_nbd_server_options options = {
        .addr.type = args->addr.type,
        .has_tls_creds = args->has_tls_creds,
        .tls_creds = args->tls_creds,
        .has_tls_authz = args->has_tls_authz,
        .tls_authz = args->tls_authz,
        .has_max_connections = args->has_max_connections,
        .max_connections = args->max_connections,
    };

    switch (args->addr.type) {
    case QMP_SOCKET_ADDRESS_TYPE_UNIX:
        options.addr.u.unix_ = args->addr.u.unix_.data;
        break;
    case QMP_SOCKET_ADDRESS_TYPE_INET:
        options.addr.u.inet = args->addr.u.inet.data;
        break;
    case QMP_SOCKET_ADDRESS_TYPE_FD:
        options.addr.u.fd = args->addr.u.fd.data;
        break;
    }
    return control_nbd_start(call->control, &options, errp);
}

bool control_exports_use(struct control *c, BlockBackend *blk)
{
    struct control_export *e;

    TAILQ_FOREACH (e, &c->exports, entry) {
        if (e->blk == blk) {
            return true;
        }
    }
    return false;
}

/* Whether from shows to, through filters if not at once; *ret_above: right above to then, or NULL.
 */
static bool shows(BlockDriverState *from, const BlockDriverState *to, BlockDriverState **ret_above)
{
    BlockDriverState *above = NULL;

    while (from != to && bdrv_forwards(from)) {
        above = from;
        from = from->file->bs;
    }
    *ret_above = above;
    return from == to;
}

/* bs NULL: a device. */
static struct perm_user user_of(const BlockDriverState *bs, const char *device, char *buf,
                                size_t size)
{
    if (!bs && *device == '\0') {
        return (struct perm_user){"an unnamed block device", "root"};
    }
    snprintf(buf, size, bs ? "node '%s'" : "block device '%s'",
             bs ? bdrv_get_node_name(bs) : device);
    return (struct perm_user){buf, bs ? bs->file->name : "root"};
}

int control_exports_keep_size(struct control *c, BlockDriverState *bs, Error **errp)
{
    struct control_export *e;
    struct perm_user needs, denies;
    char a[BDRV_PARENT_TEXT_BYTES];
    char b[BDRV_PARENT_TEXT_BYTES];

    TAILQ_FOREACH (e, &c->exports, entry) {
        BlockDriverState *served = blk_bs(e->blk);
        BlockDriverState *above;

        if (served && shows(served, bs, &above)) {
            needs = user_of(NULL, "", a, sizeof(a));
            denies = user_of(above, blk_name(e->blk), b, sizeof(b));
            return perm_conflict(bs, "resize", &needs, &denies, errp);
        }
        if (served && shows(bs, served, &above)) {
            needs = user_of(above, "", a, sizeof(a));
            denies = user_of(NULL, blk_name(e->blk), b, sizeof(b));
            return perm_conflict(served, "resize", &needs, &denies, errp);
        }
    }
    return 0;
}

void control_exports_end(struct control *c)
{
    struct control_export *e;

    nbd_server_free(c->nbd); /* its exports end with it */
    c->nbd = NULL;
    while ((e = TAILQ_FIRST(&c->exports)) != NULL) {
        export_gone(c, e);
    }
}

int qmp_nbd_server_stop(struct qmp_call *call, Error **errp)
{
    if (!call->control->nbd) {
        return error_set(errp, ENOENT, "NBD server not running");
    }
    control_exports_end(call->control);
    return 0;
}

/* ---- exports ---- */

/* A backend on the node with what an export needs. NULL with errp. */
static BlockBackend *export_backend(struct control *c, BlockDriverState *bs, bool writable,
                                    bool writethrough, Error **errp)
{
    uint64_t perm = BDRV_PERM_CONSISTENT_READ | (writable ? BDRV_PERM_WRITE : 0);
    BlockBackend *blk = blk_new_hidden(c->pl, errp);

    if (!blk) {
        return NULL;
    }
    if (blk_set_perm(blk, perm, BDRV_PERM_ALL, errp) < 0 || blk_insert_bs(blk, bs, errp) < 0) {
        blk_unref(blk);
        return NULL;
    }
    blk_set_enable_write_cache(blk, !writethrough);
    return blk;
}

struct export_wish {
    BlockBackend *blk;    /* serve this one; NULL: a new one on bs */
    BlockDriverState *bs; /* what is served; NULL: a backend without a medium */
    const char *id;
    const char *name;
    const char *iothread;          /* NULL: the main one */
    struct control_object *thread; /* of that name */
    bool writable;
    bool writethrough;
    const struct qmp_block_export_options_nbd *nbd;
};

static int check_id(struct control *c, const struct export_wish *w, Error **errp)
{
    if (!id_wellformed(w->id)) {
        return error_set(errp, EINVAL, "Invalid block export id");
    }
    if (find_export(c, w->id)) {
        return error_set(errp, EEXIST, "Block export id '%s' is already in use", w->id);
    }
    return 0;
}

static int check_wish(struct control *c, const struct export_wish *w, Error **errp)
{
    if (!c->nbd) {
        return error_set(errp, ENOENT, "NBD server not running");
    }
    if (find_by_name(c, w->name)) {
        return error_set(errp, EEXIST, "NBD server already has export named '%s'", w->name);
    }
    if (w->writable && w->bs && bdrv_is_read_only(w->bs)) {
        return error_set(errp, EACCES, "Cannot export read-only node as writable");
    }
    return 0;
}

/* Names, or nodes with names, as bitmaps of an export; both are the list's. */
static int take_bitmaps(struct control *c, const json_t *list, struct nbd_export_bitmap *bitmaps,
                        Error **errp)
{
    const json_t *one;
    size_t i;

    if (json_array_size(list) > NBD_MAX_EXPORT_BITMAPS) {
        return error_set(errp, E2BIG, "an export has at most %d bitmaps, not %zu",
                         NBD_MAX_EXPORT_BITMAPS, json_array_size(list));
    }
    json_array_foreach(list, i, one)
    {
        if (json_is_string(one)) {
            bitmaps[i] = (struct nbd_export_bitmap){.name = json_string_value(one)};
            continue;
        }
        bitmaps[i] = (struct nbd_export_bitmap){
            .name = json_string_value(json_object_get(one, "name")),
            .node = control_find_node(c, json_string_value(json_object_get(one, "node")), errp),
        };
        if (!bitmaps[i].node) {
            return -ENOENT;
        }
    }
    return (int)json_array_size(list);
}

static int export_begin(struct control *c, struct control_export *e, const struct export_wish *w,
                        Error **errp)
{
    struct nbd_export_bitmap bitmaps[NBD_MAX_EXPORT_BITMAPS];
    int bitmap_count = w->nbd->has_bitmaps ? take_bitmaps(c, w->nbd->bitmaps, bitmaps, errp) : 0;
    struct nbd_export_options options = {
        .size = sizeof(options),
        .name = w->name,
        .description = w->nbd->has_description ? w->nbd->description : NULL,
        .writable = w->writable,
        .error_policy = w->blk != NULL,
        .allocation_depth = w->nbd->has_allocation_depth && w->nbd->allocation_depth,
        .bitmaps = bitmaps,
        .bitmap_count = bitmap_count > 0 ? (unsigned)bitmap_count : 0,
    };

    if (bitmap_count < 0) {
        return bitmap_count;
    }
    e->id = strdup(w->id);
    e->name = strdup(w->name);
    if (!e->id || !e->name) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (w->thread) {
        e->thread = w->thread;
        e->thread->users++;
        options.context = iothread_get_aio_context(e->thread->thread);
    }
    if (w->blk) {
        blk_ref(w->blk);
        e->blk = w->blk;
    } else {
        e->blk = export_backend(c, w->bs, w->writable, w->writethrough, errp);
    }
    return e->blk ? nbd_server_add_export(c->nbd, e->blk, &options, errp) : -EPERM;
}

/* node_name: of a backend, or of a node. */
static int export_add(struct control *c, const char *node_name, struct export_wish *w, Error **errp)
{
    struct control_export *e;
    int ret = check_id(c, w, errp);

    if (ret < 0) {
        return ret;
    }
    w->blk = blk_by_name(c->pl, node_name);
    w->bs = w->blk ? blk_bs(w->blk) : control_find_root(c, NULL, node_name, errp);
    if (!w->blk && !w->bs) {
        return -ENOENT;
    }
    w->thread = w->iothread ? control_iothread_find(c, w->iothread, errp) : NULL;
    if (w->iothread && !w->thread) {
        return -ENOENT;
    }
    ret = check_wish(c, w, errp);
    if (ret < 0) {
        return ret;
    }
    e = calloc(1, sizeof(*e));
    if (!e) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    ret = export_begin(c, e, w, errp);
    if (ret < 0) {
        export_free(e);
        return ret;
    }
    TAILQ_INSERT_HEAD(&c->exports, e, entry); /* told newest first */
    return 0;
}

int qmp_block_export_add(struct qmp_call *call, const struct qmp_block_export_options *args,
                         Error **errp)
{
    const struct qmp_block_export_options_nbd *nbd = &args->u.nbd;
    struct export_wish wish = {
        .id = args->id,
        .name = nbd->has_name ? nbd->name : args->node_name,
        .iothread = args->has_iothread ? args->iothread : NULL,
        .writable = args->has_writable && args->writable,
        .writethrough = args->has_writethrough && args->writethrough,
        .nbd = nbd,
    };

    return export_add(call->control, args->node_name, &wish, errp);
}

static int export_del(struct control *c, struct control_export *e, bool hard, Error **errp)
{
    int ret =
        nbd_server_remove_export(c->nbd, e->name, hard ? NBD_REMOVE_HARD : NBD_REMOVE_SAFE, errp);

    if (ret == 0) {
        export_gone(c, e);
    }
    return ret;
}

int qmp_block_export_del(struct qmp_call *call, const struct qmp_block_export_del *args,
                         Error **errp)
{
    struct control_export *e = find_export(call->control, args->id);

    if (!e) {
        return error_set(errp, ENOENT, "Export '%s' is not found", args->id);
    }
    return export_del(call->control, e,
                      args->has_mode && args->mode == QMP_BLOCK_EXPORT_REMOVE_MODE_HARD, errp);
}

int qmp_nbd_server_add(struct qmp_call *call, const struct qmp_nbd_server_add *args, Error **errp)
{
    struct qmp_block_export_options_nbd nbd = {
        .has_description = args->has_description,
        .description = args->description,
    };
    struct export_wish wish = {
        .id = args->has_name ? args->name : args->device,
        .name = args->has_name ? args->name : args->device,
        .writable = args->has_writable && args->writable,
        .nbd = &nbd,
    };
    int ret;

    if (!blk_by_name(call->control->pl, args->device) &&
        !control_find_node(call->control, args->device, errp)) {
        return -ENOENT;
    }
    if (args->has_bitmap) {
        nbd.has_bitmaps = true;
        nbd.bitmaps = json_pack("[s]", args->bitmap);
        if (!nbd.bitmaps) {
            return error_set(errp, ENOMEM, "out of memory");
        }
    }
    ret = export_add(call->control, args->device, &wish, errp);
    json_decref(nbd.bitmaps);
    return ret;
}

int qmp_nbd_server_remove(struct qmp_call *call, const struct qmp_nbd_server_remove *args,
                          Error **errp)
{
    struct control_export *e = find_by_name(call->control, args->name);

    if (!e) {
        return error_set(errp, ENOENT, "Export '%s' is not found", args->name);
    }
    return export_del(call->control, e,
                      args->has_mode && args->mode == QMP_BLOCK_EXPORT_REMOVE_MODE_HARD, errp);
}

int qmp_query_block_exports(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    json_t *list = json_array();
    struct control_export *e;
    int ret = list ? 0 : -ENOMEM;

    TAILQ_FOREACH (e, &call->control->exports, entry) {
        BlockDriverState *bs = blk_bs(e->blk);

        json_append(list,
                    json_pack("{s:s, s:s, s:s, s:b}", "id", e->id, "type", "nbd", "node-name",
                              bs ? bdrv_get_node_name(bs) : "", "shutting-down", 0),
                    &ret);
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}

int qmp_query_block_export_stats(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    struct control *c = call->control;
    json_t *list = json_array();
    struct control_export *e;
    int ret = list ? 0 : -ENOMEM;

    TAILQ_FOREACH (e, &c->exports, entry) {
        BlockAcctStats *stats = control_export_stats(c, e->id);
        json_t *object = json_object();

        json_add(object, "id", json_text(e->id), &ret);
        json_add(object, "stats", control_stats_json(stats, blk_bs(e->blk)), &ret);
        json_add(object, "latency", control_latency_json(stats), &ret);
        json_append(list, object, &ret);
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}
