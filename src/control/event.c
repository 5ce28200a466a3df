/* SPDX-License-Identifier: MIT */
/* Events: made into text in the thread that raises them, queued, and sent from the main context.
 * That one queue keeps their order. */
#include <stdlib.h>
#include <string.h>

#include "control/monitor_internal.h"
#include "os/os.h"
#include "util/json.h"

#define IO_ERROR_PAUSE_NS (INT64_C(1000) * 1000 * 1000)

struct event {
    STAILQ_ENTRY(event) link;
    size_t bytes;
    char *text; /* owned */
};

static void event_free(struct event *event)
{
    if (event != NULL) {
        free(event->text);
        free(event);
    }
}

/* Make room for bytes more; those that were dropped are counted. Locked. */
static void make_room(struct monitors *all, size_t bytes)
{
    struct event *event;

    while (all->event_bytes + bytes > MONITOR_EVENTS_QUEUED_MAX &&
           (event = STAILQ_FIRST(&all->events)) != NULL) {
        STAILQ_REMOVE_HEAD(&all->events, link);
        all->event_bytes -= event->bytes;
        all->events_lost++;
        event_free(event);
    }
}

void monitors_event(struct monitors *all, const char *name, json_t *data)
{
    struct event *event = calloc(1, sizeof(*event));
    char *text = qmp_event_text(name, data, os->clock_realtime_ns());

    json_decref(data);
    os_mutex_lock(&all->lock);
    if (event == NULL || text == NULL) {
        all->events_lost++;
        free(event);
        free(text);
    } else {
        *event = (struct event){.bytes = strlen(text), .text = text};
        make_room(all, event->bytes);
        STAILQ_INSERT_TAIL(&all->events, event, link);
        all->event_bytes += event->bytes;
    }
    os_mutex_unlock(&all->lock);
    aio_bh_schedule(all->event_bh);
}

uint64_t monitors_events_lost(struct monitors *all)
{
    uint64_t lost;

    os_mutex_lock(&all->lock);
    lost = all->events_lost;
    os_mutex_unlock(&all->lock);
    return lost;
}

/* Tell every session that has negotiated. */
static void tell(struct monitors *all, const char *text)
{
    struct monitor *mon = TAILQ_FIRST(&all->sessions);

    while (mon != NULL) {
        struct monitor *next = TAILQ_NEXT(mon, link); /* sending may end mon, and only it */

        if (mon->negotiated) {
            monitor_send(mon, strdup(text), true);
        }
        mon = next;
    }
}

/* Those that were lost came before what is in the queue. */
static void tell_lost(struct monitors *all)
{
    uint64_t lost = monitors_events_lost(all);
    json_t *data = lost > all->events_lost_told
                       ? json_pack("{s:I}", "count", (json_int_t)(lost - all->events_lost_told))
                       : NULL;
    char *text = data != NULL ? qmp_event_text("EVENTS_LOST", data, os->clock_realtime_ns()) : NULL;

    json_decref(data);
    if (text != NULL) { /* else with the next event */
        all->events_lost_told = lost;
        tell(all, text);
        free(text);
    }
}

static struct event *pop(struct monitors *all)
{
    struct event *event;

    os_mutex_lock(&all->lock);
    event = STAILQ_FIRST(&all->events);
    if (event != NULL) {
        STAILQ_REMOVE_HEAD(&all->events, link);
        all->event_bytes -= event->bytes;
    }
    os_mutex_unlock(&all->lock);
    return event;
}

void monitors_send_events(struct monitors *all)
{
    struct event *event;

    tell_lost(all);
    while ((event = pop(all)) != NULL) {
        tell(all, event->text);
        event_free(event);
    }
}

void monitors_events_free(struct monitors *all)
{
    struct event *event;

    while ((event = pop(all)) != NULL) {
        event_free(event);
    }
}

/* ---- what an instance raises ---- */

/* A member; value (owned) NULL: the whole event is lost for lack of memory. */
static void put(json_t **data, const char *key, json_t *value)
{
    if (*data == NULL) {
        json_decref(value);
    } else if (json_object_set_new(*data, key, value) < 0) {
        json_decref(*data);
        *data = NULL;
    }
}

static void put_text(json_t **data, const char *key, const char *text)
{
    put(data, key, json_text(text));
}

static void put_operation(json_t **data, bool is_read)
{
    put_text(data, "operation", is_read ? "read" : "write");
}

static void put_io_error(json_t **data, const struct platter_event *event)
{
    put_text(data, "device", event->u.io_error.device);
    if (event->u.io_error.node_name[0] != '\0') {
        put_text(data, "node-name", event->u.io_error.node_name);
    }
    put_operation(data, event->u.io_error.is_read);
    put_text(data, "action", event->u.io_error.action);
    if (event->u.io_error.has_nospace) {
        put(data, "nospace", json_boolean(event->u.io_error.nospace));
    }
    put_text(data, "reason", event->u.io_error.reason);
}

static void put_image_corrupted(json_t **data, const struct platter_event *event)
{
    const uint64_t offset = event->u.image_corrupted.offset_bytes;

    put_text(data, "device", "");
    put_text(data, "node-name", event->u.image_corrupted.node_name);
    put_text(data, "msg", event->u.image_corrupted.message);
    if (offset <= INT64_MAX) {
        put(data, "offset", json_integer((json_int_t)offset));
        put(data, "size", json_integer((json_int_t)event->u.image_corrupted.bytes));
    }
    put(data, "fatal", json_boolean(event->u.image_corrupted.fatal));
}

static void put_write_threshold(json_t **data, const struct platter_event *event)
{
    put_text(data, "node-name", event->u.write_threshold.node_name);
    put(data, "amount-exceeded",
        json_integer((json_int_t)event->u.write_threshold.amount_exceeded_bytes));
    put(data, "write-threshold",
        json_integer((json_int_t)event->u.write_threshold.write_threshold_bytes));
}

/* The name, with the members put into *data; NULL: not known here. */
static const char *convert(const struct platter_event *event, json_t **data)
{
    switch (event->type) {
    case PLATTER_EVENT_DEVICE_TRAY_MOVED:
        put_text(data, "device", event->u.tray_moved.device);
        put_text(data, "id", event->u.tray_moved.device); /* a device has no path of its own here */
        put(data, "tray-open", json_boolean(event->u.tray_moved.tray_open));
        return "DEVICE_TRAY_MOVED";
    case PLATTER_EVENT_NODE_BROKEN:
        put_text(data, "node-name", event->u.node_broken.node_name);
        put_text(data, "reason", event->u.node_broken.reason);
        return "NODE_BROKEN";
    case PLATTER_EVENT_IMAGE_CORRUPTED:
        put_image_corrupted(data, event);
        return "BLOCK_IMAGE_CORRUPTED";
    case PLATTER_EVENT_BLOCK_WRITE_THRESHOLD:
        put_write_threshold(data, event);
        return "BLOCK_WRITE_THRESHOLD";
    case PLATTER_EVENT_BLOCK_IO_ERROR:
        put_io_error(data, event);
        return "BLOCK_IO_ERROR";
    case PLATTER_EVENT_STOP:
        return "STOP";
    case PLATTER_EVENT_RESUME:
        return "RESUME";
    case PLATTER_EVENT_JOB_STATUS_CHANGE:
        put_text(data, "id", event->u.job.id);
        put_text(data, "status", event->u.job.status);
        return "JOB_STATUS_CHANGE";
    case PLATTER_EVENT_JOB_ERROR:
        put_text(data, "device", event->u.job_error.id);
        put_operation(data, event->u.job_error.is_read);
        put_text(data, "action", event->u.job_error.action);
        return "BLOCK_JOB_ERROR";
    case PLATTER_EVENT_REQUEST_SUSPENDED: /* for those who debug in this process */
    case PLATTER_EVENT_REQUEST_RESUMED:
    case PLATTER_EVENT_IMAGE_WARNING: /* the daemon's log has it */
        break;
    }
    return NULL;
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
    do {
        hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211); /* FNV-1a */
    } while (*text++ != '\0');
    return hash;
}

/* An equal error was told less than a second ago, and nobody was stopped by this one: a disk that
 * fails a hundred thousand times a second would tell nothing else to anybody. */
static bool is_told_lately(struct monitors *all, const struct platter_event *event)
{
    int64_t now = os->clock_monotonic_ns();
    uint64_t hash;
    bool lately;
    unsigned at;

    if (event->type != PLATTER_EVENT_BLOCK_IO_ERROR ||
        strcmp(event->u.io_error.action, "stop") == 0) {
        return false;
    }
    hash = hash_text(event->u.io_error.is_read, event->u.io_error.device);
    hash = hash_text(hash, event->u.io_error.node_name);
    hash = hash_text(hash, event->u.io_error.action);
    hash = hash_text(hash, event->u.io_error.reason);
    at = (unsigned)(hash % MONITOR_IO_ERRORS);
    os_mutex_lock(&all->lock);
    lately = all->io_errors[at].hash == hash && now < all->io_errors[at].again_ns;
    if (!lately) {
        all->io_errors[at].hash = hash;
        all->io_errors[at].again_ns = now + IO_ERROR_PAUSE_NS;
    }
    os_mutex_unlock(&all->lock);
    return lately;
}

void monitors_platter_event(void *opaque, const struct platter_event *event)
{
    struct monitors *all = opaque;
    json_t *data;
    const char *name;

    if (is_told_lately(all, event)) {
        return;
    }
    if (event->type == PLATTER_EVENT_RESUME && all->ended) {
        return; /* what is held goes on so that it ends; the machine does not */
    }
    data = json_object();
    name = convert(event, &data);

    if (name != NULL && data != NULL) {
        bool plain = json_object_size(data) == 0;

        if (plain) {
            json_decref(data);
        }
        monitors_event(all, name, plain ? NULL : data);
    } else if (name != NULL) {
        os_mutex_lock(&all->lock);
        all->events_lost++;
        os_mutex_unlock(&all->lock);
        aio_bh_schedule(all->event_bh);
    } else {
        json_decref(data);
    }
}
