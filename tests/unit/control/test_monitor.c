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
#include "monitor_fixture.h"

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
    monitor_end(&a);
}

static void test_requests(void **state)
{
    monitor_open_a(false);
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
    monitor_end(&a);
}

static void test_byte_by_byte(void **state)
{
    const char *text = "{\"execute\": \"echo\", \"arguments\": {\"s\": \"\\u00e9}\"}}";

    monitor_open_a(false);
    for (size_t i = 0; text[i] != '\0'; i++) {
        client_expect(&a, "");
        client_write_bytes(&a, text + i, 1);
    }
    client_expect(&a, "{\"return\": {\"s\": \"\\u00E9}\"}}\n");
    monitor_end(&a);
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
    monitor_end(&a);
}

/* The client goes away while its command runs: the command ends, nobody is told, others go on. */
static void test_gone_while_running(void **state)
{
    monitor_open_a(true);
    client_open(&b, &control, false);
    client_talk(&b, CAPS_OOB, OK);
    client_write(&a, "{\"execute\":\"hold\"}{\"execute\":\"note\",\"arguments\":{\"who\":\"a\"}}");
    control.holding = &a;
    control.says = NULL;
    session_run(&control); /* hold sees the end of its session, and ends */
    assert_int_equal(a.overs, 1);
    assert_int_equal(control.runs, 1); /* what waited is dropped */
    client_talk(&b, "{\"execute\":\"echo\"}", OK);
    monitor_end(&b);
}

/* Without oob nothing is read while a command runs: the end is found when the reply is sent. */
static void test_gone_before_the_reply(void **state)
{
    monitor_open_a(false);
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
    monitor_end(&b);
}

/* All is ended while requests wait and a session is about to be told that it is over. */
static void test_ended_with_requests(void **state)
{
    monitor_open_a(true);
    client_open(&b, &control, false);
    for (int i = 0; i < 20; i++) {
        client_write(&a, "{\"execute\":\"note\",\"arguments\":{\"who\":\"a\"}}");
    }
    aio_poll(control.ctx, false);
    close(b.fd);
    monitors_event(control.all, "MORE", NULL);
    monitors_free(control.all);
    control.all = NULL;
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
    monitor_end(&a);
    client_open(&a, &control, false);
    client_write(&a, CAPS CAPS CAPS);
    monitor_end(&a);
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

    monitor_open_a(true);
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
    monitor_end(&a);
    monitor_end(&b);
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
    monitor_open_a(false);
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
    monitor_end(&a);
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
    monitor_open_a(false);
    before = open_fds();
    for (int i = 0; i < 100; i++) {
        client_write_fd(&a, " ", one[0]);
        session_run(&control);
    }
    assert_int_equal(open_fds(), before + MONITOR_FDS_MAX);
    monitor_end(&a);
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
    monitor_open_a(false);
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
    monitor_end(&a);
    monitor_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_negotiation),
        TEST(test_requests),
        TEST(test_byte_by_byte),
        TEST(test_pretty),
        TEST(test_gone_while_running),
        TEST(test_gone_before_the_reply),
        TEST(test_ended_with_requests),
        TEST(test_half_close),
        TEST(test_gone_at_once),
        TEST(test_not_reading),
        TEST(test_fds),
        TEST(test_fds_are_bounded_and_closed),
        TEST(test_pipes),
        TEST(test_flood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
