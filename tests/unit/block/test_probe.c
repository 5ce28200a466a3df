/* SPDX-License-Identifier: MIT */
/* Guessing the format, and the first sector of a guessed raw disk. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fake.h"

#include "block/graph_int.h"
#include "util/error.h"

#define FLAGS (BDRV_O_RDWR | BDRV_O_PROBE)

static void expect_guess(Platter *pl, const char *format, bool probed, int flags)
{
    Error *err = NULL;
    BlockDriverState *bs = bdrv_open(pl, "x", NULL, NULL, flags, &err);

    if (bs == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    assert_string_equal(bdrv_get_format_name(bs), format);
    assert_int_equal(bdrv_format_probed(bs), probed);
    assert_string_equal(bdrv_get_filename(bs), "x");
    bdrv_unref(bs);
}

static void test_guess(void **state)
{
    expect_guess(*state, "raw", true, FLAGS);
    expect_guess(*state, "raw", false, BDRV_O_RDWR);
    memcpy(fake.content, "FMT!", 4);
    expect_guess(*state, "fmt", true, FLAGS);
    expect_guess(*state, "raw", false, BDRV_O_RDWR);
    fake.size = 3; /* cut short */
    expect_guess(*state, "raw", true, FLAGS);
    fake.size = 0;
    expect_guess(*state, "raw", true, FLAGS);
    fake.size = -ENOMEDIUM;
    expect_guess(*state, "raw", true, FLAGS);
}

struct magic {
    const char *format;
    unsigned offset;
    unsigned len;
    const char *bytes;
};

static const struct magic magics[] = {
    {"qcow2", 0, 8, "QFI\xfb\0\0\0\3"},
    {"qcow", 0, 8, "QFI\xfb\0\0\0\1"},
    {"vmdk", 0, 4, "KDMV"},
    {"vmdk", 0, 21, "# Disk DescriptorFile"},
    {"vmdk", 0, 16, "#\n\n#x\nversion=1"},
    {"vhdx", 0, 8, "vhdxfile"},
    {"vpc", 0, 8, "conectix"},
    {"vdi", 0x40, 4, "\x7f\x10\xda\xbe"},
    {"luks", 0, 6, "LUKS\xba\xbe"},
    {"qed", 0, 4, "QED\0"},
    {"parallels", 0, 16, "WithoutFreeSpace"},
    {"parallels", 0, 16, "WithouFreSpacExt"},
};
#define N_MAGICS (sizeof(magics) / sizeof(magics[0]))

static void test_unsupported(void **state)
{
    for (size_t i = 0; i < N_MAGICS; i++) {
        char quoted[32];

        memset(fake.content, 0, sizeof(fake.content));
        memcpy(fake.content + magics[i].offset, magics[i].bytes, magics[i].len);
        snprintf(quoted, sizeof(quoted), "'%s'", magics[i].format);
        fake_open_fails(*state, "x", NULL, FLAGS, ENOTSUP, quoted);
        expect_guess(*state, "raw", false, BDRV_O_RDWR);
    }
}

static void dirty_the_stack(void)
{
    volatile uint8_t below[16 * 1024];

    for (size_t i = 0; i < sizeof(below); i++) {
        below[i] = (uint8_t) "QFI\xfb\0\0\0\3"[i % 8];
    }
}

/* null-co without read-zeroes: what lay in memory before is no content. */
static void test_nothing_read(void **state)
{
    BlockDriverState *file = fake_open(*state, "driver=file,filename=x");
    const BlockDriver *drv;

    fake.leaves_memory = true;
    dirty_the_stack();
    drv = bdrv_probe(file, "x", NULL);
    assert_non_null(drv);
    assert_string_equal(drv->format_name, "raw");
    bdrv_unref(file);
}

static void test_ambiguous(void **state)
{
    memcpy(fake.content, "FMT!", 4);
    memcpy(fake.content + 0x40, "\x7f\x10\xda\xbe", 4);
    fake_open_fails(*state, "x", NULL, FLAGS, EINVAL, "both");
}

static void test_read_error(void **state)
{
    struct fake_user a = {.name = "a"};
    BlockDriverState *file = fake_open(*state, "driver=file,filename=x,node-name=n");
    BdrvEdge *edge = bdrv_root_attach(file, "root", &fake_user_class, &a, 0, BDRV_PERM_WRITE, NULL);
    Error *err = NULL;

    assert_null(
        bdrv_open(*state, NULL, NULL, block_options_parse("file=n", NULL, NULL), FLAGS, &err));
    fake_expect_error(err, EPERM, "format probing");
    bdrv_root_detach(edge);
    bdrv_unref(file);
}

/* ---- the guard ---- */

static int guard(BlockDriverState *bs, enum bdrv_op op, uint64_t offset, const void *bytes,
                 size_t len)
{
    /* in two pieces, to go over the list */
    struct iovec iov[2] = {{(void *)(uintptr_t)bytes, len / 2},
                           {(uint8_t *)(uintptr_t)bytes + len / 2, len - len / 2}};
    struct bdrv_req req = {.op = op, .offset = offset, .bytes = len, .iov = iov, .niov = 2};

    return bdrv_probe_guard_write(bs, &req);
}

static void test_guard(void **state)
{
    BlockDriverState *bs = bdrv_open(*state, "x", NULL, NULL, FLAGS, NULL);
    uint8_t sector[1024];

    assert_non_null(bs);
    for (size_t i = 0; i < N_MAGICS; i++) {
        const struct magic *m = &magics[i];

        memset(sector, 0, sizeof(sector));
        memcpy(sector + m->offset, m->bytes, m->len);
        assert_int_equal(guard(bs, BDRV_OP_WRITE, 0, sector, 512), -EPERM);
        assert_int_equal(guard(bs, BDRV_OP_WRITE, 0, sector, 1024), -EPERM);
        assert_int_equal(guard(bs, BDRV_OP_WRITE, 512, sector, 512), 0);
        if (m->bytes[0] == '#' && m->bytes[1] != ' ') {
            continue; /* a text without a place of its own */
        }
        /* piece by piece, in any order: the last piece is refused */
        assert_int_equal(guard(bs, BDRV_OP_WRITE, m->offset, m->bytes, 2), -EPERM);
        assert_int_equal(guard(bs, BDRV_OP_WRITE, m->offset + 1, m->bytes + 1, m->len - 1), -EPERM);
        assert_int_equal(guard(bs, BDRV_OP_WRITE, m->offset + 2, m->bytes + 2, 1), -EPERM);
        sector[m->offset + 1] ^= 0xff;
        assert_int_equal(guard(bs, BDRV_OP_WRITE, 0, sector, 512), 0);
    }
    memset(sector, 0, sizeof(sector));
    memcpy(sector, "FMT!", 4); /* known to a driver only */
    assert_int_equal(guard(bs, BDRV_OP_WRITE, 0, sector, 512), -EPERM);
    memset(sector, 0, sizeof(sector));
    assert_int_equal(guard(bs, BDRV_OP_WRITE, 0, sector, 512), 0);
    assert_int_equal(guard(bs, BDRV_OP_WRITE_ZEROES, 0, NULL, 512), 0);
    assert_int_equal(guard(bs, BDRV_OP_DISCARD, 0, NULL, 4096), 0);
    assert_int_equal(guard(bs, BDRV_OP_WRITE_ZEROES, 3, NULL, 1), -EPERM); /* QED\0 */
    assert_int_equal(guard(bs, BDRV_OP_READ, 0, sector, 512), 0);
    bdrv_unref(bs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_guess, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_unsupported, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_nothing_read, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_ambiguous, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_read_error, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_guard, fake_setup, fake_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
