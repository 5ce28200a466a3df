/* SPDX-License-Identifier: MIT */
/* blklogwrites: reading the end of a log, and writing behind it. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "util/bytes.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/iov.h"

#define LOG_MAGIC UINT64_C(0x6a736677736872)
#define LOG_VERSION 1
#define SUPER_BYTES 28
#define ENTRY_BYTES 32
#define ENTRIES_MAX (UINT64_C(1) << 48)

/* ---- reading ---- */

static int super_parse(struct log_state *s, const uint8_t *buf, Error **errp)
{
    uint64_t version = load_le64(buf + 8);

    if (load_le64(buf) != LOG_MAGIC) {
        return error_set(errp, EINVAL, "Invalid log superblock magic");
    }
    if (version != LOG_VERSION) {
        return error_set(errp, EINVAL, "Unsupported log version %" PRIu64, version);
    }
    s->entries = load_le64(buf + 16);
    s->sector_bytes = load_le32(buf + 24);
    if (!is_pow2(s->sector_bytes) || s->sector_bytes < LOG_SECTOR_BYTES_MIN ||
        s->sector_bytes > LOG_SECTOR_BYTES_MAX) {
        return error_set(errp, EINVAL, "Invalid log sector size %" PRIu32, s->sector_bytes);
    }
    return 0;
}

/* Every entry takes a sector at least, so a log is read to its real end, whatever it says. */
static int skip_entries(struct log_state *s, uint64_t log_bytes, Error **errp)
{
    uint64_t sectors = log_bytes / s->sector_bytes;

    s->end = 1;
    for (uint64_t i = 0; i < s->entries; i++) {
        uint8_t buf[ENTRY_BYTES];
        uint64_t data;
        int rc;

        if (s->end >= sectors) {
            return error_set(errp, EINVAL, "The log ends before entry %" PRIu64 " of %" PRIu64, i,
                             s->entries);
        }
        rc = bdrv_edge_pread(s->edge, s->end * s->sector_bytes, buf, sizeof(buf));
        if (rc < 0) {
            return error_set_errno(errp, -rc, "Could not read log entry %" PRIu64, i);
        }
        data = load_le64(buf + 16) & LOG_DISCARD ? 0 : load_le64(buf + 8);
        if (data > sectors - s->end - 1) {
            return error_set(errp, EINVAL, "Log entry %" PRIu64 " goes beyond the end of the log",
                             i);
        }
        s->end += 1 + data;
    }
    return 0;
}

int log_continue(struct log_state *s, Error **errp)
{
    int64_t bytes = bdrv_edge_getlength(s->edge);
    uint8_t buf[SUPER_BYTES];
    int rc;

    if (bytes == 0) {
        return 0;
    }
    if (bytes < (int64_t)sizeof(buf)) {
        return bytes < 0 ? error_set_errno(errp, (int)-bytes, "Cannot tell the size of the log")
                         : error_set(errp, EINVAL, "The log is too short for a superblock");
    }
    rc = bdrv_edge_pread(s->edge, 0, buf, sizeof(buf));
    if (rc < 0) {
        return error_set_errno(errp, -rc, "Could not read log superblock");
    }
    rc = super_parse(s, buf, errp);
    if (rc == 0) {
        rc = skip_entries(s, (uint64_t)bytes, errp);
    }
    s->began = rc == 0;
    return rc;
}

/* ---- writing ---- */

int log_super_co(struct log_state *s, BlockDriverState *bs)
{
    uint8_t *buf = bdrv_buffer_alloc(bs, s->sector_bytes);
    int ret;

    if (buf == NULL) {
        return -ENOMEM;
    }
    memset(buf, 0, s->sector_bytes);
    store_le64(buf, LOG_MAGIC);
    store_le64(buf + 8, LOG_VERSION);
    store_le64(buf + 16, s->entries);
    store_le32(buf + 24, s->sector_bytes);
    ret = bdrv_edge_write_co(s->edge, 0, buf, s->sector_bytes, 0);
    bdrv_buffer_free(bs, buf, s->sector_bytes);
    return ret;
}

/* What was written, and zeroes up to the end of a sector where the disk ends before. */
static int write_data_co(struct log_state *s, const struct log_entry *entry, uint64_t at,
                         uint64_t room)
{
    struct bdrv_req req;
    int ret;

    if (entry->data == NULL) {
        return bdrv_edge_write_zeroes_co(s->edge, at, room, 0);
    }
    req = *entry->data;
    req.flags = 0;
    req.offset = at;
    ret = bdrv_edge_request_co(s->edge, &req);
    if (ret == 0 && entry->bytes < room) {
        ret = bdrv_edge_write_zeroes_co(s->edge, at + entry->bytes, room - entry->bytes, 0);
    }
    return ret;
}

/* The data before the head, so that a head is never believed without it. */
static int write_entry_co(struct log_state *s, BlockDriverState *bs, const struct log_entry *entry,
                          uint64_t sectors)
{
    uint64_t at = s->end * s->sector_bytes;
    uint64_t room = entry->flags & LOG_DISCARD ? 0 : sectors * s->sector_bytes;
    uint8_t *buf = bdrv_buffer_alloc(bs, s->sector_bytes);
    int ret = buf == NULL ? -ENOMEM : 0;

    if (ret == 0 && room > 0) {
        ret = write_data_co(s, entry, at + s->sector_bytes, room);
    }
    if (ret == 0) {
        memset(buf, 0, s->sector_bytes);
        store_le64(buf, entry->offset / s->sector_bytes);
        store_le64(buf + 8, sectors);
        store_le64(buf + 16, entry->flags);
        ret = bdrv_edge_write_co(s->edge, at, buf, s->sector_bytes, 0);
    }
    if (ret == 0) {
        s->end += 1 + room / s->sector_bytes;
        s->entries++;
    }
    bdrv_buffer_free(bs, buf, s->sector_bytes);
    return ret;
}

int log_append_co(struct log_state *s, BlockDriverState *bs, const struct log_entry *entry)
{
    uint64_t sectors = align_up(entry->bytes, s->sector_bytes) / s->sector_bytes;
    int ret = s->failed;

    assert(entry->offset % s->sector_bytes == 0);
    if (ret == 0 && s->entries >= ENTRIES_MAX) {
        ret = -EFBIG;
    }
    if (ret == 0 && !s->began) {
        ret = log_super_co(s, bs); /* of no entry: what the log was before is over */
        s->began = ret == 0;
    }
    if (ret == 0) {
        ret = write_entry_co(s, bs, entry, sectors);
    }
    if (ret == 0 && s->entries % s->super_interval == 0) {
        ret = log_super_co(s, bs);
    }
    s->changed = s->changed || ret == 0;
    s->failed = ret;
    return ret;
}
