/* SPDX-License-Identifier: MIT */
/*
 * BlockOptions: what a node is opened or created with, as a flat, ordered set of dotted keys
 * ("driver", "file.filename", "cache.direct") with scalar values. The forms people write
 * (key=value lists, json:{...}) are turned into it. Not shared between threads.
 */
#ifndef PLATTER_OPTIONS_H
#define PLATTER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <platter/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct BlockOptions BlockOptions;

/* Empty options. NULL out of memory. Calls that take ownership of a BlockOptions say so. */
BlockOptions *block_options_new(void);
BlockOptions *block_options_copy(const BlockOptions *opts); /* NULL out of memory */
void block_options_free(BlockOptions *opts);                /* NULL allowed */

/* "driver=raw,file.filename=x": a comma in a value is written twice. A first word without '=' is
 * the value of implied_key when that is not NULL. Errors: EINVAL, E2BIG, ENOMEM. */
BlockOptions *block_options_parse(const char *text, const char *implied_key, Error **errp);
/* A JSON object (nested objects and arrays become dotted keys; single quoted strings are allowed;
 * at most 1 MiB, 64 deep, 4096 keys). A "json:" prefix is skipped. Errors: EINVAL, E2BIG, ENOMEM */
BlockOptions *block_options_parse_json(const char *text, Error **errp);

/* Set one key, replacing. 0, -EINVAL (not a key), -ENOMEM. */
int block_options_set_str(BlockOptions *opts, const char *key, const char *value);
int block_options_set_bool(BlockOptions *opts, const char *key, bool value);
int block_options_set_u64(BlockOptions *opts, const char *key, uint64_t value);
/* Value of a string key; NULL when missing or not a string. Borrowed until the key changes. */
const char *block_options_get_str(const BlockOptions *opts, const char *key);
bool block_options_has(const BlockOptions *opts, const char *key);
void block_options_del(BlockOptions *opts, const char *key);

#ifdef __cplusplus
}
#endif
#endif
