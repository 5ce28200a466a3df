/* SPDX-License-Identifier: MIT */
/*
 * The scenarios of the fault gates on raw, the protocols and NBD; each is short, because each call
 * of it is made to fail.
 */
#include "scenarios.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <platter/options.h>

#define KIB 1024u
#define DISK_BYTES SCENARIO_DISK_BYTES

static const char plain[] = "driver=raw,file.driver=file,file.filename=" SIM_DISK_PATH;
static const char direct[] =
    "driver=raw,file.driver=file,file.cache.direct=on,file.filename=" SIM_DISK_PATH;
static const char unmap[] = "driver=raw,discard=unmap,file.driver=file,file.discard=unmap,"
                            "file.filename=" SIM_DISK_PATH;

/* ---- opening ---- */

static void open_close(struct scenario_run *r)
{
    blk_unref(r->h.blk);
    r->h.blk = 0;
}

static void open_read_only(struct scenario_run *r)
{
    if (OP(r, harness_open(&r->h, plain, 0)) == 0) {
        OP(r, h_read(&r->h, 0, 4096));
        if (h_write(&r->h, 0, 512, 0) == 0) {
            scenario_wrong(r, "a read-only disk was written");
        }
    }
}

static void open_auto_read_only(struct scenario_run *r)
{
    static const char options[] = "driver=raw,auto-read-only=on,file.driver=file,"
                                  "file.auto-read-only=on,file.filename=" SIM_DISK_PATH;

    if (OP(r, harness_open(&r->h, options, BDRV_O_RDWR | BDRV_O_AUTO_RDONLY)) == 0) {
        OP(r, h_read(&r->h, 0, 4096));
    }
}

static void open_json(struct scenario_run *r)
{
    static const char name[] = "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\","
                               "\"filename\":\"" SIM_DISK_PATH "\"}}";
    Error *err = 0;

    r->h.blk = blk_new_open(r->h.pl, "disk", name, 0, 0, BDRV_O_RDWR, &err);
    OP(r, r->h.blk ? 0 : -error_get_errno(err));
    error_free(err);
    if (r->h.blk) {
        OP(r, h_write(&r->h, 0, 4096, 0));
    }
}

static void open_filename_probe(struct scenario_run *r)
{
    Error *err = 0;

    r->h.blk = blk_new_open(r->h.pl, "disk", SIM_DISK_PATH, 0, 0, BDRV_O_RDWR | BDRV_O_PROBE, &err);
    OP(r, r->h.blk ? 0 : -error_get_errno(err));
    error_free(err);
    if (r->h.blk) {
        OP(r, h_read(&r->h, 0, 4096));
        OP(r, h_write(&r->h, 8192, 4096, 0));
    }
}

static void open_fdset(struct scenario_run *r)
{
    int fd = OP(r, os->open(SIM_DISK_PATH, O_RDWR, 0));
    int rc = fd < 0 ? fd : platter_add_fd(r->h.pl, 7, fd, 0);

    if (fd < 0) {
        return;
    }
    /* -EINVAL: the descriptor could not be looked at */
    if (OP(r, rc == -EINVAL && !r->strict ? -EIO : rc) == 0 &&
        OP(r, harness_open(&r->h, "driver=raw,file.driver=file,file.filename=/dev/fdset/7",
                           BDRV_O_RDWR)) == 0) {
        OP(r, h_write(&r->h, 0, 4096, 0));
        OP(r, h_flush(&r->h));
    }
}

static void open_node_then_backend(struct scenario_run *r)
{
    BlockOptions *options = block_options_parse(plain, 0, 0);
    BlockDriverState *bs = 0;

    if (!options) {
        OP(r, -ENOMEM);
        return;
    }
    bs = bdrv_open(r->h.pl, 0, 0, options, BDRV_O_RDWR, 0);
    r->h.blk = bs ? blk_new(r->h.pl, "disk", 0) : 0;
    if (r->h.blk && OP(r, blk_insert_bs(r->h.blk, bs, 0)) == 0) {
        OP(r, h_write(&r->h, 512, 1024, 0));
        blk_remove_bs(r->h.blk);
        if (OP(r, blk_insert_bs(r->h.blk, bs, 0)) == 0) {
            OP(r, h_read(&r->h, 0, 4096));
        }
    }
    if (!r->h.blk && r->strict) {
        scenario_wrong(r, "no backend");
    }
    bdrv_unref(bs);
}

static void locked_by_another(struct scenario_run *r)
{
    static const char options[] = "driver=raw,file.driver=file,file.locking=on,"
                                  "file.filename=" SIM_DISK_PATH;
    struct harness other = {.world = r->h.world, .pl = r->h.pl};
    BlockOptions *second;

    if (OP(r, harness_open(&r->h, options, BDRV_O_RDWR)) < 0 ||
        OP(r, blk_set_perm(r->h.blk, BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE,
                           BDRV_PERM_CONSISTENT_READ, 0)) < 0) {
        return;
    }
    second = block_options_parse(options, 0, 0);
    other.blk = second ? blk_new_open(r->h.pl, "second", 0, 0, second, BDRV_O_RDWR, 0) : 0;
    if (other.blk) {
        scenario_wrong(r, "a locked image was opened");
    }
    blk_unref(other.blk);
    OP(r, h_write(&r->h, 0, 4096, 0));
}

/* ---- data ---- */

static void read_twice(struct scenario_run *r)
{
    OP(r, h_read(&r->h, 0, 4096));
    OP(r, h_read(&r->h, 60 * KIB, 4096));
}

static void write_and_flush(struct scenario_run *r)
{
    OP(r, h_write(&r->h, 4096, 8192, 0));
    OP(r, h_flush(&r->h));
    OP(r, h_write(&r->h, 8192, 512, 0));
    OP(r, h_read(&r->h, 4096, 8192));
    OP(r, h_flush(&r->h));
}

static void write_unaligned(struct scenario_run *r)
{
    OP(r, h_write(&r->h, 1000, 5000, 0));
    OP(r, h_read(&r->h, 1, 8191));
    OP(r, h_write(&r->h, 3, 1, 0));
    OP(r, h_flush(&r->h));
}

static void write_fua(struct scenario_run *r)
{
    OP(r, h_write(&r->h, 0, 4096, 0));
    OP(r, h_write(&r->h, 2048, 4096, BDRV_REQ_FUA));
    OP(r, h_write(&r->h, 100, 50, BDRV_REQ_FUA));
    OP(r, h_read(&r->h, 0, 8192));
}

static void write_many_flushes(struct scenario_run *r)
{
    for (unsigned i = 0; i < 4; i++) {
        OP(r, h_write(&r->h, i * 4096, 4096, 0));
        OP(r, h_flush(&r->h));
    }
    OP(r, h_flush(&r->h));
}

static void zeroes(struct scenario_run *r)
{
    OP(r, h_write(&r->h, 0, 32 * KIB, 0));
    OP(r, h_zero(&r->h, 4096, 8192, 0));
    OP(r, h_zero(&r->h, 16 * KIB, 8192, BDRV_REQ_MAY_UNMAP));
    OP(r, h_zero(&r->h, 100, 600, 0));
    OP(r, h_read(&r->h, 0, 32 * KIB));
    OP(r, h_flush(&r->h));
}

static void zeroes_fua(struct scenario_run *r)
{
    OP(r, h_write(&r->h, 0, 16 * KIB, 0));
    OP(r, h_zero(&r->h, 4096, 4096, BDRV_REQ_FUA));
    OP(r, h_zero(&r->h, 9000, 1000, BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP));
}

static void zeroes_fast_or_fail(struct scenario_run *r)
{
    int rc;

    OP(r, h_write(&r->h, 0, 16 * KIB, 0));
    rc = h_zero(&r->h, 0, 8192, BDRV_REQ_NO_FALLBACK);
    if (rc != -ENOTSUP) {
        scenario_result(r, "fast zero", rc);
    }
    OP(r, h_read(&r->h, 0, 16 * KIB));
}

static void discards(struct scenario_run *r)
{
    OP(r, h_write(&r->h, 0, 48 * KIB, 0));
    OP(r, h_discard(&r->h, 0, 8192));
    OP(r, h_discard(&r->h, 9000, 9000));
    OP(r, h_read(&r->h, 0, 48 * KIB));
    OP(r, h_flush(&r->h));
}

static void long_list(struct scenario_run *r)
{
    enum { N = 1500 };
    static uint8_t bytes[N * 8];
    static struct iovec iov[N];
    struct iov_view view = {.iov = iov, .niov = N, .bytes = sizeof(bytes)};
    unsigned version = shadow_begin(&r->h.shadow, 0, sizeof(bytes), false);
    int rc;

    shadow_fill(bytes, 0, sizeof(bytes), version);
    for (unsigned i = 0; i < N; i++) {
        iov[i] = (struct iovec){.iov_base = bytes + i * 8, .iov_len = 8};
    }
    rc = OP(r, blk_pwritev(r->h.blk, 0, &view, 0));
    shadow_end(&r->h.shadow, 0, sizeof(bytes), version, rc == 0, false);
    memset(bytes, 0, sizeof(bytes));
    rc = OP(r, blk_preadv(r->h.blk, 0, &view, 0));
    if (rc == 0 && shadow_check_now(&r->h.shadow, 0, bytes, sizeof(bytes)) >= 0) {
        scenario_wrong(r, "wrong bytes as good");
    }
}

static void seed_calls(struct scenario_run *r)
{
    uint8_t buf[1024];
    unsigned version = shadow_begin(&r->h.shadow, 1024, 1024, false);
    int rc;

    shadow_fill(buf, 1024, sizeof(buf), version);
    rc = OP(r, blk_write(r->h.blk, 2, buf, 2));
    shadow_end(&r->h.shadow, 1024, 1024, version, rc == 0, false);
    OP(r, blk_read(r->h.blk, 2, buf, 2));
    OP(r, blk_pread(r->h.blk, 1000, buf, 100));
    OP(r, h_flush(&r->h));
    OP(r, (int)blk_getlength(r->h.blk));
}

/* ---- size ---- */

static void grow(struct scenario_run *r)
{
    OP(r, h_write(&r->h, 0, 4096, 0));
    if (OP(r, h_resize(&r->h, 100000, BDRV_PREALLOC_OFF)) == 0 &&
        blk_getlength(r->h.blk) < 100000) {
        scenario_wrong(r, "the disk did not grow");
    }
    OP(r, h_flush(&r->h));
}

static void grow_falloc(struct scenario_run *r)
{
    OP(r, h_resize(&r->h, 128 * KIB, BDRV_PREALLOC_FALLOC));
    OP(r, h_read(&r->h, 0, 4096));
}

static void grow_full(struct scenario_run *r)
{
    OP(r, h_resize(&r->h, 128 * KIB, BDRV_PREALLOC_FULL));
    OP(r, h_write(&r->h, 0, 4096, 0));
}

static void shrink(struct scenario_run *r)
{
    OP(r, h_write(&r->h, 0, 64 * KIB, 0));
    OP(r, h_flush(&r->h));
    OP(r, h_resize(&r->h, 10000, BDRV_PREALLOC_OFF));
    OP(r, h_write(&r->h, 512, 1024, 0));
    OP(r, h_flush(&r->h));
}

static void odd_tail(struct scenario_run *r)
{
    OP(r, h_write(&r->h, 32768, 32768 - 300, 0));
    OP(r, h_read(&r->h, 60000, 65000 - 60000));
    OP(r, h_zero(&r->h, 64000, 1000, 0));
    OP(r, h_flush(&r->h));
}

/* ---- status and copies ---- */

static int status_steps(struct scenario_run *r)
{
    int64_t at = 0;

    while (at < (int64_t)DISK_BYTES) {
        int64_t n = 0;
        int64_t map;
        int depth;
        int rc = blk_co_block_status(r->h.blk, at, (int64_t)DISK_BYTES - at, &n, &map, &depth);

        if (rc < 0) {
            return rc;
        }
        if (n <= 0 || n > (int64_t)DISK_BYTES - at) {
            scenario_wrong(r, "a status without length");
            return 0;
        }
        if ((rc & BDRV_BLOCK_ZERO) && at < 4096 && r->failures == 0) {
            scenario_wrong(r, "data is said to be zero");
        }
        at += n;
    }
    return 0;
}

static void status(struct scenario_run *r)
{
    OP(r, h_write(&r->h, 0, 4096, 0));
    OP(r, h_write(&r->h, 32 * KIB, 4096, 0));
    OP(r, scenario_in_co(r, status_steps));
}

static int copy_same_steps(struct scenario_run *r)
{
    unsigned version = r->h.shadow.next_version - 1; /* of the write before */
    int rc;

    shadow_begin_copy(&r->h.shadow, 32 * KIB, 8192, version);
    rc = blk_co_copy_range(r->h.blk, 0, r->h.blk, 32 * KIB, 8192, 0, 0);
    shadow_end(&r->h.shadow, 32 * KIB, 8192, version, rc == 0, false);
    return rc == -ENOTSUP ? 0 : rc;
}

static void copy_same(struct scenario_run *r)
{
    if (OP(r, h_write(&r->h, 0, 8192, 0)) == 0) {
        OP(r, scenario_in_co(r, copy_same_steps));
        OP(r, h_read(&r->h, 32 * KIB, 8192));
    }
}

static BlockBackend *copy_target;

static int copy_other_steps(struct scenario_run *r)
{
    static uint8_t buf[16 * KIB];
    struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
    struct iov_view view = {.iov = &iov, .niov = 1, .bytes = sizeof(buf)};
    int rc = blk_co_copy_range(r->h.blk, 0, copy_target, 0, sizeof(buf), 0, BDRV_REQ_FUA);

    if (rc < 0) {
        return rc == -ENOTSUP ? 0 : rc;
    }
    rc = blk_co_preadv(copy_target, 0, &view, 0);
    if (rc == 0 && shadow_check_now(&r->h.shadow, 0, buf, sizeof(buf)) >= 0) {
        return -EBADMSG;
    }
    return rc;
}

static void copy_other(struct scenario_run *r)
{
    BlockOptions *options;
    Error *err = 0;

    harness_own++;
    sim_world_add_file(r->h.world, SIM_COPY_PATH, DISK_BYTES, 0);
    harness_own--;
    options = block_options_parse("driver=raw,file.driver=file,file.filename=" SIM_COPY_PATH, 0, 0);
    if (!options) {
        OP(r, -ENOMEM);
        return;
    }
    copy_target = blk_new_open(r->h.pl, "copy", 0, 0, options, BDRV_O_RDWR, &err);
    OP(r, copy_target ? 0 : -error_get_errno(err));
    error_free(err);
    if (copy_target && OP(r, h_write(&r->h, 0, 16 * KIB, 0)) == 0) {
        OP(r, scenario_in_co(r, copy_other_steps));
    }
    blk_unref(copy_target);
}

/* ---- create ---- */

static void create(struct scenario_run *r, const char *driver, const char *prealloc)
{
    BlockOptions *options = block_options_new();
    struct sim_disk *made;
    Error *err = 0;
    int rc;

    if (!options || block_options_set_str(options, "driver", driver) < 0 ||
        block_options_set_u64(options, "size", 100 * KIB) < 0 ||
        block_options_set_str(options, "preallocation", prealloc) < 0) {
        block_options_free(options);
        OP(r, -ENOMEM);
        return;
    }
    rc = OP(r, scenario_error(r, bdrv_create(r->h.pl, "/sim/new", options, &err), &err));
    harness_own++;
    made = rc == 0 ? sim_world_clone_disk(r->h.world, "/sim/new") : 0;
    if (rc == 0 && (!made || sim_disk_size(made) != 100 * KIB)) {
        scenario_wrong(r, "created with another size");
    }
    sim_disk_free(made);
    harness_own--;
}

static void create_raw(struct scenario_run *r)
{
    create(r, "raw", "off");
}

static void create_file_falloc(struct scenario_run *r)
{
    create(r, "file", "falloc");
}

static void create_raw_full(struct scenario_run *r)
{
    create(r, "raw", "full");
}

#define DIO(mem, offset)                                                                           \
    {                                                                                              \
        .dio_mem_align = mem, .dio_offset_align = offset                                           \
    }

static const struct scenario scenarios[] = {
    {.name = "open and close", .options = plain, .steps = open_close},
    {.name = "open direct", .options = direct, .file = DIO(512, 4096), .steps = open_close},
    {.name = "open direct, alignment not told", .options = direct, .steps = open_close},
    {.name = "open read-only", .steps = open_read_only},
    {.name = "auto-read-only", .file = {.read_only = true}, .steps = open_auto_read_only},
    {.name = "open json", .steps = open_json},
    {.name = "open and guess", .steps = open_filename_probe},
    {.name = "open from a descriptor", .steps = open_fdset},
    {.name = "insert, remove, insert", .steps = open_node_then_backend},
    {.name = "locked by another", .steps = locked_by_another},
    {.name = "read", .options = plain, .steps = read_twice},
    {.name = "read direct", .options = direct, .file = DIO(512, 512), .steps = read_twice},
    {.name = "write and flush", .options = plain, .steps = write_and_flush},
    {.name = "write and flush direct",
     .options = direct,
     .file = DIO(512, 4096),
     .steps = write_and_flush},
    {.name = "unaligned", .options = plain, .steps = write_unaligned},
    {.name = "unaligned direct 512",
     .options = direct,
     .file = DIO(512, 512),
     .steps = write_unaligned},
    {.name = "unaligned direct 4096",
     .options = direct,
     .file = DIO(4096, 4096),
     .steps = write_unaligned},
    {.name = "fua", .options = plain, .steps = write_fua},
    {.name = "fua direct", .options = direct, .file = DIO(512, 4096), .steps = write_fua},
    {.name = "write-through", .options = plain, .write_through = true, .steps = write_and_flush},
    {.name = "no-flush",
     .options = "driver=raw,cache.no-flush=on,file.driver=file,file.cache.no-flush=on,"
                "file.filename=" SIM_DISK_PATH,
     .no_flush = true,
     .steps = write_and_flush},
    {.name = "many flushes", .options = plain, .steps = write_many_flushes},
    {.name = "zeroes", .options = unmap, .flags = BDRV_O_UNMAP, .steps = zeroes},
    {.name = "zeroes direct", .options = direct, .file = DIO(512, 4096), .steps = zeroes},
    {.name = "zeroes fua", .options = plain, .steps = zeroes_fua},
    {.name = "zeroes fast or fail", .options = plain, .steps = zeroes_fast_or_fail},
    {.name = "detect-zeroes",
     .options = "driver=raw,detect-zeroes=unmap,discard=unmap,file.driver=file,"
                "file.discard=unmap,file.filename=" SIM_DISK_PATH,
     .flags = BDRV_O_UNMAP,
     .steps = write_and_flush},
    {.name = "discard", .options = unmap, .flags = BDRV_O_UNMAP, .steps = discards},
    {.name = "discard ignored", .options = plain, .steps = discards},
    {.name = "long list", .options = plain, .steps = long_list},
    {.name = "sector calls", .options = plain, .steps = seed_calls},
    {.name = "burst", .options = plain, .steps = scenario_burst},
    {.name = "burst direct", .options = direct, .file = DIO(512, 4096), .steps = scenario_burst},
    {.name = "burst then drain", .options = plain, .steps = scenario_burst_then_drain},
    {.name = "grow", .options = plain, .steps = grow},
    {.name = "grow falloc", .options = plain, .steps = grow_falloc},
    {.name = "grow full", .options = plain, .steps = grow_full},
    {.name = "shrink", .options = plain, .steps = shrink},
    {.name = "odd tail", .options = plain, .disk_bytes = 65300, .steps = odd_tail},
    {.name = "odd tail direct",
     .options = direct,
     .file = DIO(512, 4096),
     .disk_bytes = 65300,
     .steps = odd_tail},
    {.name = "block status", .options = plain, .steps = status},
    {.name = "copy within", .options = plain, .steps = copy_same},
    {.name = "copy to another", .options = plain, .steps = copy_other},
    {.name = "create raw", .steps = create_raw},
    {.name = "create falloc", .steps = create_file_falloc},
    {.name = "create full", .steps = create_raw_full},
    {.name = "device",
     .options = "driver=raw,file.driver=host_device,file.filename=" SIM_DISK_PATH,
     .file = {.block_device = true, .dio_offset_align = 512, .dio_mem_align = 512},
     .steps = write_and_flush},
    {.name = "device zeroes and discards",
     .options = "driver=raw,discard=unmap,file.driver=host_device,file.discard=unmap,"
                "file.filename=" SIM_DISK_PATH,
     .flags = BDRV_O_UNMAP,
     .file = {.block_device = true, .dio_offset_align = 512, .dio_mem_align = 512},
     .steps = zeroes},
    {.name = "nbd",
     .options = plain,
     .calls = SIM_CALLS_FILE | SIM_CALLS_SOCKET,
     .steps = scenario_nbd},
    {.name = "nbd direct",
     .options = direct,
     .file = DIO(512, 4096),
     .calls = SIM_CALLS_DATA | SIM_CALLS_SOCKET,
     .steps = scenario_nbd},
};

const struct scenario_list scenarios_plain = {
    .name = "plain",
    .scenarios = scenarios,
    .count = sizeof(scenarios) / sizeof(scenarios[0]),
};
