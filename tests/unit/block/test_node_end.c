/* SPDX-License-Identifier: MIT */
/* The end of nodes: what others see of it, and who may let the last reference go. */
#include <pthread.h>

#include "fake.h"

static int seen_at_their_end;

static void look_for_children(BlockDriverState *bs)
{
    seen_at_their_end += bdrv_find_node(bs->pl, "left") != NULL;
    seen_at_their_end += bdrv_find_node(bs->pl, "right") != NULL;
}

/* The last flush of one polls: what runs then must not find the other, which ends too. */
static void test_children_end_unseen(void **state)
{
    BlockDriverState *left = fake_open(*state, "driver=file,filename=x,node-name=left");
    BlockDriverState *right = fake_open(*state, "driver=file,filename=y,node-name=right");
    BlockDriverState *two = fake_open(*state, "driver=two,a=left,b=right,read-only=on");
    BlockDriverState *both[] = {left, right};

    for (int i = 0; i < 2; i++) {
        struct fake_user a = {.name = "a"};
        BdrvEdge *edge =
            fake_attach(both[i], &a, BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE, BDRV_PERM_ALL);

        assert_int_equal(bdrv_edge_pwrite(edge, 0, "x", 1, 0), 0);
        bdrv_root_detach(edge);
        bdrv_unref(both[i]);
    }
    fake.on_flush = look_for_children;
    bdrv_unref(two);
    assert_int_equal(fake.flushes, 2);
    assert_int_equal(seen_at_their_end, 0);
}

static void *unref_thread(void *opaque)
{
    bdrv_unref(opaque);
    return NULL;
}

static void test_unref_elsewhere(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=raw,file.filename=x,node-name=n");
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, unref_thread, bs), 0);
    pthread_join(thread, NULL);
    assert_ptr_equal(bdrv_find_node(*state, "n"), bs); /* ends in its own thread */
    while (bdrv_find_node(*state, "n") != NULL) {
        aio_poll(platter_get_main_context(*state), true);
    }
    assert_int_equal(fake.live, 0);
    /* and one that the end of the instance finds waiting */
    bs = fake_open(*state, "driver=raw,file.filename=x,node-name=n");
    assert_int_equal(pthread_create(&thread, NULL, unref_thread, bs), 0);
    pthread_join(thread, NULL);
}

static void unref_co(void *opaque)
{
    BlockDriverState *bs = opaque;

    bdrv_ref(bs);
    bdrv_unref(bs); /* not the last one: gone at once, so that who closes next closes it */
    assert_int_equal(bdrv_get_refcnt(bs), 1);
}

static void test_unref_in_coroutine(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=raw,file.filename=x,node-name=n");

    coroutine_enter(coroutine_create(unref_co, bs));
    bdrv_unref(bs);
    assert_null(bdrv_find_node(*state, "n"));
    assert_int_equal(fake.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_children_end_unseen, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_unref_elsewhere, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_unref_in_coroutine, fake_setup, fake_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
