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

/* What an operation that failed left wrong (q2_stays_stale) is put right, if the storage lets it: a
 * check and repair; nothing where nothing is. Drained, between operations: references that one of
 * them holds only in memory would be taken away. 0, or -errno with errp: it stays as it is. */
int q2_mend_co(struct qcow2 *s, Error **errp);

#endif
