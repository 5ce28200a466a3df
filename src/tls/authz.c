/* SPDX-License-Identifier: MIT */
/* Rules that say which identities may come. */
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "tls/tls.h"
#include "util/error.h"

TlsAuthz *tls_authz_make(const char *id, const struct tls_authz_rule *rules, size_t rule_count,
                         bool allow_rest, Error **errp)
{
    TlsAuthz *a;

    if (rule_count > TLS_AUTHZ_RULES_MAX) {
        error_set(errp, E2BIG, "'%s' has more than %u rules", id, TLS_AUTHZ_RULES_MAX);
        return NULL;
    }
    a = calloc(1, sizeof(*a));
    if (a != NULL) {
        atomic_init(&a->refs, 1);
        a->allow_rest = allow_rest;
        a->id = strdup(id);
        a->rules = calloc(rule_count + 1, sizeof(*a->rules));
    }
    if (a == NULL || a->id == NULL || a->rules == NULL) {
        goto no_memory;
    }
    for (; a->rule_count < rule_count; a->rule_count++) {
        struct tls_authz_rule *rule = &a->rules[a->rule_count];

        *rule = rules[a->rule_count];
        rule->match = strdup(rule->match);
        if (rule->match == NULL) {
            goto no_memory;
        }
    }
    return a;

no_memory:
    tls_authz_free(a);
    error_set(errp, ENOMEM, "out of memory");
    return NULL;
}

void tls_authz_free(TlsAuthz *authz)
{
    if (authz == NULL) {
        return;
    }
    for (size_t i = 0; i < authz->rule_count; i++) {
        free((char *)authz->rules[i].match);
    }
    free(authz->rules);
    free(authz->id);
    free(authz);
}

static bool rule_fits(const struct tls_authz_rule *rule, const char *identity)
{
    return rule->glob ? fnmatch(rule->match, identity, 0) == 0 : strcmp(rule->match, identity) == 0;
}

bool tls_authz_allows(const TlsAuthz *authz, const char *identity)
{
    for (size_t i = 0; i < authz->rule_count; i++) {
        if (rule_fits(&authz->rules[i], identity)) {
            return authz->rules[i].allow;
        }
    }
    return authz->allow_rest;
}
