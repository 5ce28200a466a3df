/* SPDX-License-Identifier: MIT */
/* platter compact: give back, in place, the space that an image holds without need. */
#include <inttypes.h>
#include <string.h>

#include <platter/jobs.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/job_run.h"
#include "util/size.h"

#define SIZE_TEXT_BYTES 32

enum compact_option {
    COMPACT_DROP_SAME = 1,
    COMPACT_DRY_RUN,
    COMPACT_KEEP_ZEROES,
    COMPACT_PROGRESS,
    COMPACT_QUIET,
    COMPACT_RATE,
};

static const struct cli_option compact_options[] = {
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_CACHE,
    {COMPACT_KEEP_ZEROES, 0, "keep-zeroes", NULL, "do not look for data that reads as zeroes"},
    {COMPACT_DROP_SAME, 0, "drop-same", NULL,
     "drop clusters that hold what the backing file does, which must then stay as it is"},
    {COMPACT_DRY_RUN, 'n', "dry-run", NULL, "change nothing; tell about how short it would be"},
    {COMPACT_RATE, 'r', "rate-limit", "RATE", "read and move no more bytes than this in a second"},
    DISK_ROW_OUTPUT,
    PROGRESS_ROW(COMPACT_PROGRESS),
    {COMPACT_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct compact_args {
    struct disk_args disk;
    struct job_compact_options job;
    struct job_run run;
    struct job_compact_result result;
    const char *rate;
    enum progress_form progress;
    bool quiet;
};

/* ---- what was done ---- */

static void print_member(FILE *out, const char *name, uint64_t bytes, bool last)
{
    if (bytes == UINT64_MAX) {
        fprintf(out, "    \"%s\": null%s\n", name, last ? "" : ",");
    } else {
        fprintf(out, "    \"%s\": %" PRIu64 "%s\n", name, bytes, last ? "" : ",");
    }
}

static void print_json(FILE *out, const struct compact_args *args)
{
    const struct job_compact_result *r = &args->result;

    fputs("{\n", out);
    fprintf(out, "    \"dry-run\": %s,\n", args->job.dry_run ? "true" : "false");
    print_member(out, "file-length-before", r->file_bytes_before, false);
    print_member(out, "file-length", r->file_bytes_after, false);
    print_member(out, "allocated-before", r->allocated_bytes_before, false);
    print_member(out, "allocated", r->allocated_bytes_after, false);
    print_member(out, "zeroed", r->zeroed_bytes, false);
    print_member(out, "dropped", r->dropped_bytes, false);
    print_member(out, "leaked", r->leaked_bytes, false);
    print_member(out, "moved", r->moved_bytes, true);
    fputs("}\n", out);
}

static void print_change(FILE *out, const char *what, uint64_t before, uint64_t after)
{
    char was[SIZE_TEXT_BYTES];
    char now[SIZE_TEXT_BYTES];

    if (before != UINT64_MAX && after != UINT64_MAX) {
        size_format(before, was, sizeof(was));
        size_format(after, now, sizeof(now));
        fprintf(out, "%s %s, was %s; ", what, now, was);
    }
}

static void print_human(FILE *out, const struct compact_args *args)
{
    const struct job_compact_result *r = &args->result;
    char zeroed[SIZE_TEXT_BYTES];
    char moved[SIZE_TEXT_BYTES];

    fputs(args->job.dry_run ? "Image would be compacted: " : "Image compacted: ", out);
    print_change(out, "length", r->file_bytes_before, r->file_bytes_after);
    print_change(out, "allocated", r->allocated_bytes_before, r->allocated_bytes_after);
    size_format(r->zeroed_bytes + r->dropped_bytes, zeroed, sizeof(zeroed));
    size_format(r->moved_bytes, moved, sizeof(moved));
    fprintf(out, "%s let go, %s moved\n", zeroed, moved);
}

/* ---- the run ---- */

static int compact_run(struct cli *cli, BlockBackend *blk, void *opaque)
{
    struct compact_args *args = opaque;
    struct job_start start = job_run_start(&args->run);
    Error *err = NULL;
    Job *job;

    args->job.disk = blk;
    args->job.result = &args->result;
    job = job_compact_start(blk_get_platter(blk), &start, &args->job, &err);
    return job_run_wait(&args->run, job, err);
}

static int compact_image(struct cli *cli, struct compact_args *args)
{
    FILE *out = disk_answer_alone(cli, &args->disk);
    int code;

    job_run_begin(&args->run, cli, progress_beside(args->progress, args->quiet));
    code = job_run_disk(&args->run, &args->disk, compact_run, args);
    cli->out = out;
    job_run_leave(&args->run);
    if (code == CLI_EXIT_OK && disk_wants_json(&args->disk)) {
        print_json(cli->out, args);
    } else if (code == CLI_EXIT_OK && !args->quiet) {
        print_human(progress_text(cli, args->progress), args);
    }
    return code;
}

/* ---- arguments ---- */

/* CLI_EXIT_*, after printing. */
static int compact_take(void *opaque, int id, const struct cli_args *a)
{
    struct compact_args *args = opaque;

    switch (id) {
    case COMPACT_DROP_SAME:
        args->job.drop_same = true;
        return CLI_EXIT_OK;
    case COMPACT_DRY_RUN:
        args->job.dry_run = true;
        return CLI_EXIT_OK;
    case COMPACT_KEEP_ZEROES:
        args->job.keep_zeroes = true;
        return CLI_EXIT_OK;
    case COMPACT_PROGRESS:
        return progress_take(a, &args->progress);
    case COMPACT_QUIET:
        args->quiet = true;
        return CLI_EXIT_OK;
    case COMPACT_RATE:
        args->rate = a->value;
        return CLI_EXIT_OK;
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a)
                   ? CLI_EXIT_OK
                   : CLI_EXIT_USAGE;
    }
}

static int compact_begin(struct cli *cli, struct compact_args *args)
{
    Error *err = NULL;

    if (!disk_file_check(cli, &args->disk)) {
        return CLI_EXIT_USAGE;
    }
    if (args->rate &&
        size_parse(args->rate, 'b', "rate limit", &args->job.bytes_per_second, &err) < 0) {
        cli_report(cli, err);
        return CLI_EXIT_USAGE;
    }
    if (!disk_args_check(cli, &args->disk)) {
        return CLI_EXIT_USAGE;
    }
    args->disk.writable = !args->job.dry_run;
    args->disk.exclusive = true;
    args->disk.discard = "unmap";
    return compact_image(cli, args);
}

static int compact_command(struct cli *cli, int argc, char **argv)
{
    struct compact_args args = {.job = {.size = sizeof(args.job)}};
    int code;

    return cli_take_all(cli, argc, argv, compact_take, &args, &code) ? compact_begin(cli, &args)
                                                                     : code;
}

const struct cli_command command_compact = {
    .name = "compact",
    .operands = "FILE",
    .summary = "Give back in place the space that an image holds without need",
    .options = compact_options,
    .details =
        "Data that reads as zeroes is let go. In a qcow2 image leaked clusters are given back, "
        "what\n"
        "lies at the end of the file moves into clusters that are free nearer to its start, and "
        "the\n"
        "file is cut; in a raw one, zeroes become holes where the file system has them. The disk,\n"
        "its snapshots, bitmaps and backing file stay as they are. Interrupted by a signal, it "
        "ends\n"
        "in order; after a cut of power the image is whole, and 'check -r leaks' gives back what\n"
        "was on its way. A table longer than a cluster moves only where there are as many free "
        "ones\n"
        "in a row; compressed clusters, which share those of the file, may need some more of "
        "them.\n\n"
        "Examples:\n"
        "  platter compact -f qcow2 -p disk.qcow2\n"
        "  platter compact -f qcow2 -n --output=json disk.qcow2\n"
        "  platter compact -f raw disk.img\n",
    .run = compact_command,
};
