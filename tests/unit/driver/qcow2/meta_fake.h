/* SPDX-License-Identifier: MIT */
/*
 * The metadata core of qcow2 over a recording child. What the core calls of the rest of the driver
 * (refcounts, header, overlap) stands here in its place and writes into the same record, so a test
 * can see the order of everything that reaches the file.
 */
#ifndef PLATTER_TESTS_QCOW2_META_FAKE_H
#define PLATTER_TESTS_QCOW2_META_FAKE_H

#include "driver/format/qcow2/l1.h"
#include "driver/format/qcow2/overlap.h"
#include "driver/format/qcow2/qcow2.h"
#include "fake_node.h"
#include "util/mem.h"

#define META_CLUSTER 65536u
#define META_EVENTS 4096
#define META_CLUSTERS 4096 /* whose refcounts are kept */

enum meta_what {
    META_WRITE,
    META_FLUSH_FILE,
    META_FLUSH_DATA,
    META_REFBLOCKS,
    META_REFTABLE,
    META_DIRTY_SET,
    META_DIRTY_CLEAR,
    META_HEADER,
    META_DISCARD,
};

struct meta_event {
    enum meta_what what;
    uint64_t offset;
    uint64_t bytes;
};

struct meta {
    struct fake_node node; /* the image's */
    struct fake_node file;
    struct fake_node data; /* used where a test says so */
    struct qcow2 s;
    struct os_mutex lock; /* of what follows */
    struct meta_event log[META_EVENTS];
    unsigned n;
    bool forgets;     /* the record may be longer than there is room for */
    unsigned fail_at; /* the event that fails with -EIO, from 1 on; 0: none */
    bool fail_forever;
    void (*on_event)(struct meta *m, const struct meta_event *e);
    _Atomic bool refs_dirty;
    _Atomic bool table_dirty;
    uint16_t refcount[META_CLUSTERS];
    uint64_t next_cluster;
    unsigned dropped; /* q2_refcount_drop_co */
    _Atomic unsigned overlaps;
    uint64_t protected_bytes;
    int overlap_ret;
    unsigned corrupt;
    unsigned broken;
    int alloc_ret;
    int drop_ret;
};

static struct meta meta;

/* ---- the record ---- */

static inline int meta_event(enum meta_what what, uint64_t offset, uint64_t bytes)
{
    struct meta_event e = {what, offset, bytes};
    int ret;

    os_mutex_lock(&meta.lock);
    CHECK(meta.n < META_EVENTS || meta.forgets);
    meta.log[meta.n++ % META_EVENTS] = e;
    ret = meta.fail_at != 0 &&
                  (meta.n == meta.fail_at || (meta.fail_forever && meta.n > meta.fail_at))
              ? -EIO
              : 0;
    os_mutex_unlock(&meta.lock);
    if (meta.on_event != NULL) {
        meta.on_event(&meta, &e);
    }
    return ret;
}

static inline int meta_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    int ret = meta_event(META_WRITE, req->offset, req->bytes);

    return ret < 0 ? ret : fake_write(bs, req);
}
static inline int meta_flush_file_co(BlockDriverState *bs)
{
    int ret = meta_event(META_FLUSH_FILE, 0, 0);

    return ret < 0 ? ret : fake_flush(bs);
}
static inline int meta_flush_data_co(BlockDriverState *bs)
{
    int ret = meta_event(META_FLUSH_DATA, 0, 0);

    return ret < 0 ? ret : fake_flush(bs);
}
static inline int meta_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    int ret = meta_event(META_DISCARD, offset, bytes);

    return ret < 0 ? ret : fake_discard(bs, offset, bytes);
}

/* Whether the record is just these events. */
static inline bool meta_is(const enum meta_what *what, unsigned n)
{
    if (meta.n != n) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        if (meta.log[i].what != what[i]) {
            return false;
        }
    }
    return true;
}
#define META_IS(...)                                                                               \
    meta_is((const enum meta_what[]){__VA_ARGS__},                                                 \
            ARRAY_SIZE(((const enum meta_what[]){__VA_ARGS__})))

static inline void meta_log_clear(void)
{
    meta.n = 0;
    meta.fail_at = 0;
    meta.fail_forever = false;
}

/* ---- the rest of the block floor and of the driver ---- */

void bdrv_mark_broken(BlockDriverState *bs, const char *fmt, ...)
{
    meta.broken++;
}

int q2_refcounts_write_blocks_co(struct qcow2 *s)
{
    int ret;

    if (!meta.refs_dirty) {
        return 0;
    }
    ret = meta_event(META_REFBLOCKS, 0, 0);
    if (ret == 0) {
        meta.refs_dirty = false;
    }
    return ret;
}
int q2_refcounts_write_table_co(struct qcow2 *s)
{
    int ret = meta_event(META_REFTABLE, 0, 0);

    if (ret == 0) {
        meta.table_dirty = false;
    }
    return ret;
}
bool q2_refcounts_dirty(const struct qcow2 *s)
{
    return meta.refs_dirty || meta.table_dirty;
}
bool q2_refcounts_table_dirty(const struct qcow2 *s)
{
    return meta.table_dirty;
}
int q2_alloc_clusters_co(struct qcow2 *s, uint64_t count, uint64_t *ret_offset)
{
    if (meta.alloc_ret < 0) {
        return meta.alloc_ret;
    }
    *ret_offset = meta.next_cluster * META_CLUSTER;
    for (uint64_t i = 0; i < count; i++) {
        meta.refcount[meta.next_cluster++] = 1;
    }
    meta.refs_dirty = true;
    return 0;
}
void q2_unalloc_co(struct qcow2 *s, uint64_t offset, uint64_t bytes)
{
    for (uint64_t i = offset / META_CLUSTER; i * META_CLUSTER < offset + bytes; i++) {
        CHECK(meta.refcount[i] == 1);
        meta.refcount[i] = 0;
    }
}
int q2_refcount_drop_co(struct qcow2 *s, uint64_t offset, uint64_t bytes,
                        void (*zero)(void *opaque, uint64_t offset, uint64_t bytes), void *opaque)
{
    uint64_t first = offset / META_CLUSTER;
    uint64_t last = (offset + bytes - 1) / META_CLUSTER;

    os_mutex_lock(&meta.lock);
    meta.dropped++;
    os_mutex_unlock(&meta.lock);
    if (meta.drop_ret < 0) {
        return meta.drop_ret;
    }
    for (uint64_t i = first; i <= last && zero != NULL; i++) {
        uint64_t n = 0;

        while (i + n <= last && meta.refcount[i + n] == 1) {
            n++;
        }
        if (n > 0) {
            zero(opaque, i * META_CLUSTER, n * META_CLUSTER);
        }
        i += n;
    }
    os_mutex_lock(&meta.lock);
    for (uint64_t i = first; i <= last; i++) {
        CHECK(meta.refcount[i] > 0);
        meta.refcount[i]--;
    }
    os_mutex_unlock(&meta.lock);
    meta.refs_dirty = true;
    return 0;
}
int q2_overlap_check_co(struct qcow2 *s, unsigned ignore, uint64_t offset, uint64_t bytes)
{
    meta.overlaps++;
    return meta.overlap_ret;
}
int q2_overlap_add_range(struct qcow2 *s, enum q2_overlap kind, uint64_t offset, uint64_t bytes)
{
    meta.protected_bytes += bytes;
    return meta.overlap_ret;
}
void q2_overlap_del_range(struct qcow2 *s, enum q2_overlap kind, uint64_t offset, uint64_t bytes)
{
    meta.protected_bytes -= bytes;
}
int q2_corrupt_co(struct qcow2 *s, bool fatal, uint64_t offset, uint64_t bytes, const char *fmt,
                  ...)
{
    meta.corrupt++;
    return -EIO;
}
int q2_header_write_co(struct qcow2 *s, Error **errp)
{
    int ret = meta_event(META_HEADER, s->header.l1_offset, s->header.l1_entries);

    return ret < 0 ? error_set_errno(errp, -ret, "header") : 0;
}
int q2_header_bits_co(struct qcow2 *s, uint64_t incompatible_set, uint64_t incompatible_clear,
                      uint64_t autoclear_clear)
{
    int ret = meta_event(incompatible_set ? META_DIRTY_SET : META_DIRTY_CLEAR, 0, 0);

    if (ret == 0) {
        s->header.incompatible |= incompatible_set;
        s->header.incompatible &= ~incompatible_clear;
    }
    return ret;
}

/* ---- an image: header, refcounts (unused), L1 at cluster 3, one L2 table at cluster 4 ---- */

#define META_L1_OFFSET (3u * META_CLUSTER)
#define META_L2_OFFSET (4u * META_CLUSTER)

static inline void meta_init(uint32_t slice_bytes, uint32_t slices, uint32_t l1_entries)
{
    struct qcow2 *s = &meta.s;
    uint8_t *file;

    memset(&meta, 0, sizeof(meta));
    fake_instance_init();
    fake_pl.budget.limit_bytes = UINT64_C(1) << 30;
    os_mutex_init(&meta.lock);
    fake_node_init(&meta.node, &fake_pl, 1 << 20);
    fake_node_init(&meta.file, &fake_pl, 32 * META_CLUSTER);
    fake_node_init(&meta.data, &fake_pl, 32 * META_CLUSTER);
    meta.file.bs.caps = BDRV_CAP_GROWS_ON_WRITE; /* no flush is left out */
    meta.file.f.drv.write_co = meta_write_co;
    meta.file.f.drv.flush_co = meta_flush_file_co;
    meta.file.f.drv.discard_co = meta_discard_co;
    meta.data.bs.caps = BDRV_CAP_GROWS_ON_WRITE;
    meta.data.f.drv.flush_co = meta_flush_data_co;
    s->bs = &meta.node.bs;
    s->file = &meta.file.edge;
    s->data = s->file;
    s->geo.version = 3;
    s->geo.cluster_bits = 16;
    s->geo.cluster_bytes = META_CLUSTER;
    s->geo.l2_entry_bytes = 8;
    s->opt.l2_slice_bytes = slice_bytes;
    s->opt.l2_cache_bytes = (uint64_t)slice_bytes * slices;
    s->header.l1_offset = META_L1_OFFSET;
    s->header.l1_entries = l1_entries;
    meta.next_cluster = 5;
    for (unsigned i = 0; i < meta.next_cluster; i++) {
        meta.refcount[i] = 1;
    }
    file = meta.file.f.data;
    if (l1_entries > 0) {
        store_be64(file + META_L1_OFFSET, Q2_COPIED | META_L2_OFFSET);
    }
    for (unsigned i = 0; i < META_CLUSTER / 8; i++) {
        store_be64(file + META_L2_OFFSET + i * 8, 0x1000000 + i);
    }
    co_mutex_init(&s->header_lock);
    q2_inflight_init(&s->inflight);
    q2_ranges_init(&s->ranges);
    q2_free_init(s);
    q2_commit_init(s);
    CHECK(q2_l2_init(s) == 0);
    CHECK(q2_l1_load(s, META_L1_OFFSET, l1_entries, NULL) == 0);
}

static inline void meta_fini(void)
{
    struct qcow2 *s = &meta.s;

    q2_inflight_fini(&s->inflight);
    q2_l2_fini(s);
    q2_l1_free(s);
    q2_free_fini(s);
    q2_ranges_fini(&s->ranges);
    fake_node_fini(&meta.data);
    fake_node_fini(&meta.file);
    fake_node_fini(&meta.node);
    os_mutex_fini(&meta.lock);
    fake_instance_fini(); /* the budget is whole again */
}

/* ---- what tests do most ---- */

static inline uint64_t meta_file_word(uint64_t offset)
{
    return load_be64(meta.file.f.data + offset);
}

/* Coroutine, inside: change one word. */
static inline int meta_set_co(uint64_t key, uint32_t index, uint64_t word)
{
    struct q2_slice *slice;
    int ret = q2_l2_get_co(&meta.s, key, &slice);

    if (ret == 0) {
        q2_l2_set_co(&meta.s, slice, index, &word, 1);
        q2_l2_put(&meta.s, slice);
    }
    return ret;
}

struct meta_set {
    uint64_t key;
    uint32_t index;
    uint64_t word;
};
static inline int meta_set_run(void *opaque)
{
    const struct meta_set *set = opaque;
    q2_token token = q2_enter_co(&meta.s);
    int ret = meta_set_co(set->key, set->index, set->word);

    q2_leave(&meta.s, token);
    return ret;
}
static inline int meta_set(uint64_t key, uint32_t index, uint64_t word)
{
    return fake_do(meta_set_run, &(struct meta_set){key, index, word});
}

static inline int meta_commit_run(void *opaque)
{
    q2_token token = q2_enter_co(&meta.s);
    int ret = q2_commit_co(&meta.s, *(bool *)opaque);

    q2_leave(&meta.s, token);
    return ret;
}
static inline int meta_commit(bool flush)
{
    return fake_do(meta_commit_run, &flush);
}
static inline int meta_clean_run(void *opaque)
{
    return q2_commit_clean_co(&meta.s);
}

/* A word of a table, through the cache or, where it is not there, loaded. */
struct meta_get {
    uint64_t key;
    uint32_t index;
    uint64_t word;
};
static inline int meta_get_run(void *opaque)
{
    struct meta_get *get = opaque;
    q2_token token = q2_enter_co(&meta.s);
    struct q2_slice *slice;
    int ret = q2_l2_get_co(&meta.s, get->key, &slice);

    if (ret == 0) {
        get->word = q2_slice_word(slice, get->index);
        q2_l2_put(&meta.s, slice);
    }
    q2_leave(&meta.s, token);
    return ret;
}
static inline int meta_get(uint64_t key, uint32_t index, uint64_t *ret_word)
{
    struct meta_get get = {key, index, 0};
    int ret = fake_do(meta_get_run, &get);

    *ret_word = get.word;
    return ret;
}

/* ---- many coroutines in several threads ---- */

#define META_THREADS 3
#define META_COROUTINES 4 /* in each */

static _Atomic int meta_running;

struct meta_stress {
    CoroutineEntry *entry;
    void *opaque;
};
static inline void meta_stress_start(void *opaque)
{
    struct meta_stress *one = opaque;
    Coroutine *co = coroutine_create(one->entry, one->opaque);

    CHECK(co != NULL);
    free(one);
    coroutine_enter(co);
}

/* The end of an entry. */
static inline void meta_stress_done(void)
{
    atomic_fetch_sub(&meta_running, 1);
    aio_notify(fake_ctx);
}

/* Run entry in all of them, each with a seed of its own as its argument, to the end. */
static inline void meta_stress(uint64_t *rng, CoroutineEntry *entry)
{
    IOThread *threads[META_THREADS];

    for (int i = 0; i < META_THREADS; i++) {
        threads[i] = iothread_new("stress", NULL, NULL);
        assert_non_null(threads[i]);
        for (int k = 0; k < META_COROUTINES; k++) {
            struct meta_stress *one = malloc(sizeof(*one));

            assert_non_null(one);
            *one = (struct meta_stress){entry, (void *)(uintptr_t)(fake_rand(rng) | 1)};
            atomic_fetch_add(&meta_running, 1);
            assert_int_equal(aio_bh_schedule_oneshot(iothread_get_aio_context(threads[i]),
                                                     meta_stress_start, one),
                             0);
        }
    }
    while (atomic_load(&meta_running) > 0) {
        aio_poll(fake_ctx, true);
    }
    for (int i = 0; i < META_THREADS; i++) {
        iothread_free(threads[i]);
    }
}

#endif
