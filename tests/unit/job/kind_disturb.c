/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kind.h"

#define IGNORED_MAX 3    /* so often a forever failing call is ignored before it is mended */
#define CUTS_PER_STATE 3 /* random subsets of what is pending */
#define STATES_MAX 4096

static bool over(const struct kind_env *env)
{
    return kind_status(env) == JOB_STATUS_CONCLUDED;
}

/* A run that has made so many turns of the loop; false when the job has ended by itself. */
static bool begin_turns(struct kind_env *env, const struct kind_model *model, unsigned turns)
{
    kind_begin(env, model, NULL);
    kind_start(env, 0);
    for (unsigned i = 0; i < turns && !over(env); i++) {
        aio_poll(env->ctx, true);
    }
    return !over(env);
}

void kind_test_events(void **state)
{
    const struct kind_model *model = *state;
    struct kind_env env;

    kind_begin(&env, model, NULL);
    kind_start(&env, 0);
    if (kind_finish(&env) < 0) {
        fail_msg("%s", env.why);
    }
    assert_string_equal(env.events, "created running waiting pending concluded null ");
    kind_end(&env, model, true);

    kind_begin(&env, model, NULL);
    kind_start(&env, JOB_MANUAL_FINALIZE);
    while (kind_status(&env) != JOB_STATUS_PENDING) {
        aio_poll(env.ctx, true);
    }
    assert_int_equal(job_cancel(env.job, false, NULL), 0);
    assert_int_equal(kind_finish(&env), -ECANCELED);
    assert_string_equal(env.events, "created running waiting pending aborting concluded null ");
    kind_end(&env, model, false);
}

void kind_test_pause(void **state)
{
    const struct kind_model *model = *state;
    struct kind_env env;
    bool goes_on = true;
    unsigned paused = 0;

    for (unsigned turns = 0; goes_on; turns += KIND_STEP) {
        int ret;

        goes_on = begin_turns(&env, model, turns);
        if (goes_on && job_pause(env.job, NULL) == 0 && kind_run(&env) == JOB_STATUS_PAUSED) {
            uint64_t progress = env.progress;

            paused++;
            for (unsigned i = 0; i < 20; i++) {
                aio_poll(env.ctx, false);
            }
            assert_int_equal(env.progress, progress);
            assert_int_equal(kind_status(&env), JOB_STATUS_PAUSED);
            assert_int_equal(job_resume(env.job, NULL), 0);
        }
        ret = kind_finish(&env);
        assert_int_equal(ret, 0);
        kind_end(&env, model, true);
    }
    assert_true(paused > 0 || model->kind->one_call);
}

void kind_test_cancel(void **state)
{
    const struct kind_model *model = *state;
    struct kind_env env;
    bool goes_on = true;
    unsigned cancelled = 0;

    for (unsigned turns = 0; goes_on; turns += KIND_STEP) {
        bool paused = turns % 2 == 1; /* every other time it is paused before */
        int ret;

        goes_on = begin_turns(&env, model, turns);
        if (goes_on && paused && job_pause(env.job, NULL) == 0) {
            (void)kind_run(&env);
        }
        if (!over(&env) && job_cancel(env.job, turns % 3 == 0, NULL) == 0) {
            ret = kind_finish(&env);
            assert_int_equal(ret, -ECANCELED);
            cancelled++;
            kind_start(&env, 0); /* the disks are free for another */
        }
        assert_int_equal(kind_finish(&env), 0);
        kind_end(&env, model, true);

        if (goes_on) { /* and without that other one */
            bool ended = !begin_turns(&env, model, turns);

            ret = ended || job_cancel(env.job, true, NULL) < 0 ? 0 : -ECANCELED;
            assert_int_equal(kind_finish(&env), ret);
            kind_end(&env, model, ret == 0);
        }
    }
    assert_true(cancelled > 0);
}

void kind_test_drain(void **state)
{
    const struct kind_model *model = *state;
    struct kind_env env;
    bool goes_on = true;

    for (unsigned turns = 0; goes_on; turns += KIND_STEP) {
        goes_on = begin_turns(&env, model, turns);
        for (size_t i = 0; i < KIND_BLKS && env.blk[i] != NULL; i++) {
            bdrv_drained_begin(blk_bs(env.blk[i]));
        }
        if (!over(&env) && turns % 2 == 1) {
            (void)job_cancel(env.job, true, NULL);
        }
        for (unsigned i = 0; i < 10; i++) {
            aio_poll(env.ctx, false);
        }
        for (size_t i = 0; i < KIND_BLKS && env.blk[i] != NULL; i++) {
            bdrv_drained_end(blk_bs(env.blk[i]));
        }
        kind_end(&env, model, kind_finish(&env) == 0);
    }
}

/* ---- inside of a call ---- */

struct inside {
    struct kind_env env;
    uint64_t calls; /* of the disks, until something is done */
    unsigned what;
    bool came; /* before the job was over */
    bool cancelled;
    bool paused;
};

static void do_inside(struct inside *in)
{
    struct kind_env *env = &in->env;
    struct job_start start = {.id = "other", .flags = 0};
    Error *err = NULL;

    in->came = true;
    switch (in->what) {
    case 0:
        in->cancelled = job_cancel(env->job, false, NULL) == 0;
        break;
    case 1:
        in->paused = job_pause(env->job, NULL) == 0;
        break;
    case 2:
        in->paused = job_pause(env->job, NULL) == 0 && job_resume(env->job, NULL) < 0;
        break;
    default: /* another that works on the same */
        if (env->kind->start(env, &start, &err) == NULL) {
            assert_false(env->kind->in_turn);
            assert_non_null(strstr(error_get_pretty(err), "it is in use by job 'j'"));
            error_free(err);
        } else {
            assert_true(env->kind->in_turn);
        }
    }
}

static void inside_bh(void *opaque)
{
    struct inside *in = opaque;

    if (in->env.job == NULL || over(&in->env)) {
        return;
    }
    if (kind_calls(&in->env) >= in->calls) {
        do_inside(in);
    } else {
        assert_int_equal(aio_bh_schedule_oneshot(in->env.ctx, inside_bh, in), 0);
    }
}

void kind_test_inside(void **state)
{
    const struct kind_model *model = *state;
    struct inside in;
    unsigned inside = 0;

    for (unsigned what = 0; what < 4; what++) {
        in.came = true;
        for (uint64_t calls = 0; in.came; calls += KIND_STEP) {
            int ret;

            in = (struct inside){.what = what};
            kind_begin(&in.env, model, NULL);
            in.calls = kind_calls(&in.env) + calls;
            kind_start(&in.env, 0);
            assert_int_equal(aio_bh_schedule_oneshot(in.env.ctx, inside_bh, &in), 0);
            while (!over(&in.env) || job_by_id(in.env.pl, "other") != NULL) {
                aio_poll(in.env.ctx, true);
            }
            ret = kind_finish(&in.env);
            aio_poll(in.env.ctx, false); /* the last of ours */
            assert_int_equal(ret, in.cancelled ? -ECANCELED : 0);
            kind_end(&in.env, model, ret == 0);
            inside += in.came;
        }
    }
    assert_true(inside * KIND_STEP > 8);
}

void kind_test_quit(void **state)
{
    const struct kind_model *model = *state;
    struct kind_env env;
    bool goes_on = true;

    for (unsigned turns = 0; goes_on; turns += KIND_STEP) {
        goes_on = begin_turns(&env, model, turns);
        if (turns % 2 == 1 && !over(&env)) {
            (void)job_pause(env.job, NULL);
        }
        kind_quit(&env, model, !goes_on);
    }
}

/* ---- errors ---- */

struct fault {
    uint64_t calls;
    int error;
    bool forever;
    enum job_on_error policy;
    bool struck; /* in this run */
};

static bool stops(const struct fault *f)
{
    return f->policy == JOB_ON_ERROR_STOP ||
           (f->policy == JOB_ON_ERROR_ENOSPC && f->error == ENOSPC);
}

static void mend(struct kind_env *env, struct fault *f)
{
    struct sim_faults *faults = sim_world_faults(env->world);

    f->struck = f->struck || sim_faults_hits(faults) > 0;
    sim_faults_clear(faults);
}

/* The job was stopped by an error: what is told of it, and it goes on once that is mended. */
static void go_on(struct kind_env *env, struct fault *f)
{
    struct job_info info;

    assert_true(stops(f) && env->errors > 0);
    job_get_info(env->job, &info);
    assert_true(info.user_paused);
    /* what fails need not be told by the name that the storage gave it, but room is room */
    if (f->error == ENOSPC) {
        assert_int_equal(info.iostatus, JOB_IOSTATUS_NOSPACE);
    } else {
        assert_int_equal(info.iostatus, JOB_IOSTATUS_FAILED);
    }
    if (env->blk[0] != NULL && env->errors % 2 == 1) { /* the owner of a disk clears it */
        blk_set_on_error(env->blk[0], BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_STOP);
        blk_iostatus_enable(env->blk[0]);
        blk_iostatus_reset(env->blk[0]);
        job_get_info(env->job, &info);
        assert_int_equal(info.iostatus, JOB_IOSTATUS_OK);
        assert_true(info.user_paused);
    }
    mend(env, f);
    assert_int_equal(job_resume(env->job, NULL), 0);
    job_get_info(env->job, &info);
    assert_int_equal(info.iostatus, JOB_IOSTATUS_OK);
}

/* Ignored often enough: mend it. */
static void run_ignoring(struct kind_env *env, struct fault *f)
{
    while (!over(env) && env->errors < IGNORED_MAX) {
        aio_poll(env->ctx, true);
    }
    mend(env, f);
    while (!over(env) && env->errors < 2 * IGNORED_MAX) {
        aio_poll(env->ctx, true);
    }
}

/* What never ends well: the user gives up. */
static void give_up(struct kind_env *env, const struct fault *f)
{
    /* after a failed sync nothing is known of the file until it is opened again */
    assert_int_equal(f->calls, SIM_CALLS(SIM_CALL_SYNC));
    assert_int_equal(job_cancel(env->job, true, NULL), 0);
}

/* false: the job makes fewer calls. */
static bool run_fault(const struct kind_model *model, struct fault *f, uint64_t nth)
{
    struct sim_rule rule = {
        .calls = f->calls, .nth = nth, .forever = f->forever, .error = f->error};
    struct kind_env env;
    bool stopped = false;
    int ret;

    kind_begin(&env, model, NULL);
    env.policy = f->policy;
    f->struck = false;
    sim_faults_clear(sim_world_faults(env.world));
    sim_faults_add(sim_world_faults(env.world), &rule);
    kind_start(&env, 0);
    if (f->policy == JOB_ON_ERROR_IGNORE) {
        run_ignoring(&env, f);
        if (!over(&env) && env.errors >= 2 * IGNORED_MAX) {
            give_up(&env, f);
        }
    } else if (kind_run(&env) == JOB_STATUS_PAUSED) {
        stopped = true;
        go_on(&env, f);
    }
    if (kind_run(&env) == JOB_STATUS_PAUSED) {
        give_up(&env, f);
    }
    mend(&env, f);
    ret = kind_finish(&env);
    assert_true(ret == 0 || f->struck);
    assert_true(ret == 0 || !stopped || f->calls == SIM_CALLS(SIM_CALL_SYNC));
    kind_end(&env, model, ret == 0);
    return f->struck;
}

void kind_test_errors(void **state)
{
    const struct kind_model *model = *state;
    static const enum sim_call calls[] = {SIM_CALL_READ, SIM_CALL_WRITE, SIM_CALL_SYNC,
                                          SIM_CALL_TRUNCATE, SIM_CALL_FALLOCATE};
    struct fault f;
    unsigned struck = 0;

    for (size_t call = 0; call < sizeof(calls) / sizeof(calls[0]); call++) {
        for (unsigned way = 0; way < 16; way++) {
            f.calls = SIM_CALLS(calls[call]);
            f.policy = (enum job_on_error)(way % 4);
            f.error = way / 4 % 2 ? ENOSPC : EIO;
            f.forever = way / 8;
            if (model->kind->one_call && f.policy != JOB_ON_ERROR_REPORT) {
                continue; /* it has no policy */
            }
            for (uint64_t nth = 1; run_fault(model, &f, nth); nth += KIND_STEP) {
                struck++;
            }
        }
    }
    assert_true(struck > 0);
}

/* ---- power ---- */

struct states {
    const struct kind *kind;
    struct sim_world *world;
    struct sim_disk *disks[STATES_MAX][KIND_FILES];
    unsigned count;
};

/* Under the world's lock. */
static void keep_state(void *opaque, const char *path, const struct sim_disk *disk)
{
    struct states *s = opaque;

    for (size_t i = 0; s->count < STATES_MAX && i < KIND_FILES && s->kind->files[i]; i++) {
        const struct sim_disk *file = sim_world_peek(s->world, s->kind->files[i]);

        s->disks[s->count][i] = file != NULL ? sim_disk_clone(file) : NULL;
    }
    s->count += s->count < STATES_MAX;
}

static void look_at_state(const struct kind_model *model, struct sim_disk **disks,
                          struct sim_rng *rng)
{
    for (unsigned cut = 0; cut < CUTS_PER_STATE; cut++) {
        struct sim_disk *copies[KIND_FILES] = {NULL};
        struct kind_env env;

        for (size_t i = 0; i < KIND_FILES; i++) {
            if (disks[i] == NULL) {
                continue;
            }
            copies[i] = sim_disk_clone(disks[i]);
            assert_non_null(copies[i]);
            assert_int_equal(sim_disk_power_cut(copies[i], rng), 0);
        }
        kind_begin(&env, model, copies);
        kind_end(&env, model, false);
        for (size_t i = 0; i < KIND_FILES; i++) {
            sim_disk_free(copies[i]);
        }
    }
}

void kind_test_power(void **state)
{
    const struct kind_model *model = *state;
    struct states *s = calloc(1, sizeof(*s));
    struct sim_rng rng = {.state = 1};
    struct kind_env env;

    assert_non_null(s);
    kind_begin(&env, model, NULL);
    s->kind = model->kind;
    s->world = env.world;
    sim_world_on_change(env.world, keep_state, s);
    kind_start(&env, 0);
    assert_int_equal(kind_finish(&env), 0);
    sim_world_on_change(env.world, NULL, NULL);
    kind_end(&env, model, true);
    assert_true(s->count > 0 && s->count < STATES_MAX);
    for (unsigned i = 0; i < s->count; i++) {
        if (i % KIND_STEP == 0) {
            look_at_state(model, s->disks[i], &rng);
        }
        for (size_t file = 0; file < KIND_FILES; file++) {
            sim_disk_free(s->disks[i][file]);
        }
    }
    free(s);
}

/* ---- all of them ---- */

int kind_disturb(const char *name, const struct kind *kind)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kind_test_events), cmocka_unit_test(kind_test_pause),
        cmocka_unit_test(kind_test_cancel), cmocka_unit_test(kind_test_drain),
        cmocka_unit_test(kind_test_quit),   cmocka_unit_test(kind_test_errors),
        cmocka_unit_test(kind_test_power),
    };
    const struct CMUnitTest inside[] = {cmocka_unit_test(kind_test_inside)};

    return kind_run_tests(name, tests, kind) +
           (kind->one_call ? kind_run_tests(name, inside, kind) : 0);
}

int kind_disturb_briefly(const char *name, const struct kind *kind)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kind_test_pause),
        cmocka_unit_test(kind_test_cancel),
        cmocka_unit_test(kind_test_errors),
        cmocka_unit_test(kind_test_power),
    };

    return kind_run_tests(name, tests, kind);
}
