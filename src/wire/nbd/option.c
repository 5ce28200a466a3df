/* SPDX-License-Identifier: MIT */
/* NBD handshake phase: greeting, options and their replies. */
#include <errno.h>
#include <string.h>

#include "util/bytes.h"
#include "wire/nbd/nbd.h"

size_t nbd_greeting_encode(uint8_t *buf, uint16_t handshake_flags)
{
    store_be64(buf, NBD_INIT_MAGIC);
    store_be64(buf + 8, NBD_OPTION_MAGIC);
    store_be16(buf + 16, handshake_flags);
    return NBD_GREETING_BYTES;
}

uint32_t nbd_client_flags_decode(const uint8_t *buf)
{
    return load_be32(buf);
}

int nbd_option_decode(const uint8_t *buf, struct nbd_option_header *ret)
{
    if (load_be64(buf) != NBD_OPTION_MAGIC) {
        return -EINVAL;
    }
    ret->option = load_be32(buf + 8);
    ret->length = load_be32(buf + 12);
    return 0;
}

size_t nbd_option_reply_encode(uint8_t *buf, uint32_t option, uint32_t type, uint32_t length)
{
    store_be64(buf, NBD_OPTION_REPLY_MAGIC);
    store_be32(buf + 8, option);
    store_be32(buf + 12, type);
    store_be32(buf + 16, length);
    return NBD_OPTION_REPLY_BYTES;
}

size_t nbd_export_name_reply_encode(uint8_t *buf, uint64_t size, uint16_t flags)
{
    store_be64(buf, size);
    store_be16(buf + 8, flags);
    return NBD_EXPORT_NAME_REPLY_BYTES;
}

/* Length of the UTF-8 sequence at s (at most n bytes), or 0 when it is none: overlong forms,
 * surrogates and values above U+10FFFF are refused. */
static size_t utf8_sequence(const uint8_t *s, size_t n)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t value;
    size_t len;
    size_t i;

    if (s[0] < 0x80) {
        return 1;
    }
    if (s[0] >= 0xc2 && s[0] < 0xe0) {
        len = 2;
        value = s[0] & 0x1f;
    } else if (s[0] >= 0xe0 && s[0] < 0xf0) {
        len = 3;
        value = s[0] & 0x0f;
    } else if (s[0] >= 0xf0 && s[0] < 0xf5) {
        len = 4;
        value = s[0] & 0x07;
    } else {
        return 0;
    }
    if (len > n) {
        return 0;
    }
    for (i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (s[i] & 0x3f);
    }
    if (value < least[len] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
        return 0;
    }
    return len;
}

bool nbd_string_valid(struct nbd_string str)
{
    const uint8_t *s = (const uint8_t *)str.data;
    size_t i = 0;

    if (str.bytes > NBD_STRING_BYTES_MAX) {
        return false;
    }
    while (i < str.bytes) {
        size_t len = s[i] == 0 ? 0 : utf8_sequence(s + i, str.bytes - i);

        if (len == 0) {
            return false;
        }
        i += len;
    }
    return true;
}

bool nbd_string_equal(struct nbd_string a, const char *b)
{
    return strlen(b) == a.bytes && memcmp(a.data, b, a.bytes) == 0;
}

/* Take a string with its 32-bit length off the front of the buffer. */
static int take_string(const uint8_t **buf, size_t *bytes, struct nbd_string *ret)
{
    uint32_t len;

    if (*bytes < 4) {
        return -EINVAL;
    }
    len = load_be32(*buf);
    if (len > *bytes - 4) {
        return -EINVAL;
    }
    if (len > NBD_STRING_BYTES_MAX) {
        return -E2BIG;
    }
    *ret = (struct nbd_string){(const char *)*buf + 4, len};
    *buf += 4 + len;
    *bytes -= 4 + (size_t)len;
    return nbd_string_valid(*ret) ? 0 : -EINVAL;
}

int nbd_info_request_decode(const uint8_t *buf, size_t bytes, struct nbd_info_request *ret)
{
    struct nbd_info_request req;
    int rc = take_string(&buf, &bytes, &req.name);

    if (rc < 0) {
        return rc;
    }
    if (bytes < 2) {
        return -EINVAL;
    }
    req.ninfos = load_be16(buf);
    req.infos = buf + 2;
    if (bytes - 2 != (size_t)req.ninfos * 2) {
        return -EINVAL;
    }
    *ret = req;
    return 0;
}

bool nbd_info_request_has(const struct nbd_info_request *req, enum nbd_info info)
{
    unsigned i;

    for (i = 0; i < req->ninfos; i++) {
        if (load_be16(req->infos + 2 * (size_t)i) == (uint16_t)info) {
            return true;
        }
    }
    return false;
}

int nbd_meta_request_decode(const uint8_t *buf, size_t bytes, struct nbd_meta_request *ret)
{
    struct nbd_meta_request req;
    struct nbd_string query;
    uint32_t i;
    int rc = take_string(&buf, &bytes, &req.name);

    if (rc < 0) {
        return rc;
    }
    if (bytes < 4) {
        return -EINVAL;
    }
    req.nqueries = load_be32(buf);
    req.rest = buf + 4;
    req.rest_bytes = bytes - 4;
    if (req.nqueries > req.rest_bytes / 4) {
        return -EINVAL;
    }
    buf = req.rest;
    bytes = req.rest_bytes;
    for (i = 0; i < req.nqueries; i++) {
        rc = take_string(&buf, &bytes, &query);
        if (rc < 0) {
            return rc;
        }
    }
    if (bytes != 0) {
        return -EINVAL;
    }
    *ret = req;
    return 0;
}

bool nbd_meta_query_next(struct nbd_meta_request *req, struct nbd_string *ret_query)
{
    return req->rest_bytes > 0 && take_string(&req->rest, &req->rest_bytes, ret_query) == 0;
}

size_t nbd_info_export_encode(uint8_t *buf, uint64_t size, uint16_t flags)
{
    store_be16(buf, NBD_INFO_EXPORT);
    store_be64(buf + 2, size);
    store_be16(buf + 10, flags);
    return NBD_INFO_EXPORT_BYTES;
}

size_t nbd_info_block_size_encode(uint8_t *buf, uint32_t min, uint32_t preferred, uint32_t max)
{
    store_be16(buf, NBD_INFO_BLOCK_SIZE);
    store_be32(buf + 2, min);
    store_be32(buf + 6, preferred);
    store_be32(buf + 10, max);
    return NBD_INFO_BLOCK_SIZE_BYTES;
}
