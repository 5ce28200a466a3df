/* SPDX-License-Identifier: MIT */
/* Names of files that stand in other files. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "util/name_beside.h"

char *name_beside(const char *image, const char *name)
{
    const char *colon = strchr(name, ':');
    const char *slash = strchr(name, '/');
    const char *end = strrchr(image, '/');
    bool alone = name[0] == '/' || (colon && (!slash || colon < slash)) ||
                 strncmp(image, "json:", strlen("json:")) == 0;
    size_t folder = end && !alone ? (size_t)(end - image) + 1 : 0;
    char *full = malloc(folder + strlen(name) + 1);

    if (full) {
        memcpy(full, image, folder);
        memcpy(full + folder, name, strlen(name) + 1);
    }
    return full;
}
