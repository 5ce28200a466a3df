/* SPDX-License-Identifier: MIT */
/* The door of a node, case by case: flushes, zeroes and discards. */
#include "request_fixture.h"

#include "util/mem.h"

/* ---- flush ---- */

static void test_flush_generations(void **state)
{
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 0); /* nothing was written */
    assert_int_equal(wr(0, 512, 0), 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 1);
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 1);
    assert_int_equal(rd(0, 512, 0), 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 1);
    assert_int_equal(zero(0, 512, 0), 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 2);
    assert_int_equal(discard(0, 512), 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 3);
    node.f.write_error = -ENOSPC; /* a failed write may have written */
    assert_int_equal(wr(0, 512, 0), -ENOSPC);
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 4);
}

static void test_flush_failure_is_not_forgotten(void **state)
{
    assert_int_equal(wr(0, 512, 0), 0);
    node.f.flush_error = -EIO;
    assert_int_equal(flush(), -EIO);
    assert_int_equal(flush(), -EIO);
    node.f.flush_error = 0;
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 3);
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 3);
}

/* Ten at once: one works, one more serves all that waited. A write that ends while a flush runs is
 * not covered by it. */
static void test_flush_merge(void **state)
{
    struct fake_call call = fake_call_of(&node.edge, BDRV_OP_FLUSH, 0, 0, 0);
    struct fake_run runs[10];
    struct fake_run late;

    node.f.suspend = 3;
    assert_int_equal(wr(0, 512, 0), 0);
    for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
        fake_start(&runs[i], fake_call_run, &call);
    }
    assert_int_equal(node.f.flushes, 1);
    atomic_fetch_add(&node.bs.write_gen, 1);
    fake_start(&late, fake_call_run, &call);
    for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
        assert_int_equal(fake_wait(&runs[i]), 0);
    }
    assert_int_equal(fake_wait(&late), 0);
    assert_int_equal(node.f.flushes, 2);
    assert_int_equal(node.f.max_flushing, 1);
}

static void test_no_flush(void **state)
{
    node.bs.open_flags |= BDRV_O_NO_FLUSH;
    assert_int_equal(wr(0, 512, BDRV_REQ_FUA), 0);
    assert_int_equal(zero(0, 512, BDRV_REQ_FUA), 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 0);
    assert_int_equal(node.f.last_flags & BDRV_REQ_FUA, 0);
}

static void test_fua(void **state)
{
    assert_int_equal(wr(0, 512, BDRV_REQ_FUA), 0);
    assert_int_equal(node.f.last_flags, 0);
    assert_int_equal(node.f.flushes, 1);
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 1);
    node.f.flush_error = -EIO;
    assert_int_equal(wr(0, 512, BDRV_REQ_FUA), -EIO);
    node.f.flush_error = 0;
    node.f.write_error = -ENOSPC;
    assert_int_equal(wr(0, 512, BDRV_REQ_FUA), -ENOSPC);
    assert_int_equal(node.f.flushes, 2);
    node.f.write_error = 0;
    node.bs.caps |= BDRV_CAP_FUA;
    assert_int_equal(wr(0, 512, BDRV_REQ_FUA), 0);
    assert_int_equal(node.f.last_flags, BDRV_REQ_FUA);
    assert_int_equal(node.f.flushes, 2);
    assert_int_equal(zero(0, 512, BDRV_REQ_FUA), 0);
    assert_int_equal(node.f.last_flags, 0);
    assert_int_equal(node.f.flushes, 3);
    node.bs.caps |= BDRV_CAP_ZERO_FUA;
    assert_int_equal(zero(0, 512, BDRV_REQ_FUA), 0);
    assert_int_equal(node.f.last_flags, BDRV_REQ_FUA);
    assert_int_equal(node.f.flushes, 3);
    /* all pieces of a long one */
    node.bs.bl.max_transfer = 4096;
    assert_int_equal(wr(0, 16384, BDRV_REQ_FUA), 0);
    assert_int_equal(node.f.last_flags, BDRV_REQ_FUA);
    node.bs.caps &= ~(unsigned)BDRV_CAP_FUA;
    assert_int_equal(wr(0, 16384, BDRV_REQ_FUA), 0);
    assert_int_equal(node.f.flushes, 4);
}

/* ---- zeroes and discard ---- */

static void test_zeroes_fallback(void **state)
{
    node.f.zeroes_error = -ENOTSUP;
    memset(node.f.data, 1, NODE_BYTES);
    assert_int_equal(zero(10, 40000, 0), 0);
    assert_int_equal(node.f.zeroes, 1);
    assert_true(buffer_is_zero(node.f.data + 10, 40000));
    assert_int_equal(node.f.data[9] + node.f.data[40010], 2);
    assert_int_equal(zero(0, 40000, BDRV_REQ_NO_FALLBACK), -ENOTSUP);
    node.bs.caps |= BDRV_CAP_ZERO_NO_FALLBACK;
    assert_int_equal(zero(0, 40000, BDRV_REQ_NO_FALLBACK), -ENOTSUP);
    assert_int_equal(node.f.last_flags, BDRV_REQ_NO_FALLBACK);
    node.f.zeroes_error = 0;
    assert_int_equal(zero(0, 40000, BDRV_REQ_NO_FALLBACK), 0);
    /* ends that the driver cannot zero */
    node.bs.bl.pwrite_zeroes_alignment = 4096;
    node.f.writes = 0;
    assert_int_equal(zero(0, 40000, BDRV_REQ_NO_FALLBACK), -ENOTSUP);
    assert_int_equal(zero(0, 1000, BDRV_REQ_NO_FALLBACK), -ENOTSUP);
    assert_int_equal(node.f.writes, 0);
    assert_int_equal(zero(0, 40960, BDRV_REQ_NO_FALLBACK), 0);
    assert_int_equal(zero(0, 40000, 0), 0);
    assert_int_equal(node.f.writes, 1);
    node.f.drv.write_zeroes_co = NULL;
    assert_int_equal(zero(0, 4096, BDRV_REQ_NO_FALLBACK), -ENOTSUP);
    assert_int_equal(zero(0, 4096, 0), 0);
    assert_int_equal(node.f.writes, 2);
}

/* A short end in front does not cut the one behind into many writes. */
static void test_zeroes_ends(void **state)
{
    node.bs.bl.pwrite_zeroes_alignment = 4096;
    node.f.writes = 0;
    assert_int_equal(zero(4096 - 21, 21 + 4096 + 3482, 0), 0);
    assert_int_equal(node.f.zeroes, 1);
    assert_int_equal(node.f.writes, 2);
}

static void test_zeroes_error_passes(void **state)
{
    node.f.zeroes_error = -EIO;
    assert_int_equal(zero(0, 4096, 0), -EIO);
    assert_int_equal(node.f.writes, 0);
}

static void test_zeroes_large_fallback_is_bounded(void **state)
{
    uint64_t size = UINT64_C(3) << 20;

    node.f.drv.write_zeroes_co = NULL;
    atomic_store(&node.bs.size_bytes, (int64_t)size);
    atomic_store(&node.f.file_size, size);
    fake_pl.budget.limit_bytes = 65536;
    memset(node.f.data, 1, size);
    assert_int_equal(zero(0, size, 0), 0);
    assert_true(buffer_is_zero(node.f.data, size));
    assert_true(node.f.max_write_bytes <= 1 << 20);
    assert_true(node.f.writes <= 4);
}

static void test_unmap(void **state)
{
    node.bs.caps |= BDRV_CAP_ZERO_UNMAP;
    assert_int_equal(zero(0, 4096, BDRV_REQ_MAY_UNMAP), 0);
    assert_int_equal(node.f.last_flags, BDRV_REQ_MAY_UNMAP);
    assert_int_equal(zero(0, 4096, 0), 0);
    assert_int_equal(node.f.last_flags, 0);
    node.bs.open_flags &= ~BDRV_O_UNMAP;
    assert_int_equal(zero(0, 4096, BDRV_REQ_MAY_UNMAP), 0);
    assert_int_equal(node.f.last_flags, 0);
    assert_int_equal(discard(0, 4096), 0);
    assert_int_equal(node.f.discards, 0);
}

static void test_detect_zeroes(void **state)
{
    node.bs.caps |= BDRV_CAP_ZERO_UNMAP;
    memset(buf, 0, sizeof(buf));
    assert_int_equal(wr(0, 4096, 0), 0);
    assert_int_equal(node.f.zeroes, 0);
    node.bs.detect_zeroes = BDRV_DETECT_ZEROES_ON;
    assert_int_equal(wr(0, 4096, 0), 0);
    assert_int_equal(node.f.zeroes, 1);
    assert_int_equal(node.f.last_flags, 0);
    node.bs.detect_zeroes = BDRV_DETECT_ZEROES_UNMAP;
    assert_int_equal(wr(0, 4096, 0), 0);
    assert_int_equal(node.f.zeroes, 2);
    assert_int_equal(node.f.last_flags, BDRV_REQ_MAY_UNMAP);
    buf[4095] = 1;
    assert_int_equal(wr(0, 4096, 0), 0);
    assert_int_equal(node.f.zeroes, 2);
}

static void test_discard(void **state)
{
    node.bs.bl.pdiscard_alignment = 12288; /* devices do say such things */
    node.bs.bl.max_pdiscard = 20000;
    assert_int_equal(discard(1, 12288), 0);
    assert_int_equal(node.f.discards, 0);
    assert_int_equal(discard(1, 12288 * 3 + 5), 0);
    assert_int_equal(node.f.discards, 2);
    assert_int_equal(node.f.last_offset, 24576);
    assert_int_equal(node.f.last_bytes, 12288);
    node.f.discard_error = -ENOTSUP;
    assert_int_equal(discard(0, 65536), 0);
    assert_int_equal(node.f.discards, 3);
    node.f.discard_error = -EIO;
    assert_int_equal(discard(0, 65536), -EIO);
    node.f.drv.discard_co = NULL;
    assert_int_equal(discard(0, 65536), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(flush_generations),
        T(flush_failure_is_not_forgotten),
        T(flush_merge),
        T(no_flush),
        T(fua),
        T(zeroes_fallback),
        T(zeroes_ends),
        T(zeroes_error_passes),
        T(zeroes_large_fallback_is_bounded),
        T(unmap),
        T(detect_zeroes),
        T(discard),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
