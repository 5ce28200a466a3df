/* SPDX-License-Identifier: MIT */
/*
 * The door of a node, case by case: what is refused, forwarded, held off, cut in pieces.
 * test_request_durable.c has flushes, zeroes and discards.
 */
#include "request_fixture.h"

#include "util/mem.h"

/* ---- refusals ---- */

static void test_unknown_flags(void **state)
{
    for (unsigned op = BDRV_OP_READ; op <= BDRV_OP_FLUSH + 1; op++) {
        for (unsigned bit = 0; bit < 32; bit++) {
            unsigned flag = 1u << bit;
            struct fake_call call = fake_call_of(&node.edge, (enum bdrv_op)op, 0, 512, flag);

            call.iov = (struct iovec){buf, 512};
            call.req.iov = &call.iov;
            call.req.niov = 1;
            if (!(bdrv_op_flags((enum bdrv_op)op) & flag) || flag == BDRV_REQ_NO_WAIT) {
                assert_int_equal(fake_do(fake_call_run, &call), -EINVAL);
            }
        }
    }
    assert_int_equal(node.f.reads + node.f.writes + node.f.zeroes + node.f.discards, 0);
}

static void test_ranges(void **state)
{
    static const struct {
        uint64_t offset, bytes;
        int ret;
    } table[] = {
        {0, 0, 0},
        {NODE_BYTES, 0, 0},
        {NODE_BYTES + 1, 0, -EIO},
        {0, NODE_BYTES, 0},
        {0, NODE_BYTES + 1, -EIO},
        {NODE_BYTES - 1, 1, 0},
        {NODE_BYTES - 1, 2, -EIO},
        {NODE_BYTES, 1, -EIO},
        {INT64_MAX, 0, -EIO},
        {INT64_MAX, 1, -EIO},
        {INT64_MAX, INT64_MAX, -EIO},
        {UINT64_MAX, 1, -EIO},
        {1, UINT64_MAX, -EIO},
        {UINT64_MAX, UINT64_MAX, -EIO},
        {UINT64_MAX - 511, 512, -EIO},
        {0, UINT64_MAX, -EIO},
    };
    static const uint32_t aligns[] = {1, 512};

    for (size_t a = 0; a < ARRAY_SIZE(aligns); a++) {
        node.bs.bl.request_alignment = aligns[a];
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
            for (unsigned op = BDRV_OP_READ; op <= BDRV_OP_DISCARD; op++) {
                struct fake_call call =
                    fake_call_of(&node.edge, (enum bdrv_op)op, table[i].offset, table[i].bytes, 0);

                call.iov = (struct iovec){buf, sizeof(buf)};
                call.req.iov = &call.iov;
                call.req.niov = 1;
                assert_int_equal(fake_do(fake_call_run, &call), table[i].ret);
            }
        }
    }
}

static void test_size_unknown(void **state)
{
    atomic_store(&node.bs.size_bytes, -ENOMEDIUM);
    assert_int_equal(rd(0, 512, 0), -ENOMEDIUM);
    assert_int_equal(wr(0, 512, 0), -ENOMEDIUM);
    assert_int_equal(zero(0, 512, 0), -ENOMEDIUM);
    assert_int_equal(discard(0, 512), -ENOMEDIUM);
}

static void test_no_driver_and_broken(void **state)
{
    const BlockDriver *drv = node.bs.drv;

    for (int i = 0; i < 2; i++) {
        int ret = i == 0 ? -ENOMEDIUM : -EIO;

        node.bs.drv = i == 0 ? NULL : drv;
        atomic_store(&node.bs.broken, i == 0 ? NULL : (char *)"it lies");
        assert_int_equal(rd(0, 512, 0), ret);
        assert_int_equal(rd(1, 51, 0), ret);
        assert_int_equal(wr(0, 512, 0), ret);
        assert_int_equal(zero(0, 512, 0), ret);
        assert_int_equal(discard(0, 512), ret);
        assert_int_equal(flush(), ret);
    }
}

static void test_permissions(void **state)
{
    node.edge.perm = BDRV_PERM_CONSISTENT_READ | BDRV_PERM_RESIZE;
    assert_int_equal(rd(0, 512, 0), 0);
    assert_int_equal(wr(0, 512, 0), -EPERM);
    assert_int_equal(wr(0, 512, BDRV_REQ_WRITE_UNCHANGED), -EPERM);
    assert_int_equal(zero(0, 512, 0), -EPERM);
    assert_int_equal(discard(0, 512), -EPERM);
    assert_int_equal(flush(), 0);
    node.edge.perm = BDRV_PERM_WRITE_UNCHANGED;
    assert_int_equal(wr(0, 512, 0), -EPERM);
    assert_int_equal(wr(0, 512, BDRV_REQ_WRITE_UNCHANGED), 0);
    node.edge.perm = BDRV_PERM_ALL;
    node.bs.read_only = true;
    assert_int_equal(rd(0, 512, 0), 0);
    assert_int_equal(wr(0, 512, 0), -EPERM);
    assert_int_equal(zero(0, 512, 0), -EPERM);
    assert_int_equal(discard(0, 512), -EPERM);
    atomic_store(&node.bs.write_gen, 7);
    assert_int_equal(flush(), 0);
    assert_int_equal(node.f.flushes, 0);
}

static void test_write_past_end(void **state)
{
    assert_int_equal(wr(NODE_BYTES - 10, 20, 0), -EIO);
    node.bs.caps |= BDRV_CAP_GROWS_ON_WRITE;
    node.edge.perm &= ~(uint64_t)BDRV_PERM_RESIZE;
    assert_int_equal(wr(NODE_BYTES - 10, 20, 0), -EIO);
    node.edge.perm |= BDRV_PERM_RESIZE;
    assert_int_equal(wr(NODE_BYTES - 10, 20, 0), 0);
    assert_int_equal(node.bs.size_bytes, NODE_BYTES + 10);
    assert_int_equal(rd(NODE_BYTES - 10, 20, 0), 0);
    assert_int_equal(wr((uint64_t)INT64_MAX - 5, 6, 0), -EIO);
}

static void test_compressed(void **state)
{
    assert_int_equal(wr(0, 512, BDRV_REQ_WRITE_COMPRESSED), -ENOTSUP);
    node.bs.caps |= BDRV_CAP_COMPRESSED;
    assert_int_equal(wr(0, 512, BDRV_REQ_WRITE_COMPRESSED), 0);
    assert_int_equal(node.f.last_flags, BDRV_REQ_WRITE_COMPRESSED);
    node.bs.bl.max_transfer = 512; /* a cluster is not cut in two */
    node.bs.bl.max_iov = 1;
    assert_int_equal(wr(0, 2048, BDRV_REQ_WRITE_COMPRESSED), 0);
    assert_int_equal(node.f.last_bytes, 2048);
    assert_int_equal(atomic_load(&node.f.writes), 2);
}

static void test_out_of_budget(void **state)
{
    node.bs.bl.request_alignment = 4096;
    fake_pl.budget.limit_bytes = 4000;
    assert_int_equal(rd(1, 10, 0), -ENOMEM);
    assert_int_equal(wr(1, 10, 0), -ENOMEM);
    node.f.drv.write_zeroes_co = NULL;
    assert_int_equal(zero(0, 4096, 0), -ENOMEM);
    assert_int_equal(rd(0, 4096, 0), 0);
    assert_int_equal(fake_pl.budget.used_bytes, 0);
}

static void test_probe_guard(void **state)
{
    assert_int_equal(wr(0, 512, 0), 0);
    assert_int_equal(fake_guarded, 0);
    node.bs.probed = true;
    assert_int_equal(wr(512, 512, 0), 0);
    assert_int_equal(rd(0, 512, 0), 0);
    assert_int_equal(fake_guarded, 0);
    assert_int_equal(wr(511, 512, 0), 0);
    assert_int_equal(fake_guarded, 1);
    fake_guard_answer = -EPERM;
    assert_int_equal(wr(0, 1, 0), -EPERM);
    assert_int_equal(node.f.writes, 3);
    assert_int_equal(zero(3, 1, 0), -EPERM);
    assert_int_equal(fake_request(&node.edge, BDRV_OP_DISCARD, 3, 1, 0), -EPERM);
    assert_int_equal(node.f.zeroes + node.f.discards, 0);
    assert_int_equal(zero(512, 512, 0), 0);
}

/* A guessed node that is folded away is asked all the same. */
static void test_probe_guard_folded(void **state)
{
    struct fake_node top;

    fake_node_init(&top, &fake_pl, NODE_BYTES);
    fake_node_put_on(&top, &node, BDRV_ROLE_PRIMARY | BDRV_ROLE_FILTERED);
    top.bs.through = &node.bs;
    top.bs.probed = true;
    fake_guard_answer = -EPERM;
    assert_int_equal(fake_rw(&top.edge, BDRV_OP_WRITE, 100, buf, 10, 0), -EPERM);
    assert_int_equal(fake_rw(&top.edge, BDRV_OP_WRITE, 512, buf, 10, 0), 0);
    assert_int_equal(node.f.writes, 1);
    fake_node_fini(&top);
}

/* ---- through filters ---- */

static void test_filter_forwards(void **state)
{
    struct fake_node top;
    BlockDriver none = {.format_name = "nothing", .caps = BDRV_CAP_FILTER};

    fake_node_init(&top, &fake_pl, NODE_BYTES);
    fake_node_put_on(&top, &node, BDRV_ROLE_PRIMARY | BDRV_ROLE_FILTERED);
    top.bs.drv = &none;
    top.bs.caps = none.caps;
    assert_int_equal(fake_rw(&top.edge, BDRV_OP_WRITE, 3, buf, 10, 0), 0);
    assert_int_equal(fake_rw(&top.edge, BDRV_OP_READ, 3, buf, 10, 0), 0);
    assert_int_equal(fake_request(&top.edge, BDRV_OP_WRITE_ZEROES, 0, 100, 0), 0);
    assert_int_equal(fake_request(&top.edge, BDRV_OP_DISCARD, 0, 100, 0), 0);
    assert_int_equal(fake_request(&top.edge, BDRV_OP_FLUSH, 0, 0, 0), 0);
    assert_int_equal(node.f.writes, 1);
    assert_int_equal(node.f.reads, 1);
    assert_int_equal(node.f.zeroes, 1);
    assert_int_equal(node.f.discards, 1);
    assert_int_equal(node.f.flushes, 1);
    top.bs.caps = BDRV_CAP_FORMAT;
    assert_int_equal(fake_rw(&top.edge, BDRV_OP_WRITE, 3, buf, 10, 0), -ENOTSUP);
    assert_int_equal(fake_rw(&top.edge, BDRV_OP_READ, 3, buf, 10, 0), -ENOTSUP);
    assert_int_equal(fake_request(&top.edge, BDRV_OP_WRITE_ZEROES, 0, 100, 0), -ENOTSUP);
    assert_int_equal(fake_request(&top.edge, BDRV_OP_DISCARD, 0, 100, 0), 0);
    fake_node_fini(&top);
}

/* ---- who waits for whom ---- */

struct overlap_case {
    uint32_t align;
    enum bdrv_op first;
    unsigned first_flags;
    enum bdrv_op second;
    unsigned second_flags;
    uint64_t second_offset;
    bool track_all;
    bool waits;
};

static void overlap_run(const struct overlap_case *c)
{
    struct fake_call first = fake_call_of(&node.edge, c->first, 100, 100, c->first_flags);
    struct fake_call second =
        fake_call_of(&node.edge, c->second, c->second_offset, 100, c->second_flags);
    struct fake_run a, b;
    unsigned ops;

    node.bs.bl.request_alignment = c->align;
    first.iov = second.iov = (struct iovec){buf, 100};
    first.req.iov = &first.iov;
    second.req.iov = &second.iov;
    first.req.niov = second.req.niov = 1;
    node.f.suspend = 1;
    if (c->track_all) {
        bdrv_track_all_begin(&node.bs);
    }
    fake_start(&a, fake_call_run, &first);
    ops = node.f.reads + node.f.writes;
    fake_start(&b, fake_call_run, &second);
    assert_int_equal(node.f.reads + node.f.writes == ops, c->waits);
    assert_int_equal(fake_wait(&a), 0);
    assert_int_equal(fake_wait(&b), 0);
    if (c->track_all) {
        bdrv_track_all_end(&node.bs);
    }
}

static void test_overlap_table(void **state)
{
    const unsigned ser = BDRV_REQ_SERIALISING;
    const struct overlap_case table[] = {
        /* both change a part of one block */
        {512, BDRV_OP_WRITE, 0, BDRV_OP_WRITE, 0, 300, false, true},
        {512, BDRV_OP_WRITE, 0, BDRV_OP_WRITE, 0, 600, false, false},
        /* no block, no matter */
        {1, BDRV_OP_WRITE, 0, BDRV_OP_WRITE, 0, 150, false, false},
        /* reading beside a change of other bytes of the block */
        {512, BDRV_OP_WRITE, 0, BDRV_OP_READ, 0, 300, false, false},
        /* serialising holds off all that come later and overlap */
        {1, BDRV_OP_WRITE, ser, BDRV_OP_WRITE, 0, 150, false, true},
        {1, BDRV_OP_WRITE, ser, BDRV_OP_READ, 0, 150, false, true},
        {1, BDRV_OP_READ, ser, BDRV_OP_WRITE, 0, 150, false, true},
        {1, BDRV_OP_READ, ser, BDRV_OP_READ, ser, 199, false, true},
        {1, BDRV_OP_WRITE, ser, BDRV_OP_WRITE, 0, 200, false, false},
        {1, BDRV_OP_WRITE, ser, BDRV_OP_WRITE, ser, 150, false, true},
        /* and waits for the earlier where these are tracked */
        {1, BDRV_OP_WRITE, 0, BDRV_OP_WRITE, ser, 150, true, true},
        {1, BDRV_OP_READ, 0, BDRV_OP_WRITE, ser, 150, true, true},
        {512, BDRV_OP_WRITE, 0, BDRV_OP_READ, ser, 150, false, true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        overlap_run(&table[i]);
    }
}

static void test_no_wait(void **state)
{
    struct fake_call call =
        fake_call_of(&node.edge, BDRV_OP_WRITE_ZEROES, 0, 100, BDRV_REQ_SERIALISING);
    struct fake_run run;

    node.f.suspend = 1;
    fake_start(&run, fake_call_run, &call);
    assert_int_equal(zero(50, 100, BDRV_REQ_SERIALISING | BDRV_REQ_NO_WAIT), -EBUSY);
    assert_int_equal(fake_wait(&run), 0);
    assert_int_equal(zero(50, 100, BDRV_REQ_SERIALISING | BDRV_REQ_NO_WAIT), 0);
    assert_int_equal(node.bs.serialising, 0);
}

/* A change of the padded last block cuts the file back to its size; what another writes behind it
 * meanwhile must not be cut off. */
static void test_growing_beside_padded_tail(void **state)
{
    struct fake_call tail = fake_call_of(&node.edge, BDRV_OP_WRITE, 900, 50, 0);
    struct fake_call more = fake_call_of(&node.edge, BDRV_OP_WRITE, 1024, 512, 0);
    struct fake_run a, b;

    for (int i = 0; i < 2; i++) {
        node.bs.bl.request_alignment = 512;
        node.bs.caps |= BDRV_CAP_GROWS_ON_WRITE;
        atomic_store(&node.bs.size_bytes, 1000);
        atomic_store(&node.f.file_size, 1000);
        node.f.suspend = 1;
        tail.iov = more.iov = (struct iovec){buf, 512};
        tail.req.iov = &tail.iov;
        more.req.iov = &more.iov;
        tail.req.niov = more.req.niov = 1;
        fake_start(&a, fake_call_run, i == 0 ? &tail : &more);
        fake_start(&b, fake_call_run, i == 0 ? &more : &tail);
        assert_int_equal(fake_wait(&a), 0);
        assert_int_equal(fake_wait(&b), 0);
        assert_int_equal(node.f.file_size, 1536);
        assert_int_equal(node.bs.size_bytes, 1536);
        assert_memory_equal(node.f.data + 1024, buf, 512);
        assert_true(buffer_is_zero(node.f.data + 1000, 24));
    }
}

/* A write that makes the file longer changes the block of the old end (eof_alignment): of it and a
 * write in that block the later waits for the earlier; blocks before that one are free. */
static void test_growing_changes_the_old_end(void **state)
{
    static const struct {
        uint64_t size, other;
        uint64_t offset; /* of the write that grows, 512 bytes */
        bool waits;
    } table[] = {
        {4608, 4096, 8192, true},   {5000, 4096, 8192, true},  {4608, 3584, 8192, false},
        {4096, 3584, 8192, false},  {4608, 4096, 4608, true},  {4700, 4096, 4608, true},
        {12288, 4096, 8192, false}, {4600, 3584, 4608, false},
    };

    for (size_t i = 0; i < 2 * ARRAY_SIZE(table); i++) {
        bool grows_first = i % 2 == 1;
        uint64_t size = table[i / 2].size;
        struct fake_call other =
            fake_call_of(&node.edge, BDRV_OP_WRITE, table[i / 2].other, 512, 0);
        struct fake_call grows =
            fake_call_of(&node.edge, BDRV_OP_WRITE, table[i / 2].offset, 512, 0);
        struct fake_run a, b;

        node.bs.bl.request_alignment = 512;
        node.bs.bl.eof_alignment = 4096;
        node.bs.caps |= BDRV_CAP_GROWS_ON_WRITE;
        atomic_store(&node.bs.size_bytes, size);
        atomic_store(&node.f.file_size, size);
        node.f.suspend = 1;
        node.f.writes = 0;
        other.iov = grows.iov = (struct iovec){buf, 512};
        other.req.iov = &other.iov;
        grows.req.iov = &grows.iov;
        other.req.niov = grows.req.niov = 1;
        fake_start(&a, fake_call_run, grows_first ? &grows : &other);
        fake_start(&b, fake_call_run, grows_first ? &other : &grows);
        assert_int_equal(node.f.writes, table[i / 2].waits ? 1 : 2);
        assert_int_equal(fake_wait(&a), 0);
        assert_int_equal(fake_wait(&b), 0);
        assert_int_equal(node.f.writes, 2);
    }
}

/* ---- vectors ---- */

static void test_vector_longer_than_iov_max(void **state)
{
    static struct iovec iov[3000];
    struct fake_call call = fake_call_of(&node.edge, BDRV_OP_WRITE, 0, 6000, 0);

    for (size_t i = 0; i < ARRAY_SIZE(iov); i++) {
        iov[i] = (struct iovec){buf + i * 2, 2};
        buf[i * 2] = (uint8_t)i;
    }
    call.req.iov = iov;
    call.req.niov = ARRAY_SIZE(iov);
    assert_int_equal(fake_do(fake_call_run, &call), 0);
    assert_int_equal(node.f.writes, 3);
    assert_memory_equal(node.f.data, buf, 6000);
}

/* Only the ends are copied, when the rest is large. */
static void test_unaligned_ends_only(void **state)
{
    uint8_t *mem;

    node.bs.bl.request_alignment = 4096;
    node.bs.bl.mem_alignment = 1;
    fake_pl.budget.limit_bytes = 8192;
    mem = calloc(1, 1 << 20);
    assert_non_null(mem);
    atomic_store(&node.bs.size_bytes, 1 << 20);
    atomic_store(&node.f.file_size, 1 << 20);
    assert_int_equal(fake_rw(&node.edge, BDRV_OP_WRITE, 100, mem, (1 << 20) - 200, 0), 0);
    assert_int_equal(node.f.reads, 2);
    assert_int_equal(node.f.writes, 3);
    assert_int_equal(fake_rw(&node.edge, BDRV_OP_READ, 100, mem, (1 << 20) - 200, 0), 0);
    assert_int_equal(node.f.reads, 5);
    free(mem);
}

static void test_errors_of_pieces(void **state)
{
    node.bs.bl.request_alignment = 512;
    node.f.error_at = true;
    node.f.error_offset = 1100;
    node.f.read_error = -EIO;
    assert_int_equal(wr(0, 1000, 0), 0);
    assert_int_equal(wr(0, 1030, 0), -EIO); /* the block to be completed cannot be read */
    assert_int_equal(rd(1000, 100, 0), -EIO);
    node.f.read_error = 0;
    node.f.write_error = -ENOSPC;
    assert_int_equal(wr(0, 1030, 0), -ENOSPC);
}

static void test_sync_door(void **state)
{
    node.f.suspend = 2;
    assert_int_equal(bdrv_edge_pwrite(&node.edge, 3, "hello", 5, 0), 0);
    assert_int_equal(bdrv_edge_pread(&node.edge, 3, buf, 5), 0);
    assert_memory_equal(buf, "hello", 5);
    assert_int_equal(bdrv_edge_flush(&node.edge), 0);
    assert_int_equal(node.f.flushes, 1);
    assert_int_equal(bdrv_edge_pread(&node.edge, NODE_BYTES, buf, 5), -EIO);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(unknown_flags),
        T(ranges),
        T(size_unknown),
        T(no_driver_and_broken),
        T(permissions),
        T(write_past_end),
        T(compressed),
        T(out_of_budget),
        T(probe_guard),
        T(probe_guard_folded),
        T(filter_forwards),
        T(overlap_table),
        T(no_wait),
        T(growing_beside_padded_tail),
        T(growing_changes_the_old_end),
        T(vector_longer_than_iov_max),
        T(unaligned_ends_only),
        T(errors_of_pieces),
        T(sync_door),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
