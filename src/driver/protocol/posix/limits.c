/* SPDX-License-Identifier: MIT */
/*
 * What the kernel says of a file or device: alignment of direct I/O (asked by statx, else found by
 * reading), block sizes, size, space used.
 */
#include <errno.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "os/os.h"
#include "posix.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/mem.h"

#define ALIGN_SAFE 4096 /* when nothing can be found out */
#define ALIGN_MAX (1u << 20)
#define PROBE_BYTES (2 * ALIGN_SAFE)
#define TRANSFER_MAX (UINT64_C(1) << 30)
#define HUGETLBFS_TYPE 0x958458f6

static const uint32_t align_candidates[] = {1, 512, 1024, 2048, 4096};

static bool align_valid(uint64_t align)
{
    return is_pow2(align) && align <= ALIGN_MAX;
}

enum posix_storage posix_storage(int fd)
{
    struct statfs sfs;

    if (os->fstatfs(fd, &sfs) < 0) {
        return POSIX_STORAGE_ANY;
    }
    switch ((unsigned long)sfs.f_type) {
    case TMPFS_MAGIC:
    case RAMFS_MAGIC:
    case HUGETLBFS_TYPE:
        return POSIX_STORAGE_MEMORY;
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
        return POSIX_STORAGE_LOCAL;
    default:
        return POSIX_STORAGE_ANY;
    }
}

/* By statx: false where kernel or file system do not tell. */
static bool ask_alignment(struct posix_state *s)
{
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (os->statx(s->fd, STATX_DIOALIGN, &stx) == 0 && (stx.stx_mask & STATX_DIOALIGN) != 0 &&
        align_valid(stx.stx_dio_mem_align) && align_valid(stx.stx_dio_offset_align)) {
        s->mem_align = stx.stx_dio_mem_align;
        s->offset_align = stx.stx_dio_offset_align;
        return true;
    }
#endif
    return false;
}

static bool can_read(int fd, uint8_t *buf, size_t bytes, uint64_t offset)
{
    struct iovec iov = {buf, bytes};

    return os->preadv(fd, &iov, 1, offset, 0) >= 0;
}

/* By reading with ever larger alignments until the kernel agrees. A file that is too short to tell
 * gets what works everywhere. */
static int probe_alignment(struct posix_state *s, uint64_t size_bytes)
{
    uint8_t *buf;
    size_t i;

    s->offset_align = s->mem_align = ALIGN_SAFE;
    if (size_bytes < PROBE_BYTES) {
        return 0;
    }
    if (posix_memalign((void **)&buf, ALIGN_SAFE, PROBE_BYTES) != 0) {
        return -ENOMEM;
    }
    for (i = 0; i < ARRAY_SIZE(align_candidates); i++) {
        if (can_read(s->fd, buf, align_candidates[i], align_candidates[i])) {
            s->offset_align = align_candidates[i];
            break;
        }
    }
    for (i = 0; i < ARRAY_SIZE(align_candidates); i++) {
        if (can_read(s->fd, buf + align_candidates[i] % ALIGN_SAFE, s->offset_align, 0)) {
            s->mem_align = align_candidates[i];
            break;
        }
    }
    free(buf);
    return 0;
}

int posix_probe_limits(struct posix_state *s, Error **errp)
{
    struct stat st;
    int rc, logical = 0;

    s->offset_align = s->mem_align = s->block_bytes = 1;
    rc = os->fstat(s->fd, &st);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "Could not look at '%s'", s->filename);
    }
    s->is_char = S_ISCHR(st.st_mode);
    if (s->is_char) {
        return 0; /* nothing is transferred */
    }
    if (s->kind == POSIX_DEVICE) {
        rc = os->ioctl(s->fd, BLKSSZGET, &logical);
        if (rc < 0) {
            return error_set_errno(errp, -rc, "Could not tell the block size of '%s'", s->filename);
        }
        s->block_bytes = logical > 0 && align_valid((unsigned)logical) ? (uint32_t)logical : 512;
    }
    if (!s->direct) {
        return 0;
    }
    if (!ask_alignment(s)) {
        rc = probe_alignment(s, s->kind == POSIX_DEVICE ? UINT64_MAX : (uint64_t)st.st_size);
        if (rc < 0) {
            return error_set_errno(errp, -rc, "Could not find the alignment of '%s'", s->filename);
        }
    }
    if (s->offset_align < s->block_bytes) {
        s->offset_align = s->block_bytes;
    }
    return 0;
}

void posix_refresh_limits(BlockDriverState *bs, struct bdrv_limits *limits)
{
    const struct posix_state *s = bdrv_opaque(bs);
    uint32_t space_align = s->offset_align > s->block_bytes ? s->offset_align : s->block_bytes;

    limits->request_alignment = s->offset_align;
    limits->mem_alignment = s->mem_align;
    limits->opt_mem_alignment = s->mem_align > ALIGN_SAFE ? s->mem_align : ALIGN_SAFE;
    if (s->direct && s->kind == POSIX_FILE) {
        limits->eof_alignment = (uint32_t)sysconf(_SC_PAGESIZE); /* of the kernel's page cache */
    }
    limits->max_iov = IOV_MAX;
    limits->max_transfer = TRANSFER_MAX;
    limits->pwrite_zeroes_alignment = space_align;
    limits->pdiscard_alignment = space_align;
}

bool posix_get_file_id(BlockDriverState *bs, struct bdrv_file_id *ret_id)
{
    const struct posix_state *s = bdrv_opaque(bs);
    struct stat st;

    if (os->fstat(s->fd, &st) < 0) {
        return false;
    }
    *ret_id = (struct bdrv_file_id){
        .dev = S_ISBLK(st.st_mode) ? 0 : st.st_dev,
        .ino = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_ino,
    };
    return true;
}

int64_t posix_getlength(BlockDriverState *bs)
{
    const struct posix_state *s = bdrv_opaque(bs);
    struct stat st;
    uint64_t bytes = 0;
    int rc;

    if (s->is_char) {
        return os->lseek(s->fd, 0, SEEK_END);
    }
    if (s->kind == POSIX_DEVICE) {
        rc = os->ioctl(s->fd, BLKGETSIZE64, &bytes);
        /* What is left over after the last whole block cannot be read or written by anybody. */
        bytes = align_down(bytes, s->block_bytes);
    } else {
        rc = os->fstat(s->fd, &st);
        bytes = rc == 0 ? (uint64_t)st.st_size : 0;
    }
    if (rc < 0) {
        return rc;
    }
    return bytes <= INT64_MAX ? (int64_t)bytes : -EFBIG;
}

/* No clusters, never dirty: said, so that "info" can say it. */
int posix_get_info(BlockDriverState *bs, struct bdrv_info *ret_info)
{
    *ret_info = (struct bdrv_info){0};
    return 0;
}

int64_t posix_get_allocated_file_size(BlockDriverState *bs)
{
    const struct posix_state *s = bdrv_opaque(bs);
    struct stat st;
    int rc = os->fstat(s->fd, &st);

    return rc < 0 ? rc : (int64_t)st.st_blocks * 512;
}

int posix_probe_blocksizes(BlockDriverState *bs, struct bdrv_block_sizes *ret_sizes)
{
    const struct posix_state *s = bdrv_opaque(bs);
    unsigned phys = 0;
    int rc = os->ioctl(s->fd, BLKPBSZGET, &phys);

    if (rc < 0) {
        return rc;
    }
    *ret_sizes = (struct bdrv_block_sizes){.phys = phys, .log = s->block_bytes};
    return 0;
}
