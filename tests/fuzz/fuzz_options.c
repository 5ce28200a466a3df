/* SPDX-License-Identifier: MIT */
/*
 * Option text, JSON and sizes from hostile hands. What is taken must survive the way through JSON
 * and back unchanged.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "schema/opts.h"
#include "util/options.h"
#include "util/size.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_round_trip(const BlockOptions *opts)
{
    char *first = block_options_to_json(opts, NULL);
    BlockOptions *again;
    char *second;

    if (!first) {
        return; /* a value that is not UTF-8 */
    }
    again = block_options_parse_json(first, NULL);
    if (!again) {
        abort();
    }
    second = block_options_to_json(again, NULL);
    if (!second || strcmp(first, second) != 0) {
        abort();
    }
    free(second);
    block_options_free(again);
    free(first);
}

static void parse_types(BlockOptions *opts)
{
    struct opts_node_common common;
    struct opts_create_raw create;

    if (opts_node_common_parse(opts, &common, NULL) == 0) {
        opts_node_common_fini(&common);
    }
    if (opts_create_raw_parse(opts, &create, NULL) == 0) {
        opts_create_raw_fini(&create);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *text = malloc(bytes + 1);
    BlockOptions *opts = NULL;
    uint64_t size;

    if (!text || bytes == 0) {
        free(text);
        return 0;
    }
    memcpy(text, data + 1, bytes - 1);
    text[bytes - 1] = '\0';
    switch (data[0] % 3) {
    case 0:
        opts = block_options_parse_json(text, NULL);
        break;
    case 1:
        opts = block_options_parse(text, "driver", NULL);
        break;
    default:
        if (size_parse(text, 'b', "size", &size, NULL) == 0 && size > INT64_MAX) {
            abort();
        }
        break;
    }
    if (opts) {
        check_round_trip(opts);
        parse_types(opts);
    }
    block_options_free(opts);
    free(text);
    return 0;
}
