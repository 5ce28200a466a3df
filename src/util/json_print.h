/* SPDX-License-Identifier: MIT */
/*
 * jansson values to JSON text, to the byte as the reference's programs print theirs.
 *
 * Members stand in an order that depends on their names and on nothing that means anything to a
 * reader: by ascending bucket of the name, and within one bucket the one that was put in last
 * first; a value that replaced another has its place. (jansson keeps members in just the order in
 * which they were put in, replaced ones in their place.)
 *
 * Text is ASCII. Strings of values may hold any bytes: what is not UTF-8 comes as U+FFFD, one for
 * each broken sequence, and so do surrogates and the code points that are no characters; a NUL in
 * two bytes (C0 80) comes as \u0000. Real numbers have 17 digits.
 */
#ifndef PLATTER_UTIL_JSON_PRINT_H
#define PLATTER_UTIL_JSON_PRINT_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "util/text.h"

/* The place of a member name: 0 to 511. */
unsigned json_bucket(const char *key);
/* Whether a member is printed in front of one that was put in earlier. The reference complains of
 * members in that order too. */
bool json_key_before(const char *key, const char *earlier);

struct json_member {
    const char *key; /* both are borrowed from the object */
    json_t *value;
    size_t made; /* the how manieth to be put in */
};
/* The members of an object in the order of printing, malloc'd; *ret_count is their number. NULL:
 * out of memory (never because there are none). Until the object changes. */
struct json_member *json_members(const json_t *object, size_t *ret_count);

enum {
    JSON_PRINT_LINES = 1,   /* a member or element in each line, four spaces for each level */
    JSON_PRINT_AS_MADE = 2, /* members as they were put in: for a text that is read again */
};
/* Malloc'd; NULL out of memory, or when value is NULL. */
char *json_print(const json_t *value, unsigned flags);
/* The same in one line, behind what t has. */
void json_print_to(struct text *t, const json_t *value);

#endif
