/* SPDX-License-Identifier: MIT */
/*
 * Whole transfers over the os table: go on after short ones and -EINTR. Blocking; for worker
 * threads and control calls.
 */
#ifndef PLATTER_OS_FULL_H
#define PLATTER_OS_FULL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Read until all of the list is filled or end of file; returns the bytes read or -errno. */
int64_t os_preadv_full(int fd, const struct iovec *iov, int niov, uint64_t offset);
/* Write all of the list; returns 0 or -errno (-ENOSPC when the system accepts nothing). rwf:
 * RWF_DSYNC or 0. */
int os_pwritev_full(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf);

/*
 * Of what is no file: pipes, terminals, sockets. These wait also where the descriptor does not
 * block, which whoever else has it may have said at any time.
 */
/* Bytes read, at least one; 0 at the end; or -errno. */
int64_t os_read_wait(int fd, void *buf, size_t bytes);
/* Write all of it; returns 0 or -errno. */
int os_write_wait(int fd, const void *buf, size_t bytes);

#endif
