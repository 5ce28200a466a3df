/* SPDX-License-Identifier: MIT */
/*
 * BlockOptions: the container. Invariants: every key is well formed; no key is a dotted ancestor
 * of another ("a" and "a.b" are never both there); values are JSON scalars.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"
#include "util/json.h"
#include "util/json_print.h"
#include "util/options_internal.h"

static bool key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

bool block_options_key_wellformed(const char *key)
{
    size_t depth = 1;
    const char *p = key;

    for (; *p; p++) {
        if (*p == '.') {
            if (p == key || p[-1] == '.') {
                return false;
            }
            depth++;
        } else if (!key_char(*p)) {
            return false;
        }
    }
    return p != key && p[-1] != '.' && p - key <= BLOCK_OPTIONS_KEY_BYTES_MAX &&
           depth <= BLOCK_OPTIONS_KEY_DEPTH_MAX;
}

/* Refuse a key that is a dotted ancestor of one that is there, or the other way round. */
static int conflict_check(const BlockOptions *opts, const char *key, Error **errp)
{
    char ancestor[BLOCK_OPTIONS_KEY_BYTES_MAX + 1];
    size_t len = strlen(key);
    const char *other;

    for (const char *dot = strchr(key, '.'); dot; dot = strchr(dot + 1, '.')) {
        memcpy(ancestor, key, (size_t)(dot - key));
        ancestor[dot - key] = '\0';
        if (json_object_get(opts->keys, ancestor)) {
            return error_set(errp, EINVAL, "options '%.64s' and '%.64s' cannot both be given",
                             ancestor, key);
        }
    }
    for (other = block_options_next_key(opts, NULL); other;
         other = block_options_next_key(opts, other)) {
        if (strncmp(other, key, len) == 0 && other[len] == '.') {
            return error_set(errp, EINVAL, "options '%.64s' and '%.64s' cannot both be given", key,
                             other);
        }
    }
    return 0;
}

/* Whether key may be set; is_new when it is not there yet. */
static int key_check(const BlockOptions *opts, const char *key, enum options_again again,
                     Error **errp)
{
    if (!block_options_key_wellformed(key)) {
        return error_set(errp, EINVAL, "'%.64s' is not an option name", key);
    }
    if (json_object_get(opts->keys, key)) {
        return again == OPTIONS_AGAIN_REPLACE
                   ? 0
                   : error_set(errp, EINVAL, "option '%.64s' is given twice", key);
    }
    if (json_object_size(opts->keys) >= BLOCK_OPTIONS_KEYS_MAX) {
        return error_set(errp, E2BIG, "more than %d options", BLOCK_OPTIONS_KEYS_MAX);
    }
    return conflict_check(opts, key, errp);
}

int options_set_value(BlockOptions *opts, const char *key, json_t *value, enum options_again again,
                      Error **errp)
{
    int ret = key_check(opts, key, again, errp);

    if (ret < 0) {
        json_decref(value);
        return ret;
    }
    if (json_object_set_new_nocheck(opts->keys, key, value) < 0) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    return 0;
}

/* ---- platter/options.h ---- */

BlockOptions *block_options_new(void)
{
    BlockOptions *opts = malloc(sizeof(*opts));

    if (!opts) {
        return NULL;
    }
    opts->keys = json_object();
    if (!opts->keys) {
        free(opts);
        return NULL;
    }
    return opts;
}

BlockOptions *block_options_copy(const BlockOptions *opts)
{
    BlockOptions *copy = block_options_new();

    if (copy && block_options_put_prefix(copy, "", opts) < 0) {
        block_options_free(copy);
        return NULL;
    }
    return copy;
}

void block_options_free(BlockOptions *opts)
{
    if (opts) {
        json_decref(opts->keys);
        free(opts);
    }
}

/* Strings are kept as the bytes they are: a file name need not be UTF-8. */
int block_options_set_str(BlockOptions *opts, const char *key, const char *value)
{
    return options_set_value(opts, key, json_string_nocheck(value), OPTIONS_AGAIN_REPLACE, NULL);
}

int block_options_set_bool(BlockOptions *opts, const char *key, bool value)
{
    return options_set_value(opts, key, json_boolean(value), OPTIONS_AGAIN_REPLACE, NULL);
}

int block_options_set_u64(BlockOptions *opts, const char *key, uint64_t value)
{
    return options_set_value(opts, key, json_u64(value), OPTIONS_AGAIN_REPLACE, NULL);
}

const char *block_options_get_str(const BlockOptions *opts, const char *key)
{
    return json_string_value(json_object_get(opts->keys, key));
}

bool block_options_has(const BlockOptions *opts, const char *key)
{
    return json_object_get(opts->keys, key) != NULL;
}

void block_options_del(BlockOptions *opts, const char *key)
{
    json_object_del(opts->keys, key);
}

/* ---- util/options.h ---- */

size_t block_options_count(const BlockOptions *opts)
{
    return json_object_size(opts->keys);
}

const char *block_options_next_key(const BlockOptions *opts, const char *prev)
{
    void *at = prev ? json_object_iter_next(opts->keys, json_object_key_to_iter(prev))
                    : json_object_iter(opts->keys);

    return at ? json_object_iter_key(at) : NULL;
}

const char *block_options_first_key(const BlockOptions *opts)
{
    const char *key = block_options_next_key(opts, NULL);
    const char *next = key;

    while (next && (next = block_options_next_key(opts, next)) != NULL) {
        key = json_key_before(next, key) ? next : key;
    }
    return key;
}

int block_options_refuse_rest(const BlockOptions *opts, const char *of, Error **errp)
{
    const char *key = block_options_first_key(opts);

    return key ? error_set(errp, EINVAL, "%s does not know the option '%.64s'", of, key) : 0;
}

bool block_options_has_prefix(const BlockOptions *opts, const char *prefix)
{
    size_t len = strlen(prefix);
    const char *key = NULL;

    while ((key = block_options_next_key(opts, key)) != NULL) {
        if (strncmp(key, prefix, len) == 0) {
            return true;
        }
    }
    return false;
}

bool block_options_is_null(const BlockOptions *opts, const char *key)
{
    return json_is_null(json_object_get(opts->keys, key));
}

BlockOptions *block_options_take_prefix(BlockOptions *opts, const char *prefix)
{
    BlockOptions *taken = block_options_new();
    size_t len = strlen(prefix);
    const char *key;
    json_t *value;
    void *next;

    if (!taken) {
        return NULL;
    }
    json_object_foreach(opts->keys, key, value)
    {
        if (strncmp(key, prefix, len) == 0 && key[len] != '\0' &&
            json_object_set_nocheck(taken->keys, key + len, value) < 0) {
            block_options_free(taken);
            return NULL;
        }
    }
    json_object_foreach_safe(opts->keys, next, key, value)
    {
        if (strncmp(key, prefix, len) == 0 && key[len] != '\0') {
            json_object_del(opts->keys, key);
        }
    }
    return taken;
}

int block_options_put_prefix(BlockOptions *opts, const char *prefix, const BlockOptions *src)
{
    char full[BLOCK_OPTIONS_KEY_BYTES_MAX + 1];
    size_t len = strlen(prefix);
    const char *key;
    json_t *value;
    int ret;

    json_object_foreach(src->keys, key, value)
    {
        if (len + strlen(key) >= sizeof(full)) {
            return -EINVAL;
        }
        memcpy(full, prefix, len);
        memcpy(full + len, key, strlen(key) + 1);
        ret = options_set_value(opts, full, json_incref(value), OPTIONS_AGAIN_REPLACE, NULL);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int block_options_default_str(BlockOptions *opts, const char *key, const char *value)
{
    return block_options_has(opts, key) ? 0 : block_options_set_str(opts, key, value);
}
