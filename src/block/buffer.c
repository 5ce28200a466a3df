/* SPDX-License-Identifier: MIT */
/*
 * Memory for I/O: aligned as the node needs it, charged to the instance's budget.
 *
 * Not as the node wishes (opt_mem_alignment): what begins at a page leaves a hole before it that
 * the next small block takes, and then no two of these make a larger one again. The tables and
 * compressed clusters of a qcow2 took a fifth of a command's memory that way.
 */
#include <assert.h>
#include <stdlib.h>

#include "block/node.h"
#include "util/budget.h"
#include "util/checked.h"

static size_t buffer_alignment(const BlockDriverState *bs)
{
    return max_u64(bs->bl.mem_alignment, sizeof(void *));
}

void *bdrv_buffer_alloc(BlockDriverState *bs, size_t bytes)
{
    struct mem_budget *budget = bdrv_budget(bs);
    void *buf = NULL;

    if (!mem_budget_take(budget, bytes)) {
        return NULL;
    }
    if (posix_memalign(&buf, buffer_alignment(bs), bytes != 0 ? bytes : 1) != 0) {
        mem_budget_give(budget, bytes);
        return NULL;
    }
    return buf;
}

void bdrv_buffer_free(BlockDriverState *bs, void *buf, size_t bytes)
{
    if (buf == NULL) {
        return;
    }
    free(buf);
    mem_budget_give(bdrv_budget(bs), bytes);
}
