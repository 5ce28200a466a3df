/* SPDX-License-Identifier: MIT */
/* Scatter lists. offset and bytes count within the list's memory; a range must lie inside it. */
#ifndef PLATTER_UTIL_IOV_H
#define PLATTER_UTIL_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <platter/iov.h>

uint64_t iov_bytes(const struct iovec *iov, size_t niov);
void iov_to_buf(const struct iovec *iov, size_t niov, uint64_t offset, void *buf, size_t bytes);
void iov_from_buf(const struct iovec *iov, size_t niov, uint64_t offset, const void *buf,
                  size_t bytes);
void iov_fill(const struct iovec *iov, size_t niov, uint64_t offset, int byte, uint64_t bytes);
bool iov_is_zero(const struct iovec *iov, size_t niov, uint64_t offset, uint64_t bytes);
/* Whether every piece of the range begins and ends at a multiple of align (power of two). */
bool iov_is_aligned(const struct iovec *iov, size_t niov, uint64_t offset, uint64_t bytes,
                    size_t align);
/* How many elements the range touches. */
size_t iov_count(const struct iovec *iov, size_t niov, uint64_t offset, uint64_t bytes);
/* Write the range as elements of its own to out (room for max). Returns the elements used and
 * *ret_bytes, the bytes they cover (less than asked when max was too small). */
size_t iov_slice(const struct iovec *iov, size_t niov, uint64_t offset, uint64_t bytes,
                 struct iovec *out, size_t max, uint64_t *ret_bytes);
/* Drop the first bytes of a list in place; returns the elements left, moved to the front. */
size_t iov_consume(struct iovec *iov, size_t niov, uint64_t bytes);

/* Whether a buffer is all zero; fast. */
bool buffer_is_zero(const void *buf, size_t bytes);

#endif
