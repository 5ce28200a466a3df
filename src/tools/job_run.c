/* SPDX-License-Identifier: MIT */
/* Jobs of commands: progress, and an end in order when a signal comes. */
#include "tools/job_run.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "os/os.h"
#include "tools/signals.h"
#include "util/error.h"

/* End as if the signal had never been held back. */
static void die(int number)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, number);
    sigprocmask(SIG_UNBLOCK, &signals, NULL);
    raise(number);
    _exit(128 + number);
}

static void on_signal(void *opaque)
{
    struct job_run *run = opaque;
    struct signalfd_siginfo info;

    while (os->read(run->signal_fd, &info, sizeof(info)) == (long)sizeof(info)) {
        int number = (int)info.ssi_signo;

        if (run->at_once || run->signal != 0 || !run->job || job_cancel(run->job, true, NULL) < 0) {
            die(number);
        }
        run->signal = number;
    }
}

static void on_question(void *opaque)
{
    struct job_run *run = opaque;

    progress_answer(&run->progress);
}

void job_run_begin(struct job_run *run, struct cli *cli, enum progress_form form)
{
    *run = (struct job_run){.cli = cli};
    run->signal_fd = signals_hold(NULL);
    progress_begin(&run->progress, cli, form);
    progress_start(&run->progress);
}

int job_run_watch(struct job_run *run, Platter *pl)
{
    AioContext *ctx = platter_get_main_context(pl);
    int ret = run->signal_fd < 0 ? run->signal_fd
                                 : aio_set_fd_handler(ctx, run->signal_fd, on_signal, NULL, run);

    if (ret < 0) {
        return cli_error(run->cli, "cannot wait for signals: %s", strerror(-ret));
    }
    run->ctx = ctx;
    if (run->progress.signal_fd >= 0) { /* else steps of the work answer, where they are watched */
        (void)aio_set_fd_handler(ctx, run->progress.signal_fd, on_question, NULL, run);
    }
    return CLI_EXIT_OK;
}

struct job_start job_run_start(struct job_run *run)
{
    return (struct job_start){
        .id = run->cli->command->name,
        .flags = JOB_MANUAL_DISMISS,
        .progress = &run->progress.calls,
    };
}

int job_run_to_end(struct job_run *run, Job *job, Error **errp)
{
    Error *err = NULL;
    int ret;

    if (!job) {
        return -EINVAL; /* errp is set */
    }
    run->job = job;
    ret = job_wait(job, &err);
    run->job = NULL;
    job_dismiss(job, NULL);
    if (ret == -ECANCELED && run->signal != 0) {
        error_free(err);
        return error_set(errp, ECANCELED, "ended by a signal: %s", strsignal(run->signal));
    }
    error_propagate(errp, err);
    return ret;
}

int job_run_wait(struct job_run *run, Job *job, Error *err)
{
    int ret = job_run_to_end(run, job, &err);

    return ret < 0 ? cli_report(run->cli, err) : CLI_EXIT_OK;
}

void job_run_end(struct job_run *run, int code)
{
    if (code == CLI_EXIT_OK) {
        progress_complete(&run->progress);
    }
    if (run->ctx) {
        if (run->progress.signal_fd >= 0) {
            aio_set_fd_handler(run->ctx, run->progress.signal_fd, NULL, NULL, NULL);
        }
        aio_set_fd_handler(run->ctx, run->signal_fd, NULL, NULL, NULL);
        run->ctx = NULL;
    }
    progress_end(&run->progress, code == CLI_EXIT_OK);
    if (run->signal_fd >= 0) {
        os->close(run->signal_fd);
        run->signal_fd = -1;
    }
}

int job_run_disk(struct job_run *run, const struct disk_args *args,
                 int (*work)(struct cli *cli, BlockBackend *blk, void *opaque), void *opaque)
{
    Platter *pl = disk_platter_new(run->cli, args);
    int code = pl ? job_run_watch(run, pl) : CLI_EXIT_FAILED;

    if (code == CLI_EXIT_OK) {
        code = disk_run_on(run->cli, pl, args, work, opaque);
    }
    job_run_end(run, code);
    platter_free(pl);
    return code;
}

void job_run_leave(const struct job_run *run)
{
    if (run->signal != 0) {
        die(run->signal);
    }
}
