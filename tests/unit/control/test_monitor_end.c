/* SPDX-License-Identifier: MIT */
/* The end of all commands: what they work on goes, while sessions are still told things. */
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "session.h"

static struct control control;

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

static void test_no_command_runs(void **state)
{
    struct client client, other;

    client_open(&client, &control, false);
    client_open(&other, &control, false);
    client_talk(&client,
                "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}",
                "{\"return\": {}}\n");
    client_talk(&other, "{\"execute\": \"qmp_capabilities\"}", "{\"return\": {}}\n");
    client_write(&client, "{\"execute\": \"note\", \"arguments\": {\"who\": \"a\"}}");
    aio_poll(control.ctx, false); /* read, but not run yet */
    control.runs = 0;
    monitors_end_commands(control.all);
    client_expect(&client, "");
    client_talk(&client, "{\"exec-oob\": \"ping\"}", "");
    client_talk(&other, "{\"execute\": \"note\", \"arguments\": {\"who\": \"b\"}}", "");
    assert_int_equal(control.runs, 0);
    assert_string_equal(control.order, "");
    monitors_event(control.all, "NOTED", NULL); /* and events are told */
    for (int i = 0; i < 2; i++) {
        struct client *c = i == 0 ? &client : &other;
        char *text;

        session_run(&control);
        text = client_read(c);
        assert_non_null(strstr(text, "NOTED"));
        free(text);
    }
    client_close(&client);
    client_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_command_runs, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
