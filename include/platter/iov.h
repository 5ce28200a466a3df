/* SPDX-License-Identifier: MIT */
/*
 * A borrowed scatter list. The seed calls it QEMUIOVector; here nobody owns or grows it: the
 * array and the memory stay the caller's, untouched by us as an array, until the request that
 * was given the list has completed.
 */
#ifndef PLATTER_IOV_H
#define PLATTER_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct iov_view {
    const struct iovec *iov; /* niov elements; NULL only when niov is 0 */
    size_t niov;
    uint64_t bytes; /* the sum of all iov_len; kept right by whoever fills the view */
};

/* A view over niov elements; counts the bytes. */
struct iov_view iov_view_of(const struct iovec *iov, size_t niov);

#ifdef __cplusplus
}
#endif
#endif
