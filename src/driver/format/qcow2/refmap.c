/* SPDX-License-Identifier: MIT */
/*
 * Sparse counts of clusters. The clusters are cut into parts of 16384. A part with few of them is a
 * sorted list of (cluster, count) in 32 bits; one with many an array of counts, as wide as its
 * largest count asks for. Parts are found by hashing.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

#include "refmap.h"

#define PART_BITS 14
#define PART_CLUSTERS (1u << PART_BITS)
#define LIST_MAX (PART_CLUSTERS / 4) /* then an array of bytes is as small */
#define LIST_COUNT_MAX ((UINT32_C(1) << (32 - PART_BITS)) - 1)

struct q2_refmap_part {
    uint64_t number; /* cluster >> PART_BITS */
    unsigned width;  /* bytes of each count in an array; 0: a list */
    uint32_t used;   /* of a list */
    uint32_t room;   /* of a list */
    union {
        uint32_t *list; /* cluster << (32 - PART_BITS) | count; sorted */
        uint8_t *w1;
        uint16_t *w2;
        uint32_t *w4;
        void *any; /* owned */
    } u;
};

/* ---- memory ---- */

static void *take(struct q2_refmap *map, size_t bytes)
{
    void *p;

    if (!mem_budget_take(map->budget, bytes)) {
        return NULL;
    }
    p = calloc(1, bytes);
    if (!p) {
        mem_budget_give(map->budget, bytes);
    }
    return p;
}

static void give(struct q2_refmap *map, void *p, size_t bytes)
{
    if (p) {
        mem_budget_give(map->budget, bytes);
        free(p);
    }
}

static size_t content_bytes(const struct q2_refmap_part *part)
{
    return part->width == 0 ? part->room * sizeof(uint32_t) : (size_t)part->width * PART_CLUSTERS;
}

static void forget_order(struct q2_refmap *map)
{
    give(map, map->sorted, map->parts * sizeof(struct q2_refmap_part *));
    map->sorted = NULL;
}

/* ---- parts ---- */

static struct q2_refmap_part **slot(const struct q2_refmap *map, uint64_t number)
{
    uint64_t mask = (UINT64_C(1) << map->slot_bits) - 1;
    uint64_t i = (number * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - map->slot_bits);

    while (map->slots[i] && map->slots[i]->number != number) {
        i = (i + 1) & mask;
    }
    return &map->slots[i];
}

static struct q2_refmap_part *find(struct q2_refmap *map, uint64_t number)
{
    if (map->last && map->last->number == number) {
        return map->last;
    }
    if (map->slots && *slot(map, number)) {
        map->last = *slot(map, number);
        return map->last;
    }
    return NULL;
}

static int slots_grow(struct q2_refmap *map)
{
    struct q2_refmap bigger = *map;

    if (map->slots && map->parts < (UINT64_C(1) << map->slot_bits) / 2) {
        return 0;
    }
    bigger.slot_bits = map->slots ? map->slot_bits + 1 : 4;
    bigger.slots = take(map, sizeof(struct q2_refmap_part *) << bigger.slot_bits);
    if (!bigger.slots) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; map->slots && i >> map->slot_bits == 0; i++) {
        if (map->slots[i]) {
            *slot(&bigger, map->slots[i]->number) = map->slots[i];
        }
    }
    give(map, map->slots, sizeof(struct q2_refmap_part *) << map->slot_bits);
    map->slots = bigger.slots;
    map->slot_bits = bigger.slot_bits;
    return 0;
}

static struct q2_refmap_part *part_new(struct q2_refmap *map, uint64_t number)
{
    struct q2_refmap_part *part;

    forget_order(map);
    if (slots_grow(map) < 0) {
        return NULL;
    }
    part = take(map, sizeof(*part));
    if (part) {
        part->number = number;
        *slot(map, number) = part;
        map->parts++;
        map->last = part;
    }
    return part;
}

static uint32_t array_get(const struct q2_refmap_part *part, unsigned i)
{
    return part->width == 1 ? part->u.w1[i] : part->width == 2 ? part->u.w2[i] : part->u.w4[i];
}

static void array_set(struct q2_refmap_part *part, unsigned i, uint32_t count)
{
    if (part->width == 1) {
        part->u.w1[i] = (uint8_t)count;
    } else if (part->width == 2) {
        part->u.w2[i] = (uint16_t)count;
    } else {
        part->u.w4[i] = count;
    }
}

/* Where cluster i of the part is in its list, or should be. */
static uint32_t list_find(const struct q2_refmap_part *part, unsigned i)
{
    uint32_t low = 0, high = part->used;

    if (high > 0 && part->u.list[high - 1] >> (32 - PART_BITS) < i) {
        return high; /* most come in order */
    }
    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (part->u.list[mid] >> (32 - PART_BITS) < i) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static bool list_has(const struct q2_refmap_part *part, uint32_t at, unsigned i)
{
    return at < part->used && part->u.list[at] >> (32 - PART_BITS) == i;
}

static uint32_t part_get(const struct q2_refmap_part *part, unsigned i)
{
    uint32_t at;

    if (part->width != 0) {
        return array_get(part, i);
    }
    at = list_find(part, i);
    return list_has(part, at, i) ? part->u.list[at] & LIST_COUNT_MAX : 0;
}

/* The part becomes an array that can hold count and all it has. */
static int part_widen(struct q2_refmap *map, struct q2_refmap_part *part, uint32_t count)
{
    struct q2_refmap_part wide = *part;
    uint32_t max = count;

    for (uint32_t k = 0; part->width == 0 && k < part->used; k++) {
        uint32_t have = part->u.list[k] & LIST_COUNT_MAX;

        max = have > max ? have : max;
    }
    wide.width = max > UINT16_MAX ? 4 : max > UINT8_MAX ? 2 : 1;
    wide.u.any = take(map, (size_t)wide.width * PART_CLUSTERS);
    if (!wide.u.any) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < PART_CLUSTERS && part->width != 0; i++) {
        array_set(&wide, i, array_get(part, i));
    }
    for (uint32_t k = 0; part->width == 0 && k < part->used; k++) {
        array_set(&wide, part->u.list[k] >> (32 - PART_BITS), part->u.list[k] & LIST_COUNT_MAX);
    }
    give(map, part->u.any, content_bytes(part));
    *part = wide;
    return 0;
}

static int list_grow(struct q2_refmap *map, struct q2_refmap_part *part)
{
    uint32_t room = part->room ? part->room * 2 : 2;
    uint32_t *list;

    if (part->used < part->room) {
        return 0;
    }
    list = take(map, room * sizeof(uint32_t));
    if (!list) {
        return -ENOMEM;
    }
    if (part->used > 0) {
        memcpy(list, part->u.list, part->used * sizeof(uint32_t));
    }
    give(map, part->u.list, part->room * sizeof(uint32_t));
    part->u.list = list;
    part->room = room;
    return 0;
}

/* count fits a list's entry. */
static int list_set(struct q2_refmap *map, struct q2_refmap_part *part, unsigned i, uint32_t count)
{
    uint32_t at = list_find(part, i);

    if (!list_has(part, at, i)) {
        if (list_grow(map, part) < 0) {
            return -ENOMEM;
        }
        memmove(part->u.list + at + 1, part->u.list + at, (part->used - at) * sizeof(uint32_t));
        part->used++;
    }
    part->u.list[at] = i << (32 - PART_BITS) | count;
    return 0;
}

static int part_set(struct q2_refmap *map, struct q2_refmap_part *part, unsigned i, uint32_t count)
{
    int ret = 0;

    if (part->width == 0) {
        if (part->used < LIST_MAX && count <= LIST_COUNT_MAX) {
            return list_set(map, part, i, count);
        }
        ret = part_widen(map, part, count);
    } else if ((part->width == 1 && count > UINT8_MAX) ||
               (part->width == 2 && count > UINT16_MAX)) {
        ret = part_widen(map, part, count);
    }
    if (ret == 0) {
        array_set(part, i, count);
    }
    return ret;
}

/* ---- the map ---- */

void q2_refmap_init(struct q2_refmap *map, struct mem_budget *budget)
{
    *map = (struct q2_refmap){.budget = budget};
}

void q2_refmap_fini(struct q2_refmap *map)
{
    forget_order(map);
    for (uint64_t i = 0; map->slots && i >> map->slot_bits == 0; i++) {
        struct q2_refmap_part *part = map->slots[i];

        if (part) {
            give(map, part->u.any, content_bytes(part));
            give(map, part, sizeof(*part));
        }
    }
    give(map, map->slots, sizeof(struct q2_refmap_part *) << map->slot_bits);
    *map = (struct q2_refmap){.budget = map->budget};
}

uint32_t q2_refmap_get(struct q2_refmap *map, uint64_t cluster)
{
    const struct q2_refmap_part *part = find(map, cluster >> PART_BITS);

    return part ? part_get(part, cluster & (PART_CLUSTERS - 1)) : 0;
}

int q2_refmap_add(struct q2_refmap *map, uint64_t cluster, uint64_t count)
{
    struct q2_refmap_part *part = find(map, cluster >> PART_BITS);
    unsigned i = cluster & (PART_CLUSTERS - 1);
    uint32_t have;

    if (count == 0) {
        return 0;
    }
    if (!part) {
        part = part_new(map, cluster >> PART_BITS);
        if (!part) {
            return -ENOMEM;
        }
    }
    have = part_get(part, i);
    return part_set(map, part, i, count > UINT32_MAX - have ? UINT32_MAX : have + (uint32_t)count);
}

static int compare_parts(const void *a, const void *b)
{
    const struct q2_refmap_part *x = *(struct q2_refmap_part *const *)a;
    const struct q2_refmap_part *y = *(struct q2_refmap_part *const *)b;

    return x->number < y->number ? -1 : x->number > y->number;
}

static int sort(struct q2_refmap *map)
{
    uint64_t n = 0;

    if (map->sorted || map->parts == 0) {
        return 0;
    }
    map->sorted = take(map, map->parts * sizeof(struct q2_refmap_part *));
    if (!map->sorted) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i >> map->slot_bits == 0; i++) {
        if (map->slots[i]) {
            map->sorted[n++] = map->slots[i];
        }
    }
    assert(n == map->parts);
    qsort(map->sorted, n, sizeof(struct q2_refmap_part *), compare_parts);
    return 0;
}

/* The first cluster of the part from i on that has a count; PART_CLUSTERS: none. */
static unsigned part_next(const struct q2_refmap_part *part, unsigned i)
{
    if (part->width == 0) {
        uint32_t at = list_find(part, i);

        return at < part->used ? part->u.list[at] >> (32 - PART_BITS) : PART_CLUSTERS;
    }
    while (i < PART_CLUSTERS && array_get(part, i) == 0) {
        i++;
    }
    return i;
}

int q2_refmap_next(struct q2_refmap *map, uint64_t from, uint64_t *ret)
{
    struct q2_refmap_part *known = find(map, from >> PART_BITS);
    uint64_t low = 0, high = map->parts;

    if (known) {
        unsigned i = part_next(known, from & (PART_CLUSTERS - 1));

        if (i < PART_CLUSTERS) {
            *ret = (from >> PART_BITS << PART_BITS) + i;
            return 0;
        }
    }
    if (sort(map) < 0) {
        return -ENOMEM;
    }
    while (low < high) { /* the first part behind */
        uint64_t mid = (low + high) / 2;

        if (map->sorted[mid]->number <= from >> PART_BITS) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    for (; low < map->parts; low++) { /* only a part that memory failed for has none */
        unsigned i = part_next(map->sorted[low], 0);

        if (i < PART_CLUSTERS) {
            map->last = map->sorted[low];
            *ret = (map->last->number << PART_BITS) + i;
            return 0;
        }
    }
    return -ENOENT;
}
