/* SPDX-License-Identifier: MIT */
/* The driver's table: opening, closing, limits, size. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbd.h"
#include "schema/opts.h"
#include "util/error.h"

/* One request's zeroes or trim: lengths on the wire have 32 bits. */
#define LENGTH_MAX (UINT32_C(1) << 31)

static void target_fini(struct nbd_target *target)
{
    nbdc_address_fini(&target->address);
    free(target->shown);
    free(target->context_given);
    free(target->tls_hostname);
    tls_creds_unref(target->tls_creds);
}

static char *show_address(const struct nbdc_address *a)
{
    char *shown = NULL;

    if (a->path != NULL) {
        return strdup(a->path);
    }
    return asprintf(&shown, "%s:%s", a->host, a->port) < 0 ? NULL : shown;
}

/* Takes its string out of opts. */
static int take_tls(Platter *pl, struct nbd_target *target, struct opts_node_nbd *opts,
                    Error **errp)
{
    if (opts->tls_creds == NULL) {
        return opts->tls_hostname == NULL
                   ? 0
                   : error_set(errp, EINVAL, "'tls-hostname' needs 'tls-creds'");
    }
    target->tls_creds = tls_creds_find(pl, opts->tls_creds, TLS_ENDPOINT_CLIENT, errp);
    if (target->tls_creds == NULL) {
        return -EINVAL;
    }
    target->tls_hostname = opts->tls_hostname;
    opts->tls_hostname = NULL;
    return 0;
}

static int target_init(Platter *pl, struct nbd_target *target, struct opts_node_nbd *opts,
                       Error **errp)
{
    int rc = take_tls(pl, target, opts, errp);

    if (rc == 0) {
        rc = nbdc_address_from_options(opts, &target->address, errp);
        if (rc < 0) {
            free(target->tls_hostname);
            tls_creds_unref(target->tls_creds);
        }
    }
    if (rc < 0) {
        return rc;
    }
    target->shown = show_address(&target->address);
    target->context_given = opts->x_dirty_bitmap;
    opts->x_dirty_bitmap = NULL;
    target->context =
        target->context_given != NULL ? target->context_given : LIBNBD_CONTEXT_BASE_ALLOCATION;
    if (target->shown == NULL) {
        target_fini(target);
        return error_set(errp, ENOMEM, "out of memory");
    }
    return 0;
}

struct opening {
    struct nbd_pool *pool;
    unsigned connections;
    Error **errp;
};

static int open_co(void *opaque)
{
    struct opening *o = opaque;

    return nbdc_pool_open_co(o->pool, o->connections, o->errp);
}

static void set_caps(BlockDriverState *bs, const struct nbd_facts *f)
{
    unsigned caps =
        BDRV_CAP_PROTOCOL | BDRV_CAP_ZERO_UNMAP | BDRV_CAP_ZERO_NO_FALLBACK | BDRV_CAP_FULL_NAME;

    bdrv_set_caps(bs, caps | (f->fua ? BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA : 0));
}

/* The name says everything but which context stands for the allocation. */
static int set_name(BlockDriverState *bs, const struct nbd_target *target, Error **errp)
{
    char *name;

    if (target->context_given != NULL) {
        return 0;
    }
    name = nbdc_name_build(&target->address);
    if (name == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    bdrv_set_filename(bs, name);
    free(name);
    return 0;
}

static int open_pool(BlockDriverState *bs, unsigned connections, int flags, Error **errp)
{
    struct nbd_pool *pool = bdrv_opaque(bs);
    struct opening opening = {pool, connections, errp};
    int rc = bdrv_run_co(open_co, &opening);

    if (rc < 0) {
        if (rc == -ENOMEM && errp != NULL && *errp == NULL) {
            error_set(errp, ENOMEM, "out of memory");
        }
        return rc;
    }
    if ((flags & BDRV_O_RDWR) && pool->facts.read_only) {
        char why[256];

        snprintf(why, sizeof(why), "The NBD server '%.160s' serves its export read-only",
                 pool->target.shown);
        rc = bdrv_apply_auto_read_only(bs, why, errp);
    }
    if (rc == 0) {
        rc = set_name(bs, &pool->target, errp);
    }
    if (rc < 0) {
        nbdc_pool_close(pool);
        return rc;
    }
    set_caps(bs, &pool->facts);
    return 0;
}

static int nbd_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct nbd_pool *pool = bdrv_opaque(bs);
    struct opts_node_nbd opts;
    int rc = opts_node_nbd_parse(options, &opts, errp);

    if (rc < 0) {
        return rc;
    }
    rc = target_init(bdrv_platter(bs), &pool->target, &opts, errp);
    if (rc == 0) {
        pool->reconnect_delay_ns = (int64_t)opts.reconnect_delay * NBD_NS_PER_S;
        pool->open_timeout_ns = (int64_t)opts.open_timeout * NBD_NS_PER_S;
        rc = open_pool(bs, (unsigned)opts.connections, flags, errp);
        if (rc < 0) {
            target_fini(&pool->target);
        }
    }
    opts_node_nbd_fini(&opts);
    return rc;
}

static void nbd_close_node(BlockDriverState *bs)
{
    struct nbd_pool *pool = bdrv_opaque(bs);

    nbdc_pool_close(pool);
    target_fini(&pool->target);
}

static int nbd_reopen_prepare(BlockDriverState *bs, int new_flags, Error **errp)
{
    struct nbd_pool *pool = bdrv_opaque(bs);

    if ((new_flags & BDRV_O_RDWR) && pool->facts.read_only) {
        return error_set(errp, EACCES, "The NBD server '%s' serves its export read-only",
                         pool->target.shown);
    }
    return 0;
}

static void nbd_refresh_limits(BlockDriverState *bs, struct bdrv_limits *limits)
{
    const struct nbd_pool *pool = bdrv_opaque(bs);
    const struct nbd_facts *f = &pool->facts;

    limits->request_alignment = f->block_min;
    limits->max_transfer = f->payload_max;
    limits->opt_transfer = f->block_preferred <= f->payload_max ? f->block_preferred : 0;
    limits->max_pdiscard = LENGTH_MAX;
    limits->pdiscard_alignment = f->block_min;
    limits->max_pwrite_zeroes = LENGTH_MAX;
    limits->pwrite_zeroes_alignment = f->block_min;
}

static int nbdc_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                            enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    const struct nbd_pool *pool = bdrv_opaque(bs);

    if (exact && size_bytes != pool->facts.size_bytes) {
        return error_set(errp, ENOTSUP, "Cannot resize NBD nodes");
    }
    if (size_bytes > pool->facts.size_bytes) {
        return error_set(errp, EINVAL, "Cannot grow NBD nodes");
    }
    return 0;
}

static int64_t nbd_getlength(BlockDriverState *bs)
{
    const struct nbd_pool *pool = bdrv_opaque(bs);

    return (int64_t)pool->facts.size_bytes;
}

static const char *const nbd_aliases[] = {"nbd+tcp", "nbd+unix", NULL};
static const char *const nbd_strong_options[] = {"server", "host",           "port", "path",
                                                 "export", "x-dirty-bitmap", NULL};

const BlockDriver bdrv_nbd = {
    .format_name = "nbd",
    .option_keys = opts_node_nbd_keys,
    .protocol_name = "nbd",
    .protocol_aliases = nbd_aliases,
    .instance_size = sizeof(struct nbd_pool),
    .caps = BDRV_CAP_PROTOCOL,
    .parse_filename = nbdc_parse_filename,
    .open = nbd_open,
    .close = nbd_close_node,
    .reopen_prepare = nbd_reopen_prepare,
    .refresh_limits = nbd_refresh_limits,
    .read_co = nbdc_read_co,
    .write_co = nbdc_write_co,
    .write_zeroes_co = nbdc_write_zeroes_co,
    .discard_co = nbdc_discard_co,
    .flush_co = nbdc_flush_co,
    .block_status_co = nbdc_block_status_co,
    .truncate_co = nbdc_truncate_co,
    .getlength = nbd_getlength,
    .create = nbdc_create,
    .create_keys = opts_create_nbd_keys,
    .strong_options = nbd_strong_options,
};
