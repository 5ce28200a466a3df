/* SPDX-License-Identifier: MIT */
/*
 * An open image gets other options. All that may fail is done first and kept aside; nothing of the
 * image is changed by it but that its metadata is written (which a flush may do at any time).
 */
#include <errno.h>
#include <stdlib.h>

#include <platter/aio.h>

#include "util/error.h"

#include "driver.h"
#include "qcow2.h"
#include "refcount_int.h"

struct q2_reopen {
    struct q2_options opt;
    struct q2_l2_cache l2; /* only sizes and buckets */
    AioTimer *timer;       /* owned; NULL: none is wanted, or the old one does */
};

static void reopen_free(struct qcow2 *s)
{
    if (s->reopen != NULL) {
        q2_l2_next_free(s, &s->reopen->l2);
        aio_timer_free(s->reopen->timer);
        free(s->reopen);
        s->reopen = NULL;
    }
}

static int commit_clean_co(void *opaque)
{
    return q2_commit_clean_co(opaque);
}

/* Nothing is dirty in the caches, and no refcounts are postponed. */
static int write_metadata(struct qcow2 *s, Error **errp)
{
    int rc = 0;

    if (!bdrv_is_read_only(s->bs) && !(bdrv_open_flags(s->bs) & BDRV_O_CHECK)) {
        rc = bdrv_run_co(commit_clean_co, s);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "Could not write the image's metadata") : 0;
}

static int make_ready(struct qcow2 *s, struct q2_reopen *r, Error **errp)
{
    int rc = write_metadata(s, errp);

    if (rc < 0) {
        return rc;
    }
    if (r->opt.cache_clean_seconds != 0 && s->clean_timer == NULL) {
        r->timer = q2_clean_timer_new(s);
        rc = r->timer == NULL ? -ENOMEM : 0;
    }
    if (rc == 0) {
        rc = q2_l2_next(s, &r->opt, &r->l2);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "Could not set up the image's caches") : 0;
}

int q2_driver_reopen_options(BlockDriverState *bs, BlockOptions *options, int new_flags,
                             Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    int rc;

    s->reopen = calloc(1, sizeof(*s->reopen));
    if (s->reopen == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    rc = q2_options_parse(options, &s->header, &s->geo, new_flags, &s->reopen->opt, errp);
    if (rc == 0) {
        rc = make_ready(s, s->reopen, errp);
    }
    if (rc < 0) {
        reopen_free(s);
    }
    return rc;
}

void q2_driver_reopen_commit(BlockDriverState *bs)
{
    struct qcow2 *s = q2_of(bs);
    struct q2_reopen *r = s->reopen;

    if (r == NULL) {
        return;
    }
    s->opt = r->opt;
    q2_l2_switch(s, &r->l2);
    q2_refblocks_resize(s);
    if (s->opt.cache_clean_seconds == 0) {
        aio_timer_free(s->clean_timer);
        s->clean_timer = NULL;
    } else {
        if (s->clean_timer == NULL) {
            s->clean_timer = r->timer;
            r->timer = NULL;
        }
        q2_clean_timer_arm(s);
    }
    reopen_free(s);
}

void q2_driver_reopen_abort(BlockDriverState *bs)
{
    reopen_free(q2_of(bs));
}
