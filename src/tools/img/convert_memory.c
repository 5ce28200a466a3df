/* SPDX-License-Identifier: MIT */
/*
 * platter convert --max-memory: the cap is for what is copied (buffers and compressors, which the
 * job divides) and for the tables that images keep in memory: an eighth of it. It does not count
 * the program, its threads and what it takes to open an image.
 */
#include <platter/graph.h>

#include "block/driver.h"
#include "tools/img/convert_int.h"
#include "util/checked.h"

#define CACHE_KEY "l2-cache-size"
#define CACHE_BYTES_MIN 8192 /* two parts of a table: enough to go through a disk once */
#define TABLES_SMALL (UINT64_C(16) << 20) /* a cap below leaves no more for each image */

static bool has_tables(BlockDriverState *bs)
{
    return convert_knows_option(bs, CACHE_KEY);
}

int convert_memory_divide(struct convert_run *run)
{
    uint64_t max = run->args->engine.memory_max_bytes;
    uint64_t images = 0;
    uint64_t each;
    int code = CLI_EXIT_OK;

    if (max == 0 || run->args->once) {
        return CLI_EXIT_OK; /* what comes through a pipe keeps its tables: they do not come again */
    }
    for (BlockDriverState *bs = bdrv_next_node(run->pl, NULL); bs;
         bs = bdrv_next_node(run->pl, bs)) {
        images += has_tables(bs);
    }
    if (images == 0) {
        return CLI_EXIT_OK;
    }
    each = max < TABLES_SMALL ? CACHE_BYTES_MIN : max_u64(max / 8 / images, CACHE_BYTES_MIN);
    for (BlockDriverState *bs = bdrv_next_node(run->pl, NULL); bs && code == CLI_EXIT_OK;
         bs = bdrv_next_node(run->pl, bs)) {
        if (has_tables(bs)) {
            code = convert_reopen_with(run->cli, bs, CACHE_KEY, each);
        }
    }
    run->args->engine.memory_disks_bytes = images * each;
    return code;
}
