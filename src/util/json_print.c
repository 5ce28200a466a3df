/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/json_print.h"

/* ---- the order of members ---- */

#define BUCKETS 512

unsigned json_bucket(const char *key)
{
    const size_t length = strlen(key);
    uint32_t v = 0x238F13AFu * (uint32_t)length;

    for (size_t i = 0; i < length; i++) {
        v += (uint32_t)(unsigned char)key[i] << (i * 5 % 24);
    }
    return (1103515243u * v + 12345u) % BUCKETS;
}

bool json_key_before(const char *key, const char *earlier)
{
    return json_bucket(key) <= json_bucket(earlier);
}

static int by_bucket(const void *a, const void *b)
{
    const struct json_member *one = a, *other = b;
    const unsigned x = json_bucket(one->key), y = json_bucket(other->key);

    if (x != y) {
        return x < y ? -1 : 1;
    }
    return one->made > other->made ? -1 : 1;
}

static struct json_member *members_as_made(const json_t *object, size_t *ret_count)
{
    const size_t count = json_object_size(object);
    struct json_member *members = malloc((count + 1) * sizeof(*members));
    const char *key;
    json_t *value;
    size_t n = 0;

    if (members == NULL) {
        return NULL;
    }
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        members[n] = (struct json_member){.key = key, .value = value, .made = n};
        n++;
    }
    *ret_count = n;
    return members;
}

struct json_member *json_members(const json_t *object, size_t *ret_count)
{
    struct json_member *members = members_as_made(object, ret_count);

    if (members != NULL) {
        qsort(members, *ret_count, sizeof(*members), by_bucket);
    }
    return members;
}

/* ---- strings ---- */

/* How many bytes a sequence that begins with this one is to have; 0: none begins so. Sequences of
 * five and six bytes are none of UTF-8, but are told apart as if they were. */
static size_t sequence_bytes(unsigned char first)
{
    static const unsigned char least[] = {0xfc, 0xf8, 0xf0, 0xe0, 0xc0};

    if (first < 0x80) {
        return 1;
    }
    for (size_t i = 0; i < sizeof(least); i++) {
        if (first >= least[i]) {
            return first >= 0xfe ? 0 : 6 - i;
        }
    }
    return 0;
}

static bool is_character(uint32_t code)
{
    return code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) &&
           (code < 0xfdd0 || code > 0xfdef) && (code & 0xfffe) != 0xfffe;
}

/* The code point at *text, which is moved behind it, or U+FFFD for a sequence that is broken. */
static uint32_t next_character(const unsigned char **text)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000, 0x200000, 0x4000000};
    const unsigned char *p = *text;
    const size_t bytes = sequence_bytes(*p);
    uint32_t code = bytes < 2 ? *p : *p & (0x7fu >> bytes);
    size_t n = 1;

    while (n < bytes && (p[n] & 0xc0) == 0x80) {
        code = code << 6 | (p[n++] & 0x3f);
    }
    *text = p + n;
    if (bytes == 2 && n == 2 && code == 0) {
        return 0;
    }
    return n == bytes && code >= least[bytes] && is_character(code) ? code : 0xfffd;
}

static void put_escaped(struct text *t, uint32_t code)
{
    static const char special[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    const char *at = code > 0 && code < 0x80 ? strchr(special, (int)code) : NULL;

    if (at != NULL) {
        text_printf(t, "\\%c", letters[at - special]);
    } else if (code < 0x10000) {
        text_printf(t, "\\u%04" PRIX32, code);
    } else {
        text_printf(t, "\\u%04" PRIX32 "\\u%04" PRIX32, 0xd800 + ((code - 0x10000) >> 10),
                    0xdc00 + ((code - 0x10000) & 0x3ff));
    }
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

static void put_string(struct text *t, const char *string, size_t bytes)
{
    const unsigned char *p = (const unsigned char *)string, *end = p + bytes;

    text_put(t, "\"", 1);
    while (p < end) {
        const unsigned char *plain = p;

        while (p < end && is_plain(*p)) {
            p++;
        }
        text_put(t, (const char *)plain, (size_t)(p - plain));
        if (p < end) {
            put_escaped(t, next_character(&p)); /* jansson's strings have a NUL behind them */
        }
    }
    text_put(t, "\"", 1);
}

/* ---- values ---- */

/* Whatever the locale has for the point. */
static void put_real(struct text *t, double value)
{
    const char *point = localeconv()->decimal_point;
    char digits[64];
    char *at;

    snprintf(digits, sizeof(digits), "%.17g", value);
    at = strstr(digits, point);
    if (at != NULL) {
        text_printf(t, "%.*s.%s", (int)(at - digits), digits, at + strlen(point));
    } else {
        text_puts(t, digits);
    }
}

static void put_scalar(struct text *t, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        put_string(t, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        text_printf(t, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        put_real(t, json_real_value(value));
        break;
    case JSON_TRUE:
        text_puts(t, "true");
        break;
    case JSON_FALSE:
        text_puts(t, "false");
        break;
    default:
        text_puts(t, "null");
        break;
    }
}

/* The end of a line, where there are lines, and the spaces of the next. */
static void put_break(struct text *t, unsigned flags, unsigned depth)
{
    if (flags & JSON_PRINT_LINES) {
        text_printf(t, "\n%*s", (int)(4 * depth), "");
    }
}

static void put_comma(struct text *t, unsigned flags, size_t index)
{
    if (index > 0) {
        text_puts(t, flags & JSON_PRINT_LINES ? "," : ", ");
    }
}

static void put_value(struct text *t, const json_t *value, unsigned flags, unsigned depth);

static void put_array(struct text *t, const json_t *array, unsigned flags, unsigned depth)
{
    text_puts(t, "[");
    for (size_t i = 0; i < json_array_size(array); i++) {
        put_comma(t, flags, i);
        put_break(t, flags, depth + 1);
        put_value(t, json_array_get(array, i), flags, depth + 1);
    }
    put_break(t, flags, depth);
    text_puts(t, "]");
}

static void put_object(struct text *t, const json_t *object, unsigned flags, unsigned depth)
{
    size_t count = 0;
    struct json_member *members =
        flags & JSON_PRINT_AS_MADE ? members_as_made(object, &count) : json_members(object, &count);

    t->failed |= members == NULL;
    text_puts(t, "{");
    for (size_t i = 0; i < count; i++) {
        put_comma(t, flags, i);
        put_break(t, flags, depth + 1);
        put_string(t, members[i].key, strlen(members[i].key));
        text_puts(t, ": ");
        put_value(t, members[i].value, flags, depth + 1);
    }
    put_break(t, flags, depth);
    text_puts(t, "}");
    free(members);
}

/* Recursion is as deep as the value, which is what we made or json_parse_text let pass. */
static void put_value(struct text *t, const json_t *value, unsigned flags, unsigned depth)
{
    if (json_is_object(value)) {
        put_object(t, value, flags, depth);
    } else if (json_is_array(value)) {
        put_array(t, value, flags, depth);
    } else {
        put_scalar(t, value);
    }
}

void json_print_to(struct text *t, const json_t *value)
{
    put_value(t, value, 0, 0);
}

char *json_print(const json_t *value, unsigned flags)
{
    struct text t = {0};

    if (value == NULL) {
        return NULL;
    }
    put_value(&t, value, flags, 0);
    return text_end(&t);
}
