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
#include "util/json_print.h"
#include "util/mem.h"

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

/* ---- a text laid out again, token by token ---- */

static void next(struct json_tokenizer *in, struct json_token *token)
{
    int rc = json_next_token(in, token, NULL);

    assert(rc == 0); /* the text is JSON: that was asked for */
}

static char punct(const struct json_tokenizer *in, const struct json_token *token)
{
    return token->kind == JSON_TOKEN_PUNCT ? in->text[token->start] : '\0';
}

static void put_line(struct text *t, unsigned depth)
{
    text_printf(t, "\r\n%*s", (int)(4 * depth), "");
}

char *qmp_pretty_text(const char *text)
{
    struct json_tokenizer in = {.text = text, .bytes = strlen(text)};
    struct json_token token;
    struct text t = {0};
    unsigned depth = 0;
    bool line_due = false;

    do {
        char c;

        next(&in, &token);
        c = punct(&in, &token);
        depth -= c == '}' || c == ']';
        if (line_due || c == '}' || c == ']') {
            put_line(&t, depth);
        }
        text_put(&t, text + token.start, token.end - token.start);
        depth += c == '{' || c == '[';
        line_due = c == '{' || c == '[' || c == ',';
        if (c == ':') {
            text_put(&t, " ", 1);
        }
    } while (depth > 0);
    return text_end(&t);
}

/* ---- ids ---- */

/* Go behind the value whose first token is given. */
static void skip_value(struct json_tokenizer *in, struct json_token token)
{
    unsigned depth = 0;

    for (;;) {
        char c = punct(in, &token);

        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        if (depth == 0) {
            return;
        }
        next(in, &token);
    }
}

static json_t *token_value(const struct json_tokenizer *in, const struct json_token *token)
{
    return json_parse_text(in->text + token->start, token->end - token->start, NULL);
}

/* Where the values of an object, whose bracket was read, begin: names with offsets. The tokenizer
 * stands behind the object then. NULL out of memory. */
static json_t *member_places(struct json_tokenizer *in)
{
    json_t *places = json_object();
    int ret = places != NULL ? 0 : -ENOMEM;
    struct json_token token;

    next(in, &token);
    while (ret == 0 && token.kind == JSON_TOKEN_STRING) {
        json_t *name = token_value(in, &token);

        next(in, &token); /* the colon */
        next(in, &token);
        if (name == NULL) {
            ret = -ENOMEM;
        } else {
            json_add(places, json_string_value(name), json_integer((json_int_t)token.start), &ret);
        }
        json_decref(name);
        skip_value(in, token);
        next(in, &token); /* a comma, or the end */
        if (punct(in, &token) == ',') {
            next(in, &token);
        }
    }
    return json_whole(places, ret);
}

static void put_printed(struct text *t, json_t *value)
{
    if (value != NULL) {
        json_print_to(t, value);
    } else {
        t->failed = true;
    }
    json_decref(value);
}

/* As the reference prints it, but for whole numbers: none is rounded. */
static void put_scalar(struct text *t, const struct json_tokenizer *in,
                       const struct json_token *token)
{
    json_t *value = token_value(in, token);

    if (token->kind == JSON_TOKEN_INTEGER && json_is_string(value)) { /* above INT64_MAX */
        text_put(t, in->text + token->start, token->end - token->start);
        json_decref(value);
    } else {
        put_printed(t, value);
    }
}

static void put_value(struct text *t, struct json_tokenizer *in);

static void put_object(struct text *t, struct json_tokenizer *in)
{
    json_t *places = member_places(in);
    size_t count = 0;
    struct json_member *members = places != NULL ? json_members(places, &count) : NULL;

    t->failed |= members == NULL;
    text_puts(t, "{");
    for (size_t i = 0; i < count; i++) {
        struct json_tokenizer at = *in;

        at.at = (size_t)json_integer_value(members[i].value);
        text_puts(t, i > 0 ? ", " : "");
        put_printed(t, json_string_nocheck(members[i].key));
        text_puts(t, ": ");
        put_value(t, &at);
    }
    text_puts(t, "}");
    free(members);
    json_decref(places);
}

/* The value that begins where the tokenizer stands. As deep as json_parse_text lets a text be. */
static void put_value(struct text *t, struct json_tokenizer *in)
{
    struct json_tokenizer before;
    struct json_token token;

    next(in, &token);
    if (punct(in, &token) == '{') {
        put_object(t, in);
        return;
    }
    if (punct(in, &token) != '[') {
        put_scalar(t, in, &token);
        return;
    }
    text_puts(t, "[");
    before = *in;
    next(in, &token);
    while (punct(in, &token) != ']') {
        *in = before;
        put_value(t, in);
        next(in, &token); /* a comma, or the end */
        text_puts(t, punct(in, &token) == ',' ? ", " : "");
        before = *in;
    }
    text_puts(t, "]");
}

int qmp_id_text(const char *text, size_t bytes, char **ret_id)
{
    struct json_tokenizer in = {.text = text, .bytes = bytes};
    struct json_token token;
    struct text t = {0};
    json_t *places, *place;

    *ret_id = NULL;
    next(&in, &token);
    assert(punct(&in, &token) == '{');
    places = member_places(&in);
    if (places == NULL) {
        return -ENOMEM;
    }
    place = json_object_get(places, "id");
    if (place != NULL) {
        in.at = (size_t)json_integer_value(place);
        put_value(&t, &in);
        *ret_id = text_end(&t);
    }
    json_decref(places);
    return place != NULL && *ret_id == NULL ? -ENOMEM : 0;
}

/* ---- the texts ---- */

static char *print_and_free(json_t *value)
{
    char *text = json_print(value, 0);

    json_decref(value);
    return text;
}

json_t *qmp_version_value(const char *release, const char *version)
{
    int major = 0, minor = 0, micro = 0;
    json_t *package = json_sprintf("Platter %s", version);

    (void)sscanf(release, "%d.%d.%d", &major, &minor, &micro);
    return json_pack("{s:{s:i, s:i, s:i}, s:o}", "qemu", "major", major, "minor", minor, "micro",
                     micro, "package", package);
}

char *qmp_greeting_text(const char *release, const char *version)
{
    return print_and_free(json_pack("{s:{s:o, s:[s]}}", "QMP", "version",
                                    qmp_version_value(release, version), "capabilities", "oob"));
}

char *qmp_return_text(const json_t *value, const char *id)
{
    char *text = value != NULL ? json_print(value, 0) : strdup("{}");
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
    char *text = print_and_free(json_text(desc));
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
    char *text = json_print(data, 0);
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
