/* SPDX-License-Identifier: MIT */
/*
 * JSON text to jansson values, through a tokenizer of ours: it frames, counts, keeps numbers exact
 * and says at which byte something is wrong. Values are jansson's.
 *
 * More than JSON is taken in one point: strings may stand in single quotes, as people write them
 * in a shell. A whole number above INT64_MAX (and up to UINT64_MAX) has no jansson integer and
 * becomes a string of its decimal digits; json_u64 makes the same, json_get_u64 reads both.
 */
#ifndef PLATTER_UTIL_JSON_H
#define PLATTER_UTIL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <platter/error.h>

#define JSON_TEXT_MAX (1024 * 1024)
#define JSON_DEPTH_MAX 64
#define JSON_KEYS_MAX 4096 /* members and elements of one text, all levels */

enum json_token_kind {
    JSON_TOKEN_END,
    JSON_TOKEN_PUNCT, /* one of { } [ ] , : in text[start] */
    JSON_TOKEN_STRING,
    JSON_TOKEN_INTEGER,
    JSON_TOKEN_REAL,
    JSON_TOKEN_WORD, /* true false null */
};

struct json_token {
    enum json_token_kind kind;
    size_t start; /* byte offsets in the text; a string's include its quotes */
    size_t end;
};

struct json_tokenizer {
    const char *text; /* borrowed */
    size_t bytes;
    size_t at;
};

/* The next token, checked but not converted. 0 or -EINVAL with errp naming the offset. */
int json_next_token(struct json_tokenizer *t, struct json_token *ret_token, Error **errp);

/* One JSON value and nothing behind it. NULL: EINVAL, E2BIG (a limit), ENOMEM. */
json_t *json_parse_text(const char *text, size_t bytes, Error **errp);
/* The same of a text that we made ourselves, which may be longer and have more members. Never
 * jansson's own json_loads: it harms its memory where an allocation fails. */
json_t *json_parse_own(const char *text, Error **errp);

/* Whether bytes are UTF-8: shortest forms, no surrogates, nothing above U+10FFFF. */
bool utf8_valid(const char *text, size_t bytes);

/* NULL out of memory. */
json_t *json_u64(uint64_t value);
/* A whole number >= 0, or a string of nothing but decimal digits that is one. */
bool json_get_u64(const json_t *value, uint64_t *ret);

/* Building answers: a NULL value means that memory ran out, and *ret carries that to the end. */

/* value is owned; *ret becomes -ENOMEM when it cannot be added. */
void json_add(json_t *object, const char *key, json_t *value, int *ret);
void json_append(json_t *list, json_t *value, int *ret);
/* Any bytes, as names are: json_print (util/json_print.h) makes UTF-8 of them. */
json_t *json_text(const char *text);
/* value, or NULL (and value is let go) when ret says that it is not whole. */
json_t *json_whole(json_t *value, int ret);

#endif
