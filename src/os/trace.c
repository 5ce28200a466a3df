/* SPDX-License-Identifier: MIT */
/* The log of trace points. A line is one write, so that lines of several threads stay whole. */
#include <fnmatch.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "os/os.h"
#include "os/trace.h"

#define LINE_BYTES 512

#define TRACE_NAME(name, format) #name,
#define TRACE_FORMAT(name, format) format,

static const char *const names[] = {TRACE_EVENTS(TRACE_NAME)};
static const char *const formats[] = {TRACE_EVENTS(TRACE_FORMAT)};

_Atomic bool trace_is_on[TRACE_EVENT_COUNT];
static _Atomic int trace_fd = -1;

void trace_log(enum trace_event event, ...)
{
    int64_t now = os->clock_monotonic_ns();
    int fd = atomic_load(&trace_fd);
    char line[LINE_BYTES];
    int used;
    int more;
    va_list args;

    if (fd < 0) {
        return;
    }
    used =
        snprintf(line, sizeof(line), "%" PRId64 ".%06" PRId64 " %" PRId64 " %s: ", now / 1000000000,
                 now % 1000000000 / 1000, os->thread_id(), names[event]);
    va_start(args, event);
    more = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, formats[event], args);
    va_end(args);
    used = more < 0                              ? used
           : used + more > (int)sizeof(line) - 2 ? (int)sizeof(line) - 2
                                                 : used + more;
    line[used++] = '\n';
    (void)os->write(fd, line, (size_t)used); /* a full disk is no reason to stop anything */
}

void trace_set_fd(int fd)
{
    atomic_store(&trace_fd, fd);
}

unsigned trace_set(const char *pattern, bool on)
{
    unsigned count = 0;

    for (int i = 0; i < TRACE_EVENT_COUNT; i++) {
        if (fnmatch(pattern, names[i], 0) == 0) {
            atomic_store(&trace_is_on[i], on);
            count++;
        }
    }
    return count;
}

const char *trace_name(enum trace_event event)
{
    return names[event];
}
