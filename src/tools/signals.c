/* SPDX-License-Identifier: MIT */
/* Signals that end a server, through a descriptor. */
#include <signal.h>
#include <string.h>

#include "os/os.h"
#include "tools/signals.h"

static void signal_arrived(void *opaque)
{
    struct end_signals *s = opaque;
    char info[128]; /* a struct signalfd_siginfo; which one does not matter */

    while (os->read(s->fd, info, sizeof(info)) > 0) {
        s->arrived = true;
    }
}

int signals_hold(const sigset_t *always)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    sigset_t signals;

    sigemptyset(&signals);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct sigaction now;

        if ((always && sigismember(always, numbers[i]) == 1) ||
            (sigaction(numbers[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)) {
            sigaddset(&signals, numbers[i]);
        }
    }
    return os->signalfd(&signals);
}

int end_signals_begin(struct end_signals *s, struct cli *cli)
{
    sigset_t always;
    int ret;

    /* SIGTERM means this process, not its terminal: who sends it wants the server to end, and
     * nothing else ends one in order. The reference ends on all of them. */
    sigemptyset(&always);
    sigaddset(&always, SIGTERM);
    if (cli_stands_in(cli)) {
        sigaddset(&always, SIGINT);
        sigaddset(&always, SIGHUP);
    }
    ret = signals_hold(&always);
    if (ret < 0) {
        cli_error(cli, "cannot wait for signals: %s", strerror(-ret));
        return ret;
    }
    s->fd = ret;
    return 0;
}

int end_signals_watch(struct end_signals *s, struct cli *cli, AioContext *ctx)
{
    int ret = aio_set_fd_handler(ctx, s->fd, signal_arrived, NULL, s);

    if (ret < 0) {
        cli_error(cli, "cannot wait for signals: %s", strerror(-ret));
        return ret;
    }
    s->ctx = ctx;
    return 0;
}

void end_signals_end(struct end_signals *s)
{
    if (s->ctx) {
        aio_set_fd_handler(s->ctx, s->fd, NULL, NULL, NULL);
        s->ctx = NULL;
    }
    if (s->fd >= 0) {
        os->close(s->fd);
        s->fd = -1;
    }
}
