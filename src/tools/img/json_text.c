/* SPDX-License-Identifier: MIT */
/* JSON answers of commands. */
#include <stdlib.h>

#include "tools/img/json_text.h"
#include "util/json_print.h"

int json_text_print(struct cli *cli, json_t *value, int ret)
{
    char *text = ret == 0 && value ? json_print(value, JSON_PRINT_LINES) : NULL;

    json_decref(value);
    if (!text) {
        return cli_error(cli, "out of memory");
    }
    fprintf(cli->out, "%s\n", text);
    free(text);
    return CLI_EXIT_OK;
}
