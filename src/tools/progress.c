/* SPDX-License-Identifier: MIT */
/* The progress line. The line is printed again for each further percent. */
#include "tools/progress.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

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

/* ---- a signal that ends the program ---- */

#define FAILED_LINE "{\"event\": \"end\", \"ok\": false}\n"

/* What reads the lines is told, then the signal does what it always does. */
static void fail_to(int fd, int number)
{
    ssize_t told = write(fd, FAILED_LINE, sizeof(FAILED_LINE) - 1);

    (void)told; /* nobody reads */
    raise(number);
}

static void fail_to_out(int number)
{
    fail_to(STDOUT_FILENO, number);
}

static void fail_to_err(int number)
{
    fail_to(STDERR_FILENO, number);
}

static const int ending[] = {SIGINT, SIGTERM, SIGHUP};

/* The state is in the handlers, as nothing else can be where any thread may be interrupted. */
static void watch_ending(struct progress *p)
{
    int fd = fileno(p->cli->out);
    struct sigaction now = {.sa_flags = (int)SA_RESETHAND | SA_NODEFER};

    if (p->form != PROGRESS_JSON || (fd != STDOUT_FILENO && fd != STDERR_FILENO)) {
        return;
    }
    now.sa_handler = fd == STDOUT_FILENO ? fail_to_out : fail_to_err;
    sigemptyset(&now.sa_mask);
    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++) {
        struct sigaction before;

        if (sigaction(ending[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL) {
            (void)sigaction(ending[i], &now, NULL);
        }
    }
}

static void unwatch_ending(void)
{
    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++) {
        struct sigaction now;

        if (sigaction(ending[i], NULL, &now) == 0 &&
            (now.sa_handler == fail_to_out || now.sa_handler == fail_to_err)) {
            (void)signal(ending[i], SIG_DFL);
        }
    }
}

/* ---- begin and end ---- */

void progress_begin(struct progress *p, struct cli *cli, enum progress_form form)
{
    sigset_t signals;

    *p = (struct progress){.cli = cli, .form = form, .printed = -1};
    p->calls = (struct bdrv_progress){.report = report, .opaque = p};
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    p->signal_fd = os->signalfd(&signals);
    watch_ending(p);
}

void progress_start(struct progress *p)
{
    p->printed = -1;
    if (p->form == PROGRESS_LINE) {
        fprintf(p->cli->out, "    (%3.2f/100%%)\r", 0.0);
        (void)cli_flush(p->cli);
        p->printed = 0;
        p->line_stands = true;
    }
}

void progress_stop(struct progress *p)
{
    progress_answer(p);
    if (p->line_stands) {
        fputc('\n', p->cli->out);
        p->line_stands = false;
    }
    (void)cli_flush(p->cli);
}

void progress_end(struct progress *p, bool ok)
{
    progress_stop(p);
    if (p->signal_fd >= 0) {
        os->close(p->signal_fd);
        p->signal_fd = -1;
    }
    if (p->form == PROGRESS_JSON) {
        unwatch_ending();
        fputs(ok ? "{\"event\": \"end\", \"ok\": true}\n" : FAILED_LINE, p->cli->out);
        (void)cli_flush(p->cli);
    }
}
