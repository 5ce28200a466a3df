/* SPDX-License-Identifier: MIT */
/*
 * What a disk may hold, byte by byte, given what was asked of it and what it answered. Each write
 * is a version (1..63, then again from 1); a byte knows the versions it may show now and those it
 * may show after a power cut. Thread safe.
 *
 * Bytes are written so that a version and a sector number modulo 4 can be read from them; zero is
 * version 0.
 */
#ifndef TESTS_SIM_SHADOW_H
#define TESTS_SIM_SHADOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/thread.h"

struct shadow {
    struct os_mutex lock; /* guards all below */
    uint64_t size;        /* of the arrays: the largest disk */
    uint64_t *now;
    uint64_t *after;
    uint64_t *since; /* versions begun since the flush in flight began */
    uint64_t *covered;
    unsigned next_version;
    uint64_t generation; /* goes up when what may be there after a cut changes */
};

bool shadow_init(struct shadow *s, uint64_t size);
void shadow_fini(struct shadow *s);

/* Fill buf with what version `version` writes at offset. */
void shadow_fill(uint8_t *buf, uint64_t offset, size_t bytes, unsigned version);
/* A change of [offset, +bytes) is about to be asked for: a new version, or 0 for zeroes. */
unsigned shadow_begin(struct shadow *s, uint64_t offset, uint64_t bytes, bool zero);
/* The same with a version that is elsewhere already: a copy. */
void shadow_begin_copy(struct shadow *s, uint64_t offset, uint64_t bytes, unsigned version);
/* It was answered. ok: the version is there; fua: and durable. Not ok: it may be there or not. */
void shadow_end(struct shadow *s, uint64_t offset, uint64_t bytes, unsigned version, bool ok,
                bool fua);
/* A flush; one at a time. */
void shadow_flush_begin(struct shadow *s);
void shadow_flush_end(struct shadow *s, bool ok);

/* The first byte at offset that holds what it may not, or -1. */
int64_t shadow_check_now(struct shadow *s, uint64_t offset, const uint8_t *buf, size_t bytes);
int64_t shadow_check_after(struct shadow *s, uint64_t offset, const uint8_t *buf, size_t bytes);
/* The disk was closed and opened again: a flush from now on is no promise for what was written
 * before, where that was not made durable. */
void shadow_reopened(struct shadow *s);
/* The same with sets of versions that the caller kept, one for each byte of buf. */
int64_t shadow_check_sets(const uint64_t *may, uint64_t offset, const uint8_t *buf, size_t bytes);

#endif
