/* SPDX-License-Identifier: MIT */
/*
 * Nodes: how they begin and end. A node ends when its last reference goes: it leaves the name
 * space, is flushed and closed, lets go of its children, and those that nobody else holds end the
 * same way, one after the other (a chain may be long).
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/dirty_bitmap.h"
#include "block/graph_int.h"
#include "os/trace.h"
#include "util/error.h"
#include "util/size.h"

/* ---- names ---- */

static int name_given(BlockDriverState *bs, const char *name, Error **errp)
{
    enum instance_name_kind kind;

    if (!id_wellformed(name) || strlen(name) > BDRV_NODE_NAME_BYTES_MAX) {
        error_set(errp, EINVAL, "Invalid node-name: '%.*s'", BDRV_NODE_NAME_BYTES_MAX, name);
        error_set_hint(errp,
                       "A name is a letter, then letters, digits, '-', '.' and '_', "
                       "together at most %d",
                       BDRV_NODE_NAME_BYTES_MAX);
        return -EINVAL;
    }
    kind = instance_name_find(bs->pl, name, NULL);
    if (kind == INSTANCE_NAME_NODE) {
        return error_set(errp, EEXIST, "Duplicate nodes with node-name='%s'", name);
    }
    if (kind != INSTANCE_NAME_NONE) {
        return error_set(errp, EEXIST, "node-name '%s' is in use by a block device", name);
    }
    bs->node_name = strdup(name);
    return bs->node_name == NULL ? -ENOMEM : 0;
}

static int name_generated(BlockDriverState *bs)
{
    char name[32]; /* no user can take such a name */

    snprintf(name, sizeof(name), "#block%03" PRIu64, bs->pl->next_node_number++);
    bs->implicit_name = true;
    bs->node_name = strdup(name);
    return bs->node_name == NULL ? -ENOMEM : 0;
}

static int name_take(BlockDriverState *bs, const char *name, Error **errp)
{
    int rc = name != NULL ? name_given(bs, name, errp) : name_generated(bs);

    if (rc == 0) {
        rc = instance_name_add(bs->pl, bs->node_name, INSTANCE_NAME_NODE, bs);
    }
    if (rc == -ENOMEM) {
        error_set(errp, ENOMEM, "out of memory for a node");
    }
    return rc;
}

/* ---- begin ---- */

BlockDriverState *node_new(Platter *pl, const char *node_name, Error **errp)
{
    BlockDriverState *bs = calloc(1, sizeof(*bs));

    if (bs == NULL) {
        error_set(errp, ENOMEM, "out of memory for a node");
        return NULL;
    }
    bs->pl = pl;
    if (name_take(bs, node_name, errp) < 0) {
        free(bs->node_name);
        free(bs);
        return NULL;
    }
    bs->refcnt = 1;
    bs->through = bs;
    bs->read_only = true;
    bs->shared = BDRV_PERM_ALL;
    bs->bl = (struct bdrv_limits){
        .request_alignment = 1,
        .mem_alignment = 1,
        .opt_mem_alignment = 1,
        .eof_alignment = 1,
    };
    atomic_init(&bs->size_bytes, -ENOMEDIUM);
    TAILQ_INIT(&bs->children);
    TAILQ_INIT(&bs->parents);
    bs->quiesce_count = pl->drain_all_count;
    bs->held = bs->quiesce_count > 0;
    bdrv_io_init(bs);
    TAILQ_INSERT_TAIL(&pl->nodes, bs, in_instance);
    return bs;
}

int node_set_driver(BlockDriverState *bs, const BlockDriver *drv)
{
    assert(bs->drv == NULL);
    if (drv->instance_size > 0) {
        bs->opaque = calloc(1, drv->instance_size);
        if (bs->opaque == NULL) {
            return -ENOMEM;
        }
    }
    bs->drv = drv;
    bs->caps = drv->caps;
    bs->debugged = drv->debug != NULL;
    return 0;
}

BlockDriverState *bdrv_new_root(Platter *pl, Error **errp)
{
    BlockDriverState *bs;

    assert(instance_in_control_thread(pl));
    bs = node_new(pl, NULL, errp);
    if (bs != NULL) {
        bs->open_flags = BDRV_O_RDWR;
        bs->read_only = false;
    }
    return bs;
}

/* ---- end ---- */

static const char no_memory_reason[] = "out of memory";

static void node_free(BlockDriverState *bs)
{
    char *reason = atomic_load_explicit(&bs->broken, memory_order_acquire);

    assert(TAILQ_EMPTY(&bs->children) && TAILQ_EMPTY(&bs->parents));
    late_forget(bs);
    bdrv_bitmaps_fini(bs);
    bdrv_io_fini(bs);
    if (reason != no_memory_reason) {
        free(reason);
    }
    backing_wanted_free(bs);
    block_options_free(bs->options);
    free(bs->backing_format);
    free(bs->backing_file);
    free(bs->shown_filename);
    free(bs->filename);
    free(bs->node_name);
    free(bs->opaque);
    free(bs);
}

/* Take it out of what others can find. */
static void node_hide(BlockDriverState *bs)
{
    bs->closing = true;
    TAILQ_REMOVE(&bs->pl->nodes, bs, in_instance);
    instance_name_del(bs->pl, bs->node_name);
}

/* Children without other users go to the list of those that end. */
static void node_let_go(BlockDriverState *bs, BlockDriverState **dead)
{
    BdrvEdge *edge;

    while ((edge = TAILQ_LAST(&bs->children, bdrv_edge_list)) != NULL) {
        BlockDriverState *child = edge->bs;

        if (child->refcnt > 1) {
            bdrv_unref(edge_detach(edge));
            continue;
        }
        edge_unlink(edge);
        edge_free(edge);
        node_hide(child); /* the flush of another one polls: nobody may find it then */
        child->refcnt = 0;
        child->next_dead = *dead;
        *dead = child;
    }
}

/* An edge of nobody, to send the last flush through. */
static void node_flush(BlockDriverState *bs)
{
    BdrvEdge edge = {
        .bs = bs,
        .klass = &bdrv_node_parent_class,
    };

    /* Who needs to know whether it worked has flushed before; here nobody listens any more. */
    (void)bdrv_edge_flush(&edge);
}

static void node_close(BlockDriverState *bs)
{
    bs->refcnt = 1; /* what flush and close do with it must not end it again */
    if (bs->drain_hook) {
        bs->drain_hook = false;
        bs->pl->drain_hooks--;
    }
    if (bs->drv != NULL) {
        if (!bs->read_only) {
            node_flush(bs);
        }
        if (bs->drv->close != NULL) {
            bs->drv->close(bs);
        }
    }
}

/* A list of nodes that are hidden. */
static void nodes_end(BlockDriverState *dead)
{
    BlockDriverState *bs;

    while ((bs = dead) != NULL) {
        dead = bs->next_dead;
        TRACE(node_close, bs->node_name);
        node_close(bs);
        node_let_go(bs, &dead);
        node_free(bs);
    }
}

void node_abandon(BlockDriverState *bs)
{
    BlockDriverState *dead = NULL;

    assert(bs->refcnt == 1);
    node_hide(bs);
    node_let_go(bs, &dead);
    node_free(bs);
    nodes_end(dead);
}

void bdrv_ref(BlockDriverState *bs)
{
    assert(instance_in_control_thread(bs->pl));
    bs->refcnt++;
}

void bdrv_unref(BlockDriverState *bs)
{
    if (bs == NULL) {
        return;
    }
    if (!instance_in_control_thread(bs->pl) || (in_coroutine() && bs->refcnt == 1)) {
        late_unref(bs); /* only the last one: who closes right after counts on all the others */
        return;
    }
    assert(bs->refcnt > 0);
    if (--bs->refcnt == 0) {
        instance_control(bs->pl);
        bs->next_dead = NULL;
        node_hide(bs);
        nodes_end(bs);
    }
}

int bdrv_get_refcnt(const BlockDriverState *bs)
{
    return bs->refcnt;
}

/* ---- changes of an open node ---- */

void bdrv_set_detect_zeroes(BlockDriverState *bs, enum bdrv_detect_zeroes dz)
{
    bdrv_drained_begin(bs);
    bs->detect_zeroes = dz;
    graph_fold(bs);
    bdrv_drained_end(bs);
}

void bdrv_grow_size(BlockDriverState *bs, uint64_t new_size_bytes)
{
    int64_t size = atomic_load_explicit(&bs->size_bytes, memory_order_acquire);

    assert(new_size_bytes <= INT64_MAX);
    new_size_bytes = (uint64_t)bdrv_size_told(bs, (int64_t)new_size_bytes);
    do {
        if (size >= (int64_t)new_size_bytes) {
            return;
        }
    } while (!atomic_compare_exchange_weak_explicit(&bs->size_bytes, &size, (int64_t)new_size_bytes,
                                                    memory_order_acq_rel, memory_order_acquire));
    late_size(bs);
}

/* printf, malloc'd, or the constant no_memory_reason. */
static char *reason_new(const char *fmt, va_list ap)
{
    va_list again;
    char *reason;
    int len;

    va_copy(again, ap);
    len = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    reason = len < 0 ? NULL : malloc((size_t)len + 1);
    if (reason == NULL) {
        return (char *)(uintptr_t)no_memory_reason; /* never written, never freed */
    }
    vsnprintf(reason, (size_t)len + 1, fmt, ap);
    return reason;
}

static void reason_free(char *reason)
{
    if (reason != no_memory_reason) {
        free(reason);
    }
}

void bdrv_mark_broken(BlockDriverState *bs, const char *fmt, ...)
{
    char *reason, *none = NULL;
    va_list ap;

    if (atomic_load_explicit(&bs->broken, memory_order_acquire) != NULL) {
        return;
    }
    va_start(ap, fmt);
    reason = reason_new(fmt, ap);
    va_end(ap);
    if (!atomic_compare_exchange_strong_explicit(&bs->broken, &none, reason, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        reason_free(reason);
        return;
    }
    late_fold(bs);
    instance_raise(bs->pl, &(struct platter_event){
                               .type = PLATTER_EVENT_NODE_BROKEN,
                               .u.node_broken = {.node_name = bs->node_name, .reason = reason},
                           });
}

void bdrv_image_warning(BlockDriverState *bs, const char *message, bool leaks)
{
    instance_raise(bs->pl, &(struct platter_event){.type = PLATTER_EVENT_IMAGE_WARNING,
                                                   .u.image_warning = {.node_name = bs->node_name,
                                                                       .message = message,
                                                                       .leaks = leaks}});
}

void bdrv_image_corrupted(BlockDriverState *bs, bool fatal, uint64_t offset, uint64_t bytes,
                          const char *fmt, ...)
{
    int told = fatal ? 2 : 1;
    int before = atomic_load_explicit(&bs->corrupt_told, memory_order_relaxed);
    char *message;
    va_list ap;

    do {
        if (before >= told) {
            return;
        }
    } while (!atomic_compare_exchange_weak_explicit(&bs->corrupt_told, &before, told,
                                                    memory_order_relaxed, memory_order_relaxed));
    va_start(ap, fmt);
    message = reason_new(fmt, ap);
    va_end(ap);
    if (fatal) {
        bdrv_mark_broken(bs, "The image is corrupt: %s", message);
    }
    instance_raise(bs->pl, &(struct platter_event){
                               .type = PLATTER_EVENT_IMAGE_CORRUPTED,
                               .u.image_corrupted = {.node_name = bs->node_name,
                                                     .message = message,
                                                     .offset_bytes = offset,
                                                     .bytes = bytes,
                                                     .fatal = fatal},
                           });
    reason_free(message);
}
