/* SPDX-License-Identifier: MIT */
/* --object of command lines. */
#ifndef PLATTER_TOOLS_OBJECT_H
#define PLATTER_TOOLS_OBJECT_H

#include <platter/platter.h>

#include "tools/cli.h"

/* Whether the value of --object asks for help: the kinds of objects, or the options of a known
 * kind, which are printed then. A word "help" or "?" without a value does, wherever it stands. */
bool object_help(struct cli *cli, const char *text);
/* Make each --object of the command line in pl, with which they end. 0 or -errno. */
int objects_make(const struct cli *cli, Platter *pl, Error **errp);

#endif
