/* SPDX-License-Identifier: MIT */
/*
 * platter check: whether the metadata of an image is consistent, and its repair. Lines, members
 * and exit codes are those of `qemu-img check`; findings go to stderr. A wrong command line ends
 * with 1, since 2 says that the image is corrupt.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <platter/image.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/json_text.h"
#include "tools/progress.h"

enum check_option {
    CHECK_PROGRESS = 1,
    CHECK_QUIET,
    CHECK_REPAIR,
};

enum check_exit {
    CHECK_EXIT_CLEAN = 0,
    CHECK_EXIT_FAILED = 1,
    CHECK_EXIT_CORRUPT = 2,
    CHECK_EXIT_LEAKS = 3,
    CHECK_EXIT_UNSUPPORTED = 63,
};

static const struct cli_option check_options[] = {
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    {CHECK_REPAIR, 'r', "repair", "leaks|all",
     "leaks: give leaked clusters back; all: mend every error"},
    DISK_ROW_OUTPUT,
    DISK_ROW_SRC_CACHE,
    DISK_ROW_FORCE_SHARE,
    PROGRESS_ROW(CHECK_PROGRESS),
    {CHECK_QUIET, 'q', "quiet", NULL, "print only errors and findings"},
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct check_args {
    struct disk_args disk;
    unsigned fix; /* BDRV_FIX_* */
    enum progress_form progress;
    bool quiet;
    struct progress run;
    FILE *out; /* of the answer */
};

static void print_finding(void *opaque, const char *text)
{
    struct cli *cli = opaque;

    (void)cli_flush(cli);
    cli_put_line(cli->err, "%s", text);
}

/* ---- the answer ---- */

static void print_state(FILE *out, const struct bdrv_check_result *r)
{
    if (r->corruptions == 0 && r->leaks == 0 && r->check_errors == 0) {
        fputs("No errors were found on the image.\n", out);
        return;
    }
    if (r->corruptions > 0) {
        fprintf(out,
                "\n%" PRIu64 " errors were found on the image.\n"
                "Data may be corrupted, or further writes to the image may corrupt it.\n",
                r->corruptions);
    }
    if (r->leaks > 0) {
        fprintf(out,
                "\n%" PRIu64 " leaked clusters were found on the image.\n"
                "This means waste of disk space, but no harm to data.\n",
                r->leaks);
    }
    if (r->check_errors > 0) {
        fprintf(out, "\n%" PRIu64 " internal errors have occurred during the check.\n",
                r->check_errors);
    }
}

static double percent(uint64_t part, uint64_t whole)
{
    return (double)part * 100.0 / (double)whole;
}

static void print_human(FILE *out, const struct bdrv_check_result *r)
{
    print_state(out, r);
    if (r->total_clusters > 0 && r->allocated_clusters > 0) {
        fprintf(out,
                "%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
                "%0.2f%% compressed clusters\n",
                r->allocated_clusters, r->total_clusters,
                percent(r->allocated_clusters, r->total_clusters),
                percent(r->fragmented_clusters, r->allocated_clusters),
                percent(r->compressed_clusters, r->allocated_clusters));
    }
    if (r->image_end_offset > 0) {
        fprintf(out, "Image end offset: %" PRIu64 "\n", r->image_end_offset);
    }
}

/* Counts of zero are left out, as in the reference. */
static void add_count(json_t *object, const char *key, uint64_t value, int *ret)
{
    if (value > 0) {
        json_add(object, key, json_u64(value), ret);
    }
}

static int print_json(struct cli *cli, BlockDriverState *bs, const char *file,
                      const struct bdrv_check_result *r)
{
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    add_count(object, "image-end-offset", r->image_end_offset, &ret);
    add_count(object, "compressed-clusters", r->compressed_clusters, &ret);
    add_count(object, "total-clusters", r->total_clusters, &ret);
    add_count(object, "corruptions", r->corruptions, &ret);
    add_count(object, "corruptions-fixed", r->corruptions_fixed, &ret);
    json_add(object, "check-errors", json_u64(r->check_errors), &ret);
    add_count(object, "leaks", r->leaks, &ret);
    add_count(object, "leaks-fixed", r->leaks_fixed, &ret);
    add_count(object, "allocated-clusters", r->allocated_clusters, &ret);
    json_add(object, "filename", json_text(file), &ret);
    json_add(object, "format", json_text(bdrv_get_format_name(bs)), &ret);
    add_count(object, "fragmented-clusters", r->fragmented_clusters, &ret);
    return json_text_print(cli, object, ret);
}

/* ---- the work ---- */

/* What was repaired is looked at once more; what was repaired is still told then. */
static int check_twice(struct cli *cli, BlockDriverState *bs, const struct check_args *args,
                       struct bdrv_check_options *options, struct bdrv_check_result *r,
                       Error **errp)
{
    uint64_t corruptions_fixed, leaks_fixed;
    int ret = bdrv_check(bs, options, r, errp);

    if (ret < 0 || (r->corruptions_fixed == 0 && r->leaks_fixed == 0)) {
        return ret;
    }
    corruptions_fixed = r->corruptions_fixed;
    leaks_fixed = r->leaks_fixed;
    if (!disk_wants_json(&args->disk) && !args->quiet) {
        fprintf(progress_text(cli, args->progress),
                "The following inconsistencies were found and repaired:\n\n"
                "    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
                "Double checking the fixed image now...\n",
                leaks_fixed, corruptions_fixed);
    }
    options->fix = 0;
    options->finding = NULL;
    ret = bdrv_check(bs, options, r, errp);
    r->corruptions_fixed = corruptions_fixed;
    r->leaks_fixed = leaks_fixed;
    return ret;
}

/* That it could not look at all, as the reference repeats it below the findings. */
static int check_failed(struct cli *cli, const char *why)
{
    if (cli_stands_in(cli)) {
        cli_error(cli, "Check failed%s", why);
    }
    return CHECK_EXIT_FAILED;
}

static int check_code(struct cli *cli, const struct bdrv_check_result *r)
{
    return r->check_errors > 0  ? check_failed(cli, "")
           : r->corruptions > 0 ? CHECK_EXIT_CORRUPT
           : r->leaks > 0       ? CHECK_EXIT_LEAKS
                                : CHECK_EXIT_CLEAN;
}

static int check_run(struct cli *cli, BlockBackend *blk, void *opaque)
{
    struct check_args *args = opaque;
    struct bdrv_check_options options = {
        .size = sizeof(options),
        .fix = args->fix,
        .progress = &args->run.calls,
        .finding = print_finding,
        .opaque = cli,
    };
    struct bdrv_check_result result = {0};
    Error *err = NULL;
    int ret;

    progress_start(&args->run);
    ret = check_twice(cli, blk_bs(blk), args, &options, &result, &err);
    progress_stop(&args->run);
    if (ret == -ENOTSUP) {
        error_free(err);
        cli_error(cli, "This image format does not support checks");
        return CHECK_EXIT_UNSUPPORTED;
    }
    if (ret < 0) {
        char why[64];

        cli_report(cli, err);
        snprintf(why, sizeof(why), ": %s", strerror(-ret));
        return check_failed(cli, why);
    }
    if (args->quiet && cli_stands_in(cli)) {
        return check_code(cli, &result);
    }
    if (disk_wants_json(&args->disk)) {
        cli->out = args->out;
        ret = print_json(cli, blk_bs(blk), args->disk.file, &result);
        (void)disk_answer_alone(cli, &args->disk);
        if (ret != CLI_EXIT_OK) {
            return CHECK_EXIT_FAILED;
        }
    } else if (!args->quiet) {
        print_human(progress_text(cli, args->progress), &result);
    }
    return check_code(cli, &result);
}

static int check_image(struct cli *cli, struct check_args *args)
{
    int code;

    args->out = disk_answer_alone(cli, &args->disk);
    progress_begin(&args->run, cli, progress_beside(args->progress, args->quiet));
    code = disk_run(cli, &args->disk, check_run, args);
    progress_end(&args->run, code != CHECK_EXIT_FAILED && code != CHECK_EXIT_UNSUPPORTED);
    cli->out = args->out;
    return code;
}

/* ---- arguments ---- */

static bool check_repair(struct check_args *args, const struct cli_args *a)
{
    if (strcmp(a->value, "leaks") == 0) {
        args->fix = BDRV_FIX_LEAKS;
    } else if (strcmp(a->value, "all") == 0) {
        args->fix = BDRV_FIX_LEAKS | BDRV_FIX_ERRORS;
    } else {
        cli_usage_error(a->cli, "Unknown option value for -r (expecting 'leaks' or 'all'): %s",
                        a->value);
        return false;
    }
    args->disk.writable = true;
    return true;
}

static bool check_take(struct check_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case CHECK_PROGRESS:
        return progress_take(a, &args->progress) == CLI_EXIT_OK;
    case CHECK_QUIET:
        args->quiet = true;
        return true;
    case CHECK_REPAIR:
        return check_repair(args, a);
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a);
    }
}

static int check_command(struct cli *cli, int argc, char **argv)
{
    struct check_args args = {.disk = {.no_backing = true, .check = true}};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !check_take(&args, id, &a)) {
            return CHECK_EXIT_FAILED;
        }
    }
    if (!disk_file_check(cli, &args.disk) || !disk_args_check(cli, &args.disk)) {
        return CHECK_EXIT_FAILED;
    }
    args.disk.look_only = args.fix == 0;
    return check_image(cli, &args);
}

const struct cli_command command_check = {
    .name = "check",
    .operands = "FILE",
    .summary = "Check the metadata of an image, and repair it",
    .options = check_options,
    .details = "Ends with 0: consistent (now), 1: the check could not be done, 2: corrupt,\n"
               "3: clusters are leaked but nothing is corrupt, 63: the format has no check.\n\n"
               "Examples:\n"
               "  platter check disk.qcow2\n"
               "  platter check -f qcow2 -r leaks disk.qcow2\n"
               "  platter check --output=json -f qcow2 disk.qcow2\n",
    .run = check_command,
};
