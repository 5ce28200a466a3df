/* SPDX-License-Identifier: MIT */
/*
 * Changing a set of clusters: one at a time, under its lock (cluster_set.h says how it is read).
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "cluster_set.h"

#define SLOT_BITS_MIN 6

static size_t slots_bytes(unsigned bits)
{
    return sizeof(struct q2_slots) + (sizeof(uint64_t) << bits);
}

static struct q2_slots *slots_new(struct q2_cluster_set *set, unsigned bits)
{
    struct q2_slots *t;

    if (!mem_budget_take(set->budget, slots_bytes(bits))) {
        return NULL;
    }
    t = calloc(1, slots_bytes(bits));
    if (!t) {
        mem_budget_give(set->budget, slots_bytes(bits));
        return NULL;
    }
    t->bits = bits;
    return t;
}

static void slots_free(struct q2_cluster_set *set, struct q2_slots *t)
{
    while (t) {
        struct q2_slots *next = t->next;

        mem_budget_give(set->budget, slots_bytes(t->bits));
        free(t);
        t = next;
    }
}

int q2_cluster_set_init(struct q2_cluster_set *set, struct mem_budget *budget, uint64_t expected)
{
    unsigned bits = SLOT_BITS_MIN;
    struct q2_slots *t;

    while ((UINT64_C(1) << bits) < expected * 2) {
        bits++;
    }
    os_mutex_init(&set->lock);
    set->budget = budget;
    set->used = 0;
    set->spare = NULL;
    t = slots_new(set, bits);
    atomic_init(&set->cur, t);
    return t ? 0 : -ENOMEM;
}

void q2_cluster_set_fini(struct q2_cluster_set *set)
{
    slots_free(set, atomic_load_explicit(&set->cur, memory_order_relaxed));
    slots_free(set, set->spare);
    os_mutex_fini(&set->lock);
}

/* The slot of a key, else a dead or an unused one for it. Lock. */
static uint64_t slot_for(const struct q2_slots *t, uint64_t key)
{
    uint64_t mask = (UINT64_C(1) << t->bits) - 1;
    uint64_t i = q2_slots_home(t, key);
    uint64_t dead = UINT64_MAX;

    for (;;) {
        uint64_t v = atomic_load_explicit(&t->e[i], memory_order_relaxed);

        if (v == 0) {
            return dead != UINT64_MAX ? dead : i;
        }
        if (v >> Q2_KIND_BITS == key) {
            return i;
        }
        if ((v & Q2_KIND_MASK) == 0 && dead == UINT64_MAX) {
            dead = i;
        }
        i = (i + 1) & mask;
    }
}

/* Fill t, which is empty, from what is alive. Lock. */
static uint64_t refill(struct q2_slots *t, const struct q2_slots *from)
{
    uint64_t used = 0;

    for (uint64_t i = 0; i >> from->bits == 0; i++) {
        uint64_t v = atomic_load_explicit(&from->e[i], memory_order_relaxed);

        if ((v & Q2_KIND_MASK) != 0) {
            atomic_store_explicit(&t->e[slot_for(t, v >> Q2_KIND_BITS)], v, memory_order_release);
            used++;
        }
    }
    return used;
}

/* Make room for another. Lock. */
static int make_room(struct q2_cluster_set *set)
{
    struct q2_slots *cur = atomic_load_explicit(&set->cur, memory_order_relaxed);
    uint64_t live = 0;
    struct q2_slots *t;

    if (set->used < (UINT64_C(3) << cur->bits) / 4) {
        return 0;
    }
    for (uint64_t i = 0; i >> cur->bits == 0; i++) {
        live += (atomic_load_explicit(&cur->e[i], memory_order_relaxed) & Q2_KIND_MASK) != 0;
    }
    if (live > UINT64_C(1) << (cur->bits - 1)) {
        t = slots_new(set, cur->bits + 1);
        if (!t) {
            return -ENOMEM;
        }
        set->used = refill(t, cur);
        t->next = cur;
        if (set->spare) { /* somebody may still look at it */
            set->spare->next = cur->next;
            cur->next = set->spare;
            set->spare = NULL;
        }
        atomic_store_explicit(&set->cur, t, memory_order_release);
        return 0;
    }
    t = set->spare ? set->spare : slots_new(set, cur->bits);
    if (!t) {
        return -ENOMEM;
    }
    atomic_fetch_add_explicit(&set->generation, 1, memory_order_acq_rel);
    for (uint64_t i = 0; i >> t->bits == 0; i++) {
        atomic_store_explicit(&t->e[i], 0, memory_order_release);
    }
    set->used = refill(t, cur);
    t->next = cur->next;
    cur->next = NULL;
    set->spare = cur;
    atomic_store_explicit(&set->cur, t, memory_order_release);
    return 0;
}

int q2_cluster_set_add(struct q2_cluster_set *set, uint64_t cluster, unsigned kind)
{
    uint64_t key = cluster + 1;
    int ret;

    os_mutex_lock(&set->lock);
    ret = make_room(set);
    if (ret == 0) {
        struct q2_slots *t = atomic_load_explicit(&set->cur, memory_order_relaxed);
        uint64_t i = slot_for(t, key);
        uint64_t v = atomic_load_explicit(&t->e[i], memory_order_relaxed);

        set->used += v == 0;
        v = v >> Q2_KIND_BITS == key ? v | kind : key << Q2_KIND_BITS | kind;
        atomic_store_explicit(&t->e[i], v, memory_order_release);
    }
    os_mutex_unlock(&set->lock);
    return ret;
}

void q2_cluster_set_del(struct q2_cluster_set *set, uint64_t cluster, unsigned kind)
{
    struct q2_slots *t;
    uint64_t i, v;

    os_mutex_lock(&set->lock);
    t = atomic_load_explicit(&set->cur, memory_order_relaxed);
    i = slot_for(t, cluster + 1);
    v = atomic_load_explicit(&t->e[i], memory_order_relaxed);
    if (v >> Q2_KIND_BITS == cluster + 1) {
        atomic_store_explicit(&t->e[i], v & ~(uint64_t)kind, memory_order_release);
    }
    os_mutex_unlock(&set->lock);
}
