/* SPDX-License-Identifier: MIT */
/* platter io: open and close. */
#include <errno.h>
#include <string.h>

#include "tools/io/io.h"
#include "tools/option_list.h"

/* What was written reaches the disk before it is let go, or somebody is told. */
int io_close(struct io_session *s)
{
    int ret = 0;

    io_wait_all(s);
    if (!blk_is_read_only(s->blk)) {
        ret = blk_flush(s->blk);
    }
    if (ret < 0) {
        io_failed(s, "flush", ret);
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
        return option_list_add(s->cli, options, value) == CLI_EXIT_OK;
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
        if (letter == '?' || !take_option(args->s, disk, options, letter, args->value)) {
            return -EINVAL;
        }
    }
    if (args->operand_count > 1) {
        return io_usage(args->s, args->command);
    }
    disk->file = args->operand_count == 1 ? args->operands[0] : NULL;
    disk->options = options->options;
    /* -o read-only=off is stronger than -r, as every option is than its switch */
    if (options->options) {
        const char *read_only = block_options_get_str(options->options, "read-only");

        disk->writable = disk->writable || (read_only && strcmp(read_only, "off") == 0);
    }
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

static int run_close(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    return io_close(s);
}

const struct io_command io_open_commands[] = {
    {"open", "o", "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
     "open the file specified by path", 1, -1, false, false, run_open},
    {"close", "c", NULL, "close the current open file", 0, 0, true, false, run_close},
    {0},
};
