/* SPDX-License-Identifier: MIT */
/* Credentials for a client: libnbd reads their files itself. What it has no way to do is refused,
 * since the connection would be less than what was asked for. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "os/nbd_library.h"
#include "tls/tls.h"
#include "util/error.h"
#include "util/mem.h"

static int check_possible(const TlsCreds *c, Error **errp)
{
    if (c->kind == TLS_CREDS_ANON) {
        return error_set(errp, ENOTSUP,
                         "TLS credentials '%s': libnbd connects with certificates or keys, not "
                         "anonymously",
                         c->id);
    }
    if (c->has_password) {
        return error_set(errp, ENOTSUP,
                         "TLS credentials '%s': libnbd reads no encrypted key (passwordid)", c->id);
    }
    if (c->has_priority) {
        return error_set(errp, ENOTSUP,
                         "TLS credentials '%s': libnbd has a priority of its own ('priority' "
                         "cannot be honoured)",
                         c->id);
    }
    return 0;
}

/* Without a name libnbd checks nothing of the server's certificate. */
static int set_hostname(struct nbd_handle *h, const TlsCreds *c, const char *host,
                        const char *hostname, Error **errp)
{
    if (!c->verify_peer) {
        return 0;
    }
    if (host == NULL && hostname == NULL) {
        return error_set(errp, EINVAL, "No hostname for certificate validation");
    }
    if (hostname == NULL || (host != NULL && strcmp(host, hostname) == 0)) {
        return 0;
    }
    if (libnbd()->set_tls_hostname == NULL) {
        return error_set(errp, ENOTSUP,
                         "tls-hostname '%s': the libnbd that is installed checks a certificate for "
                         "the host that it connects to (%s) only",
                         hostname, host != NULL ? host : "none, over a unix socket");
    }
    return libnbd()->set_tls_hostname(h, hostname) < 0
               ? error_set(errp, EINVAL, "tls-hostname '%s': %s", hostname, libnbd()->get_error())
               : 0;
}

static int set_psk(struct nbd_handle *h, const TlsCreds *c, Error **errp)
{
    AUTO_FREE char *path = NULL;

    if (asprintf(&path, "%s/" TLS_PSK_FILE, c->dir) < 0) {
        path = NULL;
        return error_set(errp, ENOMEM, "out of memory");
    }
    return libnbd()->set_tls_username(h, c->username) < 0 || libnbd()->set_tls_psk_file(h, path) < 0
               ? error_set(errp, EINVAL, "TLS credentials '%s': %s", c->id, libnbd()->get_error())
               : 0;
}

int tls_libnbd_set(struct nbd_handle *h, const TlsCreds *c, const char *host, const char *hostname,
                   Error **errp)
{
    int ret = check_possible(c, errp);

    if (ret == 0 && c->kind == TLS_CREDS_X509) {
        ret = set_hostname(h, c, host, hostname, errp);
    }
    if (ret < 0) {
        return ret;
    }
    if (libnbd()->set_tls(h, LIBNBD_TLS_REQUIRE) < 0 ||
        libnbd()->set_tls_verify_peer(h, c->verify_peer) < 0 ||
        (c->kind == TLS_CREDS_X509 && libnbd()->set_tls_certificates(h, c->dir) < 0)) {
        return error_set(errp, EINVAL, "TLS credentials '%s': %s", c->id, libnbd()->get_error());
    }
    return c->kind == TLS_CREDS_PSK ? set_psk(h, c, errp) : 0;
}
