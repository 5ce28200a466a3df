/* SPDX-License-Identifier: MIT */
/*
 * Codec of the NBD messages a server takes and gives: bytes to structs in host order and back. No
 * I/O, no memory of its own, no state. Every byte from the peer passes through here and is checked
 * here; nothing above touches raw bytes. Any thread.
 */
#ifndef PLATTER_WIRE_NBD_NBD_H
#define PLATTER_WIRE_NBD_NBD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/nbd/proto.h"

/* What the negotiation made of the headers of the transmission phase. */
enum nbd_mode {
    NBD_MODE_SIMPLE = 0,
    NBD_MODE_STRUCTURED,
    NBD_MODE_EXTENDED,
};

/* ---- transmission: requests ---- */

struct nbd_request {
    uint64_t cookie;
    uint64_t offset;
    uint64_t length; /* of the effect, or of the payload (nbd_request_payload_bytes) */
    uint16_t flags;
    uint16_t type;
};

static inline size_t nbd_request_bytes(enum nbd_mode mode)
{
    return mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
}
/* Parse nbd_request_bytes(mode) bytes. 0 or -EINVAL (not the magic of this mode). */
int nbd_request_decode(enum nbd_mode mode, const uint8_t *buf, struct nbd_request *ret);
/* Bytes that follow the header on the wire. proto: "Request message". */
static inline uint64_t nbd_request_payload_bytes(enum nbd_mode mode, const struct nbd_request *req)
{
    if (mode == NBD_MODE_EXTENDED) {
        return (req->flags & NBD_CMD_FLAG_PAYLOAD_LEN) ? req->length : 0;
    }
    return req->type == NBD_CMD_WRITE ? req->length : 0;
}

/* Payload of NBD_CMD_BLOCK_STATUS with NBD_CMD_FLAG_PAYLOAD_LEN: an effect length and the ids of
 * the contexts that the client wants. 0 or -EINVAL (length not 8 + 4 n with n > 0). */
struct nbd_status_filter {
    uint64_t length;
    const uint8_t *ids; /* borrowed from the buffer */
    size_t nids;
};
static inline bool nbd_status_filter_bytes_valid(uint64_t bytes)
{
    return bytes >= 12 && bytes % 4 == 0;
}
int nbd_status_filter_decode(const uint8_t *buf, size_t bytes, struct nbd_status_filter *ret);
uint32_t nbd_status_filter_id(const struct nbd_status_filter *filter, size_t i);

/* ---- transmission: replies. Each encoder returns the bytes written ---- */

size_t nbd_simple_reply_encode(uint8_t *buf, uint32_t error, uint64_t cookie);
/* Header of a structured or extended chunk with a payload of length bytes; offset is that of the
 * request and travels only in extended headers. */
size_t nbd_chunk_encode(enum nbd_mode mode, uint8_t *buf, uint16_t flags, uint16_t type,
                        const struct nbd_request *req, uint32_t length);
/* Chunk header and the offset in front of the data. */
#define NBD_DATA_CHUNK_BYTES_MAX (NBD_REPLY_BYTES_MAX + 8u)
size_t nbd_data_chunk_encode(enum nbd_mode mode, uint8_t *buf, uint16_t flags,
                             const struct nbd_request *req, uint64_t offset, uint32_t bytes);
#define NBD_HOLE_CHUNK_BYTES_MAX (NBD_REPLY_BYTES_MAX + 12u)
size_t nbd_hole_chunk_encode(enum nbd_mode mode, uint8_t *buf, uint16_t flags,
                             const struct nbd_request *req, uint64_t offset, uint32_t bytes);
/* A whole error chunk. message: at most NBD_ERROR_MESSAGE_MAX bytes are sent; NULL: none. */
#define NBD_ERROR_MESSAGE_MAX 96u
#define NBD_ERROR_CHUNK_BYTES_MAX (NBD_REPLY_BYTES_MAX + 6u + NBD_ERROR_MESSAGE_MAX)
size_t nbd_error_chunk_encode(enum nbd_mode mode, uint8_t *buf, const struct nbd_request *req,
                              uint32_t error, const char *message);
/* A status chunk is begun, descriptors are put behind it, then it is ended (which fills the
 * lengths). wide: NBD_REPLY_TYPE_BLOCK_STATUS_EXT with 64-bit lengths. */
#define NBD_STATUS_CHUNK_BYTES_MAX (NBD_REPLY_BYTES_MAX + 8u)
static inline size_t nbd_status_desc_bytes(bool wide)
{
    return wide ? 16u : 8u;
}
size_t nbd_status_chunk_encode(enum nbd_mode mode, uint8_t *buf, uint16_t flags,
                               const struct nbd_request *req, uint32_t context_id, bool wide,
                               uint32_t ndescs);
size_t nbd_status_desc_encode(uint8_t *buf, bool wide, uint64_t length, uint32_t flags);

/* The value of the error field for a negative errno; 0 for 0. proto: "Error values". */
uint32_t nbd_error_of_errno(int err);

/* ---- handshake ---- */

size_t nbd_greeting_encode(uint8_t *buf, uint16_t handshake_flags);
uint32_t nbd_client_flags_decode(const uint8_t *buf);

struct nbd_option_header {
    uint32_t option;
    uint32_t length;
};
/* 0 or -EINVAL (magic). */
int nbd_option_decode(const uint8_t *buf, struct nbd_option_header *ret);
size_t nbd_option_reply_encode(uint8_t *buf, uint32_t option, uint32_t type, uint32_t length);
/* Reply to NBD_OPT_EXPORT_NAME without the zeroes. */
size_t nbd_export_name_reply_encode(uint8_t *buf, uint64_t size, uint16_t flags);

/* A string of the peer, borrowed from the option's data. */
struct nbd_string {
    const char *data;
    uint32_t bytes;
};
/* proto: "Conventions": UTF-8, no NUL, at most 4096 bytes. */
bool nbd_string_valid(struct nbd_string str);
bool nbd_string_equal(struct nbd_string a, const char *b);

/* Data of NBD_OPT_INFO and NBD_OPT_GO. 0, -EINVAL (lengths that do not add up, a bad name), -E2BIG
 * (name too long). */
struct nbd_info_request {
    struct nbd_string name;
    const uint8_t *infos; /* borrowed */
    unsigned ninfos;
};
int nbd_info_request_decode(const uint8_t *buf, size_t bytes, struct nbd_info_request *ret);
bool nbd_info_request_has(const struct nbd_info_request *req, enum nbd_info info);

/* Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. The whole list is checked here;
 * then nbd_meta_query_next walks it. Errors as above. */
struct nbd_meta_request {
    struct nbd_string name;
    uint32_t nqueries;
    const uint8_t *rest; /* borrowed: queries not walked yet */
    size_t rest_bytes;
};
int nbd_meta_request_decode(const uint8_t *buf, size_t bytes, struct nbd_meta_request *ret);
bool nbd_meta_query_next(struct nbd_meta_request *req, struct nbd_string *ret_query);

#define NBD_INFO_EXPORT_BYTES 12u
#define NBD_INFO_BLOCK_SIZE_BYTES 14u
size_t nbd_info_export_encode(uint8_t *buf, uint64_t size, uint16_t flags);
size_t nbd_info_block_size_encode(uint8_t *buf, uint32_t min, uint32_t preferred, uint32_t max);

#endif
