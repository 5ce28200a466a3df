/* SPDX-License-Identifier: MIT */
/*
 * Files that an image names: its backing file and others like it ("data-file").
 *
 * What the caller's options say wins and is theirs. What comes out of an image is judged by the
 * policy of the instance (refs.c), is never writable where it is a backing file, and names nothing
 * of the instance.
 *
 * A chain is opened from the top down, one layer after the other: while a driver opens, its backing
 * file is only wanted (struct backing_wanted), and backing_open_chain opens and attaches it. So the
 * depth of a chain costs no stack. Invariants:
 *  B1 a chain is no deeper than backing_depth_max, nodes that a reference brings along counted.
 *  B2 no file stands twice on the way from the top down when an image brought it there.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "block/request.h"
#include "os/os.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/options.h"

#define FILE_PREFIX "file:"
#define JSON_PREFIX "json:"

struct backing_wanted {
    BlockDriverState *node; /* counted: a reference; NULL: to be opened */
    BlockOptions *options;  /* owned */
    char *filename;         /* owned: positional, or NULL */
    char *path;             /* owned: what options name, when an image brought it */
    bool as_named;          /* the image's name of it is all that is known */
    unsigned bounds;
};

static int no_memory(Error **errp)
{
    return error_set(errp, ENOMEM, "out of memory while opening a node");
}

static void wanted_free(struct backing_wanted *w)
{
    if (w != NULL) {
        bdrv_unref(w->node);
        block_options_free(w->options);
        free(w->filename);
        free(w->path);
        free(w);
    }
}

void backing_wanted_free(BlockDriverState *bs)
{
    wanted_free(bs->backing_wanted);
    bs->backing_wanted = NULL;
}

/* ---- the same file twice ---- */

static bool same_file(const struct bdrv_file_id *a, const struct bdrv_file_id *b)
{
    return a->dev == b->dev && a->ino == b->ino;
}

/* Whether bs, or one for which it was opened, keeps its bytes in this file. */
static bool is_open_above(BlockDriverState *bs, const struct bdrv_file_id *id)
{
    for (; bs != NULL; bs = bs->opened_under) {
        const BlockDriverState *storage = backing_storage(bs);

        if (storage != NULL && storage->has_file_id && same_file(&storage->file_id, id)) {
            return true;
        }
    }
    return false;
}

/* Before anything is opened, so that no lock of ours is in the way of saying it. B2. */
static int refuse_loop_by_path(BlockDriverState *bs, const char *what, const char *path,
                               Error **errp)
{
    struct bdrv_file_id id;
    struct stat st;

    if (os->stat(path, &st) < 0) {
        return 0; /* the open will say why */
    }
    id = (struct bdrv_file_id){
        .dev = S_ISBLK(st.st_mode) ? 0 : st.st_dev,
        .ino = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_ino,
    };
    if (is_open_above(bs, &id)) {
        return error_set(errp, ELOOP, "'%s' as %s of '%s' would be a loop: it is in use above",
                         path, what, bdrv_get_filename(bs));
    }
    return 0;
}

static int refuse_loop(BlockDriverState *bs, const char *what, BlockDriverState *node, Error **errp)
{
    BlockDriverState *storage = backing_storage(node);

    if (storage != NULL && storage->has_file_id && is_open_above(bs, &storage->file_id)) {
        return error_set(errp, ELOOP, "'%s' as %s of '%s' would be a loop: it is in use above",
                         bdrv_get_filename(node), what, bdrv_get_filename(bs));
    }
    return 0;
}

/* ---- a name out of an image as options ---- */

/* The path that a name means; NULL: it is json: or of a protocol. 0 or -errno. */
static int path_of_name(BlockDriverState *bs, const char *name, char **ret_path, Error **errp)
{
    *ret_path = NULL;
    if (strncmp(name, FILE_PREFIX, strlen(FILE_PREFIX)) == 0) {
        *ret_path = strdup(name + strlen(FILE_PREFIX));
        return *ret_path == NULL ? no_memory(errp) : 0;
    }
    return bdrv_protocol_prefix(name) > 0 ? 0 : backing_path(bs, name, ret_path, errp);
}

char *bdrv_get_backing_path(BlockDriverState *bs, const char *name, Error **errp)
{
    char *path;

    assert(instance_in_control_thread(bs->pl));
    if (bdrv_protocol_prefix(name) == 0) {
        return backing_path(bs, name, &path, errp) < 0 ? NULL : path;
    }
    path = strdup(name);
    if (path == NULL) {
        no_memory(errp);
    }
    return path;
}

static int refuse_node_names(const BlockOptions *options, Error **errp)
{
    static const char node_name[] = "node-name";
    const char *key = NULL;

    while ((key = block_options_next_key(options, key)) != NULL) {
        size_t len = strlen(key);
        size_t tail = strlen(node_name);

        if (len >= tail && strcmp(key + len - tail, node_name) == 0) {
            return error_set(errp, EPERM, "An image may not give a node its name ('%s')", key);
        }
    }
    return 0;
}

/* The driver of the backing file: what the caller's options say, else the format that the image
 * says, else a json: name, else a guess where that is wanted. A name that says another driver than
 * the image does not win: who reads the image trusts the format to be where its chain ends.
 * *ret_drv NULL: not known here. */
static int choose_format(BlockDriverState *bs, const char *name, const char *format,
                         BlockOptions *options, const BlockOptions *callers, const char *path,
                         const BlockDriver **ret_drv, Error **errp)
{
    bool says_driver = callers != NULL && block_options_has(callers, "driver");
    const char *given =
        says_driver || format == NULL ? block_options_get_str(options, "driver") : NULL;
    const BlockDriver *drv = NULL;

    *ret_drv = NULL;
    if (given != NULL) {
        *ret_drv = bdrv_find_driver(given);
        return 0; /* an unknown one is the open's to refuse */
    }
    if (format == NULL) {
        if (bs->open_flags & BDRV_O_PROBE) {
            return 0;
        }
        error_set(errp, EINVAL, "Image '%s' does not say which format its backing file '%s' has",
                  bdrv_get_filename(bs), name);
        error_set_hint(errp, "Give it as backing.driver, or write it into the image with a rebase");
        return -EINVAL;
    }
    drv = bdrv_find_driver(format);
    if (drv == NULL) {
        return bdrv_unknown_driver(format, errp);
    }
    if (!(drv->caps & BDRV_CAP_FORMAT) &&
        (path == NULL ? !(drv->caps & BDRV_CAP_PROTOCOL) : drv != bdrv_find_path(path, NULL))) {
        return error_set(errp, EINVAL, "'%s' is no format of a backing file", format);
    }
    *ret_drv = drv;
    return block_options_set_str(options, "driver", format) < 0 ? no_memory(errp) : 0;
}

static int put_path(BlockOptions *options, const BlockDriver *drv, const char *path, Error **errp)
{
    bool direct = drv != NULL && (drv->caps & BDRV_CAP_PROTOCOL);
    int rc = block_options_set_str(options, direct ? "filename" : "file.filename", path);

    if (rc == -ENOMEM) {
        return no_memory(errp);
    }
    return rc < 0 ? error_set(errp, -rc, "'%s' cannot be a file name", path) : 0;
}

/* given: the caller's options, which name no file; they win. */
static int wanted_by_name(BlockDriverState *bs, const char *name, const char *format,
                          const BlockOptions *given, struct backing_wanted *w, Error **errp)
{
    const BlockDriver *drv;
    int rc = path_of_name(bs, name, &w->path, errp);

    if (rc == 0) {
        rc = refs_check(bs, "backing file", name, w->path, errp);
    }
    if (rc < 0) {
        return rc;
    }
    w->bounds = BDRV_OPEN_FROM_IMAGE;
    if (strncmp(name, JSON_PREFIX, strlen(JSON_PREFIX)) == 0) {
        w->options = block_options_parse_json(name, errp);
        if (w->options == NULL || refuse_node_names(w->options, errp) < 0) {
            return -EINVAL;
        }
        w->bounds |= BDRV_OPEN_NO_REFERENCES;
    } else {
        w->options = block_options_new();
        if (w->options == NULL) {
            return no_memory(errp);
        }
        if (w->path == NULL) {
            w->filename = strdup(name);
            if (w->filename == NULL) {
                return no_memory(errp);
            }
        }
    }
    w->as_named = given == NULL;
    if (given != NULL && block_options_put_prefix(w->options, "", given) < 0) {
        return no_memory(errp);
    }
    rc = choose_format(bs, name, format, w->options, given, w->path, &drv, errp);
    if (rc == 0 && w->path != NULL) {
        rc = put_path(w->options, drv, w->path, errp);
    }
    if (rc == 0 && w->path != NULL) {
        rc = refuse_loop_by_path(bs, "backing file", w->path, errp);
    }
    return rc;
}

/* ---- what is wanted ---- */

/* Whether options say by themselves what is to be opened. */
static bool options_name_file(const BlockOptions *options)
{
    const char *driver = block_options_get_str(options, "driver");
    const BlockDriver *drv = driver != NULL ? bdrv_find_driver(driver) : NULL;

    return block_options_has(options, "filename") || block_options_has(options, "file") ||
           block_options_has_prefix(options, "file.") ||
           (drv != NULL && (drv->caps & BDRV_CAP_PROTOCOL));
}

/* 1: something is wanted; 0: nothing; or -errno. from->options is used up. */
static int wanted_fill(BlockDriverState *bs, struct bdrv_child_options *from, const char *name,
                       const char *format, struct backing_wanted *w, Error **errp)
{
    int rc;

    if (from->is_null || (bs->open_flags & BDRV_O_NO_BACKING)) {
        block_options_free(from->options);
        return 0;
    }
    if (from->reference != NULL) {
        if (bs->open_bounds & BDRV_OPEN_NO_REFERENCES) {
            return error_set(errp, EPERM, "An image may not refer to a node ('%.*s')",
                             BDRV_NODE_NAME_BYTES_MAX, from->reference);
        }
        w->node = bdrv_find_reference(bs->pl, from->reference, errp);
        if (w->node == NULL) {
            error_prepend(errp, "Could not open backing file: ");
            return -ENOENT;
        }
        return 1;
    }
    if (from->options != NULL && (name == NULL || options_name_file(from->options))) {
        w->options = from->options;
        return 1;
    }
    if (name == NULL) {
        return 0;
    }
    rc = wanted_by_name(bs, name, format, from->options, w, errp);
    block_options_free(from->options);
    return rc < 0 ? rc : 1;
}

int bdrv_open_backing(BlockDriverState *bs, BlockOptions *options, const char *name,
                      const char *format, BdrvEdge **ret_edge, Error **errp)
{
    struct bdrv_child_options from;
    struct backing_wanted *w;
    int rc;

    assert(instance_in_control_thread(bs->pl) && bs->opening != NULL && bs->backing_wanted == NULL);
    assert((char *)ret_edge >= (char *)bs->opaque &&
           (char *)(ret_edge + 1) <= (char *)bs->opaque + bs->drv->instance_size);
    *ret_edge = NULL;
    bs->backing_slot = ret_edge;
    if (bdrv_set_backing_name(bs, name, format) < 0) {
        return no_memory(errp);
    }
    rc = bdrv_child_options_take(bs, options, "backing", &from, errp);
    if (rc < 0) {
        return rc;
    }
    w = calloc(1, sizeof(*w));
    if (w == NULL) {
        block_options_free(from.options);
        return no_memory(errp);
    }
    rc = wanted_fill(bs, &from, name, format, w, errp);
    block_options_del(options, "backing");
    if (rc <= 0) {
        wanted_free(w);
        return rc;
    }
    bs->backing_wanted = w;
    return 0;
}

/* ---- the chain ---- */

unsigned backing_chain_depth(BlockDriverState *bs)
{
    unsigned depth = 0;

    for (;;) {
        BlockDriverState *backing = bdrv_backing(bs);

        if (backing != NULL) {
            depth++;
            bs = backing;
        } else if (bs->file != NULL && (bs->file->role & BDRV_ROLE_FILTERED)) {
            bs = bs->file->bs;
        } else {
            return depth;
        }
    }
}

static int refuse_depth(BlockDriverState *bs, unsigned below, Error **errp)
{
    unsigned max = bs->pl->backing_depth_max;

    if (below >= max || bs->backing_depth >= max - below) { /* B1 */
        return error_set(errp, ELOOP, "The backing chain is more than %u files deep at '%s'", max,
                         bdrv_get_filename(bs));
    }
    return 0;
}

static BlockDriverState *wanted_open(BlockDriverState *bs, struct backing_wanted *w, Error **errp)
{
    Platter *pl = bs->pl;
    const char *outer = pl->ref_path;
    BlockOptions *options = w->options;
    BlockDriverState *node;

    w->options = NULL;
    pl->ref_path = w->path;
    node = bdrv_open_backing_node(bs, w->filename, options, w->bounds, errp);
    pl->ref_path = outer;
    if (node != NULL && (w->bounds & BDRV_OPEN_FROM_IMAGE) &&
        refuse_loop(bs, "backing file", node, errp) < 0) {
        bdrv_unref(node);
        node = NULL;
    }
    return node;
}

/* One step down. *ret_next is the node whose own backing file comes next, or NULL. */
static int chain_step(BlockDriverState *bs, struct backing_wanted *w, BlockDriverState **ret_next,
                      Error **errp)
{
    BlockDriverState *node = w->node;
    int rc = refuse_depth(bs, node != NULL ? backing_chain_depth(node) : 0, errp);
    BdrvEdge *edge;

    if (rc < 0) {
        return rc;
    }
    *ret_next = NULL;
    if (node == NULL) {
        node = wanted_open(bs, w, errp);
        if (node == NULL) {
            error_prepend(errp, "Could not open backing file: ");
            return -EINVAL;
        }
        *ret_next = node;
    }
    w->node = NULL;
    edge = bdrv_attach_child(bs, node, "backing", BDRV_ROLE_COW, errp);
    if (edge != NULL) {
        edge->opened_here = *ret_next != NULL;
        edge->as_named = w->as_named;
    }
    bdrv_unref(node);
    return edge == NULL ? -EPERM : 0;
}

int backing_open_chain(BlockDriverState *bs, Error **errp)
{
    unsigned above = 0;
    int rc = 0;

    while (bs != NULL && bs->backing_wanted != NULL) {
        BlockDriverState *next;

        rc = chain_step(bs, bs->backing_wanted, &next, errp);
        backing_wanted_free(bs);
        if (rc < 0) {
            break;
        }
        bs = next;
        above++;
    }
    while (rc < 0 && above-- > 0) { /* those above could not open theirs, either */
        error_prepend(errp, "Could not open backing file: ");
    }
    return rc;
}

/* ---- other files ---- */

/* Put the path that name means into options, under the child's name. */
static int referenced_to_options(BlockDriverState *bs, BlockOptions *options,
                                 const char *child_name, const char *name, char **ret_path,
                                 Error **errp)
{
    char key[64];
    int rc;

    if (bdrv_protocol_prefix(name) > 0) {
        return error_set(errp, EINVAL, "Image '%s' names '%s' as its %s, which is no path",
                         bdrv_get_filename(bs), name, child_name);
    }
    rc = backing_path(bs, name, ret_path, errp);
    if (rc == 0) {
        rc = refs_check(bs, child_name, name, *ret_path, errp);
    }
    if (rc == 0) {
        rc = refuse_loop_by_path(bs, child_name, *ret_path, errp);
    }
    if (rc < 0) {
        return rc;
    }
    assert(strlen(child_name) + sizeof(".filename") <= sizeof(key));
    snprintf(key, sizeof(key), "%s.filename", child_name);
    rc = block_options_set_str(options, key, *ret_path);
    if (rc == -ENOMEM) {
        return no_memory(errp);
    }
    return rc < 0 ? error_set(errp, -rc, "'%s' cannot be a file name", *ret_path) : 0;
}

/* Whether options say by themselves which file the child is. */
static bool child_names_file(const BlockOptions *options, const char *child_name)
{
    static const char *const keys[] = {".filename", ".file", ".file.filename"};
    char key[64];

    if (block_options_has(options, child_name)) {
        return true;
    }
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        snprintf(key, sizeof(key), "%s%s", child_name, keys[i]);
        if (block_options_has(options, key)) {
            return true;
        }
    }
    return false;
}

int bdrv_open_referenced(BlockDriverState *bs, BlockOptions *options, const char *child_name,
                         const char *name, unsigned role, BdrvEdge **ret_edge, Error **errp)
{
    const char *outer = bs->pl->ref_path;
    AUTO_FREE char *path = NULL;
    unsigned bounds = 0;
    BdrvEdge *edge;
    int rc = 0;

    *ret_edge = NULL;
    if (name != NULL && !child_names_file(options, child_name)) {
        if (bs->open_flags & BDRV_O_NO_IO) {
            return 0;
        }
        rc = referenced_to_options(bs, options, child_name, name, &path, errp);
        bounds = BDRV_OPEN_FROM_IMAGE;
    }
    if (rc < 0) {
        return rc;
    }
    bs->pl->ref_path = path;
    edge = bdrv_open_child_within(bs, NULL, options, child_name, role, bounds, false, errp);
    bs->pl->ref_path = outer;
    if (edge == NULL) {
        return -EINVAL;
    }
    if (bounds != 0 && refuse_loop(bs, child_name, edge->bs, errp) < 0) {
        return -ELOOP; /* the edge goes with the node that is not opened */
    }
    *ret_edge = edge;
    return 0;
}
