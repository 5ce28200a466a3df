/* SPDX-License-Identifier: MIT */
/* platter create: make an empty disk. An existing file is replaced, as `qemu-img create` does. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/driver.h"
#include "schema/opts.h"
#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/formatting.h"
#include "tools/job_run.h"
#include "tools/option_list.h"
#include "util/error.h"
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
    const char *backing;        /* borrowed; NULL: none */
    const char *backing_format; /* borrowed; NULL: not given */
    struct option_list list;
    bool quiet;
    bool unsafe;
    struct job_run run;
};

/* NULL after printing. */
static const BlockDriver *known_driver(struct cli *cli, const char *file, const char *format)
{
    const BlockDriver *drv = bdrv_find_driver(format);

    if (!drv && cli_stands_in(cli)) {
        cli_error(cli, "%s%sUnknown file format '%s'", file ? file : "", file ? ": " : "", format);
    } else if (!drv) {
        cli_error(cli, "no format '%s'", format);
        fputs("This build has:", cli->err);
        for (size_t i = 0; bdrv_drivers[i]; i++) {
            fprintf(cli->err, " %s", bdrv_drivers[i]->format_name);
        }
        fputc('\n', cli->err);
    }
    return drv;
}

static int print_option_list(struct cli *cli, const char *file, const char *format)
{
    const BlockDriver *drv = known_driver(cli, NULL, format);

    if (!drv) {
        return CLI_EXIT_FAILED;
    }
    if (!drv->create) {
        return cli_error(cli, "Format driver '%s' does not support image creation", format);
    }
    option_list_print_create(cli->out, drv, file != NULL);
    return CLI_EXIT_OK;
}

/* ---- backing file ---- */

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
        if (block_options_has(args->list.options, both[i].key)) {
            return cli_usage_error(cli, "the backing file is given twice: '%s' and %s=...",
                                   both[i].given, both[i].key);
        }
        if (block_options_set_str(args->list.options, both[i].key, both[i].given) < 0) {
            return cli_error(cli, "out of memory");
        }
    }
    args->backing = block_options_get_str(args->list.options, "backing_file");
    args->backing_format = block_options_get_str(args->list.options, "backing_fmt");
    if (args->backing && strcmp(args->backing, args->file) == 0) {
        return cli_error(cli, "'%s' cannot be its own backing file", args->file);
    }
    return CLI_EXIT_OK;
}

/* Open it to see that it can be, and how large its disk is. CLI_EXIT_*. */
static int look_at_backing(struct cli *cli, Platter *pl, const struct create_args *args,
                           uint64_t *ret_bytes)
{
    char *path = name_beside(args->file, args->backing);
    BlockOptions *options = block_options_new();
    BlockDriverState *bs = NULL;
    Error *err = NULL;
    int64_t bytes = -1;

    if (!path || !options || block_options_set_str(options, "driver", args->backing_format) < 0) {
        error_set(&err, ENOMEM, "out of memory");
        block_options_free(options);
    } else {
        bs = bdrv_open(pl, path, NULL, options, BDRV_O_NO_IO | BDRV_O_NO_BACKING, &err);
    }
    if (bs) {
        bytes = bdrv_getlength(bs);
        if (bytes < 0) {
            error_set_errno(&err, (int)-bytes, "'%s' does not tell its size", path);
        }
    }
    error_prepend(&err, "Could not open the backing file: ");
    bdrv_unref(bs);
    free(path);
    if (bytes < 0) {
        return cli_report(cli, err);
    }
    *ret_bytes = (uint64_t)bytes;
    return CLI_EXIT_OK;
}

/* ---- size ---- */

/* Take the size from the operand or from -o size=, once, else from the backing file. */
static int settle_size(struct cli *cli, Platter *pl, struct create_args *args, uint64_t *ret_bytes)
{
    const char *in_options = block_options_get_str(args->list.options, "size");
    const char *text = args->size ? args->size : in_options;
    bool looks = args->backing && args->backing_format && !args->unsafe;
    Error *err = NULL;
    uint64_t below = 0;
    int code;

    if (args->size && in_options) {
        return cli_usage_error(cli, "the size is given twice: '%s' and size=%s", args->size,
                               in_options);
    }
    if (text && size_parse(text, 'b', "size", ret_bytes, &err) < 0) {
        cli_report(cli, err);
        return CLI_EXIT_USAGE;
    }
    if (!text && args->backing && !args->backing_format) {
        return cli_error(cli, "Backing file specified without backing format");
    }
    if (!text && !looks && cli_stands_in(cli)) {
        return cli_error(cli, "%s: Image creation needs a size parameter", args->file);
    }
    if (!text && !looks) {
        return cli_usage_error(cli, "'%s' needs a size, like 10G", args->file);
    }
    code = looks ? look_at_backing(cli, pl, args, &below) : CLI_EXIT_OK;
    if (code == CLI_EXIT_OK && !text) {
        *ret_bytes = below;
    }
    block_options_del(args->list.options, "size");
    return code;
}

/* ---- making it ---- */

/* A bad option is told before anything is said or done. */
static int check_options(struct cli *cli, const struct create_args *args)
{
    const BlockDriver *drv = known_driver(cli, args->file, args->format);
    BlockOptions *copy = block_options_copy(args->list.options);
    const char *key = NULL;
    struct opts_create_raw opts;
    Error *err = NULL;
    int ret = 0;

    while (drv && copy && drv->create_keys && ret == 0 &&
           (key = block_options_next_key(copy, key)) != NULL) {
        if (!option_list_has_key(drv->create_keys, key)) {
            ret = error_set(&err, EINVAL, "Creating with driver '%s' takes no option '%s'",
                            args->format, key);
        }
    }
    if (!copy) {
        ret = error_set(&err, ENOMEM, "out of memory");
    } else if (drv && ret == 0 && strcmp(args->format, "raw") == 0) {
        if (block_options_set_u64(copy, "size", 0) == 0) {
            ret = opts_create_raw_parse(copy, &opts, &err);
        }
        if (ret == 0) {
            opts_create_raw_fini(&opts);
        }
    }
    block_options_free(copy);
    if (ret < 0) {
        cli_report(cli, err);
        return CLI_EXIT_USAGE;
    }
    return drv ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

static int create_on(struct cli *cli, Platter *pl, struct create_args *args)
{
    uint64_t size_bytes = 0;
    struct job_start start = job_run_start(&args->run);
    BlockOptions *options = args->list.options;
    Error *err = NULL;
    int code = settle_size(cli, pl, args, &size_bytes);
    Job *job = NULL;

    if (code == CLI_EXIT_OK) {
        code = check_options(cli, args);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (!args->quiet) {
        formatting_print(cli, args->file, args->format, size_bytes, args->list.options);
    }
    if (block_options_set_str(args->list.options, "driver", args->format) < 0 ||
        block_options_set_u64(args->list.options, "size", size_bytes) < 0) {
        error_set(&err, ENOMEM, "out of memory");
    } else {
        args->list.options = NULL; /* the job has them */
        job = job_create_start(pl, &start, args->file, NULL, options, &err);
    }
    return job_run_wait(&args->run, job, err);
}

static int create_run(struct cli *cli, struct create_args *args)
{
    int code = settle_backing(cli, args);
    Platter *pl;

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
    if (args->file && args->size) {
        return cli_usage_error(a->cli, "FILE and SIZE are wanted, '%s' is too much", value);
    }
    *(args->file ? &args->size : &args->file) = value;
    return CLI_EXIT_OK;
}

static int create_start(struct cli *cli, struct create_args *args)
{
    if (args->list.help) {
        return print_option_list(cli, args->file, args->format);
    }
    if (!args->file) {
        return cli_usage_error(cli,
                               cli_stands_in(cli) ? "Expecting image file name" : "which FILE?");
    }
    if (!args->list.options) {
        args->list.options = block_options_new();
    }
    return args->list.options ? create_run(cli, args) : cli_error(cli, "out of memory");
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
