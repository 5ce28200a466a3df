/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of every scenario fails once, and from then on: the call says -ENOMEM, nothing
 * is left behind, the disk holds what was answered, and afterwards all works again.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "oom_wrap.h"
#include "scenarios.h"

#define HANG_SECONDS 30

/* Sanitizers make a run ten times as long, threads more so: one allocation in so many then, unless
 * PLATTER_ALL is set. */
#if defined(__SANITIZE_THREAD__)
#define STEP 23
#elif defined(__SANITIZE_ADDRESS__)
#define STEP 5
#else
#define STEP 1
#endif

static const struct scenario_list *list;
static char current[256]; /* what runs, for a report of a hang or crash */
static unsigned long runs, failed_runs, wrong_runs;

static void hung(int sig)
{
    if (write(2, current, strlen(current)) < 0) {
        _exit(4);
    }
    if (sig != SIGALRM) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
    _exit(3);
}

static void go_on(struct scenario_run *r)
{
    if (!r->h.blk || !blk_is_available(r->h.blk) || blk_is_read_only(r->h.blk) ||
        blk_getlength(r->h.blk) < 16384) {
        return;
    }
    r->strict = true;
    r->injected = 0;
    scenario_result(r, "write with memory again", h_write(&r->h, 8192, 4096, 0));
    scenario_result(r, "read with memory again", h_read(&r->h, 8192, 4096));
    scenario_result(r, "flush with memory again", h_flush(&r->h));
}

/* Returns the allocations made. nth 0: none fails. */
static uint64_t run_one(const struct scenario *s, uint64_t nth, bool forever, bool *ret_struck)
{
    static struct scenario_run r;
    struct sim_rng rng = {.state = nth};
    unsigned fds = harness_process_fds();
    const char *wrong;
    uint64_t allocations;

    memset(&r, 0, sizeof(r));
    snprintf(current, sizeof(current), "%s: allocation %llu %s\n", s->name, (unsigned long long)nth,
             forever ? "and all later" : "once");
    alarm(HANG_SECONDS);
    r.strict = nth == 0;
    r.injected = nth ? ENOMEM : 0;
    /* what can neither go on nor go back for want of memory makes a node unusable, and says so */
    r.eio_ok = forever && list == &scenarios_qcow2;
    scenario_begin(s, &r, 1);
    oom_guard_table();
    oom_arm(nth, forever);
    scenario_steps(s, &r);
    if (forever) {
        harness_close(&r.h); /* ending things needs no memory */
    }
    allocations = oom_disarm();
    *ret_struck = oom_struck();
    if (!forever) {
        go_on(&r);
    }
    wrong = harness_verify(&r.h, 1, &rng);
    if (wrong) {
        scenario_wrong(&r, wrong);
    }
    failed_runs += r.failures != 0;
    runs++;
    if (scenario_end(s, &r) != 0) {
        scenario_wrong(&r, "a simulated descriptor was left open");
    }
    alarm(0);
    if (harness_process_fds() != fds) {
        scenario_wrong(&r, "a descriptor was left open");
    }
    if (r.wrong[0]) {
        fprintf(stderr, "%s    %s\n", current, r.wrong);
        wrong_runs++;
    }
    return allocations;
}

static void run_scenario(const struct scenario *s)
{
    bool struck;
    uint64_t allocations = run_one(s, 0, false, &struck);
    int64_t live;

    run_one(s, 0, true, &struck); /* pools are warm now */
    live = oom_live();
    for (int forever = 0; forever < 2; forever++) {
        for (uint64_t nth = 1;; nth += getenv("PLATTER_ALL") ? 1 : STEP) {
            run_one(s, nth, forever, &struck);
            if (!struck) {
                break;
            }
            if (oom_live() > live) { /* a pool may have grown, which it does not do again */
                live = oom_live();
                run_one(s, nth, forever, &struck);
            }
            if (oom_live() > live) {
                fprintf(stderr, "%s    %lld allocations were left\n", current,
                        (long long)(oom_live() - live));
                wrong_runs++;
                live = oom_live();
            }
        }
    }
    printf("%-34s %5llu allocations\n", s->name, (unsigned long long)allocations);
}

static void test_every_allocation_fails(void **state)
{
    signal(SIGALRM, hung);
    signal(SIGABRT, hung);
    oom_init();
    scenario_list_run(list, run_scenario);
    printf("%zu scenarios, %lu runs, %lu with a failed operation\n", list->count, runs,
           failed_runs);
    assert_int_equal(wrong_runs, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation_fails)};

    list = scenario_list_find(argc > 1 ? argv[1] : 0);
    if (!list) {
        return 77;
    }
    setvbuf(stdout, 0, _IOLBF, 0);
    return cmocka_run_group_tests(tests, 0, 0);
}
