/* SPDX-License-Identifier: MIT */
/* Leaky buckets over time, and groups whose members share them, on the simulated clock. */
#include "../cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/throttle.h"
#include "fake.h"
#include "os/sim/sim_os.h"

#define SECOND INT64_C(1000000000)
#define REQUEST 4096u

/* ---- buckets ---- */

static struct throttle_config config_of(int bucket, uint64_t avg, uint64_t max, uint64_t length)
{
    struct throttle_config c = {.size = sizeof(c)};

    c.limits[bucket] = (struct throttle_limit){.avg = avg, .max = max, .max_length_s = length};
    return c;
}

/* Units (bytes or requests) that pass in some seconds when there is always one more to send. */
static double passed_in(const struct throttle_config *c, bool is_write, bool in_bytes,
                        uint64_t bytes, double seconds)
{
    struct throttle_state ts;
    int64_t now = 12345;
    int64_t end = now + (int64_t)(seconds * 1e9);
    double units = 0;

    throttle_state_init(&ts, c, now);
    for (;;) {
        int64_t wait = throttle_wait_ns(&ts, is_write, now);

        now += wait;
        if (now >= end) {
            return units;
        }
        throttle_account(&ts, is_write, bytes, now);
        units += in_bytes ? (double)bytes : 1;
    }
}

static void near(double got, double want, double tolerance)
{
    if (got < want * (1 - tolerance) || got > want * (1 + tolerance)) {
        fail_msg("%f is not within %g of %f", got, tolerance, want);
    }
}

/* Each bucket in the long run; the short burst at the beginning is part of it. */
static void test_rates(void **state)
{
    static const uint64_t rates[] = {3, 100, 1000, 123457, 5000000};

    for (int bucket = 0; bucket < THROTTLE_BUCKETS; bucket++) {
        bool in_bytes = bucket <= THROTTLE_BPS_WRITE;
        bool is_write = bucket == THROTTLE_BPS_WRITE || bucket == THROTTLE_OPS_WRITE;

        for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
            struct throttle_config c =
                config_of(bucket, in_bytes ? rates[i] * REQUEST : rates[i], 0, 0);
            double rate = (double)c.limits[bucket].avg;

            near(passed_in(&c, is_write, in_bytes, REQUEST, 20), rate * 20, 0.02);
        }
    }
}

static void test_other_direction_is_free(void **state)
{
    struct throttle_config c = config_of(THROTTLE_OPS_WRITE, 1, 0, 0);
    struct throttle_state ts;

    throttle_state_init(&ts, &c, 0);
    assert_true(throttle_limits(&ts, true));
    assert_false(throttle_limits(&ts, false));
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(throttle_wait_ns(&ts, false, 0), 0);
        throttle_account(&ts, false, REQUEST, 0);
    }
}

/* max without a length: so many at once, then avg. */
static void test_burst(void **state)
{
    struct throttle_config c = config_of(THROTTLE_OPS_TOTAL, 100, 2000, 1);

    near(passed_in(&c, false, false, REQUEST, 0.001), 2000, 0.02);
    near(passed_in(&c, false, false, REQUEST, 20), 2000 + 20 * 100, 0.02);
}

/* 2000 a second for 10 seconds, then 100. */
static void test_long_burst(void **state)
{
    struct throttle_config c = config_of(THROTTLE_OPS_TOTAL, 100, 2000, 10);

    near(passed_in(&c, false, false, REQUEST, 1), 2000 + 200, 0.02);
    near(passed_in(&c, false, false, REQUEST, 5), 5 * 2000 + 200, 0.02);
    near(passed_in(&c, false, false, REQUEST, 60), 2000 * 10 + 60 * 100, 0.02);
}

static void test_operation_size(void **state)
{
    struct throttle_config c = config_of(THROTTLE_OPS_TOTAL, 1000, 0, 0);

    c.ops_unit_bytes = 4096;
    near(passed_in(&c, false, false, 16384, 20), 250 * 20, 0.02);
    near(passed_in(&c, false, false, 512, 20), 1000 * 20, 0.02);
    near(passed_in(&c, false, false, 6144, 20), 1000 * 20 / 1.5, 0.02);
}

/* A request larger than the bucket is late, not refused. */
static void test_huge_request(void **state)
{
    struct throttle_config c = config_of(THROTTLE_BPS_TOTAL, 1000, 0, 0);
    struct throttle_state ts;

    throttle_state_init(&ts, &c, 0);
    assert_int_equal(throttle_wait_ns(&ts, true, 0), 0);
    throttle_account(&ts, true, 1000000, 0);
    near((double)throttle_wait_ns(&ts, true, 0), 1000 * 1e9, 0.02);
    throttle_account(&ts, true, UINT64_MAX, 0);
    throttle_account(&ts, true, UINT64_MAX, 0); /* no overflow */
    assert_true(throttle_wait_ns(&ts, true, 0) > 0);
}

static void test_config(void **state)
{
    static const struct {
        int bucket;
        struct throttle_limit l;
        int with; /* another bucket with avg 1; -1: none */
        uint64_t unit;
        const char *says; /* NULL: fine */
    } rows[] = {
        {THROTTLE_BPS_TOTAL, {1000, 0, 0}, -1, 0, NULL},
        {THROTTLE_BPS_TOTAL, {1000, 2000, 60}, THROTTLE_OPS_READ, 4096, NULL},
        {THROTTLE_BPS_TOTAL,
         {1000, 0, 0},
         THROTTLE_BPS_READ,
         0,
         "bps/iops/max total values and read/write values cannot be used at the same time"},
        {THROTTLE_BPS_TOTAL,
         {1000, 500, 0},
         -1,
         0,
         "bps_max/iops_max cannot be lower than bps/iops"},
        {THROTTLE_BPS_TOTAL,
         {0, 500, 0},
         -1,
         0,
         "bps_max/iops_max require corresponding bps/iops values"},
        {THROTTLE_BPS_TOTAL, {1000, 0, 5}, -1, 0, "burst length set without burst rate"},
        {THROTTLE_BPS_TOTAL,
         {1, THROTTLE_VALUE_MAX, 3},
         -1,
         0,
         "burst length too high for this burst rate"},
        {THROTTLE_BPS_TOTAL,
         {THROTTLE_VALUE_MAX + 1, 0, 0},
         -1,
         0,
         "bps/iops/max values must be within [0, 1000000000000000]"},
        {THROTTLE_BPS_TOTAL, {1000, 0, 0}, -1, 512, "iops size requires an iops value to be set"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct throttle_config c = {.size = sizeof(c), .ops_unit_bytes = rows[i].unit};
        Error *err = NULL;

        c.limits[rows[i].bucket] = rows[i].l;
        if (rows[i].with >= 0) {
            c.limits[rows[i].with].avg = 1;
        }
        assert_int_equal(throttle_config_check(&c, &err), rows[i].says != NULL ? -EINVAL : 0);
        if (rows[i].says != NULL) {
            assert_string_equal(error_get_pretty(err), rows[i].says);
        }
        error_free(err);
    }
}

/* ---- groups ---- */

#define MEMBERS 4
#define DEPTH 8

struct world {
    struct sim_world *sim;
    AioContext *ctx;
    Platter *pl;
    ThrottleGroup *group;
    struct throttle_member members[MEMBERS];
};

struct sender {
    struct world *w;
    struct throttle_member *member;
    bool is_write;
    int64_t end_ns;
    unsigned passed;
    unsigned *running;
    unsigned failed;
    struct throttle_cancel *cancel;
    int64_t pace_ns; /* between requests, where no limit may be in force */
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct aio_context_options ao = {.size = sizeof(ao), .engine = AIO_ENGINE_THREADS};
    struct platter_options po = {.size = sizeof(po)};

    w->sim = sim_world_new(7);
    os_replace(sim_os_table(w->sim));
    w->ctx = aio_context_new(&ao, NULL);
    po.main_context = w->ctx;
    w->pl = platter_new(&po, NULL);
    assert_non_null(w->pl);
    w->group = throttle_group_get(w->pl, "g", NULL);
    for (int i = 0; i < MEMBERS; i++) {
        throttle_member_init(&w->members[i]);
        throttle_member_join(&w->members[i], w->group);
    }
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    for (int i = 0; i < MEMBERS; i++) {
        throttle_member_leave(&w->members[i]);
    }
    throttle_group_unref(w->group);
    platter_free(w->pl);
    aio_context_unref(w->ctx);
    os_replace(NULL);
    sim_world_free(w->sim);
    free(w);
    return 0;
}

static void set_limit(struct world *w, int bucket, uint64_t avg)
{
    struct throttle_config c = config_of(bucket, avg, 0, 0);

    assert_int_equal(throttle_group_set_config(w->group, &c, NULL), 0);
}

static void sender_entry(void *opaque)
{
    struct sender *s = opaque;

    while (sim_world_now_ns(s->w->sim) < s->end_ns) {
        if (throttle_member_wait_co(s->member, s->is_write, REQUEST, s->cancel) < 0) {
            s->failed++;
            break;
        }
        s->passed++;
        if (s->pace_ns != 0) {
            assert_int_equal(co_sleep_ns(s->pace_ns), 0);
        }
    }
    --*s->running;
}

static void start(struct world *w, struct sender *s, unsigned *running, int64_t seconds)
{
    s->w = w;
    s->running = running;
    s->end_ns = sim_world_now_ns(w->sim) + seconds * SECOND;
    ++*running;
    coroutine_enter(coroutine_create(sender_entry, s));
}

static void finish(struct world *w, unsigned *running)
{
    while (*running > 0) {
        aio_poll(w->ctx, true);
    }
}

static void test_fair(void **state)
{
    struct world *w = *state;
    struct sender s[MEMBERS][DEPTH] = {0};
    unsigned running = 0;
    unsigned total = 0;

    set_limit(w, THROTTLE_OPS_TOTAL, 100);
    for (int m = 0; m < MEMBERS; m++) {
        for (int i = 0; i < (m == 0 ? DEPTH : 1 + m); i++) { /* one asks for much more */
            s[m][i].member = &w->members[m];
            start(w, &s[m][i], &running, 20);
        }
    }
    finish(w, &running);
    for (int m = 0; m < MEMBERS; m++) {
        unsigned of_member = 0;

        for (int i = 0; i < DEPTH; i++) {
            of_member += s[m][i].passed;
        }
        near(of_member, 20 * 100.0 / MEMBERS, 0.05);
        total += of_member;
    }
    near(total, 20 * 100, 0.02);
}

/* Reads and writes share a total bucket; both go on. */
static void test_directions(void **state)
{
    struct world *w = *state;
    struct sender s[2] = {{.member = &w->members[0]}, {.member = &w->members[1], .is_write = true}};
    unsigned running = 0;

    set_limit(w, THROTTLE_OPS_TOTAL, 100);
    start(w, &s[0], &running, 20);
    start(w, &s[1], &running, 20);
    finish(w, &running);
    near(s[0].passed + s[1].passed, 2000, 0.02);
    assert_true(s[0].passed > 400 && s[1].passed > 400);
}

static void test_change_while_waiting(void **state)
{
    struct world *w = *state;
    struct sender s = {.member = &w->members[0], .pace_ns = 1000};
    unsigned running = 0;
    const struct throttle_config none = {.size = sizeof(none)};

    set_limit(w, THROTTLE_BPS_TOTAL, 1); /* the second one waits for an hour */
    start(w, &s, &running, 10);
    assert_int_equal(s.passed, 1);
    set_limit(w, THROTTLE_BPS_TOTAL, 100 * REQUEST);
    sim_world_advance_ns(w->sim, SECOND);
    for (int i = 0; i < 10; i++) {
        aio_poll(w->ctx, false);
    }
    assert_true(s.passed > 1);
    assert_int_equal(throttle_group_set_config(w->group, &none, NULL), 0);
    s.end_ns = 0;
    finish(w, &running);
}

static void test_bypass(void **state)
{
    struct world *w = *state;
    struct sender s[2] = {{.member = &w->members[0]}, {.member = &w->members[1]}};
    unsigned running = 0;

    set_limit(w, THROTTLE_BPS_TOTAL, 1);
    start(w, &s[0], &running, 10);
    start(w, &s[1], &running, 10);
    s[0].end_ns = s[1].end_ns = 0;
    throttle_bypass_begin(&w->members[0]);
    while (running == 2) {
        aio_poll(w->ctx, true);
    }
    throttle_bypass_end(&w->members[0]);
    assert_int_equal(s[0].passed, 2);
    assert_int_equal(running, 1);
    throttle_bypass_begin(&w->members[1]);
    finish(w, &running);
    throttle_bypass_end(&w->members[1]);
}

static void test_cancel(void **state)
{
    struct world *w = *state;
    struct throttle_cancel cancel[3] = {0};
    struct sender s[3] = {0};
    unsigned running = 0;

    set_limit(w, THROTTLE_BPS_TOTAL, 1);
    for (int i = 0; i < 3; i++) {
        s[i].member = &w->members[i % 2];
        s[i].cancel = &cancel[i];
        start(w, &s[i], &running, 10);
    }
    assert_true(throttle_cancel_wait(s[1].member, &cancel[1])); /* behind the turn */
    assert_true(throttle_cancel_wait(s[0].member, &cancel[0])); /* has it */
    while (running > 1) {
        aio_poll(w->ctx, true);
    }
    assert_int_equal(s[0].failed + s[1].failed, 2);
    assert_true(throttle_cancel_wait(s[2].member, &cancel[2])); /* got it */
    finish(w, &running);
    assert_false(throttle_cancel_wait(s[2].member, &cancel[2]));
}

/* Nobody waits for ever, whatever limits come and go. */
static void test_random_changes(void **state)
{
    struct world *w = *state;
    struct sender s[MEMBERS][DEPTH] = {0};
    const struct throttle_config none = {.size = sizeof(none)};
    unsigned running = 0;
    const char *text = getenv("PLATTER_SEED");
    unsigned seed = text != NULL ? (unsigned)strtoul(text, NULL, 0) : 5;

    print_message("seed %u\n", seed);
    srand(seed);
    for (int m = 0; m < MEMBERS; m++) {
        for (int i = 0; i < DEPTH; i++) {
            s[m][i].member = &w->members[m];
            s[m][i].is_write = rand() % 2;
            s[m][i].pace_ns = 1000000;
            set_limit(w, THROTTLE_OPS_TOTAL, 50);
            start(w, &s[m][i], &running, 1000);
        }
    }
    for (int i = 0; i < 300 && running > 0; i++) {
        int m = rand() % MEMBERS;

        set_limit(w, rand() % THROTTLE_BUCKETS, 1 + (uint64_t)rand() % 1000);
        if (rand() % 8 == 0) {
            throttle_bypass_begin(&w->members[m]);
            aio_poll(w->ctx, false);
            throttle_bypass_end(&w->members[m]);
        }
        sim_world_advance_ns(w->sim, SECOND / 50);
        for (int j = 0; j < 4; j++) {
            aio_poll(w->ctx, false);
        }
    }
    for (int m = 0; m < MEMBERS; m++) {
        for (int i = 0; i < DEPTH; i++) {
            s[m][i].end_ns = 0;
        }
    }
    assert_int_equal(throttle_group_set_config(w->group, &none, NULL), 0);
    finish(w, &running);
}

static void test_registry(void **state)
{
    struct world *w = *state;
    ThrottleGroup *again = throttle_group_get(w->pl, "g", NULL);
    ThrottleGroup *other = throttle_group_get(w->pl, "h", NULL);
    struct throttle_config c;

    assert_ptr_equal(again, w->group);
    assert_ptr_equal(throttle_group_find(w->pl, "h"), other);
    assert_ptr_equal(throttle_group_next(w->pl, again), other);
    assert_string_equal(throttle_group_name(other), "h");
    throttle_group_unref(other);
    assert_null(throttle_group_find(w->pl, "h"));
    throttle_group_unref(again);
    set_limit(w, THROTTLE_OPS_READ, 77);
    throttle_group_get_config(w->group, &c);
    assert_int_equal(c.limits[THROTTLE_OPS_READ].avg, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_other_direction_is_free),
        cmocka_unit_test(test_burst),
        cmocka_unit_test(test_long_burst),
        cmocka_unit_test(test_operation_size),
        cmocka_unit_test(test_huge_request),
        cmocka_unit_test(test_config),
        cmocka_unit_test_setup_teardown(test_fair, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_change_while_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bypass, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_registry, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
