/* SPDX-License-Identifier: MIT */
/* A Platter on a simulated world. */
#include "sim_harness.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/options.h>

_Thread_local unsigned harness_own;

uint64_t harness_seed(uint64_t otherwise)
{
    const char *text = getenv("PLATTER_SEED");
    uint64_t seed = text && *text ? strtoull(text, 0, 0) : otherwise;

    printf("PLATTER_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static void need(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "harness: %s\n", what);
        abort();
    }
}

void harness_begin_with(struct harness *h, uint64_t seed, uint64_t shadow_bytes,
                        struct sim_disk *disk, const struct sim_file_options *opts)
{
    harness_own++;
    memset(h, 0, sizeof(*h));
    h->world = sim_world_new(seed);
    need(h->world, "no memory for the world");
    need(disk && sim_world_add_disk(h->world, SIM_DISK_PATH, disk, opts) == 0, "no disk");
    need(shadow_init(&h->shadow, shadow_bytes), "no memory for the shadow");
    os_replace(sim_os_table(h->world));
    harness_own--;
}

void harness_begin(struct harness *h, uint64_t seed, uint64_t disk_bytes,
                   const struct sim_file_options *opts)
{
    struct sim_disk *disk;

    harness_own++;
    disk = sim_disk_new(disk_bytes);
    harness_own--;
    harness_begin_with(h, seed, disk_bytes, disk, opts);
}

static void *own_malloc(size_t bytes)
{
    void *p;

    harness_own++;
    p = malloc(bytes);
    harness_own--;
    return p;
}

void harness_close(struct harness *h)
{
    blk_unref(h->blk);
    h->blk = 0;
    platter_free(h->pl);
    h->pl = 0;
}

unsigned harness_end(struct harness *h)
{
    unsigned left;

    harness_close(h);
    left = sim_world_open_fds(h->world);
    os_replace(0);
    if (left == 0) { /* else it is kept for whoever looks into the failure */
        sim_world_free(h->world);
    }
    shadow_fini(&h->shadow);
    return left;
}

/* errno of an Error that is ended. */
static int error_taken(struct harness *h, Error *err)
{
    int rc = err ? -error_get_errno(err) : -EINVAL;

    snprintf(h->error, sizeof(h->error), "%s", err ? error_get_pretty(err) : "no Error");
    error_free(err);
    return rc;
}

int harness_platter(struct harness *h)
{
    const struct aio_context_options loop = {
        .size = sizeof(loop),
        .worker_threads_max = h->workers,
    };
    struct platter_options opts = {
        .size = sizeof(opts),
        .image_refs = PLATTER_REFS_FOLLOW, /* there is nothing but what we made */
    };
    Error *err = 0;

    if (h->pl) {
        return 0;
    }
    if (h->workers > 0) {
        opts.main_context = aio_context_new(&loop, &err);
        if (!opts.main_context) {
            return error_taken(h, err);
        }
    }
    h->pl = platter_new(&opts, &err);
    aio_context_unref(opts.main_context);
    return h->pl ? 0 : error_taken(h, err);
}

int harness_open(struct harness *h, const char *text, int flags)
{
    Error *err = 0;
    BlockOptions *options;
    int rc = harness_platter(h);

    if (rc < 0) {
        return rc;
    }
    options = block_options_parse(text, 0, &err);
    if (!options) {
        return error_taken(h, err);
    }
    h->blk = blk_new_open(h->pl, "disk", 0, 0, options, flags, &err);
    return h->blk ? 0 : error_taken(h, err);
}

static struct iov_view view_of(struct iovec *iov, void *buf, size_t bytes)
{
    *iov = (struct iovec){.iov_base = buf, .iov_len = bytes};
    return (struct iov_view){.iov = iov, .niov = 1, .bytes = bytes};
}

int h_read(struct harness *h, uint64_t offset, size_t bytes)
{
    uint8_t *buf = own_malloc(bytes);
    struct iovec iov;
    struct iov_view view = view_of(&iov, buf, bytes);
    int rc = buf ? blk_preadv(h->blk, (int64_t)offset, &view, 0) : -ENOMEM;

    if (rc == 0 && shadow_check_now(&h->shadow, offset, buf, bytes) >= 0) {
        rc = -EBADMSG; /* wrong bytes as good */
    }
    free(buf);
    return rc;
}

int h_write(struct harness *h, uint64_t offset, size_t bytes, int flags)
{
    uint8_t *buf = own_malloc(bytes);
    struct iovec iov;
    struct iov_view view = view_of(&iov, buf, bytes);
    unsigned version;
    int rc;

    if (!buf) {
        return -ENOMEM;
    }
    version = shadow_begin(&h->shadow, offset, bytes, false);
    shadow_fill(buf, offset, bytes, version);
    rc = blk_pwritev(h->blk, (int64_t)offset, &view, flags);
    shadow_end(&h->shadow, offset, bytes, version, rc == 0,
               ((flags & BDRV_REQ_FUA) || h->wrote_through) && !h->no_flush);
    free(buf);
    return rc;
}

int h_zero(struct harness *h, uint64_t offset, uint64_t bytes, int flags)
{
    int rc;

    shadow_begin(&h->shadow, offset, bytes, true);
    rc = blk_pwrite_zeroes(h->blk, (int64_t)offset, (int64_t)bytes, flags);
    shadow_end(&h->shadow, offset, bytes, 0, rc == 0,
               ((flags & BDRV_REQ_FUA) || h->wrote_through) && !h->no_flush);
    return rc;
}

int h_discard(struct harness *h, uint64_t offset, uint64_t bytes)
{
    /* Old or zero from now on, success or not */
    shadow_begin(&h->shadow, offset, bytes, true);
    return blk_pdiscard(h->blk, (int64_t)offset, (int64_t)bytes);
}

int h_resize(struct harness *h, uint64_t size_bytes, enum bdrv_prealloc prealloc)
{
    uint64_t cut = size_bytes < h->shadow.size ? h->shadow.size - size_bytes : 0;
    int rc;

    shadow_begin(&h->shadow, size_bytes, cut, true);
    rc = blk_resize(h->blk, (int64_t)size_bytes, true, prealloc, 0);
    shadow_end(&h->shadow, size_bytes, cut, 0, rc == 0, false);
    return rc;
}

int h_flush(struct harness *h)
{
    int rc;

    shadow_flush_begin(&h->shadow);
    rc = blk_flush(h->blk);
    shadow_flush_end(&h->shadow, rc == 0 && !h->no_flush);
    return rc;
}

const char *harness_verify_disk(struct harness *h, const struct sim_disk *disk, bool after_cut)
{
    uint8_t *buf;
    const char *wrong;

    if (h->judge) {
        return h->judge(h, disk, after_cut);
    }
    buf = malloc(SIM_SECTOR_BYTES * 8);
    wrong = buf ? 0 : "no memory";
    for (uint64_t at = 0; at < h->shadow.size && !wrong; at += SIM_SECTOR_BYTES * 8) {
        uint64_t left = h->shadow.size - at;
        size_t n = (size_t)(left < SIM_SECTOR_BYTES * 8 ? left : SIM_SECTOR_BYTES * 8);

        sim_disk_read(disk, at, buf, n);
        if (!after_cut && shadow_check_now(&h->shadow, at, buf, n) >= 0) {
            wrong = "the disk holds other bytes than were answered";
        }
        if (after_cut && shadow_check_after(&h->shadow, at, buf, n) >= 0) {
            wrong = "durable data was lost by a power cut";
        }
    }
    free(buf);
    return wrong;
}

const char *harness_verify(struct harness *h, unsigned cuts, struct sim_rng *rng)
{
    struct sim_disk *disk;
    const char *wrong;

    harness_own++;
    disk = sim_world_clone_disk(h->world, SIM_DISK_PATH);
    wrong = disk ? harness_verify_disk(h, disk, false) : "no disk";

    for (unsigned i = 0; i < cuts && !wrong; i++) {
        struct sim_disk *copy = sim_disk_clone(disk);

        wrong = copy && sim_disk_power_cut(copy, rng) == 0 ? harness_verify_disk(h, copy, true)
                                                           : "no memory";
        sim_disk_free(copy);
    }
    sim_disk_free(disk);
    harness_own--;
    return wrong;
}

bool harness_has_driver(const char *name)
{
    const char *const *names = bdrv_list_formats();

    while (*names && strcmp(*names, name) != 0) {
        names++;
    }
    return *names != 0;
}

unsigned harness_process_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    while (dir && readdir(dir)) {
        n++;
    }
    if (dir) {
        closedir(dir);
    }
    return n;
}
