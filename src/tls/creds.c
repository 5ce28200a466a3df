/* SPDX-License-Identifier: MIT */
/* Credentials: their files are read once, with a bound, and given to GnuTLS. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gnutls/crypto.h>

#include "os/os.h"
#include "tls/tls.h"
#include "util/error.h"
#include "util/mem.h"

/* A file of the folder; data NULL: it is not there. */
struct file {
    char *path;
    char *data; /* bytes, and a zero behind */
    size_t bytes;
};

static void file_fini(struct file *f)
{
    if (f->data != NULL) {
        gnutls_memset(f->data, 0, f->bytes);
    }
    free(f->data);
    free(f->path);
    *f = (struct file){0};
}

static gnutls_datum_t file_datum(const struct file *f)
{
    return (gnutls_datum_t){(unsigned char *)f->data, (unsigned)f->bytes};
}

/* All of fd, at most TLS_FILE_BYTES_MAX. */
static int file_take(struct file *f, int fd, Error **errp)
{
    size_t cap = TLS_FILE_BYTES_MAX + 1;
    int64_t n;

    f->data = calloc(1, cap + 1);
    if (f->data == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    while (f->bytes < cap && (n = os->read(fd, f->data + f->bytes, cap - f->bytes)) != 0) {
        if (n < 0 && n != -EINTR) {
            return error_set_errno(errp, (int)-n, "Unable to read credentials %s", f->path);
        }
        f->bytes += n > 0 ? (size_t)n : 0;
    }
    if (f->bytes > TLS_FILE_BYTES_MAX) {
        return error_set(errp, E2BIG, "Credentials %s are longer than %u bytes", f->path,
                         TLS_FILE_BYTES_MAX);
    }
    return 0;
}

static int file_read(struct file *f, const char *dir, const char *name, bool needed, Error **errp)
{
    int fd;
    int ret;

    if (asprintf(&f->path, "%s/%s", dir, name) < 0) {
        f->path = NULL;
        return error_set(errp, ENOMEM, "out of memory");
    }
    fd = os->open(f->path, O_RDONLY | O_NONBLOCK, 0); /* a pipe there must not hold us up */
    if (fd == -ENOENT && !needed) {
        return 0;
    }
    if (fd < 0) {
        return error_set_errno(errp, -fd, "Unable to access credentials %s", f->path);
    }
    ret = file_take(f, fd, errp);
    os->close(fd);
    return ret;
}

/* ---- Diffie-Hellman ---- */

static int load_dh(TlsCreds *c, const char *dir, Error **errp)
{
    struct file f = {0};
    int ret = dir != NULL ? file_read(&f, dir, "dh-params.pem", false, errp) : 0;

    if (ret == 0 && f.data != NULL) {
        gnutls_datum_t pem = file_datum(&f);
        int rc = gnutls_dh_params_init(&c->dh);

        if (rc < 0) {
            c->dh = NULL;
        } else {
            rc = gnutls_dh_params_import_pkcs3(c->dh, &pem, GNUTLS_X509_FMT_PEM);
        }
        if (rc == GNUTLS_E_MEMORY_ERROR) {
            ret = error_set(errp, ENOMEM, "out of memory");
        } else if (rc < 0) {
            ret = error_set(errp, EINVAL, "Unable to load DH parameters from %s: %s", f.path,
                            gnutls_strerror(rc));
        }
    }
    file_fini(&f);
    return ret;
}

/* ---- certificates ---- */

struct x509_files {
    struct file ca, crl, cert, key;
};

static int x509_read(struct x509_files *f, const TlsCreds *c, Error **errp)
{
    bool server = c->endpoint == TLS_ENDPOINT_SERVER;
    int ret = file_read(&f->ca, c->dir, "ca-cert.pem", true, errp);

    if (ret == 0) {
        ret = file_read(&f->crl, c->dir, "ca-crl.pem", false, errp);
    }
    if (ret == 0) {
        ret = file_read(&f->cert, c->dir, server ? "server-cert.pem" : "client-cert.pem", server,
                        errp);
    }
    if (ret == 0) {
        ret =
            file_read(&f->key, c->dir, server ? "server-key.pem" : "client-key.pem", server, errp);
    }
    return ret;
}

static int x509_give(TlsCreds *c, const struct x509_files *f, const char *password, Error **errp)
{
    gnutls_datum_t ca = file_datum(&f->ca);
    gnutls_datum_t crl = file_datum(&f->crl);
    gnutls_datum_t cert = file_datum(&f->cert);
    gnutls_datum_t key = file_datum(&f->key);
    int rc = gnutls_certificate_set_x509_trust_mem(c->x509, &ca, GNUTLS_X509_FMT_PEM);

    if (rc <= 0) {
        return error_set(errp, EINVAL, "Cannot load CA certificate '%s': %s", f->ca.path,
                         rc < 0 ? gnutls_strerror(rc) : "it holds none");
    }
    if (f->cert.data != NULL && f->key.data != NULL) {
        rc = gnutls_certificate_set_x509_key_mem2(c->x509, &cert, &key, GNUTLS_X509_FMT_PEM,
                                                  password, 0);
        if (rc < 0) {
            return error_set(errp, EINVAL, "Cannot load certificate '%s' & key '%s': %s",
                             f->cert.path, f->key.path, gnutls_strerror(rc));
        }
    }
    rc = f->crl.data != NULL
             ? gnutls_certificate_set_x509_crl_mem(c->x509, &crl, GNUTLS_X509_FMT_PEM)
             : 0;
    if (rc < 0) {
        return error_set(errp, EINVAL, "Cannot load CRL '%s': %s", f->crl.path,
                         gnutls_strerror(rc));
    }
    return 0;
}

static int load_x509(TlsCreds *c, const struct tls_creds_options *o, Error **errp)
{
    struct x509_files f = {0};
    int ret = x509_read(&f, c, errp);

    if (ret == 0 && !o->no_sanity_check) {
        gnutls_datum_t ca = file_datum(&f.ca);
        gnutls_datum_t cert = file_datum(&f.cert);

        ret = tls_sanity_check(&ca, f.ca.path, f.cert.data != NULL ? &cert : NULL, f.cert.path,
                               c->endpoint, errp);
    }
    if (ret == 0 && gnutls_certificate_allocate_credentials(&c->x509) < 0) {
        c->x509 = NULL;
        ret = error_set(errp, ENOMEM, "out of memory");
    }
    if (ret == 0) {
        ret = x509_give(c, &f, o->password, errp);
    }
    if (ret == 0 && c->endpoint == TLS_ENDPOINT_SERVER) {
        ret = load_dh(c, c->dir, errp);
    }
    if (ret == 0 && c->dh != NULL) {
        gnutls_certificate_set_dh_params(c->x509, c->dh);
    } else if (ret == 0) {
        (void)gnutls_certificate_set_known_dh_params(c->x509, GNUTLS_SEC_PARAM_MEDIUM);
    }
    file_fini(&f.ca);
    file_fini(&f.crl);
    file_fini(&f.cert);
    file_fini(&f.key);
    return ret;
}

/* ---- pre-shared keys ---- */

int tls_psk_find(const char *keys, const char *username, gnutls_datum_t *ret_key)
{
    size_t n = strlen(username);
    const char *line = keys;
    gnutls_datum_t hex;

    if (n == 0 || strpbrk(username, ":\n") != NULL) {
        return -ENOENT; /* no line begins so */
    }
    while (strncmp(line, username, n) != 0 || line[n] != ':') {
        line = strchr(line, '\n');
        if (line == NULL) {
            return -ENOENT;
        }
        line++;
    }
    hex.data = (unsigned char *)line + n + 1;
    hex.size = (unsigned)strcspn(line + n + 1, "\r\n");
    return hex.size > 0 && gnutls_hex_decode2(&hex, ret_key) >= 0 ? 0 : -EINVAL;
}

/* Who is unknown gets a key that nobody has: which users there are is not told. */
static int psk_key_of(gnutls_session_t session, const char *username, gnutls_datum_t *key)
{
    const TlsCreds *c = gnutls_session_get_ptr(session);

    if (tls_psk_find(c->keys, username, key) == 0) {
        return 0;
    }
    key->data = gnutls_malloc(32);
    key->size = 32;
    return key->data != NULL && gnutls_rnd(GNUTLS_RND_NONCE, key->data, 32) >= 0 ? 0 : -1;
}

static int psk_check_client(const TlsCreds *c, const char *path, Error **errp)
{
    gnutls_datum_t key = {0};
    int rc = tls_psk_find(c->keys, c->username, &key);

    if (rc == -ENOENT) {
        return error_set(errp, EINVAL, "Username %s not found in PSK file %s", c->username, path);
    }
    if (rc < 0) {
        return error_set(errp, EINVAL, "The key of username %s in PSK file %s is not hexadecimal",
                         c->username, path);
    }
    gnutls_memset(key.data, 0, key.size);
    gnutls_free(key.data);
    return 0;
}

static int load_psk(TlsCreds *c, Error **errp)
{
    struct file f = {0};
    int ret = file_read(&f, c->dir, TLS_PSK_FILE, true, errp);

    if (ret < 0) {
        file_fini(&f);
        return ret;
    }
    c->keys = f.data;
    c->keys_bytes = f.bytes;
    f.data = NULL;
    if (c->endpoint == TLS_ENDPOINT_CLIENT) {
        ret = psk_check_client(c, f.path, errp);
    } else if (gnutls_psk_allocate_server_credentials(&c->psk) < 0) {
        c->psk = NULL;
        ret = error_set(errp, ENOMEM, "out of memory");
    } else {
        gnutls_psk_set_server_credentials_function(c->psk, psk_key_of);
        ret = load_dh(c, c->dir, errp);
    }
    if (ret == 0 && c->psk != NULL && c->dh != NULL) {
        gnutls_psk_set_server_dh_params(c->psk, c->dh);
    } else if (ret == 0 && c->psk != NULL) {
        (void)gnutls_psk_set_server_known_dh_params(c->psk, GNUTLS_SEC_PARAM_MEDIUM);
    }
    file_fini(&f);
    return ret;
}

/* ---- neither ---- */

static int load_anon(TlsCreds *c, Error **errp)
{
    int ret;

    if (c->endpoint == TLS_ENDPOINT_CLIENT) {
        return 0;
    }
    if (gnutls_anon_allocate_server_credentials(&c->anon) < 0) {
        c->anon = NULL;
        return error_set(errp, ENOMEM, "out of memory");
    }
    ret = load_dh(c, c->dir, errp);
    if (ret == 0 && c->dh != NULL) {
        gnutls_anon_set_server_dh_params(c->anon, c->dh);
    } else if (ret == 0) {
        (void)gnutls_anon_set_server_known_dh_params(c->anon, GNUTLS_SEC_PARAM_MEDIUM);
    }
    return ret;
}

/* ---- the whole ---- */

static int set_priority(TlsCreds *c, const char *given, Error **errp)
{
    static const char *const more[] = {
        [TLS_CREDS_X509] = "",
        [TLS_CREDS_PSK] = ":+ECDHE-PSK:+DHE-PSK:+PSK",
        [TLS_CREDS_ANON] = ":+ANON-ECDH:+ANON-DH",
    };
    AUTO_FREE char *text = NULL;
    int rc;

    c->has_priority = given != NULL && *given != '\0';
    if (asprintf(&text, "%s%s", c->has_priority ? given : "NORMAL", more[c->kind]) < 0) {
        text = NULL;
        return error_set(errp, ENOMEM, "out of memory");
    }
    rc = gnutls_priority_init(&c->priority, text, NULL);
    if (rc < 0) {
        c->priority = NULL;
        return error_set(errp, EINVAL, "TLS credentials '%s': bad priority '%s': %s", c->id, text,
                         gnutls_strerror(rc));
    }
    return 0;
}

static int check_options(const struct tls_creds_options *o, Error **errp)
{
    if (o->dir == NULL && o->kind != TLS_CREDS_ANON) {
        return error_set(errp, EINVAL, "Missing 'dir' property value");
    }
    if (o->username != NULL && o->endpoint == TLS_ENDPOINT_SERVER) {
        return error_set(errp, EINVAL, "username should not be set when endpoint=server");
    }
    if (o->username != NULL && strpbrk(o->username, ":\n") != NULL) {
        return error_set(errp, EINVAL, "username '%s' cannot be in a PSK file", o->username);
    }
    return 0;
}

static int load(TlsCreds *c, const struct tls_creds_options *o, Error **errp)
{
    int ret = -EINVAL;

    switch (c->kind) {
    case TLS_CREDS_X509:
        ret = load_x509(c, o, errp);
        break;
    case TLS_CREDS_PSK:
        ret = load_psk(c, errp);
        break;
    case TLS_CREDS_ANON:
        ret = load_anon(c, errp);
        break;
    }
    return ret == 0 ? set_priority(c, o->priority, errp) : ret;
}

TlsCreds *tls_creds_load(const char *id, const struct tls_creds_options *o, Error **errp)
{
    TlsCreds *c;

    if (check_options(o, errp) < 0) {
        return NULL;
    }
    c = calloc(1, sizeof(*c));
    if (c != NULL) {
        atomic_init(&c->refs, 1);
        c->kind = o->kind;
        c->endpoint = o->endpoint;
        c->verify_peer = !o->trust_any_peer;
        c->has_password = o->password != NULL;
        c->id = strdup(id);
        c->dir = o->dir != NULL ? strdup(o->dir) : NULL;
        c->username = strdup(o->username != NULL ? o->username : TLS_PSK_USER_DEFAULT);
    }
    if (c == NULL || c->id == NULL || c->username == NULL || (o->dir != NULL && c->dir == NULL)) {
        tls_creds_free(c);
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    if (load(c, o, errp) < 0) {
        tls_creds_free(c);
        return NULL;
    }
    return c;
}

void tls_creds_free(TlsCreds *c)
{
    if (c == NULL) {
        return;
    }
    if (c->x509 != NULL) {
        gnutls_certificate_free_credentials(c->x509);
    }
    if (c->psk != NULL) {
        gnutls_psk_free_server_credentials(c->psk);
    }
    if (c->anon != NULL) {
        gnutls_anon_free_server_credentials(c->anon);
    }
    if (c->dh != NULL) {
        gnutls_dh_params_deinit(c->dh);
    }
    if (c->priority != NULL) {
        gnutls_priority_deinit(c->priority);
    }
    if (c->keys != NULL) {
        gnutls_memset(c->keys, 0, c->keys_bytes);
        free(c->keys);
    }
    free(c->username);
    free(c->dir);
    free(c->id);
    free(c);
}
