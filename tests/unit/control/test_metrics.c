/* SPDX-License-Identifier: MIT */
/* control/metrics.h: the text, without a socket. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/accounting.h>
#include <platter/backend.h>
#include <platter/block.h>
#include <platter/platter.h>

#include "cmocka_all.h"
#include "control/metrics.h"

struct world {
    Platter *pl;
    BlockBackend *blk;
    char *text;
    size_t bytes;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    w->pl = platter_new(NULL, NULL);
    w->blk = blk_new(w->pl, "disk.0", NULL);
    assert_non_null(w->blk);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    free(w->text);
    blk_unref(w->blk);
    platter_free(w->pl);
    free(w);
    return 0;
}

static const char *render(struct world *w)
{
    struct metrics_source source = {.pl = w->pl};

    free(w->text);
    assert_int_equal(metrics_render(&source, &w->text, &w->bytes), 0);
    assert_int_equal(strlen(w->text), w->bytes);
    return w->text;
}

static void has(struct world *w, const char *line)
{
    const char *at = strstr(w->text, line);

    if (!at || (at > w->text && at[-1] != '\n')) {
        fail_msg("no line begins with %s in\n%s", line, w->text);
    }
}

#define LABELS "{backend=\"disk.0\","

static void test_counts(void **state)
{
    struct world *w = *state;
    BlockAcctStats *stats = blk_get_stats(w->blk);
    BlockAcctCookie one, two, three;

    block_acct_start(stats, &one, 4096, BLOCK_ACCT_READ);
    block_acct_start(stats, &two, 512, BLOCK_ACCT_WRITE);
    block_acct_start(stats, &three, 1024, BLOCK_ACCT_READ);
    block_acct_done(stats, &one);
    block_acct_failed(stats, &two);
    block_acct_invalid(stats, BLOCK_ACCT_UNMAP);
    render(w);
    has(w, "platter_backend_operations_total" LABELS "type=\"read\"} 1\n");
    has(w, "platter_backend_bytes_total" LABELS "type=\"read\"} 4096\n");
    has(w, "platter_backend_failed_operations_total" LABELS "type=\"write\"} 1\n");
    has(w, "platter_backend_invalid_operations_total" LABELS "type=\"discard\"} 1\n");
    has(w, "platter_backend_in_flight" LABELS "type=\"read\"} 1\n");
    has(w, "platter_backend_time_seconds_total" LABELS "type=\"flush\"} 0.000000000\n");
    block_acct_done(stats, &three);
    render(w);
    has(w, "platter_backend_in_flight" LABELS "type=\"read\"} 0\n");
}

static void test_histogram_adds_up(void **state)
{
    struct world *w = *state;
    const uint64_t boundaries[] = {1, UINT64_C(3600000000000)};
    BlockAcctCookie cookie;

    assert_int_equal(
        block_latency_histogram_set(blk_get_stats(w->blk), BLOCK_ACCT_READ, boundaries, 2, NULL),
        0);
    for (int i = 0; i < 3; i++) {
        block_acct_start(blk_get_stats(w->blk), &cookie, 512, BLOCK_ACCT_READ);
        cookie.start_time_ns -= 1000; /* it took at least so long */
        block_acct_done(blk_get_stats(w->blk), &cookie);
    }
    render(w);
    has(w, "platter_backend_latency_seconds_bucket" LABELS "type=\"read\",le=\"0.000000001\"} 0\n");
    has(w,
        "platter_backend_latency_seconds_bucket" LABELS "type=\"read\",le=\"3600.000000000\"} 3\n");
    has(w, "platter_backend_latency_seconds_bucket" LABELS "type=\"read\",le=\"+Inf\"} 3\n");
    has(w, "platter_backend_latency_seconds_count" LABELS "type=\"read\"} 3\n");
    assert_null(strstr(w->text, "_bucket" LABELS "type=\"write\""));
}

#define DURATION "platter_backend_request_duration_seconds"

/* Of types that had a request, with the same bounds for all: those that add up. */
static void test_durations(void **state)
{
    struct world *w = *state;
    static const int64_t times[] = {0, 1023, 1024, 20000000000};
    BlockAcctCookie cookie;
    size_t lines = 0;

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        block_acct_start(blk_get_stats(w->blk), &cookie, 512, BLOCK_ACCT_READ);
        cookie.start_time_ns -= times[i]; /* the clock of the turn stands still */
        block_acct_done(blk_get_stats(w->blk), &cookie);
    }
    render(w);
    has(w, "# TYPE " DURATION " histogram\n");
    has(w, DURATION "_bucket" LABELS "type=\"read\",le=\"0.000001024\"} 2\n");
    has(w, DURATION "_bucket" LABELS "type=\"read\",le=\"0.000001536\"} 3\n");
    has(w, DURATION "_bucket" LABELS "type=\"read\",le=\"0.001048576\"} 3\n");
    has(w, DURATION "_bucket" LABELS "type=\"read\",le=\"17.179869184\"} 3\n");
    has(w, DURATION "_bucket" LABELS "type=\"read\",le=\"+Inf\"} 4\n");
    has(w, DURATION "_sum" LABELS "type=\"read\"} 20.000002047\n");
    has(w, DURATION "_count" LABELS "type=\"read\"} 4\n");
    for (const char *at = w->text; (at = strstr(at, DURATION "_bucket")) != NULL; at++) {
        lines++;
    }
    assert_int_equal(lines, 50); /* and so none of other types */
}

static void test_intervals(void **state)
{
    struct world *w = *state;

    assert_int_equal(block_acct_add_interval(blk_get_stats(w->blk), 60, NULL), 0);
    render(w);
    has(w, "platter_backend_interval_latency_seconds" LABELS
           "type=\"read\",figure=\"max\",interval=\"60s\"} 0.000000000\n");
    has(w, "platter_backend_interval_queue_depth" LABELS
           "type=\"write\",interval=\"60s\"} 0.000000\n");
}

/* A line is a comment or "name{labels} number"; the samples of a metric stand together. */
static void test_shape(void **state)
{
    struct world *w = *state;
    BlockBackend *second = blk_new(w->pl, "second", NULL);
    char *save = NULL;
    char current[100] = "";

    render(w);
    has(w, "platter_build_info{version=\"");
    for (char *line = strtok_r(w->text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "# TYPE ", 7) == 0) {
            snprintf(current, sizeof(current), "%.*s", (int)strcspn(line + 7, " "), line + 7);
        } else if (line[0] != '#') {
            size_t n = strcspn(line, "{ ");

            assert_true(n >= strlen(current));
            assert_memory_equal(line, current, strlen(current));
            assert_non_null(strrchr(line, ' '));
        }
    }
    blk_unref(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_histogram_adds_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_durations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_intervals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shape, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
