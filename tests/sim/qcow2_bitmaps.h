/* SPDX-License-Identifier: MIT */
/*
 * The parts of test_qcow2_bitmaps.c, which says what they prove: the judge of an image, and the
 * steps of the programs with the model that follows them.
 */
#ifndef TESTS_SIM_QCOW2_BITMAPS_H
#define TESTS_SIM_QCOW2_BITMAPS_H

#include "qcow2_verify.h"
#include "sim_harness.h"

#define DISK_MAX (128u << 10)
#define GRANULE 512u
#define GRANULES (DISK_MAX / GRANULE)
#define MAPS 3
#define CANDIDATES 24

/* A bitmap as the image is to have it. */
struct stored {
    bool exists;
    bool lost; /* it can only be flagged as in use */
    bool automatic;
    unsigned granularity_bits;
    uint64_t disk_bytes;
    bool bits[GRANULES];
    uint8_t base[DISK_MAX]; /* what the disk held where it is clean */
    bool tainted[GRANULES]; /* granules where base does not know */
};
struct directory {
    bool valid;
    struct stored maps[MAPS];
};

struct bitmaps_test {
    struct harness h;
    const char *name;
    struct sim_rng rng;
    struct sim_rng cut_rng;
    uint64_t disk_bytes;
    uint8_t content[DISK_MAX]; /* as answered */
    bool tainted[GRANULES];    /* a change of it failed */
    struct stored now[MAPS];   /* base, tainted, lost, exists: of the bitmaps of the node */
    struct directory known[CANDIDATES];
    bool faults;
    struct qv_image im;
    uint8_t *buf;
    size_t buf_room;
    unsigned boundaries, cuts, loads;
    char wrong[256]; /* the first thing; empty: none */
};

extern const char *const bm_names[MAPS];

/* ---- qcow2_bitmaps_judge.c ---- */

/* Only the first thing that is wrong is kept. */
void bm_wrong(struct bitmaps_test *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The bytes of a disk as an image in t->im, its structure judged. */
bool bm_image_of(struct bitmaps_test *t, const struct sim_disk *disk);
/* The newest candidate that t->im has, or -1. */
int bm_candidate_of(struct bitmaps_test *t, const char **ret_fault);
/* For sim_world_on_change: cut the power of copies and judge each. */
void bm_boundary(void *opaque, const char *path, const struct sim_disk *disk);

/* ---- qcow2_bitmaps_step.c ---- */

/* Repaired first, where a failure left it dirty. */
void bm_open_disk(struct bitmaps_test *t);
/* Close, judge what was stored, open, judge what was loaded. */
void bm_step_reopen(struct bitmaps_test *t);
/* A random one. */
void bm_step(struct bitmaps_test *t);

#endif
