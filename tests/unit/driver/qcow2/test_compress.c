/* SPDX-License-Identifier: MIT */
/* The codecs: there and back, what does not shrink, what is cut short, hostile or padded. */
#include "../../cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/format/qcow2/compress.h"
#include "driver/format/qcow2/qcow2.h"

static struct q2_packer packer; /* one for all, as an image keeps it between clusters */

static unsigned long seed;

static uint32_t next_random(void)
{
    seed = seed * 6364136223846793005ul + 1442695040888963407ul;
    return (uint32_t)(seed >> 33);
}

/* Repeats itself over distances of up to far bytes. */
static void fill(uint8_t *buf, size_t bytes, size_t far)
{
    for (size_t i = 0; i < bytes; i++) {
        if (i >= far && next_random() % 4 != 0) {
            size_t n = 3 + next_random() % 40;
            size_t from = i - 1 - next_random() % far;

            for (; n > 0 && i < bytes; n--, i++, from++) {
                buf[i] = buf[from];
            }
            i--;
        } else {
            buf[i] = (uint8_t)next_random();
        }
    }
}

static const struct {
    enum q2_compression type;
    bool compat;
} kinds[] = {
    {Q2_COMPRESSION_ZLIB, false}, {Q2_COMPRESSION_ZLIB, true}, {Q2_COMPRESSION_ZSTD, false}};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void there_and_back(void **state)
{
    (void)state;
    for (size_t k = 0; k < KINDS; k++) {
        if (!q2_compression_known(kinds[k].type)) {
            continue;
        }
        for (unsigned bits = 9; bits <= 21; bits += 3) {
            size_t bytes = (size_t)1 << bits;
            uint8_t *in = malloc(bytes);
            uint8_t *out = malloc(bytes + 511);
            uint8_t *back = malloc(bytes);
            int64_t used;

            fill(in, bytes, bytes / 4);
            used = q2_compress(&packer, kinds[k].type, kinds[k].compat, in, bytes, out, bytes);
            assert_true(used > 0 && used < (int64_t)bytes);
            /* what follows in the last sector is ignored */
            memset(out + used, 0xa5, bytes + 511 - (size_t)used);
            for (size_t more = 0; more < 512; more += 511) {
                memset(back, 0, bytes);
                assert_int_equal(
                    q2_decompress(kinds[k].type, out, (size_t)used + more, back, bytes), 0);
                assert_memory_equal(in, back, bytes);
            }
            assert_int_equal(q2_decompress(kinds[k].type, out, (size_t)used / 2, back, bytes),
                             -EIO);
            free(in);
            free(out);
            free(back);
        }
    }
}

/* A stream of more or less than a cluster: the cluster counts. */
static void longer_and_shorter(void **state)
{
    uint8_t in[8192];
    uint8_t out[8192];
    uint8_t back[8192];

    (void)state;
    fill(in, sizeof(in), 512);
    for (size_t k = 0; k < KINDS; k++) {
        int64_t used;

        if (!q2_compression_known(kinds[k].type)) {
            continue;
        }
        used =
            q2_compress(&packer, kinds[k].type, kinds[k].compat, in, sizeof(in), out, sizeof(out));
        assert_true(used > 0);
        assert_int_equal(q2_decompress(kinds[k].type, out, (size_t)used, back, 4096), 0);
        assert_memory_equal(in, back, 4096);
        used = q2_compress(&packer, kinds[k].type, kinds[k].compat, in, 4096, out, sizeof(out));
        assert_true(used > 0);
        assert_int_equal(q2_decompress(kinds[k].type, out, (size_t)used, back, sizeof(back)), -EIO);
    }
}

static void does_not_shrink(void **state)
{
    uint8_t in[4096];
    uint8_t out[4096];

    (void)state;
    for (size_t i = 0; i < sizeof(in); i++) {
        in[i] = (uint8_t)next_random();
    }
    for (size_t k = 0; k < KINDS; k++) {
        if (q2_compression_known(kinds[k].type)) {
            assert_int_equal(q2_compress(&packer, kinds[k].type, kinds[k].compat, in, sizeof(in),
                                         out, sizeof(out)),
                             0);
        }
    }
}

static void hostile(void **state)
{
    uint8_t in[4096];
    uint8_t out[4096] = {0};
    uint8_t back[4096];

    (void)state;
    for (int round = 0; round < 20000; round++) {
        size_t k = next_random() % KINDS;
        int64_t used = 100;
        int ret;

        if (!q2_compression_known(kinds[k].type)) {
            continue;
        }
        if (round % 4 != 0) { /* a good one with a few bytes changed */
            fill(in, sizeof(in), 256);
            used = q2_compress(&packer, kinds[k].type, kinds[k].compat, in, sizeof(in), out,
                               sizeof(out));
            assert_true(used > 0);
        }
        for (int i = round % 4 != 0 ? 3 : (int)used; i > 0; i--) {
            out[next_random() % (uint32_t)used] = (uint8_t)next_random();
        }
        ret = q2_decompress(kinds[k].type, out, (size_t)used, back, sizeof(back));
        assert_true(ret == 0 || ret == -EIO || ret == -ENOMEM);
    }
}

/* Clusters that qemu-img 7.2 wrote, of "line N" with N below 37. */
static const uint8_t reference_zlib[] = {
    0xed, 0xd0, 0xb1, 0x0d, 0x83, 0x40, 0x10, 0x44, 0xd1, 0x9c, 0x2a, 0x28, 0x81, 0x99, 0x05,
    0x8c, 0x0b, 0x72, 0x80, 0x84, 0xe8, 0x3f, 0x44, 0x68, 0xff, 0x15, 0x61, 0x69, 0xa2, 0x89,
    0xee, 0x69, 0xef, 0x5f, 0xe7, 0xfd, 0x9b, 0x97, 0xe9, 0x7a, 0x47, 0x3d, 0xee, 0xa9, 0x9e,
    0xb5, 0x67, 0xeb, 0xd9, 0x7b, 0x3e, 0x3d, 0x47, 0xcf, 0x97, 0xe7, 0x83, 0xc1, 0x11, 0x90,
    0x90, 0x04, 0x25, 0x2c, 0x81, 0x09, 0x4d, 0x70, 0xc2, 0x33, 0x9e, 0xc7, 0x5d, 0x78, 0xc6,
    0x33, 0x9e, 0xf1, 0x8c, 0x67, 0x3c, 0xe3, 0x19, 0xaf, 0xf0, 0x0a, 0xaf, 0xc6, 0x47, 0xf1,
    0x0a, 0xaf, 0xf0, 0x0a, 0x2f, 0x75, 0x52, 0x27, 0x75, 0x52, 0x27, 0x75, 0x52, 0x27, 0x75,
    0x52, 0x27, 0x75, 0x52, 0x27, 0x75, 0x52, 0x27, 0x75, 0x52, 0xe7, 0xef, 0xeb, 0x3c};
static const uint8_t reference_zstd[] = {
    0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x0f, 0x95, 0x03, 0x00, 0xa4, 0x02, 0x6c, 0x69, 0x6e, 0x65,
    0x20, 0x30, 0x0a, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x31, 0x31, 0x31, 0x31,
    0x31, 0x31, 0x31, 0x31, 0x31, 0x32, 0x32, 0x32, 0x32, 0x32, 0x32, 0x32, 0x32, 0x32, 0x32, 0x33,
    0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x27, 0x20, 0x60, 0x93, 0x52, 0x3b, 0xd2, 0x0e, 0x49, 0x1e,
    0xb4, 0x1e, 0xb8, 0xeb, 0x58, 0x27, 0xee, 0x38, 0xe6, 0x84, 0xbb, 0x8e, 0x39, 0xe1, 0xce, 0x31,
    0x4e, 0xba, 0x73, 0x8c, 0x13, 0x77, 0x38, 0x36, 0xed, 0x44, 0xda, 0x5d, 0xb4, 0x63, 0xd0, 0x4e,
    0x9e, 0xdd, 0x39, 0x3b, 0xd6, 0xec, 0x84, 0xd9, 0xdd, 0xb2, 0x0b, 0xe5, 0x3b, 0x98, 0x0d, 0x39,
    0x6e, 0xb0, 0x43, 0x8e, 0x1b, 0xcc, 0x90, 0x32, 0x57, 0xd7, 0x30, 0x02};

static void of_the_reference(void **state)
{
    char in[4096 + 16];
    uint8_t back[4096];
    size_t used = 0;

    (void)state;
    for (int i = 0; used < sizeof(back); i++) {
        used += (size_t)snprintf(in + used, 16, "line %d\n", i % 37);
    }
    if (q2_compression_known(Q2_COMPRESSION_ZLIB)) {
        assert_int_equal(q2_decompress(Q2_COMPRESSION_ZLIB, reference_zlib, sizeof(reference_zlib),
                                       back, sizeof(back)),
                         0);
        assert_memory_equal(in, back, sizeof(back));
    }
    if (q2_compression_known(Q2_COMPRESSION_ZSTD)) {
        assert_int_equal(q2_decompress(Q2_COMPRESSION_ZSTD, reference_zstd, sizeof(reference_zstd),
                                       back, sizeof(back)),
                         0);
        assert_memory_equal(in, back, sizeof(back));
    }
}

int main(void)
{
    const char *text = getenv("PLATTER_SEED");
    int failed;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),   cmocka_unit_test(longer_and_shorter),
        cmocka_unit_test(does_not_shrink),  cmocka_unit_test(hostile),
        cmocka_unit_test(of_the_reference),
    };

    seed = text != NULL ? strtoul(text, NULL, 10) : 1;
    printf("PLATTER_SEED=%lu\n", seed);
    failed = cmocka_run_group_tests(tests, NULL, NULL);

    q2_packer_fini(&packer);
    return failed;
}
