/* SPDX-License-Identifier: MIT */
/* What simulated files tell about themselves: stat and its kin, flags, locks, device ioctls. */
#include "os/sim/sim_world.h"

#include <errno.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#define SIM_DEV makedev(250, 7)

static void fill_stat(const struct sim_file *file, struct stat *st)
{
    *st = (struct stat){
        .st_dev = SIM_DEV,
        .st_ino = file->ino,
        .st_mode = (file->opts.block_device ? S_IFBLK : S_IFREG) | 0644,
        .st_nlink = file->path != 0,
        .st_rdev = file->opts.block_device ? makedev(251, (unsigned)file->ino) : 0,
        .st_size = file->opts.block_device ? 0 : (off_t)sim_disk_size(file->disk),
        .st_blksize = 4096,
        .st_blocks = (blkcnt_t)(sim_disk_data_bytes(file->disk) / 512),
    };
}

static int sim_fstat(int fd, struct stat *ret_st)
{
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->fstat(fd, ret_st);
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_STAT, fd, 0, 0);
    if (rc < 0) {
        return rc;
    }
    fill_stat(call.ofd->file, ret_st);
    sim_call_end(&call);
    return 0;
}

static int sim_stat(const char *path, struct stat *ret_st)
{
    struct sim_file *file;
    struct sim_call_state call;
    int rc;

    if (!sim_is_path(path)) {
        return sim_base()->stat(path, ret_st);
    }
    rc = sim_call_begin(&call, SIM_CALL_STAT, 0, 0);
    if (rc < 0) {
        return rc;
    }
    file = sim_file_find(call.world, path);
    if (file) {
        fill_stat(file, ret_st);
    }
    sim_call_end(&call);
    return file ? 0 : -ENOENT;
}

static int sim_statx(int fd, unsigned mask, struct statx *ret_stx)
{
    struct stat st;
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->statx(fd, mask, ret_stx);
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_STAT, fd, 0, 0);
    if (rc < 0) {
        return rc;
    }
    fill_stat(call.ofd->file, &st);
    memset(ret_stx, 0, sizeof(*ret_stx));
    ret_stx->stx_mask = mask & STATX_BASIC_STATS;
    ret_stx->stx_blksize = (uint32_t)st.st_blksize;
    ret_stx->stx_mode = (uint16_t)st.st_mode;
    ret_stx->stx_ino = st.st_ino;
    ret_stx->stx_size = (uint64_t)st.st_size;
    ret_stx->stx_blocks = (uint64_t)st.st_blocks;
#ifdef STATX_DIOALIGN
    if ((mask & STATX_DIOALIGN) && call.ofd->file->opts.dio_offset_align) {
        ret_stx->stx_mask |= STATX_DIOALIGN;
        ret_stx->stx_dio_mem_align = call.ofd->file->opts.dio_mem_align;
        ret_stx->stx_dio_offset_align = call.ofd->file->opts.dio_offset_align;
    }
#endif
    sim_call_end(&call);
    return 0;
}

static int sim_fstatfs(int fd, struct statfs *ret_sfs)
{
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->fstatfs(fd, ret_sfs);
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_STAT, fd, 0, 0);
    if (rc < 0) {
        return rc;
    }
    memset(ret_sfs, 0, sizeof(*ret_sfs));
    ret_sfs->f_type = EXT4_SUPER_MAGIC;
    ret_sfs->f_bsize = 4096;
    sim_call_end(&call);
    return 0;
}

static int sim_fcntl_getfl(int fd)
{
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->fcntl_getfl(fd);
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_FCNTL, fd, 0, 0);
    if (rc < 0) {
        return rc;
    }
    rc = call.ofd->flags;
    sim_call_end(&call);
    return rc;
}

static int sim_fcntl_setfl(int fd, int flags)
{
    const int changeable = O_APPEND | O_DIRECT | O_NOATIME | O_NONBLOCK;
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->fcntl_setfl(fd, flags);
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_FCNTL, fd, 0, 0);
    if (rc < 0) {
        return rc;
    }
    call.ofd->flags = (call.ofd->flags & ~changeable) | (flags & changeable);
    sim_call_end(&call);
    return 0;
}

static int sim_lock(int fd, int cmd, struct flock *lock)
{
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->lock(fd, cmd, lock);
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_LOCK, fd, 0, 0);
    if (rc < 0) {
        return rc;
    }
    if (cmd == F_OFD_SETLK) {
        rc = sim_locks_set(call.ofd, lock);
    } else {
        rc = cmd == F_OFD_GETLK ? sim_locks_get(call.ofd, lock) : -EINVAL;
    }
    sim_call_end(&call);
    return rc;
}

static int ioctl_range(struct sim_call_state *call, const uint64_t *range)
{
    struct sim_file *file = call->ofd->file;
    uint64_t size = sim_disk_size(file->disk);
    int rc;

    if (!sim_may_write(call->ofd)) {
        return -EBADF;
    }
    if (range[0] % 512 != 0 || range[1] % 512 != 0 || range[0] > size ||
        range[1] > size - range[0]) {
        return -EINVAL;
    }
    rc = sim_disk_zero(file->disk, range[0], range[1]);
    sim_call_changed(call, file);
    return rc;
}

static int ioctl_locked(struct sim_call_state *call, unsigned long request, void *arg)
{
    const struct sim_file_options *opts = &call->ofd->file->opts;

    if (!opts->block_device) {
        return -ENOTTY;
    }
    switch (request) {
    case BLKGETSIZE64:
        *(uint64_t *)arg = sim_disk_size(call->ofd->file->disk);
        return 0;
    case BLKSSZGET:
    case BLKPBSZGET:
        *(int *)arg = opts->dio_offset_align ? (int)opts->dio_offset_align : 512;
        return 0;
    case BLKDISCARD:
    case BLKZEROOUT:
        return ioctl_range(call, arg);
    default:
        return -ENOTTY;
    }
}

static int sim_ioctl(int fd, unsigned long request, void *arg)
{
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->ioctl(fd, request, arg);
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_IOCTL, fd, 0, 0);
    if (rc < 0) {
        return rc;
    }
    rc = ioctl_locked(&call, request, arg);
    sim_call_end(&call);
    return rc;
}

static int sim_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return sim_is_fd(fd) ? -EPERM : sim_base()->epoll_ctl(epfd, op, fd, event);
}

void sim_os_fact_members(struct os_table *table)
{
    table->fstat = sim_fstat;
    table->stat = sim_stat;
    table->statx = sim_statx;
    table->fstatfs = sim_fstatfs;
    table->fcntl_getfl = sim_fcntl_getfl;
    table->fcntl_setfl = sim_fcntl_setfl;
    table->lock = sim_lock;
    table->ioctl = sim_ioctl;
    table->epoll_ctl = sim_epoll_ctl;
}
