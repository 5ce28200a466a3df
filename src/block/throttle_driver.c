/* SPDX-License-Identifier: MIT */
/* Throttle groups as a driver sees them: a membership on the heap. */
#include <errno.h>
#include <stdlib.h>

#include "block/driver.h"
#include "block/throttle.h"
#include "util/error.h"

struct throttle_member *bdrv_throttle_join(BlockDriverState *bs, const char *group_name,
                                           Error **errp)
{
    ThrottleGroup *group = throttle_group_find(bdrv_platter(bs), group_name);
    struct throttle_member *member;

    if (group == NULL) {
        error_set(errp, ENOENT, "Throttle group '%s' does not exist", group_name);
        return NULL;
    }
    member = malloc(sizeof(*member));
    if (member == NULL) {
        error_set(errp, ENOMEM, "out of memory for a member of throttle group '%s'", group_name);
        return NULL;
    }
    throttle_member_init(member);
    throttle_member_join(member, group);
    return member;
}

void bdrv_throttle_leave(struct throttle_member *member)
{
    if (member != NULL) {
        throttle_member_leave(member);
        free(member);
    }
}

void bdrv_throttle_drained_begin(struct throttle_member *member)
{
    throttle_bypass_begin(member);
}

void bdrv_throttle_drained_end(struct throttle_member *member)
{
    throttle_bypass_end(member);
}

int bdrv_throttle_wait_co(struct throttle_member *member, bool is_write, uint64_t bytes)
{
    return throttle_member_wait_co(member, is_write, bytes, NULL);
}
