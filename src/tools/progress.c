/* SPDX-License-Identifier: MIT */
/* The progress line. The line is printed again for each further percent. */
#include "tools/progress.h"

#include <inttypes.h>
#include <string.h>

#include "os/os.h"

#define STEP_PERCENT 1.0

const char *const progress_words[] = {"json", NULL};

void progress_answer(struct progress *p)
{
    char info[128]; /* a struct signalfd_siginfo */

    while (p->signal_fd >= 0 && os->read(p->signal_fd, info, sizeof(info)) > 0) {
        fprintf(p->cli->err, "    (%3.2f/100%%)\n", p->percent);
    }
}

static void show(const struct progress *p, uint64_t done, uint64_t total)
{
    if (p->form == PROGRESS_JSON) {
        fprintf(p->cli->out,
                "{\"event\": \"progress\", \"done\": %" PRIu64 ", \"total\": %" PRIu64
                ", \"percent\": %.2f}\n",
                done, total, p->percent);
    } else {
        fprintf(p->cli->out, "    (%3.2f/100%%)\r", p->percent);
    }
    (void)cli_flush(p->cli);
}

void progress_set(struct progress *p, uint64_t done, uint64_t total)
{
    p->total = total;
    p->percent = done >= total ? 100.0 : (double)done * 100.0 / (double)total;
    if (p->form != PROGRESS_NONE && (p->printed < 0 || p->percent >= p->printed + STEP_PERCENT ||
                                     (p->percent >= 100.0 && p->printed < 100.0))) {
        show(p, done, total);
        p->printed = p->percent;
    }
    progress_answer(p);
}

void progress_complete(struct progress *p)
{
    if (p->line_again && p->form == PROGRESS_LINE) {
        p->printed = -1;
    }
    progress_set(p, p->total, p->total);
}

static void report(void *opaque, uint64_t done, uint64_t total)
{
    progress_set(opaque, done, total);
}

int progress_take(const struct cli_args *a, enum progress_form *ret)
{
    if (a->value && !cli_is_word(a->value, progress_words)) {
        return cli_usage_error(a->cli, "no form of progress '%s': there is json", a->value);
    }
    *ret = a->value ? PROGRESS_JSON : PROGRESS_LINE;
    return CLI_EXIT_OK;
}

void progress_begin(struct progress *p, struct cli *cli, enum progress_form form)
{
    sigset_t signals;

    *p = (struct progress){.cli = cli, .form = form, .printed = -1};
    p->calls = (struct bdrv_progress){.report = report, .opaque = p};
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    p->signal_fd = os->signalfd(&signals);
    if (form == PROGRESS_LINE) {
        fprintf(cli->out, "    (%3.2f/100%%)\r", 0.0);
        (void)cli_flush(cli);
        p->printed = 0;
    }
}

void progress_end(struct progress *p, bool ok)
{
    progress_answer(p);
    if (p->signal_fd >= 0) {
        os->close(p->signal_fd);
        p->signal_fd = -1;
    }
    if (p->form == PROGRESS_JSON) {
        fprintf(p->cli->out, "{\"event\": \"end\", \"ok\": %s}\n", ok ? "true" : "false");
    } else if (p->form == PROGRESS_LINE) {
        fputc('\n', p->cli->out);
    }
    (void)cli_flush(p->cli);
}
