/* SPDX-License-Identifier: MIT */
/* Rules for failing calls. */
#include "os/sim/sim_fault.h"

#include <string.h>

void sim_faults_init(struct sim_faults *faults, uint64_t seed)
{
    memset(faults, 0, sizeof(*faults));
    os_mutex_init(&faults->lock);
    sim_rng_init(&faults->rng, seed);
    faults->seed = seed;
}

void sim_faults_fini(struct sim_faults *faults)
{
    os_mutex_fini(&faults->lock);
}

unsigned sim_faults_add(struct sim_faults *faults, const struct sim_rule *rule)
{
    unsigned number;

    os_mutex_lock(&faults->lock);
    assert(faults->nrules < SIM_RULES_MAX);
    number = faults->nrules++;
    faults->rules[number] = *rule;
    faults->matched[number] = 0;
    faults->struck[number] = 0;
    os_mutex_unlock(&faults->lock);
    return number;
}

void sim_faults_clear(struct sim_faults *faults)
{
    os_mutex_lock(&faults->lock);
    faults->nrules = 0;
    faults->hits = 0;
    memset(faults->counts, 0, sizeof(faults->counts));
    os_mutex_unlock(&faults->lock);
}

static bool rule_fits(const struct sim_rule *rule, enum sim_call call, uint64_t offset,
                      uint64_t bytes)
{
    if (!(rule->calls & SIM_CALLS(call))) {
        return false;
    }
    return rule->bytes == 0 ||
           (offset < rule->offset + rule->bytes && rule->offset < offset + bytes);
}

/* Whether the rule strikes at its number-th fitting call. */
static bool rule_strikes(struct sim_faults *faults, const struct sim_rule *rule, uint64_t number)
{
    if (rule->nth != 0 && number != rule->nth && !(rule->forever && number > rule->nth)) {
        return false;
    }
    return rule->percent == 0 || sim_rng_percent(&faults->rng, rule->percent);
}

static uint64_t spread(const struct sim_faults *faults, uint64_t limit_ns, enum sim_call call,
                       uint64_t offset, uint64_t bytes)
{
    struct sim_rng rng;

    sim_rng_init(&rng, faults->seed ^ ((offset * 31 + bytes) * SIM_CALL_MAX + call));
    return limit_ns ? sim_rng_below(&rng, limit_ns) : 0;
}

void sim_faults_check(struct sim_faults *faults, enum sim_call call, uint64_t offset,
                      uint64_t bytes, struct sim_verdict *ret)
{
    *ret = (struct sim_verdict){0};
    os_mutex_lock(&faults->lock);
    faults->counts[call]++;
    for (unsigned i = 0; i < faults->nrules; i++) {
        const struct sim_rule *rule = &faults->rules[i];

        if (!rule_fits(rule, call, offset, bytes) ||
            !rule_strikes(faults, rule, ++faults->matched[i]) ||
            (rule->times != 0 && faults->struck[i] >= rule->times)) {
            continue;
        }
        faults->struck[i]++;
        faults->hits++;
        ret->error = ret->error ? ret->error : rule->error;
        ret->short_transfer |= rule->short_transfer;
        ret->lose_cache |= rule->lose_cache;
        ret->delay_ns += rule->delay_ns;
        ret->delay_ns += spread(faults, rule->delay_spread_ns, call, offset, bytes);
    }
    os_mutex_unlock(&faults->lock);
}

uint64_t sim_faults_count(struct sim_faults *faults, uint64_t calls)
{
    uint64_t sum = 0;

    os_mutex_lock(&faults->lock);
    for (unsigned i = 0; i < SIM_CALL_MAX; i++) {
        sum += calls & SIM_CALLS(i) ? faults->counts[i] : 0;
    }
    os_mutex_unlock(&faults->lock);
    return sum;
}

uint64_t sim_faults_hits(struct sim_faults *faults)
{
    uint64_t hits;

    os_mutex_lock(&faults->lock);
    hits = faults->hits;
    os_mutex_unlock(&faults->lock);
    return hits;
}
