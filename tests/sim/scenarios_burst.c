/* SPDX-License-Identifier: MIT */
/* What the fault gates do with many requests in flight. */
#include <errno.h>

#include "scenarios.h"

#define KIB 1024u
#define BURST 12

struct burst {
    struct scenario_run *r;
    unsigned left;
    struct burst_one {
        struct burst *burst;
        unsigned version;
        struct iovec iov;
        struct iov_view view;
        uint8_t bytes[4096];
    } one[BURST];
};

static void burst_done(void *opaque, int ret)
{
    struct burst_one *one = opaque;
    struct burst *b = one->burst;
    unsigned i = (unsigned)(one - b->one);

    shadow_end(&b->r->h.shadow, i * 4096, 4096, one->version, ret == 0, i % 4 == 3);
    scenario_result(b->r, "burst", ret);
    b->left--;
}

static void burst_flushed(void *opaque, int ret)
{
    struct burst *b = opaque;

    scenario_result(b->r, "burst flush", ret);
    b->left--;
}

static void burst_send(struct burst *b, struct scenario_run *r)
{
    *b = (struct burst){.r = r};
    for (unsigned i = 0; i < BURST; i++) {
        struct burst_one *one = &b->one[i];

        one->burst = b;
        one->version = shadow_begin(&r->h.shadow, i * 4096, 4096, false);
        shadow_fill(one->bytes, i * 4096, 4096, one->version);
        one->iov = (struct iovec){.iov_base = one->bytes, .iov_len = 4096};
        one->view = (struct iov_view){.iov = &one->iov, .niov = 1, .bytes = 4096};
        if (blk_aio_pwritev(r->h.blk, i * 4096, &one->view, i % 4 == 3 ? BDRV_REQ_FUA : 0,
                            burst_done, one)) {
            b->left++;
        } else {
            OP(r, -ENOMEM);
        }
    }
}

void scenario_burst(struct scenario_run *r)
{
    static struct burst b;

    burst_send(&b, r);
    if (blk_aio_flush(r->h.blk, burst_flushed, &b)) {
        b.left++;
    }
    while (b.left > 0) {
        aio_poll(platter_get_main_context(r->h.pl), true);
    }
    OP(r, h_flush(&r->h));
    OP(r, h_read(&r->h, 0, 48 * KIB));
}

void scenario_burst_then_drain(struct scenario_run *r)
{
    static struct burst b;

    burst_send(&b, r);
    blk_drain(r->h.blk);
    if (b.left != 0) {
        scenario_wrong(r, "a drain left requests in flight");
    }
}
