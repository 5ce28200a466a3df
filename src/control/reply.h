/* SPDX-License-Identifier: MIT */
/*
 * The texts that a QMP session sends. Each is one JSON object in one line of ASCII without the end
 * of the line, in memory of the caller's (free); NULL: out of memory. Any thread.
 *
 * An id is text too, so that a number above what jansson holds comes back as it was sent.
 */
#ifndef PLATTER_CONTROL_REPLY_H
#define PLATTER_CONTROL_REPLY_H

#include <stddef.h>
#include <stdint.h>

#include "control/command.h"

/* "GenericError", "CommandNotFound", ... */
const char *qmp_error_class_name(enum qmp_error_class error_class);

/* What query-version answers: the numbers of release, "MAJOR.MINOR.MICRO", and as the package
 * Platter's version. */
json_t *qmp_version_value(const char *release, const char *version);
/* The greeting, with the same. */
char *qmp_greeting_text(const char *release, const char *version);
/* value NULL: {}. id NULL: none. */
char *qmp_return_text(const json_t *value, const char *id);
/* desc may be any bytes: what is not UTF-8 is shown as U+FFFD. */
char *qmp_error_text(enum qmp_error_class error_class, const char *desc, const char *id);
/* data NULL: an event without. The time is since 1970, as os->clock_realtime_ns has it. */
char *qmp_event_text(const char *name, const json_t *data, int64_t realtime_ns);

/* The value of the member "id" of an object's text, which json_parse_text has accepted, as
 * json_print has it, but that no whole number is rounded. *ret_id NULL: there is none. 0 or
 * -ENOMEM. */
int qmp_id_text(const char *text, size_t bytes, char **ret_id);
/* The same object over several lines (with \r\n between them), as people read it. */
char *qmp_pretty_text(const char *text);

#endif
