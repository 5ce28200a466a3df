/* SPDX-License-Identifier: MIT */
/* Opening disks for commands. */
#include <errno.h>
#include <string.h>

#include <platter/coroutine.h>
#include <platter/image.h>

#include "os/os.h"
#include "tools/disk.h"
#include "tools/option_list.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/options.h"

#define LOCK_RETRY_NS INT64_C(100000000)

static bool wants_unmap(const char *discard)
{
    return discard && (strcmp(discard, "unmap") == 0 || strcmp(discard, "on") == 0);
}

/* Whether a protocol that has engines carries name: a path, not "PROTOCOL:...". */
static bool is_path(const char *name)
{
    size_t word = strcspn(name, ":/");

    return name[word] != ':' || strncmp(name, "file:", 5) == 0 ||
           strncmp(name, "host_device:", 12) == 0;
}

static bool is_engine_driver(const char *driver)
{
    return !driver || strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0;
}

/* The same of the first file that options name, wherever below the disk; or NULL. buf holds it. */
static const char *aio_key_of_file(const BlockOptions *options, char *buf, size_t buf_bytes)
{
    const char *key = NULL;

    while ((key = block_options_next_key(options, key)) != NULL) {
        const char *dot = strrchr(key, '.');

        if (dot && strcmp(dot, ".filename") == 0) {
            snprintf(buf, buf_bytes, "%.*s.driver", (int)(dot - key), key);
            if (is_engine_driver(block_options_get_str(options, buf))) {
                snprintf(buf, buf_bytes, "%.*s.aio", (int)(dot - key), key);
                return buf;
            }
        }
    }
    return NULL;
}

/* The option that chooses the engine, where the disk has a node that takes it; else NULL: then
 * there is nothing to choose, as with a null disk. buf has room for it. */
static const char *aio_key(const struct disk_args *args, const BlockOptions *options, char *buf,
                           size_t buf_bytes)
{
    const char *driver = block_options_get_str(options, "driver");

    if (!args->image_opts && args->file) {
        const char *format = args->format ? args->format : driver;
        bool bare = format && is_engine_driver(format);

        return !is_path(args->file) || strncmp(args->file, "json:", 5) == 0 ? NULL
               : bare                                                       ? "aio"
                                                                            : "file.aio";
    }
    if (driver && is_engine_driver(driver)) {
        return "aio";
    }
    return aio_key_of_file(options, buf, buf_bytes);
}

/* The list behind --image-opts. */
static BlockOptions *list_options(struct cli *cli, const char *text, Error **errp)
{
    const struct cli_spelling *spelling = cli_spelling(cli);
    bool named = !spelling->words_are_switches;
    AUTO_FREE char *full = NULL;

    if (spelling->stands_in) {
        full = option_list_spelled(cli, text, named, true);
        if (!full) {
            error_set(errp, ENOMEM, "out of memory");
            return NULL;
        }
    }
    /* a word alone is the name of a node: there is none, and that is told */
    return block_options_parse(full ? full : text, named ? "file" : NULL, errp);
}

/* Whether options take back what -U says: told by the reference without looking at the image. */
static int refuse_unshared(const struct cli *cli, const struct disk_args *args,
                           const BlockOptions *options, Error **errp)
{
    const char *given = block_options_get_str(options, "force-share");

    if (!args->image_opts || !args->force_share || !cli_stands_in(cli) || !given ||
        strcmp(given, "on") == 0) {
        return 0;
    }
    return error_set(errp, EINVAL, "%s conflicts with image options",
                     cli_spelling(cli)->getopt_words ? "-U" : "--force-share/-U");
}

static BlockOptions *disk_options(struct cli *cli, const struct disk_args *args, Error **errp)
{
    char key_buf[BLOCK_OPTIONS_KEY_BYTES_MAX + sizeof(".driver")];
    BlockOptions *options;
    const char *key;
    int ret = 0;

    if (args->options) {
        options = block_options_copy(args->options);
    } else if (!args->image_opts) {
        options = block_options_new();
    } else if (args->file && (args->file[0] == '{' || strncmp(args->file, "json:", 5) == 0)) {
        options = block_options_parse_json(args->file, errp);
    } else {
        options = list_options(cli, args->file ? args->file : "", errp);
    }
    if (!options) {
        if (!args->image_opts || args->options) {
            error_set(errp, ENOMEM, "out of memory");
        }
        return NULL;
    }
    if (refuse_unshared(cli, args, options, errp) < 0) {
        block_options_free(options);
        return NULL;
    }
    key = args->aio ? aio_key(args, options, key_buf, sizeof(key_buf)) : NULL;
    if (args->format) {
        ret = block_options_set_str(options, "driver", args->format);
    }
    if (ret == 0 && key && !block_options_has(options, key)) {
        ret = block_options_set_str(options, key, args->aio);
    }
    if (ret == 0 && args->detect_zeroes && !block_options_has(options, "detect-zeroes")) {
        ret = block_options_set_str(options, "detect-zeroes", args->detect_zeroes);
    }
    if (ret < 0) {
        error_set(errp, -ret, "out of memory");
        block_options_free(options);
        return NULL;
    }
    return options;
}

static bool is_probed_raw(BlockDriverState *bs)
{
    return bs && bdrv_format_probed(bs) && strcmp(bdrv_get_format_name(bs), "raw") == 0;
}

/* The same in the words that scripts know. */
static void warn_as_reference(struct cli *cli, const struct disk_args *args, BlockDriverState *bs)
{
    if (args->writable && !args->temporary &&
        is_probed_raw(bs)) { /* named as the file below it is */
        cli_put_line(cli->err,
                     "WARNING: Image format was not specified for '%s' and probing guessed raw.",
                     bdrv_get_filename(bs));
        fputs("         Automatically detecting the format is dangerous for raw images, write "
              "operations on block 0 will be restricted.\n"
              "         Specify the 'raw' format explicitly to remove the restrictions.\n",
              cli->err);
    }
}

/* A guessed raw disk is safe, because its first sector cannot be made to look like another format,
 * but somebody should know. */
static void warn_if_probed(struct cli *cli, const struct disk_args *args, BlockDriverState *bs)
{
    const BlockDriverState *backing;

    if (cli_spelling(cli)->warns_of_guessed) {
        warn_as_reference(cli, args, bs);
        return;
    }
    for (backing = bs; args->writable && backing != NULL;
         backing = bdrv_get_child(backing, "backing")) {
        if (backing != bs && bdrv_format_probed(backing)) {
            cli_warning(cli, "the format of the backing file '%s' was guessed: %s",
                        bdrv_get_filename(backing), bdrv_get_format_name(backing));
            cli_hint(cli, "Write it into the image that names it: platter rebase -u -b NAME -F %s",
                     bdrv_get_format_name(backing));
        }
    }
    if (!args->writable || !is_probed_raw(bs)) {
        return;
    }
    cli_warning(cli,
                "the format of '%s' was guessed: raw; writes that would make it look like "
                "another format are refused",
                args->file);
    cli_hint(cli, "Name the format to lift this: -f raw");
}

/* What is not needed of the disk is left to others; other processes see it as image locks. */
int disk_set_perm(BlockBackend *blk, const struct disk_args *args, Error **errp)
{
    uint64_t perm = BDRV_PERM_CONSISTENT_READ | (args->writable ? BDRV_PERM_WRITE : 0);
    uint64_t shared = BDRV_PERM_ALL;
    if (args->steady && !args->force_share) {
        shared &= ~(uint64_t)(BDRV_PERM_WRITE | BDRV_PERM_RESIZE);
    }
    if (args->exclusive) {
        shared &= ~(uint64_t)BDRV_PERM_RESIZE;
        shared &= args->writable ? ~(uint64_t)BDRV_PERM_WRITE : BDRV_PERM_ALL;
    }
    return blk_set_perm(blk, perm, shared, errp);
}

/* bs (owned) as the medium of a new backend. */
static BlockBackend *backend_new(Platter *pl, BlockDriverState *bs, const struct disk_args *args,
                                 Error **errp)
{
    BlockBackend *blk = blk_new(pl, args->id ? args->id : "disk", errp);

    if (blk && (disk_set_perm(blk, args, errp) < 0 || blk_insert_bs(blk, bs, errp) < 0)) {
        blk_unref(blk);
        blk = NULL;
    }
    bdrv_unref(bs);
    return blk;
}

/* text: ID_OR_NAME, or options. An id is looked for before a name. */
static int show_snapshot(BlockDriverState *bs, const char *text, Error **errp)
{
    BlockOptions *options = NULL;
    Error *err = NULL;
    int ret;

    if (strncmp(text, "snapshot.", 9) != 0) {
        ret = bdrv_snapshot_load_tmp(bs, text, NULL, &err);
        if (ret != -ENOENT) {
            error_propagate(errp, err);
            return ret;
        }
        error_free(err);
        return bdrv_snapshot_load_tmp(bs, NULL, text, errp);
    }
    options = block_options_parse(text, NULL, errp);
    if (!options) {
        return -EINVAL;
    }
    ret = bdrv_snapshot_load_tmp(bs, block_options_get_str(options, "snapshot.id"),
                                 block_options_get_str(options, "snapshot.name"), errp);
    block_options_free(options);
    return ret;
}

/* What kept a snapshot from being shown, in the words that scripts know. */
static void tell_as_reference(const BlockDriverState *bs, Error **errp)
{
    int err = error_get_errno(*errp);

    if (err == ENOENT || err == ENOTSUP) {
        error_free(*errp);
        *errp = NULL;
    }
    if (err == ENOENT) {
        error_set(errp, err, "Can't find snapshot");
    } else if (err == ENOTSUP) {
        error_set(errp, err,
                  "Block format '%s' used by device '' does not support temporarily loading "
                  "internal snapshots",
                  bdrv_get_format_name(bs));
    }
    error_prepend(errp, "Failed to load snapshot: ");
}

int disk_allow_resize(BlockBackend *blk, Error **errp)
{
    uint64_t perm, shared;

    blk_get_perm(blk, &perm, &shared);
    return blk_set_perm(blk, perm | BDRV_PERM_RESIZE, shared, errp);
}

/* What of opening a disk did not go. */
enum open_step {
    STEP_OPTIONS,
    STEP_OPEN,
    STEP_SNAPSHOT,
    STEP_WRAP,
};

/* What options say of something, if they do. */
enum disk_said {
    SAID_NOTHING,
    SAID_YES,
    SAID_NO,
};

static bool is_of_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("_-./", c));
}

void disk_name_in_error(const char *file, Error **errp)
{
    const char *message = error_get_pretty(*errp);
    size_t len = strlen(file);

    for (const char *at = message; len > 0 && (at = strstr(at, file)) != NULL; at++) {
        if ((at == message || !is_of_name(at[-1])) && !is_of_name(at[len])) {
            return; /* it is told already */
        }
    }
    error_prepend(errp, "Could not open '%s': ", file);
}

/* Print err (owned), which kept a disk from being opened, or what is in it from being shown. */
static void report_open(struct cli *cli, const struct disk_args *args, enum open_step step,
                        Error *err)
{
    const struct cli_spelling *spelling = cli_spelling(cli);

    if (step == STEP_WRAP || step == STEP_OPTIONS ||
        (step == STEP_SNAPSHOT && cli_stands_in(cli))) {
        cli_report(cli, err);
        return;
    }
    if (spelling->open_unnamed && (args->image_opts || !args->file)) {
        error_prepend(&err, "%s: ", spelling->open_unnamed);
    } else if (spelling->open_failed) {
        error_prepend(
            &err, "%s%s%s%s: ", args->open_failed ? args->open_failed : spelling->open_failed,
            spelling->open_quote, args->told_as ? args->told_as : args->file, spelling->open_quote);
    }
    if (!spelling->stands_in && !args->image_opts && args->file) {
        disk_name_in_error(args->file, &err);
    }
    cli_report(cli, err);
}

bool disk_lock_again(unsigned *tries)
{
    if (*tries == 0) {
        return false;
    }
    --*tries;
    os->sleep_ns(LOCK_RETRY_NS);
    return true;
}

/* ---- opening ---- */

/* A disk on its way to a backend. */
struct opening {
    struct cli *cli;
    Platter *pl;
    struct disk_args args;  /* as the options of the disk turn them */
    BlockDriverState *base; /* a reference: the disk below what is put above it, or NULL */
    enum open_step step;
};

static int open_flags(const struct opening *o, bool *ret_write_through)
{
    const struct disk_args *args = &o->args;
    int flags = disk_cache_flags(args->cache, ret_write_through);

    flags |= args->writable && !args->temporary ? BDRV_O_RDWR : 0;
    flags |= wants_unmap(args->discard) ? BDRV_O_UNMAP : 0;
    flags |= args->force_share ? BDRV_O_FORCE_SHARE : 0;
    flags |= args->look_only ? BDRV_O_NO_IO : 0;
    flags |= disk_may_guess(o->cli, args) ? BDRV_O_PROBE : 0; /* also of its backing files */
    flags |= args->no_backing ? BDRV_O_NO_BACKING : 0;
    flags |= args->check ? BDRV_O_CHECK : 0;
    return flags;
}

/* Whether the options of the disk itself say that it is read-only; the flags of the open do not
 * count then. name may be options too. */
static enum disk_said said_read_only(const BlockOptions *options, const char *name)
{
    BlockOptions *copy = NULL;
    bool value = false;
    bool said = false;

    if (block_options_has(options, "read-only")) {
        copy = block_options_copy(options);
    } else if (name && strncmp(name, "json:", 5) == 0) {
        copy = block_options_parse_json(name, NULL);
    }
    if (copy) {
        said = block_options_take_bool(copy, "read-only", &value, NULL) > 0;
        block_options_free(copy);
    }
    return !said ? SAID_NOTHING : value ? SAID_YES : SAID_NO;
}

/* The disk is read-only, and is to be written. Of a copy on read that is told in other words. */
static bool is_refused(const struct opening *o, const BlockDriverState *bs,
                       enum disk_said read_only)
{
    const struct disk_args *args = &o->args;

    return cli_stands_in(o->cli) && args->writable && !args->copy_on_read &&
           (args->temporary ? read_only == SAID_YES : bdrv_is_read_only(bs));
}

/* The disk itself; options are owned. NULL with errp. */
static BlockDriverState *open_base(struct opening *o, BlockOptions *options, int flags,
                                   Error **errp)
{
    struct disk_args *args = &o->args;
    const char *name = args->image_opts ? NULL : args->file;
    enum disk_said read_only = said_read_only(options, name);
    BlockDriverState *bs;

    if (name) {
        disk_allow_folder_of(o->pl, name);
    }
    disk_allow_folders_in(o->pl, options);
    if (disk_check_told(o->cli, o->pl, args, options, errp) < 0) {
        block_options_free(options);
        return NULL;
    }
    bs = bdrv_open(o->pl, name, NULL, options, flags, errp);
    if (bs && is_refused(o, bs, read_only)) {
        error_set(errp, EACCES, "Block node is read-only");
        bdrv_unref(bs);
        return NULL;
    }
    if (args->options_decide && !args->snapshot && read_only != SAID_NOTHING) {
        args->writable = read_only == SAID_NO;
    }
    return bs;
}

/* What args ask for above bs (owned). NULL with errp. */
static BlockDriverState *add_above(struct opening *o, BlockDriverState *bs, Error **errp)
{
    const struct disk_args *args = &o->args;

    if (args->snapshot && args->wrap_check && args->wrap_check(bs, args->wrap_opaque, errp) < 0) {
        o->step = STEP_WRAP;
    } else if (args->snapshot && show_snapshot(bs, args->snapshot, errp) < 0) {
        o->step = STEP_SNAPSHOT;
        if (cli_stands_in(o->cli)) {
            tell_as_reference(bs, errp);
        }
    }
    if (o->step != STEP_OPEN) {
        bdrv_unref(bs);
        return NULL;
    }
    bs = disk_add_layers(o->pl, bs, args, errp);
    if (bs && args->wrap) {
        bs = args->wrap(o->pl, bs, args->wrap_opaque, errp);
        o->step = bs ? STEP_OPEN : STEP_WRAP;
    }
    return bs;
}

static BlockBackend *open_once(struct opening *o, Error **errp)
{
    BlockOptions *options = disk_options(o->cli, &o->args, errp);
    struct disk_args above; /* of what was put above the disk */
    BlockDriverState *bs;
    BlockBackend *blk;
    bool write_through;
    int flags = open_flags(o, &write_through);

    if (!options) {
        o->step = STEP_OPTIONS;
        return NULL;
    }
    bs = open_base(o, options, flags, errp);
    if (bs && o->args.wrap) {
        o->base = bs;
        bdrv_ref(bs);
    }
    bs = bs ? add_above(o, bs, errp) : NULL;
    above = o->args;
    if (bs && above.wrap) {
        above.writable = !bdrv_is_read_only(bs);
    }
    blk = bs ? backend_new(o->pl, bs, &above, errp) : NULL;
    if (blk && write_through) {
        blk_set_enable_write_cache(blk, false);
    }
    return blk;
}

BlockBackend *disk_open(struct cli *cli, Platter *pl, const struct disk_args *args)
{
    struct opening o = {.cli = cli, .pl = pl, .args = *args, .step = STEP_OPEN};
    Error *err = NULL;
    BlockBackend *blk = open_once(&o, &err);

    if (!blk && error_get_errno(err) == EAGAIN) {
        struct disk_args again = *args;

        if (disk_lock_again(&again.lock_tries)) {
            error_free(err);
            bdrv_unref(o.base);
            return disk_open(cli, pl, &again);
        }
    }
    if (blk || o.step == STEP_WRAP) {
        warn_if_probed(cli, &o.args, o.base ? o.base : disk_node(blk));
    }
    bdrv_unref(o.base);
    if (!blk) {
        report_open(cli, args, o.step, err);
    }
    return blk;
}

int disk_run_on(struct cli *cli, Platter *pl, const struct disk_args *args,
                int (*run)(struct cli *cli, BlockBackend *blk, void *opaque), void *opaque)
{
    BlockBackend *blk = disk_open(cli, pl, args);
    int code = CLI_EXIT_FAILED;

    if (blk) {
        code = run(cli, blk, opaque);
        if (code == CLI_EXIT_OK && args->writable) {
            int ret = blk_flush(blk);

            code = ret < 0 ? cli_error(cli, "the last flush failed: %s", strerror(-ret)) : code;
        }
        blk_unref(blk);
    }
    return code;
}

int disk_run(struct cli *cli, const struct disk_args *args,
             int (*run)(struct cli *cli, BlockBackend *blk, void *opaque), void *opaque)
{
    Platter *pl = disk_platter_new(cli, args);
    int code = pl ? disk_run_on(cli, pl, args, run, opaque) : CLI_EXIT_FAILED;

    platter_free(pl);
    return code;
}

struct run_co {
    void (*fn)(void *arg);
    void *arg;
    bool done;
};

static void run_co_entry(void *opaque)
{
    struct run_co *run = opaque;

    run->fn(run->arg);
    run->done = true;
}

int disk_run_co(Platter *pl, void (*fn)(void *arg), void *arg)
{
    struct run_co run = {.fn = fn, .arg = arg};
    Coroutine *co = coroutine_create(run_co_entry, &run);

    if (!co) {
        return -ENOMEM;
    }
    coroutine_enter(co);
    while (!run.done) {
        aio_poll(platter_get_main_context(pl), true);
    }
    return 0;
}
