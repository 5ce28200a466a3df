/* SPDX-License-Identifier: MIT */
/*
 * Two images, what readers see and what is durable, and between them the ordered list of changes.
 * Every change is applied by the same function to the visible image at once, to the durable one at
 * a flush, and in part at a power cut.
 *
 * A change covers whole sectors: when a write begins or ends inside one, it carries the rest of
 * that sector as readers saw it, because hardware writes nothing smaller (keeps D2).
 */
#include "os/sim/sim_disk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "os/sim/sim_image.h"

enum change_kind { CHANGE_WRITE, CHANGE_ZERO, CHANGE_SIZE };

struct change {
    enum change_kind kind;
    uint64_t offset; /* of whole sectors; SIZE: the new size */
    uint64_t bytes;
    uint64_t size_end; /* WRITE, ZERO: the size is at least this afterwards, cut to the sectors */
    uint8_t *data;     /* WRITE: owned */
    TAILQ_ENTRY(change) link;
};
TAILQ_HEAD(change_list, change);

struct sim_disk {
    struct sim_image visible;
    struct sim_image durable;
    struct change_list pending;
    size_t npending;
    uint64_t pending_bytes;
};

static uint64_t sector_down(uint64_t v)
{
    return v / SIM_SECTOR_BYTES * SIM_SECTOR_BYTES;
}

static uint64_t sector_up(uint64_t v)
{
    return sector_down(v + SIM_SECTOR_BYTES - 1);
}

static struct change *change_new(enum change_kind kind, uint64_t offset, uint64_t bytes)
{
    struct change *change = calloc(1, sizeof(*change));

    if (!change) {
        return 0;
    }
    *change = (struct change){.kind = kind, .offset = offset, .bytes = bytes};
    if (kind == CHANGE_WRITE) {
        change->data = malloc((size_t)bytes);
        if (!change->data) {
            free(change);
            return 0;
        }
    }
    return change;
}

static void change_free(struct change *change)
{
    free(change->data);
    free(change);
}

static uint64_t change_weight(const struct change *change)
{
    return change->kind == CHANGE_WRITE ? change->bytes : 0;
}

static void pending_add_before(struct sim_disk *disk, struct change *next, struct change *change)
{
    if (next) {
        TAILQ_INSERT_BEFORE(next, change, link);
    } else {
        TAILQ_INSERT_TAIL(&disk->pending, change, link);
    }
    disk->npending++;
    disk->pending_bytes += change_weight(change);
}

static void pending_remove(struct sim_disk *disk, struct change *change)
{
    TAILQ_REMOVE(&disk->pending, change, link);
    disk->npending--;
    disk->pending_bytes -= change_weight(change);
    change_free(change);
}

void sim_disk_lose_pending(struct sim_disk *disk)
{
    while (!TAILQ_EMPTY(&disk->pending)) {
        pending_remove(disk, TAILQ_FIRST(&disk->pending));
    }
}

/* Apply the part [offset, offset + bytes) of a change; all of it for SIZE. */
static int apply(struct sim_image *image, const struct change *change, uint64_t offset,
                 uint64_t bytes)
{
    uint64_t end = offset + bytes;
    int rc;

    if (change->kind == CHANGE_SIZE) {
        return sim_image_truncate(image, change->offset);
    }
    assert(offset >= change->offset && end <= change->offset + change->bytes);
    if (change->kind == CHANGE_WRITE) {
        rc =
            sim_image_write(image, offset, change->data + (offset - change->offset), (size_t)bytes);
    } else {
        rc = sim_image_zero(image, offset, bytes);
    }
    end = end < change->size_end ? end : change->size_end;
    if (image->size_bytes < end) {
        image->size_bytes = end;
    }
    return rc;
}

static int apply_whole(struct sim_image *image, const struct change *change)
{
    return apply(image, change, change->offset, change->bytes);
}

/* A change for the sectors of [offset, offset + bytes) with the visible content. */
static struct change *change_of_visible(struct sim_disk *disk, uint64_t offset, uint64_t bytes)
{
    uint64_t begin = sector_down(offset);
    struct change *change = change_new(CHANGE_WRITE, begin, sector_up(offset + bytes) - begin);

    if (change) {
        sim_image_read(&disk->visible, begin, change->data, (size_t)change->bytes);
        change->size_end = disk->visible.size_bytes;
    }
    return change;
}

/* Take [begin, end) out of a pending change; what is left of it stays, in up to two changes. */
static int pending_trim_one(struct sim_disk *disk, struct change *change, uint64_t begin,
                            uint64_t end)
{
    uint64_t parts[2][2] = {{change->offset, begin}, {end, change->offset + change->bytes}};

    for (int i = 0; i < 2; i++) {
        struct change *part;

        if (parts[i][0] >= parts[i][1]) {
            continue;
        }
        part = change_new(change->kind, parts[i][0], parts[i][1] - parts[i][0]);
        if (!part) {
            return -ENOMEM;
        }
        part->size_end = change->size_end;
        if (part->data) {
            memcpy(part->data, change->data + (part->offset - change->offset), (size_t)part->bytes);
        }
        pending_add_before(disk, change, part);
    }
    pending_remove(disk, change);
    return 0;
}

/* Take [begin, end) out of all pending changes before `until` (NULL: all): something newer is
 * durable there. */
static int pending_trim(struct sim_disk *disk, uint64_t begin, uint64_t end, struct change *until)
{
    struct change *next;

    for (struct change *change = TAILQ_FIRST(&disk->pending); change && change != until;
         change = next) {
        next = TAILQ_NEXT(change, link);
        if (change->kind == CHANGE_SIZE || change->offset >= end ||
            change->offset + change->bytes <= begin) {
            continue;
        }
        if (pending_trim_one(disk, change, begin, end) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

/* Sizes set so far become durable, in order: the size a FUA write stands on (D1). */
static int pending_commit_sizes(struct sim_disk *disk)
{
    struct change *next;

    for (struct change *change = TAILQ_FIRST(&disk->pending); change; change = next) {
        int rc;

        next = TAILQ_NEXT(change, link);
        if (change->kind != CHANGE_SIZE) {
            continue;
        }
        rc = apply_whole(&disk->durable, change);
        if (rc == 0) {
            rc = pending_trim(disk, sector_down(change->offset), UINT64_MAX, change);
        }
        if (rc < 0) {
            return rc;
        }
        pending_remove(disk, change);
    }
    return 0;
}

static int make_oldest_durable(struct sim_disk *disk)
{
    struct change *change = TAILQ_FIRST(&disk->pending);
    int rc = apply_whole(&disk->durable, change);

    pending_remove(disk, change);
    return rc;
}

static int pending_add(struct sim_disk *disk, struct change *change)
{
    pending_add_before(disk, 0, change);
    while (disk->pending_bytes > SIM_PENDING_BYTES_MAX || disk->npending > SIM_PENDING_MAX) {
        int rc = make_oldest_durable(disk);

        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

struct sim_disk *sim_disk_new(uint64_t size_bytes)
{
    struct sim_disk *disk = calloc(1, sizeof(*disk));

    if (!disk) {
        return 0;
    }
    TAILQ_INIT(&disk->pending);
    if (sim_image_init(&disk->visible, size_bytes) < 0) {
        free(disk);
        return 0;
    }
    if (sim_image_init(&disk->durable, size_bytes) < 0) {
        sim_image_fini(&disk->visible);
        free(disk);
        return 0;
    }
    return disk;
}

static int clone_pending(struct sim_disk *disk, const struct sim_disk *from)
{
    struct change *change;

    TAILQ_FOREACH (change, &from->pending, link) {
        struct change *copy = change_new(change->kind, change->offset, change->bytes);

        if (!copy) {
            return -ENOMEM;
        }
        copy->size_end = change->size_end;
        if (copy->data) {
            memcpy(copy->data, change->data, (size_t)change->bytes);
        }
        pending_add_before(disk, 0, copy);
    }
    return 0;
}

struct sim_disk *sim_disk_clone(const struct sim_disk *from)
{
    struct sim_disk *disk = calloc(1, sizeof(*disk));

    if (!disk) {
        return 0;
    }
    TAILQ_INIT(&disk->pending);
    if (sim_image_init_clone(&disk->visible, &from->visible) < 0 ||
        sim_image_init_clone(&disk->durable, &from->durable) < 0 || clone_pending(disk, from) < 0) {
        sim_disk_free(disk);
        return 0;
    }
    return disk;
}

void sim_disk_free(struct sim_disk *disk)
{
    if (!disk) {
        return;
    }
    sim_disk_lose_pending(disk);
    sim_image_fini(&disk->visible);
    sim_image_fini(&disk->durable);
    free(disk);
}

uint64_t sim_disk_size(const struct sim_disk *disk)
{
    return disk->visible.size_bytes;
}

uint64_t sim_disk_data_bytes(const struct sim_disk *disk)
{
    return sim_image_data_bytes(&disk->visible);
}

void sim_disk_read(const struct sim_disk *disk, uint64_t offset, void *buf, size_t bytes)
{
    sim_image_read(&disk->visible, offset, buf, bytes);
}

void sim_disk_read_durable(const struct sim_disk *disk, uint64_t offset, void *buf, size_t bytes)
{
    sim_image_read(&disk->durable, offset, buf, bytes);
}

uint64_t sim_disk_next(const struct sim_disk *disk, uint64_t offset, bool data)
{
    return sim_image_next(&disk->visible, offset, data);
}

int sim_disk_write(struct sim_disk *disk, uint64_t offset, const void *buf, size_t bytes, bool fua)
{
    struct change *change;
    int rc;

    if (bytes == 0) {
        return 0;
    }
    rc = sim_image_write(&disk->visible, offset, buf, bytes);
    if (rc < 0) {
        return rc;
    }
    if (disk->visible.size_bytes < offset + bytes) {
        disk->visible.size_bytes = offset + bytes;
    }
    change = change_of_visible(disk, offset, bytes);
    if (!change) {
        return -ENOMEM;
    }
    if (!fua) {
        return pending_add(disk, change);
    }
    rc = pending_commit_sizes(disk);
    if (rc == 0) {
        rc = pending_trim(disk, change->offset, change->offset + change->bytes, 0);
    }
    if (rc == 0) {
        rc = apply_whole(&disk->durable, change);
    }
    change_free(change);
    return rc;
}

/* Sectors that are covered in part are changed by content. */
static int change_edge(struct sim_disk *disk, uint64_t offset, uint64_t bytes)
{
    struct change *change = change_of_visible(disk, offset, bytes);

    return change ? pending_add(disk, change) : -ENOMEM;
}

int sim_disk_zero(struct sim_disk *disk, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    uint64_t inner = sector_up(offset);
    uint64_t inner_end = sector_down(end);
    struct change *change;
    int rc = sim_image_zero(&disk->visible, offset, bytes);

    if (rc < 0 || bytes == 0) {
        return rc;
    }
    if (inner >= inner_end) {
        return change_edge(disk, offset, bytes);
    }
    change = change_new(CHANGE_ZERO, inner, inner_end - inner);
    if (!change) {
        return -ENOMEM;
    }
    rc = pending_add(disk, change);
    if (rc == 0 && offset < inner) {
        rc = change_edge(disk, offset, inner - offset);
    }
    if (rc == 0 && inner_end < end) {
        rc = change_edge(disk, inner_end, end - inner_end);
    }
    return rc;
}

/* The sector that the new end cuts changes too: what lies behind the end reads as zeroes later. */
int sim_disk_truncate(struct sim_disk *disk, uint64_t size_bytes)
{
    struct change *change;
    bool cuts = size_bytes < disk->visible.size_bytes && size_bytes % SIM_SECTOR_BYTES != 0;
    int rc;

    if (size_bytes == disk->visible.size_bytes) {
        return 0;
    }
    rc = sim_image_truncate(&disk->visible, size_bytes);
    if (rc < 0) {
        return rc;
    }
    change = change_new(CHANGE_SIZE, size_bytes, 0);
    rc = change ? pending_add(disk, change) : -ENOMEM;
    return rc == 0 && cuts ? change_edge(disk, sector_down(size_bytes), 1) : rc;
}

int sim_disk_flush(struct sim_disk *disk)
{
    while (!TAILQ_EMPTY(&disk->pending)) {
        int rc = make_oldest_durable(disk);

        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

size_t sim_disk_pending(const struct sim_disk *disk)
{
    return disk->npending;
}

static int survive(struct sim_image *image, const struct change *change,
                   const struct sim_survival *what)
{
    uint64_t begin = change->offset + what->first * SIM_SECTOR_BYTES;
    uint64_t end = begin + what->count * SIM_SECTOR_BYTES;

    if (what->count == 0) {
        return 0;
    }
    if (change->kind == CHANGE_SIZE) {
        return apply_whole(image, change);
    }
    if (what->mask == UINT64_MAX) {
        return apply(image, change, begin, end - begin);
    }
    for (uint64_t at = begin; at < end; at += SIM_SECTOR_BYTES) {
        uint64_t sector = (at - change->offset) / SIM_SECTOR_BYTES;

        if (what->mask >> (sector % 64) & 1) {
            int rc = apply(image, change, at, SIM_SECTOR_BYTES);

            if (rc < 0) {
                return rc;
            }
        }
    }
    return 0;
}

int sim_disk_power_cut_by(struct sim_disk *disk, sim_survival_func *func, void *opaque)
{
    struct sim_image after;
    size_t number = 0;
    int rc = 0;

    while (rc == 0 && !TAILQ_EMPTY(&disk->pending)) {
        struct change *change = TAILQ_FIRST(&disk->pending);
        uint64_t sectors = change->kind == CHANGE_SIZE ? 1 : change->bytes / SIM_SECTOR_BYTES;
        struct sim_survival what = {0};

        func(opaque, number++, sectors, &what);
        assert(what.first <= sectors && what.count <= sectors - what.first);
        rc = survive(&disk->durable, change, &what);
        pending_remove(disk, change);
    }
    if (rc == 0) {
        rc = sim_image_init_clone(&after, &disk->durable);
    }
    if (rc < 0) {
        return rc;
    }
    sim_image_fini(&disk->visible);
    disk->visible = after;
    return 0;
}

#define MASKED_SECTORS_MAX 4096 /* a longer change is torn in one run of sectors */

static void survive_by_chance(void *opaque, size_t change, uint64_t sectors,
                              struct sim_survival *ret)
{
    struct sim_rng *rng = opaque;

    *ret = (struct sim_survival){.count = sectors, .mask = UINT64_MAX};
    switch (sim_rng_below(rng, 4)) {
    case 0:
        ret->count = 0;
        break;
    case 1:
        break;
    case 2:
        ret->first = sim_rng_below(rng, sectors + 1);
        ret->count = sim_rng_below(rng, sectors - ret->first + 1);
        break;
    default:
        if (sectors <= MASKED_SECTORS_MAX) {
            ret->mask = sim_rng_u64(rng);
        } else {
            ret->count = sim_rng_below(rng, sectors);
        }
        break;
    }
}

int sim_disk_power_cut(struct sim_disk *disk, struct sim_rng *rng)
{
    return sim_disk_power_cut_by(disk, survive_by_chance, rng);
}

static void survive_by_bitmap(void *opaque, size_t change, uint64_t sectors,
                              struct sim_survival *ret)
{
    const uint8_t *keep = opaque;

    ret->count = keep[change / 8] >> (change % 8) & 1 ? sectors : 0;
    ret->mask = UINT64_MAX;
}

int sim_disk_power_cut_subset(struct sim_disk *disk, const uint8_t *keep)
{
    return sim_disk_power_cut_by(disk, survive_by_bitmap, (void *)(uintptr_t)keep);
}
