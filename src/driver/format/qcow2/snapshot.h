/* SPDX-License-Identifier: MIT */
/* Internal snapshots. tree.h has the tables and clusters that they keep. */
#ifndef PLATTER_QCOW2_SNAPSHOT_H
#define PLATTER_QCOW2_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include "block/driver.h"

struct qcow2;

/* ---- snapshot_entry.c, snapshot_table.c: the snapshot table ---- */

struct q2_snapshot {
    uint64_t l1_offset; /* not checked: q2_snapshot_l1_check */
    uint32_t l1_entries;
    uint32_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t vm_state_bytes;
    uint64_t disk_bytes;
    uint64_t icount;      /* UINT64_MAX: none */
    uint32_t extra_bytes; /* as in the file; the unknown part is kept */
    uint8_t *unknown_extra;
    uint32_t unknown_extra_bytes;
    uint16_t id_bytes; /* as in the file: a zero inside does not shorten it */
    uint16_t name_bytes;
    char *id;   /* owned */
    char *name; /* owned */
};
/* One entry at buf, of which bytes are there; disk_bytes: for entries that do not say. *ret_used:
 * its length without padding. 0, -EINVAL (cut short), -EFBIG (too much extra metadata), -ENOMEM.
 * Pure. */
int q2_snapshot_parse(const uint8_t *buf, size_t bytes, uint64_t disk_bytes,
                      struct q2_snapshot *ret, size_t *ret_used);
int q2_snapshot_refuse(int rc, uint32_t index, Error **errp); /* tells that, and returns it */
size_t q2_snapshot_bytes(const struct q2_snapshot *sn); /* that build writes, without padding */
size_t q2_snapshot_build(const struct q2_snapshot *sn, uint8_t *buf);
uint64_t q2_snapshots_bytes(const struct q2_snapshot *list, uint32_t count); /* of their table */
void q2_snapshot_fini(struct q2_snapshot *sn);
void q2_snapshots_free(struct q2_snapshot *list, uint32_t count);
/* Whether the L1 table may be used: its place and length only. 0 or -errno. */
int q2_snapshot_l1_check(struct qcow2 *s, const struct q2_snapshot *sn, Error **errp);
int q2_snapshots_load(struct qcow2 *s, Error **errp); /* the table of the header */
void q2_snapshots_fini(struct qcow2 *s);
/* A new table of s->snapshots, written and switched to (W6); the old one is given to
 * q2_free_later. After a failure the file has the old one; *ret_unsure: or perhaps the new, since
 * writing the header failed: then the clusters of both stay allocated. Drained. */
int q2_snapshots_store_co(struct qcow2 *s, bool *ret_unsure, Error **errp);

/* ---- snapshot.c, snapshot_apply.c ---- */

/* id or name may be NULL; given, it must fit. 0, -ENOENT. */
int q2_snapshot_find(const struct qcow2 *s, const char *id, const char *name, uint32_t *ret);
int q2_snapshots_usable(struct qcow2 *s, Error **errp); /* of this image, for changes */
int q2_snapshot_apply_co(BlockDriverState *bs, const char *id_or_name, Error **errp);
extern const struct bdrv_snapshot_ops q2_snapshot_ops;

#endif
