/* SPDX-License-Identifier: MIT */
/* BlockOptions: typed takes. Messages name the key and the value they refuse. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/error.h"
#include "util/json.h"
#include "util/options_internal.h"
#include "util/size.h"

#define WHAT_BYTES 128

/* "option 'x':", for messages. */
static const char *what_option(const char *key, char *buf)
{
    snprintf(buf, WHAT_BYTES, "option '%.64s': value", key);
    return buf;
}

static int wrong_type(const char *key, const char *want, Error **errp)
{
    return error_set(errp, EINVAL, "option '%.64s' must be %s", key, want);
}

static int taken(BlockOptions *opts, const char *key)
{
    json_object_del(opts->keys, key);
    return 1;
}

int block_options_take_str(BlockOptions *opts, const char *key, char **ret, Error **errp)
{
    json_t *value = json_object_get(opts->keys, key);
    char *copy;

    if (!value) {
        return 0;
    }
    if (!json_is_string(value)) {
        return wrong_type(key, "a string", errp);
    }
    copy = strdup(json_string_value(value));
    if (!copy) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    *ret = copy;
    return taken(opts, key);
}

int block_options_take_bool(BlockOptions *opts, const char *key, bool *ret, Error **errp)
{
    static const char *const words[] = {"off", "on", "false", "true", "no", "yes", "n", "y"};
    json_t *value = json_object_get(opts->keys, key);

    if (!value) {
        return 0;
    }
    if (json_is_boolean(value)) {
        *ret = json_is_true(value);
        return taken(opts, key);
    }
    for (size_t i = 0; json_is_string(value) && i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(json_string_value(value), words[i]) == 0) {
            *ret = i % 2 == 1;
            return taken(opts, key);
        }
    }
    error_set(errp, EINVAL, "Parameter '%.64s' expects 'on' or 'off'", key);
    if (json_is_string(value)) {
        error_set_hint(errp, "'%.64s' is neither", json_string_value(value));
    }
    return -EINVAL;
}

int block_options_take_int(BlockOptions *opts, const char *key, int64_t min, int64_t max,
                           int64_t *ret, Error **errp)
{
    json_t *value = json_object_get(opts->keys, key);
    char what[WHAT_BYTES];
    int64_t number;

    if (!value) {
        return 0;
    }
    if (json_is_integer(value)) {
        number = json_integer_value(value);
    } else if (json_is_string(value)) {
        const char *text = json_string_value(value);
        bool negative = text[0] == '-';
        uint64_t magnitude;
        int rc = number_parse(text + negative, what_option(key, what), 0,
                              (uint64_t)INT64_MAX + negative, &magnitude, errp);

        if (rc < 0) {
            return rc;
        }
        number = (int64_t)(negative ? 0 - magnitude : magnitude);
    } else {
        return wrong_type(key, "a whole number", errp);
    }
    if (number < min || number > max) {
        return error_set(errp, ERANGE,
                         "option '%.64s': %lld is out of range: it must be %lld to %lld", key,
                         (long long)number, (long long)min, (long long)max);
    }
    *ret = number;
    return taken(opts, key);
}

/* A size that JSON has in another form than text or a whole number is none. */
static int size_of_value(const json_t *value, const char *key, uint64_t *ret, Error **errp)
{
    char text[32] = "?";

    if (json_is_string(value)) {
        return size_of_parameter(json_string_value(value), key, ret, errp);
    }
    if (json_is_integer(value)) {
        snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(value));
    }
    return size_of_parameter(text, key, ret, errp);
}

/* A number that is not negative: JSON, or text that parse_text understands. */
static int take_unsigned(BlockOptions *opts, const char *key, bool size, uint64_t min, uint64_t max,
                         uint64_t *ret, Error **errp)
{
    json_t *value = json_object_get(opts->keys, key);
    char what[WHAT_BYTES];
    uint64_t number = 0;
    int rc = 0;

    if (!value) {
        return 0;
    }
    what_option(key, what);
    if (size) {
        rc = size_of_value(value, key, &number, errp);
    } else if (json_is_integer(value) && json_integer_value(value) < 0) {
        return error_set(errp, ERANGE, "option '%.64s': %lld is negative", key,
                         (long long)json_integer_value(value));
    } else if (json_is_integer(value)) {
        number = (uint64_t)json_integer_value(value);
    } else if (!json_is_string(value)) {
        return wrong_type(key, "a whole number", errp);
    } else {
        rc = number_parse(json_string_value(value), what, 0, UINT64_MAX, &number, NULL);
        if (rc == -EINVAL) {
            error_set(errp, EINVAL, "Parameter '%.64s' expects a number", key);
            error_set_hint(errp, "'%.64s' is none", json_string_value(value));
        } else if (rc < 0) {
            (void)number_parse(json_string_value(value), what, 0, UINT64_MAX, &number, errp);
        }
    }
    if (rc < 0) {
        return rc;
    }
    if (number < min || number > max) {
        return error_set(
            errp, ERANGE, "option '%.64s': %llu is out of range: it must be %llu to %llu", key,
            (unsigned long long)number, (unsigned long long)min, (unsigned long long)max);
    }
    *ret = number;
    return taken(opts, key);
}

int block_options_take_uint(BlockOptions *opts, const char *key, uint64_t min, uint64_t max,
                            uint64_t *ret, Error **errp)
{
    return take_unsigned(opts, key, false, min, max, ret, errp);
}

int block_options_take_size(BlockOptions *opts, const char *key, uint64_t min, uint64_t max,
                            uint64_t *ret, Error **errp)
{
    return take_unsigned(opts, key, true, min, max, ret, errp);
}

int block_options_take_enum(BlockOptions *opts, const char *key,
                            const struct block_options_enum *names, int *ret, Error **errp)
{
    json_t *value = json_object_get(opts->keys, key);
    char known[256] = "";
    size_t used = 0;

    if (!value) {
        return 0;
    }
    if (!json_is_string(value)) {
        return wrong_type(key, "a word", errp);
    }
    for (const struct block_options_enum *n = names; n->name; n++) {
        if (strcmp(json_string_value(value), n->name) == 0) {
            *ret = n->value;
            return taken(opts, key);
        }
        if (used < sizeof(known)) {
            used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "",
                                     n->name);
        }
    }
    error_set(errp, EINVAL, "Parameter '%.64s' does not accept value '%.64s'", key,
              json_string_value(value));
    error_set_hint(errp, "It can be: %s", known);
    return -EINVAL;
}

static bool same_number(const json_t *a, const json_t *b)
{
    uint64_t number;

    return json_is_integer(a) && json_is_string(b) &&
           size_parse(json_string_value(b), 'b', "", &number, NULL) == 0 &&
           json_integer_value(a) >= 0 && (uint64_t)json_integer_value(a) == number;
}

static bool same_truth(const json_t *a, const json_t *b)
{
    return json_is_boolean(a) && json_is_string(b) &&
           strcmp(json_string_value(b), json_is_true(a) ? "on" : "off") == 0;
}

bool block_options_same(const BlockOptions *a, const BlockOptions *b, const char *key)
{
    json_t *va = json_object_get(a->keys, key);
    json_t *vb = json_object_get(b->keys, key);

    if (va == NULL || vb == NULL) {
        return va == vb;
    }
    return json_equal(va, vb) || same_number(va, vb) || same_number(vb, va) || same_truth(va, vb) ||
           same_truth(vb, va);
}
