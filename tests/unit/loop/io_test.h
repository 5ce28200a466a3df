/* SPDX-License-Identifier: MIT */
/* What the tests of I/O share: a coroutine run to its end, files and bytes. */
#ifndef PLATTER_TESTS_IO_TEST_H
#define PLATTER_TESTS_IO_TEST_H

#include "loop_test.h"

#include <unistd.h>

#include "loop/context.h"
#include "loop/internal.h"
#include "loop/io.h"
#include "os/os.h"

struct run {
    void (*fn)(void *arg);
    void *arg;
    bool done;
};

static inline void run_entry(void *opaque)
{
    struct run *run = opaque;

    run->fn(run->arg);
    run->done = true;
}

static inline bool run_busy(void *opaque)
{
    return !((struct run *)opaque)->done;
}

static inline void run_co(AioContext *ctx, void (*fn)(void *arg), void *arg)
{
    struct run run = {fn, arg, false};

    aio_context_set_current(ctx);
    coroutine_enter(coroutine_create(run_entry, &run));
    aio_wait_while(ctx, run_busy, &run);
}

static inline int temp_file(void)
{
    char path[] = "/tmp/platter-test-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    unlink(path);
    return fd;
}

static inline void fill(uint8_t *buf, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        buf[i] = (uint8_t)((i * 31 + seed) >> 3);
    }
}

#endif
