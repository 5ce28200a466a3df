/* SPDX-License-Identifier: MIT */
/* What an image has of bitmaps, seen by the second reader, also after cuts of power. */
#include "qcow2_bitmaps.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUBSETS_OF_PENDING 3

const char *const bm_names[MAPS] = {"one", "two", "a third name"};

void bm_wrong(struct bitmaps_test *t, const char *fmt, ...)
{
    va_list ap;

    if (t->wrong[0] == '\0') {
        va_start(ap, fmt);
        vsnprintf(t->wrong, sizeof(t->wrong), fmt, ap);
        va_end(ap);
    }
}

static bool same_bits(struct bitmaps_test *t, const struct qv_bitmap *b, const struct stored *s)
{
    uint64_t count = (s->disk_bytes + (1u << s->granularity_bits) - 1) >> s->granularity_bits;

    for (uint64_t i = 0; i < count; i++) {
        if (qv_bitmap_bit(&t->im, b, i) != s->bits[i]) {
            return false;
        }
    }
    return true;
}

/* Whether all that is clean is as it was. */
static bool clean_is_unchanged(struct bitmaps_test *t, const struct stored *s)
{
    uint8_t buf[GRANULE];

    for (uint64_t at = 0; at + GRANULE <= s->disk_bytes; at += GRANULE) {
        if (s->bits[at >> s->granularity_bits] || s->tainted[at / GRANULE]) {
            continue;
        }
        if (!qv_read(&t->im, -1, at, buf, GRANULE) || memcmp(buf, s->base + at, GRANULE) != 0) {
            return false;
        }
    }
    return true;
}

static const char *map_fault(struct bitmaps_test *t, const struct qv_bitmap *b,
                             const struct stored *s)
{
    if (b->granularity_bits != s->granularity_bits) {
        return "another granularity";
    }
    if (b->flags & 1) {
        return NULL;
    }
    if (s->lost) {
        return "one that was lost is not flagged";
    }
    if (((b->flags & 2) != 0) != s->automatic) {
        return "another auto flag";
    }
    if (t->im.h.disk_bytes != s->disk_bytes) {
        return "not flagged on a disk of another size";
    }
    if (!same_bits(t, b, s)) {
        return "other bits";
    }
    return s->automatic && !clean_is_unchanged(t, s) ? "clean for a dirty range" : NULL;
}

/* Why t->im does not have this directory; NULL: it has. */
static const char *directory_fault(struct bitmaps_test *t, const struct directory *d)
{
    uint32_t count = 0;

    for (int m = 0; m < MAPS; m++) {
        const struct qv_bitmap *b = qv_bitmap_find(&t->im, bm_names[m]);
        const char *fault;

        if (!d->maps[m].exists) {
            continue;
        }
        count++;
        fault = b != NULL ? map_fault(t, b, &d->maps[m]) : "a bitmap is gone";
        if (fault != NULL) {
            return fault;
        }
    }
    return t->im.bitmap_count == count ? NULL : "a bitmap that should not be there";
}

bool bm_image_of(struct bitmaps_test *t, const struct sim_disk *disk)
{
    size_t bytes = sim_disk_size(disk);

    if (bytes > t->buf_room) {
        free(t->buf);
        t->buf = malloc(bytes);
        t->buf_room = t->buf != NULL ? bytes : 0;
    }
    if (t->buf == NULL) {
        bm_wrong(t, "no memory");
        return false;
    }
    sim_disk_read(disk, 0, t->buf, bytes);
    if (!qv_parse(&t->im, (struct qv_bytes){t->buf, bytes}, (struct qv_bytes){0},
                  (struct qv_bytes){0})) {
        bm_wrong(t, "cannot be opened: %s", t->im.text);
        return false;
    }
    qv_verify(&t->im);
    if (!qv_sound(&t->im)) {
        bm_wrong(t, "structure: %s", t->im.text);
        return false;
    }
    return true;
}

int bm_candidate_of(struct bitmaps_test *t, const char **ret_fault)
{
    *ret_fault = "no candidate";
    for (int i = CANDIDATES - 1; i >= 0; i--) {
        if (t->known[i].valid) {
            const char *fault = directory_fault(t, &t->known[i]);

            if (fault == NULL) {
                return i;
            }
            *ret_fault = fault;
        }
    }
    return -1;
}

static void judge(struct bitmaps_test *t, const struct sim_disk *disk)
{
    const char *fault = "no image";

    harness_own++;
    if (bm_image_of(t, disk) && bm_candidate_of(t, &fault) < 0) {
        bm_wrong(t, "%s", fault);
    }
    harness_own--;
}

static void cut_copy(struct bitmaps_test *t, const struct sim_disk *disk, int subset)
{
    struct sim_disk *copy = sim_disk_clone(disk);
    static const uint8_t none[SIM_PENDING_MAX / 8];
    uint8_t bits = (uint8_t)subset;
    int rc = -ENOMEM;

    if (copy != NULL) {
        rc = subset < 0 ? sim_disk_power_cut(copy, &t->cut_rng)
                        : sim_disk_power_cut_subset(copy, subset ? &bits : none);
    }
    if (rc == 0) {
        judge(t, copy);
    } else {
        bm_wrong(t, "no memory");
    }
    t->cuts++;
    sim_disk_free(copy);
}

void bm_boundary(void *opaque, const char *path, const struct sim_disk *disk)
{
    struct bitmaps_test *t = opaque;
    size_t pending = sim_disk_pending(disk);
    int subsets = pending <= SUBSETS_OF_PENDING ? 1 << pending : 1;

    t->boundaries++;
    if (t->wrong[0] != '\0') {
        return;
    }
    for (int subset = 0; subset < subsets; subset++) {
        cut_copy(t, disk, subset);
    }
    cut_copy(t, disk, -1);
    cut_copy(t, disk, -1);
}
