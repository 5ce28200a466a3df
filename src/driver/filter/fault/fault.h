/* SPDX-License-Identifier: MIT */
/*
 * blkdebug: faults on purpose, by rule. What the files of this folder share.
 *
 * A rule waits for its event, a point that a request above the filter comes to
 * (block/debug_event.h). An error or a delay is in force from then on, and befalls the requests
 * that reach the filter, until an event arms other rules of its kind: that is how people know it
 * from the reference. Rules may depend on a state, a number that other rules change; it begins as
 * 1.
 */
#ifndef PLATTER_DRIVER_FAULT_H
#define PLATTER_DRIVER_FAULT_H

#include <sys/queue.h>

#include "block/driver.h"
#include "os/thread.h"
#include "schema/opts.h"

#define FAULT_RULES_MAX 1024
#define FAULT_CONFIG_BYTES_MAX 65536

enum fault_action {
    FAULT_ERROR,
    FAULT_DELAY,
    FAULT_STATE,
};
#define FAULT_ACTIONS 3

struct fault_rule {
    enum fault_action action;
    enum bdrv_debug_event event;
    int64_t state; /* 0: any */
    /* FAULT_STATE */
    int64_t new_state;
    /* the others */
    unsigned iotypes; /* 1 << enum opts_blkdebug_iotype, each */
    int64_t offset;   /* of a sector; < 0: any */
    bool once;
    int error; /* FAULT_ERROR: positive */
    bool immediately;
    int64_t latency_ns; /* FAULT_DELAY */
    /* guarded by fault_node.lock */
    bool armed; /* in force */
    bool spent; /* was for once, and acted */
};

/* A breakpoint, then the place where a request waits. */
struct fault_wait;
struct fault_stop {
    enum bdrv_debug_event event;
    char *tag;               /* owned */
    struct fault_wait *wait; /* of the request; NULL: none yet */
    TAILQ_ENTRY(fault_stop) entry;
};
TAILQ_HEAD(fault_stop_list, fault_stop);

struct fault_node {
    /* set at open, then constant */
    struct fault_rule
        *rules; /* owned; in the order they were given, which is that they are tried */
    size_t nrules;
    struct bdrv_limits limits; /* 0: that of the child */
    uint64_t take_perms;
    uint64_t unshare_perms;

    struct os_mutex lock; /* guards what follows, and what rules say it does */
    int64_t state;
    struct fault_stop_list breaks; /* nobody came to them yet; the newest first */
    struct fault_stop_list stops;  /* a request waits at each; in the order they came */
    bool passing;                  /* drained: nothing is held */
};

/* ---- rules.c ---- */

/* "inject-error"... */
const char *fault_action_name(enum fault_action action);
/* Add a rule; its options are taken out of one. 0 or -errno. */
int fault_rule_add(struct fault_node *s, enum fault_action action, BlockOptions *one, Error **errp);
/* Take the lists of rules out of options. 0 or -errno. */
int fault_rules_take(struct fault_node *s, BlockOptions *options, Error **errp);

/* ---- config.c ---- */

/* Add the rules of a file. 0 or -errno. */
int fault_config_load(struct fault_node *s, const char *path, Error **errp);

/* ---- engine.c ---- */

/* An event: arm rules, go to another state. Any thread. */
void fault_happen(struct fault_node *s, enum bdrv_debug_event event);
/* A request is at the filter: 0 when it may go on (perhaps later), or the error that befalls it.
 * bytes 0: it has no range. Coroutine. */
int fault_befall_co(struct fault_node *s, enum opts_blkdebug_iotype iotype, uint64_t offset,
                    uint64_t bytes);

/* ---- breakpoint.c ---- */

void fault_breaks_init(struct fault_node *s);
void fault_breaks_fini(struct fault_node *s);
/* Wait at the breakpoints of an event, if there are any. Coroutine. */
void fault_break_co(BlockDriverState *bs, enum bdrv_debug_event event);
/* For struct bdrv_debug_ops and the table of the driver. */
int fault_breakpoint(BlockDriverState *bs, enum bdrv_debug_event event, const char *tag);
int fault_remove_breakpoint(BlockDriverState *bs, const char *tag);
int fault_resume(BlockDriverState *bs, const char *tag);
bool fault_is_suspended(BlockDriverState *bs, const char *tag);
void fault_drained_begin(BlockDriverState *bs);
void fault_drained_end(BlockDriverState *bs);

#endif
