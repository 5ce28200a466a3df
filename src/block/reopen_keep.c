/* SPDX-License-Identifier: MIT */
/*
 * Reopening a node with some options changed: the whole set that reopen.c wants is put together of
 * what the node has now and of the changes.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <platter/graph.h>

#include "block/graph_int.h"
#include "block/open_int.h"
#include "util/error.h"
#include "util/options.h"

/* What the node was opened with, which may have come as flags. */
static int keep_common(const BlockDriverState *bs, BlockOptions *whole)
{
    static const char *const detect[] = {
        [BDRV_DETECT_ZEROES_OFF] = "off",
        [BDRV_DETECT_ZEROES_ON] = "on",
        [BDRV_DETECT_ZEROES_UNMAP] = "unmap",
    };
    int flags = bs->open_flags;
    int ret = block_options_set_bool(whole, "read-only", !(flags & BDRV_O_RDWR));

    ret = ret == 0
              ? block_options_set_bool(whole, "auto-read-only", (flags & BDRV_O_AUTO_RDONLY) != 0)
              : ret;
    ret = ret == 0 ? block_options_set_bool(whole, "cache.direct", (flags & BDRV_O_NOCACHE) != 0)
                   : ret;
    ret = ret == 0 ? block_options_set_bool(whole, "cache.no-flush", (flags & BDRV_O_NO_FLUSH) != 0)
                   : ret;
    ret = ret == 0
              ? block_options_set_str(whole, "discard", flags & BDRV_O_UNMAP ? "unmap" : "ignore")
              : ret;
    ret = ret == 0 ? block_options_set_bool(whole, "force-share", (flags & BDRV_O_FORCE_SHARE) != 0)
                   : ret;
    return ret == 0 ? block_options_set_str(whole, "detect-zeroes", detect[bs->detect_zeroes])
                    : ret;
}

/* The options of the node that its driver and children see; NULL out of memory. */
static BlockOptions *own_options(const BlockDriverState *bs)
{
    BlockOptions *own = bs->options != NULL ? block_options_copy(bs->options) : block_options_new();

    if (own != NULL && block_options_set_str(own, "driver", bs->drv->format_name) < 0) {
        block_options_free(own);
        own = NULL;
    }
    return own;
}

static bool is_below(const char *key, const char *other)
{
    size_t len = strlen(other);

    return strncmp(key, other, len) == 0 && key[len] == '.';
}

/* A value takes the place of what was below its name, and that of a value. */
static void drop_misfits(BlockOptions *whole, const char *key)
{
    const char *other = block_options_next_key(whole, NULL);

    while (other != NULL) {
        const char *next = block_options_next_key(whole, other);

        if (is_below(key, other) || is_below(other, key)) {
            block_options_del(whole, other);
        }
        other = next;
    }
}

static int merge(BlockOptions *whole, const BlockOptions *changes, Error **errp)
{
    const char *key = NULL;

    while ((key = block_options_next_key(changes, key)) != NULL) {
        drop_misfits(whole, key);
    }
    return block_options_put_prefix(whole, "", changes) < 0
               ? error_set(errp, EINVAL, "The new options do not fit those there are")
               : 0;
}

static int keep_children(BlockDriverState *bs, BlockOptions *whole, BlockOptions *changes,
                         Error **errp);

/* All options of a node: what it has, changed. NULL with errp. */
static BlockOptions *whole_options(BlockDriverState *bs, BlockOptions *changes, Error **errp)
{
    BlockOptions *whole = own_options(bs);

    if (whole == NULL) {
        open_no_memory(errp);
    } else if (keep_children(bs, whole, changes, errp) < 0 || merge(whole, changes, errp) < 0) {
        block_options_free(whole);
        whole = NULL;
    }
    return whole;
}

/* A child: changed with the node, or as it is. */
static int keep_child(const BdrvEdge *edge, BlockOptions *whole, BlockOptions *changes,
                      Error **errp)
{
    char prefix[64];
    BlockOptions *own;
    BlockOptions *wanted;
    int ret = 0;

    snprintf(prefix, sizeof(prefix), "%s.", edge->name);
    own = block_options_take_prefix(whole, prefix); /* as of the open */
    if (own == NULL) {
        return open_no_memory(errp);
    }
    block_options_free(own);
    block_options_del(whole, edge->name);
    if (block_options_has(changes, edge->name)) {
        return 0; /* another node, by its name, instead of what options have opened */
    }
    wanted = block_options_take_prefix(changes, prefix);
    if (wanted == NULL) {
        return open_no_memory(errp);
    }
    if (block_options_count(wanted) > 0) {
        own = whole_options(edge->bs, wanted, errp);
        if (own == NULL) {
            ret = -EINVAL;
        } else if (block_options_put_prefix(whole, prefix, own) < 0) {
            ret = open_no_memory(errp);
        }
        block_options_free(own);
    } else if (!edge->opened_here || (edge->role & BDRV_ROLE_COW)) {
        ret = block_options_set_str(whole, edge->name, edge->bs->node_name);
        ret = ret < 0 ? open_no_memory(errp) : 0;
    }
    block_options_free(wanted);
    return ret;
}

/* The names of children nest no deeper than a key is long. */
static int keep_children(BlockDriverState *bs, BlockOptions *whole, BlockOptions *changes,
                         Error **errp)
{
    BdrvEdge *edge;
    int ret = 0;

    TAILQ_FOREACH (edge, &bs->children, in_parent) {
        ret = ret == 0 ? keep_child(edge, whole, changes, errp) : ret;
    }
    return ret;
}

int bdrv_reopen_changed(BlockDriverState *bs, BlockOptions *changes, Error **errp)
{
    struct bdrv_reopen node = {.bs = bs};
    BlockOptions *common = block_options_new();
    int ret = 0;

    if (bs->drv == NULL) {
        ret = error_set(errp, ENOMEDIUM, "Node '%s' holds no medium", bdrv_get_told_name(bs));
    } else if (common == NULL || keep_common(bs, common) < 0) {
        ret = open_no_memory(errp);
    }
    ret = ret == 0 ? merge(common, changes, errp) : ret;
    if (ret == 0) {
        node.options = whole_options(bs, common, errp);
        ret = node.options == NULL ? -EINVAL : 0;
    }
    block_options_free(common);
    block_options_free(changes);
    return ret == 0 ? bdrv_reopen_with_options(bs->pl, &node, 1, errp) : ret;
}
