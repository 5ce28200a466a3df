/* SPDX-License-Identifier: MIT */
/* The names of the points that a fault filter knows, and the breakpoints that people set at them.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/graph_int.h"
#include "util/error.h"
#include "util/mem.h"

#define EVENT_NAME(id, name) name,
static const char *const event_names[] = {BDRV_DEBUG_EVENTS(EVENT_NAME)};

const char *bdrv_debug_event_name(enum bdrv_debug_event event)
{
    return event_names[event];
}

int bdrv_debug_event_find(const char *name, enum bdrv_debug_event *ret_event, Error **errp)
{
    struct hint hint = hint_begin(name);

    for (size_t i = 0; i < ARRAY_SIZE(event_names); i++) {
        if (strcmp(event_names[i], name) == 0) {
            *ret_event = (enum bdrv_debug_event)i;
            return 0;
        }
        hint_offer(&hint, event_names[i]);
    }
    error_set(errp, EINVAL, "Unknown event '%.*s'", BDRV_NODE_NAME_BYTES_MAX, name);
    if (hint.best != NULL) {
        error_set_hint(errp, "Is '%s' meant?", hint.best);
    }
    return -EINVAL;
}

void bdrv_debug_tell(BlockDriverState *bs, const char *tag, bool suspended)
{
    struct platter_event event = {
        .type = suspended ? PLATTER_EVENT_REQUEST_SUSPENDED : PLATTER_EVENT_REQUEST_RESUMED,
        .u.breakpoint = {.node_name = bs->node_name, .tag = tag},
    };

    instance_raise(bs->pl, &event);
}

/* ---- breakpoints ---- */

/* The filter at or below bs, or NULL. */
static BlockDriverState *find_filter(BlockDriverState *bs)
{
    assert(instance_in_control_thread(bs->pl));
    while (bs != NULL && !bs->debugged) {
        bs = bs->file != NULL ? bs->file->bs : NULL;
    }
    return bs;
}

int bdrv_debug_breakpoint(BlockDriverState *bs, const char *event, const char *tag)
{
    enum bdrv_debug_event number;

    bs = find_filter(bs);
    if (bs == NULL) {
        return -ENOTSUP;
    }
    if (bdrv_debug_event_find(event, &number, NULL) < 0) {
        return -ENOENT;
    }
    return bs->drv->debug->breakpoint(bs, number, tag);
}

int bdrv_debug_resume(BlockDriverState *bs, const char *tag)
{
    bs = find_filter(bs);
    return bs != NULL ? bs->drv->debug->resume(bs, tag) : -ENOTSUP;
}

int bdrv_debug_remove_breakpoint(BlockDriverState *bs, const char *tag)
{
    bs = find_filter(bs);
    return bs != NULL ? bs->drv->debug->remove_breakpoint(bs, tag) : -ENOTSUP;
}

int bdrv_debug_is_suspended(BlockDriverState *bs, const char *tag)
{
    bs = find_filter(bs);
    return bs != NULL ? bs->drv->debug->is_suspended(bs, tag) : -ENOTSUP;
}
