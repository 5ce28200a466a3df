/* SPDX-License-Identifier: MIT */
/*
 * platter convert --max-memory: the cap is for what is copied (buffers and compressors, which the
 * job divides) and for the tables that images keep in memory: an eighth of it. It does not count
 * the program, its threads and what it takes to open an image.
 */
#include <stdlib.h>
#include <string.h>

#include <platter/graph.h>

#include "block/driver.h"
#include "tools/img/chain.h"
#include "tools/img/convert_int.h"
#include "util/checked.h"
#include "util/name_beside.h"
#include "util/options.h"
#include "util/size.h"

#define CACHE_KEY "l2-cache-size"
#define CACHE_BYTES_MIN 8192 /* two parts of a table: enough to go through a disk once */
/* Of a target that is still to be made: the usual cluster of qcow2, what it divides one into, and
 * what file systems give space in, mostly. */
#define NEW_CLUSTER_BYTES 65536
#define SUBCLUSTERS 32
#define FILE_UNIT_BYTES 4096
#define TABLES_SMALL (UINT64_C(16) << 20) /* a cap below leaves no more for each image */

static bool has_tables(BlockDriverState *bs)
{
    return convert_knows_option(bs, CACHE_KEY);
}

/* What comes through a pipe keeps its tables: they do not come again. */
static bool divides(const struct convert_run *run)
{
    return run->args->engine.memory_max_bytes > 0 && !run->args->once;
}

static uint64_t count_images(const struct convert_run *run)
{
    uint64_t images = 0;

    for (BlockDriverState *bs = bdrv_next_node(run->pl, NULL); bs;
         bs = bdrv_next_node(run->pl, bs)) {
        images += has_tables(bs);
    }
    return images;
}

/* For the tables of each of so many. */
static uint64_t share_of(const struct convert_run *run, uint64_t images)
{
    uint64_t max = run->args->engine.memory_max_bytes;

    return max < TABLES_SMALL ? CACHE_BYTES_MIN : max_u64(max / 8 / images, CACHE_BYTES_MIN);
}

/* ---- before there is a target ---- */

static bool count_below(void *opaque, const char *path, BlockDriverState *bs)
{
    *(uint64_t *)opaque += bs && has_tables(bs);
    return bs != NULL;
}

/* The images that come with the target: itself, and what it will stand above. */
static uint64_t images_to_come(const struct convert_run *run, const BlockDriver *drv)
{
    const struct convert_args *args = run->args;
    uint64_t images = option_list_has_key(drv->option_keys, CACHE_KEY);
    char *path = args->backing ? name_beside(args->target.file, args->backing) : NULL;

    if (path) {
        chain_walk_named(run->pl, path, args->backing_format, count_below, &images);
    }
    free(path);
    return images;
}

/* What the new image will give room in, as its options say. */
static uint64_t unit_to_come(const struct convert_run *run, const BlockDriver *drv)
{
    const BlockOptions *options = run->args->list.options;
    const char *cluster = block_options_get_str(options, "cluster_size");
    const char *parts = block_options_get_str(options, "extended_l2");
    uint64_t bytes = NEW_CLUSTER_BYTES;

    if (!option_list_has_key(drv->create_keys, "cluster_size")) {
        return FILE_UNIT_BYTES;
    }
    if (cluster && size_parse(cluster, 'b', "cluster_size", &bytes, NULL) < 0) {
        return 1; /* which is told when it is made */
    }
    return !run->args->engine.compressed && parts && strcmp(parts, "on") == 0 ? bytes / SUBCLUSTERS
                                                                              : bytes;
}

int convert_memory_judge(struct convert_run *run)
{
    const BlockDriver *drv = bdrv_find_driver(convert_target_format(run));
    struct convert_options engine = run->args->engine;
    uint64_t images;
    Error *err = NULL;

    if (engine.memory_max_bytes == 0) {
        return CLI_EXIT_OK;
    }
    images = divides(run) ? count_images(run) + images_to_come(run, drv) : 0;
    engine.sources = run->sources;
    engine.sources_count = engine.feed ? 0 : run->sources_count;
    engine.memory_disks_bytes = images > 0 ? images * share_of(run, images) : 0;
    return convert_judge_memory(&engine, unit_to_come(run, drv), &err) < 0
               ? cli_report(run->cli, err)
               : CLI_EXIT_OK;
}

/* ---- once all are open ---- */

int convert_memory_divide(struct convert_run *run)
{
    uint64_t images = divides(run) ? count_images(run) : 0;
    uint64_t each;
    int code = CLI_EXIT_OK;

    if (images == 0) {
        return CLI_EXIT_OK;
    }
    each = share_of(run, images);
    for (BlockDriverState *bs = bdrv_next_node(run->pl, NULL); bs && code == CLI_EXIT_OK;
         bs = bdrv_next_node(run->pl, bs)) {
        if (has_tables(bs)) {
            code = convert_reopen_with(run->cli, bs, CACHE_KEY, each);
        }
    }
    run->args->engine.memory_disks_bytes = images * each;
    return code;
}
