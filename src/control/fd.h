/* SPDX-License-Identifier: MIT */
/* Descriptors that clients gave the daemon. */
#ifndef PLATTER_CONTROL_FD_H
#define PLATTER_CONTROL_FD_H

#include "control/control.h"

/* The descriptor that getfd kept under a name (which is then gone from there), or a duplicate of
 * one given by number. The caller's from now on; -errno with errp. */
int control_take_fd(struct control *c, const char *name, Error **errp);

#endif
