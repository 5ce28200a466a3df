/* SPDX-License-Identifier: MIT */
/*
 * Which driver a name asks for: the driver option by name, a positional file name by its protocol
 * ("nbd:...", "file:...") or by what the path is (a block device, else a file).
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "block/graph_int.h"
#include "util/error.h"
#include "util/options.h"

#define HINT_BYTES 512

const BlockDriver *bdrv_find_driver(const char *format_name)
{
    for (size_t i = 0; bdrv_drivers[i] != NULL; i++) {
        if (strcmp(bdrv_drivers[i]->format_name, format_name) == 0) {
            return bdrv_drivers[i];
        }
    }
    return NULL;
}

static const char *nearest_driver(const char *name)
{
    struct hint hint = hint_begin(name);

    for (size_t i = 0; bdrv_drivers[i] != NULL; i++) {
        hint_offer(&hint, bdrv_drivers[i]->format_name);
    }
    return hint.best;
}

int bdrv_unknown_driver(const char *format_name, Error **errp)
{
    const char *near_name = nearest_driver(format_name);
    char list[HINT_BYTES] = "";
    size_t used = 0;

    error_set(errp, EINVAL, "Unknown driver '%.*s'", BDRV_NODE_NAME_BYTES_MAX, format_name);
    if (near_name != NULL) {
        error_set_hint(errp, "Is '%s' meant?", near_name);
        return -EINVAL;
    }
    for (size_t i = 0; bdrv_drivers[i] != NULL && used < sizeof(list); i++) {
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                                 bdrv_drivers[i]->format_name);
    }
    error_set_hint(errp, "This build has: %s", list);
    return -EINVAL;
}

/* ---- file names ---- */

size_t bdrv_protocol_prefix(const char *filename)
{
    size_t len = strcspn(filename, ":/");

    return filename[len] == ':' ? len : 0;
}

static bool is_word(const char *word, const char *text, size_t len)
{
    return word != NULL && strlen(word) == len && memcmp(word, text, len) == 0;
}

/* Whether the first len bytes of filename are a protocol of drv. */
static bool speaks_protocol(const BlockDriver *drv, const char *filename, size_t len)
{
    if (is_word(drv->protocol_name, filename, len)) {
        return true;
    }
    for (size_t i = 0; drv->protocol_aliases != NULL && drv->protocol_aliases[i] != NULL; i++) {
        if (is_word(drv->protocol_aliases[i], filename, len)) {
            return true;
        }
    }
    return false;
}

bool bdrv_speaks_protocol(const BlockDriver *drv, const char *filename)
{
    size_t len = bdrv_protocol_prefix(filename);

    return len > 0 && speaks_protocol(drv, filename, len);
}

static const BlockDriver *find_by_protocol_name(const char *name, size_t len)
{
    for (size_t i = 0; bdrv_drivers[i] != NULL; i++) {
        if (speaks_protocol(bdrv_drivers[i], name, len)) {
            return bdrv_drivers[i];
        }
    }
    return NULL;
}

static const BlockDriver *find_by_device(const char *filename)
{
    const BlockDriver *best = NULL;
    int best_score = 0;

    for (size_t i = 0; bdrv_drivers[i] != NULL; i++) {
        if (bdrv_drivers[i]->probe_device != NULL) {
            int score = bdrv_drivers[i]->probe_device(filename);

            if (score > best_score) {
                best_score = score;
                best = bdrv_drivers[i];
            }
        }
    }
    return best;
}

const BlockDriver *bdrv_find_path(const char *path, Error **errp)
{
    const BlockDriver *drv = find_by_device(path);

    if (drv == NULL) {
        drv = bdrv_find_driver("file");
    }
    if (drv == NULL) {
        error_set(errp, ENOTSUP, "Could not open '%s': this build has no driver for files", path);
    }
    return drv;
}

const BlockDriver *bdrv_find_protocol(const char *filename, Error **errp)
{
    size_t len = bdrv_protocol_prefix(filename);
    const BlockDriver *drv;

    if (len == 0) {
        return bdrv_find_path(filename, errp);
    }
    drv = find_by_protocol_name(filename, len);
    if (drv == NULL) {
        error_set(errp, EINVAL, "Unknown protocol '%.*s'",
                  (int)(len < BDRV_NODE_NAME_BYTES_MAX ? len : BDRV_NODE_NAME_BYTES_MAX), filename);
        error_set_hint(errp, "For a file of that name write './%.*s'", BDRV_NODE_NAME_BYTES_MAX,
                       filename);
    }
    return drv;
}

int bdrv_filename_to_options(const BlockDriver *drv, const char *filename, BlockOptions *options,
                             Error **errp)
{
    size_t len = bdrv_protocol_prefix(filename);
    bool ours = bdrv_speaks_protocol(drv, filename);
    int rc;

    if ((ours || (drv->caps & BDRV_CAP_PROTOCOL)) && drv->parse_filename != NULL) {
        return drv->parse_filename(filename, options, errp);
    }
    if (ours) {
        filename += len + 1;
    }
    if (block_options_has(options, "filename")) {
        return error_set(errp, EINVAL, "The file name is given twice, as '%s' and as an option",
                         filename);
    }
    rc = block_options_set_str(options, "filename", filename);
    if (rc == -ENOMEM) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (rc < 0) {
        return error_set(errp, -rc, "'%s' cannot be a file name", filename);
    }
    return 0;
}
