/* SPDX-License-Identifier: MIT */
/* Whether certificates can do what they are for, found when they are loaded rather than by the
 * first client. What an empty or missing extension allows is the standard's: everything. */
#include <errno.h>
#include <time.h>

#include <gnutls/x509.h>

#include "os/os.h"
#include "tls/tls.h"
#include "util/error.h"

struct cert_list {
    gnutls_x509_crt_t *certs; /* gnutls_malloc's */
    unsigned count;
};

/* 0, or GnuTLS's error; the list is empty then. */
static int list_import(struct cert_list *list, const gnutls_datum_t *pem)
{
    int rc = gnutls_x509_crt_list_import2(&list->certs, &list->count, pem, GNUTLS_X509_FMT_PEM, 0);

    if (rc < 0) {
        *list = (struct cert_list){0};
    }
    return rc < 0 ? rc : list->count == 0 ? GNUTLS_E_NO_CERTIFICATE_FOUND : 0;
}

static void list_fini(struct cert_list *list)
{
    for (unsigned i = 0; i < list->count; i++) {
        gnutls_x509_crt_deinit(list->certs[i]);
    }
    gnutls_free(list->certs);
}

static int check_dates(gnutls_x509_crt_t cert, const char *what, const char *path, Error **errp)
{
    time_t now = (time_t)(os->clock_realtime_ns() / 1000000000);

    if (gnutls_x509_crt_get_expiration_time(cert) < now) {
        return error_set(errp, EINVAL, "The %s certificate %s has expired", what, path);
    }
    if (gnutls_x509_crt_get_activation_time(cert) > now) {
        return error_set(errp, EINVAL, "The %s certificate %s is not yet active", what, path);
    }
    return 0;
}

static int check_constraints(gnutls_x509_crt_t cert, const char *what, bool want_ca,
                             const char *path, Error **errp)
{
    int is_ca = gnutls_x509_crt_get_basic_constraints(cert, NULL, NULL, NULL);

    if (is_ca > 0 && !want_ca) {
        return error_set(errp, EINVAL,
                         "The certificate %s basic constraints show a CA, but we need one for a %s",
                         path, what);
    }
    if (is_ca <= 0 && is_ca != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE && want_ca) {
        return error_set(errp, EINVAL, "The certificate %s basic constraints do not show a CA",
                         path);
    }
    if (is_ca == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE && want_ca) {
        return error_set(errp, EINVAL, "The certificate %s is missing basic constraints for a CA",
                         path);
    }
    return 0;
}

static int check_signing(gnutls_x509_crt_t cert, const char *path, Error **errp)
{
    unsigned usage = 0;

    if (gnutls_x509_crt_get_key_usage(cert, &usage, NULL) >= 0 &&
        !(usage & GNUTLS_KEY_KEY_CERT_SIGN)) {
        return error_set(errp, EINVAL, "Certificate %s usage does not permit certificate signing",
                         path);
    }
    return 0;
}

static int check_ca(const struct cert_list *ca, const char *path, Error **errp)
{
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < ca->count; i++) {
        ret = check_dates(ca->certs[i], "CA", path, errp);
        ret = ret < 0 ? ret : check_constraints(ca->certs[i], "CA", true, path, errp);
        ret = ret < 0 ? ret : check_signing(ca->certs[i], path, errp);
    }
    return ret;
}

static const char *why_invalid(unsigned status)
{
    return status & GNUTLS_CERT_REVOKED              ? "The certificate has been revoked"
           : status & GNUTLS_CERT_SIGNER_NOT_FOUND   ? "The certificate hasn't got a known issuer"
           : status & GNUTLS_CERT_SIGNER_NOT_CA      ? "The certificate issuer is not a CA"
           : status & GNUTLS_CERT_INSECURE_ALGORITHM ? "The certificate uses an insecure algorithm"
                                                     : "The certificate is not trusted";
}

static int check_chain(const struct cert_list *own, const char *own_path,
                       const struct cert_list *ca, const char *ca_path, Error **errp)
{
    unsigned status = 0;
    int rc = gnutls_x509_crt_list_verify(own->certs, own->count, ca->certs, ca->count, NULL, 0, 0,
                                         &status);

    if (rc < 0 || status != 0) {
        return error_set(errp, EINVAL, "Our own certificate %s failed validation against %s: %s",
                         own_path, ca_path, rc < 0 ? gnutls_strerror(rc) : why_invalid(status));
    }
    return 0;
}

static int check_own(const struct cert_list *own, const char *own_path, const struct cert_list *ca,
                     const char *ca_path, const char *what, Error **errp)
{
    int ret = check_dates(own->certs[0], what, own_path, errp);

    ret = ret < 0 ? ret : check_constraints(own->certs[0], what, false, own_path, errp);
    return ret < 0 ? ret : check_chain(own, own_path, ca, ca_path, errp);
}

int tls_sanity_check(const gnutls_datum_t *ca, const char *ca_path, const gnutls_datum_t *own,
                     const char *own_path, enum tls_endpoint endpoint, Error **errp)
{
    const char *what = endpoint == TLS_ENDPOINT_SERVER ? "server" : "client";
    struct cert_list ca_list = {0};
    struct cert_list own_list = {0};
    int ret = 0;
    int rc;

    if (list_import(&ca_list, ca) < 0) {
        return error_set(errp, EINVAL, "Unable to import CA certificate list %s", ca_path);
    }
    ret = check_ca(&ca_list, ca_path, errp);
    if (ret == 0 && own != NULL) {
        rc = list_import(&own_list, own);
        if (rc < 0) {
            ret = error_set(errp, EINVAL, "Unable to import %s certificate %s: %s", what, own_path,
                            gnutls_strerror(rc == GNUTLS_E_NO_CERTIFICATE_FOUND
                                                ? GNUTLS_E_BASE64_UNEXPECTED_HEADER_ERROR
                                                : rc));
        } else {
            ret = check_own(&own_list, own_path, &ca_list, ca_path, what, errp);
        }
    }
    list_fini(&own_list);
    list_fini(&ca_list);
    return ret;
}
