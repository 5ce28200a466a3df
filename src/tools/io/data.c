/* SPDX-License-Identifier: MIT */
/* platter io: commands that move data: read, write, discard. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/io/io.h"
#include "util/checked.h"

struct transfer {
    struct io_result result;
    int pattern; /* -1: none */
    const char *pattern_file;
    bool verifies_part; /* -s, -l */
    bool has_verify_bytes;
    uint64_t verify_offset;
    uint64_t verify_bytes;
    bool vmstate;
    bool compressed;
    bool dump;
    bool zeroes;
    int flags; /* BDRV_REQ_* */
};

/* The operands "off len". 0, or -EINVAL after printing. */
static int transfer_range(struct io_session *s, const struct io_args *args, struct transfer *t,
                          uint64_t max, const char *unless)
{
    if (args->operand_count != 2) {
        return io_usage(s, args->command);
    }
    if (!io_number(s, args->operands[0], &t->result.offset) ||
        !io_number(s, args->operands[1], &t->result.bytes)) {
        return -EINVAL;
    }
    if (t->result.bytes > max) {
        cli_put_line(s->cli->out, "length cannot exceed %" PRIu64 "%s, given %s", max, unless,
                     args->operands[1]);
        return -EINVAL;
    }
    return 0;
}

/* VM state and compressed data go by sectors. */
static int sectors_only(struct io_session *s, const struct transfer *t)
{
    const struct io_result *r = &t->result;
    bool offset_good = r->offset % BDRV_SECTOR_SIZE == 0;

    if (!t->vmstate && !t->compressed) {
        return 0;
    }
    if (offset_good && r->bytes % BDRV_SECTOR_SIZE == 0) {
        return 0;
    }
    fprintf(s->cli->out, "%" PRIu64 " is not a sector-aligned value for '%s'\n",
            offset_good ? r->bytes : r->offset, offset_good ? "count" : "offset");
    return -EINVAL;
}

/* ---- read ---- */

/* Range of the pattern check inside the buffer. 0, or -EINVAL after printing. */
static int verify_range(struct io_session *s, const struct io_command *c, struct transfer *t)
{
    if (t->pattern < 0 && t->verifies_part) {
        return io_usage(s, c);
    }
    if (!t->has_verify_bytes && t->verify_offset <= t->result.bytes) {
        t->verify_bytes = t->result.bytes - t->verify_offset;
    }
    if (t->verify_offset > t->result.bytes ||
        !range_inside(t->verify_offset, t->verify_bytes, t->result.bytes)) {
        fputs("pattern verification range exceeds end of read data\n", s->cli->out);
        return -EINVAL;
    }
    return 0;
}

static int read_and_check(struct io_session *s, const struct transfer *t, unsigned char *buf)
{
    struct iovec iov = {buf, (size_t)t->result.bytes};
    struct iov_view view = iov_view_of(&iov, 1);
    int ret = t->vmstate
                  ? blk_load_vmstate(s->blk, buf, (int64_t)t->result.offset, (int)t->result.bytes)
                  : blk_preadv(s->blk, (int64_t)t->result.offset, &view, 0);

    if (ret < 0) {
        return io_failed(s, "read", ret);
    }
    if (t->pattern >= 0 && !io_all_bytes_are(buf + t->verify_offset, t->verify_bytes, t->pattern)) {
        io_mismatch(s, t->result.offset + t->verify_offset, t->verify_bytes);
        ret = -EINVAL;
    }
    if (t->dump && !t->result.quiet) {
        io_dump(s, buf, t->result.offset, t->result.bytes);
    }
    io_report(s, &t->result);
    return ret;
}

static bool read_option(struct io_session *s, struct transfer *t, int letter, const char *value)
{
    switch (letter) {
    case 'b':
        t->vmstate = true;
        return true;
    case 'C':
        t->result.machine = true;
        return true;
    case 'l':
        t->verifies_part = true;
        t->has_verify_bytes = true;
        return io_number(s, value, &t->verify_bytes);
    case 'P':
        return io_pattern(s, value, &t->pattern);
    case 'q':
        t->result.quiet = true;
        return true;
    case 's':
        t->verifies_part = true;
        return io_number(s, value, &t->verify_offset);
    case 'v':
        t->dump = true;
        return true;
    default: /* -p: nothing any more */
        return letter != '?';
    }
}

static int run_read(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    struct io_args args = io_args_begin(s, c, argc, argv);
    struct transfer t = {.result.verb = "read", .pattern = -1};
    unsigned char *buf;
    int letter;
    int ret;

    while ((letter = io_next_option(&args, "bCl:pP:qs:v")) != 0) {
        if (!read_option(s, &t, letter, args.value)) {
            return -EINVAL;
        }
    }
    ret = transfer_range(s, &args, &t, IO_LENGTH_MAX, "");
    if (ret == 0) {
        ret = verify_range(s, c, &t);
    }
    if (ret == 0) {
        ret = sectors_only(s, &t);
    }
    if (ret < 0) {
        return ret;
    }
    buf = io_buffer_new(s, t.result.bytes, IO_FILL_READ);
    if (!buf) {
        return -ENOMEM;
    }
    t.result.start_ns = aio_clock_ns();
    ret = read_and_check(s, &t, buf);
    io_buffer_free(s, buf);
    return ret;
}

/* ---- write ---- */

/* Fill buf with the content of a file, over and over. */
static int fill_from_file(struct io_session *s, const char *path, unsigned char *buf,
                          uint64_t bytes)
{
    FILE *f = fopen(path, "rb");
    size_t have;

    if (!f) {
        cli_put_line(s->cli->err, "%s: %s", path, strerror(errno));
        return -EINVAL;
    }
    have = fread(buf, 1, (size_t)bytes, f);
    if (ferror(f) || (have == 0 && bytes > 0)) {
        cli_put_line(s->cli->err, "%s: %s", path, ferror(f) ? strerror(errno) : "file is empty");
        fclose(f);
        return -EINVAL;
    }
    fclose(f);
    for (uint64_t i = have; i < bytes; i++) {
        buf[i] = buf[i - have];
    }
    return 0;
}

static int write_data(struct io_session *s, struct transfer *t)
{
    int fill = t->pattern >= 0 ? t->pattern : IO_FILL_WRITE;
    unsigned char *buf = io_buffer_new(s, t->result.bytes, fill);
    struct iovec iov = {buf, (size_t)t->result.bytes};
    struct iov_view view = iov_view_of(&iov, 1);
    int ret = buf ? 0 : -ENOMEM;

    if (ret == 0 && t->pattern_file) {
        ret = fill_from_file(s, t->pattern_file, buf, t->result.bytes);
    }
    if (ret == 0) {
        t->result.start_ns = aio_clock_ns();
        ret = t->vmstate
                  ? blk_save_vmstate(s->blk, buf, (int64_t)t->result.offset, (int)t->result.bytes)
                  : blk_pwritev(s->blk, (int64_t)t->result.offset, &view,
                                t->flags | (t->compressed ? BDRV_REQ_WRITE_COMPRESSED : 0));
        ret = ret < 0 ? io_failed(s, "write", ret) : 0; /* VM state: the bytes written */
    }
    io_buffer_free(s, buf);
    return ret;
}

static int write_zeroes(struct io_session *s, struct transfer *t)
{
    int ret;

    t->result.start_ns = aio_clock_ns();
    ret = blk_pwrite_zeroes(s->blk, (int64_t)t->result.offset, (int64_t)t->result.bytes, t->flags);
    return ret < 0 ? io_failed(s, "write", ret) : 0;
}

static bool write_option(struct io_session *s, struct transfer *t, int letter, const char *value)
{
    switch (letter) {
    case 'b':
        t->vmstate = true;
        return true;
    case 'c':
        t->compressed = true;
        return true;
    case 'C':
        t->result.machine = true;
        return true;
    case 'f':
        t->flags |= BDRV_REQ_FUA;
        return true;
    case 'n':
        t->flags |= BDRV_REQ_NO_FALLBACK;
        return true;
    case 'P':
        return io_pattern(s, value, &t->pattern);
    case 'q':
        t->result.quiet = true;
        return true;
    case 's':
        t->pattern_file = value;
        return true;
    case 'u':
        t->flags |= BDRV_REQ_MAY_UNMAP;
        return true;
    case 'z':
        t->zeroes = true;
        return true;
    default: /* -p: nothing any more */
        return letter != '?';
    }
}

static int write_options_check(struct io_session *s, const struct transfer *t)
{
    const char *message = NULL;

    if (t->vmstate && t->zeroes) {
        message = "-b and -z cannot be specified at the same time";
    } else if ((t->vmstate || t->compressed) && (t->flags & BDRV_REQ_FUA)) {
        message = "-f and -b or -c cannot be specified at the same time";
    } else if ((t->flags & BDRV_REQ_NO_FALLBACK) && !t->zeroes) {
        message = "-n requires -z to be specified";
    } else if ((t->flags & BDRV_REQ_MAY_UNMAP) && !t->zeroes) {
        message = "-u requires -z to be specified";
    } else if (t->zeroes + (t->pattern >= 0) + (t->pattern_file != NULL) > 1) {
        message = "Only one of -z, -P, and -s can be specified at the same time";
    }
    if (message) {
        fprintf(s->cli->out, "%s\n", message);
        return -EINVAL;
    }
    return 0;
}

static int run_write(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    struct io_args args = io_args_begin(s, c, argc, argv);
    struct transfer t = {.result.verb = "wrote", .pattern = -1};
    int letter;
    int ret;

    while ((letter = io_next_option(&args, "bcCfnpP:qs:uz")) != 0) {
        if (!write_option(s, &t, letter, args.value)) {
            return -EINVAL;
        }
    }
    ret = args.operand_count != 2 ? io_usage(s, c) : write_options_check(s, &t);
    if (ret == 0) {
        ret = t.flags & BDRV_REQ_NO_FALLBACK
                  ? transfer_range(s, &args, &t, INT64_MAX, "")
                  : transfer_range(s, &args, &t, IO_LENGTH_MAX, " without -n");
    }
    if (ret == 0) {
        ret = sectors_only(s, &t);
    }
    if (ret == 0) {
        ret = t.zeroes ? write_zeroes(s, &t) : write_data(s, &t);
    }
    if (ret == 0) {
        io_report(s, &t.result);
    }
    return ret;
}

/* ---- discard ---- */

static int run_discard(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    struct io_args args = io_args_begin(s, c, argc, argv);
    struct transfer t = {.result.verb = "discard"};
    int letter;
    int ret;

    while ((letter = io_next_option(&args, "Cq")) != 0) {
        if (letter == '?') {
            return -EINVAL;
        }
        t.result.machine = t.result.machine || letter == 'C';
        t.result.quiet = t.result.quiet || letter == 'q';
    }
    ret = transfer_range(s, &args, &t, IO_LENGTH_MAX, "");
    if (ret < 0) {
        return ret;
    }
    t.result.start_ns = aio_clock_ns();
    ret = blk_pdiscard(s->blk, (int64_t)t.result.offset, (int64_t)t.result.bytes);
    if (ret < 0) {
        return io_failed(s, "discard", ret);
    }
    io_report(s, &t.result);
    return 0;
}

const struct io_command io_data_commands[] = {
    {"read", "r", "[-abCqv] [-P pattern [-s off] [-l len]] off len",
     "reads a number of bytes at a specified offset", 2, -1, true, false, run_read},
    {"write", "w", "[-bcCfnquz] [-P pattern | -s source_file] off len",
     "writes a number of bytes at a specified offset", 2, -1, true, true, run_write},
    {"discard", "d", "[-Cq] off len", "discards a number of bytes at a specified offset", 2, -1,
     true, true, run_discard},
    {0},
};
