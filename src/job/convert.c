/* SPDX-License-Identifier: MIT */
/* The job "convert": its options, its coroutine that cuts the disk into chunks, its end. */
#include <platter/convert.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/driver.h"
#include "job/convert_int.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/mem.h"

void convert_fail(struct convert *c, int ret, const char *doing, uint64_t offset)
{
    if (c->ret == 0) {
        c->ret = ret;
        error_set_errno(&c->err, -ret, "error while %s %" PRIu64, doing, offset);
    }
}

/* ---- the run ---- */

static int plan(struct convert *c, const struct convert_chunk *chunk)
{
    static const enum convert_plan plans[] = {
        [CONVERT_LEAVE] = CONVERT_PLAN_NONE,
        [CONVERT_ZERO] = CONVERT_PLAN_ZERO,
        [CONVERT_DATA] = CONVERT_PLAN_DATA,
    };
    int ret = 0;

    if (c->o.sink != NULL && c->o.sink->plan != NULL) {
        ret = c->o.sink->plan(c->o.sink->opaque, chunk->offset, chunk->bytes, plans[chunk->kind]);
    }
    if (ret < 0) {
        convert_fail(c, ret, "planning what is at byte", chunk->offset);
    }
    return ret;
}

/* Add up what is copied, and tell a sink. */
static int count_co(struct convert *c)
{
    uint64_t sum = 0;
    struct convert_chunk chunk;

    for (uint64_t offset = c->o.start; offset < c->total; offset += chunk.bytes) {
        int ret = convert_next_chunk_co(c, offset, &chunk);

        if (ret == 0) {
            ret = plan(c, &chunk);
        }
        if (ret < 0) {
            return ret;
        }
        if (chunk.kind != CONVERT_LEAVE) {
            sum += chunk.bytes;
            job_progress_set_total(&c->job, sum);
        }
        job_pause_point_co(&c->job);
        if (job_is_cancelled(&c->job)) {
            return -ECANCELED;
        }
    }
    return 0;
}

/* A target that holds something else is cleared as a whole where that is quick. What that frees can
 * be taken again once it is on the storage: flushed, a target that cannot grow has the room. */
static void clear_target_co(struct convert *c)
{
    if (c->target != NULL && c->o.start == 0 && !c->zeroed && c->o.own_layers == 0 &&
        c->o.sparse_bytes > 0 &&
        blk_co_pwrite_zeroes(c->target, 0, (int64_t)c->total,
                             BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) == 0 &&
        blk_co_flush(c->target) == 0) {
        c->zeroed = true;
    }
}

void convert_wait_to_go_on_co(struct convert *c, struct co_group *group, uint64_t bytes)
{
    if (c->job.pause_count > 0 || c->job.speed > 0) {
        (void)co_group_wait_co(group); /* a failure is in c->ret */
    }
    job_throttle_co(&c->job, bytes);
}

void convert_piece_start_co(struct convert *c, struct co_group *group, struct convert_piece *piece,
                            const struct convert_chunk *chunk)
{
    piece->c = c;
    piece->chunk = *chunk;
    piece->turn = co_turn_take(&c->turns);
    co_group_start_co(group, piece, convert_piece_run_co);
}

/* Nothing is to be done for it; a sink knows the zeroes already. */
static bool is_done(const struct convert *c, const struct convert_chunk *chunk)
{
    return chunk->kind == CONVERT_LEAVE || (c->o.sink != NULL && chunk->kind == CONVERT_ZERO);
}

/* Where it is time: what is in front of offset is written and made to stay. */
static void checkpoint_co(struct convert *c, struct co_group *group, uint64_t offset, bool first)
{
    int ret;

    if (c->o.checkpoint_bytes == 0 || (!first && c->unchecked < c->o.checkpoint_bytes)) {
        return;
    }
    c->unchecked = 0;
    (void)co_group_wait_co(group);
    if (c->ret < 0) {
        return;
    }
    ret = blk_co_flush(c->target);
    if (ret == 0) {
        ret = c->o.checkpoint(c->o.opaque, offset, c->zeroed);
    }
    if (ret < 0) {
        convert_fail(c, ret, "writing the checkpoint at byte", offset);
    }
}

static void copy_all_co(struct convert *c)
{
    struct co_group group;
    struct convert_chunk chunk;

    co_group_init_max(&group, c->pieces, sizeof(c->pieces[0]), c->room.pieces_max);
    checkpoint_co(c, &group, c->o.start, true);
    for (uint64_t offset = c->o.start; offset < c->total && c->ret == 0; offset += chunk.bytes) {
        struct convert_piece *piece;

        checkpoint_co(c, &group, offset, false);
        if (c->ret < 0 || convert_next_chunk_co(c, offset, &chunk) < 0) {
            break;
        }
        convert_wait_to_go_on_co(c, &group, chunk.kind == CONVERT_DATA ? chunk.bytes : 0);
        if (job_is_cancelled(&c->job)) {
            break;
        }
        if (is_done(c, &chunk)) {
            if (!c->o.count_first || chunk.kind == CONVERT_ZERO) {
                job_progress_update(&c->job, chunk.bytes);
            }
            continue;
        }
        c->unchecked += chunk.bytes;
        piece = co_group_piece_co(&group);
        convert_piece_start_co(c, &group, piece, &chunk);
    }
    (void)co_group_wait_co(&group);
}

int convert_sink_begin_co(struct convert *c)
{
    const struct convert_sink *sink = c->o.sink;

    if (sink != NULL) {
        c->ret = sink->begin_co(sink->opaque, &c->err);
    }
    return c->ret;
}

static int from_disks_co(struct convert *c)
{
    int ret = 0;

    job_progress_set_total(&c->job, c->o.count_first ? 0 : c->total - c->o.start);
    if (c->o.count_first) {
        ret = count_co(c);
    }
    if (ret == 0) {
        ret = convert_sink_begin_co(c);
    }
    if (ret == 0) {
        copy_all_co(c);
    }
    return ret;
}

/* Everything was written: make it stay. */
static void finish_co(struct convert *c)
{
    if (c->o.sink != NULL) {
        c->ret = c->o.sink->end_co(c->o.sink->opaque, &c->err);
        return;
    }
    c->ret = blk_co_flush(c->target);
    if (c->ret < 0) {
        error_set_errno(&c->err, -c->ret, "error while flushing the target");
    }
}

/* Data that the target cannot take compressed fails where it begins, before anything is written. */
static int refuse_compressed_co(struct convert *c)
{
    struct convert_chunk chunk;
    int ret = 0;

    for (uint64_t offset = c->o.start; ret == 0 && offset < c->total; offset += chunk.bytes) {
        ret = convert_next_chunk_co(c, offset, &chunk);
        if (ret == 0 && chunk.kind == CONVERT_DATA) {
            ret = -ENOTSUP;
            convert_fail(c, ret, "writing at byte", offset);
        }
    }
    return ret;
}

static int copy_co(struct convert *c)
{
    clear_target_co(c);
    if (c->o.feed != NULL) {
        convert_feed_co(c);
        return 0;
    }
    return from_disks_co(c);
}

static int convert_run_co(Job *job, Error **errp)
{
    struct convert *c = (struct convert *)job;
    int ret = 0;

    if (c->o.compressed && c->o.feed == NULL && !bdrv_can_compress(blk_bs(c->target))) {
        ret = refuse_compressed_co(c);
    }
    ret = ret == 0 ? copy_co(c) : ret;
    if (c->ret == 0 && ret == 0 && !job_is_cancelled(job)) {
        finish_co(c);
    }
    if (c->ret < 0) {
        error_propagate(errp, c->err);
        c->err = NULL;
        return c->ret;
    }
    return job_is_cancelled(job) ? -ECANCELED : ret;
}

/* ---- its life ---- */

static void convert_clean(Job *job)
{
    struct convert *c = (struct convert *)job;

    for (size_t i = 0; i < ARRAY_SIZE(c->pieces); i++) {
        blk_blockfree(c->pieces[i].buf);
        c->pieces[i].buf = NULL;
    }
    for (size_t i = 0; i < c->inputs_count; i++) {
        blk_unref(c->inputs[i].blk);
    }
    c->inputs_count = 0;
    blk_unref(c->target);
    c->target = NULL;
}

static void convert_free(Job *job)
{
    struct convert *c = (struct convert *)job;

    convert_clean(job); /* of one that never began */
    error_free(c->err);
    free(c->inputs);
}

static const struct job_driver convert_driver = {
    .type = "convert",
    .instance_size = sizeof(struct convert),
    .run_co = convert_run_co,
    .clean = convert_clean,
    .free = convert_free,
};

/* What a source takes in the target. */
static uint64_t span_of(const struct convert_source *s)
{
    return align_up(s->bytes, bdrv_copy_unit(blk_get_platter(s->blk), NULL));
}

uint64_t convert_total_bytes(const struct convert_source *sources, size_t count)
{
    uint64_t total = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = sources[i].bytes;

        if (bytes > INT64_MAX - CONVERT_SECTOR_BYTES ||
            !checked_add(total, span_of(&sources[i]), &total) ||
            total > align_down(INT64_MAX, CONVERT_SECTOR_BYTES)) {
            return UINT64_MAX;
        }
    }
    return total;
}

static int take_sources(struct convert *c, const struct convert_options *o, Error **errp)
{
    uint64_t filler;

    c->sector_bytes = bdrv_copy_unit(c->job.pl, o->target != NULL ? blk_bs(o->target) : NULL);
    if (o->feed != NULL) {
        return 0;
    }
    c->inputs = calloc(o->sources_count, sizeof(*c->inputs));
    if (c->inputs == NULL) {
        return error_set(errp, ENOMEM, "out of memory for %zu sources", o->sources_count);
    }
    for (size_t i = 0; i < o->sources_count; i++) {
        const struct convert_source *s = &o->sources[i];

        blk_ref(s->blk);
        c->inputs[i] = (struct convert_input){
            .blk = s->blk,
            .offset = s->offset,
            .bytes = s->bytes,
            .start = c->total,
            .span = span_of(s),
        };
        c->inputs_count++;
        c->total += c->inputs[i].span;
    }
    filler = align_up(c->total, c->sector_bytes) - c->total;
    c->inputs[c->inputs_count - 1].span += filler;
    c->total += filler;
    return 0;
}

/* What the target gives space in, what it writes alone, and what is worth a hole. */
static int settle_unit(struct convert *c, Error **errp)
{
    const struct bdrv_limits *limits;
    struct bdrv_info info = {0};
    uint64_t unit;

    if (c->o.sink != NULL) {
        c->unit_bytes = c->o.sink->unit_bytes;
        return 0;
    }
    limits = bdrv_get_limits(blk_bs(c->target));
    unit = max_u64(limits->request_alignment, pow2_floor(limits->pwrite_zeroes_alignment));
    if (c->o.compressed) {
        if (bdrv_get_info(blk_bs(c->target), &info) < 0 || info.cluster_size_bytes == 0) {
            return error_set(errp, ENOTSUP, "Compression not supported for this file format");
        }
        unit = max_u64(unit, info.cluster_size_bytes);
    }
    c->unit_bytes = convert_unit_bytes(&c->o, unit);
    return 0;
}

static int check_numbers(const struct convert_options *o, Error **errp)
{
    if (o->sparse_bytes > CONVERT_SPARSE_BYTES_MAX || o->sparse_bytes % CONVERT_SECTOR_BYTES != 0) {
        return error_set(errp, EINVAL, "zeroes are not looked for in steps of %" PRIu64 " bytes",
                         o->sparse_bytes);
    }
    if (o->coroutines > CONVERT_COROUTINES_MAX) {
        return error_set(errp, EINVAL, "%u coroutines are more than %d", o->coroutines,
                         CONVERT_COROUTINES_MAX);
    }
    if (o->own_layers > 0 && o->sources_count > 1) {
        return error_set(errp, EINVAL, "several sources cannot have one backing file");
    }
    if (o->copy_offload && (o->compressed || o->salvage)) {
        return error_set(errp, EINVAL, "the storage cannot copy what is compressed or salvaged");
    }
    return 0;
}

static int check_room(const struct convert_options *o, Error **errp)
{
    uint64_t total = convert_total_bytes(o->sources, o->sources_count);
    int64_t room;

    if (total == UINT64_MAX) {
        return error_set(errp, EINVAL, "the sources together are too large for a disk");
    }
    if (o->sink != NULL) {
        return 0;
    }
    room = blk_getlength(o->target);
    if (room < 0) {
        return error_set_errno(errp, (int)-room, "the target does not tell its size");
    }
    if ((uint64_t)room < total) {
        return error_set(errp, EINVAL, "output file is smaller than input file");
    }
    return 0;
}

static int check_options(const struct convert_options *o, Error **errp)
{
    int ret = check_numbers(o, errp);

    assert(o->size >= sizeof(*o) && (o->sources_count > 0) != (o->feed != NULL));
    assert((o->target != NULL) != (o->sink != NULL));
    assert(o->sink == NULL || (!o->compressed && !o->copy_offload));
    assert(o->sink == NULL || o->feed == NULL || o->sink->plan == NULL);
    assert((o->start == 0 && o->checkpoint_bytes == 0) || (o->sink == NULL && o->feed == NULL));
    assert(o->feed == NULL || (o->own_layers == 0 && !o->copy_offload));
    return ret < 0 || o->feed != NULL ? ret : check_room(o, errp);
}

/* See struct convert. */
static uint64_t find_shared(const struct convert_options *o)
{
    BlockDriverState *bs = o->own_layers > 0 ? blk_bs(o->sources[0].blk) : NULL;
    int64_t bytes;

    for (unsigned i = 0; bs != NULL && i < o->own_layers; i++) {
        bs = bdrv_get_child(bs, "backing");
    }
    bytes = bs != NULL ? bdrv_getlength(bs) : 0;
    return bytes > 0 ? min_u64((uint64_t)bytes, o->backing_bytes) : 0;
}

Job *convert_start(Platter *pl, const char *id, const struct convert_options *options,
                   unsigned flags, Error **errp)
{
    struct convert *c;
    int ret = check_options(options, errp);

    if (ret < 0) {
        return NULL;
    }
    c = job_create(pl, &convert_driver, id, NULL, flags, errp);
    if (c == NULL) {
        return NULL;
    }
    c->o = *options;
    c->o.sources = NULL;
    if (options->progress != NULL) {
        c->job.progress = *options->progress;
    }
    c->o.progress = NULL;
    c->shared_bytes = find_shared(options);
    c->zeroed = options->target_is_zero;
    c->offload = options->copy_offload;
    c->target = options->target;
    if (c->target != NULL) {
        blk_ref(c->target);
    }
    if (options->sink != NULL) {
        c->zeroed = true; /* what it is not given it has as zeroes */
        c->o.count_first = c->o.count_first || c->o.sink->plan != NULL;
        c->o.out_of_order = false;
    }
    co_turns_init(&c->turns);
    ret = take_sources(c, options, errp);
    if (ret == 0) {
        ret = settle_unit(c, errp);
    }
    if (ret == 0) {
        ret = convert_find_room(options, c->unit_bytes, &c->room, errp);
    }
    if (ret < 0) {
        job_early_fail(&c->job);
        return NULL;
    }
    c->o.start = min_u64(align_down(c->o.start, c->unit_bytes), c->total);
    c->job.speed = options->bytes_per_second;
    job_start(&c->job);
    return &c->job;
}
