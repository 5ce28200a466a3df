/* SPDX-License-Identifier: MIT */
/* One rule of a QMP session after the other. */
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
#include "session.h"

#define OK "{\"return\": {}}\n"
#define ERR(class, desc) "{\"error\": {\"class\": \"" class "\", \"desc\": \"" desc "\"}}\n"
#define NOT_YET ERR("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'")

static struct control control;
static struct client a, b, c;

static int setup(void **state)
{
    session_world_new(&control);
    return 0;
}

static int teardown(void **state)
{
    session_world_free(&control);
    return 0;
}

static void open_a(bool oob)
{
    client_open(&a, &control, false);
    client_talk(&a, oob ? CAPS_OOB : CAPS, OK);
}

static void end(struct client *client)
{
    client_close(client);
    assert_int_equal(client->overs, 1);
}

static void test_negotiation(void **state)
{
    client_open(&a, &control, false);
    client_talk(&a, "{\"execute\":\"echo\"}", NOT_YET);
    client_talk(&a, "{\"execute\":\"nonsense\",\"id\":1}",
                "{\"id\": 1, \"error\": {\"class\": \"CommandNotFound\", \"desc\": "
                "\"Expecting capabilities negotiation with 'qmp_capabilities'\"}}\n");
    client_talk(&a, "{\"exec-oob\":\"qmp_capabilities\"}",
                ERR("GenericError", "QMP input member 'exec-oob' is unexpected"));
    client_talk(&a, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"bad\"]}}",
                ERR("GenericError", "Parameter 'enable' does not accept value 'bad'"));
    client_talk(&a, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\",1]}}",
                ERR("GenericError", "Invalid parameter type for 'enable[1]', expected: string"));
    client_talk(&a, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":\"oob\"}}",
                ERR("GenericError", "Invalid parameter type for 'enable', expected: array"));
    client_talk(&a, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[],\"x\":1}}",
                ERR("GenericError", "Parameter 'x' is unexpected"));
    client_talk(&a, "{\"execute\":\"echo\"}", NOT_YET);
    client_talk(&a, CAPS, OK);
    client_talk(
        &a, CAPS "{\"execute\":\"echo\"}",
        ERR("CommandNotFound", "Capabilities negotiation is already complete, command ignored") OK);
    end(&a);
}

static void test_requests(void **state)
{
    open_a(false);
    client_talk(&a, "{'execute':'echo','arguments':{'a':[1,'b']},'id':{'n':18446744073709551615}}",
                "{\"return\": {\"a\": [1, \"b\"]}, \"id\": {\"n\": 18446744073709551615}}\n");
    client_talk(&a, "{\"execute\":\"nope\",\"id\":null}",
                "{\"id\": null, \"error\": {\"class\": \"CommandNotFound\", \"desc\": "
                "\"The command nope has not been found\"}}\n");
    client_talk(&a, "{\"execute\":\"echo\",\"arguments\":[1]}",
                ERR("GenericError", "QMP input member 'arguments' must be an object"));
    client_talk(&a, "{\"execute\":\"echo\",\"foo\":1,\"id\":\"x\"}",
                "{\"id\": \"x\", \"error\": {\"class\": \"GenericError\", \"desc\": "
                "\"QMP input member 'foo' is unexpected\"}}\n");
    client_talk(&a, "{\"execute\":1}",
                ERR("GenericError", "QMP input member 'execute' must be a string"));
    client_talk(&a, "{\"id\":[]}",
                "{\"id\": [], \"error\": {\"class\": \"GenericError\", \"desc\": "
                "\"QMP input lacks member 'execute'\"}}\n");
    client_talk(&a, "{}[]1 'x'",
                ERR("GenericError", "QMP input lacks member 'execute'")
                    ERR("GenericError", "QMP input must be a JSON object")
                        ERR("GenericError", "QMP input must be a JSON object")
                            ERR("GenericError", "QMP input must be a JSON object"));
    client_talk(&a, "{\"exec-oob\":\"ping\"}",
                ERR("GenericError", "QMP input member 'exec-oob' is unexpected"));
    client_talk(&a, "{\"execute\":\"fail\",\"arguments\":{\"class\":2,\"desc\":\"no\"}}",
                ERR("DeviceNotFound", "no"));
    client_talk(&a, "{\"execute\":\"fail\",\"arguments\":{\"class\":3,\"desc\":\"no\"}}",
                ERR("DeviceNotActive", "no"));
    client_talk(&a, "}{\"execute\":\"echo\"}\xff{\"execute\":\"echo\"}",
                ERR("GenericError", "JSON parse error, '}' closes nothing")
                    OK ERR("GenericError", "JSON parse error, stray byte 0xff") OK);
    end(&a);
}

static void test_byte_by_byte(void **state)
{
    const char *text = "{\"execute\": \"echo\", \"arguments\": {\"s\": \"\\u00e9}\"}}";

    open_a(false);
    for (size_t i = 0; text[i] != '\0'; i++) {
        client_expect(&a, "");
        client_write_bytes(&a, text + i, 1);
    }
    client_expect(&a, "{\"return\": {\"s\": \"\\u00E9}\"}}\n");
    end(&a);
}

static void test_pretty(void **state)
{
    char *text;

    client_open(&a, &control, true);
    session_run(&control);
    text = client_read(&a);
    assert_true(strncmp(text, "{\n    \"QMP\": {\n", 15) == 0);
    free(text);
    client_talk(&a, CAPS, "{\n    \"return\": {\n    }\n}\n");
    end(&a);
}

/* A nested poll runs no second command in band, neither of its session nor of another; both read on
 * when it ends. */
static void test_one_at_a_time(void **state)
{
    open_a(false);
    client_open(&b, &control, false);
    client_talk(&b, CAPS_OOB, OK);
    client_write(&a, "{\"execute\":\"hold\",\"id\":1}{\"execute\":\"note\",\"arguments\":"
                     "{\"who\":\"a\"},\"id\":2}");
    control.holding = &b;
    control.says = "{\"execute\":\"note\",\"arguments\":{\"who\":\"b\"},\"id\":3}"
                   "{\"exec-oob\":\"ping\",\"id\":4}{\"exec-oob\":\"release\",\"id\":5}";
    client_expect(&a, "{\"return\": {\"open\": true}, \"id\": 1}\n{\"return\": {}, \"id\": 2}\n");
    client_expect(&b, "{\"return\": \"pong\", \"id\": 4}\n{\"return\": {}, \"id\": 5}\n"
                      "{\"return\": {}, \"id\": 3}\n");
    assert_int_equal(control.most, 1);
    assert_int_equal(control.runs, 3);
    end(&a);
    end(&b);
}

static void test_oob(void **state)
{
    open_a(true);
    client_talk(&a, "{\"exec-oob\":\"ping\",\"id\":1}", "{\"return\": \"pong\", \"id\": 1}\n");
    client_talk(&a, "{\"execute\":\"ping\"}", "{\"return\": \"pong\"}\n");
    client_talk(&a, "{\"exec-oob\":\"echo\"}",
                ERR("GenericError", "The command echo does not support OOB"));
    client_talk(&a, "{\"exec-oob\":\"qmp_capabilities\"}",
                ERR("GenericError", "The command qmp_capabilities does not support OOB"));
    client_talk(&a, "{\"exec-oob\":\"nope\"}",
                ERR("CommandNotFound", "The command nope has not been found"));
    client_talk(&a, "{\"exec-oob\":5}",
                ERR("GenericError", "QMP input member 'exec-oob' must be a string"));
    client_talk(&a, "{\"exec-oob\":\"ping\",\"execute\":\"ping\"}",
                ERR("GenericError", "QMP input member 'execute' clashes with 'exec-oob'"));
    /* It overtakes, from within the command that polls. */
    control.holding = &a;
    control.says = "{\"execute\":\"echo\",\"id\":2}{\"exec-oob\":\"release\",\"id\":3}";
    client_talk(&a, "{\"execute\":\"hold\",\"id\":1}",
                "{\"return\": {}, \"id\": 3}\n{\"return\": {\"open\": true}, \"id\": 1}\n"
                "{\"return\": {}, \"id\": 2}\n");
    end(&a);
}

/* With eight in flight nothing more is read, out of band neither. */
static void test_oob_queue_is_bounded(void **state)
{
    open_a(true);
    client_open(&b, &control, false);
    client_talk(&b, CAPS_OOB, OK);
    client_write(&a, "{\"execute\":\"hold\"}");
    for (int i = 0; i < 7; i++) {
        client_write(&a, "{\"execute\":\"note\",\"arguments\":{\"who\":\"a\"}}");
    }
    client_write(&a, "{\"exec-oob\":\"ping\"}"); /* not read */
    control.holding = &b;
    control.says = "{\"exec-oob\":\"ping\"}{\"exec-oob\":\"release\"}";
    client_expect(&b, "{\"return\": \"pong\"}\n" OK);
    client_expect(&a,
                  "{\"return\": {\"open\": true}}\n{\"return\": \"pong\"}\n" OK OK OK OK OK OK OK);
    end(&a);
    end(&b);
}

static void test_turns(void **state)
{
    struct client *const clients[] = {&a, &b, &c};
    char text[100];

    for (int i = 0; i < 3; i++) {
        client_open(clients[i], &control, false);
        client_talk(clients[i], i == 0 ? CAPS_OOB : CAPS, OK);
    }
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof(text), "{\"execute\":\"note\",\"arguments\":{\"who\":\"%c\"}}",
                 'a' + i);
        for (int n = 0; n < 5; n++) {
            client_write(clients[i], text);
        }
    }
    session_run(&control);
    assert_int_equal(control.runs, 15);
    for (int n = 0; n < 5; n++) { /* each of three once in each round */
        char round[4] = {0};

        memcpy(round, control.order + 3 * n, 3);
        assert_true(strchr(round, 'a') && strchr(round, 'b') && strchr(round, 'c'));
    }
    for (int i = 0; i < 3; i++) {
        end(clients[i]);
    }
}

/* The client goes away while its command runs: the command ends, nobody is told, others go on. */
static void test_gone_while_running(void **state)
{
    open_a(true);
    client_open(&b, &control, false);
    client_talk(&b, CAPS_OOB, OK);
    client_write(&a, "{\"execute\":\"hold\"}{\"execute\":\"note\",\"arguments\":{\"who\":\"a\"}}");
    control.holding = &a;
    control.says = NULL;
    session_run(&control); /* hold sees the end of its session, and ends */
    assert_int_equal(a.overs, 1);
    assert_int_equal(control.runs, 1); /* what waited is dropped */
    client_talk(&b, "{\"execute\":\"echo\"}", OK);
    end(&b);
}

/* Without oob nothing is read while a command runs: the end is found when the reply is sent. */
static void test_gone_before_the_reply(void **state)
{
    open_a(false);
    client_open(&b, &control, false);
    client_talk(&b, CAPS_OOB, OK);
    client_write(&a, "{\"execute\":\"hold\"}{\"execute\":\"note\",\"arguments\":{\"who\":\"a\"}}");
    close(a.fd);
    control.holding = &b;
    control.says = "{\"exec-oob\":\"release\"}";
    session_run(&control);
    client_expect(&b, OK);
    assert_int_equal(a.overs, 1);
    assert_int_equal(control.runs, 1);
    end(&b);
}

/* All is ended while requests wait and a session is about to be told that it is over. */
static void test_ended_with_requests(void **state)
{
    open_a(true);
    client_open(&b, &control, false);
    for (int i = 0; i < 20; i++) {
        client_write(&a, "{\"execute\":\"note\",\"arguments\":{\"who\":\"a\"}}");
    }
    aio_poll(control.ctx, false);
    close(b.fd);
    monitors_event(control.all, "MORE", NULL);
    monitors_free(control.all);
    session_run(&control);
    assert_int_equal(a.overs, 0);
    close(a.fd);
    close(a.server_fd);
    if (b.overs == 0) {
        close(b.server_fd);
    }
    control.all = monitors_new(control.ctx, &control, session_find);
    assert_non_null(control.all);
}

/* A script closes its end and reads on: it gets its replies, then the end. */
static void test_half_close(void **state)
{
    char byte;

    client_open(&a, &control, false);
    client_write(&a, CAPS "{\"execute\":\"echo\",\"id\":1}{\"execute\":\"echo\",\"id\":2}{\"exec");
    shutdown(a.fd, SHUT_WR);
    client_expect(&a, OK "{\"return\": {}, \"id\": 1}\n{\"return\": {}, \"id\": 2}\n");
    assert_int_equal(a.overs, 1);
    assert_int_equal(read(a.fd, &byte, 1), 0);
    close(a.fd);
}

static void test_gone_at_once(void **state)
{
    client_open(&a, &control, false);
    end(&a);
    client_open(&a, &control, false);
    client_write(&a, CAPS CAPS CAPS);
    end(&a);
    client_open(&a, &control, false);
    monitor_close(a.mon);
    close(a.server_fd);
    session_run(&control);
    assert_int_equal(a.overs, 0);
    close(a.fd);
}

/* A client that does not read: no further command of it runs, others go on. */
static void test_not_reading(void **state)
{
    char *text;

    open_a(true);
    client_open(&b, &control, false);
    client_talk(&b, CAPS, OK);
    for (int i = 0; i < 8; i++) {
        client_write(&a, "{\"execute\":\"big\",\"arguments\":{\"bytes\":300000}}");
    }
    session_run(&control);
    assert_in_range(control.runs, 1, 3); /* one that fits the socket, one that does not */
    client_talk(&b, "{\"execute\":\"echo\"}", OK);
    text = client_read(&a);
    assert_int_equal(control.runs, 8);
    assert_int_equal(strlen(text), 8 * (300000 + strlen("{\"return\": \"\"}\n")));
    free(text);
    end(&a);
    end(&b);
}

static void test_events_pile_up(void **state)
{
    char data[1000];

    open_a(false);
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
    end(&b);
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
    open_a(false);
    client_open(&b, &control, false);
    client_open(&c, &control, false);
    client_talk(&b, CAPS, OK);
    client_write(&a, "{\"execute\":\"event\",\"arguments\":{\"n\":1}}");
    expect_events(&a, "{\"event\": \"NOTED\", \"data\": {\"n\": 1}}\n" OK);
    expect_events(&b, "{\"event\": \"NOTED\", \"data\": {\"n\": 1}}\n");
    client_expect(&c, "");
    end(&a);
    end(&b);
    end(&c);
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

    open_a(false);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        monitors_platter_event(control.all, &cases[i].event);
        expect_events(&a, cases[i].expected);
    }
    end(&a);
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
    open_a(false);
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
    end(&a);
}

/* While the loop does not run, what is queued stays bounded; the newest stay. */
static void test_event_queue_is_bounded(void **state)
{
    char *text;
    char first[200];
    int last = 0;

    open_a(false);
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
    end(&a);
}

/* ---- descriptors ---- */

static bool same_file(int x, int y)
{
    struct stat sx, sy;

    assert_int_equal(fstat(x, &sx), 0);
    assert_int_equal(fstat(y, &sy), 0);
    return sx.st_ino == sy.st_ino && sx.st_dev == sy.st_dev;
}

#define TAKE "{\"execute\":\"take-fd\"}"
#define TRUE "{\"return\": true}\n"
#define FALSE "{\"return\": false}\n"

static void test_fds(void **state)
{
    int one[2], two[2];

    assert_int_equal(pipe(one), 0);
    assert_int_equal(pipe(two), 0);
    open_a(false);
    client_talk(&a, TAKE, FALSE);
    client_write_fd(&a, TAKE, one[0]);
    client_expect(&a, TRUE);
    assert_true(same_file(control.took, one[0]));
    close(control.took);
    /* sent before the command, as some clients do */
    client_write_fd(&a, " ", one[0]);
    client_talk(&a, "{\"execute\":\"echo\"}" TAKE TAKE, OK TRUE FALSE);
    assert_int_equal(control.took, -1);
    /* one that nobody took is not given to a command with its own */
    client_write_fd(&a, "{\"execute\":\"echo\"}", one[0]);
    client_expect(&a, OK);
    client_write_fd(&a, TAKE, two[0]);
    client_expect(&a, TRUE);
    assert_true(same_file(control.took, two[0]));
    close(control.took);
    client_talk(&a, TAKE, FALSE);
    end(&a);
    for (int i = 0; i < 2; i++) {
        close(one[i]);
        close(two[i]);
    }
}

static unsigned open_fds(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 512; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

static void test_fds_are_bounded_and_closed(void **state)
{
    int one[2];
    unsigned before;

    assert_int_equal(pipe(one), 0);
    open_a(false);
    before = open_fds();
    for (int i = 0; i < 100; i++) {
        client_write_fd(&a, " ", one[0]);
        session_run(&control);
    }
    assert_int_equal(open_fds(), before + MONITOR_FDS_MAX);
    end(&a);
    assert_int_equal(open_fds(), before - 2);
    close(one[0]);
    close(one[1]);
}

/* Over a pair of pipes, which are not sockets. */
static void test_pipes(void **state)
{
    int in[2], out[2];
    char text[1000];
    ssize_t n;

    assert_int_equal(pipe2(in, O_NONBLOCK), 0);
    assert_int_equal(pipe2(out, O_NONBLOCK), 0);
    a = (struct client){.control = &control, .fd = -1, .server_fd = in[0]};
    a.mon = NULL;
    assert_int_equal(write(in[1], CAPS, strlen(CAPS)), strlen(CAPS));
    assert_int_equal(close(in[1]), 0);
    {
        struct client *client = &a;

        client->mon = monitor_new(control.all, in[0], out[1], false, session_over, client);
        assert_non_null(client->mon);
    }
    session_run(&control);
    n = read(out[0], text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "}}\r\n{\"return\": {}}\r\n"));
    assert_int_equal(a.overs, 1);
    close(out[0]);
    close(out[1]);
}

/* A flood of what is no request, beside an honest client. */
static void test_flood(void **state)
{
    size_t bytes = 4000000;
    char *flood = malloc(bytes);
    size_t sent = 0;

    assert_non_null(flood);
    open_a(false);
    client_open(&b, &control, false);
    client_talk(&b, CAPS, OK);
    memset(flood, '}', bytes);
    while (sent < bytes) {
        ssize_t n = write(a.fd, flood + sent, bytes - sent);

        if (n < 0) { /* it answers each, and we do not read: it reads no more */
            break;
        }
        sent += (size_t)n;
        session_run(&control);
    }
    assert_true(sent < bytes);
    client_talk(&b, "{\"execute\":\"echo\"}", OK);
    free(flood);
    end(&a);
    end(&b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_negotiation),
        TEST(test_requests),
        TEST(test_byte_by_byte),
        TEST(test_pretty),
        TEST(test_one_at_a_time),
        TEST(test_oob),
        TEST(test_oob_queue_is_bounded),
        TEST(test_turns),
        TEST(test_gone_while_running),
        TEST(test_gone_before_the_reply),
        TEST(test_ended_with_requests),
        TEST(test_half_close),
        TEST(test_gone_at_once),
        TEST(test_not_reading),
        TEST(test_events_pile_up),
        TEST(test_events),
        TEST(test_platter_events),
        TEST(test_events_from_threads),
        TEST(test_event_queue_is_bounded),
        TEST(test_fds),
        TEST(test_fds_are_bounded_and_closed),
        TEST(test_pipes),
        TEST(test_flood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
