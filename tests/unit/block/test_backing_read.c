/* SPDX-License-Identifier: MIT */
/*
 * Reading down backing chains, against what each layer was made of. A layer is text, a letter for
 * each block of 512 bytes: '.' nothing, '0' zeroes, else data of that letter.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "block/instance.h"
#include "block/node.h"
#include "block/request.h"
#include "util/error.h"
#include "util/iov.h"
#include "util/options.h"

#define BLOCK 512
#define READ BDRV_PERM_CONSISTENT_READ

static unsigned requests;   /* read_co of layers */
static unsigned statuses;   /* block_status_co of layers */
static unsigned inside;     /* read_co calls inside each other now */
static unsigned inside_max; /* and at the most */
static int status_error;

/* ---- drivers ---- */

struct layer {
    char *map;
    size_t blocks;
    uint64_t bytes;
    BdrvEdge *backing;
};

static char layer_at(const struct layer *s, uint64_t offset)
{
    return s->map[offset / BLOCK];
}

static int layer_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct layer *s = bdrv_opaque(bs);
    uint64_t cut = 0;

    assert_int_equal(block_options_take_str(options, "map", &s->map, errp), 1);
    assert_true(block_options_take_size(options, "cut", 0, BLOCK, &cut, errp) >= 0);
    s->blocks = strlen(s->map);
    s->bytes = s->blocks * BLOCK - cut;
    return bdrv_open_backing(bs, options, NULL, NULL, &s->backing, errp);
}

static void layer_close(BlockDriverState *bs)
{
    struct layer *s = bdrv_opaque(bs);

    free(s->map);
}

static int64_t layer_getlength(BlockDriverState *bs)
{
    return (int64_t)((struct layer *)bdrv_opaque(bs))->bytes;
}

static int layer_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct layer *s = bdrv_opaque(bs);
    uint64_t done = 0;

    requests++;
    inside++;
    inside_max = inside > inside_max ? inside : inside_max;
    while (done < req->bytes) {
        uint64_t at = req->offset + done;
        uint64_t n = BLOCK - at % BLOCK;
        struct bdrv_req part = *req;

        n = n < req->bytes - done ? n : req->bytes - done;
        part.offset = at;
        part.bytes = n;
        part.iov_offset += done;
        if (layer_at(s, at) != '.' || s->backing == NULL) {
            char c = layer_at(s, at) == '0' || layer_at(s, at) == '.' ? 0 : layer_at(s, at);

            iov_fill(req->iov, req->niov, part.iov_offset, c, n);
        } else {
            int ret;

            while (done + n < req->bytes && layer_at(s, req->offset + done + n) == '.') {
                uint64_t left = req->bytes - done - n;

                n += left < BLOCK ? left : BLOCK;
            }
            part.bytes = n;
            ret = bdrv_backing_read_co(s->backing, &part);
            if (ret < 0) {
                inside--;
                return ret;
            }
        }
        done += n;
    }
    inside--;
    return 0;
}

static int layer_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                           struct bdrv_status *ret_status)
{
    const struct layer *s = bdrv_opaque(bs);
    char c = layer_at(s, offset);
    uint64_t n = BLOCK - offset % BLOCK;

    assert_true(offset + bytes <= s->bytes);
    statuses++;
    while (n < bytes && layer_at(s, offset + n) == c) {
        n += BLOCK;
    }
    *ret_status = (struct bdrv_status){
        .flags = c == '.'   ? 0
                 : c == '0' ? BDRV_BLOCK_ZERO
                            : BDRV_BLOCK_DATA,
        .bytes = n < bytes ? n : bytes,
    };
    return status_error;
}

static const BlockDriver driver_layer = {
    .format_name = "layer",
    .instance_size = sizeof(struct layer),
    .caps = BDRV_CAP_FORMAT,
    .open = layer_open,
    .close = layer_close,
    .read_co = layer_read_co,
    .block_status_co = layer_status_co,
    .getlength = layer_getlength,
};

/* A window from block 1 on. */
static int window_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    return bdrv_open_child(bs, NULL, options, "file", BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY, false,
                           errp) == NULL
               ? -EINVAL
               : 0;
}

static int window_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct bdrv_req below = *req;

    below.offset += BLOCK;
    return bdrv_edge_request_co(bs->file, &below);
}

static int window_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                            struct bdrv_status *ret_status)
{
    *ret_status = (struct bdrv_status){
        .flags = BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_RECURSE,
        .bytes = bytes,
        .map = offset + BLOCK,
        .file = bs->file->bs,
    };
    return 0;
}

static int64_t window_getlength(BlockDriverState *bs)
{
    return bdrv_edge_getlength(bs->file) - BLOCK;
}

static const BlockDriver driver_window = {
    .format_name = "window",
    .caps = BDRV_CAP_FORMAT,
    .open = window_open,
    .read_co = window_read_co,
    .block_status_co = window_status_co,
    .getlength = window_getlength,
};

static const BlockDriver driver_pass = {
    .format_name = "pass",
    .caps = BDRV_CAP_FILTER,
    .open = window_open,
};

const BlockDriver *const bdrv_drivers[] = {&driver_layer, &driver_pass, &driver_window, NULL};

/* ---- helpers ---- */

static int setup(void **state)
{
    const struct platter_options opts = {.size = sizeof(opts), .backing_depth_max = 1000};

    *state = platter_new(&opts, NULL);
    requests = statuses = inside = inside_max = 0;
    status_error = 0;
    return *state == NULL;
}

static int teardown(void **state)
{
    platter_free(*state);
    return 0;
}

static BlockDriverState *open_text(Platter *pl, const char *text)
{
    Error *err = NULL;
    BlockDriverState *bs =
        bdrv_open(pl, NULL, NULL, block_options_parse(text, NULL, NULL), 0, &err);

    if (bs == NULL) {
        fail_msg("%s: %s", text, error_get_pretty(err));
    }
    return bs;
}

/* What bdrv_backing_read_co gives of a chain, as letters: one for each block, '!' where a block is
 * not all of one kind. */
struct reading {
    BdrvEdge edge;
    struct bdrv_req req;
};

static int read_run_co(void *opaque)
{
    struct reading *r = opaque;

    return bdrv_backing_read_co(&r->edge, &r->req);
}

static int read_chain(BlockDriverState *bs, uint64_t offset, uint8_t *buf, size_t bytes)
{
    struct iovec iov[2] = {{buf, bytes / 3}, {buf + bytes / 3, bytes - bytes / 3}};
    struct reading r = {
        .edge = {.bs = bs, .perm = READ},
        .req = {.op = BDRV_OP_READ, .offset = offset, .bytes = bytes, .iov = iov, .niov = 2},
    };

    return bdrv_run_co(read_run_co, &r);
}

static void expect_blocks(BlockDriverState *bs, const char *want)
{
    size_t blocks = strlen(want);
    uint8_t *buf = malloc(blocks * BLOCK);
    char *got = calloc(1, blocks + 1);

    memset(buf, 0x99, blocks * BLOCK);
    assert_int_equal(read_chain(bs, 0, buf, blocks * BLOCK), 0);
    for (size_t i = 0; i < blocks; i++) {
        uint8_t *block = buf + i * BLOCK;
        bool same = memcmp(block, block + 1, BLOCK - 1) == 0;

        got[i] = !same ? '!' : block[0] == 0 ? '0' : (char)block[0];
    }
    assert_string_equal(got, want);
    free(got);
    free(buf);
}

struct asking {
    BdrvEdge edge;
    uint64_t offset, bytes;
    struct bdrv_status st;
    int depth;
};

static int ask_run_co(void *opaque)
{
    struct asking *a = opaque;

    return bdrv_backing_status_co(&a->edge, true, a->offset, a->bytes, &a->st, &a->depth);
}

static void expect_status(BlockDriverState *bs, uint64_t block, uint64_t blocks, int flags,
                          uint64_t length, int depth)
{
    struct asking a = {
        .edge = {.bs = bs}, .offset = block * BLOCK, .bytes = blocks * BLOCK, .depth = -1};

    assert_int_equal(bdrv_run_co(ask_run_co, &a), 0);
    assert_int_equal(a.st.flags, flags);
    assert_int_equal(a.st.bytes, length * BLOCK);
    assert_int_equal(a.depth, depth);
}

/* ---- tests ---- */

static void test_who_decides(void **state)
{
    BlockDriverState *bs =
        open_text(*state, "driver=layer,map=a..0...,backing.driver=layer,backing.map=b.b..0.,"
                          "backing.backing.driver=layer,backing.backing.map=cccccc.");

    expect_blocks(bs, "acb0c00");
    assert_true(inside_max <= 1);
    expect_status(bs, 0, 7, BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED, 1, 1);
    expect_status(bs, 1, 6, BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED, 1, 3);
    expect_status(bs, 2, 5, BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED, 1, 2);
    expect_status(bs, 3, 4, BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED, 1, 1);
    expect_status(bs, 5, 2, BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED, 1, 2);
    expect_status(bs, 6, 1, BDRV_BLOCK_ZERO, 1, 0);
    bdrv_unref(bs);
}

static void test_lengths(void **state)
{
    /* the middle is shorter than both: what lies past its end is zeroes */
    BlockDriverState *bs =
        open_text(*state, "driver=layer,map=....a,backing.driver=layer,backing.map=.b,"
                          "backing.backing.driver=layer,backing.backing.map=cccccccc");

    expect_blocks(bs, "cb00a000"); /* past the end of the first, too */
    expect_status(bs, 2, 6, BDRV_BLOCK_ZERO, 2, 0);
    expect_status(bs, 6, 2, BDRV_BLOCK_ZERO, 2, 0);
    bdrv_unref(bs);
    /* an end inside a block */
    bs = open_text(*state, "driver=layer,map=..,backing.driver=layer,backing.map=bb,"
                           "backing.cut=200");
    expect_blocks(bs, "b!");
    bdrv_unref(bs);
}

static void test_parts_of_blocks(void **state)
{
    BlockDriverState *bs = open_text(*state, "driver=layer,map=a.,backing.driver=layer,"
                                             "backing.map=bb");
    uint8_t buf[600];

    assert_int_equal(read_chain(bs, 300, buf, sizeof(buf)), 0);
    for (size_t i = 0; i < sizeof(buf); i++) {
        assert_int_equal(buf[i], i < 212 ? 'a' : 'b');
    }
    bdrv_unref(bs);
}

static void test_through_filters_and_windows(void **state)
{
    BlockDriverState *bs = open_text(
        *state, "driver=pass,file.driver=layer,file.map=a.....,file.backing.driver=window,"
                "file.backing.file.driver=layer,file.backing.file.map=xx..b.,"
                "file.backing.file.backing.driver=pass,"
                "file.backing.file.backing.file.driver=layer,"
                "file.backing.file.backing.file.map=cccccccc");

    expect_blocks(bs, "accbc0");
    assert_int_equal(inside_max, 1);
    bdrv_unref(bs);
}

static void test_one_layer_is_not_asked(void **state)
{
    BlockDriverState *bs = open_text(*state, "driver=pass,file.driver=layer,file.map=a0.b");

    expect_blocks(bs, "a00b");
    assert_int_equal(statuses, 0);
    assert_int_equal(requests, 1);
    bdrv_unref(bs);
}

static void test_errors(void **state)
{
    BlockDriverState *bs = open_text(*state, "driver=layer,map=..,backing.driver=layer,"
                                             "backing.map=bb,backing.node-name=low");
    uint8_t buf[BLOCK];

    status_error = -EIO;
    assert_int_equal(read_chain(bs, 0, buf, sizeof(buf)), -EIO);
    status_error = 0;
    bdrv_mark_broken(bdrv_find_node(*state, "low"), "test");
    assert_int_equal(read_chain(bs, 0, buf, sizeof(buf)), -EIO);
    bdrv_unref(bs);
}

static void test_a_thousand(void **state)
{
    BlockDriverState *below = open_text(*state, "driver=layer,node-name=n0,map=zzzz");
    char text[128];

    for (int i = 1; i <= 1000; i++) {
        BlockDriverState *bs;

        snprintf(text, sizeof(text), "driver=layer,node-name=n%d,map=%s,backing=n%d", i,
                 i == 500   ? ".m.."
                 : i == 501 ? "..0."
                            : "....",
                 i - 1);
        bs = open_text(*state, text);
        bdrv_unref(below);
        below = bs;
    }
    expect_blocks(below, "zm0z");
    assert_int_equal(inside_max, 1);
    expect_status(below, 0, 4, BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED, 1, 1001);
    /* the layer's own read, as a guest asks it: one more */
    {
        BdrvEdge edge = {.bs = below, .perm = READ};
        uint8_t buf[4 * BLOCK];

        assert_int_equal(bdrv_edge_pread(&edge, 0, buf, sizeof(buf)), 0);
        assert_int_equal(buf[0], 'z');
        assert_int_equal(inside_max, 2);
    }
    bdrv_unref(below);
}

/* Any chain of short and long layers, any range: what a plain look at the texts says. */
static void test_random(void **state)
{
    const char *replay = getenv("PLATTER_SEED");
    unsigned seed = replay != NULL ? (unsigned)strtoul(replay, NULL, 0) : (unsigned)time(NULL);

    print_message("PLATTER_SEED=%u\n", seed);
    srand(seed);
    for (int round = 0; round < 300; round++) {
        char maps[6][17];
        char text[256];
        int layers = 1 + rand() % 6;
        BlockDriverState *bs = NULL;
        char want[24];
        size_t blocks = 1 + (size_t)rand() % 20;

        for (int i = 0; i < layers; i++) {
            size_t n = 1 + (size_t)rand() % 16;
            BlockDriverState *next;

            for (size_t k = 0; k < n; k++) {
                maps[i][k] = "...0"[rand() % 4];
                if (rand() % 4 == 0) {
                    maps[i][k] = (char)('a' + i);
                }
            }
            maps[i][n] = '\0';
            snprintf(text, sizeof(text), "driver=layer,node-name=r%d,map=%s", i, maps[i]);
            if (i > 0) {
                snprintf(text + strlen(text), sizeof(text) - strlen(text), ",backing=r%d", i - 1);
            }
            next = open_text(*state, text);
            bdrv_unref(bs);
            bs = next;
        }
        for (size_t k = 0; k < blocks; k++) {
            want[k] = '0';
            for (int i = layers - 1; i >= 0 && k < strlen(maps[i]); i--) {
                if (maps[i][k] != '.') {
                    want[k] = maps[i][k];
                    break;
                }
            }
        }
        want[blocks] = '\0';
        expect_blocks(bs, want);
        bdrv_unref(bs);
    }
    assert_int_equal(inside_max, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_who_decides),
        T(test_lengths),
        T(test_parts_of_blocks),
        T(test_through_filters_and_windows),
        T(test_one_layer_is_not_asked),
        T(test_errors),
        T(test_a_thousand),
        T(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
