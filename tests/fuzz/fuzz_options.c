/* SPDX-License-Identifier: MIT */
/*
 * Option text and JSON from hostile hands, down to opening and creating nodes with them. What is
 * taken must survive the way through JSON and back unchanged.
 */
#include <stdlib.h>
#include <string.h>

#include <platter/backend.h>

#include "control/keyval.h"
#include "control/qmp_type.h"
#include "fuzz.h"
#include "schema/opts.h"
#include "schema/qmp.h"
#include "util/json.h"
#include "util/json_print.h"
#include "util/mem.h"
#include "util/options.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_close_world();
    return 0;
}

static char *json_of(const BlockOptions *opts)
{
    json_t *value = block_options_to_json_value(opts, NULL);
    char *text = json_print(value, JSON_PRINT_AS_MADE);

    json_decref(value);
    return text;
}

static void check_round_trip(const BlockOptions *opts)
{
    char *first = json_of(opts);
    BlockOptions *again;
    char *second;

    if (!first) {
        return; /* a value that is not UTF-8 */
    }
    again = block_options_parse_json(first, NULL);
    FUZZ_CHECK(again != NULL);
    second = json_of(again);
    FUZZ_CHECK(second != NULL && strcmp(first, second) == 0);
    free(second);
    block_options_free(again);
    free(first);
}

static BlockOptions *parse(bool json, const char *text)
{
    Error *err = NULL;
    BlockOptions *opts =
        json ? block_options_parse_json(text, &err) : block_options_parse(text, "driver", &err);

    FUZZ_CHECK((opts == NULL) == (err != NULL));
    error_free(err);
    if (opts != NULL) {
        check_round_trip(opts);
    }
    return opts;
}

/* The command line of the daemon: a tree, then what the schema makes of it. */
static void parse_tree(const char *text)
{
    Error *err = NULL;
    json_t *tree = keyval_parse(text, "driver", &err);
    int rc;

    FUZZ_CHECK((tree == NULL) == (err != NULL));
    if (tree != NULL) {
        rc = qmp_take_text(qmp_blockdev_options_type, tree, &err);
        FUZZ_CHECK((rc < 0) == (err != NULL));
        FUZZ_CHECK(rc < 0 || qmp_check(qmp_blockdev_options_type, tree, NULL) == 0);
    }
    error_free(err);
    json_decref(tree);
}

static void parse_types(bool json, const char *text)
{
    BlockOptions *opts = parse(json, text);
    struct opts_node_common common;
    struct opts_node_null null;
    struct opts_node_file file;
    struct opts_create_raw create;

    if (!json) {
        parse_tree(text);
    }
    if (opts == NULL) {
        return;
    }
    if (opts_node_common_parse(opts, &common, NULL) == 0) {
        opts_node_common_fini(&common);
    }
    if (opts_node_null_parse(opts, &null, NULL) == 0) {
        opts_node_null_fini(&null);
    }
    if (opts_node_file_parse(opts, &file, NULL) == 0) {
        opts_node_file_fini(&file);
    }
    if (opts_create_raw_parse(opts, &create, NULL) == 0) {
        opts_create_raw_fini(&create);
    }
    (void)block_options_refuse_rest(opts, "nothing", NULL);
    block_options_free(opts);
}

static void tokens(const char *text, size_t bytes)
{
    struct json_tokenizer t = {.text = text, .bytes = bytes};
    struct json_token token = {.kind = JSON_TOKEN_PUNCT};
    size_t end = 0;
    Error *err = NULL;
    json_t *value;

    while (json_next_token(&t, &token, &err) == 0 && token.kind != JSON_TOKEN_END) {
        FUZZ_CHECK(token.start >= end && token.end > token.start && token.end <= bytes);
        end = token.end;
    }
    FUZZ_CHECK((err != NULL) == (token.kind != JSON_TOKEN_END) || err != NULL);
    error_free(err);
    err = NULL;
    value = json_parse_text(text, bytes, &err);
    FUZZ_CHECK((value == NULL) == (err != NULL));
    error_free(err);
    json_decref(value);
}

static void use(BlockDriverState *bs)
{
    const char *name = bdrv_get_filename(bs);

    FUZZ_CHECK(name != NULL);
    FUZZ_CHECK(bdrv_get_node_name(bs)[0] != '\0');
}

static void open_node(bool json, const char *text, int flags)
{
    BlockOptions *opts = parse(json, text);
    Platter *pl;
    BlockBackend *blk;
    Error *err = NULL;
    char byte[4096];

    if (opts == NULL) {
        return;
    }
    if (strstr(text, "latency") != NULL) {
        block_options_free(opts); /* it would be waited for */
        return;
    }
    pl = fuzz_platter(0);
    blk = blk_new_open(pl, "fuzz", NULL, NULL, opts, flags, &err);
    FUZZ_CHECK((blk == NULL) == (err != NULL));
    error_free(err);
    if (blk != NULL) {
        int64_t size = blk_getlength(blk);

        if (blk_bs(blk) != NULL) {
            use(blk_bs(blk));
        }
        FUZZ_CHECK(size >= 0);
        FUZZ_CHECK(size < (int64_t)sizeof(byte) || blk_pread(blk, 0, byte, sizeof(byte)) >= 0);
        FUZZ_CHECK(blk_pread(blk, size, byte, 1) < 0);
        blk_unref(blk);
    }
    platter_free(pl);
}

static void create(bool json, const char *text)
{
    BlockOptions *opts = parse(json, text);
    Platter *pl;
    Error *err = NULL;
    int rc;

    if (opts == NULL) {
        return;
    }
    pl = fuzz_platter(0);
    rc = bdrv_create(pl, "disk", opts, &err);
    FUZZ_CHECK((rc < 0) == (err != NULL));
    error_free(err);
    platter_free(pl);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const int kinds[] = {0, BDRV_O_RDWR, BDRV_O_PROBE, BDRV_O_RDWR | BDRV_O_UNMAP};
    struct fuzz_in in = {data, bytes};
    uint8_t how = fuzz_u8(&in);
    bool json = how & 1;
    char *text;

    if (bytes > 65536) {
        return 0;
    }
    bytes = in.bytes;
    text = fuzz_text(&in);
    switch (how >> 1 & 3) {
    case 0:
        parse_types(json, text);
        break;
    case 1:
        tokens(text, bytes);
        break;
    case 2:
        open_node(json, text, kinds[how >> 3 & 3]);
        break;
    default:
        create(json, text);
        break;
    }
    free(text);
    return 0;
}
