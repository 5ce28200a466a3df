/* SPDX-License-Identifier: MIT */
#include "fake.h"

#include "util/iov.h"

static int fake_open_node(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct fake *fake = bdrv_opaque(bs);

    atomic_init(&fake->size_bytes, FAKE_BYTES);
    fake->inserted = true;
    co_queue_init(&fake->held);
    return 0;
}

static void fake_close(BlockDriverState *bs)
{
}

/* Every data operation passes here before it touches anything. */
static int fake_begin(BlockDriverState *bs, _Atomic int *count)
{
    struct fake *fake = bdrv_opaque(bs);

    atomic_fetch_add(count, 1);
    atomic_fetch_add(&fake->running, 1);
    if (atomic_load(&fake->frozen)) {
        atomic_fetch_add(&fake->violations, 1);
    }
    while (fake->hold) {
        co_queue_wait(&fake->held, NULL);
    }
    if (fake->turn) {
        aio_co_schedule(aio_context_current(), coroutine_self());
        coroutine_yield();
        if (atomic_load(&fake->frozen)) {
            atomic_fetch_add(&fake->violations, 1);
        }
    }
    return fake->fail;
}

static int fake_end(BlockDriverState *bs, int ret)
{
    struct fake *fake = bdrv_opaque(bs);

    atomic_fetch_sub(&fake->running, 1);
    return ret;
}

static int fake_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct fake *fake = bdrv_opaque(bs);
    int ret = fake_begin(bs, &fake->reads);

    if (ret == 0) {
        iov_from_buf(req->iov, req->niov, req->iov_offset, fake->data + req->offset, req->bytes);
    }
    return fake_end(bs, ret);
}

static int fake_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct fake *fake = bdrv_opaque(bs);
    int ret = fake_begin(bs, &fake->writes);

    atomic_store(&fake->last_flags, req->flags);
    if (ret == 0) {
        iov_to_buf(req->iov, req->niov, req->iov_offset, fake->data + req->offset, req->bytes);
    }
    return fake_end(bs, ret);
}

static int fake_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                unsigned flags)
{
    struct fake *fake = bdrv_opaque(bs);
    int ret = fake_begin(bs, &fake->zeroes);

    atomic_store(&fake->last_flags, flags);
    if (ret == 0) {
        memset(fake->data + offset, 0, bytes);
    }
    return fake_end(bs, ret);
}

static int fake_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    struct fake *fake = bdrv_opaque(bs);

    return fake_end(bs, fake_begin(bs, &fake->discards));
}

static int fake_flush_co(BlockDriverState *bs)
{
    struct fake *fake = bdrv_opaque(bs);

    return fake_end(bs, fake_begin(bs, &fake->flushes));
}

static int fake_ioctl_co(BlockDriverState *bs, unsigned long request, void *buf)
{
    struct fake *fake = bdrv_opaque(bs);
    int ret = fake_begin(bs, &fake->ioctls);

    fake->last_ioctl = request;
    if (ret == 0 && buf != NULL) {
        *(int *)buf = 42;
    }
    return fake_end(bs, ret);
}

static int fake_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                            enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    struct fake *fake = bdrv_opaque(bs);
    int ret = fake_begin(bs, &fake->truncates);

    if (ret == 0 && size_bytes > FAKE_BYTES) {
        ret = -EFBIG;
    }
    if (ret == 0) {
        atomic_store(&fake->size_bytes, (int64_t)size_bytes);
    } else {
        error_set_errno(errp, -ret, "fake refuses");
    }
    return fake_end(bs, ret);
}

static int64_t fake_getlength(BlockDriverState *bs)
{
    struct fake *fake = bdrv_opaque(bs);

    return atomic_load(&fake->size_bytes);
}

static int fake_probe_blocksizes(BlockDriverState *bs, struct bdrv_block_sizes *ret_sizes)
{
    *ret_sizes = (struct bdrv_block_sizes){.phys = 4096, .log = 512};
    return 0;
}

static int fake_probe_geometry(BlockDriverState *bs, struct bdrv_geometry *ret_geo)
{
    *ret_geo = (struct bdrv_geometry){.heads = 16, .sectors = 63, .cylinders = 2};
    return 0;
}

static void fake_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    struct fake *fake = bdrv_opaque(bs);

    fake->invalidated++;
}

static bool cd_is_inserted(BlockDriverState *bs)
{
    return fake_of(bs)->inserted;
}

static int fake_vmstate_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct fake *fake = bdrv_opaque(bs);
    uint8_t *at = fake->vmstate + req->offset;

    assert_true(req->offset + req->bytes <= FAKE_VMSTATE_BYTES);
    if (fake->fail < 0) {
        return fake->fail;
    }
    if (req->op == BDRV_OP_READ) {
        iov_from_buf(req->iov, req->niov, req->iov_offset, at, req->bytes);
    } else {
        iov_to_buf(req->iov, req->niov, req->iov_offset, at, req->bytes);
    }
    return 0;
}

static void cd_lock_medium(BlockDriverState *bs, bool locked)
{
    fake_of(bs)->locked += locked ? 1 : -1;
}

static void cd_eject(BlockDriverState *bs, bool eject_flag)
{
    fake_of(bs)->ejected += eject_flag ? 1 : -1;
}

static int filter_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    return bdrv_open_child(bs, NULL, options, "file", BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY, false,
                           errp) != NULL
               ? 0
               : -EINVAL;
}

static void filter_limits(BlockDriverState *bs, struct bdrv_limits *limits)
{
    limits->max_transfer = 64 << 10;
    limits->opt_mem_alignment = 16384;
}

#define FAKE_OPERATIONS                                                                            \
    .instance_size = sizeof(struct fake),                                                          \
    .caps = BDRV_CAP_PROTOCOL | BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA | BDRV_CAP_ZERO_UNMAP,            \
    .open = fake_open_node, .close = fake_close, .read_co = fake_read_co,                          \
    .write_co = fake_write_co, .write_zeroes_co = fake_write_zeroes_co,                            \
    .discard_co = fake_discard_co, .flush_co = fake_flush_co, .ioctl_co = fake_ioctl_co,           \
    .truncate_co = fake_truncate_co, .getlength = fake_getlength

static const BlockDriver driver_fake = {
    .format_name = "fake",
    FAKE_OPERATIONS,
    .save_vmstate_co = fake_vmstate_co,
    .load_vmstate_co = fake_vmstate_co,
};
static const BlockDriver driver_fake_cd = {
    .format_name = "fake-cd",
    FAKE_OPERATIONS,
    .is_inserted = cd_is_inserted,
    .lock_medium = cd_lock_medium,
    .eject = cd_eject,
    .probe_blocksizes = fake_probe_blocksizes,
    .probe_geometry = fake_probe_geometry,
    .invalidate_cache = fake_invalidate_cache,
};
static const BlockDriver driver_fake_filter = {
    .format_name = "fake-filter",
    .caps = BDRV_CAP_FILTER,
    .open = filter_open,
    .close = fake_close,
    .refresh_limits = filter_limits,
};

const BlockDriver *const bdrv_drivers[] = {&driver_fake, &driver_fake_cd, &driver_fake_filter,
                                           NULL};

static void env_event(void *opaque, const struct platter_event *event)
{
    struct env *env = opaque;
    size_t at = strlen(env->events);
    char *to = env->events + at;
    size_t room = sizeof(env->events) - at;

    switch (event->type) {
    case PLATTER_EVENT_DEVICE_TRAY_MOVED:
        snprintf(to, room, "tray %s %s; ", event->u.tray_moved.device,
                 event->u.tray_moved.tray_open ? "open" : "closed");
        break;
    case PLATTER_EVENT_BLOCK_IO_ERROR:
        snprintf(to, room, "error %s %s %s%s; ", event->u.io_error.device,
                 event->u.io_error.is_read ? "read" : "write", event->u.io_error.action,
                 !event->u.io_error.has_nospace ? ""
                 : event->u.io_error.nospace    ? " nospace"
                                                : " other");
        break;
    case PLATTER_EVENT_STOP:
        snprintf(to, room, "stop; ");
        break;
    case PLATTER_EVENT_RESUME:
        snprintf(to, room, "resume; ");
        break;
    default:
        break;
    }
}

int env_setup(void **state)
{
    struct env *env = calloc(1, sizeof(*env));
    struct platter_options po = {.size = sizeof(po), .event_cb = env_event};

    assert_non_null(env);
    po.event_opaque = env;
    env->pl = platter_new(&po, NULL);
    assert_non_null(env->pl);
    env->ctx = platter_get_main_context(env->pl);
    *state = env;
    return 0;
}

int env_teardown(void **state)
{
    struct env *env = *state;

    platter_free(env->pl);
    free(env);
    return 0;
}

BlockDriverState *fake_open(Platter *pl, const char *driver, const char *node_name, int flags)
{
    BlockOptions *options = block_options_new();
    Error *err = NULL;
    BlockDriverState *bs;

    assert_int_equal(block_options_set_str(options, "driver", driver), 0);
    if (strcmp(driver, "fake-filter") == 0) {
        assert_int_equal(block_options_set_str(options, "file.driver", "fake-cd"), 0);
    }
    if (node_name != NULL) {
        assert_int_equal(block_options_set_str(options, "node-name", node_name), 0);
    }
    bs = bdrv_open(pl, NULL, NULL, options, flags, &err);
    if (bs == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    return bs;
}

struct fake *fake_of(BlockDriverState *bs)
{
    while (bdrv_primary_child(bs) != NULL) {
        bs = bdrv_edge_node(bdrv_primary_child(bs));
    }
    return bdrv_opaque(bs);
}

BlockBackend *fake_blk(Platter *pl, const char *name)
{
    BlockDriverState *bs = fake_open(pl, "fake", NULL, BDRV_O_RDWR | BDRV_O_UNMAP);
    BlockBackend *blk = blk_new(pl, name, NULL);

    assert_non_null(blk);
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    bdrv_unref(bs);
    return blk;
}

void fake_release(struct fake *fake)
{
    fake->hold = false;
    co_queue_wake_all(&fake->held);
}

void env_poll(struct env *env)
{
    while (aio_poll(env->ctx, false)) {
    }
}

void done_cb(void *opaque, int ret)
{
    struct done *done = opaque;

    done->calls++;
    done->ret = ret;
    done->ctx = aio_context_current();
}

void done_wait(struct done *done)
{
    while (done->calls == 0) {
        aio_poll(aio_context_current(), true);
    }
}

struct co_run {
    int (*fn)(void *arg);
    void *arg;
    int ret;
    bool done;
};

static void co_run_entry(void *opaque)
{
    struct co_run *run = opaque;

    run->ret = run->fn(run->arg);
    run->done = true;
}

int in_co(int (*fn)(void *arg), void *arg)
{
    struct co_run run = {.fn = fn, .arg = arg};
    Coroutine *co = coroutine_create(co_run_entry, &run);

    assert_non_null(co);
    coroutine_enter(co);
    while (!run.done) {
        aio_poll(aio_context_current(), true);
    }
    return run.ret;
}
