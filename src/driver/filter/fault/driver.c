/* SPDX-License-Identifier: MIT */
/*
 * blkdebug: the filter itself. Requests go to the child "image" as they are, unless a rule befalls
 * them. File names: blkdebug:CONFIG:IMAGE, CONFIG may be empty.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "util/checked.h"
#include "util/error.h"

#define FAULT_CAPS                                                                                 \
    (BDRV_CAP_FILTER | BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA | BDRV_CAP_ZERO_UNMAP |                    \
     BDRV_CAP_ZERO_NO_FALLBACK | BDRV_CAP_COMPRESSED)

/* ---- open ---- */

static int fault_parse_filename(const char *filename, BlockOptions *options, Error **errp)
{
    const char *config = filename + strlen("blkdebug:");
    const char *image = strchr(config, ':');
    char *name;
    int rc;

    if (image == NULL) {
        return error_set(errp, EINVAL, "blkdebug requires both config file and image path");
    }
    name = strndup(config, (size_t)(image - config));
    rc = name == NULL ? -ENOMEM : 0;
    if (rc == 0 && name[0] != '\0') {
        rc = block_options_set_str(options, "config", name);
    }
    free(name);
    if (rc == 0) {
        rc = block_options_set_str(options, "x-image", image + 1);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "Cannot use the file name '%s'", filename) : 0;
}

/* A limit must be a multiple of the others that it is built of; 0 stands for none. */
static int check_limit(const char *name, uint64_t value, uint64_t unit, uint64_t align,
                       Error **errp)
{
    if (value % align != 0 || (unit != 0 && value % unit != 0)) {
        return error_set(errp, EINVAL, "Cannot meet constraints with %s %" PRIu64, name, value);
    }
    return 0;
}

static int take_limits(struct fault_node *s, const struct opts_node_blkdebug *o, uint32_t below,
                       Error **errp)
{
    uint64_t align = max_u64(o->align, below);

    if (o->align != 0 && !is_pow2(o->align)) {
        return error_set(errp, EINVAL, "Cannot meet constraints with align %" PRIu64, o->align);
    }
    s->limits = (struct bdrv_limits){
        .request_alignment = (uint32_t)o->align,
        .max_transfer = o->max_transfer,
        .pwrite_zeroes_alignment = o->opt_write_zero,
        .max_pwrite_zeroes = o->max_write_zero,
        .pdiscard_alignment = o->opt_discard,
        .max_pdiscard = o->max_discard,
    };
    if (check_limit("max-transfer", o->max_transfer, 0, align, errp) < 0 ||
        check_limit("opt-write-zero", o->opt_write_zero, 0, align, errp) < 0 ||
        check_limit("max-write-zero", o->max_write_zero, o->opt_write_zero, align, errp) < 0 ||
        check_limit("opt-discard", o->opt_discard, 0, align, errp) < 0 ||
        check_limit("max-discard", o->max_discard, o->opt_discard, align, errp) < 0) {
        return -EINVAL;
    }
    return 0;
}

static int take_perms(BlockOptions *options, const char *name, uint64_t *ret_perms, Error **errp)
{
    static const uint64_t perms[] = {
        [OPTS_BLOCK_PERM_CONSISTENT_READ] = BDRV_PERM_CONSISTENT_READ,
        [OPTS_BLOCK_PERM_WRITE] = BDRV_PERM_WRITE,
        [OPTS_BLOCK_PERM_WRITE_UNCHANGED] = BDRV_PERM_WRITE_UNCHANGED,
        [OPTS_BLOCK_PERM_RESIZE] = BDRV_PERM_RESIZE,
    };
    char key[64];
    int word;
    int rc;

    *ret_perms = 0;
    for (unsigned i = 0;; i++) {
        snprintf(key, sizeof(key), "%s.%u", name, i);
        rc = block_options_take_enum(options, key, opts_block_perm_names, &word, errp);
        if (rc <= 0) {
            return rc;
        }
        *ret_perms |= perms[word];
    }
}

/* The name that says all, where there is one. */
static void set_name(BlockDriverState *bs, const char *config)
{
    const char *image = bdrv_get_filename(bdrv_edge_node(bdrv_primary_child(bs)));
    size_t bytes;
    char *name;

    if (config != NULL && strchr(config, ':') != NULL) {
        return;
    }
    if (image[0] == '\0' || strncmp(image, "json:", strlen("json:")) == 0) {
        return;
    }
    bytes = strlen("blkdebug::") + strlen(config != NULL ? config : "") + strlen(image) + 1;
    name = malloc(bytes);
    if (name != NULL) {
        snprintf(name, bytes, "blkdebug:%s:%s", config != NULL ? config : "", image);
        bdrv_set_filename(bs, name);
        bdrv_set_caps(bs, FAULT_CAPS | BDRV_CAP_FULL_NAME);
    }
    free(name);
}

/* Whether nothing but the child and the config file was given. */
static bool options_are_plain(const BlockOptions *options, const struct opts_node_blkdebug *o)
{
    const char *key = NULL;

    while ((key = block_options_next_key(options, key)) != NULL) {
        if (strcmp(key, "image") != 0 && strncmp(key, "image.", strlen("image.")) != 0) {
            return false;
        }
    }
    return !o->has_align && !o->has_max_transfer && !o->has_opt_write_zero &&
           !o->has_max_write_zero && !o->has_opt_discard && !o->has_max_discard;
}

static int open_parsed(BlockDriverState *bs, BlockOptions *options,
                       const struct opts_node_blkdebug *o, Error **errp)
{
    struct fault_node *s = bdrv_opaque(bs);
    bool plain = options_are_plain(options, o);
    BdrvEdge *image;
    int rc = o->config != NULL ? fault_config_load(s, o->config, errp) : 0;

    if (rc == 0) {
        rc = fault_rules_take(s, options, errp);
    }
    if (rc == 0) {
        rc = take_perms(options, "take-child-perms", &s->take_perms, errp);
    }
    if (rc == 0) {
        rc = take_perms(options, "unshare-child-perms", &s->unshare_perms, errp);
    }
    if (rc < 0) {
        return rc;
    }
    image = bdrv_open_child(bs, o->x_image, options, "image",
                            BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY, false, errp);
    if (image == NULL) {
        return -EINVAL;
    }
    rc = take_limits(s, o, bdrv_get_limits(bdrv_edge_node(image))->request_alignment, errp);
    if (rc == 0 && plain) {
        set_name(bs, o->config);
    }
    return rc;
}

static int fault_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct fault_node *s = bdrv_opaque(bs);
    struct opts_node_blkdebug o;
    int rc = opts_node_blkdebug_parse(options, &o, errp);

    if (rc < 0) {
        return rc;
    }
    rc = open_parsed(bs, options, &o, errp);
    opts_node_blkdebug_fini(&o);
    if (rc < 0) {
        free(s->rules);
        s->rules = NULL;
        return rc;
    }
    os_mutex_init(&s->lock);
    fault_breaks_init(s);
    s->state = 1;
    fault_happen(s, BLKDBG_NONE);
    return 0;
}

static void fault_close(BlockDriverState *bs)
{
    struct fault_node *s = bdrv_opaque(bs);

    fault_breaks_fini(s);
    os_mutex_fini(&s->lock);
    free(s->rules);
}

static void fault_child_perm(BlockDriverState *bs, const char *child_name, unsigned role,
                             uint64_t perm, uint64_t shared, uint64_t *ret_perm,
                             uint64_t *ret_shared)
{
    const struct fault_node *s = bdrv_opaque(bs);

    *ret_perm = perm | s->take_perms;
    *ret_shared = shared & ~s->unshare_perms;
}

static void fault_refresh_limits(BlockDriverState *bs, struct bdrv_limits *limits)
{
    const struct fault_node *s = bdrv_opaque(bs);
    uint32_t align = s->limits.request_alignment;

    if (align != 0) {
        limits->request_alignment = align;
    }
    if (s->limits.max_transfer != 0) {
        limits->max_transfer = s->limits.max_transfer;
    } else if (limits->max_transfer != 0) {
        limits->max_transfer = max_u64(limits->max_transfer, align); /* the child splits it */
    }
    if (s->limits.pwrite_zeroes_alignment != 0) {
        limits->pwrite_zeroes_alignment = s->limits.pwrite_zeroes_alignment;
    }
    if (s->limits.max_pwrite_zeroes != 0) {
        limits->max_pwrite_zeroes = s->limits.max_pwrite_zeroes;
    }
    if (s->limits.pdiscard_alignment != 0) {
        limits->pdiscard_alignment = s->limits.pdiscard_alignment;
    }
    if (s->limits.max_pdiscard != 0) {
        limits->max_pdiscard = s->limits.max_pdiscard;
    }
}

/* ---- requests ---- */

static int fault_rw_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    enum opts_blkdebug_iotype iotype =
        req->op == BDRV_OP_READ ? OPTS_BLKDEBUG_IOTYPE_READ : OPTS_BLKDEBUG_IOTYPE_WRITE;
    int ret = fault_befall_co(bdrv_opaque(bs), iotype, req->offset, req->bytes);

    return ret < 0 ? ret : bdrv_edge_request_co(bdrv_primary_child(bs), req);
}

static int fault_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                 unsigned flags)
{
    int ret = fault_befall_co(bdrv_opaque(bs), OPTS_BLKDEBUG_IOTYPE_WRITE_ZEROES, offset, bytes);

    return ret < 0 ? ret : bdrv_edge_write_zeroes_co(bdrv_primary_child(bs), offset, bytes, flags);
}

static int fault_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    int ret = fault_befall_co(bdrv_opaque(bs), OPTS_BLKDEBUG_IOTYPE_DISCARD, offset, bytes);

    return ret < 0 ? ret : bdrv_edge_discard_co(bdrv_primary_child(bs), offset, bytes);
}

static int fault_flush_co(BlockDriverState *bs)
{
    int ret = fault_befall_co(bdrv_opaque(bs), OPTS_BLKDEBUG_IOTYPE_FLUSH, 0, 0);

    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(bdrv_primary_child(bs), BLKDBG_FLUSH_TO_DISK);
    return bdrv_edge_flush_co(bdrv_primary_child(bs));
}

static int fault_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset,
                                 uint64_t bytes, struct bdrv_status *ret_status)
{
    int ret = fault_befall_co(bdrv_opaque(bs), OPTS_BLKDEBUG_IOTYPE_BLOCK_STATUS, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    *ret_status = (struct bdrv_status){
        .flags = BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID,
        .bytes = bytes,
        .map = offset,
        .file = bdrv_edge_node(bdrv_primary_child(bs)),
    };
    return 0;
}

/* Copied through memory, so that the rules see reads and writes. */
static int fault_copy_range_co(BlockDriverState *src, uint64_t src_offset, BlockDriverState *dst,
                               uint64_t dst_offset, uint64_t bytes, unsigned write_flags)
{
    return -ENOTSUP;
}

static void fault_event(BlockDriverState *bs, enum bdrv_debug_event event)
{
    fault_happen(bdrv_opaque(bs), event);
    if (in_coroutine()) {
        fault_break_co(bs, event);
    }
}

static const struct bdrv_debug_ops fault_debug_ops = {
    .event = fault_event,
    .breakpoint = fault_breakpoint,
    .remove_breakpoint = fault_remove_breakpoint,
    .resume = fault_resume,
    .is_suspended = fault_is_suspended,
};

static const char *const fault_strong_options[] = {
    "config",         "align",       "max-transfer", "opt-write-zero",
    "max-write-zero", "opt-discard", "max-discard",  "inject-error",
    "inject-delay",   "set-state",   NULL,
};

const BlockDriver bdrv_blkdebug = {
    .format_name = "blkdebug",
    .protocol_name = "blkdebug",
    .primary_name = "image",
    .option_keys = opts_node_blkdebug_keys,
    .instance_size = sizeof(struct fault_node),
    .caps = FAULT_CAPS,
    .parse_filename = fault_parse_filename,
    .open = fault_open,
    .close = fault_close,
    .drained_begin = fault_drained_begin,
    .drained_end = fault_drained_end,
    .child_perm = fault_child_perm,
    .refresh_limits = fault_refresh_limits,
    .read_co = fault_rw_co,
    .write_co = fault_rw_co,
    .write_zeroes_co = fault_write_zeroes_co,
    .discard_co = fault_discard_co,
    .flush_co = fault_flush_co,
    .block_status_co = fault_block_status_co,
    .copy_range_co = fault_copy_range_co,
    .debug = &fault_debug_ops,
    .strong_options = fault_strong_options,
};
