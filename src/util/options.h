/* SPDX-License-Identifier: MIT */
/*
 * What the block layer does with BlockOptions beyond platter/options.h: walk them, take keys and
 * sub-dictionaries out, write them as JSON. Typed takes are what generated parsers
 * ("schema/opts.h") are made of. Not shared between threads.
 */
#ifndef PLATTER_UTIL_OPTIONS_H
#define PLATTER_UTIL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <platter/options.h>

#define BLOCK_OPTIONS_TEXT_MAX (1024 * 1024)
#define BLOCK_OPTIONS_KEYS_MAX 4096
#define BLOCK_OPTIONS_KEY_BYTES_MAX 1023
#define BLOCK_OPTIONS_KEY_DEPTH_MAX 64

/* Components of letters, digits, '-' and '_', joined by single dots. */
bool block_options_key_wellformed(const char *key);

size_t block_options_count(const BlockOptions *opts);
/* Keys in the order they were set: prev NULL gives the first, NULL ends. Borrowed until the key
 * goes; to remove while walking, fetch the next key first. */
const char *block_options_next_key(const BlockOptions *opts, const char *prev);
/* The key that JSON would have first, NULL: none. Of several faults the reference tells that one.
 */
const char *block_options_first_key(const BlockOptions *opts);
/* 0, or -EINVAL naming the key that is left and would be printed first, for a parser that has taken
 * all it knows. of: what the options are for, "driver 'raw'". */
int block_options_refuse_rest(const BlockOptions *opts, const char *of, Error **errp);
bool block_options_has_prefix(const BlockOptions *opts, const char *prefix);
/* Whether the key is there with the JSON value null. */
bool block_options_is_null(const BlockOptions *opts, const char *key);

/* Whether key means the same in both: a value may be text in one and a number, or a truth, in the
 * other. Neither has it: they do. */
bool block_options_same(const BlockOptions *a, const BlockOptions *b, const char *key);

/* Move every key that begins with prefix ("file.") into new options, without the prefix. NULL out
 * of memory (nothing moved). */
BlockOptions *block_options_take_prefix(BlockOptions *opts, const char *prefix);
/* Copy all of src into opts, prefix ("file.", "") in front of each key, replacing. 0, -EINVAL,
 * -E2BIG, -ENOMEM; on failure some keys may be set. */
int block_options_put_prefix(BlockOptions *opts, const char *prefix, const BlockOptions *src);
/* Set a string where the key is not there yet. 0, -EINVAL, -ENOMEM. */
int block_options_default_str(BlockOptions *opts, const char *key, const char *value);

/* A JSON object (borrowed, of bounded depth and size), nested ones become dotted keys. NULL with
 * errp: EINVAL, E2BIG, ENOMEM. */
BlockOptions *block_options_from_json(json_t *object, Error **errp);
/* All options as nested objects, owned by the caller; NULL with errp: ENOMEM, EILSEQ (a value that
 * is not UTF-8). */
json_t *block_options_to_json_value(const BlockOptions *opts, Error **errp);

/* All options as one object of dotted keys, owned by the caller; NULL out of memory. Its strings
 * may hold any bytes. */
json_t *block_options_flat_json(const BlockOptions *opts);

/* Typed takes: remove the key and return 1, return 0 when it is not there, or -errno with errp
 * (then the key stays). Text forms ("on", "0x10", "10G") and JSON values are both taken. */
int block_options_take_str(BlockOptions *opts, const char *key, char **ret, Error **errp);
int block_options_take_bool(BlockOptions *opts, const char *key, bool *ret, Error **errp);
int block_options_take_int(BlockOptions *opts, const char *key, int64_t min, int64_t max,
                           int64_t *ret, Error **errp);
int block_options_take_uint(BlockOptions *opts, const char *key, uint64_t min, uint64_t max,
                            uint64_t *ret, Error **errp);
int block_options_take_size(BlockOptions *opts, const char *key, uint64_t min, uint64_t max,
                            uint64_t *ret, Error **errp);

/* One spelling of an enum value; a NULL name ends a table. Several names may share a value. */
struct block_options_enum {
    const char *name;
    int value;
};
int block_options_take_enum(BlockOptions *opts, const char *key,
                            const struct block_options_enum *names, int *ret, Error **errp);

#endif
