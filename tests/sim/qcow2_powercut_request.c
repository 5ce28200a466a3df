/* SPDX-License-Identifier: MIT */
/* The requests of the workloads: several in flight, none touching what another one touches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "loop/internal.h"
#include "qcow2_powercut.h"

#define BUSY_UNITS 64

static const char *const kind_names[] = {"read", "write", "zero", "discard", "compress", "flush"};

static uint64_t units_of(const struct powercut *t, uint64_t offset, uint64_t bytes)
{
    uint64_t unit = t->h.shadow.size / BUSY_UNITS;
    uint64_t cluster = t->config->cluster_bytes;
    uint64_t first = offset / cluster * cluster / unit;
    uint64_t last = (qv_up(offset + bytes, cluster) - 1) / unit;
    uint64_t mask = 0;

    for (uint64_t at = first; at <= last && at < BUSY_UNITS; at++) {
        mask |= UINT64_C(1) << at;
    }
    return mask;
}

static bool flushes_itself(const struct powercut *t, const struct request *r)
{
    return r->fua || t->config->write_through;
}

static void completed(void *opaque, int ret)
{
    struct request *r = opaque;
    struct powercut *t = r->test;

    pc_trace(t, "%s %llu done: %d", kind_names[r->kind], (unsigned long long)r->offset, ret);
    if (ret < 0) {
        pc_wrong(t, "request of kind %d at %llu + %llu: %s", (int)r->kind,
                 (unsigned long long)r->offset, (unsigned long long)r->bytes, strerror(-ret));
    }
    if (r->kind == FLUSH) {
        shadow_flush_end(&t->h.shadow, ret == 0);
        t->flushing = false;
    } else if (r->kind == READ) {
        int64_t at = shadow_check_now(&t->h.shadow, r->offset, r->buf, r->bytes);

        if (ret == 0 && at >= 0) {
            pc_wrong(t, "a read gave wrong bytes at %lld", (long long)at);
        }
    } else if (r->kind != DISCARD) {
        shadow_end(&t->h.shadow, r->offset, r->bytes, r->version, ret == 0, flushes_itself(t, r));
    }
    t->busy &= r->kind == FLUSH ? UINT64_MAX : ~units_of(t, r->offset, r->bytes);
    free(r->buf);
    r->buf = NULL;
    r->active = false;
}

/* A range that no request in flight touches, or false. */
static bool pick_range(struct powercut *t, struct request *r)
{
    const struct powercut_config *c = t->config;
    uint64_t disk = t->e.disk_bytes;
    uint64_t grain = r->kind == COMPRESS ? c->cluster_bytes : c->grain ? c->grain : 512;
    uint64_t longest = sim_rng_percent(&t->rng, 15) ? disk / 4 : c->cluster_bytes * 3 / 2;

    if (disk < grain) {
        return false;
    }
    longest = longest > grain ? longest : grain;
    r->offset = sim_rng_below(&t->rng, disk) / grain * grain;
    r->bytes = (1 + sim_rng_below(&t->rng, longest) / grain) * grain;
    if (r->kind == COMPRESS) { /* threads compress in parallel, in an order that no seed knows */
        r->bytes = grain * (1 + (c->one_worker ? sim_rng_below(&t->rng, 3) : 0));
    }
    if (r->bytes > disk - r->offset) {
        r->bytes = disk - r->offset;
    }
    return !(t->busy & units_of(t, r->offset, r->bytes));
}

static BlockAIOCB *submit(struct powercut *t, struct request *r)
{
    BlockBackend *blk = t->h.blk;
    int64_t offset = (int64_t)r->offset;
    int flags = r->fua ? BDRV_REQ_FUA : 0;

    switch (r->kind) {
    case READ:
        return blk_aio_preadv(blk, offset, &r->view, 0, completed, r);
    case WRITE:
        return blk_aio_pwritev(blk, offset, &r->view, flags, completed, r);
    case COMPRESS:
        return blk_aio_pwritev(blk, offset, &r->view, flags | BDRV_REQ_WRITE_COMPRESSED, completed,
                               r);
    case ZERO:
        flags |= sim_rng_percent(&t->rng, 50) ? BDRV_REQ_MAY_UNMAP : 0;
        return blk_aio_pwrite_zeroes(blk, offset, (int64_t)r->bytes, flags, completed, r);
    case DISCARD:
        return blk_aio_pdiscard(blk, offset, (int64_t)r->bytes, completed, r);
    default:
        return blk_aio_flush(blk, completed, r);
    }
}

static bool compresses(const struct powercut *t)
{
    for (unsigned i = 0; i < PC_IN_FLIGHT; i++) {
        if (t->requests[i].active && t->requests[i].kind == COMPRESS && !t->config->one_worker) {
            return true;
        }
    }
    return false;
}

static enum kind pick_kind(struct powercut *t)
{
    unsigned what = (unsigned)sim_rng_below(&t->rng, 100);

    if (sim_rng_percent(&t->rng, t->config->compressed_percent) && !compresses(t)) {
        return COMPRESS;
    }
    return what < 6 ? READ : what < 62 ? WRITE : what < 76 ? ZERO : what < 86 ? DISCARD : FLUSH;
}

/* A version that the backing file's bytes cannot be taken for. */
static unsigned begin_version(struct powercut *t, const struct request *r)
{
    bool zero = r->kind == ZERO || r->kind == DISCARD;

    if (!zero && t->h.shadow.next_version == EXPECT_BACKING_VERSION) {
        t->h.shadow.next_version = 1;
    }
    return shadow_begin(&t->h.shadow, r->offset, r->bytes, zero);
}

bool pc_start(struct powercut *t, struct request *r)
{
    *r = (struct request){.test = t, .kind = pick_kind(t), .fua = sim_rng_percent(&t->rng, 10)};
    if (r->kind == FLUSH ? t->flushing : !pick_range(t, r)) {
        return false;
    }
    if (r->kind == FLUSH) {
        shadow_flush_begin(&t->h.shadow);
        t->flushing = true;
    } else {
        t->busy |= units_of(t, r->offset, r->bytes);
    }
    if (r->kind != FLUSH && r->kind != READ) {
        r->version = begin_version(t, r);
        expect_touch(&t->e, r->offset, r->bytes);
    }
    if (r->kind == READ || r->kind == WRITE || r->kind == COMPRESS) {
        r->buf = malloc(r->bytes);
        assert_non_null(r->buf);
        shadow_fill(r->buf, r->offset, r->bytes, r->version);
        r->iov = (struct iovec){.iov_base = r->buf, .iov_len = r->bytes};
        r->view = (struct iov_view){.iov = &r->iov, .niov = 1, .bytes = r->bytes};
    }
    r->active = true;
    pc_trace(t, "%s %llu + %llu version %u%s", kind_names[r->kind], (unsigned long long)r->offset,
             (unsigned long long)r->bytes, r->version, r->fua ? " fua" : "");
    assert_non_null(submit(t, r));
    return true;
}

unsigned pc_in_flight(const struct powercut *t)
{
    unsigned n = 0;

    for (unsigned i = 0; i < PC_IN_FLIGHT; i++) {
        n += t->requests[i].active;
    }
    return n;
}

/* What can happen without time passing has happened. */
void pc_settle(struct powercut *t)
{
    AioContext *ctx = platter_get_main_context(t->h.pl);

    bool settled, ran;

    do { /* in this order: what ends between the two is seen */
        settled = sim_world_settled(t->h.world);
        ran = aio_poll(ctx, false);
    } while (ran || !settled);
}

/* Time passes until something has come. */
void pc_pass_time(struct powercut *t)
{
    aio_poll(platter_get_main_context(t->h.pl), true);
    pc_settle(t);
}

void pc_drain(struct powercut *t)
{
    while (pc_in_flight(t) > 0) {
        pc_pass_time(t);
    }
}
