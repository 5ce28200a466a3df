/* SPDX-License-Identifier: MIT */
/*
 * Verbs at random on several jobs of all kinds, alone and in transactions, with storage that fails
 * now and then, until all have ended or the instance does. Each verb is answered as the state that
 * the job is in demands, each state follows from the one before, and afterwards the disks read as
 * they did. PLATTER_SEED=N runs one seed, PLATTER_OPS=N so many verbs of each.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/image.h>

#include "kind.h"

#define SEEDS 60
#define JOBS 6
#define OPS 1000

enum { TOP, NEW, DISK, PLAIN }; /* disks: of a rebase, its new base, one to amend, a raw one */

struct test {
    struct kind_env env;
    struct sim_rng rng;
    BlockBackend *mem[3]; /* from 0 to 1, or to 2 */
    JobTxn *txn;
    char last[JOBS][16]; /* state of each job as it was told last; empty: none */
    unsigned started, ended;
    bool wrong; /* an order of states */
};

static uint64_t pick(struct test *t, uint64_t n)
{
    return sim_rng_below(&t->rng, n);
}

/* ---- the disks ---- */

static void build_image(struct kind_env *env, uint8_t *guest, const char *path, const char *options,
                        uint64_t skip)
{
    BlockBackend *blk;

    kind_create(env, path, options);
    blk = kind_open(env, path, "qcow2", BDRV_O_RDWR);
    for (uint64_t i = 0; i < KIND_DISK_BYTES; i += skip) {
        kind_fill_guest(blk, guest, i, 4096, (int)(i / 4096 + 1));
    }
    blk_unref(blk);
}

static void build(struct kind_env *env, uint8_t *guest)
{
    static const char *const raw[] = {"/sim/old", "/sim/new", "/sim/plain"};

    for (size_t i = 0; i < 3; i++) {
        BlockBackend *blk;

        assert_int_equal(sim_world_add_file(env->world, raw[i], KIND_DISK_BYTES, NULL), 0);
        blk = kind_open(env, raw[i], "raw", BDRV_O_RDWR);
        kind_fill(blk, 0, 131072, i == 1 ? 0x22 : 0x11);
        blk_unref(blk);
    }
    memset(guest, 0x11, 131072);
    build_image(env, guest, "/sim/top",
                "driver=qcow2,size=262144,cluster_size=4096,backing_file=old,backing_fmt=raw",
                16384);
    build_image(env, guest, "/sim/disk",
                "driver=qcow2,size=262144,cluster_size=4096,backing_file=old,backing_fmt=raw",
                16384);
}

static void open_disks(struct kind_env *env)
{
    env->blk[TOP] = kind_open(env, "/sim/top", "qcow2", BDRV_O_RDWR);
    env->blk[NEW] = kind_open(env, "/sim/new", "raw", 0);
    env->blk[DISK] = kind_open(env, "/sim/disk", "qcow2", BDRV_O_RDWR | BDRV_O_NO_BACKING);
    env->blk[PLAIN] = kind_open(env, "/sim/plain", "raw", BDRV_O_RDWR);
    assert_int_equal(blk_set_perm(env->blk[PLAIN], 0, BDRV_PERM_ALL, NULL), 0);
}

static void check(struct kind_env *env, bool success, const uint8_t *guest)
{
    kind_expect(env, "/sim/top", "qcow2", guest, KIND_DISK_BYTES);
    kind_expect(env, "/sim/disk", "qcow2", guest, KIND_DISK_BYTES);
}

/* ---- the order of states, as platter/job.h draws it ---- */

static bool may_follow(const char *from, const char *to)
{
    static const char *const order[][2] = {
        {"", "created"},          {"created", "running"},    {"running", "paused"},
        {"paused", "running"},    {"running", "waiting"},    {"waiting", "pending"},
        {"pending", "concluded"}, {"aborting", "concluded"}, {"concluded", "null"},
    };

    if (strcmp(to, "aborting") == 0) {
        return from[0] != '\0' && strcmp(from, "aborting") != 0 && strcmp(from, "concluded") != 0;
    }
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        if (strcmp(order[i][0], from) == 0 && strcmp(order[i][1], to) == 0) {
            return true;
        }
    }
    return false;
}

static void heard(struct kind_env *env, const char *id, const char *status)
{
    struct test *t = env->opaque;
    char *last = t->last[id[1] - '0'];

    if (!may_follow(last, status)) {
        fprintf(stderr, "%s: %s after %s\n", id, status, last);
        t->wrong = true;
    }
    if (strcmp(status, "null") == 0) {
        last[0] = '\0';
        t->ended++;
    } else {
        snprintf(last, sizeof(t->last[0]), "%s", status);
    }
    t->started += strcmp(status, "created") == 0; /* also for one that is refused then */
}

static const struct kind all_kinds = {
    .files = {"/sim/old", "/sim/new", "/sim/top", "/sim/disk", "/sim/plain"},
    .build = build,
    .open = open_disks,
    .heard = heard,
    .check = check,
};

/* ---- verbs ---- */

static Job *start_commit(struct test *t, const struct job_start *start, Error **errp)
{
    struct job_commit_options options = {
        .size = sizeof(options),
        .layers = &t->mem[0],
        .layers_count = 1,
        .base = t->mem[1 + pick(t, 2)],
        .bytes_per_second = pick(t, 2) * (1 + pick(t, 1 << 20)),
        .empty_top = pick(t, 8) == 0, /* fails in the end */
    };

    return job_commit_start(t->env.pl, start, &options, errp);
}

static Job *start_rebase(struct test *t, const struct job_start *start, Error **errp)
{
    bool back = pick(t, 2) == 0; /* the image says the other name again */
    struct job_rebase_options options = {
        .size = sizeof(options),
        .overlay = t->env.blk[TOP],
        .base = t->env.blk[NEW],
        .backing_file = back ? "old" : "new",
        .backing_format = "raw",
        .bytes_per_second = pick(t, 2) * (1 + pick(t, 1 << 20)),
        .on_error = (enum job_on_error)pick(t, 4),
    };

    if (back) { /* nothing is copied: what differs has been, or the image is as it was */
        options.unsafe = true;
        options.backing_file = bdrv_get_backing_file(blk_bs(t->env.blk[TOP]));
    }
    return job_rebase_start(t->env.pl, start, &options, errp);
}

static void try_start(struct test *t, unsigned i)
{
    char id[3] = {'j', (char)('0' + i), '\0'};
    bool join = t->txn != NULL && pick(t, 2) == 0;
    struct job_start start = {.id = id, .flags = (unsigned)pick(t, 4), .txn = join ? t->txn : NULL};
    BlockOptions *options;
    Error *err = NULL;
    Job *job;

    switch (pick(t, 4)) {
    case 0:
        job = start_commit(t, &start, &err);
        break;
    case 1:
        job = start_rebase(t, &start, &err);
        break;
    case 2:
        options = block_options_parse(pick(t, 2) ? "lazy_refcounts=on" : "lazy_refcounts=off", NULL,
                                      NULL);
        job = job_amend_start(t->env.pl, &start, blk_bs(t->env.blk[DISK]), options, false, &err);
        break;
    default:
        options = block_options_parse("driver=qcow2,size=65536", NULL, NULL);
        job = job_create_start(t->env.pl, &start, NULL,
                               bdrv_get_node_name(blk_bs(t->env.blk[PLAIN])), options, &err);
    }
    assert_int_equal(job == NULL, err != NULL);
    error_free(err);
}

static bool working(const struct job_info *info)
{
    return info->status == JOB_STATUS_RUNNING || info->status == JOB_STATUS_PAUSED;
}

/* What the state says, the verb must say too. */
static void try_verb(struct test *t, Job *job)
{
    struct job_info info;
    bool ok;
    int ret;

    job_get_info(job, &info);
    switch (pick(t, 8)) {
    case 0:
        ok = working(&info) && !info.user_paused;
        ret = job_pause(job, NULL);
        break;
    case 1:
    case 2:
        ok = working(&info) && info.user_paused;
        ret = job_resume(job, NULL);
        break;
    case 3:
        ok = working(&info) || info.status == JOB_STATUS_WAITING ||
             info.status == JOB_STATUS_PENDING;
        ret = job_cancel(job, pick(t, 2) == 0, NULL);
        break;
    case 4:
        ok = false; /* no kind becomes ready */
        ret = job_complete(job, NULL);
        break;
    case 5:
        ok = info.status == JOB_STATUS_PENDING;
        ret = job_finalize(job, NULL);
        break;
    case 6:
        ok = info.status == JOB_STATUS_CONCLUDED;
        ret = job_dismiss(job, NULL);
        break;
    default:
        ok = working(&info);
        ret = job_set_speed(job, pick(t, 2) * (1 + pick(t, 1 << 20)), NULL);
    }
    assert_int_equal(ret, ok ? 0 : -EPERM);
}

static void faults(struct test *t)
{
    struct sim_rule rule = {
        .calls = pick(t, 2) ? SIM_CALLS(SIM_CALL_READ) : SIM_CALLS(SIM_CALL_WRITE),
        .nth = 1 + pick(t, 5),
        .error = pick(t, 2) ? EIO : ENOSPC,
    };

    sim_faults_clear(sim_world_faults(t->env.world));
    if (pick(t, 2)) {
        sim_faults_add(sim_world_faults(t->env.world), &rule);
    }
}

static void one_op(struct test *t)
{
    unsigned i = (unsigned)pick(t, JOBS);
    char id[3] = {'j', (char)('0' + i), '\0'};
    Job *job = job_by_id(t->env.pl, id);

    switch (pick(t, 16)) {
    case 0:
        faults(t);
        break;
    case 1:
        if (t->txn == NULL) {
            t->txn = job_txn_new(t->env.pl);
        } else {
            job_txn_unref(t->txn);
            t->txn = NULL;
        }
        break;
    case 2:
    case 3:
        aio_poll(t->env.ctx, false);
        break;
    case 4:
        sim_world_advance_ns(t->env.world, (int64_t)pick(t, 1000000000));
        break;
    default:
        if (job == NULL) {
            try_start(t, i);
        } else {
            try_verb(t, job);
        }
    }
}

/* The user ends all of them in order. */
static void end_all(struct test *t)
{
    Job *job;

    while ((job = job_next(t->env.pl, NULL)) != NULL) {
        for (; job != NULL; job = job_next(t->env.pl, job)) {
            struct job_info info;

            job_get_info(job, &info);
            if (info.user_paused && working(&info)) {
                assert_int_equal(job_resume(job, NULL), 0);
            } else if (info.status == JOB_STATUS_PENDING) {
                assert_int_equal(job_finalize(job, NULL), 0);
                break; /* others may be gone with it */
            } else if (info.status == JOB_STATUS_CONCLUDED) {
                assert_int_equal(job_dismiss(job, NULL), 0);
                break;
            } else if (info.speed > 0 && working(&info)) {
                assert_int_equal(job_set_speed(job, 0, NULL), 0);
            }
        }
        aio_poll(t->env.ctx, false);
        sim_world_advance_ns(t->env.world, 10000000);
    }
}

static void run_seed(const struct kind_model *model, uint64_t seed, unsigned ops)
{
    struct test t = {0};

    sim_rng_init(&t.rng, seed);
    kind_begin(&t.env, model, NULL);
    t.env.opaque = &t;
    for (size_t i = 0; i < 3; i++) {
        BlockOptions *options = block_options_parse("driver=mem,size=4M", NULL, NULL);
        char name[4] = {'m', (char)('0' + i), '\0'};

        t.mem[i] = blk_new_open(t.env.pl, name, NULL, NULL, options, BDRV_O_RDWR, NULL);
        assert_non_null(t.mem[i]);
    }
    kind_fill(t.mem[0], 0, 3 << 20, 0x33);
    for (unsigned i = 0; i < ops && !t.wrong; i++) {
        one_op(&t);
    }
    job_txn_unref(t.txn);
    sim_faults_clear(sim_world_faults(t.env.world));
    if (seed % 2 == 0) {
        end_all(&t);
        for (size_t i = 0; i < 3; i++) {
            blk_unref(t.mem[i]);
        }
        kind_end(&t.env, model, false);
    } else {
        kind_quit(&t.env, model, false); /* with jobs in all states */
    }
    assert_int_equal(t.started, t.ended);
    assert_false(t.wrong);
}

static void test_random(void **state)
{
    const char *given = getenv("PLATTER_SEED");
    const char *ops = getenv("PLATTER_OPS");
    unsigned n = ops != NULL ? (unsigned)strtoul(ops, NULL, 10) : OPS;

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t s = given != NULL ? strtoull(given, NULL, 10) : seed;

        printf("PLATTER_SEED=%llu\n", (unsigned long long)s);
        run_seed(*state, s, n);
        if (given != NULL) {
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

    return kind_run_tests("random", tests, &all_kinds);
}
