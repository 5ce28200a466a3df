/* SPDX-License-Identifier: MIT */
/*
 * Allocation failures on demand, by the linker's --wrap: every malloc and kin in the code of this
 * program, jansson's through its own hook, and the table's mmap. What the test itself and the
 * simulated kernel allocate is left alone (harness_own).
 */
#ifndef TESTS_SIM_OOM_WRAP_H
#define TESTS_SIM_OOM_WRAP_H

#include <stdbool.h>
#include <stdint.h>

void oom_init(void);
/* From now on the nth allocation fails (and all later ones); nth 0: none fails, all count. */
void oom_arm(uint64_t nth, bool forever);
/* No failures any more. Returns the allocations since arm. */
uint64_t oom_disarm(void);
bool oom_struck(void);  /* whether one failed since arm */
int64_t oom_live(void); /* allocations not freed */
/* Put the guards over the table in force: its files are the kernel's business, mmap is ours. */
void oom_guard_table(void);

#endif
