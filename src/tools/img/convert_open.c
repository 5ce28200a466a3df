/* SPDX-License-Identifier: MIT */
/* platter convert: opening the sources, making and opening the target. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/graph.h>

#include "block/driver.h"
#include "schema/opts.h"
#include "tools/img/chain.h"
#include "tools/img/convert_int.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/name_beside.h"
#include "util/options.h"

/* ---- sources ---- */

static int source_open(struct convert_run *run, size_t i)
{
    struct disk_args args = run->args->disk;
    struct convert_source *s = &run->sources[i];
    char id[32];
    int64_t bytes;

    snprintf(id, sizeof(id), "source%zu", i);
    args.id = id;
    args.steady = true; /* which also keeps it from being its own target */
    args.file = run->args->files[i];
    if (run->args->files_count > 2) {
        args.snapshot = NULL; /* which is refused once all are open, as by the reference */
    }
    s->blk = disk_open(run->cli, run->pl, &args);
    if (!s->blk) {
        return CLI_EXIT_FAILED;
    }
    run->sources_count++;
    bytes = blk_getlength(s->blk);
    if (bytes < 0) {
        return cli_error(run->cli, "Could not get size of %s: %s", args.file,
                         strerror((int)-bytes));
    }
    s->bytes = (uint64_t)bytes;
    return run->args->once ? convert_pipe_read_tables_whole(run, s->blk) : CLI_EXIT_OK;
}

int convert_open_sources(struct convert_run *run)
{
    size_t count = run->args->files_count - 1;
    int code = CLI_EXIT_OK;

    run->sources = calloc(count, sizeof(*run->sources));
    if (!run->sources) {
        return cli_error(run->cli, "out of memory");
    }
    if (run->args->from_pipe) {
        code = convert_pipe_source(run, &run->args->files[0]);
        if (code != CLI_EXIT_OK || run->args->engine.feed) {
            return code;
        }
    }
    for (size_t i = 0; code == CLI_EXIT_OK && i < count; i++) {
        code = source_open(run, i);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (count > 1 && run->args->disk.snapshot) {
        return cli_error(run->cli, "No support for concatenating multiple snapshot");
    }
    run->total = convert_total_bytes(run->sources, count);
    return run->total == UINT64_MAX
               ? cli_error(run->cli, "the sources together are too large for a disk")
               : CLI_EXIT_OK;
}

/* ---- making the target ---- */

int convert_check_target(struct cli *cli, Platter *pl, const char *file)
{
    return chain_has_file(pl, file)
               ? cli_error(cli, "'%s' is what is to be copied, or belongs to it", file)
               : CLI_EXIT_OK;
}

/* Locks guard the sources but for those that were opened without; the reference relies on them. */
static int check_harm(struct convert_run *run)
{
    const struct convert_args *args = run->args;

    if (cli_stands_in(run->cli) && !args->disk.force_share) {
        return CLI_EXIT_OK;
    }
    return convert_pipe_reads(run, args->target.file)
               ? cli_error(run->cli, "'%s' is what comes through standard input", args->target.file)
               : convert_check_target(run->cli, run->pl, args->target.file);
}

bool convert_knows_option(BlockDriverState *bs, const char *key)
{
    const BlockDriver *drv = bdrv_find_driver(bdrv_get_format_name(bs));

    return drv && option_list_has_key(drv->option_keys, key);
}

int convert_reopen_with(struct cli *cli, BlockDriverState *bs, const char *key, uint64_t value)
{
    BlockOptions *changes = block_options_new();
    Error *err = NULL;

    if (!changes || block_options_set_u64(changes, key, value) < 0) {
        block_options_free(changes);
        return cli_error(cli, "out of memory");
    }
    return bdrv_reopen_changed(bs, changes, &err) < 0 ? cli_report(cli, err) : CLI_EXIT_OK;
}

int convert_create(struct cli *cli, Platter *pl, const char *file, const char *format,
                   BlockOptions *options, uint64_t bytes, const char *doing, unsigned lock_tries)
{
    Error *err = NULL;
    int ret;

    if (block_options_set_str(options, "driver", format) < 0 ||
        block_options_set_u64(options, "size", bytes) < 0) {
        block_options_free(options);
        return cli_error(cli, "out of memory");
    }
    do {
        BlockOptions *copy = block_options_copy(options);

        error_free(err);
        err = NULL;
        ret = copy ? bdrv_create(pl, file, copy, &err) : error_set(&err, ENOMEM, "out of memory");
    } while (ret == -EAGAIN && disk_lock_again(&lock_tries));
    block_options_free(options);
    if (ret < 0) {
        error_prepend(&err, "%s: error while %s: ", file, doing);
        return cli_report(cli, err);
    }
    return CLI_EXIT_OK;
}

static int check_sources_above(struct convert_run *run)
{
    return run->args->backing && run->sources_count > 1
               ? cli_error(run->cli, "Having a backing file for the target makes no sense when "
                                     "concatenating multiple input images")
               : CLI_EXIT_OK;
}

/* -B and -F are backing_file and backing_fmt of -o, and win over them. */
static int settle_backing(struct convert_run *run, const BlockDriver *drv)
{
    struct convert_args *args = run->args;
    BlockOptions *options = args->list.options;
    int code;

    if (args->backing && !option_list_has_key(drv->create_keys, "backing_file")) {
        return cli_error(run->cli, "Backing file not supported for file format '%s'",
                         drv->format_name);
    }
    if (args->backing_format && !option_list_has_key(drv->create_keys, "backing_fmt")) {
        return cli_error(run->cli, "Backing file format not supported for file format '%s'",
                         drv->format_name);
    }
    if ((args->backing && block_options_set_str(options, "backing_file", args->backing) < 0) ||
        (args->backing_format &&
         block_options_set_str(options, "backing_fmt", args->backing_format) < 0)) {
        return cli_error(run->cli, "out of memory");
    }
    args->backing = block_options_get_str(options, "backing_file");
    args->backing_format = block_options_get_str(options, "backing_fmt");
    code = check_sources_above(run);
    if (code == CLI_EXIT_OK && args->backing && !args->backing_format) {
        code = cli_error(run->cli, "Use of backing file requires explicit backing format");
    }
    return code;
}

static int no_compression(struct convert_run *run)
{
    return cli_error(run->cli, "Compression not supported for this file format");
}

static int check_compression(struct convert_run *run, const BlockDriver *drv)
{
    const char *prealloc = block_options_get_str(run->args->list.options, "preallocation");

    if (!run->args->engine.compressed) {
        return CLI_EXIT_OK;
    }
    if (!(drv->caps & BDRV_CAP_COMPRESSED)) {
        return no_compression(run);
    }
    return prealloc && strcmp(prealloc, "off") != 0
               ? cli_error(run->cli, "Compression and preallocation not supported at the same time")
               : CLI_EXIT_OK;
}

/* So that a target may name it; it is not the target itself. */
static int allow_backing(struct convert_run *run)
{
    const char *file = run->args->target.file;
    AUTO_FREE char *path = name_beside(file, run->args->backing);

    if (!path) {
        return cli_error(run->cli, "out of memory");
    }
    if (!cli_stands_in(run->cli) && chain_same_file(path, file)) {
        return cli_error(run->cli, "'%s' cannot be its own backing file", file);
    }
    if (!cli_stands_in(run->cli) &&
        chain_named_has_file(run->pl, path, run->args->backing_format, file)) {
        return cli_error(run->cli, "'%s' belongs to the backing chain of '%s', which needs it",
                         file, path);
    }
    disk_allow_folder_of(run->pl, path);
    return CLI_EXIT_OK;
}

const char *convert_target_format(const struct convert_run *run)
{
    return run->args->format ? run->args->format : "raw";
}

/* Whether the target can be made as it is wanted; faults in the order of the reference. */
int convert_prepare_target(struct convert_run *run)
{
    struct convert_args *args = run->args;
    const char *format = convert_target_format(run);
    const char *file = args->to_pipe ? NULL : args->target.file;
    Error *err = NULL;
    const BlockDriver *drv = option_list_maker(format, file, &err);
    int code;

    if (!drv || option_list_judge(run->cli, &args->list, drv->create_keys, &err) < 0) {
        return cli_report(run->cli, err);
    }
    code = settle_backing(run, drv);
    if (code == CLI_EXIT_OK) {
        code = check_compression(run, drv);
    }
    if (code == CLI_EXIT_OK && args->bitmaps) {
        code = convert_bitmaps_check(run);
    }
    if (code == CLI_EXIT_OK && args->bitmaps && !drv->bitmap) {
        code = cli_error(run->cli, "Format driver '%s' does not support bitmaps", format);
    }
    return code;
}

static int target_create(struct convert_run *run)
{
    struct convert_args *args = run->args;
    const char *format = convert_target_format(run);
    const BlockDriver *drv = bdrv_find_driver(format);
    BlockOptions *options;
    char doing[64];
    int code = args->backing ? allow_backing(run) : CLI_EXIT_OK;

    if (code == CLI_EXIT_OK) {
        code = convert_memory_judge(run);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    options = block_options_copy(args->list.options);
    if (!options) {
        return cli_error(run->cli, "out of memory");
    }
    snprintf(doing, sizeof(doing), "converting %s", format);
    code = convert_create(run->cli, run->pl, args->target.file, format, options, run->total, doing,
                          run->journal.found ? DISK_LOCK_TRIES : 0);
    args->engine.target_is_zero =
        code == CLI_EXIT_OK && (drv->caps & BDRV_CAP_TRUNCATE_ZEROES) != 0;
    return code;
}

/* ---- opening it ---- */

/* What is below the target, and how much of the source stands above the same. */
static int look_at_backing(struct convert_run *run)
{
    struct convert_args *args = run->args;
    BlockDriverState *backing = chain_below(blk_bs(run->target));
    unsigned depth = 1;
    int64_t bytes = backing ? bdrv_getlength(backing) : (int64_t)run->total;

    if (bytes < 0) {
        return cli_error(run->cli, "asking for the size of the backing file failed: %s",
                         strerror((int)-bytes));
    }
    if (backing) {
        /* a base further down: what is between it and the source is copied */
        (void)chain_find(blk_bs(run->sources[0].blk), bdrv_get_filename(backing), &depth);
    }
    args->engine.own_layers = depth;
    args->engine.backing_bytes = (uint64_t)bytes;
    return CLI_EXIT_OK;
}

static bool target_compresses(BlockDriverState *bs)
{
    const BlockDriver *drv = bdrv_find_driver(bdrv_get_format_name(bs));

    return drv && (drv->caps & BDRV_CAP_COMPRESSED);
}

static int target_open(struct convert_run *run)
{
    struct convert_args *args = run->args;

    if (!args->target.image_opts) {
        args->target.format = convert_target_format(run);
    }
    args->target.lock_tries = run->journal.found ? DISK_LOCK_TRIES : 0;
    run->target = disk_open(run->cli, run->pl, &args->target);
    if (!run->target) {
        return CLI_EXIT_FAILED;
    }
    if (args->engine.compressed && !target_compresses(blk_bs(run->target))) {
        return no_compression(run);
    }
    if (args->bitmaps && !bdrv_stores_bitmaps(blk_bs(run->target))) {
        return cli_error(run->cli, "Format driver '%s' does not support bitmaps",
                         bdrv_get_format_name(blk_bs(run->target)));
    }
    return args->backing ? look_at_backing(run) : CLI_EXIT_OK;
}

/* Whether what is wanted of the target goes together, and can be done. */
static int check_target(struct convert_run *run)
{
    struct convert_args *args = run->args;
    int code;

    if (args->target_is_zero && args->backing) {
        return cli_error(run->cli, "Cannot use --target-is-zero when the destination image has a "
                                   "backing file");
    }
    if (!args->skip_create) {
        return convert_prepare_target(run);
    }
    code = check_sources_above(run);
    return code == CLI_EXIT_OK && args->bitmaps ? convert_bitmaps_check(run) : code;
}

int convert_open_target(struct convert_run *run)
{
    struct convert_args *args = run->args;
    Error *err = NULL;
    int code = check_target(run);

    if (code == CLI_EXIT_OK && !disk_cache_is_known(args->target.cache)) {
        code = cli_error(run->cli, "Invalid cache option: %s", args->target.cache);
    }
    if (code == CLI_EXIT_OK && args->target.image_opts && args->format) {
        code = cli_error(run->cli, "--image-opts and --format are mutually exclusive");
    }
    if (code == CLI_EXIT_OK) {
        code = check_harm(run);
    }
    if (code == CLI_EXIT_OK && !args->skip_create && !run->journal.resumes) {
        code = target_create(run);
    }
    if (code == CLI_EXIT_OK) {
        code = target_open(run);
    }
    if (args->target_is_zero) {
        args->engine.target_is_zero = true;
    }
    if (code == CLI_EXIT_OK && args->engine.feed && disk_allow_resize(run->target, &err) < 0) {
        code = cli_report(run->cli, err);
    }
    args->engine.sources = run->sources;
    args->engine.sources_count = run->sources_count;
    args->engine.target = run->target;
    return code;
}

void convert_close(struct convert_run *run)
{
    blk_unref(run->target);
    for (size_t i = 0; i < run->sources_count; i++) {
        blk_unref(run->sources[i].blk);
    }
    free(run->sources);
}
