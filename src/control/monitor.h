/* SPDX-License-Identifier: MIT */
/*
 * QMP sessions. `struct monitors` is all of a daemon's: it runs their commands one at a time and
 * tells them events. A `struct monitor` is one session, over descriptors that read and write a
 * stream of bytes. Everything here belongs to the thread of the main AioContext, but for the calls
 * tagged [any].
 *
 * Order. A session gets its replies in the order of its requests, but for those out of band. An
 * event that is raised during a command in this thread comes before its reply. Between sessions
 * commands take turns. A command may poll the context: then other sessions are read and greeted,
 * and their commands out of band run, but none of the others.
 *
 * Bounds of a session.
 *   - Requests are read one at a time, with "oob" up to MONITOR_REQUESTS_MAX; what is not read
 * stays with the client. Out of band is not read either then: a client leaves room for it.
 *   - While MONITOR_UNSENT_MAX bytes or more wait to be sent, no further request is read or run.
 *   - Events are sent all the same; when MONITOR_EVENTS_UNSENT_MAX bytes of them wait, the session
 * is dropped, since a client that has missed events cannot be told so.
 *   - Descriptors: MONITOR_FDS_MAX.
 * Events on their way from other threads: MONITOR_EVENTS_QUEUED_MAX bytes; beyond, the oldest are
 * lost, and EVENTS_LOST {count} stands in their place.
 *
 * End of input: requests that were received in full are answered, then the session ends (a script
 * may close its end first). When the client is gone altogether, requests that wait are dropped; the
 * one that runs ends in peace, and nobody hears its reply.
 */
#ifndef PLATTER_CONTROL_MONITOR_H
#define PLATTER_CONTROL_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

#include <platter/aio.h>
#include <platter/event.h>

#include "control/command.h"

#define MONITOR_REQUESTS_MAX 8u
#define MONITOR_UNSENT_MAX (64u * 1024)
#define MONITOR_EVENTS_UNSENT_MAX (1024u * 1024)
#define MONITOR_EVENTS_QUEUED_MAX (1024u * 1024)
#define MONITOR_FDS_MAX 16u

struct monitors;

/* The command of that name, or NULL. */
typedef const struct qmp_command *QmpFindFunc(const char *name);

/* ctx: the main context, referenced. control: handed to commands. NULL: ENOMEM. */
struct monitors *monitors_new(AioContext *ctx, struct control *control, QmpFindFunc *find);
/* The release whose numbers sessions are told, "MAJOR.MINOR.MICRO": borrowed, Platter's own until
 * this is called. Clients judge by them what can be asked. */
void monitors_set_release(struct monitors *all, const char *release);
const char *monitors_release(const struct monitors *all);
/* Ends all sessions, whose over() is not called. Not from within a command, and no thread may raise
 * events any more. NULL allowed. */
void monitors_free(struct monitors *all);

/* Run the next command, if one waits; after each turn of the loop. Not from within a callback of
 * the loop: whoever polls there waits for something, and a command that waits for what that one
 * holds (a drain, an export) would not end, nor would it. */
void monitors_turn(struct monitors *all);

/* No further command is read or run, those that wait included: what they work on is about to end.
 * Events and replies are still sent. Not from within a command. */
void monitors_end_commands(struct monitors *all);

/* Tell every session that has negotiated; data (owned; NULL: none) has the members of "data". [any]
 */
void monitors_event(struct monitors *all, const char *name, json_t *data);
/* A PlatterEventFunc whose opaque is the monitors: the instance's events under the names and with
 * the members that QMP has for them. NODE_BROKEN {node-name, reason} is one of ours. [any] */
void monitors_platter_event(void *opaque, const struct platter_event *event);
/* Events that were lost on their way. [any] */
uint64_t monitors_events_lost(struct monitors *all);

/* A session over in_fd and out_fd, which may be the same and do not block; they are borrowed until
 * the session is over: over(opaque) is called from the loop then, once, and the session is gone.
 * The greeting is sent at once. NULL: out of memory; a descriptor that cannot be read, written or
 * watched is no error here, but the session's end. */
struct monitor *monitor_new(struct monitors *all, int in_fd, int out_fd, bool pretty,
                            void (*over)(void *opaque), void *opaque);
/* End it now, without over(). */
void monitor_close(struct monitor *mon);

void monitor_ref(struct monitor *mon);
void monitor_unref(struct monitor *mon);
/* False once the session is over. A command that holds a reference may ask. */
bool monitor_is_open(const struct monitor *mon);

/* A descriptor that the client sent with the running command or before it, the caller's from now
 * on; -1: none. Of several those of the latest message come first, in their order. What no command
 * has taken is closed when the next ones arrive, or with the session. */
int monitor_take_fd(struct monitor *mon);

/* qmp_capabilities, for the table of commands. It is known to the dispatcher without. */
int qmp_capabilities_run(struct qmp_call *call, json_t *arguments, json_t **ret_value,
                         Error **errp);

#endif
