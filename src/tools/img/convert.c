/* SPDX-License-Identifier: MIT */
/*
 * platter convert: copy a disk, or several one behind the other, to a new image of any format, in
 * the words of `qemu-img convert`. The copying itself is a job (platter/convert.h).
 *
 * A signal cancels the job: the target is closed in order, as far as it was written; sources are
 * only read. With a pipe, where reading and writing may wait for ever, it ends the program at once.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/driver.h"
#include "schema/opts.h"
#include "tools/commands.h"
#include "tools/img/convert_int.h"
#include "util/options.h"
#include "util/size.h"

enum convert_option {
    CONVERT_BACKING = 1,
    CONVERT_BACKING_FORMAT,
    CONVERT_BITMAPS,
    CONVERT_COMPRESS,
    CONVERT_COUNT,
    CONVERT_CREATE_NOT,
    CONVERT_JOURNAL,
    CONVERT_MEMORY,
    CONVERT_OFFLOAD,
    CONVERT_OPTIONS,
    CONVERT_OUT_OF_ORDER,
    CONVERT_OUTPUT_FORMAT,
    CONVERT_PROGRESS,
    CONVERT_QUIET,
    CONVERT_RATE,
    CONVERT_SALVAGE,
    CONVERT_SKIP_BROKEN,
    CONVERT_SOURCE_SIZE,
    CONVERT_SPARSE,
    CONVERT_TARGET_CACHE,
    CONVERT_TARGET_IMAGE_OPTS,
    CONVERT_TARGET_IS_ZERO,
};

static const struct cli_option convert_options[] = {
    DISK_ROW_FORMAT,
    {CONVERT_OUTPUT_FORMAT, 'O', "target-format", "FMT", "format of TARGET; raw when not given"},
    {CONVERT_OPTIONS, 'o', "options", "OPTS", "KEY=VALUE,... of that format; '-o help' lists them"},
    {CONVERT_BACKING, 'B', "backing", "FILE",
     "backing file of TARGET, which holds what that of SOURCE does"},
    {CONVERT_BACKING_FORMAT, 'F', "backing-format", "FMT", "format of that file"},
    {CONVERT_COMPRESS, 'c', "compress", NULL, "write compressed clusters"},
    {CONVERT_CREATE_NOT, 'n', "no-create", NULL, "TARGET is there already"},
    {CONVERT_TARGET_IS_ZERO, 0, "target-is-zero", NULL, "with -n: it reads as zeroes"},
    {CONVERT_SPARSE, 'S', "sparse-size", "N",
     "so many zero bytes become a hole; 4k when not given, 0: none do"},
    DISK_ROW_SNAPSHOT,
    {CONVERT_BITMAPS, 0, "bitmaps", NULL, "copy the persistent bitmaps of SOURCE, too"},
    {CONVERT_SKIP_BROKEN, 0, "skip-broken-bitmaps", NULL,
     "with --bitmaps: leave out those that are inconsistent"},
    {CONVERT_SALVAGE, 0, "salvage", NULL, "what cannot be read becomes zeroes"},
    {CONVERT_COUNT, 'm', "coroutines", "N", "how many pieces are copied at a time: 1 to 16"},
    {CONVERT_OUT_OF_ORDER, 'W', "out-of-order", NULL, "write in any order"},
    {CONVERT_OFFLOAD, 'C', "copy-offload", NULL, "let the storage copy by itself where it can"},
    {CONVERT_RATE, 'r', "rate-limit", "RATE", "copy no more bytes than this in a second"},
    {CONVERT_MEMORY, 0, "max-memory", "SIZE",
     "use no more for buffers, compressors and tables, beside program and open images; "
     "0: no limit"},
    {CONVERT_SOURCE_SIZE, 0, "source-size", "SIZE",
     "how much a raw SOURCE has that comes through a pipe"},
    {CONVERT_JOURNAL, 0, "journal", "FILE",
     "note there how far it is; the same command goes on from it after an interruption"},
    DISK_ROW_SRC_CACHE,
    {CONVERT_TARGET_CACHE, 't', "cache", "MODE",
     "the same of TARGET; unsafe when not given, writeback with --journal",
     .words = disk_cache_words},
    DISK_ROW_IMAGE_OPTS,
    {CONVERT_TARGET_IMAGE_OPTS, 0, "target-image-opts", NULL, "TARGET is a list of options"},
    DISK_ROW_OBJECT,
    DISK_ROW_FORCE_SHARE,
    PROGRESS_ROW(CONVERT_PROGRESS),
    {CONVERT_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROWS_REFS,
    {0},
};

/* ---- the run ---- */

static void warn_of_lost(void *opaque, uint64_t offset, int error)
{
    const struct convert_run *run = opaque;

    if (!run->args->quiet) {
        cli_warning(run->cli, "error while reading offset %" PRIu64 ": %s", offset,
                    strerror(error));
    }
}

static int convert_run_all(struct convert_run *run)
{
    struct convert_args *args = run->args;
    int code = convert_open_sources(run);

    args->engine.lost = warn_of_lost;
    args->engine.opaque = run;
    if (code == CLI_EXIT_OK && args->to_pipe) {
        return convert_pipe_target(run);
    }
    if (code == CLI_EXIT_OK && args->journal) {
        code = convert_journal_open(run);
    }
    if (code == CLI_EXIT_OK) {
        code = convert_open_target(run);
    }
    if (code == CLI_EXIT_OK && args->journal) {
        code = convert_journal_begin(run);
    }
    if (code == CLI_EXIT_OK) {
        code = convert_memory_divide(run);
    }
    if (code == CLI_EXIT_OK) {
        code = convert_job_run(&run->job, run->pl, &args->engine);
    }
    if (code == CLI_EXIT_OK && args->bitmaps) {
        code = convert_bitmaps_copy(run);
    }
    convert_journal_end(run, code == CLI_EXIT_OK);
    return code;
}

static int convert_files(struct cli *cli, struct convert_args *args)
{
    struct convert_run run = {
        .cli = cli, .args = args, .journal = {.name = args->journal, .fd = -1}};
    FILE *out = cli->out;
    int code;

    if (args->to_pipe) {
        cli->out = cli->err; /* the disk goes there */
    }
    job_run_begin(&run.job, cli, progress_beside(args->progress, args->quiet));
    run.job.at_once = args->from_pipe || args->to_pipe;
    run.pl = disk_platter_new(cli, &args->disk);
    code = CLI_EXIT_FAILED;
    if (run.pl) {
        code = job_run_watch(&run.job, run.pl);
    }
    if (code == CLI_EXIT_OK) {
        code = convert_run_all(&run);
    }
    convert_close(&run);
    if (code == CLI_EXIT_OK) {
        convert_pipe_drain(&run);
    }
    run.job.progress.line_again = true;
    job_run_end(&run.job, code);
    platter_free(run.pl);
    cli->out = out;
    job_run_leave(&run.job);
    return code;
}

/* ---- arguments ---- */

/* CLI_EXIT_*, after printing. */
static int take_size(const struct cli_args *a, const char *what, uint64_t *ret)
{
    return cli_parse_size(a->cli, a->value, what, what, INT64_MAX, ret) ? CLI_EXIT_OK
                                                                        : CLI_EXIT_USAGE;
}

static int take_source_size(struct convert_args *args, const struct cli_args *a)
{
    int code = take_size(a, "source-size", &args->source_bytes);

    return code == CLI_EXIT_OK && args->source_bytes == 0
               ? cli_error(a->cli, "Invalid source-size specified: it must be more than 0")
               : code;
}

static int take_sparse(struct convert_args *args, const struct cli_args *a)
{
    int code = take_size(a, "buffer size for sparse output", &args->engine.sparse_bytes);

    if (code == CLI_EXIT_OK && (args->engine.sparse_bytes % CONVERT_SECTOR_BYTES != 0 ||
                                args->engine.sparse_bytes > CONVERT_SPARSE_BYTES_MAX)) {
        code = cli_error(a->cli,
                         "Invalid buffer size for sparse output specified. Valid sizes are "
                         "multiples of %d up to %" PRIu64 ". Select 0 to disable sparse detection "
                         "(fully allocates output).",
                         CONVERT_SECTOR_BYTES, CONVERT_SPARSE_BYTES_MAX);
    }
    args->sparse_given = true;
    return code;
}

static int take_count(struct convert_args *args, const struct cli_args *a)
{
    uint64_t n;

    if (number_parse(a->value, "coroutines", 1, CONVERT_COROUTINES_MAX, &n, NULL) < 0) {
        return cli_error(a->cli,
                         "Invalid number of coroutines. Allowed number of coroutines is between 1 "
                         "and %d",
                         CONVERT_COROUTINES_MAX);
    }
    args->engine.coroutines = (unsigned)n;
    return CLI_EXIT_OK;
}

static int take_file(struct convert_args *args, const struct cli_args *a)
{
    args->files[args->files_count++] = a->value; /* there is room for all of argv */
    return CLI_EXIT_OK;
}

static int take_flag(struct convert_args *args, int id, const struct cli_args *a)
{
    bool *const flags[] = {
        [CONVERT_BITMAPS] = &args->bitmaps,
        [CONVERT_COMPRESS] = &args->engine.compressed,
        [CONVERT_CREATE_NOT] = &args->skip_create,
        [CONVERT_OFFLOAD] = &args->engine.copy_offload,
        [CONVERT_OUT_OF_ORDER] = &args->engine.out_of_order,
        [CONVERT_QUIET] = &args->quiet,
        [CONVERT_SALVAGE] = &args->engine.salvage,
        [CONVERT_SKIP_BROKEN] = &args->skip_broken_bitmaps,
        [CONVERT_TARGET_IMAGE_OPTS] = &args->target.image_opts,
        [CONVERT_TARGET_IS_ZERO] = &args->target_is_zero,
    };

    if (id > 0 && (size_t)id < sizeof(flags) / sizeof(flags[0]) && flags[id]) {
        *flags[id] = true;
        return CLI_EXIT_OK;
    }
    return disk_take_option(&args->disk, id, a) ? CLI_EXIT_OK : take_file(args, a);
}

/* CLI_EXIT_*, after printing. */
static int convert_take(void *opaque, int id, const struct cli_args *a)
{
    struct convert_args *args = opaque;

    switch (id) {
    case CONVERT_BACKING:
        args->backing = a->value;
        return CLI_EXIT_OK;
    case CONVERT_BACKING_FORMAT:
        args->backing_format = a->value;
        return CLI_EXIT_OK;
    case CONVERT_COUNT:
        return take_count(args, a);
    case CONVERT_JOURNAL:
        args->journal = a->value;
        return CLI_EXIT_OK;
    case CONVERT_MEMORY:
        return take_size(a, "max-memory", &args->engine.memory_max_bytes);
    case CONVERT_OPTIONS:
        return option_list_add(a->cli, &args->list, a->value);
    case CONVERT_OUTPUT_FORMAT:
        args->format = a->value;
        return CLI_EXIT_OK;
    case CONVERT_PROGRESS:
        return progress_take(a, &args->progress);
    case CONVERT_RATE:
        return take_size(a, "rate limit", &args->engine.bytes_per_second);
    case CONVERT_SOURCE_SIZE:
        return take_source_size(args, a);
    case CONVERT_SPARSE:
        return take_sparse(args, a);
    case CONVERT_TARGET_CACHE:
        args->target.cache = a->value;
        return CLI_EXIT_OK;
    case DISK_OPTION_SNAPSHOT:
        return disk_take_snapshot(&args->disk, a, '\'');
    default:
        return take_flag(args, id, a);
    }
}

static int print_options(struct cli *cli, const struct convert_args *args)
{
    const char *file = args->files_count > 1 ? args->files[args->files_count - 1] : NULL;
    Error *err = NULL;
    const BlockDriver *drv = option_list_maker(args->format ? args->format : "raw", file, &err);

    if (!drv) {
        return cli_report(cli, err);
    }
    option_list_print_create(cli->out, drv, file);
    return CLI_EXIT_OK;
}

/* What does not go together, in the order of the reference; NULL: it does. */
static const char *misfit(const struct convert_args *args)
{
    const struct {
        bool wrong;
        const char *text;
    } rules[] = {
        {args->skip_broken_bitmaps && !args->bitmaps,
         "Use of --skip-broken-bitmaps requires --bitmaps"},
        {args->skip_create && (args->list.text || args->list.help),
         "-o has no effect when skipping image creation"},
        {args->engine.compressed && args->engine.copy_offload,
         "Cannot enable copy offloading when -c is used"},
        {args->sparse_given && args->engine.copy_offload,
         "Cannot enable copy offloading when -S is used"},
        {args->engine.salvage && args->engine.copy_offload,
         "Cannot use copy offloading in salvaging mode"},
        {args->target.image_opts && !args->skip_create,
         "--target-image-opts requires use of -n flag"},
        {args->target_is_zero && !args->skip_create, "--target-is-zero requires use of -n flag"},
        {args->journal && args->bitmaps, "--journal and --bitmaps exclude each other"},
        {args->journal && args->target.cache && strcmp(args->target.cache, "unsafe") == 0,
         "--journal needs a target that is flushed: not -t unsafe"},
    };

    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (rules[i].wrong) {
            return rules[i].text;
        }
    }
    return NULL;
}

static int check_files(struct cli *cli, struct convert_args *args)
{
    if (args->files_count < 2) {
        return cli_error(cli, "Must specify image file name");
    }
    for (size_t i = 0; i + 1 < args->files_count; i++) {
        args->from_pipe = args->from_pipe || convert_is_pipe(cli, &args->disk, args->files[i]);
    }
    args->to_pipe = convert_is_pipe(cli, &args->target, args->files[args->files_count - 1]);
    return CLI_EXIT_OK;
}

static int convert_begin(struct cli *cli, struct convert_args *args)
{
    const char *wrong = misfit(args);
    int code;

    if (wrong) {
        return cli_error(cli, "%s", wrong);
    }
    if (args->list.help) {
        return print_options(cli, args);
    }
    if (args->engine.compressed && args->engine.coroutines == 0) {
        /* each has its compressor and buffers: what can work, and one that is read or written */
        args->engine.coroutines = cli_processors(CONVERT_COROUTINES_MAX - 1) + 1;
    }
    code = check_files(cli, args);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    args->target.file = args->files[args->files_count - 1];
    wrong = convert_pipe_misfit(cli, args);
    if (wrong) {
        return cli_usage_error(cli, "%s", wrong);
    }
    if (!args->list.options) {
        args->list.options = block_options_new();
        if (!args->list.options) {
            return cli_error(cli, "out of memory");
        }
    }
    if (!disk_cache_is_known(args->disk.cache)) {
        return cli_error(cli, "Invalid source cache option: %s", args->disk.cache);
    }
    if (!disk_args_check(cli, &args->disk)) {
        return CLI_EXIT_USAGE;
    }
    if (!args->target.cache) {
        args->target.cache = args->journal ? "writeback" : "unsafe";
    }
    /* what comes through a pipe is not looked at in advance, unless a stream wants it */
    args->engine.count_first = args->progress && !args->quiet && !args->from_pipe;
    return convert_files(cli, args);
}

static int convert_command(struct cli *cli, int argc, char **argv)
{
    struct convert_args args = {
        .target = {.id = "target", .discard = "unmap", .writable = true, .exclusive = true},
        .argc = argc,
        .argv = argv,
        .files = calloc((size_t)argc, sizeof(*args.files)),
        .engine = {.size = sizeof(args.engine), .sparse_bytes = CONVERT_SPARSE_BYTES},
    };
    int code;

    if (!args.files) {
        return cli_error(cli, "out of memory");
    }
    if (cli_take_all(cli, argc, argv, convert_take, &args, &code)) {
        code = convert_begin(cli, &args);
    }
    option_list_fini(&args.list);
    free(args.files);
    return code;
}

const struct cli_command command_convert = {
    .name = "convert",
    .operands = "SOURCE... TARGET",
    .summary = "Copy a disk to a new image of any format",
    .options = convert_options,
    .details =
        "Several SOURCEs become one disk, one behind the other. An existing TARGET is\n"
        "replaced, except with -n. When it is interrupted, TARGET is\n"
        "incomplete; SOURCE is never changed. A raw TARGET has as many bytes as the SOURCEs; a\n"
        "qcow2 image is filled up with zeroes to a multiple of 512. (Called as qemu-img, it fills\n"
        "up each SOURCE so, for any TARGET.)\n\n"
        "With --journal, a SOURCE that was changed since the interruption is refused: files are\n"
        "known by size and time. What is behind NBD tells its size only: it must stay as it is\n"
        "until all was copied, as a snapshot does, or what nobody writes.\n\n"
        "'-' is standard input (raw, or an image whose parts come in order) or standard\n"
        "output (-O raw, -O qcow2 without -c, -B and -n), or both. What a qcow2 stream\n"
        "holds must be known before its data: where SOURCE is a pipe too, it has its\n"
        "tables in front, as such a stream has, or all is written as data, with -S 0. Of a\n"
        "raw pipe all is written as data, and --source-size tells its size. A file there is\n"
        "read from where it stands. What a pipe brings behind a qcow2 image is read to its end\n"
        "once TARGET is whole, and left out.\n\n"
        "Examples:\n"
        "  platter convert -f raw -O qcow2 disk.img disk.qcow2\n"
        "  platter convert -c -f raw -O qcow2 -o compression_type=zstd disk.img disk.qcow2\n"
        "  platter convert -p -f qcow2 -O qcow2 -B base.qcow2 -F qcow2 overlay.qcow2 copy.qcow2\n",
    .run = convert_command,
};
