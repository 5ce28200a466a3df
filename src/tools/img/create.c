/* SPDX-License-Identifier: MIT */
/* platter create: make an empty disk. An existing file is replaced, as `qemu-img create` does. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/driver.h"
#include "control/image_info.h"
#include "schema/opts.h"
#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/chain.h"
#include "tools/img/formatting.h"
#include "tools/job_run.h"
#include "tools/option_list.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/name_beside.h"
#include "util/options.h"
#include "util/size.h"

enum create_option {
    CREATE_BACKING = 1,
    CREATE_BACKING_FORMAT,
    CREATE_FORMAT,
    CREATE_OPTIONS,
    CREATE_QUIET,
    CREATE_UNSAFE,
};

static const struct cli_option create_options[] = {
    {CREATE_FORMAT, 'f', "format", "FMT", "format of the disk; raw when not given"},
    {CREATE_OPTIONS, 'o', "options", "OPTS", "KEY=VALUE,... of the format; '-o help' lists them"},
    {CREATE_BACKING, 'b', "backing", "FILE", "what the new disk shows where nothing is written"},
    {CREATE_BACKING_FORMAT, 'F', "backing-format", "FMT", "format of that file"},
    {CREATE_UNSAFE, 'u', "unsafe", NULL, "do not look at the backing file"},
    {CREATE_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROW_OBJECT,
    {0},
};

struct create_args {
    struct disk_args disk; /* what images may name is not asked: of the options that all share */
    const char *format;
    const char *file;
    const char *size;
    const char *extra; /* the first operand behind those; NULL: none */
    uint64_t size_bytes;
    const char *backing;        /* borrowed; NULL: none */
    const char *backing_format; /* borrowed; NULL: not given */
    struct option_list list;
    bool quiet;
    bool unsafe;
    struct job_run run;
};

static int unknown_format(struct cli *cli, const char *format)
{
    cli_error(cli, "no format '%s'", format);
    fputs("This build has:", cli->err);
    for (size_t i = 0; bdrv_drivers[i]; i++) {
        fprintf(cli->err, " %s", bdrv_drivers[i]->format_name);
    }
    fputc('\n', cli->err);
    return CLI_EXIT_FAILED;
}

/* NULL after printing why no image can be made; tells_file: the message begins with the file. */
static const BlockDriver *maker(struct cli *cli, const struct create_args *args, bool tells_file)
{
    Error *err = NULL;
    const BlockDriver *drv;

    if (!bdrv_find_driver(args->format) && !cli_stands_in(cli)) {
        unknown_format(cli, args->format);
        return NULL;
    }
    drv = option_list_maker(args->format, args->file, &err);
    if (!drv) {
        if (tells_file && cli_stands_in(cli)) {
            error_prepend(&err, "%s: ", args->file);
        }
        cli_report(cli, err);
    }
    return drv;
}

static int print_option_list(struct cli *cli, const struct create_args *args)
{
    const BlockDriver *drv = maker(cli, args, false);

    if (!drv) {
        return CLI_EXIT_FAILED;
    }
    option_list_print_create(cli->out, drv, args->file);
    return CLI_EXIT_OK;
}

/* ---- backing file ---- */

/* The reference compares the words, and makes an image over itself where they differ. */
static int check_own_backing(struct cli *cli, const char *file, const char *backing)
{
    AUTO_FREE char *path = NULL;

    if (cli_stands_in(cli)) {
        return strcmp(backing, file) != 0
                   ? CLI_EXIT_OK
                   : cli_error(cli,
                               "%s: Error: Trying to create an image with the same filename as the "
                               "backing file",
                               file);
    }
    path = name_beside(file, backing);
    if (!path) {
        return cli_error(cli, "out of memory");
    }
    return strcmp(path, file) == 0 || chain_same_file(path, file)
               ? cli_error(cli, "'%s' cannot be its own backing file", file)
               : CLI_EXIT_OK;
}

/* Nor may it be further down in the chain: the images above it would stand on themselves. The
 * reference makes that. */
static int check_own_chain(struct cli *cli, Platter *pl, const struct create_args *args)
{
    AUTO_FREE char *path = NULL;

    if (!args->backing || args->unsafe || cli_stands_in(cli)) {
        return CLI_EXIT_OK;
    }
    path = name_beside(args->file, args->backing);
    if (!path) {
        return cli_error(cli, "out of memory");
    }
    return chain_named_has_file(pl, path, args->backing_format, args->file)
               ? cli_error(cli, "'%s' belongs to the backing chain of '%s', which needs it",
                           args->file, path)
               : CLI_EXIT_OK;
}

/* -b and -F are backing_file and backing_fmt of -o. */
static int settle_backing(struct cli *cli, struct create_args *args)
{
    const struct {
        const char *given, *key;
    } both[] = {{args->backing, "backing_file"}, {args->backing_format, "backing_fmt"}};

    for (size_t i = 0; i < sizeof(both) / sizeof(both[0]); i++) {
        if (!both[i].given) {
            continue;
        }
        if (block_options_has(args->list.options, both[i].key) && !cli_stands_in(cli)) {
            return cli_usage_error(cli, "the backing file is given twice: '%s' and %s=...",
                                   both[i].given, both[i].key);
        }
        if (block_options_set_str(args->list.options, both[i].key, both[i].given) < 0) {
            return cli_error(cli, "out of memory");
        }
    }
    args->backing = block_options_get_str(args->list.options, "backing_file");
    args->backing_format = block_options_get_str(args->list.options, "backing_fmt");
    if (args->backing && *args->backing == '\0' && cli_stands_in(cli)) {
        return cli_error(cli, "%s: Expected backing file name, got empty string", args->file);
    }
    return args->backing ? check_own_backing(cli, args->file, args->backing) : CLI_EXIT_OK;
}

/* Of a backing file that cannot be opened. */
static int backing_failed(struct cli *cli, const struct create_args *args, Error *err)
{
    if (!cli_stands_in(cli)) {
        error_prepend(&err, "Could not open the backing file: ");
        return cli_report(cli, err);
    }
    error_prepend(&err, "%s: ", args->file);
    cli_report(cli, err);
    fputs("Could not open backing image.\n", cli->err);
    return CLI_EXIT_FAILED;
}

static int no_backing_format(struct cli *cli, const struct create_args *args, const char *guessed)
{
    if (!cli_stands_in(cli)) {
        return cli_error(cli, "Backing file specified without backing format");
    }
    cli_error(cli, "%s: Backing file specified without backing format", args->file);
    if (guessed) {
        fprintf(cli->err, "Detected format of %s.", guessed); /* it ends no line either */
    }
    return CLI_EXIT_FAILED;
}

/* Open it to see that it can be, and how large its disk is, also while another process writes it:
 * that is how an overlay gets onto a running disk. The reference opens its chain too, and guesses a
 * format that was not given to tell it. CLI_EXIT_*. */
static int look_at_backing(struct cli *cli, Platter *pl, const struct create_args *args,
                           uint64_t *ret_bytes)
{
    char *path = name_beside(args->file, args->backing);
    BlockOptions *options = block_options_new();
    BlockDriverState *bs = NULL;
    Error *err = NULL;
    int64_t bytes = -1;
    int code = CLI_EXIT_OK;

    if (!path || !options || block_options_set_bool(options, "force-share", true) < 0 ||
        (args->backing_format &&
         block_options_set_str(options, "driver", args->backing_format) < 0)) {
        error_set(&err, ENOMEM, "out of memory");
        block_options_free(options);
    } else {
        bs = bdrv_open(pl, path, NULL, options,
                       cli_stands_in(cli) ? BDRV_O_NO_IO | BDRV_O_PROBE
                                          : BDRV_O_NO_IO | BDRV_O_NO_BACKING,
                       &err);
    }
    if (bs) {
        bytes = bdrv_getlength(bs);
        if (bytes < 0) {
            error_set_errno(&err, (int)-bytes, "'%s' does not tell its size", path);
        }
    }
    if (bytes < 0) {
        code = backing_failed(cli, args, err);
    } else if (!args->backing_format) {
        code = no_backing_format(cli, args, bdrv_get_format_name(bs));
    }
    bdrv_unref(bs);
    free(path);
    *ret_bytes = (uint64_t)(cli_stands_in(cli) ? image_whole_sectors(bytes) : bytes);
    return code;
}

/* ---- size ---- */

static int no_size(struct cli *cli, const struct create_args *args)
{
    return cli_stands_in(cli)
               ? cli_error(cli, "%s: Image creation needs a size parameter", args->file)
               : cli_usage_error(cli, "'%s' needs a size, like 10G", args->file);
}

/* -o size=; the operand is read already. CLI_EXIT_*. */
static int size_in_options(struct cli *cli, struct create_args *args, const char *text)
{
    Error *err = NULL;

    if (args->size && cli_stands_in(cli)) {
        return cli_error(cli, "%s: The image size must be specified only once", args->file);
    }
    if (args->size) {
        return cli_usage_error(cli, "the size is given twice: '%s' and size=%s", args->size, text);
    }
    if (size_parse(text, 'b', "size", &args->size_bytes, &err) < 0) {
        cli_report(cli, err);
        return CLI_EXIT_USAGE;
    }
    return CLI_EXIT_OK;
}

/* Take the size from the operand or from -o size=, once, else from the backing file. */
static int settle_size(struct cli *cli, Platter *pl, struct create_args *args)
{
    const char *in_options = block_options_get_str(args->list.options, "size");
    const bool given = args->size || in_options;
    const bool looks =
        args->backing && !args->unsafe && (args->backing_format || cli_stands_in(cli));
    uint64_t below = 0;
    int code = CLI_EXIT_OK;

    if (in_options) {
        code = size_in_options(cli, args, in_options);
    } else if (!given && !looks) {
        code = args->backing && !args->backing_format ? no_backing_format(cli, args, NULL)
                                                      : no_size(cli, args);
    }
    if (code == CLI_EXIT_OK && looks) {
        code = look_at_backing(cli, pl, args, &below);
    } else if (code == CLI_EXIT_OK && args->backing && !args->backing_format &&
               cli_stands_in(cli)) {
        code = no_backing_format(cli, args, NULL);
    }
    if (code == CLI_EXIT_OK && !given) {
        args->size_bytes = below;
    }
    block_options_del(args->list.options, "size");
    return code;
}

/* ---- making it ---- */

/* A bad option is told before anything is said or done: 0 or -errno with errp. */
static int check_options(struct cli *cli, struct create_args *args, const BlockDriver *drv,
                         Error **errp)
{
    BlockOptions *copy;
    struct opts_create_raw opts;
    int ret = option_list_judge(cli, &args->list, drv->create_keys, errp);

    /* The reference finds out about raw's words when it begins. */
    if (ret < 0 || cli_stands_in(cli) || strcmp(args->format, "raw") != 0) {
        return ret;
    }
    copy = block_options_copy(args->list.options);
    if (!copy || block_options_set_u64(copy, "size", 0) < 0) {
        ret = error_set(errp, ENOMEM, "out of memory");
    } else {
        ret = opts_create_raw_parse(copy, &opts, errp);
    }
    if (ret == 0) {
        opts_create_raw_fini(&opts);
    }
    block_options_free(copy);
    return ret;
}

/* Whether the format takes a backing file, as -b or -F want. */
static int check_backing(const struct create_args *args, const BlockDriver *drv, Error **errp)
{
    if (args->backing && !option_list_has_key(drv->create_keys, "backing_file")) {
        return error_set(errp, EINVAL, "Backing file not supported for file format '%s'",
                         args->format);
    }
    if (args->backing_format && !option_list_has_key(drv->create_keys, "backing_fmt")) {
        return error_set(errp, EINVAL, "Backing file format not supported for file format '%s'",
                         args->format);
    }
    return 0;
}

/* The format and the options, before there is an instance. CLI_EXIT_*, after printing. */
static int check_format(struct cli *cli, struct create_args *args)
{
    const BlockDriver *drv = maker(cli, args, true);
    Error *err = NULL;
    int ret;

    if (!drv) {
        return CLI_EXIT_FAILED;
    }
    ret = check_options(cli, args, drv, &err);
    ret = ret < 0 ? ret : check_backing(args, drv, &err);
    if (ret < 0 && cli_stands_in(cli)) {
        error_prepend(&err, "%s: ", args->file);
        return cli_report(cli, err);
    }
    if (ret < 0) {
        cli_report(cli, err);
        return CLI_EXIT_USAGE;
    }
    return CLI_EXIT_OK;
}

/* What the reference says of any file that cannot be so large; err is of a creation that failed
 * with ret. */
static void tell_size(struct cli *cli, const struct create_args *args, int ret, Error **err)
{
    const BlockDriver *drv = bdrv_find_driver(args->format);

    if (ret != -EFBIG || !cli_stands_in(cli)) {
        return;
    }
    error_free(*err);
    *err = NULL;
    error_set(err, EFBIG, "The image size is too large for file format '%s'%s", args->format,
              option_list_has_key(drv->create_keys, "cluster_size")
                  ? " (try using a larger cluster size)"
                  : "");
}

static int create_on(struct cli *cli, Platter *pl, struct create_args *args)
{
    struct job_start start = job_run_start(&args->run);
    BlockOptions *options = args->list.options;
    Error *err = NULL;
    int code = settle_size(cli, pl, args);
    Job *job = NULL;
    int ret;

    if (code == CLI_EXIT_OK) {
        code = check_own_chain(cli, pl, args);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (!args->quiet) {
        formatting_print(cli, args->file, args->format, args->size_bytes, args->list.options);
    }
    if (cli_stands_in(cli)) {
        args->size_bytes = (uint64_t)image_whole_sectors((int64_t)args->size_bytes);
    }
    if (block_options_set_str(args->list.options, "driver", args->format) < 0 ||
        block_options_set_u64(args->list.options, "size", args->size_bytes) < 0) {
        error_set(&err, ENOMEM, "out of memory");
    } else {
        args->list.options = NULL; /* the job has them */
        job = job_create_start(pl, &start, args->file, NULL, options, &err);
    }
    ret = job_run_to_end(&args->run, job, &err);
    if (ret >= 0) {
        return CLI_EXIT_OK;
    }
    tell_size(cli, args, ret, &err);
    if (cli_stands_in(cli)) {
        error_prepend(&err, "%s: ", args->file);
    }
    return cli_report(cli, err);
}

static int create_run(struct cli *cli, struct create_args *args)
{
    int code = check_format(cli, args);
    Platter *pl;

    if (code == CLI_EXIT_OK) {
        code = settle_backing(cli, args);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    job_run_begin(&args->run, cli, false);
    pl = disk_platter_new(cli, NULL);
    code = pl ? job_run_watch(&args->run, pl) : CLI_EXIT_FAILED;
    if (code == CLI_EXIT_OK) {
        code = create_on(cli, pl, args);
    }
    job_run_end(&args->run, code);
    platter_free(pl);
    job_run_leave(&args->run);
    return code;
}

/* CLI_EXIT_*, after printing. */
static int create_take(void *opaque, int id, const struct cli_args *a)
{
    struct create_args *args = opaque;
    const char *value = a->value;

    switch (id) {
    case CREATE_BACKING:
        args->backing = value;
        return CLI_EXIT_OK;
    case CREATE_BACKING_FORMAT:
        args->backing_format = value;
        return CLI_EXIT_OK;
    case CREATE_FORMAT:
        args->format = value;
        return CLI_EXIT_OK;
    case CREATE_OPTIONS:
        return option_list_add(a->cli, &args->list, value);
    case CREATE_QUIET:
        args->quiet = true;
        return CLI_EXIT_OK;
    case CREATE_UNSAFE:
        args->unsafe = true;
        return CLI_EXIT_OK;
    default:
        break;
    }
    if (disk_take_option(&args->disk, id, a)) {
        return CLI_EXIT_OK;
    }
    if (!args->file) {
        args->file = value;
    } else if (!args->size) {
        args->size = value;
    } else if (!args->extra) { /* told when the rest was looked at */
        args->extra = value;
    }
    return CLI_EXIT_OK;
}

static int create_start(struct cli *cli, struct create_args *args)
{
    if (args->list.help) {
        return print_option_list(cli, args);
    }
    if (!args->file) {
        return cli_usage_error(cli,
                               cli_stands_in(cli) ? "Expecting image file name" : "which FILE?");
    }
    if (args->size &&
        !cli_parse_size(cli, args->size, "image size", "size", INT64_MAX, &args->size_bytes)) {
        return CLI_EXIT_USAGE;
    }
    if (args->extra) {
        return cli_usage_error(cli,
                               cli_stands_in(cli) ? "Unexpected argument: %s"
                                                  : "FILE and SIZE are wanted, '%s' is too much",
                               args->extra);
    }
    return create_run(cli, args);
}

static int create_command(struct cli *cli, int argc, char **argv)
{
    struct create_args args = {.format = "raw"};
    int code;

    if (cli_take_all(cli, argc, argv, create_take, &args, &code)) {
        code = create_start(cli, &args);
    }
    option_list_fini(&args.list);
    return code;
}

const struct cli_command command_create = {
    .name = "create",
    .operands = "FILE [SIZE]",
    .summary = "Make an empty disk",
    .options = create_options,
    .details = "An existing FILE is replaced. SIZE takes the suffixes k, M, G, T, P, E.\n\n"
               "Examples:\n"
               "  platter create disk.img 10G\n"
               "  platter create -f raw -o preallocation=falloc disk.img 10G\n"
               "  platter create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n",
    .run = create_command,
};
