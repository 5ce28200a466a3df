/* SPDX-License-Identifier: MIT */
/*
 * Power cuts of qcow2: random requests, several in flight, and operations on the image in between,
 * on the simulated disk. At every change of the image file (and of an external data file) the power
 * is cut on copies: every subset of the unflushed changes that includes the newest while they are
 * few, so that each subset of an epoch comes once; by chance, torn at 512 bytes, when they are
 * many. Each state is judged by the second reader: no corruption, nothing durable lost, snapshots
 * and bitmaps as they must be (qcow2_expect.h).
 *
 * A sample of the states is opened by our driver for writing, which must leave the same disk, clean
 * and with the leaks that our check counts; a sample is shown to `qemu-img check`, where installed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <platter/bitmap.h>
#include <platter/image.h>
#include <platter/options.h>

#include "loop/internal.h"
#include "qcow2_expect.h"

#define KIB 1024u
#define PC_IN_FLIGHT 6
#define BUSY_UNITS 64
#define SUBSETS_OF_PENDING 6 /* all subsets up to so many pending changes */
#define CHANCES 3            /* cuts by chance of more */
#define PC_SAMPLES 4096
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 40
#else
#define STEPS 170
#endif
#define SAMPLES_OF_1000 10 /* states: opened by the driver, and shown to qemu-img */
#define ROUNDS 2           /* of all workloads; PLATTER_ROUNDS */

/* Operations on the whole image, as bits. */
enum whole {
    WHOLE_SNAPSHOTS = 1 << 0,
    WHOLE_RESIZE = 1 << 1,
    WHOLE_AMEND = 1 << 2,
    WHOLE_BITMAP = 1 << 3,
    WHOLE_VMSTATE = 1 << 4,
    WHOLE_REOPEN = 1 << 5,
    WHOLE_CHECK = 1 << 6,
};

struct powercut_config {
    const char *name;
    const char *create; /* options besides driver and size */
    const char *open;   /* options besides driver and file */
    uint64_t disk_bytes;
    uint64_t largest_bytes; /* with resize; 0: disk_bytes */
    uint64_t backing_bytes; /* 0: no backing file */
    unsigned cluster_bytes;
    unsigned grain; /* requests are multiples of it; 0: 512 */
    unsigned whole; /* enum whole */
    unsigned compressed_percent;
    unsigned steps_percent; /* of STEPS; 0: all */
    bool data_file;
    bool write_through;
    bool one_worker; /* a thread makes all calls, in turn */
    bool alone;      /* one request at a time: fewer changes pending, so more subsets */
};

#define SMALL_CACHES ",l2-cache-size=4k,l2-cache-entry-size=512,refcount-cache-size=2k"

static const struct powercut_config pc_configs[] = {
    /* ends with one without a name */
    {.name = "512 bytes",
     .create = "cluster_size=512",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 512,
     .whole = WHOLE_SNAPSHOTS | WHOLE_REOPEN},
    {.name = "512 bytes, small caches",
     .create = "cluster_size=512",
     .open = SMALL_CACHES,
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 512,
     .grain = 1,
     .compressed_percent = 10,
     .whole = WHOLE_SNAPSHOTS},
    {.name = "refcounts of 1 bit",
     .create = "cluster_size=512,refcount_bits=1",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 512,
     .whole = WHOLE_REOPEN | WHOLE_CHECK},
    {.name = "refcounts of 64 bits, tables grow",
     .create = "cluster_size=512,refcount_bits=64",
     .disk_bytes = 384 * KIB,
     .largest_bytes = 1024 * KIB,
     .cluster_bytes = 512,
     .steps_percent = 60,
     .whole = WHOLE_SNAPSHOTS | WHOLE_RESIZE | WHOLE_VMSTATE},
    {.name = "4 KiB",
     .create = "cluster_size=4k",
     .disk_bytes = 256 * KIB,
     .cluster_bytes = 4096,
     .compressed_percent = 5,
     .whole = WHOLE_SNAPSHOTS | WHOLE_REOPEN},
    {.name = "4 KiB, alone",
     .create = "cluster_size=4k",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .alone = true,
     .compressed_percent = 10,
     .whole = WHOLE_SNAPSHOTS | WHOLE_RESIZE | WHOLE_VMSTATE},
    {.name = "64 KiB",
     .create = "cluster_size=64k",
     .disk_bytes = 1024 * KIB,
     .cluster_bytes = 65536,
     .grain = 1,
     .steps_percent = 60,
     .whole = WHOLE_SNAPSHOTS},
    {.name = "version 2",
     .create = "cluster_size=4k,compat=0.10",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .compressed_percent = 5,
     .whole = WHOLE_SNAPSHOTS | WHOLE_REOPEN},
    {.name = "version 2 over backing",
     .create = "cluster_size=1k,compat=0.10",
     .disk_bytes = 128 * KIB,
     .backing_bytes = 100 * KIB,
     .cluster_bytes = 1024,
     .whole = WHOLE_SNAPSHOTS},
    {.name = "extended L2",
     .create = "cluster_size=16k,extended_l2=on",
     .disk_bytes = 256 * KIB,
     .cluster_bytes = 16384,
     .compressed_percent = 5,
     .whole = WHOLE_SNAPSHOTS},
    {.name = "extended L2 over backing",
     .create = "cluster_size=16k,extended_l2=on",
     .disk_bytes = 256 * KIB,
     .backing_bytes = 200 * KIB,
     .cluster_bytes = 16384,
     .grain = 1,
     .whole = WHOLE_SNAPSHOTS | WHOLE_REOPEN},
    {.name = "over backing",
     .create = "cluster_size=4k",
     .disk_bytes = 128 * KIB,
     .backing_bytes = 77 * KIB,
     .cluster_bytes = 4096,
     .grain = 1,
     .compressed_percent = 5,
     .whole = WHOLE_SNAPSHOTS},
    {.name = "over a longer backing, resized",
     .create = "cluster_size=4k",
     .disk_bytes = 64 * KIB,
     .largest_bytes = 128 * KIB,
     .backing_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .whole = WHOLE_RESIZE},
    {.name = "lazy refcounts",
     .create = "cluster_size=4k,lazy_refcounts=on",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .compressed_percent = 5,
     .whole = WHOLE_SNAPSHOTS | WHOLE_REOPEN},
    {.name = "data file",
     .create = "cluster_size=4k,data_file=" EXPECT_DATA_PATH,
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .data_file = true,
     .whole = WHOLE_RESIZE | WHOLE_REOPEN},
    {.name = "raw data file",
     .create = "cluster_size=4k,data_file=" EXPECT_DATA_PATH ",data_file_raw=on",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .data_file = true,
     .whole = WHOLE_REOPEN},
    {.name = "compressed",
     .create = "cluster_size=4k",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .compressed_percent = 50,
     .one_worker = true,
     .whole = WHOLE_SNAPSHOTS | WHOLE_REOPEN},
    {.name = "compressed with zstd",
     .create = "cluster_size=4k,compression_type=zstd",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .compressed_percent = 50,
     .one_worker = true,
     .whole = WHOLE_SNAPSHOTS},
    {.name = "write-through",
     .create = "cluster_size=4k",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .write_through = true,
     .whole = WHOLE_SNAPSHOTS},
    {.name = "preallocated",
     .create = "cluster_size=4k,preallocation=metadata",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .whole = WHOLE_SNAPSHOTS | WHOLE_RESIZE},
    {.name = "bitmap",
     .create = "cluster_size=4k",
     .disk_bytes = 128 * KIB,
     .cluster_bytes = 4096,
     .whole = WHOLE_BITMAP | WHOLE_REOPEN},
    {.name = "bitmap and snapshots, 512 bytes",
     .create = "cluster_size=512",
     .disk_bytes = 64 * KIB,
     .cluster_bytes = 512,
     .whole = WHOLE_BITMAP | WHOLE_REOPEN | WHOLE_SNAPSHOTS},
    {.name = "resized",
     .create = "cluster_size=1k",
     .disk_bytes = 64 * KIB,
     .largest_bytes = 256 * KIB,
     .cluster_bytes = 1024,
     .whole = WHOLE_RESIZE | WHOLE_SNAPSHOTS},
    {.name = "amended",
     .create = "cluster_size=1k",
     .disk_bytes = 64 * KIB,
     .largest_bytes = 64 * KIB,
     .cluster_bytes = 1024,
     .whole = WHOLE_AMEND | WHOLE_REOPEN},
    {.name = "everything",
     .create = "cluster_size=1k",
     .open = SMALL_CACHES,
     .disk_bytes = 64 * KIB,
     .largest_bytes = 128 * KIB,
     .cluster_bytes = 1024,
     .compressed_percent = 10,
     .whole = WHOLE_SNAPSHOTS | WHOLE_RESIZE | WHOLE_VMSTATE | WHOLE_REOPEN | WHOLE_CHECK},
    {0},
};

enum kind { READ, WRITE, ZERO, DISCARD, COMPRESS, FLUSH };
static const char *const kind_names[] = {"read", "write", "zero", "discard", "compress", "flush"};

struct request {
    struct powercut *test;
    enum kind kind;
    bool active;
    bool fua;
    unsigned version;
    uint64_t offset;
    uint64_t bytes;
    struct iovec iov;
    struct iov_view view;
    uint8_t *buf;
};

/* A state that somebody else shall look at. */
struct sample {
    uint8_t *file, *data, *disk; /* owned */
    uint64_t file_bytes, data_bytes, disk_bytes;
    uint64_t leaks;
    bool dirty, mismatched, has_data;
};

struct powercut {
    struct harness h;
    struct qcow2_expect e;
    const struct powercut_config *config;
    struct sim_rng rng;     /* of the workload */
    struct sim_rng cut_rng; /* of the cuts, used under the world's lock */
    struct request requests[PC_IN_FLIGHT];
    uint64_t busy; /* bit per part of the disk that a request in flight touches */
    bool flushing;
    bool drain_first; /* an operation on the image comes when nothing is in flight */
    unsigned snapshot_number;
    unsigned vm_version;
    uint64_t vm_bytes;
    size_t pending_before[2]; /* of file and data file, at the last boundary */
    unsigned long boundaries;
    unsigned operations;
    unsigned grew; /* refcount table or L1 table moved */
    struct sample *samples;
    size_t nsamples;
    unsigned long opened, shown; /* samples: by the driver, to qemu-img */
    char wrong[500];
};

/* PLATTER_TRACE=1: what goes on, for whoever looks into a failure. */
static void pc_trace(const struct powercut *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void pc_trace(const struct powercut *t, const char *fmt, ...)
{
    static int wanted = -1;
    va_list ap;

    wanted = wanted < 0 ? getenv("PLATTER_TRACE") != NULL : wanted;
    if (wanted) {
        printf("%6lu ", t->boundaries);
        va_start(ap, fmt);
        vprintf(fmt, ap);
        va_end(ap);
        putchar('\n');
    }
}

static void pc_wrong(struct powercut *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void pc_wrong(struct powercut *t, const char *fmt, ...)
{
    va_list ap;

    if (!t->wrong[0]) {
        va_start(ap, fmt);
        vsnprintf(t->wrong, sizeof(t->wrong), fmt, ap);
        va_end(ap);
    }
}

/* ---- cutting ---- */

static uint8_t *copy_of(const uint8_t *from, uint64_t bytes)
{
    uint8_t *to = malloc(bytes ? bytes : 1);

    assert_non_null(to);
    if (bytes > 0) {
        memcpy(to, from, bytes);
    }
    return to;
}

static void keep_sample(struct powercut *t)
{
    const struct qv_image *im = &t->e.im;
    struct sample *s = &t->samples[t->nsamples];

    if (t->nsamples == PC_SAMPLES) {
        return;
    }
    *s = (struct sample){
        .file = copy_of(im->file.data, im->file.bytes),
        .file_bytes = im->file.bytes,
        .data = im->data.data ? copy_of(im->data.data, im->data.bytes) : NULL,
        .data_bytes = im->data.bytes,
        .has_data = im->data.data != NULL,
        .disk = malloc(im->h.disk_bytes ? im->h.disk_bytes : 1),
        .disk_bytes = im->h.disk_bytes,
        .leaks = im->leaks,
        .dirty = qv_dirty(im),
        .mismatched = im->mismatched > 0,
    };
    assert_non_null(s->disk);
    assert_true(qv_read(&t->e.im, -1, 0, s->disk, s->disk_bytes));
    t->nsamples++;
}

/* subset < 0: by chance. */
static int cut_one(struct powercut *t, struct sim_disk *disk, int64_t subset)
{
    uint8_t bits[8] = {0};

    if (!disk) {
        return 0;
    }
    if (subset < 0) {
        return sim_disk_power_cut(disk, &t->cut_rng);
    }
    if (subset == 0) { /* none, however many there are */
        static const uint8_t none[SIM_PENDING_MAX / 8 + 1];

        return sim_disk_power_cut_subset(disk, none);
    }
    for (unsigned i = 0; i < 63; i++) {
        bits[i / 8] |= (uint8_t)((subset >> i & 1) << (i % 8));
    }
    return sim_disk_power_cut_subset(disk, bits);
}

static void cut(struct powercut *t, const struct sim_disk *file, const struct sim_disk *data,
                int64_t file_subset, int64_t data_subset)
{
    struct sim_disk *f, *d;
    const char *wrong;

    harness_own++;
    f = sim_disk_clone(file);
    d = data ? sim_disk_clone(data) : NULL;
    if (!f || (data && !d) || cut_one(t, f, file_subset) < 0 || cut_one(t, d, data_subset) < 0) {
        wrong = "no memory";
    } else {
        wrong = expect_judge(&t->e, f, d, EXPECT_CUT);
    }
    if (wrong) {
        pc_wrong(t, "%s (boundary %lu, subsets %lld and %lld)", wrong, t->boundaries,
                 (long long)file_subset, (long long)data_subset);
    } else if (sim_rng_below(&t->cut_rng, 1000) < SAMPLES_OF_1000) {
        keep_sample(t);
    }
    sim_disk_free(f);
    sim_disk_free(d);
    harness_own--;
}

/* All subsets of what is pending, those with the newest change (bit) only when it is not 0. */
static void cut_subsets(struct powercut *t, const struct sim_disk *file,
                        const struct sim_disk *data, size_t files, size_t datas, uint64_t newest)
{
    for (uint64_t subset = 0; subset < UINT64_C(1) << (files + datas) && !t->wrong[0]; subset++) {
        if (newest == 0 || (subset & newest)) {
            cut(t, file, data, (int64_t)(subset & ((UINT64_C(1) << files) - 1)),
                (int64_t)(subset >> files));
        }
    }
}

/* Every change of a disk, under the world's lock, in whatever thread made it. */
static void pc_boundary(void *opaque, const char *path, const struct sim_disk *disk)
{
    struct powercut *t = opaque;
    const struct sim_disk *file = sim_world_peek(t->h.world, SIM_DISK_PATH);
    const struct sim_disk *data =
        t->config->data_file ? sim_world_peek(t->h.world, EXPECT_DATA_PATH) : NULL;
    size_t pending[2] = {sim_disk_pending(file), data ? sim_disk_pending(data) : 0};
    unsigned changed = disk != file;
    uint64_t newest = 0;

    t->boundaries++;
    pc_trace(t, "disk %s: %zu pending", path, sim_disk_pending(disk));
    if (t->wrong[0] || (disk != file && disk != data)) {
        return;
    }
    if (pending[changed] > t->pending_before[changed]) {
        newest = UINT64_C(1) << (changed ? pending[0] + pending[1] - 1 : pending[0] - 1);
    }
    if (pending[0] + pending[1] <= SUBSETS_OF_PENDING) {
        cut_subsets(t, file, data, pending[0], pending[1], newest);
    } else {
        cut(t, file, data, 0, 0);
        for (int i = 0; i + 1 < CHANCES; i++) {
            cut(t, file, data, -1, -1);
        }
    }
    cut(t, file, data, -1, -1);
    t->pending_before[0] = pending[0];
    t->pending_before[1] = pending[1];
}

/* ---- requests ---- */

static uint64_t units_of(const struct powercut *t, uint64_t offset, uint64_t bytes)
{
    uint64_t unit = t->h.shadow.size / BUSY_UNITS;
    uint64_t cluster = t->config->cluster_bytes;
    uint64_t first = offset / cluster * cluster / unit;
    uint64_t last = (qv_up(offset + bytes, cluster) - 1) / unit;
    uint64_t mask = 0;

    for (uint64_t at = first; at <= last && at < BUSY_UNITS; at++) {
        mask |= UINT64_C(1) << at;
    }
    return mask;
}

static bool flushes_itself(const struct powercut *t, const struct request *r)
{
    return r->fua || t->config->write_through;
}

static void completed(void *opaque, int ret)
{
    struct request *r = opaque;
    struct powercut *t = r->test;

    pc_trace(t, "%s %llu done: %d", kind_names[r->kind], (unsigned long long)r->offset, ret);
    if (ret < 0) {
        pc_wrong(t, "request of kind %d at %llu + %llu: %s", (int)r->kind,
                 (unsigned long long)r->offset, (unsigned long long)r->bytes, strerror(-ret));
    }
    if (r->kind == FLUSH) {
        shadow_flush_end(&t->h.shadow, ret == 0);
        t->flushing = false;
    } else if (r->kind == READ) {
        int64_t at = shadow_check_now(&t->h.shadow, r->offset, r->buf, r->bytes);

        if (ret == 0 && at >= 0) {
            pc_wrong(t, "a read gave wrong bytes at %lld", (long long)at);
        }
    } else if (r->kind != DISCARD) {
        shadow_end(&t->h.shadow, r->offset, r->bytes, r->version, ret == 0, flushes_itself(t, r));
    }
    t->busy &= r->kind == FLUSH ? UINT64_MAX : ~units_of(t, r->offset, r->bytes);
    free(r->buf);
    r->buf = NULL;
    r->active = false;
}

/* A range that no request in flight touches, or false. */
static bool pick_range(struct powercut *t, struct request *r)
{
    const struct powercut_config *c = t->config;
    uint64_t disk = t->e.disk_bytes;
    uint64_t grain = r->kind == COMPRESS ? c->cluster_bytes : c->grain ? c->grain : 512;
    uint64_t longest = sim_rng_percent(&t->rng, 15) ? disk / 4 : c->cluster_bytes * 3 / 2;

    if (disk < grain) {
        return false;
    }
    longest = longest > grain ? longest : grain;
    r->offset = sim_rng_below(&t->rng, disk) / grain * grain;
    r->bytes = (1 + sim_rng_below(&t->rng, longest) / grain) * grain;
    if (r->kind == COMPRESS) { /* threads compress in parallel, in an order that no seed knows */
        r->bytes = grain * (1 + (c->one_worker ? sim_rng_below(&t->rng, 3) : 0));
    }
    if (r->bytes > disk - r->offset) {
        r->bytes = disk - r->offset;
    }
    return !(t->busy & units_of(t, r->offset, r->bytes));
}

static BlockAIOCB *submit(struct powercut *t, struct request *r)
{
    BlockBackend *blk = t->h.blk;
    int64_t offset = (int64_t)r->offset;
    int flags = r->fua ? BDRV_REQ_FUA : 0;

    switch (r->kind) {
    case READ:
        return blk_aio_preadv(blk, offset, &r->view, 0, completed, r);
    case WRITE:
        return blk_aio_pwritev(blk, offset, &r->view, flags, completed, r);
    case COMPRESS:
        return blk_aio_pwritev(blk, offset, &r->view, flags | BDRV_REQ_WRITE_COMPRESSED, completed,
                               r);
    case ZERO:
        flags |= sim_rng_percent(&t->rng, 50) ? BDRV_REQ_MAY_UNMAP : 0;
        return blk_aio_pwrite_zeroes(blk, offset, (int64_t)r->bytes, flags, completed, r);
    case DISCARD:
        return blk_aio_pdiscard(blk, offset, (int64_t)r->bytes, completed, r);
    default:
        return blk_aio_flush(blk, completed, r);
    }
}

static bool compresses(const struct powercut *t)
{
    for (unsigned i = 0; i < PC_IN_FLIGHT; i++) {
        if (t->requests[i].active && t->requests[i].kind == COMPRESS && !t->config->one_worker) {
            return true;
        }
    }
    return false;
}

static enum kind pick_kind(struct powercut *t)
{
    unsigned what = (unsigned)sim_rng_below(&t->rng, 100);

    if (sim_rng_percent(&t->rng, t->config->compressed_percent) && !compresses(t)) {
        return COMPRESS;
    }
    return what < 6 ? READ : what < 62 ? WRITE : what < 76 ? ZERO : what < 86 ? DISCARD : FLUSH;
}

/* A version that the backing file's bytes cannot be taken for. */
static unsigned begin_version(struct powercut *t, const struct request *r)
{
    bool zero = r->kind == ZERO || r->kind == DISCARD;

    if (!zero && t->h.shadow.next_version == EXPECT_BACKING_VERSION) {
        t->h.shadow.next_version = 1;
    }
    return shadow_begin(&t->h.shadow, r->offset, r->bytes, zero);
}

static bool pc_start(struct powercut *t, struct request *r)
{
    *r = (struct request){.test = t, .kind = pick_kind(t), .fua = sim_rng_percent(&t->rng, 10)};
    if (r->kind == FLUSH ? t->flushing : !pick_range(t, r)) {
        return false;
    }
    if (r->kind == FLUSH) {
        shadow_flush_begin(&t->h.shadow);
        t->flushing = true;
    } else {
        t->busy |= units_of(t, r->offset, r->bytes);
    }
    if (r->kind != FLUSH && r->kind != READ) {
        r->version = begin_version(t, r);
        expect_touch(&t->e, r->offset, r->bytes);
    }
    if (r->kind == READ || r->kind == WRITE || r->kind == COMPRESS) {
        r->buf = malloc(r->bytes);
        assert_non_null(r->buf);
        shadow_fill(r->buf, r->offset, r->bytes, r->version);
        r->iov = (struct iovec){.iov_base = r->buf, .iov_len = r->bytes};
        r->view = (struct iov_view){.iov = &r->iov, .niov = 1, .bytes = r->bytes};
    }
    r->active = true;
    pc_trace(t, "%s %llu + %llu version %u%s", kind_names[r->kind], (unsigned long long)r->offset,
             (unsigned long long)r->bytes, r->version, r->fua ? " fua" : "");
    assert_non_null(submit(t, r));
    return true;
}

static unsigned pc_in_flight(const struct powercut *t)
{
    unsigned n = 0;

    for (unsigned i = 0; i < PC_IN_FLIGHT; i++) {
        n += t->requests[i].active;
    }
    return n;
}

/* What can happen without time passing has happened. */
static void pc_settle(struct powercut *t)
{
    AioContext *ctx = platter_get_main_context(t->h.pl);

    bool settled, ran;

    do { /* in this order: what ends between the two is seen */
        settled = sim_world_settled(t->h.world);
        ran = aio_poll(ctx, false);
    } while (ran || !settled);
}

/* Time passes until something has come. */
static void pc_pass_time(struct powercut *t)
{
    aio_poll(platter_get_main_context(t->h.pl), true);
    pc_settle(t);
}

static void pc_drain(struct powercut *t)
{
    while (pc_in_flight(t) > 0) {
        pc_pass_time(t);
    }
}

/* ---- operations on the image ---- */

static void pc_told(struct powercut *t, const char *what, int ret, Error *err)
{
    pc_trace(t, "%s: %d", what, ret);
    if (ret < 0) {
        pc_wrong(t, "%s: %s", what, err ? error_get_pretty(err) : strerror(-ret));
    }
    error_free(err);
}

static struct expect_snapshot *any_snapshot(struct powercut *t)
{
    struct expect_snapshot *found[EXPECT_SNAPSHOTS];
    size_t n = 0;

    for (size_t i = 0; i < EXPECT_SNAPSHOTS; i++) {
        if (t->e.snapshots[i].used) {
            found[n++] = &t->e.snapshots[i];
        }
    }
    return n > 0 ? found[sim_rng_below(&t->rng, n)] : NULL;
}

static void save_vmstate(struct powercut *t)
{
    uint64_t bytes = (1 + sim_rng_below(&t->rng, 40)) * 512;
    uint8_t *buf = malloc(bytes);
    int ret;

    assert_non_null(buf);
    t->vm_version = 1 + t->vm_version % 60;
    shadow_fill(buf, 0, bytes, t->vm_version);
    ret = blk_save_vmstate(t->h.blk, buf, 0, (int)bytes);
    pc_told(t, "vmstate", ret < 0 ? ret : 0, NULL);
    t->vm_bytes = ret < 0 ? 0 : bytes;
    free(buf);
}

static void snapshot_create(struct powercut *t)
{
    struct bdrv_snapshot_info info = {.date_sec = 1, .date_nsec = 2};
    struct expect_snapshot *s;
    char name[16];
    Error *err = NULL;
    int ret;

    t->vm_bytes = 0;
    if ((t->config->whole & WHOLE_VMSTATE) && sim_rng_percent(&t->rng, 50)) {
        save_vmstate(t);
    }
    snprintf(name, sizeof(name), "s%u", t->snapshot_number++);
    s = expect_create(&t->e, name, t->vm_bytes, t->vm_version);
    if (!s) {
        return;
    }
    info.name = name;
    info.vm_state_bytes = t->vm_bytes;
    ret = bdrv_snapshot_create(blk_bs(t->h.blk), &info, &err);
    expect_create_end(&t->e, s, ret == 0);
    pc_told(t, "snapshot create", ret, err);
}

static void snapshot_op(struct powercut *t)
{
    struct expect_snapshot *s = any_snapshot(t);
    unsigned what = (unsigned)sim_rng_below(&t->rng, 10);
    Error *err = NULL;
    int ret;

    if (!s || what < 4) {
        snapshot_create(t);
    } else if (what < 7) {
        if (bdrv_bitmap_find(blk_bs(t->h.blk), EXPECT_BITMAP)) {
            return; /* it would not know what changed: refused */
        }
        expect_apply(&t->e, s);
        ret = bdrv_snapshot_apply(blk_bs(t->h.blk), s->name, &err);
        expect_apply_end(&t->e, s, ret == 0);
        pc_told(t, "snapshot apply", ret, err);
    } else {
        expect_delete(&t->e, s);
        ret = bdrv_snapshot_delete(blk_bs(t->h.blk), NULL, s->name, &err);
        expect_delete_end(&t->e, s, ret == 0);
        pc_told(t, "snapshot delete", ret, err);
    }
}

static bool has_snapshots(const struct powercut *t)
{
    for (size_t i = 0; i < EXPECT_SNAPSHOTS; i++) {
        if (t->e.snapshots[i].used) {
            return true;
        }
    }
    return false;
}

static void resize_op(struct powercut *t)
{
    uint64_t largest = t->h.shadow.size;
    uint64_t bytes = (1 + sim_rng_below(&t->rng, largest / 512)) * 512;
    enum bdrv_prealloc prealloc = BDRV_PREALLOC_OFF;
    Error *err = NULL;
    int ret;

    if (bytes > t->e.disk_bytes && sim_rng_percent(&t->rng, 40) && !t->e.backing.data) {
        prealloc = BDRV_PREALLOC_METADATA + (enum bdrv_prealloc)sim_rng_below(&t->rng, 3);
    }
    expect_resize(&t->e, bytes);
    ret = blk_resize(t->h.blk, (int64_t)bytes, true, prealloc, &err);
    expect_resize_end(&t->e, bytes, ret == 0);
    pc_told(t, "resize", ret, err);
}

static void amend_op(struct powercut *t)
{
    static const char *const what[] = {
        "refcount_bits=1",
        "refcount_bits=8",
        "refcount_bits=64",
        "refcount_bits=16",
        "lazy_refcounts=on",
        "lazy_refcounts=off",
        "refcount_bits=16,lazy_refcounts=off,compat=0.10",
        "compat=1.1",
    };
    const char *text = what[sim_rng_below(&t->rng, sizeof(what) / sizeof(what[0]))];
    Error *err = NULL;
    int ret;

    if (t->e.im.h.version < 3 && !strstr(text, "compat")) {
        text = "compat=1.1";
    }
    t->e.whole = true;
    ret = bdrv_amend(blk_bs(t->h.blk), block_options_parse(text, NULL, NULL), false, NULL, &err);
    t->e.whole = ret < 0;
    pc_told(t, text, ret, err);
}

static void pc_found_by_check(void *opaque, const char *text)
{
    pc_trace(opaque, "check: %s", text);
}

static void check_op(struct powercut *t)
{
    struct bdrv_check_options options = {
        .size = sizeof(options),
        .finding = pc_found_by_check,
        .opaque = t,
        .fix = sim_rng_percent(&t->rng, 50) ? BDRV_FIX_LEAKS | BDRV_FIX_ERRORS : 0,
    };
    struct bdrv_check_result result = {0};
    Error *err = NULL;
    int ret = bdrv_check(blk_bs(t->h.blk), &options, &result, &err);

    pc_told(t, "check", ret, err);
    if (ret == 0 && (result.corruptions || result.check_errors || result.leaks ||
                     result.corruptions_fixed || result.leaks_fixed)) {
        pc_wrong(t, "check of an open image finds %llu corruptions, %llu leaks",
                 (unsigned long long)(result.corruptions + result.corruptions_fixed),
                 (unsigned long long)(result.leaks + result.leaks_fixed));
    }
}

static void bitmap_op(struct powercut *t)
{
    BlockDriverState *bs = blk_bs(t->h.blk);
    BdrvDirtyBitmap *bm = bdrv_bitmap_find(bs, EXPECT_BITMAP);
    Error *err = NULL;
    int ret = 0;

    if (!bm) {
        expect_bitmap_new(&t->e);
        t->e.bitmap = true;
        pc_trace(t, "bitmap create");
        bm = bdrv_bitmap_create(bs, EXPECT_BITMAP, 512u << sim_rng_below(&t->rng, 5),
                                BDRV_BITMAP_PERSISTENT, &err);
        ret = bm ? 0 : -EINVAL;
    } else if (sim_rng_percent(&t->rng, 60)) {
        pc_trace(t, "bitmaps store");
        ret = bdrv_bitmaps_store(bs, &err);
        expect_bitmap_stored(&t->e);
    } else {
        t->e.bitmap = false;
        ret = bdrv_bitmap_remove(bm, &err);
        t->e.bitmap_maybe = ret < 0;
    }
    pc_told(t, "bitmap", ret, err);
}

static int pc_open_disk(struct powercut *t, struct harness *h)
{
    char options[512];
    int ret;

    snprintf(options, sizeof(options),
             "driver=qcow2,file.driver=file,file.filename=" SIM_DISK_PATH "%s%s%s%s",
             t->config->data_file ? ",data-file.driver=file,data-file.filename=" EXPECT_DATA_PATH
                                  : "",
             t->config->backing_bytes ? ",backing.driver=raw,backing.file.driver=file,"
                                        "backing.file.filename=" EXPECT_BACKING_PATH
                                      : "",
             t->config->open ? t->config->open : "",
             sim_rng_percent(&t->rng, 50) ? ",discard=unmap,file.discard=unmap" : "");
    ret = harness_open(h, options, BDRV_O_RDWR | BDRV_O_UNMAP);
    if (ret == 0) {
        blk_set_enable_write_cache(h->blk, !t->config->write_through);
    } else {
        pc_wrong(t, "%s: %s", h == &t->h ? "open" : "open of a sample", h->error);
    }
    return ret;
}

/* What is closed must be exactly what was answered. */
static void judge_closed(struct powercut *t)
{
    struct sim_disk *file, *data;
    const char *wrong;

    harness_own++;
    file = sim_world_clone_disk(t->h.world, SIM_DISK_PATH);
    data = t->config->data_file ? sim_world_clone_disk(t->h.world, EXPECT_DATA_PATH) : NULL;
    wrong = expect_judge(&t->e, file, data, EXPECT_CLOSED);
    if (wrong) {
        pc_wrong(t, "%s", wrong);
    }
    sim_disk_free(file);
    sim_disk_free(data);
    harness_own--;
}

/* Each call takes its own time, so that many are under way and end in another order; and that order
 * is the seed's, not that of the machine's threads. */
static unsigned pending_work(void *opaque)
{
    return workers_pending(opaque);
}

static void pc_calls_take_time(struct powercut *t, bool on)
{
    sim_faults_clear(sim_world_faults(t->h.world));
    sim_world_time_by_loop(t->h.world, on ? pending_work : NULL, platter_get_main_context(t->h.pl));
    if (on) {
        sim_faults_add(sim_world_faults(t->h.world),
                       &(struct sim_rule){.calls = SIM_CALLS_DATA | SIM_CALLS(SIM_CALL_TRUNCATE),
                                          .delay_ns = 1000,
                                          .delay_spread_ns = 1000000});
    }
}

static void pc_close_disk(struct powercut *t)
{
    shadow_flush_begin(&t->h.shadow);
    blk_unref(t->h.blk);
    t->h.blk = NULL;
    shadow_flush_end(&t->h.shadow, true);
    expect_bitmap_stored(&t->e);
    if (!t->wrong[0]) {
        judge_closed(t);
    }
}

static void reopen_op(struct powercut *t)
{
    pc_calls_take_time(t, false);
    pc_close_disk(t);
    pc_open_disk(t, &t->h);
    pc_calls_take_time(t, true);
}

static void pc_whole_op(struct powercut *t)
{
    unsigned kinds = t->config->whole;
    unsigned bit;

    t->operations++;
    pc_trace(t, "operation");
    if (getenv("PLATTER_STATES_ONLY")) {
        kinds &= ~(unsigned)WHOLE_CHECK;
    }
    do {
        bit = 1u << sim_rng_below(&t->rng, 7);
    } while (!(kinds & bit));
    switch (bit) {
    case WHOLE_SNAPSHOTS:
        snapshot_op(t);
        break;
    case WHOLE_RESIZE:
        /* a version 2 image with snapshots cannot be resized */
        if (t->e.im.h.version >= 3 || !has_snapshots(t)) {
            resize_op(t);
        }
        break;
    case WHOLE_AMEND:
        amend_op(t);
        break;
    case WHOLE_BITMAP:
        bitmap_op(t);
        break;
    case WHOLE_VMSTATE:
        save_vmstate(t);
        break;
    case WHOLE_REOPEN:
        reopen_op(t);
        break;
    default:
        check_op(t);
        break;
    }
}

/* ---- the run ---- */

static void workload(struct powercut *t)
{
    unsigned steps = STEPS * (t->config->steps_percent ? t->config->steps_percent : 100) / 100;
    unsigned flights = t->config->alone ? 1 : PC_IN_FLIGHT;

    for (unsigned step = 0; step < steps && !t->wrong[0];) {
        struct request *r = &t->requests[sim_rng_below(&t->rng, flights)];

        if (t->config->whole && sim_rng_percent(&t->rng, 6)) {
            pc_drain(t);
            pc_whole_op(t);
            step++;
        } else if (!r->active && pc_start(t, r)) {
            pc_settle(t);
            step++;
        } else if (pc_in_flight(t) > 0) {
            pc_pass_time(t);
        }
    }
    pc_drain(t);
}

static void pc_create_disk(struct powercut *t)
{
    const struct powercut_config *c = t->config;
    BlockOptions *options = block_options_parse(c->create, NULL, NULL);
    Error *err = NULL;
    int ret = harness_platter(&t->h);

    assert_non_null(options);
    assert_int_equal(block_options_set_str(options, "driver", "qcow2"), 0);
    assert_int_equal(block_options_set_u64(options, "size", c->disk_bytes), 0);
    if (c->backing_bytes) {
        block_options_set_str(options, "backing_file", EXPECT_BACKING_PATH);
        block_options_set_str(options, "backing_fmt", "raw");
    }
    if (ret == 0) {
        ret = bdrv_create(t->h.pl, SIM_DISK_PATH, options, &err);
    }
    pc_told(t, "create", ret, err);
}

static void flush_world(struct powercut *t)
{
    if (pc_open_disk(t, &t->h) == 0) {
        pc_close_disk(t);
    }
}

/* ---- samples ---- */

static struct sim_disk *disk_of(const uint8_t *bytes, uint64_t n)
{
    struct sim_disk *disk = sim_disk_new(n);

    assert_non_null(disk);
    if (n > 0) {
        assert_int_equal(sim_disk_write(disk, 0, bytes, n, true), 0);
    }
    return disk;
}

/* Our check counts as the second reader does; with repair nothing is left. */
static void sample_check(struct powercut *t, const struct sample *s, struct harness *h, bool fix,
                         uint64_t leaks)
{
    struct bdrv_check_options options = {.size = sizeof(options),
                                         .finding = pc_found_by_check,
                                         .opaque = t,
                                         .fix = fix ? BDRV_FIX_LEAKS | BDRV_FIX_ERRORS : 0};
    struct bdrv_check_result r = {0};
    Error *err = NULL;
    int ret = bdrv_check(blk_bs(h->blk), &options, &r, &err);

    pc_told(t, "check of a sample", ret, err);
    if (ret == 0 && (r.check_errors || (r.corruptions && !s->mismatched) ||
                     (fix ? r.leaks != 0 : r.leaks != leaks))) {
        pc_wrong(t, "check of a sample: %llu corruptions, %llu leaks, where there are %llu",
                 (unsigned long long)r.corruptions, (unsigned long long)r.leaks,
                 (unsigned long long)leaks);
    }
}

static void sample_by_us(struct powercut *t, const struct sample *s)
{
    struct harness h;
    struct qv_image im = {0};
    uint8_t *disk = malloc(s->disk_bytes ? s->disk_bytes : 1);
    struct sim_disk *file, *data = NULL;
    struct qv_bytes fb, db = {0};
    bool fix = sim_rng_percent(&t->rng, 50);

    assert_non_null(disk);
    harness_begin_with(&h, 1, 4096, disk_of(s->file, s->file_bytes), NULL);
    if (s->has_data) {
        assert_int_equal(
            sim_world_add_disk(h.world, EXPECT_DATA_PATH, disk_of(s->data, s->data_bytes), NULL),
            0);
    }
    if (t->e.backing.data) {
        assert_int_equal(sim_world_add_disk(h.world, EXPECT_BACKING_PATH,
                                            disk_of(t->e.backing.data, t->e.backing.bytes), NULL),
                         0);
    }
    if (pc_open_disk(t, &h) == 0) {
        sample_check(t, s, &h, fix, s->dirty ? 0 : s->leaks);
    }
    harness_close(&h);
    file = sim_world_clone_disk(h.world, SIM_DISK_PATH);
    data = s->has_data ? sim_world_clone_disk(h.world, EXPECT_DATA_PATH) : NULL;
    fb = (struct qv_bytes){malloc(sim_disk_size(file)), sim_disk_size(file)};
    sim_disk_read(file, 0, (uint8_t *)(uintptr_t)fb.data, fb.bytes);
    if (data) {
        db = (struct qv_bytes){malloc(sim_disk_size(data) + 1), sim_disk_size(data)};
        sim_disk_read(data, 0, (uint8_t *)(uintptr_t)db.data, db.bytes);
    }
    if (!t->wrong[0]) {
        if (!qv_parse(&im, fb, db, t->e.backing)) {
            pc_wrong(t, "a sample that we opened: %s", im.text);
        } else {
            qv_verify(&im);
        }
        if (qv_dirty(&im) || !qv_sound(&im) || (im.mismatched && (fix || im.h.version >= 3)) ||
            (im.leaks && (fix || s->dirty))) {
            pc_wrong(t, "a sample that we %s is not clean: %s", fix ? "repaired" : "opened",
                     im.text);
        } else if (!qv_read(&im, -1, 0, disk, s->disk_bytes) ||
                   memcmp(disk, s->disk, s->disk_bytes) != 0) {
            pc_wrong(t, "a sample that we opened holds other bytes");
        }
    }
    if (t->wrong[0]) {
        expect_keep(s->file, s->file_bytes);
    }
    free((void *)(uintptr_t)fb.data);
    free((void *)(uintptr_t)db.data);
    free(disk);
    sim_disk_free(file);
    sim_disk_free(data);
    qv_fini(&im);
    if (harness_end(&h) != 0) {
        pc_wrong(t, "a descriptor was left open");
    }
    t->opened++;
}

static char folder[] = "/tmp/qcow2_powercut_XXXXXX";
static bool qemu_installed;

static void write_file(const char *name, const uint8_t *bytes, uint64_t n)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Nothing but leaks for it, too; what is dirty (or version 2 amid a snapshot) it can repair. */
static void sample_by_qemu(struct powercut *t, const struct sample *s)
{
    bool repair = s->dirty || s->mismatched;
    char line[600];
    int rc;

    write_file("image", s->file, s->file_bytes);
    if (s->has_data) {
        write_file("data", s->data, s->data_bytes);
    }
    snprintf(line, sizeof(line),
             "cd %s && qemu-img check -q %s 'json:{\"driver\": \"qcow2\", \"backing\": null, "
             "\"file\": {\"driver\": \"file\", \"filename\": \"image\"}%s}' >out 2>&1",
             folder, repair ? "-r all" : "",
             s->has_data ? ", \"data-file\": {\"driver\": \"file\", \"filename\": \"data\"}" : "");
    rc = system(line);
    rc = WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
    if (rc != 0 && (rc != 3 || repair)) {
        pc_wrong(t, "qemu-img check says %d", rc);
        expect_keep(s->file, s->file_bytes);
        snprintf(line, sizeof(line), "cat %s/out", folder);
        (void)!system(line);
    }
    t->shown++;
}

/* The folder in which qemu-img sees them; 0 or -1. */
static int pc_samples_begin(void)
{
    qemu_installed = system("qemu-img --version >/dev/null 2>&1") == 0;
    return mkdtemp(folder) ? 0 : -1;
}

static int pc_samples_end(void)
{
    char line[128];

    snprintf(line, sizeof(line), "rm -rf %s", folder);
    return system(line) == 0 ? 0 : -1;
}

static void pc_look_at_samples(struct powercut *t)
{
    bool look = !getenv("PLATTER_STATES_ONLY");

    for (size_t i = 0; look && i < t->nsamples && !t->wrong[0]; i++) {
        sample_by_us(t, &t->samples[i]);
        if (qemu_installed && !t->wrong[0]) {
            sample_by_qemu(t, &t->samples[i]);
        }
    }
    for (size_t i = 0; i < t->nsamples; i++) {
        free(t->samples[i].file);
        free(t->samples[i].data);
        free(t->samples[i].disk);
    }
    free(t->samples);
}

static unsigned long all_states, all_opened, all_shown;

/* What is wrong, or NULL. */
static const char *run(const struct powercut_config *config, uint64_t seed)
{
    static struct powercut t;
    static char wrong[sizeof(t.wrong)];
    clock_t begin = clock();

    t = (struct powercut){.config = config};
    sim_rng_init(&t.rng, seed);
    sim_rng_init(&t.cut_rng, seed + 1);
    t.samples = malloc(PC_SAMPLES * sizeof(*t.samples));
    assert_non_null(t.samples);
    harness_begin(&t.h, seed, config->largest_bytes ? config->largest_bytes : config->disk_bytes,
                  NULL);
    t.h.workers = config->one_worker ? 1 : 0;
    expect_init(&t.e, &t.h, config->disk_bytes, config->backing_bytes);
    pc_create_disk(&t);
    if (!t.wrong[0]) {
        flush_world(&t);
    }
    if (!t.wrong[0]) {
        pc_open_disk(&t, &t.h);
    }
    if (t.h.blk && !t.wrong[0]) {
        sim_world_on_change(t.h.world, pc_boundary, &t);
        pc_calls_take_time(&t, true);
        workload(&t);
        pc_calls_take_time(&t, false);
        pc_close_disk(&t);
        sim_world_on_change(t.h.world, NULL, NULL);
    }
    if (harness_end(&t.h) != 0 && !t.wrong[0]) {
        pc_wrong(&t, "a descriptor was left open");
    }
    pc_look_at_samples(&t);
    printf("%-34s %6lu boundaries %7lu states (%lu dirty, %lu leak, at most %llu clusters) "
           "%2u operations %4zu samples %.1f s\n",
           config->name, t.boundaries, t.e.states, t.e.dirty_states, t.e.leaky_states,
           (unsigned long long)t.e.leaks_max, t.operations, t.nsamples,
           (double)(clock() - begin) / CLOCKS_PER_SEC);
    all_states += t.e.states;
    all_opened += t.opened;
    all_shown += t.shown;
    expect_fini(&t.e);
    memcpy(wrong, t.wrong, sizeof(wrong));
    return wrong[0] ? wrong : NULL;
}

static void test_power_cuts(void **state)
{
    uint64_t seed = harness_seed(20241105);
    const char *only = getenv("PLATTER_CONFIG");
    const char *text = getenv("PLATTER_ROUNDS");
    unsigned long rounds = text ? strtoul(text, NULL, 0) : only ? 1 : ROUNDS;

    for (unsigned long round = 0; round < rounds; round++) {
        for (size_t i = 0; pc_configs[i].name; i++) {
            if (!only || strcmp(only, pc_configs[i].name) == 0) {
                uint64_t own = seed + round * 1000 + (only ? 0 : i);
                const char *wrong = run(&pc_configs[i], own);

                if (wrong) {
                    fail_msg("%s: %s (PLATTER_SEED=%llu PLATTER_CONFIG='%s')", pc_configs[i].name,
                             wrong, (unsigned long long)own, pc_configs[i].name);
                }
            }
        }
    }
    printf("%lu states, %lu opened by the driver, %lu shown to qemu-img\n", all_states, all_opened,
           all_shown);
}

/* A stack that does not keep the promises is found out: here flushes never reach the disk. */
static void test_the_gate_bites(void **state)
{
    static const struct powercut_config lying = {
        .name = "flushes that do nothing",
        .create = "cluster_size=4k",
        .open = ",cache.no-flush=on,file.cache.no-flush=on",
        .disk_bytes = 128 * KIB,
        .cluster_bytes = 4096,
    };
    const char *wrong = run(&lying, 1);

    assert_non_null(wrong);
    printf("found: %s\n", wrong);
}

static int begin_group(void **state)
{
    return pc_samples_begin();
}

static int end_group(void **state)
{
    return pc_samples_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_gate_bites),
        cmocka_unit_test(test_power_cuts),
    };

    if (!harness_has_driver("qcow2")) {
        return 77;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests(tests, begin_group, end_group);
}
