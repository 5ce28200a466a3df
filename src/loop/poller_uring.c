/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "loop/internal.h"

const struct poller poller_uring = {0};
int ring_open(AioContext *ctx)
{
    return -ENOSYS;
}
void aio_context_leave_thread(AioContext *ctx)
{
}
