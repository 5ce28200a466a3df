/* SPDX-License-Identifier: MIT */
#include "tools/img/chain.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "block/driver.h"
#include "os/os.h"
#include "util/name_beside.h"

#define WALK_MAX 1000 /* of images that name each other */

BlockDriverState *chain_below(BlockDriverState *bs)
{
    return bdrv_chain_below(bs);
}

static bool stat_name(const char *name, struct stat *st)
{
    return os->stat(strncmp(name, "file:", 5) == 0 ? name + 5 : name, st) == 0;
}

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_rdev == b->st_rdev;
}

bool chain_same_file(const char *a, const char *b)
{
    struct stat st_a, st_b;

    return stat_name(a, &st_a) && stat_name(b, &st_b) && same(&st_a, &st_b);
}

bool chain_fd_is_file(int fd, const char *name)
{
    struct stat st_fd, st;

    return os->fstat(fd, &st_fd) == 0 && (S_ISREG(st_fd.st_mode) || S_ISBLK(st_fd.st_mode)) &&
           stat_name(name, &st) && same(&st_fd, &st);
}

bool chain_has_file(Platter *pl, const char *name)
{
    for (BlockDriverState *bs = bdrv_next_node(pl, NULL); bs; bs = bdrv_next_node(pl, bs)) {
        if (chain_same_file(bdrv_get_filename(bs), name)) {
            return true;
        }
    }
    return false;
}

bool chain_has_fd(Platter *pl, int fd)
{
    for (BlockDriverState *bs = bdrv_next_node(pl, NULL); bs; bs = bdrv_next_node(pl, bs)) {
        if (chain_fd_is_file(fd, bdrv_get_filename(bs))) {
            return true;
        }
    }
    return false;
}

BlockDriverState *chain_find(BlockDriverState *bs, const char *name, unsigned *ret_depth)
{
    BlockDriverState *backing;

    for (unsigned depth = 1; (backing = chain_below(bs)) != NULL; depth++, bs = backing) {
        const char *said = bdrv_get_backing_file(bs);
        const char *filename = bdrv_get_filename(backing);

        if (strcmp(filename, name) == 0 || (said && strcmp(said, name) == 0) ||
            chain_same_file(filename, name)) {
            if (ret_depth) {
                *ret_depth = depth;
            }
            return backing;
        }
    }
    return NULL;
}

BlockDriverState *chain_find_called(BlockDriverState *bs, const char *name)
{
    while (bs && !bdrv_backing_is_called(bs, name)) {
        bs = chain_below(bs);
    }
    return bs ? chain_below(bs) : NULL;
}

/* Of an image for looking only, whoever uses it; NULL: it cannot be. */
static BlockDriverState *open_layer(Platter *pl, const char *path, const char *format)
{
    BlockOptions *options = block_options_new();

    if (!options || block_options_set_bool(options, "force-share", true) < 0 ||
        block_options_set_str(options, "driver", format) < 0) {
        block_options_free(options);
        return NULL;
    }
    return bdrv_open(pl, path, NULL, options, BDRV_O_NO_IO | BDRV_O_NO_BACKING, NULL);
}

/* The names of the layer below: *path and *format (owned) become those; false: there is none. What
 * tells no format is not guessed, as its guest would decide. */
static bool go_below(BlockDriverState *bs, char **path, char **format)
{
    const char *said = bs ? bdrv_get_backing_file(bs) : NULL;
    const char *said_format = bs ? bdrv_get_backing_format(bs) : NULL;
    char *below = said ? name_beside(*path, said) : NULL;

    free(*path);
    free(*format);
    *path = below;
    *format = said_format ? strdup(said_format) : NULL;
    return *path != NULL;
}

static bool is_local(const char *path)
{
    const char *colon = strchr(path, ':');
    const char *slash = strchr(path, '/');

    return !colon || (slash && slash < colon) || strncmp(path, "json:", 5) == 0 ||
           strncmp(path, "file:", 5) == 0;
}

void chain_walk_named(Platter *pl, const char *name, const char *format, ChainSee *see,
                      void *opaque)
{
    char *path = strdup(name);
    char *path_format = format ? strdup(format) : NULL;
    bool more = path != NULL;

    for (unsigned depth = 0; more && depth < WALK_MAX; depth++) {
        BlockDriverState *bs =
            path_format && is_local(path) ? open_layer(pl, path, path_format) : NULL;

        more = see(opaque, path, bs) && go_below(bs, &path, &path_format);
        bdrv_unref(bs);
    }
    free(path);
    free(path_format);
}

struct search {
    const char *file;
    bool found;
};

static bool is_searched(void *opaque, const char *path, BlockDriverState *bs)
{
    struct search *s = opaque;

    s->found =
        chain_same_file(path, s->file) || (bs && chain_same_file(bdrv_get_filename(bs), s->file));
    return !s->found;
}

bool chain_named_has_file(Platter *pl, const char *name, const char *format, const char *file)
{
    struct search s = {.file = file};

    chain_walk_named(pl, name, format, is_searched, &s);
    return s.found;
}

BlockBackend *chain_reader(Platter *pl, BlockDriverState *bs, const char *id, Error **errp)
{
    BlockBackend *blk = blk_new(pl, id, errp);

    if (blk && (blk_set_perm(blk, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_ALL, errp) < 0 ||
                blk_insert_bs(blk, bs, errp) < 0)) {
        blk_unref(blk);
        blk = NULL;
    }
    return blk;
}
