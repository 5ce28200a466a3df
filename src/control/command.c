/* SPDX-License-Identifier: MIT */
/* The table of commands, by name. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/command.h"
#include "util/error.h"

static int compare(const void *key, const void *element)
{
    return strcmp(key, ((const struct qmp_command *)element)->name);
}

const struct qmp_command *qmp_command_find(const char *name)
{
    return bsearch(name, qmp_commands, qmp_command_count, sizeof(qmp_commands[0]), compare);
}

int qmp_give(json_t *value, json_t **ret_value, Error **errp)
{
    *ret_value = value;
    return value ? 0 : error_set(errp, ENOMEM, "out of memory");
}
