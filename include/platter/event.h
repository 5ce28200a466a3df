/* SPDX-License-Identifier: MIT */
/*
 * Events an instance raises: tagged structs, given to the sink of the instance. The sink runs in
 * the thread that raised the event, must not block and must copy what it keeps: all strings are
 * borrowed until it returns. A control plane turns them into JSON.
 */
#ifndef PLATTER_EVENT_H
#define PLATTER_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum platter_event_type {
    PLATTER_EVENT_DEVICE_TRAY_MOVED = 1,
    PLATTER_EVENT_NODE_BROKEN, /* a node will answer errors from now on, and why */
    PLATTER_EVENT_IMAGE_CORRUPTED,
    PLATTER_EVENT_BLOCK_IO_ERROR, /* a request failed, and what is done about it */
    PLATTER_EVENT_STOP,           /* the consumer is to stop (or was asked to) */
    PLATTER_EVENT_RESUME,
    PLATTER_EVENT_JOB_STATUS_CHANGE,
    PLATTER_EVENT_JOB_ERROR,         /* a job met an error of its storage, and what it does */
    PLATTER_EVENT_REQUEST_SUSPENDED, /* at a breakpoint of a fault filter */
    PLATTER_EVENT_REQUEST_RESUMED,
    PLATTER_EVENT_BLOCK_WRITE_THRESHOLD, /* a node was written to beyond its threshold */
    PLATTER_EVENT_IMAGE_WARNING,         /* an image that was opened is not what it was */
};

struct platter_event {
    enum platter_event_type type;
    union {
        struct {
            const char *device; /* backend name; empty when hidden */
            bool tray_open;
        } tray_moved;
        struct {
            const char *device;    /* backend name; empty when hidden */
            const char *node_name; /* empty: no medium */
            const char *action;    /* "report", "ignore", "stop" */
            const char *reason;    /* text of the errno */
            bool is_read;
            bool has_nospace; /* the iostatus is enabled */
            bool nospace;
        } io_error;
        struct {
            const char *node_name; /* of the filter */
            const char *tag;       /* of the breakpoint */
        } breakpoint;
        struct {
            const char *node_name;
            const char *reason;
        } node_broken;
        struct {
            const char *id;
            const char *type;
            const char *status; /* as job_status_name says it */
        } job;
        struct {
            const char *id;
            const char *action; /* "report", "ignore", "stop" */
            bool is_read;
        } job_error;
        struct {
            const char *node_name;
            const char *message;
            uint64_t offset_bytes; /* in the image file; UINT64_MAX: not known */
            uint64_t bytes;
            bool fatal; /* the node answers errors from now on */
        } image_corrupted;
        struct {
            const char *node_name;
            const char *message;
            bool leaks; /* it may have clusters that nothing refers to: a repair gives them back */
        } image_warning;
        struct {
            const char *node_name;
            uint64_t amount_exceeded_bytes;
            uint64_t write_threshold_bytes; /* as it was; now there is none */
        } write_threshold;
    } u;
};

typedef void PlatterEventFunc(void *opaque, const struct platter_event *event);

#ifdef __cplusplus
}
#endif
#endif
