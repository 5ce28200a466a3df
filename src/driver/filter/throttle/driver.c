/* SPDX-License-Identifier: MIT */
/*
 * throttle: a member of a throttle group. Reads, writes and write zeroes wait for their turn, then
 * go to the child as they are; discards and flushes are not limited, as at a backend's own group.
 */
#include <errno.h>

#include "block/driver.h"
#include "schema/opts.h"
#include "util/error.h"

/* Set at open and by reopen, drained. */
struct throttle_node {
    struct throttle_member *member; /* owned */
    struct throttle_member *next;   /* owned: of a reopen under way */
    bool passing;                   /* drained */
};

static struct throttle_member *member_of(BlockDriverState *bs)
{
    const struct throttle_node *s = bdrv_opaque(bs);

    return s->member;
}

static int throttle_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct throttle_node *s = bdrv_opaque(bs);
    struct opts_node_throttle opts;
    int rc;

    if (bdrv_open_child(bs, NULL, options, "file", BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY, false,
                        errp) == NULL) {
        return -EINVAL;
    }
    if (!block_options_has(options, "throttle-group")) {
        error_set(errp, EINVAL, "Please specify a throttle group");
        error_set_hint(errp, "It is the option 'throttle-group'");
        return -EINVAL;
    }
    rc = opts_node_throttle_parse(options, &opts, errp);
    if (rc < 0) {
        return rc;
    }
    s->member = bdrv_throttle_join(bs, opts.throttle_group, errp);
    opts_node_throttle_fini(&opts);
    return s->member != NULL ? 0 : -EINVAL;
}

static void throttle_close(BlockDriverState *bs)
{
    bdrv_throttle_leave(member_of(bs));
}

static void throttle_drained_begin(BlockDriverState *bs)
{
    struct throttle_node *s = bdrv_opaque(bs);

    s->passing = true;
    bdrv_throttle_drained_begin(s->member);
}

static void throttle_drained_end(BlockDriverState *bs)
{
    struct throttle_node *s = bdrv_opaque(bs);

    s->passing = false;
    bdrv_throttle_drained_end(s->member);
}

static int throttle_reopen_options(BlockDriverState *bs, BlockOptions *options, int new_flags,
                                   Error **errp)
{
    struct throttle_node *s = bdrv_opaque(bs);
    struct opts_node_throttle opts;
    int rc = opts_node_throttle_parse(options, &opts, errp);

    if (rc < 0) {
        return rc;
    }
    s->next = bdrv_throttle_join(bs, opts.throttle_group, errp);
    opts_node_throttle_fini(&opts);
    return s->next != NULL ? 0 : -EINVAL;
}

static void throttle_reopen_commit(BlockDriverState *bs)
{
    struct throttle_node *s = bdrv_opaque(bs);

    if (s->next == NULL) {
        return;
    }
    if (s->passing) {
        bdrv_throttle_drained_begin(s->next);
        bdrv_throttle_drained_end(s->member);
    }
    bdrv_throttle_leave(s->member);
    s->member = s->next;
    s->next = NULL;
}

static void throttle_reopen_abort(BlockDriverState *bs)
{
    struct throttle_node *s = bdrv_opaque(bs);

    bdrv_throttle_leave(s->next);
    s->next = NULL;
}

static int throttle_rw_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    int ret = bdrv_throttle_wait_co(member_of(bs), req->op == BDRV_OP_WRITE, req->bytes);

    return ret < 0 ? ret : bdrv_edge_request_co(bdrv_primary_child(bs), req);
}

static int throttle_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                    unsigned flags)
{
    int ret = bdrv_throttle_wait_co(member_of(bs), true, bytes);

    return ret < 0 ? ret : bdrv_edge_write_zeroes_co(bdrv_primary_child(bs), offset, bytes, flags);
}

static const char *const throttle_strong_options[] = {"throttle-group", NULL};

const BlockDriver bdrv_throttle = {
    .format_name = "throttle",
    .option_keys = opts_node_throttle_keys,
    .instance_size = sizeof(struct throttle_node),
    .caps = BDRV_CAP_FILTER | BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA | BDRV_CAP_ZERO_UNMAP |
            BDRV_CAP_ZERO_NO_FALLBACK | BDRV_CAP_ZERO_PARTS | BDRV_CAP_COMPRESSED,
    .open = throttle_open,
    .close = throttle_close,
    .reopen_options = throttle_reopen_options,
    .reopen_commit = throttle_reopen_commit,
    .reopen_abort = throttle_reopen_abort,
    .drained_begin = throttle_drained_begin,
    .drained_end = throttle_drained_end,
    .read_co = throttle_rw_co,
    .write_co = throttle_rw_co,
    .write_zeroes_co = throttle_write_zeroes_co,
    .strong_options = throttle_strong_options,
};
