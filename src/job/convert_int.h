/* SPDX-License-Identifier: MIT */
/*
 * The job "convert", between its files: convert.c is the job, convert_extent.c cuts the sources
 * into chunks, convert_piece.c copies one, convert_memory.c says how large one may be.
 *
 * The job's coroutine looks ahead: it finds the next chunk while pieces are read and written by
 * children, all in the main context, so that nothing here needs a lock. Each chunk begins and ends
 * at a multiple of unit_bytes, or with the disk; so no unit of the target is written twice.
 */
#ifndef PLATTER_JOB_CONVERT_INT_H
#define PLATTER_JOB_CONVERT_INT_H

#include <platter/convert.h>

#include "job/job_int.h"
#include "loop/co_group.h"
#include "loop/co_turns.h"

enum convert_kind {
    CONVERT_LEAVE, /* nothing to do: the target is right */
    CONVERT_ZERO,  /* zeroes are written */
    CONVERT_DATA,
};

struct convert_input {
    BlockBackend *blk; /* counted */
    uint64_t offset;   /* in blk */
    uint64_t bytes;    /* of blk */
    uint64_t start;    /* in the target */
    uint64_t span;     /* in the target: bytes and what fills up a last sector */
};

struct convert_chunk {
    uint64_t offset;
    uint64_t bytes;
    enum convert_kind kind;
    bool packed; /* data that the source has compressed */
};

struct convert;

struct convert_piece {
    struct convert *c;
    struct convert_chunk chunk;
    struct co_turn turn;
    uint8_t *buf; /* owned; NULL: not needed yet */
    bool filled;  /* buf holds the chunk */
};

/* What is copied at a time. */
struct convert_room {
    uint64_t chunk_bytes;  /* multiple of unit_bytes; what a piece's buffer holds */
    uint64_t packed_bytes; /* the same, of what the source has compressed */
    uint64_t zero_bytes;   /* power of two: what of a chunk is in one of them is zero or not */
    uint64_t sparse_bytes; /* so many zeroes between data are left out; 0: none are */
    unsigned pieces_max;
};

struct convert {
    Job job;
    struct convert_options o;     /* without sources */
    struct convert_input *inputs; /* owned */
    size_t inputs_count;
    BlockBackend *target;  /* counted; NULL: there is a sink */
    uint64_t total;        /* bytes */
    uint64_t sector_bytes; /* total is a multiple of it; 1: of none */
    uint64_t unit_bytes;   /* power of two */
    struct convert_room room;
    /* Up to here the source, too, has what the target's backing file has. Behind it, where the
     * source has no layer below or a shorter one, it has zeroes. */
    uint64_t shared_bytes;
    bool zeroed; /* where nothing was written the target reads as zeroes (behind its backing) */
    bool offload;

    struct convert_chunk extent; /* what block status said last */
    struct convert_piece pieces[CONVERT_COROUTINES_MAX];
    uint64_t unchecked;    /* bytes that were copied since the last checkpoint */
    struct co_turns turns; /* of writes, unless they may go out of order */
    int ret;               /* first failure, with its text */
    Error *err;
};

/* convert_memory.c: what fits into the cap of memory; -ENOMEM with errp: nothing does. */
int convert_find_room(const struct convert_options *o, uint64_t unit_bytes,
                      struct convert_room *ret_room, Error **errp);
/* What is planned and written as a whole in a target that wants that of target_bytes. */
uint64_t convert_unit_bytes(const struct convert_options *o, uint64_t target_bytes);

/* The first failure counts. */
void convert_fail(struct convert *c, int ret, const char *doing, uint64_t offset);

/* The next chunk at offset (a multiple of unit_bytes, inside the disk). 0 or -errno after
 * convert_fail. Coroutine. */
int convert_next_chunk_co(struct convert *c, uint64_t offset, struct convert_chunk *ret_chunk);
/* The input that has the byte at offset. */
const struct convert_input *convert_input_at(const struct convert *c, uint64_t offset);

/* The buffer of a piece; false after convert_fail. */
bool convert_piece_buffer(struct convert_piece *piece);
/* A pause, or what the speed limit wants for bytes, with nothing in flight. Coroutine, the job's.
 */
void convert_wait_to_go_on_co(struct convert *c, struct co_group *group, uint64_t bytes);
/* Copy chunk in a child; piece is from co_group_piece_co. */
void convert_piece_start_co(struct convert *c, struct co_group *group, struct convert_piece *piece,
                            const struct convert_chunk *chunk);
/* Where there is a sink: all is planned. 0, or the failure, which is in c->ret. Coroutine. */
int convert_sink_begin_co(struct convert *c);
/* convert_feed.c: all that o.feed gives; failures are in c->ret. Coroutine, the job's. */
void convert_feed_co(struct convert *c);

/* For the group: 0 or -errno after convert_fail. Coroutine. */
int convert_piece_run_co(void *piece);

#endif
