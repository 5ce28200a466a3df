/* SPDX-License-Identifier: MIT */
/*
 * Data, size and space of simulated files. Each call: count it and ask the rules, let its delay
 * pass, then do it under the world's lock.
 */
#include "os/sim/sim_world.h"

#include <errno.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPY_BYTES_MAX (1u << 20)
#define TRANSFER_BYTES_MAX (UINT64_C(0x7ffff000)) /* as the kernel's */

static int list_bytes(const struct iovec *iov, int niov, uint64_t *ret_bytes)
{
    uint64_t sum = 0;

    if (niov < 0 || niov > IOV_MAX) {
        return -EINVAL;
    }
    for (int i = 0; i < niov; i++) {
        sum += iov[i].iov_len;
    }
    *ret_bytes = sum < TRANSFER_BYTES_MAX ? sum : TRANSFER_BYTES_MAX;
    return 0;
}

/* What O_DIRECT asks of the caller. */
static int check_direct(const struct sim_ofd *ofd, const struct iovec *iov, int niov,
                        uint64_t offset)
{
    const struct sim_file_options *opts = &ofd->file->opts;

    if (!(ofd->flags & O_DIRECT) || !opts->dio_offset_align) {
        return 0;
    }
    if (offset % opts->dio_offset_align != 0) {
        return -EINVAL;
    }
    for (int i = 0; i < niov; i++) {
        if (iov[i].iov_len % opts->dio_offset_align != 0 ||
            (opts->dio_mem_align && (uintptr_t)iov[i].iov_base % opts->dio_mem_align != 0)) {
            return -EINVAL;
        }
    }
    return 0;
}

/* What a transfer moves under the verdict; direct I/O only comes short by whole blocks. */
static uint64_t verdict_bytes(const struct sim_call_state *call, uint64_t bytes)
{
    uint32_t align = call->ofd->file->opts.dio_offset_align;
    uint64_t n = sim_verdict_bytes(&call->verdict, bytes);

    if (!(call->ofd->flags & O_DIRECT) || !align || n == bytes) {
        return n;
    }
    return n < align ? bytes : n / align * align;
}

static int64_t read_locked(struct sim_call_state *call, const struct iovec *iov, int niov,
                           uint64_t offset, uint64_t bytes)
{
    struct sim_disk *disk = call->ofd->file->disk;
    uint64_t size = sim_disk_size(disk);
    uint64_t done = 0;
    int rc = check_direct(call->ofd, iov, niov, offset);

    if ((call->ofd->flags & O_ACCMODE) == O_WRONLY) {
        return -EBADF;
    }
    if (rc < 0 || offset >= size) {
        return rc;
    }
    bytes = verdict_bytes(call, bytes < size - offset ? bytes : size - offset);
    for (int i = 0; i < niov && done < bytes; i++) {
        uint64_t n = iov[i].iov_len < bytes - done ? iov[i].iov_len : bytes - done;

        sim_disk_read(disk, offset + done, iov[i].iov_base, (size_t)n);
        done += n;
    }
    return (int64_t)done;
}

static int64_t sim_preadv(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    struct sim_call_state call;
    uint64_t bytes;
    int64_t rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->preadv(fd, iov, niov, offset, rwf);
    }
    rc = offset > INT64_MAX ? -EINVAL : list_bytes(iov, niov, &bytes);
    if (rc == 0) {
        rc = sim_call_begin_fd(&call, SIM_CALL_READ, fd, offset, bytes);
    }
    if (rc < 0) {
        return rc;
    }
    rc = read_locked(&call, iov, niov, offset, bytes);
    sim_call_end(&call);
    return rc;
}

/* Whether the blocks that a write would newly fill still fit. */
static bool fits_capacity(const struct sim_file *file, uint64_t offset, uint64_t bytes)
{
    uint64_t need = sim_disk_data_bytes(file->disk);

    if (!file->opts.capacity_bytes) {
        return true;
    }
    for (uint64_t at = offset / 4096 * 4096; at < offset + bytes; at += 4096) {
        bool is_data = at < sim_disk_size(file->disk) && sim_disk_next(file->disk, at, true) == at;

        need += is_data ? 0 : 4096;
    }
    return need <= file->opts.capacity_bytes;
}

/* How much of a write the file takes. */
static int64_t write_room(struct sim_call_state *call, uint64_t offset, uint64_t bytes)
{
    struct sim_file *file = call->ofd->file;
    uint64_t size = sim_disk_size(file->disk);

    bytes = verdict_bytes(call, bytes);
    if (file->opts.block_device) {
        if (offset >= size) {
            return bytes ? -ENOSPC : 0;
        }
        bytes = bytes < size - offset ? bytes : size - offset;
    }
    if (bytes > (uint64_t)INT64_MAX - offset) {
        return -EFBIG;
    }
    return fits_capacity(file, offset, bytes) ? (int64_t)bytes : -ENOSPC;
}

/* One write of the disk whatever the list: pieces would tear apart. */
static int64_t write_locked(struct sim_call_state *call, const struct iovec *iov, int niov,
                            uint64_t offset, uint64_t bytes, int rwf)
{
    struct sim_file *file = call->ofd->file;
    bool fua = (rwf & (RWF_DSYNC | RWF_SYNC)) || (call->ofd->flags & O_DSYNC);
    int64_t room = write_room(call, offset, bytes);
    uint64_t done = 0;
    uint8_t *buf;
    int rc;

    if (room <= 0) {
        return room;
    }
    buf = malloc((size_t)room);
    if (!buf) {
        return -ENOMEM;
    }
    for (int i = 0; i < niov && done < (uint64_t)room; i++) {
        uint64_t n = (uint64_t)room - done;

        n = iov[i].iov_len < n ? iov[i].iov_len : n;
        memcpy(buf + done, iov[i].iov_base, (size_t)n);
        done += n;
    }
    rc = sim_disk_write(file->disk, offset, buf, (size_t)done, fua);
    free(buf);
    sim_call_changed(call, file);
    return rc < 0 ? rc : (int64_t)done;
}

static int64_t sim_pwritev(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    struct sim_call_state call;
    uint64_t bytes;
    int64_t rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->pwritev(fd, iov, niov, offset, rwf);
    }
    rc = offset > INT64_MAX ? -EINVAL : list_bytes(iov, niov, &bytes);
    if (rc == 0) {
        rc = sim_call_begin_fd(&call, SIM_CALL_WRITE, fd, offset, bytes);
    }
    if (rc < 0) {
        return rc;
    }
    rc = sim_may_write(call.ofd) ? check_direct(call.ofd, iov, niov, offset) : -EBADF;
    if (rc == 0) {
        rc = write_locked(&call, iov, niov, offset, bytes, rwf);
    }
    sim_call_end(&call);
    return rc;
}

static int sim_fdatasync(int fd)
{
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->fdatasync(fd);
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_SYNC, fd, 0, 0);
    if (rc < 0) {
        return rc;
    }
    if (call.verdict.error) {
        sim_disk_lose_pending(call.ofd->file->disk);
        rc = -call.verdict.error;
    } else {
        rc = sim_disk_flush(call.ofd->file->disk);
        sim_call_changed(&call, call.ofd->file);
    }
    sim_call_end(&call);
    return rc;
}

/* ---- size and space ---- */

static int sim_ftruncate(int fd, uint64_t size_bytes)
{
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->ftruncate(fd, size_bytes);
    }
    rc = size_bytes > INT64_MAX ? -EFBIG : sim_call_begin_fd(&call, SIM_CALL_TRUNCATE, fd, 0, 0);
    if (rc < 0) {
        return rc;
    }
    if (!sim_may_write(call.ofd) || call.ofd->file->opts.block_device) {
        rc = -EINVAL;
    } else {
        rc = sim_disk_truncate(call.ofd->file->disk, size_bytes);
        sim_call_changed(&call, call.ofd->file);
    }
    sim_call_end(&call);
    return rc;
}

static int fallocate_locked(struct sim_call_state *call, int mode, uint64_t offset, uint64_t bytes)
{
    struct sim_file *file = call->ofd->file;
    uint64_t size = sim_disk_size(file->disk);
    uint64_t end = offset + bytes;
    int rc = 0;

    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case FALLOC_FL_PUNCH_HOLE:
        if (!(mode & FALLOC_FL_KEEP_SIZE)) {
            return -EOPNOTSUPP;
        }
        break;
    case FALLOC_FL_ZERO_RANGE:
    case 0:
        break;
    default:
        return -EOPNOTSUPP;
    }
    if (file->opts.block_device && end > size) {
        return mode & FALLOC_FL_KEEP_SIZE ? -EINVAL : -ENOSPC;
    }
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && offset < size) {
        rc = sim_disk_zero(file->disk, offset, (end < size ? end : size) - offset);
    }
    if (rc == 0 && !(mode & FALLOC_FL_KEEP_SIZE) && end > size) {
        rc = sim_disk_truncate(file->disk, end);
    }
    sim_call_changed(call, file);
    return rc;
}

static int sim_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    struct sim_call_state call;
    int rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->fallocate(fd, mode, offset, bytes);
    }
    if (bytes == 0 || offset > INT64_MAX || bytes > INT64_MAX) {
        return -EINVAL;
    }
    if (bytes > (uint64_t)INT64_MAX - offset) {
        return -EFBIG;
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_FALLOCATE, fd, offset, bytes);
    if (rc < 0) {
        return rc;
    }
    rc = sim_may_write(call.ofd) ? fallocate_locked(&call, mode, offset, bytes) : -EBADF;
    sim_call_end(&call);
    return rc;
}

static int64_t lseek_locked(const struct sim_disk *disk, int64_t offset, int whence)
{
    uint64_t size = sim_disk_size(disk);
    uint64_t at;

    switch (whence) {
    case SEEK_SET:
        return offset < 0 ? -EINVAL : offset;
    case SEEK_END:
        return (int64_t)size + offset;
    case SEEK_DATA:
    case SEEK_HOLE:
        if (offset < 0 || (uint64_t)offset >= size) {
            return -ENXIO;
        }
        at = sim_disk_next(disk, (uint64_t)offset, whence == SEEK_DATA);
        return whence == SEEK_DATA && at == size ? -ENXIO : (int64_t)at;
    default:
        return -EINVAL;
    }
}

static int64_t sim_lseek(int fd, int64_t offset, int whence)
{
    struct sim_call_state call;
    int64_t rc;

    if (!sim_is_fd(fd)) {
        return sim_base()->lseek(fd, offset, whence);
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_LSEEK, fd, (uint64_t)offset, 1);
    if (rc < 0) {
        return rc;
    }
    if (call.ofd->file->opts.block_device && (whence == SEEK_DATA || whence == SEEK_HOLE)) {
        rc = whence == SEEK_DATA ? offset : (int64_t)sim_disk_size(call.ofd->file->disk);
    } else {
        rc = lseek_locked(call.ofd->file->disk, offset, whence);
    }
    sim_call_end(&call);
    return rc;
}

static int64_t copy_locked(struct sim_call_state *call, struct sim_ofd *in, uint64_t off_in,
                           uint64_t off_out, uint64_t bytes)
{
    struct sim_disk *from = in->file->disk;
    uint64_t size = sim_disk_size(from);
    struct iovec iov;
    int64_t rc;

    if (off_in >= size || bytes == 0) {
        return 0;
    }
    bytes = bytes < size - off_in ? bytes : size - off_in;
    if (in->file == call->ofd->file && off_in < off_out + bytes && off_out < off_in + bytes) {
        return -EINVAL;
    }
    bytes = bytes < COPY_BYTES_MAX ? bytes : COPY_BYTES_MAX;
    iov = (struct iovec){.iov_base = malloc((size_t)bytes), .iov_len = (size_t)bytes};
    if (!iov.iov_base) {
        return -ENOMEM;
    }
    sim_disk_read(from, off_in, iov.iov_base, (size_t)bytes);
    rc = write_locked(call, &iov, 1, off_out, bytes, 0);
    free(iov.iov_base);
    return rc;
}

static int64_t sim_copy_file_range(int fd_in, uint64_t off_in, int fd_out, uint64_t off_out,
                                   uint64_t bytes)
{
    struct sim_ofd *in;
    struct sim_call_state call;
    int64_t rc;

    if (!sim_is_fd(fd_in) && !sim_is_fd(fd_out)) {
        return sim_base()->copy_file_range(fd_in, off_in, fd_out, off_out, bytes);
    }
    if (!sim_is_fd(fd_in) || !sim_is_fd(fd_out)) {
        return -EXDEV;
    }
    if (off_in > INT64_MAX || off_out > INT64_MAX) {
        return -EINVAL;
    }
    rc = sim_call_begin_fd(&call, SIM_CALL_COPY, fd_out, off_out, bytes);
    if (rc < 0) {
        return rc;
    }
    in = sim_fd_get(call.world, fd_in);
    if (!in || !sim_may_write(call.ofd)) {
        rc = -EBADF;
    } else if (in->file->opts.block_device || call.ofd->file->opts.block_device) {
        rc = -EINVAL;
    } else {
        rc = copy_locked(&call, in, off_in, off_out, bytes);
    }
    sim_call_end(&call);
    return rc;
}

static int64_t sim_read(int fd, void *buf, size_t bytes)
{
    return sim_is_fd(fd) ? -EINVAL : sim_base()->read(fd, buf, bytes);
}

static int64_t sim_write(int fd, const void *buf, size_t bytes)
{
    return sim_is_fd(fd) ? -EINVAL : sim_base()->write(fd, buf, bytes);
}

void sim_os_data_members(struct os_table *table)
{
    table->preadv = sim_preadv;
    table->pwritev = sim_pwritev;
    table->fdatasync = sim_fdatasync;
    table->ftruncate = sim_ftruncate;
    table->fallocate = sim_fallocate;
    table->lseek = sim_lseek;
    table->copy_file_range = sim_copy_file_range;
    table->read = sim_read;
    table->write = sim_write;
}
