/* SPDX-License-Identifier: MIT */
/*
 * Power cuts: random requests, several in flight, through a BlockBackend on raw over file on the
 * simulated disk. At every change of the disk the power is cut on copies of it: with nothing
 * unflushed surviving, and with parts of it surviving by chance (all subsets when few changes are
 * pending). What was flushed or written with FUA must be there each time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim_harness.h"

#define DISK_BYTES (128u << 10)
#define BLOCK 4096u
#define IN_FLIGHT_MAX 8
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 60
#else
#define STEPS 250
#endif
#define SUBSETS_OF_PENDING 5 /* all subsets up to so many pending changes */

struct config {
    const char *name;
    const char *options;
    struct sim_file_options file;
    unsigned grain; /* requests are multiples of it */
    bool write_through;
    bool no_flush;
};

static const struct config configs[] = {
    {.name = "cached", .options = "file.cache.direct=off", .grain = 512},
    {.name = "cached, any byte", .options = "file.cache.direct=off", .grain = 1},
    {.name = "direct 512",
     .options = "file.cache.direct=on",
     .file = {.dio_mem_align = 512, .dio_offset_align = 512},
     .grain = 512},
    {.name = "direct 4096, smaller requests",
     .options = "file.cache.direct=on",
     .file = {.dio_mem_align = 512, .dio_offset_align = 4096},
     .grain = 512},
    {.name = "direct 512, any byte",
     .options = "file.cache.direct=on",
     .file = {.dio_mem_align = 4, .dio_offset_align = 512},
     .grain = 1},
    {.name = "write-through",
     .options = "file.cache.direct=off",
     .grain = 512,
     .write_through = true},
    {.name = "write-through direct",
     .options = "file.cache.direct=on",
     .file = {.dio_mem_align = 512, .dio_offset_align = 4096},
     .grain = 1,
     .write_through = true},
    {.name = "no-flush",
     .options = "cache.no-flush=on,file.cache.no-flush=on",
     .grain = 512,
     .no_flush = true},
    {.name = "detect-zeroes, unmap",
     .options = "discard=unmap,file.discard=unmap,detect-zeroes=unmap",
     .grain = 512},
};

enum kind { WRITE, ZERO, DISCARD, FLUSH };

struct request {
    struct test *test;
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

struct test {
    struct harness h;
    const struct config *config;
    struct sim_rng rng;     /* of the workload */
    struct sim_rng cut_rng; /* of the cuts, used under the world's lock */
    struct request requests[IN_FLIGHT_MAX];
    uint64_t busy_blocks; /* bit per block that a request in flight touches */
    bool flushing;
    unsigned boundaries;
    unsigned cuts;
    unsigned failures;
    _Atomic(const char *) wrong;
};

static void cut_copy(struct test *t, const struct sim_disk *disk, int subset)
{
    struct sim_disk *copy = sim_disk_clone(disk);
    static const uint8_t none[SIM_PENDING_MAX / 8];
    uint8_t bits = (uint8_t)subset;
    const char *wrong;
    int rc;

    if (!copy) {
        t->wrong = "no memory";
        return;
    }
    if (subset < 0) {
        rc = sim_disk_power_cut(copy, &t->cut_rng);
    } else {
        rc = sim_disk_power_cut_subset(copy, subset ? &bits : none);
    }
    wrong = rc < 0 ? "no memory" : harness_verify_disk(&t->h, copy, true);
    if (wrong) {
        t->wrong = wrong;
    }
    t->cuts++;
    sim_disk_free(copy);
}

/* Every change of the disk, under the world's lock, in whatever thread made it. */
static void boundary(void *opaque, const char *path, const struct sim_disk *disk)
{
    struct test *t = opaque;
    size_t pending = sim_disk_pending(disk);

    t->boundaries++;
    if (t->wrong) {
        return;
    }
    if (pending <= SUBSETS_OF_PENDING) {
        for (int subset = 0; subset < 1 << pending; subset++) {
            cut_copy(t, disk, subset);
        }
    } else {
        cut_copy(t, disk, 0);
    }
    cut_copy(t, disk, -1);
    cut_copy(t, disk, -1);
}

static uint64_t blocks_of(uint64_t offset, uint64_t bytes)
{
    uint64_t mask = 0;

    for (uint64_t at = offset / BLOCK; at <= (offset + bytes - 1) / BLOCK; at++) {
        mask |= UINT64_C(1) << at;
    }
    return mask;
}

static void completed(void *opaque, int ret)
{
    struct request *r = opaque;
    struct test *t = r->test;

    t->failures += ret != 0;
    if (r->kind == FLUSH) {
        shadow_flush_end(&t->h.shadow, ret == 0 && !t->config->no_flush);
        t->flushing = false;
    } else {
        if (r->kind != DISCARD) {
            bool fua = (r->fua || t->config->write_through) && !t->config->no_flush;

            shadow_end(&t->h.shadow, r->offset, r->bytes, r->version, ret == 0, fua);
        }
        t->busy_blocks &= ~blocks_of(r->offset, r->bytes);
    }
    free(r->buf);
    r->buf = 0;
    r->active = false;
}

/* A range that no request in flight touches, or false. */
static bool pick_range(struct test *t, struct request *r)
{
    unsigned grain = t->config->grain;
    uint64_t longest = sim_rng_percent(&t->rng, 20) ? 32768 : 6000;

    r->offset = sim_rng_below(&t->rng, DISK_BYTES) / grain * grain;
    r->bytes = (1 + sim_rng_below(&t->rng, longest) / grain) * grain;
    if (r->bytes > DISK_BYTES - r->offset) {
        r->bytes = DISK_BYTES - r->offset;
    }
    return !(t->busy_blocks & blocks_of(r->offset, r->bytes));
}

static BlockAIOCB *submit(struct test *t, struct request *r)
{
    int flags = r->fua ? BDRV_REQ_FUA : 0;

    switch (r->kind) {
    case WRITE:
        return blk_aio_pwritev(t->h.blk, (int64_t)r->offset, &r->view, flags, completed, r);
    case ZERO:
        flags |= sim_rng_percent(&t->rng, 50) ? BDRV_REQ_MAY_UNMAP : 0;
        return blk_aio_pwrite_zeroes(t->h.blk, (int64_t)r->offset, (int64_t)r->bytes, flags,
                                     completed, r);
    case DISCARD:
        return blk_aio_pdiscard(t->h.blk, (int64_t)r->offset, (int64_t)r->bytes, completed, r);
    default:
        return blk_aio_flush(t->h.blk, completed, r);
    }
}

static bool start(struct test *t, struct request *r)
{
    unsigned what = (unsigned)sim_rng_below(&t->rng, 100);

    *r = (struct request){.test = t, .fua = sim_rng_percent(&t->rng, 15)};
    r->kind = what < 65 ? WRITE : what < 78 ? ZERO : what < 85 ? DISCARD : FLUSH;
    if (r->kind == FLUSH ? t->flushing : !pick_range(t, r)) {
        return false;
    }
    if (r->kind == FLUSH) {
        shadow_flush_begin(&t->h.shadow);
        t->flushing = true;
    } else {
        r->version = shadow_begin(&t->h.shadow, r->offset, r->bytes, r->kind != WRITE);
        t->busy_blocks |= blocks_of(r->offset, r->bytes);
    }
    if (r->kind == WRITE) {
        r->buf = malloc(r->bytes);
        assert_non_null(r->buf);
        shadow_fill(r->buf, r->offset, r->bytes, r->version);
        r->iov = (struct iovec){.iov_base = r->buf, .iov_len = r->bytes};
        r->view = (struct iov_view){.iov = &r->iov, .niov = 1, .bytes = r->bytes};
    }
    r->active = true;
    assert_non_null(submit(t, r));
    return true;
}

static void workload(struct test *t)
{
    AioContext *ctx = platter_get_main_context(t->h.pl);

    for (unsigned step = 0; step < STEPS && !t->wrong;) {
        struct request *r = &t->requests[sim_rng_below(&t->rng, IN_FLIGHT_MAX)];

        if (!r->active && start(t, r)) {
            step++;
        } else {
            aio_poll(ctx, r->active);
        }
    }
    for (unsigned i = 0; i < IN_FLIGHT_MAX; i++) {
        while (t->requests[i].active) {
            aio_poll(ctx, true);
        }
    }
}

static void run(const struct config *config, uint64_t seed)
{
    static struct test t;
    char options[256];
    const char *wrong;
    struct sim_disk *disk;

    t = (struct test){.config = config};
    sim_rng_init(&t.rng, seed);
    sim_rng_init(&t.cut_rng, seed + 1);
    harness_begin(&t.h, seed, DISK_BYTES, &config->file);
    snprintf(options, sizeof(options), "driver=raw,file.driver=file,file.filename=%s,%s",
             SIM_DISK_PATH, config->options);
    assert_int_equal(harness_open(&t.h, options, BDRV_O_RDWR | BDRV_O_UNMAP), 0);
    blk_set_enable_write_cache(t.h.blk, !config->write_through);
    sim_world_on_change(t.h.world, boundary, &t);
    workload(&t);
    sim_world_on_change(t.h.world, 0, 0);
    assert_int_equal(t.failures, 0);

    wrong = harness_verify(&t.h, 4, &t.cut_rng);
    harness_close(&t.h); /* flushes what is left */
    if (!config->no_flush) {
        shadow_flush_begin(&t.h.shadow);
        shadow_flush_end(&t.h.shadow, true);
    }
    disk = sim_world_clone_disk(t.h.world, SIM_DISK_PATH);
    cut_copy(&t, disk, 0);
    sim_disk_free(disk);
    printf("%-30s %5u boundaries %6u cuts\n", config->name, t.boundaries, t.cuts);
    assert_int_equal(harness_end(&t.h), 0);
    if (wrong || t.wrong) {
        fail_msg("%s: %s (seed %llu)", config->name, wrong ? wrong : t.wrong,
                 (unsigned long long)seed);
    }
}

static void test_power_cuts(void **state)
{
    uint64_t seed = harness_seed(20240613);
    const char *text = getenv("PLATTER_ROUNDS");
    unsigned long rounds = text ? strtoul(text, 0, 0) : 1;

    for (unsigned long round = 0; round < rounds; round++) {
        for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
            run(&configs[i], seed + round * 1000 + i);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_cuts)};

    setvbuf(stdout, 0, _IOLBF, 0);
    return cmocka_run_group_tests(tests, 0, 0);
}
