/* SPDX-License-Identifier: MIT */
/* Which command of a QMP session runs when: one at a time in band, those out of band at once,
 * sessions in turn. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "monitor_fixture.h"

/* A nested poll runs no second command in band, neither of its session nor of another; both read on
 * when it ends. */
static void test_one_at_a_time(void **state)
{
    monitor_open_a(false);
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
    monitor_end(&a);
    monitor_end(&b);
}

static void poll_in_callback(void *opaque)
{
    unsigned *runs = opaque;

    while (aio_poll(control.ctx, false)) {
    }
    *runs = control.runs;
}

/* Nor does a callback of the loop that polls: what it waits for may be what the command waits for.
 */
static void test_not_within_a_callback(void **state)
{
    unsigned runs = 1;

    monitor_open_a(false);
    client_write(&a, "{\"execute\":\"note\",\"arguments\":{\"who\":\"a\"}}");
    assert_int_equal(aio_bh_schedule_oneshot(control.ctx, poll_in_callback, &runs), 0);
    client_expect(&a, OK);
    assert_int_equal(runs, 0);
    assert_int_equal(control.runs, 1);
    monitor_end(&a);
}

static void test_oob(void **state)
{
    monitor_open_a(true);
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
    monitor_end(&a);
}

/* With eight in flight nothing more is read, out of band neither. */
static void test_oob_queue_is_bounded(void **state)
{
    monitor_open_a(true);
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
    monitor_end(&a);
    monitor_end(&b);
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
        monitor_end(clients[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_at_a_time), TEST(test_not_within_a_callback),
        TEST(test_oob),           TEST(test_oob_queue_is_bounded),
        TEST(test_turns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
