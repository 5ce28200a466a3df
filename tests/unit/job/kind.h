/* SPDX-License-Identifier: MIT */
/*
 * What the tests of kinds of jobs share: a simulated world with a few files and one job that works
 * on them, and ways to disturb it at every point. What is proved each time: the guest's disk reads
 * as it did, the images are whole, and nothing is left open, blocked or held.
 */
#ifndef TESTS_UNIT_JOB_KIND_H
#define TESTS_UNIT_JOB_KIND_H

#include "../cmocka_all.h"

#include <platter/jobs.h>

#include "job/job_int.h"
#include "os/sim/sim_os.h"
#include "util/error.h"

#define KIND_DISK_BYTES 262144u /* of the guest's disk */
#define KIND_CLUSTER_BYTES 4096u
#define KIND_BLKS 4
#define KIND_FILES 5

/* Sanitizers make a run many times as long: then one point in so many. */
#if defined(__SANITIZE_THREAD__)
#define KIND_STEP 29
#elif defined(__SANITIZE_ADDRESS__)
#define KIND_STEP 7
#else
#define KIND_STEP 1
#endif

struct kind_env {
    const struct kind *kind;
    struct sim_world *world;
    AioContext *ctx;
    Platter *pl;
    BlockBackend *blk[KIND_BLKS];    /* what the kind opened; each may be NULL */
    BlockDriverState *bs[KIND_BLKS]; /* borrowed: their media */
    uint64_t perm[KIND_BLKS];        /* and what they need of those */
    Job *job;                        /* counted */
    enum job_on_error policy;
    uint64_t speed;
    char events[2048]; /* "j:created j:running ..." */
    unsigned errors;   /* JOB_ERROR events */
    char why[256];     /* the error of the last job that ended */
    uint64_t progress; /* as it was reported last */
    void *opaque;      /* the test's own */
    bool backwards;    /* it shrank, or passed its end */
};

struct kind {
    bool one_call;                 /* its work is one call, which polls: no pause within it */
    bool in_turn;                  /* another on the same disks may start, and waits */
    const char *files[KIND_FILES]; /* as build makes them; NULL: no more */
    void (*build)(struct kind_env *env, uint8_t *guest);
    void (*open)(struct kind_env *env);
    /* Each change of a job's state; may be NULL. */
    void (*heard)(struct kind_env *env, const char *id, const char *status);
    Job *(*start)(struct kind_env *env, const struct job_start *start, Error **errp);
    /* All is closed; the files may be looked at. guest: what the disk reads as, always. */
    void (*check)(struct kind_env *env, bool success, const uint8_t *guest);
};

/* Files as build left them, to begin with again and again. */
struct kind_model {
    const struct kind *kind;
    struct sim_disk *disks[KIND_FILES];
    uint8_t guest[KIND_DISK_BYTES];
};

/* ---- worlds ---- */

struct kind_model *kind_model_new(const struct kind *kind);
void kind_model_free(struct kind_model *model);
/* A world with copies of these disks (NULL: those of the model), opened. */
void kind_begin(struct kind_env *env, const struct kind_model *model,
                struct sim_disk *const *disks);
/* Close the disks, check, end; nothing may be left. */
void kind_end(struct kind_env *env, const struct kind_model *model, bool success);

/* End the instance as it is, jobs and all, and check in a new world. env->job is let go of. */
void kind_quit(struct kind_env *env, const struct kind_model *model, bool success);
/* A world without files, for a test that makes its own. */
void kind_begin_empty(struct kind_env *env, const struct kind *kind);
void kind_end_empty(struct kind_env *env);

/* Make an image: options as text, with its driver. */
void kind_create(struct kind_env *env, const char *path, const char *options);
BlockBackend *kind_open(struct kind_env *env, const char *path, const char *driver, int flags);
void kind_fill(BlockBackend *blk, uint64_t offset, uint64_t bytes, int byte);
/* The same, and in what the guest sees. */
void kind_fill_guest(BlockBackend *blk, uint8_t *guest, uint64_t offset, uint64_t bytes, int byte);
/* Whether the disk in that file begins with these bytes; a qcow2 image is checked too: no
 * corruption. */
void kind_expect(struct kind_env *env, const char *path, const char *driver, const uint8_t *bytes,
                 uint64_t size);

/* How many calls came to the files so far. What is done after so many of them comes at the same
 * point however fast the threads are that make them; turns of the loop do not tell. */
uint64_t kind_calls(struct kind_env *env);

/* ---- the job ---- */

/* Start it as "j", to be dismissed by the test, and keep it. */
void kind_start(struct kind_env *env, unsigned flags);
enum job_status kind_status(const struct kind_env *env);
/* Run the loop until the job is paused, for the user to resume it, or concluded. */
enum job_status kind_run(struct kind_env *env);
/* The same until it is concluded; its result. It is dismissed and let go. */
int kind_finish(struct kind_env *env);

/* ---- groups of tests of cmocka, whose state is a model of the kind ---- */

/* How many of these (an array) fail. */
#define kind_run_tests(name, tests, kind)                                                          \
    kind_run_group(name, tests, sizeof(tests) / sizeof((tests)[0]), kind)
int kind_run_group(const char *name, const struct CMUnitTest *tests, size_t count,
                   const struct kind *kind);
/* The disturbances below, or those alone that ask most of what a kind does. */
int kind_disturb(const char *name, const struct kind *kind);
int kind_disturb_briefly(const char *name, const struct kind *kind);

/* ---- disturbances; each runs the job often ---- */

void kind_test_events(void **state);
/* At every turn of the loop until the job ends by itself. */
void kind_test_pause(void **state);
void kind_test_cancel(void **state);
void kind_test_drain(void **state);
/* Verbs that come within the work of a kind of one_call, after every call of that. */
void kind_test_inside(void **state);
/* The instance ends at every turn. */
void kind_test_quit(void **state);
/* Every call of every kind fails, once and for ever, under every policy. */
void kind_test_errors(void **state);
/* The power fails after every change of any file. */
void kind_test_power(void **state);

#endif
