/* SPDX-License-Identifier: MIT */
/* What a disk may hold; see the header. */
#include "shadow.h"

#include <stdlib.h>
#include <string.h>

#define VERSIONS 64
#define BIT(v) (UINT64_C(1) << (v))

bool shadow_init(struct shadow *s, uint64_t size)
{
    memset(s, 0, sizeof(*s));
    os_mutex_init(&s->lock);
    s->size = size;
    s->now = malloc(size * sizeof(uint64_t));
    s->after = malloc(size * sizeof(uint64_t));
    s->since = calloc(size, sizeof(uint64_t));
    s->covered = calloc(size, sizeof(uint64_t));
    s->next_version = 1;
    if (!s->now || !s->after || !s->since || !s->covered) {
        shadow_fini(s);
        return false;
    }
    for (uint64_t i = 0; i < size; i++) {
        s->now[i] = BIT(0);
        s->after[i] = BIT(0);
    }
    return true;
}

void shadow_fini(struct shadow *s)
{
    free(s->now);
    free(s->after);
    free(s->since);
    free(s->covered);
    os_mutex_fini(&s->lock);
}

static uint8_t byte_of(uint64_t offset, unsigned version)
{
    return version ? (uint8_t)(version | (offset / 512 % 4) << 6) : 0;
}

void shadow_fill(uint8_t *buf, uint64_t offset, size_t bytes, unsigned version)
{
    for (size_t i = 0; i < bytes; i++) {
        buf[i] = byte_of(offset + i, version);
    }
}

static void allow(struct shadow *s, uint64_t offset, uint64_t bytes, unsigned version)
{
    for (uint64_t i = offset; i < offset + bytes && i < s->size; i++) {
        s->now[i] |= BIT(version);
        s->after[i] |= BIT(version);
        s->since[i] |= BIT(version);
    }
    s->generation++;
}

unsigned shadow_begin(struct shadow *s, uint64_t offset, uint64_t bytes, bool zero)
{
    unsigned version = 0;

    os_mutex_lock(&s->lock);
    if (!zero) {
        version = s->next_version;
        s->next_version = version + 1 < VERSIONS ? version + 1 : 1;
    }
    allow(s, offset, bytes, version);
    os_mutex_unlock(&s->lock);
    return version;
}

void shadow_begin_copy(struct shadow *s, uint64_t offset, uint64_t bytes, unsigned version)
{
    os_mutex_lock(&s->lock);
    allow(s, offset, bytes, version);
    os_mutex_unlock(&s->lock);
}

void shadow_end(struct shadow *s, uint64_t offset, uint64_t bytes, unsigned version, bool ok,
                bool fua)
{
    os_mutex_lock(&s->lock);
    for (uint64_t i = offset; ok && i < offset + bytes && i < s->size; i++) {
        s->now[i] = BIT(version);
        s->after[i] = fua ? BIT(version) : s->after[i];
    }
    s->generation++;
    os_mutex_unlock(&s->lock);
}

void shadow_flush_begin(struct shadow *s)
{
    os_mutex_lock(&s->lock);
    memcpy(s->covered, s->now, s->size * sizeof(uint64_t));
    memset(s->since, 0, s->size * sizeof(uint64_t));
    os_mutex_unlock(&s->lock);
}

void shadow_flush_end(struct shadow *s, bool ok)
{
    os_mutex_lock(&s->lock);
    for (uint64_t i = 0; ok && i < s->size; i++) {
        s->after[i] &= s->covered[i] | s->since[i];
    }
    s->generation++;
    os_mutex_unlock(&s->lock);
}

void shadow_reopened(struct shadow *s)
{
    os_mutex_lock(&s->lock);
    for (uint64_t i = 0; i < s->size; i++) {
        s->now[i] |= s->after[i];
    }
    os_mutex_unlock(&s->lock);
}

int64_t shadow_check_sets(const uint64_t *may, uint64_t offset, const uint8_t *buf, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        unsigned version = buf[i] & 63;

        if (!(may[i] & BIT(version)) || buf[i] != byte_of(offset + i, version)) {
            return (int64_t)(offset + i);
        }
    }
    return -1;
}

static int64_t check(const struct shadow *s, const uint64_t *may, uint64_t offset,
                     const uint8_t *buf, size_t bytes)
{
    uint64_t room = offset < s->size ? s->size - offset : 0;

    return shadow_check_sets(may + offset, offset, buf, bytes < room ? bytes : (size_t)room);
}

int64_t shadow_check_now(struct shadow *s, uint64_t offset, const uint8_t *buf, size_t bytes)
{
    int64_t at;

    os_mutex_lock(&s->lock);
    at = check(s, s->now, offset, buf, bytes);
    os_mutex_unlock(&s->lock);
    return at;
}

int64_t shadow_check_after(struct shadow *s, uint64_t offset, const uint8_t *buf, size_t bytes)
{
    int64_t at;

    os_mutex_lock(&s->lock);
    at = check(s, s->after, offset, buf, bytes);
    os_mutex_unlock(&s->lock);
    return at;
}
