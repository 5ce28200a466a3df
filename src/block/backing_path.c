/* SPDX-License-Identifier: MIT */
/*
 * What a name that stands in an image means on this machine: relative ones count from the folder of
 * the image's own file; which file a path leads to once its symbolic links are followed; and
 * whether two names are one in the eyes of an image.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/driver.h"
#include "block/graph_int.h"
#include "block/request.h"
#include "os/os.h"
#include "util/error.h"

#define PATH_BYTES 4096
#define LINKS_MAX 40 /* as the kernel */

/* ---- relative names ---- */

/* The protocol node that stores the bytes of bs, or NULL. */
BlockDriverState *backing_storage(BlockDriverState *bs)
{
    while (bs != NULL && bs->drv != NULL && !(bs->caps & BDRV_CAP_PROTOCOL)) {
        bs = bs->file != NULL ? bs->file->bs : NULL;
    }
    return bs != NULL && bs->drv != NULL ? bs : NULL;
}

int backing_path(BlockDriverState *bs, const char *name, char **ret, Error **errp)
{
    BlockDriverState *storage = backing_storage(bs);
    const char *own = storage != NULL ? storage->filename : NULL;
    const char *slash;
    size_t dir_len, bytes;

    if (name[0] == '/') {
        dir_len = 0;
    } else if (own == NULL || storage->drv->parse_filename != NULL ||
               strncmp(own, BDRV_FDSET_PREFIX, strlen(BDRV_FDSET_PREFIX)) == 0) {
        return error_set(errp, EINVAL,
                         "'%s' is relative to the folder of the image, but node '%s' has none",
                         name, bdrv_get_told_name(bs));
    } else {
        slash = strrchr(own, '/');
        dir_len = slash != NULL ? (size_t)(slash - own) + 1 : 0;
    }
    bytes = dir_len + strlen(name) + 1;
    *ret = malloc(bytes);
    if (*ret == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (dir_len > 0) {
        memcpy(*ret, own, dir_len);
    }
    memcpy(*ret + dir_len, name, bytes - dir_len);
    return 0;
}

/* ---- symbolic links ---- */

/* A path on its way: done has no links, left is still to be walked. */
struct resolve {
    char done[PATH_BYTES]; /* "" is the root */
    char left[PATH_BYTES];
    unsigned links;
    bool missing; /* done does not exist */
};

static int resolve_prepend(struct resolve *r, const char *text, size_t len)
{
    size_t left_len = strlen(r->left);

    if (len + 1 + left_len + 1 > sizeof(r->left)) {
        return -ENAMETOOLONG;
    }
    memmove(r->left + len + 1, r->left, left_len + 1);
    memcpy(r->left, text, len);
    r->left[len] = '/';
    return 0;
}

/* done ends in something that exists or not, and may be a link. */
static int resolve_follow(struct resolve *r)
{
    char target[PATH_BYTES];
    int64_t len;

    if (r->missing) {
        return 0;
    }
    len = os->readlink(r->done, target, sizeof(target));
    if (len == -EINVAL) {
        return 0;
    }
    if (len == -ENOENT || len == -ENOTDIR) {
        r->missing = true;
        return 0;
    }
    if (len < 0 || len == sizeof(target)) {
        return len < 0 ? (int)len : -ENAMETOOLONG;
    }
    if (++r->links > LINKS_MAX) {
        return -ELOOP;
    }
    if (target[0] == '/') {
        r->done[0] = '\0';
    } else {
        *strrchr(r->done, '/') = '\0';
    }
    return resolve_prepend(r, target, (size_t)len);
}

static int resolve_component(struct resolve *r, const char *text, size_t len)
{
    size_t done_len = strlen(r->done);

    if (len == 0 || (len == 1 && text[0] == '.')) {
        return 0;
    }
    if (len == 2 && text[0] == '.' && text[1] == '.') {
        char *slash = strrchr(r->done, '/');

        if (r->missing) {
            return -ENOENT;
        }
        if (slash != NULL) {
            *slash = '\0';
        }
        return 0;
    }
    if (done_len + 1 + len + 1 > sizeof(r->done)) {
        return -ENAMETOOLONG;
    }
    r->done[done_len] = '/';
    memcpy(r->done + done_len + 1, text, len);
    r->done[done_len + 1 + len] = '\0';
    return 0;
}

static int resolve_run(struct resolve *r)
{
    while (r->left[0] != '\0') {
        char component[PATH_BYTES];
        size_t len = strcspn(r->left, "/");
        size_t skip = len + (r->left[len] == '/');
        size_t before = strlen(r->done);
        int rc;

        memcpy(component, r->left, len);
        memmove(r->left, r->left + skip, strlen(r->left + skip) + 1);
        rc = resolve_component(r, component, len);
        if (rc == 0 && strlen(r->done) > before) {
            rc = resolve_follow(r);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int resolve_begin(struct resolve *r, const char *path)
{
    int64_t len;

    *r = (struct resolve){0};
    if (strlen(path) + 1 > sizeof(r->left)) {
        return -ENAMETOOLONG;
    }
    memcpy(r->left, path, strlen(path) + 1);
    if (path[0] == '/') {
        return 0;
    }
    len = os->readlink("/proc/self/cwd", r->done, sizeof(r->done) - 1);
    if (len < 0) {
        return (int)len;
    }
    r->done[len] = '\0';
    return r->done[0] == '/' ? 0 : -ENOENT; /* "(unreachable)/..." */
}

int backing_resolve(const char *path, char **ret)
{
    struct resolve *r = malloc(sizeof(*r));
    int rc = r != NULL ? resolve_begin(r, path) : -ENOMEM;

    if (rc == 0) {
        rc = resolve_run(r);
    }
    if (rc == 0) {
        *ret = strdup(r->done[0] != '\0' ? r->done : "/");
        rc = *ret == NULL ? -ENOMEM : 0;
    }
    free(r);
    return rc;
}

/* ---- names of one file ---- */

/* The file that name means in the image bs, or NULL. */
static char *real_path(BlockDriverState *bs, const char *name)
{
    char *path, *real = NULL;

    if (backing_path(bs, name, &path, NULL) == 0) {
        (void)backing_resolve(path, &real);
        free(path);
    }
    return real;
}

bool bdrv_backing_is_called(BlockDriverState *bs, const char *name)
{
    const char *said;
    char *one, *other;
    bool same;

    while (bdrv_forwards(bs)) {
        bs = bs->file->bs;
    }
    said = bs->backing_file;
    if (bdrv_backing(bs) == NULL) {
        return false;
    }
    if (said == NULL || !(*bs->backing_slot)->as_named) {
        return strcmp(bdrv_get_filename(bdrv_backing(bs)), name) == 0;
    }
    if (bdrv_protocol_prefix(said) > 0 || bdrv_protocol_prefix(name) > 0) {
        return strcmp(said, name) == 0;
    }
    one = real_path(bs, said);
    other = real_path(bs, name);
    same = one != NULL && other != NULL && strcmp(one, other) == 0;
    free(one);
    free(other);
    return same;
}
