/* SPDX-License-Identifier: MIT */
/* --object of command lines. */
#ifndef PLATTER_TOOLS_OBJECT_H
#define PLATTER_TOOLS_OBJECT_H

#include <platter/platter.h>

#include "tools/cli.h"

/* Whether the value of --object asks for help: the kinds of objects, or the options of a known
 * kind, which are printed then. A word "help" or "?" without a value does, wherever it stands. The
 * second is of a daemon, which has iothreads. */
bool object_help(struct cli *cli, const char *text);
bool object_help_daemon(struct cli *cli, const char *text);
/* One --object of the command line. The reference makes each where it stands; a stand-in makes
 * them with the instance, which is later, so whatever is to be told before is told only if they can
 * be made. */
void object_take(struct cli *cli, const char *text);
/* What the option or operand holds is wrong, which the reference sees only behind all options:
 * those that follow come first. False: one of them was wrong, and told. */
bool object_look_ahead(const struct cli_args *a);
/* Make each --object of the command line in pl, with which they end. 0 or -errno. */
int objects_make(struct cli *cli, Platter *pl, Error **errp);

#endif
