/* SPDX-License-Identifier: MIT */
/* The parts of messages, for cli.c and cli_message.c. */
#ifndef PLATTER_TOOLS_CLI_MESSAGE_H
#define PLATTER_TOOLS_CLI_MESSAGE_H

#include <stdarg.h>
#include <stdio.h>

#include "tools/cli.h"

#define WORD_MAX 31

/* "platter: info: ", and a kind of message ("warning: ", ""). */
void cli_put_prefix(struct cli *cli, const char *kind);
/* A line of text, with control characters shown. */
void cli_vput_line(FILE *to, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

#endif
