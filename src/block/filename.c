/* SPDX-License-Identifier: MIT */
/*
 * The name a node is shown under: what a user could give to open the same again. A path (or what
 * its protocol calls a name) where nothing else matters, else json:{...}.
 */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "util/json.h"
#include "util/json_print.h"
#include "util/options.h"

#define LAYERS_MAX 64 /* of which each was opened by options, that a plain name may stand for */

static bool key_is_strong(const BlockDriver *drv, const char *key)
{
    for (size_t i = 0; drv->strong_options != NULL && drv->strong_options[i] != NULL; i++) {
        size_t len = strlen(drv->strong_options[i]);

        if (strncmp(key, drv->strong_options[i], len) == 0 &&
            (key[len] == '\0' || key[len] == '.')) {
            return true;
        }
    }
    return false;
}

/* Whether the plain name says what the options say. */
static bool name_is_full(const BlockDriverState *bs)
{
    return (bs->caps & BDRV_CAP_FULL_NAME) && bs->filename != NULL;
}

/* Whether the name gives the options too; a filter's leaves out its child, which has options of its
 * own. */
static bool name_gives_options(const BlockDriverState *bs)
{
    return name_is_full(bs) && (bs->caps & BDRV_CAP_PROTOCOL);
}

/* Whether options other than the file name decide the content. */
static bool has_strong_options(const BlockDriverState *bs)
{
    const char *key = NULL;

    if (bs->options == NULL || name_is_full(bs)) {
        return false;
    }
    while ((key = block_options_next_key(bs->options, key)) != NULL) {
        if (strcmp(key, "filename") != 0 && key_is_strong(bs->drv, key)) {
            return true;
        }
    }
    return false;
}

static const BlockDriverState *plain_node(const BlockDriverState *bs, unsigned layers);

/* Whether another backing file than the one that the image names stands below it, or none. Beyond
 * that many layers which options opened nobody looks: they are called others. */
static bool backing_differs(const BlockDriverState *bs, unsigned layers)
{
    const BlockDriverState *plain;
    const BdrvEdge *edge;

    if (bs->backing_slot == NULL) {
        return false;
    }
    edge = *bs->backing_slot;
    if (edge == NULL) {
        return bs->backing_file != NULL && bs->opening == NULL && bs->backing_wanted == NULL &&
               !(bs->open_flags & BDRV_O_NO_BACKING);
    }
    if (edge->as_named) {
        return false;
    }
    plain = layers > 0 ? plain_node(edge->bs, layers - 1) : NULL;
    return plain == NULL || bs->backing_file == NULL ||
           strcmp(plain->filename, bs->backing_file) != 0;
}

/* The node whose plain name stands for bs, or NULL. Recursion is bounded by layers. */
static const BlockDriverState *plain_node(const BlockDriverState *bs, unsigned layers)
{
    for (unsigned formats = 0; bs->drv != NULL && !has_strong_options(bs); formats++) {
        if ((bs->caps & BDRV_CAP_PROTOCOL) || name_is_full(bs)) {
            return bs->filename != NULL ? bs : NULL;
        }
        /* of a format above another one only options tell */
        if (formats > 0 || (bs->caps & BDRV_CAP_FILTER) || bs->file == NULL ||
            backing_differs(bs, layers)) {
            return NULL;
        }
        bs = bs->file->bs;
    }
    return NULL;
}

static char *plain_name(const BlockDriverState *bs)
{
    /* A path that looks like "protocol:..." must not be read as one. */
    bool escape = bs->drv->parse_filename == NULL && bdrv_protocol_prefix(bs->filename) > 0;
    size_t bytes = strlen(bs->filename) + 3;
    char *name = malloc(bytes);

    if (name != NULL) {
        snprintf(name, bytes, "%s%s", escape ? "./" : "", bs->filename);
    }
    return name;
}

/* Whether the option is of a child, which tells its own. */
static bool is_of_child(const BlockDriverState *bs, const char *key)
{
    const BdrvEdge *edge;

    TAILQ_FOREACH (edge, &bs->children, in_parent) {
        size_t len = strlen(edge->name);

        if (strncmp(key, edge->name, len) == 0 && (key[len] == '\0' || key[len] == '.')) {
            return true;
        }
    }
    return false;
}

/* The node's own options that matter. NULL out of memory. */
static BlockOptions *own_options(const BlockDriverState *bs)
{
    BlockOptions *own = block_options_new();
    BlockOptions *given;
    const char *key, *next;

    given = bs->options != NULL && !name_gives_options(bs) ? block_options_copy(bs->options)
                                                           : block_options_new();
    if (own == NULL || given == NULL) {
        goto fail;
    }
    for (key = block_options_next_key(given, NULL); key != NULL; key = next) {
        next = block_options_next_key(given, key);
        if (!key_is_strong(bs->drv, key) || strcmp(key, "filename") == 0 || is_of_child(bs, key)) {
            block_options_del(given, key);
        }
    }
    if (block_options_set_str(own, "driver", bs->drv->format_name) < 0 ||
        block_options_put_prefix(own, "", given) < 0) {
        goto fail;
    }
    if ((bs->caps & BDRV_CAP_PROTOCOL) && bs->filename != NULL && bs->drv->parse_filename == NULL &&
        block_options_set_str(own, "filename", bs->filename) < 0) {
        goto fail;
    }
    if (name_gives_options(bs) && bdrv_filename_to_options(bs->drv, bs->filename, own, NULL) < 0) {
        goto fail;
    }
    block_options_free(given);
    return own;

fail:
    block_options_free(own);
    block_options_free(given);
    return NULL;
}

/* The options of a node and of what is below it, which is named from a depth on. Own options keep
 * their dots, children are objects. Recursion is bounded by depth. NULL out of memory. */
static json_t *full_options(const BlockDriverState *bs, unsigned depth)
{
    BlockOptions *own = own_options(bs);
    json_t *all = own != NULL ? block_options_flat_json(own) : NULL;
    int ret = all != NULL ? 0 : -ENOMEM;
    bool differs = backing_differs(bs, LAYERS_MAX);
    BdrvEdge *edge;

    block_options_free(own);
    if (ret == 0 && differs && *bs->backing_slot == NULL) {
        json_add(all, "backing", json_null(), &ret);
    }
    TAILQ_FOREACH (edge, &bs->children, in_parent) {
        bool by_name = depth == 0 || edge->bs->drv == NULL;

        if (ret == 0 && (differs || !(edge->role & BDRV_ROLE_COW))) {
            json_add(all, edge->name,
                     by_name ? json_text(edge->bs->node_name) : full_options(edge->bs, depth - 1),
                     &ret);
        }
    }
    return json_whole(all, ret);
}

static char *json_name(const BlockDriverState *bs)
{
    json_t *all = full_options(bs, 16);
    struct text name = {.failed = all == NULL};

    text_puts(&name, "json:");
    if (all != NULL) {
        json_print_to(&name, all);
    }
    json_decref(all);
    return text_end(&name);
}

const char *bdrv_get_filename(const BlockDriverState *bs)
{
    BlockDriverState *cache = (BlockDriverState *)(uintptr_t)bs; /* only shown_filename */
    const BlockDriverState *plain;
    char *name;

    assert(instance_in_control_thread(bs->pl));
    if (bs->drv == NULL) {
        return "";
    }
    plain = plain_node(bs, LAYERS_MAX);
    name = plain != NULL ? plain_name(plain) : json_name(bs);
    if (name == NULL) {
        return bs->shown_filename != NULL ? bs->shown_filename : "";
    }
    if (bs->shown_filename != NULL && strcmp(bs->shown_filename, name) == 0) {
        free(name); /* callers may hold the one they got before */
    } else {
        free(cache->shown_filename);
        cache->shown_filename = name;
    }
    return bs->shown_filename;
}
