/* SPDX-License-Identifier: MIT */
/*
 * The scenarios of the fault gates on qcow2. What is judged is the image: after each failure it is
 * consistent but for leaks, and what was acknowledged is there (qcow2_expect.h). One at a time in a
 * process.
 */
#include "scenario_qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/bitmap.h>
#include <platter/image.h>
#include <platter/options.h>

#define KIB 1024u
#define DISK_BYTES SCENARIO_DISK_BYTES

#define IMAGE "driver=qcow2,file.driver=file,file.filename=" SIM_DISK_PATH

static const char plain[] = IMAGE;
static const char unmap[] = IMAGE ",discard=unmap,file.discard=unmap";
static const char direct[] = IMAGE ",file.cache.direct=on";
static const char small[] =
    IMAGE ",l2-cache-size=4k,l2-cache-entry-size=512,refcount-cache-size=2k";
static const char overlay[] = IMAGE ",backing.driver=raw,backing.file.driver=file,"
                                    "backing.file.filename=" EXPECT_BACKING_PATH;
static const char external[] = IMAGE ",data-file.driver=file,data-file.filename=" EXPECT_DATA_PATH;

/* ---- requests ---- */

static void nothing(struct scenario_run *r)
{
    OP(r, h_read(&r->h, 0, 4096));
}

static void allocate(struct scenario_run *r)
{
    OP(r, q_write(r, 0, 8192, 0));
    OP(r, q_write(r, 20 * KIB, 4096, 0));
    OP(r, h_flush(&r->h));
    OP(r, q_write(r, 0, 4096, 0));
    OP(r, q_write(r, 40 * KIB, 512, BDRV_REQ_FUA));
    OP(r, h_read(&r->h, 0, 48 * KIB));
    OP(r, h_flush(&r->h));
}

static void unaligned(struct scenario_run *r)
{
    OP(r, q_write(r, 1000, 5000, 0));
    OP(r, q_write(r, 8191, 2, 0));
    OP(r, h_flush(&r->h));
    OP(r, q_write(r, 4095, 4098, 0));
    OP(r, h_read(&r->h, 1, 20000));
    OP(r, h_flush(&r->h));
}

static void zeroes(struct scenario_run *r)
{
    OP(r, q_write(r, 0, 32 * KIB, 0));
    OP(r, q_zero(r, 4096, 8192, 0));
    OP(r, q_zero(r, 16 * KIB, 8192, BDRV_REQ_MAY_UNMAP));
    OP(r, q_zero(r, 100, 600, 0));
    OP(r, h_flush(&r->h));
    OP(r, q_write(r, 5000, 100, 0));
    OP(r, h_read(&r->h, 0, 32 * KIB));
    OP(r, h_flush(&r->h));
}

static void discards(struct scenario_run *r)
{
    OP(r, q_write(r, 0, 48 * KIB, 0));
    OP(r, h_flush(&r->h));
    OP(r, q_discard(r, 0, 8192));
    OP(r, q_discard(r, 9000, 9000));
    OP(r, h_flush(&r->h));
    OP(r, q_write(r, 4096, 4096, 0));
    OP(r, h_flush(&r->h));
}

static void compressed(struct scenario_run *r)
{
    OP(r, q_compress(r, 0, 8192));
    OP(r, q_compress(r, 16 * KIB, 4096));
    OP(r, h_flush(&r->h));
    OP(r, q_write(r, 1000, 100, 0));
    OP(r, q_compress(r, 16 * KIB, 4096));
    OP(r, h_read(&r->h, 0, 32 * KIB));
    OP(r, h_flush(&r->h));
}

#define BURST 10

struct burst {
    struct scenario_run *r;
    unsigned left;
    struct burst_one {
        struct burst *burst;
        unsigned version;
        uint64_t offset;
        struct iovec iov;
        struct iov_view view;
        uint8_t bytes[2048];
    } one[BURST];
};

static void burst_done(void *opaque, int ret)
{
    struct burst_one *one = opaque;

    shadow_end(&one->burst->r->h.shadow, one->offset, sizeof(one->bytes), one->version, ret == 0,
               false);
    scenario_result(one->burst->r, "burst", ret);
    one->burst->left--;
}

/* Many at once, two to a cluster, in different L2 tables where clusters are small. */
static void burst(struct scenario_run *r)
{
    static struct burst b;

    b = (struct burst){.r = r};
    for (unsigned i = 0; i < BURST; i++) {
        struct burst_one *one = &b.one[i];

        one->burst = &b;
        one->offset = i * 6u * KIB;
        one->version = shadow_begin(&r->h.shadow, one->offset, sizeof(one->bytes), false);
        shadow_fill(one->bytes, one->offset, sizeof(one->bytes), one->version);
        one->iov = (struct iovec){.iov_base = one->bytes, .iov_len = sizeof(one->bytes)};
        one->view = (struct iov_view){.iov = &one->iov, .niov = 1, .bytes = sizeof(one->bytes)};
        if (blk_aio_pwritev(r->h.blk, (int64_t)one->offset, &one->view, 0, burst_done, one)) {
            b.left++;
        } else {
            OP(r, -ENOMEM);
        }
    }
    while (b.left > 0) {
        aio_poll(platter_get_main_context(r->h.pl), true);
    }
    OP(r, h_flush(&r->h));
    OP(r, h_read(&r->h, 0, 60 * KIB));
}

/* Larger than one refcount block, refcount table and L1 sector of 512-byte clusters. */
static void tables_grow(struct scenario_run *r)
{
    for (unsigned i = 0; i < 4; i++) {
        OP(r, q_write(r, i * 60u * KIB, 20 * KIB, 0));
    }
    OP(r, h_flush(&r->h));
    OP(r, h_read(&r->h, 0, 8192));
}

static void small_caches(struct scenario_run *r)
{
    for (unsigned i = 0; i < 10; i++) {
        OP(r, q_write(r, (i * 7u % 10) * 6u * KIB, 512, 0));
    }
    OP(r, h_read(&r->h, 0, 60 * KIB));
    OP(r, h_flush(&r->h));
}

/* ---- the image as a whole ---- */

static void snapshots(struct scenario_run *r)
{
    OP(r, q_write(r, 0, 8192, 0));
    OP(r, q_snapshot(r, "one", 0));
    OP(r, q_write(r, 4096, 8192, 0));
    OP(r, q_snapshot(r, "two", 0));
    OP(r, q_apply(r, "one"));
    OP(r, q_write(r, 0, 512, 0));
    OP(r, q_delete(r, "one"));
    OP(r, q_delete(r, "two"));
    OP(r, h_flush(&r->h));
}

static void vm_state(struct scenario_run *r)
{
    if (OP(r, q_vmstate(r, 8192)) == 0) {
        OP(r, q_snapshot(r, "vm", 8192));
    }
    OP(r, q_write(r, 0, 4096, 0));
    OP(r, q_apply(r, "vm"));
}

static void snapshot_facts(struct scenario_run *r)
{
    struct bdrv_snapshot_list list;
    Error *err = 0;
    char *text;

    OP(r, q_snapshot(r, "one", 0));
    if (OP(r, scenario_error(r, bdrv_snapshot_list(q_node(r), &list, &err), &err)) == 0) {
        bdrv_snapshot_list_free(&list);
    }
    text = bdrv_get_specific_info(q_node(r), &err);
    OP(r, err ? scenario_error(r, -error_get_errno(err), &err) : 0);
    free(text);
    text = bdrv_inspect(r->h.pl, SIM_DISK_PATH, "qcow2", &err);
    OP(r, err ? scenario_error(r, -error_get_errno(err), &err) : text ? 0 : -EBADMSG);
    free(text);
}

static void resizes(struct scenario_run *r)
{
    OP(r, q_write(r, 0, DISK_BYTES, 0));
    OP(r, h_flush(&r->h));
    OP(r, q_resize(r, 30 * KIB, BDRV_PREALLOC_OFF));
    OP(r, q_resize(r, 96 * KIB, BDRV_PREALLOC_METADATA));
    if (blk_getlength(r->h.blk) == 96 * KIB) {
        OP(r, q_write(r, 90 * KIB, 4096, 0));
    }
    OP(r, h_flush(&r->h));
}

static void grows_over_backing(struct scenario_run *r)
{
    OP(r, q_resize(r, 64 * KIB, BDRV_PREALLOC_OFF));
    OP(r, h_read(&r->h, 0, 16 * KIB));
    OP(r, h_flush(&r->h));
}

static void amends(struct scenario_run *r)
{
    OP(r, q_write(r, 0, 16 * KIB, 0));
    OP(r, q_zero(r, 8192, 4096, 0));
    OP(r, q_amend(r, "refcount_bits=64"));
    OP(r, q_write(r, 32 * KIB, 4096, 0));
    OP(r, q_amend(r, "refcount_bits=16"));
    OP(r, q_amend(r, "lazy_refcounts=on"));
    if (r->failures == 0) { /* version 2 has refcounts of 16 bits only */
        OP(r, q_amend(r, "lazy_refcounts=off,compat=0.10"));
    }
    OP(r, h_flush(&r->h));
}

static void backing_name(struct scenario_run *r)
{
    Error *err = 0;

    OP(r, scenario_error(r, bdrv_change_backing_file(q_node(r), "elsewhere", "raw", &err), &err));
    OP(r, q_write(r, 0, 512, 0));
    OP(r, scenario_error(r, bdrv_change_backing_file(q_node(r), EXPECT_BACKING_PATH, "raw", &err),
                         &err));
}

static void bitmaps(struct scenario_run *r)
{
    BdrvDirtyBitmap *bm;
    Error *err = 0;

    expect_bitmap_new(&q_expect);
    bm = bdrv_bitmap_create(q_node(r), EXPECT_BITMAP, 4096, BDRV_BITMAP_PERSISTENT, &err);
    if (OP(r, bm ? 0 : scenario_error(r, -error_get_errno(err), &err)) < 0) {
        return;
    }
    q_expect.bitmap = r->strict;
    OP(r, q_write(r, 4096, 4096, 0));
    if (OP(r, scenario_error(r, bdrv_bitmaps_store(q_node(r), &err), &err)) == 0) {
        expect_bitmap_stored(&q_expect);
    }
    OP(r, q_write(r, 20 * KIB, 512, 0));
    OP(r, h_flush(&r->h));
    q_reopen(r, direct);
    if (r->h.blk) {
        OP(r, q_write(r, 30 * KIB, 512, 0));
    }
}

static void lazy(struct scenario_run *r)
{
    OP(r, q_write(r, 0, 16 * KIB, 0));
    OP(r, h_flush(&r->h));
    q_reopen(r, direct);
    if (r->h.blk) {
        OP(r, q_write(r, 30 * KIB, 4096, 0));
        OP(r, q_discard(r, 0, 8192));
        OP(r, h_flush(&r->h));
    }
}

static void opened_dirty(struct scenario_run *r)
{
    OP(r, q_write(r, 0, 4096, 0));
    OP(r, h_flush(&r->h));
}

static void checks(struct scenario_run *r)
{
    OP(r, q_write(r, 0, 4096, 0));
    OP(r, q_check(r, 0));
    OP(r, q_check(r, BDRV_FIX_LEAKS));
    OP(r, q_write(r, 8192, 4096, 0));
    OP(r, q_check(r, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS));
    OP(r, h_flush(&r->h));
}

static int status_steps(struct scenario_run *r)
{
    int64_t at = 0;

    while (at < (int64_t)DISK_BYTES) {
        int64_t n = 0;
        int64_t map;
        int depth;
        int rc = blk_co_block_status(r->h.blk, at, (int64_t)DISK_BYTES - at, &n, &map, &depth);

        if (rc < 0 || n <= 0) {
            return rc < 0 ? rc : -EBADMSG;
        }
        at += n;
    }
    return 0;
}

static void status(struct scenario_run *r)
{
    OP(r, q_write(r, 4096, 4096, 0));
    OP(r, q_zero(r, 16 * KIB, 4096, 0));
    OP(r, scenario_in_co(r, status_steps));
}

/* ---- create ---- */

static void create(struct scenario_run *r, const char *text)
{
    BlockOptions *options = block_options_parse(text, 0, 0);
    struct qv_image im = {0};
    struct sim_disk *made;
    struct qv_bytes bytes;
    Error *err = 0;
    int rc;

    if (!options || block_options_set_str(options, "driver", "qcow2") < 0 ||
        block_options_set_u64(options, "size", 100 * KIB) < 0) {
        block_options_free(options);
        OP(r, -ENOMEM);
        return;
    }
    rc = OP(r, scenario_error(r, bdrv_create(r->h.pl, "/sim/new", options, &err), &err));
    if (rc < 0) {
        return;
    }
    harness_own++;
    made = sim_world_clone_disk(r->h.world, "/sim/new");
    q_must(made, "no disk was made");
    bytes = (struct qv_bytes){calloc(1, sim_disk_size(made) + 1), sim_disk_size(made)};
    sim_disk_read(made, 0, (uint8_t *)(uintptr_t)bytes.data, bytes.bytes);
    if (!qv_parse(&im, bytes, (struct qv_bytes){0}, (struct qv_bytes){0})) {
        scenario_wrong(r, im.text);
    } else {
        qv_verify(&im);
        if (!qv_sound(&im) || (im.mismatched > 0 && !qv_dirty(&im)) ||
            im.h.disk_bytes != 100 * KIB) {
            scenario_wrong(r, im.text);
        }
    }
    qv_fini(&im);
    free((void *)(uintptr_t)bytes.data);
    sim_disk_free(made);
    harness_own--;
}

static void create_plain(struct scenario_run *r)
{
    create(r, "cluster_size=4k");
}

static void create_metadata(struct scenario_run *r)
{
    create(r, "cluster_size=4k,preallocation=metadata,extended_l2=off,lazy_refcounts=on");
}

static void create_full(struct scenario_run *r)
{
    create(r, "cluster_size=4k,preallocation=full,compression_type=zstd");
}

static void measures(struct scenario_run *r)
{
    struct bdrv_measure_result result;
    BlockOptions *options = block_options_new();
    Error *err = 0;

    OP(r, q_write(r, 0, 4096, 0));
    if (!options) {
        OP(r, -ENOMEM);
        return;
    }
    OP(r,
       scenario_error(r, bdrv_measure(r->h.pl, "qcow2", options, q_node(r), &result, &err), &err));
}

#define QCOW2(text, open_options, prepared, run)                                                   \
    {                                                                                              \
        .name = text, .options = open_options, .flags = BDRV_O_UNMAP, .prepare = prepared,         \
        .finish = q_finish, .steps = run                                                           \
    }
#define QCOW2_MADE(text, open_options, prepared, run, create_options)                              \
    {                                                                                              \
        .name = text, .options = open_options, .flags = BDRV_O_UNMAP, .prepare = prepared,         \
        .finish = q_finish, .steps = run, .create = create_options                                 \
    }

static const struct scenario scenarios[] = {
    QCOW2("open and close", plain, q_fresh, nothing),
    QCOW2("allocate", plain, q_fresh, allocate),
    QCOW2("allocate direct", direct, q_fresh, allocate),
    QCOW2("unaligned", plain, q_fresh, unaligned),
    QCOW2("copy on write", overlay, q_over_backing, unaligned),
    QCOW2("zeroes", unmap, q_fresh, zeroes),
    QCOW2("zeroes over backing", overlay, q_over_backing, zeroes),
    QCOW2("discard", unmap, q_fresh, discards),
    QCOW2("compressed", plain, q_fresh, compressed),
    QCOW2_MADE("compressed zstd", plain, q_fresh, compressed,
               "cluster_size=4k,compression_type=zstd"),
    QCOW2_MADE("burst", plain, q_fresh, burst, "cluster_size=512"),
    QCOW2_MADE("small caches", small, q_fresh, small_caches, "cluster_size=512"),
    {.name = "tables grow",
     .options = plain,
     .prepare = q_fresh,
     .finish = q_finish,
     .steps = tables_grow,
     .create = "cluster_size=512,refcount_bits=64",
     .disk_bytes = 256 * KIB},
    QCOW2_MADE("extended L2", plain, q_fresh, unaligned, "cluster_size=16k,extended_l2=on"),
    QCOW2_MADE("extended L2 zeroes over backing", overlay, q_over_backing, zeroes,
               "cluster_size=16k,extended_l2=on"),
    QCOW2_MADE("version 2", plain, q_fresh, zeroes, "cluster_size=4k,compat=0.10"),
    QCOW2_MADE("data file", external, q_fresh, allocate,
               "cluster_size=4k,data_file=" EXPECT_DATA_PATH),
    QCOW2_MADE("raw data file", external, q_fresh, zeroes,
               "cluster_size=4k,data_file=" EXPECT_DATA_PATH ",data_file_raw=on"),
    QCOW2("snapshots", plain, q_fresh, snapshots),
    QCOW2_MADE("snapshots of version 2", plain, q_fresh, snapshots, "cluster_size=4k,compat=0.10"),
    QCOW2("VM state", plain, q_fresh, vm_state),
    QCOW2("facts", plain, q_fresh, snapshot_facts),
    {.name = "resize",
     .options = plain,
     .prepare = q_fresh,
     .finish = q_finish,
     .steps = resizes,
     .largest_bytes = 96 * KIB},
    {.name = "grow over backing",
     .options = overlay,
     .prepare = q_over_backing,
     .finish = q_finish,
     .steps = grows_over_backing,
     .disk_bytes = 24 * KIB,
     .largest_bytes = 64 * KIB},
    QCOW2("amend", plain, q_fresh, amends),
    QCOW2("backing file's name", overlay, q_over_backing, backing_name),
    QCOW2("bitmaps", direct, q_fresh, bitmaps),
    QCOW2_MADE("lazy refcounts", direct, q_fresh, lazy, "cluster_size=4k,lazy_refcounts=on"),
    QCOW2("opened dirty", plain, q_dirty, opened_dirty),
    QCOW2("check", plain, q_leaky, checks),
    QCOW2("block status", overlay, q_over_backing, status),
    {.name = "write-through",
     .options = plain,
     .prepare = q_fresh,
     .finish = q_finish,
     .write_through = true,
     .steps = allocate},
    {.name = "create", .steps = create_plain},
    {.name = "create with metadata", .steps = create_metadata},
    {.name = "create full", .steps = create_full},
    QCOW2("measure", plain, q_fresh, measures),
    QCOW2("job amend", plain, q_fresh, q_job_amend),
    {.name = "job create", .steps = q_job_create},
    QCOW2("job commit", plain, q_fresh, q_job_commit),
    QCOW2("job rebase", overlay, q_over_backing, q_job_rebase),
};

const struct scenario_list scenarios_qcow2 = {
    .name = "qcow2",
    .scenarios = scenarios,
    .count = sizeof(scenarios) / sizeof(scenarios[0]),
};
