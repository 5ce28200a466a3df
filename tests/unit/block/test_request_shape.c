/* SPDX-License-Identifier: MIT */
/* Requests about the shape of a node: status, copy range, truncate, ioctl. */
#include "cmocka_all.h"

#include <time.h>

#include "block/request.h"
#include "fake_node.h"
#include "util/mem.h"

#define NODE_BYTES UINT64_C(65536)
#define DATA BDRV_BLOCK_DATA
#define ZERO BDRV_BLOCK_ZERO
#define VALID BDRV_BLOCK_OFFSET_VALID
#define ALLOC BDRV_BLOCK_ALLOCATED
#define ATEND BDRV_BLOCK_EOF

static struct fake_node low;
static struct fake_node top;

static int setup(void **state)
{
    fake_instance_init();
    fake_node_init(&low, &fake_pl, NODE_BYTES);
    fake_node_init(&top, &fake_pl, NODE_BYTES);
    top.bs.caps = BDRV_CAP_FORMAT;
    top.f.drv.format_name = "top";
    return 0;
}

static int teardown(void **state)
{
    fake_node_fini(&top);
    fake_node_fini(&low);
    fake_instance_fini();
    return 0;
}

/* ---- status ---- */

struct status_call {
    BdrvEdge *edge;
    bool want_zero;
    bool above;
    uint64_t offset;
    uint64_t bytes;
    struct bdrv_status st;
    int depth;
};

static int status_run(void *opaque)
{
    struct status_call *c = opaque;

    return c->above ? bdrv_edge_status_above_co(c->edge, c->want_zero, c->offset, c->bytes, &c->st,
                                                &c->depth)
                    : bdrv_edge_block_status_co(c->edge, c->want_zero, c->offset, c->bytes, &c->st);
}

static struct status_call status_of(struct fake_node *n, bool above, uint64_t offset,
                                    uint64_t bytes)
{
    struct status_call c = {
        .edge = &n->edge, .want_zero = true, .above = above, .offset = offset, .bytes = bytes};

    assert_int_equal(fake_do(status_run, &c), 0);
    return c;
}

static int status_error(struct fake_node *n, uint64_t offset, uint64_t bytes)
{
    struct status_call c = {.edge = &n->edge, .offset = offset, .bytes = bytes};
    struct status_call d = {.edge = &n->edge, .above = true, .offset = offset, .bytes = bytes};
    int ret = fake_do(status_run, &c);

    assert_int_equal(fake_do(status_run, &d), ret);
    return ret;
}

/* A hole in every second 4 KiB. */
static int status_holes(struct fake *f, uint64_t offset, uint64_t bytes, struct bdrv_status *ret)
{
    *ret = (struct bdrv_status){.flags = offset / 4096 % 2 ? ZERO : DATA,
                                .bytes = 4096 - offset % 4096};
    if (ret->flags == DATA) {
        ret->flags |= VALID;
        ret->map = offset;
        ret->file = &((struct fake_node *)f)->bs;
    }
    return 0;
}

static void test_status_plain(void **state)
{
    struct status_call c = status_of(&low, false, 100, 1000);

    assert_int_equal(c.st.flags, DATA | VALID | ALLOC);
    assert_int_equal(c.st.bytes, 1000);
    assert_int_equal(c.st.map, 100);
    assert_ptr_equal(c.st.file, &low.bs);
    c = status_of(&low, false, NODE_BYTES - 100, UINT64_MAX);
    assert_int_equal(c.st.flags, DATA | VALID | ALLOC | ATEND);
    assert_int_equal(c.st.bytes, 100);
    c = status_of(&top, false, 100, 1000);
    assert_int_equal(c.st.flags, DATA | ALLOC);
    assert_null(c.st.file);
}

static void test_status_refusals(void **state)
{
    assert_int_equal(status_error(&low, 0, 0), -EINVAL);
    assert_int_equal(status_error(&low, NODE_BYTES, 1), -EIO);
    assert_int_equal(status_error(&low, UINT64_MAX, UINT64_MAX), -EIO);
    low.bs.drv = NULL;
    assert_int_equal(status_error(&low, 0, 1), -ENOMEDIUM);
}

static void test_status_extents(void **state)
{
    struct status_call c;

    low.f.drv.block_status_co = fake_status;
    low.f.status = status_holes;
    c = status_of(&low, false, 10, NODE_BYTES);
    assert_int_equal(c.st.flags, DATA | VALID | ALLOC);
    assert_int_equal(c.st.bytes, 4086);
    c = status_of(&low, false, 4096, 3000);
    assert_int_equal(c.st.flags, ZERO | ALLOC);
    assert_int_equal(c.st.bytes, 3000);
    c = status_of(&low, false, NODE_BYTES - 10, 100);
    assert_int_equal(c.st.flags, ZERO | ALLOC | ATEND);
    assert_int_equal(c.st.bytes, 10);
    /* extents smaller than a block of the node */
    low.bs.bl.request_alignment = 8192;
    c = status_of(&low, false, 6000, 100);
    assert_int_equal(c.st.flags, DATA | VALID | ALLOC);
    assert_int_equal(c.st.bytes, 100);
}

static int status_raw(struct fake *f, uint64_t offset, uint64_t bytes, struct bdrv_status *ret)
{
    *ret = (struct bdrv_status){.flags = BDRV_BLOCK_RAW | BDRV_BLOCK_RECURSE | VALID,
                                .bytes = bytes,
                                .map = offset + 4096,
                                .file = &low.bs};
    return 0;
}

static void test_status_of_the_file_below(void **state)
{
    struct status_call c;

    low.f.drv.block_status_co = fake_status;
    low.f.status = status_holes;
    top.f.drv.block_status_co = fake_status;
    top.f.status = status_raw;
    atomic_store(&top.bs.size_bytes, NODE_BYTES - 8192);
    c = status_of(&top, false, 0, NODE_BYTES);
    assert_int_equal(c.st.flags, ZERO | ALLOC);
    assert_int_equal(c.st.bytes, 4096);
    c = status_of(&top, false, 4100, NODE_BYTES);
    assert_int_equal(c.st.flags, DATA | ALLOC | VALID);
    assert_int_equal(c.st.map, 8196);
    assert_ptr_equal(c.st.file, &low.bs);
    c = status_of(&top, false, NODE_BYTES - 8192 - 4, 4);
    assert_int_equal(c.st.flags & ATEND, ATEND);
}

static int status_cluster(struct fake *f, uint64_t offset, uint64_t bytes, struct bdrv_status *ret)
{
    *ret = (struct bdrv_status){
        .flags = DATA | VALID | BDRV_BLOCK_RECURSE, .bytes = bytes, .map = offset, .file = &low.bs};
    return 0;
}

static void test_status_refined(void **state)
{
    struct status_call c;

    low.f.drv.block_status_co = fake_status;
    low.f.status = status_holes;
    top.f.drv.block_status_co = fake_status;
    top.f.status = status_cluster;
    c = status_of(&top, false, 4096, 100);
    assert_int_equal(c.st.flags, DATA | ZERO | VALID | ALLOC);
    assert_int_equal(c.st.map, 4096);
    c = status_of(&top, false, 0, 100);
    assert_int_equal(c.st.flags, DATA | VALID | ALLOC);
    /* the file's error does not hide what the layer knows */
    atomic_store(&low.bs.broken, (char *)"gone");
    c = status_of(&top, false, 4096, 100);
    assert_int_equal(c.st.flags, DATA | VALID | ALLOC);
}

/* The first 4 KiB are the layer's, the rest its backing file's. */
static int status_overlay(struct fake *f, uint64_t offset, uint64_t bytes, struct bdrv_status *ret)
{
    *ret = (struct bdrv_status){.flags = offset < 4096 ? DATA : 0,
                                .bytes = offset < 4096 ? 4096 - offset : bytes};
    return 0;
}

static void test_status_above(void **state)
{
    struct status_call c;

    top.f.drv.block_status_co = fake_status;
    top.f.status = status_overlay;
    c = status_of(&top, true, 4096, 100);
    assert_int_equal(c.st.flags, ZERO); /* nothing below */
    assert_int_equal(c.depth, 0);
    fake_node_put_on(&top, &low, BDRV_ROLE_COW);
    atomic_store(&low.bs.size_bytes, 8192);
    c = status_of(&top, true, 0, 10000);
    assert_int_equal(c.st.flags, DATA | ALLOC);
    assert_int_equal(c.depth, 1);
    assert_int_equal(c.st.bytes, 4096);
    c = status_of(&top, true, 4096, 10000);
    assert_int_equal(c.st.flags, DATA | VALID | ALLOC);
    assert_int_equal(c.depth, 2);
    assert_int_equal(c.st.bytes, 4096);
    c = status_of(&top, true, 8192, 10000); /* past the backing file */
    assert_int_equal(c.st.flags, ZERO);
    assert_int_equal(c.depth, 0);
    c = status_of(&top, false, 4096, 100); /* this layer alone */
    assert_int_equal(c.st.flags, 0);
}

/* A long chain, on a coroutine's stack. */
static void test_status_deep(void **state)
{
    enum { DEPTH = 1000 };
    struct fake_node *chain = calloc(DEPTH, sizeof(*chain));
    BlockDriver drv = {
        .format_name = "overlay", .caps = BDRV_CAP_FORMAT, .block_status_co = fake_status};
    struct status_call c;

    assert_non_null(chain);
    for (int i = 0; i < DEPTH; i++) {
        BlockDriverState *bs = &chain[i].bs;

        bs->drv = &drv;
        bs->caps = drv.caps;
        bs->opaque = &chain[i].f;
        bs->through = bs;
        bs->bl.request_alignment = 1;
        bs->size_bytes = NODE_BYTES;
        chain[i].f.status = status_overlay;
        chain[i].edge.bs = bs;
        TAILQ_INIT(&bs->children);
        if (i > 0) {
            fake_node_put_on(&chain[i - 1], &chain[i], BDRV_ROLE_COW);
        }
    }
    fake_node_put_on(&chain[DEPTH - 1], &low, BDRV_ROLE_COW);
    c = status_of(&chain[0], true, 5000, 10);
    assert_int_equal(c.depth, DEPTH + 1);
    free(chain);
}

/* ---- copy range ---- */

struct copy_call {
    struct fake_node *src;
    uint64_t src_offset;
    struct fake_node *dst;
    uint64_t dst_offset;
    uint64_t bytes;
    unsigned read_flags;
    unsigned write_flags;
};

static int copy_run(void *opaque)
{
    struct copy_call *c = opaque;

    return bdrv_edge_copy_range_co(&c->src->edge, c->src_offset, &c->dst->edge, c->dst_offset,
                                   c->bytes, c->read_flags, c->write_flags);
}

static int copy(struct fake_node *src, uint64_t src_offset, struct fake_node *dst,
                uint64_t dst_offset, uint64_t bytes, unsigned write_flags)
{
    struct copy_call c = {src, src_offset, dst, dst_offset, bytes, 0, write_flags};

    return fake_do(copy_run, &c);
}

static int fake_copy(BlockDriverState *src, uint64_t src_offset, BlockDriverState *dst,
                     uint64_t dst_offset, uint64_t bytes, unsigned flags)
{
    struct fake *f = fake_of(dst);

    f->copies++;
    memcpy(f->data + dst_offset, fake_of(src)->data + src_offset, bytes);
    return 0;
}

static int map_up_4k(BlockDriverState *bs, uint64_t offset, uint64_t bytes, BdrvEdge **ret_child,
                     uint64_t *ret_offset)
{
    *ret_child = bs->file;
    *ret_offset = offset + 4096;
    return 0;
}

static void test_copy_range(void **state)
{
    struct fake_node other;

    fake_node_init(&other, &fake_pl, NODE_BYTES);
    other.bs.drv = low.bs.drv;
    memset(other.f.data, 7, NODE_BYTES);
    assert_int_equal(copy(&other, 0, &low, 0, 4096, 0), -ENOTSUP);
    low.f.drv.copy_range_co = fake_copy;
    fake_node_put_on(&top, &low, BDRV_ROLE_PRIMARY);
    top.f.drv.map_range = map_up_4k;
    atomic_store(&top.bs.size_bytes, NODE_BYTES - 4096);

    assert_int_equal(copy(&other, 0, &top, 100, 4096, 0), 0);
    assert_int_equal(low.f.data[4195], 0);
    assert_int_equal(low.f.data[4196], 7);
    assert_int_equal(low.f.copies, 1);
    assert_int_equal(low.bs.write_gen, 1);
    assert_int_equal(top.bs.write_gen, 1);
    assert_int_equal(copy(&other, 0, &low, 0, 4096, BDRV_REQ_FUA), 0);
    assert_int_equal(low.f.flushes, 1);

    assert_int_equal(copy(&other, 0, &low, 0, 4096, BDRV_REQ_MAY_UNMAP), -EINVAL);
    assert_int_equal(copy(&other, 0, &low, NODE_BYTES, 1, 0), -EIO);
    assert_int_equal(copy(&other, NODE_BYTES, &low, 0, 1, 0), -EIO);
    assert_int_equal(copy(&other, UINT64_MAX, &low, UINT64_MAX, UINT64_MAX, 0), -EIO);
    assert_int_equal(copy(&low, 0, &low, 100, 4096, 0), -ENOTSUP);
    assert_int_equal(copy(&low, 0, &low, 4096, 4096, 0), 0);
    low.bs.bl.request_alignment = 512;
    assert_int_equal(copy(&other, 0, &low, 100, 512, 0), -ENOTSUP);
    assert_int_equal(copy(&other, 0, &low, 512, 512, 0), 0);
    low.bs.probed = true;
    assert_int_equal(copy(&other, 0, &low, 0, 512, 0), -ENOTSUP);
    low.bs.read_only = true;
    assert_int_equal(copy(&other, 0, &low, 512, 512, 0), -EPERM);
    low.bs.read_only = false;
    low.edge.perm = BDRV_PERM_CONSISTENT_READ;
    assert_int_equal(copy(&other, 0, &low, 512, 512, 0), -EPERM);
    fake_node_fini(&other);
}

/* ---- truncate ---- */

struct truncate_call {
    struct fake_node *n;
    uint64_t size;
    enum bdrv_prealloc prealloc;
    unsigned flags;
    Error *err;
};

static int truncate_run(void *opaque)
{
    struct truncate_call *c = opaque;

    return bdrv_edge_truncate_co(&c->n->edge, c->size, true, c->prealloc, c->flags, &c->err);
}

static int resize(struct fake_node *n, uint64_t size, enum bdrv_prealloc prealloc, unsigned flags)
{
    struct truncate_call c = {.n = n, .size = size, .prealloc = prealloc, .flags = flags};
    int ret = fake_do(truncate_run, &c);

    assert_int_equal(ret < 0, c.err != NULL);
    if (c.err != NULL) {
        assert_int_equal(error_get_errno(c.err), -ret);
        assert_non_null(strstr(error_get_pretty(c.err), size > INT64_MAX ? "exceeds maximum"
                                                        : ret != -ENOTSUP
                                                            ? "fake0"
                                                            : "does not support resize"));
    }
    error_free(c.err);
    return ret;
}

static void test_truncate_refusals(void **state)
{
    assert_int_equal(resize(&low, UINT64_MAX, BDRV_PREALLOC_OFF, 0), -EFBIG);
    assert_int_equal(resize(&low, FAKE_CAPACITY + 1, BDRV_PREALLOC_OFF, 0), -EFBIG);
    assert_int_equal(resize(&low, 100, BDRV_PREALLOC_OFF, BDRV_REQ_FUA), -EINVAL);
    low.f.truncate_error = -ENOSPC;
    assert_int_equal(resize(&low, NODE_BYTES * 2, BDRV_PREALLOC_OFF, 0), -ENOSPC);
    low.f.truncate_error = 0;
    low.edge.perm &= ~(uint64_t)BDRV_PERM_RESIZE;
    assert_int_equal(resize(&low, 100, BDRV_PREALLOC_OFF, 0), -EPERM);
    low.edge.perm = BDRV_PERM_ALL;
    low.bs.read_only = true;
    assert_int_equal(resize(&low, 100, BDRV_PREALLOC_OFF, 0), -EPERM);
    low.bs.read_only = false;
    low.f.drv.truncate_co = NULL;
    assert_int_equal(resize(&low, 100, BDRV_PREALLOC_OFF, 0), -ENOTSUP);
    atomic_store(&low.bs.broken, (char *)"gone");
    assert_int_equal(resize(&low, 100, BDRV_PREALLOC_OFF, 0), -EIO);
    assert_int_equal(low.bs.size_bytes, NODE_BYTES);
}

static void test_truncate_zeroes(void **state)
{
    memset(low.f.data, 0x11, NODE_BYTES);
    assert_int_equal(resize(&low, 1000, BDRV_PREALLOC_OFF, 0), 0);
    assert_int_equal(low.bs.size_bytes, 1000);
    assert_int_equal(resize(&low, NODE_BYTES, BDRV_PREALLOC_OFF, BDRV_REQ_ZERO_WRITE), 0);
    assert_int_equal(low.bs.size_bytes, NODE_BYTES);
    assert_int_equal(low.f.data[999], 0x11);
    assert_true(buffer_is_zero(low.f.data + 1000, NODE_BYTES - 1000));
    assert_int_equal(low.f.zeroes, 1);
    low.bs.caps |= BDRV_CAP_TRUNCATE_ZEROES;
    assert_int_equal(resize(&low, NODE_BYTES * 2, BDRV_PREALLOC_OFF, 0), 0);
    assert_int_equal(low.f.zeroes, 1);
}

/* What cannot be zeroed does not stay. */
static void test_truncate_taken_back(void **state)
{
    low.f.zeroes_error = -EIO;
    assert_int_equal(resize(&low, NODE_BYTES * 2, BDRV_PREALLOC_OFF, 0), -EIO);
    assert_int_equal(low.bs.size_bytes, NODE_BYTES);
    assert_int_equal(low.f.file_size, NODE_BYTES);
    assert_int_equal(low.f.truncates, 2);
}

/* What a longer backing file holds must not show in what an overlay grows by; a driver that
 * promises zeroes has seen to it. */
static void test_truncate_hides_backing(void **state)
{
    fake_node_put_on(&top, &low, BDRV_ROLE_COW);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(resize(&top, 1000, BDRV_PREALLOC_OFF, 0), 0);
        assert_int_equal(resize(&top, NODE_BYTES, BDRV_PREALLOC_OFF, 0), 0);
        assert_int_equal(top.f.zeroes, 1);
        top.bs.caps |= BDRV_CAP_TRUNCATE_ZEROES;
    }
}

/* A write waits for the truncate before it, and is judged by the new size. */
static void test_truncate_and_writes(void **state)
{
    static uint8_t bytes[512];
    struct truncate_call shrink = {.n = &low, .size = 4096};
    struct fake_call call = fake_call_of(&low.edge, BDRV_OP_WRITE, 8192, 512, 0);
    struct fake_run a, b;

    call.iov = (struct iovec){bytes, 512};
    call.req.iov = &call.iov;
    call.req.niov = 1;
    for (int i = 0; i < 2; i++) {
        low.bs.bl.request_alignment = i == 0 ? 1 : 512;
        low.f.suspend = 2;
        assert_int_equal(resize(&low, NODE_BYTES, BDRV_PREALLOC_OFF, 0), 0);
        low.f.writes = 0;
        fake_start(&a, truncate_run, &shrink);
        fake_start(&b, fake_call_run, &call);
        assert_int_equal(fake_wait(&a), 0);
        assert_int_equal(fake_wait(&b), -EIO);
        assert_int_equal(low.f.writes, 0);
        assert_int_equal(low.f.file_size, 4096);
    }
}

/* The size is refreshed in the control thread, wherever the request runs. */
struct truncate_elsewhere {
    struct truncate_call call;
    _Atomic bool done;
    int ret;
};

static void truncate_elsewhere_entry(void *opaque)
{
    struct truncate_elsewhere *e = opaque;
    AioContext *ctx = aio_context_current();

    e->ret = truncate_run(&e->call);
    CHECK(aio_context_current() == ctx);
    atomic_store(&e->done, true);
    aio_notify(fake_ctx);
}

static void test_truncate_in_iothread(void **state)
{
    struct truncate_elsewhere e = {.call = {.n = &low, .size = 5000}};
    IOThread *thread = iothread_new("test", NULL, NULL);
    Coroutine *co = coroutine_create(truncate_elsewhere_entry, &e);

    assert_non_null(thread);
    assert_non_null(co);
    aio_co_schedule(iothread_get_aio_context(thread), co);
    while (!atomic_load(&e.done)) {
        aio_poll(fake_ctx, true);
    }
    iothread_free(thread);
    assert_int_equal(e.ret, 0);
    assert_int_equal(low.bs.size_bytes, 5000);
}

/* ---- ioctl ---- */

static int ioctl_answer(BlockDriverState *bs, unsigned long request, void *arg)
{
    return request == 42 ? 0 : -EINVAL;
}

static int ioctl_run(void *opaque)
{
    return bdrv_edge_ioctl_co(opaque, 42, NULL);
}

static void test_ioctl(void **state)
{
    assert_int_equal(fake_do(ioctl_run, &low.edge), -ENOTSUP);
    low.f.drv.ioctl_co = ioctl_answer;
    assert_int_equal(fake_do(ioctl_run, &low.edge), 0);
    fake_node_put_on(&top, &low, BDRV_ROLE_PRIMARY);
    assert_int_equal(fake_do(ioctl_run, &top.edge), -ENOTSUP);
    top.bs.caps = BDRV_CAP_FILTER;
    assert_int_equal(fake_do(ioctl_run, &top.edge), 0);
    assert_int_equal(low.bs.write_gen, 2);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(status_plain),
        T(status_refusals),
        T(status_extents),
        T(status_of_the_file_below),
        T(status_refined),
        T(status_above),
        T(status_deep),
        T(copy_range),
        T(truncate_refusals),
        T(truncate_zeroes),
        T(truncate_taken_back),
        T(truncate_hides_backing),
        T(truncate_and_writes),
        T(truncate_in_iothread),
        T(ioctl),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
