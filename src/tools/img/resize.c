/* SPDX-License-Identifier: MIT */
/* platter resize: another size for a disk, in the words of `qemu-img resize`. */
#include <errno.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "util/size.h"

enum resize_option {
    RESIZE_PREALLOCATION = 1,
    RESIZE_QUIET,
    RESIZE_SHRINK,
};

static const struct cli_option resize_options[] = {
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    {RESIZE_PREALLOCATION, 0, "preallocation", "MODE",
     "of what is added: off, metadata, falloc, full", .words = disk_prealloc_words},
    {RESIZE_SHRINK, 0, "shrink", NULL, "the disk may become smaller, and lose what was behind"},
    {RESIZE_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct resize_args {
    struct disk_args disk;
    const char *size;
    int relative;   /* 0, +1, -1 */
    uint64_t bytes; /* what size says, without its sign */
    enum bdrv_prealloc prealloc;
    bool quiet;
    bool shrink;
};

/* The new size, > 0. CLI_EXIT_*, after printing. */
static int new_size(struct cli *cli, const struct resize_args *args, int64_t old_bytes,
                    int64_t *ret_bytes)
{
    int64_t bytes = (int64_t)args->bytes; /* at most INT64_MAX */

    if ((args->relative > 0 && __builtin_add_overflow(old_bytes, bytes, &bytes)) ||
        (args->relative < 0 && __builtin_sub_overflow(old_bytes, bytes, &bytes)) || bytes <= 0) {
        return cli_error(cli, "New image size must be positive");
    }
    *ret_bytes = bytes;
    return CLI_EXIT_OK;
}

static int check_shrink(struct cli *cli, const struct resize_args *args)
{
    if (args->shrink) {
        return CLI_EXIT_OK;
    }
    cli_error(cli, "Use the --shrink option to perform a shrink operation.");
    cli_warning(cli, "Shrinking an image will delete all data beyond the shrunken image's end. "
                     "Before performing such an operation, make sure there is no important data "
                     "there.");
    return CLI_EXIT_FAILED;
}

static int resize_run(struct cli *cli, BlockBackend *blk, void *opaque)
{
    const struct resize_args *args = opaque;
    int64_t old_bytes = blk_getlength(blk);
    int64_t bytes = 0;
    Error *err = NULL;
    int code = old_bytes < 0 ? cli_error(cli, "'%s' does not tell its size: %s", args->disk.file,
                                         strerror((int)-old_bytes))
                             : new_size(cli, args, old_bytes, &bytes);
    int ret;

    if (code == CLI_EXIT_OK && bytes <= old_bytes && args->prealloc != BDRV_PREALLOC_OFF) {
        return cli_error(cli, "Preallocation can only be used for growing images");
    }
    if (code == CLI_EXIT_OK && bytes < old_bytes) {
        code = check_shrink(cli, args);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    ret = disk_allow_resize(blk, &err);
    if (ret == 0) {
        ret = blk_resize(blk, bytes, true, args->prealloc, &err);
    }
    if (ret < 0) {
        return cli_report(cli, err);
    }
    if (!args->quiet) {
        fputs("Image resized.\n", cli->out);
    }
    return CLI_EXIT_OK;
}

/* ---- arguments ---- */

static bool resize_prealloc(struct resize_args *args, const struct cli_args *a)
{
    if (!disk_prealloc_parse(a->value, &args->prealloc)) {
        cli_error(a->cli, "Invalid preallocation mode '%s'", a->value);
        a->cli->usage_told = true;
        return false;
    }
    return true;
}

static bool resize_operand(struct resize_args *args, const struct cli_args *a)
{
    if (!args->disk.file) {
        args->disk.file = a->value;
        return true;
    }
    if (cli_stands_in(a->cli)) {
        args->disk.surplus = true; /* told behind the options */
        return true;
    }
    if (args->size) {
        cli_usage_error(a->cli, "FILE and SIZE are wanted, '%s' is too much", a->value);
        return false;
    }
    args->size = a->value;
    return true;
}

static bool resize_take(struct resize_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case RESIZE_PREALLOCATION:
        return resize_prealloc(args, a);
    case RESIZE_QUIET:
        args->quiet = true;
        return true;
    case RESIZE_SHRINK:
        args->shrink = true;
        return true;
    default:
        return disk_take_option(&args->disk, id, a) || resize_operand(args, a);
    }
}

static int resize_size(struct cli *cli, struct resize_args *args)
{
    const char *text = args->size;
    Error *err = NULL;

    if (!args->disk.file || !text || args->disk.surplus) {
        return cli_usage_error(cli, cli_stands_in(cli) ? "Expecting image file name and size"
                                                       : "FILE and SIZE are wanted");
    }
    args->relative = *text == '+' ? 1 : *text == '-' ? -1 : 0;
    text += args->relative != 0;
    if ((cli_stands_in(cli) ? cli_size_of_parameter(cli, text, "size", &args->bytes, &err)
                            : size_parse(text, 'b', "size", &args->bytes, &err)) < 0) {
        cli_report(cli, err);
        cli->usage_told = true;
        return CLI_EXIT_USAGE;
    }
    return disk_args_check(cli, &args->disk) ? CLI_EXIT_OK : CLI_EXIT_USAGE;
}

static int resize_command(struct cli *cli, int argc, char **argv)
{
    struct resize_args args = {.disk = {.writable = true, .exclusive = true}};
    bool asks = argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    bool size_is_last = cli_stands_in(cli) && !asks; /* whatever it looks like */
    struct cli_args a = cli_args_begin(cli, argc - size_is_last, argv);
    int code;
    int id;

    if (size_is_last && argc < 3) {
        return cli_usage_error(cli, "Not enough arguments");
    }
    if (size_is_last) {
        args.size = argv[argc - 1];
    }
    a.signed_operands = !size_is_last;
    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !resize_take(&args, id, &a)) {
            return CLI_EXIT_USAGE;
        }
    }
    code = resize_size(cli, &args);
    return code == CLI_EXIT_OK ? disk_run(cli, &args.disk, resize_run, &args) : code;
}

const struct cli_command command_resize = {
    .name = "resize",
    .operands = "FILE [+|-]SIZE",
    .summary = "Make a disk larger or smaller",
    .options = resize_options,
    .details =
        "With a sign the size changes by SIZE. Shrink the file systems on the disk first.\n\n"
        "Examples:\n"
        "  platter resize -f qcow2 disk.qcow2 20G\n"
        "  platter resize -f qcow2 --preallocation=falloc disk.qcow2 +5G\n"
        "  platter resize --shrink -f raw disk.img -1G\n",
    .run = resize_command,
};
