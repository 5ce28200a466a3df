/* SPDX-License-Identifier: MIT */
/*
 * Random requests against a plain model, over every mix of limits; then many requests at once whose
 * ranges do not overlap but share blocks, from one thread and from two. The driver checks what it
 * is given (fake_node.h).
 */
#include "cmocka_all.h"

#include <time.h>

#include "fake_node.h"
#include "util/mem.h"

#define SIZE_MAX_BYTES (UINT64_C(96) << 10)
#define MODEL_BYTES (SIZE_MAX_BYTES * 2)
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 50
#else
#define ROUNDS 200
#endif
#define OPS_PER_ROUND 60

struct model {
    uint64_t rng;
    struct fake_node node;
    uint8_t *bytes; /* MODEL_BYTES */
    uint64_t size;
    bool grows;
};

static uint64_t pick(uint64_t *rng, const uint64_t *of, size_t n)
{
    return of[fake_rand_below(rng, n)];
}
#define PICK(rng, ...)                                                                             \
    pick(rng, (const uint64_t[]){__VA_ARGS__}, ARRAY_SIZE(((const uint64_t[]){__VA_ARGS__})))

static void random_limits(uint64_t *rng, struct bdrv_limits *bl)
{
    uint64_t align = PICK(rng, 1, 16, 512, 4096);

    *bl = (struct bdrv_limits){
        .request_alignment = (uint32_t)align,
        .mem_alignment = (uint32_t)PICK(rng, 1, 16, 512, 4096),
        .eof_alignment = (uint32_t)PICK(rng, 1, 4096),
        .max_transfer = PICK(rng, 0, 0, align, align * 3 + align / 2, 8192, 20480),
        .max_iov = (uint32_t)PICK(rng, 0, 1, 2, 5),
        .pwrite_zeroes_alignment = PICK(rng, 0, align, 2048, align * 3),
        .max_pwrite_zeroes = PICK(rng, 0, 4096, 10000),
        .pdiscard_alignment = PICK(rng, 0, align, 8192, align * 5),
        .max_pdiscard = PICK(rng, 0, 8192, 30000),
    };
    if (bl->max_transfer != 0 && bl->max_transfer < align) {
        bl->max_transfer = align;
    }
}

static void random_caps(uint64_t *rng, struct fake_node *n, bool grows)
{
    n->bs.caps = 0;
    if (fake_rand_below(rng, 3) > 0) {
        n->bs.caps |= BDRV_CAP_PROTOCOL;
    }
    if (grows) {
        n->bs.caps |= BDRV_CAP_GROWS_ON_WRITE;
    }
    if (fake_rand_below(rng, 2) > 0) {
        n->bs.caps |= BDRV_CAP_TRUNCATE_ZEROES;
    }
    if (fake_rand_below(rng, 2) > 0) {
        n->bs.caps |= BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA;
    }
    if (fake_rand_below(rng, 2) > 0) {
        n->bs.caps |= BDRV_CAP_ZERO_PARTS;
    }
    switch (fake_rand_below(rng, 3)) {
    case 0:
        n->f.drv.write_zeroes_co = NULL;
        break;
    case 1:
        n->f.zeroes_error = -ENOTSUP;
        break;
    }
}

static void model_init(struct model *m, uint64_t seed)
{
    uint64_t size;

    m->rng = seed;
    m->grows = fake_rand_below(&m->rng, 3) == 0;
    size = fake_rand_below(&m->rng, SIZE_MAX_BYTES);
    if (fake_rand_below(&m->rng, 2)) {
        size = align_up(size, 4096);
    }
    fake_node_init(&m->node, &fake_pl, size);
    random_limits(&m->rng, &m->node.bs.bl);
    random_caps(&m->rng, &m->node, m->grows);
    m->node.bs.detect_zeroes = (enum bdrv_detect_zeroes)fake_rand_below(&m->rng, 3);
    m->node.f.suspend = (unsigned)fake_rand_below(&m->rng, 2);
    m->size = size;
    m->bytes = calloc(1, MODEL_BYTES);
    assert_non_null(m->bytes);
    for (uint64_t i = 0; i < size; i++) {
        m->bytes[i] = m->node.f.data[i] = (uint8_t)fake_rand(&m->rng);
    }
}

static void model_compare(struct model *m)
{
    assert_int_equal(m->node.bs.size_bytes, m->size);
    if (m->node.bs.caps & (BDRV_CAP_GROWS_ON_WRITE)) {
        /* no padding of ours stays in the file */
        assert_int_equal(m->node.f.file_size, m->size);
    }
    assert_memory_equal(m->node.f.data, m->bytes, m->size);
}

/* Memory for a request: up to 6 elements of any length, at any address. */
struct random_mem {
    uint8_t *area;
    struct iovec iov[8];
    size_t niov;
    uint64_t skip;
};

static void random_mem_init(struct random_mem *mem, uint64_t *rng, uint64_t bytes)
{
    uint64_t room = bytes + 8 * 4096 + 8 * 4096;
    uint64_t left;
    uint8_t *at;
    bool neat = fake_rand_below(rng, 2) == 0;
    uint64_t unit = PICK(rng, 16, 512, 4096);

    assert_int_equal(posix_memalign((void **)&mem->area, 4096, room), 0);
    mem->niov = 1 + fake_rand_below(rng, 6);
    mem->skip = fake_rand_below(rng, 4) == 0 ? fake_rand_below(rng, 700) : 0;
    left = bytes + mem->skip;
    at = mem->area;
    for (size_t i = 0; i < mem->niov; i++) {
        uint64_t len = i + 1 == mem->niov ? left : fake_rand_below(rng, left + 1);

        if (neat) {
            len = i + 1 == mem->niov ? left : align_down(len, unit);
        } else {
            at += fake_rand_below(rng, 100);
        }
        mem->iov[i] = (struct iovec){.iov_base = at, .iov_len = len};
        at += neat ? align_up(len, unit) : len;
        left -= len;
    }
}

static void random_range(struct model *m, uint64_t limit, uint64_t *offset, uint64_t *bytes)
{
    uint64_t longest = fake_rand_below(&m->rng, 3) ? 5000 : limit + 1;

    *offset = fake_rand_below(&m->rng, limit + 1);
    *bytes = fake_rand_below(&m->rng, min_u64(limit - *offset + 1, longest));
    if (fake_rand_below(&m->rng, 3) == 0) {
        uint64_t unit = PICK(&m->rng, 512, 4096);

        *offset = align_down(*offset, unit);
        *bytes = min_u64(align_up(*bytes, unit), limit - *offset);
    }
}

/* What lies between the old end and what is written becomes zeroes. */
static void model_grow(struct model *m, uint64_t offset, uint64_t bytes)
{
    if (bytes > 0 && offset + bytes > m->size) {
        memset(m->bytes + m->size, 0, offset + bytes - m->size);
        m->size = offset + bytes;
    }
}

static void op_rw(struct model *m, bool write)
{
    struct random_mem mem;
    struct fake_call call;
    uint64_t offset, bytes;
    uint64_t limit = write && m->grows ? m->size + 9000 : m->size;
    bool zero = fake_rand_below(&m->rng, 3) == 0;
    uint8_t *flat;
    unsigned flags = write && fake_rand_below(&m->rng, 4) == 0 ? BDRV_REQ_FUA : 0;

    limit = min_u64(limit, MODEL_BYTES);
    random_range(m, limit, &offset, &bytes);
    random_mem_init(&mem, &m->rng, bytes);
    flat = malloc(bytes + 1);
    assert_non_null(flat);
    for (uint64_t i = 0; i < bytes; i++) {
        flat[i] = zero ? 0 : (uint8_t)fake_rand(&m->rng);
    }
    iov_from_buf(mem.iov, mem.niov, mem.skip, flat, bytes);
    call = fake_call_of(&m->node.edge, write ? BDRV_OP_WRITE : BDRV_OP_READ, offset, bytes, flags);
    call.req.iov = mem.iov;
    call.req.niov = mem.niov;
    call.req.iov_offset = mem.skip;
    assert_int_equal(fake_do(fake_call_run, &call), 0);
    if (write) {
        model_grow(m, offset, bytes);
        memcpy(m->bytes + offset, flat, bytes);
    } else {
        iov_to_buf(mem.iov, mem.niov, mem.skip, flat, bytes);
        assert_memory_equal(flat, m->bytes + offset, bytes);
    }
    free(flat);
    free(mem.area);
}

static void op_zeroes(struct model *m)
{
    uint64_t offset, bytes;
    uint64_t limit = m->grows ? min_u64(m->size + 3000, MODEL_BYTES) : m->size;
    unsigned flags = fake_rand_below(&m->rng, 2) ? BDRV_REQ_MAY_UNMAP : 0;

    flags |= fake_rand_below(&m->rng, 4) == 0 ? BDRV_REQ_FUA : 0;
    random_range(m, limit, &offset, &bytes);
    assert_int_equal(fake_request(&m->node.edge, BDRV_OP_WRITE_ZEROES, offset, bytes, flags), 0);
    model_grow(m, offset, bytes);
    memset(m->bytes + offset, 0, bytes);
}

static void op_discard(struct model *m)
{
    uint64_t offset, bytes;

    random_range(m, m->size, &offset, &bytes);
    assert_int_equal(fake_request(&m->node.edge, BDRV_OP_DISCARD, offset, bytes, 0), 0);
    /* the content of what was asked for is anything now */
    memcpy(m->bytes + offset, m->node.f.data + offset, bytes);
}

struct truncate_call {
    BdrvEdge *edge;
    uint64_t size;
};

static int truncate_run(void *opaque)
{
    struct truncate_call *call = opaque;

    return bdrv_edge_truncate_co(call->edge, call->size, true, BDRV_PREALLOC_OFF, 0, NULL);
}

static void op_truncate(struct model *m)
{
    struct truncate_call call = {&m->node.edge, fake_rand_below(&m->rng, SIZE_MAX_BYTES)};

    assert_int_equal(fake_do(truncate_run, &call), 0);
    if (call.size > m->size) {
        memset(m->bytes + m->size, 0, call.size - m->size);
    }
    m->size = call.size;
}

static void random_round(uint64_t seed)
{
    struct model m;

    model_init(&m, seed);
    for (int i = 0; i < OPS_PER_ROUND; i++) {
        switch (fake_rand_below(&m.rng, 10)) {
        case 0:
        case 1:
        case 2:
            op_rw(&m, false);
            break;
        case 3:
        case 4:
        case 5:
        case 6:
            op_rw(&m, true);
            break;
        case 7:
            op_zeroes(&m);
            break;
        case 8:
            op_discard(&m);
            break;
        case 9:
            if (fake_rand_below(&m.rng, 3) == 0) {
                op_truncate(&m);
            } else {
                assert_int_equal(fake_request(&m.node.edge, BDRV_OP_FLUSH, 0, 0, 0), 0);
            }
            break;
        }
        model_compare(&m);
    }
    free(m.bytes);
    fake_node_fini(&m.node);
}

static void test_random_requests(void **state)
{
    uint64_t seed = fake_seed("random requests");

    fake_instance_init();
    for (int i = 0; i < ROUNDS; i++) {
        fake_rand(&seed);
        random_round(seed);
    }
    assert_int_equal(fake_guarded, 0);
    fake_instance_fini();
}

/* ---- many at once ---- */

#define WRITERS 24
#define PIECES_EACH 40

/* One coroutine owns every WRITERS-th piece of the node and rewrites them in turn. */
struct writer {
    struct crowd *crowd;
    unsigned index;
    uint64_t rng;
    AioContext *ctx;
};

struct crowd {
    struct fake_node node;
    uint64_t size;
    uint64_t piece_bytes;
    struct writer writers[WRITERS];
    _Atomic unsigned running;
};

static void writer_once(struct writer *w, uint64_t offset, uint64_t bytes, uint8_t byte)
{
    uint8_t buf[512];
    int ret;

    if (byte == 0) {
        ret = bdrv_edge_write_zeroes_co(&w->crowd->node.edge, offset, bytes, 0);
    } else {
        memset(buf, byte, bytes);
        ret = bdrv_edge_write_co(&w->crowd->node.edge, offset, buf, bytes, 0);
    }
    CHECK(ret == 0);
    ret = bdrv_edge_read_co(&w->crowd->node.edge, offset, buf, bytes);
    CHECK(ret == 0);
    for (uint64_t i = 0; i < bytes; i++) {
        CHECK(buf[i] == byte);
    }
}

static void writer_entry(void *opaque)
{
    struct writer *w = opaque;
    struct crowd *c = w->crowd;
    uint64_t step = c->piece_bytes * WRITERS;

    for (unsigned n = 0; n < PIECES_EACH; n++) {
        uint64_t slots = c->size / step;
        uint64_t at = fake_rand_below(&w->rng, slots) * step + w->index * c->piece_bytes;

        writer_once(w, at, c->piece_bytes, (uint8_t)fake_rand_below(&w->rng, 4));
    }
    for (uint64_t at = w->index * c->piece_bytes; at + c->piece_bytes <= c->size; at += step) {
        writer_once(w, at, c->piece_bytes, (uint8_t)(w->index + 1));
    }
    atomic_fetch_sub(&c->running, 1);
    aio_notify(fake_ctx);
}

static void crowd_run(uint64_t seed, AioContext *const *ctxs, unsigned nctxs, uint32_t align)
{
    struct crowd c = {.piece_bytes = 1 + seed % 300};

    c.size = c.piece_bytes * WRITERS * 3;
    fake_node_init(&c.node, &fake_pl, c.size);
    c.node.f.drv.write_co = fake_write;
    c.node.bs.bl.request_alignment = align;
    c.node.bs.bl.mem_alignment = 1;
    c.node.f.suspend = 1;
    c.node.bs.caps |= seed % 2 ? BDRV_CAP_GROWS_ON_WRITE : 0;
    atomic_store(&c.running, WRITERS);
    for (unsigned i = 0; i < WRITERS; i++) {
        struct writer *w = &c.writers[i];
        Coroutine *co;

        *w = (struct writer){.crowd = &c, .index = i, .rng = seed * 77 + i + 1};
        co = coroutine_create(writer_entry, w);
        CHECK(co != NULL);
        aio_co_schedule(ctxs[i % nctxs], co);
    }
    while (atomic_load(&c.running) > 0) {
        aio_poll(fake_ctx, true);
    }
    for (uint64_t i = 0; i < c.size; i++) {
        assert_int_equal(c.node.f.data[i], i / c.piece_bytes % WRITERS + 1);
    }
    assert_int_equal(c.node.f.file_size, c.size);
    fake_node_fini(&c.node);
}

static void test_shared_blocks_one_thread(void **state)
{
    uint64_t seed = fake_seed("shared blocks");

    fake_instance_init();
    for (int i = 0; i < 30; i++) {
        AioContext *ctxs[] = {fake_ctx};

        fake_rand(&seed);
        crowd_run(seed, ctxs, 1, i % 2 ? 512 : 4096);
    }
    fake_instance_fini();
}

static void test_shared_blocks_two_threads(void **state)
{
    uint64_t seed = fake_seed("shared blocks, two threads");
    IOThread *threads[2];
    AioContext *ctxs[2];

    fake_instance_init();
    for (int i = 0; i < 2; i++) {
        threads[i] = iothread_new("test", NULL, NULL);
        assert_non_null(threads[i]);
        ctxs[i] = iothread_get_aio_context(threads[i]);
    }
    for (int i = 0; i < 20; i++) {
        fake_rand(&seed);
        crowd_run(seed, ctxs, 2, i % 2 ? 512 : 4096);
    }
    for (int i = 0; i < 2; i++) {
        iothread_free(threads[i]);
    }
    fake_instance_fini();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_requests),
        cmocka_unit_test(test_shared_blocks_one_thread),
        cmocka_unit_test(test_shared_blocks_two_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
