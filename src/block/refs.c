/* SPDX-License-Identifier: MIT */
/*
 * Which files the text inside an image may make us open: the policy of the instance.
 *
 * R1: a path is judged by where it leads once every symbolic link is followed. It is judged before
 *     it is opened, so that nothing is touched that is not allowed, and again by the descriptor
 *     that the open gave, so that a link changed meanwhile leads nowhere.
 * R2: nothing is refused or allowed by what a name looks like but by that.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "os/os.h"
#include "util/error.h"
#include "util/mem.h"

#define PATH_BYTES 4096

struct instance_ref {
    struct instance_ref *next;
    bool is_folder;
    char path[]; /* without links; or the name of a descriptor set */
};

static bool is_fdset(const char *path)
{
    return strncmp(path, BDRV_FDSET_PREFIX, strlen(BDRV_FDSET_PREFIX)) == 0;
}

static int ref_add(Platter *pl, const char *path, bool is_folder, Error **errp)
{
    size_t bytes = strlen(path) + 1;
    struct instance_ref *ref = malloc(sizeof(*ref) + bytes);

    if (ref == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    ref->is_folder = is_folder;
    memcpy(ref->path, path, bytes);
    ref->next = pl->refs;
    pl->refs = ref;
    return 0;
}

int platter_allow_image_ref(Platter *pl, const char *path, Error **errp)
{
    AUTO_FREE char *real = NULL;
    struct stat st;
    int rc;

    assert(instance_in_control_thread(pl));
    if (is_fdset(path)) {
        return ref_add(pl, path, false, errp);
    }
    rc = backing_resolve(path, &real);
    if (rc == 0) {
        rc = os->stat(real, &st);
    }
    if (rc < 0) {
        return error_set_errno(errp, -rc, "Cannot allow images to name '%s'", path);
    }
    return ref_add(pl, real, S_ISDIR(st.st_mode), errp);
}

void instance_refs_free(Platter *pl)
{
    while (pl->refs != NULL) {
        struct instance_ref *ref = pl->refs;

        pl->refs = ref->next;
        free(ref);
    }
}

/* path: without links, or a descriptor set, which is no file of a folder. */
static bool ref_covers(const struct instance_ref *ref, const char *path)
{
    size_t len = strlen(ref->path);

    if (!ref->is_folder) {
        return strcmp(ref->path, path) == 0;
    }
    if (is_fdset(path) || strncmp(ref->path, path, len) != 0) {
        return false;
    }
    return path[len] == '/' || strcmp(ref->path, "/") == 0;
}

static bool is_listed(const Platter *pl, const char *path)
{
    const struct instance_ref *ref = pl->refs;

    while (ref != NULL && !ref_covers(ref, path)) {
        ref = ref->next;
    }
    return ref != NULL;
}

/* *ret_real is where path leads, for the message; malloc'd. */
static bool path_is_allowed(const Platter *pl, const char *path, char **ret_real)
{
    if (is_fdset(path)) {
        return is_listed(pl, path);
    }
    return backing_resolve(path, ret_real) == 0 && is_listed(pl, *ret_real);
}

int refs_check(BlockDriverState *bs, const char *what, const char *name, const char *path,
               Error **errp)
{
    const Platter *pl = bs->pl;
    AUTO_FREE char *real = NULL;

    if (pl->image_refs == PLATTER_REFS_FOLLOW ||
        (pl->image_refs == PLATTER_REFS_LISTED && path != NULL &&
         path_is_allowed(pl, path, &real))) {
        return 0;
    }
    if (real != NULL) {
        error_set(errp, EPERM, "Image '%s' names the %s '%s', but '%s' is not allowed to it",
                  bdrv_get_filename(bs), what, name, real);
    } else {
        error_set(errp, EPERM, "Image '%s' names the %s '%s', which is not allowed to it",
                  bdrv_get_filename(bs), what, name);
    }
    error_set_hint(errp, "%s",
                   pl->image_refs_hint != NULL ? pl->image_refs_hint
                   : pl->image_refs == PLATTER_REFS_LISTED
                       ? "Allow it with platter_allow_image_ref, or name it in the options"
                       : "The instance allows nothing that images name; name it in the options");
    return -EPERM;
}

int refs_check_fd(Platter *pl, const char *path, int fd, Error **errp)
{
    char link[64];
    char real[PATH_BYTES];
    int64_t len;

    if (pl->ref_path == NULL || pl->image_refs != PLATTER_REFS_LISTED ||
        strcmp(path, pl->ref_path) != 0) {
        return 0;
    }
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    len = os->readlink(link, real, sizeof(real) - 1);
    if (len < 0) {
        return 0; /* no such file system here: then what was judged before the open holds */
    }
    real[len] = '\0';
    if (!is_listed(pl, real)) {
        return error_set(errp, EPERM, "'%s' leads to '%s' by now, which images may not name", path,
                         real);
    }
    return 0;
}
