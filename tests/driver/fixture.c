/* SPDX-License-Identifier: MIT */
#include "fixture.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <platter/coroutine.h>

char dir[64];

int folder_begin(const char *pattern)
{
    snprintf(dir, sizeof(dir), "%s", pattern);
    return mkdtemp(dir) != NULL ? 0 : -1;
}

int folder_end(void)
{
    return system(text("rm -rf '%s'", dir));
}

const char *text(const char *fmt, ...)
{
    static char buf[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    return buf;
}

void make_file(const char *name, int64_t size)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

Platter *new_platter(void)
{
    Platter *pl = platter_new(NULL, NULL);

    assert_non_null(pl);
    return pl;
}

BlockBackend *open_as(Platter *pl, const char *name, const char *options, int flags, Error **errp)
{
    BlockOptions *opts = block_options_parse(options, NULL, errp);

    return opts != NULL ? blk_new_open(pl, name, NULL, NULL, opts, flags, errp) : NULL;
}

BlockBackend *must_open_as(Platter *pl, const char *name, const char *options, int flags)
{
    Error *err = NULL;
    BlockBackend *blk = open_as(pl, name, options, flags, &err);

    if (blk == NULL) {
        fail_msg("open %s: %s", options, error_get_pretty(err));
    }
    return blk;
}

void refused_as(Platter *pl, const char *options, int flags, int err_no, const char *words)
{
    Error *err = NULL;

    if (open_as(pl, "refused", options, flags, &err) != NULL) {
        fail_msg("%s must be refused", options);
    }
    if (strstr(error_get_pretty(err), words) == NULL) {
        fail_msg("%s: \"%s\" has no \"%s\"", options, error_get_pretty(err), words);
    }
    if (err_no != 0) {
        assert_int_equal(error_get_errno(err), err_no);
    }
    error_free(err);
}

BlockBackend *try_open(Platter *pl, const char *options, int flags, Error **errp)
{
    return open_as(pl, "d", options, flags, errp);
}

BlockBackend *must_open(Platter *pl, const char *options)
{
    return must_open_as(pl, "d", options, BDRV_O_RDWR | BDRV_O_UNMAP);
}

void refused(Platter *pl, const char *options, int err_no, const char *words)
{
    refused_as(pl, options, BDRV_O_RDWR, err_no, words);
}

struct resize {
    BlockBackend *blk;
    int64_t size;
    enum bdrv_prealloc prealloc;
    Error **errp;
    int rc;
};

static void resize_entry(void *opaque)
{
    struct resize *r = opaque;

    r->rc = blk_co_truncate(r->blk, r->size, true, r->prealloc, 0, r->errp);
}

int resize(BlockBackend *blk, int64_t size, enum bdrv_prealloc prealloc, Error **errp)
{
    struct resize r = {blk, size, prealloc, errp, 1};
    AioContext *ctx = platter_get_main_context(blk_get_platter(blk));
    Coroutine *co;

    aio_context_set_current(ctx);
    co = coroutine_create(resize_entry, &r);
    assert_non_null(co);
    coroutine_enter(co);
    while (r.rc == 1) {
        aio_poll(ctx, true);
    }
    return r.rc;
}
