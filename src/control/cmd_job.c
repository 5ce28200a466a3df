/* SPDX-License-Identifier: MIT */
/* Jobs: looked at, steered, forgotten. */
#include <errno.h>

#include "control/control.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/json.h"

/* block-job-* call a missing job by another name and class. NULL with errp. */
static Job *find_job(struct qmp_call *call, const char *id, bool old, Error **errp)
{
    Job *job = job_by_id(call->control->pl, id);

    if (!job && old) {
        call->error_class = QMP_DEVICE_NOT_ACTIVE;
        error_set(errp, ENOENT, "Block job '%s' not found", id);
    } else if (!job) {
        error_set(errp, ENOENT, "Job not found");
    }
    return job;
}

static json_t *job_json(const struct job_info *info)
{
    json_t *object = json_pack("{s:s, s:s, s:s, s:o, s:o}", "id", info->id, "type", info->type,
                               "status", job_status_name(info->status), "current-progress",
                               json_u64(info->progress_current), "total-progress",
                               json_u64(info->progress_total));
    int ret = object ? 0 : -ENOMEM;

    if (info->error) {
        json_add(object, "error", json_text(info->error), &ret);
    }
    return json_whole(object, ret);
}

static json_t *block_job_json(const struct job_info *info)
{
    static const char *const iostatus[] = {"ok", "failed", "nospace"};
    bool ready = info->status == JOB_STATUS_READY || info->status == JOB_STATUS_STANDBY;
    bool paused = info->status == JOB_STATUS_PAUSED || info->status == JOB_STATUS_STANDBY;
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    json_add(object, "type", json_string(info->type), &ret);
    json_add(object, "device", json_text(info->id), &ret);
    json_add(object, "len", json_u64(info->progress_total), &ret);
    json_add(object, "offset", json_u64(info->progress_current), &ret);
    json_add(object, "busy", json_boolean(info->status == JOB_STATUS_RUNNING), &ret);
    json_add(object, "paused", json_boolean(info->user_paused || paused), &ret);
    json_add(object, "speed", json_u64(info->speed), &ret);
    json_add(object, "io-status", json_string(iostatus[info->iostatus]), &ret);
    json_add(object, "ready", json_boolean(ready), &ret);
    json_add(object, "status", json_string(job_status_name(info->status)), &ret);
    json_add(object, "auto-finalize", json_boolean(!(info->flags & JOB_MANUAL_FINALIZE)), &ret);
    json_add(object, "auto-dismiss", json_boolean(!(info->flags & JOB_MANUAL_DISMISS)), &ret);
    if (info->error) {
        json_add(object, "error", json_text(info->error), &ret);
    }
    return json_whole(object, ret);
}

static json_t *list_jobs(struct control *c, json_t *(*one)(const struct job_info *))
{
    json_t *list = json_array();
    int ret = list ? 0 : -ENOMEM;
    Job *job = NULL;

    while ((job = job_next(c->pl, job)) != NULL) {
        struct job_info info;

        job_get_info(job, &info);
        json_append(list, one(&info), &ret);
    }
    return json_whole(list, ret);
}

int qmp_query_jobs(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    return qmp_give(list_jobs(call->control, job_json), ret_value, errp);
}

int qmp_query_block_jobs(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    return qmp_give(list_jobs(call->control, block_job_json), ret_value, errp);
}

/* ---- verbs ---- */

#define JOB_VERB(name, verb)                                                                       \
    int qmp_job_##name(struct qmp_call *call, const struct qmp_job_##name *args, Error **errp)     \
    {                                                                                              \
        Job *job = find_job(call, args->id, false, errp);                                          \
                                                                                                   \
        return job ? verb : -ENOENT;                                                               \
    }
#define BLOCK_JOB_VERB(name, member, verb)                                                         \
    int qmp_block_job_##name(struct qmp_call *call, const struct qmp_block_job_##name *args,       \
                             Error **errp)                                                         \
    {                                                                                              \
        Job *job = find_job(call, args->member, true, errp);                                       \
                                                                                                   \
        return job ? verb : -ENOENT;                                                               \
    }

JOB_VERB(pause, job_pause(job, errp))
JOB_VERB(resume, job_resume(job, errp))
JOB_VERB(cancel, job_cancel(job, true, errp))
JOB_VERB(complete, job_complete(job, errp))
JOB_VERB(finalize, job_finalize(job, errp))
JOB_VERB(dismiss, job_dismiss(job, errp))
BLOCK_JOB_VERB(pause, device, job_pause(job, errp))
BLOCK_JOB_VERB(resume, device, job_resume(job, errp))
BLOCK_JOB_VERB(cancel, device, job_cancel(job, args->has_force && args->force, errp))
BLOCK_JOB_VERB(complete, device, job_complete(job, errp))
BLOCK_JOB_VERB(finalize, id, job_finalize(job, errp))
BLOCK_JOB_VERB(dismiss, id, job_dismiss(job, errp))

int qmp_block_job_set_speed(struct qmp_call *call, const struct qmp_block_job_set_speed *args,
                            Error **errp)
{
    Job *job = find_job(call, args->device, true, errp);

    if (!job) {
        return -ENOENT;
    }
    if (args->speed < 0) {
        return error_set(errp, EINVAL, "Parameter 'speed' expects a non-negative value");
    }
    return job_set_speed(job, (uint64_t)args->speed, errp);
}
