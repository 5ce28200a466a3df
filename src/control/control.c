/* SPDX-License-Identifier: MIT */
/* The daemon's state: its making, its orderly end, and the look-ups that commands share. */
#include <errno.h>
#include <stdlib.h>

#include "block/instance.h"
#include "control/control.h"
#include "control/monitor.h"
#include "control/parts.h"
#include "util/error.h"

struct control *control_new(void)
{
    struct control *c = calloc(1, sizeof(*c));

    if (!c) {
        return NULL;
    }
    LIST_INIT(&c->nodes);
    TAILQ_INIT(&c->objects);
    TAILQ_INIT(&c->exports);
    LIST_INIT(&c->backends);
    TAILQ_INIT(&c->fds);
    return c;
}

static void within_fini(Platter *pl, void *data)
{
    struct control *c = data;

    control_objects_end(c);
    free(c);
}

struct control *control_new_within(Platter *pl)
{
    struct control *c = control_new();

    if (c) {
        c->pl = pl;
        c->objects_only = true;
        pl->rooms[INSTANCE_ROOM_OBJECTS].data = c;
        pl->rooms[INSTANCE_ROOM_OBJECTS].fini = within_fini;
    }
    return c;
}

/* Jobs that go on are cancelled; their nodes are let go before the nodes end. */
static void end_jobs(struct control *c)
{
    Job *job;

    while ((job = job_next(c->pl, NULL)) != NULL) {
        struct job_info info;

        job_ref(job);
        job_get_info(job, &info);
        if (info.status != JOB_STATUS_CONCLUDED) {
            job_cancel(job, true, NULL);
            job_wait(job, NULL);
        }
        if (job_next(c->pl, NULL) == job) { /* it stays until it is dismissed */
            job_dismiss(job, NULL);
        }
        job_unref(job);
    }
}

int control_free(struct control *c)
{
    struct control_node *node;
    int ret;

    if (!c || !c->pl) {
        free(c);
        return 0;
    }
    control_exports_end(c);
    platter_cont(c->pl); /* what an error policy holds back ends now, one way or another */
    end_jobs(c);
    ret = bdrv_flush_all(c->pl);
    control_backends_end(c);
    while ((node = LIST_FIRST(&c->nodes)) != NULL) {
        LIST_REMOVE(node, entry);
        bdrv_unref(node->bs);
        free(node);
    }
    control_fds_end(c);
    control_objects_end(c);
    platter_free(c->pl);
    free(c);
    return ret;
}

void control_event(struct control *c, const char *name, json_t *data)
{
    if (c->monitors) {
        monitors_event(c->monitors, name, data);
    } else {
        json_decref(data);
    }
}

BlockDriverState *control_find_node(struct control *c, const char *node_name, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(c->pl, node_name);

    if (!bs) {
        error_set(errp, ENOENT, "Cannot find device='%s' nor node-name='%s'", node_name, node_name);
    }
    return bs;
}

BlockDriverState *control_find_root(struct control *c, const char *device, const char *node_name,
                                    Error **errp)
{
    BlockBackend *blk = device ? blk_by_name(c->pl, device) : NULL;
    BlockDriverState *bs = blk ? blk_bs(blk) : NULL;

    if (blk && !bs) {
        error_set(errp, ENOMEDIUM, "Device '%s' has no medium", device);
        return NULL;
    }
    bs = !bs && node_name ? bdrv_find_node(c->pl, node_name) : bs;
    if (!bs) {
        error_set(errp, ENOENT, "Cannot find device='%s' nor node-name='%s'", device ? device : "",
                  node_name ? node_name : "");
    }
    return bs;
}

BlockBackend *control_find_backend(struct qmp_call *call, const char *name, Error **errp)
{
    BlockBackend *blk = name ? blk_by_name(call->control->pl, name) : NULL;

    if (!blk) {
        call->error_class = QMP_DEVICE_NOT_FOUND;
        error_set(errp, ENODEV, "Device '%s' not found", name ? name : "");
    }
    return blk;
}

int control_add_node(struct control *c, BlockOptions *options, Error **errp)
{
    struct control_node *node = malloc(sizeof(*node));

    if (!node) {
        block_options_free(options);
        return error_set(errp, ENOMEM, "out of memory");
    }
    node->bs = bdrv_open(c->pl, NULL, NULL, options, BDRV_O_RDWR, errp);
    if (!node->bs) {
        free(node);
        return -EINVAL;
    }
    LIST_INSERT_HEAD(&c->nodes, node, entry);
    return 0;
}
