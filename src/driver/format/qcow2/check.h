/* SPDX-License-Identifier: MIT */
/* Check and repair. check_int.h is what their files share. */
#ifndef PLATTER_QCOW2_CHECK_H
#define PLATTER_QCOW2_CHECK_H

#include "block/driver.h"

struct qcow2;

int q2_check_co(struct qcow2 *s, const struct bdrv_check_options *options,
                struct bdrv_check_result *ret_result, Error **errp);
/* Rebuild refcounts and flags of an image whose dirty bit is set. Drained. */
int q2_repair_dirty_co(struct qcow2 *s, Error **errp);

#endif
