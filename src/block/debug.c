/* SPDX-License-Identifier: MIT */
/*
 * Named points of a request, told to the node right below who reaches them, where that is a fault
 * filter; and the breakpoints that people set at them by name.
 *
 * A node without such a filter below it pays one branch for each point (BlockDriverState.debugged).
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

void bdrv_debug_event(const BdrvEdge *edge, enum bdrv_debug_event event)
{
    if (UNLIKELY(edge->bs->debugged)) {
        edge->bs->drv->debug->event(edge->bs, event);
    }
}

void bdrv_debug_node_event(BlockDriverState *bs, enum bdrv_debug_event event)
{
    if (UNLIKELY(bs->debugged)) {
        bs->drv->debug->event(bs, event);
    }
}
