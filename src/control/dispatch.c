/* SPDX-License-Identifier: MIT */
/* All sessions, and whose request runs next. Each turn of the loop runs one, so that descriptors
 * and timers have theirs between any two. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/platter.h>

#include "control/monitor_internal.h"
#include "os/trace.h"
#include "util/error.h"
#include "util/json_print.h"

/* ---- qmp_capabilities ---- */

static int parse_enable(const json_t *list, bool *ret_oob, Error **errp)
{
    json_t *item;
    size_t i;

    if (!json_is_array(list)) {
        return error_set(errp, EINVAL, "Invalid parameter type for 'enable', expected: array");
    }
    json_array_foreach(list, i, item)
    {
        if (!json_is_string(item)) {
            return error_set(errp, EINVAL,
                             "Invalid parameter type for 'enable[%zu]', expected: string", i);
        }
        if (strcmp(json_string_value(item), "oob") != 0) {
            return error_set(errp, EINVAL, "Parameter 'enable' does not accept value '%.128s'",
                             json_string_value(item));
        }
        *ret_oob = true;
    }
    return 0;
}

int qmp_capabilities_run(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    struct monitor *mon = call->monitor;
    const char *unexpected = NULL;
    const char *key;
    json_t *value;
    bool oob = false;
    int rc = 0;

    if (mon == NULL || mon->negotiated) {
        call->error_class = QMP_COMMAND_NOT_FOUND;
        return error_set(errp, EINVAL,
                         "Capabilities negotiation is already complete, command ignored");
    }
    json_object_foreach(arguments, key, value)
    {
        if (strcmp(key, "enable") == 0) {
            rc = parse_enable(value, &oob, errp);
        } else if (!unexpected || json_key_before(key, unexpected)) {
            unexpected = key;
        }
    }
    if (rc == 0 && unexpected) {
        rc = error_set(errp, EINVAL, "Parameter '%.128s' is unexpected", unexpected);
    }
    if (rc == 0) {
        mon->oob = oob;
        mon->negotiated = true;
    }
    return rc;
}

static const struct qmp_command capabilities = {"qmp_capabilities", 0, qmp_capabilities_run};

/* ---- running ---- */

/* NULL with errp. */
static const struct qmp_command *find_command(struct qmp_call *call, const struct qmp_request *req,
                                              Error **errp)
{
    const struct monitor *mon = call->monitor;
    const bool negotiation = strcmp(req->name, capabilities.name) == 0;
    const struct qmp_command *command;

    call->error_class = QMP_COMMAND_NOT_FOUND;
    if (!mon->negotiated && !negotiation) {
        error_set(errp, ENOENT, "Expecting capabilities negotiation with 'qmp_capabilities'");
        return NULL;
    }
    command = negotiation ? &capabilities : mon->all->find(req->name);
    if (command == NULL) {
        error_set(errp, ENOENT, "The command %.128s has not been found", req->name);
        return NULL;
    }
    call->error_class = QMP_GENERIC_ERROR;
    if (req->oob && !(command->flags & QMP_ALLOW_OOB)) {
        error_set(errp, EINVAL, "The command %.128s does not support OOB", req->name);
        return NULL;
    }
    return command;
}

/* The text of the reply; NULL out of memory. */
static char *run_request(struct monitor *mon, const struct qmp_request *req)
{
    struct qmp_call call = {.control = mon->all->control, .monitor = mon};
    const struct qmp_command *command;
    json_t *value = NULL;
    Error *err = NULL;
    char *text;
    int rc;

    if (req->err != NULL) {
        return qmp_error_text(QMP_GENERIC_ERROR, error_get_pretty(req->err), req->id);
    }
    TRACE(qmp_command, (void *)mon, req->name);
    command = find_command(&call, req, &err);
    rc = command != NULL ? command->run(&call, req->arguments, &value, &err) : -ENOENT;
    TRACE(qmp_reply, (void *)mon, req->name, rc);
    if (rc < 0 && err == NULL) { /* a way of failing that says nothing still gets an answer */
        error_set_errno(&err, -rc, "The command %s failed", req->name);
    }
    text = rc < 0 ? qmp_error_text(call.error_class, error_get_pretty(err), req->id)
                  : qmp_return_text(value, req->id);
    json_decref(value);
    error_free(err);
    return text;
}

void monitor_run(struct monitor *mon, struct qmp_request *req)
{
    struct monitors *all = mon->all;
    const uint64_t outer = mon->serving;
    char *text;

    mon->serving = req->number;
    text = run_request(mon, req);
    mon->serving = outer;
    qmp_request_free(req);
    monitors_send_events(all);
    if (mon->dead) {
        free(text);
    } else {
        monitor_send(mon, text, false);
    }
}

static struct monitor *next_to_run(struct monitors *all)
{
    struct monitor *mon;

    TAILQ_FOREACH (mon, &all->sessions, link) {
        if (mon->nrequests > 0 && !monitor_is_full(mon)) {
            return mon;
        }
    }
    return NULL;
}

void monitors_schedule(struct monitors *all)
{
    if (!all->running) { /* else it goes on by itself */
        aio_bh_schedule(all->wake_bh);
    }
}

static void wake_cb(void *opaque)
{
    /* the loop's turn ends, and monitors_turn follows */
}

void monitors_turn(struct monitors *all)
{
    struct monitor *mon = all->ended ? NULL : next_to_run(all);
    struct qmp_request *req;

    assert(!all->running);
    if (mon == NULL) {
        return;
    }
    req = STAILQ_FIRST(&mon->requests);
    STAILQ_REMOVE_HEAD(&mon->requests, link);
    mon->nrequests--;
    TAILQ_REMOVE(&all->sessions, mon, link);
    TAILQ_INSERT_TAIL(&all->sessions, mon, link);
    monitor_ref(mon);
    mon->running = req->number;
    all->running = true;
    monitor_run(mon, req);
    all->running = false;
    mon->running = 0;
    monitor_go_on(mon);
    monitor_unref(mon);
    if (next_to_run(all) != NULL) {
        monitors_schedule(all);
    }
}

/* ---- all sessions ---- */

static void event_cb(void *opaque)
{
    monitors_send_events(opaque);
}

struct monitors *monitors_new(AioContext *ctx, struct control *control, QmpFindFunc *find)
{
    struct monitors *all = calloc(1, sizeof(*all));

    if (all == NULL) {
        return NULL;
    }
    aio_context_ref(ctx);
    all->ctx = ctx;
    all->control = control;
    all->find = find;
    all->release = platter_version();
    TAILQ_INIT(&all->sessions);
    TAILQ_INIT(&all->dying);
    STAILQ_INIT(&all->events);
    os_mutex_init(&all->lock);
    all->wake_bh = aio_bh_new(ctx, wake_cb, all);
    all->event_bh = aio_bh_new(ctx, event_cb, all);
    if (all->wake_bh == NULL || all->event_bh == NULL) {
        monitors_free(all);
        return NULL;
    }
    return all;
}

void monitors_set_release(struct monitors *all, const char *release)
{
    all->release = release;
}

const char *monitors_release(const struct monitors *all)
{
    return all->release;
}

void monitors_end_commands(struct monitors *all)
{
    struct monitor *mon;
    struct monitor *next;

    assert(!all->running);
    all->ended = true;
    for (mon = TAILQ_FIRST(&all->sessions); mon != NULL; mon = next) {
        next = TAILQ_NEXT(mon, link); /* what cannot be watched any more leaves the list */
        monitor_watch(mon);
    }
}

void monitors_free(struct monitors *all)
{
    struct monitor *mon;

    if (all == NULL) {
        return;
    }
    assert(!all->running);
    while ((mon = TAILQ_FIRST(&all->sessions)) != NULL ||
           (mon = TAILQ_FIRST(&all->dying)) != NULL) {
        monitor_close(mon);
    }
    aio_bh_delete(all->wake_bh);
    aio_bh_delete(all->event_bh);
    monitors_events_free(all);
    os_mutex_fini(&all->lock);
    aio_context_unref(all->ctx);
    free(all);
}
