/* SPDX-License-Identifier: MIT */
/*
 * Guessing formats, and keeping a guessed raw disk raw.
 *
 * The first bytes decide: the drivers are asked, and a table of well-known signatures that also
 * names formats this build has no driver for, so that their bytes are not taken for a raw disk.
 * Two different answers are refused, because whoever wrote the second signature may be a guest.
 *
 * The guard: what a write leaves in the first sector must not look like any of them. It needs no
 * look at what is stored: of the writes that could have made a signature together, the last one has
 * all its bytes in it, so a write whose part of a signature's place fits the signature is refused.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/graph_int.h"
#include "util/error.h"
#include "util/iov.h"
#include "util/mem.h"

#define PROBE_BYTES 2048
#define GUARD_BYTES 512

struct signature {
    const char *format;
    unsigned offset;
    unsigned len;
    const char *bytes;
};

#define SIGNATURE(format, offset, text)                                                            \
    {                                                                                              \
        format, offset, sizeof(text) - 1, text                                                     \
    }

static const struct signature signatures[] = {
    /* the version behind it tells qcow from qcow2; see signature_format */
    SIGNATURE("qcow2", 0, "QFI\xfb"),
    SIGNATURE("vmdk", 0, "KDMV"),
    SIGNATURE("vmdk", 0, "COWD"),
    SIGNATURE("vmdk", 0, "# Disk DescriptorFile"),
    SIGNATURE("vhdx", 0, "vhdxfile"),
    SIGNATURE("vpc", 0, "conectix"),
    SIGNATURE("vdi", 0x40, "\x7f\x10\xda\xbe"),
    SIGNATURE("luks", 0, "LUKS\xba\xbe"),
    SIGNATURE("qed", 0, "QED\0"),
    SIGNATURE("parallels", 0, "WithoutFreeSpace"),
    SIGNATURE("parallels", 0, "WithouFreSpacExt"),
    SIGNATURE("bochs", 0, "Bochs Virtual HD Image"),
    SIGNATURE("cloop", 0, "#!/bin/sh\n#V2.0 Format\n"),
};

/* A descriptor in text may begin with comments and empty lines. */
static bool is_vmdk_text(const uint8_t *buf, size_t len)
{
    static const char key[] = "version=";
    size_t at = 0;

    while (at < len && (buf[at] == '#' || buf[at] == '\n' || buf[at] == '\r' || buf[at] == ' ')) {
        if (buf[at] == '#') {
            const uint8_t *eol = memchr(buf + at, '\n', len - at);

            if (eol == NULL) {
                return false;
            }
            at = (size_t)(eol - buf);
        }
        at++;
    }
    return len - at > strlen(key) && memcmp(buf + at, key, strlen(key)) == 0 &&
           buf[at + strlen(key)] >= '1' && buf[at + strlen(key)] <= '9';
}

static const char *signature_format(const struct signature *sig, const uint8_t *buf, size_t len)
{
    if (strcmp(sig->format, "qcow2") == 0 && len >= 8 && memcmp(buf + 4, "\0\0\0\1", 4) == 0) {
        return "qcow";
    }
    return sig->format;
}

/* ---- guessing ---- */

struct guess {
    const char *format; /* NULL: nothing but raw */
    const char *other;  /* a second, different one, or NULL */
};

static void guess_add(struct guess *guess, const char *format)
{
    if (guess->format == NULL) {
        guess->format = format;
    } else if (strcmp(guess->format, format) != 0 && guess->other == NULL) {
        guess->other = format;
    }
}

static bool is_other_format(const BlockDriver *drv)
{
    return (drv->caps & BDRV_CAP_FORMAT) && drv->probe != NULL &&
           strcmp(drv->format_name, "raw") != 0;
}

static struct guess guess_bytes(const uint8_t *buf, size_t len, const char *shown)
{
    struct guess guess = {0};

    for (size_t i = 0; i < ARRAY_SIZE(signatures); i++) {
        const struct signature *sig = &signatures[i];

        if (sig->offset + sig->len <= len && memcmp(buf + sig->offset, sig->bytes, sig->len) == 0) {
            guess_add(&guess, signature_format(sig, buf, len));
        }
    }
    if (is_vmdk_text(buf, len)) {
        guess_add(&guess, "vmdk");
    }
    for (size_t i = 0; bdrv_drivers[i] != NULL; i++) {
        const BlockDriver *drv = bdrv_drivers[i];

        if (is_other_format(drv) && drv->probe(buf, len, shown) > 0) {
            guess_add(&guess, drv->format_name);
        }
    }
    return guess;
}

static void probe_describe(void *parent, char *buf, size_t size)
{
    snprintf(buf, size, "format probing");
}

static const struct bdrv_parent_class probe_parent_class = {.describe = probe_describe};

/* The first bytes; *ret_len may be 0 (empty, or no medium). */
static int read_head(BlockDriverState *file, const char *shown, uint8_t *buf, size_t *ret_len,
                     Error **errp)
{
    int64_t size = bdrv_getlength(file);
    BdrvEdge *edge;
    int rc;

    *ret_len = size < 0 ? 0 : size < PROBE_BYTES ? (size_t)size : PROBE_BYTES;
    if (*ret_len == 0) {
        return 0;
    }
    edge = bdrv_root_attach(file, "probe", &probe_parent_class, NULL, BDRV_PERM_CONSISTENT_READ,
                            BDRV_PERM_ALL, errp);
    if (edge == NULL) {
        return -EPERM;
    }
    rc = bdrv_edge_pread(edge, 0, buf, *ret_len);
    bdrv_root_detach(edge);
    if (rc < 0) {
        error_set_errno(errp, -rc, "Could not read image for determining its format");
        error_set_hint(errp, "The image is '%s'", shown);
    }
    return rc < 0 ? rc : 0;
}

const BlockDriver *bdrv_probe(BlockDriverState *file, const char *shown, Error **errp)
{
    uint8_t buf[PROBE_BYTES] = {0}; /* null-co leaves a buffer as it is */
    const BlockDriver *drv;
    struct guess guess;
    size_t len;

    if (read_head(file, shown, buf, &len, errp) < 0) {
        return NULL;
    }
    guess = guess_bytes(buf, len, shown);
    if (guess.other != NULL) {
        error_set(errp, EINVAL, "'%s' looks like both '%s' and '%s'", shown, guess.format,
                  guess.other);
        error_set_hint(errp, "Name the format (driver=...)");
        return NULL;
    }
    if (guess.format == NULL) {
        drv = bdrv_find_driver("raw");
        if (drv == NULL) {
            bdrv_unknown_driver("raw", errp);
        }
        return drv;
    }
    drv = bdrv_find_driver(guess.format);
    if (drv == NULL) {
        error_set(errp, ENOTSUP, "'%s' holds a '%s' image, which this build does not support",
                  shown, guess.format);
        error_set_hint(errp, "To use its bytes as they are, name the format 'raw'");
    }
    return drv;
}

/* ---- the guard ---- */

/* What a request leaves in bytes [from, to) of the first sector. */
struct sector_change {
    size_t from;
    size_t to;
    uint8_t bytes[GUARD_BYTES]; /* by offset in the sector */
};

static void change_of_request(const struct bdrv_req *req, struct sector_change *ret)
{
    size_t room = GUARD_BYTES - (size_t)req->offset;
    size_t n = req->bytes < room ? (size_t)req->bytes : room;

    ret->from = (size_t)req->offset;
    ret->to = ret->from + n;
    if (req->op == BDRV_OP_WRITE) {
        iov_to_buf(req->iov, req->niov, req->iov_offset, ret->bytes + ret->from, n);
    } else {
        memset(ret->bytes + ret->from, 0, n);
    }
}

/* Whether the change has bytes in the signature's place, all of them the signature's. */
static bool change_fits(const struct sector_change *change, const struct signature *sig)
{
    size_t from = change->from > sig->offset ? change->from : sig->offset;
    size_t to = change->to < sig->offset + sig->len ? change->to : sig->offset + sig->len;

    return from < to &&
           memcmp(change->bytes + from, sig->bytes + (from - sig->offset), to - from) == 0;
}

int bdrv_probe_guard_write(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct sector_change change;

    if (req->op == BDRV_OP_READ || req->op == BDRV_OP_FLUSH || req->offset >= GUARD_BYTES ||
        req->bytes == 0 || strcmp(bs->drv->format_name, "raw") != 0) {
        return 0;
    }
    change_of_request(req, &change);
    for (size_t i = 0; i < ARRAY_SIZE(signatures); i++) {
        if (change_fits(&change, &signatures[i])) {
            return -EPERM;
        }
    }
    if (change.from == 0 && change.to == GUARD_BYTES &&
        guess_bytes(change.bytes, GUARD_BYTES, "").format != NULL) {
        return -EPERM;
    }
    return 0;
}
