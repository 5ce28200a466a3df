/* SPDX-License-Identifier: MIT */
/* What an NBD server offers, over libnbd. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "os/nbd_library.h"
#include "os/nbd_refusal.h"
#include "tls/tls.h"
#include "tools/nbd/nbd.h"
#include "util/error.h"
#include "util/mem.h"

#define EXPORTS_MAX 10000 /* that are listed of one server */
#define CONTEXTS_MAX 1000 /* of one export */

struct entry {
    char *name;        /* owned */
    char *description; /* owned */
};

struct words {
    char **list; /* owned, each too */
    unsigned count;
    bool lacked; /* memory for one */
};

struct listing {
    struct cli *cli;
    struct nbd_handle *nbd;
    struct nbd_hearing hearing;
    FILE *out; /* what is told when nothing has failed */
    struct entry *entries;
    unsigned count;
    bool full;   /* there are more */
    bool lacked; /* memory, for one of them or a part of it */
};

/* ---- collecting ---- */

static int add_entry(void *opaque, const char *name, const char *description)
{
    struct listing *l = opaque;
    struct entry *entries;

    if (l->count == EXPORTS_MAX) {
        l->full = true;
        return 0;
    }
    entries = realloc(l->entries, (l->count + 1) * sizeof(*entries));
    if (!entries) {
        l->lacked = true;
        return 0;
    }
    l->entries = entries;
    entries[l->count] = (struct entry){strdup(name), strdup(description)};
    l->lacked |= !entries[l->count].name || !entries[l->count].description;
    l->count++;
    return 0;
}

static int add_word(void *opaque, const char *word)
{
    struct words *w = opaque;
    char **list;

    if (w->count == CONTEXTS_MAX) {
        return 0;
    }
    list = realloc(w->list, (w->count + 1) * sizeof(*list));
    if (list) {
        w->list = list;
        w->list[w->count] = strdup(word);
    }
    if (list && w->list[w->count]) {
        w->count++;
    } else {
        w->lacked = true;
    }
    return 0;
}

static void words_fini(struct words *w)
{
    for (unsigned i = 0; i < w->count; i++) {
        free(w->list[i]);
    }
    free(w->list);
}

static void listing_fini(struct listing *l)
{
    for (unsigned i = 0; i < l->count; i++) {
        free(l->entries[i].name);
        free(l->entries[i].description);
    }
    free(l->entries);
    if (l->nbd) {
        nbd_hearing_end(&l->hearing, l->nbd);
    }
    libnbd()->close(l->nbd);
}

/* ---- printing ---- */

static void print_flags(struct listing *l)
{
    const struct {
        unsigned bit;
        const char *name;
        int (*get)(struct nbd_handle *nbd);
    } rows[] = {
        {1 << 1, "readonly", libnbd()->is_read_only},
        {1 << 2, "flush", libnbd()->can_flush},
        {1 << 3, "fua", libnbd()->can_fua},
        {1 << 4, "rotational", libnbd()->is_rotational},
        {1 << 5, "trim", libnbd()->can_trim},
        {1 << 6, "zeroes", libnbd()->can_zero},
        {1 << 7, "df", libnbd()->can_df},
        {1 << 8, "multi", libnbd()->can_multi_conn},
        {1 << 10, "cache", libnbd()->can_cache},
        {1 << 11, "fast-zero", libnbd()->can_fast_zero},
    };
    unsigned flags = 1; /* that there are flags */

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        flags |= rows[i].get(l->nbd) > 0 ? rows[i].bit : 0;
    }
    fprintf(l->out, "  flags: 0x%x (", flags);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (flags & rows[i].bit) {
            fprintf(l->out, " %s", rows[i].name);
        }
    }
    fputs(" )\n", l->out);
}

static void print_sizes(struct listing *l)
{
    int64_t min = libnbd()->get_block_size(l->nbd, LIBNBD_SIZE_MINIMUM);

    if (min > 0) {
        fprintf(l->out,
                "  min block: %" PRId64 "\n  opt block: %" PRId64 "\n  max block: %" PRId64 "\n",
                min, libnbd()->get_block_size(l->nbd, LIBNBD_SIZE_PREFERRED),
                libnbd()->get_block_size(l->nbd, LIBNBD_SIZE_MAXIMUM));
    }
}

/* A line that needs no memory but the stream's. */
static void put_name(struct listing *l, const char *before, const char *name, const char *behind)
{
    fputs(before, l->out);
    cli_put_text(l->out, name);
    fputs(behind, l->out);
}

static void print_contexts(struct listing *l)
{
    struct words contexts = {0};
    int ret = libnbd()->opt_list_meta_context(
        l->nbd, (nbd_context_callback){.callback = add_word, .user_data = &contexts});

    contexts.lacked |= ret < 0 && libnbd()->get_errno() == ENOMEM;
    if (ret >= 0 && contexts.count > 0) {
        fprintf(l->out, "  available meta contexts: %u\n", contexts.count);
        for (unsigned i = 0; i < contexts.count; i++) {
            put_name(l, "   ", contexts.list[i], "\n");
        }
    }
    l->lacked |= contexts.lacked;
    words_fini(&contexts);
}

static int print_entry(struct listing *l, const struct entry *e)
{
    FILE *out = l->out;
    Error *err = NULL;
    int ret;

    put_name(l, " export: '", e->name, "'\n");
    if (*e->description) {
        put_name(l, "  description: ", e->description, "\n");
    }
    if (libnbd()->set_export_name(l->nbd, e->name) < 0) {
        return CLI_EXIT_OK;
    }
    ret = nbd_ask_info(l->nbd, &l->hearing, NBD_REFUSED_INFO, &err);
    if (ret == -ENOTSUP) { /* the server knows names only */
        error_free(err);
        return CLI_EXIT_OK;
    }
    if (ret < 0) {
        return cli_report(l->cli, err);
    }
    fprintf(out, "  size:  %" PRId64 "\n", libnbd()->get_size(l->nbd));
    print_flags(l);
    print_sizes(l);
    print_contexts(l);
    return CLI_EXIT_OK;
}

/* ---- the whole ---- */

static int connect_failed(struct listing *l, const struct nbd_args *args)
{
    int err = libnbd()->get_errno();
    Error *refusal = NULL;

    if (nbd_refusal_set(&l->hearing, NBD_REFUSED_LIST, &refusal) < 0) {
        return cli_report(l->cli, refusal);
    }
    if (!args->socket && err == 0) {
        return nbd_report_resolution(l->cli, args, libnbd()->get_error());
    }
    if (err == 0) {
        return cli_error(l->cli, "%s", libnbd()->get_error());
    }
    if (args->socket && err == ENAMETOOLONG) {
        return nbd_report_long_path(l->cli, args);
    }
    if (args->socket) {
        return cli_error(l->cli, "Failed to connect to '%s': %s", args->socket, strerror(err));
    }
    return cli_error(l->cli, "Failed to connect to '%s:%s': %s", nbd_args_host(l->cli, args),
                     nbd_args_port(args), strerror(err));
}

/* libnbd has one error for all refusals of a list. Two hold for every option, so that the next one
 * tells: that TLS comes first, and that the server ends. */
static int list_refused(struct listing *l)
{
    Error *err = NULL;
    Error *same = NULL;
    int ret;

    error_set(&err, EIO, "the server does not list its exports: %s", libnbd()->get_error());
    nbd_hearing_tell(&l->hearing, &err);
    l->hearing.enough = true;
    ret = libnbd()->aio_is_negotiating(l->nbd) > 0
              ? nbd_ask_info(l->nbd, &l->hearing, NBD_REFUSED_LIST, &same)
              : 0;
    if (ret == -EACCES || ret == -ESHUTDOWN) {
        error_free(err);
        return cli_report(l->cli, same);
    }
    error_free(same);
    return cli_report(l->cli, err);
}

/* All or nothing. */
static int print_all(struct listing *l)
{
    char *shown = NULL;
    size_t bytes = 0;
    int code = CLI_EXIT_OK;

    l->out = l->lacked ? NULL : open_memstream(&shown, &bytes);
    if (!l->out) {
        return cli_error(l->cli, "out of memory");
    }
    fprintf(l->out, "exports available: %u\n", l->count);
    for (unsigned i = 0; code == CLI_EXIT_OK && i < l->count; i++) {
        code = print_entry(l, &l->entries[i]);
    }
    l->lacked |= ferror(l->out) != 0; /* closing it tells nothing of what failed before */
    l->lacked |= fclose(l->out) != 0;
    if (code == CLI_EXIT_OK && l->lacked) {
        code = cli_error(l->cli, "out of memory");
    }
    if (code == CLI_EXIT_OK) {
        fwrite(shown, 1, bytes, l->cli->out);
    }
    free(shown);
    return code;
}

static int list(struct listing *l, const struct nbd_args *args)
{
    int ret = libnbd()->set_opt_mode(l->nbd, true);

    if (ret == 0) {
        ret = args->socket
                  ? libnbd()->connect_unix(l->nbd, args->socket)
                  : libnbd()->connect_tcp(l->nbd, nbd_args_host(l->cli, args), nbd_args_port(args));
    }
    if (ret < 0) {
        return connect_failed(l, args);
    }
    if (!libnbd()->aio_is_negotiating(l->nbd)) {
        return cli_error(l->cli, "the server speaks a protocol that has no list of exports");
    }
    if (libnbd()->opt_list(l->nbd, (nbd_list_callback){.callback = add_entry, .user_data = l}) <
        0) {
        return list_refused(l);
    }
    ret = print_all(l);
    (void)libnbd()->opt_abort(l->nbd);
    if (ret == CLI_EXIT_OK && l->full) {
        return cli_error(l->cli, "the server has more exports than can be listed: %d", EXPORTS_MAX);
    }
    return ret;
}

/* Credentials are objects of an instance, which nothing else here needs. */
static int set_tls(struct listing *l, const struct nbd_args *args)
{
    Platter *pl = disk_platter_new(l->cli, &args->disk);
    TlsCreds *creds;
    Error *err = NULL;

    if (!pl) {
        return CLI_EXIT_FAILED;
    }
    creds = nbd_tls_creds(pl, args, TLS_ENDPOINT_CLIENT, &err);
    if (creds) {
        (void)tls_libnbd_set(l->nbd, creds, args->socket ? NULL : nbd_args_host(l->cli, args),
                             args->tls_hostname, &err);
    }
    tls_creds_unref(creds);
    platter_free(pl);
    if (err) {
        cli_report(l->cli, err);
        return CLI_EXIT_FAILED;
    }
    return CLI_EXIT_OK;
}

int nbd_list(struct cli *cli, const struct nbd_args *args)
{
    struct listing l = {.cli = cli};
    int code;

    if (!libnbd()) {
        return cli_error(cli, "listing exports needs libnbd, which is not installed");
    }
    l.nbd = libnbd()->create();
    code = l.nbd ? CLI_EXIT_OK : cli_error(cli, "%s", libnbd()->get_error());
    if (l.nbd) {
        nbd_hearing_begin(&l.hearing, l.nbd);
    }
    if (code == CLI_EXIT_OK && args->tls_creds) {
        code = set_tls(&l, args);
    }
    if (code == CLI_EXIT_OK) {
        code = list(&l, args);
    }
    listing_fini(&l);
    return code;
}
