/* SPDX-License-Identifier: MIT */
/*
 * TLS over GnuTLS: credentials, authorization, and the sessions of a server. Knows no sockets and
 * no instance.
 *
 *   creds.c   credentials: what their files hold        sanity.c   whether certificates make sense
 *   authz.c   rules                                     session.c  handshake and records
 *   libnbd.c  credentials given to a handle of libnbd (only in a build with the NBD client)
 *
 * Credentials and rules do not change once they are made; any thread reads them.
 */
#ifndef PLATTER_TLS_TLS_H
#define PLATTER_TLS_TLS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <gnutls/gnutls.h>

#include <platter/tls.h>

#define TLS_FILE_BYTES_MAX (1u << 20)
#define TLS_PSK_FILE "keys.psk"
#define TLS_PSK_USER_DEFAULT "qemu"
#define TLS_AUTHZ_RULES_MAX 10000u

struct TlsCreds {
    LIST_ENTRY(TlsCreds) in_instance; /* block/tls.c; control thread */
    bool listed;
    atomic_uint refs;
    char *id; /* owned, as all strings */
    enum tls_creds_kind kind;
    enum tls_endpoint endpoint;
    char *dir; /* or NULL */
    char *username;
    bool verify_peer;
    bool has_priority;
    bool has_password;
    gnutls_priority_t priority; /* owned, as what follows */
    gnutls_certificate_credentials_t x509;
    gnutls_psk_server_credentials_t psk;
    gnutls_anon_server_credentials_t anon;
    gnutls_dh_params_t dh;
    char *keys; /* keys.psk, a zero behind it; or NULL */
    size_t keys_bytes;
};

/* With one reference. Errors as of tls_creds_new. */
TlsCreds *tls_creds_load(const char *id, const struct tls_creds_options *options, Error **errp);
void tls_creds_free(TlsCreds *creds); /* NULL allowed; nobody else has a reference */

/* The key of a user, decoded with gnutls_malloc. 0; -ENOENT; -EINVAL: it is no key. */
int tls_psk_find(const char *keys, const char *username, gnutls_datum_t *ret_key);

/* sanity.c: whether the certificates in memory can do what they are for. Paths for messages; own
 * NULL: only the CA's. */
int tls_sanity_check(const gnutls_datum_t *ca, const char *ca_path, const gnutls_datum_t *own,
                     const char *own_path, enum tls_endpoint endpoint, Error **errp);

struct TlsAuthz {
    LIST_ENTRY(TlsAuthz) in_instance;
    bool listed;
    atomic_uint refs;
    char *id;
    struct tls_authz_rule *rules; /* owned, and their strings */
    size_t rule_count;
    bool allow_rest;
};

TlsAuthz *tls_authz_make(const char *id, const struct tls_authz_rule *rules, size_t rule_count,
                         bool allow_rest, Error **errp);
void tls_authz_free(TlsAuthz *authz);

/* ---- sessions (session.c) ---- */

/* The server's side of one connection. The caller moves bytes between it and the socket; memory for
 * them is the caller's. One thread at a time. */
#define TLS_IN_BYTES (32u * 1024)
#define TLS_OUT_BYTES (64u * 1024)

struct tls_session;

/* in: TLS_IN_BYTES for what arrives; out: TLS_OUT_BYTES each, for what goes out; all borrowed until
 * the session is freed. NULL: no memory, or the credentials do not go. */
struct tls_session *tls_session_new(const TlsCreds *creds, void *in, void *out[2]);
void tls_session_free(struct tls_session *s); /* NULL allowed */

/* Where the next bytes of the socket go; then how many came (0: the stream has ended). There is
 * room whenever a call below has said -EAGAIN. */
void *tls_session_in(struct tls_session *s, size_t *ret_bytes);
void tls_session_arrived(struct tls_session *s, size_t bytes);

/* What is to be sent, which leaves the other out buffer for what comes meanwhile; 0: nothing. Not
 * again before it has been sent. */
size_t tls_session_take_out(struct tls_session *s, void **ret_data);

/* One step. 0: done; -EAGAIN: send what is there, then bring more; -errno: send what is there (an
 * alert), then end. */
int tls_session_handshake(struct tls_session *s);
/* Whether the peer is who the credentials and authz (NULL: anybody) ask for: 0; -EACCES with errp,
 * and an alert to send. */
int tls_session_check_peer(struct tls_session *s, const TlsAuthz *authz, Error **errp);

/* Bytes read (at least 1), 0 at the orderly end, -EAGAIN, -errno. */
int64_t tls_session_read(struct tls_session *s, void *buf, size_t bytes);
/* How many bytes of one write now have room (0: send first). */
size_t tls_session_room(const struct tls_session *s);
/* Encrypt at most tls_session_room bytes. 0 or -errno. */
int tls_session_write(struct tls_session *s, const void *buf, size_t bytes);
void tls_session_bye(struct tls_session *s); /* the farewell becomes what is to be sent */

/* ---- libnbd.c ---- */

struct nbd_handle;
/* Have a new handle use TLS with creds (of a client). host: what it will connect to, NULL: a unix
 * socket; hostname: what the server's certificate must be for instead, or NULL. 0, -ENOTSUP (what
 * libnbd cannot do), -ENOMEM, -EINVAL (also: a certificate is to be checked, and there is neither
 * name). [any] */
int tls_libnbd_set(struct nbd_handle *h, const TlsCreds *creds, const char *host,
                   const char *hostname, Error **errp);

#endif
