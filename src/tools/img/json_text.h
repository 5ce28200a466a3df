/* SPDX-License-Identifier: MIT */
/* JSON answers of commands. */
#ifndef PLATTER_TOOLS_IMG_JSON_TEXT_H
#define PLATTER_TOOLS_IMG_JSON_TEXT_H

#include "tools/cli.h"
#include "util/json.h"

/* value (owned) on the command's output, unless ret says that it is not whole. CLI_EXIT_*. */
int json_text_print(struct cli *cli, json_t *value, int ret);

#endif
