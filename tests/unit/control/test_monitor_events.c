/* SPDX-License-Identifier: MIT */
/* Events of QMP sessions: what they look like, from which thread, and when nobody reads them. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "monitor_fixture.h"

static void test_events_pile_up(void **state)
{
    char data[1000];

    monitor_open_a(false);
    client_open(&b, &control, false);
    client_talk(&b, CAPS, OK);
    memset(data, 'x', sizeof(data) - 1);
    data[sizeof(data) - 1] = '\0';
    for (int i = 0; i < 2000; i++) {
        char *text;

        monitors_event(control.all, "MORE", json_pack("{s:s}", "data", data));
        session_run(&control);
        text = client_read(&b);
        assert_true(strlen(text) > 1000);
        free(text);
    }
    assert_int_equal(a.overs, 1); /* dropped */
    assert_int_equal(b.overs, 0);
    assert_int_equal(monitors_events_lost(control.all), 0);
    close(a.fd);
    monitor_end(&b);
}

static void strip_time(char *text)
{
    char *at = text;

    while ((at = strstr(at, "\"timestamp\": {")) != NULL) {
        char *stop = strchr(at, '}') + 3;

        memmove(at, stop, strlen(stop) + 1);
    }
}

static void expect_events(struct client *client, const char *expected)
{
    char *text;

    session_run(&control);
    text = client_read(client);
    strip_time(text);
    assert_string_equal(text, expected);
    free(text);
}

/* To every session that has negotiated, and before the reply of the command that raised it. */
static void test_events(void **state)
{
    monitor_open_a(false);
    client_open(&b, &control, false);
    client_open(&c, &control, false);
    client_talk(&b, CAPS, OK);
    client_write(&a, "{\"execute\":\"event\",\"arguments\":{\"n\":1}}");
    expect_events(&a, "{\"event\": \"NOTED\", \"data\": {\"n\": 1}}\n" OK);
    expect_events(&b, "{\"event\": \"NOTED\", \"data\": {\"n\": 1}}\n");
    client_expect(&c, "");
    monitor_end(&a);
    monitor_end(&b);
    monitor_end(&c);
}

static void test_platter_events(void **state)
{
    static const struct {
        struct platter_event event;
        const char *expected;
    } cases[] = {
        {{.type = PLATTER_EVENT_STOP}, "{\"event\": \"STOP\"}\n"},
        {{.type = PLATTER_EVENT_RESUME}, "{\"event\": \"RESUME\"}\n"},
        {{.type = PLATTER_EVENT_DEVICE_TRAY_MOVED, .u.tray_moved = {"cd0", true}},
         "{\"event\": \"DEVICE_TRAY_MOVED\", \"data\": {\"device\": \"cd0\", "
         "\"tray-open\": true, \"id\": \"cd0\"}}\n"},
        {{.type = PLATTER_EVENT_NODE_BROKEN, .u.node_broken = {"n", "why\xff"}},
         "{\"event\": \"NODE_BROKEN\", \"data\": {\"node-name\": \"n\", \"reason\": "
         "\"why\\uFFFD\"}}\n"},
        {{.type = PLATTER_EVENT_IMAGE_CORRUPTED,
          .u.image_corrupted = {"n", "bad", 65536, 512, true}},
         "{\"event\": \"BLOCK_IMAGE_CORRUPTED\", \"data\": {\"device\": \"\", \"msg\": "
         "\"bad\", \"offset\": 65536, \"node-name\": \"n\", \"fatal\": true, \"size\": 512}}\n"},
        {{.type = PLATTER_EVENT_IMAGE_CORRUPTED,
          .u.image_corrupted = {"n", "bad", UINT64_MAX, 0, false}},
         "{\"event\": \"BLOCK_IMAGE_CORRUPTED\", \"data\": {\"device\": \"\", \"msg\": "
         "\"bad\", \"node-name\": \"n\", \"fatal\": false}}\n"},
        {{.type = PLATTER_EVENT_BLOCK_IO_ERROR,
          .u.io_error = {"d", "n", "stop", "No space left on device", false, true, true}},
         "{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"device\": \"d\", \"nospace\": true, "
         "\"node-name\": \"n\", \"reason\": \"No space left on device\", \"operation\": "
         "\"write\", \"action\": \"stop\"}}\n"},
        {{.type = PLATTER_EVENT_BLOCK_IO_ERROR,
          .u.io_error = {"d", "", "report", "x", true, false, false}},
         "{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"device\": \"d\", \"reason\": \"x\", "
         "\"operation\": \"read\", \"action\": \"report\"}}\n"},
        {{.type = PLATTER_EVENT_JOB_STATUS_CHANGE, .u.job = {"j", "create", "running"}},
         "{\"event\": \"JOB_STATUS_CHANGE\", \"data\": {\"status\": \"running\", \"id\": "
         "\"j\"}}\n"},
        {{.type = PLATTER_EVENT_JOB_ERROR, .u.job_error = {"j", "ignore", true}},
         "{\"event\": \"BLOCK_JOB_ERROR\", \"data\": {\"device\": \"j\", \"operation\": "
         "\"read\", \"action\": \"ignore\"}}\n"},
    };
    static const struct platter_event unnamed[] = {
        {.type = PLATTER_EVENT_IMAGE_WARNING, .u.image_warning = {"n", "what", true}},
        {.type = PLATTER_EVENT_REQUEST_SUSPENDED, .u.breakpoint = {"n", "tag"}},
        {.type = PLATTER_EVENT_REQUEST_RESUMED, .u.breakpoint = {"n", "tag"}},
    };

    monitor_open_a(false);
    for (size_t i = 0; i < sizeof(unnamed) / sizeof(unnamed[0]); i++) {
        monitors_platter_event(control.all, &unnamed[i]); /* QMP has no event of it */
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        monitors_platter_event(control.all, &cases[i].event);
        expect_events(&a, cases[i].expected);
    }
    monitor_end(&a);
}

/* ---- events from threads ---- */

enum { THREADS = 4, EVENTS = 200 };

static void *raise_events(void *opaque)
{
    int thread = *(int *)opaque;

    for (int i = 0; i < EVENTS; i++) {
        monitors_event(control.all, "COUNT", json_pack("{s:i, s:i}", "t", thread, "i", i));
    }
    return NULL;
}

static void test_events_from_threads(void **state)
{
    pthread_t threads[THREADS];
    int numbers[THREADS], next[THREADS] = {0}, left = THREADS * EVENTS;
    char *line, *text = calloc(1, 1);

    assert_non_null(text);
    monitor_open_a(false);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, raise_events, &numbers[i]), 0);
    }
    while (left > 0) {
        char *more, *joined;

        aio_poll(control.ctx, true);
        more = client_read(&a);
        assert_true(asprintf(&joined, "%s%s", text, more) >= 0);
        free(more);
        free(text);
        text = joined;
        left = THREADS * EVENTS;
        for (line = text; (line = strchr(line, '\n')) != NULL; line++) {
            left--;
        }
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        int thread, i;

        assert_int_equal(sscanf(strstr(line, "\"t\""), "\"t\": %d", &thread), 1);
        assert_int_equal(sscanf(strstr(line, "\"i\""), "\"i\": %d", &i), 1);
        assert_in_range(thread, 0, THREADS - 1);
        assert_int_equal(i, next[thread]++); /* each thread's in order, none lost, none twice */
    }
    free(text);
    monitor_end(&a);
}

/* While the loop does not run, what is queued stays bounded; the newest stay. */
static void test_event_queue_is_bounded(void **state)
{
    char *text;
    char first[200];
    int last = 0;

    monitor_open_a(false);
    for (int i = 1; i <= 30000; i++) {
        monitors_event(control.all, "COUNT", json_pack("{s:i}", "i", i));
    }
    assert_in_range(monitors_events_lost(control.all), 1, 29999);
    snprintf(first, sizeof(first), "\"event\": \"EVENTS_LOST\", \"data\": {\"count\": %d}}\n",
             (int)monitors_events_lost(control.all));
    for (;;) {
        aio_poll(control.ctx, false);
        text = client_read(&a);
        if (last == 0) {
            assert_non_null(strstr(text, first)); /* once, in front */
            assert_true(strstr(text, first) < strstr(text, "COUNT"));
        }
        assert_ptr_equal(strstr(text, "EVENTS_LOST"), last == 0 ? strstr(text, first) + 10 : NULL);
        if (text[0] == '\0') {
            free(text);
            break;
        }
        for (char *at = text; (at = strstr(at, "\"i\": ")) != NULL; at++) {
            sscanf(at, "\"i\": %d", &last);
        }
        free(text);
    }
    assert_int_equal(last, 30000);
    monitor_end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_events_pile_up),         TEST(test_events),
        TEST(test_platter_events),         TEST(test_events_from_threads),
        TEST(test_event_queue_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
