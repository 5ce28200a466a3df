/* SPDX-License-Identifier: MIT */
/* JSON answers of commands. A NULL value means that memory ran out; ret carries that to the end. */
#ifndef PLATTER_TOOLS_IMG_JSON_TEXT_H
#define PLATTER_TOOLS_IMG_JSON_TEXT_H

#include "tools/cli.h"
#include "util/json.h"

/* value is owned; *ret becomes -ENOMEM when it cannot be added. */
void json_text_add(json_t *object, const char *key, json_t *value, int *ret);
/* A name need not be UTF-8, but JSON must be: other bytes become '?'. */
json_t *json_text_string(const char *text);
/* value (owned) on the command's output, unless ret says that it is not whole. CLI_EXIT_*. */
int json_text_print(struct cli *cli, json_t *value, int ret);

#endif
