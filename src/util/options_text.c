/* SPDX-License-Identifier: MIT */
/* BlockOptions and text: key=value lists and JSON in, JSON out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"
#include "util/json.h"
#include "util/mem.h"
#include "util/options_internal.h"

/* ---- key=value ---- */

/* Copy a value up to a single comma or the end, two commas becoming one. Returns where the text
 * goes on (the comma or the end). buf has room for all of the text. */
static const char *value_copy(const char *p, char *buf)
{
    while (*p && !(p[0] == ',' && p[1] != ',')) {
        p += p[0] == ',';
        *buf++ = *p++;
    }
    *buf = '\0';
    return p;
}

/* One parameter at p. buf: room for all of the text. */
static int parameter_parse(BlockOptions *opts, const char **p, const char *implied_key, char *buf,
                           Error **errp)
{
    size_t key_len = strcspn(*p, "=,");
    const char *key = buf;
    char *value;

    if ((*p)[key_len] != '=') {
        *p = value_copy(*p, buf);
        if (!implied_key) {
            error_set(errp, EINVAL, "Expected '=' after parameter '%.64s'", buf);
            error_set_hint(errp, "Write options as KEY=VALUE, and a comma in a value twice");
            return -EINVAL;
        }
        key = implied_key;
        value = buf;
    } else {
        memcpy(buf, *p, key_len);
        buf[key_len] = '\0';
        value = buf + key_len + 1;
        *p = value_copy(*p + key_len + 1, value);
    }
    return options_set_value(opts, key, json_string_nocheck(value), OPTIONS_AGAIN_REPLACE, errp);
}

BlockOptions *block_options_parse(const char *text, const char *implied_key, Error **errp)
{
    size_t bytes = strlen(text);
    AUTO_FREE char *buf = NULL;
    const char *p = text;
    BlockOptions *opts;
    int ret = 0;

    if (bytes > BLOCK_OPTIONS_TEXT_MAX) {
        error_set(errp, E2BIG, "options of %zu bytes: more than %d are not read", bytes,
                  BLOCK_OPTIONS_TEXT_MAX);
        return NULL;
    }
    buf = malloc(bytes + 1);
    opts = block_options_new();
    if (!buf || !opts) {
        block_options_free(opts);
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    while (ret == 0 && *p) {
        ret = parameter_parse(opts, &p, implied_key, buf, errp);
        implied_key = NULL;
        if (ret == 0 && *p == ',' && *++p == '\0') {
            ret = error_set(errp, EINVAL, "options end with a comma");
        }
    }
    if (ret < 0) {
        block_options_free(opts);
        return NULL;
    }
    return opts;
}

/* ---- JSON in ---- */

struct flatten {
    BlockOptions *opts;
    char key[BLOCK_OPTIONS_KEY_BYTES_MAX + 1];
    size_t key_len;
    Error **errp;
};

static int flatten_value(struct flatten *f, json_t *value);

/* Go one level down: add ".name" to the key. Returns the length to go back to, or -EINVAL. */
static int flatten_push(struct flatten *f, const char *name)
{
    size_t old_len = f->key_len;
    size_t len = strlen(name);

    if (len == 0 || f->key_len + len + 1 >= sizeof(f->key)) {
        return error_set(f->errp, EINVAL, "'%.64s' is not an option name", name);
    }
    if (f->key_len > 0) {
        f->key[f->key_len++] = '.';
    }
    memcpy(f->key + f->key_len, name, len + 1);
    f->key_len += len;
    return (int)old_len;
}

static int flatten_child(struct flatten *f, const char *name, json_t *value)
{
    int old_len = flatten_push(f, name);
    int ret = old_len < 0 ? old_len : flatten_value(f, value);

    if (old_len >= 0) {
        f->key_len = (size_t)old_len;
        f->key[old_len] = '\0';
    }
    return ret;
}

static int flatten_object(struct flatten *f, json_t *object)
{
    const char *name;
    json_t *value;
    int ret = 0;

    json_object_foreach(object, name, value)
    {
        ret = flatten_child(f, name, value);
        if (ret < 0) {
            break;
        }
    }
    return ret;
}

static int flatten_array(struct flatten *f, json_t *array)
{
    char name[24];
    int ret = 0;

    for (size_t i = 0; i < json_array_size(array) && ret == 0; i++) {
        snprintf(name, sizeof(name), "%zu", i);
        ret = flatten_child(f, name, json_array_get(array, i));
    }
    return ret;
}

/* Depth is bounded by that of the JSON text. */
static int flatten_value(struct flatten *f, json_t *value)
{
    if (json_is_object(value) || json_is_array(value)) {
        if (f->key_len > 0 && json_object_size(value) + json_array_size(value) == 0) {
            return error_set(f->errp, EINVAL, "option '%.64s' is an empty %s", f->key,
                             json_is_object(value) ? "object" : "list");
        }
        return json_is_object(value) ? flatten_object(f, value) : flatten_array(f, value);
    }
    return options_set_value(f->opts, f->key, json_incref(value), OPTIONS_AGAIN_REFUSE, f->errp);
}

BlockOptions *block_options_from_json(json_t *object, Error **errp)
{
    struct flatten f = {.errp = errp};
    int ret;

    f.opts = block_options_new();
    if (!f.opts) {
        ret = error_set(errp, ENOMEM, "out of memory");
    } else if (!json_is_object(object)) {
        ret = error_set(errp, EINVAL, "Invalid JSON object given");
    } else {
        ret = flatten_value(&f, object);
    }
    if (ret < 0) {
        block_options_free(f.opts);
        return NULL;
    }
    return f.opts;
}

BlockOptions *block_options_parse_json(const char *text, Error **errp)
{
    BlockOptions *opts;
    json_t *json;

    if (strncmp(text, "json:", 5) == 0) {
        text += 5;
    }
    json = json_parse_text(text, strlen(text), errp);
    if (!json) {
        return NULL;
    }
    opts = block_options_from_json(json, errp);
    json_decref(json);
    return opts;
}

/* ---- JSON out ---- */

/* Put value at the dotted key of a tree of objects. key is changed. 0 or -ENOMEM. */
static int nest_value(json_t *root, char *key, json_t *value)
{
    json_t *at = root;
    char *dot;

    while ((dot = strchr(key, '.')) != NULL) {
        json_t *inner;

        *dot = '\0';
        inner = json_object_get(at, key);
        if (!inner) {
            inner = json_object();
            if (json_object_set_new_nocheck(at, key, inner) < 0) {
                return -ENOMEM;
            }
        }
        at = inner;
        key = dot + 1;
    }
    return json_object_set_nocheck(at, key, value) < 0 ? -ENOMEM : 0;
}

json_t *block_options_to_json_value(const BlockOptions *opts, Error **errp)
{
    char nested_key[BLOCK_OPTIONS_KEY_BYTES_MAX + 1];
    json_t *root = json_object();
    const char *key;
    json_t *value;

    if (!root) {
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    json_object_foreach(opts->keys, key, value)
    {
        int ret;

        memcpy(nested_key, key, strlen(key) + 1);
        if (json_is_string(value) &&
            !utf8_valid(json_string_value(value), json_string_length(value))) {
            ret = error_set(errp, EILSEQ, "option '%.64s' is not UTF-8: JSON cannot hold it", key);
        } else {
            ret = nest_value(root, nested_key, value);
            if (ret < 0) {
                error_set(errp, ENOMEM, "out of memory");
            }
        }
        if (ret < 0) {
            json_decref(root);
            return NULL;
        }
    }
    return root;
}

json_t *block_options_flat_json(const BlockOptions *opts)
{
    return json_copy(opts->keys);
}
