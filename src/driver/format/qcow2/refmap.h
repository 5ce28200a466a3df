/* SPDX-License-Identifier: MIT */
/*
 * Counts of clusters, sparse: what a check knows about the file. Clusters that lie close together
 * cost between one and four bytes each, a lonely one about a hundred; empty space costs nothing.
 * Pure but for the budget it is charged to. One thread.
 */
#ifndef PLATTER_QCOW2_REFMAP_H
#define PLATTER_QCOW2_REFMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "util/budget.h"

struct q2_refmap_part;

struct q2_refmap {
    struct mem_budget *budget;
    struct q2_refmap_part **slots; /* owned; open addressing by part; NULL: not one yet */
    unsigned slot_bits;
    uint64_t parts;
    struct q2_refmap_part *last;    /* used last, or NULL */
    struct q2_refmap_part **sorted; /* owned; in order of clusters; NULL: since add not known */
};

void q2_refmap_init(struct q2_refmap *map, struct mem_budget *budget);
void q2_refmap_fini(struct q2_refmap *map);
/* 0 where nothing was added. Counts stop at UINT32_MAX. */
uint32_t q2_refmap_get(struct q2_refmap *map, uint64_t cluster);
/* 0 or -ENOMEM. */
int q2_refmap_add(struct q2_refmap *map, uint64_t cluster, uint64_t count);
/* The first cluster from `from` on whose count is not 0, in *ret; -ENOENT: there is none; -ENOMEM.
 * Quick as long as nothing is added in between. */
int q2_refmap_next(struct q2_refmap *map, uint64_t from, uint64_t *ret);

#endif
