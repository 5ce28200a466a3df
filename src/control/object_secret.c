/* SPDX-License-Identifier: MIT */
/* Secrets: their bytes come from the command or a file, as they are, in base64, or encrypted with
 * another secret. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "control/object.h"
#include "os/os.h"
#include "util/error.h"

#define SECRET_BYTES_MAX 65536
#define KEY_BYTES 32   /* AES-256 */
#define BLOCK_BYTES 16 /* of AES, and so of an initialization vector */

struct bytes {
    unsigned char *p; /* owned */
    size_t n;
};

static void bytes_fini(struct bytes *b)
{
    if (b->p) {
        gnutls_memset(b->p, 0, b->n);
        free(b->p);
    }
    *b = (struct bytes){0};
}

struct control_object *control_secret_find(struct control *c, const char *id, Error **errp)
{
    struct control_object *o = control_object_find(c, id);

    if (!o) {
        error_set(errp, ENOENT, "No secret with id '%s'", id);
        return NULL;
    }
    if (o->type != QMP_OBJECT_TYPE_SECRET) {
        error_set(errp, EINVAL, "Object with id '%s' is not a secret", id);
        return NULL;
    }
    return o;
}

static int read_file(const char *path, struct bytes *ret, Error **errp)
{
    int fd = os->open(path, O_RDONLY, 0);
    int64_t n = 0;
    size_t used = 0;

    if (fd < 0) {
        return error_set_errno(errp, -fd, "Unable to read %s: Failed to open file “%s”", path,
                               path);
    }
    while (used <= SECRET_BYTES_MAX &&
           (n = os->read(fd, ret->p + used, SECRET_BYTES_MAX + 1 - used)) > 0) {
        used += (size_t)n;
    }
    os->close(fd);
    ret->n = used;
    if (n < 0) {
        return error_set_errno(errp, (int)-n, "Unable to read %s: Error reading file “%s”", path,
                               path);
    }
    if (used > SECRET_BYTES_MAX) {
        return error_set(errp, E2BIG, "Secret in file '%s' is longer than %d bytes", path,
                         SECRET_BYTES_MAX);
    }
    return 0;
}

/* The bytes as they were given. */
static int load(const struct qmp_secret_properties *props, struct bytes *ret, Error **errp)
{
    if (props->has_data == props->has_file) {
        return error_set(errp, EINVAL,
                         props->has_data ? "'file' and 'data' are mutually exclusive"
                                         : "Either 'file' or 'data' must be provided");
    }
    if (props->has_data && strlen(props->data) > SECRET_BYTES_MAX) {
        return error_set(errp, E2BIG, "Secret is longer than %d bytes", SECRET_BYTES_MAX);
    }
    ret->p = malloc(SECRET_BYTES_MAX + 1);
    if (!ret->p) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (props->has_file) {
        return read_file(props->file, ret, errp);
    }
    ret->n = strlen(props->data);
    memcpy(ret->p, props->data, ret->n);
    return 0;
}

static int decode(struct bytes *b, Error **errp)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n";
    gnutls_datum_t in = {b->p, (unsigned)b->n}, out;

    for (size_t i = 0; i < b->n; i++) {
        if (b->p[i] == '\0' || !strchr(alphabet, b->p[i])) {
            return error_set(errp, EINVAL, "Base64 data contains %s",
                             b->p[i] == '\0' ? "embedded NUL characters" : "invalid characters");
        }
    }
    if (b->n == 0) {
        return 0;
    }
    if (gnutls_base64_decode2(&in, &out) < 0) {
        return error_set(errp, EINVAL, "Base64 data is not made of whole groups of 4 characters");
    }
    memcpy(b->p, out.data, out.size); /* it is never longer than its text */
    gnutls_memset(b->p + out.size, 0, b->n - out.size);
    b->n = out.size;
    gnutls_memset(out.data, 0, out.size);
    gnutls_free(out.data);
    return 0;
}

/* AES-256-CBC in place, with the padding of PKCS#7 at the end. */
static int decipher(const struct control_object *key, const struct bytes *iv, struct bytes *b,
                    Error **errp)
{
    gnutls_datum_t key_datum = {(unsigned char *)key->secret, KEY_BYTES};
    gnutls_datum_t iv_datum = {iv->p, BLOCK_BYTES};
    gnutls_cipher_hd_t cipher;
    int rc;

    if (b->n % BLOCK_BYTES != 0 || b->n == 0) {
        return error_set(errp, EINVAL, "Length %zu must be a multiple of block size %d", b->n,
                         BLOCK_BYTES);
    }
    rc = gnutls_cipher_init(&cipher, GNUTLS_CIPHER_AES_256_CBC, &key_datum, &iv_datum);
    if (rc == 0) {
        rc = gnutls_cipher_decrypt(cipher, b->p, b->n);
        gnutls_cipher_deinit(cipher);
    }
    if (rc < 0) {
        return error_set(errp, EIO, "The secret cannot be decrypted: %s", gnutls_strerror(rc));
    }
    if (b->p[b->n - 1] > BLOCK_BYTES) {
        return error_set(errp, EINVAL,
                         "Incorrect number of padding bytes (%d) found on decrypted data",
                         b->p[b->n - 1]);
    }
    b->n -= b->p[b->n - 1];
    return 0;
}

static int take_iv(const struct qmp_secret_properties *props, struct bytes *ret, Error **errp)
{
    if (!props->has_iv) {
        return error_set(errp, EINVAL, "IV is required to decrypt secret");
    }
    ret->p = (unsigned char *)strdup(props->iv);
    if (!ret->p) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    ret->n = strlen(props->iv);
    if (decode(ret, errp) < 0) {
        return -EINVAL;
    }
    return ret->n == BLOCK_BYTES
               ? 0
               : error_set(errp, EINVAL, "IV should be %d bytes in length not %zu", BLOCK_BYTES,
                           ret->n);
}

static int decrypt(struct control *c, const struct qmp_secret_properties *props, bool base64,
                   struct bytes *b, Error **errp)
{
    const struct control_object *key = control_secret_find(c, props->keyid, errp);
    struct bytes iv = {0};
    int ret;

    if (!key) {
        return -EINVAL;
    }
    if (key->secret_bytes != KEY_BYTES) {
        return error_set(errp, EINVAL, "Key should be %d bytes in length", KEY_BYTES);
    }
    ret = take_iv(props, &iv, errp);
    ret = ret == 0 && base64 ? decode(b, errp) : ret;
    ret = ret == 0 ? decipher(key, &iv, b, errp) : ret;
    bytes_fini(&iv);
    return ret;
}

int control_secret_init(struct control *c, struct control_object *o,
                        const struct qmp_secret_properties *props, Error **errp)
{
    bool base64 = props->has_format && props->format == QMP_QCRYPTO_SECRET_FORMAT_BASE64;
    struct bytes b = {0};
    int ret = load(props, &b, errp);

    if (ret == 0 && props->has_keyid) {
        ret = decrypt(c, props, base64, &b, errp);
    } else if (ret == 0 && base64) {
        ret = decode(&b, errp);
    }
    if (ret < 0) {
        bytes_fini(&b);
        return ret;
    }
    b.p[b.n] = '\0'; /* for those who want a text */
    o->secret = (char *)b.p;
    o->secret_bytes = b.n;
    return 0;
}
