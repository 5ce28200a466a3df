/* SPDX-License-Identifier: MIT */
/*
 * The one name space of an instance: which node or backend holds a name. A chained hash table; a
 * table that cannot grow for lack of memory stays as it is and only gets slower. Control thread.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/instance.h"

#define BUCKETS_MIN 64

struct instance_name {
    struct instance_name *next;
    void *owner; /* borrowed */
    enum instance_name_kind kind;
    uint64_t hash;
    char text[];
};

struct instance_names {
    struct instance_name **buckets; /* owned */
    size_t n_buckets;               /* a power of two */
    size_t n_names;
};

static uint64_t name_hash(const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (; *name != '\0'; name++) {
        h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    }
    return h ^ h >> 32;
}

struct instance_names *instance_names_new(void)
{
    struct instance_names *names = calloc(1, sizeof(*names));

    if (names == NULL) {
        return NULL;
    }
    names->n_buckets = BUCKETS_MIN;
    names->buckets = calloc(names->n_buckets, sizeof(struct instance_name *));
    if (names->buckets == NULL) {
        free(names);
        return NULL;
    }
    return names;
}

void instance_names_free(struct instance_names *names)
{
    if (names == NULL) {
        return;
    }
    assert(names->n_names == 0); /* every holder is gone by now */
    free(names->buckets);
    free(names);
}

/* The link that points to the entry, or to the NULL where it would stand. */
static struct instance_name **name_link(struct instance_names *names, const char *name,
                                        uint64_t hash)
{
    struct instance_name **link = &names->buckets[hash & (names->n_buckets - 1)];

    while (*link != NULL && ((*link)->hash != hash || strcmp((*link)->text, name) != 0)) {
        link = &(*link)->next;
    }
    return link;
}

static void names_grow(struct instance_names *names)
{
    size_t n_buckets = names->n_buckets * 2;
    struct instance_name **buckets = calloc(n_buckets, sizeof(struct instance_name *));

    if (buckets == NULL) {
        return;
    }
    for (size_t i = 0; i < names->n_buckets; i++) {
        struct instance_name *n, *next;

        for (n = names->buckets[i]; n != NULL; n = next) {
            struct instance_name **head = &buckets[n->hash & (n_buckets - 1)];

            next = n->next;
            n->next = *head;
            *head = n;
        }
    }
    free(names->buckets);
    names->buckets = buckets;
    names->n_buckets = n_buckets;
}

enum instance_name_kind instance_name_find(Platter *pl, const char *name, void **ret_owner)
{
    struct instance_name *n = *name_link(pl->names, name, name_hash(name));

    if (n == NULL) {
        return INSTANCE_NAME_NONE;
    }
    if (ret_owner != NULL) {
        *ret_owner = n->owner;
    }
    return n->kind;
}

int instance_name_add(Platter *pl, const char *name, enum instance_name_kind kind, void *owner)
{
    struct instance_names *names = pl->names;
    size_t len = strlen(name);
    struct instance_name *n = malloc(sizeof(*n) + len + 1);
    struct instance_name **link;

    if (n == NULL) {
        return -ENOMEM;
    }
    if (names->n_names >= names->n_buckets) {
        names_grow(names);
    }
    n->next = NULL;
    n->owner = owner;
    n->kind = kind;
    n->hash = name_hash(name);
    memcpy(n->text, name, len + 1);
    link = name_link(names, name, n->hash);
    assert(*link == NULL);
    *link = n;
    names->n_names++;
    return 0;
}

void instance_name_del(Platter *pl, const char *name)
{
    struct instance_name **link = name_link(pl->names, name, name_hash(name));
    struct instance_name *n = *link;

    assert(n != NULL);
    *link = n->next;
    free(n);
    pl->names->n_names--;
}
