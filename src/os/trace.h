/* SPDX-License-Identifier: MIT */
/*
 * Trace points: places worth watching in a program that runs, declared once here. Each is
 *   - a static probe of the provider "platter" (an instruction that does nothing until perf,
 *     bpftrace or systemtap puts a trap there), where the build has <sys/sdt.h>;
 *   - a line in a log, switched on by name or pattern while the program runs (trace_set).
 * A point that is off costs a load and a branch. None is on the path of a plain read or write of a
 * backend; requests are traced where they enter (nbd_request).
 *
 * What is on, and where the log goes, is the process's, as descriptors are. Any thread.
 */
#ifndef PLATTER_OS_TRACE_H
#define PLATTER_OS_TRACE_H

#include <stdatomic.h>
#include <stdbool.h>

#ifdef PLATTER_HAVE_SDT
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define TRACE_PROBE(event, ...) STAP_PROBEV(platter, event, __VA_ARGS__)
#else
#define TRACE_PROBE(event, ...) ((void)0)
#endif

/* Name, what the log says of it (a format for printf of the arguments). */
#define TRACE_EVENTS(X)                                                                            \
    X(node_open, "node %s driver %s")                                                              \
    X(node_close, "node %s")                                                                       \
    X(graph_change, "result %d")                                                                   \
    X(drain_begin, "node %s depth %d")                                                             \
    X(drain_end, "node %s depth %d")                                                               \
    X(throttle_wait, "group %s turn %d ns %lld")                                                   \
    X(medium_insert, "backend %s node %s")                                                         \
    X(medium_remove, "backend %s node %s")                                                         \
    X(io_error, "backend %s read %d errno %d action %d")                                           \
    X(job_status, "job %s status %s")                                                              \
    X(nbd_connect, "connection %p export %s")                                                      \
    X(nbd_tls_refused, "connection %p %s")                                                         \
    X(nbd_request, "connection %p command %u offset %llu bytes %llu")                              \
    X(nbd_reply, "connection %p command %u result %d")                                             \
    X(nbd_disconnect, "connection %p requests %llu")                                               \
    X(qmp_command, "session %p command %s")                                                        \
    X(qmp_reply, "session %p command %s result %d")

#define TRACE_ID(name, format) TRACE_##name,
enum trace_event { TRACE_EVENTS(TRACE_ID) TRACE_EVENT_COUNT };

extern _Atomic bool trace_is_on[TRACE_EVENT_COUNT]; /* set by trace_set */

#define TRACE(event, ...)                                                                          \
    do {                                                                                           \
        TRACE_PROBE(event, __VA_ARGS__);                                                           \
        if (__builtin_expect(                                                                      \
                atomic_load_explicit(&trace_is_on[TRACE_##event], memory_order_relaxed), 0)) {     \
            trace_log(TRACE_##event, __VA_ARGS__);                                                 \
        }                                                                                          \
    } while (0)

/* A line: seconds since the log began, the thread, the name, what is said. Through TRACE alone. */
void trace_log(enum trace_event event, ...);

/* Where lines go: a descriptor, borrowed; -1 (as at the start): nowhere. */
void trace_set_fd(int fd);
/* Switch all whose name fits the pattern ("nbd_*", as of a shell). How many that were. */
unsigned trace_set(const char *pattern, bool on);
const char *trace_name(enum trace_event event);

#endif
