/* SPDX-License-Identifier: MIT */
/*
 * Jobs: long work that can be watched, paused, slowed down, cancelled, and that ends together with
 * others when they are in one transaction. What kinds of jobs there are is said where they are
 * started. All calls are [control].
 *
 *     created -> running <-> paused
 *                running -> ready <-> standby          (work that goes on until it is completed)
 *                running, ready -> waiting             (done; others of the transaction are not)
 *                waiting -> pending                    (all are done: finalize, or cancel)
 *                pending -> concluded                  (successful)
 *     any but concluded -> aborting -> concluded       (failed or cancelled)
 *     concluded -> gone                                (dismissed)
 */
#ifndef PLATTER_JOB_H
#define PLATTER_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/platter.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Job Job;
typedef struct JobTxn JobTxn;

enum job_status {
    JOB_STATUS_CREATED = 1,
    JOB_STATUS_RUNNING,
    JOB_STATUS_PAUSED,
    JOB_STATUS_READY,
    JOB_STATUS_STANDBY,
    JOB_STATUS_WAITING,
    JOB_STATUS_PENDING,
    JOB_STATUS_ABORTING,
    JOB_STATUS_CONCLUDED,
};
/* "running" */
const char *job_status_name(enum job_status status);

enum job_flags {
    JOB_MANUAL_FINALIZE = 1 << 0, /* stays pending until job_finalize */
    JOB_MANUAL_DISMISS = 1 << 1,  /* stays concluded until job_dismiss */
};

/* What a job does with an error of its storage. */
enum job_on_error {
    JOB_ON_ERROR_REPORT = 0, /* fail */
    JOB_ON_ERROR_IGNORE,     /* go on, try again later or leave it */
    JOB_ON_ERROR_ENOSPC,     /* stop on a full storage, else report */
    JOB_ON_ERROR_STOP,       /* pause until the user resumes, then try again */
};
enum job_iostatus { JOB_IOSTATUS_OK = 0, JOB_IOSTATUS_FAILED, JOB_IOSTATUS_NOSPACE };

struct job_info {
    const char *id;   /* borrowed, as type and error, until the job changes */
    const char *type; /* "commit" */
    enum job_status status;
    enum job_iostatus iostatus;
    uint64_t progress_current; /* units of the job's own; grows to progress_total */
    uint64_t progress_total;   /* may grow while it runs */
    uint64_t speed;            /* limit in bytes per second; 0: none */
    unsigned flags;            /* enum job_flags */
    bool user_paused;
    bool cancelled;
    const char *error; /* NULL: none; of a concluded job: why it failed */
};

Job *job_by_id(Platter *pl, const char *id); /* NULL: none */
Job *job_next(Platter *pl, Job *job);        /* oldest first; NULL gives the first */
void job_get_info(const Job *job, struct job_info *ret_info);
void job_ref(Job *job);
void job_unref(Job *job); /* NULL allowed */

/* 0, or -EPERM with a text that names job, verb and state when the job is in no state for it. */
int job_pause(Job *job, Error **errp);  /* by the user; the work stops at its next pause point */
int job_resume(Job *job, Error **errp); /* what the user paused, or an error stopped */
int job_set_speed(Job *job, uint64_t bytes_per_second, Error **errp);
/* Stop. A ready job that is not forced may end as if completed without its last step (its type
 * says so). */
int job_cancel(Job *job, bool force, Error **errp);
int job_complete(Job *job, Error **errp); /* a ready job: do the last step */
int job_finalize(Job *job, Error **errp); /* a pending one, and the others of its transaction */
int job_dismiss(Job *job, Error **errp);  /* forget a concluded one */
/* The iostatus is OK again. */
void job_iostatus_reset(Job *job);

/* Run the main context until the job is concluded (or ready, when it is one that must be
 * completed), and return its result: 0 or -errno with errp. A manual finalize is given. */
int job_wait(Job *job, Error **errp);

/* Jobs that succeed or fail together. Give it to each, then let go of it: until then none of them
 * ends but by failing, and none is to be waited for. NULL: no memory. */
JobTxn *job_txn_new(Platter *pl);
void job_txn_unref(JobTxn *txn); /* may end jobs that are done, and poll; NULL allowed */

#ifdef __cplusplus
}
#endif
#endif
