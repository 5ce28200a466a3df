/* SPDX-License-Identifier: MIT */
/* What the files of the Linux table share; nobody else includes this. */
#ifndef PLATTER_OS_LINUX_H
#define PLATTER_OS_LINUX_H

#include <errno.h>
#include <stdint.h>

#include "os/os.h"

/* The C library's -1 and errno as one number. */
static inline int64_t sys_result(int64_t rc)
{
    return rc < 0 ? -(int64_t)errno : rc;
}

/* files: os_linux_file.c */
int linux_open(const char *path, int flags, mode_t mode);
int linux_close(int fd);
int linux_dup(int fd);
int64_t linux_preadv(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf);
int64_t linux_pwritev(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf);
int linux_fdatasync(int fd);
int linux_ftruncate(int fd, uint64_t size_bytes);
int linux_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes);
int64_t linux_lseek(int fd, int64_t offset, int whence);
int64_t linux_copy_file_range(int fd_in, uint64_t off_in, int fd_out, uint64_t off_out,
                              uint64_t bytes);
int linux_fstat(int fd, struct stat *ret_st);
int linux_stat(const char *path, struct stat *ret_st);
int linux_statx(int fd, unsigned mask, struct statx *ret_stx);
int linux_fstatfs(int fd, struct statfs *ret_sfs);
int linux_fcntl_getfl(int fd);
int linux_fcntl_setfl(int fd, int flags);
int linux_lock(int fd, int cmd, struct flock *lock);
int linux_ioctl(int fd, unsigned long request, void *arg);
int linux_unlink(const char *path);
int linux_fchmod(int fd, mode_t mode);
int64_t linux_readlink(const char *path, char *buf, size_t size);
int linux_dir_each(const char *path, bool (*each)(void *opaque, const char *name), void *opaque);
int64_t linux_read(int fd, void *buf, size_t bytes);
int64_t linux_write(int fd, const void *buf, size_t bytes);

/* sockets: os_linux_socket.c */
int linux_socket(int domain, int type, int protocol);
int linux_bind(int fd, const struct sockaddr *addr, socklen_t len);
int linux_listen(int fd, int backlog);
int linux_accept(int fd, struct sockaddr *addr, socklen_t *len);
int linux_connect(int fd, const struct sockaddr *addr, socklen_t len);
int64_t linux_recvmsg(int fd, struct msghdr *msg, int flags);
int64_t linux_sendmsg(int fd, const struct msghdr *msg, int flags);
int linux_shutdown(int fd, int how);
int linux_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int linux_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int linux_getsockname(int fd, struct sockaddr *addr, socklen_t *len);

#endif
