/* SPDX-License-Identifier: MIT */
/* What a disk may hold; see the header. */
#include "daemon_model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define VERSIONS 64
#define BIT(v) (UINT64_C(1) << (v))

void model_init(struct model *m, uint8_t tag)
{
    *m = (struct model){.tag = tag};
    for (unsigned i = 0; i < MODEL_SECTORS; i++) {
        m->now[i] = m->after[i] = BIT(0);
        m->next[i] = 1;
    }
    TAILQ_INIT(&m->ops);
}

static void op_free(struct model *m, struct model_op *op)
{
    TAILQ_REMOVE(&m->ops, op, link);
    free(op->seen);
    free(op);
}

void model_fini(struct model *m)
{
    while (!TAILQ_EMPTY(&m->ops)) {
        op_free(m, TAILQ_FIRST(&m->ops));
    }
}

void model_fill(const struct model *m, uint8_t *buf, unsigned sector, unsigned version)
{
    const uint8_t word[8] = {
        0x5a, m->tag,           (uint8_t)(sector >> 8), (uint8_t)sector, (uint8_t)version,
        0xa5, (uint8_t)~sector, (uint8_t)~version};

    for (unsigned i = 0; i < MODEL_SECTOR; i += sizeof(word)) {
        memcpy(buf + i, word, sizeof(word));
    }
    if (version == 0) {
        memset(buf, 0, MODEL_SECTOR);
    }
}

int model_version(const struct model *m, const uint8_t *buf, unsigned sector)
{
    uint8_t expected[MODEL_SECTOR];
    unsigned version = buf[0] == 0 ? 0 : buf[4];

    if (version >= VERSIONS) {
        return -1;
    }
    model_fill(m, expected, sector, version);
    return memcmp(buf, expected, MODEL_SECTOR) == 0 ? (int)version : -1;
}

/* ---- requests ---- */

static bool is_change(const struct model_op *op)
{
    return op->kind <= MODEL_TRIM;
}

/* A change is asked: whoever is under way may meet it. */
static void change_sector(struct model *m, struct model_op *op, unsigned i)
{
    unsigned sector = op->first + i;
    uint64_t bit = BIT(op->version[i]);
    struct model_op *other;

    TAILQ_FOREACH (other, &m->ops, link) {
        if (other == op || sector < other->first || sector >= other->first + other->count) {
            continue;
        }
        if (is_change(other)) {
            op->seen[i] |= BIT(other->version[sector - other->first]);
        }
        other->seen[sector - other->first] |= bit;
    }
    m->now[sector] |= bit;
    m->after[sector] |= bit;
}

struct model_op *model_begin(struct model *m, enum model_kind kind, unsigned first, unsigned count)
{
    struct model_op *op;

    if (kind == MODEL_FLUSH) {
        first = 0;
        count = MODEL_SECTORS;
    }
    assert(first + count <= MODEL_SECTORS);
    for (unsigned i = 0; kind == MODEL_WRITE && i < count; i++) {
        if (m->next[first + i] == VERSIONS) {
            return NULL;
        }
    }
    op = calloc(1, sizeof(*op));
    assert(op);
    *op = (struct model_op){.kind = kind, .first = first, .count = count};
    op->seen = calloc(count, sizeof(uint64_t));
    assert(op->seen);
    TAILQ_INSERT_TAIL(&m->ops, op, link);
    for (unsigned i = 0; i < count; i++) {
        if (is_change(op)) {
            op->version[i] = kind == MODEL_WRITE ? m->next[first + i]++ : 0;
            change_sector(m, op, i);
        } else {
            op->seen[i] = m->now[first + i];
        }
    }
    return op;
}

void model_end(struct model *m, struct model_op *op, bool ok, bool fua)
{
    for (unsigned i = 0; ok && i < op->count; i++) {
        unsigned sector = op->first + i;

        if (op->kind == MODEL_WRITE || op->kind == MODEL_ZERO) {
            m->now[sector] = BIT(op->version[i]) | op->seen[i];
            m->after[sector] = fua ? m->now[sector] : m->after[sector];
            m->floor[sector] = 0;
        } else if (op->kind == MODEL_FLUSH) {
            m->after[sector] &= op->seen[i] | m->floor[sector];
        }
    }
    op_free(m, op);
}

void model_abandon(struct model *m, struct model_op *op)
{
    if (!is_change(op)) {
        op_free(m, op);
    }
}

int model_read_check(const struct model *m, const struct model_op *op, const uint8_t *buf)
{
    for (unsigned i = 0; i < op->count; i++) {
        int version = model_version(m, buf + (size_t)i * MODEL_SECTOR, op->first + i);

        if (version < 0 || !(op->seen[i] & BIT(version))) {
            return (int)(op->first + i);
        }
    }
    return -1;
}

void model_daemon_gone(struct model *m)
{
    model_fini(m);
}

void model_reopened(struct model *m)
{
    for (unsigned i = 0; i < MODEL_SECTORS; i++) {
        m->floor[i] |= m->after[i];
    }
}

void model_settle(struct model *m, unsigned sector, unsigned version)
{
    m->now[sector] = m->after[sector] = BIT(version);
    m->floor[sector] = 0;
}
