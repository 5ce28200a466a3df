/* SPDX-License-Identifier: MIT */
/* What the fake drivers share. */
#ifndef PLATTER_TEST_FAKE_INT_H
#define PLATTER_TEST_FAKE_INT_H

#include "fake.h"

extern const BlockDriver bdrv_fake_img;

int fake_one_child_open(BlockDriverState *bs, BlockOptions *options, unsigned role, Error **errp);
void fake_close(BlockDriverState *bs);
int64_t fake_getlength(BlockDriverState *bs);
int fake_forward_co(BlockDriverState *bs, const struct bdrv_req *req);

#endif
