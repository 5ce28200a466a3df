/* SPDX-License-Identifier: MIT */
#include "monitor_fixture.h"

#include "cmocka_all.h"

struct control control;
struct client a, b, c;

int monitor_setup(void **state)
{
    session_world_new(&control);
    return 0;
}

int monitor_teardown(void **state)
{
    session_world_free(&control);
    return 0;
}

void monitor_open_a(bool oob)
{
    client_open(&a, &control, false);
    client_talk(&a, oob ? CAPS_OOB : CAPS, OK);
}

void monitor_end(struct client *client)
{
    client_close(client);
    assert_int_equal(client->overs, 1);
}
