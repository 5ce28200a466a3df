/* SPDX-License-Identifier: MIT */
/*
 * What kinds of jobs see of the job core: the table they fill and the calls they make from their
 * coroutine. The files of this folder share it; nobody above includes it.
 *
 * A job's coroutine runs in the main context. It stops only at pause points, so between two of them
 * the graph does not change under it: a drain of its nodes waits for the next one.
 */
#ifndef PLATTER_JOB_JOB_INT_H
#define PLATTER_JOB_JOB_INT_H

#include <sys/queue.h>

#include <platter/backend.h>
#include <platter/image.h>
#include <platter/job.h>

#include "block/graph_tx.h"
#include "block/instance.h"

struct job_driver {
    const char *type;
    size_t instance_size; /* at least sizeof(Job); the job begins it */
    /* The work. 0 or -errno, with errp set or not. Coroutine. Required. */
    int (*run_co)(Job *job, Error **errp);
    /* The user wants a ready job to do its last step. NULL: no such job. */
    int (*complete)(Job *job, Error **errp);
    /* Whether a cancel that is not forced ends the job as completed. NULL: never. */
    bool (*soft_cancel)(Job *job);
    /* All jobs of the transaction are done and finalized: last thing that can fail, control
     * thread, may poll (graph changes). NULL: nothing. */
    int (*prepare)(Job *job, Error **errp);
    /* Exactly one of the two, then clean. Control thread. NULL: nothing. */
    void (*commit)(Job *job);
    void (*abort)(Job *job);
    void (*clean)(Job *job);
    /* Its memory goes. */
    void (*free)(Job *job);
};

/* A node that the job works on, by an edge of its own, or only with its op blocker. */
struct job_node {
    Job *job;
    BdrvEdge *edge;       /* owned, or NULL */
    BlockDriverState *bs; /* counted, or NULL */
    bool blocks;          /* operations on that one */
    BlockBackend *blk;    /* owned: the job's own for bs; or NULL */
    BlockBackend *lender; /* counted: bs was its medium; or NULL */
    TAILQ_ENTRY(job_node) entry;
};

struct Job {
    const struct job_driver *driver;
    Platter *pl; /* borrowed */
    char *id;    /* owned */
    int refcnt;
    unsigned flags;
    enum job_status status;
    JobTxn *txn; /* counted; NULL once it has left it */
    TAILQ_ENTRY(Job) in_instance;
    TAILQ_ENTRY(Job) in_txn;
    TAILQ_HEAD(, job_node) nodes;
    Error *blocker;                /* owned: why operations on those are refused; NULL: none yet */
    struct bdrv_progress progress; /* told of each step; may be empty */

    Coroutine *co; /* NULL: not started, or over */
    bool busy;     /* the coroutine runs or waits for I/O: not at a pause point, not asleep */
    bool ending;   /* run_co has returned; the loop is told of it */
    bool done;     /* and has heard */
    bool registered;
    int pause_count; /* user, drained nodes, errors */
    bool user_paused;
    bool cancelled;
    bool force_cancel;
    int ret; /* of the work; first failure */
    Error *err;
    enum job_iostatus iostatus;
    uint64_t progress_current;
    uint64_t progress_total;

    uint64_t speed;        /* bytes per second; 0: no limit */
    int64_t paid_ns;       /* when the limit has let through what was sent; 0: nothing yet */
    AioTimer *sleep_timer; /* owned */
    QEMUBH *end_bh;        /* owned; job.c */
};

struct JobTxn {
    Platter *pl;
    int refcnt;
    bool aborting;
    bool held;       /* who made it may still give it to jobs */
    bool finalizing; /* the end runs, which may poll: no verb comes in between */
    TAILQ_HEAD(job_txn_list, Job) jobs;
};

/* A job in state created, of driver->instance_size zeroed bytes, with one reference (the
 * registry's, which ends with dismissal). txn NULL: one of its own. NULL with errp: EINVAL (id not
 * well formed), EEXIST, EBUSY (a job of the transaction failed), ENOMEM. */
void *job_create(Platter *pl, const struct job_driver *driver, const char *id, JobTxn *txn,
                 unsigned flags, Error **errp);
/* Work on bs too, through the edge that is returned, the job's: permissions as given; drains of it
 * pause the job. NULL with errp: EPERM, ENOMEM. */
BdrvEdge *job_add_node(Job *job, const char *name, BlockDriverState *bs, uint64_t perm,
                       uint64_t shared, Error **errp);
/* Until the job ends, operations on bs as a whole (resize, snapshot, replace, ...) are refused with
 * the job as the reason. 0, -EBUSY (somebody else blocks changes of it, as other jobs do) or
 * -ENOMEM. */
int job_block_node(Job *job, BlockDriverState *bs, Error **errp);
enum job_use {
    JOB_READS,  /* as other jobs may do too: no operation is refused but by permission */
    JOB_BLOCKS, /* reads; operations are refused, as above */
    JOB_WRITES, /* the same, with the permissions that blk had */
};
/* The same for the medium of blk, which is there. The job gets a backend of its own for it, so it
 * does not matter what becomes of that of blk, and lends its permissions: nobody else may write
 * until job_share_disks. op: what the job is to it. May poll. The backend is the job's; NULL with
 * errp: also EPERM, somebody writes. */
BlockBackend *job_take_disk(Job *job, BlockBackend *blk, enum job_use use, BlockOpType op,
                            Error **errp);
/* For prepare: others, such as an operation on the image, may write again. 0 or -errno. */
int job_share_disks(Job *job, Error **errp);
void job_remove_nodes(Job *job);
/* Begin to run. A job that cannot be started is given back by job_early_fail instead. */
void job_start(Job *job);
void job_early_fail(Job *job);

/* ---- from the job's coroutine ---- */

/* Stop here while anybody wants a pause. */
void job_pause_point_co(Job *job);
/* Wait, at most that long; wakes for cancel and speed changes. A pause point at its end. */
void job_sleep_co(Job *job, int64_t ns);
bool job_is_cancelled(const Job *job); /* and must stop without its last step */
void job_progress_update(Job *job, uint64_t done);
void job_progress_set_total(Job *job, uint64_t total);
/* The bytes were sent: wait as long as the speed limit wants. A pause point. */
void job_throttle_co(Job *job, uint64_t bytes);
/* Work that finds all it needs in memory never yields: let the loop have a turn now and then.
 * *last_ns is the time of the last one; 0 at first. A pause point. */
void job_turn_co(Job *job, int64_t *last_ns);
bool job_turn_is_due(int64_t *last_ns); /* the next job_turn_co will do so */
/* running -> ready, and wait until it is completed or cancelled: the driver looks at its own state
 * that complete() changed. */
void job_set_ready(Job *job);
/* An error of the storage: what is to be done. Sets the iostatus and raises the event; STOP has
 * paused the job, which tries again after the next pause point. */
enum job_on_error job_error_action(Job *job, enum job_on_error policy, bool is_read, int error);
/* A step failed with ret (-errno), and may be tried again: wait as the policy says, then 0 for the
 * next try, or what the job is to fail with. */
int job_retry_co(Job *job, enum job_on_error policy, bool is_read, int ret);

/* ---- between the files ---- */

struct jobs {
    TAILQ_HEAD(, Job) list;
    bool calling; /* a control call of a job runs: create.c */
};
struct jobs *jobs_of(Platter *pl); /* NULL: no memory */
void job_set_status(Job *job, enum job_status status);
void job_raise_status(const Job *job, const char *status); /* the event of a new state */
void job_wake(Job *job);
void job_fail(Job *job, int ret, Error *err); /* first failure counts; err is owned */
/* txn.c: run_co has returned, or the job was cancelled before it began. */
void job_completed(Job *job);
void job_txn_add(JobTxn *txn, Job *job);
void job_txn_finalize(Job *job);
void job_conclude_and_forget(Job *job);

#endif
