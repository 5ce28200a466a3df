/* SPDX-License-Identifier: MIT */
/*
 * The options of the negotiation, a function each, in the words of the specification's section
 * "Option types". They answer into the connection's output; what they return: 0 the negotiation
 * goes on, NBD_OPTION_* what follows instead, -errno the client is dropped.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/nbd/internal.h"
#include "util/bytes.h"
#include "util/mem.h"

static uint16_t transmission_flags(const struct nbd_conn *conn, const struct nbd_export *export)
{
    unsigned flags =
        NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;

    flags |= export->writable
                 ? NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO
                 : NBD_FLAG_READ_ONLY;
    if (conn->mode != NBD_MODE_SIMPLE) {
        flags |= NBD_FLAG_SEND_DF;
    }
    if (conn->mode == NBD_MODE_EXTENDED && conn->contexts != 0 && conn->meta_export == export) {
        flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    }
    if (conn->server->max_connections > 1) {
        /* All connections share one node: a flush on one covers what was answered on any. */
        flags |= NBD_FLAG_CAN_MULTI_CONN;
    }
    return (uint16_t)flags;
}

/* The last reply of the negotiation is written. */
static int begin_transmission(struct nbd_conn *conn, uint64_t size)
{
    conn->size_bytes = size;
    if (conn->meta_export != conn->export) {
        conn->contexts = 0; /* proto: contexts hold for the export they were chosen for */
    }
    return NBD_OPTION_TRANSMIT;
}

static int opt_export_name_co(struct nbd_conn *conn, const uint8_t *data, uint32_t bytes)
{
    struct nbd_string name = {(const char *)data, bytes};
    struct nbd_export *export;
    size_t zeroes = conn->no_zeroes ? 0 : NBD_EXPORT_NAME_ZEROES;
    int64_t size;
    uint8_t *p;
    int rc;

    if (conn->mode == NBD_MODE_EXTENDED || !nbd_string_valid(name) ||
        atomic_load(&conn->server->stopping)) {
        return -EPROTO; /* this option has no error reply */
    }
    export = nbd_export_use(conn->server, name);
    if (export == NULL) {
        return -ENOENT;
    }
    size = blk_getlength(export->blk);
    if (size < 0) {
        nbd_export_unuse(export);
        return (int)size;
    }
    rc = nbd_conn_take_slot_co(conn, export);
    if (rc < 0) {
        return rc;
    }
    p = nbd_out_add(conn, NBD_EXPORT_NAME_REPLY_BYTES + zeroes);
    if (p == NULL) {
        return -ENOMEM;
    }
    nbd_export_name_reply_encode(p, (uint64_t)size, transmission_flags(conn, export));
    memset(p + NBD_EXPORT_NAME_REPLY_BYTES, 0, zeroes);
    return begin_transmission(conn, (uint64_t)size);
}

static int opt_abort(struct nbd_conn *conn, const uint8_t *data, uint32_t bytes)
{
    /* proto: data is ignored. The caller sends the answer, then the connection ends. */
    int rc = nbd_out_reply(conn, NBD_OPT_ABORT, NBD_REP_ACK, NULL, 0);

    return rc < 0 ? rc : -ECONNABORTED;
}

static int list_entry(struct nbd_conn *conn, const struct nbd_export *export)
{
    size_t name_bytes = strlen(export->name);
    size_t text_bytes = export->description ? strlen(export->description) : 0;
    uint32_t bytes = (uint32_t)(4 + name_bytes + text_bytes);
    uint8_t *p = nbd_out_add(conn, NBD_OPTION_REPLY_BYTES + bytes);

    if (p == NULL) {
        return -ENOMEM;
    }
    p += nbd_option_reply_encode(p, NBD_OPT_LIST, NBD_REP_SERVER, bytes);
    store_be32(p, (uint32_t)name_bytes);
    memcpy(p + 4, export->name, name_bytes);
    memcpy(p + 4 + name_bytes, export->description ? export->description : "", text_bytes);
    return 0;
}

static int opt_list(struct nbd_conn *conn, const uint8_t *data, uint32_t bytes)
{
    struct nbd_export *export;
    int rc = 0;

    if (bytes > 0) {
        return nbd_out_error(conn, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "this option has no data");
    }
    os_mutex_lock(&conn->server->lock);
    LIST_FOREACH (export, &conn->server->exports, link) {
        rc = rc < 0 ? rc : list_entry(conn, export);
    }
    os_mutex_unlock(&conn->server->lock);
    return rc < 0 ? rc : nbd_out_reply(conn, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static int opt_starttls(struct nbd_conn *conn, const uint8_t *data, uint32_t bytes)
{
    int rc;

    if (bytes > 0) {
        return nbd_out_error(conn, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID,
                             "this option has no data");
    }
    if (conn->server->tls_creds == NULL) {
        /* proto: "NOTLS mode" */
        return nbd_out_error(conn, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY, "TLS not configured");
    }
    if (conn->tls != NULL) {
        return nbd_out_error(conn, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, "TLS is in use already");
    }
    rc = nbd_out_reply(conn, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
    return rc < 0 ? rc : NBD_OPTION_TLS;
}

static int info_text(struct nbd_conn *conn, uint32_t option, enum nbd_info info, const char *text)
{
    size_t n = strlen(text);
    uint8_t *p = nbd_out_add(conn, NBD_OPTION_REPLY_BYTES + 2 + n);

    if (p == NULL) {
        return -ENOMEM;
    }
    p += nbd_option_reply_encode(p, option, NBD_REP_INFO, (uint32_t)(2 + n));
    store_be16(p, (uint16_t)info);
    memcpy(p + 2, text, n);
    return 0;
}

static int info_replies(struct nbd_conn *conn, uint32_t option, const struct nbd_info_request *req,
                        const struct nbd_export *export, uint64_t size)
{
    uint8_t buf[NBD_INFO_BLOCK_SIZE_BYTES];
    int rc = 0;

    if (nbd_info_request_has(req, NBD_INFO_NAME)) {
        rc = info_text(conn, option, NBD_INFO_NAME, export->name);
    }
    if (rc == 0 && nbd_info_request_has(req, NBD_INFO_DESCRIPTION) && export->description) {
        rc = info_text(conn, option, NBD_INFO_DESCRIPTION, export->description);
    }
    if (rc == 0) {
        /* Sent unasked too: our maximum is not the default one. proto: "Block size constraints" */
        nbd_info_block_size_encode(buf, 1, export->preferred_bytes, NBD_MAX_PAYLOAD_BYTES);
        rc = nbd_out_reply(conn, option, NBD_REP_INFO, buf, NBD_INFO_BLOCK_SIZE_BYTES);
    }
    if (rc == 0) {
        nbd_info_export_encode(buf, size, transmission_flags(conn, export));
        rc = nbd_out_reply(conn, option, NBD_REP_INFO, buf, NBD_INFO_EXPORT_BYTES);
    }
    return rc < 0 ? rc : nbd_out_reply(conn, option, NBD_REP_ACK, NULL, 0);
}

static int opt_info_or_go_co(struct nbd_conn *conn, uint32_t option, const uint8_t *data,
                             uint32_t bytes)
{
    struct nbd_info_request req;
    struct nbd_export *export;
    int64_t size;
    int rc;

    if (nbd_info_request_decode(data, bytes, &req) < 0) {
        return nbd_out_error(conn, option, NBD_REP_ERR_INVALID, "malformed request or name");
    }
    export = nbd_export_use(conn->server, req.name);
    if (export == NULL) {
        return nbd_out_error(conn, option, NBD_REP_ERR_UNKNOWN, "no export of this name");
    }
    size = blk_getlength(export->blk);
    if (size < 0) {
        nbd_export_unuse(export);
        return nbd_out_error(conn, option, NBD_REP_ERR_UNKNOWN, "the export has no medium");
    }
    if (option == NBD_OPT_INFO) {
        rc = info_replies(conn, option, &req, export, (uint64_t)size);
        nbd_export_unuse(export);
        return rc;
    }
    rc = nbd_conn_take_slot_co(conn, export);
    if (rc == 0) {
        rc = info_replies(conn, option, &req, export, (uint64_t)size);
    }
    return rc < 0 ? rc : begin_transmission(conn, (uint64_t)size);
}

static int opt_structured_reply(struct nbd_conn *conn, const uint8_t *data, uint32_t bytes)
{
    if (bytes > 0) {
        return nbd_out_error(conn, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID,
                             "this option has no data");
    }
    if (conn->mode == NBD_MODE_EXTENDED) {
        return nbd_out_error(conn, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_EXT_HEADER_REQD,
                             "extended headers are in use already");
    }
    conn->mode = NBD_MODE_STRUCTURED;
    return nbd_out_reply(conn, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
}

static int opt_extended_headers(struct nbd_conn *conn, const uint8_t *data, uint32_t bytes)
{
    if (bytes > 0) {
        return nbd_out_error(conn, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ERR_INVALID,
                             "this option has no data");
    }
    conn->mode = NBD_MODE_EXTENDED;
    return nbd_out_reply(conn, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ACK, NULL, 0);
}

/* proto: "FORCEDTLS mode" */
static bool must_begin_tls(const struct nbd_conn *conn, uint32_t option)
{
    return conn->server->tls_creds != NULL && conn->tls == NULL && option != NBD_OPT_STARTTLS &&
           option != NBD_OPT_ABORT;
}

int nbd_option_run_co(struct nbd_conn *conn, uint32_t option, const uint8_t *data, uint32_t bytes)
{
    char text[64];

    if (must_begin_tls(conn, option)) {
        if (option == NBD_OPT_EXPORT_NAME) {
            return -EPROTO; /* this option has no error reply */
        }
        snprintf(text, sizeof(text), "Option 0x%x not permitted before TLS", (unsigned)option);
        return nbd_out_error(conn, option, NBD_REP_ERR_TLS_REQD, text);
    }
    if (option == NBD_OPT_EXPORT_NAME) {
        return opt_export_name_co(conn, data, bytes);
    }
    if (option == NBD_OPT_ABORT) {
        return opt_abort(conn, data, bytes);
    }
    if (atomic_load(&conn->server->stopping)) {
        return nbd_out_error(conn, option, NBD_REP_ERR_SHUTDOWN, "the server is shutting down");
    }
    switch (option) {
    case NBD_OPT_LIST:
        return opt_list(conn, data, bytes);
    case NBD_OPT_STARTTLS:
        return opt_starttls(conn, data, bytes);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return opt_info_or_go_co(conn, option, data, bytes);
    case NBD_OPT_STRUCTURED_REPLY:
        return opt_structured_reply(conn, data, bytes);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return nbd_option_meta(conn, option, data, bytes);
    case NBD_OPT_EXTENDED_HEADERS:
        return opt_extended_headers(conn, data, bytes);
    default:
        return nbd_out_error(conn, option, NBD_REP_ERR_UNSUP, "unknown option");
    }
}
