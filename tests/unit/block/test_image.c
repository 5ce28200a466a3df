/* SPDX-License-Identifier: MIT */
/* Operations on images: who may do them, in which state the driver sees the node, what is told. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

#include "util/options.h"

static const char img[] = "driver=img,node-name=i,file.driver=file,file.filename=f";

static void did(const char *what)
{
    assert_string_equal(fake.image_done, what);
    fake.image_done[0] = '\0';
}

static void test_every_call_reaches_the_driver(void **state)
{
    BlockDriverState *bs = fake_open(*state, img);
    const struct bdrv_check_options check = {
        .size = sizeof(check), .fix = BDRV_FIX_LEAKS, .opaque = state};
    struct bdrv_check_result result = {0};
    struct bdrv_snapshot_info info = {0};
    struct bdrv_snapshot_list list;

    assert_int_equal(bdrv_check(bs, NULL, &result, NULL), 0);
    did("check 0 -");
    assert_int_equal(result.leaks, 7);
    assert_int_equal(bdrv_check(bs, &check, &result, NULL), 0);
    did("check 1 x");
    assert_int_equal(
        bdrv_amend(bs, block_options_parse("colour=red", NULL, NULL), true, NULL, NULL), 0);
    did("amend red 1");
    assert_int_equal(bdrv_make_empty(bs, NULL), 0);
    did("empty");
    assert_int_equal(bdrv_snapshot_create(bs, &info, NULL), 0);
    did("create ");
    assert_int_equal(bdrv_snapshot_apply(bs, "a", NULL), 0);
    did("apply a");
    assert_int_equal(bdrv_snapshot_delete(bs, NULL, "a", NULL), 0);
    did("delete - a");
    assert_int_equal(bdrv_snapshot_list(bs, &list, NULL), 0);
    did("list");
    assert_int_equal(list.count, 2);
    bdrv_snapshot_list_free(&list);
    assert_int_equal(list.count, 0);
    bdrv_unref(bs);
    assert_int_equal(fake.checks, 0);
}

static void test_refusals(void **state)
{
    BlockDriverState *bs = fake_open(*state, img);
    BlockDriverState *ro =
        fake_open(*state, "driver=img,node-name=ro,read-only=on,file.driver=file,file.filename=g");
    BlockDriverState *raw = fake_open(*state, "driver=raw,node-name=r,file.driver=file,"
                                              "file.filename=h");
    struct bdrv_check_options check = {.size = sizeof(check)};
    struct bdrv_check_result result;
    Error *err = NULL;

    assert_int_equal(bdrv_check(raw, NULL, &result, &err), -ENOTSUP);
    fake_expect_error(err, ENOTSUP, "Driver 'raw' of node 'r' does not support checking");
    err = NULL;
    assert_int_equal(bdrv_snapshot_apply(ro, "a", &err), -EPERM);
    fake_expect_error(err, EPERM, "Node 'ro' (driver 'img') is read-only");
    err = NULL;
    assert_int_equal(bdrv_check(ro, NULL, &result, NULL), 0);
    check.fix = BDRV_FIX_ERRORS;
    assert_int_equal(bdrv_check(ro, &check, &result, NULL), -EPERM);
    check.fix = 1u << 9;
    assert_int_equal(bdrv_check(bs, &check, &result, NULL), -EINVAL);
    check.size = 3;
    assert_int_equal(bdrv_check(bs, &check, &result, NULL), -EINVAL);
    assert_int_equal(bdrv_snapshot_apply(bs, NULL, NULL), -EINVAL);
    assert_int_equal(bdrv_snapshot_delete(bs, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(bdrv_snapshot_load_tmp(bs, "1", NULL, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "is writable");
    err = NULL;
    did("check 0 -"); /* of ro */
    assert_int_equal(bdrv_snapshot_load_tmp(ro, "1", NULL, NULL), 0);
    did("show 1 -");
    assert_int_equal(
        bdrv_amend(bs, block_options_parse("color=red", NULL, NULL), false, NULL, &err), -EINVAL);
    assert_string_equal(error_get_hint(err), "Is 'colour' meant?");
    fake_expect_error(err, EINVAL, "Invalid parameter 'color'");
    err = NULL;
    assert_int_equal(
        bdrv_amend(bs, block_options_parse("taste=red", NULL, NULL), false, NULL, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "'taste'"); /* the driver left it */
    err = NULL;
    fake.image_result = -ENOSPC;
    assert_int_equal(bdrv_make_empty(bs, &err), -ENOSPC);
    fake_expect_error(err, ENOSPC, "Node 'i' failed at emptying the image: No space left");
    err = NULL;
    fake.image_error = "no room";
    assert_int_equal(bdrv_make_empty(bs, &err), -ENOSPC);
    fake_expect_error(err, ENOSPC, "no room");
    err = NULL;
    bdrv_mark_broken(bs, "worms");
    assert_int_equal(bdrv_snapshot_apply(bs, "a", &err), -EIO);
    fake_expect_error(err, EIO, "Node 'i' cannot be used any more: worms");
    bdrv_unref(raw);
    bdrv_unref(ro);
    bdrv_unref(bs);
}

static void test_flush_comes_first(void **state)
{
    BlockDriverState *bs = fake_open(*state, img);
    BdrvEdge edge = {.bs = bs, .perm = BDRV_PERM_WRITE};
    Error *err = NULL;

    assert_int_equal(bdrv_edge_pwrite(&edge, 0, "x", 1, 0), 0);
    fake.flushes = 0;
    fake.flush_error = -EIO;
    assert_int_equal(bdrv_make_empty(bs, &err), -EIO);
    fake_expect_error(err, EIO, "Could not flush node 'i' before emptying the image");
    assert_string_equal(fake.image_done, "");
    fake.flush_error = 0;
    assert_int_equal(bdrv_make_empty(bs, NULL), 0);
    assert_int_equal(fake.flushes, 2);
    bdrv_unref(bs);
}

static void grow_the_file(BlockDriverState *bs)
{
    fake.size = 8192;
}

static void test_size_is_asked_for_anew(void **state)
{
    BlockDriverState *bs = fake_open(*state, img);
    struct fake_user user = {.name = "u"};
    BdrvEdge *root = bdrv_root_attach(bs, "root", &fake_user_class, &user,
                                      BDRV_PERM_CONSISTENT_READ, BDRV_PERM_ALL, NULL);
    uint64_t gen = atomic_load(&bs->write_gen);

    fake.on_image = grow_the_file;
    assert_int_equal(bdrv_snapshot_apply(bs, "a", NULL), 0);
    assert_int_equal(bdrv_getlength(bs), 8192);
    assert_int_equal(user.resized, 1);
    assert_true(user.begun > 0);
    assert_int_equal(user.quiesced, 0);
    assert_true(atomic_load(&bs->write_gen) > gen);
    bdrv_root_detach(root);
    bdrv_unref(bs);
}

static void test_users_that_do_not_share(void **state)
{
    BlockDriverState *bs = fake_open(*state, img);
    struct fake_user user = {.name = "u"};
    BdrvEdge *root =
        bdrv_root_attach(bs, "root", &fake_user_class, &user, BDRV_PERM_CONSISTENT_READ,
                         BDRV_PERM_ALL & ~(uint64_t)BDRV_PERM_WRITE, NULL);
    struct bdrv_snapshot_info info = {.name = "s"};
    Error *err = NULL;

    assert_int_equal(bdrv_snapshot_create(bs, &info, NULL), 0); /* the disk stays as it is */
    assert_int_equal(bdrv_snapshot_apply(bs, "a", &err), -EPERM);
    fake_expect_error(
        err, EPERM,
        "required by applying internal snapshots (uses node 'i' as 'image' child) and "
        "unshared by user 'u'");
    did("create s");
    bdrv_root_detach(root);
    bdrv_unref(bs);
}

static void test_below_a_filter(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=pass,node-name=p,file.driver=img,"
                                             "file.node-name=i,file.file.driver=file,"
                                             "file.file.filename=f");

    assert_int_equal(bdrv_snapshot_apply(bs, "a", NULL), 0);
    did("apply a");
    bdrv_unref(bs);
}

static void test_backing_name(void **state)
{
    BlockDriverState *bs = fake_open(*state, img);

    assert_null(bdrv_get_backing_file(bs));
    assert_int_equal(bdrv_set_backing_name(bs, "base", NULL), 0);
    assert_string_equal(bdrv_get_backing_file(bs), "base");
    assert_null(bdrv_get_backing_format(bs));
    assert_int_equal(bdrv_change_backing_file(bs, "other", "raw", NULL), 0);
    did("backing other raw");
    assert_string_equal(bdrv_get_backing_file(bs), "other");
    assert_string_equal(bdrv_get_backing_format(bs), "raw");
    fake.image_result = -EIO;
    assert_int_equal(bdrv_change_backing_file(bs, NULL, NULL, NULL), -EIO);
    assert_string_equal(bdrv_get_backing_file(bs), "other");
    fake.image_result = 0;
    assert_int_equal(bdrv_change_backing_file(bs, NULL, "raw", NULL), -EINVAL);
    assert_int_equal(bdrv_change_backing_file(bs, NULL, NULL, NULL), 0);
    did("backing - -");
    assert_null(bdrv_get_backing_file(bs));
    assert_null(bdrv_get_backing_format(bs));
    bdrv_unref(bs);
}

static void test_measure(void **state)
{
    BlockDriverState *bs = fake_open(*state, img);
    struct bdrv_measure_result result;
    Error *err = NULL;

    assert_int_equal(bdrv_measure(*state, "img", NULL, NULL, &result, NULL), 0);
    assert_int_equal(result.required_bytes, 1);
    assert_int_equal(bdrv_measure(*state, "img", NULL, bs, &result, NULL), 0);
    assert_int_equal(result.required_bytes, 64);
    assert_int_equal(bdrv_measure(*state, "fmt", NULL, NULL, &result, &err), -ENOTSUP);
    fake_expect_error(err, ENOTSUP, "Format driver 'fmt' does not support image creation");
    err = NULL;
    assert_int_equal(bdrv_measure(*state, "nope", NULL, NULL, &result, NULL), -EINVAL);
    assert_int_equal(bdrv_measure(*state, "img", block_options_parse("smell=1", NULL, NULL), NULL,
                                  &result, &err),
                     -EINVAL);
    fake_expect_error(err, EINVAL, "'smell'");
    err = NULL;
    assert_int_equal(bdrv_measure(*state, "img", block_options_parse("taste=1", NULL, NULL), NULL,
                                  &result, &err),
                     -EINVAL);
    fake_expect_error(err, EINVAL, "'taste'");
    bdrv_unref(bs);
}

static void test_specific_info(void **state)
{
    BlockDriverState *bs = fake_open(*state, img);
    BlockDriverState *raw = fake_open(*state, "driver=raw,file.driver=file,file.filename=h");
    Error *err = NULL;
    char *text = bdrv_get_specific_info(bs, &err);

    assert_string_equal(text, "{\"type\": \"img\", \"data\": {\"depth\": 3}}");
    free(text);
    assert_null(bdrv_get_specific_info(raw, &err));
    assert_null(err);
    fake.image_result = -ENOMEM;
    assert_null(bdrv_get_specific_info(bs, &err));
    fake_expect_error(err, ENOMEM, "out of memory");
    bdrv_unref(raw);
    bdrv_unref(bs);
}

static void test_inspect(void **state)
{
    Platter *pl = *state;
    Error *err = NULL;
    char *text;

    memcpy(fake.content, "IMG!", 4);
    text = bdrv_inspect(pl, "f", NULL, &err);
    assert_string_equal(text, "{\"filename\": \"f\", \"format\": \"img\", \"format-guessed\": true,"
                              " \"file-bytes\": 4096, \"metadata\": {\"first\": 73}}");
    free(text);
    text = bdrv_inspect(pl, "f\xff", "raw", &err);
    assert_string_equal(
        text, "{\"filename\": \"f\\uFFFD\", \"format\": \"raw\", \"format-guessed\": false,"
              " \"file-bytes\": 4096, \"metadata\": null}");
    free(text);
    text =
        bdrv_inspect(pl, "json:{'driver':'file','filename':'f','force-share':true}", "img", NULL);
    assert_non_null(text);
    free(text);
    fake.image_result = -EINVAL;
    assert_null(bdrv_inspect(pl, "f", NULL, &err));
    fake_expect_error(err, EINVAL, "the header is rotten");
    err = NULL;
    assert_null(bdrv_inspect(pl, "f", "file", &err));
    fake_expect_error(err, EINVAL, "'file' is not a format of images");
    err = NULL;
    assert_null(bdrv_inspect(pl, "json:{'driver':'fmt','file.filename':'f'}", "img", &err));
    fake_expect_error(err, EINVAL, "Driver 'fmt' does not store bytes itself");
    err = NULL;
    fake.refuse_open = ENOENT;
    assert_null(bdrv_inspect(pl, "f", NULL, &err));
    fake_expect_error(err, ENOENT, "Could not open 'f'");
    assert_null(bdrv_next_node(pl, NULL));
}

/* ---- events ---- */

struct seen {
    int corrupt, fatal, broken;
    char message[64];
    uint64_t offset;
};

static void on_event(void *opaque, const struct platter_event *event)
{
    struct seen *seen = opaque;

    if (event->type == PLATTER_EVENT_NODE_BROKEN) {
        seen->broken++;
    } else if (event->type == PLATTER_EVENT_IMAGE_CORRUPTED) {
        seen->corrupt++;
        seen->fatal += event->u.image_corrupted.fatal;
        seen->offset = event->u.image_corrupted.offset_bytes;
        snprintf(seen->message, sizeof(seen->message), "%s", event->u.image_corrupted.message);
    }
}

static void test_corruption_is_told_once(void **state)
{
    struct seen seen = {0};
    const struct platter_options opts = {
        .size = sizeof(opts), .event_cb = on_event, .event_opaque = &seen};
    Platter *pl = platter_new(&opts, NULL);
    BlockDriverState *bs;

    assert_non_null(pl);
    bs = fake_open(pl, img);
    bdrv_image_corrupted(bs, false, 512, 8, "table %d", 1);
    bdrv_image_corrupted(bs, false, 1024, 8, "table %d", 2);
    assert_int_equal(seen.corrupt, 1);
    assert_int_equal(seen.offset, 512);
    assert_string_equal(seen.message, "table 1");
    assert_null(bdrv_broken_reason(bs));
    bdrv_image_corrupted(bs, true, UINT64_MAX, 0, "worse");
    bdrv_image_corrupted(bs, true, UINT64_MAX, 0, "again");
    bdrv_image_corrupted(bs, false, UINT64_MAX, 0, "again");
    assert_int_equal(seen.corrupt, 2);
    assert_int_equal(seen.fatal, 1);
    assert_int_equal(seen.broken, 1);
    assert_string_equal(bdrv_broken_reason(bs), "The image is corrupt: worse");
    bdrv_unref(bs);
    platter_free(pl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)
        T(test_every_call_reaches_the_driver),
        T(test_refusals),
        T(test_flush_comes_first),
        T(test_size_is_asked_for_anew),
        T(test_users_that_do_not_share),
        T(test_below_a_filter),
        T(test_backing_name),
        T(test_measure),
        T(test_specific_info),
        T(test_inspect),
        T(test_corruption_is_told_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
