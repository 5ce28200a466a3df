/* SPDX-License-Identifier: MIT */
/*
 * An entry of the snapshot table as a struct, and back (pure): 40 fixed bytes, extra data, id, name
 * (spec, "Snapshots"). Extra data longer than what we know is kept.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

#include "qcow2.h"
#include "snapshot.h"

#define EXTRA_VM_STATE 8 /* extra data up to and with the 64-bit size of the VM state */
#define EXTRA_DISK 16    /* ... the disk's size */
#define EXTRA_NOW 24     /* ... the instruction count: what we write */

void q2_snapshot_fini(struct q2_snapshot *sn)
{
    free(sn->unknown_extra);
    free(sn->id);
    free(sn->name);
    memset(sn, 0, sizeof(*sn));
}

/* A copy of bytes with a zero behind it. */
static char *copy_bytes(const uint8_t *from, size_t bytes)
{
    char *copy = malloc(bytes + 1);

    if (copy != NULL) {
        memcpy(copy, from, bytes);
        copy[bytes] = '\0';
    }
    return copy;
}

static void parse_extra(const uint8_t *extra, uint32_t bytes, uint64_t disk_bytes,
                        struct q2_snapshot *sn)
{
    if (bytes >= EXTRA_VM_STATE) {
        sn->vm_state_bytes = load_be64(extra);
    }
    sn->disk_bytes = bytes >= EXTRA_DISK ? load_be64(extra + 8) : disk_bytes;
    sn->icount = bytes >= EXTRA_NOW ? load_be64(extra + 16) : UINT64_MAX;
}

int q2_snapshot_parse(const uint8_t *buf, size_t bytes, uint64_t disk_bytes,
                      struct q2_snapshot *ret, size_t *ret_used)
{
    struct q2_snapshot sn = {0};
    const uint8_t *p = buf + Q2_SNAPSHOT_FIXED_BYTES;
    uint64_t used;

    if (bytes < Q2_SNAPSHOT_FIXED_BYTES) {
        return -EINVAL;
    }
    sn.l1_offset = load_be64(buf);
    sn.l1_entries = load_be32(buf + 8);
    sn.id_bytes = load_be16(buf + 12);
    sn.name_bytes = load_be16(buf + 14);
    sn.date_sec = load_be32(buf + 16);
    sn.date_nsec = load_be32(buf + 20);
    sn.vm_clock_nsec = load_be64(buf + 24);
    sn.vm_state_bytes = load_be32(buf + 32);
    sn.extra_bytes = load_be32(buf + 36);
    if (sn.extra_bytes > Q2_SNAPSHOT_EXTRA_BYTES_MAX) {
        return -EFBIG;
    }
    used = Q2_SNAPSHOT_FIXED_BYTES + (uint64_t)sn.extra_bytes + sn.id_bytes + sn.name_bytes;
    if (used > bytes) {
        return -EINVAL;
    }
    parse_extra(p, sn.extra_bytes, disk_bytes, &sn);
    if (sn.extra_bytes > EXTRA_NOW) {
        sn.unknown_extra_bytes = sn.extra_bytes - EXTRA_NOW;
        sn.unknown_extra = (uint8_t *)copy_bytes(p + EXTRA_NOW, sn.unknown_extra_bytes);
    }
    p += sn.extra_bytes;
    sn.id = copy_bytes(p, sn.id_bytes);
    sn.name = copy_bytes(p + sn.id_bytes, sn.name_bytes);
    if (sn.id == NULL || sn.name == NULL ||
        (sn.unknown_extra_bytes > 0 && sn.unknown_extra == NULL)) {
        q2_snapshot_fini(&sn);
        return -ENOMEM;
    }
    *ret = sn;
    *ret_used = (size_t)used;
    return 0;
}

int q2_snapshot_refuse(int rc, uint32_t index, Error **errp)
{
    if (rc == -ENOMEM) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (rc != -EFBIG) {
        return error_set(errp, -rc, "Snapshot table entry %" PRIu32 " is cut short", index);
    }
    error_set(errp, EFBIG, "Too much extra metadata in snapshot table entry %" PRIu32, index);
    error_set_hint(errp, "You can force-remove this extra metadata with check -r all");
    error_add_compat_hint(errp,
                          "You can force-remove this extra metadata with qemu-img check -r all");
    return rc;
}

size_t q2_snapshot_bytes(const struct q2_snapshot *sn)
{
    return Q2_SNAPSHOT_FIXED_BYTES + EXTRA_NOW + (size_t)sn->unknown_extra_bytes + sn->id_bytes +
           sn->name_bytes;
}

size_t q2_snapshot_build(const struct q2_snapshot *sn, uint8_t *buf)
{
    uint8_t *p = buf + Q2_SNAPSHOT_FIXED_BYTES;

    store_be64(buf, sn->l1_offset);
    store_be32(buf + 8, sn->l1_entries);
    store_be16(buf + 12, sn->id_bytes);
    store_be16(buf + 14, sn->name_bytes);
    store_be32(buf + 16, sn->date_sec);
    store_be32(buf + 20, sn->date_nsec);
    store_be64(buf + 24, sn->vm_clock_nsec);
    /* who knows only this field must not take a part for the whole */
    store_be32(buf + 32, sn->vm_state_bytes > UINT32_MAX ? 0 : (uint32_t)sn->vm_state_bytes);
    store_be32(buf + 36, EXTRA_NOW + sn->unknown_extra_bytes);
    store_be64(p, sn->vm_state_bytes);
    store_be64(p + 8, sn->disk_bytes);
    store_be64(p + 16, sn->icount);
    p += EXTRA_NOW;
    if (sn->unknown_extra_bytes > 0) {
        memcpy(p, sn->unknown_extra, sn->unknown_extra_bytes);
        p += sn->unknown_extra_bytes;
    }
    memcpy(p, sn->id, sn->id_bytes);
    memcpy(p + sn->id_bytes, sn->name, sn->name_bytes);
    return q2_snapshot_bytes(sn);
}

uint64_t q2_snapshots_bytes(const struct q2_snapshot *list, uint32_t count)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < count; i++) {
        bytes = align_up(bytes, Q2_SNAPSHOT_ALIGN) + q2_snapshot_bytes(&list[i]);
    }
    return bytes;
}
