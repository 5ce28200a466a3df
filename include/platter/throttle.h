/* SPDX-License-Identifier: MIT */
/*
 * Throttle groups: limits that one or more users share. A limit is a leaky bucket: avg units a
 * second in the long run; bursts of up to max units a second for max_length_s seconds. A request is
 * never refused for its size: it may go when the buckets have leaked enough, and fills them
 * afterwards. Members of a group take turns.
 */
#ifndef PLATTER_THROTTLE_H
#define PLATTER_THROTTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/platter.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ThrottleGroup ThrottleGroup;

enum throttle_bucket_id {
    THROTTLE_BPS_TOTAL = 0, /* bytes per second */
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_OPS_TOTAL, /* requests per second */
    THROTTLE_OPS_READ,
    THROTTLE_OPS_WRITE,
    THROTTLE_BUCKETS
};
#define THROTTLE_VALUE_MAX UINT64_C(1000000000000000)

struct throttle_limit {
    uint64_t avg;          /* 0: no limit */
    uint64_t max;          /* 0: bursts of a tenth of a second at avg */
    uint64_t max_length_s; /* with max: how long; 1 (or 0) makes max what may come at once */
};

struct throttle_config {
    size_t size; /* sizeof(struct throttle_config) */
    struct throttle_limit limits[THROTTLE_BUCKETS];
    uint64_t ops_unit_bytes; /* a longer request counts as several; 0: each is one */
};

/* Whether the limits make sense together: 0, or -EINVAL with errp. [any] */
int throttle_config_check(const struct throttle_config *config, Error **errp);

/* The group of that name, made when it is not there, with a reference. Groups end with their last
 * reference; instances do not share them. NULL with errp: ENOMEM. [control] */
ThrottleGroup *throttle_group_get(Platter *pl, const char *name, Error **errp);
/* NULL: none; no reference. [control] */
ThrottleGroup *throttle_group_find(Platter *pl, const char *name);
ThrottleGroup *throttle_group_next(Platter *pl, ThrottleGroup *group); /* [control] */
void throttle_group_ref(ThrottleGroup *group);                         /* [control] */
void throttle_group_unref(ThrottleGroup *group);                       /* [control]; NULL allowed */
/* Whether anybody besides the caller holds a reference. [control] */
bool throttle_group_is_shared(const ThrottleGroup *group);
const char *throttle_group_name(const ThrottleGroup *group);
/* In force at once, for requests that wait too. 0 or -EINVAL. [control] */
int throttle_group_set_config(ThrottleGroup *group, const struct throttle_config *config,
                              Error **errp);
void throttle_group_get_config(ThrottleGroup *group,
                               struct throttle_config *ret_config); /* [any] */

#ifdef __cplusplus
}
#endif
#endif
