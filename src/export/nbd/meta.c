/* SPDX-License-Identifier: MIT */
/*
 * Metadata contexts: listing and choosing them. proto: "Metadata querying",
 * NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT. Known are base:allocation and, where the
 * export offers them, qemu:allocation-depth and qemu:dirty-bitmap:NAME.
 */
#include <errno.h>
#include <string.h>

#include "export/nbd/internal.h"
#include "util/bytes.h"

/* NULL: the export does not offer it. */
static const char *context_name(const struct nbd_export *export, unsigned number)
{
    switch (number) {
    case NBD_CONTEXT_ALLOCATION:
        return "base:allocation";
    case NBD_CONTEXT_DEPTH:
        return export->allocation_depth ? "qemu:allocation-depth" : NULL;
    default:
        number -= NBD_CONTEXT_BITMAP;
        return number < export->bitmap_count ? export->bitmaps[number].context : NULL;
    }
}

/* In a listing "base:", "qemu:" and "qemu:dirty-bitmap:" stand for all that begins so. */
static bool is_wildcard(struct nbd_string query, const char *name)
{
    return query.bytes > 0 && query.data[query.bytes - 1] == ':' && query.bytes < strlen(name) &&
           memcmp(query.data, name, query.bytes) == 0 &&
           (nbd_string_equal(query, "base:") || nbd_string_equal(query, "qemu:") ||
            nbd_string_equal(query, "qemu:dirty-bitmap:"));
}

/* What a query matches; unknown names and name spaces match nothing. Of several bitmaps of one
 * name, or one that was asked for twice, a name means the first; a listing has them all. */
static uint64_t query_match(const struct nbd_export *export, struct nbd_string query,
                            bool wildcards)
{
    uint64_t bits = 0;

    for (unsigned i = 0; i < NBD_CONTEXTS_MAX; i++) {
        const char *name = context_name(export, i);

        if (name != NULL && nbd_string_equal(query, name)) {
            return NBD_CONTEXT_BIT(i);
        }
        if (name != NULL && wildcards && is_wildcard(query, name)) {
            bits |= NBD_CONTEXT_BIT(i);
        }
    }
    return bits;
}

static int meta_replies(struct nbd_conn *conn, const struct nbd_export *export, uint32_t option,
                        uint64_t bits)
{
    for (unsigned i = 0; i < NBD_CONTEXTS_MAX; i++) {
        const char *name = context_name(export, i);
        size_t n;
        uint8_t *p;

        if (name == NULL || !(bits & NBD_CONTEXT_BIT(i))) {
            continue;
        }
        n = strlen(name);
        p = nbd_out_add(conn, NBD_OPTION_REPLY_BYTES + 4 + n);
        if (p == NULL) {
            return -ENOMEM;
        }
        p += nbd_option_reply_encode(p, option, NBD_REP_META_CONTEXT, (uint32_t)(4 + n));
        /* proto: the id "is reserved and SHOULD be set to zero" in a listing */
        store_be32(p, option == NBD_OPT_SET_META_CONTEXT ? nbd_context_id(i) : 0);
        memcpy(p + 4, name, n);
    }
    return nbd_out_reply(conn, option, NBD_REP_ACK, NULL, 0);
}

/* Whether every query has a namespace and a colon. */
static bool queries_valid(struct nbd_meta_request req)
{
    struct nbd_string query;

    while (nbd_meta_query_next(&req, &query)) {
        if (memchr(query.data, ':', query.bytes) == NULL) {
            return false;
        }
    }
    return true;
}

/* What they match together; a listing without any stands for all there is. */
static uint64_t queries_match(const struct nbd_export *export, struct nbd_meta_request req,
                              bool is_listing)
{
    uint64_t bits = is_listing && req.nqueries == 0 ? UINT64_MAX : 0;
    struct nbd_string query;

    while (nbd_meta_query_next(&req, &query)) {
        bits |= query_match(export, query, is_listing);
    }
    return bits;
}

/* Remember what the contexts were chosen for; export (used, passes in) may be NULL. */
static void contexts_set(struct nbd_conn *conn, struct nbd_export *export, uint64_t bits)
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
    uint64_t bits;
    int rc;

    if (set) {
        contexts_set(conn, NULL, 0); /* proto: "including when this command fails" */
    }
    if (conn->mode == NBD_MODE_SIMPLE) {
        return nbd_out_error(conn, option, NBD_REP_ERR_INVALID,
                             "structured replies must be negotiated first");
    }
    if (nbd_meta_request_decode(data, bytes, &req) < 0 || !queries_valid(req)) {
        return nbd_out_error(conn, option, NBD_REP_ERR_INVALID, "malformed request, name or query");
    }
    export = nbd_export_use(conn->server, req.name);
    if (export == NULL) {
        return nbd_out_error(conn, option, NBD_REP_ERR_UNKNOWN, "no export of this name");
    }
    bits = queries_match(export, req, !set);
    rc = meta_replies(conn, export, option, bits);
    if (set) {
        contexts_set(conn, export, bits);
    } else {
        nbd_export_unuse(export);
    }
    return rc;
}
