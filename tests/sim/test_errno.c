/* SPDX-License-Identifier: MIT */
/*
 * Every I/O call of every scenario fails once, and from then on, with each of a few errors, or
 * comes short. The failing request says so or is tried again with success; the others go on; no
 * descriptor is left; the disk holds what was answered, and what was flushed also after a power
 * cut.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gate.h"

#define CALLS_ONE_BY_ONE 40 /* of a longer scenario, every n-th call after these fails */

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

static void run_one(const struct scenario *s, const struct fault *f, uint64_t nth, bool forever,
                    uint64_t *ret_hits, uint64_t *ret_calls)
{
    static struct scenario_run r;
    struct sim_faults *rules;

    gate_begin(&r, "%s: %s at call %llu %s\n", s->name, f ? f->name : "none",
               (unsigned long long)nth, forever ? "and all later" : "once");
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
        gate_go_on(&r, false); /* a flush may fail for good */
    }
    if (f && f->short_transfer && r.failures) {
        scenario_wrong(&r, "a short transfer was not continued");
    }
    gate_end(s, &r, nth);
}

static uint64_t step_after(uint64_t nth, uint64_t calls)
{
    if (gate_runs_all()) {
        return 1;
    }
    return nth < CALLS_ONE_BY_ONE ? GATE_STEP : GATE_STEP * (1 + calls / CALLS_ONE_BY_ONE);
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

int main(int argc, char **argv)
{
    return gate_main(argc, argv, run_scenario);
}
