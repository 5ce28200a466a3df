/* SPDX-License-Identifier: MIT */
/*
 * pipe: a file that gives its bytes once. A format can be opened on it when it reads nearly in
 * order: what was read is kept in memory, the beginning for good (tables stand there) and the last
 * window of the rest; what is neither there nor still to come is -ESPIPE. Read-only.
 *
 * Nobody knows how long it is, so it claims to be longer than any file. A read past its end is
 * -EIO, as the pipe was cut short: what is missing is never made up.
 */
#include <errno.h>
#include <fcntl.h>

#include "block/driver.h"
#include "os/full.h"
#include "os/os.h"
#include "pipe.h"
#include "schema/opts.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/iov.h"

#define CLAIMED_BYTES (INT64_C(1) << 62)
#define WINDOW_BYTES_MIN 65536

struct pipe_state {
    int fd;          /* owned */
    uint64_t window; /* size of both buffers */
    uint8_t *head;   /* owned: the first window bytes */
    uint8_t *ring;   /* owned: of those behind them, the byte at offset in offset % window */
    CoMutex lock;    /* guards the rest: one reads at a time */
    uint64_t pos;    /* what was read so far */
    bool ended;
};

/* Where the byte at offset is kept, and how many follow it there. */
static uint8_t *place_of(struct pipe_state *s, uint64_t offset, uint64_t *ret_bytes)
{
    *ret_bytes = s->window - offset % s->window;
    return (offset < s->window ? s->head : s->ring) + offset % s->window;
}

struct fill_job {
    int fd;
    void *buf;
    size_t bytes;
};

static int64_t fill_run(void *opaque)
{
    const struct fill_job *job = opaque;

    return os_read_wait(job->fd, job->buf, job->bytes);
}

/* Go on to end, or to the end of the pipe. */
static int fill_co(struct pipe_state *s, uint64_t end)
{
    while (s->pos < end && !s->ended) {
        struct fill_job job = {.fd = s->fd};
        uint64_t room;
        int64_t n;

        job.buf = place_of(s, s->pos, &room);
        job.bytes = min_u64(room, end - s->pos);
        n = aio_worker_co(fill_run, &job);
        if (n < 0) {
            return (int)n;
        }
        s->ended = n == 0;
        s->pos += (uint64_t)n;
    }
    return 0;
}

/* Whether the bytes from offset on are kept, or still to come, when pos have gone through. */
static bool is_there(const struct pipe_state *s, uint64_t pos, uint64_t offset, uint64_t bytes)
{
    uint64_t lost = pos > s->window ? pos - s->window : 0; /* behind the head: to here */

    return offset + bytes <= s->window || max_u64(offset, s->window) >= lost;
}

bool pipe_could_read_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes, uint64_t *pos)
{
    struct pipe_state *s = bdrv_opaque(bs);
    bool there;

    co_mutex_lock(&s->lock);
    *pos = max_u64(*pos, s->pos);
    co_mutex_unlock(&s->lock);
    there = is_there(s, *pos, offset, bytes);
    *pos = max_u64(*pos, offset + bytes);
    return there;
}

static void copy_out(struct pipe_state *s, const struct bdrv_req *req)
{
    for (uint64_t done = 0, n; done < req->bytes; done += n) {
        const uint8_t *from = place_of(s, req->offset + done, &n);

        n = min_u64(n, req->bytes - done);
        iov_from_buf(req->iov, req->niov, req->iov_offset + done, from, n);
    }
}

static int pipe_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct pipe_state *s = bdrv_opaque(bs);
    int ret = -ESPIPE;

    co_mutex_lock(&s->lock);
    if (is_there(s, s->pos, req->offset, req->bytes)) {
        ret = fill_co(s, req->offset + req->bytes);
    }
    if (ret == 0 && req->offset + req->bytes > s->pos) {
        ret = -EIO;
    }
    if (ret == 0) {
        copy_out(s, req);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

static int64_t pipe_getlength(BlockDriverState *bs)
{
    return CLAIMED_BYTES;
}

static void pipe_refresh_limits(BlockDriverState *bs, struct bdrv_limits *limits)
{
    const struct pipe_state *s = bdrv_opaque(bs);

    limits->max_transfer = s->window / 2; /* all of a request is kept at a time */
}

static void pipe_close(BlockDriverState *bs)
{
    struct pipe_state *s = bdrv_opaque(bs);

    os->close(s->fd);
    bdrv_buffer_free(bs, s->head, s->window);
    bdrv_buffer_free(bs, s->ring, s->window);
}

static int take_buffers(BlockDriverState *bs, Error **errp)
{
    struct pipe_state *s = bdrv_opaque(bs);

    s->head = bdrv_buffer_alloc(bs, s->window);
    s->ring = s->head != NULL ? bdrv_buffer_alloc(bs, s->window) : NULL;
    if (s->ring == NULL) {
        if (s->head != NULL) {
            bdrv_buffer_free(bs, s->head, s->window);
        }
        return error_set(errp, ENOMEM, "out of memory for the window of a pipe");
    }
    return 0;
}

static int pipe_setup(BlockDriverState *bs, const struct opts_node_pipe *opts, int flags,
                      Error **errp)
{
    struct pipe_state *s = bdrv_opaque(bs);
    int ret = 0;

    if (flags & BDRV_O_RDWR) {
        ret = bdrv_apply_auto_read_only(bs, "A pipe is only read", errp);
    }
    if (ret == 0 && opts->window < WINDOW_BYTES_MIN) {
        ret = error_set(errp, EINVAL, "The window of a pipe must be at least %d bytes",
                        WINDOW_BYTES_MIN);
    }
    if (ret < 0) {
        return ret;
    }
    s->window = align_down(opts->window, WINDOW_BYTES_MIN);
    co_mutex_init(&s->lock);
    s->fd = bdrv_os_open(bdrv_platter(bs), opts->filename, O_RDONLY, 0, errp);
    if (s->fd < 0) {
        return s->fd;
    }
    ret = take_buffers(bs, errp);
    if (ret < 0) {
        os->close(s->fd);
    } else {
        bdrv_set_filename(bs, opts->filename);
    }
    return ret;
}

static int pipe_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct opts_node_pipe opts;
    int ret = opts_node_pipe_parse(options, &opts, errp);

    if (ret == 0) {
        ret = pipe_setup(bs, &opts, flags, errp);
        opts_node_pipe_fini(&opts);
    }
    return ret;
}

static const char *const pipe_strong_options[] = {"filename", NULL};

const BlockDriver bdrv_pipe = {
    .format_name = "pipe",
    .instance_size = sizeof(struct pipe_state),
    .caps = BDRV_CAP_PROTOCOL | BDRV_CAP_END_UNKNOWN,
    .open = pipe_open,
    .close = pipe_close,
    .refresh_limits = pipe_refresh_limits,
    .read_co = pipe_read_co,
    .getlength = pipe_getlength,
    .strong_options = pipe_strong_options,
    .option_keys = opts_node_pipe_keys,
};
