/* SPDX-License-Identifier: MIT */
/* Jobs: their states and verbs, transactions, pause by user, drain and error, speed, cancel. */
#include "../cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job/job_int.h"
#include "loop/context.h"
#include "os/sim/sim_os.h"
#include "util/error.h"

#define STEP_BYTES 65536u

/* A job that does steps, a turn of the loop each. */
struct steps {
    Job job;
    unsigned steps; /* to do */
    unsigned done;
    int fail_at; /* step that fails; -1: none */
    int error;   /* with which */
    enum job_on_error policy;
    bool until_completed; /* becomes ready, then waits */
    bool completed;
    int prepare_ret;
    int *ended; /* counts: commit adds 1, abort 100, clean 10000 */
};

static int steps_run_co(Job *job, Error **errp)
{
    struct steps *s = (struct steps *)job;

    job_progress_set_total(job, s->steps);
    while (s->done < s->steps && !job_is_cancelled(job)) {
        if ((int)s->done == s->fail_at) {
            enum job_on_error action = job_error_action(job, s->policy, true, s->error);

            if (action == JOB_ON_ERROR_REPORT) {
                return error_set(errp, -s->error, "step %u failed", s->done);
            }
            if (action == JOB_ON_ERROR_STOP) {
                job_pause_point_co(job);
                continue;
            }
        }
        s->done++;
        job_progress_update(job, 1);
        if (co_sleep_ns(0) < 0) {
            return -ENOMEM;
        }
        job_throttle_co(job, STEP_BYTES);
    }
    while (s->until_completed && !s->completed && !job->cancelled && !job_is_cancelled(job)) {
        job_set_ready(job);
        job_sleep_co(job, 1000000000);
    }
    return job_is_cancelled(job) ? -ECANCELED : 0;
}

static int steps_complete(Job *job, Error **errp)
{
    ((struct steps *)job)->completed = true;
    return 0;
}

static bool steps_soft_cancel(Job *job)
{
    return true;
}

static int steps_prepare(Job *job, Error **errp)
{
    struct steps *s = (struct steps *)job;

    return s->prepare_ret < 0 ? error_set(errp, -s->prepare_ret, "cannot prepare") : 0;
}

static void steps_ended(Job *job, int what)
{
    struct steps *s = (struct steps *)job;

    if (s->ended != NULL) {
        *s->ended += what;
    }
}

static void steps_commit(Job *job)
{
    steps_ended(job, 1);
}

static void steps_abort(Job *job)
{
    steps_ended(job, 100);
}

static void steps_clean(Job *job)
{
    steps_ended(job, 10000);
}

static const struct job_driver steps_driver = {
    .type = "steps",
    .instance_size = sizeof(struct steps),
    .run_co = steps_run_co,
    .complete = steps_complete,
    .soft_cancel = steps_soft_cancel,
    .prepare = steps_prepare,
    .commit = steps_commit,
    .abort = steps_abort,
    .clean = steps_clean,
};

struct env {
    Platter *pl;
    AioContext *ctx;
    char events[2048]; /* "a:running a:waiting ..." */
};

static void on_event(void *opaque, const struct platter_event *event)
{
    struct env *env = opaque;
    size_t at = strlen(env->events);

    if (event->type == PLATTER_EVENT_JOB_STATUS_CHANGE) {
        snprintf(env->events + at, sizeof(env->events) - at, "%s:%s ", event->u.job.id,
                 event->u.job.status);
    } else if (event->type == PLATTER_EVENT_JOB_ERROR) {
        snprintf(env->events + at, sizeof(env->events) - at, "%s:error-%s ", event->u.job_error.id,
                 event->u.job_error.action);
    }
}

static int setup(void **state)
{
    struct env *env = calloc(1, sizeof(*env));
    struct platter_options po = {.size = sizeof(po), .event_cb = on_event, .event_opaque = env};

    assert_non_null(env);
    env->pl = platter_new(&po, NULL);
    assert_non_null(env->pl);
    env->ctx = platter_get_main_context(env->pl);
    *state = env;
    return 0;
}

static int teardown(void **state)
{
    struct env *env = *state;

    platter_free(env->pl);
    free(env);
    return 0;
}

static struct steps *steps_new(struct env *env, const char *id, JobTxn *txn, unsigned flags,
                               unsigned steps)
{
    struct steps *s = job_create(env->pl, &steps_driver, id, txn, flags, NULL);

    assert_non_null(s);
    s->steps = steps;
    s->fail_at = -1;
    s->error = -EIO;
    return s;
}

static enum job_status status_of(struct steps *s)
{
    struct job_info info;

    job_get_info(&s->job, &info);
    return info.status;
}

static void poll_until(struct env *env, struct steps *s, enum job_status status)
{
    for (int i = 0; i < 10000 && status_of(s) != status; i++) {
        aio_poll(env->ctx, true);
    }
    assert_int_equal(status_of(s), status);
}

static void test_life(void **state)
{
    struct env *env = *state;
    int ended = 0;
    struct steps *s = steps_new(env, "a", NULL, 0, 3);

    s->ended = &ended;
    assert_ptr_equal(job_by_id(env->pl, "a"), &s->job);
    job_ref(&s->job);
    job_start(&s->job);
    assert_int_equal(job_wait(&s->job, NULL), 0);
    assert_int_equal(s->done, 3);
    assert_int_equal(ended, 10001);
    assert_string_equal(env->events, "a:created a:running a:waiting a:pending a:concluded a:null ");
    assert_null(job_by_id(env->pl, "a")); /* forgotten by itself */
    job_unref(&s->job);
}

/* One that has nothing to wait for is still there for who started it. */
static void test_ends_at_once(void **state)
{
    struct env *env = *state;
    struct steps *s = steps_new(env, "a", NULL, 0, 0);

    job_start(&s->job);
    assert_int_equal(status_of(s), JOB_STATUS_RUNNING);
    assert_int_equal(job_cancel(&s->job, true, NULL), 0); /* it has not ended yet */
    while (job_by_id(env->pl, "a") != NULL) {
        aio_poll(env->ctx, true);
    }
    assert_string_equal(env->events, "a:created a:running a:aborting a:concluded a:null ");
}

static void test_manual(void **state)
{
    struct env *env = *state;
    struct steps *s = steps_new(env, "a", NULL, JOB_MANUAL_FINALIZE | JOB_MANUAL_DISMISS, 1);
    struct job_info info;

    job_start(&s->job);
    poll_until(env, s, JOB_STATUS_PENDING);
    assert_int_equal(job_dismiss(&s->job, NULL), -EPERM);
    assert_int_equal(job_finalize(&s->job, NULL), 0);
    assert_int_equal(status_of(s), JOB_STATUS_CONCLUDED);
    job_get_info(&s->job, &info);
    assert_int_equal(info.progress_current, 1);
    assert_int_equal(info.progress_total, 1);
    assert_null(info.error);
    assert_int_equal(job_dismiss(&s->job, NULL), 0);
    assert_null(job_next(env->pl, NULL));
}

static void test_failure(void **state)
{
    struct env *env = *state;
    int ended = 0;
    struct steps *s = steps_new(env, "a", NULL, JOB_MANUAL_DISMISS, 5);
    struct job_info info;
    Error *err = NULL;

    s->fail_at = 2;
    s->ended = &ended;
    job_start(&s->job);
    assert_int_equal(job_wait(&s->job, &err), -EIO);
    assert_string_equal(error_get_pretty(err), "step 2 failed");
    error_free(err);
    job_get_info(&s->job, &info);
    assert_string_equal(info.error, "step 2 failed");
    assert_int_equal(ended, 10100);
    assert_string_equal(env->events, "a:created a:running a:error-report a:aborting a:concluded ");
    assert_int_equal(job_dismiss(&s->job, NULL), 0);
}

static void test_prepare_fails(void **state)
{
    struct env *env = *state;
    int ended[2] = {0};
    JobTxn *txn = job_txn_new(env->pl);
    struct steps *a = steps_new(env, "a", txn, JOB_MANUAL_DISMISS, 1);
    struct steps *b = steps_new(env, "b", txn, JOB_MANUAL_DISMISS, 1);

    job_txn_unref(txn);
    b->prepare_ret = -EBUSY;
    a->ended = &ended[0];
    b->ended = &ended[1];
    job_start(&a->job);
    job_start(&b->job);
    poll_until(env, a, JOB_STATUS_CONCLUDED);
    assert_int_equal(a->job.ret, -ECANCELED);
    assert_int_equal(b->job.ret, -EBUSY);
    assert_int_equal(ended[0], 10100);
    assert_int_equal(ended[1], 10100);
    job_dismiss(&a->job, NULL);
    job_dismiss(&b->job, NULL);
}

static void test_transaction(void **state)
{
    struct env *env = *state;
    JobTxn *txn = job_txn_new(env->pl);
    struct steps *a = steps_new(env, "a", txn, JOB_MANUAL_DISMISS, 1);
    struct steps *b = steps_new(env, "b", txn, JOB_MANUAL_DISMISS, 20);

    job_txn_unref(txn);
    job_start(&a->job);
    job_start(&b->job);
    poll_until(env, a, JOB_STATUS_WAITING);
    assert_int_equal(status_of(b), JOB_STATUS_RUNNING);
    poll_until(env, b, JOB_STATUS_CONCLUDED);
    assert_int_equal(status_of(a), JOB_STATUS_CONCLUDED);
    assert_int_equal(a->job.ret, 0);
    job_dismiss(&a->job, NULL);
    job_dismiss(&b->job, NULL);
}

static void test_transaction_fails(void **state)
{
    struct env *env = *state;
    JobTxn *txn = job_txn_new(env->pl);
    struct steps *a = steps_new(env, "a", txn, JOB_MANUAL_DISMISS, 1);
    struct steps *b = steps_new(env, "b", txn, JOB_MANUAL_DISMISS, 20);
    struct steps *c = steps_new(env, "c", txn, JOB_MANUAL_DISMISS, 1); /* never started */

    job_txn_unref(txn);
    b->fail_at = 10;
    job_start(&a->job);
    job_start(&b->job);
    poll_until(env, b, JOB_STATUS_CONCLUDED);
    assert_int_equal(a->job.ret, -ECANCELED);
    assert_int_equal(b->job.ret, -EIO);
    assert_int_equal(c->job.ret, -ECANCELED);
    assert_int_equal(status_of(c), JOB_STATUS_CONCLUDED);
    job_dismiss(&a->job, NULL);
    job_dismiss(&b->job, NULL);
    job_dismiss(&c->job, NULL);
}

static void test_pause(void **state)
{
    struct env *env = *state;
    struct steps *s = steps_new(env, "a", NULL, JOB_MANUAL_DISMISS, 1000);
    unsigned done;

    assert_int_equal(job_pause(&s->job, NULL), 0); /* before it begins */
    job_start(&s->job);
    assert_int_equal(status_of(s), JOB_STATUS_PAUSED);
    assert_int_equal(s->done, 0);
    assert_int_equal(job_pause(&s->job, NULL), -EPERM);
    assert_int_equal(job_resume(&s->job, NULL), 0);
    assert_int_equal(job_resume(&s->job, NULL), -EPERM);
    for (int i = 0; i < 10; i++) {
        aio_poll(env->ctx, true);
    }
    assert_int_equal(job_pause(&s->job, NULL), 0);
    poll_until(env, s, JOB_STATUS_PAUSED);
    done = s->done;
    for (int i = 0; i < 10; i++) {
        aio_poll(env->ctx, false);
    }
    assert_int_equal(s->done, done);
    assert_int_equal(job_resume(&s->job, NULL), 0);
    assert_int_equal(job_wait(&s->job, NULL), 0);
    assert_int_equal(s->done, 1000);
    job_dismiss(&s->job, NULL);
}

static void test_drain(void **state)
{
    struct env *env = *state;
    BlockOptions *options = block_options_parse("driver=null-co,node-name=n", NULL, NULL);
    BlockDriverState *bs = bdrv_open(env->pl, NULL, NULL, options, 0, NULL);
    struct steps *s = steps_new(env, "a", NULL, JOB_MANUAL_DISMISS, 100);
    unsigned done;

    assert_non_null(bs);
    assert_non_null(
        job_add_node(&s->job, "source", bs, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_ALL, NULL));
    job_start(&s->job);
    bdrv_drained_begin(bs);
    assert_int_equal(status_of(s), JOB_STATUS_PAUSED);
    done = s->done;
    for (int i = 0; i < 10; i++) {
        aio_poll(env->ctx, false);
    }
    assert_int_equal(s->done, done);
    bdrv_drained_end(bs);
    bdrv_unref(bs); /* the job holds it */
    assert_int_equal(job_wait(&s->job, NULL), 0);
    assert_null(bdrv_find_node(env->pl, "n"));
    job_dismiss(&s->job, NULL);
}

static void test_cancel(void **state)
{
    struct env *env = *state;
    struct steps *s = steps_new(env, "a", NULL, JOB_MANUAL_DISMISS, 1000);
    Error *err = NULL;

    job_start(&s->job);
    assert_int_equal(job_cancel(&s->job, false, NULL), 0); /* not ready: a real stop */
    assert_int_equal(job_wait(&s->job, &err), -ECANCELED);
    error_free(err);
    assert_true(s->done < 1000);
    assert_int_equal(job_cancel(&s->job, true, NULL), -EPERM);
    job_dismiss(&s->job, NULL);

    s = steps_new(env, "created", NULL, 0, 1);
    assert_int_equal(job_cancel(&s->job, false, NULL), 0);
    assert_null(job_by_id(env->pl, "created"));

    s = steps_new(env, "pending", NULL, JOB_MANUAL_FINALIZE | JOB_MANUAL_DISMISS, 1);
    job_start(&s->job);
    poll_until(env, s, JOB_STATUS_PENDING);
    assert_int_equal(job_cancel(&s->job, true, NULL), 0);
    assert_int_equal(status_of(s), JOB_STATUS_CONCLUDED);
    assert_int_equal(s->job.ret, -ECANCELED);
    job_dismiss(&s->job, NULL);

    s = steps_new(env, "paused", NULL, JOB_MANUAL_DISMISS, 1000);
    job_pause(&s->job, NULL);
    job_start(&s->job);
    assert_int_equal(job_cancel(&s->job, true, NULL), 0);
    poll_until(env, s, JOB_STATUS_CONCLUDED);
    job_dismiss(&s->job, NULL);
}

static void test_ready(void **state)
{
    struct env *env = *state;
    struct steps *s = steps_new(env, "a", NULL, JOB_MANUAL_DISMISS, 2);

    s->until_completed = true;
    job_start(&s->job);
    assert_int_equal(job_complete(&s->job, NULL), -EPERM);
    assert_int_equal(job_wait(&s->job, NULL), 0); /* ready */
    assert_int_equal(status_of(s), JOB_STATUS_READY);
    assert_int_equal(job_pause(&s->job, NULL), 0);
    poll_until(env, s, JOB_STATUS_STANDBY);
    assert_int_equal(job_resume(&s->job, NULL), 0);
    poll_until(env, s, JOB_STATUS_READY);
    assert_int_equal(job_complete(&s->job, NULL), 0);
    poll_until(env, s, JOB_STATUS_CONCLUDED);
    assert_int_equal(s->job.ret, 0);
    job_dismiss(&s->job, NULL);

    s = steps_new(env, "soft", NULL, JOB_MANUAL_DISMISS, 0);
    s->until_completed = true;
    job_start(&s->job);
    poll_until(env, s, JOB_STATUS_READY);
    assert_int_equal(job_cancel(&s->job, false, NULL), 0); /* its end as it is */
    poll_until(env, s, JOB_STATUS_CONCLUDED);
    assert_int_equal(s->job.ret, 0);
    assert_false(s->completed);
    job_dismiss(&s->job, NULL);
}

static void test_error_policy(void **state)
{
    struct env *env = *state;
    static const struct {
        enum job_on_error policy;
        int error;
        bool stops, fails;
        enum job_iostatus iostatus;
    } rows[] = {
        {JOB_ON_ERROR_REPORT, -EIO, false, true, JOB_IOSTATUS_OK},
        {JOB_ON_ERROR_IGNORE, -EIO, false, false, JOB_IOSTATUS_OK},
        {JOB_ON_ERROR_ENOSPC, -EIO, false, true, JOB_IOSTATUS_OK},
        {JOB_ON_ERROR_ENOSPC, -ENOSPC, true, false, JOB_IOSTATUS_NOSPACE},
        {JOB_ON_ERROR_STOP, -EIO, true, false, JOB_IOSTATUS_FAILED},
        {JOB_ON_ERROR_STOP, -ENOSPC, true, false, JOB_IOSTATUS_NOSPACE},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct steps *s = steps_new(env, "a", NULL, JOB_MANUAL_DISMISS, 4);
        struct job_info info;

        s->fail_at = 2;
        s->error = rows[i].error;
        s->policy = rows[i].policy;
        job_start(&s->job);
        poll_until(env, s, rows[i].stops ? JOB_STATUS_PAUSED : JOB_STATUS_CONCLUDED);
        job_get_info(&s->job, &info);
        assert_int_equal(info.iostatus, rows[i].iostatus);
        if (rows[i].stops) {
            s->fail_at = -1; /* somebody made room */
            assert_int_equal(job_resume(&s->job, NULL), 0);
            job_get_info(&s->job, &info);
            assert_int_equal(info.iostatus, JOB_IOSTATUS_OK);
            poll_until(env, s, JOB_STATUS_CONCLUDED);
        }
        assert_int_equal(s->job.ret < 0, rows[i].fails);
        job_dismiss(&s->job, NULL);
    }
}

static void test_names(void **state)
{
    struct env *env = *state;
    struct steps *s = steps_new(env, "a", NULL, 0, 1);
    Error *err = NULL;

    assert_null(job_create(env->pl, &steps_driver, "a", NULL, 0, &err));
    assert_string_equal(error_get_pretty(err), "Job ID 'a' already in use");
    error_free(err);
    err = NULL;
    assert_null(job_create(env->pl, &steps_driver, "1", NULL, 0, &err));
    assert_string_equal(error_get_pretty(err), "Invalid job ID '1'");
    error_free(err);
    job_early_fail(&s->job);
    assert_null(job_next(env->pl, NULL));
}

/* The instance ends while jobs are in every state: they are cancelled. */
static void test_instance_ends(void **state)
{
    struct env *env = *state;
    JobTxn *txn = job_txn_new(env->pl);
    struct steps *s;

    steps_new(env, "created", NULL, 0, 1);
    s = steps_new(env, "running", NULL, 0, 100000);
    job_start(&s->job);
    s = steps_new(env, "paused", NULL, 0, 100000);
    job_pause(&s->job, NULL);
    job_start(&s->job);
    steps_new(env, "other", txn, 0, 1); /* never started, so the next one waits */
    s = steps_new(env, "waiting", txn, JOB_MANUAL_DISMISS, 1);
    job_start(&s->job);
    poll_until(env, s, JOB_STATUS_WAITING);
    job_txn_unref(txn);
}

/* On the simulated clock: what the speed limit lets through. */
static void test_speed(void **state)
{
    struct sim_world *world = sim_world_new(1);
    struct aio_context_options ao = {.size = sizeof(ao), .engine = AIO_ENGINE_THREADS};
    AioContext *ctx;
    struct platter_options po = {.size = sizeof(po)};
    struct env env = {0};

    assert_non_null(world);
    os_replace(sim_os_table(world));
    ctx = aio_context_new(&ao, NULL);
    po.main_context = ctx;
    env.pl = platter_new(&po, NULL);
    env.ctx = ctx;
    assert_non_null(env.pl);
    for (unsigned steps_per_second = 1; steps_per_second <= 1000; steps_per_second *= 10) {
        unsigned steps = steps_per_second * 20;
        struct steps *s = steps_new(&env, "a", NULL, JOB_MANUAL_DISMISS, steps);
        int64_t start = sim_world_now_ns(world);
        double seconds;

        assert_int_equal(job_set_speed(&s->job, UINT64_MAX, NULL), -EINVAL);
        assert_int_equal(job_set_speed(&s->job, (uint64_t)steps_per_second * STEP_BYTES, NULL), 0);
        job_start(&s->job);
        assert_int_equal(job_wait(&s->job, NULL), 0);
        seconds = (double)(sim_world_now_ns(world) - start) / 1e9;
        assert_true(seconds > 20 * 0.95 && seconds < 20 * 1.05);
        job_dismiss(&s->job, NULL);
    }
    platter_free(env.pl);
    aio_context_unref(ctx);
    os_replace(NULL);
    sim_world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_life, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_manual, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prepare_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transaction, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transaction_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(test_error_policy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_instance_ends, setup, teardown),
        cmocka_unit_test(test_speed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
