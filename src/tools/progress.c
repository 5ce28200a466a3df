/* SPDX-License-Identifier: MIT */
/* The progress line. The line is printed again for each further percent. */
#include "tools/progress.h"

#include <inttypes.h>

#include "os/os.h"

#define STEP_PERCENT 1.0

static void answer_signals(struct progress *p)
{
    char info[128]; /* a struct signalfd_siginfo */

    while (p->signal_fd >= 0 && os->read(p->signal_fd, info, sizeof(info)) > 0) {
        fprintf(p->cli->err, "    (%3.2f/100%%)\n", p->percent);
    }
}

static void show(const struct progress *p, uint64_t done, uint64_t total)
{
    if (p->json) {
        fprintf(p->cli->out,
                "{\"event\": \"progress\", \"done\": %" PRIu64 ", \"total\": %" PRIu64
                ", \"percent\": %.2f}\n",
                done, total, p->percent);
    } else {
        fprintf(p->cli->out, "    (%3.2f/100%%)\r", p->percent);
    }
    fflush(p->cli->out);
}

void progress_set(struct progress *p, uint64_t done, uint64_t total)
{
    p->percent = done >= total ? 100.0 : (double)done * 100.0 / (double)total;
    if (p->shown && (p->printed < 0 || p->percent >= p->printed + STEP_PERCENT ||
                     (p->percent >= 100.0 && p->printed < 100.0))) {
        show(p, done, total);
        p->printed = p->percent;
    }
    answer_signals(p);
}

static void report(void *opaque, uint64_t done, uint64_t total)
{
    progress_set(opaque, done, total);
}

void progress_begin(struct progress *p, struct cli *cli, bool shown)
{
    sigset_t signals;

    *p = (struct progress){.cli = cli, .shown = shown, .printed = -1};
    p->calls = (struct bdrv_progress){.report = report, .opaque = p};
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    p->signal_fd = os->signalfd(&signals);
    if (shown) {
        fprintf(cli->out, "    (%3.2f/100%%)\r", 0.0);
        fflush(cli->out);
        p->printed = 0;
    }
}

void progress_begin_json(struct progress *p, struct cli *cli)
{
    progress_begin(p, cli, false);
    p->json = true;
    p->shown = true;
}

void progress_end_json(struct progress *p, bool ok)
{
    fprintf(p->cli->out, "{\"event\": \"end\", \"ok\": %s}\n", ok ? "true" : "false");
    p->shown = false;
    progress_end(p);
}

void progress_end(struct progress *p)
{
    answer_signals(p);
    if (p->signal_fd >= 0) {
        os->close(p->signal_fd);
        p->signal_fd = -1;
    }
    if (p->shown) {
        fputc('\n', p->cli->out);
        fflush(p->cli->out);
    }
}
