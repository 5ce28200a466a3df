/* SPDX-License-Identifier: MIT */
/* Building answers out of jansson values. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/json.h"

void json_add(json_t *object, const char *key, json_t *value, int *ret)
{
    if (json_object_set_new_nocheck(object, key, value) < 0) {
        *ret = -ENOMEM;
    }
}

void json_append(json_t *list, json_t *value, int *ret)
{
    if (json_array_append_new(list, value) < 0) {
        *ret = -ENOMEM;
    }
}

json_t *json_text(const char *text)
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

json_t *json_whole(json_t *value, int ret)
{
    if (ret < 0) {
        json_decref(value);
        return NULL;
    }
    return value;
}
