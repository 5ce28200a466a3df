/* SPDX-License-Identifier: MIT */
/*
 * Refusals. libnbd has no number for the reply of a server: its own text says which it was, for
 * some replies one text (POLICY and PLATFORM; INVALID and TOO_BIG).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os/nbd_library.h"
#include "os/nbd_refusal.h"
#include "util/error.h"
#include "util/mem.h"

static const char said_prefix[] = "handshake: server error message: ";

/* ---- what the server says ---- */

/* libnbd goes from state to state, of which each option has its own. */
static bool begins_option(const char *message)
{
    static const char first[] = ".START";
    const char *state = strstr(message, " -> NEWSTYLE.OPT_");
    size_t len = state != NULL ? strlen(state) : 0;

    return len >= sizeof(first) && strcmp(state + len - (sizeof(first) - 1), first) == 0;
}

static int hear(void *user_data, const char *context, const char *message)
{
    struct nbd_hearing *hearing = user_data;
    size_t skip = sizeof(said_prefix) - 1;
    bool said = strncmp(message, said_prefix, skip) == 0;

    if (!hearing->enough && (said || begins_option(message))) {
        free(hearing->text);
        hearing->text = said ? strdup(message + skip) : NULL; /* NULL: nothing was said */
    }
    return 0;
}

void nbd_hearing_begin(struct nbd_hearing *hearing, struct nbd_handle *h)
{
    nbd_debug_callback callback = {.callback = hear, .user_data = hearing};

    /* the callback first: without one, messages go to stderr */
    hearing->on = libnbd()->get_debug(h) == 0 && libnbd()->set_debug_callback(h, callback) == 0 &&
                  libnbd()->set_debug(h, true) == 0;
}

void nbd_hearing_end(struct nbd_hearing *hearing, struct nbd_handle *h)
{
    if (hearing->on) {
        (void)libnbd()->set_debug(h, false);
        (void)libnbd()->clear_debug_callback(h);
    }
    free(hearing->text);
    *hearing = (struct nbd_hearing){0};
}

void nbd_hearing_tell(const struct nbd_hearing *hearing, Error **errp)
{
    if (hearing->text != NULL && *hearing->text != '\0') {
        error_set_hint(errp, "server reported: %s", hearing->text);
        error_add_compat_hint(errp, "server reported: %s", hearing->text);
    }
}

/* ---- what it means ---- */

struct refusal {
    const char *theirs; /* in libnbd's text */
    int err;
    const char *ours; /* in front of "option" */
    const char *hint; /* or NULL */
};

/* Looked for before all others: behind it stands a name, in which anything may be. */
static const char no_export[] = "handshake: server has no export";
static const struct refusal refusals[] = {
    {"handshake: server requires TLS", EACCES, "TLS negotiation required before",
     "Did you forget a valid tls-creds?"},
    {"handshake: server policy prevents", EPERM, "Denied by server for", NULL},
    {"handshake: server rejected NBD_OPT_GO as invalid", EINVAL, "Invalid parameters for", NULL},
    {"handshake: server is shutting down", ESHUTDOWN, "Server shutting down before", NULL},
    {"handshake: server requires specific block sizes", EINVAL,
     "Server requires INFO_BLOCK_SIZE for", NULL},
    {"handshake: unknown reply from NBD_OPT_GO: 0x8", EPROTO, "Unknown error code when asking for",
     NULL},
};

static const char *option_name(enum nbd_refused_option option)
{
    return option == NBD_REFUSED_LIST ? "list" : option == NBD_REFUSED_INFO ? "info" : "go";
}

/* The reason stands between the name of the call and libnbd's numbers. */
static int set_handshake_failed(const char *text, Error **errp)
{
    static const char call[] = "gnutls_handshake: ";
    const char *reason = strstr(text, call);
    const char *end;

    if (reason == NULL) {
        return 0;
    }
    reason += sizeof(call) - 1;
    end = strrchr(reason, '(');
    while (end != NULL && end > reason && end[-1] == ' ') {
        end--;
    }
    return error_set(errp, EPROTO, "TLS handshake failed: %.*s",
                     end != NULL ? (int)(end - reason) : (int)strlen(reason), reason);
}

int nbd_refusal_set(const struct nbd_hearing *hearing, enum nbd_refused_option option, Error **errp)
{
    const char *text = libnbd()->get_error();

    if (text == NULL) {
        return 0;
    }
    if (strstr(text, no_export) != NULL) {
        error_set(errp, ENOENT, "Requested export not available");
        nbd_hearing_tell(hearing, errp);
        return -ENOENT;
    }
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        const struct refusal *r = &refusals[i];

        if (strstr(text, r->theirs) != NULL) {
            error_set(errp, r->err, "%s option %u (%s)", r->ours, (unsigned)option,
                      option_name(option));
            if (r->hint != NULL) {
                error_add_compat_hint(errp, "%s", r->hint);
            }
            nbd_hearing_tell(hearing, errp);
            if (r->hint != NULL) { /* what to do says more than what the server said */
                error_set_hint(errp, "%s", r->hint);
            }
            return -r->err;
        }
    }
    return set_handshake_failed(text, errp);
}

/* ---- one question ---- */

struct nbd_question {
    enum nbd_refused_option option;
    bool answered;
    int rc;
    Error **errp;
};

/* Here libnbd's text says why; that of its call which waits does not. */
static int answer(void *user_data, int *error)
{
    const struct nbd_hearing *hearing = user_data;
    struct nbd_question *q = hearing->question;

    if (q == NULL) { /* nobody waits any more: the handle is being closed */
        return 1;
    }
    q->answered = true;
    if (*error != 0) {
        q->rc = nbd_refusal_set(hearing, q->option, q->errp);
        if (q->rc == 0) {
            q->rc = error_set(q->errp, *error, "%s", libnbd()->get_error());
        }
    }
    return 1; /* it need not be asked for its end */
}

int nbd_ask_info(struct nbd_handle *h, struct nbd_hearing *hearing, enum nbd_refused_option option,
                 Error **errp)
{
    struct nbd_question q = {.option = option, .errp = errp};
    nbd_completion_callback callback = {.callback = answer, .user_data = hearing};
    bool going;

    hearing->question = &q;
    going = libnbd()->aio_opt_info(h, callback) == 0;
    while (going && !q.answered) {
        going = libnbd()->aio_is_connecting(h) > 0 && libnbd()->poll(h, -1) >= 0;
    }
    hearing->question = NULL;
    return q.answered ? q.rc
                      : error_set(errp, EIO, "No answer to option %u (%s)", (unsigned)option,
                                  option_name(option));
}
