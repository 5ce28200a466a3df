/* SPDX-License-Identifier: MIT */
/* Opening the disk that a command works on, the same way in every command. */
#ifndef PLATTER_TOOLS_DISK_H
#define PLATTER_TOOLS_DISK_H

#include <platter/backend.h>
#include <platter/platter.h>

#include "tools/cli.h"

struct disk_args {
    const char *file;    /* operand: a name, or options with image_opts */
    const char *format;  /* NULL: guessed, with a warning when the disk is written */
    const char *cache;   /* none, writeback, writethrough, directsync, unsafe; NULL: writeback */
    const char *aio;     /* threads, native, io_uring; NULL: the best there is */
    const char *discard; /* ignore, unmap; NULL: ignore */
    bool image_opts;
    bool writable;
    bool force_share;
    bool look_only; /* no guest data is read */
    bool exclusive; /* nobody else may write meanwhile, in this or another process */
};

/* Check the words in args without opening anything; false after printing. */
bool disk_args_check(struct cli *cli, const struct disk_args *args);

/* Open as backend "disk". NULL after printing why not. */
BlockBackend *disk_open(struct cli *cli, Platter *pl, const struct disk_args *args);

/* Let blk change the size of its disk, where no other user forbids it. 0 or -errno. */
int disk_allow_resize(BlockBackend *blk, Error **errp);

/* An instance for a command; NULL after printing why not. */
Platter *disk_platter_new(struct cli *cli);

/* Run fn(arg) in a coroutine of the main context and poll until it is done. 0 or -ENOMEM. */
int disk_run_co(Platter *pl, void (*fn)(void *arg), void *arg);

#endif
