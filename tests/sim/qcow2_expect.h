/* SPDX-License-Identifier: MIT */
/*
 * What a qcow2 image may hold, given what was asked of it and what it answered: the shadow of its
 * disk, its size, its snapshots and bitmaps; and the judge, who looks at a state of the simulated
 * disk with the second reader (qcow2_verify.h) and says what is wrong with it.
 *
 * Operations on the whole image are all or nothing. While one runs, the image may be as before or
 * as afterwards; the fields of "under way" say which.
 */
#ifndef TESTS_SIM_QCOW2_EXPECT_H
#define TESTS_SIM_QCOW2_EXPECT_H

#include "qcow2_verify.h"
#include "sim_harness.h"

#define EXPECT_SNAPSHOTS 4
#define EXPECT_DATA_PATH "/sim/data"
#define EXPECT_BACKING_PATH "/sim/backing"
#define EXPECT_BACKING_VERSION 63 /* of the bytes of the backing file */
#define EXPECT_BITMAP "bm"
#define EXPECT_EITHER 0x80

struct expect_snapshot {
    bool used;
    bool maybe; /* under way: it is being made or deleted */
    char name[16];
    uint64_t disk_bytes;
    uint64_t *now; /* owned; sets of versions, one for each byte */
    uint64_t vm_bytes;
    unsigned vm_version;
    uint8_t *seen; /* owned; what it held when it was judged last */
    bool seen_good;
};

struct qcow2_expect {
    struct harness *h;
    uint64_t disk_bytes;
    struct qv_bytes backing; /* owned; data NULL: none */
    struct expect_snapshot snapshots[EXPECT_SNAPSHOTS];

    /* under way */
    bool whole;           /* something is: flags of version 2 may disagree with refcounts */
    uint64_t other_bytes; /* the disk may have this size; 0: nothing is resized */
    const struct expect_snapshot *apply; /* the disk may be this one */

    /* the bitmap. It need not know of a change that the image does not hold: so what the disk held
     * when the bitmap was last in the image is kept. */
    bool bitmap;       /* it must be there */
    bool bitmap_maybe; /* it may be there */
    uint8_t *dirty;    /* owned; one for each 512 bytes: 1: changed since it was stored, 2: before;
                        * EXPECT_EITHER: perhaps */
    uint64_t *stored;  /* owned; what the disk held then, sets of versions */

    /* the judge's */
    struct qv_image im;
    uint8_t *file_buf, *data_buf, *disk_buf, *seen_buf;
    uint64_t file_room, data_room;
    uint64_t seen_generation; /* seen_buf was good then */
    uint64_t seen_bytes;
    bool seen_after_cut;
    char text[400];

    /* counts */
    unsigned long states, dirty_states, leaky_states, version_2_states;
    uint64_t leaks_max;
};

/* h has a shadow of the largest size. backing_bytes 0: no backing file; else one of so many bytes
 * is made in the world. Aborts when the test's own memory fails. */
void expect_init(struct qcow2_expect *e, struct harness *h, uint64_t disk_bytes,
                 uint64_t backing_bytes);
void expect_fini(struct qcow2_expect *e);

/* ---- telling it what goes on ---- */

/* A change of [offset, +bytes) is asked for: for the bitmap. */
void expect_touch(struct qcow2_expect *e, uint64_t offset, uint64_t bytes);
/* It failed, and may have changed something or not: the bitmap may know of it or not. */
void expect_touch_failed(struct qcow2_expect *e, uint64_t offset, uint64_t bytes);
/* A bitmap is about to be made, at least 512 bytes a bit. */
void expect_bitmap_new(struct qcow2_expect *e);
/* Bitmaps are stored, nothing is in flight. */
void expect_bitmap_stored(struct qcow2_expect *e);
/* The snapshot of that name is about to be made of the disk as it is; NULL: no room. */
struct expect_snapshot *expect_create(struct qcow2_expect *e, const char *name, uint64_t vm_bytes,
                                      unsigned vm_version);
void expect_create_end(struct qcow2_expect *e, struct expect_snapshot *s, bool ok);
void expect_delete(struct qcow2_expect *e, struct expect_snapshot *s);
void expect_delete_end(struct qcow2_expect *e, struct expect_snapshot *s, bool ok);
void expect_apply(struct qcow2_expect *e, const struct expect_snapshot *s);
void expect_apply_end(struct qcow2_expect *e, const struct expect_snapshot *s, bool ok);
void expect_resize(struct qcow2_expect *e, uint64_t disk_bytes);
void expect_resize_end(struct qcow2_expect *e, uint64_t disk_bytes, bool ok);

/* ---- judging ---- */

enum expect_when {
    EXPECT_CUT,    /* after a cut of power: leaks, the dirty bit */
    EXPECT_CLOSED, /* everything was answered, then closed without an error: exact */
};
/* NULL, or what is wrong (in e). data: NULL without an external data file. Afterwards e->im holds
 * the image, until the next call. */
const char *expect_judge(struct qcow2_expect *e, const struct sim_disk *file,
                         const struct sim_disk *data, enum expect_when when);
/* The same of bytes; both are borrowed until the next call. */
const char *expect_judge_bytes(struct qcow2_expect *e, struct qv_bytes file, struct qv_bytes data,
                               enum expect_when when);
/* An image that is wrong goes to the file PLATTER_KEEP, when that is set. */
void expect_keep(const uint8_t *image, uint64_t bytes);

#endif
