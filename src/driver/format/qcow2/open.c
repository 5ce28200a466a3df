/* SPDX-License-Identifier: MIT */
/*
 * From a file to a node and back: what is judged and loaded at open, what the first write needs to
 * have been done, and what close leaves in the file.
 *
 * Invariants
 *  O1 a table is read only after its place and length were checked against the limits and the real
 *     size of the file (q2_header_parse), so a header cannot make us read or allocate more.
 *  O2 a node that can be written has no unknown autoclear bits in its file, no corrupt bit, and
 *     refcounts that are right: what is needed for that is done here, before the open returns.
 *  O3 under BDRV_O_CHECK nothing is mended or cleared: the check sees what is there.
 *
 * Encryption will plug in where s->data is chosen: a crypt_method with a key that fits will give
 * guest clusters a cipher between the mapping and the data file.
 */
#include <errno.h>
#include <inttypes.h>

#include <platter/aio.h>

#include "util/error.h"
#include "util/options.h"

#include "bitmap.h"
#include "check.h"
#include "driver.h"
#include "l1.h"
#include "overlap.h"
#include "qcow2.h"
#include "snapshot.h"

#define NS_PER_SECOND INT64_C(1000000000)

static bool for_check(const struct qcow2 *s)
{
    return (bdrv_open_flags(s->bs) & BDRV_O_CHECK) != 0;
}

static bool looks_only(const struct qcow2 *s)
{
    return (bdrv_open_flags(s->bs) & BDRV_O_NO_IO) != 0;
}

/* ---- the parts of the state ---- */

static void state_init(struct qcow2 *s, BlockDriverState *bs)
{
    s->bs = bs;
    co_mutex_init(&s->header_lock);
    q2_inflight_init(&s->inflight);
    q2_ranges_init(&s->ranges);
    q2_reach_init(s);
    q2_free_init(s);
    q2_commit_init(s);
    co_turns_init(&s->turns);
    q2_packers_init(&s->packers);
}

/* All of it, however far it was built. No I/O. */
static void state_fini(struct qcow2 *s)
{
    aio_timer_free(s->clean_timer);
    s->clean_timer = NULL;
    q2_bitmaps_fini(s);
    q2_inflight_fini(&s->inflight);
    q2_overlap_fini(s);
    q2_snapshots_fini(s);
    q2_l2_fini(s);
    q2_l1_free(s);
    q2_refcounts_fini(s);
    q2_free_fini(s);
    q2_reach_fini(s);
    q2_ranges_fini(&s->ranges);
    q2_packers_fini(&s->packers);
    q2_header_fini(&s->header);
}

/* ---- the header ---- */

static int header_parse(struct qcow2 *s, const uint8_t *buf, size_t bytes, uint64_t file_bytes,
                        Error **errp)
{
    int rc = q2_header_parse(buf, bytes, for_check(s) ? UINT64_MAX : file_bytes, &s->header, errp);

    if (rc < 0) {
        return rc;
    }
    q2_geometry_init(&s->header, &s->geo);
    atomic_store(&s->disk_bytes, s->header.size_bytes);
    return 0;
}

static int header_read(struct qcow2 *s, Error **errp)
{
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    uint8_t head[Q2_HEADER_BYTES_V2] = {0}; /* null-co leaves a buffer as it is */
    size_t bytes, wants;
    uint8_t *buf;
    int rc;

    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "Could not tell the size of the image file");
    }
    bytes = (size_t)min_u64((uint64_t)file_bytes, sizeof(head));
    rc = bytes > 0 ? bdrv_edge_pread(s->file, 0, head, bytes) : 0;
    if (rc < 0) {
        return error_set_errno(errp, -rc, "Could not read qcow2 header");
    }
    wants = q2_header_wants(head, bytes);
    bytes = (size_t)min_u64((uint64_t)file_bytes, wants);
    buf = bdrv_buffer_alloc(s->bs, wants > 0 ? wants : 1);
    if (buf == NULL) {
        return error_set(errp, ENOMEM, "out of memory for the qcow2 header");
    }
    memset(buf, 0, wants > 0 ? wants : 1); /* as above */
    rc = bytes > 0 ? bdrv_edge_pread(s->file, 0, buf, bytes) : 0;
    rc = rc < 0 ? error_set_errno(errp, -rc, "Could not read qcow2 header")
                : header_parse(s, buf, bytes, (uint64_t)file_bytes, errp);
    bdrv_buffer_free(s->bs, buf, wants > 0 ? wants : 1);
    return rc;
}

/* What the header says against what the open is for. */
static int check_purpose(struct qcow2 *s, Error **errp)
{
    const struct q2_header *h = &s->header;

    if (h->crypt_method != Q2_CRYPT_NONE && !looks_only(s) && !for_check(s)) {
        return error_set(errp, ENOTSUP, "The image is encrypted (%s), which is not supported",
                         h->crypt_method == Q2_CRYPT_AES ? "AES" : "LUKS");
    }
    if ((h->autoclear & Q2_AUTOCLEAR_DATA_FILE_RAW) && !s->geo.external_data && !looks_only(s)) {
        return error_set(errp, EINVAL, "data-file-raw requires a data file");
    }
    if (h->reftable_clusters == 0 && !for_check(s)) {
        return error_set(errp, EINVAL, "Image does not contain a reference count table");
    }
    if (s->geo.data_file_raw && h->backing_file != NULL && !looks_only(s) && !for_check(s)) {
        return error_set(errp, EINVAL, "A raw data file and a backing file exclude each other");
    }
    return 0;
}

static int check_writable(struct qcow2 *s, int flags, Error **errp)
{
    static const char why[] = "qcow2: Image is corrupt; cannot be opened read/write";

    if (!(flags & BDRV_O_RDWR) || for_check(s) || !(s->header.incompatible & Q2_INCOMPAT_CORRUPT)) {
        return 0;
    }
    return bdrv_apply_auto_read_only(s->bs, why, errp);
}

/* ---- children ---- */

static int open_data_file(struct qcow2 *s, BlockOptions *options, Error **errp)
{
    BdrvEdge *edge = NULL;
    int rc;

    if (!s->geo.external_data) {
        if (block_options_has(options, "data-file") ||
            block_options_has_prefix(options, "data-file.")) {
            return error_set(errp, EINVAL,
                             "'data-file' can only be set for images with an external data file");
        }
        s->data = s->header.crypt_method == Q2_CRYPT_NONE ? s->file : NULL;
        return 0;
    }
    rc = bdrv_open_referenced(s->bs, options, "data-file", s->header.data_file, BDRV_ROLE_DATA,
                              &edge, errp);
    if (rc < 0) {
        return rc;
    }
    if (edge == NULL && !looks_only(s)) {
        return error_set(errp, EINVAL, "'data-file' is required for this image");
    }
    s->data = s->header.crypt_method == Q2_CRYPT_NONE ? edge : NULL;
    bdrv_set_caps(s->bs, bdrv_find_driver("qcow2")->caps & ~BDRV_CAP_COMPRESSED); /* all is raw */
    return 0;
}

static int open_children(struct qcow2 *s, BlockOptions *options, Error **errp)
{
    int rc = open_data_file(s, options, errp);

    if (rc < 0) {
        return rc;
    }
    return bdrv_open_backing(s->bs, options, s->header.backing_file, s->header.backing_format,
                             &s->backing, errp);
}

/* ---- tables ---- */

/* A refcount table that cannot be read is none, for a check. */
static int load_refcounts(struct qcow2 *s, Error **errp)
{
    uint32_t clusters = s->header.reftable_clusters;
    Error *err = NULL;
    int rc = q2_refcounts_load(s, &err);

    if (rc < 0 && rc != -ENOMEM && for_check(s)) {
        error_free(err);
        err = NULL;
        s->header.reftable_clusters = 0;
        rc = q2_refcounts_load(s, &err);
        s->header.reftable_clusters = clusters;
    }
    error_propagate(errp, err);
    return rc;
}

static int load_snapshots(struct qcow2 *s, Error **errp)
{
    Error *err = NULL;
    int rc = q2_snapshots_load(s, &err);

    if (rc < 0 && rc != -ENOMEM && for_check(s)) {
        error_free(err); /* the check reads it its own way */
        return 0;
    }
    error_propagate(errp, err);
    return rc;
}

static int load_tables(struct qcow2 *s, Error **errp)
{
    int rc = load_refcounts(s, errp);

    if (rc == 0) {
        rc = q2_l1_load(s, s->header.l1_offset, s->header.l1_entries, errp);
    }
    if (rc == 0) {
        rc = load_snapshots(s, errp);
    }
    if (rc < 0) {
        return rc;
    }
    rc = q2_l2_init(s);
    if (rc == 0) {
        rc = q2_overlap_init(s);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "Could not set up the image's metadata") : 0;
}

/* ---- before the first write (O2) ---- */

struct prepare_args {
    struct qcow2 *s;
    Error **errp;
};

/* Autoclear bits that somebody who does not know them may not leave set. */
static uint64_t autoclear_due(const struct qcow2 *s)
{
    uint64_t due = s->header.autoclear & ~(uint64_t)Q2_AUTOCLEAR_KNOWN;

    if (!s->header.has_bitmaps_ext) {
        due |= s->header.autoclear & Q2_AUTOCLEAR_BITMAPS; /* "an error"; it means nothing then */
    }
    return due;
}

static int prepare_writing_co(void *opaque)
{
    const struct prepare_args *args = opaque;
    struct qcow2 *s = args->s;
    int rc = q2_header_bits_co(s, 0, 0, autoclear_due(s));

    if (rc < 0) {
        return error_set_errno(args->errp, -rc, "Could not update the qcow2 header");
    }
    if (s->header.incompatible & Q2_INCOMPAT_DIRTY) {
        rc = q2_repair_dirty_co(s, args->errp);
        if (rc < 0) {
            error_prepend(args->errp, "Could not repair dirty image: ");
        }
    }
    return rc;
}

static int prepare_writing(struct qcow2 *s, Error **errp)
{
    struct prepare_args args = {.s = s, .errp = errp};

    if (!(bdrv_open_flags(s->bs) & BDRV_O_RDWR) || for_check(s)) {
        return 0;
    }
    return bdrv_run_co(prepare_writing_co, &args);
}

/* ---- the timer of the cache ---- */

void q2_clean_timer_arm(struct qcow2 *s)
{
    uint64_t seconds = s->opt.cache_clean_seconds;

    aio_timer_mod(s->clean_timer, aio_clock_ns() + (int64_t)seconds * NS_PER_SECOND);
}

static void clean_timer_fired(void *opaque)
{
    struct qcow2 *s = opaque;

    q2_l2_clean(s);
    q2_clean_timer_arm(s);
}

AioTimer *q2_clean_timer_new(struct qcow2 *s)
{
    return aio_timer_new(aio_context_current(), clean_timer_fired, s);
}

static int clean_timer_start(struct qcow2 *s, Error **errp)
{
    if (s->opt.cache_clean_seconds == 0) {
        return 0;
    }
    s->clean_timer = q2_clean_timer_new(s);
    if (s->clean_timer == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    q2_clean_timer_arm(s);
    return 0;
}

/* ---- open ---- */

static int open_image(struct qcow2 *s, BlockOptions *options, int flags, Error **errp)
{
    int rc = header_read(s, errp);

    if (rc == 0) {
        rc = check_purpose(s, errp);
    }
    if (rc == 0) {
        rc = check_writable(s, flags, errp);
    }
    if (rc == 0) {
        rc = q2_options_parse(options, &s->header, &s->geo, flags, &s->opt, errp);
    }
    if (rc == 0) {
        rc = open_children(s, options, errp);
    }
    if (rc == 0) {
        rc = load_tables(s, errp);
    }
    if (rc == 0) {
        rc = prepare_writing(s, errp);
    }
    if (rc == 0) {
        rc = q2_bitmaps_open(s, errp);
    }
    return rc == 0 ? clean_timer_start(s, errp) : rc;
}

/* What is to be written needs a file that can be. */
static int file_writable(struct qcow2 *s, int flags, Error **errp)
{
    if (!(flags & BDRV_O_RDWR) || !bdrv_is_read_only(bdrv_edge_node(s->file))) {
        return 0;
    }
    return bdrv_apply_auto_read_only(s->bs, "The image file is read-only", errp);
}

int q2_driver_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    int rc;

    s->file = bdrv_open_child(bs, NULL, options, "file",
                              BDRV_ROLE_DATA | BDRV_ROLE_METADATA | BDRV_ROLE_PRIMARY, false, errp);
    if (s->file == NULL) {
        return -EINVAL;
    }
    rc = file_writable(s, flags, errp);
    if (rc < 0) {
        return rc;
    }
    state_init(s, bs);
    rc = open_image(s, options, bdrv_open_flags(bs), errp);
    if (rc < 0) {
        state_fini(s);
    }
    return rc;
}

/* ---- close, and becoming read-only ---- */

/* Whether an image that was open for a check is clean is for the check to say (O3). */
static int commit_co(struct qcow2 *s)
{
    return for_check(s) ? q2_commit_co(s, true) : q2_commit_clean_co(s);
}

/* The file as a reader without our memory wants it. */
static int settle_co(void *opaque)
{
    const struct prepare_args *args = opaque;
    struct qcow2 *s = args->s;
    int rc = q2_bitmaps_store_co(s, args->errp);
    int commit;

    (void)q2_mend_co(s, NULL); /* what stays wrong, the dirty bit tells */
    commit = commit_co(s);

    if (commit == 0) {
        commit = q2_free_all_co(s);
    }
    if (commit == 0) {
        commit = commit_co(s);
    }
    if (rc == 0 && commit < 0) {
        rc = error_set_errno(args->errp, -commit, "Could not write the image's metadata");
    }
    return rc;
}

static int settle(struct qcow2 *s, Error **errp)
{
    struct prepare_args args = {.s = s, .errp = errp};

    return bdrv_run_co(settle_co, &args);
}

void q2_driver_close(BlockDriverState *bs)
{
    struct qcow2 *s = q2_of(bs);
    Error *err = NULL;

    if (!bdrv_is_read_only(bs) && bdrv_broken_reason(bs) == NULL &&
        !atomic_load(&s->corrupt_told) && settle(s, &err) < 0) {
        bdrv_mark_broken(bs, "%s",
                         err != NULL ? error_get_pretty(err) : "Could not close the image");
        error_free(err);
    }
    state_fini(s);
}

static int reopen_writable(struct qcow2 *s, Error **errp)
{
    if (s->snapshot_shown) {
        return error_set(errp, EACCES, "A snapshot is shown, which cannot be written");
    }
    if (s->header.incompatible & Q2_INCOMPAT_CORRUPT) {
        return error_set(errp, EACCES, "qcow2: Image is corrupt; cannot be opened read/write");
    }
    if ((s->header.incompatible & Q2_INCOMPAT_DIRTY) || autoclear_due(s) != 0) {
        /* nothing may be written before the change is certain, nor fail after it (O2) */
        error_set(errp, EACCES, "The image must be changed before it may be written to");
        error_set_hint(errp, "Close it, and open it for writing");
        return -EACCES;
    }
    return 0;
}

int q2_driver_reopen_prepare(BlockDriverState *bs, int new_flags, Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    bool writable = (new_flags & BDRV_O_RDWR) != 0;
    int rc = 0;

    if (writable == !bdrv_is_read_only(bs)) {
        return 0;
    }
    if (writable) {
        rc = reopen_writable(s, errp);
    }
    if (rc == 0) {
        rc = q2_bitmaps_reopen_prepare(s, new_flags, errp);
    }
    if (rc == 0 && !writable) {
        rc = settle(s, errp);
    }
    return rc;
}
