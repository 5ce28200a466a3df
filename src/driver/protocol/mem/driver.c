/* SPDX-License-Identifier: MIT */
/*
 * mem: a disk in memory, "driver=mem,size=10G" or "mem:10G". Space is taken as it is written,
 * given back by zeroing and discarding, and counted against the budget of the instance. The content
 * ends with the node.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "block/driver.h"
#include "loop/context.h"
#include "mem.h"
#include "schema/opts.h"
#include "util/error.h"

struct mem_state {
    struct mem_store *store; /* owned; has its own locks */
    _Atomic uint64_t size_bytes;
};

static int mem_parse_filename(const char *filename, BlockOptions *options, Error **errp)
{
    if (block_options_has(options, "size")) {
        return error_set(errp, EINVAL, "The size of '%s' is given twice", filename);
    }
    if (block_options_set_str(options, "size", filename + strlen("mem:")) < 0) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    return 0;
}

static int mem_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct mem_state *s = bdrv_opaque(bs);
    struct opts_node_mem opts;
    char name[32];
    int rc = opts_node_mem_parse(options, &opts, errp);

    if (rc < 0) {
        return rc;
    }
    atomic_store(&s->size_bytes, opts.size);
    opts_node_mem_fini(&opts);
    s->store = mem_store_new(bdrv_budget(bs));
    if (s->store == NULL) {
        return error_set(errp, ENOMEM, "mem: no memory for the tables of the disk");
    }
    snprintf(name, sizeof(name), "mem:%" PRIu64, atomic_load(&s->size_bytes));
    bdrv_set_filename(bs, name);
    return 0;
}

static void mem_close(BlockDriverState *bs)
{
    struct mem_state *s = bdrv_opaque(bs);

    mem_store_free(s->store);
    s->store = NULL;
}

static unsigned mem_slot(void)
{
    return aio_context_slot(aio_context_current());
}

static int mem_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct mem_state *s = bdrv_opaque(bs);

    mem_store_read(s->store, mem_slot(), req->offset, req->bytes, req->iov, req->niov,
                   req->iov_offset);
    return 0;
}

static int mem_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct mem_state *s = bdrv_opaque(bs);

    return mem_store_write(s->store, mem_slot(), req->offset, req->bytes, req->iov, req->niov,
                           req->iov_offset);
}

static int mem_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                               unsigned flags)
{
    struct mem_state *s = bdrv_opaque(bs);

    mem_store_zero(s->store, mem_slot(), offset, bytes);
    return 0;
}

static int mem_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    return mem_write_zeroes_co(bs, offset, bytes, BDRV_REQ_MAY_UNMAP);
}

/* Nothing outlives the process, so all that is written is as safe as it will be. */
static int mem_flush_co(BlockDriverState *bs)
{
    return 0;
}

static int mem_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset,
                               uint64_t bytes, struct bdrv_status *ret_status)
{
    struct mem_state *s = bdrv_opaque(bs);
    uint64_t len;
    bool data = mem_store_status(s->store, mem_slot(), offset, bytes, &len);

    *ret_status = (struct bdrv_status){
        .flags = BDRV_BLOCK_OFFSET_VALID | (data ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO),
        .bytes = len,
        .map = offset,
        .file = bs,
    };
    return 0;
}

static int mem_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                           enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    struct mem_state *s = bdrv_opaque(bs);
    uint64_t old_bytes = atomic_load(&s->size_bytes);

    if (prealloc != BDRV_PREALLOC_OFF) {
        return error_set(errp, ENOTSUP, "mem: no preallocation mode but 'off' is supported");
    }
    if (size_bytes > MEM_SIZE_MAX) {
        return error_set(errp, EFBIG, "mem: size %" PRIu64 " is above the largest disk (1 EiB)",
                         size_bytes);
    }
    if (size_bytes < old_bytes) { /* what a later growth adds reads as zeroes */
        mem_store_zero(s->store, mem_slot(), size_bytes, old_bytes - size_bytes);
    }
    atomic_store(&s->size_bytes, size_bytes);
    return 0;
}

static int64_t mem_getlength(BlockDriverState *bs)
{
    struct mem_state *s = bdrv_opaque(bs);

    return (int64_t)atomic_load(&s->size_bytes);
}

static int64_t mem_get_allocated_file_size(BlockDriverState *bs)
{
    struct mem_state *s = bdrv_opaque(bs);

    return (int64_t)mem_store_allocated_bytes(s->store);
}

const BlockDriver bdrv_mem = {
    .format_name = "mem",
    .option_keys = opts_node_mem_keys,
    .protocol_name = "mem",
    .instance_size = sizeof(struct mem_state),
    .caps = BDRV_CAP_PROTOCOL | BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA | BDRV_CAP_ZERO_UNMAP |
            BDRV_CAP_ZERO_NO_FALLBACK | BDRV_CAP_TRUNCATE_ZEROES,
    .parse_filename = mem_parse_filename,
    .open = mem_open,
    .close = mem_close,
    .read_co = mem_read_co,
    .write_co = mem_write_co,
    .write_zeroes_co = mem_write_zeroes_co,
    .discard_co = mem_discard_co,
    .flush_co = mem_flush_co,
    .block_status_co = mem_block_status_co,
    .truncate_co = mem_truncate_co,
    .getlength = mem_getlength,
    .get_allocated_file_size = mem_get_allocated_file_size,
};
