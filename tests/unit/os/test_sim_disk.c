/* SPDX-License-Identifier: MIT */
/*
 * The simulated disk against a model in plain memory: content, holes, and what a power cut may
 * leave (rules D1 to D4 of os/sim/sim_disk.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "os/sim/sim_disk.h"

#define DISK_BYTES (192u << 10)
#define SECTORS (DISK_BYTES / SIM_SECTOR_BYTES)
#define VERSIONS_MAX 4096

static uint64_t seed_of_run(void)
{
    const char *text = getenv("PLATTER_SEED");
    uint64_t seed = text ? strtoull(text, 0, 0) : 20240611;

    printf("PLATTER_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* What each sector may hold after a cut: the durable version and all since. */
struct model {
    uint8_t now[DISK_BYTES];
    uint8_t *versions[SECTORS][64];
    unsigned nversions[SECTORS];
};

static void model_note(struct model *m, unsigned sector)
{
    uint8_t *copy = malloc(SIM_SECTOR_BYTES);

    assert_non_null(copy);
    assert_true(m->nversions[sector] < 64);
    memcpy(copy, m->now + sector * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
    m->versions[sector][m->nversions[sector]++] = copy;
}

static void model_forget(struct model *m, unsigned sector)
{
    while (m->nversions[sector] > 0) {
        free(m->versions[sector][--m->nversions[sector]]);
    }
}

static void model_durable(struct model *m, unsigned first, unsigned end)
{
    for (unsigned s = first; s < end; s++) {
        model_forget(m, s);
        model_note(m, s);
    }
}

static void model_change(struct model *m, uint64_t offset, size_t bytes, bool fua)
{
    unsigned first = (unsigned)(offset / SIM_SECTOR_BYTES);
    unsigned end = (unsigned)((offset + bytes + SIM_SECTOR_BYTES - 1) / SIM_SECTOR_BYTES);

    if (fua) {
        model_durable(m, first, end);
        return;
    }
    for (unsigned s = first; s < end; s++) {
        model_note(m, s);
    }
}

static void check_content(const struct sim_disk *disk, const struct model *m)
{
    static uint8_t buf[DISK_BYTES];

    sim_disk_read(disk, 0, buf, DISK_BYTES);
    assert_memory_equal(buf, m->now, DISK_BYTES);
}

static void check_after_cut(const struct sim_disk *disk, const struct model *m)
{
    static uint8_t buf[DISK_BYTES];

    assert_int_equal(sim_disk_size(disk), DISK_BYTES);
    sim_disk_read(disk, 0, buf, DISK_BYTES);
    for (unsigned s = 0; s < SECTORS; s++) {
        bool known = false;

        for (unsigned v = 0; v < m->nversions[s] && !known; v++) {
            known = memcmp(buf + s * SIM_SECTOR_BYTES, m->versions[s][v], SIM_SECTOR_BYTES) == 0;
        }
        if (!known) {
            fail_msg("sector %u holds bytes it never had", s);
        }
    }
}

/* A range: sometimes of whole sectors, sometimes tiny, sometimes long. */
static void random_range(struct sim_rng *rng, uint64_t *ret_offset, size_t *ret_bytes)
{
    uint64_t offset = sim_rng_below(rng, DISK_BYTES);
    uint64_t bytes = 1 + sim_rng_below(rng, sim_rng_percent(rng, 10) ? 70000 : 3000);

    if (sim_rng_percent(rng, 50)) {
        offset = offset / 512 * 512;
        bytes = (bytes + 511) / 512 * 512;
    }
    *ret_offset = offset;
    *ret_bytes = (size_t)(bytes < DISK_BYTES - offset ? bytes : DISK_BYTES - offset);
}

static void random_step(struct sim_disk *disk, struct model *m, struct sim_rng *rng)
{
    static uint8_t buf[DISK_BYTES];
    unsigned what = (unsigned)sim_rng_below(rng, 100);
    uint64_t offset;
    size_t bytes;

    random_range(rng, &offset, &bytes);
    if (what < 60) {
        bool fua = what < 10;

        for (size_t i = 0; i < bytes; i++) {
            buf[i] = (uint8_t)sim_rng_u64(rng);
        }
        memcpy(m->now + offset, buf, bytes);
        assert_int_equal(sim_disk_write(disk, offset, buf, bytes, fua), 0);
        model_change(m, offset, bytes, fua);
    } else if (what < 90) {
        memset(m->now + offset, 0, bytes);
        assert_int_equal(sim_disk_zero(disk, offset, bytes), 0);
        model_change(m, offset, bytes, false);
    } else {
        assert_int_equal(sim_disk_flush(disk), 0);
        assert_int_equal(sim_disk_pending(disk), 0);
        model_durable(m, 0, SECTORS);
    }
}

static void test_random_against_model(void **state)
{
    struct sim_disk *disk = sim_disk_new(DISK_BYTES);
    struct model *m = calloc(1, sizeof(*m));
    struct sim_rng rng;
    unsigned cuts = 0;

    assert_non_null(disk);
    assert_non_null(m);
    sim_rng_init(&rng, seed_of_run());
    model_durable(m, 0, SECTORS);
    for (unsigned i = 0; i < 2000; i++) {
        random_step(disk, m, &rng);
        if (i % 16 == 0) {
            check_content(disk, m);
        }
        if (i % 4 == 0) { /* look at some of the futures of this moment */
            struct sim_disk *copy = sim_disk_clone(disk);

            assert_int_equal(sim_disk_power_cut(copy, &rng), 0);
            check_after_cut(copy, m);
            assert_int_equal(sim_disk_pending(copy), 0);
            sim_disk_free(copy);
            cuts++;
        }
        if (i % 20 == 19) {
            assert_int_equal(sim_disk_flush(disk), 0);
            model_durable(m, 0, SECTORS);
        }
    }
    printf("%u power cuts checked\n", cuts);
    for (unsigned s = 0; s < SECTORS; s++) {
        model_forget(m, s);
    }
    free(m);
    sim_disk_free(disk);
}

static void put(struct sim_disk *disk, uint64_t sector, uint8_t byte, bool fua)
{
    uint8_t buf[SIM_SECTOR_BYTES];

    memset(buf, byte, sizeof(buf));
    assert_int_equal(sim_disk_write(disk, sector * 512, buf, sizeof(buf), fua), 0);
}

static uint8_t get(const struct sim_disk *disk, uint64_t sector)
{
    uint8_t buf[SIM_SECTOR_BYTES];

    sim_disk_read(disk, sector * 512, buf, sizeof(buf));
    for (unsigned i = 1; i < sizeof(buf); i++) {
        assert_int_equal(buf[i], buf[0]);
    }
    return buf[0];
}

static void test_every_subset(void **state)
{
    for (unsigned keep = 0; keep < 16; keep++) {
        struct sim_disk *disk = sim_disk_new(4096);
        uint8_t bits = (uint8_t)keep;

        put(disk, 0, 9, true);
        put(disk, 0, 1, false);
        put(disk, 1, 2, false);
        put(disk, 0, 3, false);
        assert_int_equal(sim_disk_zero(disk, 512, 512), 0);
        assert_int_equal(sim_disk_pending(disk), 4);
        assert_int_equal(sim_disk_power_cut_subset(disk, &bits), 0);
        assert_int_equal(get(disk, 0), keep & 4 ? 3 : keep & 1 ? 1 : 9);
        assert_int_equal(get(disk, 1), keep & 8 ? 0 : keep & 2 ? 2 : 0);
        sim_disk_free(disk);
    }
}

static void none_survives(void *opaque, size_t change, uint64_t sectors, struct sim_survival *ret)
{
}

static void odd_survive(void *opaque, size_t change, uint64_t sectors, struct sim_survival *ret)
{
    *ret = (struct sim_survival){.count = sectors, .mask = UINT64_C(0xaaaaaaaaaaaaaaaa)};
}

static void test_torn_at_sectors(void **state)
{
    struct sim_disk *disk = sim_disk_new(1 << 20);
    uint8_t buf[8192];

    memset(buf, 7, sizeof(buf));
    assert_int_equal(sim_disk_write(disk, 512, buf, sizeof(buf), false), 0);
    assert_int_equal(sim_disk_power_cut_by(disk, odd_survive, 0), 0);
    for (unsigned s = 0; s < 20; s++) {
        assert_int_equal(get(disk, s), s >= 1 && s < 17 && (s - 1) % 2 == 1 ? 7 : 0);
    }
    sim_disk_free(disk);
}

static void test_fua_outlives_older_writes(void **state)
{
    struct sim_disk *disk = sim_disk_new(4096);
    uint8_t buf[1536];
    uint8_t all = 0xff;

    memset(buf, 1, sizeof(buf));
    assert_int_equal(sim_disk_write(disk, 0, buf, sizeof(buf), false), 0);
    put(disk, 1, 2, true);
    assert_int_equal(sim_disk_pending(disk), 2); /* the older one, before and behind */
    assert_int_equal(sim_disk_power_cut_subset(disk, &all), 0);
    assert_int_equal(get(disk, 0), 1);
    assert_int_equal(get(disk, 1), 2);
    assert_int_equal(get(disk, 2), 1);
    sim_disk_free(disk);
}

static void test_sizes(void **state)
{
    struct sim_disk *disk = sim_disk_new(0);

    put(disk, 3, 5, false); /* extends */
    assert_int_equal(sim_disk_size(disk), 2048);
    assert_int_equal(sim_disk_power_cut_by(disk, none_survives, 0), 0);
    assert_int_equal(sim_disk_size(disk), 0);

    put(disk, 3, 5, true); /* needs its size */
    assert_int_equal(sim_disk_power_cut_by(disk, none_survives, 0), 0);
    assert_int_equal(sim_disk_size(disk), 2048);
    assert_int_equal(get(disk, 3), 5);

    put(disk, 3, 6, false);
    assert_int_equal(sim_disk_truncate(disk, 512), 0);
    assert_int_equal(sim_disk_truncate(disk, 4096), 0);
    assert_int_equal(get(disk, 3), 0);
    put(disk, 7, 8, true); /* and the sizes set before it */
    assert_int_equal(sim_disk_pending(disk), 0);
    assert_int_equal(sim_disk_power_cut_by(disk, none_survives, 0), 0);
    assert_int_equal(sim_disk_size(disk), 4096);
    assert_int_equal(get(disk, 3), 0);
    assert_int_equal(get(disk, 7), 8);
    sim_disk_free(disk);
}

static void test_truncate_inside_a_sector(void **state)
{
    struct sim_disk *disk = sim_disk_new(0);
    uint8_t buf[1024];

    memset(buf, 0xff, sizeof(buf));
    assert_int_equal(sim_disk_write(disk, 0, buf, sizeof(buf), true), 0);
    assert_int_equal(sim_disk_truncate(disk, 100), 0);
    assert_int_equal(sim_disk_truncate(disk, 1024), 0);
    assert_int_equal(sim_disk_flush(disk), 0);
    sim_disk_read_durable(disk, 0, buf, sizeof(buf));
    for (unsigned i = 0; i < sizeof(buf); i++) {
        assert_int_equal(buf[i], i < 100 ? 0xff : 0);
    }
    sim_disk_free(disk);
}

static void test_lost_cache(void **state)
{
    struct sim_disk *disk = sim_disk_new(4096);

    put(disk, 0, 1, false);
    sim_disk_lose_pending(disk);
    assert_int_equal(get(disk, 0), 1); /* still seen */
    assert_int_equal(sim_disk_flush(disk), 0);
    assert_int_equal(sim_disk_power_cut_by(disk, none_survives, 0), 0);
    assert_int_equal(get(disk, 0), 0);
    sim_disk_free(disk);
}

static void test_holes(void **state)
{
    const uint64_t tib = UINT64_C(1) << 40;
    struct sim_disk *disk = sim_disk_new(tib);
    uint8_t byte = 1;

    assert_int_equal(sim_disk_next(disk, 0, true), tib);
    assert_int_equal(sim_disk_next(disk, 0, false), 0);
    assert_int_equal(sim_disk_write(disk, tib - 5000, &byte, 1, false), 0);
    assert_int_equal(sim_disk_next(disk, 0, true), tib - 8192);
    assert_int_equal(sim_disk_next(disk, tib - 8192, false), tib - 4096);
    assert_int_equal(sim_disk_data_bytes(disk), 4096);
    assert_int_equal(sim_disk_zero(disk, 0, tib), 0);
    assert_int_equal(sim_disk_data_bytes(disk), 0);
    assert_int_equal(sim_disk_next(disk, 0, true), tib);
    assert_int_equal(sim_disk_flush(disk), 0);
    sim_disk_free(disk);
}

static void test_cache_is_bounded(void **state)
{
    struct sim_disk *disk = sim_disk_new(0);
    const size_t bytes = 1 << 20;
    uint8_t *buf = malloc(bytes);

    memset(buf, 3, bytes);
    for (unsigned i = 0; i < 80; i++) {
        assert_int_equal(sim_disk_write(disk, (i % 4) * bytes, buf, bytes, false), 0);
    }
    assert_true(sim_disk_pending(disk) <= SIM_PENDING_BYTES_MAX / bytes);
    assert_int_equal(sim_disk_power_cut_by(disk, none_survives, 0), 0);
    assert_int_equal(get(disk, 0), 3);
    free(buf);
    sim_disk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_against_model),
        cmocka_unit_test(test_every_subset),
        cmocka_unit_test(test_torn_at_sectors),
        cmocka_unit_test(test_fua_outlives_older_writes),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_truncate_inside_a_sector),
        cmocka_unit_test(test_lost_cache),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_cache_is_bounded),
    };

    return cmocka_run_group_tests(tests, 0, 0);
}
