/* SPDX-License-Identifier: MIT */
/* platter io: commands about the process: sleep, sigraise, abort. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "tools/io/io.h"

#define NS_PER_MS INT64_C(1000000)

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
    long ms;
    AioTimer *timer;

    if (!io_c_number(argv[1], INT32_MAX, &ms)) {
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

static int run_abort(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    fflush(s->cli->out);
    abort();
}

const struct io_command io_process_commands[] = {
    {"abort", NULL, NULL, "simulate a program crash using abort(3)", 0, 0, false, false, run_abort},
    {"sleep", NULL, NULL, "waits for the given value in milliseconds", 1, 1, false, false,
     run_sleep},
    {"sigraise", NULL, "signal", "raises a signal", 1, 1, false, false, run_sigraise},
    {0},
};
