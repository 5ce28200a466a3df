/* SPDX-License-Identifier: MIT */
/*
 * What depends on the machine, in one static program without any library but libc: stack switches,
 * coroutines, byte order, sizes of types. scripts/cross-test builds it for other machines and runs
 * it under emulation; ./test runs it on this one, with both kinds of switch.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <platter/coroutine.h>

#include "loop/context.h"
#include "loop/coroutine_switch.h"
#include "os/os.h"
#include "util/budget.h"
#include "util/bytes.h"
#include "util/error.h"
#include "util/iov.h"
#include "util/size.h"
#include "wire/nbd/nbd.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* ---- what coroutine.c needs of the rest ---- */

static unsigned live_maps;

static int test_mmap(size_t bytes, int prot, int flags, void **ret_addr)
{
    void *p = mmap(0, bytes, prot, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        return -errno;
    }
    live_maps++;
    *ret_addr = p;
    return 0;
}

static int test_munmap(void *addr, size_t bytes)
{
    live_maps--;
    return munmap(addr, bytes) < 0 ? -errno : 0;
}

static int test_mprotect(void *addr, size_t bytes, int prot)
{
    return mprotect(addr, bytes, prot) < 0 ? -errno : 0;
}

static const struct os_table table = {
    .mmap = test_mmap, .munmap = test_munmap, .mprotect = test_mprotect};
const struct os_table *os = &table;

struct AioContext;
void aio_notify_slow(struct AioContext *ctx);
void aio_notify_slow(struct AioContext *ctx)
{
    CHECK(!"a context exists");
}

/* ---- switches ---- */

/* All callee-saved floating-point registers in use across a switch, wherever there are eight. */
static __attribute__((noinline)) double fp_sum(double seed)
{
    double a = seed + 1, b = seed + 2, c = seed + 3, d = seed + 4;
    double e = seed + 5, f = seed + 6, g = seed + 7, h = seed + 8;

#define OPAQUE __asm__ volatile("" : "+m"(a), "+m"(b), "+m"(c), "+m"(d), "+m"(e), "+m"(f))
    OPAQUE;
#undef OPAQUE
    coroutine_yield();
    return a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7 + h * 8;
}

static double fp_want(double s)
{
    return (s + 1) + (s + 2) * 2 + (s + 3) * 3 + (s + 4) * 4 + (s + 5) * 5 + (s + 6) * 6 +
           (s + 7) * 7 + (s + 8) * 8;
}

struct fp {
    double seed;
    double sum;
};

static void fp_entry(void *opaque)
{
    struct fp *fp = opaque;

    for (int i = 0; i < 100; i++) {
        fp->sum = fp_sum(fp->seed + i);
        CHECK(fp->sum == fp_want(fp->seed + i));
    }
}

#if defined(__aarch64__)
/* The registers by name: what stands in x19-x28 and d8-d15 of one stack must not be seen to change
 * while another one writes its own into them. */
static __attribute__((noinline)) void registers_by_name(uint64_t seed)
{
    uint64_t out[18];
    register uint64_t first __asm__("x0") = seed;
    register uint64_t *to __asm__("x1") = out;
    register void (*yield)(void) __asm__("x2") = coroutine_yield;

    __asm__ volatile("mov x19, %0\n add x20, %0, #1\n add x21, %0, #2\n add x22, %0, #3\n"
                     "add x23, %0, #4\n add x24, %0, #5\n add x25, %0, #6\n add x26, %0, #7\n"
                     "add x27, %0, #8\n add x28, %0, #9\n"
                     "fmov d8, x19\n fmov d9, x20\n fmov d10, x21\n fmov d11, x22\n"
                     "fmov d12, x23\n fmov d13, x24\n fmov d14, x25\n fmov d15, x26\n"
                     "sub sp, sp, #16\n str %1, [sp]\n"
                     "blr %2\n"
                     "ldr x9, [sp]\n add sp, sp, #16\n"
                     "stp x19, x20, [x9]\n stp x21, x22, [x9, #16]\n stp x23, x24, [x9, #32]\n"
                     "stp x25, x26, [x9, #48]\n stp x27, x28, [x9, #64]\n"
                     "stp d8, d9, [x9, #80]\n stp d10, d11, [x9, #96]\n"
                     "stp d12, d13, [x9, #112]\n stp d14, d15, [x9, #128]\n"
                     : "+r"(first), "+r"(to), "+r"(yield)
                     :
                     : "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14",
                       "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25",
                       "x26", "x27", "x28", "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7",
                       "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18",
                       "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29",
                       "v30", "v31", "memory", "cc");
    for (unsigned i = 0; i < 10; i++) {
        CHECK(out[i] == seed + i);
    }
    for (unsigned i = 0; i < 8; i++) {
        CHECK(out[10 + i] == seed + i);
    }
}
#else
static void registers_by_name(uint64_t seed)
{
    coroutine_yield();
}
#endif

static void registers_entry(void *opaque)
{
    for (int i = 0; i < 100; i++) {
        registers_by_name((uintptr_t)opaque + (unsigned)i);
    }
}

/* Stacks of one kind in turn, each with values of its own. */
static void test_registers(void)
{
    struct fp fp[4] = {{.seed = 0.5}, {.seed = 1000.25}, {.seed = -3.125}, {.seed = 1e9}};
    Coroutine *co[4], *named[4];

    for (unsigned i = 0; i < 4; i++) {
        co[i] = coroutine_create(fp_entry, &fp[i]);
        named[i] = coroutine_create(registers_entry, (void *)(uintptr_t)(i * 0x01010101u));
        CHECK(co[i] && named[i]);
    }
    for (int round = 0; round < 101; round++) {
        double x = round + 0.5;

        for (unsigned i = 0; i < 4; i++) {
            coroutine_enter(co[i]);
            coroutine_enter(named[i]);
        }
        CHECK(x == round + 0.5);
    }
}

/* ---- coroutines ---- */

static void count_entry(void *opaque)
{
    unsigned *count = opaque;

    for (;;) {
        ++*count;
        if (*count == 200000) {
            return;
        }
        coroutine_yield();
    }
}

static void test_many_switches(void)
{
    unsigned count = 0;
    Coroutine *co = coroutine_create(count_entry, &count);

    CHECK(co != NULL && !in_coroutine());
    for (unsigned i = 1; i <= 200000; i++) {
        coroutine_enter(co);
        CHECK(count == i && !in_coroutine());
    }
}

static void nest_entry(void *opaque)
{
    int *depth = opaque;
    Coroutine *self = coroutine_self();

    if (++*depth < 60) {
        Coroutine *co = coroutine_create(nest_entry, opaque);

        CHECK(co != NULL);
        coroutine_enter(co);
    }
    CHECK(coroutine_self() == self);
}

static void test_nested(void)
{
    int depth = 0;

    coroutine_enter(coroutine_create(nest_entry, &depth));
    CHECK(depth == 60 && !in_coroutine());
}

static void text_entry(void *opaque)
{
    char *text = opaque;

    /* printf wants the stack aligned as the ABI says, and variable arguments */
    snprintf(text, 64, "%s %d %.3f %lld", "text", 7, 2.5, (long long)INT64_MAX);
}

static void test_pool(void)
{
    Coroutine *first;
    char text[64];
    unsigned maps;

    first = coroutine_create(text_entry, text);
    coroutine_enter(first);
    CHECK(strcmp(text, "text 7 2.500 9223372036854775807") == 0);
    maps = live_maps;
    for (int i = 0; i < 1000; i++) {
        Coroutine *co = coroutine_create(text_entry, text);

        CHECK(co == first);
        coroutine_enter(co);
    }
    CHECK(live_maps == maps);
    coroutine_pool_reserve(10);
    coroutine_pool_reserve(-10);
}

/* ---- bytes ---- */

static void test_bytes(void)
{
    static const uint8_t raw[9] = {0xff, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88};
    uint8_t out[9] = {0};

    CHECK(load_be16(raw + 1) == 0x0102 && load_le16(raw + 1) == 0x0201);
    CHECK(load_be32(raw + 1) == 0x01020304 && load_le32(raw + 1) == 0x04030201);
    CHECK(load_be64(raw + 1) == UINT64_C(0x0102030405060788));
    CHECK(load_le64(raw + 1) == UINT64_C(0x8807060504030201));
    store_be64(out + 1, UINT64_C(0x0102030405060788));
    CHECK(memcmp(out + 1, raw + 1, 8) == 0);
    store_le64(out + 1, UINT64_C(0x8807060504030201));
    CHECK(memcmp(out + 1, raw + 1, 8) == 0);
    store_le16(out + 1, 0x1234);
    CHECK(out[1] == 0x34 && out[2] == 0x12);
    store_be32(out + 1, 0x12345678);
    CHECK(out[1] == 0x12 && out[4] == 0x78);
}

static void test_texts(void)
{
    uint64_t value = 0;
    char buf[32];
    Error *err = NULL;

    CHECK(size_parse("7.5E", 'b', "size", &value, NULL) == 0);
    CHECK(value == (UINT64_C(15) << 59));
    CHECK(size_parse("8E", 'b', "size", &value, &err) == -ERANGE);
    CHECK(strcmp(error_get_pretty(err), "size '8E' is too large") == 0);
    error_free(err);
    CHECK(size_parse("1.1G", 'b', "size", &value, NULL) == 0 && value == 1181116006);
    CHECK(number_parse("0xffffffffffffffff", "n", 0, UINT64_MAX, &value, NULL) == 0);
    CHECK(value == UINT64_MAX);
    CHECK(strcmp(size_format(UINT64_C(10) << 30, buf, sizeof(buf)), "10 GiB") == 0);
}

static void test_iov(void)
{
    char a[3] = "abc", b[5] = "defgh", out[6] = "";
    struct iovec iov[2] = {{a, 3}, {b, 5}};
    static uint8_t zero[1000];

    CHECK(iov_bytes(iov, 2) == 8);
    iov_to_buf(iov, 2, 2, out, 4);
    CHECK(memcmp(out, "cdef", 4) == 0);
    for (size_t at = 0; at < 100; at++) {
        zero[at * 7] = 1;
        CHECK(!buffer_is_zero(zero, sizeof(zero)));
        zero[at * 7] = 0;
    }
    CHECK(buffer_is_zero(zero + 1, sizeof(zero) - 3));
}

static void test_budget(void)
{
    struct mem_budget budget = {.limit_bytes = UINT64_C(5) << 32};

    CHECK(mem_budget_take(&budget, UINT64_C(4) << 32));
    CHECK(!mem_budget_take(&budget, UINT64_C(2) << 32));
    mem_budget_give(&budget, UINT64_C(4) << 32);
    CHECK(atomic_load(&budget.used_bytes) == 0);
}

/* ---- NBD ---- */

static void test_nbd_requests(void)
{
    static const uint8_t simple[NBD_REQUEST_BYTES] = {0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2,
                                                      3,    4,    5,    6,    7, 8, 0, 0, 0, 1,
                                                      0,    0,    0,    0,    0, 0, 2, 0};
    static const uint8_t extended[NBD_EXTENDED_REQUEST_BYTES] = {
        0x21, 0xe4, 0x1c, 0x71, 0, 0x20, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8,
        0x80, 0,    0,    0,    0, 0,    0, 2, 0, 0, 0, 3, 0, 0, 0, 4};
    static const uint8_t filter_bytes[] = {0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0x80, 0, 0, 4};
    struct nbd_status_filter filter;
    struct nbd_request req;

    CHECK(nbd_request_decode(NBD_MODE_SIMPLE, simple, &req) == 0);
    CHECK(req.flags == 1 && req.type == NBD_CMD_WRITE && req.length == 512);
    CHECK(req.cookie == UINT64_C(0x0102030405060708) && req.offset == UINT64_C(1) << 32);
    CHECK(nbd_request_decode(NBD_MODE_EXTENDED, extended, &req) == 0);
    CHECK(req.flags == 0x20 && req.type == NBD_CMD_BLOCK_STATUS);
    CHECK(req.offset == ((UINT64_C(1) << 63) | 2) && req.length == UINT64_C(0x300000004));
    CHECK(nbd_request_payload_bytes(NBD_MODE_EXTENDED, &req) == UINT64_C(0x300000004));
    CHECK(nbd_status_filter_decode(filter_bytes, sizeof(filter_bytes), &filter) == 0);
    CHECK(filter.length == UINT64_C(0x100000002) && filter.nids == 2);
    CHECK(nbd_status_filter_id(&filter, 0) == 3 && nbd_status_filter_id(&filter, 1) == 0x80000004);
}

static void test_nbd_replies(void)
{
    const struct nbd_request req = {.cookie = UINT64_C(0x1122334455667788), .offset = 0x1000};
    uint8_t buf[NBD_ERROR_CHUNK_BYTES_MAX];

    CHECK(nbd_greeting_encode(buf, 3) == 18 && memcmp(buf, "NBDMAGICIHAVEOPT\0\3", 18) == 0);
    CHECK(nbd_simple_reply_encode(buf, NBD_EIO, req.cookie) == 16);
    CHECK(memcmp(buf, "\x67\x44\x66\x98\0\0\0\x05\x11\x22\x33\x44\x55\x66\x77\x88", 16) == 0);
    CHECK(nbd_chunk_encode(NBD_MODE_STRUCTURED, buf, 1, NBD_REPLY_TYPE_NONE, &req, 0) == 20);
    CHECK(memcmp(buf, "\x66\x8e\x33\xef\0\1\0\0\x11\x22\x33\x44\x55\x66\x77\x88\0\0\0\0", 20) == 0);
    CHECK(nbd_data_chunk_encode(NBD_MODE_EXTENDED, buf, 0, &req, 0x1200, 512) == 40);
    CHECK(memcmp(buf + 16, "\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\2\x08\0\0\0\0\0\0\x12\0", 24) == 0);
    CHECK(nbd_status_desc_encode(buf, true, UINT64_C(1) << 33, 3) == 16);
    CHECK(memcmp(buf, "\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\3", 16) == 0);
    CHECK(nbd_status_desc_encode(buf, false, 0xffffffff, 3) == 8);
    CHECK(memcmp(buf, "\xff\xff\xff\xff\0\0\0\3", 8) == 0);
    CHECK(nbd_info_export_encode(buf, UINT64_C(10) << 30, 0x5ed) == NBD_INFO_EXPORT_BYTES);
    CHECK(memcmp(buf, "\0\0\0\0\0\2\x80\0\0\0\5\xed", 12) == 0);
    CHECK(nbd_error_chunk_encode(NBD_MODE_STRUCTURED, buf, &req, NBD_EINVAL, "no") == 28);
    CHECK(memcmp(buf + 16, "\0\0\0\x08\0\0\0\x16\0\2no", 12) == 0);
}

static void test_nbd_options(void)
{
    static const uint8_t header[] = "IHAVEOPT\0\0\0\7\0\0\1\2";
    static const uint8_t info[] = "\0\0\0\4disk\0\2\0\0\0\3";
    static const uint8_t lies[] = "\xff\xff\xff\xf8\0\2";
    static const uint8_t meta[] = "\0\0\0\4disk\0\0\0\2\0\0\0\5base:\0\0\0\1x";
    struct nbd_option_header option;
    struct nbd_info_request ir;
    struct nbd_meta_request mr;
    struct nbd_string query;

    CHECK(nbd_option_decode(header, &option) == 0 && option.option == 7 && option.length == 0x102);
    CHECK(nbd_info_request_decode(info, sizeof(info) - 1, &ir) == 0);
    CHECK(nbd_string_equal(ir.name, "disk") && ir.ninfos == 2);
    CHECK(nbd_info_request_has(&ir, NBD_INFO_BLOCK_SIZE));
    CHECK(!nbd_info_request_has(&ir, NBD_INFO_NAME));
    CHECK(nbd_info_request_decode(lies, sizeof(lies) - 1, &ir) < 0);
    CHECK(nbd_meta_request_decode(meta, sizeof(meta) - 1, &mr) == 0);
    CHECK(nbd_meta_query_next(&mr, &query) && nbd_string_equal(query, "base:"));
    CHECK(nbd_meta_query_next(&mr, &query) && nbd_string_equal(query, "x"));
    CHECK(!nbd_meta_query_next(&mr, &query));
}

int main(void)
{
    test_registers();
    test_many_switches();
    test_nested();
    test_pool();
    test_bytes();
    test_texts();
    test_iov();
    test_budget();
    test_nbd_requests();
    test_nbd_replies();
    test_nbd_options();
    printf("ok: %u bits, %s-endian\n", (unsigned)sizeof(void *) * 8,
           __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? "big" : "little");
    return 0;
}
