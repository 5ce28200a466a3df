/* SPDX-License-Identifier: MIT */
/*
 * Amending: options of an image that can be changed after its creation.
 *
 * All that is asked for is judged before anything changes. Then, each step durable before the next
 * one: version 2 becomes 3, refcount width, lazy refcounts, data file, size, and last version 3
 * becomes 2. A failure leaves the steps before it done and the image right.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"
#include "util/options.h"

#include "amend.h"
#include "check.h"
#include "resize.h"
#include "tree.h"

/* What is asked for. */
struct amend {
    unsigned version;
    bool has_size;
    uint64_t size_bytes;
    unsigned refcount_order;
    bool lazy_refcounts;
    bool data_file_raw;
    bool has_data_file;
    char *data_file; /* owned; NULL or "": none is named */
};

static const struct block_options_enum compat_names[] = {
    {"0.10", 2}, {"v2", 2}, {"1.1", 3}, {"v3", 3}, {NULL, 0}};

/* ---- parsing ---- */

static int take_compat(const struct qcow2 *s, BlockOptions *o, struct amend *a, Error **errp)
{
    char *text = NULL;
    int rc = block_options_take_str(o, "compat", &text, errp);

    a->version = s->geo.version;
    if (rc <= 0) {
        return rc;
    }
    rc = -EINVAL;
    for (size_t i = 0; compat_names[i].name != NULL; i++) {
        if (strcmp(text, compat_names[i].name) == 0) {
            a->version = (unsigned)compat_names[i].value;
            rc = 0;
        }
    }
    if (rc < 0) {
        error_set(errp, EINVAL, "Unknown compatibility level %s", text);
    }
    free(text);
    return rc;
}

static int take_refcount_bits(const struct qcow2 *s, BlockOptions *o, struct amend *a, Error **errp)
{
    uint64_t bits = s->geo.refcount_bits;
    int rc = block_options_take_uint(o, "refcount_bits", 0, UINT64_MAX, &bits, errp);

    if (rc < 0) {
        return rc;
    }
    if (!is_pow2(bits) || bits > 1 << Q2_REFCOUNT_ORDER_MAX) {
        return error_set(errp, EINVAL,
                         "Refcount width must be a power of two and may not exceed 64 bits");
    }
    a->refcount_order = (unsigned)__builtin_ctzll(bits);
    return 0;
}

/* The option may only say what the image says. */
static int check_same(BlockOptions *o, const char *key, const char *is, Error **errp)
{
    char *text = NULL;
    int rc = block_options_take_str(o, key, &text, errp);
    bool same = rc <= 0 || strcmp(text, is != NULL ? is : "") == 0;

    free(text);
    if (same) {
        return rc < 0 ? rc : 0;
    }
    rc = error_set(errp, EINVAL, "Cannot amend the backing file");
    error_set_hint(errp, "You can use 'rebase' instead");
    error_add_compat_hint(errp, "You can use 'qemu-img rebase' instead.");
    return rc;
}

static int take_data_file(const struct qcow2 *s, BlockOptions *o, struct amend *a, Error **errp)
{
    int rc = block_options_take_str(o, "data_file", &a->data_file, errp);

    if (rc < 0) {
        return rc;
    }
    a->has_data_file = rc > 0;
    if (a->has_data_file && !s->geo.external_data) {
        return error_set(errp, EINVAL,
                         "data-file can only be set for images that use an external data file");
    }
    if (a->has_data_file && strlen(a->data_file) > Q2_DATA_FILE_NAME_BYTES_MAX) {
        return error_set(errp, EINVAL, "the name of the data file is longer than %d bytes",
                         Q2_DATA_FILE_NAME_BYTES_MAX);
    }
    a->data_file_raw = s->geo.data_file_raw;
    rc = block_options_take_bool(o, "data_file_raw", &a->data_file_raw, errp);
    if (rc < 0) {
        return rc;
    }
    if (a->data_file_raw && !s->geo.data_file_raw) {
        return error_set(errp, EINVAL, "data-file-raw cannot be set on existing images");
    }
    return 0;
}

static int refuse_rest(BlockOptions *o, Error **errp)
{
    if (block_options_has_prefix(o, "encrypt.")) {
        return error_set(errp, ENOTSUP, "Can't amend encryption options - encryption not present");
    }
    return block_options_refuse_rest(o, "amending format 'qcow2'", errp);
}

static int parse(const struct qcow2 *s, BlockOptions *o, struct amend *a, Error **errp)
{
    int rc = take_compat(s, o, a, errp);

    if (rc < 0) {
        return rc;
    }
    rc = block_options_take_size(o, "size", 0, INT64_MAX, &a->size_bytes, errp);
    if (rc < 0) {
        return rc;
    }
    a->has_size = rc > 0 && a->size_bytes > 0; /* 0 leaves the size, as by the reference */
    rc = take_data_file(s, o, a, errp);
    rc = rc == 0 ? take_refcount_bits(s, o, a, errp) : rc;
    rc = rc == 0 ? check_same(o, "backing_file", s->header.backing_file, errp) : rc;
    rc = rc == 0 ? check_same(o, "backing_fmt", s->header.backing_format, errp) : rc;
    if (rc < 0) {
        return rc;
    }
    /* version 2 has none; to ask for it there is an error, to have had it is not */
    a->lazy_refcounts = (s->header.compatible & Q2_COMPAT_LAZY_REFCOUNTS) && a->version >= 3;
    rc = block_options_take_bool(o, "lazy_refcounts", &a->lazy_refcounts, errp);
    return rc < 0 ? rc : refuse_rest(o, errp);
}

/* ---- judging ---- */

static int judge_downgrade(const struct qcow2 *s, const struct amend *a, Error **errp)
{
    uint64_t beyond = s->header.incompatible & ~(uint64_t)Q2_INCOMPAT_DIRTY;

    if (s->geo.external_data) {
        return error_set(errp, ENOTSUP, "Cannot downgrade an image with a data file");
    }
    if (beyond != 0) {
        return error_set(errp, ENOTSUP,
                         "Cannot downgrade an image with incompatible features 0x%" PRIx64 " set",
                         beyond);
    }
    if (s->header.has_bitmaps_ext) {
        return error_set(errp, ENOTSUP, "Cannot downgrade an image with bitmaps");
    }
    if (a->refcount_order != 4) {
        return error_set(errp, EINVAL, "compat=0.10 requires refcount_bits=16");
    }
    return 0;
}

static int judge(const struct qcow2 *s, const struct amend *a, Error **errp)
{
    bool is_changed = a->refcount_order != s->geo.refcount_order;

    if (is_changed && a->refcount_order != 4 && a->version < 3) {
        return error_set(errp, EINVAL,
                         "Refcount widths other than 16 bits require compatibility level 1.1 or "
                         "above (use compat=1.1 or greater)");
    }
    if (a->lazy_refcounts && a->version < 3) {
        return error_set(errp, EINVAL,
                         "Lazy refcounts only supported with compatibility level 1.1 and above "
                         "(use compat=1.1 or greater)");
    }
    return a->version < s->geo.version ? judge_downgrade(s, a, errp) : 0;
}

/* ---- doing ---- */

/* The fields of the header that amending changes, but for names, sizes and places. */
struct fields {
    uint32_t version;
    uint64_t incompatible;
    uint64_t compatible;
    uint64_t autoclear;
    uint32_t refcount_order;
};

static struct fields fields_get(const struct q2_header *h)
{
    return (struct fields){h->version, h->incompatible, h->compatible, h->autoclear,
                           h->refcount_order};
}

static void fields_set(struct q2_header *h, const struct fields *f)
{
    h->version = f->version;
    h->incompatible = f->incompatible;
    h->compatible = f->compatible;
    h->autoclear = f->autoclear;
    h->refcount_order = f->refcount_order;
}

static int write_fields(struct qcow2 *s, const struct fields *to, Error **errp)
{
    struct fields was = fields_get(&s->header);
    int rc;

    fields_set(&s->header, to);
    rc = q2_header_write_co(s, errp);
    if (rc < 0) {
        fields_set(&s->header, &was);
        return rc;
    }
    q2_geometry_init(&s->header, &s->geo);
    return 0;
}

static int upgrade(struct qcow2 *s, const struct amend *a, Error **errp)
{
    struct fields f = fields_get(&s->header);

    if (a->version <= s->geo.version) {
        return 0;
    }
    f.version = a->version;
    f.incompatible = f.compatible = f.autoclear = 0;
    return write_fields(s, &f, errp);
}

/* Refcounts that were postponed, and the dirty bit, which warned of that, goes. */
static int write_refcounts(struct qcow2 *s, Error **errp)
{
    int rc = q2_commit_clean_co(s);

    return rc < 0 ? error_set_errno(errp, -rc, "cannot write the refcounts") : 0;
}

/* Refcounts that were postponed are written before the image says that they never are. */
static int set_lazy_refcounts(struct qcow2 *s, const struct amend *a, Error **errp)
{
    bool is = (s->header.compatible & Q2_COMPAT_LAZY_REFCOUNTS) != 0;
    struct fields f;
    int rc;

    if (is == a->lazy_refcounts) {
        return 0;
    }
    rc = is ? write_refcounts(s, errp) : 0;
    if (rc < 0) {
        return rc;
    }
    f = fields_get(&s->header);
    f.compatible ^= Q2_COMPAT_LAZY_REFCOUNTS;
    rc = write_fields(s, &f, errp);
    s->opt.lazy_refcounts = s->opt.lazy_refcounts && (rc < 0 || !is);
    return rc;
}

static int set_data_file(struct qcow2 *s, struct amend *a, Error **errp)
{
    struct fields f = fields_get(&s->header);
    char *was = s->header.data_file;
    int rc;

    if (!a->has_data_file && a->data_file_raw == s->geo.data_file_raw) {
        return 0;
    }
    if (!a->data_file_raw) {
        f.autoclear &= ~(uint64_t)Q2_AUTOCLEAR_DATA_FILE_RAW;
    }
    if (a->has_data_file) {
        s->header.data_file = a->data_file[0] != '\0' ? a->data_file : NULL;
    }
    rc = write_fields(s, &f, errp);
    if (rc < 0) {
        s->header.data_file = was;
    } else if (a->has_data_file) {
        if (s->header.data_file != NULL) {
            a->data_file = NULL; /* the header's now */
        }
        free(was);
    }
    return rc;
}

static int downgrade(struct qcow2 *s, const struct amend *a, const struct bdrv_progress *progress,
                     Error **errp)
{
    struct fields f;
    int rc;

    if (a->version >= s->geo.version) {
        return 0;
    }
    rc = q2_amend_expand_zeroes_co(s, progress, errp);
    rc = rc == 0 ? q2_settle_co(s, errp) : rc;
    rc = rc == 0 ? write_refcounts(s, errp) : rc;
    if (rc < 0) {
        return rc;
    }
    f = fields_get(&s->header);
    f.version = a->version;
    f.incompatible = f.compatible = f.autoclear = 0;
    rc = write_fields(s, &f, errp);
    s->opt.lazy_refcounts = s->opt.lazy_refcounts && rc < 0;
    return rc;
}

static int amend(struct qcow2 *s, struct amend *a, const struct bdrv_progress *progress,
                 Error **errp)
{
    int rc = q2_settle_co(s, errp);

    rc = rc == 0 ? upgrade(s, a, errp) : rc;
    rc = rc == 0 ? q2_amend_refcount_co(s, a->refcount_order, progress, errp) : rc;
    rc = rc == 0 ? set_lazy_refcounts(s, a, errp) : rc;
    rc = rc == 0 ? set_data_file(s, a, errp) : rc;
    if (rc == 0 && a->has_size) {
        rc = q2_resize_co(s, a->size_bytes, BDRV_PREALLOC_OFF, errp);
    }
    return rc == 0 ? downgrade(s, a, progress, errp) : rc;
}

int q2_amend_co(BlockDriverState *bs, BlockOptions *options, bool force,
                const struct bdrv_progress *progress, Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    struct amend a = {0};
    int rc = parse(s, options, &a, errp);

    rc = rc == 0 ? judge(s, &a, errp) : rc;
    (void)q2_mend_co(s, NULL);
    if (rc == 0) {
        rc = amend(s, &a, progress, errp);
        q2_stays_stale(s, rc);
        (void)q2_mend_co(s, NULL);
    }
    free(a.data_file);
    return rc;
}
