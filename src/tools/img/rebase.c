/* SPDX-License-Identifier: MIT */
/*
 * platter rebase: put an image on another backing file, in the words of `qemu-img rebase`. The disk
 * reads the same afterwards: what would change is copied into the image first, made durable, and
 * then the header is changed. With -u only the header is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/chain.h"
#include "tools/job_run.h"
#include "util/mem.h"

enum rebase_option {
    REBASE_BACKING = 1,
    REBASE_BACKING_FORMAT,
    REBASE_PROGRESS,
    REBASE_QUIET,
    REBASE_SRC_CACHE,
    REBASE_UNSAFE,
};

static const struct cli_option rebase_options[] = {
    {REBASE_BACKING, 'b', "backing", "FILE", "the new backing file; '' for none"},
    {REBASE_BACKING_FORMAT, 'F', "backing-format", "FMT", "format of the new backing file"},
    {REBASE_BACKING_FORMAT, 'B', NULL, "FMT", "the same"},
    {REBASE_UNSAFE, 'u', "unsafe", NULL, "change the name only; nothing is looked at or copied"},
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_CACHE,
    {REBASE_SRC_CACHE, 'T', "src-cache", "MODE", "cache mode of the new backing file",
     .words = disk_cache_words},
    {DISK_OPTION_FORCE_SHARE, 'U', "force-share", NULL, "take no locks on the new backing file"},
    PROGRESS_ROW(REBASE_PROGRESS),
    {REBASE_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct rebase_args {
    struct disk_args disk;
    struct disk_args base; /* of the new backing file; base.file: as the image will name it */
    bool unsafe;
    enum progress_form progress;
    bool quiet;
};

struct rebase {
    struct cli *cli;
    const struct rebase_args *args;
    BlockBackend *blk;
    struct job_run *run;
    BlockBackend *base; /* counted, or NULL */
    int shared_depth;   /* as in struct job_rebase_options */
};

static bool has_base(const struct rebase_args *args)
{
    return args->base.file && args->base.file[0] != '\0';
}

static bool format_is_known(const char *name)
{
    const char *const *names = bdrv_list_formats();

    while (*names && strcmp(*names, name) != 0) {
        names++;
    }
    return *names != NULL;
}

/* The name of the new backing file cannot be any in this image. */
static int path_failed(struct rebase *r, Error *err)
{
    if (cli_stands_in(r->cli)) {
        error_free(err);
        return cli_error(r->cli,
                         "Could not resolve backing filename: Cannot use relative backing file "
                         "names for '%s'",
                         bdrv_get_filename(blk_bs(r->blk)));
    }
    return cli_report(r->cli, err);
}

/* The new backing file: a member of the old chain, or opened. CLI_EXIT_OK or after printing. */
static int base_open(struct rebase *r)
{
    struct cli *cli = r->cli;
    BlockDriverState *bs = blk_bs(r->blk);
    Platter *pl = blk_get_platter(r->blk);
    struct disk_args args = r->args->base;
    Error *err = NULL;
    AUTO_FREE char *path = bdrv_get_backing_path(bs, args.file, &err);
    BlockDriverState *member;
    unsigned depth;

    if (!path) {
        return path_failed(r, err);
    }
    member = chain_find(bs, path, &depth);
    if (member && (!args.format || strcmp(bdrv_get_format_name(member), args.format) == 0)) {
        r->base = chain_reader(pl, member, "base", &err);
        r->shared_depth = (int)depth + 1;
        return r->base ? CLI_EXIT_OK : cli_report(cli, err);
    }
    args.told_as = args.file;
    args.file = path;
    args.id = "base";
    args.open_failed = "Could not open new backing file ";
    r->base = disk_open(cli, pl, &args);
    if (!r->base && !cli_stands_in(cli)) {
        cli_error(cli, "Could not open new backing file '%s'", args.file);
    }
    return r->base ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

static int rebase_job(struct rebase *r)
{
    struct job_start start = job_run_start(r->run);
    struct job_rebase_options options = {
        .size = sizeof(options),
        .overlay = r->blk,
        .base = r->base,
        .shared_depth = r->shared_depth,
        .backing_file = has_base(r->args) ? r->args->base.file : NULL,
        .backing_format = has_base(r->args) ? r->args->base.format : NULL,
        .unsafe = r->args->unsafe,
    };
    Error *err = NULL;
    Job *job = job_rebase_start(blk_get_platter(r->blk), &start, &options, &err);

    return job_run_wait(r->run, job, err);
}

static int rebase_run(struct cli *cli, BlockBackend *blk, void *opaque)
{
    struct rebase *r = opaque;
    const struct rebase_args *args = r->args;
    int code = CLI_EXIT_OK;

    r->blk = blk;
    if (args->base.format && !format_is_known(args->base.format)) {
        return cli_error(cli, "Invalid format name: '%s'", args->base.format);
    }
    if (has_base(args) && !args->unsafe && cli_stands_in(cli)) {
        code = base_open(r); /* the reference looks there first */
    }
    if (code == CLI_EXIT_OK && has_base(args) && !args->base.format) {
        code = cli_error(cli,
                         "Could not change the backing file to '%s': backing format must be "
                         "specified",
                         args->base.file);
    }
    if (code == CLI_EXIT_OK && has_base(args) && !args->unsafe && !r->base) {
        code = base_open(r);
    }
    if (code == CLI_EXIT_OK) {
        code = rebase_job(r);
    }
    blk_unref(r->base);
    return code;
}

static int rebase_image(struct cli *cli, const struct rebase_args *args)
{
    struct job_run run;
    struct rebase r = {.cli = cli, .args = args, .run = &run};
    int code;

    job_run_begin(&run, cli, progress_beside(args->progress, args->quiet));
    code = job_run_disk(&run, &args->disk, rebase_run, &r);
    job_run_leave(&run);
    return code;
}

/* ---- arguments ---- */

static bool rebase_take(struct rebase_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case REBASE_BACKING:
        args->base.file = a->value;
        return true;
    case REBASE_BACKING_FORMAT:
        args->base.format = a->value;
        return true;
    case REBASE_PROGRESS:
        return progress_take(a, &args->progress) == CLI_EXIT_OK;
    case REBASE_QUIET:
        args->quiet = true;
        return true;
    case REBASE_SRC_CACHE:
        args->base.cache = a->value;
        return true;
    case REBASE_UNSAFE:
        args->unsafe = true;
        return true;
    case DISK_OPTION_FORCE_SHARE:
        args->base.force_share = true;
        return true;
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a);
    }
}

static int rebase_command(struct cli *cli, int argc, char **argv)
{
    struct rebase_args args = {.disk = {.writable = true, .exclusive = true},
                               .base = {.cache_of_source = true}};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !rebase_take(&args, id, &a)) {
            return CLI_EXIT_USAGE;
        }
    }
    if (!disk_file_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    if (!args.base.file && !args.unsafe) {
        return cli_usage_error(cli, "Must specify backing file (-b) or use unsafe mode (-u)");
    }
    if (!disk_words_check(cli, &args.disk) || !disk_args_check(cli, &args.base) ||
        !disk_args_check(cli, &args.disk)) { /* the words of both before what excludes what */
        return CLI_EXIT_USAGE;
    }
    args.disk.no_backing = args.unsafe;
    return rebase_image(cli, &args);
}

const struct cli_command command_rebase = {
    .name = "rebase",
    .operands = "FILE",
    .summary = "Put an image on another backing file",
    .options = rebase_options,
    .details =
        "The disk reads the same afterwards, except with -u, which is for a backing file that\n"
        "was moved or renamed.\n\n"
        "Examples:\n"
        "  platter rebase -f qcow2 -b newer.qcow2 -F qcow2 overlay.qcow2\n"
        "  platter rebase -f qcow2 -b '' overlay.qcow2\n"
        "  platter rebase -f qcow2 -u -b moved/base.img -F raw overlay.qcow2\n",
    .run = rebase_command,
};
