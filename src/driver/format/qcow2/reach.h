/* SPDX-License-Identifier: MIT */
/* The end of the data file (reach.c); request.h has the call. */
#ifndef PLATTER_QCOW2_REACH_H
#define PLATTER_QCOW2_REACH_H

#include <stdbool.h>

#include "os/thread.h"

#include "wait.h"

struct qcow2;

struct q2_reach {
    struct os_mutex lock;
    struct q2_wait_list waiting; /* lock */
    bool running;                /* lock: somebody extends the file */
};
void q2_reach_init(struct qcow2 *s);
void q2_reach_fini(struct qcow2 *s);

#endif
