/* SPDX-License-Identifier: MIT */
/* platter bitmap: persistent dirty bitmaps of an image, in the words of `qemu-img bitmap`. */
#include <errno.h>

#include <platter/bitmap.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "util/error.h"

#define ACTIONS_MAX 64
#define GRANULARITY_MAX (UINT64_C(2) << 30)

enum bitmap_option {
    BITMAP_ADD = 1,
    BITMAP_CLEAR,
    BITMAP_DISABLE,
    BITMAP_ENABLE,
    BITMAP_MERGE,
    BITMAP_REMOVE,
    BITMAP_GRANULARITY,
    BITMAP_SOURCE_FILE,
    BITMAP_SOURCE_FORMAT,
};

static const struct cli_option bitmap_options[] = {
    {BITMAP_ADD, 0, "add", NULL, "make it; it records from now on"},
    {BITMAP_REMOVE, 0, "remove", NULL, "take it out of the image"},
    {BITMAP_CLEAR, 0, "clear", NULL, "nothing is dirty any more"},
    {BITMAP_ENABLE, 0, "enable", NULL, "it records what is changed"},
    {BITMAP_DISABLE, 0, "disable", NULL, "it records nothing"},
    {BITMAP_MERGE, 0, "merge", "SOURCE", "what is dirty in bitmap SOURCE is dirty in it too"},
    {BITMAP_GRANULARITY, 'g', "granularity", "SIZE",
     "for --add: bytes of disk that one bit stands for; a power of two, 512 to 2G"},
    {BITMAP_SOURCE_FILE, 'b', "source-file", "FILE", "for --merge: SOURCE is a bitmap of FILE"},
    {BITMAP_SOURCE_FORMAT, 'F', "source-format", "FMT|auto", "format of that file; auto: guess it"},
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct bitmap_action {
    int id; /* enum bitmap_option */
    const char *source;
};

struct bitmap_args {
    struct disk_args disk;
    struct disk_args source; /* file NULL: the disk itself */
    const char *name;
    bool extra;                 /* operands: more than FILE and BITMAP */
    uint64_t granularity_bytes; /* 0: the usual */
    struct bitmap_action actions[ACTIONS_MAX];
    size_t count;
};

struct bitmap_run {
    const struct bitmap_args *args;
    BlockDriverState *bs;
    BlockDriverState *source;
};

static const char *action_name(int id)
{
    for (const struct cli_option *o = bitmap_options; o->id; o++) {
        if (o->id == id) {
            return o->name;
        }
    }
    return "";
}

/* ---- doing it ---- */

static BdrvDirtyBitmap *find(BlockDriverState *bs, const char *name, Error **errp)
{
    BdrvDirtyBitmap *bitmap = bdrv_bitmap_find(bs, name);

    if (!bitmap) {
        error_set(errp, ENOENT, "Dirty bitmap '%s' not found", name);
    }
    return bitmap;
}

static int merge(BdrvDirtyBitmap *bitmap, BlockDriverState *from, const char *name, Error **errp)
{
    const BdrvDirtyBitmap *source = find(from, name, errp);

    return source ? bdrv_bitmap_merge(bitmap, source, errp) : -ENOENT;
}

static int act(const struct bitmap_run *run, const struct bitmap_action *action, Error **errp)
{
    const struct bitmap_args *args = run->args;
    BdrvDirtyBitmap *bitmap;

    if (action->id == BITMAP_ADD) {
        bitmap = bdrv_bitmap_create(run->bs, args->name, args->granularity_bytes,
                                    BDRV_BITMAP_PERSISTENT, errp);
        return bitmap ? 0 : -EINVAL;
    }
    bitmap = find(run->bs, args->name, errp);
    if (!bitmap) {
        return -ENOENT;
    }
    switch (action->id) {
    case BITMAP_REMOVE:
        return bdrv_bitmap_remove(bitmap, errp);
    case BITMAP_CLEAR:
        return bdrv_bitmap_clear(bitmap, errp);
    case BITMAP_ENABLE:
        return bdrv_bitmap_enable(bitmap, errp);
    case BITMAP_DISABLE:
        return bdrv_bitmap_disable(bitmap, errp);
    default:
        return merge(bitmap, run->source, action->source, errp);
    }
}

static int act_all(struct cli *cli, const struct bitmap_run *run)
{
    const struct bitmap_args *args = run->args;
    Error *err = NULL;

    for (size_t i = 0; i < args->count; i++) {
        if (act(run, &args->actions[i], &err) < 0) {
            error_prepend(&err,
                          "Operation %s on bitmap %s failed: ", action_name(args->actions[i].id),
                          args->name);
            return cli_report(cli, err);
        }
    }
    if (bdrv_bitmaps_store(run->bs, &err) < 0) {
        return cli_report(cli, err);
    }
    return CLI_EXIT_OK;
}

static int bitmap_run(struct cli *cli, BlockBackend *blk, void *opaque)
{
    const struct bitmap_args *args = opaque;
    struct bitmap_run run = {.args = args, .bs = blk_bs(blk), .source = blk_bs(blk)};
    BlockBackend *source = NULL;
    int code;

    if (args->source.file) {
        source = disk_open(cli, blk_get_platter(blk), &args->source);
        if (!source) {
            return CLI_EXIT_FAILED;
        }
        run.source = blk_bs(source);
    }
    code = act_all(cli, &run);
    blk_unref(source);
    return code;
}

/* ---- the command line ---- */

static bool take_action(struct bitmap_args *args, int id, const struct cli_args *a)
{
    if (args->count == ACTIONS_MAX) {
        cli_usage_error(a->cli, "more than %d actions", ACTIONS_MAX);
        return false;
    }
    args->actions[args->count++] = (struct bitmap_action){.id = id, .source = a->value};
    return true;
}

/* How many there are is judged once it is known what is to be done. */
static void take_operand(struct bitmap_args *args, const struct cli_args *a)
{
    if (!args->disk.file) {
        args->disk.file = a->value;
    } else if (!args->name) {
        args->name = a->value;
    } else {
        args->extra = true;
    }
}

static bool bitmap_take(struct bitmap_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case BITMAP_ADD:
    case BITMAP_CLEAR:
    case BITMAP_DISABLE:
    case BITMAP_ENABLE:
    case BITMAP_MERGE:
    case BITMAP_REMOVE:
        return take_action(args, id, a);
    case BITMAP_GRANULARITY:
        return cli_stands_in(a->cli)
                   ? cli_size_value(a, "granularity", 0, INT64_MAX, &args->granularity_bytes)
                   : cli_size_value(a, "granularity", 0, GRANULARITY_MAX, &args->granularity_bytes);
    case BITMAP_SOURCE_FILE:
        args->source.file = a->value;
        return true;
    case BITMAP_SOURCE_FORMAT:
        disk_take_format(&args->source, a);
        return true;
    default:
        if (!disk_take_option(&args->disk, id, a)) {
            take_operand(args, a);
        }
        return true;
    }
}

static bool has_action(const struct bitmap_args *args, int id)
{
    for (size_t i = 0; i < args->count; i++) {
        if (args->actions[i].id == id) {
            return true;
        }
    }
    return false;
}

/* What does not fit together, or NULL. */
static const char *bitmap_misfit(const struct bitmap_args *args)
{
    if (args->count == 0) {
        return "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge";
    }
    if (args->granularity_bytes > 0 && !has_action(args, BITMAP_ADD)) {
        return "granularity only supported with --add";
    }
    if (args->source.file && !has_action(args, BITMAP_MERGE)) {
        return "Merge bitmap source file only supported with --merge";
    }
    if ((args->source.format || args->source.guess) && !args->source.file) {
        return "-F only supported with -b";
    }
    return args->disk.file && args->name && !args->extra ? NULL
                                                         : "Expecting filename and bitmap name";
}

static int bitmap_command(struct cli *cli, int argc, char **argv)
{
    struct bitmap_args args = {
        .disk = {.writable = true, .no_backing = true},
        .source = {.id = "source", .no_backing = true, .format_switch = "-F "},
    };
    struct cli_args a = cli_args_begin(cli, argc, argv);
    const char *misfit;
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !bitmap_take(&args, id, &a)) {
            return CLI_EXIT_USAGE;
        }
    }
    misfit = bitmap_misfit(&args);
    if (misfit) {
        return cli_misfit(cli, misfit);
    }
    if (!disk_args_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    return disk_run(cli, &args.disk, bitmap_run, &args);
}

const struct cli_command command_bitmap = {
    .name = "bitmap",
    .operands = "FILE BITMAP",
    .summary = "Make, change and remove persistent dirty bitmaps",
    .options = bitmap_options,
    .details = "The actions are done in the order they are given.\n"
               "\n"
               "Examples:\n"
               "  platter bitmap -f qcow2 --add disk.qcow2 since-monday\n"
               "  platter bitmap -f qcow2 --add --disable -g 4k disk.qcow2 weeks\n"
               "  platter bitmap -f qcow2 --merge since-monday disk.qcow2 weeks\n"
               "  platter bitmap -f qcow2 --clear disk.qcow2 since-monday\n",
    .run = bitmap_command,
};
