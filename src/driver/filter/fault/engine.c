/* SPDX-License-Identifier: MIT */
/* blkdebug: events arm rules, and armed rules befall requests. */
#include <errno.h>

#include "fault.h"

static void disarm(struct fault_node *s, enum fault_action action)
{
    for (size_t i = 0; i < s->nrules; i++) {
        if (s->rules[i].action == action) {
            s->rules[i].armed = false;
        }
    }
}

/* All rules of an event see the state that was before it; the first one that changes it counts. */
void fault_happen(struct fault_node *s, enum bdrv_debug_event event)
{
    bool first[FAULT_ACTIONS] = {true, true, true};
    int64_t new_state;

    os_mutex_lock(&s->lock);
    new_state = s->state;
    for (size_t i = 0; i < s->nrules; i++) {
        struct fault_rule *rule = &s->rules[i];

        if (rule->event != event || rule->spent || (rule->state != 0 && rule->state != s->state)) {
            continue;
        }
        if (rule->action != FAULT_STATE) {
            if (first[rule->action]) {
                disarm(s, rule->action);
            }
            rule->armed = true;
        } else if (first[FAULT_STATE]) {
            new_state = rule->new_state;
        }
        first[rule->action] = false;
    }
    s->state = new_state;
    os_mutex_unlock(&s->lock);
}

static bool rule_matches(const struct fault_rule *rule, enum opts_blkdebug_iotype iotype,
                         uint64_t offset, uint64_t bytes)
{
    if (!rule->armed || rule->spent || !(rule->iotypes & 1u << iotype)) {
        return false;
    }
    return rule->offset < 0 ||
           ((uint64_t)rule->offset >= offset && (uint64_t)rule->offset - offset < bytes);
}

/* The first rule of that kind that befalls the request, as a copy; false: none does. */
static bool draw_rule(struct fault_node *s, enum fault_action action,
                      enum opts_blkdebug_iotype iotype, uint64_t offset, uint64_t bytes,
                      struct fault_rule *ret_rule)
{
    for (size_t i = 0; i < s->nrules; i++) {
        struct fault_rule *rule = &s->rules[i];

        if (rule->action == action && rule_matches(rule, iotype, offset, bytes)) {
            rule->spent = rule->once;
            *ret_rule = *rule;
            return true;
        }
    }
    return false;
}

int fault_befall_co(struct fault_node *s, enum opts_blkdebug_iotype iotype, uint64_t offset,
                    uint64_t bytes)
{
    struct fault_rule delay;
    struct fault_rule error;
    bool delays;
    bool fails;
    int ret = 0;

    os_mutex_lock(&s->lock);
    delays = draw_rule(s, FAULT_DELAY, iotype, offset, bytes, &delay);
    fails = draw_rule(s, FAULT_ERROR, iotype, offset, bytes, &error);
    os_mutex_unlock(&s->lock);
    if (delays) {
        ret = co_sleep_ns(delay.latency_ns);
    }
    if (ret < 0 || !fails) {
        return ret;
    }
    if (!error.immediately) { /* as storage would: from a later turn of the loop */
        aio_co_schedule(aio_context_current(), coroutine_self());
        coroutine_yield();
    }
    return -error.error;
}
