/* SPDX-License-Identifier: MIT */
#ifndef PLATTER_TOOLS_COMMIT_COPY_H
#define PLATTER_TOOLS_COMMIT_COPY_H

#include <platter/backend.h>

/* Write what layers hold down to the file that they stand on. */
struct commit_copy {
    BlockBackend **layers; /* the uppermost first, each without its backing file */
    unsigned count;
    BlockBackend *base;   /* at least as large as the uppermost layer */
    uint64_t bytes_per_s; /* 0: no limit */
    void (*report)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
    const char *failed; /* what failed, when it did */
};

/* 0 or -errno; not flushed. Coroutine. */
int commit_copy_co(struct commit_copy *c);

#endif
