/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "driver/format/qcow2/overlap.h"
#include "fake_file.h"

struct fake_file fake;

static int call(void)
{
    fake.calls++;
    if (fake.fail_call != 0 &&
        (fake.calls == fake.fail_call || (fake.fail_for_ever && fake.calls > fake.fail_call))) {
        return -EIO;
    }
    return 0;
}

int bdrv_edge_read_co(BdrvEdge *edge, uint64_t offset, void *buf, size_t bytes)
{
    int ret = call();

    assert_true(in_coroutine());
    assert_true(offset + bytes <= FAKE_FILE_MAX);
    if (ret == 0) {
        memcpy(buf, fake.data + offset, bytes);
    }
    return ret;
}

int bdrv_edge_pread(BdrvEdge *edge, uint64_t offset, void *buf, size_t bytes)
{
    int ret = call();

    assert_false(in_coroutine());
    if (ret == 0) {
        memcpy(buf, fake.data + offset, bytes);
    }
    return ret;
}

int bdrv_edge_write_co(BdrvEdge *edge, uint64_t offset, const void *buf, size_t bytes,
                       unsigned flags)
{
    int ret = call();

    assert_true(in_coroutine());
    assert_true(offset + bytes <= FAKE_FILE_MAX);
    if (ret < 0) {
        return ret;
    }
    memcpy(fake.data + offset, buf, bytes);
    fake.bytes = max_u64(fake.bytes, offset + bytes);
    fake.highest = max_u64(fake.highest, offset + bytes);
    fake.writes++;
    fake.last_write_offset = offset;
    fake.last_write_bytes = bytes;
    return 0;
}

int bdrv_edge_flush_co(BdrvEdge *edge)
{
    fake.flushes++;
    return call();
}

int64_t bdrv_edge_getlength(BdrvEdge *edge)
{
    return (int64_t)fake.bytes;
}

struct mem_budget *bdrv_budget(const BlockDriverState *bs)
{
    return &fake.budget;
}

void *bdrv_buffer_alloc(BlockDriverState *bs, size_t bytes)
{
    if (!mem_budget_take(&fake.budget, bytes)) {
        return NULL;
    }
    return malloc(bytes);
}

void bdrv_buffer_free(BlockDriverState *bs, void *buf, size_t bytes)
{
    if (buf) {
        mem_budget_give(&fake.budget, bytes);
        free(buf);
    }
}

int bdrv_open_flags(const BlockDriverState *bs)
{
    return fake.open_flags;
}

void bdrv_image_corrupted(BlockDriverState *bs, bool fatal, uint64_t offset, uint64_t bytes,
                          const char *fmt, ...)
{
    va_list ap;

    if (fake.corrupt && (fake.corrupt_fatal || !fatal)) {
        return;
    }
    fake.corrupt = true;
    fake.corrupt_fatal = fatal;
    va_start(ap, fmt);
    vsnprintf(fake.message, sizeof(fake.message), fmt, ap);
    va_end(ap);
}

void fake_write_header(const struct qcow2 *s)
{
    uint8_t *h = fake.data;

    store_be32(h, Q2_MAGIC);
    store_be32(h + 4, s->header.version);
    store_be32(h + 20, s->header.cluster_bits);
    store_be64(h + 24, s->header.size_bytes);
    store_be32(h + 36, s->header.l1_entries);
    store_be64(h + 40, s->header.l1_offset);
    store_be64(h + 48, s->header.reftable_offset);
    store_be32(h + 56, s->header.reftable_clusters);
    store_be32(h + 60, s->header.snapshot_count);
    store_be64(h + 64, s->header.snapshots_offset);
    store_be64(h + 72, s->header.incompatible);
    store_be32(h + 96, s->header.refcount_order);
    store_be32(h + 100, Q2_HEADER_BYTES_NOW);
}

int q2_header_write_co(struct qcow2 *s, Error **errp)
{
    int ret = call();

    fake.header_writes++;
    if (ret == 0) {
        fake_write_header(s);
    }
    return ret;
}

int q2_header_bits_co(struct qcow2 *s, uint64_t incompatible_set, uint64_t incompatible_clear,
                      uint64_t autoclear_clear)
{
    fake.header_bits_set |= incompatible_set;
    return 0;
}

static void set_geometry(struct qcow2 *s)
{
    struct q2_geometry *g = &s->geo;

    *g = (struct q2_geometry){
        .version = 3,
        .cluster_bits = s->header.cluster_bits,
        .cluster_bytes = 1u << s->header.cluster_bits,
        .l2_bits = s->header.cluster_bits - 3,
        .l2_entries = 1u << (s->header.cluster_bits - 3),
        .l2_entry_bytes = 8,
        .subclusters = 1,
        .subcluster_bytes = 1u << s->header.cluster_bits,
        .refcount_order = s->header.refcount_order,
        .refcount_bits = 1u << s->header.refcount_order,
        .refcount_max = UINT64_MAX >> (64 - (1u << s->header.refcount_order)),
        .refblock_bits = s->header.cluster_bits + 3 - s->header.refcount_order,
    };
    g->refblock_entries = UINT64_C(1) << g->refblock_bits;
}

void fake_image(struct qcow2 *s, unsigned cluster_bits, unsigned refcount_order,
                uint64_t disk_bytes)
{
    struct aio_context_options opts = {.size = sizeof(opts), .engine = AIO_ENGINE_THREADS};
    uint64_t cluster = UINT64_C(1) << cluster_bits;
    uint64_t per_table = cluster * cluster / 8;
    uint64_t l1_bytes;

    if (!fake.data) {
        fake.data = mmap(NULL, FAKE_FILE_MAX, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        assert_ptr_not_equal(fake.data, MAP_FAILED);
    }
    assert_return_code(madvise(fake.data, FAKE_FILE_MAX, MADV_DONTNEED), 0);
    fake = (struct fake_file){.data = fake.data, .open_flags = BDRV_O_RDWR};
    fake.budget.limit_bytes = UINT64_MAX;
    fake.ctx = aio_context_new(&opts, 0);
    assert_non_null(fake.ctx);
    *s = (struct qcow2){
        .bs = (BlockDriverState *)&fake,
        .file = (BdrvEdge *)&fake,
        .data = (BdrvEdge *)&fake,
        .header = {.version = 3,
                   .cluster_bits = cluster_bits,
                   .refcount_order = refcount_order,
                   .size_bytes = disk_bytes,
                   .reftable_offset = cluster,
                   .reftable_clusters = 1,
                   .l1_offset = 3 * cluster,
                   .l1_entries = (uint32_t)((disk_bytes + per_table - 1) / per_table)},
        .opt = {.overlap = Q2_OL_CACHED},
    };
    set_geometry(s);
    co_mutex_init(&s->header_lock);
    l1_bytes = align_up(s->header.l1_entries * UINT64_C(8), cluster);
    store_be64(fake.data + cluster, 2 * cluster);
    for (uint64_t i = 0; i < 3 + l1_bytes / cluster; i++) {
        uint64_t bit = i << refcount_order;

        if (refcount_order >= 3) {
            fake.data[2 * cluster + (bit + s->geo.refcount_bits - 1) / 8] = 1;
        } else {
            fake.data[2 * cluster + bit / 8] |= (uint8_t)(1u << bit % 8);
        }
    }
    fake.bytes = fake.highest = 3 * cluster + l1_bytes;
    fake_write_header(s);
}

void fake_fini(struct qcow2 *s)
{
    assert_int_equal(fake.budget.used_bytes, 0);
    aio_context_unref(fake.ctx);
    fake.ctx = NULL;
}

struct run {
    void (*fn)(void *opaque);
    void *opaque;
    bool done;
};

static void run_entry(void *opaque)
{
    struct run *run = opaque;

    run->fn(run->opaque);
    run->done = true;
}

void fake_run(void (*fn)(void *opaque), void *opaque)
{
    struct run run = {.fn = fn, .opaque = opaque};
    Coroutine *co = coroutine_create(run_entry, &run);

    assert_non_null(co);
    coroutine_enter(co);
    assert_true(run.done);
}
