/* SPDX-License-Identifier: MIT */
/*
 * Negotiation: greeting, client flags, then options one after the other until one begins the
 * transmission. Replies to an option are collected and sent together. Bounded: time (a timer of the
 * connection), number of options, bytes of an option.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "export/nbd/internal.h"
#include "loop/io.h"
#include "util/bytes.h"

void *nbd_out_add(struct nbd_conn *conn, size_t bytes)
{
    uint8_t *at;

    if (bytes > conn->out_cap - conn->out_bytes) {
        size_t cap = (conn->out_bytes + bytes) * 2;
        uint8_t *out = realloc(conn->out, cap);

        if (out == NULL) {
            return NULL;
        }
        conn->out = out;
        conn->out_cap = cap;
    }
    at = conn->out + conn->out_bytes;
    conn->out_bytes += bytes;
    return at;
}

int nbd_out_reply(struct nbd_conn *conn, uint32_t option, uint32_t type, const void *data,
                  uint32_t bytes)
{
    uint8_t *p = nbd_out_add(conn, NBD_OPTION_REPLY_BYTES + (size_t)bytes);

    if (p == NULL) {
        return -ENOMEM;
    }
    nbd_option_reply_encode(p, option, type, bytes);
    if (bytes > 0) {
        memcpy(p + NBD_OPTION_REPLY_BYTES, data, bytes);
    }
    return 0;
}

int nbd_out_error(struct nbd_conn *conn, uint32_t option, uint32_t type, const char *text)
{
    return nbd_out_reply(conn, option, type, text, (uint32_t)strlen(text));
}

static int out_send_co(struct nbd_conn *conn)
{
    struct iovec iov = {conn->out, conn->out_bytes};

    conn->out_bytes = 0;
    if (iov.iov_len == 0) {
        return 0;
    }
    return conn->tls != NULL ? nbd_tls_send_co(conn, &iov, 1) : aio_send_co(conn->fd, &iov, 1, 0);
}

/* proto: "Newstyle negotiation": a client with flags we did not offer MUST be dropped. */
static int greet_co(struct nbd_conn *conn)
{
    const uint32_t known = NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES;
    uint8_t *p = nbd_out_add(conn, NBD_GREETING_BYTES);
    uint32_t flags;
    int rc;

    if (p == NULL) {
        return -ENOMEM;
    }
    nbd_greeting_encode(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    rc = out_send_co(conn);
    if (rc == 0) {
        rc = nbd_recv_need_co(conn, NBD_CLIENT_FLAGS_BYTES);
    }
    if (rc < 0) {
        return rc;
    }
    flags = nbd_client_flags_decode(nbd_conn_data(conn));
    conn->head += NBD_CLIENT_FLAGS_BYTES;
    conn->no_zeroes = (flags & NBD_FLAG_C_NO_ZEROES) != 0;
    return (flags & ~known) != 0 ? -EPROTO : 0;
}

/* An option whose data we do not look at. Up to a bound the data is skipped and the client may go
 * on; beyond it the client is told and dropped. */
static int option_too_big_co(struct nbd_conn *conn, const struct nbd_option_header *opt)
{
    int rc;

    if (opt->option == NBD_OPT_EXPORT_NAME) {
        return -EMSGSIZE; /* this option cannot be answered with an error */
    }
    rc = nbd_out_error(conn, opt->option, NBD_REP_ERR_TOO_BIG, "option data too long");
    if (rc == 0) {
        rc = out_send_co(conn);
    }
    if (rc < 0 || opt->length > NBD_DRAIN_MAX) {
        return rc < 0 ? rc : -EMSGSIZE;
    }
    return nbd_recv_skip_co(conn, opt->length);
}

/* proto: "NBD_OPT_STARTTLS": what was agreed on before is forgotten, and nothing that came along
 * with the option in the clear may be taken for what comes protected. */
static int start_tls_co(struct nbd_conn *conn)
{
    if (conn->tail != conn->head) {
        return -EPROTO;
    }
    conn->mode = NBD_MODE_SIMPLE;
    conn->contexts = 0;
    if (conn->meta_export != NULL) {
        struct nbd_export *export = conn->meta_export;

        os_mutex_lock(&conn->server->lock);
        conn->meta_export = NULL;
        os_mutex_unlock(&conn->server->lock);
        nbd_export_unuse(export);
    }
    return nbd_tls_begin_co(conn);
}

/* One option. 0: go on; NBD_OPTION_TRANSMIT; -errno. */
static int option_co(struct nbd_conn *conn)
{
    struct nbd_option_header opt;
    int result;
    int rc = nbd_recv_need_co(conn, NBD_OPTION_BYTES);

    if (rc < 0) {
        return rc;
    }
    if (nbd_option_decode(nbd_conn_data(conn), &opt) < 0) {
        return -EPROTO;
    }
    conn->head += NBD_OPTION_BYTES;
    nbd_conn_progress(conn);
    if (++conn->noptions > NBD_MAX_OPTIONS && opt.option != NBD_OPT_ABORT) {
        /* proto: "if a server believes a client's behaviour constitutes a denial of service, it
         * MAY initiate a hard disconnect" */
        (void)nbd_out_error(conn, opt.option, NBD_REP_ERR_POLICY, "too many options");
        (void)out_send_co(conn);
        return -EPROTO;
    }
    if (opt.length > NBD_OPTION_DATA_MAX) {
        return option_too_big_co(conn, &opt);
    }
    rc = nbd_recv_need_co(conn, opt.length);
    if (rc < 0) {
        return rc;
    }
    result = nbd_option_run_co(conn, opt.option, nbd_conn_data(conn), opt.length);
    conn->head += opt.length;
    rc = out_send_co(conn);
    if (rc == 0 && result == NBD_OPTION_TLS) {
        return start_tls_co(conn);
    }
    return rc < 0 ? rc : result;
}

int nbd_handshake_co(struct nbd_conn *conn)
{
    int rc = greet_co(conn);

    while (rc == 0) {
        rc = option_co(conn);
    }
    free(conn->out);
    conn->out = NULL;
    conn->out_cap = conn->out_bytes = 0;
    return rc < 0 ? rc : 0;
}
