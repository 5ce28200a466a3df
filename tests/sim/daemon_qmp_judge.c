/* SPDX-License-Identifier: MIT */
/* What a QMP client hears: one reply to each command, in order, and events that make sense. */
#include <stdio.h>
#include <string.h>

#include "daemon.h"
#include "util/mem.h"

static bool known_class(const char *name)
{
    static const char *const known[] = {"GenericError", "CommandNotFound", "DeviceNotFound",
                                        "DeviceNotActive"};

    for (unsigned i = 0; name && i < ARRAY_SIZE(known); i++) {
        if (strcmp(known[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- jobs ---- */

/* Which state may follow which: from job.h. */
static bool may_follow(const char *from, const char *to)
{
    static const struct {
        const char *from;
        const char *to;
    } rows[] = {
        {"", "created"},
        {"created", "running paused aborting"},
        {"running", "paused ready waiting aborting"},
        {"paused", "running"},
        {"ready", "standby waiting aborting"},
        {"standby", "ready"},
        {"waiting", "pending aborting"},
        {"pending", "concluded aborting"},
        {"aborting", "concluded"},
        {"concluded", "null"},
        {"null", "created"},
    };
    size_t bytes = strlen(to);

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        const char *at = strcmp(rows[i].from, from) == 0 ? strstr(rows[i].to, to) : NULL;

        if (at && (at[bytes] == ' ' || at[bytes] == '\0')) {
            return true;
        }
    }
    return false;
}

static struct qmp_job *job_of(struct qmp_client *c, const char *id)
{
    for (unsigned i = 0; i < QMP_JOBS_MAX; i++) {
        if (!c->jobs[i].id[0]) {
            snprintf(c->jobs[i].id, sizeof(c->jobs[i].id), "%s", id);
        }
        if (strcmp(c->jobs[i].id, id) == 0) {
            return &c->jobs[i];
        }
    }
    return NULL;
}

static void hear_job(struct qmp_client *c, json_t *data)
{
    const char *id = json_string_value(json_object_get(data, "id"));
    const char *status = json_string_value(json_object_get(data, "status"));
    struct qmp_job *job;

    if (!id || !status) {
        daemon_wrong(c->run, "qmp %u: a change of no job", c->id);
        return;
    }
    job = job_of(c, id);
    if (!job) {
        return;
    }
    /* What came before the session is not known */
    if (job->status[0] && !may_follow(job->status, status)) {
        daemon_wrong(c->run, "qmp %u: job %s went from %s to %s", c->id, id, job->status, status);
    }
    snprintf(job->status, sizeof(job->status), "%s", status);
}

/* ---- lines ---- */

static void hear_event(struct qmp_client *c, json_t *line, const char *name)
{
    json_t *stamp = json_object_get(line, "timestamp");

    if (!json_is_integer(json_object_get(stamp, "seconds")) ||
        !json_is_integer(json_object_get(stamp, "microseconds"))) {
        daemon_wrong(c->run, "qmp %u: event %s without its time", c->id, name);
    }
    if (!c->negotiated) {
        daemon_wrong(c->run, "qmp %u: event %s before the negotiation", c->id, name);
    }
    if (strcmp(name, "JOB_STATUS_CHANGE") == 0) {
        hear_job(c, json_object_get(line, "data"));
    } else if (strcmp(name, "EVENTS_LOST") == 0) {
        memset(c->jobs, 0, sizeof(c->jobs));
    }
}

/* What id answers: something out of band, else the oldest that is not. */
static unsigned answered(const struct qmp_client *c, const json_t *id)
{
    unsigned i = 0;

    for (unsigned k = 0; id && k < c->asking; k++) {
        if (c->asks[k].oob && json_integer_value(id) == (json_int_t)c->asks[k].id) {
            return k;
        }
    }
    while (i + 1 < c->asking && c->asks[i].oob) {
        i++;
    }
    return i;
}

static void hear_reply(struct qmp_client *c, json_t *line)
{
    json_t *error = json_object_get(line, "error");
    json_t *value = json_object_get(line, "return");
    json_t *id = json_object_get(line, "id");
    unsigned at = answered(c, id);
    struct qmp_ask ask = c->asks[at];

    if (daemon_strikes(c->run, FAULT_LOSE_REPLY) ||
        (c->asking > 0 && ask.oob && daemon_strikes(c->run, FAULT_LOSE_OOB))) {
        return;
    }
    if ((error != NULL) == (value != NULL) ||
        (error && (!known_class(json_string_value(json_object_get(error, "class"))) ||
                   !json_is_string(json_object_get(error, "desc"))))) {
        daemon_wrong(c->run, "qmp %u: a reply that is none", c->id);
        return;
    }
    c->replies++;
    if (c->asking == 0) {
        if (!c->garbled) {
            daemon_wrong(c->run, "qmp %u: a reply to nothing", c->id);
        }
        return;
    }
    memmove(c->asks + at, c->asks + at + 1, (--c->asking - at) * sizeof(c->asks[0]));
    if ((id != NULL) != ask.has_id || (id && json_integer_value(id) != (json_int_t)ask.id)) {
        daemon_wrong(c->run, "qmp %u: a reply to %lld instead of %llu", c->id,
                     id ? (long long)json_integer_value(id) : -1LL, (unsigned long long)ask.id);
    }
    if (ask.refused && !error) {
        daemon_wrong(c->run, "qmp %u: nonsense was taken for a command", c->id);
    }
    if (ask.overlay > 0 && value) {
        c->run->overlays_known = ask.overlay;
        c->run->overlays = ask.overlay + 1;
    }
}

void qmp_client_hear(struct qmp_client *c, const char *text)
{
    json_error_t why;
    json_t *line = json_loads(text, 0, &why);
    const char *event = json_string_value(json_object_get(line, "event"));

    daemon_trace(c->run, "qmp hears", c->id, text, strlen(text));
    if (!json_is_object(line)) {
        daemon_wrong(c->run, "qmp %u: no JSON: %.100s", c->id, text);
    } else if (event) {
        hear_event(c, line, event);
    } else if (json_object_get(line, "QMP")) {
        if (c->greeted) {
            daemon_wrong(c->run, "qmp %u: greeted twice", c->id);
        }
        c->greeted = true;
    } else {
        hear_reply(c, line);
    }
    json_decref(line);
}
