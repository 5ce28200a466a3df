/* SPDX-License-Identifier: MIT */
/*
 * Files of the Linux table. Offsets and lengths that the kernel's signed type cannot hold are
 * -EINVAL here, before they could turn negative.
 */
#include "os/os_linux.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

static inline bool fits_off(uint64_t v)
{
    return v <= INT64_MAX;
}

int linux_open(const char *path, int flags, mode_t mode)
{
    return (int)sys_result(open(path, flags | O_CLOEXEC | O_NOCTTY, mode));
}

int linux_close(int fd)
{
    int rc = (int)sys_result(close(fd));

    /* The descriptor is gone already when close is interrupted; closing again would hit another */
    return rc == -EINTR ? 0 : rc;
}

int linux_dup(int fd)
{
    return (int)sys_result(fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

int64_t linux_preadv(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    if (!fits_off(offset)) {
        return -EINVAL;
    }
    return sys_result(preadv2(fd, iov, niov, (off_t)offset, rwf));
}

int64_t linux_pwritev(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    if (!fits_off(offset)) {
        return -EINVAL;
    }
    return sys_result(pwritev2(fd, iov, niov, (off_t)offset, rwf));
}

int linux_fdatasync(int fd)
{
    return (int)sys_result(fdatasync(fd));
}

int linux_ftruncate(int fd, uint64_t size_bytes)
{
    if (!fits_off(size_bytes)) {
        return -EFBIG;
    }
    return (int)sys_result(ftruncate(fd, (off_t)size_bytes));
}

int linux_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    if (!fits_off(offset) || !fits_off(bytes)) {
        return -EINVAL;
    }
    return (int)sys_result(fallocate(fd, mode, (off_t)offset, (off_t)bytes));
}

int64_t linux_lseek(int fd, int64_t offset, int whence)
{
    return sys_result(lseek(fd, (off_t)offset, whence));
}

int64_t linux_copy_file_range(int fd_in, uint64_t off_in, int fd_out, uint64_t off_out,
                              uint64_t bytes)
{
    off_t in = (off_t)off_in;
    off_t out = (off_t)off_out;
    size_t len = bytes > SSIZE_MAX ? SSIZE_MAX : (size_t)bytes;

    if (!fits_off(off_in) || !fits_off(off_out)) {
        return -EINVAL;
    }
    return sys_result(copy_file_range(fd_in, &in, fd_out, &out, len, 0));
}

int linux_fstat(int fd, struct stat *ret_st)
{
    return (int)sys_result(fstat(fd, ret_st));
}

int linux_stat(const char *path, struct stat *ret_st)
{
    return (int)sys_result(stat(path, ret_st));
}

int linux_statx(int fd, unsigned mask, struct statx *ret_stx)
{
    return (int)sys_result(statx(fd, "", AT_EMPTY_PATH, mask, ret_stx));
}

int linux_fstatfs(int fd, struct statfs *ret_sfs)
{
    return (int)sys_result(fstatfs(fd, ret_sfs));
}

int linux_fcntl_getfl(int fd)
{
    return (int)sys_result(fcntl(fd, F_GETFL));
}

int linux_fcntl_setfl(int fd, int flags)
{
    return (int)sys_result(fcntl(fd, F_SETFL, flags));
}

int linux_lock(int fd, int cmd, struct flock *lock)
{
    return (int)sys_result(fcntl(fd, cmd, lock));
}

int linux_ioctl(int fd, unsigned long request, void *arg)
{
    return (int)sys_result(ioctl(fd, request, arg));
}

int linux_fchmod(int fd, mode_t mode)
{
    return (int)sys_result(fchmod(fd, mode));
}

int linux_unlink(const char *path)
{
    return (int)sys_result(unlink(path));
}

int64_t linux_readlink(const char *path, char *buf, size_t size)
{
    return sys_result(readlink(path, buf, size));
}

int linux_dir_each(const char *path, bool (*each)(void *opaque, const char *name), void *opaque)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    int rc;

    if (dir == NULL) {
        return -errno;
    }
    while (errno = 0, (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            !each(opaque, entry->d_name)) {
            errno = 0;
            break;
        }
    }
    rc = -errno; /* a folder that cannot be read to its end is no shorter one */
    closedir(dir);
    return rc;
}

int64_t linux_read(int fd, void *buf, size_t bytes)
{
    return sys_result(read(fd, buf, bytes));
}

int64_t linux_write(int fd, const void *buf, size_t bytes)
{
    return sys_result(write(fd, buf, bytes));
}
