/* SPDX-License-Identifier: MIT */
/* KEY=VALUE,... in two steps: a tree of objects, then those whose keys are numbers become lists. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/keyval.h"
#include "util/error.h"
#include "util/json.h"
#include "util/mem.h"

#define FRAGMENT_BYTES_MAX 127
#define KEY_BYTES_MAX 1024

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* ---- keys ---- */

/* A key in the text, and how far it was read. */
struct key {
    const char *text;
    const char *end;
    const char *at;
};

/* Behind a vendor's "__com.example_" in front of a name, where there is one. */
static const char *skip_vendor(const char *p)
{
    const char *q = p;

    if (p[0] != '_' || p[1] != '_') {
        return p;
    }
    for (q += 2; is_letter(*q) || is_digit(*q) || *q == '-' || *q == '.'; q++) {
    }
    return *q == '_' ? q + 1 : p;
}

/* The length of the name, or of the number of an element, that stands at k->at; 0: neither. */
static size_t fragment_length(const struct key *k)
{
    const char *p = k->at;

    if (p > k->text && is_digit(*p)) {
        while (is_digit(*p)) {
            p++;
        }
    } else {
        p = skip_vendor(p);
        if (!is_letter(*p)) {
            return 0;
        }
        while (is_letter(*p) || is_digit(*p) || *p == '-' || *p == '_') {
            p++;
        }
    }
    return p == k->end || *p == '.' ? (size_t)(p - k->at) : 0;
}

static int used_inconsistently(const char *key, size_t bytes, Error **errp)
{
    return error_set(errp, EINVAL, "Parameters '%.*s.*' used inconsistently", (int)bytes, key);
}

/* The next part of the key into buf, and k->at behind it. 0 or -errno. */
static int next_fragment(struct key *k, char *buf, Error **errp)
{
    size_t len = fragment_length(k);

    if (len == 0) {
        return error_set(errp, EINVAL, "Invalid parameter '%.*s'", (int)(k->end - k->text),
                         k->text);
    }
    if (len > FRAGMENT_BYTES_MAX) {
        return error_set(errp, EINVAL, "Parameter%s '%.*s' is too long",
                         k->at > k->text || k->at + len < k->end ? " fragment" : "", (int)len,
                         k->at);
    }
    memcpy(buf, k->at, len);
    buf[len] = '\0';
    k->at += len;
    return 0;
}

/* The object inside of at that the name so far stands for, made where it is not there. */
static json_t *descend(json_t *at, const char *name, const struct key *k, size_t bytes,
                       Error **errp)
{
    json_t *inner = json_object_get(at, name);

    if (inner && !json_is_object(inner)) {
        used_inconsistently(k->text, bytes, errp);
        return NULL;
    }
    if (!inner) {
        inner = json_object();
        if (!inner || json_object_set_new_nocheck(at, name, inner) < 0) {
            error_set(errp, ENOMEM, "out of memory");
            return NULL;
        }
    }
    return inner;
}

/* The object that holds the last part of a key, and that part. A part is judged before those in
 * front of it are descended to, as the reference does. NULL with errp. */
static json_t *find_holder(json_t *root, struct key *k, char *last, Error **errp)
{
    json_t *at = root;
    unsigned depth = 1;

    if (next_fragment(k, last, errp) < 0) {
        return NULL;
    }
    while (k->at < k->end) {
        char next[FRAGMENT_BYTES_MAX + 1];
        size_t bytes = (size_t)(k->at - k->text);

        k->at++;
        if (next_fragment(k, next, errp) < 0) {
            return NULL;
        }
        if (++depth > JSON_DEPTH_MAX) {
            error_set(errp, E2BIG, "Parameter '%.*s' has more than %d parts",
                      (int)(k->end - k->text), k->text, JSON_DEPTH_MAX);
            return NULL;
        }
        at = descend(at, last, k, bytes, errp);
        if (!at) {
            return NULL;
        }
        memcpy(last, next, sizeof(next));
    }
    return at;
}

/* ---- the text ---- */

/* A value up to a single comma or the end; two commas are one. buf has room for all of the text. */
static const char *copy_value(const char *p, char *buf)
{
    while (*p && !(p[0] == ',' && p[1] != ',')) {
        p += p[0] == ',';
        *buf++ = *p++;
    }
    *buf = '\0';
    return p;
}

static int put_value(json_t *holder, const char *name, const struct key *k, const char *value,
                     Error **errp)
{
    if (json_is_object(json_object_get(holder, name))) {
        return used_inconsistently(k->text, (size_t)(k->end - k->text), errp);
    }
    return json_object_set_new_nocheck(holder, name, json_string_nocheck(value)) < 0
               ? error_set(errp, ENOMEM, "out of memory")
               : 0;
}

static bool is_help(const char *word, size_t bytes)
{
    return (bytes == 4 && memcmp(word, "help", 4) == 0) || (bytes == 1 && *word == '?');
}

/* One parameter at *p, or a word that asks for help. buf: room for all of the text. */
static int parse_one(json_t *root, const char **p, const char *implied_key, char *buf,
                     bool *ret_help, Error **errp)
{
    size_t len = strcspn(*p, "=,");
    bool implied = implied_key && len > 0 && (*p)[len] != '=';
    const char *text = implied ? implied_key : *p;
    struct key k = {.text = text, .at = text, .end = text + (implied ? strlen(text) : len)};
    char name[FRAGMENT_BYTES_MAX + 1];
    json_t *holder;

    if ((*p)[len] != '=' && is_help(*p, len)) {
        *ret_help = true;
        *p += len;
        return 0;
    }
    if (len > KEY_BYTES_MAX && !implied) {
        return error_set(errp, E2BIG, "Parameter '%.64s...' is too long", *p);
    }
    holder = find_holder(root, &k, name, errp);
    if (!holder) {
        return -EINVAL;
    }
    if (implied) { /* a comma in it cannot be written */
        memcpy(buf, *p, len);
        buf[len] = '\0';
        *p += len;
    } else if (*k.end != '=') {
        error_set(errp, EINVAL, "Expected '=' after parameter '%.*s'", (int)len, *p);
        error_set_hint(errp, "Write options as KEY=VALUE, and a comma in a value twice");
        return -EINVAL;
    } else {
        *p = copy_value(k.end + 1, buf);
    }
    return put_value(holder, name, &k, buf, errp);
}

/* ---- lists ---- */

struct path {
    char text[KEY_BYTES_MAX + 1];
    size_t bytes;
};

/* Elements of an object whose keys are all numbers, in their order. NULL with errp. */
static json_t *list_of(json_t *object, const struct path *path, Error **errp)
{
    size_t count = json_object_size(object), highest = 0;
    json_t **elements = calloc(count, sizeof(*elements)); /* borrowed */
    json_t *list = json_array();
    const char *key;
    json_t *value;

    if (!elements || !list) {
        error_set(errp, ENOMEM, "out of memory");
        goto failed;
    }
    json_object_foreach(object, key, value)
    {
        size_t index = strtoul(key, NULL, 10); /* far too large: one below is missing */

        highest = index > highest ? index : highest;
        if (index < count) {
            elements[index] = value;
        }
    }
    for (size_t i = 0; i <= highest; i++) {
        if (i >= count || !elements[i]) {
            error_set(errp, EINVAL, "Parameter '%s.%zu' missing", path->text, i);
            goto failed;
        }
        if (json_array_append(list, elements[i]) < 0) {
            error_set(errp, ENOMEM, "out of memory");
            goto failed;
        }
    }
    free(elements);
    return list;
failed:
    free(elements);
    json_decref(list);
    return NULL;
}

/* The object, or the list that it is, with the same for what is in it. A new reference; NULL with
 * errp. As deep as keys are. */
static json_t *settle(json_t *object, struct path *path, Error **errp)
{
    size_t numbers = 0;
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        size_t bytes = path->bytes;
        json_t *settled;

        numbers += is_digit(*key);
        if (!json_is_object(value)) {
            continue;
        }
        path->bytes += (size_t)snprintf(path->text + bytes, sizeof(path->text) - bytes, "%s%s",
                                        bytes > 0 ? "." : "", key);
        settled = settle(value, path, errp);
        path->bytes = bytes;
        path->text[bytes] = '\0';
        if (!settled || json_object_set_new_nocheck(object, key, settled) < 0) {
            if (settled) {
                error_set(errp, ENOMEM, "out of memory");
            }
            return NULL;
        }
    }
    if (numbers == 0) {
        return json_incref(object);
    }
    if (numbers < json_object_size(object)) {
        used_inconsistently(path->text, path->bytes, errp);
        return NULL;
    }
    return list_of(object, path, errp);
}

/* ---- exported ---- */

json_t *keyval_parse(const char *text, const char *implied_key, Error **errp)
{
    size_t bytes = strlen(text);
    struct path path = {.bytes = 0};
    AUTO_FREE char *buf = NULL;
    json_t *root, *settled = NULL;
    unsigned count = 0;
    bool help = false;
    int ret = 0;

    if (bytes > JSON_TEXT_MAX) {
        error_set(errp, E2BIG, "arguments of %zu bytes: more than %d are not read", bytes,
                  JSON_TEXT_MAX);
        return NULL;
    }
    buf = malloc(bytes + 1);
    root = json_object();
    if (!buf || !root) {
        ret = error_set(errp, ENOMEM, "out of memory");
    }
    while (ret == 0 && *text) {
        ret = ++count > JSON_KEYS_MAX
                  ? error_set(errp, E2BIG, "more than %d parameters", JSON_KEYS_MAX)
                  : parse_one(root, &text, implied_key, buf, &help, errp);
        implied_key = NULL;
        text += ret == 0 && *text == ',';
    }
    if (ret == 0) {
        settled = settle(root, &path, errp);
    }
    if (settled && help) {
        json_decref(settled);
        settled = NULL;
        error_set(errp, EINVAL, "Help is not available for this option");
    }
    json_decref(root);
    return settled;
}
