/* SPDX-License-Identifier: MIT */
/* A chain 1000 deep on an ordinary stack, and opens that fail 10,000 times and leave nothing. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fake.h"

#include "os/os.h"
#include "util/error.h"
#include "util/options.h"

#define DEPTH 1000
#define READ BDRV_PERM_CONSISTENT_READ
#define WRITE BDRV_PERM_WRITE
#define ALL BDRV_PERM_ALL

/* Overlays over overlays, each holding the one below by reference. */
static BlockDriverState *chain(Platter *pl, const char *driver, const char *child)
{
    BlockDriverState *below = fake_open(pl, "driver=file,filename=x,node-name=n0");
    char text[128];

    for (int i = 1; i < DEPTH; i++) {
        BlockDriverState *bs;

        snprintf(text, sizeof(text), "driver=%s,node-name=n%d,%s=n%d", driver, i, child, i - 1);
        if (strcmp(child, "file") != 0) {
            strcat(text, ",file.filename=y");
        }
        bs = fake_open(pl, text);
        bdrv_unref(below);
        below = bs;
    }
    return below;
}

static void test_filters(void **state)
{
    Platter *pl = *state;
    BlockDriverState *top = chain(pl, "pass", "file");
    BlockDriverState *bottom = bdrv_find_node(pl, "n0");
    struct fake_user a = {.name = "a"}, b = {.name = "b"};
    BdrvEdge *ea, *eb;

    ea = bdrv_root_attach(top, "root", &fake_user_class, &a, READ | WRITE, READ, NULL);
    assert_non_null(ea);
    assert_int_equal(bottom->perm, READ | WRITE);
    assert_null(bdrv_root_attach(bottom, "root", &fake_user_class, &b, WRITE, ALL, NULL));
    eb = bdrv_root_attach(bottom, "root", &fake_user_class, &b, 0, ALL, NULL);
    assert_non_null(eb);
    a.busy = 5;
    bdrv_drained_begin(bottom);
    assert_int_equal(a.quiesced, 1);
    assert_int_equal(a.busy, 0);
    bdrv_drained_end(bottom);
    assert_int_equal(a.quiesced, 0);
    fake.size = 8192;
    bdrv_refresh_size(bottom);
    assert_int_equal(bdrv_getlength(top), 8192);
    assert_int_equal(a.resized, 1);
    assert_non_null(bdrv_get_filename(top));
    bdrv_root_detach(eb);
    bdrv_root_detach(ea);
    assert_int_equal(bottom->perm, 0);
    bdrv_unref(top);
    assert_null(bdrv_next_node(pl, NULL));
    assert_int_equal(fake.n_closed, DEPTH); /* users before what they use */
    for (int i = 0; i < DEPTH; i++) {
        assert_int_equal(fake.closed[i], DEPTH - 1 - i);
    }
}

static void test_backing_chain(void **state)
{
    BlockDriverState *top = chain(*state, "fmt", "backing");
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = bdrv_root_attach(top, "root", &fake_user_class, &a, READ | WRITE, ALL, NULL);

    assert_non_null(edge);
    assert_int_equal(bdrv_find_node(*state, "n0")->perm, READ);
    bdrv_drain_all_begin(*state);
    assert_int_equal(a.quiesced, 1);
    bdrv_drain_all_end(*state);
    bdrv_root_detach(edge);
    bdrv_unref(top);
    assert_int_equal(fake.live, 0);
}

/* The instance closes what its host forgot. */
static void test_forgotten(void **state)
{
    chain(*state, "pass", "file");
}

static int lowest_free_fd(void)
{
    int fd = os->eventfd(0, 0);

    os->close(fd);
    return fd;
}

static void test_failed_opens(void **state)
{
    static const char *const texts[] = {
        "driver=raw,file.filename=x,foo=1",
        "driver=fmt,file.filename=x,backing.driver=nosuch,backing.file.filename=y",
        "driver=two,a.driver=raw,a.file.filename=x",
        "driver=raw,file.filename=x,file.node-name=a,node-name=a",
    };
    Platter *pl = *state;
    int fd = lowest_free_fd();
    uint64_t used = 0;

    for (int i = 0; i < 10000; i++) {
        Error *err = NULL;

        if (i == 100) { /* what the loop keeps for coroutines is there by now */
            used = platter_memory_used_bytes(pl);
        }
        assert_null(bdrv_open(pl, NULL, NULL, block_options_parse(texts[i % 4], NULL, NULL),
                              BDRV_O_RDWR, &err));
        assert_non_null(err);
        error_free(err);
    }
    assert_null(bdrv_next_node(pl, NULL));
    assert_int_equal(fake.live, 0);
    assert_int_equal(lowest_free_fd(), fd);
    assert_true(platter_memory_used_bytes(pl) == used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_filters, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_backing_chain, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_forgotten, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_failed_opens, fake_setup, fake_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
