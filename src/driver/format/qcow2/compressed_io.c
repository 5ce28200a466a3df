/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters: each is read whole, and (de)compressed by a worker thread, so that no loop
 * waits for it; several clusters of a request at once.
 *
 * A compressed write takes whole clusters; what does not shrink is written plain. Its data is
 * packed behind the last compressed cluster, so it may share a sector with its neighbours. Clusters
 * are compressed at the same time and get their room in turn, so that the same writes make the same
 * file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "compress.h"
#include "loop/co_group.h"
#include "overlap.h"
#include "request.h"
#include "util/iov.h"

/* ---- packers ---- */

void q2_packers_init(struct q2_packers *p)
{
    os_mutex_init(&p->lock);
}

/* NULL: no memory. [any] */
static struct q2_packer *packer_take(struct q2_packers *p)
{
    struct q2_packer *packer;

    os_mutex_lock(&p->lock);
    packer = p->idle;
    if (packer != NULL) {
        p->idle = packer->next;
    }
    os_mutex_unlock(&p->lock);
    return packer != NULL ? packer : calloc(1, sizeof(*packer));
}

static void packer_give(struct q2_packers *p, struct q2_packer *packer)
{
    os_mutex_lock(&p->lock);
    packer->next = p->idle;
    p->idle = packer;
    os_mutex_unlock(&p->lock);
}

void q2_packers_fini(struct q2_packers *p)
{
    while (p->idle != NULL) {
        struct q2_packer *packer = p->idle;

        p->idle = packer->next;
        q2_packer_fini(packer);
        free(packer);
    }
    os_mutex_fini(&p->lock);
}

/* ---- workers ---- */

struct codec_job {
    struct qcow2 *s;
    const void *in;
    size_t in_bytes;
    void *out;
    size_t out_bytes;
};

static int64_t compress_run(void *arg)
{
    const struct codec_job *job = arg;
    struct q2_packer *packer = packer_take(&job->s->packers);
    int64_t bytes;

    if (packer == NULL) {
        return -ENOMEM;
    }
    bytes =
        q2_compress(packer, (enum q2_compression)job->s->header.compression_type,
                    job->s->opt.compat_window, job->in, job->in_bytes, job->out, job->out_bytes);
    packer_give(&job->s->packers, packer);
    return bytes;
}

static int64_t decompress_run(void *arg)
{
    const struct codec_job *job = arg;

    return q2_decompress((enum q2_compression)job->s->header.compression_type, job->in,
                         job->in_bytes, job->out, job->out_bytes);
}

/* ---- reading ---- */

static int data_corrupt_co(struct qcow2 *s, uint64_t offset, uint32_t bytes, const char *what)
{
    return q2_corrupt_co(s, false, offset, bytes, "compressed cluster at %#" PRIx64 " %s", offset,
                         what);
}

/* The sectors of the entry as far as the file has them: the last one need not be whole. */
static int extent_in_file_co(struct qcow2 *s, uint64_t offset, uint32_t bytes, uint32_t *ret_bytes)
{
    int64_t file_bytes = bdrv_edge_getlength(s->file);

    if (file_bytes < 0) {
        return (int)file_bytes;
    }
    if (offset >= (uint64_t)file_bytes ||
        align_up(offset + bytes, Q2_COMPRESSED_SECTOR) >
            align_up((uint64_t)file_bytes, Q2_COMPRESSED_SECTOR)) {
        return data_corrupt_co(s, offset, bytes, "is past the end of the file");
    }
    *ret_bytes = (uint32_t)min_u64(bytes, (uint64_t)file_bytes - offset);
    return 0;
}

static bool end_is_unknown(const struct qcow2 *s)
{
    const BlockDriver *drv = bdrv_find_driver(bdrv_get_format_name(bdrv_edge_node(s->file)));

    return drv != NULL && (drv->caps & BDRV_CAP_END_UNKNOWN) != 0;
}

/* What extent_in_file_co could not tell: how much of the last sector there is, found by halving. */
static int read_to_end_co(struct qcow2 *s, uint64_t offset, void *buf, uint32_t *bytes)
{
    uint64_t sector = align_down(offset + *bytes - 1, Q2_COMPRESSED_SECTOR);
    const uint32_t before = sector > offset ? (uint32_t)(sector - offset) : 0;
    uint32_t there = before;
    uint32_t missing = *bytes;

    while (missing - there > 1) {
        uint32_t middle = there + (missing - there) / 2;
        int ret = bdrv_edge_read_co(s->file, offset, buf, middle);

        if (ret < 0 && ret != -EIO) {
            return ret;
        }
        if (ret == 0) {
            there = middle;
        } else {
            missing = middle;
        }
    }
    if (there == before) {
        return data_corrupt_co(s, offset, *bytes, "is past the end of the file");
    }
    *bytes = there;
    return bdrv_edge_read_co(s->file, offset, buf, there);
}

int q2_read_compressed_co(struct qcow2 *s, uint64_t l2_entry, void *out_cluster)
{
    uint64_t offset = q2_compressed_offset(&s->geo, l2_entry);
    uint32_t room = q2_compressed_bytes(&s->geo, l2_entry);
    struct codec_job job = {.s = s, .out = out_cluster, .out_bytes = s->geo.cluster_bytes};
    uint32_t bytes = 0;
    uint8_t *buf;
    int ret = extent_in_file_co(s, offset, room, &bytes);

    if (ret < 0) {
        return ret;
    }
    buf = bdrv_buffer_alloc(s->bs, room);
    if (buf == NULL) {
        return -ENOMEM;
    }
    bdrv_debug_event(s->file, BLKDBG_READ_COMPRESSED);
    ret = bdrv_edge_read_co(s->file, offset, buf, bytes);
    if (ret == -EIO && end_is_unknown(s)) {
        ret = read_to_end_co(s, offset, buf, &bytes);
    }
    if (ret == 0) {
        job.in = buf;
        job.in_bytes = bytes;
        ret = (int)aio_compute_co(decompress_run, &job);
        if (ret == -EIO) {
            ret = data_corrupt_co(s, offset, bytes, "cannot be decompressed");
        }
    }
    bdrv_buffer_free(s->bs, buf, room);
    return ret;
}

/* ---- writing ---- */

struct compressed_piece {
    struct qcow2 *s;
    struct bdrv_req req; /* one cluster, or what the disk has of its last */
    struct co_turn turn;
};

/* The mapping takes the data at offset. */
static int link_co(struct qcow2 *s, uint64_t guest, uint64_t word)
{
    const struct q2_l2_entry now = {.word = word};
    struct q2_l2_entry old;
    struct q2_range range;
    struct q2_slot slot;
    const char *wrong;
    int ret = q2_table_own_co(s, guest);

    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(s->file, BLKDBG_L2_UPDATE_COMPRESSED);
    q2_range_lock_co(s, &range, guest >> s->geo.cluster_bits, guest >> s->geo.cluster_bits);
    ret = q2_slot_get_co(s, guest, &slot);
    if (ret == 0) {
        old = q2_slice_entry(s, slot.slice, slot.index);
        wrong = q2_l2_wrong(&s->geo, old, guest);
        ret = wrong != NULL ? q2_entry_corrupt_co(s, true, slot.slice, guest, wrong)
                            : q2_entries_set_co(s, slot.slice, slot.index, &now, 1);
        if (ret == 0) {
            q2_entry_replaced(s, old, now, Q2_DISCARD_OTHER);
        }
        q2_l2_put(s, slot.slice);
    }
    q2_range_unlock(s, &range);
    return ret;
}

/* 1: done; 0: it cannot be said in an entry. */
static int store_co(struct compressed_piece *piece, const void *data, uint32_t bytes)
{
    struct qcow2 *s = piece->s;
    uint64_t guest = piece->req.offset;
    uint64_t offset;
    uint64_t word;
    int ret = q2_table_own_co(s, guest);

    if (ret == 0) {
        ret = q2_alloc_packed_co(s, bytes, &offset);
    }
    if (ret < 0) {
        return ret;
    }
    co_turn_pass_co(&piece->turn);
    word = q2_compressed_word(&s->geo, offset, bytes);
    if (word != 0) {
        ret = q2_overlap_check_co(s, Q2_OL_NONE, offset, bytes);
        if (ret == 0) {
            bdrv_debug_event(s->file, BLKDBG_WRITE_COMPRESSED);
            ret = bdrv_edge_write_co(s->file, offset, data, bytes, 0);
        }
        if (ret == 0) {
            ret = link_co(s, guest, word);
        }
        if (ret == 0) {
            return 1;
        }
    }
    q2_unalloc_co(s, offset, bytes);
    return ret;
}

/* The cluster to compress: where it stands when it is one piece of memory, else copied to *ret_buf,
 * which is the caller's. NULL: no memory. */
static const void *cluster_data(const struct compressed_piece *piece, uint8_t **ret_buf)
{
    const struct bdrv_req *req = &piece->req;
    uint32_t cluster = piece->s->geo.cluster_bytes;
    struct iovec iov;
    uint64_t bytes;
    uint8_t *buf;

    iov_slice(req->iov, req->niov, req->iov_offset, req->bytes, &iov, 1, &bytes);
    if (bytes == cluster) {
        return iov.iov_base;
    }
    *ret_buf = buf = bdrv_buffer_alloc(piece->s->bs, cluster);
    if (buf == NULL) {
        return NULL;
    }
    iov_to_buf(req->iov, req->niov, req->iov_offset, buf, req->bytes);
    memset(buf + req->bytes, 0, cluster - req->bytes);
    return buf;
}

static int piece_pack_co(struct compressed_piece *piece)
{
    struct qcow2 *s = piece->s;
    uint32_t cluster = s->geo.cluster_bytes;
    uint8_t *buf = NULL;
    uint8_t *out = bdrv_buffer_alloc(s->bs, cluster);
    struct codec_job job = {.s = s, .in_bytes = cluster, .out_bytes = cluster};
    int64_t bytes;
    int ret = 0;

    if (out == NULL) {
        return -ENOMEM;
    }
    job.in = cluster_data(piece, &buf);
    job.out = out;
    bytes = job.in != NULL ? aio_compute_co(compress_run, &job) : -ENOMEM;
    co_turn_wait_co(&piece->turn);
    if (bytes > 0) {
        ret = store_co(piece, job.out, (uint32_t)bytes);
    } else {
        ret = (int)bytes;
    }
    bdrv_buffer_free(s->bs, out, cluster);
    if (buf != NULL) {
        bdrv_buffer_free(s->bs, buf, cluster);
    }
    if (ret == 0) { /* it does not shrink */
        ret = q2_write_placed_co(s, &piece->req, co_turn_pass_co, &piece->turn);
    }
    return ret < 0 ? ret : 0;
}

static int piece_compress_co(void *opaque)
{
    struct compressed_piece *piece = opaque;
    int ret = piece_pack_co(piece);

    co_turn_pass_co(&piece->turn); /* of one that failed */
    return ret;
}

int q2_write_compressed_co(struct qcow2 *s, const struct bdrv_req *req)
{
    struct compressed_piece pieces[CO_GROUP_MAX];
    uint32_t cluster = s->geo.cluster_bytes;
    uint64_t end = req->offset + req->bytes;
    uint64_t turn, turns;
    struct co_group group;
    int ret;

    if (s->geo.external_data) {
        return -ENOTSUP;
    }
    if (!is_aligned(req->offset, cluster) ||
        (!is_aligned(end, cluster) && end != q2_disk_bytes(s))) {
        return -EINVAL;
    }
    turns = align_up(req->bytes, cluster) / cluster;
    turn = co_turns_take(&s->turns, turns);
    co_group_init(&group, pieces, sizeof(pieces[0]));
    for (uint64_t done = 0; done < req->bytes && !co_group_failed(&group);) {
        struct compressed_piece *piece = co_group_piece_co(&group);

        piece->s = s;
        piece->req = q2_req_part(req, done, min_u64(cluster, req->bytes - done));
        piece->turn = (struct co_turn){&s->turns, turn++, false};
        turns--;
        done += piece->req.bytes;
        co_group_start_co(&group, piece, piece_compress_co);
    }
    ret = co_group_wait_co(&group);
    if (turns > 0) { /* of pieces that never began */
        co_turns_pass_co(&s->turns, turn, turns);
    }
    return ret;
}
