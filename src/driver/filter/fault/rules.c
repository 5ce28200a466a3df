/* SPDX-License-Identifier: MIT */
/* blkdebug: rules from options, numbered lists of them ("inject-error.0.event") included. */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fault.h"
#include "util/error.h"

#define SECTOR_BYTES 512
#define ALL_IOTYPES                                                                                \
    (1u << OPTS_BLKDEBUG_IOTYPE_READ | 1u << OPTS_BLKDEBUG_IOTYPE_WRITE |                          \
     1u << OPTS_BLKDEBUG_IOTYPE_WRITE_ZEROES | 1u << OPTS_BLKDEBUG_IOTYPE_DISCARD |                \
     1u << OPTS_BLKDEBUG_IOTYPE_FLUSH)

const char *fault_action_name(enum fault_action action)
{
    static const char *const names[FAULT_ACTIONS] = {"inject-error", "inject-delay", "set-state"};

    return names[action];
}

static int64_t sector_offset(int64_t sector)
{
    return sector < 0 ? -1 : sector * SECTOR_BYTES;
}

static int rule_event(const char *name, struct fault_rule *rule, Error **errp)
{
    if (name == NULL) {
        return error_set(errp, EINVAL, "Missing event name for rule");
    }
    return bdrv_debug_event_find(name, &rule->event, errp);
}

static int parse_error(BlockOptions *one, struct fault_rule *rule, Error **errp)
{
    struct opts_blkdebug_error o;
    int rc = opts_blkdebug_error_parse(one, &o, errp);

    if (rc < 0) {
        return rc;
    }
    rule->state = o.state;
    rule->iotypes = o.has_iotype ? 1u << o.iotype : ALL_IOTYPES;
    rule->offset = sector_offset(o.sector);
    rule->once = o.once;
    rule->error = (int)o.errno_;
    rule->immediately = o.immediately;
    rc = rule_event(o.event, rule, errp);
    opts_blkdebug_error_fini(&o);
    return rc;
}

static int parse_delay(BlockOptions *one, struct fault_rule *rule, Error **errp)
{
    struct opts_blkdebug_delay o;
    int rc = opts_blkdebug_delay_parse(one, &o, errp);

    if (rc < 0) {
        return rc;
    }
    rule->state = o.state;
    rule->iotypes = o.has_iotype ? 1u << o.iotype : ALL_IOTYPES;
    rule->offset = sector_offset(o.sector);
    rule->once = o.once;
    rule->latency_ns = (int64_t)o.latency_ns;
    rc = rule_event(o.event, rule, errp);
    opts_blkdebug_delay_fini(&o);
    return rc;
}

static int parse_state(BlockOptions *one, struct fault_rule *rule, Error **errp)
{
    struct opts_blkdebug_state o;
    int rc = opts_blkdebug_state_parse(one, &o, errp);

    if (rc < 0) {
        return rc;
    }
    rule->state = o.state;
    rule->new_state = o.new_state;
    rc = rule_event(o.event, rule, errp);
    opts_blkdebug_state_fini(&o);
    return rc;
}

static int parse_rule(BlockOptions *one, struct fault_rule *rule, Error **errp)
{
    switch (rule->action) {
    case FAULT_ERROR:
        return parse_error(one, rule, errp);
    case FAULT_DELAY:
        return parse_delay(one, rule, errp);
    case FAULT_STATE:
        return parse_state(one, rule, errp);
    }
    return -EINVAL;
}

int fault_rule_add(struct fault_node *s, enum fault_action action, BlockOptions *one, Error **errp)
{
    struct fault_rule rule = {.action = action};
    struct fault_rule *rules;
    const char *left;
    int rc = parse_rule(one, &rule, errp);

    if (rc < 0) {
        return rc;
    }
    left = block_options_next_key(one, NULL);
    if (left != NULL) {
        return error_set(errp, EINVAL, "[%s] section doesn't support the option '%s'",
                         fault_action_name(action), left);
    }
    if (s->nrules >= FAULT_RULES_MAX) {
        return error_set(errp, E2BIG, "blkdebug takes at most %d rules", FAULT_RULES_MAX);
    }
    rules = realloc(s->rules, (s->nrules + 1) * sizeof(*rules));
    if (rules == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    s->rules = rules;
    rules[s->nrules++] = rule;
    return 0;
}

/* The options under prefix are one rule. */
static int take_one(struct fault_node *s, enum fault_action action, BlockOptions *options,
                    const char *prefix, Error **errp)
{
    BlockOptions *one = block_options_take_prefix(options, prefix);
    int rc;

    if (one == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (isdigit((unsigned char)block_options_next_key(one, NULL)[0])) {
        rc = error_set(errp, EINVAL,
                       "The rules of '%s' must be numbered from 0 on, but '%s%s' is not in turn",
                       fault_action_name(action), prefix, block_options_next_key(one, NULL));
    } else {
        rc = fault_rule_add(s, action, one, errp);
    }
    block_options_free(one);
    return rc;
}

/* A list, then a rule that is given without a number. */
static int take_action(struct fault_node *s, enum fault_action action, BlockOptions *options,
                       Error **errp)
{
    char prefix[64];
    int rc = 0;

    for (unsigned i = 0; rc == 0; i++) {
        snprintf(prefix, sizeof(prefix), "%s.%u.", fault_action_name(action), i);
        if (!block_options_has_prefix(options, prefix)) {
            break;
        }
        rc = take_one(s, action, options, prefix, errp);
    }
    snprintf(prefix, sizeof(prefix), "%s.", fault_action_name(action));
    if (rc == 0 && block_options_has_prefix(options, prefix)) {
        rc = take_one(s, action, options, prefix, errp);
    }
    return rc;
}

int fault_rules_take(struct fault_node *s, BlockOptions *options, Error **errp)
{
    int rc = 0;

    for (int action = 0; rc == 0 && action < FAULT_ACTIONS; action++) {
        rc = take_action(s, (enum fault_action)action, options, errp);
    }
    return rc;
}
