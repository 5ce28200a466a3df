/* SPDX-License-Identifier: MIT */
#ifndef PLATTER_TOOLS_COMMIT_COPY_H
#define PLATTER_TOOLS_COMMIT_COPY_H

#include <platter/backend.h>
#include <platter/image.h>

/* Write what layers hold down to the file that they stand on. */
struct commit_copy {
    BlockBackend **layers; /* the uppermost first, each without its backing file */
    unsigned count;
    BlockBackend *base;   /* at least as large as the uppermost layer */
    uint64_t bytes_per_s; /* 0: no limit */
    const struct bdrv_progress *progress;
    const char *failed; /* what failed, when it did */
};

/* 0 or -errno; not flushed. Coroutine. */
int commit_copy_co(struct commit_copy *c);

#endif
