/* SPDX-License-Identifier: MIT */
/* blklogwrites: a log replayed entry by entry gives each state that the disk was in; and which logs
 * and options are refused. */
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/block.h>

#include "fixture.h"

#define DISK_BYTES (64 * 1024)
#define STEPS 200
#define LOG_BYTES_MAX (STEPS * (DISK_BYTES + 4096))

enum { FLUSH = 1, FUA = 2, DISCARD = 4 };

static uint8_t buf[DISK_BYTES];
static uint8_t states[STEPS][DISK_BYTES];
static uint8_t log_bytes[LOG_BYTES_MAX];

static const char *logged(const char *more)
{
    return text("driver=blklogwrites,file.driver=file,file.filename=%s/disk,"
                "log.driver=file,log.filename=%s/log%s",
                dir, dir, more);
}

static size_t read_log(void)
{
    FILE *f = fopen(text("%s/log", dir), "r");
    size_t bytes;

    assert_non_null(f);
    bytes = fread(log_bytes, 1, sizeof(log_bytes), f);
    fclose(f);
    return bytes;
}

static void put_log(const void *content, size_t bytes)
{
    FILE *f = fopen(text("%s/log", dir), "w");

    assert_non_null(f);
    assert_int_equal(fwrite(content, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static uint64_t number_at(size_t offset)
{
    uint64_t v;

    memcpy(&v, log_bytes + offset, sizeof(v));
    return le64toh(v);
}

/* ---- a replayer ---- */

struct replay {
    uint64_t sector_bytes;
    uint64_t entries;
    size_t at;
    unsigned flags; /* of the entry that was replayed last */
    uint8_t disk[DISK_BYTES];
};

static void replay_begin(struct replay *r)
{
    size_t bytes = read_log();

    assert_true(bytes >= 512);
    assert_true(number_at(0) == UINT64_C(0x6a736677736872));
    assert_int_equal(number_at(8), 1);
    r->entries = number_at(16);
    r->sector_bytes = number_at(24) & UINT32_MAX;
    r->at = r->sector_bytes;
    memset(r->disk, 0, sizeof(r->disk));
}

static void replay_entry(struct replay *r)
{
    size_t offset = number_at(r->at) * r->sector_bytes;
    size_t bytes = number_at(r->at + 8) * r->sector_bytes;

    r->flags = (unsigned)number_at(r->at + 16);
    assert_int_equal(number_at(r->at + 24), 0);
    r->at += r->sector_bytes;
    assert_true(offset + bytes <= sizeof(r->disk));
    if (r->flags & DISCARD) {
        memset(r->disk + offset, 0, bytes); /* as the file below does it */
        return;
    }
    memcpy(r->disk + offset, log_bytes + r->at, bytes);
    r->at += bytes;
}

/* ---- replayed ---- */

static uint64_t rng_state;

static uint32_t random_below(uint32_t n)
{
    rng_state = rng_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(rng_state >> 33) % n;
}

/* One change and the state after it; what its entry says besides. */
static unsigned change(BlockBackend *blk, uint8_t *state)
{
    int64_t unit = random_below(2) == 0 ? 1 : 512;
    int64_t offset = random_below(DISK_BYTES) / unit * unit;
    int bytes =
        1 + (int)random_below((uint32_t)(DISK_BYTES - offset < 9000 ? DISK_BYTES - offset : 9000));
    struct iovec iov = {.iov_base = buf, .iov_len = (size_t)bytes};
    struct iov_view view = {.iov = &iov, .niov = 1, .bytes = (uint64_t)bytes};
    unsigned flags = 0;

    memset(buf, (int)random_below(255) + 1, (size_t)bytes);
    switch (random_below(6)) {
    case 0:
        assert_int_equal(blk_flush(blk), 0);
        flags = FLUSH;
        break;
    case 1:
        offset = offset / 512 * 512;
        assert_int_equal(blk_pdiscard(blk, offset, 512), 0);
        flags = DISCARD;
        break;
    case 2:
        assert_int_equal(blk_pwrite_zeroes(blk, offset / 512 * 512, 512, 0), 0);
        break;
    case 3:
        assert_int_equal(blk_pwritev(blk, offset, &view, BDRV_REQ_FUA), 0);
        flags = FUA;
        break;
    default:
        assert_int_equal(blk_pwritev(blk, offset, &view, 0), 0);
        break;
    }
    assert_int_equal(blk_pread(blk, 0, state, DISK_BYTES), DISK_BYTES);
    return flags;
}

/* An entry for each change, but for a flush of nothing. */
static void changes_replayed(const char *more, bool append)
{
    Platter *pl = new_platter();
    BlockBackend *blk;
    static struct replay r;
    unsigned flags[STEPS];
    int steps = 0;

    make_file("disk", DISK_BYTES);
    put_log("", 0);
    blk = must_open(pl, logged(more));
    for (int i = 0; i < STEPS; i++) {
        if (append && i == STEPS / 2) {
            if (flags[steps - 1] != FLUSH) { /* a disk that ends is flushed */
                memcpy(states[steps], states[steps - 1], DISK_BYTES);
                flags[steps++] = FLUSH;
            }
            blk_unref(blk);
            blk = must_open(pl, logged(",log-append=on"));
        }
        flags[steps] = change(blk, states[steps]);
        if (flags[steps] != FLUSH || (steps > 0 && flags[steps - 1] != FLUSH)) {
            steps++;
        }
        assert_true(steps < STEPS);
    }
    blk_unref(blk);
    platter_free(pl);
    replay_begin(&r);
    assert_in_range(r.entries, steps, steps + 1);
    for (int i = 0; i < steps; i++) {
        replay_entry(&r);
        assert_int_equal(r.flags, flags[i]);
        assert_memory_equal(r.disk, states[i], DISK_BYTES);
    }
}

static void replayed(void **state)
{
    const char *seed = getenv("PLATTER_SEED");

    rng_state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)rand();
    printf("PLATTER_SEED=%llu\n", (unsigned long long)rng_state);
    changes_replayed("", false);
    changes_replayed(",log-super-update-interval=1", true);
}

/* The unit of the log is that of requests. */
static void sector_sizes(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk;

    make_file("disk", DISK_BYTES);
    put_log("", 0);
    blk = must_open(pl, logged(",log-sector-size=4096"));
    memset(buf, 7, 10);
    assert_int_equal(blk_pwrite(blk, 5000, buf, 10), 10);
    blk_unref(blk);
    platter_free(pl);
    read_log();
    assert_int_equal(number_at(16), 2);
    assert_int_equal(number_at(24) & UINT32_MAX, 4096);
    assert_int_equal(number_at(4096), 1);
    assert_int_equal(number_at(4096 + 8), 1);
    assert_int_equal(log_bytes[8192], 0);
    assert_int_equal(log_bytes[8192 + 904], 7);
}

/* ---- refused ---- */

static void bad_options(void **state)
{
    Platter *pl = new_platter();

    make_file("disk", DISK_BYTES);
    put_log("", 0);
    refused(pl, logged(",log-sector-size=100"), EINVAL, "sector size 100");
    refused(pl, logged(",log-sector-size=0"), EINVAL, "sector size 0");
    refused(pl, logged(",log-sector-size=16777216"), EINVAL, "sector size 16777216");
    refused(pl, logged(",log-super-update-interval=0"), EINVAL, "interval 0");
    refused(pl, logged(",log-append=on,log-sector-size=512"), EINVAL, "mutually exclusive");
    refused(pl, logged(",nonsense=1"), EINVAL, "nonsense");
    refused(pl, "driver=blklogwrites,file.driver=mem,file.size=1M", EINVAL, "log");
    refused(pl, "driver=blklogwrites,log.driver=mem,log.size=1M", EINVAL, "file");
    platter_free(pl);
}

static void put_super(uint64_t magic, uint64_t version, uint64_t entries, uint32_t sector_bytes)
{
    uint8_t sectors[1024] = {0};

    magic = htole64(magic);
    version = htole64(version);
    entries = htole64(entries);
    sector_bytes = htole32(sector_bytes);
    memcpy(sectors, &magic, 8);
    memcpy(sectors + 8, &version, 8);
    memcpy(sectors + 16, &entries, 8);
    memcpy(sectors + 24, &sector_bytes, 4);
    memset(sectors + 512 + 8, 0x7f, 8); /* sectors of the first entry */
    put_log(sectors, sizeof(sectors));
}

static void bad_logs(void **state)
{
    const uint64_t magic = UINT64_C(0x6a736677736872);
    Platter *pl = new_platter();
    const char *more = ",log-append=on";

    make_file("disk", DISK_BYTES);
    put_log("short", 5);
    refused(pl, logged(more), EINVAL, "too short");
    put_super(magic + 1, 1, 0, 512);
    refused(pl, logged(more), EINVAL, "magic");
    put_super(magic, 2, 0, 512);
    refused(pl, logged(more), EINVAL, "version 2");
    put_super(magic, 1, 0, 513);
    refused(pl, logged(more), EINVAL, "sector size 513");
    put_super(magic, 1, 0, 0);
    refused(pl, logged(more), EINVAL, "sector size 0");
    put_super(magic, 1, 1, 512);
    refused(pl, logged(more), EINVAL, "entry 0 goes beyond");
    put_super(magic, 1, UINT64_MAX, 1024);
    refused(pl, logged(more), EINVAL, "ends before entry 0");
    platter_free(pl);
}

/* A log that missed an entry gets no further one, and the disk no further change. */
static void log_that_is_full(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, "driver=blklogwrites,file.driver=mem,file.size=1M,"
                                      "log.driver=mem,log.size=2048");

    assert_int_equal(blk_pwrite(blk, 0, buf, 512), 512);
    assert_true(blk_pwrite(blk, 512, buf, 512) < 0);
    memset(buf, 9, 512);
    assert_true(blk_pwrite(blk, 0, buf, 512) < 0);
    assert_int_equal(blk_pread(blk, 0, buf, 512), 512);
    assert_int_not_equal(buf[0], 9);
    assert_true(blk_flush(blk) < 0);
    blk_unref(blk);
    platter_free(pl);
}

static int setup(void **state)
{
    return folder_begin("/dev/shm/platter-log-XXXXXX");
}

static int teardown(void **state)
{
    return folder_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replayed),         cmocka_unit_test(sector_sizes),
        cmocka_unit_test(bad_options),      cmocka_unit_test(bad_logs),
        cmocka_unit_test(log_that_is_full),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
