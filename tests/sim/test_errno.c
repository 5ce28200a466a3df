/* SPDX-License-Identifier: MIT */
/*
 * Every I/O call of every scenario fails once, and from then on, with each of a few errors, or
 * comes short. The failing request says so or is tried again with success; the others go on; no
 * descriptor is left; the disk holds what was answered, and what was flushed also after a power
 * cut.
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

#include "scenarios.h"

#define HANG_SECONDS 30
#define CALLS_ONE_BY_ONE 40 /* of a longer scenario, every n-th call after these fails */

/* Sanitizers make a run ten times as long, threads more so: one call in so many then, unless
 * PLATTER_ALL is set. */
#if defined(__SANITIZE_THREAD__)
#define STEP 29
#elif defined(__SANITIZE_ADDRESS__)
#define STEP 5
#else
#define STEP 1
#endif

static const struct scenario_list *list;
static char current[256]; /* what runs, for a report of a hang */

static void hung(int sig)
{
    static const char text[] = "HANG: ";

    if (write(2, text, sizeof(text) - 1) < 0 || write(2, current, strlen(current)) < 0) {
        _exit(3);
    }
    _exit(3);
}

struct fault {
    const char *name;
    uint64_t calls;
    int error;
    bool short_transfer;
    unsigned times;  /* of "for ever"; 0: no end */
    bool everywhere; /* whatever calls the scenario names */
};

#define RESOURCES                                                                                  \
    (SIM_CALLS(SIM_CALL_EVENTFD) | SIM_CALLS(SIM_CALL_EPOLL_CTL) | SIM_CALLS(SIM_CALL_THREAD) |    \
     SIM_CALLS(SIM_CALL_MMAP))

#define INTERRUPTIBLE (SIM_CALLS_DATA | SIM_CALLS(SIM_CALL_OPEN) | SIM_CALLS(SIM_CALL_TRUNCATE))

static const struct fault faults[] = {
    {.name = "EIO", .calls = SIM_CALLS_FILE, .error = EIO},
    {.name = "ENOSPC", .calls = SIM_CALLS_FILE, .error = ENOSPC},
    {.name = "EAGAIN", .calls = SIM_CALLS_FILE, .error = EAGAIN},
    /* Every signal is taken at some time: what retries without limit is right */
    {.name = "EINTR", .calls = INTERRUPTIBLE, .error = EINTR, .times = 50},
    {.name = "short",
     .calls = SIM_CALLS(SIM_CALL_READ) | SIM_CALLS(SIM_CALL_WRITE) | SIM_CALLS(SIM_CALL_COPY) |
              SIM_CALLS(SIM_CALL_RECV) | SIM_CALLS(SIM_CALL_SEND),
     .short_transfer = true},
    {.name = "ENOMEM", .calls = RESOURCES, .error = ENOMEM, .everywhere = true},
};

static unsigned long runs, failed_runs, wrong_runs;

/* Faults are over: what still works must work. */
static void go_on(const struct scenario *s, struct scenario_run *r)
{
    uint64_t offset = 8192;
    bool open_rw = r->h.blk && blk_is_available(r->h.blk) && !blk_is_read_only(r->h.blk) &&
                   blk_getlength(r->h.blk) >= 16384;

    if (!open_rw) {
        return;
    }
    r->injected = 0;
    scenario_result(r, "write after the fault", h_write(&r->h, offset, 4096, 0));
    scenario_result(r, "read after the fault", h_read(&r->h, offset, 4096));
    scenario_result(r, "flush after the fault", h_flush(&r->h)); /* may be -EIO for good */
}

static void run_one(const struct scenario *s, const struct fault *f, uint64_t nth, bool forever,
                    uint64_t *ret_hits, uint64_t *ret_calls)
{
    static struct scenario_run r;
    struct sim_rng rng = {.state = nth};
    unsigned fds = harness_process_fds();
    const char *wrong;
    struct sim_faults *rules;

    memset(&r, 0, sizeof(r));
    snprintf(current, sizeof(current), "%s: %s at call %llu %s\n", s->name, f ? f->name : "none",
             (unsigned long long)nth, forever ? "and all later" : "once");
    alarm(HANG_SECONDS);
    r.strict = !f;
    r.eio_ok = f;
    r.injected = f ? f->error : 0;
    scenario_begin(s, &r, nth);
    rules = sim_world_faults(r.h.world);
    if (f) {
        /* Through the page cache a failed sync loses the dirty pages, and says so once */
        bool lose = f->error == EIO && !(s->options && strstr(s->options, "direct=on")) &&
                    !s->file.block_device;

        uint64_t calls = f->short_transfer || f->everywhere || !s->calls ? f->calls : s->calls;
        bool socket_again = (calls & SIM_CALLS_SOCKET) && f->error == EAGAIN;

        sim_faults_add(rules, &(struct sim_rule){.calls = calls,
                                                 .nth = nth,
                                                 .forever = forever,
                                                 .times = socket_again ? 50 : f->times,
                                                 .error = f->error,
                                                 .short_transfer = f->short_transfer,
                                                 .lose_cache = lose});
    }
    scenario_steps(s, &r);
    *ret_hits = sim_faults_hits(rules);
    *ret_calls = sim_faults_count(rules, s->calls ? s->calls : SIM_CALLS_FILE);
    sim_faults_clear(rules);
    if (f && !forever) {
        go_on(s, &r);
    }
    if (f && f->short_transfer && r.failures) {
        scenario_wrong(&r, "a short transfer was not continued");
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
}

static uint64_t step_after(uint64_t nth, uint64_t calls)
{
    if (getenv("PLATTER_ALL")) {
        return 1;
    }
    return nth < CALLS_ONE_BY_ONE ? STEP : STEP * (1 + calls / CALLS_ONE_BY_ONE);
}

static void run_scenario(const struct scenario *s)
{
    uint64_t calls;
    uint64_t hits;

    run_one(s, 0, 0, false, &hits, &calls);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        for (int forever = 0; forever < 2; forever++) {
            for (uint64_t nth = 1;; nth += step_after(nth, calls)) {
                uint64_t unused;

                run_one(s, &faults[i], nth, forever, &hits, &unused);
                if (hits == 0) {
                    break;
                }
            }
        }
    }
    printf("%-34s %4llu calls\n", s->name, (unsigned long long)calls);
}

static void test_every_call_fails(void **state)
{
    signal(SIGALRM, hung);
    scenario_list_run(list, run_scenario);
    printf("%zu scenarios, %lu runs, %lu with a failed operation\n", list->count, runs,
           failed_runs);
    assert_int_equal(wrong_runs, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_call_fails)};

    list = scenario_list_find(argc > 1 ? argv[1] : 0);
    if (!list) {
        return 77;
    }
    setvbuf(stdout, 0, _IOLBF, 0);
    return cmocka_run_group_tests(tests, 0, 0);
}
