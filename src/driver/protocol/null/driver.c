/* SPDX-License-Identifier: MIT */
/*
 * null-co and null-aio: a disk that keeps nothing. Writes vanish; reads give zeroes with
 * read-zeroes=on and leave the reader's memory alone otherwise. null-co answers at once, null-aio
 * from a later turn of the loop, as storage would.
 */
#include <errno.h>
#include <string.h>

#include "block/driver.h"
#include "schema/opts.h"
#include "util/error.h"
#include "util/iov.h"
#include "util/mem.h"

/* Set at open, then constant. */
struct null_state {
    uint64_t size_bytes;
    int64_t latency_ns;
    bool read_zeroes;
    bool instant; /* null-co without latency: nothing to wait for */
};

static __attribute__((noinline)) int null_wait(const struct null_state *s)
{
    if (s->latency_ns > 0) {
        return co_sleep_ns(s->latency_ns);
    }
    aio_co_schedule(aio_context_current(), coroutine_self());
    coroutine_yield();
    return 0;
}

static inline int null_serve(const struct null_state *s)
{
    return LIKELY(s->instant) ? 0 : null_wait(s);
}

static int null_open(BlockDriverState *bs, BlockOptions *options, const char *filename, bool later,
                     Error **errp)
{
    struct null_state *s = bdrv_opaque(bs);
    struct opts_node_null opts;
    int rc = opts_node_null_parse(options, &opts, errp);

    if (rc < 0) {
        return rc;
    }
    s->size_bytes = opts.size;
    s->latency_ns = (int64_t)opts.latency_ns;
    s->read_zeroes = opts.read_zeroes;
    s->instant = !later && s->latency_ns == 0;
    opts_node_null_fini(&opts);
    bdrv_set_filename(bs, filename);
    return 0;
}

static int null_co_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    return null_open(bs, options, "null-co://", false, errp);
}

static int null_aio_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    return null_open(bs, options, "null-aio://", true, errp);
}

static int null_co_parse_filename(const char *filename, BlockOptions *options, Error **errp)
{
    if (strcmp(filename, "null-co://") != 0) {
        return error_set(errp, EINVAL, "The only allowed filename for this driver is 'null-co://'");
    }
    return 0;
}

static int null_aio_parse_filename(const char *filename, BlockOptions *options, Error **errp)
{
    if (strcmp(filename, "null-aio://") != 0) {
        return error_set(errp, EINVAL,
                         "The only allowed filename for this driver is 'null-aio://'");
    }
    return 0;
}

static __attribute__((noinline)) int null_read_busy(const struct null_state *s,
                                                    const struct bdrv_req *req)
{
    if (s->read_zeroes) {
        iov_fill(req->iov, req->niov, req->iov_offset, 0, req->bytes);
    }
    return null_serve(s);
}

static int null_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    const struct null_state *s = bdrv_opaque(bs);

    return LIKELY(s->instant && !s->read_zeroes) ? 0 : null_read_busy(s, req);
}

static int null_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    return null_serve(bdrv_opaque(bs));
}

static int null_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                unsigned flags)
{
    return null_serve(bdrv_opaque(bs));
}

static int null_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    return null_serve(bdrv_opaque(bs));
}

static int null_flush_co(BlockDriverState *bs)
{
    return null_serve(bdrv_opaque(bs));
}

static int null_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset,
                                uint64_t bytes, struct bdrv_status *ret_status)
{
    const struct null_state *s = bdrv_opaque(bs);

    *ret_status = (struct bdrv_status){
        /* without read-zeroes a read gives anything: never to be taken for a hole */
        .flags = BDRV_BLOCK_OFFSET_VALID | (s->read_zeroes ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA),
        .bytes = bytes,
        .map = offset,
        .file = bs,
    };
    return 0;
}

static int64_t null_getlength(BlockDriverState *bs)
{
    const struct null_state *s = bdrv_opaque(bs);

    return (int64_t)s->size_bytes;
}

static int64_t null_allocated(BlockDriverState *bs)
{
    return 0;
}

static const char *const null_strong_options[] = {"size", "read-zeroes", NULL};

#define NULL_CAPS                                                                                  \
    (BDRV_CAP_PROTOCOL | BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA | BDRV_CAP_ZERO_UNMAP |                  \
     BDRV_CAP_ZERO_NO_FALLBACK | BDRV_CAP_READS_NOTHING | BDRV_CAP_ZERO_TAIL)

const BlockDriver bdrv_null_co = {
    .format_name = "null-co",
    .option_keys = opts_node_null_keys,
    .protocol_name = "null-co",
    .instance_size = sizeof(struct null_state),
    .caps = NULL_CAPS,
    .parse_filename = null_co_parse_filename,
    .open = null_co_open,
    .read_co = null_read_co,
    .write_co = null_write_co,
    .write_zeroes_co = null_write_zeroes_co,
    .discard_co = null_discard_co,
    .flush_co = null_flush_co,
    .block_status_co = null_block_status_co,
    .getlength = null_getlength,
    .get_allocated_file_size = null_allocated,
    .strong_options = null_strong_options,
};

const BlockDriver bdrv_null_aio = {
    .format_name = "null-aio",
    .option_keys = opts_node_null_keys,
    .protocol_name = "null-aio",
    .instance_size = sizeof(struct null_state),
    .caps = NULL_CAPS,
    .parse_filename = null_aio_parse_filename,
    .open = null_aio_open,
    .read_co = null_read_co,
    .write_co = null_write_co,
    .write_zeroes_co = null_write_zeroes_co,
    .discard_co = null_discard_co,
    .flush_co = null_flush_co,
    .block_status_co = null_block_status_co,
    .getlength = null_getlength,
    .get_allocated_file_size = null_allocated,
    .strong_options = null_strong_options,
};
