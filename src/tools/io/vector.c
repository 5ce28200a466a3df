/* SPDX-License-Identifier: MIT */
/* platter io: readv and writev, whose buffer is in pieces. */
#include <errno.h>
#include <inttypes.h>

#include "tools/io/io.h"

struct vector_transfer {
    struct io_result result;
    int pattern; /* -1: none */
    bool dump;
    int flags; /* BDRV_REQ_* */
};

/* Options and offset; the lengths are the operands behind it. 0, or -EINVAL after printing. */
static int take_arguments(struct io_args *args, const char *letters, struct vector_transfer *t)
{
    int letter;

    while ((letter = io_next_option(args, letters)) != 0) {
        switch (letter) {
        case 'C':
            t->result.machine = true;
            break;
        case 'f':
            t->flags |= BDRV_REQ_FUA;
            break;
        case 'P':
            if (!io_pattern(args->s, args->value, &t->pattern)) {
                return -EINVAL;
            }
            break;
        case 'q':
            t->result.quiet = true;
            break;
        case 'v':
            t->dump = true;
            break;
        default:
            return -EINVAL;
        }
    }
    if (args->operand_count < 2) {
        return io_usage(args->s, args->command);
    }
    return io_number(args->s, args->operands[0], &t->result.offset) ? 0 : -EINVAL;
}

static int check_and_show(struct io_session *s, const struct vector_transfer *t,
                          const unsigned char *buf)
{
    int ret = 0;

    if (t->pattern >= 0 && !io_all_bytes_are(buf, t->result.bytes, t->pattern)) {
        io_mismatch(s, t->result.offset, t->result.bytes);
        ret = -EINVAL;
    }
    if (t->dump && !t->result.quiet) {
        io_dump(s, buf, t->result.offset, t->result.bytes);
    }
    io_report(s, &t->result);
    return ret;
}

static int run_readv(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    struct io_args args = io_args_begin(s, c, argc, argv);
    struct vector_transfer t = {.result.verb = "read", .pattern = -1};
    struct io_pieces pieces;
    struct iov_view view;
    int ret = take_arguments(&args, "CP:qv", &t);

    if (ret == 0) {
        ret = io_pieces_init(s, &pieces, args.operands + 1, args.operand_count - 1, IO_FILL_READ);
    }
    if (ret < 0) {
        return ret;
    }
    t.result.bytes = pieces.bytes;
    t.result.start_ns = aio_clock_ns();
    view = iov_view_of(pieces.iov, pieces.count);
    ret = blk_preadv(s->blk, (int64_t)t.result.offset, &view, 0);
    ret = ret < 0 ? io_failed(s, "readv", ret) : check_and_show(s, &t, pieces.buf);
    io_pieces_fini(s, &pieces);
    return ret;
}

static int run_writev(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    struct io_args args = io_args_begin(s, c, argc, argv);
    struct vector_transfer t = {.result.verb = "wrote", .pattern = IO_FILL_WRITE};
    struct io_pieces pieces;
    struct iov_view view;
    int ret = take_arguments(&args, "CfP:q", &t);

    if (ret == 0) {
        ret = io_pieces_init(s, &pieces, args.operands + 1, args.operand_count - 1, t.pattern);
    }
    if (ret < 0) {
        return ret;
    }
    t.result.bytes = pieces.bytes;
    t.result.start_ns = aio_clock_ns();
    view = iov_view_of(pieces.iov, pieces.count);
    ret = blk_pwritev(s->blk, (int64_t)t.result.offset, &view, t.flags);
    if (ret < 0) {
        io_failed(s, "writev", ret);
    } else {
        io_report(s, &t.result);
    }
    io_pieces_fini(s, &pieces);
    return ret;
}

const struct io_command io_vector_commands[] = {
    {"readv", NULL, "[-Cqv] [-P pattern] off len [len..]",
     "reads a number of bytes at a specified offset", 2, -1, true, false, run_readv},
    {"writev", NULL, "[-Cfq] [-P pattern] off len [len..]",
     "writes a number of bytes at a specified offset", 2, -1, true, true, run_writev},
    {0},
};
