/* SPDX-License-Identifier: MIT */
/* --metrics, the same for all that serve. */
#ifndef PLATTER_TOOLS_METRICS_OPTION_H
#define PLATTER_TOOLS_METRICS_OPTION_H

#include "tools/cli.h"

/* Whether the value is an address; false after printing why not: end with CLI_EXIT_USAGE. */
bool metrics_option_check(const struct cli_args *args);

#endif
