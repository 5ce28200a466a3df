/* SPDX-License-Identifier: MIT */
/*
 * The property suite: random requests to a driver, compared with a model in plain memory. What the
 * files of this folder share.
 */
#ifndef PLATTER_TESTS_DRIVER_SUITE_H
#define PLATTER_TESTS_DRIVER_SUITE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <platter/backend.h>

/* ---- what a drive is; one line of the table in drives.c ---- */

enum drive_facts {
    D_RESIZE = 1 << 0,      /* truncate works */
    D_PERSISTS = 1 << 1,    /* content is there after closing and opening */
    D_ZEROES = 1 << 2,      /* keeps nothing, reads zeroes */
    D_UNTOUCHED = 1 << 3,   /* keeps nothing, leaves the reader's memory alone */
    D_THREADS = 1 << 4,     /* run on contexts without a ring */
    D_TWO = 1 << 5,         /* a second context works at the same time */
    D_DIRECT = 1 << 6,      /* skip where the file system has no direct I/O */
    D_SIM = 1 << 7,         /* files live on the simulated disk */
    D_ERRORS = 1 << 8,      /* calls fail by chance */
    D_CUT = 1 << 9,         /* the power fails between rounds */
    D_LOOP = 1 << 10,       /* a loop device with 4 KiB sectors and an odd end */
    D_PAGE_CACHE = 1 << 11, /* a failed flush is final until the node is opened again */
    D_SECTORS = 1 << 12,    /* sizes are whole sectors */
    D_COMPRESSED = 1 << 13, /* whole clusters may be written compressed */
    D_SNAPSHOTS = 1 << 14,  /* internal snapshots come, are gone back to, and go */
    D_EXPORT = 1 << 15,     /* the file is behind our NBD server, at the socket "@.nbd" */
};

struct drive {
    const char *name;
    const char *options; /* @ is the path of a fresh file, # its size */
    const char *dir;     /* where the file is made; NULL: no file */
    unsigned facts;
    uint64_t size_bytes;      /* of the disk */
    uint64_t file_size_bytes; /* 0: the same */
    const char *create;       /* options to make an image with in the fresh file; NULL: none */
    unsigned cluster_bytes;   /* with create */
    const char *base;         /* options to make a backing file with, "@.base"; NULL: none */
};
#define SNAPSHOTS_MAX 3
extern const struct drive drives[]; /* ends with one without a name */

/* ---- random numbers ---- */

struct rng {
    uint64_t state;
};
uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t n); /* 0 when n is 0 */
static inline bool rng_one_in(struct rng *rng, unsigned n)
{
    return rng_below(rng, n) == 0;
}

/* ---- the model ---- */

#define SECTOR 512u

/* What a sector may hold after a power cut besides its stable content. */
struct version {
    uint64_t sector;
    uint64_t hash;
};

struct model {
    uint8_t *now;    /* what reads give; owned */
    uint8_t *stable; /* what the last flush made safe; NULL: not tracked */
    uint64_t size_bytes;
    uint64_t room_bytes;
    struct version *versions;
    size_t nversions;
    size_t versions_room;
};

void model_init(struct model *model, uint64_t size_bytes, uint64_t room_bytes, bool track);
void model_fini(struct model *model);
/* now changed in the range. */
void model_changed(struct model *model, uint64_t offset, uint64_t bytes);
void model_flushed(struct model *model);
/* A write of the range with FUA ended. */
void model_made_stable(struct model *model, uint64_t offset, uint64_t bytes);
/* Whether got (the disk's content after a power cut) is allowed; the first bad sector otherwise. */
bool model_allows(const struct model *model, const uint8_t *got, uint64_t *ret_sector);
/* What is there now is stable. */
void model_adopt(struct model *model, const uint8_t *got);

/* ---- a run: one drive from one seed ---- */

struct run {
    const struct drive *drive;
    uint64_t seed;
    unsigned ops;
    bool trace; /* print each change */
    char path[200];
    Platter *pl;
    struct NbdServer *server; /* D_EXPORT */
    BlockBackend *blk;
    struct model model;
    struct model snapshots[SNAPSHOTS_MAX]; /* now NULL: not there */
    struct sim_world *world;               /* D_SIM */
    struct sim_faults *faults;             /* D_ERRORS: armed during rounds */
    bool single;                           /* one worker at a time */
    bool flush_final;                      /* single: a flush failed and D_PAGE_CACHE */
    _Atomic bool flush_failed; /* a flush, maybe that of FUA, has failed since the last open */
    _Atomic unsigned failed_by_rule; /* requests that failed because of faults */
    _Atomic unsigned done_ops;
};

/* Print what went wrong and how to see it again; ends the process. */
void run_fail(struct run *run, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));

/* ---- disk.c ---- */

bool run_is_sim(const struct run *run);
const char *disk_file_make(struct run *run); /* NULL, or why the line is skipped */
void disk_file_remove(struct run *run);
/* The server of D_EXPORT, served in ctx; nothing for other drives. */
void disk_serve_begin(struct run *run, AioContext *ctx);
void disk_serve_end(struct run *run);
/* The image, and its backing file, where the line has them. */
void disk_create(struct run *run, struct rng *rng);
/* What was just opened is consistent; leaks only where something went wrong. */
void disk_open(struct run *run);
void disk_close(struct run *run);

/* ---- ops.c ---- */

/* One worker: a coroutine that owns [lo, hi) of the disk. */
struct worker {
    struct run *run;
    AioContext *ctx;
    uint64_t lo;
    uint64_t hi;
    unsigned ops;
    struct rng rng;
    _Atomic unsigned *running; /* counts down */
};
void worker_entry(void *opaque); /* coroutine */

/* In a coroutine, nobody else at work. */
void check_all_co(struct run *run);
void resize_co(struct run *run, struct rng *rng);
void copy_co(struct run *run, struct rng *rng);
void bad_requests_co(struct run *run, struct rng *rng);

#endif
