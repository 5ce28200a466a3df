/* SPDX-License-Identifier: MIT */
/* Operations on a whole image for the gate that fails their calls (test_qcow2_undo.c). */
#ifndef PLATTER_SIM_QCOW2_UNDO_H
#define PLATTER_SIM_QCOW2_UNDO_H

#include "sim_harness.h"

#define KIB 1024u
#define DISK_BYTES (64 * KIB)
#define DISK_MAX (160 * KIB)
#define IMAGE                                                                                      \
    "driver=qcow2,discard=unmap,file.driver=file,file.discard=unmap,file.cache.direct=on,"         \
    "file.filename=" SIM_DISK_PATH

struct undo;

struct operation {
    const char *name;
    int (*run)(struct undo *t, Error **errp);
    void (*prepare)(struct undo *t); /* may be NULL */
    void (*after)(uint8_t *disk, uint64_t *bytes);
    bool version_3;  /* only there */
    bool downgrades; /* to a version without subclusters */
    bool lasting;    /* to do it again is refused, or does nothing */
    bool once; /* nor is it done again after a failure: a file that direct I/O padded to a block,
                * and that could not be cut again, is longer than its node knows, and then
                * refuses to preallocate up to its end */
};

struct undo {
    struct harness h;
    const struct operation *op;
    const char *image; /* options of create */
    bool old;          /* version 2 */
    uint8_t before[DISK_MAX], after[DISK_MAX];
    uint64_t before_bytes, after_bytes;
    char wrong[500];
};

/* What is wrong; the first that is told stays. */
void undo_wrong(struct undo *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
BlockDriverState *undo_node(struct undo *t);
/* rc, with the Error's text when that is not zero. */
int undo_need(struct undo *t, const char *what, int rc, Error **err);
/* Bytes of a model that tell their place and version. */
void undo_fill(uint8_t *disk, uint64_t offset, uint64_t bytes, unsigned version);

/* ---- qcow2_undo_operations.c ---- */

extern const struct operation undo_operations[];
extern const size_t undo_operation_count;
/* Of the operations that go back to a snapshot. */
void undo_snapshot_content(uint8_t *disk, uint64_t *bytes);

#endif
