/* SPDX-License-Identifier: MIT */
/*
 * Whole transfers over the os table: go on after short ones and -EINTR. Blocking; for worker
 * threads and control calls.
 */
#ifndef PLATTER_OS_FULL_H
#define PLATTER_OS_FULL_H

#include <stdint.h>
#include <sys/uio.h>

/* Read until all of the list is filled or end of file; returns the bytes read or -errno. */
int64_t os_preadv_full(int fd, const struct iovec *iov, int niov, uint64_t offset);
/* Write all of the list; returns 0 or -errno (-ENOSPC when the system accepts nothing). rwf:
 * RWF_DSYNC or 0. */
int os_pwritev_full(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf);

#endif
