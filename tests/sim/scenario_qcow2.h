/* SPDX-License-Identifier: MIT */
/*
 * The calls of the scenarios of qcow2. They tell the expectation what is asked and what was
 * answered, and return what the call returned.
 */
#ifndef TESTS_SIM_SCENARIO_QCOW2_H
#define TESTS_SIM_SCENARIO_QCOW2_H

#include "qcow2_expect.h"
#include "scenarios.h"

extern struct qcow2_expect q_expect; /* of the run that is on; one at a time in a process */

/* For the tables: an image as s says, ... */
void q_fresh(struct scenario_run *r, const struct scenario *s);
void q_over_backing(struct scenario_run *r, const struct scenario *s);
/* ... with the dirty bit set, and refcounts that are wrong ... */
void q_dirty(struct scenario_run *r, const struct scenario *s);
/* ... with clusters that leaked. */
void q_leaky(struct scenario_run *r, const struct scenario *s);
void q_finish(struct scenario_run *r);

/* What the test itself needs; aborts where it is not so. */
void q_must(bool ok, const char *what);
BlockDriverState *q_node(struct scenario_run *r);

int q_write(struct scenario_run *r, uint64_t offset, size_t bytes, int flags);
int q_compress(struct scenario_run *r, uint64_t offset, size_t bytes);
int q_zero(struct scenario_run *r, uint64_t offset, uint64_t bytes, int flags);
int q_discard(struct scenario_run *r, uint64_t offset, uint64_t bytes);
int q_snapshot(struct scenario_run *r, const char *name, uint64_t vm_bytes);
int q_apply(struct scenario_run *r, const char *name);
int q_delete(struct scenario_run *r, const char *name);
int q_resize(struct scenario_run *r, uint64_t bytes, enum bdrv_prealloc prealloc);
int q_amend(struct scenario_run *r, const char *text);
int q_check(struct scenario_run *r, unsigned fix);
int q_vmstate(struct scenario_run *r, size_t bytes);
/* With direct I/O: what a page cache lost when a sync failed, and shows until the end, cannot be
 * known by who opens the file anew. */
void q_reopen(struct scenario_run *r, const char *options);

/* scenarios_jobs.c */
void q_job_amend(struct scenario_run *r);
void q_job_create(struct scenario_run *r);
void q_job_commit(struct scenario_run *r);
void q_job_rebase(struct scenario_run *r);

#endif
