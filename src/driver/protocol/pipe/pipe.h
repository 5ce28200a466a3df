/* SPDX-License-Identifier: MIT */
/* The driver "pipe" for those that lead a source through one. */
#ifndef PLATTER_DRIVER_PIPE_H
#define PLATTER_DRIVER_PIPE_H

#include <stdbool.h>
#include <stdint.h>

#include "block/driver.h"

/* Of the node of a pipe: whether these bytes could be read once *pos (or as much as has by now) had
 * gone through; *pos goes on to where that would be then. Coroutine. */
bool pipe_could_read_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes, uint64_t *pos);

#endif
