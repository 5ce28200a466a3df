/* SPDX-License-Identifier: MIT */
/* JSON answers of commands. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img/json_text.h"

void json_text_add(json_t *object, const char *key, json_t *value, int *ret)
{
    if (json_object_set_new_nocheck(object, key, value) < 0) {
        *ret = -ENOMEM;
    }
}

json_t *json_text_string(const char *text)
{
    char *copy;
    json_t *value;

    if (utf8_valid(text, strlen(text))) {
        return json_string_nocheck(text);
    }
    copy = strdup(text);
    for (char *p = copy; p && *p; p++) {
        *p = (*p & 0x80) ? '?' : *p;
    }
    value = copy ? json_string_nocheck(copy) : NULL;
    free(copy);
    return value;
}

int json_text_print(struct cli *cli, json_t *value, int ret)
{
    char *text = ret == 0 && value ? json_dumps(value, JSON_INDENT(4)) : NULL;

    json_decref(value);
    if (!text) {
        return cli_error(cli, "out of memory");
    }
    fprintf(cli->out, "%s\n", text);
    free(text);
    return CLI_EXIT_OK;
}
