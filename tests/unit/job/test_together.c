/* SPDX-License-Identifier: MIT */
/* Jobs that end together, and how fast they go: commits from one disk in memory to another. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kind.h"

#define MIB (UINT64_C(1) << 20)
#define DISK_BYTES (8 * MIB)
#define JOBS 3

static const struct kind nothing; /* no files of its own */

struct group {
    struct kind_env env;
    BlockBackend *layer[JOBS];
    BlockBackend *base[JOBS];
    Job *job[JOBS]; /* counted */
    JobTxn *txn;
};

static BlockBackend *disk(struct group *g, char kind, unsigned i)
{
    BlockOptions *options = block_options_parse("driver=mem,size=8M", NULL, NULL);
    char name[8];
    BlockBackend *blk;

    snprintf(name, sizeof(name), "%c%u", kind, i);
    blk = blk_new_open(g->env.pl, name, NULL, NULL, options, BDRV_O_RDWR, NULL);
    assert_non_null(blk);
    return blk;
}

static void group_begin(struct group *g, bool txn)
{
    memset(g, 0, sizeof(*g));
    kind_begin_empty(&g->env, &nothing);
    for (unsigned i = 0; i < JOBS; i++) {
        g->layer[i] = disk(g, 'l', i);
        g->base[i] = disk(g, 'b', i);
        kind_fill(g->layer[i], 0, DISK_BYTES, 0x40 + (int)i);
    }
    if (txn) {
        g->txn = job_txn_new(g->env.pl);
        assert_non_null(g->txn);
    }
}

static Job *try_start(struct group *g, unsigned i, unsigned flags, uint64_t speed, bool empty_top,
                      Error **errp)
{
    char id[2] = {(char)('a' + i), '\0'};
    struct job_start start = {.id = id, .txn = g->txn, .flags = flags | JOB_MANUAL_DISMISS};
    struct job_commit_options options = {.size = sizeof(options),
                                         .layers = &g->layer[i],
                                         .layers_count = 1,
                                         .base = g->base[i],
                                         .bytes_per_second = speed,
                                         .empty_top = empty_top};

    return job_commit_start(g->env.pl, &start, &options, errp);
}

static void start_job(struct group *g, unsigned i, unsigned flags, uint64_t speed)
{
    g->job[i] = try_start(g, i, flags, speed, false, NULL);
    assert_non_null(g->job[i]);
    job_ref(g->job[i]);
}

/* Three, each slower than the one before; no more can join. */
static void start_all(struct group *g, unsigned flags)
{
    for (unsigned i = 0; i < JOBS; i++) {
        start_job(g, i, flags, i > 0 ? (JOBS - i) * 4 * MIB : 0);
    }
    job_txn_unref(g->txn);
    g->txn = NULL;
}

static enum job_status status_of(const Job *job)
{
    struct job_info info;

    job_get_info(job, &info);
    return info.status;
}

static void run_until(struct group *g, unsigned i, enum job_status status)
{
    for (unsigned turns = 0; status_of(g->job[i]) != status; turns++) {
        assert_true(turns < 100000 && status_of(g->job[i]) != JOB_STATUS_CONCLUDED);
        aio_poll(g->env.ctx, true);
    }
}

/* All are concluded, and ended with these; bases hold the layers where they succeeded. */
static void group_end(struct group *g, int first, int others)
{
    for (unsigned i = 0; i < JOBS; i++) {
        if (g->job[i] == NULL) {
            continue;
        }
        run_until(g, i, JOB_STATUS_CONCLUDED);
        assert_int_equal(g->job[i]->ret, i == 0 ? first : others);
        assert_int_equal(job_dismiss(g->job[i], NULL), 0);
        job_unref(g->job[i]);
    }
    assert_null(job_next(g->env.pl, NULL));
    for (unsigned i = 0; i < JOBS; i++) {
        kind_fill(g->base[i], 0, 512, 1); /* the permissions are back */
        blk_unref(g->layer[i]);
        blk_unref(g->base[i]);
    }
    kind_end_empty(&g->env);
}

/* ---- transactions ---- */

static void test_success(void **state)
{
    struct group g;

    group_begin(&g, true);
    start_all(&g, 0);
    run_until(&g, 0, JOB_STATUS_WAITING);
    assert_int_equal(status_of(g.job[1]), JOB_STATUS_RUNNING);
    run_until(&g, 1, JOB_STATUS_WAITING);
    assert_int_equal(status_of(g.job[2]), JOB_STATUS_RUNNING);
    assert_int_equal(job_finalize(g.job[0], NULL), -EPERM);
    assert_int_equal(job_pause(g.job[0], NULL), -EPERM);
    group_end(&g, 0, 0);
}

/* One is cancelled, in every state, first or last of the transaction. */
static void test_cancel_one(void **state)
{
    static const struct {
        unsigned which;
        enum job_status status;
    } rows[] = {{JOBS - 1, JOB_STATUS_RUNNING},
                {0, JOB_STATUS_WAITING},
                {1, JOB_STATUS_WAITING},
                {0, JOB_STATUS_PENDING},
                {JOBS - 1, JOB_STATUS_PENDING}};
    struct group g;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        group_begin(&g, true);
        start_all(&g, JOB_MANUAL_FINALIZE);
        run_until(&g, rows[i].which, rows[i].status);
        assert_int_equal(job_cancel(g.job[rows[i].which], false, NULL), 0);
        group_end(&g, -ECANCELED, -ECANCELED);
    }
}

static void test_finalize(void **state)
{
    struct group g;

    for (unsigned i = 0; i < JOBS; i++) {
        group_begin(&g, true);
        start_all(&g, JOB_MANUAL_FINALIZE);
        run_until(&g, i, JOB_STATUS_PENDING);
        for (unsigned k = 0; k < JOBS; k++) {
            assert_int_equal(status_of(g.job[k]), JOB_STATUS_PENDING);
        }
        assert_int_equal(job_dismiss(g.job[i], NULL), -EPERM);
        assert_int_equal(job_finalize(g.job[i], NULL), 0);
        assert_int_equal(job_finalize(g.job[i], NULL), -EPERM);
        group_end(&g, 0, 0);
    }
}

/* The last step of one fails: a disk in memory cannot be emptied. */
static void test_last_step_fails(void **state)
{
    struct group g;

    group_begin(&g, true);
    g.job[0] = try_start(&g, 0, 0, MIB, true, NULL);
    assert_non_null(g.job[0]);
    job_ref(g.job[0]);
    start_job(&g, 1, 0, 0);
    start_job(&g, 2, 0, 0);
    job_txn_unref(g.txn);
    group_end(&g, -ENOTSUP, -ECANCELED);
}

/* The transaction waits for who made it; when one has failed, no more can join. */
static void test_too_late(void **state)
{
    struct group g;
    Error *err = NULL;

    group_begin(&g, true);
    start_job(&g, 0, 0, 0);
    run_until(&g, 0, JOB_STATUS_WAITING);
    start_job(&g, 1, 0, 0);
    run_until(&g, 1, JOB_STATUS_WAITING);
    assert_int_equal(job_cancel(g.job[0], true, NULL), 0);
    assert_null(try_start(&g, 2, 0, 0, false, &err));
    assert_int_equal(error_get_errno(err), EBUSY);
    assert_non_null(strstr(error_get_pretty(err), "'c' comes too late"));
    error_free(err);
    assert_int_equal(status_of(g.job[1]), JOB_STATUS_WAITING);
    job_txn_unref(g.txn);
    assert_int_equal(status_of(g.job[1]), JOB_STATUS_CONCLUDED);
    group_end(&g, -ECANCELED, -ECANCELED);

    group_begin(&g, true); /* all done before */
    start_job(&g, 0, 0, 0);
    run_until(&g, 0, JOB_STATUS_WAITING);
    job_txn_unref(g.txn);
    assert_int_equal(status_of(g.job[0]), JOB_STATUS_CONCLUDED);
    group_end(&g, 0, 0);

    group_begin(&g, true); /* none came */
    job_txn_unref(g.txn);
    group_end(&g, 0, 0);
}

/* By themselves they know nothing of each other. */
static void test_apart(void **state)
{
    struct group g;

    group_begin(&g, false);
    for (unsigned i = 0; i < JOBS; i++) {
        start_job(&g, i, 0, MIB);
    }
    assert_int_equal(job_cancel(g.job[0], true, NULL), 0);
    group_end(&g, -ECANCELED, 0);
}

/* ---- speed ---- */

static double seconds_since(struct group *g, int64_t start_ns)
{
    return (double)(sim_world_now_ns(g->env.world) - start_ns) / 1e9;
}

static void assert_took(struct group *g, int64_t start_ns, double expected)
{
    double seconds = seconds_since(g, start_ns);

    if (seconds < expected * 0.98 || seconds > expected * 1.02) {
        fail_msg("%.3f seconds instead of %.3f", seconds, expected);
    }
}

static void test_speed(void **state)
{
    static const uint64_t speeds[] = {1, 15, 1234567, 4 * MIB - 1, UINT64_C(1) << 31};
    struct group g;

    for (size_t i = 0; i < sizeof(speeds) / sizeof(speeds[0]); i++) {
        int64_t start;
        double expected = (double)DISK_BYTES / (double)speeds[i];

        group_begin(&g, false);
        start = sim_world_now_ns(g.env.world);
        start_job(&g, 0, 0, speeds[i]);
        run_until(&g, 0, JOB_STATUS_CONCLUDED);
        if (expected > 2) {
            assert_took(&g, start, expected);
        } else {
            assert_true(seconds_since(&g, start) < 0.05); /* waits of the limit are no shorter */
        }
        group_end(&g, 0, 0);
    }
}

/* Pauses do not shorten what is to be waited; another speed holds from then on. */
static void test_speed_disturbed(void **state)
{
    struct group g;
    int64_t start;

    group_begin(&g, false);
    start = sim_world_now_ns(g.env.world);
    start_job(&g, 0, 0, MIB);
    while (status_of(g.job[0]) != JOB_STATUS_CONCLUDED) {
        if (job_pause(g.job[0], NULL) == 0) {
            run_until(&g, 0, JOB_STATUS_PAUSED);
            assert_int_equal(job_resume(g.job[0], NULL), 0);
        }
        for (unsigned i = 0; i < 4; i++) {
            aio_poll(g.env.ctx, false);
        }
        sim_world_advance_ns(g.env.world, 40000000);
    }
    assert_took(&g, start, 8);
    group_end(&g, 0, 0);

    group_begin(&g, false);
    start = sim_world_now_ns(g.env.world);
    start_job(&g, 0, 0, 1); /* the first piece would take a month */
    assert_int_equal(job_set_speed(g.job[0], 3 * MIB, NULL), 0);
    run_until(&g, 0, JOB_STATUS_CONCLUDED);
    assert_took(&g, start, 2); /* what was sent before is not counted any more */
    group_end(&g, 0, 0);

    group_begin(&g, false);
    start = sim_world_now_ns(g.env.world);
    start_job(&g, 0, 0, 1);
    assert_int_equal(job_cancel(g.job[0], true, NULL), 0);
    run_until(&g, 0, JOB_STATUS_CONCLUDED);
    assert_true(seconds_since(&g, start) < 0.01);
    group_end(&g, -ECANCELED, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_success),  cmocka_unit_test(test_cancel_one),
        cmocka_unit_test(test_finalize), cmocka_unit_test(test_last_step_fails),
        cmocka_unit_test(test_too_late), cmocka_unit_test(test_apart),
        cmocka_unit_test(test_speed),    cmocka_unit_test(test_speed_disturbed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
