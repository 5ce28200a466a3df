/* SPDX-License-Identifier: MIT */
#include "gate.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define HANG_SECONDS 30
#define EXIT_HUNG 3
#define EXIT_SKIPPED 77

static struct {
    const struct scenario_list *list;
    void (*run_scenario)(const struct scenario *s);
    char current[256]; /* what runs, for a report of a hang or crash */
    unsigned fds;      /* before it */
    unsigned long runs, failed_runs, wrong_runs;
} gate;

bool gate_is_qcow2(void)
{
    return gate.list == &scenarios_qcow2;
}

bool gate_runs_all(void)
{
    return getenv("PLATTER_ALL") != NULL;
}

static void hung(int sig)
{
    static const char text[] = "HANG: ";

    if ((sig == SIGALRM && write(2, text, sizeof(text) - 1) < 0) ||
        write(2, gate.current, strlen(gate.current)) < 0) {
        _exit(EXIT_HUNG);
    }
    if (sig != SIGALRM) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
    _exit(EXIT_HUNG);
}

void gate_begin(struct scenario_run *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(gate.current, sizeof(gate.current), fmt, ap);
    va_end(ap);
    memset(r, 0, sizeof(*r));
    gate.fds = harness_process_fds();
    alarm(HANG_SECONDS);
}

void gate_go_on(struct scenario_run *r, bool strict)
{
    bool writable = r->h.blk && blk_is_available(r->h.blk) && !blk_is_read_only(r->h.blk) &&
                    blk_getlength(r->h.blk) >= 16384;

    if (!writable) {
        return;
    }
    r->strict = strict;
    r->injected = 0;
    scenario_result(r, "write after the fault", h_write(&r->h, 8192, 4096, 0));
    scenario_result(r, "read after the fault", h_read(&r->h, 8192, 4096));
    scenario_result(r, "flush after the fault", h_flush(&r->h));
}

void gate_end(const struct scenario *s, struct scenario_run *r, uint64_t seed)
{
    struct sim_rng rng = {.state = seed};
    const char *wrong = harness_verify(&r->h, 1, &rng);

    if (wrong) {
        scenario_wrong(r, wrong);
    }
    gate.failed_runs += r->failures != 0;
    gate.runs++;
    if (scenario_end(s, r) != 0) {
        scenario_wrong(r, "a simulated descriptor was left open");
    }
    alarm(0);
    if (harness_process_fds() != gate.fds) {
        scenario_wrong(r, "a descriptor was left open");
    }
    if (r->wrong[0]) {
        gate_wrong("%s", r->wrong);
    }
}

void gate_wrong(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "%s    ", gate.current);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    gate.wrong_runs++;
}

static void run_list(void **state)
{
    signal(SIGALRM, hung);
    signal(SIGABRT, hung);
    scenario_list_run(gate.list, gate.run_scenario);
    printf("%zu scenarios, %lu runs, %lu with a failed operation\n", gate.list->count, gate.runs,
           gate.failed_runs);
    assert_int_equal(gate.wrong_runs, 0);
}

int gate_main(int argc, char **argv, void (*run_scenario)(const struct scenario *s))
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(run_list)};

    gate.run_scenario = run_scenario;
    gate.list = scenario_list_find(argc > 1 ? argv[1] : NULL);
    if (!gate.list) {
        return EXIT_SKIPPED;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
