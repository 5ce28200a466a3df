/* SPDX-License-Identifier: MIT */
/*
 * Metadata contexts: listing and choosing them. proto: "Metadata querying",
 * NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT. Known are base:allocation and, where the
 * export offers it, qemu:allocation-depth.
 */
#include <errno.h>
#include <string.h>

#include "export/nbd/internal.h"
#include "util/bytes.h"

static const struct {
    unsigned bit;
    const char *space; /* with the colon: the wildcard of a listing */
    const char *name;
} contexts[NBD_CONTEXT_COUNT] = {
    {NBD_CONTEXT_ALLOCATION, "base:", "base:allocation"},
    {NBD_CONTEXT_DEPTH, "qemu:", "qemu:allocation-depth"},
};

static unsigned contexts_offered(const struct nbd_export *export)
{
    return NBD_CONTEXT_ALLOCATION | (export->allocation_depth ? NBD_CONTEXT_DEPTH : 0);
}

/* The bits a query matches; unknown names and name spaces match nothing. */
static unsigned query_match(struct nbd_string query, bool wildcards)
{
    unsigned bits = 0;
    int i;

    for (i = 0; i < NBD_CONTEXT_COUNT; i++) {
        if (nbd_string_equal(query, contexts[i].name) ||
            (wildcards && nbd_string_equal(query, contexts[i].space))) {
            bits |= contexts[i].bit;
        }
    }
    return bits;
}

static int meta_replies(struct nbd_conn *conn, uint32_t option, unsigned bits)
{
    int i;

    for (i = 0; i < NBD_CONTEXT_COUNT; i++) {
        size_t n = strlen(contexts[i].name);
        uint8_t *p;

        if (!(bits & contexts[i].bit)) {
            continue;
        }
        p = nbd_out_add(conn, NBD_OPTION_REPLY_BYTES + 4 + n);
        if (p == NULL) {
            return -ENOMEM;
        }
        p += nbd_option_reply_encode(p, option, NBD_REP_META_CONTEXT, (uint32_t)(4 + n));
        /* proto: the id "is reserved and SHOULD be set to zero" in a listing */
        store_be32(p, option == NBD_OPT_SET_META_CONTEXT ? contexts[i].bit : 0);
        memcpy(p + 4, contexts[i].name, n);
    }
    return nbd_out_reply(conn, option, NBD_REP_ACK, NULL, 0);
}

/* Whether every query has a namespace and a colon; the bits they match together. */
static bool queries_match(struct nbd_meta_request req, bool wildcards, unsigned *ret_bits)
{
    struct nbd_string query;

    *ret_bits = 0;
    while (nbd_meta_query_next(&req, &query)) {
        if (memchr(query.data, ':', query.bytes) == NULL) {
            return false;
        }
        *ret_bits |= query_match(query, wildcards);
    }
    return true;
}

/* Remember what the contexts were chosen for; export (used, passes in) may be NULL. */
static void contexts_set(struct nbd_conn *conn, struct nbd_export *export, unsigned bits)
{
    struct nbd_export *old = conn->meta_export;

    conn->contexts = bits;
    os_mutex_lock(&conn->server->lock);
    conn->meta_export = export;
    os_mutex_unlock(&conn->server->lock);
    if (old != NULL) {
        nbd_export_unuse(old);
    }
}

int nbd_option_meta(struct nbd_conn *conn, uint32_t option, const uint8_t *data, uint32_t bytes)
{
    bool set = option == NBD_OPT_SET_META_CONTEXT;
    struct nbd_meta_request req;
    struct nbd_export *export;
    unsigned bits;

    if (set) {
        contexts_set(conn, NULL, 0); /* proto: "including when this command fails" */
    }
    if (conn->mode == NBD_MODE_SIMPLE) {
        return nbd_out_error(conn, option, NBD_REP_ERR_INVALID,
                             "structured replies must be negotiated first");
    }
    if (nbd_meta_request_decode(data, bytes, &req) < 0 || !queries_match(req, !set, &bits)) {
        return nbd_out_error(conn, option, NBD_REP_ERR_INVALID, "malformed request, name or query");
    }
    export = nbd_export_use(conn->server, req.name);
    if (export == NULL) {
        return nbd_out_error(conn, option, NBD_REP_ERR_UNKNOWN, "no export of this name");
    }
    if (!set && req.nqueries == 0) {
        bits = contexts_offered(export);
    }
    bits &= contexts_offered(export);
    if (set) {
        contexts_set(conn, export, bits);
    } else {
        nbd_export_unuse(export);
    }
    return meta_replies(conn, option, bits);
}
