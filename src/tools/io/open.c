/* SPDX-License-Identifier: MIT */
/* platter io: open, reopen and close. */
#include <errno.h>
#include <string.h>

#include <platter/graph.h>

#include "tools/io/io.h"
#include "tools/option_list.h"
#include "util/error.h"

/* What was written reaches the disk before it is let go, or somebody is told. */
int io_close(struct io_session *s)
{
    int ret = io_breakpoints_end(s);

    io_wait_all(s);
    if (!blk_is_read_only(s->blk)) {
        int flushed = blk_flush(s->blk);

        if (flushed < 0) {
            ret = io_failed(s, "flush", flushed);
        }
    }
    blk_unref(s->blk);
    s->blk = NULL;
    return ret;
}

static bool take_option(struct io_session *s, struct disk_args *args, struct option_list *options,
                        int letter, const char *value)
{
    switch (letter) {
    case 'C':
        args->copy_on_read = true;
        return true;
    case 'd':
        args->discard = value;
        return true;
    case 'i':
        args->aio = value;
        return true;
    case 'k':
        args->aio = "native";
        return true;
    case 'n':
        args->cache = "none";
        return true;
    case 'o':
        if (args->image_opts) {
            fputs("--image-opts and 'open -o' are mutually exclusive\n", s->cli->out);
            return false;
        }
        return option_list_add_of_open(s->cli, options, value) == CLI_EXIT_OK;
    case 'r':
        args->writable = false;
        return true;
    case 's':
        args->temporary = true;
        return true;
    case 't':
        args->cache = value;
        return true;
    case 'U':
        args->force_share = true;
        return true;
    default:
        return false;
    }
}

static int take_arguments(struct io_args *args, struct disk_args *disk, struct option_list *options)
{
    int letter;

    while ((letter = io_next_option(args, "Cd:i:kno:rst:U")) != 0) {
        if (letter == '?' || !take_option(args->s, disk, options, letter, args->value) ||
            !disk_words_check(args->s->cli, disk)) {
            return -EINVAL;
        }
    }
    if (args->operand_count > 1) {
        return io_usage(args->s, args->command);
    }
    disk->file = args->operand_count == 1 ? args->operands[0] : NULL;
    disk->options = options->options;
    disk->format_switch = "-o driver=";
    return disk_args_check(args->s->cli, disk) ? 0 : -EINVAL;
}

static int run_open(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    struct io_args args = io_args_begin(s, c, argc, argv);
    struct disk_args disk = s->defaults;
    struct option_list options = {0};
    int ret = take_arguments(&args, &disk, &options);

    if (ret == 0 && s->blk) {
        cli_error(s->cli, "file open already, try 'help close'");
        ret = -EBUSY;
    }
    if (ret == 0) {
        s->blk = disk_open(s->cli, s->pl, &disk);
        ret = s->blk ? 0 : -EINVAL;
    }
    option_list_fini(&options);
    return ret;
}

/* ---- reopen ---- */

struct reopen {
    struct io_session *s;
    struct option_list options; /* -o */
    const char *cache;
    char access; /* 'r', 'w'; 0: as it is */
};

static int take_reopen_option(struct reopen *r, int letter, const char *value)
{
    struct cli *cli = r->s->cli;

    switch (letter) {
    case 'c':
        r->cache = value;
        if (!disk_cache_is_known(value)) {
            cli_error(cli, "Invalid cache option: %s", value);
            return -EINVAL;
        }
        return 0;
    case 'o':
        if (option_list_add_of_open(cli, &r->options, value) != CLI_EXIT_OK) {
            return -EINVAL;
        }
        if (cli_stands_in(cli) && block_options_has(r->options.options, "id")) {
            cli_error(cli, "Invalid parameter 'id'");
            return -EINVAL;
        }
        return 0;
    case 'r':
    case 'w':
        if (r->access != 0) {
            cli_error(cli, "Only one -r/-w option may be given");
            return -EINVAL;
        }
        r->access = (char)letter;
        return 0;
    default:
        return -EINVAL;
    }
}

/* What the switches say, as options beside those of -o. */
static int add_switches(struct reopen *r, bool *ret_write_through)
{
    struct cli *cli = r->s->cli;
    BlockOptions *options = r->options.options;
    const char *misfit = NULL;
    int ret = 0;

    if (r->access != 0 && block_options_has(options, "read-only")) {
        misfit = "Cannot set both -r/-w and 'read-only'";
    } else if (r->cache && (block_options_has(options, "cache.direct") ||
                            block_options_has(options, "cache.no-flush"))) {
        misfit = "Cannot set both -c and the cache options";
    }
    if (misfit) {
        cli_error(cli, "%s", misfit);
        return -EINVAL;
    }
    if (r->access != 0) {
        ret = block_options_set_bool(options, "read-only", r->access == 'r');
    }
    if (ret == 0 && r->cache) {
        ret = disk_cache_options(r->cache, options, ret_write_through);
    }
    if (ret < 0) {
        cli_error(cli, "out of memory");
    }
    return ret;
}

/* The rights are those that the disk's node gives. */
static int set_access(struct io_session *s, bool writable, Error **errp)
{
    struct disk_args args = {.writable = writable};

    return disk_set_perm(s->blk, &args, errp);
}

/* Ends the options. */
static int reopen_disk(struct reopen *r)
{
    struct io_session *s = r->s;
    BlockDriverState *bs = disk_node(s->blk);
    BlockOptions *changes = r->options.options;
    Error *err = NULL;
    int ret = 0;

    r->options.options = NULL;
    if (r->access == 'r' && bs != blk_bs(s->blk)) {
        ret = error_set(&err, EINVAL, "Can't set node '%s' to r/o with copy-on-read enabled",
                        bdrv_get_node_name(bs));
    } else if (r->access == 'r') {
        ret = set_access(s, false, &err);
    }
    if (ret < 0) {
        block_options_free(changes);
    } else {
        ret = bdrv_reopen_changed(bs, changes, &err);
    }
    if (set_access(s, !bdrv_is_read_only(bs), ret < 0 ? NULL : &err) < 0 && ret == 0) {
        ret = cli_stands_in(s->cli) ? 0 : -EPERM; /* there the first write tells it */
    }
    if (ret < 0) {
        cli_report(s->cli, err);
    } else {
        error_free(err);
    }
    return ret;
}

static int run_reopen(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    struct io_args args = io_args_begin(s, c, argc, argv);
    struct reopen r = {.s = s, .options.options = block_options_new()};
    bool write_through = false;
    int letter;
    int ret = 0;

    if (!r.options.options) {
        cli_error(s->cli, "out of memory");
        return -ENOMEM;
    }
    while (ret == 0 && (letter = io_next_option(&args, "c:o:rw")) != 0) {
        ret = take_reopen_option(&r, letter, args.value);
    }
    if (ret == 0 && args.operand_count > 0) {
        ret = io_usage(s, c);
    }
    ret = ret == 0 ? add_switches(&r, &write_through) : ret;
    ret = ret == 0 ? reopen_disk(&r) : ret;
    if (ret == 0 && r.cache) {
        blk_set_enable_write_cache(s->blk, !write_through);
    }
    option_list_fini(&r.options);
    return ret;
}

static int run_close(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    return io_close(s);
}

const struct io_command io_open_commands[] = {
    {"open", "o", "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
     "open the file specified by path", 1, -1, false, false, run_open},
    {"reopen", NULL, "[(-r|-w)] [-c cache] [-o options]", "reopens an image with new options", 0,
     -1, true, false, run_reopen},
    {"close", "c", NULL, "close the current open file", 0, 0, true, false, run_close},
    {0},
};
