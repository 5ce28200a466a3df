/* SPDX-License-Identifier: MIT */
/* What the loop's tests share: every test file runs once for each engine, named in argv[1]. */
#ifndef PLATTER_TESTS_LOOP_TEST_H
#define PLATTER_TESTS_LOOP_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <platter/aio.h>
#include <platter/coroutine.h>

static enum aio_engine test_engine = AIO_ENGINE_THREADS;

/* Exit status 77: skipped, the kernel has no ring for us. */
static inline void test_engine_set(int argc, char **argv)
{
    struct aio_context_options opts = {.size = sizeof(opts), .engine = AIO_ENGINE_IO_URING};
    AioContext *ctx;

    if (argc < 2 || strcmp(argv[1], "io_uring") != 0) {
        return;
    }
    test_engine = AIO_ENGINE_IO_URING;
    ctx = aio_context_new(&opts, 0);
    if (!ctx) {
        exit(77);
    }
    aio_context_unref(ctx);
}

static inline AioContext *test_context_new(void)
{
    struct aio_context_options opts = {.size = sizeof(opts), .engine = test_engine};
    AioContext *ctx = aio_context_new(&opts, 0);

    assert_non_null(ctx);
    return ctx;
}

static inline IOThread *test_iothread_new(void)
{
    struct aio_context_options opts = {.size = sizeof(opts), .engine = test_engine};
    IOThread *thread = iothread_new("test", &opts, 0);

    assert_non_null(thread);
    return thread;
}

#endif
