/* SPDX-License-Identifier: MIT */
/* Objects of TLS: credentials, and rules that say who may come. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/object.h"
#include "control/qmp_type.h"
#include "util/error.h"
#include "util/json.h"

/* ---- credentials ---- */

/* The password of a key: a secret, as text. NULL with errp. */
static const char *password_of(struct control *c, const char *id, Error **errp)
{
    struct control_object *secret = control_secret_find(c, id, errp);

    if (!secret) {
        return NULL;
    }
    if (strlen(secret->secret) != secret->secret_bytes) {
        error_set(errp, EINVAL, "Secret '%s' is no password: it holds a zero byte", id);
        return NULL;
    }
    return secret->secret;
}

static enum tls_endpoint endpoint_of(bool has, enum qmp_qcrypto_tlscreds_endpoint endpoint)
{
    return has && endpoint == QMP_QCRYPTO_TLSCREDS_ENDPOINT_SERVER ? TLS_ENDPOINT_SERVER
                                                                   : TLS_ENDPOINT_CLIENT;
}

/* What is shown of credentials. */
static json_t *creds_shown(const struct tls_creds_options *o)
{
    return json_pack("{s:s, s:s, s:b, s:s}", "endpoint",
                     o->endpoint == TLS_ENDPOINT_SERVER ? "server" : "client", "dir",
                     o->dir ? o->dir : "", "verify-peer", !o->trust_any_peer, "priority",
                     o->priority ? o->priority : "");
}

static int creds_make(struct control *c, struct control_object *o,
                      const struct tls_creds_options *options, json_t *shown, Error **errp)
{
    o->shown = shown;
    if (!shown) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    o->creds = tls_creds_new(c->pl, o->id, options, errp);
    return o->creds ? 0 : -EINVAL;
}

int control_x509_init(struct control *c, struct control_object *o,
                      const struct qmp_tls_creds_x509_properties *props, Error **errp)
{
    struct tls_creds_options options = {
        .size = sizeof(options),
        .kind = TLS_CREDS_X509,
        .endpoint = endpoint_of(props->has_endpoint, props->endpoint),
        .dir = props->has_dir ? props->dir : NULL,
        .priority = props->has_priority ? props->priority : NULL,
        .trust_any_peer = props->has_verify_peer && !props->verify_peer,
        .no_sanity_check = props->has_sanity_check && !props->sanity_check,
    };
    json_t *shown;
    int ret = 0;

    if (props->has_passwordid) {
        options.password = password_of(c, props->passwordid, errp);
        if (!options.password) {
            return -EINVAL;
        }
    }
    shown = creds_shown(&options);
    json_add(shown, "sanity-check", json_boolean(!options.no_sanity_check), &ret);
    json_add(shown, "passwordid", json_text(props->has_passwordid ? props->passwordid : ""), &ret);
    return creds_make(c, o, &options, json_whole(shown, ret), errp);
}

int control_psk_init(struct control *c, struct control_object *o,
                     const struct qmp_tls_creds_psk_properties *props, Error **errp)
{
    struct tls_creds_options options = {
        .size = sizeof(options),
        .kind = TLS_CREDS_PSK,
        .endpoint = endpoint_of(props->has_endpoint, props->endpoint),
        .dir = props->has_dir ? props->dir : NULL,
        .priority = props->has_priority ? props->priority : NULL,
        .username = props->has_username ? props->username : NULL,
        .trust_any_peer = props->has_verify_peer && !props->verify_peer,
    };
    json_t *shown = creds_shown(&options);
    int ret = 0;

    json_add(shown, "username", json_text(props->has_username ? props->username : ""), &ret);
    return creds_make(c, o, &options, json_whole(shown, ret), errp);
}

int control_anon_init(struct control *c, struct control_object *o,
                      const struct qmp_tls_creds_anon_properties *props, Error **errp)
{
    struct tls_creds_options options = {
        .size = sizeof(options),
        .kind = TLS_CREDS_ANON,
        .endpoint = endpoint_of(props->has_endpoint, props->endpoint),
        .dir = props->has_dir ? props->dir : NULL,
        .priority = props->has_priority ? props->priority : NULL,
        .trust_any_peer = props->has_verify_peer && !props->verify_peer,
    };

    return creds_make(c, o, &options, creds_shown(&options), errp);
}

/* ---- rules ---- */

static int authz_make(struct control *c, struct control_object *o,
                      const struct tls_authz_rule *rules, size_t count, bool allow_rest,
                      json_t *shown, Error **errp)
{
    o->shown = shown;
    if (!shown) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    o->authz = tls_authz_new(c->pl, o->id, rules, count, allow_rest, errp);
    return o->authz ? 0 : -EINVAL;
}

int control_authz_simple_init(struct control *c, struct control_object *o,
                              const struct qmp_auth_zsimple_properties *props, Error **errp)
{
    struct tls_authz_rule rule = {.match = props->identity, .allow = true};

    return authz_make(c, o, &rule, 1, false, json_pack("{s:s}", "identity", props->identity), errp);
}

/* The list was checked against its type when the arguments were parsed. */
static int rules_take(json_t *list, struct tls_authz_rule *rules, Error **errp)
{
    json_t *one;
    size_t i;

    json_array_foreach(list, i, one)
    {
        struct qmp_qauth_zlist_rule rule;
        int ret = qmp_parse(qmp_qauth_zlist_rule_type, one, &rule, errp);

        if (ret < 0) {
            return ret;
        }
        rules[i] = (struct tls_authz_rule){
            .match = rule.match,
            .glob = rule.has_format && rule.format == QMP_QAUTH_ZLIST_FORMAT_GLOB,
            .allow = rule.policy == QMP_QAUTH_ZLIST_POLICY_ALLOW,
        };
    }
    return 0;
}

int control_authz_list_init(struct control *c, struct control_object *o,
                            const struct qmp_auth_zlist_properties *props, Error **errp)
{
    bool allow = props->has_policy && props->policy == QMP_QAUTH_ZLIST_POLICY_ALLOW;
    size_t count = props->has_rules ? json_array_size(props->rules) : 0;
    struct tls_authz_rule *rules = calloc(count + 1, sizeof(*rules));
    json_t *shown = json_pack("{s:s, s:o}", "policy", allow ? "allow" : "deny", "rules",
                              count > 0 ? json_deep_copy(props->rules) : json_array());
    int ret;

    if (!rules) {
        json_decref(shown);
        return error_set(errp, ENOMEM, "out of memory");
    }
    ret = count > 0 ? rules_take(props->rules, rules, errp) : 0;
    if (ret < 0) {
        json_decref(shown);
    } else {
        ret = authz_make(c, o, rules, count, allow, shown, errp);
    }
    free(rules);
    return ret;
}
