/* SPDX-License-Identifier: MIT */
/* The model: what a disk must hold, and what it may hold after a power cut. */
#include "suite.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

uint64_t rng_next(struct rng *rng)
{
    uint64_t z = (rng->state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *rng, uint64_t n)
{
    return n == 0 ? 0 : rng_next(rng) % n;
}

static uint64_t hash_sector(const uint8_t *p)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (unsigned i = 0; i < SECTOR; i += 8) {
        uint64_t v;

        memcpy(&v, p + i, sizeof(v));
        h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h;
}

void model_init(struct model *model, uint64_t size_bytes, uint64_t room_bytes, bool track)
{
    *model = (struct model){.size_bytes = size_bytes, .room_bytes = room_bytes};
    model->now = calloc(1, room_bytes + SECTOR);
    assert(model->now != NULL);
    if (track) {
        model->stable = calloc(1, room_bytes + SECTOR);
        assert(model->stable != NULL);
    }
}

void model_fini(struct model *model)
{
    free(model->now);
    free(model->stable);
    free(model->versions);
    *model = (struct model){0};
}

static void version_add(struct model *model, uint64_t sector)
{
    if (model->nversions == model->versions_room) {
        model->versions_room = model->versions_room * 2 + 1024;
        model->versions = realloc(model->versions, model->versions_room * sizeof(*model->versions));
        assert(model->versions != NULL);
    }
    model->versions[model->nversions++] = (struct version){
        .sector = sector,
        .hash = hash_sector(model->now + sector * SECTOR),
    };
}

void model_changed(struct model *model, uint64_t offset, uint64_t bytes)
{
    if (model->stable == NULL || bytes == 0) {
        return;
    }
    for (uint64_t s = offset / SECTOR; s <= (offset + bytes - 1) / SECTOR; s++) {
        version_add(model, s);
    }
}

void model_flushed(struct model *model)
{
    if (model->stable != NULL) {
        memcpy(model->stable, model->now, model->room_bytes);
        model->nversions = 0;
    }
}

void model_made_stable(struct model *model, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset / SECTOR;
    uint64_t last = (offset + bytes - 1) / SECTOR;
    size_t kept = 0;

    if (model->stable == NULL || bytes == 0) {
        return;
    }
    /* Only sectors that the write covers: of the others it may have carried only a part. */
    first += offset % SECTOR != 0;
    last -= (offset + bytes) % SECTOR != 0;
    if (first > last || last == UINT64_MAX) {
        return;
    }
    memcpy(model->stable + first * SECTOR, model->now + first * SECTOR,
           (last - first + 1) * SECTOR);
    for (size_t i = 0; i < model->nversions; i++) {
        if (model->versions[i].sector < first || model->versions[i].sector > last) {
            model->versions[kept++] = model->versions[i];
        }
    }
    model->nversions = kept;
}

static bool sector_allowed(const struct model *model, uint64_t sector, const uint8_t *got)
{
    uint64_t hash;

    if (memcmp(model->stable + sector * SECTOR, got, SECTOR) == 0) {
        return true;
    }
    hash = hash_sector(got);
    for (size_t i = 0; i < model->nversions; i++) {
        if (model->versions[i].sector == sector && model->versions[i].hash == hash) {
            return true;
        }
    }
    return false;
}

bool model_allows(const struct model *model, const uint8_t *got, uint64_t *ret_sector)
{
    for (uint64_t s = 0; s < model->size_bytes / SECTOR; s++) {
        if (!sector_allowed(model, s, got + s * SECTOR)) {
            *ret_sector = s;
            return false;
        }
    }
    return true;
}

void model_adopt(struct model *model, const uint8_t *got)
{
    memset(model->now, 0, model->room_bytes);
    memcpy(model->now, got, model->size_bytes);
    model_flushed(model);
}
