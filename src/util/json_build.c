/* SPDX-License-Identifier: MIT */
/* Building answers out of jansson values. */
#include <errno.h>

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
    return json_string_nocheck(text);
}

json_t *json_whole(json_t *value, int ret)
{
    if (ret < 0) {
        json_decref(value);
        return NULL;
    }
    return value;
}
