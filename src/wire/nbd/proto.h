/* SPDX-License-Identifier: MIT */
/*
 * Numbers of the NBD protocol, named as in its specification (doc/proto.md of the NBD project,
 * "proto" in comments here). Nothing but constants.
 */
#ifndef PLATTER_WIRE_NBD_PROTO_H
#define PLATTER_WIRE_NBD_PROTO_H

#include <stdint.h>

/* proto: "Newstyle negotiation" */
#define NBD_INIT_MAGIC UINT64_C(0x4e42444d41474943)   /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454F5054) /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)

/* proto: "Handshake flags" and "Client flags" */
#define NBD_FLAG_FIXED_NEWSTYLE UINT16_C(1)
#define NBD_FLAG_NO_ZEROES UINT16_C(2)
#define NBD_FLAG_C_FIXED_NEWSTYLE UINT32_C(1)
#define NBD_FLAG_C_NO_ZEROES UINT32_C(2)

/* proto: "Transmission flags" */
#define NBD_FLAG_HAS_FLAGS (1u << 0)
#define NBD_FLAG_READ_ONLY (1u << 1)
#define NBD_FLAG_SEND_FLUSH (1u << 2)
#define NBD_FLAG_SEND_FUA (1u << 3)
#define NBD_FLAG_ROTATIONAL (1u << 4)
#define NBD_FLAG_SEND_TRIM (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES (1u << 6)
#define NBD_FLAG_SEND_DF (1u << 7)
#define NBD_FLAG_CAN_MULTI_CONN (1u << 8)
#define NBD_FLAG_SEND_CACHE (1u << 10)
#define NBD_FLAG_SEND_FAST_ZERO (1u << 11)
#define NBD_FLAG_BLOCK_STATUS_PAYLOAD (1u << 12)

/* proto: "Option types" */
enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
    NBD_OPT_EXTENDED_HEADERS = 11,
};

/* proto: "Option reply types" */
#define NBD_REP_ACK UINT32_C(1)
#define NBD_REP_SERVER UINT32_C(2)
#define NBD_REP_INFO UINT32_C(3)
#define NBD_REP_META_CONTEXT UINT32_C(4)
#define NBD_REP_ERR(n) (UINT32_C(0x80000000) | (n))
#define NBD_REP_ERR_UNSUP NBD_REP_ERR(1)
#define NBD_REP_ERR_POLICY NBD_REP_ERR(2)
#define NBD_REP_ERR_INVALID NBD_REP_ERR(3)
#define NBD_REP_ERR_PLATFORM NBD_REP_ERR(4)
#define NBD_REP_ERR_TLS_REQD NBD_REP_ERR(5)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERR(6)
#define NBD_REP_ERR_SHUTDOWN NBD_REP_ERR(7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD NBD_REP_ERR(8)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERR(9)
#define NBD_REP_ERR_EXT_HEADER_REQD NBD_REP_ERR(10)

enum nbd_info {
    NBD_INFO_EXPORT = 0,
    NBD_INFO_NAME = 1,
    NBD_INFO_DESCRIPTION = 2,
    NBD_INFO_BLOCK_SIZE = 3,
};

/* proto: "Transmission" */
#define NBD_REQUEST_MAGIC UINT32_C(0x25609513)
#define NBD_EXTENDED_REQUEST_MAGIC UINT32_C(0x21e41c71)
#define NBD_SIMPLE_REPLY_MAGIC UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)
#define NBD_EXTENDED_REPLY_MAGIC UINT32_C(0x6e8a278c)

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

/* proto: "Command flags" */
#define NBD_CMD_FLAG_FUA (1u << 0)
#define NBD_CMD_FLAG_NO_HOLE (1u << 1)
#define NBD_CMD_FLAG_DF (1u << 2)
#define NBD_CMD_FLAG_REQ_ONE (1u << 3)
#define NBD_CMD_FLAG_FAST_ZERO (1u << 4)
#define NBD_CMD_FLAG_PAYLOAD_LEN (1u << 5)

/* proto: "Structured reply flags" and "Structured reply types" */
#define NBD_REPLY_FLAG_DONE (1u << 0)
#define NBD_REPLY_TYPE_NONE 0u
#define NBD_REPLY_TYPE_OFFSET_DATA 1u
#define NBD_REPLY_TYPE_OFFSET_HOLE 2u
#define NBD_REPLY_TYPE_BLOCK_STATUS 5u
#define NBD_REPLY_TYPE_BLOCK_STATUS_EXT 6u
#define NBD_REPLY_TYPE_ERROR (0x8000u | 1u)
#define NBD_REPLY_TYPE_ERROR_OFFSET (0x8000u | 2u)

/* proto: "base:allocation metadata context" */
#define NBD_STATE_HOLE (1u << 0)
#define NBD_STATE_ZERO (1u << 1)
#define NBD_STATE_DIRTY (1u << 0) /* of a dirty bitmap */

/* proto: "Error values" */
#define NBD_EPERM 1u
#define NBD_EIO 5u
#define NBD_ENOMEM 12u
#define NBD_EINVAL 22u
#define NBD_ENOSPC 28u
#define NBD_EOVERFLOW 75u
#define NBD_ENOTSUP 95u
#define NBD_ESHUTDOWN 108u

/* Sizes of fixed parts, in bytes. */
#define NBD_GREETING_BYTES 18u
#define NBD_CLIENT_FLAGS_BYTES 4u
#define NBD_OPTION_BYTES 16u
#define NBD_OPTION_REPLY_BYTES 20u
#define NBD_EXPORT_NAME_REPLY_BYTES 10u
#define NBD_EXPORT_NAME_ZEROES 124u
#define NBD_REQUEST_BYTES 28u
#define NBD_EXTENDED_REQUEST_BYTES 32u
#define NBD_REQUEST_BYTES_MAX NBD_EXTENDED_REQUEST_BYTES
#define NBD_SIMPLE_REPLY_BYTES 16u
#define NBD_STRUCTURED_REPLY_BYTES 20u
#define NBD_EXTENDED_REPLY_BYTES 32u
#define NBD_REPLY_BYTES_MAX NBD_EXTENDED_REPLY_BYTES

/* proto: "Conventions": a string MUST be no longer than this. */
#define NBD_STRING_BYTES_MAX 4096u

#endif
