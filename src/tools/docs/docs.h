/* SPDX-License-Identifier: MIT */
/* Texts made from the tables of a program's commands, which --help is printed from, too. */
#ifndef PLATTER_TOOLS_DOCS_DOCS_H
#define PLATTER_TOOLS_DOCS_DOCS_H

#include "tools/cli.h"

/* The manual page, man(7), of the program (command NULL) or of one of its commands. */
void docs_man(FILE *out, const struct cli_program *program, const struct cli_command *command);
/* A file for the completion of bash, or of zsh. */
void docs_bash(FILE *out, const struct cli_program *program);
void docs_zsh(FILE *out, const struct cli_program *program);

#endif
