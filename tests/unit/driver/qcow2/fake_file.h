/* SPDX-License-Identifier: MIT */
/*
 * A file in memory for tests of single files of the qcow2 driver: the block floor's calls and the
 * header's writer, without the block floor. Everything is done at once; a call can be made to fail.
 */
#ifndef PLATTER_TESTS_QCOW2_FAKE_FILE_H
#define PLATTER_TESTS_QCOW2_FAKE_FILE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <platter/aio.h>

#include "driver/format/qcow2/qcow2.h"
#include "util/budget.h"

#define FAKE_FILE_MAX (UINT64_C(64) << 30)

struct fake_file {
    uint8_t *data; /* FAKE_FILE_MAX, sparse */
    uint64_t bytes;
    uint64_t highest;   /* all beyond was never written */
    unsigned calls;     /* reads, writes, flushes, header writes */
    unsigned fail_call; /* that one fails (counted from 1); 0: none */
    bool fail_for_ever; /* and all later ones */
    unsigned writes;
    unsigned flushes;
    unsigned header_writes;
    uint64_t header_bits_set;
    bool corrupt;
    bool corrupt_fatal;
    char message[256];
    uint64_t last_write_offset;
    uint64_t last_write_bytes;
    struct mem_budget budget;
    AioContext *ctx;
    int open_flags;
};

extern struct fake_file fake;

/* An empty image as the reference lays it out: header, refcount table, refcount block, L1 table.
 * s is ready but for what the test loads. */
void fake_image(struct qcow2 *s, unsigned cluster_bits, unsigned refcount_order,
                uint64_t disk_bytes);
/* Header fields of s to the file, as fields of the fake's own header (offsets as specified). */
void fake_write_header(const struct qcow2 *s);
void fake_fini(struct qcow2 *s);
/* Run fn(opaque) in a coroutine; it must end at once. */
void fake_run(void (*fn)(void *opaque), void *opaque);

static inline uint64_t fake_be64(uint64_t offset)
{
    return load_be64(fake.data + offset);
}

#endif
