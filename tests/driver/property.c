/* SPDX-License-Identifier: MIT */
/*
 * The property suite: every driver, in every setting of the table, does what a plain array of bytes
 * does. A new driver joins by one line of the table.
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
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <platter/coroutine.h>
#include <platter/image.h>

#include "os/os.h"
#include "os/sim/sim_os.h"
#include "util/mem.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)
#define OPS_DEFAULT 1500
#define WORKERS_MAX 8
#define ODD (3 * MIB + 1000)
#define QCOW2 (3 * MIB + 1536)
#define Q_USUAL (D_PERSISTS | D_TWO | D_SECTORS)
#define Q_SIM (D_PERSISTS | D_SIM | D_SECTORS)

/* clang-format off */
static const struct drive drives[] = {
    /* name              options (@: file, #: size)                          dir         facts                                                    size, file size */
    {"null-co",          "driver=null-co,size=#",                            NULL,       D_UNTOUCHED | D_TWO,                                      MIB, 0},
    {"null-aio-zeroes",  "driver=null-aio,size=#,read-zeroes=on",            NULL,       D_ZEROES | D_TWO,                                         MIB, 0},
    {"mem",              "driver=mem,size=#",                                NULL,       D_RESIZE | D_TWO,                                         ODD, 0},
    {"raw-mem",          "driver=raw,file.driver=mem,file.size=#",           NULL,       D_RESIZE | D_TWO,                                         ODD, 0},
    {"raw-window-mem",   "driver=raw,offset=777,size=1048576,file.driver=mem,file.size=#", NULL, D_TWO,                                            MIB, ODD},
    {"file-ring",        "driver=file,filename=@",                           "/tmp",     D_RESIZE | D_PERSISTS | D_TWO,                            ODD, 0},
    {"file-threads",     "driver=file,filename=@,aio=threads",               "/tmp",     D_RESIZE | D_PERSISTS | D_TWO | D_THREADS,                ODD, 0},
    {"file-in-memory",   "driver=file,filename=@",                           "/dev/shm", D_RESIZE | D_PERSISTS | D_TWO,                            ODD, 0},
    {"file-direct",      "driver=file,filename=@,cache.direct=on",           "/var/tmp", D_RESIZE | D_PERSISTS | D_TWO | D_DIRECT,                 ODD, 0},
    {"file-native",      "driver=file,filename=@,cache.direct=on,aio=native", "/var/tmp", D_RESIZE | D_PERSISTS | D_TWO | D_DIRECT,                3 * MIB, 0},
    {"file-detect-zeroes", "driver=file,filename=@,detect-zeroes=unmap",     "/tmp",     D_RESIZE | D_PERSISTS | D_TWO,                            ODD, 0},
    {"raw-file",         "driver=raw,file.driver=file,file.filename=@",      "/tmp",     D_RESIZE | D_PERSISTS | D_TWO,                            ODD, 0},
    {"raw-offset-file",  "driver=raw,offset=1048576,file.driver=file,file.filename=@", "/tmp", D_RESIZE | D_PERSISTS | D_TWO,                      2 * MIB, 3 * MIB},
    {"raw-odd-direct",   "driver=raw,offset=1500,size=1048576,file.driver=file,file.filename=@,cache.direct=on", "/var/tmp", D_PERSISTS | D_TWO | D_DIRECT, MIB, ODD},
    {"loop-4k",          "driver=host_device,filename=@",                    "/var/tmp", D_PERSISTS | D_TWO | D_LOOP,                              3 * MIB, 3 * MIB + 1536},
    {"loop-4k-direct",   "driver=host_device,filename=@,cache.direct=on",    "/var/tmp", D_PERSISTS | D_TWO | D_LOOP | D_DIRECT,                   3 * MIB, 3 * MIB + 1536},
    {"qcow2",            "driver=qcow2,file.driver=file,file.filename=@",    "/tmp",     Q_USUAL | D_RESIZE | D_COMPRESSED,                        QCOW2, 0, "driver=qcow2,size=#", 65536, NULL},
    {"qcow2-threads",    "driver=qcow2,file.driver=file,file.filename=@,file.aio=threads", "/tmp", Q_USUAL | D_RESIZE | D_THREADS,                    QCOW2, 0, "driver=qcow2,size=#,cluster_size=16384", 16384, NULL},
    {"qcow2-tiny",       "driver=qcow2,l2-cache-size=1024,refcount-cache-size=2048,file.driver=file,file.filename=@", "/tmp", Q_USUAL | D_RESIZE | D_COMPRESSED | D_SNAPSHOTS, QCOW2, 0, "driver=qcow2,size=#,cluster_size=512,refcount_bits=64", 512, NULL},
    {"qcow2-v2",         "driver=qcow2,file.driver=file,file.filename=@",    "/tmp",     Q_USUAL | D_COMPRESSED | D_SNAPSHOTS,                     QCOW2, 0, "driver=qcow2,size=#,compat=0.10,cluster_size=4096", 4096, NULL},
    {"qcow2-lazy",       "driver=qcow2,file.driver=file,file.filename=@",    "/dev/shm", Q_USUAL | D_RESIZE,                                       QCOW2, 0, "driver=qcow2,size=#,lazy_refcounts=on,cluster_size=4096,refcount_bits=1", 4096, NULL},
    {"qcow2-lazy-snapshots", "driver=qcow2,file.driver=file,file.filename=@", "/dev/shm", Q_USUAL | D_COMPRESSED | D_SNAPSHOTS,                    QCOW2, 0, "driver=qcow2,size=#,lazy_refcounts=on,cluster_size=4096", 4096, NULL},
    {"qcow2-zstd",       "driver=qcow2,file.driver=file,file.filename=@",    "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED,                        QCOW2, 0, "driver=qcow2,size=#,compression_type=zstd,cluster_size=8192", 8192, NULL},
    {"qcow2-subclusters", "driver=qcow2,file.driver=file,file.filename=@",   "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED | D_SNAPSHOTS,          QCOW2, 0, "driver=qcow2,size=#,extended_l2=on,cluster_size=16384", 16384, NULL},
    {"qcow2-subclusters-large", "driver=qcow2,file.driver=file,file.filename=@", "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED,                   QCOW2, 0, "driver=qcow2,size=#,extended_l2=on,cluster_size=131072", 131072, NULL},
    {"qcow2-keep",       "driver=qcow2,discard-no-unref=on,file.driver=file,file.filename=@", "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED | D_SNAPSHOTS, QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"qcow2-direct",     "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/var/tmp", Q_USUAL | D_RESIZE | D_DIRECT,                QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"qcow2-backing",    "driver=qcow2,file.driver=file,file.filename=@",    "/tmp",     Q_USUAL | D_RESIZE | D_COMPRESSED | D_SNAPSHOTS,          QCOW2, 0, "driver=qcow2,size=#,cluster_size=16384,backing_file=@.base,backing_fmt=qcow2", 16384, "driver=qcow2,cluster_size=4096"},
    {"qcow2-backing-raw", "driver=qcow2,file.driver=file,file.filename=@",   "/dev/shm", Q_USUAL | D_RESIZE,                                       QCOW2, 0, "driver=qcow2,size=#,backing_file=@.base,backing_fmt=raw", 65536, "driver=raw"},
    {"qcow2-backing-subclusters", "driver=qcow2,file.driver=file,file.filename=@", "/dev/shm", Q_USUAL | D_RESIZE | D_COMPRESSED | D_SNAPSHOTS,   QCOW2, 0, "driver=qcow2,size=#,extended_l2=on,cluster_size=65536,backing_file=@.base,backing_fmt=qcow2", 65536, "driver=qcow2"},
    {"qcow2-data-file",  "driver=qcow2,file.driver=file,file.filename=@",    "/dev/shm", Q_USUAL | D_RESIZE,                                       QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096,data_file=@.data", 4096, NULL},
    {"qcow2-data-raw",   "driver=qcow2,file.driver=file,file.filename=@",    "/dev/shm", Q_USUAL | D_RESIZE,                                       QCOW2, 0, "driver=qcow2,size=#,data_file=@.data,data_file_raw=on", 65536, NULL},
    {"sim",              "driver=file,filename=@",                           "/sim",     D_RESIZE | D_PERSISTS | D_SIM,                            ODD, 0},
    {"sim-direct",       "driver=file,filename=@,cache.direct=on",           "/sim",     D_RESIZE | D_PERSISTS | D_SIM,                            ODD, 0},
    {"sim-errors",       "driver=file,filename=@",                           "/sim",     D_PERSISTS | D_SIM | D_ERRORS | D_PAGE_CACHE,             ODD, 0},
    {"sim-direct-errors", "driver=file,filename=@,cache.direct=on",          "/sim",     D_PERSISTS | D_SIM | D_ERRORS,                            ODD, 0},
    {"sim-qcow2",        "driver=qcow2,file.driver=file,file.filename=@",    "/sim",     Q_SIM | D_RESIZE | D_COMPRESSED,                          QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"sim-qcow2-errors", "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/sim", Q_SIM | D_ERRORS,                            QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"sim-qcow2-backing-errors", "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/sim", Q_SIM | D_ERRORS | D_COMPRESSED,     QCOW2, 0, "driver=qcow2,size=#,cluster_size=16384,extended_l2=on,backing_file=@.base,backing_fmt=qcow2", 16384, "driver=qcow2"},
    {"sim-qcow2-data-errors", "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/sim", Q_SIM | D_ERRORS,                       QCOW2, 0, "driver=qcow2,size=#,cluster_size=4096,data_file=@.data", 4096, NULL},
    {"sim-qcow2-lazy-errors", "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/sim", Q_SIM | D_ERRORS,                       QCOW2, 0, "driver=qcow2,size=#,cluster_size=512,lazy_refcounts=on", 512, NULL},
    {"sim-qcow2-cut",    "driver=qcow2,file.driver=file,file.filename=@",    "/sim",     Q_SIM | D_CUT | D_COMPRESSED,                             MIB, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"sim-qcow2-lazy-cut", "driver=qcow2,file.driver=file,file.filename=@",  "/sim",     Q_SIM | D_CUT,                                            MIB, 0, "driver=qcow2,size=#,cluster_size=512,lazy_refcounts=on", 512, NULL},
    {"sim-qcow2-backing-cut", "driver=qcow2,file.driver=file,file.filename=@", "/sim",   Q_SIM | D_CUT | D_COMPRESSED,                             MIB, 0, "driver=qcow2,size=#,cluster_size=65536,extended_l2=on,backing_file=@.base,backing_fmt=qcow2", 65536, "driver=qcow2"},
    {"sim-qcow2-data-cut", "driver=qcow2,file.driver=file,file.filename=@",  "/sim",     Q_SIM | D_CUT,                                            MIB, 0, "driver=qcow2,size=#,cluster_size=4096,data_file=@.data", 4096, NULL},
    {"sim-qcow2-cut-errors", "driver=qcow2,cache.direct=on,file.driver=file,file.filename=@", "/sim", Q_SIM | D_CUT | D_ERRORS,                MIB, 0, "driver=qcow2,size=#,cluster_size=4096", 4096, NULL},
    {"sim-cut",          "driver=raw,file.driver=file,file.filename=@",      "/sim",     D_PERSISTS | D_SIM | D_CUT,                               MIB, 0},
    {"sim-direct-cut",   "driver=file,filename=@,cache.direct=on",           "/sim",     D_PERSISTS | D_SIM | D_CUT,                               MIB, 0},
    {"sim-cut-errors",   "driver=file,filename=@",                           "/sim",     D_PERSISTS | D_SIM | D_CUT | D_ERRORS | D_PAGE_CACHE,     MIB, 0},
    {0},
};
/* clang-format on */

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

/* ---- files ---- */

static uint64_t file_size(const struct drive *drive)
{
    return drive->file_size_bytes != 0 ? drive->file_size_bytes : drive->size_bytes;
}

static bool run_is_sim(const struct run *run)
{
    return (run->drive->facts & D_SIM) != 0;
}

/* Run a command and give the first line that it prints. */
static bool command(char *out, size_t size, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    FILE *p;
    bool ok;

    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    p = popen(line, "r");
    if (p == NULL) {
        return false;
    }
    ok = fgets(out, (int)size, p) != NULL;
    while (ok && fgetc(p) != EOF) {
    }
    out[ok ? strcspn(out, "\n") : 0] = '\0';
    return pclose(p) == 0 && ok;
}

static const char *file_dir(const struct drive *drive)
{
    const char *dir = getenv("PLATTER_DIR");

    return dir != NULL && (drive->facts & D_SIM) == 0 ? dir : drive->dir;
}

/* NULL, or why the line is skipped. */
static const char *disk_file_make(struct run *run)
{
    const struct drive *drive = run->drive;
    char file[150];
    int fd;

    if (drive->dir == NULL) {
        return NULL;
    }
    snprintf(file, sizeof(file), "%s/platter-property-%ld-%s", file_dir(drive), (long)getpid(),
             drive->name);
    snprintf(run->path, sizeof(run->path), "%s", file);
    if (run_is_sim(run)) {
        struct sim_file_options opts = {0};

        if (strstr(drive->options, "cache.direct=on") != NULL) {
            opts.dio_mem_align = opts.dio_offset_align = run->seed % 2 == 0 ? 512 : 4096;
        }
        assert(sim_world_add_file(run->world, run->path, file_size(drive), &opts) == 0);
        return NULL;
    }
    fd = open(file, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) {
        return "its folder cannot be written to";
    }
    assert(ftruncate(fd, (off_t)file_size(drive)) == 0);
    close(fd);
    if ((drive->facts & D_LOOP) != 0 &&
        !command(run->path, sizeof(run->path), "losetup -b 4096 -f --show %s 2>/dev/null", file)) {
        unlink(file);
        run->path[0] = '\0';
        return "there is no loop device";
    }
    if ((drive->facts & D_DIRECT) != 0) {
        fd = open(run->path, O_RDONLY | O_DIRECT);
        if (fd < 0) {
            unlink(file);
            return "the file system has no direct I/O";
        }
        close(fd);
    }
    return NULL;
}

static void disk_file_remove(struct run *run)
{
    char line[300];

    if (run->path[0] == '\0' || run_is_sim(run)) {
        return;
    }
    if ((run->drive->facts & D_LOOP) != 0) {
        command(line, sizeof(line), "losetup -d %s", run->path);
        snprintf(run->path, sizeof(run->path), "%s/platter-property-%ld-%s", file_dir(run->drive),
                 (long)getpid(), run->drive->name);
    }
    unlink(run->path);
    snprintf(line, sizeof(line), "%s.base", run->path);
    unlink(line);
    snprintf(line, sizeof(line), "%s.data", run->path);
    unlink(line);
}

/* ---- opening ---- */

static void options_text(const struct run *run, const char *text, char *out, size_t size)
{
    size_t n = 0;

    for (const char *p = text; *p != '\0' && n < size; p++) {
        if (*p == '@') {
            n += (size_t)snprintf(out + n, size - n, "%s", run->path);
        } else if (*p == '#') {
            n += (size_t)snprintf(out + n, size - n, "%" PRIu64, file_size(run->drive));
        } else {
            out[n++] = *p;
        }
    }
    assert(n < size);
    out[n] = '\0';
}

static BlockOptions *options_of(struct run *run, const char *drive_text)
{
    char text[512];
    Error *err = NULL;
    BlockOptions *options;

    options_text(run, drive_text, text, sizeof(text));
    options = block_options_parse(text, NULL, &err);
    if (options == NULL) {
        run_fail(run, "options '%s': %s", text, error_get_pretty(err));
    }
    return options;
}

static void image_create(struct run *run, const char *path, const char *text)
{
    Error *err = NULL;

    if (bdrv_create(run->pl, path, options_of(run, text), &err) < 0) {
        run_fail(run, "create '%s': %s", text, error_get_pretty(err));
    }
}

/* A backing file that is shorter or longer than the disk, with something in it: the disk begins
 * with that. */
static void base_create(struct run *run, struct rng *rng)
{
    struct model *model = &run->model;
    uint64_t bytes = (model->size_bytes / 2 + rng_below(rng, model->size_bytes)) / SECTOR * SECTOR;
    char path[220];
    char text[300];
    Error *err = NULL;
    BlockBackend *blk;

    snprintf(path, sizeof(path), "%s.base", run->path);
    snprintf(text, sizeof(text), "%s,size=%" PRIu64, run->drive->base, bytes);
    image_create(run, path, text);
    snprintf(text, sizeof(text), "driver=%s,file.driver=file,file.filename=%s",
             strncmp(run->drive->base, "driver=raw", 10) == 0 ? "raw" : "qcow2", path);
    blk = blk_new_open(run->pl, "base", NULL, NULL, block_options_parse(text, NULL, NULL),
                       BDRV_O_RDWR, &err);
    if (blk == NULL) {
        run_fail(run, "open '%s': %s", text, error_get_pretty(err));
    }
    for (int i = 0; i < 20; i++) {
        uint8_t buf[20000];
        uint64_t offset = rng_below(rng, bytes - sizeof(buf));

        memset(buf, 1 + i, sizeof(buf));
        assert(blk_pwrite(blk, (int64_t)offset, buf, sizeof(buf)) == sizeof(buf));
        if (offset < model->size_bytes) {
            uint64_t n = model->size_bytes - offset;

            memcpy(model->now + offset, buf, n < sizeof(buf) ? n : sizeof(buf));
        }
    }
    blk_unref(blk);
    model_flushed(model);
}

static void disk_create(struct run *run, struct rng *rng)
{
    if (run->drive->base != NULL) {
        base_create(run, rng);
    }
    if (run->drive->create != NULL) {
        image_create(run, run->path, run->drive->create);
    }
}

/* What was just opened is consistent; leaks only where something went wrong. */
static void disk_check(struct run *run)
{
    const struct bdrv_check_options options = {.size = sizeof(options)};
    struct bdrv_check_result result;
    Error *err = NULL;

    if (bdrv_check(blk_bs(run->blk), &options, &result, &err) < 0) {
        run_fail(run, "check: %s", error_get_pretty(err));
    }
    if (result.corruptions > 0 || result.check_errors > 0 ||
        (result.leaks > 0 && (run->drive->facts & (D_CUT | D_ERRORS)) == 0)) {
        run_fail(run, "check: %" PRIu64 " corruptions, %" PRIu64 " leaks, %" PRIu64 " check errors",
                 result.corruptions, result.leaks, result.check_errors);
    }
}

static void disk_open(struct run *run)
{
    BlockOptions *options = options_of(run, run->drive->options);
    Error *err = NULL;

    run->blk = blk_new_open(run->pl, "disk", NULL, NULL, options, BDRV_O_RDWR | BDRV_O_UNMAP, &err);
    if (run->blk == NULL) {
        run_fail(run, "open '%s': %s", run->drive->options, error_get_pretty(err));
    }
    atomic_store(&run->flush_failed, false);
    run->flush_final = false;
    if (run->drive->create != NULL) {
        disk_check(run);
    }
}

static void disk_close(struct run *run)
{
    blk_unref(run->blk);
    run->blk = NULL;
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

/* NULL when it passed, or why it was skipped. Failures do not return. */
static const char *run_drive(struct run *run)
{
    struct aio_context_options ctx_opts = {.size = sizeof(ctx_opts)};
    struct platter_options pl_opts = {.size = sizeof(pl_opts), .image_refs = PLATTER_REFS_FOLLOW};
    struct rng rng = {run->seed};
    IOThread *other = NULL;
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
        disk_create(run, &rng);
        disk_open(run);
        while (atomic_load(&run->done_ops) < run->ops) {
            one_round(run, &rng, other);
        }
        run_alone(run, &rng, check_fn);
        disk_close(run);
        if (other != NULL) {
            iothread_free(other);
        }
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
