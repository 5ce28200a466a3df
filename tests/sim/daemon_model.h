/* SPDX-License-Identifier: MIT */
/*
 * What a disk may hold, sector by sector, given what was asked of it by several clients at once and
 * what was answered. Each write of a sector is a version of it (1 to 63; zeroes are version 0), so
 * a set of versions is one word:
 *   now    what a read may show
 *   after  what may be there after a power cut
 * Requests that overlap may land in any order; what nobody answered may land at any time until the
 * daemon has gone.
 */
#ifndef TESTS_SIM_DAEMON_MODEL_H
#define TESTS_SIM_DAEMON_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#define MODEL_SECTOR 512u
#define MODEL_SECTORS 512u
#define MODEL_BYTES (MODEL_SECTORS * MODEL_SECTOR)
#define MODEL_REQUEST_SECTORS 64u

enum model_kind { MODEL_WRITE, MODEL_ZERO, MODEL_TRIM, MODEL_READ, MODEL_FLUSH };

/* A request that is under way. */
struct model_op {
    enum model_kind kind;
    unsigned first, count;
    uint8_t version[MODEL_REQUEST_SECTORS]; /* of changes */
    uint64_t *seen; /* owned; READ: versions it may show. FLUSH: those it covers, and later ones.
                       Changes: others that may land after it */
    TAILQ_ENTRY(model_op) link;
};

struct model {
    uint8_t tag; /* of this disk, in its bytes */
    uint64_t now[MODEL_SECTORS];
    uint64_t after[MODEL_SECTORS];
    uint64_t floor[MODEL_SECTORS]; /* what no flush takes out of after */
    uint8_t next[MODEL_SECTORS];
    TAILQ_HEAD(, model_op) ops;
};

void model_init(struct model *m, uint8_t tag); /* all zeroes */
void model_fini(struct model *m);
/* Fill a sector of buf with what a version of it is. */
void model_fill(const struct model *m, uint8_t *buf, unsigned sector, unsigned version);
/* The version that the bytes are, or -1: of no version of this sector. */
int model_version(const struct model *m, const uint8_t *buf, unsigned sector);

/* A request is asked. NULL: a sector has no version left. Asserts memory. */
struct model_op *model_begin(struct model *m, enum model_kind kind, unsigned first, unsigned count);
/* It was answered. Frees op. */
void model_end(struct model *m, struct model_op *op, bool ok, bool fua);
/* Nobody will hear the answer. */
void model_abandon(struct model *m, struct model_op *op);
/* A read was answered with these bytes; the first wrong sector, or -1. Before model_end. */
int model_read_check(const struct model *m, const struct model_op *op, const uint8_t *buf);
/* Nothing is in flight any more: the daemon has ended. */
void model_daemon_gone(struct model *m);
/* The file was opened anew: a flush promises nothing of what was written before. */
void model_reopened(struct model *m);
/* It is known what a sector holds. */
void model_settle(struct model *m, unsigned sector, unsigned version);

#endif
