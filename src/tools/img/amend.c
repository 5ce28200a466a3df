/* SPDX-License-Identifier: MIT */
/* platter amend: change options of an image, in the words of `qemu-img amend`. */
#include <errno.h>
#include <string.h>

#include <platter/image.h>

#include "block/driver.h"
#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/job_run.h"
#include "tools/option_list.h"
#include "util/options.h"

enum amend_option {
    AMEND_FORCE = 1,
    AMEND_OPTIONS,
    AMEND_PROGRESS,
    AMEND_QUIET,
};

static const struct cli_option amend_options[] = {
    {AMEND_OPTIONS, 'o', "options", "OPTS", "KEY=VALUE,... of the format; '-o help' lists them"},
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_CACHE,
    {AMEND_FORCE, 0, "force", NULL, "also make changes that are not quite safe"},
    PROGRESS_ROW(AMEND_PROGRESS),
    {AMEND_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct amend_args {
    struct disk_args disk;
    struct option_list list;
    bool force;
    enum progress_form progress;
    bool quiet;
    struct job_run run;
};

/* NULL after printing. */
static const struct opts_key *amend_keys(struct cli *cli, const char *format)
{
    const BlockDriver *drv = bdrv_find_driver(format);

    if (!drv) {
        cli_error(cli, "Unknown file format '%s'", format);
        return NULL;
    }
    if (!drv->image || !drv->image->amend_co || !drv->image->amend_keys) {
        cli_error(cli, "Format driver '%s' does not support option amendment", format);
        return NULL;
    }
    return drv->image->amend_keys;
}

static int print_help(struct cli *cli, const char *format)
{
    const struct opts_key *keys = amend_keys(cli, format);

    if (!keys) {
        return CLI_EXIT_FAILED;
    }
    fprintf(cli->out, "Amend options for '%s':\n", format);
    option_list_print(cli->out, keys);
    return CLI_EXIT_OK;
}

/* Of each format that has any. */
static int print_help_of_all(struct cli *cli)
{
    int code = CLI_EXIT_OK;

    for (size_t i = 0; code == CLI_EXIT_OK && bdrv_drivers[i]; i++) {
        const struct bdrv_image_ops *image = bdrv_drivers[i]->image;

        if (image && image->amend_co && image->amend_keys) {
            code = print_help(cli, bdrv_drivers[i]->format_name);
        }
    }
    return code;
}

/* Whether all options are the format's own, if only when an image is made. */
static bool is_of_creation(struct cli *cli, const char *format, const struct option_list *list)
{
    const BlockDriver *file = bdrv_find_driver("file");
    struct option_list again = {.text = list->text};
    const char *key = NULL;
    bool is = option_list_judge(cli, &again, bdrv_find_driver(format)->create_keys, NULL) == 0;

    while (is && (key = block_options_next_key(again.options, key)) != NULL) {
        is = !file || strcmp(key, "size") == 0 || strcmp(key, "preallocation") == 0 ||
             !option_list_has_key(file->create_keys, key);
    }
    block_options_free(again.options);
    return is;
}

static int judge_options(struct cli *cli, const char *format, struct option_list *list)
{
    const struct opts_key *keys = amend_keys(cli, format);
    Error *err = NULL;
    int ret;

    if (!keys) {
        return CLI_EXIT_FAILED;
    }
    ret = option_list_judge(cli, list, keys, &err);
    if (ret < 0) {
        cli_report(cli, err);
    }
    if (ret == -ENOENT && is_of_creation(cli, format, list)) {
        fputs("This option is only supported for image creation\n", cli->err);
    }
    return ret < 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

static int amend_run(struct cli *cli, BlockBackend *blk, void *opaque)
{
    struct amend_args *args = opaque;
    BlockDriverState *bs = blk_bs(blk);
    struct job_start start = job_run_start(&args->run);
    BlockOptions *options;
    Error *err = NULL;
    int code;
    Job *job;

    if (args->list.help) {
        return print_help(cli, bdrv_get_format_name(bs));
    }
    code = judge_options(cli, bdrv_get_format_name(bs), &args->list);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (disk_allow_resize(blk, &err) < 0) {
        return cli_report(cli, err);
    }
    options = args->list.options;
    args->list.options = NULL; /* the job has them */
    job = job_amend_start(blk_get_platter(blk), &start, bs, options, args->force, &err);
    return job_run_wait(&args->run, job, err);
}

/* ---- arguments ---- */

/* CLI_EXIT_*, after printing. */
static int amend_take(void *opaque, int id, const struct cli_args *a)
{
    struct amend_args *args = opaque;

    switch (id) {
    case AMEND_FORCE:
        args->force = true;
        return CLI_EXIT_OK;
    case AMEND_OPTIONS:
        return option_list_add(a->cli, &args->list, a->value);
    case AMEND_PROGRESS:
        return progress_take(a, &args->progress);
    case AMEND_QUIET:
        args->quiet = true;
        return CLI_EXIT_OK;
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a)
                   ? CLI_EXIT_OK
                   : CLI_EXIT_USAGE;
    }
}

static int amend_start(struct cli *cli, struct amend_args *args)
{
    int code;

    if (args->list.help && args->disk.format) {
        return print_help(cli, args->disk.format);
    }
    if (args->list.help && !args->disk.file && !cli_stands_in(cli)) {
        return print_help_of_all(cli);
    }
    if (!args->list.help && !args->list.text) {
        return cli_usage_error(cli, "Must specify options (-o)");
    }
    if (args->disk.surplus || (!args->disk.file && cli_stands_in(cli))) {
        return cli_misfit(cli, "Expecting one image file name");
    }
    if (!disk_file_check(cli, &args->disk)) {
        return CLI_EXIT_USAGE;
    }
    if (!disk_args_check(cli, &args->disk)) {
        return CLI_EXIT_USAGE;
    }
    args->disk.writable = !args->list.help;
    job_run_begin(&args->run, cli,
                  args->list.help ? PROGRESS_NONE : progress_beside(args->progress, args->quiet));
    code = job_run_disk(&args->run, &args->disk, amend_run, args);
    job_run_leave(&args->run);
    return code;
}

static int amend_command(struct cli *cli, int argc, char **argv)
{
    struct amend_args args = {0};
    int code;

    if (cli_take_all(cli, argc, argv, amend_take, &args, &code)) {
        code = amend_start(cli, &args);
    }
    option_list_fini(&args.list);
    return code;
}

const struct cli_command command_amend = {
    .name = "amend",
    .operands = "-o OPTS FILE",
    .summary = "Change options of an image",
    .options = amend_options,
    .details = "Examples:\n"
               "  platter amend -f qcow2 -o help\n"
               "  platter amend -f qcow2 -o compat=1.1,lazy_refcounts=on disk.qcow2\n"
               "  platter amend -f qcow2 -p -o refcount_bits=64 disk.qcow2\n",
    .run = amend_command,
};
