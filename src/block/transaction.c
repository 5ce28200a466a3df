/* SPDX-License-Identifier: MIT */
/*
 * Actions that are done together or not at all.
 *
 * Invariants
 *  A1 every node of an action is referenced, and drained while the actions run: what one left is
 *     what its abort finds.
 *  A2 what abort needs was there before prepare changed anything; only the storage can refuse it.
 *  A3 what cannot be taken back (finish) comes after all prepares, and there is one of it.
 */
#include <platter/transaction.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/dirty_bitmap.h"
#include "block/graph_edit.h"
#include "block/graph_int.h"
#include "util/error.h"
#include "util/size.h"

struct action;

struct action_kind {
    int (*prepare)(struct action *action, Error **errp);
    int (*abort)(struct action *action, Error **errp);  /* NULL: nothing to take back */
    void (*commit)(struct action *action);              /* NULL: nothing is left to do */
    int (*finish)(struct action *action, Error **errp); /* A3; NULL: nothing */
};

struct action {
    TAILQ_ENTRY(action) entry;
    const struct action_kind *kind;
    BlockDriverState *bs;    /* counted, or NULL */
    BlockDriverState *other; /* counted, or NULL */
    char *name;              /* owned, or NULL */
    char *other_name;        /* owned, or NULL */
    uint64_t granularity_bytes;
    unsigned flags;
    bool enable;
    struct bdrv_snapshot_info info; /* its id and name are ours below */
    char id[24];
    BdrvDirtyBitmap *bitmap; /* once prepared; borrowed */
    struct bitmap_saved saved;
    struct graph_edit edit;
    const struct bdrv_action_ops *ops; /* borrowed */
    void *opaque;
};
TAILQ_HEAD(action_list, action);

struct BdrvTransaction {
    Platter *pl; /* borrowed */
    struct action_list actions;
    bool no_memory;
};

/* ---- the graph ---- */

static int append_prepare(struct action *a, Error **errp)
{
    return graph_edit_append(&a->edit, a->other, a->bs, errp);
}

static int insert_prepare(struct action *a, Error **errp)
{
    return graph_edit_insert(&a->edit, a->other, a->bs, NULL, 0, errp);
}

static int remove_prepare(struct action *a, Error **errp)
{
    return graph_edit_remove(&a->edit, a->bs, errp);
}

static int replace_prepare(struct action *a, Error **errp)
{
    return graph_edit_replace(&a->edit, a->bs, a->other, errp);
}

static int edit_abort(struct action *a, Error **errp)
{
    return graph_edit_undo(&a->edit, errp);
}

static void edit_commit(struct action *a)
{
    graph_edit_keep(&a->edit);
}

/* ---- internal snapshots ---- */

/* Whether there is one of that name or id; the next free id. */
static int look_at_snapshots(struct action *a, bool *ret_found, Error **errp)
{
    struct bdrv_snapshot_list list;
    uint64_t next = 1;
    int rc = bdrv_snapshot_list(a->bs, &list, errp);

    if (rc < 0) {
        return rc;
    }
    *ret_found = false;
    for (size_t i = 0; i < list.count; i++) {
        const struct bdrv_snapshot_info *s = &list.snapshots[i];
        uint64_t id;
        bool same_name = a->name == NULL || strcmp(s->name, a->name) == 0;
        bool same_id = a->other_name == NULL || strcmp(s->id, a->other_name) == 0;

        *ret_found = *ret_found || (same_name && same_id);
        if (number_parse(s->id, "id", 0, UINT64_MAX - 1, &id, NULL) == 0 && id >= next) {
            next = id + 1;
        }
    }
    bdrv_snapshot_list_free(&list);
    snprintf(a->id, sizeof(a->id), "%" PRIu64, next);
    return 0;
}

static int create_prepare(struct action *a, Error **errp)
{
    bool found;
    int rc;

    if (a->name == NULL || a->name[0] == '\0') {
        return error_set(errp, EINVAL, "A snapshot of node '%s' needs a name",
                         bdrv_get_told_name(a->bs));
    }
    rc = look_at_snapshots(a, &found, errp);
    if (rc == 0 && found) {
        rc = error_set(errp, EEXIST, "Snapshot with name '%s' already exists on node '%s'", a->name,
                       bdrv_get_told_name(a->bs));
    }
    if (rc == 0) {
        a->info.id = a->id;
        a->info.name = a->name;
        rc = bdrv_snapshot_create(a->bs, &a->info, errp);
    }
    return rc;
}

static int create_abort(struct action *a, Error **errp)
{
    return bdrv_snapshot_delete(a->bs, a->id, a->name, errp);
}

static int delete_prepare(struct action *a, Error **errp)
{
    bool found;
    int rc;

    if (a->name == NULL && a->other_name == NULL) {
        return error_set(errp, EINVAL, "Neither id nor name of a snapshot is given");
    }
    rc = look_at_snapshots(a, &found, errp);
    if (rc == 0 && !found) {
        rc = error_set(errp, ENOENT, "Node '%s' has no snapshot '%s'", bdrv_get_told_name(a->bs),
                       a->name != NULL ? a->name : a->other_name);
    }
    return rc;
}

static int delete_finish(struct action *a, Error **errp)
{
    return bdrv_snapshot_delete(a->bs, a->other_name, a->name, errp);
}

/* ---- bitmaps ---- */

static BdrvDirtyBitmap *find_bitmap(BlockDriverState *bs, const char *name, Error **errp)
{
    BdrvDirtyBitmap *bitmap = name != NULL ? bdrv_bitmap_find(bs, name) : NULL;

    if (bitmap == NULL) {
        error_set(errp, ENOENT, "Dirty bitmap '%.*s' not found", BDRV_BITMAP_NAME_BYTES_MAX,
                  name != NULL ? name : "");
    }
    return bitmap;
}

static int add_prepare(struct action *a, Error **errp)
{
    Error *err = NULL;
    int rc = 0;

    a->bitmap = bdrv_bitmap_create(a->bs, a->name, a->granularity_bytes, a->flags, &err);
    if (a->bitmap == NULL) {
        rc = -error_get_errno(err);
        error_propagate(errp, err);
    }
    return rc;
}

/* The image has never heard of it. */
static int add_abort(struct action *a, Error **errp)
{
    bdrv_bitmap_drop(a->bitmap);
    return 0;
}

static int clear_prepare(struct action *a, Error **errp)
{
    a->bitmap = find_bitmap(a->bs, a->name, errp);
    return a->bitmap != NULL ? bdrv_bitmap_clear_saving(a->bitmap, &a->saved, errp) : -ENOENT;
}

static int merge_prepare(struct action *a, Error **errp)
{
    BdrvDirtyBitmap *source = find_bitmap(a->other, a->other_name, errp);

    a->bitmap = source != NULL ? find_bitmap(a->bs, a->name, errp) : NULL;
    return a->bitmap != NULL ? bdrv_bitmap_merge_saving(a->bitmap, source, &a->saved, errp)
                             : -ENOENT;
}

static int bits_abort(struct action *a, Error **errp)
{
    bdrv_bitmap_restore(a->bitmap, &a->saved);
    return 0;
}

static void bits_commit(struct action *a)
{
    bdrv_bitmap_saved_free(&a->saved);
}

static int recording_set(struct action *a, bool enable, Error **errp)
{
    return enable ? bdrv_bitmap_enable(a->bitmap, errp) : bdrv_bitmap_disable(a->bitmap, errp);
}

static int recording_prepare(struct action *a, Error **errp)
{
    struct bdrv_bitmap_info info;
    bool enable = a->enable;

    a->bitmap = find_bitmap(a->bs, a->name, errp);
    if (a->bitmap == NULL) {
        return -ENOENT;
    }
    bdrv_bitmap_get_info(a->bitmap, &info);
    a->enable = info.recording; /* for abort */
    return recording_set(a, enable, errp);
}

static int recording_abort(struct action *a, Error **errp)
{
    return recording_set(a, a->enable, errp);
}

/* ---- the caller's own ---- */

static int own_prepare(struct action *a, Error **errp)
{
    return a->ops->prepare(a->opaque, errp);
}

static int own_abort(struct action *a, Error **errp)
{
    if (a->ops->abort != NULL) {
        a->ops->abort(a->opaque);
    }
    return 0;
}

static void own_commit(struct action *a)
{
    if (a->ops->commit != NULL) {
        a->ops->commit(a->opaque);
    }
}

static const struct action_kind kind_append = {append_prepare, edit_abort, edit_commit, NULL};
static const struct action_kind kind_insert = {insert_prepare, edit_abort, edit_commit, NULL};
static const struct action_kind kind_remove = {remove_prepare, edit_abort, edit_commit, NULL};
static const struct action_kind kind_replace = {replace_prepare, edit_abort, edit_commit, NULL};
static const struct action_kind kind_create = {create_prepare, create_abort, NULL, NULL};
static const struct action_kind kind_delete = {delete_prepare, NULL, NULL, delete_finish};
static const struct action_kind kind_add = {add_prepare, add_abort, NULL, NULL};
static const struct action_kind kind_clear = {clear_prepare, bits_abort, bits_commit, NULL};
static const struct action_kind kind_merge = {merge_prepare, bits_abort, bits_commit, NULL};
static const struct action_kind kind_recording = {recording_prepare, recording_abort, NULL, NULL};
static const struct action_kind kind_own = {own_prepare, own_abort, own_commit, NULL};

/* ---- building ---- */

BdrvTransaction *bdrv_transaction_new(Platter *pl)
{
    BdrvTransaction *t = calloc(1, sizeof(*t));

    if (t != NULL) {
        t->pl = pl;
        TAILQ_INIT(&t->actions);
    }
    return t;
}

static void action_free(struct action *a)
{
    if (a->ops != NULL && a->ops->clean != NULL) {
        a->ops->clean(a->opaque);
    }
    bdrv_unref(a->bs);
    bdrv_unref(a->other);
    free(a->name);
    free(a->other_name);
    free(a);
}

static struct action *action_add(BdrvTransaction *t, const struct action_kind *kind,
                                 BlockDriverState *bs, BlockDriverState *other, const char *name,
                                 const char *other_name)
{
    struct action *a = t != NULL ? calloc(1, sizeof(*a)) : NULL;

    if (a != NULL) {
        a->name = name != NULL ? strdup(name) : NULL;
        a->other_name = other_name != NULL ? strdup(other_name) : NULL;
        if ((name != NULL && a->name == NULL) || (other_name != NULL && a->other_name == NULL)) {
            action_free(a);
            a = NULL;
        }
    }
    if (a == NULL) {
        if (t != NULL) {
            t->no_memory = true;
        }
        return NULL;
    }
    a->kind = kind;
    a->bs = bs;
    a->other = other;
    if (bs != NULL) {
        bdrv_ref(bs);
    }
    if (other != NULL) {
        bdrv_ref(other);
    }
    TAILQ_INSERT_TAIL(&t->actions, a, entry);
    return a;
}

void bdrv_transaction_append(BdrvTransaction *t, BlockDriverState *overlay, BlockDriverState *bs)
{
    action_add(t, &kind_append, bs, overlay, NULL, NULL);
}

void bdrv_transaction_insert_node(BdrvTransaction *t, BlockDriverState *filter,
                                  BlockDriverState *bs)
{
    action_add(t, &kind_insert, bs, filter, NULL, NULL);
}

void bdrv_transaction_remove_filter(BdrvTransaction *t, BlockDriverState *filter)
{
    action_add(t, &kind_remove, filter, filter->file != NULL ? filter->file->bs : NULL, NULL, NULL);
}

void bdrv_transaction_replace_node(BdrvTransaction *t, BlockDriverState *from, BlockDriverState *to)
{
    action_add(t, &kind_replace, from, to, NULL, NULL);
}

void bdrv_transaction_snapshot_create(BdrvTransaction *t, BlockDriverState *bs, const char *name,
                                      const struct bdrv_snapshot_info *info)
{
    struct action *a = action_add(t, &kind_create, bs, NULL, name, NULL);

    if (a != NULL && info != NULL) {
        a->info = *info;
    }
}

void bdrv_transaction_snapshot_delete(BdrvTransaction *t, BlockDriverState *bs, const char *id,
                                      const char *name)
{
    action_add(t, &kind_delete, bs, NULL, name, id);
}

void bdrv_transaction_bitmap_add(BdrvTransaction *t, BlockDriverState *bs, const char *name,
                                 uint64_t granularity_bytes, unsigned flags)
{
    struct action *a = action_add(t, &kind_add, bs, NULL, name, NULL);

    if (a != NULL) {
        a->granularity_bytes = granularity_bytes;
        a->flags = flags;
    }
}

void bdrv_transaction_bitmap_clear(BdrvTransaction *t, BlockDriverState *bs, const char *name)
{
    action_add(t, &kind_clear, bs, NULL, name, NULL);
}

void bdrv_transaction_bitmap_enable(BdrvTransaction *t, BlockDriverState *bs, const char *name,
                                    bool enable)
{
    struct action *a = action_add(t, &kind_recording, bs, NULL, name, NULL);

    if (a != NULL) {
        a->enable = enable;
    }
}

void bdrv_transaction_bitmap_merge(BdrvTransaction *t, BlockDriverState *bs, const char *target,
                                   BlockDriverState *source_bs, const char *source)
{
    action_add(t, &kind_merge, bs, source_bs, target, source);
}

void bdrv_transaction_add(BdrvTransaction *t, BlockDriverState *bs,
                          const struct bdrv_action_ops *ops, void *opaque)
{
    struct action *a = action_add(t, &kind_own, bs, NULL, NULL, NULL);

    if (a != NULL) {
        a->ops = ops;
        a->opaque = opaque;
    } else if (ops->clean != NULL) {
        ops->clean(opaque);
    }
}

void bdrv_transaction_free(BdrvTransaction *t)
{
    struct action *a;

    while (t != NULL && (a = TAILQ_FIRST(&t->actions)) != NULL) {
        TAILQ_REMOVE(&t->actions, a, entry);
        action_free(a);
    }
    free(t);
}

/* ---- running ---- */

static void drain_all(BdrvTransaction *t, void (*drain)(BlockDriverState *bs))
{
    struct action *a;

    TAILQ_FOREACH (a, &t->actions, entry) {
        if (a->bs != NULL) {
            drain(a->bs);
        }
        if (a->other != NULL) {
            drain(a->other);
        }
    }
}

/* A3 */
static int refuse_two_finishes(const BdrvTransaction *t, Error **errp)
{
    const struct action *a;
    unsigned finishes = 0;

    TAILQ_FOREACH (a, &t->actions, entry) {
        finishes += a->kind->finish != NULL;
    }
    return finishes <= 1 ? 0
                         : error_set(errp, EINVAL,
                                     "A transaction cannot delete more than one snapshot: that "
                                     "cannot be taken back");
}

/* Take back what stands before a (NULL: all). */
static void abort_before(BdrvTransaction *t, struct action *a, Error **errp)
{
    a = a != NULL ? TAILQ_PREV(a, action_list, entry) : TAILQ_LAST(&t->actions, action_list);
    for (; a != NULL; a = TAILQ_PREV(a, action_list, entry)) {
        Error *err = NULL;

        if (a->kind->abort != NULL && a->kind->abort(a, &err) < 0) {
            error_set_hint(errp, "What was done before could not be taken back: %s",
                           err != NULL ? error_get_pretty(err) : "unknown error");
        }
        error_free(err);
    }
}

static int run_actions(BdrvTransaction *t, Error **errp)
{
    struct action *a;
    int rc = refuse_two_finishes(t, errp);

    if (rc < 0) {
        return rc;
    }
    TAILQ_FOREACH (a, &t->actions, entry) {
        rc = a->kind->prepare(a, errp);
        if (rc < 0) {
            abort_before(t, a, errp);
            return rc;
        }
    }
    TAILQ_FOREACH (a, &t->actions, entry) {
        rc = a->kind->finish != NULL ? a->kind->finish(a, errp) : 0;
        if (rc < 0) {
            abort_before(t, NULL, errp);
            return rc;
        }
    }
    TAILQ_FOREACH (a, &t->actions, entry) {
        if (a->kind->commit != NULL) {
            a->kind->commit(a);
        }
    }
    return 0;
}

int bdrv_transaction_run(BdrvTransaction *t, Error **errp)
{
    Platter *pl;
    int rc;

    if (t == NULL || t->no_memory) {
        bdrv_transaction_free(t);
        return error_set(errp, ENOMEM, "out of memory for a transaction");
    }
    pl = t->pl;
    instance_control(pl);
    drain_all(t, bdrv_drained_begin);
    rc = run_actions(t, errp);
    drain_all(t, bdrv_drained_end);
    bdrv_transaction_free(t);
    graph_tell_sizes(pl);
    return rc;
}
