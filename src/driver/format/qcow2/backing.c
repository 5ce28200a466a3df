/* SPDX-License-Identifier: MIT */
/* What an image says of its backing file, and making an overlay empty again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

#include "driver.h"
#include "entry.h"
#include "l1.h"
#include "overlap.h"
#include "qcow2.h"
#include "resize.h"
#include "tree.h"

static int check_names(const struct qcow2 *s, const char *backing_file, const char *backing_format,
                       Error **errp)
{
    if (backing_file != NULL && s->geo.data_file_raw) {
        return error_set(errp, EINVAL,
                         "a raw external data file and a backing file exclude each other");
    }
    if (backing_file != NULL && strlen(backing_file) > Q2_BACKING_NAME_BYTES_MAX) {
        return error_set(errp, EINVAL, "the name of the backing file is longer than %d bytes",
                         Q2_BACKING_NAME_BYTES_MAX);
    }
    if (backing_format != NULL && strlen(backing_format) > Q2_BACKING_FORMAT_BYTES_MAX) {
        return error_set(errp, EINVAL, "the format of the backing file is longer than %d bytes",
                         Q2_BACKING_FORMAT_BYTES_MAX);
    }
    return 0;
}

static int copy_name(const char *name, char **ret)
{
    *ret = name != NULL ? strdup(name) : NULL;
    return name != NULL && *ret == NULL ? -ENOMEM : 0;
}

int q2_change_backing_file_co(BlockDriverState *bs, const char *backing_file,
                              const char *backing_format, Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    char *old_file = s->header.backing_file;
    char *old_format = s->header.backing_format;
    char *file = NULL;
    char *format = NULL;
    int rc;

    if (backing_file != NULL && backing_file[0] == '\0') {
        backing_file = NULL;
    }
    if (backing_file == NULL || (backing_format != NULL && backing_format[0] == '\0')) {
        backing_format = NULL;
    }
    rc = check_names(s, backing_file, backing_format, errp);
    if (rc < 0) {
        return rc;
    }
    if (copy_name(backing_file, &file) < 0 || copy_name(backing_format, &format) < 0) {
        free(file);
        return error_set(errp, ENOMEM, "out of memory");
    }
    s->header.backing_file = file;
    s->header.backing_format = format;
    rc = q2_header_write_co(s, errp);
    if (rc < 0) {
        s->header.backing_file = old_file;
        s->header.backing_format = old_format;
        free(file);
        free(format);
        return rc;
    }
    free(old_file);
    free(old_format);
    return 0;
}

/* The L1 table becomes empty, durably; then nothing refers to what it referred to (W4), and the
 * file ends behind what is left. A cut of power in between leaves clusters that nobody uses, or an
 * overlay of which a part is still there: it reads the same. */
int q2_make_empty_co(BlockDriverState *bs, Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    uint32_t entries = q2_l1_get(s)->entries;
    uint64_t *l1;
    int rc;

    bdrv_debug_event(s->file, BLKDBG_EMPTY_IMAGE_PREPARE);
    rc = q2_settle_co(s, errp);
    rc = rc == 0 ? q2_l1_copy_active(s, &l1, errp) : rc;
    if (rc < 0) {
        return rc;
    }
    for (uint32_t i = 0; i < entries; i++) {
        if (l1[i] != 0) {
            q2_l1_set(s, i, 0);
            q2_overlap_del(s, Q2_OL_ACTIVE_L2, q2_l1_table(l1[i]));
        }
    }
    rc = q2_settle_co(s, errp);
    if (rc == 0) {
        q2_l2_drop_all(s);
        rc = q2_tree_unref_co(s, l1, entries, Q2_DISCARD_OTHER, errp);
    }
    if (rc == 0 && !s->geo.external_data && s->snapshot_count == 0) {
        q2_file_trim_co(s);
    }
    q2_l1_copy_free(s, l1, entries);
    return rc;
}
