/* SPDX-License-Identifier: MIT */
/* The address of an export between its three shapes: a name, options, struct nbdc_address. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nbd.h"
#include "schema/opts.h"
#include "util/error.h"

void nbdc_address_fini(struct nbdc_address *address)
{
    free(address->path);
    free(address->host);
    free(address->port);
    free(address->export_name);
    *address = (struct nbdc_address){0};
}

/* ---- from a name to options ---- */

static int set_all(BlockOptions *options, const struct nbdc_address *a)
{
    int rc = block_options_set_str(options, "server.type", a->path != NULL ? "unix" : "inet");

    if (rc == 0 && a->path != NULL) {
        rc = block_options_set_str(options, "server.path", a->path);
    }
    if (rc == 0 && a->host != NULL) {
        rc = block_options_set_str(options, "server.host", a->host);
    }
    if (rc == 0 && a->port != NULL) {
        rc = block_options_set_str(options, "server.port", a->port);
    }
    if (rc == 0 && a->export_name[0] != '\0') {
        rc = block_options_set_str(options, "export", a->export_name);
    }
    return rc;
}

int nbdc_parse_filename(const char *filename, BlockOptions *options, Error **errp)
{
    static const char *const twice[] = {"server.type", "server.host", "server.port",
                                        "server.path", "host",        "port",
                                        "path",        "export",      NULL};
    struct nbdc_address address;
    int rc;

    for (size_t i = 0; twice[i] != NULL; i++) {
        if (block_options_has(options, twice[i])) {
            return error_set(errp, EINVAL,
                             "The NBD server is given twice, as '%s' and by the option '%s'",
                             filename, twice[i]);
        }
    }
    rc = nbdc_name_parse(filename, &address, errp);
    if (rc < 0) {
        return rc;
    }
    rc = set_all(options, &address);
    nbdc_address_fini(&address);
    if (rc < 0) {
        error_set(errp, -rc, "'%s' cannot be an address", filename);
    }
    return rc;
}

/* ---- from options ---- */

static int missing(const char *key, Error **errp)
{
    return error_set(errp, EINVAL, "Parameter '%s' is missing", key);
}

/* The two spellings of where: which strings count. */
static int choose_where(const struct opts_node_nbd *o, const char **path, const char **host,
                        const char **port, Error **errp)
{
    bool modern = o->has_server_type || o->server_path || o->server_host || o->server_port;
    bool legacy = o->path || o->host || o->port;

    if (modern && legacy) {
        return error_set(errp, EINVAL, "'server' and path/host/port cannot be used together");
    }
    if (!modern && !legacy) {
        return error_set(errp, EINVAL, "NBD server address missing");
    }
    if (legacy && o->path && (o->host || o->port)) {
        return error_set(errp, EINVAL, "path and %s may not be used at the same time",
                         o->host ? "host" : "port");
    }
    if (legacy && !o->path && !o->host) {
        return error_set(errp, EINVAL, "port may not be used without host");
    }
    if (modern && !o->has_server_type) {
        return missing("server.type", errp);
    }
    *path = modern ? o->server_path : o->path;
    *host = modern ? o->server_host : o->host;
    *port = modern ? o->server_port : o->port;
    if (legacy) {
        *port = *host != NULL && *port == NULL ? NBD_PORT_DEFAULT : *port;
        return 0;
    }
    if (o->server_type == OPTS_NBD_SERVER_UNIX) {
        return *path == NULL ? missing("path", errp)
               : *host != NULL || *port != NULL
                   ? error_set(errp, EINVAL, "A unix socket has no host and no port")
                   : 0;
    }
    if (*path != NULL) {
        return error_set(errp, EINVAL, "A server of type inet has no path");
    }
    return *host == NULL ? missing("host", errp) : *port == NULL ? missing("port", errp) : 0;
}

static int copy(const char *text, char **ret)
{
    *ret = text != NULL ? strdup(text) : NULL;
    return text != NULL && *ret == NULL ? -ENOMEM : 0;
}

int nbdc_address_from_options(const struct opts_node_nbd *opts, struct nbdc_address *ret_address,
                              Error **errp)
{
    const char *path = NULL, *host = NULL, *port = NULL;
    const char *name = opts->export != NULL ? opts->export : "";
    struct nbdc_address a = {0};
    int rc = choose_where(opts, &path, &host, &port, errp);

    if (rc < 0) {
        return rc;
    }
    if (strlen(name) > NBD_STRING_BYTES_MAX) {
        return error_set(errp, EINVAL, "The name of the export is %zu bytes long; at most %d",
                         strlen(name), NBD_STRING_BYTES_MAX);
    }
    if (copy(path, &a.path) < 0 || copy(host, &a.host) < 0 || copy(port, &a.port) < 0 ||
        copy(name, &a.export_name) < 0) {
        nbdc_address_fini(&a);
        return error_set(errp, ENOMEM, "out of memory");
    }
    *ret_address = a;
    return 0;
}
