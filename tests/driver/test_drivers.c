/* SPDX-License-Identifier: MIT */
/*
 * What null, mem and raw promise and the property suite cannot see: refusals and their words,
 * limits. test_file.c has the file driver.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/image.h>

#include "fixture.h"
#include "util/mem.h"

#define MIB (INT64_C(1) << 20)

/* ---- null ---- */

static void null_options(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, "driver=null-co");
    Error *err = NULL;
    uint8_t buf[16];

    assert_int_equal(blk_getlength(blk), 1 << 30);
    memset(buf, 7, sizeof(buf));
    assert_int_equal(blk_pread(blk, 5, buf, 16), 16);
    assert_int_equal(buf[3], 7);
    blk_unref(blk);

    blk = must_open(pl, "driver=null-aio,size=1000,read-zeroes=on,latency-ns=1000");
    assert_int_equal(blk_getlength(blk), 1000);
    assert_int_equal(blk_pread(blk, 5, buf, 16), 16);
    assert_int_equal(buf[3], 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(bdrv_get_allocated_file_size(blk_bs(blk)), 0);
    blk_unref(blk);

    blk = blk_new_open(pl, "d", "null-co://", NULL, NULL, BDRV_O_RDWR, &err);
    assert_non_null(blk);
    blk_unref(blk);
    assert_null(blk_new_open(pl, "d", "null-co://10M", NULL, NULL, BDRV_O_RDWR, &err));
    assert_non_null(strstr(error_get_pretty(err), "only allowed filename"));
    error_free(err);
    refused(pl, "driver=null-co,size=-5", EINVAL, "size");
    refused(pl, "driver=null-co,latency-ns=-5", EINVAL, "latency-ns");
    refused(pl, "driver=null-co,foo=5", EINVAL, "foo");
    platter_free(pl);
}

/* ---- mem ---- */

static void mem_space(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, "driver=mem,size=64M");
    uint64_t before, empty;
    uint8_t byte = 9;

    assert_int_equal(blk_pread(blk, 0, &byte, 1), 1); /* the first coroutine's stack is charged */
    blk_unref(blk);
    before = platter_memory_used_bytes(pl);
    blk = must_open(pl, "driver=mem,size=64M");
    empty = platter_memory_used_bytes(pl);
    assert_true(empty > before);
    assert_int_equal(bdrv_get_allocated_file_size(blk_bs(blk)), 0);
    assert_int_equal(blk_pwrite(blk, 10 * MIB, &byte, 1), 1);
    assert_int_equal(bdrv_get_allocated_file_size(blk_bs(blk)), 65536);
    assert_true(platter_memory_used_bytes(pl) >= empty + 65536);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 64 * MIB, BDRV_REQ_MAY_UNMAP), 0);
    assert_int_equal(bdrv_get_allocated_file_size(blk_bs(blk)), 0);
    blk_unref(blk);
    assert_int_equal(platter_memory_used_bytes(pl), before);

    blk = blk_new_open(pl, "d", "mem:1G", NULL, NULL, BDRV_O_RDWR, NULL);
    assert_non_null(blk);
    assert_int_equal(blk_getlength(blk), 1 << 30);
    assert_string_equal(bdrv_get_filename(blk_bs(blk)), "mem:1073741824");
    blk_unref(blk);
    refused(pl, "driver=mem", EINVAL, "size");
    refused(pl, "driver=mem,size=2E", 0, "size");
    platter_free(pl);
}

static void mem_budget(void **state)
{
    struct platter_options opts = {.size = sizeof(opts), .memory_limit_bytes = 8 * MIB};
    Platter *pl = platter_new(&opts, NULL);
    BlockBackend *blk = must_open(pl, "driver=mem,size=1G");
    uint8_t *buf = calloc(1, MIB);
    int rc = (int)MIB;
    int64_t at = 0;

    for (; rc == MIB && at < 64 * MIB; at += MIB) {
        rc = blk_pwrite(blk, at, buf, (int)MIB);
    }
    assert_int_equal(rc, -ENOSPC);
    assert_true(platter_memory_used_bytes(pl) <= 8 * MIB);
    assert_int_equal(blk_pdiscard(blk, 0, 1024 * MIB), 0);
    assert_int_equal(blk_pwrite(blk, at, buf, (int)MIB), MIB);
    blk_unref(blk);
    free(buf);
    platter_free(pl);
}

/* ---- raw ---- */

static void raw_window(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk;
    Error *err = NULL;

    refused(pl, "driver=raw,size=1000,file.driver=mem,file.size=1M", EINVAL, "512");
    refused(pl, "driver=raw,size=2M,file.driver=mem,file.size=1M", EINVAL, "1048576");
    refused(pl, "driver=raw,offset=2M,file.driver=mem,file.size=1M", EINVAL, "Offset");
    refused(pl, "driver=raw,offset=1M,size=512,file.driver=mem,file.size=1M", EINVAL, "size");
    refused(pl, "driver=raw", EINVAL, "file");

    blk = must_open(pl, "driver=raw,offset=1M,file.driver=mem,file.size=1M");
    assert_int_equal(blk_getlength(blk), 0);
    assert_int_equal(resize(blk, 4096, BDRV_PREALLOC_OFF, NULL), 0);
    assert_int_equal(blk_getlength(blk), 4096);
    assert_int_equal(resize(blk, INT64_MAX, BDRV_PREALLOC_OFF, NULL), -EFBIG);
    blk_unref(blk);

    blk = must_open(pl, "driver=raw,size=1024,file.driver=mem,file.size=1M");
    assert_int_equal(resize(blk, 2048, BDRV_PREALLOC_OFF, &err), -ENOTSUP);
    assert_non_null(strstr(error_get_pretty(err), "fixed-size"));
    error_free(err);
    assert_int_equal(blk_getlength(blk), 1024);
    blk_unref(blk);
    platter_free(pl);
}

static int measure_raw(Platter *pl, const char *options, BlockDriverState *source, uint64_t *ret)
{
    struct bdrv_measure_result result = {0};
    int rc = bdrv_measure(pl, "raw", options ? block_options_parse(options, NULL, NULL) : NULL,
                          source, &result, NULL);

    assert_int_equal(result.required_bytes, result.fully_allocated_bytes);
    *ret = result.required_bytes;
    return rc;
}

/* As `qemu-img measure -O raw`: the size, however much of it is data; whole sectors where the
 * instance wants them. */
static void measure_in(bool whole_sectors, uint64_t want)
{
    struct platter_options options = {.size = sizeof(options), .whole_sectors = whole_sectors};
    Platter *pl = platter_new(&options, NULL);
    BlockBackend *blk = must_open(pl, "driver=null-co,size=10000100");
    uint64_t bytes;

    assert_int_equal(measure_raw(pl, "size=10M", NULL, &bytes), 0);
    assert_int_equal(bytes, 10 * MIB);
    assert_int_equal(measure_raw(pl, "size=10000100,preallocation=full", NULL, &bytes), 0);
    assert_int_equal(bytes, want);
    assert_int_equal(measure_raw(pl, NULL, blk_bs(blk), &bytes), 0);
    assert_int_equal(bytes, want);
    assert_int_equal(measure_raw(pl, "size=0", NULL, &bytes), 0);
    assert_int_equal(bytes, 0);
    assert_int_equal(measure_raw(pl, NULL, NULL, &bytes), -EINVAL);
    assert_int_equal(measure_raw(pl, "size=1M,colour=red", NULL, &bytes), -EINVAL);
    assert_int_equal(measure_raw(pl, "size=9223372036854775807", NULL, &bytes), -EFBIG);
    blk_unref(blk);
    platter_free(pl);
}

static void raw_measure(void **state)
{
    measure_in(false, 10000100);
    measure_in(true, 10000384);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_options), cmocka_unit_test(mem_space),   cmocka_unit_test(mem_budget),
        cmocka_unit_test(raw_window),   cmocka_unit_test(raw_measure),
    };

    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
