/* SPDX-License-Identifier: MIT */
/* platter io: commands about the session and its process: close, sleep, sigraise. */
#include <errno.h>
#include <signal.h>

#include "tools/io/io.h"
#include "util/size.h"

#define NS_PER_MS INT64_C(1000000)

/* What was written reaches the disk before it is let go, or somebody is told. */
static int run_close(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    int ret = blk_is_read_only(s->blk) ? 0 : blk_flush(s->blk);

    if (ret < 0) {
        io_failed(s, "flush", ret);
    }
    blk_unref(s->blk);
    s->blk = NULL;
    return ret;
}

static void sleep_over(void *opaque)
{
    bool *over = opaque;

    *over = true;
}

/* The loop goes on meanwhile, as it does for a request that takes long. */
static int run_sleep(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    AioContext *ctx = platter_get_main_context(s->pl);
    bool over = false;
    uint64_t ms;
    AioTimer *timer;

    if (number_parse(argv[1], "sleep", 0, UINT32_MAX, &ms, NULL) < 0) {
        cli_put_line(s->cli->out, "%s is not a valid number", argv[1]);
        return -EINVAL;
    }
    timer = aio_timer_new(ctx, sleep_over, &over);
    if (!timer) {
        cli_error(s->cli, "out of memory");
        return -ENOMEM;
    }
    aio_timer_mod(timer, aio_clock_ns() + (int64_t)ms * NS_PER_MS);
    while (!over) {
        aio_poll(ctx, true);
    }
    aio_timer_free(timer);
    return 0;
}

static int run_sigraise(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    uint64_t number;

    if (!io_number(s, argv[1], &number)) {
        return -EINVAL;
    }
    if (number > (uint64_t)SIGRTMAX) {
        cli_put_line(s->cli->out, "signal argument '%s' is too large to be a valid signal",
                     argv[1]);
        return -EINVAL;
    }
    /* The signal may end the process: what was printed stands before that. */
    fflush(s->cli->out);
    raise((int)number);
    return 0;
}

static const char sigraise_help[] = "\n"
                                    " raises the given signal\n"
                                    "\n"
                                    " Example:\n"
                                    " 'sigraise 15' - raises SIGTERM\n"
                                    "\n";

const struct io_command io_process_commands[] = {
    {"close", NULL, "", "close the current open file", NULL, 0, 0, true, false, run_close},
    {"sleep", NULL, "", "waits for the given value in milliseconds", NULL, 1, 1, false, false,
     run_sleep},
    {"sigraise", NULL, "signal", "raises a signal", sigraise_help, 1, 1, false, false,
     run_sigraise},
    {0},
};
