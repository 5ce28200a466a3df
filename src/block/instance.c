/* SPDX-License-Identifier: MIT */
/*
 * The instance: its main context, budget, event sink and the order in which it ends: rooms of
 * higher floors first (newest room first), then the nodes, then descriptors and names.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "loop/context.h"
#include "util/error.h"
#include "util/mem.h"

#define MEMORY_LIMIT_DEFAULT (UINT64_C(1) << 30)
#define BACKING_DEPTH_LIMIT 1000000u

/* The smallest struct platter_options a caller may fill: up to and with main_context. */
static int options_read(const struct platter_options *opts, struct platter_options *ret,
                        Error **errp)
{
    *ret = (struct platter_options){.size = sizeof(*ret)};
    if (opts == NULL) {
        return 0;
    }
    if (opts->size < offsetof(struct platter_options, memory_limit_bytes)) {
        return error_set(errp, EINVAL, "struct platter_options of %zu bytes is too small",
                         opts->size);
    }
    memcpy(ret, opts, opts->size < sizeof(*ret) ? opts->size : sizeof(*ret));
    if (ret->image_refs < PLATTER_REFS_LISTED || ret->image_refs > PLATTER_REFS_FOLLOW) {
        return error_set(errp, EINVAL, "image_refs %d is not known", (int)ret->image_refs);
    }
    if (ret->backing_depth_max > BACKING_DEPTH_LIMIT) {
        return error_set(errp, EINVAL, "backing_depth_max %u is above %u", ret->backing_depth_max,
                         BACKING_DEPTH_LIMIT);
    }
    return 0;
}

/* The main context: the caller's, else a new one. */
static int context_take(Platter *pl, AioContext *given, Error **errp)
{
    if (given != NULL) {
        aio_context_ref(given);
        pl->main_ctx = given;
    } else {
        pl->main_ctx = aio_context_new(NULL, errp);
        if (pl->main_ctx == NULL) {
            return -ENOMEM;
        }
        pl->owns_context = true;
        aio_context_set_budget(pl->main_ctx, &pl->budget);
    }
    instance_control(pl);
    return 0;
}

static void context_drop(Platter *pl)
{
    if (pl->bound_context && aio_context_current() == pl->main_ctx) {
        aio_context_set_current(NULL);
    }
    if (pl->owns_context) {
        aio_context_set_budget(pl->main_ctx, NULL);
    }
    aio_context_unref(pl->main_ctx);
}

static void instance_free(Platter *pl)
{
    instance_run_fini(pl);
    instance_names_free(pl->names);
    free(pl->image_refs_hint);
    free(pl);
}

/* All but the context. 0 or -ENOMEM. */
static int instance_init(Platter *pl, const struct platter_options *o)
{
    instance_run_init(pl);
    TAILQ_INIT(&pl->nodes);
    pl->control_thread = pthread_self();
    pl->budget.limit_bytes =
        o->memory_limit_bytes != 0 ? o->memory_limit_bytes : MEMORY_LIMIT_DEFAULT;
    pl->image_refs = o->image_refs;
    pl->backing_depth_max =
        o->backing_depth_max != 0 ? o->backing_depth_max : BDRV_BACKING_DEPTH_DEFAULT;
    pl->whole_sectors = o->whole_sectors;
    pl->snapshots_fit_disk = o->snapshots_fit_disk;
    pl->tells_files = o->tells_files;
    pl->event_cb = o->event_cb;
    pl->event_opaque = o->event_opaque;
    pl->names = instance_names_new();
    if (o->image_refs_hint != NULL) {
        pl->image_refs_hint = strdup(o->image_refs_hint);
    }
    return pl->names == NULL || (o->image_refs_hint != NULL && pl->image_refs_hint == NULL)
               ? -ENOMEM
               : 0;
}

static Platter *no_memory(Error **errp)
{
    error_set(errp, ENOMEM, "out of memory for an instance");
    return NULL;
}

Platter *platter_new(const struct platter_options *opts, Error **errp)
{
    struct platter_options o;
    Platter *pl;

    if (options_read(opts, &o, errp) < 0) {
        return NULL;
    }
    pl = calloc(1, sizeof(*pl));
    if (pl == NULL) {
        return no_memory(errp);
    }
    if (instance_init(pl, &o) < 0) {
        instance_free(pl);
        return no_memory(errp);
    }
    if (context_take(pl, o.main_context, errp) < 0) {
        instance_free(pl);
        return NULL;
    }
    if (late_init(pl) < 0) {
        context_drop(pl);
        instance_free(pl);
        return no_memory(errp);
    }
    return pl;
}

/* What the rooms left behind are references that the host never gave back; the nodes are closed all
 * the same, users first. */
static void nodes_close_all(Platter *pl)
{
    BlockDriverState *bs;

    late_run(pl);
    while (!TAILQ_EMPTY(&pl->nodes)) {
        TAILQ_FOREACH (bs, &pl->nodes, in_instance) {
            if (TAILQ_EMPTY(&bs->parents)) {
                break;
            }
        }
        assert(bs != NULL); /* else a user that is no node still holds an edge: a leak of ours */
        bs->refcnt = 1;
        bdrv_unref(bs);
    }
}

void platter_free(Platter *pl)
{
    if (pl == NULL) {
        return;
    }
    instance_control(pl);
    instance_unpark_all(pl);
    for (int i = INSTANCE_ROOM_MAX - 1; i >= 0; i--) {
        void *data = pl->rooms[i].data;

        if (data != NULL) {
            pl->rooms[i].fini(pl, data); /* what ends there still finds its room */
            pl->rooms[i].data = NULL;
        }
    }
    nodes_close_all(pl);
    late_fini(pl);
    instance_refs_free(pl);
    instance_fds_free(pl);
    context_drop(pl);
    instance_free(pl);
}

AioContext *platter_get_main_context(Platter *pl)
{
    return pl->main_ctx;
}

uint64_t platter_memory_used_bytes(const Platter *pl)
{
    return atomic_load_explicit(&pl->budget.used_bytes, memory_order_relaxed);
}

uint64_t platter_memory_limit_bytes(const Platter *pl)
{
    return pl->budget.limit_bytes;
}

const char *platter_version(void)
{
    return PLATTER_VERSION;
}

void instance_raise(Platter *pl, const struct platter_event *event)
{
    if (pl->event_cb != NULL) {
        pl->event_cb(pl->event_opaque, event);
    }
}

bool instance_in_control_thread(const Platter *pl)
{
    return pthread_equal(pl->control_thread, pthread_self());
}

void instance_control(Platter *pl)
{
    assert(instance_in_control_thread(pl) && !in_coroutine());
    if (aio_context_current() == NULL) {
        aio_context_set_current(pl->main_ctx);
        pl->bound_context = true;
    }
}
