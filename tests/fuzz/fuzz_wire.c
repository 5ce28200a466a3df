/* SPDX-License-Identifier: MIT */
/* The NBD codec alone: every decoder on bytes of a peer, every encoder on any value. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "util/bytes.h"
#include "util/mem.h"
#include "wire/nbd/nbd.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return 0;
}

static void check_string(struct nbd_string str, const uint8_t *buf, size_t bytes)
{
    const uint8_t *data = (const uint8_t *)str.data;

    FUZZ_CHECK(data >= buf && data + str.bytes <= buf + bytes);
    FUZZ_CHECK(str.bytes <= NBD_STRING_BYTES_MAX);
    FUZZ_CHECK(nbd_string_valid(str));
    (void)nbd_string_equal(str, "disk");
}

static void requests(struct fuzz_in *in)
{
    enum nbd_mode mode = (enum nbd_mode)(fuzz_u8(in) % 3);
    struct nbd_request req;
    size_t bytes;
    uint8_t *buf = fuzz_take(in, nbd_request_bytes(mode), &bytes);

    if (bytes == nbd_request_bytes(mode) && nbd_request_decode(mode, buf, &req) == 0) {
        FUZZ_CHECK(req.cookie == load_be64(buf + 8));
        FUZZ_CHECK(req.offset == load_be64(buf + 16));
        FUZZ_CHECK(nbd_request_payload_bytes(mode, &req) <= req.length);
    }
    free(buf);
}

static void infos(struct fuzz_in *in)
{
    struct nbd_info_request req;
    size_t bytes;
    uint8_t *buf = fuzz_take(in, in->bytes, &bytes);
    int rc = nbd_info_request_decode(buf, bytes, &req);

    FUZZ_CHECK(rc == 0 || rc == -EINVAL || rc == -E2BIG);
    if (rc == 0) {
        check_string(req.name, buf, bytes);
        FUZZ_CHECK(6u + req.name.bytes + 2u * req.ninfos == bytes);
        (void)nbd_info_request_has(&req, NBD_INFO_BLOCK_SIZE);
    }
    free(buf);
}

static void metas(struct fuzz_in *in)
{
    struct nbd_meta_request req;
    struct nbd_string query;
    uint32_t walked = 0;
    size_t bytes;
    uint8_t *buf = fuzz_take(in, in->bytes, &bytes);
    int rc = nbd_meta_request_decode(buf, bytes, &req);

    FUZZ_CHECK(rc == 0 || rc == -EINVAL || rc == -E2BIG);
    if (rc == 0) {
        uint32_t nqueries = req.nqueries;

        check_string(req.name, buf, bytes);
        while (nbd_meta_query_next(&req, &query)) {
            check_string(query, buf, bytes);
            walked++;
        }
        FUZZ_CHECK(walked == nqueries);
    }
    free(buf);
}

static void filters(struct fuzz_in *in)
{
    struct nbd_status_filter filter;
    size_t bytes;
    uint8_t *buf = fuzz_take(in, in->bytes, &bytes);
    size_t i;

    if (nbd_status_filter_decode(buf, bytes, &filter) == 0) {
        FUZZ_CHECK(filter.nids > 0 && 8 + 4 * filter.nids == bytes);
        for (i = 0; i < filter.nids; i++) {
            (void)nbd_status_filter_id(&filter, i);
        }
    }
    free(buf);
}

static void options(struct fuzz_in *in)
{
    struct nbd_option_header header;
    uint8_t again[NBD_OPTION_REPLY_BYTES];
    size_t bytes;
    uint8_t *buf = fuzz_take(in, NBD_OPTION_BYTES, &bytes);

    if (bytes == NBD_OPTION_BYTES && nbd_option_decode(buf, &header) == 0) {
        FUZZ_CHECK(nbd_option_reply_encode(again, header.option, 1, header.length) ==
                   sizeof(again));
        FUZZ_CHECK(memcmp(again + 8, buf + 8, 4) == 0 && memcmp(again + 16, buf + 12, 4) == 0);
    }
    if (bytes >= 4) {
        FUZZ_CHECK(nbd_client_flags_decode(buf) == load_be32(buf));
    }
    free(buf);
}

/* No encoder writes more than its header promises, whatever the values. */
static void replies(struct fuzz_in *in)
{
    enum nbd_mode mode = (enum nbd_mode)(1 + fuzz_u8(in) % 2);
    size_t head = mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REPLY_BYTES : NBD_STRUCTURED_REPLY_BYTES;
    struct nbd_request req = {.cookie = fuzz_u64(in), .offset = fuzz_u64(in)};
    uint16_t flags = fuzz_u16(in);
    uint32_t a = fuzz_u32(in) | 1, b = fuzz_u32(in) | 1; /* empty chunks are not asked for */
    bool wide = mode == NBD_MODE_EXTENDED;
    uint8_t *buf = malloc(NBD_ERROR_CHUNK_BYTES_MAX);
    char *text = fuzz_text(in);
    size_t n;

    FUZZ_CHECK(buf != NULL);
    n = nbd_error_chunk_encode(mode, buf, &req, a, text[0] != '\0' ? text : NULL);
    FUZZ_CHECK(n >= head + 6 && n <= NBD_ERROR_CHUNK_BYTES_MAX);
    FUZZ_CHECK(load_be64(buf + 8) == req.cookie);
    FUZZ_CHECK(load_be16(buf + head + 4) == n - head - 6);
    FUZZ_CHECK(nbd_hole_chunk_encode(mode, buf, flags, &req, req.offset, b) == head + 12);
    FUZZ_CHECK(load_be32(buf + head + 8) == b);
    FUZZ_CHECK(nbd_data_chunk_encode(mode, buf, flags, &req, req.offset, b & INT32_MAX) ==
               head + 8);
    FUZZ_CHECK(load_be64(buf + head) == req.offset);
    n = nbd_status_chunk_encode(mode, buf, flags, &req, a, wide, 1 + b % 5000);
    FUZZ_CHECK(n <= NBD_STATUS_CHUNK_BYTES_MAX);
    FUZZ_CHECK(nbd_status_desc_encode(buf, wide, wide ? req.offset | 1 : b, a) ==
               nbd_status_desc_bytes(wide));
    free(text);
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static void (*const kinds[])(struct fuzz_in *) = {requests, infos,   metas,
                                                      filters,  options, replies};
    struct fuzz_in in = {data, bytes};

    kinds[fuzz_u8(&in) % ARRAY_SIZE(kinds)](&in);
    return 0;
}
