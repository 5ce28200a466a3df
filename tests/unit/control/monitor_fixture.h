/* SPDX-License-Identifier: MIT */
/* What the tests of QMP sessions share: a world of its own for each test, and three clients. */
#ifndef PLATTER_TESTS_CONTROL_MONITOR_FIXTURE_H
#define PLATTER_TESTS_CONTROL_MONITOR_FIXTURE_H

#include "session.h"

#define OK "{\"return\": {}}\n"
#define ERR(class, desc) "{\"error\": {\"class\": \"" class "\", \"desc\": \"" desc "\"}}\n"
#define NOT_YET ERR("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'")

extern struct control control;
extern struct client a, b, c;

int monitor_setup(void **state);
int monitor_teardown(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, monitor_setup, monitor_teardown)

/* Client a, past the negotiation. */
void monitor_open_a(bool oob);
/* The client goes; its session is over once. */
void monitor_end(struct client *client);

#endif
