/* SPDX-License-Identifier: MIT */
/* The command line of platter nbd. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"
#include "tools/nbd/nbd.h"
#include "util/mem.h"
#include "util/options.h"

enum nbd_option {
    NBD_OPTION_AIO = 1,
    NBD_OPTION_BIND,
    NBD_OPTION_BITMAP,
    NBD_OPTION_CACHE,
    NBD_OPTION_CONNECT,
    NBD_OPTION_DEPTH,
    NBD_OPTION_DESCRIPTION,
    NBD_OPTION_DETECT_ZEROES,
    NBD_OPTION_DISCARD,
    NBD_OPTION_DISCONNECT,
    NBD_OPTION_FORK,
    NBD_OPTION_LIST,
    NBD_OPTION_NAME,
    NBD_OPTION_NOCACHE,
    NBD_OPTION_OFFSET,
    NBD_OPTION_PERSISTENT,
    NBD_OPTION_PID_FILE,
    NBD_OPTION_PORT,
    NBD_OPTION_READ_ONLY,
    NBD_OPTION_SCRATCH,
    NBD_OPTION_SELINUX,
    NBD_OPTION_SHARED,
    NBD_OPTION_SOCKET,
    NBD_OPTION_TLS_AUTHZ,
    NBD_OPTION_TLS_CREDS,
    NBD_OPTION_TLS_HOSTNAME,
    NBD_OPTION_TRACE,
    NBD_OPTION_VERBOSE,
};

const struct cli_option nbd_tool_options[] = {
    {NBD_OPTION_SOCKET, 'k', "socket", "PATH", "listen on, or connect to, a unix socket"},
    {NBD_OPTION_PORT, 'p', "port", "PORT", "TCP port; 10809 when not given, 0 chooses one"},
    {NBD_OPTION_BIND, 'b', "bind", "ADDR", "address for TCP"},
    {NBD_OPTION_SHARED, 'e', "shared", "N", "clients at a time; 1 when not given, 0: any number"},
    {NBD_OPTION_PERSISTENT, 't', "persistent", NULL, "do not end when the last client has gone"},
    {NBD_OPTION_NAME, 'x', "export-name", "NAME", "name of the export; empty when not given"},
    {NBD_OPTION_DESCRIPTION, 'D', "description", "TEXT", "what the export is, for people"},
    {NBD_OPTION_OFFSET, 'o', "offset", "OFFSET", "byte of the disk where the export begins"},
    {NBD_OPTION_DEPTH, 'A', "allocation-depth", NULL, "offer qemu:allocation-depth"},
    {NBD_OPTION_BITMAP, 'B', "bitmap", "NAME", "offer qemu:dirty-bitmap:NAME; may be repeated"},
    {NBD_OPTION_LIST, 'L', "list", NULL, "list the exports of a server"},
    {NBD_OPTION_FORK, 0, "fork", NULL, "go into the background once it listens"},
    {NBD_OPTION_PID_FILE, 0, "pid-file", "PATH", "write the number of the process there then"},
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    {NBD_OPTION_READ_ONLY, 'r', "read-only", NULL, "refuse writes"},
    {NBD_OPTION_SCRATCH, 's', "snapshot", NULL, "writes go to a scratch file that ends with this"},
    DISK_ROW_SNAPSHOT,
    {NBD_OPTION_NOCACHE, 'n', "nocache", NULL, "as --cache=none"},
    DISK_ROW_CACHE_AS(NBD_OPTION_CACHE, 0),
    DISK_ROW_AIO_AS(NBD_OPTION_AIO, 0),
    DISK_ROW_DISCARD_AS(NBD_OPTION_DISCARD),
    {NBD_OPTION_DETECT_ZEROES, 0, "detect-zeroes", "MODE",
     "write zeroes as such: off, on, or unmap (as holes)", .words = disk_detect_zeroes_words},
    DISK_ROW_OBJECT,
    {NBD_OPTION_TLS_CREDS, 0, "tls-creds", "ID", "TLS only, with the credentials of that --object"},
    {NBD_OPTION_TLS_HOSTNAME, 0, "tls-hostname", "NAME", "with -L: whose certificate to expect"},
    {NBD_OPTION_TLS_AUTHZ, 0, "tls-authz", "ID", "the --object that says which clients may come"},
    TRACE_ROW(NBD_OPTION_TRACE),
    {NBD_OPTION_SELINUX, 0, "selinux-label", "LABEL", "refused: not in this build"},
    {NBD_OPTION_CONNECT, 'c', "connect", "DEV", "refused: attaching kernel devices"},
    {NBD_OPTION_DISCONNECT, 'd', "disconnect", NULL, "refused: the same"},
    {NBD_OPTION_VERBOSE, 'v', "verbose", NULL, "tell where it listens"},
    DISK_ROWS_REFS,
    {0},
};

const char *nbd_args_host(const struct cli *cli, const struct nbd_args *args)
{
    return args->bind ? args->bind : cli_stands_in(cli) ? "0.0.0.0" : "127.0.0.1";
}

const char *nbd_args_port(const struct nbd_args *args)
{
    return args->port ? args->port : NBD_PORT_DEFAULT;
}

int nbd_report_activated(struct cli *cli, int fd, int ret)
{
    return cli_error(cli, "Socket activation failed: invalid file descriptor fd = %d: %s", fd,
                     strerror(-ret));
}

int nbd_report_long_path(struct cli *cli, const struct nbd_args *args)
{
    cli_error(cli, "UNIX socket path '%s' is too long", args->socket);
    fputs("Path must be less than 108 bytes\n", cli->err);
    return CLI_EXIT_FAILED;
}

int nbd_report_resolution(struct cli *cli, const struct nbd_args *args, const char *text)
{
    const char *why = strrchr(text, ':');

    return cli_error(cli, "address resolution failed for %s:%s:%s", nbd_args_host(cli, args),
                     nbd_args_port(args), why ? why + 1 : text);
}

/* ---- values ---- */

/* As C reads integers: blanks and a sign may stand before it; what is below 0 wraps. */
static bool take_integer(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;

    errno = 0;
    *ret = strtoull(text, &end, 0);
    return end != text && *end == '\0' && errno == 0 && *ret <= max;
}

static int take_word(struct cli *cli, const char **to, const char *value, const char *shown)
{
    if (*to) {
        return cli_error(cli, "%s can only be specified once", shown);
    }
    *to = value;
    return CLI_EXIT_OK;
}

static int take_discard(struct nbd_args *args, const struct cli_args *a)
{
    if (args->disk.discard) {
        return cli_error(a->cli, "--discard can only be specified once");
    }
    args->disk.discard = a->value;
    return cli_is_word(a->value, disk_discard_words)
               ? CLI_EXIT_OK
               : cli_error(a->cli, "Invalid discard mode `%s'", a->value);
}

static int take_detect_zeroes(struct nbd_args *args, const struct cli_args *a)
{
    const char *discard = args->disk.discard;

    if (!cli_is_word(a->value, disk_detect_zeroes_words)) {
        return cli_error(a->cli, "Failed to parse detect_zeroes mode: invalid parameter value: %s",
                         a->value);
    }
    if (strcmp(a->value, "unmap") == 0 &&
        (!discard || (strcmp(discard, "unmap") != 0 && strcmp(discard, "on") != 0))) {
        return cli_error(a->cli, "setting detect-zeroes to unmap is not allowed without setting "
                                 "discard operation to unmap");
    }
    args->disk.detect_zeroes = a->value;
    return CLI_EXIT_OK;
}

static int take_cache(struct nbd_args *args, const struct cli_args *a, const char *mode)
{
    int code = take_word(a->cli, &args->disk.cache, mode, "-n and --cache");

    if (code == CLI_EXIT_OK && !disk_cache_is_known(mode)) {
        return cli_error(a->cli, "Invalid cache mode `%s'", mode);
    }
    return code;
}

static int take_aio(struct nbd_args *args, const struct cli_args *a)
{
    int code = take_word(a->cli, &args->disk.aio, a->value, "--aio");

    if (code == CLI_EXIT_OK && !cli_is_word(a->value, disk_aio_words)) {
        return cli_error(a->cli, "Invalid aio mode '%s'", a->value);
    }
    return code;
}

static int take_bitmap(struct nbd_args *args, const struct cli_args *a)
{
    if (args->bitmap_count == NBD_MAX_EXPORT_BITMAPS) {
        return cli_error(a->cli, "more than %d bitmaps of one export", NBD_MAX_EXPORT_BITMAPS);
    }
    args->bitmaps[args->bitmap_count++].name = a->value;
    return CLI_EXIT_OK;
}

static int refuse(const struct cli_args *a, const char *what)
{
    return cli_error(a->cli, "%s in this build: --%s%s%s cannot be honoured", what, a->option->name,
                     a->value ? " " : "", a->value ? a->value : "");
}

static int take_number(struct nbd_args *args, int id, const struct cli_args *a)
{
    uint64_t value;

    if (id == NBD_OPTION_OFFSET) {
        return take_integer(a->value, UINT64_MAX, &args->offset)
                   ? CLI_EXIT_OK
                   : cli_error(a->cli, "Invalid offset '%s'", a->value);
    }
    if (!take_integer(a->value, INT_MAX, &value)) {
        return cli_error(a->cli, "Invalid shared device number '%s'", a->value);
    }
    args->shared = (unsigned)value;
    return CLI_EXIT_OK;
}

/* ---- options ---- */

static bool take_switch(struct nbd_args *args, int id)
{
    const struct {
        int id;
        bool *to;
    } switches[] = {
        {NBD_OPTION_DEPTH, &args->allocation_depth},
        {NBD_OPTION_DISCONNECT, &args->disconnect},
        {NBD_OPTION_FORK, &args->fork},
        {NBD_OPTION_LIST, &args->list},
        {NBD_OPTION_PERSISTENT, &args->persistent},
        {NBD_OPTION_READ_ONLY, &args->read_only},
        {NBD_OPTION_SCRATCH, &args->scratch},
        {NBD_OPTION_VERBOSE, &args->verbose},
    };

    for (size_t i = 0; i < ARRAY_SIZE(switches); i++) {
        if (switches[i].id == id) {
            *switches[i].to = true;
            return true;
        }
    }
    return false;
}

static bool take_text(struct nbd_args *args, int id, const struct cli_args *a, int *ret_code)
{
    const struct {
        int id;
        const char **to;
    } texts[] = {
        {NBD_OPTION_BIND, &args->bind},           {NBD_OPTION_CONNECT, &args->device},
        {NBD_OPTION_NAME, &args->name},           {NBD_OPTION_DESCRIPTION, &args->description},
        {NBD_OPTION_PID_FILE, &args->pid_file},   {NBD_OPTION_PORT, &args->port},
        {NBD_OPTION_SOCKET, &args->socket},       {NBD_OPTION_TLS_AUTHZ, &args->tls_authz},
        {NBD_OPTION_TLS_CREDS, &args->tls_creds}, {NBD_OPTION_TLS_HOSTNAME, &args->tls_hostname},
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (texts[i].id == id) {
            *texts[i].to = a->value;
            if ((id == NBD_OPTION_NAME || id == NBD_OPTION_DESCRIPTION) &&
                strlen(a->value) > 4096) {
                *ret_code = cli_error(a->cli, "export %s '%s' too long",
                                      id == NBD_OPTION_NAME ? "name" : "description", a->value);
            }
            if (id == NBD_OPTION_SOCKET && a->value[0] != '/' && cli_stands_in(a->cli)) {
                *ret_code = cli_error(a->cli, "socket path must be absolute");
            }
            return true;
        }
    }
    return false;
}

static int take_rest(struct nbd_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case NBD_OPTION_AIO:
        return take_aio(args, a);
    case NBD_OPTION_BITMAP:
        return take_bitmap(args, a);
    case NBD_OPTION_CACHE:
        return take_cache(args, a, a->value);
    case NBD_OPTION_NOCACHE:
        return take_cache(args, a, "none");
    case NBD_OPTION_DETECT_ZEROES:
        return take_detect_zeroes(args, a);
    case NBD_OPTION_DISCARD:
        return take_discard(args, a);
    case NBD_OPTION_OFFSET:
    case NBD_OPTION_SHARED:
        return take_number(args, id, a);
    case DISK_OPTION_SNAPSHOT:
        return disk_take_snapshot(&args->disk, a, '`');
    case NBD_OPTION_SELINUX:
        return refuse(a, "SELinux labels are not");
    default:
        (void)disk_take_option(&args->disk, id, a);
        return CLI_EXIT_OK;
    }
}

/* What makes no sense when listing. */
static bool is_per_device(int id)
{
    switch (id) {
    case DISK_OPTION_FORMAT:
    case DISK_OPTION_SNAPSHOT:
    case NBD_OPTION_AIO:
    case NBD_OPTION_BITMAP:
    case NBD_OPTION_CACHE:
    case NBD_OPTION_CONNECT:
    case NBD_OPTION_DEPTH:
    case NBD_OPTION_DESCRIPTION:
    case NBD_OPTION_DISCARD:
    case NBD_OPTION_DISCONNECT:
    case NBD_OPTION_NAME:
    case NBD_OPTION_NOCACHE:
    case NBD_OPTION_OFFSET:
        return true;
    default:
        return false;
    }
}

/* ---- the whole ---- */

static int wrong_operands(struct cli *cli)
{
    return cli_usage_error(cli, "Invalid number of arguments");
}

static int check_list(struct cli *cli, const struct nbd_args *args, unsigned operands)
{
    if (operands > 0) {
        return cli_error(cli, "List mode is incompatible with a file name");
    }
    if (args->per_device) {
        return cli_error(cli, "List mode is incompatible with per-device settings");
    }
    return args->fork ? cli_error(cli, "List mode is incompatible with forking") : CLI_EXIT_OK;
}

/* Sockets that a service manager passed to this process: sd_listen_fds(3). They are looked at
 * before other files are given their numbers; what is wrong is told later. */
static void take_activation(struct nbd_args *args)
{
    const char *pid = getenv("LISTEN_PID");
    const char *count = getenv("LISTEN_FDS");
    uint64_t value;

    if (!pid || !count || !take_integer(pid, INT_MAX, &value) || value != (uint64_t)getpid() ||
        !take_integer(count, 64, &value) || value == 0) {
        return;
    }
    args->activated = (unsigned)value;
    for (unsigned i = 0; args->activation_err == 0 && i < args->activated; i++) {
        int ret = os->fcntl_getfl(NBD_FIRST_ACTIVATED + (int)i);

        args->activation_err = ret < 0 ? ret : 0;
        args->bad_activated = NBD_FIRST_ACTIVATED + (int)i;
    }
    unsetenv("LISTEN_PID"); /* not for children */
    unsetenv("LISTEN_FDS");
}

static int check_activation(struct cli *cli, const struct nbd_args *args)
{
    const char *taken = args->device   ? "NBD device"
                        : args->socket ? "Unix socket"
                        : args->bind   ? "The interface"
                        : args->port   ? "TCP port number"
                                       : NULL;

    if (args->activation_err < 0) {
        return nbd_report_activated(cli, args->bad_activated, args->activation_err);
    }
    if (args->list) {
        return cli_error(cli, "List mode is incompatible with socket activation");
    }
    return taken ? cli_error(cli, "%s can't be set when using socket activation", taken)
                 : CLI_EXIT_OK;
}

static int check_tls(struct cli *cli, const struct nbd_args *args)
{
    if (args->tls_authz && !args->tls_creds) {
        return cli_error(cli, "--tls-authz is not permitted without --tls-creds");
    }
    if (args->tls_hostname && !args->tls_creds) {
        return cli_error(cli, "--tls-hostname is not permitted without --tls-creds");
    }
    if (args->tls_creds && args->device) {
        return cli_error(cli, "TLS is not supported with a host device");
    }
    if (args->tls_authz && args->list) {
        return cli_error(cli, "TLS authorization is incompatible with export list");
    }
    return args->tls_hostname && !args->list
               ? cli_error(cli, "TLS hostname is only supported with export list")
               : CLI_EXIT_OK;
}

static int check_operands(struct cli *cli, struct nbd_args *args, unsigned operands)
{
    if (args->list) {
        return check_list(cli, args, operands);
    }
    return operands != 1 ? wrong_operands(cli) : CLI_EXIT_OK;
}

int nbd_args_check(struct cli *cli, const struct nbd_args *args)
{
    struct disk_args disk = args->disk;
    int code = args->activated ? check_activation(cli, args) : CLI_EXIT_OK;

    code = code == CLI_EXIT_OK ? check_tls(cli, args) : code;
    disk.format = NULL; /* whether it goes with --image-opts is looked at when it listens */
    if (code != CLI_EXIT_OK) {
        return code;
    }
    return (args->list ? disk_refs_check(cli, &disk) : disk_args_check(cli, &disk))
               ? CLI_EXIT_OK
               : CLI_EXIT_USAGE;
}

bool nbd_args_parse(struct cli *cli, int argc, char **argv, struct nbd_args *args, int *ret_code)
{
    struct cli_args a = cli_args_begin(cli, argc, argv);
    unsigned operands = 0;
    int id;

    *ret_code = CLI_EXIT_OK;
    while (*ret_code == CLI_EXIT_OK && (id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return false;
        }
        if (id == CLI_OPERAND) {
            args->disk.file = a.value;
            operands++;
            continue;
        }
        args->per_device |= is_per_device(id);
        if (id == NBD_OPTION_TRACE) {
            if (!trace_option_take(&args->trace, &a, ret_code)) {
                return false;
            }
        } else if (id == CLI_BAD) {
            *ret_code = CLI_EXIT_USAGE;
        } else if (!take_switch(args, id) && !take_text(args, id, &a, ret_code)) {
            *ret_code = take_rest(args, id, &a);
        }
    }
    if (*ret_code == CLI_EXIT_OK) {
        *ret_code = check_operands(cli, args, operands);
    }
    take_activation(args);
    args->read_only |= args->disk.snapshot != NULL;
    args->disk.writable = !args->read_only;
    args->disk.temporary = args->scratch;
    return *ret_code == CLI_EXIT_OK;
}
