/* SPDX-License-Identifier: MIT */
/*
 * Credentials for TLS, and who may come: made once, known to an instance by an id, counted. What
 * uses them names the id (option tls-creds of the driver nbd) or is given the object
 * (nbd_server_options). Nothing here suspends.
 *
 * Files are read when the credentials are made, at most 1 MiB each; what changes in them later
 * counts for credentials that are made then. For a client the names of the files count: libnbd,
 * which carries the client's TLS, reads them at each connection.
 */
#ifndef PLATTER_TLS_H
#define PLATTER_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include <platter/platter.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TlsCreds TlsCreds;
typedef struct TlsAuthz TlsAuthz;

enum tls_creds_kind {
    TLS_CREDS_X509 = 0, /* dir: ca-cert.pem, ca-crl.pem, (server|client)-cert.pem and -key.pem,
                           dh-params.pem; a client may have no certificate */
    TLS_CREDS_PSK,      /* dir: keys.psk, a line USER:KEY for each, the key in hexadecimal */
    TLS_CREDS_ANON,     /* no identity on either side; dir: dh-params.pem, or no dir */
};

enum tls_endpoint {
    TLS_ENDPOINT_CLIENT = 0,
    TLS_ENDPOINT_SERVER,
};

struct tls_creds_options {
    size_t size; /* sizeof(struct tls_creds_options) */
    enum tls_creds_kind kind;
    enum tls_endpoint endpoint;
    const char *dir;      /* NULL: none */
    const char *priority; /* of GnuTLS; NULL or "": NORMAL */
    const char *username; /* PSK, client: whose key; NULL: "qemu" */
    const char *password; /* X509: of an encrypted key; NULL: none */
    bool trust_any_peer;  /* X509: do not ask for and do not check the other side's certificate */
    bool no_sanity_check; /* X509: do not check dates, kinds and chain of the own certificates */
};

/* Credentials that pl knows as id (not empty, not in use for other credentials), with a reference.
 * NULL with errp, which names the file: ENOENT and what the system says of a file, EINVAL (what is
 * in it, options that do not go together), E2BIG, EEXIST, ENOMEM. [control] */
TlsCreds *tls_creds_new(Platter *pl, const char *id, const struct tls_creds_options *options,
                        Error **errp);
/* Those of that id, which must be for that side, with a reference. NULL with errp: ENOENT, EINVAL
 * (those of the other side; an object of another kind). [control] */
TlsCreds *tls_creds_find(Platter *pl, const char *id, enum tls_endpoint endpoint, Error **errp);
void tls_creds_ref(TlsCreds *creds);             /* [any] */
void tls_creds_unref(TlsCreds *creds);           /* [control]; NULL allowed */
bool tls_creds_is_shared(const TlsCreds *creds); /* there is a reference besides the caller's */

/* One rule: what an identity must be like, and what holds for it then. */
struct tls_authz_rule {
    const char *match;
    bool glob; /* match is a pattern as of a shell: * ? [...]; false: the identity itself */
    bool allow;
};

/* The first rule that fits an identity decides; where none does, allow_rest. Identities are the
 * distinguished name of a certificate (RFC 4514 as GnuTLS prints it, "C=GB,O=Acme,CN=alice") or the
 * user of a pre-shared key. At most 10000 rules, copied. NULL with errp: EEXIST, EINVAL, E2BIG,
 * ENOMEM. [control] */
TlsAuthz *tls_authz_new(Platter *pl, const char *id, const struct tls_authz_rule *rules,
                        size_t rule_count, bool allow_rest, Error **errp);
/* The one of that id with a reference; NULL with errp: ENOENT. [control] */
TlsAuthz *tls_authz_find(Platter *pl, const char *id, Error **errp);
void tls_authz_ref(TlsAuthz *authz);   /* [any] */
void tls_authz_unref(TlsAuthz *authz); /* [control]; NULL allowed */
bool tls_authz_is_shared(const TlsAuthz *authz);
bool tls_authz_allows(const TlsAuthz *authz, const char *identity); /* [any] */

#ifdef __cplusplus
}
#endif
#endif
