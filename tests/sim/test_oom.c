/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of every scenario fails once, and from then on: the call says -ENOMEM, nothing
 * is left behind, the disk holds what was answered, and afterwards all works again.
 */
#include <errno.h>
#include <stdio.h>

#include "gate.h"
#include "oom_wrap.h"

/* Returns the allocations made. nth 0: none fails. */
static uint64_t run_one(const struct scenario *s, uint64_t nth, bool forever, bool *ret_struck)
{
    static struct scenario_run r;
    uint64_t allocations;

    gate_begin(&r, "%s: allocation %llu %s\n", s->name, (unsigned long long)nth,
               forever ? "and all later" : "once");
    r.strict = nth == 0;
    r.injected = nth ? ENOMEM : 0;
    /* what can neither go on nor go back for want of memory makes a node unusable, and says so */
    r.eio_ok = forever && gate_is_qcow2();
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
        gate_go_on(&r, true);
    }
    gate_end(s, &r, nth);
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
        for (uint64_t nth = 1;; nth += gate_runs_all() ? 1 : GATE_STEP) {
            run_one(s, nth, forever, &struck);
            if (!struck) {
                break;
            }
            if (oom_live() > live) { /* a pool may have grown, which it does not do again */
                live = oom_live();
                run_one(s, nth, forever, &struck);
            }
            if (oom_live() > live) {
                gate_wrong("%lld allocations were left", (long long)(oom_live() - live));
                live = oom_live();
            }
        }
    }
    printf("%-34s %5llu allocations\n", s->name, (unsigned long long)allocations);
}

int main(int argc, char **argv)
{
    oom_init();
    return gate_main(argc, argv, run_scenario);
}
