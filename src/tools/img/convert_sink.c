/* SPDX-License-Identifier: MIT */
/*
 * Raw is written as the bytes of the disk. Other formats put their metadata in front, for which the
 * job tells what will be data; then come those units, whole. Where that cannot be told all units
 * are data. A source that changes meanwhile cannot
 * be right any more, which is an error.
 */
#include "tools/img/convert_sink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loop/io.h"
#include "os/full.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/options.h"

#define RAW_UNIT_BYTES 65536
#define ZEROES_BYTES 65536
#define UNITS_BYTES_MAX (UINT64_C(256) << 20) /* of the map: 64 TiB in clusters of 64 KiB */

/* ---- the descriptor ---- */

struct write_job {
    int fd;
    const void *buf;
    size_t bytes;
};

static int64_t write_run(void *opaque)
{
    const struct write_job *job = opaque;

    return os_write_wait(job->fd, job->buf, job->bytes);
}

static int put_co(void *opaque, const void *buf, size_t bytes)
{
    const struct sink_image *s = opaque;
    struct write_job job = {.fd = s->fd, .buf = buf, .bytes = bytes};

    return (int)aio_worker_co(write_run, &job);
}

static int put_zeroes_co(struct sink_image *s, uint64_t bytes)
{
    static const uint8_t zeroes[ZEROES_BYTES];
    int ret = 0;

    for (uint64_t n; ret == 0 && bytes > 0; bytes -= n) {
        n = min_u64(bytes, sizeof(zeroes));
        ret = put_co(s, zeroes, n);
    }
    return ret;
}

/* ---- the map ---- */

static enum bdrv_stream_unit unit_of(void *opaque, uint64_t index)
{
    const struct sink_image *s = opaque;

    return s->all ? BDRV_STREAM_DATA
                  : (enum bdrv_stream_unit)(s->units[index / 4] >> (index % 4 * 2) & 3);
}

static int plan(void *opaque, uint64_t offset, uint64_t bytes, enum convert_plan what)
{
    static const enum bdrv_stream_unit units[] = {
        [CONVERT_PLAN_NONE] = BDRV_STREAM_NONE,
        [CONVERT_PLAN_ZERO] = BDRV_STREAM_ZERO,
        [CONVERT_PLAN_DATA] = BDRV_STREAM_DATA,
    };
    struct sink_image *s = opaque;

    if (what == CONVERT_PLAN_NONE) {
        return 0;
    }
    for (uint64_t at = offset; at < offset + bytes; at += s->unit_bytes) {
        uint64_t index = at / s->unit_bytes;

        s->units[index / 4] |= (uint8_t)(units[what] << (index % 4 * 2));
    }
    return 0;
}

/* Whether [from, to) is as planned: all data, or none. */
static bool is_planned(struct sink_image *s, uint64_t from, uint64_t to, bool data)
{
    for (; from < to; from += s->unit_bytes) {
        if ((unit_of(s, from / s->unit_bytes) == BDRV_STREAM_DATA) != data) {
            return false;
        }
    }
    return true;
}

/* ---- the calls ---- */

static int head_co(void *opaque, Error **errp)
{
    struct sink_image *s = opaque;
    struct bdrv_stream_layout layout = {.size = sizeof(layout),
                                        .disk_bytes = s->disk_bytes,
                                        .unit = unit_of,
                                        .emit = put_co,
                                        .opaque = s};
    uint32_t unit;
    int ret = s->judge_co ? s->judge_co(s->judge_opaque, errp) : 0;

    if (ret < 0) {
        return ret;
    }
    return s->packs ? bdrv_stream_head(s->pl, s->format, block_options_copy(s->options), &layout,
                                       &unit, errp)
                    : 0;
}

/* Go on to offset. */
static int pass_co(struct sink_image *s, uint64_t offset)
{
    int ret = 0;

    if (!s->packs) {
        ret = put_zeroes_co(s, offset - s->next);
    } else if (!is_planned(s, s->next, offset, false)) {
        ret = -ESTALE;
    }
    s->next = offset;
    return ret;
}

static int write_co(void *opaque, uint64_t offset, const void *buf, uint64_t bytes)
{
    struct sink_image *s = opaque;
    int ret;

    co_mutex_lock(&s->lock);
    ret = pass_co(s, offset);
    if (ret == 0 && s->packs && !is_planned(s, offset, offset + bytes, true)) {
        ret = -ESTALE;
    }
    if (ret == 0) {
        ret = put_co(s, buf, bytes);
    }
    if (ret == 0 && s->packs) {
        ret = put_zeroes_co(s, align_up(bytes, s->unit_bytes) - bytes);
    }
    s->next = s->packs ? align_up(offset + bytes, s->unit_bytes) : offset + bytes;
    co_mutex_unlock(&s->lock);
    return ret;
}

static int end_co(void *opaque, Error **errp)
{
    struct sink_image *s = opaque;
    int ret = s->next < s->disk_bytes ? pass_co(s, s->disk_bytes) : 0;

    return ret < 0 ? error_set_errno(errp, -ret, "error while writing the end of the image") : 0;
}

/* ---- its life ---- */

static int judge_format(struct sink_image *s, Error **errp)
{
    struct bdrv_stream_layout layout = {.size = sizeof(layout), .disk_bytes = s->disk_bytes};
    int ret = bdrv_stream_head(s->pl, s->format, block_options_copy(s->options), &layout,
                               &s->unit_bytes, errp);
    uint64_t bytes;

    if (ret < 0 || s->all) {
        return ret;
    }
    bytes = s->disk_bytes / s->unit_bytes / 4 + 1;
    if (bytes > UNITS_BYTES_MAX) {
        error_set(errp, EFBIG, "The disk is too large to be written as a stream");
        error_set_hint(errp, "Try larger clusters");
        return -EFBIG;
    }
    s->units = calloc(1, bytes);
    return s->units ? 0 : error_set(errp, ENOMEM, "out of memory");
}

int sink_image_init(struct sink_image *s, Error **errp)
{
    int ret = 0;

    s->packs = strcmp(s->format, "raw") != 0;
    s->unit_bytes = RAW_UNIT_BYTES;
    co_mutex_init(&s->lock);
    if (s->packs) {
        ret = judge_format(s, errp);
    } else if (block_options_next_key(s->options, NULL)) {
        ret = error_set(errp, ENOTSUP, "A stream of raw bytes takes no option '%s'",
                        block_options_next_key(s->options, NULL));
    }
    s->calls = (struct convert_sink){
        .unit_bytes = s->unit_bytes,
        .plan = s->packs && !s->all ? plan : NULL,
        .begin_co = head_co,
        .write_co = write_co,
        .end_co = end_co,
        .opaque = s,
    };
    return ret;
}

void sink_image_fini(struct sink_image *s)
{
    free(s->units);
}
