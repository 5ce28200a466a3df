/* SPDX-License-Identifier: MIT */
/* platter io: aio_read, aio_write and aio_flush. A request is under way when its command has
 * succeeded; what became of it is printed when it ends. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <platter/accounting.h>

#include "tools/io/io.h"

/* One request; its own owner until it has ended. */
struct request {
    struct io_session *s;
    struct io_result result;
    struct io_pieces pieces; /* none where zeroes are written */
    struct iov_view view;
    BlockAcctCookie cookie;
    int pattern; /* to verify or to write; -1: none */
    bool read;
    bool dump;
    bool zeroes;
    bool invalid;
    int flags; /* BDRV_REQ_* */
};

static void request_free(struct request *r)
{
    io_pieces_fini(r->s, &r->pieces);
    free(r);
}

static void show_read(struct request *r)
{
    if (r->pattern >= 0 && !io_all_bytes_are(r->pieces.buf, r->result.bytes, r->pattern)) {
        io_mismatch(r->s, r->result.offset, r->result.bytes);
    }
    if (r->dump && !r->result.quiet) {
        io_dump(r->s, r->pieces.buf, r->result.offset, r->result.bytes);
    }
}

static void request_done(void *opaque, int ret)
{
    struct request *r = opaque;
    struct io_session *s = r->s;
    BlockAcctStats *stats = blk_get_stats(s->blk);

    if (ret < 0) {
        block_acct_failed(stats, &r->cookie);
        io_failed(s, r->read ? "readv" : "aio_write", ret);
    } else {
        block_acct_done(stats, &r->cookie);
        if (r->read) {
            show_read(r);
        }
        io_report(s, &r->result);
    }
    s->in_flight--;
    request_free(r);
}

void io_wait_all(struct io_session *s)
{
    while (s->in_flight > 0) {
        aio_poll(platter_get_main_context(s->pl), true);
    }
}

/* ---- from the line to the request ---- */

static bool take_option(struct request *r, int letter, const char *value)
{
    switch (letter) {
    case 'C':
        r->result.machine = true;
        return true;
    case 'f':
        r->flags |= BDRV_REQ_FUA;
        return true;
    case 'i':
        r->invalid = true;
        return true;
    case 'P':
        return io_pattern(r->s, value, &r->pattern);
    case 'q':
        r->result.quiet = true;
        return true;
    case 'u':
        r->flags |= BDRV_REQ_MAY_UNMAP;
        return true;
    case 'v':
        r->dump = true;
        return true;
    case 'z':
        r->zeroes = true;
        return true;
    default:
        return false;
    }
}

/* Switches that do not go together. */
static int check_switches(const struct request *r, const struct io_args *args)
{
    const char *message = NULL;

    if (r->zeroes && args->operand_count != 2) {
        message = "-z supports only a single length parameter";
    } else if ((r->flags & BDRV_REQ_MAY_UNMAP) && !r->zeroes) {
        message = "-u requires -z to be specified";
    }
    if (message) {
        fprintf(r->s->cli->out, "%s\n", message);
        return -EINVAL;
    }
    return 0;
}

/* Offset and lengths. 0, or -errno after printing. */
static int take_range(struct request *r, const struct io_args *args)
{
    int fill = r->read ? IO_FILL_READ : r->pattern >= 0 ? r->pattern : IO_FILL_WRITE;
    int ret;

    if (!io_number(r->s, args->operands[0], &r->result.offset)) {
        return -EINVAL;
    }
    if (r->zeroes) {
        return io_number(r->s, args->operands[1], &r->result.bytes) ? 0 : -EINVAL;
    }
    ret = io_pieces_init(r->s, &r->pieces, args->operands + 1, args->operand_count - 1, fill);
    if (ret == 0) {
        r->view = iov_view_of(r->pieces.iov, r->pieces.count);
        r->result.bytes = r->pieces.bytes;
    }
    return ret;
}

static int submit(struct request *r)
{
    BlockBackend *blk = r->s->blk;
    int64_t offset = (int64_t)r->result.offset;
    BlockAIOCB *acb;

    block_acct_start(blk_get_stats(blk), &r->cookie, r->result.bytes,
                     r->read ? BLOCK_ACCT_READ : BLOCK_ACCT_WRITE);
    r->result.start_ns = aio_clock_ns();
    if (r->read) {
        acb = blk_aio_preadv(blk, offset, &r->view, 0, request_done, r);
    } else if (r->zeroes) {
        acb =
            blk_aio_pwrite_zeroes(blk, offset, (int64_t)r->result.bytes, r->flags, request_done, r);
    } else {
        acb = blk_aio_pwritev(blk, offset, &r->view, r->flags, request_done, r);
    }
    if (!acb) {
        block_acct_failed(blk_get_stats(blk), &r->cookie);
        return io_failed(r->s, r->read ? "readv" : "aio_write", -ENOMEM);
    }
    r->s->in_flight++;
    return 0;
}

static int prepare(struct request *r, struct io_args *args, const char *letters)
{
    int letter;
    int ret;

    while ((letter = io_next_option(args, letters)) != 0) {
        if (!take_option(r, letter, args->value)) {
            return -EINVAL;
        }
        if (r->invalid) {
            return 0; /* the rest of the line does not matter */
        }
    }
    if (args->operand_count < 2) {
        return io_usage(r->s, args->command);
    }
    ret = check_switches(r, args);
    return ret < 0 ? ret : take_range(r, args);
}

static int start(struct io_session *s, struct io_args *args, const char *letters, bool read)
{
    struct request *r = calloc(1, sizeof(*r));
    int ret;

    if (!r) {
        cli_error(s->cli, "out of memory");
        return -ENOMEM;
    }
    r->s = s;
    r->read = read;
    r->pattern = -1;
    r->result.verb = read ? "read" : "wrote";
    ret = prepare(r, args, letters);
    if (ret == 0 && r->invalid) {
        fprintf(s->cli->out, "injecting invalid %s request\n", read ? "read" : "write");
        block_acct_invalid(blk_get_stats(s->blk), read ? BLOCK_ACCT_READ : BLOCK_ACCT_WRITE);
        request_free(r);
        return 0;
    }
    ret = ret == 0 ? submit(r) : ret;
    if (ret < 0) {
        request_free(r);
    }
    return ret;
}

static int run_aio_read(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    struct io_args args = io_args_begin(s, c, argc, argv);

    return start(s, &args, "CiP:qv", true);
}

static int run_aio_write(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    struct io_args args = io_args_begin(s, c, argc, argv);

    return start(s, &args, "CfiP:quz", false);
}

static int run_aio_flush(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    const char *tag = io_suspended_tag(s);

    if (tag) {
        cli_error(s->cli, "request '%s' waits at its breakpoint: resume it first", tag);
        return -EDEADLK;
    }
    io_wait_all(s);
    return 0;
}

const struct io_command io_async_commands[] = {
    {"aio_read", NULL, "[-Ciqv] [-P pattern] off len [len..]",
     "asynchronously reads a number of bytes", 2, -1, true, false, run_aio_read},
    {"aio_write", NULL, "[-Cfiquz] [-P pattern] off len [len..]",
     "asynchronously writes a number of bytes", 2, -1, true, true, run_aio_write},
    {"aio_flush", NULL, NULL, "completes all outstanding aio requests", 0, 0, true, false,
     run_aio_flush},
    {0},
};
