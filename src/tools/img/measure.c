/* SPDX-License-Identifier: MIT */
/* platter measure: how large the file of a new image will be, in the words of `qemu-img measure`.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <platter/image.h>

#include "block/driver.h"
#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/json_text.h"
#include "tools/option_list.h"
#include "util/size.h"

enum measure_option {
    MEASURE_OPTIONS = 1,
    MEASURE_OUTPUT_FORMAT,
    MEASURE_SIZE,
};

static const struct cli_option measure_options[] = {
    {MEASURE_SIZE, 0, "size", "N", "of an empty disk; else FILE is what the image will hold"},
    {MEASURE_OUTPUT_FORMAT, 'O', "target-format", "FMT", "format of the image; raw when not given"},
    {MEASURE_OPTIONS, 'o', "options", "OPTS", "KEY=VALUE,... that the image will be made with"},
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_SNAPSHOT,
    DISK_ROW_OUTPUT,
    DISK_ROW_FORCE_SHARE,
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct measure_args {
    struct disk_args disk;
    struct option_list list;
    const char *format; /* of the image */
    const char *size;   /* as it was given; NULL: not */
    uint64_t size_bytes;
};

static void print_human(FILE *out, const struct bdrv_measure_result *r)
{
    fprintf(out, "required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n",
            r->required_bytes, r->fully_allocated_bytes);
    if (r->has_bitmaps) {
        fprintf(out, "bitmaps size: %" PRIu64 "\n", r->bitmaps_bytes);
    }
}

static int print_json(struct cli *cli, const struct bdrv_measure_result *r)
{
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    if (r->has_bitmaps) {
        json_add(object, "bitmaps", json_u64(r->bitmaps_bytes), &ret);
    }
    json_add(object, "required", json_u64(r->required_bytes), &ret);
    json_add(object, "fully-allocated", json_u64(r->fully_allocated_bytes), &ret);
    return json_text_print(cli, object, ret);
}

/* What the table of the format's options can tell. CLI_EXIT_*, after printing. */
static int options_judge(struct cli *cli, struct measure_args *args)
{
    const BlockDriver *drv = bdrv_find_driver(args->format);
    Error *err = NULL;

    if (!drv && cli_stands_in(cli)) {
        return cli_error(cli, "Unknown file format '%s'", args->format);
    }
    if (option_list_judge(cli, &args->list, drv ? drv->create_keys : NULL, &err) < 0) {
        cli_report(cli, err);
        if (cli_stands_in(cli)) {
            cli_error(cli, "Invalid options for file format '%s'", args->format);
        }
        return CLI_EXIT_FAILED;
    }
    return CLI_EXIT_OK;
}

static int measure(struct cli *cli, Platter *pl, struct measure_args *args,
                   BlockDriverState *source)
{
    struct bdrv_measure_result result = {0};
    Error *err = NULL;
    int code = options_judge(cli, args);
    int ret;

    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (!source && block_options_set_u64(args->list.options, "size", args->size_bytes) < 0) {
        return cli_error(cli, "out of memory");
    }
    ret = bdrv_measure(pl, args->format, args->list.options, source, &result, &err);
    args->list.options = NULL;
    if (ret < 0) {
        return cli_report(cli, err);
    }
    if (disk_wants_json(&args->disk)) {
        return print_json(cli, &result);
    }
    print_human(cli->out, &result);
    return CLI_EXIT_OK;
}

static int measure_file(struct cli *cli, BlockBackend *blk, void *opaque)
{
    return measure(cli, blk_get_platter(blk), opaque, blk_bs(blk));
}

static int measure_size(struct cli *cli, struct measure_args *args)
{
    Platter *pl = disk_platter_new(cli, NULL);
    int code = pl ? measure(cli, pl, args, NULL) : CLI_EXIT_FAILED;
    platter_free(pl);
    return code;
}

/* ---- arguments ---- */

/* CLI_EXIT_*, after printing. */
static int measure_take(void *opaque, int id, const struct cli_args *a)
{
    struct measure_args *args = opaque;

    switch (id) {
    case MEASURE_OPTIONS:
        return option_list_add(a->cli, &args->list, a->value);
    case MEASURE_OUTPUT_FORMAT:
        args->format = a->value;
        return CLI_EXIT_OK;
    case MEASURE_SIZE:
        args->size = a->value;
        return cli_parse_size(a->cli, a->value, "image size", "size", INT64_MAX, &args->size_bytes)
                   ? CLI_EXIT_OK
                   : CLI_EXIT_USAGE;
    case DISK_OPTION_SNAPSHOT:
        return disk_take_snapshot(&args->disk, a, '\'');
    default:
        if (id == DISK_OPTION_OUTPUT && cli_stands_in(a->cli)) { /* other commands judge it later */
            args->disk.output = a->value;
            return disk_output_check(a->cli, &args->disk) ? CLI_EXIT_OK : CLI_EXIT_USAGE;
        }
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a)
                   ? CLI_EXIT_OK
                   : CLI_EXIT_USAGE;
    }
}

static int measure_start(struct cli *cli, struct measure_args *args)
{
    const struct disk_args *disk = &args->disk;

    if (disk->surplus) {
        return cli_misfit(cli, "At most one filename argument is allowed.");
    }
    if (!disk->file && (disk->image_opts || disk->format || disk->snapshot)) {
        return cli_misfit(cli, "--image-opts, -f, and -l require a filename argument.");
    }
    if (args->size && disk->file) {
        return cli_misfit(cli, "--size N cannot be used together with a filename.");
    }
    if (!args->size && !disk->file) {
        return cli_misfit(cli, "Either --size N or one filename must be specified.");
    }
    if (args->list.help) {
        return cli_usage_error(cli, "'create -f %s -o help' lists the options", args->format);
    }
    if (!disk_args_check(cli, disk)) {
        return CLI_EXIT_USAGE;
    }
    return args->size ? measure_size(cli, args) : disk_run(cli, disk, measure_file, args);
}

static int measure_command(struct cli *cli, int argc, char **argv)
{
    struct measure_args args = {.format = "raw"};
    int code;

    if (cli_take_all(cli, argc, argv, measure_take, &args, &code)) {
        code = measure_start(cli, &args);
    }
    option_list_fini(&args.list);
    return code;
}

const struct cli_command command_measure = {
    .name = "measure",
    .operands = "[FILE]",
    .summary = "Calculate how large the file of a new image will be",
    .options = measure_options,
    .details = "Examples:\n"
               "  platter measure --size 10G -O qcow2\n"
               "  platter measure -f raw -O qcow2 -o cluster_size=4k disk.img\n"
               "  platter measure --output=json -f qcow2 -O qcow2 -l snapshot1 disk.qcow2\n",
    .run = measure_command,
};
