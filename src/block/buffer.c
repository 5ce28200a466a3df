/* SPDX-License-Identifier: MIT */
/* Memory for I/O: aligned as the node wishes, charged to the instance's budget. */
#include <assert.h>
#include <stdlib.h>

#include "block/node.h"
#include "util/budget.h"
#include "util/checked.h"

static size_t buffer_alignment(const BlockDriverState *bs)
{
    uint64_t align = max_u64(bs->bl.mem_alignment, bs->bl.opt_mem_alignment);

    return (size_t)max_u64(align, sizeof(void *));
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
