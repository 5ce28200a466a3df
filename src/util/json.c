/* SPDX-License-Identifier: MIT */
/*
 * The JSON tokenizer and the parser above it. The tokenizer checks each token completely (escapes,
 * UTF-8, number form), so the parser's conversions cannot meet bad text, only a lack of memory.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/error.h"
#include "util/json.h"

/* ---- UTF-8 ---- */

/* Length of the well-formed sequence at p, or 0. */
static size_t utf8_sequence(const unsigned char *p, size_t bytes)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t code;
    size_t len;

    if (p[0] < 0x80) {
        return 1;
    }
    len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || len > bytes) {
        return 0;
    }
    code = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (p[i] & 0x3f);
    }
    if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
        return 0;
    }
    return len;
}

static size_t utf8_put(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

bool utf8_valid(const char *text, size_t bytes)
{
    const unsigned char *p = (const unsigned char *)text;

    while (bytes > 0) {
        size_t len = utf8_sequence(p, bytes);

        if (len == 0) {
            return false;
        }
        p += len;
        bytes -= len;
    }
    return true;
}

/* ---- tokens ---- */

static int bad_at(Error **errp, size_t offset, const char *what)
{
    return error_set(errp, EINVAL, "invalid JSON at byte %zu: %s", offset, what);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four hex digits at p, or -1. */
static int32_t hex4(const char *p, size_t bytes)
{
    int32_t value = 0;

    if (bytes < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(p[i]);

        if (digit < 0) {
            return -1;
        }
        value = value << 4 | digit;
    }
    return value;
}

/* The \uXXXX (or pair of them) whose first digit is at p. Returns the bytes it takes after "\u",
 * 0 when it is no character. NUL is none: C strings could not hold it. */
static size_t unicode_escape(const char *p, size_t bytes, uint32_t *ret_code)
{
    int32_t high = hex4(p, bytes);
    int32_t low;

    if (high <= 0 || (high >= 0xdc00 && high <= 0xdfff)) {
        return 0;
    }
    if (high < 0xd800 || high > 0xdfff) {
        *ret_code = (uint32_t)high;
        return 4;
    }
    if (bytes < 10 || p[4] != '\\' || p[5] != 'u') {
        return 0;
    }
    low = hex4(p + 6, 4);
    if (low < 0xdc00 || low > 0xdfff) {
        return 0;
    }
    *ret_code = 0x10000 + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
    return 10;
}

/* Letter of a one-letter escape to its character; 0: none. */
static char plain_escape(char c)
{
    static const char from[] = "\"'\\/bfnrt";
    static const char to[] = "\"'\\/\b\f\n\r\t";
    const char *at = c ? strchr(from, c) : NULL;

    return at ? to[at - from] : 0;
}

static int string_token(struct json_tokenizer *t, Error **errp)
{
    const size_t start = t->at;
    const char quote = t->text[t->at++];

    while (t->at < t->bytes) {
        const char *p = t->text + t->at;
        size_t left = t->bytes - t->at;
        size_t len;
        uint32_t code;

        if (*p == quote) {
            t->at++;
            return 0;
        }
        if ((unsigned char)*p < 0x20) {
            return bad_at(errp, t->at, "control character in a string");
        }
        if (*p != '\\') {
            len = utf8_sequence((const unsigned char *)p, left);
            if (len == 0) {
                return bad_at(errp, t->at, "not UTF-8");
            }
        } else if (left > 1 && plain_escape(p[1])) {
            len = 2;
        } else {
            len = left > 1 && p[1] == 'u' ? unicode_escape(p + 2, left - 2, &code) : 0;
            if (len == 0) {
                return bad_at(errp, t->at, "bad escape in a string");
            }
            len += 2;
        }
        t->at += len;
    }
    return bad_at(errp, start, "string without end");
}

static size_t skip_digits(struct json_tokenizer *t)
{
    size_t start = t->at;

    while (t->at < t->bytes && t->text[t->at] >= '0' && t->text[t->at] <= '9') {
        t->at++;
    }
    return t->at - start;
}

static int number_token(struct json_tokenizer *t, struct json_token *token, Error **errp)
{
    size_t first;
    bool whole = true;

    t->at += t->text[t->at] == '-';
    first = t->at;
    if (skip_digits(t) == 0 || (t->text[first] == '0' && t->at - first > 1)) {
        return bad_at(errp, token->start, "not a number");
    }
    if (t->at < t->bytes && t->text[t->at] == '.') {
        whole = false;
        t->at++;
        if (skip_digits(t) == 0) {
            return bad_at(errp, token->start, "not a number");
        }
    }
    if (t->at < t->bytes && (t->text[t->at] | 0x20) == 'e') {
        whole = false;
        t->at++;
        t->at += t->at < t->bytes && (t->text[t->at] == '+' || t->text[t->at] == '-');
        if (skip_digits(t) == 0) {
            return bad_at(errp, token->start, "not a number");
        }
    }
    token->kind = whole ? JSON_TOKEN_INTEGER : JSON_TOKEN_REAL;
    return 0;
}

static int word_token(struct json_tokenizer *t, Error **errp)
{
    static const char *const words[] = {"true", "false", "null"};
    size_t start = t->at;

    while (t->at < t->bytes && t->text[t->at] >= 'a' && t->text[t->at] <= 'z') {
        t->at++;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (t->at - start == strlen(words[i]) &&
            memcmp(t->text + start, words[i], t->at - start) == 0) {
            return 0;
        }
    }
    return bad_at(errp, start, "expected a value");
}

int json_next_token(struct json_tokenizer *t, struct json_token *ret_token, Error **errp)
{
    struct json_token token = {.kind = JSON_TOKEN_END};
    int ret = 0;
    char c;

    while (t->at < t->bytes && t->text[t->at] && strchr(" \t\r\n", t->text[t->at])) {
        t->at++;
    }
    token.start = t->at;
    c = t->at < t->bytes ? t->text[t->at] : '\0';
    if (t->at == t->bytes) {
        token.kind = JSON_TOKEN_END;
    } else if (c == '\0') {
        ret = bad_at(errp, t->at, "NUL byte");
    } else if (strchr("{}[],:", c)) {
        token.kind = JSON_TOKEN_PUNCT;
        t->at++;
    } else if (c == '"' || c == '\'') {
        token.kind = JSON_TOKEN_STRING;
        ret = string_token(t, errp);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        ret = number_token(t, &token, errp);
    } else {
        token.kind = JSON_TOKEN_WORD;
        ret = word_token(t, errp);
    }
    token.end = t->at;
    if (ret == 0) {
        *ret_token = token;
    }
    return ret;
}

/* ---- values ---- */

struct json_parser {
    struct json_tokenizer t;
    struct json_token token; /* the one being looked at */
    unsigned depth;
    unsigned keys, keys_max;
    Error **errp;
};

static json_t *parse_value(struct json_parser *p);

static json_t *no_memory(struct json_parser *p)
{
    error_set(p->errp, ENOMEM, "out of memory");
    return NULL;
}

static int advance(struct json_parser *p)
{
    return json_next_token(&p->t, &p->token, p->errp);
}

static bool at_punct(const struct json_parser *p, char c)
{
    return p->token.kind == JSON_TOKEN_PUNCT && p->t.text[p->token.start] == c;
}

/* The text of a string token without quotes and escapes; never longer than the token. NULL: no
 * memory. */
static char *string_text(struct json_parser *p, size_t *ret_bytes)
{
    const char *from = p->t.text + p->token.start + 1;
    const char *end = p->t.text + p->token.end - 1;
    char *text = malloc((size_t)(end - from) + 1);
    char *to = text;

    if (!text) {
        return NULL;
    }
    while (from < end) {
        uint32_t code;

        if (*from != '\\') {
            *to++ = *from++;
        } else if (from[1] == 'u') {
            from += 2 + unicode_escape(from + 2, (size_t)(end - from) - 2, &code);
            to += utf8_put(code, to);
        } else {
            *to++ = plain_escape(from[1]);
            from += 2;
        }
    }
    *to = '\0';
    *ret_bytes = (size_t)(to - text);
    return text;
}

static json_t *string_value(struct json_parser *p)
{
    size_t bytes;
    char *text = string_text(p, &bytes);
    json_t *value = text ? json_stringn_nocheck(text, bytes) : NULL;

    free(text);
    return value ? value : no_memory(p);
}

/* Kept exact: INT64_MIN to INT64_MAX as an integer, up to UINT64_MAX as json_u64 has it. */
static json_t *integer_value(struct json_parser *p)
{
    const char *text = p->t.text + p->token.start;
    const char *end = p->t.text + p->token.end;
    bool negative = *text == '-';
    uint64_t value = 0;
    json_t *json;

    for (text += negative; text < end; text++) {
        if (!checked_mul(value, 10, &value) ||
            !checked_add(value, (uint64_t)(*text - '0'), &value)) {
            bad_at(p->errp, p->token.start, "number does not fit 64 bits");
            return NULL;
        }
    }
    if (negative && value > (uint64_t)INT64_MAX + 1) {
        bad_at(p->errp, p->token.start, "number does not fit 64 bits");
        return NULL;
    }
    json = negative ? json_integer((json_int_t)(0 - value)) : json_u64(value);
    return json ? json : no_memory(p);
}

/* jansson converts, because it does so in every locale. It sets no code when it has no memory. */
static json_t *real_value(struct json_parser *p)
{
    json_error_t err = {0};
    json_t *value = json_loadb(p->t.text + p->token.start, p->token.end - p->token.start,
                               JSON_DECODE_ANY, &err);

    if (!value && json_error_code(&err) == json_error_numeric_overflow) {
        bad_at(p->errp, p->token.start, "number is too large");
        return NULL;
    }
    return value ? value : no_memory(p);
}

static json_t *word_value(struct json_parser *p)
{
    char c = p->t.text[p->token.start];

    return c == 't' ? json_true() : c == 'f' ? json_false() : json_null();
}

static int count_key(struct json_parser *p)
{
    if (++p->keys > p->keys_max) {
        return error_set(p->errp, E2BIG, "JSON at byte %zu: more than %u members", p->token.start,
                         p->keys_max);
    }
    return 0;
}

/* One "key": value, the token being the key. */
static int parse_member(struct json_parser *p, json_t *object)
{
    size_t key_at = p->token.start;
    size_t bytes;
    json_t *value;
    char *key;
    int ret = 0;

    if (p->token.kind != JSON_TOKEN_STRING) {
        return bad_at(p->errp, key_at, "expected a key in quotes");
    }
    if (count_key(p) < 0) {
        return -E2BIG;
    }
    key = string_text(p, &bytes);
    if (!key) {
        return error_set(p->errp, ENOMEM, "out of memory");
    }
    if (json_object_get(object, key)) {
        ret =
            error_set(p->errp, EINVAL, "invalid JSON at byte %zu: key '%.64s' again", key_at, key);
    }
    if (ret == 0) {
        ret = advance(p);
    }
    if (ret == 0 && !at_punct(p, ':')) {
        ret = bad_at(p->errp, p->token.start, "expected ':'");
    }
    if (ret == 0) {
        ret = advance(p);
    }
    value = ret == 0 ? parse_value(p) : NULL;
    if (ret == 0 && !value) {
        ret = -EINVAL;
    }
    if (value && json_object_set_new_nocheck(object, key, value) < 0) {
        ret = error_set(p->errp, ENOMEM, "out of memory");
    }
    free(key);
    return ret;
}

static int parse_element(struct json_parser *p, json_t *array)
{
    json_t *value = count_key(p) == 0 ? parse_value(p) : NULL;

    if (!value) {
        return -EINVAL;
    }
    if (json_array_append_new(array, value) < 0) {
        return error_set(p->errp, ENOMEM, "out of memory");
    }
    return 0;
}

/* An object or array; the token is its opening bracket, and its closing one afterwards. */
static json_t *parse_container(struct json_parser *p, bool object)
{
    const char close = object ? '}' : ']';
    json_t *json = object ? json_object() : json_array();
    int ret;

    if (!json) {
        return no_memory(p);
    }
    ret = advance(p);
    if (ret == 0 && at_punct(p, close)) {
        return json;
    }
    while (ret == 0) {
        ret = object ? parse_member(p, json) : parse_element(p, json);
        if (ret == 0) {
            ret = advance(p);
        }
        if (ret == 0 && at_punct(p, close)) {
            return json;
        }
        if (ret == 0 && !at_punct(p, ',')) {
            ret = bad_at(p->errp, p->token.start,
                         object ? "expected ',' or '}'" : "expected ',' or ']'");
        }
        if (ret == 0) {
            ret = advance(p);
        }
    }
    json_decref(json);
    return NULL;
}

static json_t *parse_value(struct json_parser *p)
{
    json_t *json = NULL;

    switch (p->token.kind) {
    case JSON_TOKEN_STRING:
        return string_value(p);
    case JSON_TOKEN_INTEGER:
        return integer_value(p);
    case JSON_TOKEN_REAL:
        return real_value(p);
    case JSON_TOKEN_WORD:
        return word_value(p);
    case JSON_TOKEN_PUNCT:
    case JSON_TOKEN_END:
        break;
    }
    if (!at_punct(p, '{') && !at_punct(p, '[')) {
        bad_at(p->errp, p->token.start,
               p->token.kind == JSON_TOKEN_END ? "text ends too early" : "expected a value");
        return NULL;
    }
    if (p->depth == JSON_DEPTH_MAX) {
        error_set(p->errp, E2BIG, "JSON at byte %zu: deeper than %d levels", p->token.start,
                  JSON_DEPTH_MAX);
        return NULL;
    }
    p->depth++;
    json = parse_container(p, at_punct(p, '{'));
    p->depth--;
    return json;
}

static json_t *parse_all(struct json_parser *p)
{
    json_t *json = advance(p) == 0 ? parse_value(p) : NULL;

    if (!json) {
        return NULL;
    }
    if (advance(p) < 0) {
        json_decref(json);
        return NULL;
    }
    if (p->token.kind != JSON_TOKEN_END) {
        bad_at(p->errp, p->token.start, "text behind the value");
        json_decref(json);
        return NULL;
    }
    return json;
}

json_t *json_parse_text(const char *text, size_t bytes, Error **errp)
{
    struct json_parser p = {
        .t = {.text = text, .bytes = bytes}, .keys_max = JSON_KEYS_MAX, .errp = errp};

    if (bytes > JSON_TEXT_MAX) {
        error_set(errp, E2BIG, "JSON of %zu bytes: more than %d are not read", bytes,
                  JSON_TEXT_MAX);
        return NULL;
    }
    return parse_all(&p);
}

json_t *json_parse_own(const char *text, Error **errp)
{
    struct json_parser p = {
        .t = {.text = text, .bytes = strlen(text)}, .keys_max = UINT_MAX, .errp = errp};

    return parse_all(&p);
}

/* ---- 64-bit numbers ---- */

json_t *json_u64(uint64_t value)
{
    char digits[24];

    if (value <= INT64_MAX) {
        return json_integer((json_int_t)value);
    }
    snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
    return json_string_nocheck(digits);
}

bool json_get_u64(const json_t *value, uint64_t *ret)
{
    uint64_t number = 0;

    if (json_is_integer(value)) {
        *ret = (uint64_t)json_integer_value(value);
        return json_integer_value(value) >= 0;
    }
    if (!json_is_string(value) || json_string_length(value) == 0) {
        return false;
    }
    for (const char *p = json_string_value(value); *p; p++) {
        if (*p < '0' || *p > '9' || !checked_mul(number, 10, &number) ||
            !checked_add(number, (uint64_t)(*p - '0'), &number)) {
            return false;
        }
    }
    *ret = number;
    return true;
}
