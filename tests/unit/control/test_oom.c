/* SPDX-License-Identifier: MIT */
/* Every allocation of a session fails once, and from then on: a request is answered with an error,
 * or the session ends; another session that is there already is told nothing wrong, and nothing is
 * left behind. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "oom.h"
#include "session.h"
#include "util/json.h"

static const char script[] = CAPS_OOB
    "{\"execute\":\"echo\",\"arguments\":{\"a\":[1,\"\\u00e9\",{}]},\"id\":{\"b\":['c']}}"
    "{\"exec-oob\":\"ping\",\"id\":7}{\"execute\":\"fail\",\"arguments\":{\"desc\":\"no\"}}"
    "}{\"execute\":\"event\",\"arguments\":{\"n\":1}}{\"execute\":3}[]";

static void over_cb(void *opaque)
{
    ++*(int *)opaque;
}

/* Whole messages, each of a known kind. */
static void check_lines(char *text)
{
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *value = json_parse_text(line, strlen(line), NULL);

        assert_true(json_object_get(value, "QMP") || json_object_get(value, "return") ||
                    json_object_get(value, "error") || json_object_get(value, "event"));
        json_decref(value);
    }
}

static void session(struct control *control, bool pretty)
{
    struct client client = {.control = control};
    int fds[2];
    int over = 0;
    char *text;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    client.fd = fds[0];
    assert_int_equal(write(client.fd, script, strlen(script)), strlen(script));
    shutdown(client.fd, SHUT_WR);
    if (monitor_new(control->all, fds[1], fds[1], pretty, over_cb, &over) != NULL) {
        session_run(control);
        assert_int_equal(over, 1);
    }
    oom_disarm();
    text = client_read(&client);
    if (over != 0 && !pretty && !oom_struck()) {
        assert_non_null(strstr(text, "\"return\": \"pong\""));
    }
    if (!pretty) {
        check_lines(text);
    }
    free(text);
    close(fds[0]);
    close(fds[1]);
}

static void every_allocation(bool pretty, bool forever)
{
    struct control control;
    struct client other;
    bool struck = true;
    uint64_t n;

    session_world_new(&control);
    client_open(&other, &control, false);
    client_talk(&other, CAPS, "{\"return\": {}}\n");
    for (n = 0; struck; n++) {
        char *text;

        oom_arm((long)n, forever);
        session(&control, pretty);
        struck = oom_struck();
        text = client_read(&other); /* the event, unless it was lost */
        check_lines(text);
        free(text);
        if (other.overs > 0) { /* lack of memory for an event ends who is to hear of it */
            close(other.fd);
            client_open(&other, &control, false);
            client_talk(&other, CAPS, "{\"return\": {}}\n");
        }
        client_write(&other, "{\"execute\":\"echo\"}");
        session_run(&control);
        text = client_read(&other); /* perhaps behind the news that events were lost */
        assert_non_null(strstr(text, "{\"return\": {}}\n"));
        free(text);
    }
    assert_true(n > 50);
    client_close(&other);
    session_world_free(&control);
}

static void test_once(void **state)
{
    every_allocation(false, false);
    every_allocation(true, false);
}

static void test_forever(void **state)
{
    every_allocation(false, true);
}

static void test_monitors_new(void **state)
{
    AioContext *ctx = aio_context_new(NULL, NULL);
    struct monitors *all = NULL;

    aio_context_set_current(ctx);
    for (long n = 0; all == NULL; n++) {
        oom_arm(n, false);
        all = monitors_new(ctx, NULL, session_find);
        oom_disarm();
        assert_int_equal(all == NULL, oom_struck());
    }
    monitors_free(all);
    while (aio_poll(ctx, false)) {
    }
    aio_context_set_current(NULL);
    aio_context_unref(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_once),
        cmocka_unit_test(test_forever),
        cmocka_unit_test(test_monitors_new),
    };

    json_set_alloc_funcs(malloc, free); /* jansson's allocations too */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
