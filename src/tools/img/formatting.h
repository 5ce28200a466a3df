/* SPDX-License-Identifier: MIT */
/* "Formatting 'disk', fmt=raw size=1048576": what is about to be made. */
#ifndef PLATTER_TOOLS_FORMATTING_H
#define PLATTER_TOOLS_FORMATTING_H

#include "tools/cli.h"
#include "util/options.h"

/* options: what was given for the format, without its size. A program that stands in for another
 * one tells defaults too, in the order of that one. */
void formatting_print(struct cli *cli, const char *file, const char *format, uint64_t size_bytes,
                      const BlockOptions *options);

#endif
