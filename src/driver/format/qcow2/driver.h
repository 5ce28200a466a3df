/* SPDX-License-Identifier: MIT */
/* What driver.c puts into its tables, where no header of the subject has it. */
#ifndef PLATTER_QCOW2_DRIVER_H
#define PLATTER_QCOW2_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include <platter/aio.h>

#include "block/driver.h"

struct qcow2;

/* ---- open.c, create.c, measure.c, info.c, inspect.c ---- */

int q2_driver_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp);
void q2_driver_close(BlockDriverState *bs);
int q2_driver_reopen_prepare(BlockDriverState *bs, int new_flags, Error **errp);

/* ---- reopen.c ---- */
int q2_driver_reopen_options(BlockDriverState *bs, BlockOptions *options, int new_flags,
                             Error **errp);
void q2_driver_reopen_commit(BlockDriverState *bs);
void q2_driver_reopen_abort(BlockDriverState *bs);
/* Of open.c: the timer of the L2 cache. NULL: no memory. */
AioTimer *q2_clean_timer_new(struct qcow2 *s);
void q2_clean_timer_arm(struct qcow2 *s);

int q2_driver_create(Platter *pl, const char *filename, BlockOptions *options, Error **errp);
int q2_driver_measure(Platter *pl, BlockOptions *options, BlockDriverState *source,
                      struct bdrv_measure_result *ret_result, Error **errp);
int q2_driver_stream_head(BlockOptions *options, const struct bdrv_stream_layout *layout,
                          uint32_t *ret_unit_bytes, Error **errp); /* stream.c */
json_t *q2_driver_specific_info(BlockDriverState *bs);
json_t *q2_driver_inspect(BdrvEdge *file, Error **errp);

/* ---- read.c, write.c, zero.c, status.c, vmstate.c: the data calls ---- */

/* As block/driver.h has them. They enter and leave. */
int q2_driver_read_co(BlockDriverState *bs, const struct bdrv_req *req);
int q2_driver_write_co(BlockDriverState *bs, const struct bdrv_req *req);
int q2_driver_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                              unsigned flags);
int q2_driver_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes);
int q2_driver_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                              struct bdrv_status *ret_status);
/* req->offset: within the VM state, which begins at q2_vmstate_offset of the disk. */
int q2_driver_save_vmstate_co(BlockDriverState *bs, const struct bdrv_req *req);
int q2_driver_load_vmstate_co(BlockDriverState *bs, const struct bdrv_req *req);
uint64_t q2_vmstate_offset(struct qcow2 *s);

/* ---- check.c, resize.c, backing.c ---- */

int q2_driver_check_co(BlockDriverState *bs, const struct bdrv_check_options *options,
                       struct bdrv_check_result *ret_result, Error **errp); /* bdrv_image_ops */
/* BlockDriver.truncate_co. Coroutine, outside. */
int q2_driver_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                          enum bdrv_prealloc prealloc, unsigned flags, Error **errp);
int q2_change_backing_file_co(BlockDriverState *bs, const char *backing_file,
                              const char *backing_format, Error **errp);
int q2_make_empty_co(BlockDriverState *bs, Error **errp);

#endif
