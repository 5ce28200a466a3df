/* SPDX-License-Identifier: MIT */
/*
 * The instance: what Platter * points to. Floors above block/ keep what they own in a room here;
 * block/ does not know what it is.
 */
#ifndef PLATTER_BLOCK_INSTANCE_H
#define PLATTER_BLOCK_INSTANCE_H

#include <pthread.h>
#include <sys/queue.h>

#include <platter/platter.h>

#include "block/node.h"
#include "util/budget.h"

/* One name space for nodes and backends. */
enum instance_name_kind {
    INSTANCE_NAME_NONE = 0,
    INSTANCE_NAME_NODE,
    INSTANCE_NAME_BACKEND,
};

/* Rooms of higher floors, ended by platter_free in descending order; a room is there until its fini
 * has returned, which frees data. */
enum instance_room {
    INSTANCE_ROOM_TLS = 0,
    INSTANCE_ROOM_THROTTLE,
    INSTANCE_ROOM_OBJECTS,
    INSTANCE_ROOM_BACKENDS,
    INSTANCE_ROOM_JOBS,
    INSTANCE_ROOM_EXPORTS,
    INSTANCE_ROOM_MAX,
};

struct instance_names;  /* name.c */
struct instance_fd;     /* fdset.c */
struct instance_parked; /* run_state.c */
struct instance_ref;    /* refs.c */

struct Platter {
    AioContext *main_ctx; /* counted */
    pthread_t control_thread;
    bool bound_context; /* main_ctx was made the thread's current one by us */
    bool owns_context;  /* main_ctx was made by us and charges our budget */
    struct mem_budget budget;
    enum platter_image_refs image_refs;
    char *image_refs_hint;      /* owned, or NULL */
    unsigned backing_depth_max; /* > 0 */
    bool whole_sectors;         /* bdrv_size_unit */
    bool snapshots_fit_disk;    /* bdrv_snapshots_fit_disk */
    bool tells_files;           /* bdrv_get_told_name */
    PlatterEventFunc *event_cb;
    void *event_opaque;

    /* control thread */
    TAILQ_HEAD(, BlockDriverState) nodes;
    struct instance_names *names; /* owned; name.c */
    struct instance_fd *fds;
    struct instance_ref *refs;
    const char *ref_path;  /* borrowed: path named by an image that is being opened, or NULL */
    unsigned open_nesting; /* opens inside opens */
    unsigned open_refs;    /* nodes named by images in the open that is going on */
    uint64_t next_node_number;
    uint64_t walk_gen; /* walk.c */
    bool sizes_untold; /* settle.c: some node has resize_untold */
    int drain_all_count;
    unsigned drain_hooks; /* nodes whose driver is told of drains */
    struct {
        void *data;
        void (*fini)(Platter *pl, void *data);
    } rooms[INSTANCE_ROOM_MAX];

    /* Whether an object, of whatever kind, has that id: set by who holds the objects while there
     * are any. NULL: there are none. */
    bool (*has_object)(void *objects, const char *id);
    void *objects; /* borrowed, for that */

    /* run_state.c */
    const struct platter_run_ops *run_ops;
    void *run_opaque;
    struct os_mutex run_lock; /* guards run_state and parked; a leaf */
    enum platter_run_state run_state;
    TAILQ_HEAD(, instance_parked) parked;
    unsigned parked_count; /* of these and of those that have not left yet */

    /* any thread: nodes with work for the control thread (late.c). A leaf lock. */
    struct os_mutex late_lock;
    TAILQ_HEAD(, BlockDriverState) late_nodes;
    QEMUBH *late_bh; /* owned */
};

struct instance_names *instance_names_new(void); /* NULL out of memory */
void instance_names_free(struct instance_names *names);
void instance_fds_free(Platter *pl);

/* Who holds a name. */
enum instance_name_kind instance_name_find(Platter *pl, const char *name, void **ret_owner);
/* Claim a free name; 0 or -ENOMEM. Asserts that it is free. */
int instance_name_add(Platter *pl, const char *name, enum instance_name_kind kind, void *owner);
void instance_name_del(Platter *pl, const char *name);

/* ---- run_state.c ---- */

void instance_run_init(Platter *pl);
void instance_run_fini(Platter *pl);
/* The first and second half of a stop for why: around the event that tells the reason. Any thread.
 */
void instance_stop_prepare(Platter *pl);
void instance_stop_request(Platter *pl, enum platter_run_state why);
/* Wait until the consumer runs: 0 (it may run already), or what instance_unpark gave. owner: for
 * that. Coroutine; instance_park_leave follows, when owner is not needed any more. */
int instance_park_co(Platter *pl, const void *owner);
void instance_park_leave(Platter *pl);
/* Those that owner (NULL: everybody) parked go on with ret. Any thread. */
void instance_unpark(Platter *pl, const void *owner, int ret);
/* The instance ends: all go on with -ECANCELED, and have left on return. Control thread. */
void instance_unpark_all(Platter *pl);

void instance_raise(Platter *pl, const struct platter_event *event); /* any thread */
bool instance_in_control_thread(const Platter *pl);
/* At the door of control calls that may poll: asserts thread and no coroutine, and makes the main
 * context the thread's current one when it has none (another instance of the thread ended). */
void instance_control(Platter *pl);

#endif
