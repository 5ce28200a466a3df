/* SPDX-License-Identifier: MIT */
/*
 * The server's side of a TLS connection, without its socket: GnuTLS pulls what has arrived from one
 * buffer and pushes what goes out into another, so that no call of it waits.
 *
 * S1: out is never too full for one record: tls_session_write is given no more than there is room
 *     for. What GnuTLS sends by itself (alerts, answers to key updates) has the rest of the buffer;
 *     a peer that makes it overflow is broken off.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <gnutls/x509.h>

#include "tls/tls.h"
#include "util/checked.h"
#include "util/error.h"

#define RECORD_BYTES 16384u
#define RECORD_OVERHEAD 512u /* of one record, more than any cipher adds */

struct tls_session {
    const TlsCreds *creds; /* borrowed */
    gnutls_session_t session;
    uint8_t *in; /* borrowed, as out */
    size_t in_head, in_tail;
    bool in_ended;
    uint8_t *out[2];
    unsigned out_now; /* which one is being filled */
    size_t out_bytes;
};

/* ---- transport ---- */

static ssize_t pull(gnutls_transport_ptr_t ptr, void *buf, size_t bytes)
{
    struct tls_session *s = ptr;
    size_t n = (size_t)min_u64(bytes, s->in_tail - s->in_head);

    if (n == 0 && !s->in_ended) {
        gnutls_transport_set_errno(s->session, EAGAIN);
        return -1;
    }
    memcpy(buf, s->in + s->in_head, n);
    s->in_head += n;
    return (ssize_t)n;
}

static int pull_ready(gnutls_transport_ptr_t ptr, unsigned ms)
{
    const struct tls_session *s = ptr;

    return s->in_tail > s->in_head || s->in_ended;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *buf, size_t bytes)
{
    struct tls_session *s = ptr;

    if (bytes > TLS_OUT_BYTES - s->out_bytes) {
        gnutls_transport_set_errno(s->session, EIO); /* S1 */
        return -1;
    }
    memcpy(s->out[s->out_now] + s->out_bytes, buf, bytes);
    s->out_bytes += bytes;
    return (ssize_t)bytes;
}

void *tls_session_in(struct tls_session *s, size_t *ret_bytes)
{
    memmove(s->in, s->in + s->in_head, s->in_tail - s->in_head);
    s->in_tail -= s->in_head;
    s->in_head = 0;
    *ret_bytes = TLS_IN_BYTES - s->in_tail;
    return s->in + s->in_tail;
}

void tls_session_arrived(struct tls_session *s, size_t bytes)
{
    s->in_tail += bytes;
    s->in_ended = bytes == 0;
}

size_t tls_session_take_out(struct tls_session *s, void **ret_data)
{
    size_t n = s->out_bytes;

    if (n > 0) {
        *ret_data = s->out[s->out_now];
        s->out_now = !s->out_now;
        s->out_bytes = 0;
    }
    return n;
}

/* ---- life ---- */

static int give_credentials(const struct tls_session *s)
{
    const TlsCreds *c = s->creds;

    switch (c->kind) {
    case TLS_CREDS_X509:
        gnutls_certificate_server_set_request(s->session, c->verify_peer ? GNUTLS_CERT_REQUIRE
                                                                         : GNUTLS_CERT_IGNORE);
        return gnutls_credentials_set(s->session, GNUTLS_CRD_CERTIFICATE, c->x509);
    case TLS_CREDS_PSK:
        return gnutls_credentials_set(s->session, GNUTLS_CRD_PSK, c->psk);
    case TLS_CREDS_ANON:
        return gnutls_credentials_set(s->session, GNUTLS_CRD_ANON, c->anon);
    }
    return -1;
}

struct tls_session *tls_session_new(const TlsCreds *creds, void *in, void *out[2])
{
    struct tls_session *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        return NULL;
    }
    s->creds = creds;
    s->in = in;
    s->out[0] = out[0];
    s->out[1] = out[1];
    if (gnutls_init(&s->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS) < 0) {
        free(s);
        return NULL;
    }
    gnutls_session_set_ptr(s->session, (void *)creds);
    gnutls_transport_set_ptr(s->session, s);
    gnutls_transport_set_pull_function(s->session, pull);
    gnutls_transport_set_pull_timeout_function(s->session, pull_ready);
    gnutls_transport_set_push_function(s->session, push);
    gnutls_handshake_set_timeout(s->session, GNUTLS_INDEFINITE_TIMEOUT); /* the caller's matter */
    if (gnutls_priority_set(s->session, creds->priority) < 0 || give_credentials(s) < 0) {
        tls_session_free(s);
        return NULL;
    }
    return s;
}

void tls_session_free(struct tls_session *s)
{
    if (s != NULL) {
        gnutls_deinit(s->session);
        free(s);
    }
}

static int error_code(int rc)
{
    return rc == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EPROTO;
}

int tls_session_handshake(struct tls_session *s)
{
    int rc;

    do {
        rc = gnutls_handshake(s->session);
    } while (rc == GNUTLS_E_INTERRUPTED || rc == GNUTLS_E_WARNING_ALERT_RECEIVED ||
             (rc == GNUTLS_E_AGAIN && s->in_tail > s->in_head));
    if (rc == GNUTLS_E_AGAIN) {
        return s->in_ended ? -ECONNRESET : -EAGAIN;
    }
    if (rc < 0) {
        (void)gnutls_alert_send_appropriate(s->session, rc);
        return error_code(rc);
    }
    return 0;
}

/* ---- the peer ---- */

static int check_certificate(struct tls_session *s, Error **errp)
{
    unsigned status = 0;
    gnutls_datum_t why = {0};
    int rc = gnutls_certificate_verify_peers2(s->session, &status);

    if (rc < 0) {
        return error_set(errp, EACCES, "No certificate of the client: %s", gnutls_strerror(rc));
    }
    if (status == 0) {
        return 0;
    }
    rc = gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &why, 0);
    error_set(errp, EACCES, "The certificate of the client does not hold: %s",
              rc >= 0 ? (const char *)why.data : "not trusted");
    gnutls_free(why.data);
    return -EACCES;
}

/* The distinguished name, owned and made with malloc; NULL: none. */
static char *certificate_name(const struct tls_session *s)
{
    unsigned count = 0;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(s->session, &count);
    gnutls_x509_crt_t cert;
    gnutls_datum_t dn = {0};
    char *name = NULL;

    if (list == NULL || count == 0 || gnutls_x509_crt_init(&cert) < 0) {
        return NULL;
    }
    if (gnutls_x509_crt_import(cert, &list[0], GNUTLS_X509_FMT_DER) >= 0 &&
        gnutls_x509_crt_get_dn3(cert, &dn, GNUTLS_X509_DN_FLAG_COMPAT) >= 0 &&
        strlen((char *)dn.data) == dn.size) { /* what has a zero inside is no name */
        name = strdup((char *)dn.data);
    }
    gnutls_free(dn.data);
    gnutls_x509_crt_deinit(cert);
    return name;
}

static char *peer_name(const struct tls_session *s)
{
    const char *user;

    if (s->creds->kind == TLS_CREDS_X509) {
        return s->creds->verify_peer ? certificate_name(s) : NULL;
    }
    user = s->creds->kind == TLS_CREDS_PSK ? gnutls_psk_server_get_username(s->session) : NULL;
    return user != NULL ? strdup(user) : NULL;
}

static int check_allowed(struct tls_session *s, const TlsAuthz *authz, Error **errp)
{
    char *name = peer_name(s);
    int ret = 0;

    if (name == NULL) {
        ret = error_set(errp, EACCES, "The client has no identity, which '%s' asks for", authz->id);
    } else if (!tls_authz_allows(authz, name)) {
        ret = error_set(errp, EACCES, "'%s' does not allow the client '%s'", authz->id, name);
    }
    free(name);
    return ret;
}

int tls_session_check_peer(struct tls_session *s, const TlsAuthz *authz, Error **errp)
{
    bool verify = s->creds->kind == TLS_CREDS_X509 && s->creds->verify_peer;
    gnutls_alert_description_t alert = GNUTLS_A_BAD_CERTIFICATE;
    int ret = verify ? check_certificate(s, errp) : 0;

    if (ret == 0 && authz != NULL) {
        alert = GNUTLS_A_ACCESS_DENIED;
        ret = check_allowed(s, authz, errp);
    }
    if (ret < 0) {
        (void)gnutls_alert_send(s->session, GNUTLS_AL_FATAL, alert);
    }
    return ret;
}

/* ---- records ---- */

int64_t tls_session_read(struct tls_session *s, void *buf, size_t bytes)
{
    ssize_t n;

    do {
        n = gnutls_record_recv(s->session, buf, bytes);
    } while (n == GNUTLS_E_INTERRUPTED || n == GNUTLS_E_WARNING_ALERT_RECEIVED ||
             (n == GNUTLS_E_AGAIN && s->in_tail > s->in_head));
    if (n == GNUTLS_E_AGAIN) {
        return s->in_ended ? -ECONNRESET : -EAGAIN;
    }
    if (n < 0) {
        /* Whoever wants to negotiate anew (TLS 1.2) is refused as well. */
        (void)gnutls_alert_send_appropriate(s->session, (int)n);
        return n == GNUTLS_E_PREMATURE_TERMINATION ? -ECONNRESET : error_code((int)n);
    }
    return n;
}

size_t tls_session_room(const struct tls_session *s)
{
    size_t left = TLS_OUT_BYTES - s->out_bytes;

    return left > RECORD_BYTES + 2 * RECORD_OVERHEAD ? RECORD_BYTES : 0;
}

int tls_session_write(struct tls_session *s, const void *buf, size_t bytes)
{
    const uint8_t *p = buf;

    while (bytes > 0) {
        ssize_t n = gnutls_record_send(s->session, p, bytes);

        if (n < 0) {
            return error_code((int)n); /* there is room, so it has nothing to wait for */
        }
        p += n;
        bytes -= (size_t)n;
    }
    return 0;
}

void tls_session_bye(struct tls_session *s)
{
    (void)gnutls_bye(s->session, GNUTLS_SHUT_WR);
}
