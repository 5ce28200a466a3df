/* SPDX-License-Identifier: MIT */
/* What a client sends, checked as far as that goes without knowing the command. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/monitor_internal.h"
#include "util/error.h"
#include "util/json_print.h"

void qmp_request_free(struct qmp_request *req)
{
    if (req != NULL) {
        free(req->id);
        free(req->name);
        json_decref(req->arguments);
        error_free(req->err);
        free(req);
    }
}

struct qmp_request *qmp_request_new_error(Error *err)
{
    struct qmp_request *req = calloc(1, sizeof(*req));

    if (req == NULL) {
        error_free(err);
        return NULL;
    }
    req->err = err;
    return req;
}

/* Member execute or exec-oob. */
static int take_name(struct qmp_request *req, const char *key, const json_t *value)
{
    if (!json_is_string(value)) {
        return error_set(&req->err, EINVAL, "QMP input member '%s' must be a string", key);
    }
    if (req->name != NULL) {
        return error_set(&req->err, EINVAL, "QMP input member 'execute' clashes with 'exec-oob'");
    }
    req->name = strdup(json_string_value(value));
    if (req->name == NULL) {
        return error_set(&req->err, ENOMEM, "out of memory");
    }
    req->oob = strcmp(key, "exec-oob") == 0;
    return 0;
}

static int take_member(struct qmp_request *req, const char *key, json_t *value, bool oob)
{
    if (strcmp(key, "id") == 0) {
        return 0; /* its text is what counts */
    }
    if (strcmp(key, "execute") == 0 || (oob && strcmp(key, "exec-oob") == 0)) {
        return take_name(req, key, value);
    }
    if (strcmp(key, "arguments") != 0) {
        return error_set(&req->err, EINVAL, "QMP input member '%.128s' is unexpected", key);
    }
    if (!json_is_object(value)) {
        return error_set(&req->err, EINVAL, "QMP input member 'arguments' must be an object");
    }
    req->arguments = json_incref(value);
    return 0;
}

static int take_members(struct qmp_request *req, json_t *value, bool oob)
{
    size_t count = 0;
    struct json_member *members = json_members(value, &count);
    int rc = members ? 0 : error_set(&req->err, ENOMEM, "out of memory");

    for (size_t i = 0; i < count && rc == 0; i++) { /* of several faults the reference tells this */
        rc = take_member(req, members[i].key, members[i].value, oob);
    }
    free(members);
    if (rc < 0) {
        return rc;
    }
    if (req->name == NULL) {
        return error_set(&req->err, EINVAL, "QMP input lacks member 'execute'");
    }
    if (req->arguments == NULL) {
        req->arguments = json_object();
    }
    return req->arguments != NULL ? 0 : error_set(&req->err, ENOMEM, "out of memory");
}

struct qmp_request *qmp_request_new(json_t *value, const char *text, size_t bytes, bool oob)
{
    struct qmp_request *req = calloc(1, sizeof(*req));

    if (req == NULL) {
        json_decref(value);
        return NULL;
    }
    if (!json_is_object(value)) {
        error_set(&req->err, EINVAL, "QMP input must be a JSON object");
    } else if (qmp_id_text(text, bytes, &req->id) < 0) {
        json_decref(value);
        qmp_request_free(req);
        return NULL;
    } else {
        (void)take_members(req, value, oob);
    }
    json_decref(value);
    return req;
}
