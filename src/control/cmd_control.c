/* SPDX-License-Identifier: MIT */
/* Commands about the daemon itself and the run state. qmp_capabilities is the session's own
 * (monitor.c): what comes here after the negotiation is refused. */
#include <errno.h>

#include "control/chardev.h"
#include "control/control.h"
#include "control/monitor.h"
#include "control/qmp_type.h"
#include "control/reply.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/json.h"

int qmp_qmp_capabilities(struct qmp_call *call, const struct qmp_qmp_capabilities *args,
                         Error **errp)
{
    call->error_class = QMP_COMMAND_NOT_FOUND;
    return error_set(errp, EINVAL, "Capabilities negotiation is already complete, command ignored");
}

int qmp_query_version(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    return qmp_give(qmp_version_value(monitors_release(call->control->monitors), platter_version()),
                    ret_value, errp);
}

int qmp_query_commands(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    json_t *list = json_array();
    int ret = 0;

    for (const struct qmp_command *c = qmp_commands; c->name; c++) {
        json_append(list, json_pack("{s:s}", "name", c->name), &ret);
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}

int qmp_query_qmp_schema(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    return qmp_give(qmp_introspect(), ret_value, errp);
}

int qmp_query_status(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    enum platter_run_state state = platter_get_run_state(call->control->pl);

    return qmp_give(json_pack("{s:b, s:s}", "running", state == PLATTER_RUN_STATE_RUNNING, "status",
                              platter_run_state_name(state)),
                    ret_value, errp);
}

int qmp_query_chardev(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    struct chardev_list *list = call->control->chardevs;

    return qmp_give(list ? chardev_list_json(list) : json_array(), ret_value, errp);
}

int qmp_stop(struct qmp_call *call, Error **errp)
{
    platter_stop(call->control->pl);
    return 0;
}

int qmp_cont(struct qmp_call *call, Error **errp)
{
    platter_cont(call->control->pl);
    return 0;
}

int qmp_quit(struct qmp_call *call, Error **errp)
{
    call->control->quit = true;
    aio_notify(platter_get_main_context(call->control->pl));
    return 0;
}
