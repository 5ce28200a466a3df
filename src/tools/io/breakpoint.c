/* SPDX-License-Identifier: MIT */
/* platter io: breakpoints of a fault filter (driver blkdebug) below the disk. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/event.h>

#include "tools/io/io.h"

void io_tell_breakpoint(void *opaque, const struct platter_event *event)
{
    struct cli *cli = opaque;

    if (event->type == PLATTER_EVENT_REQUEST_SUSPENDED) {
        cli_put_line(cli->out, "blkdebug: Suspended request '%s'", event->u.breakpoint.tag);
    } else if (event->type == PLATTER_EVENT_REQUEST_RESUMED) {
        cli_put_line(cli->out, "blkdebug: Resuming request '%s'", event->u.breakpoint.tag);
    } else {
        disk_tell_event(cli, event);
    }
}

const char *io_suspended_tag(struct io_session *s)
{
    for (size_t i = 0; i < s->tag_count; i++) {
        if (bdrv_debug_is_suspended(blk_bs(s->blk), s->tags[i]) > 0) {
            return s->tags[i];
        }
    }
    return NULL;
}

int io_breakpoints_end(struct io_session *s)
{
    BlockDriverState *bs = blk_bs(s->blk);
    const char *tag;
    int ret = 0;

    for (size_t i = 0; i < s->tag_count; i++) { /* those that nobody has reached */
        while (bdrv_debug_is_suspended(bs, s->tags[i]) == 0 &&
               bdrv_debug_remove_breakpoint(bs, s->tags[i]) == 0) {
        }
    }
    while ((tag = io_suspended_tag(s)) != NULL) {
        cli_error(s->cli, "request '%s' still waits at its breakpoint: it is resumed", tag);
        ret = -ECANCELED;
        if (bdrv_debug_resume(bs, tag) < 0) {
            break;
        }
    }
    while (s->tag_count > 0) {
        free(s->tags[--s->tag_count]);
    }
    return ret;
}

/* 0 or -errno. */
static int remember_tag(struct io_session *s, const char *tag)
{
    for (size_t i = 0; i < s->tag_count; i++) {
        if (strcmp(s->tags[i], tag) == 0) {
            return 0;
        }
    }
    if (s->tag_count == IO_TAGS_MAX) {
        return -E2BIG;
    }
    s->tags[s->tag_count] = strdup(tag);
    return s->tags[s->tag_count] ? (s->tag_count++, 0) : -ENOMEM;
}

static int run_break(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    int ret = remember_tag(s, argv[2]);

    if (ret == 0) {
        ret = bdrv_debug_breakpoint(blk_bs(s->blk), argv[1], argv[2]);
    }
    if (ret < 0) {
        cli_put_line(s->cli->out, "Could not set breakpoint: %s", strerror(-ret));
    }
    return ret;
}

static int run_remove_break(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    int ret = bdrv_debug_remove_breakpoint(blk_bs(s->blk), argv[1]);

    if (ret < 0) {
        cli_put_line(s->cli->out, "Could not remove breakpoint %s: %s", argv[1], strerror(-ret));
    }
    return ret;
}

static int run_resume(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    int ret = bdrv_debug_resume(blk_bs(s->blk), argv[1]);

    if (ret < 0) {
        cli_put_line(s->cli->out, "Could not resume request: %s", strerror(-ret));
    }
    return ret;
}

/* Waits as long as it takes; where there is no filter that would be for ever. */
static int run_wait_break(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    AioContext *ctx = platter_get_main_context(s->pl);
    int ret;

    while ((ret = bdrv_debug_is_suspended(blk_bs(s->blk), argv[1])) == 0) {
        aio_poll(ctx, true);
    }
    if (ret < 0) {
        cli_put_line(s->cli->out, "Could not wait for breakpoint: %s", strerror(-ret));
    }
    return ret < 0 ? ret : 0;
}

const struct io_command io_breakpoint_commands[] = {
    {"break", NULL, "event tag", "sets a breakpoint on event and tags the stopped request as tag",
     2, 2, true, false, run_break},
    {"remove_break", NULL, "tag", "remove a breakpoint by tag", 1, 1, true, false,
     run_remove_break},
    {"resume", NULL, "tag", "resumes the request tagged as tag", 1, 1, true, false, run_resume},
    {"wait_break", NULL, "tag", "waits for the suspension of a request", 1, 1, true, false,
     run_wait_break},
    {0},
};
