/* SPDX-License-Identifier: MIT */
/*
 * raw: the child's bytes as they are, or a window of them (offset, size). Without a window the node
 * is folded away (BDRV_CAP_PASSTHROUGH) and costs a request nothing.
 *
 * Invariant: offset + size never exceeds INT64_MAX, and at open not the child's size.
 */
#include <errno.h>
#include <inttypes.h>

#include "block/driver.h"
#include "schema/opts.h"
#include "util/checked.h"
#include "util/error.h"

#define RAW_SIZE_UNIT 512

struct raw_window {
    uint64_t offset;
    uint64_t size_bytes; /* when has_size */
    bool has_size;
};

/* Set at open and by reopen, drained. */
struct raw_state {
    struct raw_window window;
    struct raw_window next; /* when has_next: of a reopen under way */
    bool has_next;
};

#define RAW_CAPS                                                                                   \
    (BDRV_CAP_FORMAT | BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA | BDRV_CAP_ZERO_UNMAP |                    \
     BDRV_CAP_ZERO_NO_FALLBACK | BDRV_CAP_ZERO_PARTS | BDRV_CAP_TRUNCATE_ZEROES)

static int raw_probe(const uint8_t *buf, size_t len, const char *filename)
{
    return 1; /* any bytes may be a raw disk, and nothing says they are */
}

static int raw_check_window(const struct raw_window *s, uint64_t file_bytes, Error **errp)
{
    const uint64_t shown_bytes = (file_bytes + 511) / 512 * 512; /* as clients know sizes */

    if (s->offset > file_bytes) {
        return error_set(errp, EINVAL,
                         "Offset (%" PRIu64 ") cannot be greater than size of the containing file "
                         "(%" PRIu64 ")",
                         s->offset, shown_bytes);
    }
    if (s->has_size && s->size_bytes > file_bytes - s->offset) {
        return error_set(errp, EINVAL,
                         "The sum of offset (%" PRIu64 ") and size (%" PRIu64
                         ") has to be smaller or equal to the  actual size of the containing file "
                         "(%" PRIu64 ")",
                         s->offset, s->size_bytes, shown_bytes);
    }
    if (s->has_size && s->size_bytes % RAW_SIZE_UNIT != 0) {
        return error_set(errp, EINVAL, "Specified size is not multiple of %d", RAW_SIZE_UNIT);
    }
    return 0;
}

static int raw_parse(BlockOptions *options, struct raw_window *ret, Error **errp)
{
    struct opts_node_raw opts;
    int rc = opts_node_raw_parse(options, &opts, errp);

    if (rc < 0) {
        return rc;
    }
    *ret = (struct raw_window){
        .offset = opts.offset, .has_size = opts.has_size, .size_bytes = opts.size};
    opts_node_raw_fini(&opts);
    return 0;
}

static bool raw_is_whole(const struct raw_window *window)
{
    return window->offset == 0 && !window->has_size;
}

static int raw_check(const struct raw_window *window, BdrvEdge *file, Error **errp)
{
    int64_t file_bytes;

    if (raw_is_whole(window)) {
        return 0;
    }
    file_bytes = bdrv_edge_getlength(file);
    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "raw: cannot tell the size of the file");
    }
    return raw_check_window(window, (uint64_t)file_bytes, errp);
}

static void raw_set_window(BlockDriverState *bs, const struct raw_window *window)
{
    struct raw_state *s = bdrv_opaque(bs);

    s->window = *window;
    bdrv_set_caps(bs, raw_is_whole(window) ? RAW_CAPS | BDRV_CAP_PASSTHROUGH : RAW_CAPS);
}

static int raw_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct raw_window window;
    BdrvEdge *file;
    int rc = raw_parse(options, &window, errp);

    if (rc < 0) {
        return rc;
    }
    file = bdrv_open_child(bs, NULL, options, "file", BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY, false,
                           errp);
    if (file == NULL) {
        return -EINVAL;
    }
    raw_set_window(bs, &window);
    return raw_check(&window, file, errp);
}

static int raw_reopen_options(BlockDriverState *bs, BlockOptions *options, int new_flags,
                              Error **errp)
{
    struct raw_state *s = bdrv_opaque(bs);
    int rc = raw_parse(options, &s->next, errp);

    if (rc == 0) {
        rc = raw_check(&s->next, bdrv_primary_child(bs), errp);
    }
    s->has_next = rc == 0;
    return rc;
}

static void raw_reopen_commit(BlockDriverState *bs)
{
    struct raw_state *s = bdrv_opaque(bs);

    if (s->has_next) {
        raw_set_window(bs, &s->next);
    }
    s->has_next = false;
}

static void raw_reopen_abort(BlockDriverState *bs)
{
    struct raw_state *s = bdrv_opaque(bs);

    s->has_next = false;
}

static void raw_refresh_limits(BlockDriverState *bs, struct bdrv_limits *limits)
{
    const struct raw_state *s = bdrv_opaque(bs);

    /* The child aligns what goes through a window, once, and where all who write to it meet: two
     * windows may share a block. */
    if (s->window.offset != 0 || s->window.has_size) {
        limits->request_alignment = 1;
    }
}

static int raw_rw_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    const struct raw_state *s = bdrv_opaque(bs);
    struct bdrv_req below = *req;

    below.offset += s->window.offset;
    bdrv_debug_event(bdrv_primary_child(bs),
                     req->op == BDRV_OP_READ ? BLKDBG_READ_AIO : BLKDBG_WRITE_AIO);
    return bdrv_edge_request_co(bdrv_primary_child(bs), &below);
}

static int raw_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                               unsigned flags)
{
    const struct raw_state *s = bdrv_opaque(bs);

    return bdrv_edge_write_zeroes_co(bdrv_primary_child(bs), offset + s->window.offset, bytes,
                                     flags);
}

static int raw_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    const struct raw_state *s = bdrv_opaque(bs);

    return bdrv_edge_discard_co(bdrv_primary_child(bs), offset + s->window.offset, bytes);
}

static int raw_flush_co(BlockDriverState *bs)
{
    bdrv_debug_event(bdrv_primary_child(bs), BLKDBG_FLUSH_TO_DISK);
    return bdrv_edge_flush_co(bdrv_primary_child(bs));
}

static int raw_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset,
                               uint64_t bytes, struct bdrv_status *ret_status)
{
    const struct raw_state *s = bdrv_opaque(bs);

    *ret_status = (struct bdrv_status){
        .flags = BDRV_BLOCK_RAW | BDRV_BLOCK_RECURSE | BDRV_BLOCK_OFFSET_VALID,
        .bytes = bytes,
        .map = offset + s->window.offset,
        .file = bdrv_edge_node(bdrv_primary_child(bs)),
    };
    return 0;
}

static int raw_map_range(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                         BdrvEdge **ret_child, uint64_t *ret_offset)
{
    const struct raw_state *s = bdrv_opaque(bs);

    *ret_child = bdrv_primary_child(bs);
    *ret_offset = offset + s->window.offset;
    return 0;
}

static int raw_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                           enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    const struct raw_state *s = bdrv_opaque(bs);

    if (s->window.has_size) {
        return error_set(errp, ENOTSUP, "Cannot resize fixed-size raw disks");
    }
    if (size_bytes > (uint64_t)INT64_MAX - s->window.offset) {
        return error_set(errp, EFBIG, "raw: size %" PRIu64 " at offset %" PRIu64 " is too large",
                         size_bytes, s->window.offset);
    }
    return bdrv_edge_truncate_co(bdrv_primary_child(bs), size_bytes + s->window.offset, exact,
                                 prealloc, flags, errp);
}

static int raw_get_info(BlockDriverState *bs, struct bdrv_info *ret_info)
{
    return bdrv_get_info(bdrv_edge_node(bdrv_primary_child(bs)), ret_info);
}

static int64_t raw_getlength(BlockDriverState *bs)
{
    const struct raw_state *s = bdrv_opaque(bs);
    int64_t file_bytes = bdrv_edge_getlength(bdrv_primary_child(bs));

    if (file_bytes < 0 || s->window.has_size) {
        return file_bytes < 0 ? file_bytes : (int64_t)s->window.size_bytes;
    }
    return (uint64_t)file_bytes > s->window.offset ? file_bytes - (int64_t)s->window.offset : 0;
}

/* The file below is all there is to create. */
static int raw_create(Platter *pl, const char *filename, BlockOptions *options, Error **errp)
{
    BlockOptions *below = block_options_copy(options);
    struct opts_create_raw opts;
    int rc;

    if (below == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    rc = opts_create_raw_parse(options, &opts, errp);
    if (rc < 0) {
        block_options_free(below);
        return rc;
    }
    opts_create_raw_fini(&opts);
    /* No driver named: the file name says who carries the image. */
    return bdrv_create(pl, filename, below, errp);
}

/* As the reference answers: the size of the disk, whether it is full of data or not. */
static int raw_measure(Platter *pl, BlockOptions *options, BlockDriverState *source,
                       struct bdrv_measure_result *ret_result, Error **errp)
{
    int64_t source_bytes = source != NULL ? bdrv_getlength(source) : 0;
    struct opts_create_raw opts;
    uint64_t bytes;
    int rc;

    if (source_bytes < 0) {
        return error_set_errno(errp, (int)-source_bytes, "raw: cannot tell the size of '%s'",
                               bdrv_get_told_name(source));
    }
    if (source != NULL && !block_options_has(options, "size")) {
        rc = block_options_set_u64(options, "size", (uint64_t)source_bytes);
        if (rc < 0) {
            return error_set_errno(errp, -rc, "raw: cannot measure");
        }
    }
    rc = opts_create_raw_parse(options, &opts, errp);
    if (rc < 0) {
        return rc;
    }
    bytes = source != NULL ? (uint64_t)source_bytes : opts.size; /* what is copied decides */
    opts_create_raw_fini(&opts);
    if (bytes > INT64_MAX - RAW_SIZE_UNIT) {
        return error_set(errp, EFBIG, "raw: size %" PRIu64 " is too large", bytes);
    }
    bytes = align_up(bytes, bdrv_copy_unit(pl, NULL));
    *ret_result = (struct bdrv_measure_result){
        .required_bytes = bytes,
        .fully_allocated_bytes = bytes,
    };
    return 0;
}

static const struct bdrv_image_ops raw_image_ops = {.measure = raw_measure};

static const char *const raw_strong_options[] = {"offset", "size", NULL};

const BlockDriver bdrv_raw = {
    .format_name = "raw",
    .option_keys = opts_node_raw_keys,
    .instance_size = sizeof(struct raw_state),
    .caps = RAW_CAPS,
    .probe = raw_probe,
    .open = raw_open,
    .reopen_options = raw_reopen_options,
    .reopen_commit = raw_reopen_commit,
    .reopen_abort = raw_reopen_abort,
    .refresh_limits = raw_refresh_limits,
    .read_co = raw_rw_co,
    .write_co = raw_rw_co,
    .write_zeroes_co = raw_write_zeroes_co,
    .discard_co = raw_discard_co,
    .flush_co = raw_flush_co,
    .block_status_co = raw_block_status_co,
    .map_range = raw_map_range,
    .truncate_co = raw_truncate_co,
    .getlength = raw_getlength,
    .get_info = raw_get_info,
    .create = raw_create,
    .create_keys = opts_create_raw_keys,
    .image = &raw_image_ops,
    .strong_options = raw_strong_options,
};
