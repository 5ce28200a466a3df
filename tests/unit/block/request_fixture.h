/* SPDX-License-Identifier: MIT */
/* A node without a graph, anew for each test, and requests at its door. */
#ifndef PLATTER_TEST_REQUEST_FIXTURE_H
#define PLATTER_TEST_REQUEST_FIXTURE_H

#include "cmocka_all.h"

#include "block/request.h"
#include "fake_node.h"

#define NODE_BYTES UINT64_C(65536)

static struct fake_node node;
static uint8_t buf[NODE_BYTES];

static inline int setup(void **state)
{
    fake_instance_init();
    fake_node_init(&node, &fake_pl, NODE_BYTES);
    fake_guarded = 0;
    fake_guard_answer = 0;
    memset(buf, 0x5a, sizeof(buf));
    return 0;
}

static inline int teardown(void **state)
{
    fake_node_fini(&node);
    fake_instance_fini();
    return 0;
}

static inline int rd(uint64_t offset, uint64_t bytes, unsigned flags)
{
    return fake_rw(&node.edge, BDRV_OP_READ, offset, buf, bytes, flags);
}
static inline int wr(uint64_t offset, uint64_t bytes, unsigned flags)
{
    return fake_rw(&node.edge, BDRV_OP_WRITE, offset, buf, bytes, flags);
}
static inline int zero(uint64_t offset, uint64_t bytes, unsigned flags)
{
    return fake_request(&node.edge, BDRV_OP_WRITE_ZEROES, offset, bytes, flags);
}
static inline int discard(uint64_t offset, uint64_t bytes)
{
    return fake_request(&node.edge, BDRV_OP_DISCARD, offset, bytes, 0);
}
static inline int flush(void)
{
    return fake_request(&node.edge, BDRV_OP_FLUSH, 0, 0, 0);
}

#endif
