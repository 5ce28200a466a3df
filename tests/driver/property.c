/* SPDX-License-Identifier: MIT */
/*
 * The property suite: every driver, in every setting of the table, does what a plain array of bytes
 * does. A new driver joins by one line of the table (drives.c).
 *
 * usage: property [--list] [NAME...]      (all when no name is given)
 * PLATTER_SEED  the seed; a random one when not set
 * PLATTER_DIR   folder for the files of real file systems, in place of those of the table
 * PLATTER_TRACE print each change when set
 * PLATTER_OPS   requests for each line; the default takes a few seconds in all
 *
 * Exit status: 0 passed, 1 failed (the last line says how to see it again), 77 skipped.
 */
#include "suite.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <platter/coroutine.h>
#include <platter/image.h>
#include <platter/throttle.h>

#include "os/os.h"
#include "os/sim/sim_os.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)
#define OPS_DEFAULT 1500
#define WORKERS_MAX 8

void run_fail(struct run *run, const char *fmt, ...)
{
    va_list ap;

    printf("FAILED %s after %u requests: ", run->drive->name, atomic_load(&run->done_ops));
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\nreplay: PLATTER_SEED=%" PRIu64 " PLATTER_OPS=%u property %s\n", run->seed, run->ops,
           run->drive->name);
    fflush(stdout);
    abort();
}

/* ---- running ---- */

static void enter_bh(void *opaque)
{
    Coroutine *co = coroutine_create(worker_entry, opaque);

    assert(co != NULL);
    coroutine_enter(co);
}

struct alone {
    struct run *run;
    struct rng *rng;
    void (*fn)(struct run *run, struct rng *rng);
    bool done;
};

static void alone_entry(void *opaque)
{
    struct alone *a = opaque;

    a->fn(a->run, a->rng);
    a->done = true;
}

static void check_fn(struct run *run, struct rng *rng)
{
    check_all_co(run);
}

static void run_alone(struct run *run, struct rng *rng,
                      void (*fn)(struct run *run, struct rng *rng))
{
    struct alone a = {.run = run, .rng = rng, .fn = fn};
    Coroutine *co = coroutine_create(alone_entry, &a);

    assert(co != NULL);
    coroutine_enter(co);
    while (!a.done) {
        aio_poll(platter_get_main_context(run->pl), true);
    }
}

/* Workers in all contexts, each with its part of the disk; borders fall inside blocks. */
static void parallel_round(struct run *run, struct rng *rng, IOThread *other)
{
    AioContext *main_ctx = platter_get_main_context(run->pl);
    unsigned n = run->single ? 1 : 1 + (unsigned)rng_below(rng, WORKERS_MAX);
    struct worker workers[WORKERS_MAX];
    _Atomic unsigned running = n;
    uint64_t at = 0;

    for (unsigned i = 0; i < n; i++) {
        uint64_t rest = run->model.size_bytes - at;
        struct worker *w = &workers[i];

        *w = (struct worker){
            .run = run,
            .ctx = other != NULL && i % 2 == 1 ? iothread_get_aio_context(other) : main_ctx,
            .lo = at,
            .hi = i == n - 1 ? run->model.size_bytes : at + rng_below(rng, 2 * rest / (n - i) + 1),
            .ops = 1 + (unsigned)rng_below(rng, 25),
            .rng = {rng_next(rng)},
            .running = &running,
        };
        w->hi = w->hi < run->model.size_bytes ? w->hi : run->model.size_bytes;
        at = w->hi;
    }
    for (unsigned i = 0; i < n; i++) {
        assert(aio_bh_schedule_oneshot(workers[i].ctx, enter_bh, &workers[i]) == 0);
    }
    while (atomic_load(&running) > 0) {
        aio_poll(main_ctx, true);
    }
}

static uint8_t *disk_read_all(struct run *run)
{
    uint8_t *got = calloc(1, run->model.room_bytes);
    struct iovec iov = {got, run->model.size_bytes};
    struct iov_view view = {&iov, 1, run->model.size_bytes};

    assert(got != NULL && blk_preadv(run->blk, 0, &view, 0) == 0);
    return got;
}

/* Cut the power of the disk under path as it stands; to be put in its place. */
static struct sim_disk *cut_disk(struct run *run, struct rng *rng, const char *path)
{
    struct sim_disk *disk = sim_world_clone_disk(run->world, path);
    struct sim_rng sim_rng = {rng_next(rng)};

    assert(disk == NULL || sim_disk_power_cut(disk, &sim_rng) == 0);
    return disk;
}

static void put_disk(struct run *run, const char *path, struct sim_disk *disk)
{
    struct sim_file_options opts = {0};

    if (disk == NULL) {
        return;
    }
    assert(os->unlink(path) == 0);
    assert(sim_world_add_disk(run->world, path, disk, &opts) == 0);
}

/* The power fails while the image is open: what the driver has in memory is gone, and so is any
 * part of what it wrote since the last flush. */
static void power_cut_image(struct run *run, struct rng *rng)
{
    char data[220];
    struct sim_disk *disk, *data_disk;
    uint8_t *got;
    uint64_t sector;

    snprintf(data, sizeof(data), "%s.data", run->path);
    disk = cut_disk(run, rng, run->path);
    data_disk = cut_disk(run, rng, data);
    disk_close(run);
    put_disk(run, run->path, disk);
    put_disk(run, data, data_disk);
    disk_open(run);
    got = disk_read_all(run);
    if (!model_allows(&run->model, got, &sector)) {
        run_fail(run, "sector %" PRIu64 " lost what was flushed in a power cut", sector);
    }
    model_adopt(&run->model, got);
    free(got);
}

static void power_cut(struct run *run, struct rng *rng)
{
    uint8_t *got = calloc(1, run->model.room_bytes);
    struct sim_disk *disk;
    uint64_t sector;

    disk_close(
        run); /* its flush at the end may be a failure of its own; then nothing is promised */
    assert(got != NULL && sim_world_power_cut(run->world) == 0);
    disk = sim_world_clone_disk(run->world, run->path);
    assert(disk != NULL);
    sim_disk_read(disk, 0, got, run->model.size_bytes);
    sim_disk_free(disk);
    if (!model_allows(&run->model, got, &sector)) {
        run_fail(run, "sector %" PRIu64 " lost what was flushed in a power cut", sector);
    }
    model_adopt(&run->model, got);
    free(got);
    disk_close(run);
    disk_open(run);
}

static void arm_faults(struct run *run, struct rng *rng)
{
    const struct sim_rule errors = {.calls = SIM_CALLS(SIM_CALL_READ) | SIM_CALLS(SIM_CALL_WRITE) |
                                             SIM_CALLS(SIM_CALL_FALLOCATE),
                                    .percent = 1 + (unsigned)rng_below(rng, 10),
                                    .error = rng_one_in(rng, 2) ? EIO : ENOSPC};
    const struct sim_rule shorts = {.calls = SIM_CALLS_DATA,
                                    .percent = 1 + (unsigned)rng_below(rng, 30),
                                    .short_transfer = true};
    const struct sim_rule interrupts = {
        .calls = SIM_CALLS_DATA & ~SIM_CALLS(SIM_CALL_SYNC), /* a failed sync may lose data */
        .percent = 10,
        .error = EINTR};
    const struct sim_rule agains = {.calls = SIM_CALLS(SIM_CALL_READ) | SIM_CALLS(SIM_CALL_WRITE),
                                    .percent = 10,
                                    .error = EAGAIN};
    const struct sim_rule syncs = {.calls = SIM_CALLS(SIM_CALL_SYNC),
                                   .percent = 10,
                                   .error = EIO,
                                   .lose_cache =
                                       rng_one_in(rng, 2) && (run->drive->facts & D_CUT) == 0};

    sim_faults_clear(run->faults);
    /* A short transfer tears a sector, and direct I/O cannot go on from the middle of one. */
    if ((run->drive->facts & D_CUT) == 0 && strstr(run->drive->options, "direct") == NULL) {
        sim_faults_add(run->faults, &shorts);
    }
    sim_faults_add(run->faults, &interrupts);
    sim_faults_add(run->faults, &agains);
    if (!rng_one_in(rng, 3)) {
        sim_faults_add(run->faults, &errors);
        sim_faults_add(run->faults, &syncs);
    }
}

/* Make, go back to, or take away an internal snapshot. */
static void snapshot_round(struct run *run, struct rng *rng)
{
    unsigned i = (unsigned)rng_below(rng, SNAPSHOTS_MAX);
    struct model *kept = &run->snapshots[i];
    BlockDriverState *bs = blk_bs(run->blk);
    char name[16];
    const struct bdrv_snapshot_info info = {.name = name, .icount = UINT64_MAX};
    Error *err = NULL;
    int rc;

    snprintf(name, sizeof(name), "s%u", i);
    if (kept->now == NULL) {
        rc = bdrv_snapshot_create(bs, &info, &err);
        model_init(kept, run->model.size_bytes, run->model.room_bytes, false);
        memcpy(kept->now, run->model.now, run->model.room_bytes);
    } else if (rng_one_in(rng, 2)) {
        rc = bdrv_snapshot_apply(bs, name, &err);
        memcpy(run->model.now, kept->now, run->model.room_bytes);
        run->model.size_bytes = kept->size_bytes;
    } else {
        rc = bdrv_snapshot_delete(bs, NULL, name, &err);
        model_fini(kept);
    }
    if (rc < 0) {
        run_fail(run, "snapshot '%s': %s", name, error_get_pretty(err));
    }
}

static bool has_snapshots(const struct run *run)
{
    for (unsigned i = 0; i < SNAPSHOTS_MAX; i++) {
        if (run->snapshots[i].now != NULL) {
            return true;
        }
    }
    return false;
}

static void one_round(struct run *run, struct rng *rng, IOThread *other)
{
    const unsigned facts = run->drive->facts;

    if (run->faults != NULL) {
        arm_faults(run, rng);
    }
    parallel_round(run, rng, other);
    if (run->faults != NULL) {
        sim_faults_clear(run->faults);
    }
    if ((facts & D_CUT) != 0 && rng_one_in(rng, 3)) {
        (run->drive->create != NULL ? power_cut_image : power_cut)(run, rng);
    }
    if (rng_one_in(rng, 4)) {
        run_alone(run, rng, bad_requests_co);
    }
    if (run->model.size_bytes > 0 && (facts & (D_ZEROES | D_UNTOUCHED)) == 0 &&
        rng_one_in(rng, 4)) {
        run_alone(run, rng, copy_co);
    }
    if ((facts & D_RESIZE) != 0 && !has_snapshots(run) && rng_one_in(rng, 4)) {
        run_alone(run, rng, resize_co);
    }
    if ((facts & D_SNAPSHOTS) != 0 && rng_one_in(rng, 4)) {
        snapshot_round(run, rng);
    }
    if ((facts & D_PERSISTS) != 0 && (facts & D_CUT) == 0 && rng_one_in(rng, 6)) {
        disk_close(run);
        disk_open(run);
    }
    if (rng_one_in(rng, 3)) {
        run_alone(run, rng, check_fn);
    }
}

/* The group of the lines that name one: requests do wait, but not for long. */
static ThrottleGroup *limits_make(Platter *pl)
{
    struct throttle_config config = {.size = sizeof(config)};
    ThrottleGroup *group = throttle_group_get(pl, "limits", NULL);

    config.limits[THROTTLE_OPS_TOTAL].avg = 20000;
    config.limits[THROTTLE_BPS_WRITE].avg = UINT64_C(1) << 30;
    assert(group != NULL && throttle_group_set_config(group, &config, NULL) == 0);
    return group;
}

/* NULL when it passed, or why it was skipped. Failures do not return. */
static const char *run_drive(struct run *run)
{
    struct aio_context_options ctx_opts = {.size = sizeof(ctx_opts)};
    struct platter_options pl_opts = {.size = sizeof(pl_opts), .image_refs = PLATTER_REFS_FOLLOW};
    struct rng rng = {run->seed};
    IOThread *other = NULL, *serving = NULL;
    ThrottleGroup *limits;
    Error *err = NULL;
    const char *skip;

    if (run_is_sim(run)) {
        run->world = sim_world_new(run->seed);
        assert(run->world != NULL);
        os_replace(sim_os_table(run->world));
        run->faults = (run->drive->facts & D_ERRORS) != 0 ? sim_world_faults(run->world) : NULL;
    }
    skip = disk_file_make(run);
    if (skip == NULL) {
        ctx_opts.engine =
            (run->drive->facts & D_THREADS) != 0 ? AIO_ENGINE_THREADS : AIO_ENGINE_AUTO;
        pl_opts.main_context = aio_context_new(&ctx_opts, &err);
        run->pl = pl_opts.main_context != NULL ? platter_new(&pl_opts, &err) : NULL;
        if (run->pl == NULL) {
            run_fail(run, "no instance: %s", error_get_pretty(err));
        }
        if ((run->drive->facts & D_TWO) != 0) {
            other = iothread_new("other", &ctx_opts, &err);
            assert(other != NULL);
        }
        run->single = (run->drive->facts & D_CUT) != 0;
        model_init(&run->model, run->drive->size_bytes, run->drive->size_bytes + MIB,
                   (run->drive->facts & D_CUT) != 0);
        if ((run->drive->facts & D_EXPORT) != 0) {
            serving = iothread_new("serving", &ctx_opts, &err);
            assert(serving != NULL);
            disk_serve_begin(run, iothread_get_aio_context(serving));
        }
        limits = limits_make(run->pl);
        disk_create(run, &rng);
        disk_open(run);
        while (atomic_load(&run->done_ops) < run->ops) {
            one_round(run, &rng, other);
        }
        run_alone(run, &rng, check_fn);
        disk_close(run);
        disk_serve_end(run);
        if (serving != NULL) {
            iothread_free(serving);
        }
        if (other != NULL) {
            iothread_free(other);
        }
        throttle_group_unref(limits);
        platter_free(run->pl);
        aio_context_unref(pl_opts.main_context);
        model_fini(&run->model);
        for (unsigned i = 0; i < SNAPSHOTS_MAX; i++) {
            model_fini(&run->snapshots[i]);
        }
        disk_file_remove(run);
    }
    if (run->world != NULL) {
        if (sim_world_open_fds(run->world) != 0) {
            run_fail(run, "%u descriptors are still open", sim_world_open_fds(run->world));
        }
        os_replace(NULL);
        sim_world_free(run->world);
    }
    return skip;
}

/* ---- command line ---- */

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

static bool wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], name) == 0) {
            return true;
        }
    }
    return argc == 1;
}

int main(int argc, char **argv)
{
    uint64_t seed = env_number("PLATTER_SEED", (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid());
    unsigned ops = (unsigned)env_number("PLATTER_OPS", OPS_DEFAULT);
    unsigned ran = 0, skipped = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; drives[i].name != NULL; i++) {
            printf("%s\n", drives[i].name);
        }
        return 0;
    }
    printf("seed: PLATTER_SEED=%" PRIu64 " PLATTER_OPS=%u\n", seed, ops);
    for (size_t i = 0; drives[i].name != NULL; i++) {
        struct run run = {.drive = &drives[i],
                          .seed = seed,
                          .ops = ops,
                          .trace = getenv("PLATTER_TRACE") != NULL};
        const char *skip;

        if (!wanted(drives[i].name, argc, argv)) {
            continue;
        }
        skip = run_drive(&run);
        ran += skip == NULL;
        skipped += skip != NULL;
        if (skip != NULL) {
            printf("skipped %s: %s\n", drives[i].name, skip);
        } else {
            printf("passed  %s: %u requests, %u failed by rule\n", drives[i].name,
                   atomic_load(&run.done_ops), atomic_load(&run.failed_by_rule));
        }
    }
    printf("%u passed, %u skipped\n", ran, skipped);
    if (ran + skipped == 0) {
        fprintf(stderr, "property: no line has such a name; --list shows them\n");
        return 1;
    }
    return ran == 0 ? 77 : 0;
}
