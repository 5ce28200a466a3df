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

bool chain_same_file(const char *a, const char *b)
{
    struct stat st_a, st_b;

    return os->stat(a, &st_a) == 0 && os->stat(b, &st_b) == 0 && st_a.st_dev == st_b.st_dev &&
           st_a.st_ino == st_b.st_ino && st_a.st_rdev == st_b.st_rdev;
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
