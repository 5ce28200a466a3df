/* SPDX-License-Identifier: MIT */
/* What the fault gates (errno, memory) have in common: each runs every scenario many times, and
 * something fails in each run. */
#ifndef TESTS_SIM_GATE_H
#define TESTS_SIM_GATE_H

#include "scenarios.h"

/* Sanitizers make a run ten times as long, threads more so: one call or allocation in so many fails
 * then, unless PLATTER_ALL is set. */
#if defined(__SANITIZE_THREAD__)
#define GATE_STEP 29
#elif defined(__SANITIZE_ADDRESS__)
#define GATE_STEP 5
#else
#define GATE_STEP 1
#endif

/* The program: all of the list that argv names, run by run_scenario. */
int gate_main(int argc, char **argv, void (*run_scenario)(const struct scenario *s));
bool gate_is_qcow2(void);
bool gate_runs_all(void); /* PLATTER_ALL */

/* One run: r is new, what it is told of is fmt. It ends the program when it hangs. */
void gate_begin(struct scenario_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What failed is over: a disk that can still be written to works again, surely so when strict. */
void gate_go_on(struct scenario_run *r, bool strict);
/* Judge the disk, close all. */
void gate_end(const struct scenario *s, struct scenario_run *r, uint64_t seed);
/* A fault that is not one of a run's. */
void gate_wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
