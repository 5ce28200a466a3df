/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that come with messages: kept by name (getfd), or in sets that nodes open as
 * /dev/fdset/ID. A set of ours is the set of that number in the instance, which owns the
 * descriptor; what we remember of it is for query-fdsets and for taking one descriptor out.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control/fd.h"
#include "control/monitor.h"
#include "control/parts.h"
#include "os/os.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/json.h"
#include "util/size.h"

#define FDS_MAX 1024 /* that a daemon keeps */

struct control_fd {
    char *name; /* owned; NULL: of a set */
    int64_t set;
    int fd;       /* owned where it has a name, else the instance's */
    char *opaque; /* owned or NULL */
    TAILQ_ENTRY(control_fd) entry;
};

static void fd_forget(struct control *c, struct control_fd *f)
{
    TAILQ_REMOVE(&c->fds, f, entry);
    free(f->name);
    free(f->opaque);
    free(f);
}

void control_fds_end(struct control *c)
{
    struct control_fd *f;

    while ((f = TAILQ_FIRST(&c->fds)) != NULL) {
        if (f->name) {
            os->close(f->fd);
        }
        fd_forget(c, f);
    }
}

static struct control_fd *find_named(struct control *c, const char *name)
{
    struct control_fd *f;

    TAILQ_FOREACH (f, &c->fds, entry) {
        if (f->name && strcmp(f->name, name) == 0) {
            return f;
        }
    }
    return NULL;
}

/* A record; NULL with errp. name or opaque may be NULL. */
static struct control_fd *remember(struct control *c, const char *name, const char *opaque,
                                   Error **errp)
{
    struct control_fd *f = calloc(1, sizeof(*f));
    struct control_fd *other;
    size_t count = 0;

    TAILQ_FOREACH (other, &c->fds, entry) {
        count++;
    }
    if (count >= FDS_MAX) {
        free(f);
        error_set(errp, EMFILE, "%zu descriptors are kept: no more than that", count);
        return NULL;
    }
    if (!f || (name && !(f->name = strdup(name))) || (opaque && !(f->opaque = strdup(opaque)))) {
        if (f) {
            free(f->name);
            free(f);
        }
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    TAILQ_INSERT_TAIL(&c->fds, f, entry);
    return f;
}

/* The descriptor that came with the message; -errno with errp. */
static int message_fd(struct qmp_call *call, Error **errp)
{
    int fd = call->monitor ? monitor_take_fd(call->monitor) : -1;

    return fd >= 0 ? fd : error_set(errp, EINVAL, "No file descriptor supplied via SCM_RIGHTS");
}

int qmp_getfd(struct qmp_call *call, const struct qmp_getfd *args, Error **errp)
{
    struct control *c = call->control;
    struct control_fd *old;
    struct control_fd *f;
    int fd = message_fd(call, errp);

    if (fd < 0) {
        return fd;
    }
    if (args->fdname[0] >= '0' && args->fdname[0] <= '9') {
        os->close(fd);
        return error_set(errp, EINVAL,
                         "Parameter 'fdname' expects a name not starting with a digit");
    }
    old = find_named(c, args->fdname);
    if (old) {
        os->close(old->fd);
        old->fd = fd;
        return 0;
    }
    f = remember(c, args->fdname, NULL, errp);
    if (!f) {
        os->close(fd);
        return -ENOMEM;
    }
    f->fd = fd;
    return 0;
}

int qmp_closefd(struct qmp_call *call, const struct qmp_closefd *args, Error **errp)
{
    struct control_fd *f = find_named(call->control, args->fdname);

    if (!f) {
        return error_set(errp, ENOENT, "File descriptor named '%s' not found", args->fdname);
    }
    os->close(f->fd);
    fd_forget(call->control, f);
    return 0;
}

int control_take_fd(struct control *c, const char *name, Error **errp)
{
    struct control_fd *f = find_named(c, name);
    socklen_t len = sizeof(int);
    uint64_t number;
    int type;
    int fd;

    if (f) {
        fd = f->fd;
        fd_forget(c, f);
        return fd;
    }
    if (number_parse(name, "descriptor", 0, INT32_MAX, &number, NULL) < 0) {
        return error_set(errp, ENOENT, "File descriptor named '%s' not found", name);
    }
    fd = os->dup((int)number);
    if (fd < 0 || os->getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0) {
        if (fd >= 0) {
            os->close(fd);
        }
        return error_set(errp, EINVAL, "File descriptor '%s' is not a socket", name);
    }
    return fd;
}

/* ---- sets ---- */

/* The smallest number that no set has. */
static int64_t free_set(struct control *c)
{
    struct control_fd *f;
    int64_t set = 0;
    bool taken;

    do {
        taken = false;
        TAILQ_FOREACH (f, &c->fds, entry) {
            taken = taken || (!f->name && f->set == set);
        }
        set += taken;
    } while (taken);
    return set;
}

int qmp_add_fd(struct qmp_call *call, const struct qmp_add_fd *args, json_t **ret_value,
               Error **errp)
{
    struct control *c = call->control;
    int fd = message_fd(call, errp);
    struct control_fd *f;
    int ret;

    if (fd < 0) {
        return fd;
    }
    if (args->has_fdset_id && args->fdset_id < 0) {
        os->close(fd);
        return error_set(errp, EINVAL, "Parameter 'fdset-id' expects a non-negative value");
    }
    f = remember(c, NULL, args->has_opaque ? args->opaque : NULL, errp);
    if (!f) {
        os->close(fd);
        return -ENOMEM;
    }
    f->set = -1; /* not one of the sets yet */
    f->set = args->has_fdset_id ? args->fdset_id : free_set(c);
    f->fd = fd;
    ret = platter_add_fd(c->pl, f->set, fd, errp);
    if (ret < 0) {
        fd_forget(c, f);
        return ret;
    }
    return qmp_give(json_pack("{s:I, s:i}", "fdset-id", (json_int_t)f->set, "fd", fd), ret_value,
                    errp);
}

int qmp_remove_fd(struct qmp_call *call, const struct qmp_remove_fd *args, Error **errp)
{
    struct control *c = call->control;
    struct control_fd *f;
    struct control_fd *next;
    bool found = false;

    for (f = TAILQ_FIRST(&c->fds); f; f = next) {
        next = TAILQ_NEXT(f, entry);
        if (!f->name && f->set == args->fdset_id && (!args->has_fd || args->fd == f->fd)) {
            platter_remove_one_fd(c->pl, f->set, f->fd);
            fd_forget(c, f);
            found = true;
        }
    }
    if (!found && args->has_fd) {
        return error_set(errp, ENOENT,
                         "File descriptor named 'fdset-id:%" PRId64 ", fd:%" PRId64 "' not found",
                         args->fdset_id, args->fd);
    }
    return found ? 0
                 : error_set(errp, ENOENT, "File descriptor named 'fdset-id:%" PRId64 "' not found",
                             args->fdset_id);
}

static json_t *fd_json(const struct control_fd *f)
{
    return f->opaque ? json_pack("{s:i, s:o}", "fd", f->fd, "opaque", json_text(f->opaque))
                     : json_pack("{s:i}", "fd", f->fd);
}

/* The record of a set in list, made when it is not there. NULL: no memory. */
static json_t *set_in_list(json_t *list, int64_t set)
{
    json_t *item;
    size_t i;
    int ret = 0;

    json_array_foreach(list, i, item)
    {
        if (json_integer_value(json_object_get(item, "fdset-id")) == set) {
            return item;
        }
    }
    item = json_pack("{s:I, s:[]}", "fdset-id", (json_int_t)set, "fds");
    json_append(list, item, &ret);
    return ret == 0 ? item : NULL;
}

int qmp_query_fdsets(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    json_t *list = json_array();
    struct control_fd *f;
    int ret = list ? 0 : -ENOMEM;

    TAILQ_FOREACH (f, &call->control->fds, entry) {
        if (!f->name) {
            json_append(json_object_get(set_in_list(list, f->set), "fds"), fd_json(f), &ret);
        }
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}
