/* SPDX-License-Identifier: MIT */
/*
 * What a read of the null driver costs at a backend, with what a device has around it: run under
 * callgrind with two counts and take the difference.
 *
 *   bench_backend plain|accounting|throttle|both COUNT
 *
 * accounting: each request is counted, as a device does it. throttle: the backend is in a group
 * whose limits are all off.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/accounting.h>
#include <platter/backend.h>

#define DEPTH 64
#define BYTES 4096

struct slot {
    struct bench *bench;
    struct iovec iov;
    struct iov_view view;
    BlockAcctCookie cookie;
    uint8_t *buf;
};

struct bench {
    BlockBackend *blk;
    BlockAcctStats *stats; /* of blk; NULL: do not count */
    long left;             /* to be submitted */
    long running;          /* slots in use */
    struct slot slots[DEPTH];
};

static void submit(struct slot *slot);

static void done(void *opaque, int ret)
{
    struct slot *slot = opaque;
    struct bench *b = slot->bench;

    if (ret < 0) {
        exit(3);
    }
    if (b->stats) {
        block_acct_done(b->stats, &slot->cookie);
    }
    if (b->left > 0) {
        submit(slot);
    } else {
        b->running--;
    }
}

static void submit(struct slot *slot)
{
    struct bench *b = slot->bench;

    b->left--;
    if (b->stats) {
        block_acct_start(b->stats, &slot->cookie, BYTES, BLOCK_ACCT_READ);
    }
    if (!blk_aio_preadv(b->blk, 0, &slot->view, 0, done, slot)) {
        exit(4);
    }
}

static void run(struct bench *b, AioContext *ctx)
{
    for (int i = 0; i < DEPTH && b->left > 0; i++) {
        struct slot *slot = &b->slots[i];

        slot->bench = b;
        slot->buf = malloc(BYTES);
        slot->iov = (struct iovec){slot->buf, BYTES};
        slot->view = (struct iov_view){&slot->iov, 1, BYTES};
        b->running++;
        submit(slot);
    }
    while (b->running > 0) {
        aio_poll(ctx, true);
    }
    for (int i = 0; i < DEPTH; i++) {
        free(b->slots[i].buf);
    }
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    BlockOptions *options = block_options_new();
    Platter *pl = platter_new(NULL, NULL);
    bool throttled;
    bool counted;

    if (argc != 3 || !pl || !options || block_options_set_str(options, "driver", "null-co") < 0) {
        return 2;
    }
    throttled = strcmp(argv[1], "throttle") == 0 || strcmp(argv[1], "both") == 0;
    counted = strcmp(argv[1], "accounting") == 0 || strcmp(argv[1], "both") == 0;
    b.left = atol(argv[2]);
    b.blk = blk_new_open(pl, "disk", NULL, NULL, options, 0, NULL);
    if (!b.blk || (throttled && blk_io_limits_enable(b.blk, "group", NULL) < 0)) {
        return 2;
    }
    b.stats = counted ? blk_get_stats(b.blk) : NULL;
    run(&b, platter_get_main_context(pl));
    blk_unref(b.blk);
    platter_free(pl);
    return 0;
}
