/* SPDX-License-Identifier: MIT */
/* Backing chains of open disks, as commands name their members. */
#ifndef PLATTER_TOOLS_CHAIN_H
#define PLATTER_TOOLS_CHAIN_H

#include <stdbool.h>

#include <platter/backend.h>
#include <platter/image.h>

/* The backing file of bs, or of what bs shows as a filter; or NULL. */
BlockDriverState *chain_below(BlockDriverState *bs);
/* The member of the chain below bs that is called name: what bdrv_get_filename says, what the image
 * above it says, or a path to the same file. *ret_depth (may be NULL) is 1 for the backing file of
 * bs. NULL: none. */
BlockDriverState *chain_find(BlockDriverState *bs, const char *name, unsigned *ret_depth);
/* The member that the image above it would call name: a relative one counts from the folder of
 * each. */
BlockDriverState *chain_find_called(BlockDriverState *bs, const char *name);
/* Whether two names of files, which may begin with "file:", lead to one file. */
bool chain_same_file(const char *a, const char *b);
/* Whether fd is open on the file or block device of that name. */
bool chain_fd_is_file(int fd, const char *name);
/* Whether a node of pl stands on that file, or on what fd is open on: to write there harms it. */
bool chain_has_file(Platter *pl, const char *name);
bool chain_has_fd(Platter *pl, int fd);
/* From the image called name on, each member of its backing chain that can be looked at, as the
 * images name them: see is told the path and the open node (without what is below it), or NULL
 * where it cannot be opened, and says whether to go on. A plain name that leads to another machine
 * is not asked there; a json: name is opened, whatever it describes. */
typedef bool ChainSee(void *opaque, const char *path, BlockDriverState *bs);
void chain_walk_named(Platter *pl, const char *name, const char *format, ChainSee *see,
                      void *opaque);
/* Whether file is a member of that chain. */
bool chain_named_has_file(Platter *pl, const char *name, const char *format, const char *file);
/* A backend that reads bs besides its other users. NULL with errp. */
BlockBackend *chain_reader(Platter *pl, BlockDriverState *bs, const char *id, Error **errp);

#endif
