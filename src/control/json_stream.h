/* SPDX-License-Identifier: MIT */
/*
 * Whole JSON values out of a stream of bytes, however it is cut. Nothing needs to stand between two
 * values but what JSON itself asks for. Values are read by util/json.h, with its limits.
 *
 * After an error the stream goes on:
 *   - brackets that do not match, or one that closes nothing: what was begun is dropped, and the
 * next byte begins anew. What is wrong within matching brackets takes the whole value and no more.
 *   - a byte that cannot be (a control character, in a string too): what was begun is dropped, and
 *     with it the rest up to the end of the line or the next opening bracket.
 *   - a value that is too long or too deep: the rest of it is dropped, up to its last bracket.
 *   - the byte 0xFF, which is in no UTF-8 text, resets the stream whatever went before: a client
 * that does not know what its forerunner left behind sends it first. It counts as an error. One
 * fault is one error, and memory stays bounded by one text.
 */
#ifndef PLATTER_CONTROL_JSON_STREAM_H
#define PLATTER_CONTROL_JSON_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <platter/error.h>

enum json_stream_result {
    JSON_STREAM_MORE,  /* all bytes are taken, and no value has ended */
    JSON_STREAM_VALUE, /* one has, and is given */
    JSON_STREAM_ERROR, /* there was none */
};

enum json_stream_mode {
    JSON_STREAM_KEEP = 0, /* bytes of a value are kept */
    JSON_STREAM_SKIP,     /* it has met a limit: its end is looked for */
    JSON_STREAM_RECOVER,  /* after a byte that cannot be */
};

struct json_stream {
    char *text; /* owned: of the value that has begun, or was given last */
    size_t used;
    size_t size;
    bool given; /* the text is to be dropped */
    enum json_stream_mode mode;
    char quote;       /* inside a string: its end, else 0 */
    bool escape;      /* behind a backslash */
    bool word;        /* inside a number or word that is a whole value */
    unsigned depth;   /* open brackets */
    uint64_t objects; /* a bit for each level below JSON_DEPTH_MAX: it is an object */
};

/* All zeroes is a new stream. */
void json_stream_fini(struct json_stream *stream);

/* Take up to bytes of data, *ret_used of them, until a value ends. With VALUE, *ret_value is the
 * caller's; with ERROR, errp says what was wrong. */
enum json_stream_result json_stream_next(struct json_stream *stream, const char *data, size_t bytes,
                                         size_t *ret_used, json_t **ret_value, Error **errp);

/* Whether a value has begun and not ended. */
bool json_stream_pending(const struct json_stream *stream);

#endif
