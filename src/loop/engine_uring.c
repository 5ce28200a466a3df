/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "loop/internal.h"

int64_t ring_file_co(AioContext *ctx, const struct aio_file_io *io)
{
    return -ENOSYS;
}
int64_t ring_recv_co(AioContext *ctx, int fd, struct iovec *iov, int niov)
{
    return -ENOSYS;
}
int ring_send_co(AioContext *ctx, int fd, struct iovec *iov, int niov, int flags)
{
    return -ENOSYS;
}
void ring_sock_cancel(AioContext *ctx, int fd)
{
}
