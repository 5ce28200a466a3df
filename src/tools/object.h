/* SPDX-License-Identifier: MIT */
/* --object of command lines. */
#ifndef PLATTER_TOOLS_OBJECT_H
#define PLATTER_TOOLS_OBJECT_H

#include <platter/platter.h>

#include "tools/cli.h"

/* Make each --object of the command line in pl, with which they end. 0 or -errno. */
int objects_make(const struct cli *cli, Platter *pl, Error **errp);

#endif
