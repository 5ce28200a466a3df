/* SPDX-License-Identifier: MIT */
/* Metadata is not written over (overlap.c); metadata that is impossible. */
#ifndef PLATTER_QCOW2_OVERLAP_H
#define PLATTER_QCOW2_OVERLAP_H

#include <stdbool.h>
#include <stdint.h>

struct qcow2;

enum q2_overlap {
    Q2_OL_MAIN_HEADER = 1 << 0,
    Q2_OL_ACTIVE_L1 = 1 << 1,
    Q2_OL_ACTIVE_L2 = 1 << 2,
    Q2_OL_REFCOUNT_TABLE = 1 << 3,
    Q2_OL_REFCOUNT_BLOCK = 1 << 4,
    Q2_OL_SNAPSHOT_TABLE = 1 << 5,
    Q2_OL_INACTIVE_L1 = 1 << 6,
    Q2_OL_INACTIVE_L2 = 1 << 7,
    Q2_OL_BITMAP_DIRECTORY = 1 << 8,
    Q2_OL_NONE = 0,
    Q2_OL_CONSTANT = (1 << 0) | (1 << 1) | (1 << 3) | (1 << 5) | (1 << 8),
    Q2_OL_CACHED = Q2_OL_CONSTANT | (1 << 2) | (1 << 4) | (1 << 6),
    Q2_OL_ALL = Q2_OL_CACHED | (1 << 7),
};
/* Before each write to the image file: 0, or -EIO after the image was marked corrupt and reported.
 * ignore: the sections that the write is meant for. Coroutine, inside or drained; lock-free. */
int q2_overlap_check_co(struct qcow2 *s, unsigned ignore, uint64_t offset, uint64_t bytes);
/* Tables come and go: clusters of L2 tables and refcount blocks in the set that is looked up. */
int q2_overlap_add(struct qcow2 *s, enum q2_overlap kind, uint64_t offset); /* 0 or -ENOMEM */
void q2_overlap_del(struct qcow2 *s, enum q2_overlap kind, uint64_t offset);
/* The same for all clusters of a table (L1, refcount, snapshot table, bitmap directory) that moves:
 * add the new place before it is written, del the old one when nothing refers to it. */
int q2_overlap_add_range(struct qcow2 *s, enum q2_overlap kind, uint64_t offset, uint64_t bytes);
void q2_overlap_del_range(struct qcow2 *s, enum q2_overlap kind, uint64_t offset, uint64_t bytes);
/* Which of kinds (but INACTIVE_L2) the range hits; 0: none. Any thread. */
unsigned q2_overlap_find(const struct qcow2 *s, unsigned kinds, uint64_t offset, uint64_t bytes);
/* Tell that a write to kinds was prevented, as the check does. -EIO. */
int q2_overlap_told_co(struct qcow2 *s, unsigned kinds, uint64_t offset, uint64_t bytes);
/* From what is loaded (header, L1, refcount table, snapshots). Again, while drained, when snapshots
 * came or went or the active L1 table became another. 0 or -ENOMEM; then the old set stays. */
int q2_overlap_init(struct qcow2 *s);
/* The same for what was loaded anew; drained. Without memory only the header stays protected: what
 * the old set knows is gone, and it would take right writes for wrong ones. */
void q2_overlap_renew(struct qcow2 *s);
/* Once more, when that was so. */
void q2_overlap_try_again(struct qcow2 *s);
void q2_overlap_fini(struct qcow2 *s);

/* Impossible metadata: reported once; fatal (a write was about to harm it, writable image): the
 * corrupt bit is set in the header and the node is broken. Returns -EIO. Coroutine. */
int q2_corrupt_co(struct qcow2 *s, bool fatal, uint64_t offset, uint64_t bytes, const char *fmt,
                  ...) __attribute__((format(printf, 5, 6)));

#endif
