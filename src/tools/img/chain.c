/* SPDX-License-Identifier: MIT */
#include "tools/img/chain.h"

#include <string.h>
#include <sys/stat.h>

#include "block/driver.h"
#include "os/os.h"

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
