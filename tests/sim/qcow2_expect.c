/* SPDX-License-Identifier: MIT */
/* What a qcow2 image may hold, and the judge. */
#include "qcow2_expect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP 4096u /* of comparing */
#define BACKING_BIT (UINT64_C(1) << EXPECT_BACKING_VERSION)

static void need(bool ok)
{
    if (!ok) {
        fputs("qcow2_expect: no memory\n", stderr);
        abort();
    }
}

static void *room(uint64_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);

    need(p != NULL);
    return p;
}

void expect_init(struct qcow2_expect *e, struct harness *h, uint64_t disk_bytes,
                 uint64_t backing_bytes)
{
    struct shadow *sh = &h->shadow;
    struct sim_disk *disk;
    uint8_t *bytes;

    harness_own++;
    *e = (struct qcow2_expect){.h = h, .disk_bytes = disk_bytes};
    e->disk_buf = room(sh->size);
    e->seen_buf = room(sh->size);
    e->dirty = room(sh->size / 512 + 1);
    e->stored = room(sh->size * sizeof(*e->stored));
    if (backing_bytes > 0) {
        bytes = room(backing_bytes);
        shadow_fill(bytes, 0, backing_bytes, EXPECT_BACKING_VERSION);
        disk = sim_disk_new(backing_bytes);
        need(disk && sim_disk_write(disk, 0, bytes, backing_bytes, true) == 0);
        need(sim_world_add_disk(h->world, EXPECT_BACKING_PATH, disk, NULL) == 0);
        e->backing = (struct qv_bytes){bytes, backing_bytes};
        for (uint64_t i = 0; i < backing_bytes && i < sh->size; i++) {
            sh->now[i] = sh->after[i] = BACKING_BIT;
        }
    }
    /* what a disk gains reads as zeroes, whatever the backing file holds there */
    for (uint64_t i = disk_bytes; i < sh->size; i++) {
        sh->now[i] = sh->after[i] = 1;
    }
    harness_own--;
}

void expect_fini(struct qcow2_expect *e)
{
    for (size_t i = 0; i < EXPECT_SNAPSHOTS; i++) {
        free(e->snapshots[i].now);
        free(e->snapshots[i].seen);
    }
    free((void *)(uintptr_t)e->backing.data);
    free(e->dirty);
    free(e->stored);
    free(e->disk_buf);
    free(e->seen_buf);
    free(e->file_buf);
    free(e->data_buf);
    qv_fini(&e->im);
    *e = (struct qcow2_expect){0};
}

/* ---- what goes on ---- */

void expect_touch(struct qcow2_expect *e, uint64_t offset, uint64_t bytes)
{
    for (uint64_t at = offset / 512; bytes > 0 && at <= (offset + bytes - 1) / 512; at++) {
        e->dirty[at] |= 1;
    }
}

void expect_touch_failed(struct qcow2_expect *e, uint64_t offset, uint64_t bytes)
{
    for (uint64_t at = offset / 512; bytes > 0 && at <= (offset + bytes - 1) / 512; at++) {
        e->dirty[at] = EXPECT_EITHER;
    }
}

static void remember(struct qcow2_expect *e)
{
    memcpy(e->stored, e->h->shadow.now, e->h->shadow.size * sizeof(*e->stored));
}

void expect_bitmap_new(struct qcow2_expect *e)
{
    memset(e->dirty, 0, e->h->shadow.size / 512 + 1);
    remember(e);
    e->bitmap_maybe = true;
}

void expect_bitmap_stored(struct qcow2_expect *e)
{
    for (uint64_t i = 0; i < e->h->shadow.size / 512; i++) {
        if (e->dirty[i] != EXPECT_EITHER) {
            e->dirty[i] = e->dirty[i] ? 2 : 0;
        }
    }
    remember(e);
}

struct expect_snapshot *expect_create(struct qcow2_expect *e, const char *name, uint64_t vm_bytes,
                                      unsigned vm_version)
{
    for (size_t i = 0; i < EXPECT_SNAPSHOTS; i++) {
        struct expect_snapshot *s = &e->snapshots[i];
        size_t bytes = e->h->shadow.size * sizeof(*s->now);

        if (s->used) {
            continue;
        }
        harness_own++;
        s->now = s->now ? s->now : room(bytes);
        s->seen = s->seen ? s->seen : room(e->h->shadow.size);
        s->seen_good = false;
        harness_own--;
        memcpy(s->now, e->h->shadow.now, bytes);
        snprintf(s->name, sizeof(s->name), "%s", name);
        s->disk_bytes = e->disk_bytes;
        s->vm_bytes = vm_bytes;
        s->vm_version = vm_version;
        s->used = s->maybe = e->whole = true;
        return s;
    }
    return NULL;
}

void expect_create_end(struct qcow2_expect *e, struct expect_snapshot *s, bool ok)
{
    /* one that failed may be there all the same: its last write may have arrived */
    s->maybe = !ok;
    e->whole = !ok;
}

void expect_delete(struct qcow2_expect *e, struct expect_snapshot *s)
{
    s->maybe = e->whole = true;
}

void expect_delete_end(struct qcow2_expect *e, struct expect_snapshot *s, bool ok)
{
    if (ok) {
        s->used = false;
        s->maybe = false;
        e->whole = false;
    }
}

void expect_apply(struct qcow2_expect *e, const struct expect_snapshot *s)
{
    e->apply = s;
    e->whole = true;
}

void expect_apply_end(struct qcow2_expect *e, const struct expect_snapshot *s, bool ok)
{
    struct shadow *sh = &e->h->shadow;

    if (!ok) {
        return;
    }
    e->apply = NULL;
    e->whole = false;
    e->disk_bytes = s->disk_bytes;
    memcpy(sh->now, s->now, sh->size * sizeof(*sh->now));
    memcpy(sh->after, s->now, sh->size * sizeof(*sh->after));
    sh->generation++;
}

void expect_resize(struct qcow2_expect *e, uint64_t disk_bytes)
{
    if (disk_bytes < e->disk_bytes) { /* until it is shorter, what is cut may read as zeroes */
        shadow_begin(&e->h->shadow, disk_bytes, e->disk_bytes - disk_bytes, true);
    }
    e->other_bytes = disk_bytes;
    e->whole = true;
}

void expect_resize_end(struct qcow2_expect *e, uint64_t disk_bytes, bool ok)
{
    struct shadow *sh = &e->h->shadow;

    if (!ok) {
        return;
    }
    for (uint64_t i = disk_bytes; i < sh->size; i++) {
        sh->now[i] = sh->after[i] = 1;
    }
    sh->generation++;
    e->disk_bytes = disk_bytes;
    e->other_bytes = 0;
    e->whole = false;
}

/* ---- the judge ---- */

#define WRONG(e, ...) (snprintf((e)->text, sizeof((e)->text), __VA_ARGS__), (e)->text)
#define ULL(x) ((unsigned long long)(x))

static const char *judge_structure(struct qcow2_expect *e, enum expect_when when)
{
    struct qv_image *im = &e->im;

    qv_verify(im);
    e->states++;
    e->dirty_states += qv_dirty(im);
    e->leaky_states += im->leaks > 0;
    e->leaks_max = im->leaks > e->leaks_max ? im->leaks : e->leaks_max;
    if (!qv_sound(im)) {
        return WRONG(e, "corrupt: %s", im->text);
    }
    if (im->h.incompatible & 2) {
        return WRONG(e, "the image is marked corrupt");
    }
    if (im->mismatched > 0 && !qv_dirty(im)) {
        if (im->h.version >= 3 || !e->whole) {
            return WRONG(e, "COPIED does not agree: %s", im->text);
        }
        e->version_2_states++;
    }
    if (when == EXPECT_CLOSED && (qv_dirty(im) || im->leaks > 0 || im->mismatched > 0)) {
        return WRONG(e, "closed, but not clean: dirty %d, %llu leaks, %llu mismatched: %s",
                     qv_dirty(im), ULL(im->leaks), ULL(im->mismatched), im->text);
    }
    return NULL;
}

/* buf is the disk's content: does the shadow allow it? What was good before is not looked at. */
static int64_t disk_differs(struct qcow2_expect *e, enum expect_when when)
{
    struct shadow *sh = &e->h->shadow;
    bool after = when == EXPECT_CUT;
    bool known = e->seen_generation == sh->generation && e->seen_bytes == e->im.h.disk_bytes &&
                 e->seen_after_cut == after && e->states > 1;

    for (uint64_t at = 0; at < e->im.h.disk_bytes; at += STEP) {
        uint64_t left = e->im.h.disk_bytes - at;
        size_t n = left < STEP ? (size_t)left : STEP;
        int64_t wrong;

        if (known && memcmp(e->disk_buf + at, e->seen_buf + at, n) == 0) {
            continue;
        }
        wrong = after ? shadow_check_after(sh, at, e->disk_buf + at, n)
                      : shadow_check_now(sh, at, e->disk_buf + at, n);
        if (wrong >= 0) {
            return wrong;
        }
    }
    memcpy(e->seen_buf, e->disk_buf, e->im.h.disk_bytes);
    e->seen_generation = sh->generation;
    e->seen_bytes = e->im.h.disk_bytes;
    e->seen_after_cut = after;
    return -1;
}

static const char *judge_disk(struct qcow2_expect *e, enum expect_when when)
{
    uint64_t bytes = e->im.h.disk_bytes;
    int64_t wrong = 0;

    if (bytes > e->h->shadow.size) {
        return WRONG(e, "a disk of %llu bytes", ULL(bytes));
    }
    if (!qv_read(&e->im, -1, 0, e->disk_buf, bytes)) {
        return WRONG(e, "the disk cannot be read: %s", e->im.text);
    }
    if (bytes == e->disk_bytes || bytes == e->other_bytes) {
        wrong = disk_differs(e, when);
        if (wrong < 0) {
            return NULL;
        }
    }
    if (e->apply && bytes == e->apply->disk_bytes &&
        shadow_check_sets(e->apply->now, 0, e->disk_buf, bytes) < 0) {
        return NULL;
    }
    return WRONG(e, "%s: a disk of %llu bytes (%llu were told) holds %#x at %llu",
                 when == EXPECT_CUT ? "what was durable is lost" : "other bytes than were answered",
                 ULL(bytes), ULL(e->disk_bytes), e->disk_buf[wrong], ULL(wrong));
}

static const char *judge_snapshot(struct qcow2_expect *e, struct expect_snapshot *s, int i)
{
    const struct qv_snapshot *found = &e->im.snapshots[i];
    uint64_t covered = (uint64_t)e->im.cluster_bytes * e->im.l2_entries;
    uint64_t vm_offset = qv_up(s->disk_bytes, covered);
    uint8_t want[512], have[512];
    int64_t wrong;

    if (found->disk_bytes != s->disk_bytes || found->vm_bytes != s->vm_bytes) {
        return WRONG(e, "snapshot %s has %llu bytes of disk and %llu of VM state", s->name,
                     ULL(found->disk_bytes), ULL(found->vm_bytes));
    }
    if (!qv_read(&e->im, i, 0, e->disk_buf, s->disk_bytes)) {
        return WRONG(e, "snapshot %s cannot be read: %s", s->name, e->im.text);
    }
    wrong = s->seen_good && memcmp(s->seen, e->disk_buf, s->disk_bytes) == 0
                ? -1
                : shadow_check_sets(s->now, 0, e->disk_buf, s->disk_bytes);
    if (wrong < 0) {
        memcpy(s->seen, e->disk_buf, s->disk_bytes);
        s->seen_good = true;
    } else {
        return WRONG(e, "snapshot %s holds %#x at %llu", s->name, e->disk_buf[wrong], ULL(wrong));
    }
    for (uint64_t at = 0; at < s->vm_bytes; at += sizeof(want)) {
        shadow_fill(want, at, sizeof(want), s->vm_version);
        if (!qv_read(&e->im, i, vm_offset + at, have, sizeof(have)) ||
            memcmp(want, have, sizeof(want)) != 0) {
            return WRONG(e, "the VM state of snapshot %s is not right at %llu", s->name, ULL(at));
        }
    }
    return NULL;
}

static const char *judge_snapshots(struct qcow2_expect *e)
{
    uint32_t there = 0;

    for (size_t i = 0; i < EXPECT_SNAPSHOTS; i++) {
        struct expect_snapshot *s = &e->snapshots[i];
        int found = s->used ? qv_snapshot_find(&e->im, s->name) : -1;
        const char *wrong = found < 0 ? NULL : judge_snapshot(e, s, found);

        if (wrong) {
            return wrong;
        }
        if (s->used && !s->maybe && found < 0) {
            return WRONG(e, "snapshot %s is lost", s->name);
        }
        there += found >= 0;
    }
    if (there != e->im.h.snapshot_count) {
        return WRONG(e, "%u snapshots, %u of them ours", e->im.h.snapshot_count, there);
    }
    return NULL;
}

/* Accurate, or said to be in use; never clean where something was changed. */
static const char *judge_bitmap(struct qcow2_expect *e, enum expect_when when)
{
    const struct qv_bitmap *b = qv_bitmap_find(&e->im, EXPECT_BITMAP);
    uint64_t granule = b ? UINT64_C(1) << b->granularity_bits : 512;

    if (!b) {
        return e->bitmap && when == EXPECT_CLOSED ? WRONG(e, "the bitmap is lost") : NULL;
    }
    if (!e->bitmap && !e->bitmap_maybe) {
        return WRONG(e, "a bitmap that was removed");
    }
    if (b->flags & 1) {
        return when == EXPECT_CLOSED ? WRONG(e, "closed, but the bitmap is in use") : NULL;
    }
    for (uint64_t at = 0; at < e->im.h.disk_bytes; at += 512) {
        if (!e->dirty[at / 512] || (e->dirty[at / 512] & EXPECT_EITHER) ||
            qv_bitmap_bit(&e->im, b, at / granule)) {
            continue;
        }
        if (e->dirty[at / 512] > 1 ||
            shadow_check_sets(e->stored + at, at, e->disk_buf + at, 512) >= 0) {
            return WRONG(e, "the bitmap is clean at %llu, which was changed", ULL(at));
        }
    }
    return NULL;
}

const char *expect_judge_bytes(struct qcow2_expect *e, struct qv_bytes file, struct qv_bytes data,
                               enum expect_when when)
{
    const char *wrong;

    if (!qv_parse(&e->im, file, data, e->backing)) {
        return WRONG(e, "no image any more: %s", e->im.text);
    }
    wrong = judge_structure(e, when);
    wrong = wrong ? wrong : judge_disk(e, when);
    wrong = wrong ? wrong : judge_bitmap(e, when); /* it needs the disk in disk_buf */
    return wrong ? wrong : judge_snapshots(e);
}

/* What is on a disk, in one piece. */
static struct qv_bytes flat(const struct sim_disk *disk, uint8_t **buf, uint64_t *ret_room)
{
    uint64_t bytes = disk ? sim_disk_size(disk) : 0;

    if (!disk) {
        return (struct qv_bytes){0};
    }
    if (bytes > *ret_room) {
        free(*buf);
        *ret_room = bytes + (bytes >> 2);
        *buf = room(*ret_room);
    }
    sim_disk_read(disk, 0, *buf, bytes);
    return (struct qv_bytes){*buf ? *buf : (const uint8_t *)"", bytes};
}

const char *expect_judge(struct qcow2_expect *e, const struct sim_disk *file,
                         const struct sim_disk *data, enum expect_when when)
{
    const char *wrong;

    harness_own++;
    wrong = expect_judge_bytes(e, flat(file, &e->file_buf, &e->file_room),
                               flat(data, &e->data_buf, &e->data_room), when);
    if (wrong) {
        expect_keep(e->im.file.data, e->im.file.bytes);
    }
    harness_own--;
    return wrong;
}

void expect_keep(const uint8_t *image, uint64_t bytes)
{
    const char *path = getenv("PLATTER_KEEP");
    FILE *f = path ? fopen(path, "wb") : NULL;

    if (f) {
        fwrite(image, 1, bytes, f);
        fclose(f);
    }
}
