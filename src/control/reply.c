/* SPDX-License-Identifier: MIT */
/* The texts of replies and events. Whatever is laid out again goes through the tokenizer, token by
 * token, so that nothing is lost on the way. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/reply.h"
#include "util/json.h"
#include "util/mem.h"

#define DUMP_FLAGS (JSON_ENCODE_ANY | JSON_ENSURE_ASCII)

const char *qmp_error_class_name(enum qmp_error_class error_class)
{
    static const char *const names[] = {
        [QMP_GENERIC_ERROR] = "GenericError",
        [QMP_COMMAND_NOT_FOUND] = "CommandNotFound",
        [QMP_DEVICE_NOT_FOUND] = "DeviceNotFound",
        [QMP_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
    };

    assert((unsigned)error_class < ARRAY_SIZE(names));
    return names[error_class];
}

json_t *qmp_text_value(const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd";
    size_t left = strlen(text);
    json_t *value;
    char *out;
    char *to;

    if (utf8_valid(text, left)) {
        return json_string_nocheck(text);
    }
    out = malloc(3 * left + 1);
    for (to = out; out != NULL && left > 0;) {
        size_t len = 1;

        while (len <= 4 && len <= left && !utf8_valid(text, len)) {
            len++;
        }
        if (len > 4 || len > left) {
            memcpy(to, replacement, 3);
            to += 3;
            len = 1;
        } else {
            memcpy(to, text, len);
            to += len;
        }
        text += len;
        left -= len;
    }
    value = out != NULL ? json_stringn_nocheck(out, (size_t)(to - out)) : NULL;
    free(out);
    return value;
}

/* ---- laying tokens out ---- */

struct layout {
    char *out; /* owned */
    size_t used;
    size_t size;
    unsigned depth;
    bool pretty;
    bool convert; /* strings may come in any quotes and escapes */
    bool line_due;
    bool failed; /* out of memory */
};

static void put(struct layout *l, const char *bytes, size_t n)
{
    if (l->size - l->used <= n && !l->failed) {
        size_t size = 2 * l->size + n + 64;
        char *out = realloc(l->out, size);

        l->failed = out == NULL;
        if (out != NULL) {
            l->out = out;
            l->size = size;
        }
    }
    if (!l->failed) {
        memcpy(l->out + l->used, bytes, n);
        l->used += n;
        l->out[l->used] = '\0';
    }
}

static int put_dumped(const char *bytes, size_t n, void *opaque)
{
    struct layout *l = opaque;

    put(l, bytes, n);
    return l->failed ? -1 : 0;
}

/* As json_dumps, whose text may lack a key when memory lacked for it; here that is no text. */
static char *dump(const json_t *value)
{
    struct layout l = {0};

    if (json_dump_callback(value, put_dumped, &l, DUMP_FLAGS) < 0 || l.failed) {
        free(l.out);
        return NULL;
    }
    return l.out;
}

static void put_line(struct layout *l)
{
    put(l, "\r\n", 2);
    for (unsigned i = 0; i < l->depth; i++) {
        put(l, "    ", 4);
    }
}

static void put_string(struct layout *l, const char *text, size_t bytes)
{
    json_t *value;

    if (!l->convert) {
        put(l, text, bytes);
        return;
    }
    value = json_parse_text(text, bytes, NULL);
    if (value == NULL || json_dump_callback(value, put_dumped, l, DUMP_FLAGS) < 0) {
        l->failed = true;
    }
    json_decref(value);
}

static void put_token(struct layout *l, const char *text, const struct json_token *token)
{
    const char *from = text + token->start;
    char c = token->kind == JSON_TOKEN_PUNCT ? *from : 'x';

    l->depth -= c == '}' || c == ']';
    if (l->pretty && (l->line_due || c == '}' || c == ']')) {
        put_line(l);
    }
    if (token->kind == JSON_TOKEN_STRING) {
        put_string(l, from, token->end - token->start);
    } else {
        put(l, from, token->end - token->start); /* numbers as they are: none is rounded */
    }
    l->depth += c == '{' || c == '[';
    l->line_due = c == '{' || c == '[' || c == ',';
    if (c == ':' || (c == ',' && !l->pretty)) {
        put(l, " ", 1);
    }
}

/* One value, whose first token is given. Afterwards the tokenizer stands behind it. */
static void put_value(struct layout *l, struct json_tokenizer *t, struct json_token token)
{
    const unsigned depth = l->depth;

    for (;;) {
        int rc;

        put_token(l, t->text, &token);
        if (l->depth == depth || l->failed) {
            return;
        }
        rc = json_next_token(t, &token, NULL);
        assert(rc == 0); /* the text is JSON: that was asked for */
    }
}

static void next(struct json_tokenizer *t, struct json_token *token)
{
    int rc = json_next_token(t, token, NULL);

    assert(rc == 0);
}

char *qmp_pretty_text(const char *text)
{
    struct json_tokenizer t = {.text = text, .bytes = strlen(text)};
    struct layout l = {.pretty = true};
    struct json_token token;

    next(&t, &token);
    put_value(&l, &t, token);
    if (l.failed) {
        free(l.out);
        return NULL;
    }
    return l.out;
}

/* Whether a key is "id", in whatever quotes and escapes. */
static bool is_id(const char *text, const struct json_token *key, bool *failed)
{
    json_t *value = json_parse_text(text + key->start, key->end - key->start, NULL);
    bool is = value != NULL && strcmp(json_string_value(value), "id") == 0;

    *failed |= value == NULL;
    json_decref(value);
    return is;
}

int qmp_id_text(const char *text, size_t bytes, char **ret_id)
{
    struct json_tokenizer t = {.text = text, .bytes = bytes};
    struct json_token token;
    bool found = false;

    *ret_id = NULL;
    next(&t, &token);
    assert(token.kind == JSON_TOKEN_PUNCT && text[token.start] == '{');
    next(&t, &token);
    while (!found && token.kind == JSON_TOKEN_STRING) {
        struct layout l = {.convert = true};

        found = is_id(text, &token, &l.failed);
        next(&t, &token); /* the colon */
        next(&t, &token);
        put_value(&l, &t, token);
        if (l.failed || !found) {
            free(l.out);
            l.out = NULL;
        }
        if (l.failed) {
            return -ENOMEM;
        }
        *ret_id = l.out;
        next(&t, &token); /* a comma, or the end */
        if (text[token.start] == ',') {
            next(&t, &token);
        }
    }
    return 0;
}

/* ---- the texts ---- */

static char *dump_and_free(json_t *value)
{
    char *text = value != NULL ? dump(value) : NULL;

    json_decref(value);
    return text;
}

json_t *qmp_version_value(const char *version)
{
    int major = 0, minor = 0, micro = 0;
    json_t *package = json_sprintf("Platter %s", version);

    (void)sscanf(version, "%d.%d.%d", &major, &minor, &micro);
    return json_pack("{s:{s:i, s:i, s:i}, s:o}", "qemu", "micro", micro, "minor", minor, "major",
                     major, "package", package);
}

char *qmp_greeting_text(const char *version)
{
    return dump_and_free(json_pack("{s:{s:o, s:[s]}}", "QMP", "version", qmp_version_value(version),
                                   "capabilities", "oob"));
}

char *qmp_return_text(const json_t *value, const char *id)
{
    char *text = value != NULL ? dump(value) : strdup("{}");
    char *out = NULL;

    if (text != NULL &&
        asprintf(&out, "{\"return\": %s%s%s}", text, id ? ", \"id\": " : "", id ? id : "") < 0) {
        out = NULL;
    }
    free(text);
    return out;
}

char *qmp_error_text(enum qmp_error_class error_class, const char *desc, const char *id)
{
    char *text = dump_and_free(qmp_text_value(desc));
    char *out = NULL;

    if (text != NULL &&
        asprintf(&out, "{%s%s%s\"error\": {\"class\": \"%s\", \"desc\": %s}}", id ? "\"id\": " : "",
                 id ? id : "", id ? ", " : "", qmp_error_class_name(error_class), text) < 0) {
        out = NULL;
    }
    free(text);
    return out;
}

char *qmp_event_text(const char *name, const json_t *data, int64_t realtime_ns)
{
    char *text = data != NULL ? dump(data) : NULL;
    char *out = NULL;

    if ((text != NULL || data == NULL) &&
        asprintf(&out,
                 "{\"timestamp\": {\"seconds\": %" PRId64 ", \"microseconds\": %" PRId64
                 "}, \"event\": \"%s\"%s%s}",
                 realtime_ns / 1000000000, realtime_ns % 1000000000 / 1000, name,
                 text ? ", \"data\": " : "", text ? text : "") < 0) {
        out = NULL;
    }
    free(text);
    return out;
}
