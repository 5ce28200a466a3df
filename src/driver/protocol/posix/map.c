/* SPDX-License-Identifier: MIT */
/*
 * Where a file has data and holes, and copying inside the kernel. Both are system calls that may
 * wait for the disk and that no engine knows, so worker threads make them; but a hand-over costs
 * ten times a lookup that is answered from memory, which the loop makes itself.
 */
#include <errno.h>
#include <unistd.h>

#include "os/os.h"
#include "posix.h"
#include "util/checked.h"

#define COPY_PIECE_BYTES (UINT64_C(16) << 20)
#define INTERRUPTED_MAX 100 /* in a row or not: signals may come, but not for ever */

/* An extent from offset on. */
struct extent_query {
    int fd;
    uint32_t size_unit;
    uint64_t offset;
    uint64_t bytes;      /* wanted; answered */
    bool answer_is_zero; /* a hole; else data */
};

/* Nothing beyond the end that the file has now, or its last whole sector, is called a hole: a file
 * that another process made shorter must not pass for zeroes. */
static void query_at_end(struct extent_query *q)
{
    struct stat st;
    int rc = os->fstat(q->fd, &st);
    uint64_t end = rc == 0 ? align_up((uint64_t)st.st_size, q->size_unit) : 0;

    if (q->offset < end) {
        q->answer_is_zero = true;
        q->bytes = min_u64(q->bytes, end - q->offset);
    }
}

static int64_t query_run(void *arg)
{
    struct extent_query *q = arg;
    int64_t data = os->lseek(q->fd, (int64_t)q->offset, SEEK_DATA);
    int64_t hole;

    q->answer_is_zero = false;
    if (data == -ENXIO) {
        query_at_end(q);
        return 0;
    }
    if (data < 0 || (uint64_t)data < q->offset) {
        return 0; /* cannot tell: data */
    }
    if ((uint64_t)data > q->offset) {
        q->answer_is_zero = true;
        q->bytes = min_u64(q->bytes, (uint64_t)data - q->offset);
        return 0;
    }
    hole = os->lseek(q->fd, (int64_t)q->offset, SEEK_HOLE);
    if (hole > data) {
        q->bytes = min_u64(q->bytes, (uint64_t)hole - q->offset);
    }
    return 0;
}

/* Bring an answer to whole blocks: a hole shrinks, data grows (but not beyond what was asked). */
static void query_align(struct extent_query *q, uint64_t asked, uint32_t align)
{
    if (is_aligned(q->bytes, align) || q->bytes == asked) {
        return;
    }
    if (q->answer_is_zero && q->bytes >= align) {
        q->bytes = align_down(q->bytes, align);
        return;
    }
    q->answer_is_zero = false;
    q->bytes = min_u64(align_up(q->bytes, align), asked);
}

/* By the loop only where that does not wait: for a disk, or for the lock of the inode. */
static int query_co(struct posix_state *s, struct extent_query *q)
{
    if (s->seek_inline && atomic_load_explicit(&s->space_ops, memory_order_relaxed) == 0) {
        return (int)query_run(q);
    }
    return (int)aio_worker_co(query_run, q);
}

int posix_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                          struct bdrv_status *ret_status)
{
    struct posix_state *s = bdrv_opaque(bs);
    struct extent_query q = {
        .fd = s->fd,
        .size_unit = bdrv_size_unit(bs),
        .offset = offset,
        .bytes = bytes,
    };

    if (want_zero && s->kind == POSIX_FILE) {
        int rc = query_co(s, &q);

        if (rc < 0) {
            return rc;
        }
        query_align(&q, bytes, s->offset_align);
    }
    *ret_status = (struct bdrv_status){
        .flags = BDRV_BLOCK_OFFSET_VALID | (q.answer_is_zero ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA),
        .bytes = q.bytes,
        .map = offset,
        .file = bs,
    };
    return 0;
}

struct copy_job {
    int fd_in;
    int fd_out;
    uint32_t size_unit; /* of the source */
    uint64_t offset_in;
    uint64_t offset_out;
    uint64_t bytes;
};

static int64_t copy_run(void *arg)
{
    struct copy_job *job = arg;
    int interrupted = 0;

    while (job->bytes > 0) {
        int64_t n = os->copy_file_range(job->fd_in, job->offset_in, job->fd_out, job->offset_out,
                                        min_u64(job->bytes, COPY_PIECE_BYTES));

        if (n == -EINTR && interrupted++ < INTERRUPTED_MAX) {
            continue;
        }
        if (n == 0 && job->bytes < job->size_unit) {
            return -EINVAL; /* the rest of the last sector is not in the file */
        }
        if (n <= 0) {
            return n < 0 ? n : -EIO; /* 0: the source ends here, it was cut */
        }
        job->offset_in += (uint64_t)n;
        job->offset_out += (uint64_t)n;
        job->bytes -= (uint64_t)n;
    }
    return 0;
}

int posix_copy_range_co(BlockDriverState *src, uint64_t src_offset, BlockDriverState *dst,
                        uint64_t dst_offset, uint64_t bytes, unsigned write_flags)
{
    struct posix_state *in = bdrv_opaque(src), *out = bdrv_opaque(dst);
    struct copy_job job = {in->fd, out->fd, bdrv_size_unit(src), src_offset, dst_offset, bytes};
    int rc;

    if (atomic_load_explicit(&out->no_copy_range, memory_order_relaxed)) {
        return -ENOTSUP;
    }
    atomic_fetch_add_explicit(&out->space_ops, 1, memory_order_relaxed);
    rc = (int)aio_worker_co(copy_run, &job);
    atomic_fetch_sub_explicit(&out->space_ops, 1, memory_order_relaxed);
    switch (rc) {
    case -ENOSYS:
    case -EOPNOTSUPP:
        atomic_store_explicit(&out->no_copy_range, true, memory_order_relaxed);
        return -ENOTSUP;
    case -EXDEV: /* these two files; or this range: the caller copies by itself */
    case -EINVAL:
    case -EBADF:
    case -ETXTBSY:
        return -ENOTSUP;
    case 0:
        return (write_flags & BDRV_REQ_FUA) != 0 ? posix_flush_co(dst) : 0;
    default:
        return rc;
    }
}
