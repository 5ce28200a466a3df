/* SPDX-License-Identifier: MIT */
/* Typing errors: which known word is near the one that was given. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/graph_int.h"
#include "schema/opts.h"
#include "util/error.h"
#include "util/options.h"

#define WORD_MAX 32
#define FAR 3 /* so many wrong letters are no typing error */
#define LIST_BYTES 512

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many letters must be changed, added or dropped to make one word the other. */
static size_t word_distance(const char *a, const char *b)
{
    size_t row[WORD_MAX + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);

    if (a_len > WORD_MAX || b_len > WORD_MAX) {
        return FAR;
    }
    for (size_t j = 0; j <= b_len; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t above = row[j];

            row[j] =
                min_size(min_size(row[j] + 1, row[j - 1] + 1), diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[b_len];
}

struct hint hint_begin(const char *wanted)
{
    return (struct hint){.wanted = wanted, .best_distance = FAR};
}

void hint_offer(struct hint *hint, const char *word)
{
    size_t distance = word_distance(hint->wanted, word);

    if (distance < hint->best_distance && distance < strlen(word)) {
        hint->best_distance = distance;
        hint->best = word;
    }
}

static void offer_keys(struct hint *hint, const struct opts_key *keys)
{
    for (; keys != NULL && keys->key != NULL; keys++) {
        hint_offer(hint, keys->key);
    }
}

/* "a, b, c"; cut where the room ends. */
static void list_keys(char *list, size_t bytes, const struct opts_key *keys)
{
    size_t used = 0;

    list[0] = '\0';
    for (size_t i = 0; keys != NULL && keys[i].key != NULL && used < bytes; i++) {
        used += (size_t)snprintf(list + used, bytes - used, "%s%s", i > 0 ? ", " : "", keys[i].key);
    }
}

int bdrv_refuse_options(const BlockDriver *drv, const BlockOptions *options, Error **errp)
{
    const char *key = block_options_first_key(options);
    char list[LIST_BYTES];
    struct hint hint;

    if (key == NULL) {
        return 0;
    }
    error_set(errp, EINVAL,
              drv->caps & BDRV_CAP_PROTOCOL || drv->protocol_name != NULL
                  ? "Block protocol '%s' doesn't support the option '%.*s'"
                  : "Block format '%s' does not support the option '%.*s'",
              drv->format_name, BDRV_NODE_NAME_BYTES_MAX, key);
    hint = hint_begin(key);
    offer_keys(&hint, opts_node_common_keys);
    offer_keys(&hint, drv->option_keys);
    list_keys(list, sizeof(list), drv->option_keys);
    if (hint.best != NULL) {
        error_set_hint(errp, "Is '%s' meant?", hint.best);
    } else if (list[0] != '\0') {
        error_set_hint(errp, "Besides what every node takes, it knows: %s", list);
    }
    return -EINVAL;
}

static bool keys_have(const struct opts_key *keys, const char *key)
{
    while (keys->key != NULL && strcmp(keys->key, key) != 0) {
        keys++;
    }
    return keys->key != NULL;
}

int bdrv_refuse_unknown_keys(const struct opts_key *keys, const BlockOptions *options, Error **errp)
{
    const char *key = NULL;
    struct hint hint;

    if (keys == NULL) {
        return 0;
    }
    do {
        key = block_options_next_key(options, key);
    } while (key != NULL && keys_have(keys, key));
    if (key == NULL) {
        return 0;
    }
    error_set(errp, EINVAL, "Invalid parameter '%.*s'", BDRV_NODE_NAME_BYTES_MAX, key);
    hint = hint_begin(key);
    offer_keys(&hint, keys);
    if (hint.best != NULL) {
        error_set_hint(errp, "Is '%s' meant?", hint.best);
    }
    return -EINVAL;
}
