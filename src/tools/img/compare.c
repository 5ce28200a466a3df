/* SPDX-License-Identifier: MIT */
/*
 * platter compare: whether two disks hold the same, in the words of `qemu-img compare`. What
 * neither disk has, or what both know to be zeroes, is not read. Usage errors end with 2, since 1
 * says that the disks differ.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/progress.h"
#include "util/checked.h"

#define CHUNK_BYTES (INT64_C(2) << 20)
#define UNIT_BYTES 512 /* a difference is told at a multiple of it */

enum compare_option {
    COMPARE_FORMAT_2 = 1,
    COMPARE_PROGRESS,
    COMPARE_QUIET,
    COMPARE_STRICT,
};

enum compare_exit {
    COMPARE_EXIT_SAME = 0,
    COMPARE_EXIT_DIFFERENT = 1,
    COMPARE_EXIT_OPEN = 2, /* usage, too, and an answer that is lost */
    COMPARE_EXIT_STATUS = 3,
    COMPARE_EXIT_READ = 4,
};

static const struct cli_option compare_options[] = {
    {DISK_OPTION_FORMAT, 'f', "format", "FMT|auto", "format of FILE1; auto: guess it"},
    {COMPARE_FORMAT_2, 'F', "second-format", "FMT|auto", "format of FILE2; auto: guess it"},
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_SRC_CACHE,
    {COMPARE_STRICT, 's', "strict", NULL, "sizes and allocation must be equal, too"},
    DISK_ROW_FORCE_SHARE,
    PROGRESS_ROW(COMPARE_PROGRESS),
    {COMPARE_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct compare_args {
    struct disk_args disks[2];
    enum progress_form progress;
    bool quiet;
    bool strict;
};

/* One of the two, and what its next bytes are. */
struct compare_side {
    BlockBackend *blk;
    const char *file;
    int64_t disk_bytes;
    unsigned char *buf; /* CHUNK_BYTES */
    int flags;          /* BDRV_BLOCK_*, of bytes from offset on */
    int64_t offset;
    int64_t bytes;
    int ret;
};

struct compare {
    struct cli *cli;
    const struct compare_args *args;
    struct progress progress;
    struct compare_side sides[2];
    int64_t total; /* the larger of both */
};

static void say(const struct compare *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void say(const struct compare *c, const char *fmt, ...)
{
    va_list ap;

    if (!c->args->quiet) {
        va_start(ap, fmt);
        vfprintf(progress_text(c->cli, c->args->progress), fmt, ap);
        va_end(ap);
    }
}

/* ---- looking ---- */

static void side_status_co(void *opaque)
{
    struct compare_side *s = opaque;

    s->ret =
        blk_co_block_status(s->blk, s->offset, s->disk_bytes - s->offset, &s->bytes, NULL, NULL);
    s->flags = s->ret;
}

/* What stands at offset. 0, or an exit code after printing. */
static int side_look(struct compare *c, struct compare_side *s, int64_t offset)
{
    int ret;

    if (offset < s->offset + s->bytes) { /* still the extent that is known */
        s->bytes -= offset - s->offset;
        s->offset = offset;
        return 0;
    }
    s->offset = offset;
    ret = disk_run_co(blk_get_platter(s->blk), side_status_co, s);
    ret = ret < 0 ? ret : s->ret;
    if (ret < 0) {
        s->bytes = 0;
        cli_error(c->cli, "Sector allocation test failed for %s: %s", s->file, strerror(-ret));
        return COMPARE_EXIT_STATUS;
    }
    return 0;
}

static bool reads_as_zeroes(const struct compare_side *s)
{
    return (s->flags & BDRV_BLOCK_ZERO) || !(s->flags & (BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED));
}

static int side_read(struct compare *c, struct compare_side *s, int64_t offset, int64_t bytes)
{
    struct iovec iov = {s->buf, (size_t)bytes};
    struct iov_view view = iov_view_of(&iov, 1);
    int ret = blk_preadv(s->blk, offset, &view, 0);

    if (ret < 0) {
        cli_error(c->cli, "Error while reading offset %" PRId64 " of %s: %s", offset, s->file,
                  strerror(-ret));
        return COMPARE_EXIT_READ;
    }
    return 0;
}

/* ---- comparing ---- */

/* The unit of the first byte that differs; bytes when none does. */
static int64_t first_difference(const unsigned char *a, const unsigned char *b, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += UNIT_BYTES) {
        int64_t unit = bytes - at < UNIT_BYTES ? bytes - at : UNIT_BYTES;

        if (memcmp(a + at, b + at, (size_t)unit) != 0) {
            return at;
        }
    }
    return bytes;
}

static int differs_at(const struct compare *c, int64_t offset)
{
    say(c, "Content mismatch at offset %" PRId64 "!\n", offset);
    return COMPARE_EXIT_DIFFERENT;
}

/* Read side i at offset and compare it with what other holds: another buffer, or zeroes. */
static int compare_bytes(struct compare *c, unsigned i, bool with_other, int64_t offset,
                         int64_t bytes)
{
    struct compare_side *s = &c->sides[i];
    struct compare_side *other = &c->sides[!i];
    int64_t at;
    int code = side_read(c, s, offset, bytes);

    if (code == 0 && with_other) {
        code = side_read(c, other, offset, bytes);
    }
    if (code != 0) {
        return code;
    }
    if (!with_other) {
        memset(other->buf, 0, (size_t)bytes);
    }
    at = first_difference(s->buf, other->buf, bytes);
    return at < bytes ? differs_at(c, offset + at) : 0;
}

static int compare_common(struct compare *c, int64_t offset, int64_t *ret_bytes)
{
    const int strict_flags = BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
    struct compare_side *a = &c->sides[0];
    struct compare_side *b = &c->sides[1];
    int code = side_look(c, a, offset);
    int64_t bytes;

    if (code == 0) {
        code = side_look(c, b, offset);
    }
    if (code != 0) {
        return code;
    }
    bytes = a->bytes < b->bytes ? a->bytes : b->bytes;
    if (c->args->strict && (a->flags & strict_flags) != (b->flags & strict_flags)) {
        say(c, "Strict mode: Offset %" PRId64 " block status mismatch!\n", offset);
        return COMPARE_EXIT_DIFFERENT;
    }
    if (reads_as_zeroes(a) && reads_as_zeroes(b)) {
        *ret_bytes = bytes;
        return 0;
    }
    *ret_bytes = bytes < CHUNK_BYTES ? bytes : CHUNK_BYTES;
    if (reads_as_zeroes(a) || reads_as_zeroes(b)) {
        return compare_bytes(c, reads_as_zeroes(a) ? 1 : 0, false, offset, *ret_bytes);
    }
    return compare_bytes(c, 0, true, offset, *ret_bytes);
}

/* What the larger disk has behind the end of the other must be zeroes. */
static int compare_rest(struct compare *c, unsigned larger, int64_t offset, int64_t *ret_bytes)
{
    struct compare_side *s = &c->sides[larger];
    int code = side_look(c, s, offset);

    if (code != 0) {
        return code;
    }
    if (reads_as_zeroes(s)) {
        *ret_bytes = s->bytes;
        return 0;
    }
    *ret_bytes = s->bytes < CHUNK_BYTES ? s->bytes : CHUNK_BYTES;
    return compare_bytes(c, larger, false, offset, *ret_bytes);
}

static int compare_disks(struct compare *c)
{
    int64_t sizes[2] = {c->sides[0].disk_bytes, c->sides[1].disk_bytes};
    unsigned larger = sizes[1] > sizes[0];
    int64_t common = sizes[!larger];
    int64_t step = 0;
    int code = 0;

    if (sizes[0] != sizes[1] && c->args->strict) {
        say(c, "Strict mode: Image size mismatch!\n");
        return COMPARE_EXIT_DIFFERENT;
    }
    for (int64_t offset = 0; code == 0 && offset < c->total; offset += step) {
        if (offset == common) {
            say(c, "Warning: Image size mismatch!\n");
        }
        code = offset < common ? compare_common(c, offset, &step)
                               : compare_rest(c, larger, offset, &step);
        if (code == 0) {
            progress_set(&c->progress, (uint64_t)(offset + step), (uint64_t)c->total);
        }
    }
    if (code == 0) {
        say(c, "Images are identical.\n");
    }
    return code;
}

/* ---- the run ---- */

static int side_begin(struct compare *c, Platter *pl, unsigned i)
{
    struct compare_side *s = &c->sides[i];

    if (!disk_args_check(c->cli, &c->args->disks[i])) {
        c->cli->usage_told = false; /* 2 here, whoever is stood in for */
        return COMPARE_EXIT_OPEN;
    }
    s->file = c->args->disks[i].file;
    s->blk = disk_open(c->cli, pl, &c->args->disks[i]);
    if (!s->blk) {
        return COMPARE_EXIT_OPEN;
    }
    s->disk_bytes = blk_getlength(s->blk);
    if (s->disk_bytes < 0) {
        cli_error(c->cli, "Can't get size of %s: %s", s->file, strerror((int)-s->disk_bytes));
        return COMPARE_EXIT_READ;
    }
    s->buf = blk_blockalign(s->blk, CHUNK_BYTES);
    if (!s->buf) {
        cli_error(c->cli, "out of memory");
        return COMPARE_EXIT_READ;
    }
    return 0;
}

static int compare_run(struct cli *cli, const struct compare_args *args)
{
    struct compare c = {.cli = cli, .args = args};
    Platter *pl = disk_platter_new(cli, &args->disks[0]);
    int code = pl ? 0 : COMPARE_EXIT_OPEN;

    progress_begin(&c.progress, cli, progress_beside(args->progress, args->quiet));
    progress_start(&c.progress);
    for (unsigned i = 0; code == 0 && i < 2; i++) {
        code = side_begin(&c, pl, i);
    }
    if (code == 0) {
        c.total = c.sides[0].disk_bytes > c.sides[1].disk_bytes ? c.sides[0].disk_bytes
                                                                : c.sides[1].disk_bytes;
        code = compare_disks(&c);
    }
    progress_end(&c.progress, code == 0);
    for (unsigned i = 0; i < 2; i++) {
        blk_blockfree(c.sides[i].buf);
        blk_unref(c.sides[i].blk);
    }
    platter_free(pl);
    return code;
}

/* ---- arguments ---- */

static bool compare_take(struct compare_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case COMPARE_FORMAT_2:
        disk_take_format(&args->disks[1], a);
        return true;
    case COMPARE_PROGRESS:
        return progress_take(a, &args->progress) == CLI_EXIT_OK;
    case COMPARE_QUIET:
        args->quiet = true;
        return true;
    case COMPARE_STRICT:
        args->strict = true;
        return true;
    default:
        if (disk_take_option(&args->disks[0], id, a)) {
            return id == DISK_OPTION_FORMAT || id == DISK_OPTION_OBJECT ||
                   disk_take_option(&args->disks[1], id, a);
        }
        if (args->disks[1].file && !cli_stands_in(a->cli)) {
            cli_usage_error(a->cli, "two FILEs are wanted, '%s' is too much", a->value);
            return false;
        }
        return disk_take_file(&args->disks[args->disks[0].file != NULL], a);
    }
}

static int compare_command(struct cli *cli, int argc, char **argv)
{
    struct compare_args args = {
        .disks = {{.id = "disk1"}, {.id = "disk2", .format_switch = "-F "}}};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !compare_take(&args, id, &a)) {
            return COMPARE_EXIT_OPEN;
        }
    }
    if (!args.disks[1].file || args.disks[1].surplus) {
        cli_usage_error(cli, cli_stands_in(cli) ? "Expecting two image file names"
                                                : "two FILEs are wanted");
        return COMPARE_EXIT_OPEN;
    }
    return compare_run(cli, &args);
}

const struct cli_command command_compare = {
    .name = "compare",
    .object_exit = COMPARE_EXIT_OPEN,
    .lost_exit = COMPARE_EXIT_OPEN,
    .operands = "FILE1 FILE2",
    .summary = "Tell whether two disks hold the same",
    .options = compare_options,
    .details =
        "Ends with 0: they do, 1: they differ, 2: one could not be opened, or the answer not be\n"
        "written, 3: block status failed, 4: a read failed.\n\n"
        "Examples:\n"
        "  platter compare -f raw -F qcow2 disk.img disk.qcow2\n"
        "  platter compare -s -f qcow2 -F qcow2 a.qcow2 b.qcow2\n",
    .run = compare_command,
};
