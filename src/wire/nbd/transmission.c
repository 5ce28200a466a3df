/* SPDX-License-Identifier: MIT */
/* NBD transmission phase: request headers in, reply headers and chunks out. */
#include "wire/nbd/nbd.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "util/bytes.h"

int nbd_request_decode(enum nbd_mode mode, const uint8_t *buf, struct nbd_request *ret)
{
    uint32_t magic = mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC;

    if (load_be32(buf) != magic) {
        return -EINVAL;
    }
    ret->flags = load_be16(buf + 4);
    ret->type = load_be16(buf + 6);
    ret->cookie = load_be64(buf + 8);
    ret->offset = load_be64(buf + 16);
    ret->length = mode == NBD_MODE_EXTENDED ? load_be64(buf + 24) : load_be32(buf + 24);
    return 0;
}

int nbd_status_filter_decode(const uint8_t *buf, size_t bytes, struct nbd_status_filter *ret)
{
    if (!nbd_status_filter_bytes_valid(bytes)) {
        return -EINVAL;
    }
    ret->length = load_be64(buf);
    ret->ids = buf + 8;
    ret->nids = (bytes - 8) / 4;
    return 0;
}

uint32_t nbd_status_filter_id(const struct nbd_status_filter *filter, size_t i)
{
    assert(i < filter->nids);
    return load_be32(filter->ids + 4 * i);
}

size_t nbd_simple_reply_encode(uint8_t *buf, uint32_t error, uint64_t cookie)
{
    store_be32(buf, NBD_SIMPLE_REPLY_MAGIC);
    store_be32(buf + 4, error);
    store_be64(buf + 8, cookie);
    return NBD_SIMPLE_REPLY_BYTES;
}

size_t nbd_chunk_encode(enum nbd_mode mode, uint8_t *buf, uint16_t flags, uint16_t type,
                        const struct nbd_request *req, uint32_t length)
{
    assert(mode != NBD_MODE_SIMPLE);
    store_be16(buf + 4, flags);
    store_be16(buf + 6, type);
    store_be64(buf + 8, req->cookie);
    if (mode == NBD_MODE_EXTENDED) {
        store_be32(buf, NBD_EXTENDED_REPLY_MAGIC);
        store_be64(buf + 16, req->offset);
        store_be64(buf + 24, length);
        return NBD_EXTENDED_REPLY_BYTES;
    }
    store_be32(buf, NBD_STRUCTURED_REPLY_MAGIC);
    store_be32(buf + 16, length);
    return NBD_STRUCTURED_REPLY_BYTES;
}

size_t nbd_data_chunk_encode(enum nbd_mode mode, uint8_t *buf, uint16_t flags,
                             const struct nbd_request *req, uint64_t offset, uint32_t bytes)
{
    size_t n;

    assert(bytes > 0 && bytes <= UINT32_MAX - 8);
    n = nbd_chunk_encode(mode, buf, flags, NBD_REPLY_TYPE_OFFSET_DATA, req, bytes + 8);
    store_be64(buf + n, offset);
    return n + 8;
}

size_t nbd_hole_chunk_encode(enum nbd_mode mode, uint8_t *buf, uint16_t flags,
                             const struct nbd_request *req, uint64_t offset, uint32_t bytes)
{
    size_t n;

    assert(bytes > 0);
    n = nbd_chunk_encode(mode, buf, flags, NBD_REPLY_TYPE_OFFSET_HOLE, req, 12);
    store_be64(buf + n, offset);
    store_be32(buf + n + 8, bytes);
    return n + 12;
}

size_t nbd_error_chunk_encode(enum nbd_mode mode, uint8_t *buf, const struct nbd_request *req,
                              uint32_t error, const char *message)
{
    size_t len = message ? strnlen(message, NBD_ERROR_MESSAGE_MAX) : 0;
    size_t n;

    assert(error != 0);
    n = nbd_chunk_encode(mode, buf, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, req,
                         (uint32_t)(6 + len));
    store_be32(buf + n, error);
    store_be16(buf + n + 4, (uint16_t)len);
    memcpy(buf + n + 6, message ? message : "", len);
    return n + 6 + len;
}

size_t nbd_status_chunk_encode(enum nbd_mode mode, uint8_t *buf, uint16_t flags,
                               const struct nbd_request *req, uint32_t context_id, bool wide,
                               uint32_t ndescs)
{
    size_t n;

    assert(!wide || mode == NBD_MODE_EXTENDED);
    assert(ndescs > 0 && ndescs <= (1u << 20));
    if (wide) {
        n = nbd_chunk_encode(mode, buf, flags, NBD_REPLY_TYPE_BLOCK_STATUS_EXT, req,
                             8 + 16 * ndescs);
        store_be32(buf + n, context_id);
        store_be32(buf + n + 4, ndescs);
        return n + 8;
    }
    n = nbd_chunk_encode(mode, buf, flags, NBD_REPLY_TYPE_BLOCK_STATUS, req, 4 + 8 * ndescs);
    store_be32(buf + n, context_id);
    return n + 4;
}

size_t nbd_status_desc_encode(uint8_t *buf, bool wide, uint64_t length, uint32_t flags)
{
    assert(length > 0);
    if (wide) {
        store_be64(buf, length);
        store_be64(buf + 8, flags);
        return 16;
    }
    assert(length <= UINT32_MAX);
    store_be32(buf, (uint32_t)length);
    store_be32(buf + 4, flags);
    return 8;
}

uint32_t nbd_error_of_errno(int err)
{
    switch (err < 0 ? -err : err) {
    case 0:
        return 0;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
    case ECANCELED:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}
