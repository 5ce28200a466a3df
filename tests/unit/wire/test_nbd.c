/* SPDX-License-Identifier: MIT */
/* The NBD codec: layouts byte by byte as in the specification, and refusal of what is not one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "util/bytes.h"
#include "util/mem.h"
#include "wire/nbd/nbd.h"

static void test_request_compact(void **state)
{
    static const uint8_t wire[NBD_REQUEST_BYTES] = {0x25, 0x60, 0x95, 0x13, 0, 1, 0,    1, 1, 2,
                                                    3,    4,    5,    6,    7, 8, 0,    0, 0, 1,
                                                    0,    0,    0x10, 0,    0, 0, 0x20, 0};
    struct nbd_request req;

    assert_int_equal(nbd_request_decode(NBD_MODE_STRUCTURED, wire, &req), 0);
    assert_int_equal(req.flags, NBD_CMD_FLAG_FUA);
    assert_int_equal(req.type, NBD_CMD_WRITE);
    assert_int_equal(req.cookie, 0x0102030405060708);
    assert_int_equal(req.offset, 0x100001000);
    assert_int_equal(req.length, 0x2000);
    assert_int_equal(nbd_request_payload_bytes(NBD_MODE_SIMPLE, &req), 0x2000);
    req.type = NBD_CMD_READ;
    assert_int_equal(nbd_request_payload_bytes(NBD_MODE_SIMPLE, &req), 0);
    assert_int_equal(nbd_request_decode(NBD_MODE_EXTENDED, wire, &req), -EINVAL);
}

static void test_request_extended(void **state)
{
    uint8_t wire[NBD_EXTENDED_REQUEST_BYTES];
    struct nbd_request req;

    store_be32(wire, NBD_EXTENDED_REQUEST_MAGIC);
    store_be16(wire + 4, NBD_CMD_FLAG_NO_HOLE);
    store_be16(wire + 6, NBD_CMD_WRITE_ZEROES);
    store_be64(wire + 8, 7);
    store_be64(wire + 16, 4096);
    store_be64(wire + 24, UINT64_C(1) << 40);
    assert_int_equal(nbd_request_decode(NBD_MODE_EXTENDED, wire, &req), 0);
    assert_int_equal(req.length, UINT64_C(1) << 40);
    assert_int_equal(nbd_request_payload_bytes(NBD_MODE_EXTENDED, &req), 0);
    req.flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
    assert_int_equal(nbd_request_payload_bytes(NBD_MODE_EXTENDED, &req), UINT64_C(1) << 40);
    assert_int_equal(nbd_request_decode(NBD_MODE_SIMPLE, wire, &req), -EINVAL);
}

static void test_replies(void **state)
{
    static const struct nbd_request req = {.cookie = 0x1122334455667788, .offset = 0x1000};
    uint8_t buf[NBD_ERROR_CHUNK_BYTES_MAX];

    assert_int_equal(nbd_simple_reply_encode(buf, NBD_EIO, req.cookie), 16);
    assert_memory_equal(buf, "\x67\x44\x66\x98\0\0\0\x05\x11\x22\x33\x44\x55\x66\x77\x88", 16);

    assert_int_equal(nbd_chunk_encode(NBD_MODE_STRUCTURED, buf, NBD_REPLY_FLAG_DONE,
                                      NBD_REPLY_TYPE_NONE, &req, 0),
                     20);
    assert_memory_equal(buf, "\x66\x8e\x33\xef\0\1\0\0\x11\x22\x33\x44\x55\x66\x77\x88\0\0\0\0",
                        20);

    assert_int_equal(nbd_data_chunk_encode(NBD_MODE_EXTENDED, buf, 0, &req, 0x1200, 512), 40);
    assert_int_equal(load_be32(buf), NBD_EXTENDED_REPLY_MAGIC);
    assert_int_equal(load_be16(buf + 4), 0);
    assert_int_equal(load_be16(buf + 6), NBD_REPLY_TYPE_OFFSET_DATA);
    assert_int_equal(load_be64(buf + 16), 0x1000);
    assert_int_equal(load_be64(buf + 24), 520);
    assert_int_equal(load_be64(buf + 32), 0x1200);

    assert_int_equal(nbd_hole_chunk_encode(NBD_MODE_STRUCTURED, buf, 1, &req, 0x1200, 512), 32);
    assert_int_equal(load_be32(buf + 16), 12);
    assert_int_equal(load_be64(buf + 20), 0x1200);
    assert_int_equal(load_be32(buf + 28), 512);

    assert_int_equal(nbd_error_chunk_encode(NBD_MODE_STRUCTURED, buf, &req, NBD_EINVAL, "no"), 28);
    assert_int_equal(load_be16(buf + 4), NBD_REPLY_FLAG_DONE);
    assert_int_equal(load_be16(buf + 6), NBD_REPLY_TYPE_ERROR);
    assert_int_equal(load_be32(buf + 16), 8);
    assert_int_equal(load_be32(buf + 20), NBD_EINVAL);
    assert_int_equal(load_be16(buf + 24), 2);
    assert_memory_equal(buf + 26, "no", 2);
}

static void test_status(void **state)
{
    static const struct nbd_request req = {.cookie = 1, .offset = 0x1000};
    static const uint8_t payload[16] = {0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 8};
    struct nbd_status_filter filter;
    uint8_t buf[64];

    assert_int_equal(nbd_status_chunk_encode(NBD_MODE_STRUCTURED, buf, 1, &req, 0x77, false, 2),
                     24);
    assert_int_equal(load_be16(buf + 6), NBD_REPLY_TYPE_BLOCK_STATUS);
    assert_int_equal(load_be32(buf + 16), 20);
    assert_int_equal(load_be32(buf + 20), 0x77);
    assert_int_equal(nbd_status_desc_encode(buf, false, 0xffffffff, 3), 8);
    assert_memory_equal(buf, "\xff\xff\xff\xff\0\0\0\3", 8);

    assert_int_equal(nbd_status_chunk_encode(NBD_MODE_EXTENDED, buf, 1, &req, 0x77, true, 1), 40);
    assert_int_equal(load_be16(buf + 6), NBD_REPLY_TYPE_BLOCK_STATUS_EXT);
    assert_int_equal(load_be64(buf + 24), 24);
    assert_int_equal(load_be32(buf + 36), 1);
    assert_int_equal(nbd_status_desc_encode(buf, true, UINT64_C(1) << 33, 3), 16);
    assert_memory_equal(buf, "\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\3", 16);

    assert_int_equal(nbd_status_filter_decode(payload, 16, &filter), 0);
    assert_int_equal(filter.length, UINT64_C(1) << 32);
    assert_int_equal(filter.nids, 2);
    assert_int_equal(nbd_status_filter_id(&filter, 0), 9);
    assert_int_equal(nbd_status_filter_id(&filter, 1), 8);
    assert_int_equal(nbd_status_filter_decode(payload, 8, &filter), -EINVAL);
    assert_int_equal(nbd_status_filter_decode(payload, 15, &filter), -EINVAL);
}

static void test_errno(void **state)
{
    static const struct {
        int err;
        uint32_t nbd;
    } map[] = {
        {0, 0},
        {-EPERM, NBD_EPERM},
        {-EACCES, NBD_EPERM},
        {-EROFS, NBD_EPERM},
        {-EIO, NBD_EIO},
        {-ENOMEM, NBD_ENOMEM},
        {-EINVAL, NBD_EINVAL},
        {-ENOSPC, NBD_ENOSPC},
        {-EDQUOT, NBD_ENOSPC},
        {-EFBIG, NBD_ENOSPC},
        {-EOVERFLOW, NBD_EOVERFLOW},
        {-ENOTSUP, NBD_ENOTSUP},
        {-ESHUTDOWN, NBD_ESHUTDOWN},
        {-ENOMEDIUM, NBD_EIO},
        {-ESTALE, NBD_EIO},
    };
    size_t i;

    for (i = 0; i < ARRAY_SIZE(map); i++) {
        assert_int_equal(nbd_error_of_errno(map[i].err), map[i].nbd);
    }
}

static void test_handshake(void **state)
{
    uint8_t buf[64];
    struct nbd_option_header opt;

    assert_int_equal(nbd_greeting_encode(buf, 3), 18);
    assert_memory_equal(buf, "NBDMAGICIHAVEOPT\0\3", 18);
    memcpy(buf, "IHAVEOPT\0\0\0\7\xff\xff\xff\xff", 16);
    assert_int_equal(nbd_option_decode(buf, &opt), 0);
    assert_int_equal(opt.option, NBD_OPT_GO);
    assert_int_equal(opt.length, 0xffffffff);
    buf[0] = 'X';
    assert_int_equal(nbd_option_decode(buf, &opt), -EINVAL);
    assert_int_equal(nbd_option_reply_encode(buf, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, 3), 20);
    assert_memory_equal(buf, "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\7\x80\0\0\6\0\0\0\3", 20);
    assert_int_equal(nbd_export_name_reply_encode(buf, 512, 0x3), 10);
    assert_memory_equal(buf, "\0\0\0\0\0\0\2\0\0\3", 10);
    assert_int_equal(nbd_info_export_encode(buf, 512, 5), 12);
    assert_memory_equal(buf, "\0\0\0\0\0\0\0\0\2\0\0\5", 12);
    assert_int_equal(nbd_info_block_size_encode(buf, 1, 4096, 1 << 25), 14);
    assert_memory_equal(buf, "\0\3\0\0\0\1\0\0\x10\0\2\0\0\0", 14);
}

static void test_strings(void **state)
{
    static const struct {
        const char *s;
        uint32_t n;
        bool ok;
    } cases[] = {
        {"", 0, true},
        {"disk", 4, true},
        {"d\0k", 3, false},
        {"\xc3\xa9", 2, true},
        {"\xc3", 1, false},
        {"\xc0\x80", 2, false},
        {"\xe0\x80\x80", 3, false},
        {"\xed\xa0\x80", 3, false},
        {"\xe2\x82\xac", 3, true},
        {"\xf0\x9f\x92\xbe", 4, true},
        {"\xf0\x80\x80\x80", 4, false},
        {"\xf4\x90\x80\x80", 4, false},
        {"\xff", 1, false},
        {"a\x80", 2, false},
    };
    static char big[NBD_STRING_BYTES_MAX + 1];
    size_t i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(nbd_string_valid((struct nbd_string){cases[i].s, cases[i].n}),
                         cases[i].ok);
    }
    memset(big, 'x', sizeof(big));
    assert_true(nbd_string_valid((struct nbd_string){big, NBD_STRING_BYTES_MAX}));
    assert_false(nbd_string_valid((struct nbd_string){big, NBD_STRING_BYTES_MAX + 1}));
    assert_true(nbd_string_equal((struct nbd_string){"diskX", 4}, "disk"));
    assert_false(nbd_string_equal((struct nbd_string){"disk", 4}, "diskX"));
}

static void test_info_request(void **state)
{
    static const uint8_t data[] = {0, 0, 0, 2, 'h', 'd', 0, 2, 0, 3, 0, 1};
    struct nbd_info_request req;
    size_t n;

    assert_int_equal(nbd_info_request_decode(data, sizeof(data), &req), 0);
    assert_true(nbd_string_equal(req.name, "hd"));
    assert_true(nbd_info_request_has(&req, NBD_INFO_BLOCK_SIZE));
    assert_true(nbd_info_request_has(&req, NBD_INFO_NAME));
    assert_false(nbd_info_request_has(&req, NBD_INFO_DESCRIPTION));
    for (n = 0; n < sizeof(data); n++) { /* each cut is refused */
        assert_int_equal(nbd_info_request_decode(data, n, &req), -EINVAL);
    }
}

static void test_meta_request(void **state)
{
    static const uint8_t data[] = {0,   0,   0,   1,   'e', 0, 0, 0, 2, 0,   0,   0,  5,
                                   'b', 'a', 's', 'e', ':', 0, 0, 0, 3, 'x', ':', 'y'};
    uint8_t bad[sizeof(data) + 1];
    struct nbd_meta_request req;
    struct nbd_string q;
    size_t n;

    assert_int_equal(nbd_meta_request_decode(data, sizeof(data), &req), 0);
    assert_true(nbd_string_equal(req.name, "e"));
    assert_int_equal(req.nqueries, 2);
    assert_true(nbd_meta_query_next(&req, &q));
    assert_true(nbd_string_equal(q, "base:"));
    assert_true(nbd_meta_query_next(&req, &q));
    assert_true(nbd_string_equal(q, "x:y"));
    assert_false(nbd_meta_query_next(&req, &q));
    for (n = 0; n < sizeof(data); n++) {
        assert_int_equal(nbd_meta_request_decode(data, n, &req), -EINVAL);
    }
    memcpy(bad, data, sizeof(data));
    bad[sizeof(data)] = 0;
    assert_int_equal(nbd_meta_request_decode(bad, sizeof(bad), &req), -EINVAL);
    store_be32(bad + 5, 0xffffffff); /* the count claims more than there is */
    assert_int_equal(nbd_meta_request_decode(bad, sizeof(data), &req), -EINVAL);
}

/* Random bytes never make a decoder read outside its buffer (run under ASan) and what is accepted
 * has valid strings. */
static void test_random(void **state)
{
    const char *env = getenv("PLATTER_SEED");
    unsigned seed = env ? (unsigned)strtoul(env, NULL, 0) : 20260u;
    unsigned i;

    print_message("seed %u\n", seed);
    for (i = 0; i < 20000; i++) {
        size_t n = (size_t)rand_r(&seed) % 40;
        uint8_t *buf = malloc(n + 1);
        struct nbd_info_request info;
        struct nbd_meta_request meta;
        struct nbd_string q;
        size_t k;

        assert_non_null(buf);
        for (k = 0; k < n; k++) {
            buf[k] = rand_r(&seed) % 3 ? 0 : (uint8_t)(rand_r(&seed) % 12);
        }
        buf = realloc(buf, n ? n : 1);
        if (nbd_info_request_decode(buf, n, &info) == 0) {
            assert_true(nbd_string_valid(info.name));
            (void)nbd_info_request_has(&info, NBD_INFO_NAME);
        }
        if (nbd_meta_request_decode(buf, n, &meta) == 0) {
            while (nbd_meta_query_next(&meta, &q)) {
                assert_true(nbd_string_valid(q));
            }
            assert_int_equal(meta.rest_bytes, 0);
        }
        free(buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_compact), cmocka_unit_test(test_request_extended),
        cmocka_unit_test(test_replies),         cmocka_unit_test(test_status),
        cmocka_unit_test(test_errno),           cmocka_unit_test(test_handshake),
        cmocka_unit_test(test_strings),         cmocka_unit_test(test_info_request),
        cmocka_unit_test(test_meta_request),    cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
