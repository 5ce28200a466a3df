/* SPDX-License-Identifier: MIT */
/*
 * platter commit: write what an image holds into a file that it stands on, in the words of
 * `qemu-img commit`. Without -b that is its backing file, and the image is emptied afterwards.
 *
 * The chain is opened once as a whole to find its members, as the policy on what images name wants
 * it, and then one by one by the names that were found: each layer alone, and the base writable.
 * The work is a job (platter/jobs.h).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/chain.h"
#include "tools/job_run.h"
#include "util/error.h"
#include "util/size.h"

enum commit_option {
    COMMIT_BASE = 1,
    COMMIT_KEEP,
    COMMIT_PROGRESS,
    COMMIT_QUIET,
    COMMIT_RATE,
};

static const struct cli_option commit_options[] = {
    {COMMIT_BASE, 'b', "base", "FILE", "commit down to this member of the chain; implies -d"},
    {COMMIT_KEEP, 'd', "keep", NULL, "leave what was committed in the image, too"},
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_CACHE,
    {COMMIT_RATE, 'r', "rate-limit", "RATE", "write no more bytes than this in a second"},
    PROGRESS_ROW(COMMIT_PROGRESS),
    {COMMIT_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct commit_args {
    struct disk_args disk;
    const char *base;
    uint64_t bytes_per_s;
    bool keep;
    enum progress_form progress;
    bool quiet;
};

/* A member of the chain, the uppermost first; the last is the base. */
struct member {
    char *file; /* owned */
    const char *format;
    BlockBackend *blk; /* counted, or NULL */
};

struct commit {
    struct cli *cli;
    const struct commit_args *args;
    Platter *pl;
    struct member *members; /* owned */
    unsigned count;
    struct job_run run;
};

/* ---- who is in the chain ---- */

static int members_add(struct commit *c, BlockDriverState *bs)
{
    struct member *members = realloc(c->members, (c->count + 1) * sizeof(*members));
    char *file = strdup(bdrv_get_filename(bs));

    if (members) {
        c->members = members;
    }
    if (!members || !file) {
        free(file);
        return cli_error(c->cli, "out of memory");
    }
    members[c->count++] = (struct member){.file = file, .format = bdrv_get_format_name(bs)};
    return CLI_EXIT_OK;
}

static int members_find(struct commit *c, BlockDriverState *bs)
{
    BlockDriverState *base = chain_below(bs);
    int code = CLI_EXIT_OK;

    if (!base && !c->args->base) {
        return cli_error(c->cli, "Image does not have a backing file");
    }
    if (c->args->base) {
        base = cli_stands_in(c->cli) ? chain_find_called(bs, c->args->base)
                                     : chain_find(bs, c->args->base, NULL);
    }
    if (!base) {
        return cli_error(c->cli, "Did not find '%s' in the backing chain of '%s'", c->args->base,
                         c->args->disk.file);
    }
    while (code == CLI_EXIT_OK) {
        code = members_add(c, bs);
        if (bs == base) {
            break;
        }
        bs = chain_below(bs);
    }
    return code;
}

static int chain_look(struct commit *c)
{
    struct disk_args args = c->args->disk;
    BlockBackend *blk;
    int code;

    args.writable = cli_stands_in(c->cli); /* the reference wants that, whatever is to be done */
    blk = disk_open(c->cli, c->pl, &args);
    if (!blk) {
        return CLI_EXIT_FAILED;
    }
    code = members_find(c, blk_bs(blk));
    blk_unref(blk);
    return code;
}

/* ---- opening them ---- */

static bool empties(const struct commit_args *args)
{
    return !args->keep && !args->base;
}

static int member_open(struct commit *c, unsigned i)
{
    struct disk_args args = c->args->disk;
    char id[32];

    snprintf(id, sizeof(id), "member%u", i);
    args.id = id;
    args.no_backing = i + 1 < c->count;
    args.writable = !args.no_backing || (i == 0 && empties(c->args));
    args.exclusive = !args.no_backing; /* emptying the image is another user of it */
    if (i > 0) {
        args.file = c->members[i].file;
        args.format = c->members[i].format;
        args.image_opts = false;
    }
    c->members[i].blk = disk_open(c->cli, c->pl, &args);
    return c->members[i].blk ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

/* The job makes the base larger where the disk is; other users of it may forbid that. */
static int base_may_grow(struct commit *c)
{
    BlockBackend *base = c->members[c->count - 1].blk;
    int64_t wanted = blk_getlength(c->members[0].blk);
    int64_t bytes = blk_getlength(base);
    Error *err = NULL;

    if (wanted < 0 || bytes < 0) {
        return cli_error(c->cli, "asking for sizes failed: %s",
                         strerror((int)-(wanted < 0 ? wanted : bytes)));
    }
    if (bytes < wanted && disk_allow_resize(base, &err) < 0) {
        return cli_report(c->cli, err);
    }
    return CLI_EXIT_OK;
}

/* ---- the work ---- */

static int commit_content(struct commit *c)
{
    BlockBackend **layers = calloc(c->count, sizeof(BlockBackend *));
    struct job_start start = job_run_start(&c->run);
    struct job_commit_options options = {
        .size = sizeof(options),
        .layers = layers,
        .layers_count = c->count - 1,
        .base = c->members[c->count - 1].blk,
        .bytes_per_second = c->args->bytes_per_s,
        .empty_top = empties(c->args),
    };
    Error *err = NULL;
    Job *job;

    if (!layers) {
        return cli_error(c->cli, "out of memory");
    }
    for (unsigned i = 0; i + 1 < c->count; i++) {
        layers[i] = c->members[i].blk;
    }
    job = job_commit_start(c->pl, &start, &options, &err);
    free(layers);
    return job_run_wait(&c->run, job, err);
}

static int commit_run(struct commit *c)
{
    int code = job_run_watch(&c->run, c->pl);

    if (code == CLI_EXIT_OK) {
        code = chain_look(c);
    }

    for (unsigned i = 0; code == CLI_EXIT_OK && i < c->count; i++) {
        code = member_open(c, i);
    }
    if (code == CLI_EXIT_OK) {
        code = base_may_grow(c);
    }
    if (code == CLI_EXIT_OK) {
        code = commit_content(c);
    }
    return code;
}

static void members_free(struct commit *c)
{
    for (unsigned i = 0; i < c->count; i++) {
        blk_unref(c->members[i].blk);
        free(c->members[i].file);
    }
    free(c->members);
}

static int commit_image(struct cli *cli, const struct commit_args *args)
{
    struct commit c = {.cli = cli, .args = args};
    int code = CLI_EXIT_FAILED;

    job_run_begin(&c.run, cli, progress_beside(args->progress, args->quiet));
    c.pl = disk_platter_new(cli, &args->disk);
    if (c.pl) {
        code = commit_run(&c);
    }
    members_free(&c);
    job_run_end(&c.run, code);
    platter_free(c.pl);
    job_run_leave(&c.run);
    if (code == CLI_EXIT_OK && !args->quiet) {
        fputs("Image committed.\n", progress_text(cli, args->progress));
    }
    return code;
}

/* ---- arguments ---- */

static bool commit_take(struct commit_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case COMMIT_BASE:
        args->base = a->value;
        return true;
    case COMMIT_KEEP:
        args->keep = true;
        return true;
    case COMMIT_PROGRESS:
        return progress_take(a, &args->progress) == CLI_EXIT_OK;
    case COMMIT_QUIET:
        args->quiet = true;
        return true;
    case COMMIT_RATE:
        return cli_parse_size(a->cli, a->value, "rate limit", "rate limit", INT64_MAX,
                              &args->bytes_per_s);
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a);
    }
}

static int commit_command(struct cli *cli, int argc, char **argv)
{
    struct commit_args args = {0};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !commit_take(&args, id, &a)) {
            return CLI_EXIT_USAGE;
        }
    }
    if (!disk_file_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    if (!disk_args_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    return commit_image(cli, &args);
}

const struct cli_command command_commit = {
    .name = "commit",
    .operands = "FILE",
    .summary = "Write what an image holds into its backing file",
    .options = commit_options,
    .details =
        "The image is empty afterwards, except with -d or -b. A smaller backing file grows.\n\n"
        "Examples:\n"
        "  platter commit -f qcow2 overlay.qcow2\n"
        "  platter commit -f qcow2 -p -b base.qcow2 newest.qcow2\n",
    .run = commit_command,
};
