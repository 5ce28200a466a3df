/* SPDX-License-Identifier: MIT */
/*
 * The real system with faults: a table over os_linux that asks rules before each call. One at a
 * time in a process, because a table's members have no argument of their own.
 */
#ifndef PLATTER_OS_SIM_FAULT_OS_H
#define PLATTER_OS_SIM_FAULT_OS_H

#include "os/os.h"
#include "os/sim/sim_fault.h"

/* The table that obeys faults (borrowed while it is in force). io_uring is refused, for the kernel
 * would do the transfers behind the table. */
const struct os_table *fault_os_table(struct sim_faults *faults);
/* The same for descriptors only for which concerns() is true (NULL: all). For tests that must not
 * hurt their own files. Calls without a descriptor always count. */
void fault_os_limit(bool (*concerns)(int fd));

#endif
