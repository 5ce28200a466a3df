/* SPDX-License-Identifier: MIT */
/* Trace points, seen and switched. */
#include <errno.h>
#include <fnmatch.h>

#include "os/trace.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/json.h"

int qmp_trace_event_get_state(struct qmp_call *call, const struct qmp_trace_event_get_state *args,
                              json_t **ret_value, Error **errp)
{
    json_t *list = json_array();
    int ret = list ? 0 : -ENOMEM;

    for (int i = 0; i < TRACE_EVENT_COUNT; i++) {
        if (fnmatch(args->name, trace_name((enum trace_event)i), 0) == 0) {
            json_append(list,
                        json_pack("{s:s, s:s}", "name", trace_name((enum trace_event)i), "state",
                                  atomic_load(&trace_is_on[i]) ? "enabled" : "disabled"),
                        &ret);
        }
    }
    if (ret == 0 && json_array_size(list) == 0) {
        json_decref(list);
        return error_set(errp, ENOENT, "unknown event \"%s\"", args->name);
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}

int qmp_trace_event_set_state(struct qmp_call *call, const struct qmp_trace_event_set_state *args,
                              Error **errp)
{
    if (trace_set(args->name, args->enable) == 0 &&
        !(args->has_ignore_unavailable && args->ignore_unavailable)) {
        return error_set(errp, ENOENT, "unknown event \"%s\"", args->name);
    }
    return 0;
}
