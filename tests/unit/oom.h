/* SPDX-License-Identifier: MIT */
/* Allocations that fail on demand, by the linker's --wrap (oom_dep of the build file). */
#ifndef PLATTER_TESTS_UNIT_OOM_H
#define PLATTER_TESTS_UNIT_OOM_H

#include <stdbool.h>

/* The nth allocation from now on fails (0: the next one); forever: and all after it. */
void oom_arm(long nth, bool forever);
void oom_disarm(void);
bool oom_struck(void); /* whether one failed since oom_arm */

#endif
