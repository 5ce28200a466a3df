/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the backend share: a driver that keeps a small disk in memory and does as it is
 * told (fail, hold, count), an instance around it, and completions that count.
 */
#ifndef PLATTER_TESTS_BACKEND_FAKE_H
#define PLATTER_TESTS_BACKEND_FAKE_H

#include "../cmocka_all.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <platter/backend.h>

#include "backend/backend_int.h"
#include "block/driver.h"

#define FAKE_BYTES (1 << 20)
#define FAKE_SECTORS (FAKE_BYTES / 512)
#define FAKE_VMSTATE_BYTES 64

/* The state of a node of driver "fake" or "fake-cd". */
struct fake {
    uint8_t data[FAKE_BYTES];
    uint8_t vmstate[FAKE_VMSTATE_BYTES]; /* of "fake" only */
    _Atomic int64_t size_bytes;
    _Atomic int reads, writes, zeroes, discards, flushes, ioctls, truncates;
    _Atomic unsigned last_flags; /* of the last write or write zeroes */
    _Atomic int running;
    int fail; /* what data operations answer; 0: they work */
    bool hold;
    bool turn; /* take a turn of the loop, as storage would */
    CoQueue held;
    _Atomic bool frozen;    /* a test says: nothing may run now */
    _Atomic int violations; /* operations that began while frozen */
    bool inserted;
    int locked;
    int ejected;
    int invalidated;
    unsigned long last_ioctl;
};

struct env {
    Platter *pl;
    AioContext *ctx;   /* main */
    char events[1024]; /* what the instance raised, in order: "stop; tray cd open; ..." */
};

int env_setup(void **state);
int env_teardown(void **state);

/* A node; driver "fake", "fake-cd" or "fake-filter" (over a fake-cd); node_name may be NULL. */
BlockDriverState *fake_open(Platter *pl, const char *driver, const char *node_name, int flags);
struct fake *fake_of(BlockDriverState *bs);
/* A backend with a writable fake. */
BlockBackend *fake_blk(Platter *pl, const char *name);
void fake_release(struct fake *fake); /* let go what is held */

/* Poll until nothing is left to do at once. */
void env_poll(struct env *env);

struct done {
    int calls;
    int ret;
    AioContext *ctx; /* where the callback ran */
};
void done_cb(void *opaque, int ret);
void done_wait(struct done *done);

/* Run fn in a coroutine of the main context until it ends; what it returns. */
int in_co(int (*fn)(void *arg), void *arg);

#define expect_error(err, text)                                                                    \
    do {                                                                                           \
        assert_non_null(err);                                                                      \
        assert_string_equal(error_get_pretty(err), text);                                          \
        error_free(err);                                                                           \
        (err) = NULL;                                                                              \
    } while (0)

#endif
