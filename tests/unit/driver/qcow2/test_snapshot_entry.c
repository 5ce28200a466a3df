/* SPDX-License-Identifier: MIT */
/* Entries of the snapshot table: what is read, what is refused, what building gives. */
#include "../../cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/snapshot.h"
#include "util/mem.h"

#define DISK_BYTES (UINT64_C(3) << 20)

/* As qemu-img 7.2 writes it, but for the extra bytes behind the known ones. */
static size_t sample(uint8_t *buf, uint32_t extra_bytes)
{
    store_be64(buf, 0x33800);
    store_be32(buf + 8, 32);
    store_be16(buf + 12, 1);
    store_be16(buf + 14, 6);
    store_be32(buf + 16, 1795639564);
    store_be32(buf + 20, 285928000);
    store_be64(buf + 24, 77);
    store_be32(buf + 32, 5);
    store_be32(buf + 36, extra_bytes);
    for (uint32_t i = 0; i < extra_bytes; i++) {
        buf[40 + i] = (uint8_t)(i + 1);
    }
    if (extra_bytes >= 8) {
        store_be64(buf + 40, 5);
    }
    memcpy(buf + 40 + extra_bytes, "1second", 7);
    return 40 + extra_bytes + 7;
}

static int parse(const uint8_t *buf, size_t bytes, struct q2_snapshot *sn, size_t *used)
{
    return q2_snapshot_parse(buf, bytes, DISK_BYTES, sn, used);
}

static void known_fields(void **state)
{
    uint8_t buf[256];
    uint8_t again[256];
    struct q2_snapshot sn;
    size_t bytes = sample(buf, 24);
    size_t used;

    assert_int_equal(parse(buf, sizeof(buf), &sn, &used), 0);
    assert_int_equal(used, bytes);
    assert_int_equal(sn.l1_offset, 0x33800);
    assert_int_equal(sn.l1_entries, 32);
    assert_int_equal(sn.date_sec, 1795639564);
    assert_int_equal(sn.date_nsec, 285928000);
    assert_int_equal(sn.vm_clock_nsec, 77);
    assert_int_equal(sn.vm_state_bytes, 5);
    assert_int_equal(sn.disk_bytes, UINT64_C(0x090a0b0c0d0e0f10));
    assert_int_equal(sn.icount, UINT64_C(0x1112131415161718));
    assert_string_equal(sn.id, "1");
    assert_string_equal(sn.name, "second");
    assert_int_equal(q2_snapshot_build(&sn, again), bytes);
    assert_memory_equal(again, buf, bytes);
    assert_int_equal(q2_snapshots_bytes(&sn, 1), bytes);
    q2_snapshot_fini(&sn);
}

/* Each shorter form has the values of one that does not say; each longer one survives. */
static void extra_data(void **state)
{
    for (uint32_t extra = 0; extra <= 64; extra++) {
        uint8_t buf[256];
        uint8_t again[256];
        struct q2_snapshot sn;
        size_t bytes = sample(buf, extra);
        size_t used;

        assert_int_equal(parse(buf, bytes, &sn, &used), 0);
        assert_int_equal(used, bytes);
        assert_int_equal(sn.vm_state_bytes, 5);
        assert_int_equal(sn.disk_bytes, extra < 16 ? DISK_BYTES : UINT64_C(0x090a0b0c0d0e0f10));
        assert_true((sn.icount == UINT64_MAX) == (extra < 24));
        assert_string_equal(sn.name, "second");
        assert_int_equal(q2_snapshot_build(&sn, again), q2_snapshot_bytes(&sn));
        if (extra >= 24) {
            assert_int_equal(q2_snapshot_bytes(&sn), bytes);
            assert_memory_equal(again, buf, bytes);
        } else {
            assert_int_equal(load_be32(again + 36), 24);
        }
        q2_snapshot_fini(&sn);
    }
}

static void strange_names(void **state)
{
    uint8_t buf[256];
    uint8_t again[256];
    struct q2_snapshot sn;
    size_t bytes = sample(buf, 24);
    size_t used;

    buf[bytes - 3] = 0; /* a zero inside is shown as the end, and kept */
    assert_int_equal(parse(buf, bytes, &sn, &used), 0);
    assert_string_equal(sn.name, "sec");
    assert_int_equal(sn.name_bytes, 6);
    q2_snapshot_build(&sn, again);
    assert_memory_equal(again, buf, bytes);
    q2_snapshot_fini(&sn);

    store_be16(buf + 12, 0);
    store_be16(buf + 14, 0);
    assert_int_equal(parse(buf, 64, &sn, &used), 0);
    assert_string_equal(sn.id, "");
    assert_string_equal(sn.name, "");
    assert_int_equal(used, 64);
    q2_snapshot_fini(&sn);
}

static void large_vm_state(void **state)
{
    uint8_t buf[256];
    struct q2_snapshot sn;
    size_t bytes = sample(buf, 24);
    size_t used;

    store_be64(buf + 40, UINT64_C(1) << 33);
    assert_int_equal(parse(buf, bytes, &sn, &used), 0);
    assert_int_equal(sn.vm_state_bytes, UINT64_C(1) << 33);
    q2_snapshot_build(&sn, buf);
    assert_int_equal(load_be32(buf + 32), 0);
    assert_int_equal(load_be64(buf + 40), UINT64_C(1) << 33);
    q2_snapshot_fini(&sn);
}

static void refused(void **state)
{
    uint8_t buf[2048] = {0};
    struct q2_snapshot sn;
    size_t bytes = sample(buf, 24);
    size_t used;

    for (size_t cut = 0; cut < bytes; cut++) {
        assert_int_equal(parse(buf, cut, &sn, &used), -EINVAL);
    }
    store_be32(buf + 36, UINT32_MAX);
    assert_int_equal(parse(buf, sizeof(buf), &sn, &used), -EFBIG);
    store_be32(buf + 36, Q2_SNAPSHOT_EXTRA_BYTES_MAX + 1);
    assert_int_equal(parse(buf, sizeof(buf), &sn, &used), -EFBIG);
    store_be32(buf + 36, Q2_SNAPSHOT_EXTRA_BYTES_MAX);
    assert_int_equal(parse(buf, sizeof(buf), &sn, &used), 0);
    q2_snapshot_fini(&sn);
    store_be16(buf + 12, UINT16_MAX);
    assert_int_equal(parse(buf, sizeof(buf), &sn, &used), -EINVAL);
}

/* Whatever bytes are there: refused, or read inside of them and built to the same again. */
static void random_bytes(void **state)
{
    const char *env = getenv("PLATTER_SEED");
    unsigned seed = env != NULL ? (unsigned)strtoul(env, NULL, 0) : 1;

    printf("seed %u\n", seed);
    for (int round = 0; round < 20000; round++) {
        uint8_t buf[128];
        uint8_t again[256];
        struct q2_snapshot sn;
        size_t used;

        for (size_t i = 0; i < sizeof(buf); i++) {
            buf[i] = (uint8_t)rand_r(&seed);
        }
        store_be16(buf + 12, buf[12] % 32);
        store_be16(buf + 14, buf[14] % 32);
        store_be32(buf + 36, buf[36] % 48);
        if (parse(buf, (size_t)rand_r(&seed) % sizeof(buf), &sn, &used) < 0) {
            continue;
        }
        assert_true(used <= sizeof(buf));
        q2_snapshot_build(&sn, again);
        if (sn.extra_bytes >= 24) {
            store_be32(again + 32, load_be32(buf + 32)); /* the old field may differ */
            assert_memory_equal(again, buf, used);
        }
        q2_snapshot_fini(&sn);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_fields),  cmocka_unit_test(extra_data),
        cmocka_unit_test(strange_names), cmocka_unit_test(large_vm_state),
        cmocka_unit_test(refused),       cmocka_unit_test(random_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
