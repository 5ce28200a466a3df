/* SPDX-License-Identifier: MIT */
/* Framing knows brackets, strings and words, and nothing of what makes them right: that is for
 * json_parse_text, which has the whole text in front of it. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/json_stream.h"
#include "util/error.h"
#include "util/json.h"

#define TEXT_KEPT_BYTES 65536 /* a longer one gives its memory back */
#define RESET_BYTE 0xff

/* What a byte did. */
enum step {
    STEP_ON,         /* belongs to the value that goes on, or to nothing */
    STEP_END,        /* ends it */
    STEP_END_BEFORE, /* ended it, and does not belong to it */
    STEP_FAULT,      /* errp is set, and the stream is as it goes on */
};

void json_stream_fini(struct json_stream *stream)
{
    free(stream->text);
    *stream = (struct json_stream){0};
}

/* As new, but for the memory. */
static void reset(struct json_stream *s, enum json_stream_mode mode)
{
    if (s->size > TEXT_KEPT_BYTES) {
        free(s->text);
        s->text = NULL;
        s->size = 0;
    }
    *s = (struct json_stream){.text = s->text, .size = s->size, .mode = mode};
}

static bool in_value(const struct json_stream *s)
{
    return s->depth > 0 || s->quote != 0 || s->word;
}

bool json_stream_pending(const struct json_stream *s)
{
    return in_value(s);
}

static int keep(struct json_stream *s, unsigned char c, Error **errp)
{
    if (s->used == JSON_TEXT_MAX) {
        return error_set(errp, E2BIG, "JSON text of more than %d bytes", JSON_TEXT_MAX);
    }
    if (s->used == s->size) {
        size_t size = s->size > 0 ? 2 * s->size : 1024;
        char *text = realloc(s->text, size);

        if (text == NULL) {
            return error_set(errp, ENOMEM, "out of memory for a JSON text");
        }
        s->text = text;
        s->size = size;
    }
    s->text[s->used++] = (char)c;
    return 0;
}

static enum step bad_byte(struct json_stream *s, unsigned char c, Error **errp)
{
    bool told = s->mode == JSON_STREAM_SKIP;

    reset(s, c == '\n' || c == RESET_BYTE ? JSON_STREAM_KEEP : JSON_STREAM_RECOVER);
    if (told && c != RESET_BYTE) {
        return STEP_ON;
    }
    error_set(errp, EINVAL, "JSON parse error, stray byte 0x%02x", c);
    return STEP_FAULT;
}

static enum step string_byte(struct json_stream *s, unsigned char c, Error **errp)
{
    if (c < 0x20) {
        return bad_byte(s, c, errp);
    }
    if (s->escape || c == '\\') {
        s->escape = !s->escape;
    } else if (c == (unsigned char)s->quote) {
        s->quote = 0;
        return s->depth == 0 ? STEP_END : STEP_ON;
    }
    return STEP_ON;
}

static enum step open_bracket(struct json_stream *s, unsigned char c, Error **errp)
{
    const uint64_t bit = UINT64_C(1) << s->depth % JSON_DEPTH_MAX;

    s->depth++; /* cannot overflow before 4 GiB of brackets, and then the end comes too early */
    if (s->depth > JSON_DEPTH_MAX && s->mode == JSON_STREAM_KEEP) {
        error_set(errp, E2BIG, "JSON deeper than %d levels", JSON_DEPTH_MAX);
        s->mode = JSON_STREAM_SKIP;
        return STEP_FAULT;
    }
    s->objects = c == '{' ? s->objects | bit : s->objects & ~bit;
    return STEP_ON;
}

static enum step close_bracket(struct json_stream *s, unsigned char c, Error **errp)
{
    const bool object = s->depth > 0 && (s->objects >> (s->depth - 1) % JSON_DEPTH_MAX & 1) != 0;

    if (s->mode == JSON_STREAM_KEEP && (s->depth == 0 || object != (c == '}'))) {
        reset(s, JSON_STREAM_KEEP);
        error_set(errp, EINVAL, "JSON parse error, '%c' closes nothing", c);
        return STEP_FAULT;
    }
    return --s->depth == 0 ? STEP_END : STEP_ON;
}

/* A byte outside of strings that is no bracket. */
static enum step plain_byte(struct json_stream *s, unsigned char c, Error **errp)
{
    if (c == '"' || c == '\'') {
        s->quote = (char)c;
    } else if (s->depth == 0 && (c == ',' || c == ':')) {
        error_set(errp, EINVAL, "JSON parse error, '%c' outside of a value", c);
        return STEP_FAULT;
    } else {
        s->word = s->depth == 0 && c > ' ';
    }
    return STEP_ON;
}

static enum step take_byte(struct json_stream *s, unsigned char c, Error **errp)
{
    if (c == RESET_BYTE) {
        return bad_byte(s, c, errp);
    }
    if (s->mode == JSON_STREAM_RECOVER) {
        if (c != '{' && c != '[') {
            s->mode = c == '\n' ? JSON_STREAM_KEEP : JSON_STREAM_RECOVER;
            return STEP_ON;
        }
        s->mode = JSON_STREAM_KEEP;
    }
    if (s->quote != 0) {
        return string_byte(s, c, errp);
    }
    if (s->word && (c <= ' ' || strchr("{}[],:\"'", c) != NULL)) {
        return STEP_END_BEFORE;
    }
    if (c < ' ' && c != '\t' && c != '\r' && c != '\n') {
        return bad_byte(s, c, errp);
    }
    switch (c) {
    case '{':
    case '[':
        return open_bracket(s, c, errp);
    case '}':
    case ']':
        return close_bracket(s, c, errp);
    default:
        return plain_byte(s, c, errp);
    }
}

/* The text is whole. */
static enum json_stream_result finish(struct json_stream *s, json_t **ret_value, Error **errp)
{
    json_t *value;

    s->word = false;
    if (s->mode == JSON_STREAM_SKIP) {
        reset(s, JSON_STREAM_KEEP);
        return JSON_STREAM_MORE;
    }
    s->given = true;
    value = json_parse_text(s->text, s->used, errp);
    if (value == NULL) {
        error_prepend(errp, "JSON parse error, ");
        return JSON_STREAM_ERROR;
    }
    *ret_value = value;
    return JSON_STREAM_VALUE;
}

/* take_byte, and keep the byte if it belongs to a value. */
static enum step next_byte(struct json_stream *s, unsigned char c, Error **errp)
{
    enum step step = take_byte(s, c, errp);
    bool belongs = step == STEP_END || (step == STEP_ON && in_value(s));

    if (!belongs || s->mode != JSON_STREAM_KEEP || keep(s, c, errp) == 0) {
        return step;
    }
    if (step == STEP_END) {
        reset(s, JSON_STREAM_KEEP);
    } else {
        s->mode = JSON_STREAM_SKIP;
    }
    return STEP_FAULT;
}

enum json_stream_result json_stream_next(struct json_stream *s, const char *data, size_t bytes,
                                         size_t *ret_used, json_t **ret_value, Error **errp)
{
    enum json_stream_result result = JSON_STREAM_MORE;
    size_t at = 0;

    if (s->given) {
        reset(s, JSON_STREAM_KEEP);
    }
    while (at < bytes && result == JSON_STREAM_MORE) {
        enum step step = next_byte(s, (unsigned char)data[at], errp);

        at += step != STEP_END_BEFORE;
        if (step == STEP_FAULT) {
            result = JSON_STREAM_ERROR;
        } else if (step != STEP_ON) {
            result = finish(s, ret_value, errp);
        }
    }
    *ret_used = at;
    return result;
}
