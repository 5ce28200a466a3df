/* SPDX-License-Identifier: MIT */
/* Credentials and rules that an instance knows by their ids. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/instance.h"
#include "tls/tls.h"
#include "util/error.h"

struct tls_room {
    LIST_HEAD(, TlsCreds) creds;
    LIST_HEAD(, TlsAuthz) authz;
};

/* What somebody still has a reference to lives on, without a name. */
static void room_fini(Platter *pl, void *data)
{
    struct tls_room *room = data;
    TlsCreds *creds;
    TlsAuthz *authz;

    while ((creds = LIST_FIRST(&room->creds)) != NULL) {
        LIST_REMOVE(creds, in_instance);
        creds->listed = false;
    }
    while ((authz = LIST_FIRST(&room->authz)) != NULL) {
        LIST_REMOVE(authz, in_instance);
        authz->listed = false;
    }
    free(room);
}

static struct tls_room *room_get(Platter *pl, Error **errp)
{
    struct tls_room *room = pl->rooms[INSTANCE_ROOM_TLS].data;

    if (room == NULL) {
        room = calloc(1, sizeof(*room));
        if (room == NULL) {
            error_set(errp, ENOMEM, "out of memory");
            return NULL;
        }
        pl->rooms[INSTANCE_ROOM_TLS].data = room;
        pl->rooms[INSTANCE_ROOM_TLS].fini = room_fini;
    }
    return room;
}

/* ---- credentials ---- */

static TlsCreds *creds_by_id(Platter *pl, const char *id)
{
    struct tls_room *room = pl->rooms[INSTANCE_ROOM_TLS].data;
    TlsCreds *creds = room != NULL ? LIST_FIRST(&room->creds) : NULL;

    while (creds != NULL && strcmp(creds->id, id) != 0) {
        creds = LIST_NEXT(creds, in_instance);
    }
    return creds;
}

TlsCreds *tls_creds_new(Platter *pl, const char *id, const struct tls_creds_options *options,
                        Error **errp)
{
    struct tls_creds_options o = {.size = sizeof(o)};
    struct tls_room *room = room_get(pl, errp);
    TlsCreds *creds;

    if (room == NULL) {
        return NULL;
    }
    if (*id == '\0' || creds_by_id(pl, id) != NULL) {
        error_set(errp, *id ? EEXIST : EINVAL, "'%s' cannot be the id of new TLS credentials", id);
        return NULL;
    }
    memcpy(&o, options, options->size < sizeof(o) ? options->size : sizeof(o));
    creds = tls_creds_load(id, &o, errp);
    if (creds != NULL) {
        LIST_INSERT_HEAD(&room->creds, creds, in_instance);
        creds->listed = true;
    }
    return creds;
}

TlsCreds *tls_creds_find(Platter *pl, const char *id, enum tls_endpoint endpoint, Error **errp)
{
    TlsCreds *creds = creds_by_id(pl, id);

    if (creds == NULL && pl->has_object != NULL && pl->has_object(pl->objects, id)) {
        error_set(errp, EINVAL, "Object with id '%s' is not TLS credentials", id);
        return NULL;
    }
    if (creds == NULL) {
        error_set(errp, ENOENT, "No TLS credentials with id '%s'", id);
        return NULL;
    }
    if (creds->endpoint != endpoint) {
        error_set(errp, EINVAL, "Expected TLS credentials for a %s endpoint",
                  endpoint == TLS_ENDPOINT_SERVER ? "server" : "client");
        return NULL;
    }
    tls_creds_ref(creds);
    return creds;
}

void tls_creds_ref(TlsCreds *creds)
{
    atomic_fetch_add(&creds->refs, 1);
}

void tls_creds_unref(TlsCreds *creds)
{
    if (creds != NULL && atomic_fetch_sub(&creds->refs, 1) == 1) {
        if (creds->listed) {
            LIST_REMOVE(creds, in_instance);
        }
        tls_creds_free(creds);
    }
}

bool tls_creds_is_shared(const TlsCreds *creds)
{
    return atomic_load(&creds->refs) > 1;
}

/* ---- rules ---- */

static TlsAuthz *authz_by_id(Platter *pl, const char *id)
{
    struct tls_room *room = pl->rooms[INSTANCE_ROOM_TLS].data;
    TlsAuthz *authz = room != NULL ? LIST_FIRST(&room->authz) : NULL;

    while (authz != NULL && strcmp(authz->id, id) != 0) {
        authz = LIST_NEXT(authz, in_instance);
    }
    return authz;
}

TlsAuthz *tls_authz_new(Platter *pl, const char *id, const struct tls_authz_rule *rules,
                        size_t rule_count, bool allow_rest, Error **errp)
{
    struct tls_room *room = room_get(pl, errp);
    TlsAuthz *authz;

    if (room == NULL) {
        return NULL;
    }
    if (*id == '\0' || authz_by_id(pl, id) != NULL) {
        error_set(errp, *id ? EEXIST : EINVAL, "'%s' cannot be the id of new rules", id);
        return NULL;
    }
    authz = tls_authz_make(id, rules, rule_count, allow_rest, errp);
    if (authz != NULL) {
        LIST_INSERT_HEAD(&room->authz, authz, in_instance);
        authz->listed = true;
    }
    return authz;
}

TlsAuthz *tls_authz_find(Platter *pl, const char *id, Error **errp)
{
    TlsAuthz *authz = authz_by_id(pl, id);

    if (authz == NULL) {
        error_set(errp, ENOENT, "No authorization object with id '%s'", id);
        return NULL;
    }
    tls_authz_ref(authz);
    return authz;
}

void tls_authz_ref(TlsAuthz *authz)
{
    atomic_fetch_add(&authz->refs, 1);
}

void tls_authz_unref(TlsAuthz *authz)
{
    if (authz != NULL && atomic_fetch_sub(&authz->refs, 1) == 1) {
        if (authz->listed) {
            LIST_REMOVE(authz, in_instance);
        }
        tls_authz_free(authz);
    }
}

bool tls_authz_is_shared(const TlsAuthz *authz)
{
    return atomic_load(&authz->refs) > 1;
}
