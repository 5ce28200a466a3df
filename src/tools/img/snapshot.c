/* SPDX-License-Identifier: MIT */
/* platter snapshot: internal snapshots, in the words of `qemu-img snapshot`. */
#include <errno.h>
#include <string.h>

#include <platter/image.h>

#include "os/os.h"
#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/snapshot_list.h"

enum snapshot_option {
    SNAPSHOT_APPLY = 1,
    SNAPSHOT_CREATE,
    SNAPSHOT_DELETE,
    SNAPSHOT_LIST,
    SNAPSHOT_NOTHING, /* no option: none was given */
    SNAPSHOT_QUIET,
};

static const struct cli_option snapshot_options[] = {
    {SNAPSHOT_LIST, 'l', "list", NULL, "list them; this is done when nothing else is asked for"},
    {SNAPSHOT_CREATE, 'c', "create", "NAME", "make one of the disk as it is"},
    {SNAPSHOT_APPLY, 'a', "apply", "ID_OR_NAME", "the disk becomes what it was then"},
    {SNAPSHOT_DELETE, 'd', "delete", "NAME", "delete one"},
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_FORCE_SHARE,
    {SNAPSHOT_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct snapshot_args {
    struct disk_args disk;
    int action; /* enum snapshot_option; 0: none yet */
    const char *name;
};

/* A format that has them can list them, though it may not be able to make any. */
static bool can_snapshot(BlockDriverState *bs)
{
    struct bdrv_snapshot_list found;
    int ret = bdrv_snapshot_list(bs, &found, NULL);

    if (ret == 0) {
        bdrv_snapshot_list_free(&found);
    }
    return ret != -ENOTSUP;
}

static int list(struct cli *cli, BlockDriverState *bs)
{
    struct bdrv_snapshot_list found;
    Error *err = NULL;
    int ret = bdrv_snapshot_list(bs, &found, &err);

    if (ret == -ENOTSUP) { /* a format without snapshots has none */
        error_free(err);
        return CLI_EXIT_OK;
    }
    if (ret < 0) {
        return cli_report(cli, err);
    }
    snapshot_list_print(cli, &found);
    bdrv_snapshot_list_free(&found);
    return CLI_EXIT_OK;
}

static int create(BlockDriverState *bs, const char *name, Error **errp)
{
    int64_t now_ns = os->clock_realtime_ns();
    struct bdrv_snapshot_info info = {
        .name = name,
        .date_sec = (uint32_t)(now_ns / 1000000000),
        .date_nsec = (uint32_t)(now_ns % 1000000000),
    };

    return bdrv_snapshot_create(bs, &info, errp);
}

/* In the words of the reference, which tells some failures by their number. */
static const char *reason(struct cli *cli, BlockDriverState *bs, const char *what, const Error *err,
                          char *buf, size_t size)
{
    int error = error_get_errno(err);

    if (!cli_stands_in(cli)) {
        return error_get_pretty(err);
    }
    if (strcmp(what, "create") == 0) {
        error = error == ERANGE ? EINVAL : error; /* a refcount does not fit */
        snprintf(buf, size, "%d (%s)", -error, strerror(error));
        return buf;
    }
    if (strcmp(what, "delete") == 0 && (error == ENOENT || error == ENOTSUP)) {
        return "snapshot not found";
    }
    if (error == ENOTSUP && !can_snapshot(bs)) {
        return "Block driver does not support snapshots";
    }
    if (error == ENOENT || error == ENOTSUP) {
        snprintf(buf, size, "Failed to load snapshot: %s", strerror(error));
        return buf;
    }
    return error_get_pretty(err);
}

static int failed(struct cli *cli, BlockDriverState *bs, const char *what, const char *name,
                  Error *err)
{
    char buf[128];

    cli_error(cli, "Could not %s snapshot '%s': %s", what, name,
              reason(cli, bs, what, err, buf, sizeof(buf)));
    cli_put_hints(cli, err);
    error_free(err);
    return CLI_EXIT_FAILED;
}

static int snapshot_run(struct cli *cli, BlockBackend *blk, void *opaque)
{
    const struct snapshot_args *args = opaque;
    BlockDriverState *bs = blk_bs(blk);
    Error *err = NULL;
    int ret;

    switch (args->action) {
    case SNAPSHOT_APPLY:
        ret = bdrv_snapshot_apply(bs, args->name, &err);
        return ret < 0 ? failed(cli, bs, "apply", args->name, err) : CLI_EXIT_OK;
    case SNAPSHOT_CREATE:
        ret = create(bs, args->name, &err);
        return ret < 0 ? failed(cli, bs, "create", args->name, err) : CLI_EXIT_OK;
    case SNAPSHOT_DELETE:
        ret = bdrv_snapshot_delete(bs, NULL, args->name, &err);
        return ret < 0 ? failed(cli, bs, "delete", args->name, err) : CLI_EXIT_OK;
    case SNAPSHOT_NOTHING:
        return CLI_EXIT_OK;
    default:
        return list(cli, bs);
    }
}

static bool snapshot_take(struct snapshot_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case SNAPSHOT_APPLY:
    case SNAPSHOT_CREATE:
    case SNAPSHOT_DELETE:
    case SNAPSHOT_LIST:
        if (args->action) {
            cli_usage_error(a->cli, "Cannot mix '-l', '-a', '-c', '-d'");
            return false;
        }
        args->action = id;
        args->name = a->value;
        return true;
    case SNAPSHOT_QUIET:
        return true;
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a);
    }
}

static int snapshot_command(struct cli *cli, int argc, char **argv)
{
    struct snapshot_args args = {.disk = {.no_backing = true}};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !snapshot_take(&args, id, &a)) {
            return CLI_EXIT_USAGE;
        }
    }
    if (!disk_file_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    if (args.action == 0) { /* where the reference is told nothing, it opens the image and ends */
        args.action = cli_stands_in(cli) ? SNAPSHOT_NOTHING : SNAPSHOT_LIST;
    }
    if (args.action != SNAPSHOT_LIST) {
        args.disk.writable = true;
    } else {
        args.disk.look_only = true;
    }
    if (!disk_args_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    return disk_run(cli, &args.disk, snapshot_run, &args);
}

const struct cli_command command_snapshot = {
    .name = "snapshot",
    .operands = "FILE",
    .summary = "List, make, apply and delete internal snapshots",
    .options = snapshot_options,
    .details = "Examples:\n"
               "  platter snapshot -l disk.qcow2\n"
               "  platter snapshot -f qcow2 -c before-upgrade disk.qcow2\n"
               "  platter snapshot -f qcow2 -a before-upgrade disk.qcow2\n"
               "  platter snapshot -f qcow2 -d before-upgrade disk.qcow2\n",
    .run = snapshot_command,
};
