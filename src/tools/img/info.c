/* SPDX-License-Identifier: MIT */
/*
 * platter info: facts about a disk, without reading what is on it. The lines and keys are those of
 * `qemu-img info`; format-probed, engine and what follow are ours.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <platter/image.h>

#include "control/image_info.h"
#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/chain.h"
#include "tools/img/json_text.h"
#include "tools/img/snapshot_list.h"
#include "tools/img/specific.h"
#include "util/size.h"

#define LAYERS_MAX 64 /* that are opened one by one */

enum info_option {
    INFO_CHAIN = 1,
};

static const struct cli_option info_options[] = {
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    {INFO_CHAIN, 0, "backing-chain", NULL, "show each backing file too"},
    DISK_ROW_OUTPUT,
    DISK_ROW_FORCE_SHARE,
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct info_args {
    struct disk_args disk;
    bool chain;
};

/* ---- human ---- */

static void print_backing(struct cli *cli, const struct image_facts *f)
{
    if (!f->backing_file) {
        return;
    }
    fputs("backing file: ", cli->out);
    cli_put_text(cli->out, f->backing_file);
    if (f->full_backing_file && strcmp(f->full_backing_file, f->backing_file) != 0) {
        fputs(" (actual path: ", cli->out);
        cli_put_text(cli->out, f->full_backing_file);
        fputc(')', cli->out);
    }
    fputc('\n', cli->out);
    if (f->backing_format) {
        fputs("backing file format: ", cli->out);
        cli_put_text(cli->out, f->backing_format);
        fputc('\n', cli->out);
    }
}

/* CLI_EXIT_* */
static int print_human(struct cli *cli, const struct image_facts *f)
{
    char text[32];

    fputs("image: ", cli->out);
    cli_put_text(cli->out, f->filename);
    fputc('\n', cli->out);
    fprintf(cli->out, "file format: %s\n", f->format);
    fprintf(cli->out, "virtual size: %s (%" PRId64 " bytes)\n",
            size_format((uint64_t)f->disk_bytes, text, sizeof(text)), f->disk_bytes);
    fprintf(cli->out, "disk size: %s\n",
            f->allocated_bytes < 0 ? "unavailable"
                                   : size_format((uint64_t)f->allocated_bytes, text, sizeof(text)));
    if (f->encrypted) {
        fputs("encrypted: yes\n", cli->out);
    }
    if (f->has_info && f->info.cluster_size_bytes) {
        fprintf(cli->out, "cluster_size: %" PRIu64 "\n", f->info.cluster_size_bytes);
    }
    if (f->has_info && f->info.is_dirty) {
        fputs("cleanly shut down: no\n", cli->out);
    }
    print_backing(cli, f);
    snapshot_list_print(cli, &f->snapshots);
    if (f->specific && specific_print(cli->out, f->specific) < 0) {
        return cli_error(cli, "out of memory");
    }
    if (!cli_spelling(cli)->more_facts) {
        return CLI_EXIT_OK;
    }
    if (f->probed) {
        fputs("format probed: yes\n", cli->out);
    }
    if (f->engine) {
        fprintf(cli->out, "engine: %s\n", f->engine);
    }
    return CLI_EXIT_OK;
}

/* ---- JSON ---- */

/* NULL: out of memory. */
static json_t *facts_value(struct cli *cli, const struct image_facts *f)
{
    json_t *object = image_facts_json(f);
    int ret = object ? 0 : -ENOMEM;

    if (cli_spelling(cli)->more_facts) {
        json_add(object, "format-probed", json_boolean(f->probed), &ret);
    }
    if (cli_spelling(cli)->more_facts && f->engine) {
        json_add(object, "engine", json_string(f->engine), &ret);
    }
    return json_whole(object, ret);
}

/* ---- the layers ---- */

/* One layer is printed, or put into list. */
static int show_layer(struct cli *cli, BlockDriverState *bs, json_t *list)
{
    struct image_facts facts;
    Error *err = NULL;
    int code = CLI_EXIT_OK;

    if (image_facts_get(&facts, bs, &err) < 0) {
        image_facts_fini(&facts);
        return cli_report(cli, err);
    }
    if (!cli_spelling(cli)->more_facts && facts.disk_bytes >= 0) {
        facts.disk_bytes = image_whole_sectors(facts.disk_bytes);
    }
    if (facts.disk_bytes < 0) {
        code = cli_error(cli, "'%s' does not tell its size: %s", facts.filename,
                         strerror((int)-facts.disk_bytes));
    } else if (!list) {
        code = print_human(cli, &facts);
    } else if (json_array_append_new(list, facts_value(cli, &facts)) < 0) {
        code = cli_error(cli, "out of memory");
    }
    image_facts_fini(&facts);
    return code;
}

static int show(struct cli *cli, const struct info_args *args, BlockDriverState *bs, json_t *list)
{
    int code = show_layer(cli, bs, list);

    while (code == CLI_EXIT_OK && args->chain && (bs = chain_below(bs)) != NULL) {
        if (!list) {
            fputc('\n', cli->out);
        }
        code = show_layer(cli, bs, list);
    }
    if (code == CLI_EXIT_OK && list) {
        code = json_text_print(cli, json_incref(args->chain ? list : json_array_get(list, 0)), 0);
    }
    return code;
}

static int info_run(struct cli *cli, BlockBackend *blk, void *opaque)
{
    const struct info_args *args = opaque;
    json_t *list = disk_wants_json(&args->disk) ? json_array() : NULL;
    int code;

    if (disk_wants_json(&args->disk) && !list) {
        return cli_error(cli, "out of memory");
    }
    code = show(cli, args, blk_bs(blk), list);
    json_decref(list);
    return code;
}

/* ---- a chain as the reference goes through it ---- */

/* Owned; either may be NULL. */
struct layer_name {
    char *file;
    char *format;
};

static void layer_name_fini(struct layer_name *name)
{
    free(name->file);
    free(name->format);
}

/* The backing file that the image names, as a disk of its own. 1, 0 where there is none, or after
 * printing -1. */
static int step_down(struct cli *cli, BlockDriverState *bs, struct disk_args *args,
                     struct layer_name *name)
{
    const char *said = bdrv_get_backing_file(bs);
    const char *format = bdrv_get_backing_format(bs);
    struct layer_name below = {0};
    Error *err = NULL;

    if (!said) {
        return 0;
    }
    below.file = bdrv_get_backing_path(bs, said, &err);
    below.format = format ? strdup(format) : NULL;
    if (!below.file || (format && !below.format)) {
        layer_name_fini(&below);
        (void)(err ? cli_report(cli, err) : cli_error(cli, "out of memory"));
        return -1;
    }
    layer_name_fini(name);
    *name = below;
    args->file = name->file;
    args->format = name->format;
    args->image_opts = false;
    return 1;
}

/* The reference opens each layer alone, and tells one that cannot be opened by its own name. What
 * is wrong with the chain as a whole is found when that is opened. */
static int layers_check(struct cli *cli, const struct info_args *info)
{
    struct disk_args args = info->disk;
    Platter *pl = disk_platter_new(cli, &args);
    struct layer_name name = {0};
    int more = pl ? 1 : -1;

    args.no_backing = true;
    for (unsigned depth = 0; more > 0 && depth < LAYERS_MAX; depth++) {
        BlockBackend *blk = disk_open(cli, pl, &args);

        more = blk ? step_down(cli, blk_bs(blk), &args, &name) : -1;
        blk_unref(blk);
    }
    layer_name_fini(&name);
    platter_free(pl);
    return more < 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

/* ---- arguments ---- */

static bool info_take(struct info_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case INFO_CHAIN:
        args->chain = true;
        return true;
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a);
    }
}

static int info_command(struct cli *cli, int argc, char **argv)
{
    struct info_args args = {.disk = {.look_only = true}};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !info_take(&args, id, &a)) {
            return CLI_EXIT_USAGE;
        }
    }
    if (!disk_file_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    if (!disk_args_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    args.disk.no_backing = !args.chain;
    if (args.chain && cli_stands_in(cli) && !args.disk.image_opts &&
        layers_check(cli, &args) != CLI_EXIT_OK) {
        return CLI_EXIT_FAILED;
    }
    return disk_run(cli, &args.disk, info_run, &args);
}

const struct cli_command command_info = {
    .name = "info",
    .operands = "FILE",
    .summary = "Show the facts about a disk",
    .options = info_options,
    .details = "Examples:\n"
               "  platter info disk.img\n"
               "  platter info --output=json -f raw disk.img\n"
               "  platter info -f qcow2 --backing-chain overlay.qcow2\n",
    .run = info_command,
};
