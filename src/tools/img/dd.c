/* SPDX-License-Identifier: MIT */
/*
 * platter dd: copy blocks of a disk to a new image, in the words of `qemu-img dd`. Everything is
 * written, zeroes too.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/driver.h"
#include "tools/commands.h"
#include "tools/img/convert_int.h"
#include "util/checked.h"
#include "util/options.h"
#include "util/size.h"

#define BLOCK_BYTES 512
#define BLOCK_BYTES_MAX INT32_MAX

enum dd_option {
    DD_OUTPUT_FORMAT = 1,
};

static const struct cli_option dd_options[] = {
    DISK_ROW_FORMAT,
    {DD_OUTPUT_FORMAT, 'O', "target-format", "FMT", "format of the output; raw when not given"},
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_OBJECT,
    DISK_ROW_FORCE_SHARE,
    DISK_ROWS_REFS,
    {0},
};

#define COROUTINES 3 /* pieces at a time: more are hardly faster here, and take memory */

struct dd_args {
    struct disk_args in;
    struct disk_args out;
    const char *format;
    uint64_t block_bytes;
    uint64_t count; /* UINT64_MAX: to the end */
    uint64_t skip;
};

/* ---- the run ---- */

/* What of a disk of bytes is copied. count_skipped: the blocks that count says include those that
 * are skipped, as by the reference. False: there are more to skip than that. */
static bool find_range(const struct dd_args *args, bool count_skipped, uint64_t bytes,
                       struct convert_source *s)
{
    uint64_t counted;

    if (args->count == UINT64_MAX || !checked_mul(args->count, args->block_bytes, &counted)) {
        counted = bytes;
    }
    if (count_skipped) {
        bytes = min_u64(bytes, counted);
    }
    if (!checked_mul(args->skip, args->block_bytes, &s->offset) || s->offset > bytes) {
        s->offset = 0;
        s->bytes = 0;
        return false;
    }
    s->bytes = min_u64(bytes - s->offset, counted);
    return true;
}

static int copy(struct job_run *run, Platter *pl, struct dd_args *args, struct convert_source *s)
{
    struct convert_options options = {
        .size = sizeof(options),
        .sources = s,
        .sources_count = 1,
        .target_is_zero = true,
        .coroutines = COROUTINES,
    };
    int code = CLI_EXIT_OK;

    args->out.format = args->format;
    options.target = disk_open(run->cli, pl, &args->out);
    if (!options.target) {
        return CLI_EXIT_FAILED;
    }
    if (s->bytes > 0) {
        code = convert_job_run(run, pl, &options);
    }
    blk_unref(options.target);
    return code;
}

static int dd_run_on(struct job_run *run, Platter *pl, struct dd_args *args, BlockBackend *in)
{
    struct cli *cli = run->cli;
    int64_t bytes = blk_getlength(in);
    BlockOptions *options;
    Error *err = NULL;
    struct convert_source s = {.blk = in};
    bool in_range;
    int code;

    if (!bdrv_find_driver(args->format)) {
        return cli_error(cli, "Unknown file format");
    }
    if (!option_list_maker(args->format, args->out.file, &err)) {
        return cli_report(cli, err);
    }
    if (bytes < 0) {
        return cli_error(cli, "Failed to get size for '%s'", args->in.file);
    }
    options = block_options_new();
    if (!options) {
        return cli_error(cli, "out of memory");
    }
    in_range = find_range(args, cli_stands_in(cli), (uint64_t)bytes, &s);
    code = convert_check_target(cli, pl, args->out.file);
    if (code != CLI_EXIT_OK) {
        block_options_free(options);
        return code;
    }
    code = convert_create(cli, pl, args->out.file, args->format, options,
                          convert_total_bytes(&s, 1), "creating output image", 0);
    if (code == CLI_EXIT_OK && !in_range) {
        cli_error(cli, "%s: cannot skip to specified offset",
                  args->in.file); /* and copies nothing */
    }
    return code == CLI_EXIT_OK ? copy(run, pl, args, &s) : code;
}

static int dd_run(struct cli *cli, struct dd_args *args)
{
    struct job_run run;
    Platter *pl;
    BlockBackend *in = NULL;
    int code = CLI_EXIT_FAILED;

    job_run_begin(&run, cli, PROGRESS_NONE);
    pl = disk_platter_new(cli, &args->in);
    if (pl && job_run_watch(&run, pl) == CLI_EXIT_OK) {
        in = disk_open(cli, pl, &args->in);
    }
    if (in) {
        code = dd_run_on(&run, pl, args, in);
    }
    blk_unref(in);
    job_run_end(&run, code);
    platter_free(pl);
    job_run_leave(&run);
    return code;
}

/* ---- arguments ---- */

static int take_number(struct cli *cli, const char *name, const char *value, uint64_t *ret)
{
    return cli_parse_size(cli, value, name, name, INT64_MAX, ret) ? CLI_EXIT_OK : CLI_EXIT_USAGE;
}

static int take_block(struct cli *cli, const char *value, uint64_t *ret)
{
    bool huge = size_parse(size_skip_sign(value), 'b', "bs", ret, NULL) == -ERANGE;
    int code = huge ? CLI_EXIT_OK : take_number(cli, "bs", value, ret);

    if (code == CLI_EXIT_OK && (huge || *ret == 0 || *ret > BLOCK_BYTES_MAX)) {
        code = cli_error(cli, "Invalid bs specified. Must be between 1 and %d.", BLOCK_BYTES_MAX);
    }
    return code;
}

/* NAME=VALUE */
static int take_operand(struct cli *cli, struct dd_args *args, const char *text)
{
    size_t len = strcspn(text, "=");
    const char *value = text + len + 1;

    if (text[len] == '=') {
        if (len == 2 && memcmp(text, "if", 2) == 0) {
            args->in.file = value;
            return CLI_EXIT_OK;
        }
        if (len == 2 && memcmp(text, "of", 2) == 0) {
            args->out.file = value;
            return CLI_EXIT_OK;
        }
        if (len == 2 && memcmp(text, "bs", 2) == 0) {
            return take_block(cli, value, &args->block_bytes);
        }
        if (len == 5 && memcmp(text, "count", 5) == 0) {
            return take_number(cli, "count", value, &args->count);
        }
        if (len == 4 && memcmp(text, "skip", 4) == 0) {
            return take_number(cli, "skip", value, &args->skip);
        }
    }
    return cli_error(cli, "unrecognized operand %.*s", (int)len, text);
}

static int dd_take(void *opaque, int id, const struct cli_args *a)
{
    struct dd_args *args = opaque;

    if (id == DD_OUTPUT_FORMAT) {
        args->format = a->value;
        return CLI_EXIT_OK;
    }
    (void)disk_take_option(&args->in, id, a);
    return CLI_EXIT_OK;
}

/* Behind all options, whose faults are told first. */
static int dd_take_operand(void *opaque, int id, const struct cli_args *a)
{
    return id == CLI_OPERAND ? take_operand(a->cli, opaque, a->value) : CLI_EXIT_OK;
}

static int dd_command(struct cli *cli, int argc, char **argv)
{
    struct dd_args args = {
        .in = {.id = "input"},
        .out = {.id = "output", .writable = true, .exclusive = true},
        .format = "raw",
        .block_bytes = BLOCK_BYTES,
        .count = UINT64_MAX,
    };
    int code;

    if (!cli_take_all(cli, argc, argv, dd_take, &args, &code) ||
        !cli_take_all(cli, argc, argv, dd_take_operand, &args, &code)) {
        return code;
    }
    if (!args.in.file || !args.out.file) {
        return cli_error(cli, "Must specify both input and output files");
    }
    if (!disk_args_check(cli, &args.in)) {
        return CLI_EXIT_USAGE;
    }
    return dd_run(cli, &args);
}

const struct cli_command command_dd = {
    .name = "dd",
    .operands = "if=FILE of=FILE [bs=N] [count=N] [skip=N]",
    .summary = "Copy blocks of a disk to a new image",
    .options = dd_options,
    .details =
        "bs= is the size of a block, 512 when not given; count= how many are copied; skip=\n"
        "how many are left out at the beginning. (Called as qemu-img, it takes count= for the\n"
        "number of the block at which to stop, those that are skipped included, and raw\n"
        "output is filled up with zeroes to a multiple of 512.)\n\n"
        "Examples:\n"
        "  platter dd -f qcow2 if=disk.qcow2 of=first.raw bs=1M count=10\n"
        "  platter dd -f raw -O qcow2 if=disk.img of=rest.qcow2 bs=64k skip=16\n",
    .run = dd_command,
};
