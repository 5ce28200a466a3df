/* SPDX-License-Identifier: MIT */
/* platter create: make an empty disk. An existing file is replaced, as `qemu-img create` does. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "schema/opts.h"
#include "tools/commands.h"
#include "tools/disk.h"
#include "util/error.h"
#include "util/options.h"
#include "util/size.h"

enum create_option {
    CREATE_FORMAT = 1,
    CREATE_OPTIONS,
    CREATE_QUIET,
};

static const struct cli_option create_options[] = {
    {CREATE_FORMAT, 'f', "format", "FMT", "format of the disk; raw when not given"},
    {CREATE_OPTIONS, 'o', "options", "OPTS", "KEY=VALUE,... of the format; '-o help' lists them"},
    {CREATE_QUIET, 'q', "quiet", NULL, "print only errors"},
    {0},
};

struct create_args {
    const char *format;
    const char *file;
    const char *size;
    BlockOptions *options; /* owned; NULL: no -o yet */
    bool quiet;
    bool list_options;
};

static int print_option_list(struct cli *cli)
{
    fputs("Supported options:\n", cli->out);
    for (const struct opts_key *k = opts_create_raw_keys; k->key; k++) {
        char left[64];

        snprintf(left, sizeof(left), "%s=<%s>", k->key, k->type);
        fprintf(cli->out, "  %-24s - %s\n", left, k->doc);
    }
    return CLI_EXIT_OK;
}

/* -o may be given several times; later values win. */
static int add_options(struct cli *cli, struct create_args *args, const char *text)
{
    Error *err = NULL;
    BlockOptions *more;
    int ret = 0;

    if (strcmp(text, "help") == 0 || strcmp(text, "?") == 0) {
        args->list_options = true;
        return CLI_EXIT_OK;
    }
    more = block_options_parse(text, NULL, &err);
    if (!more) {
        cli_report(cli, err);
        return CLI_EXIT_USAGE;
    }
    if (!args->options) {
        args->options = more;
        return CLI_EXIT_OK;
    }
    ret = block_options_put_prefix(args->options, "", more);
    block_options_free(more);
    return ret < 0 ? cli_error(cli, "options: %s", strerror(-ret)) : CLI_EXIT_OK;
}

/* Take the size from the operand or from -o size=, once. */
static int settle_size(struct cli *cli, struct create_args *args, uint64_t *ret_bytes)
{
    const char *in_options = block_options_get_str(args->options, "size");
    const char *text = args->size ? args->size : in_options;
    Error *err = NULL;

    if (args->size && in_options) {
        return cli_usage_error(cli, "the size is given twice: '%s' and size=%s", args->size,
                               in_options);
    }
    if (!text) {
        return cli_usage_error(cli, "'%s' needs a size, like 10G", args->file);
    }
    if (size_parse(text, 'b', "size", ret_bytes, &err) < 0) {
        cli_report(cli, err);
        return CLI_EXIT_USAGE;
    }
    block_options_del(args->options, "size");
    return CLI_EXIT_OK;
}

/* "Formatting 'x', fmt=raw size=1048576 preallocation=falloc" */
static void print_formatting(struct cli *cli, const struct create_args *args, uint64_t size_bytes)
{
    const char *key = NULL;

    fputs("Formatting '", cli->out);
    cli_put_text(cli->out, args->file);
    fprintf(cli->out, "', fmt=%s size=%" PRIu64, args->format, size_bytes);
    while ((key = block_options_next_key(args->options, key)) != NULL) {
        fprintf(cli->out, " %s=%s", key, block_options_get_str(args->options, key));
    }
    fputc('\n', cli->out);
    fflush(cli->out);
}

static bool knows_format(struct cli *cli, const char *format)
{
    const char *const *names = bdrv_list_formats();

    for (size_t i = 0; names[i]; i++) {
        if (strcmp(names[i], format) == 0) {
            return true;
        }
    }
    cli_error(cli, "no format '%s'", format);
    fputs("This build has:", cli->err);
    for (size_t i = 0; names[i]; i++) {
        fprintf(cli->err, " %s", names[i]);
    }
    fputc('\n', cli->err);
    return false;
}

/* A bad option is told before anything is said or done. */
static int check_options(struct cli *cli, const struct create_args *args, uint64_t size_bytes)
{
    BlockOptions *copy = block_options_copy(args->options);
    struct opts_create_raw opts;
    Error *err = NULL;
    int ret = 0;

    if (!copy || block_options_set_u64(copy, "size", size_bytes) < 0) {
        ret = error_set(&err, ENOMEM, "out of memory");
    } else if (strcmp(args->format, "raw") == 0) {
        ret = opts_create_raw_parse(copy, &opts, &err);
        if (ret == 0) {
            opts_create_raw_fini(&opts);
            ret = block_options_refuse_rest(copy, "creating a raw disk", &err);
        }
    }
    block_options_free(copy);
    if (ret < 0) {
        cli_report(cli, err);
        return CLI_EXIT_USAGE;
    }
    return CLI_EXIT_OK;
}

static int create_run(struct cli *cli, struct create_args *args)
{
    uint64_t size_bytes = 0;
    Error *err = NULL;
    Platter *pl;
    int code = settle_size(cli, args, &size_bytes);
    int ret;

    if (code == CLI_EXIT_OK && !knows_format(cli, args->format)) {
        code = CLI_EXIT_FAILED;
    }
    if (code == CLI_EXIT_OK) {
        code = check_options(cli, args, size_bytes);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    pl = disk_platter_new(cli, NULL);
    if (!pl) {
        return CLI_EXIT_FAILED;
    }
    if (!args->quiet) {
        print_formatting(cli, args, size_bytes);
    }
    if (block_options_set_str(args->options, "driver", args->format) < 0 ||
        block_options_set_u64(args->options, "size", size_bytes) < 0) {
        ret = error_set(&err, ENOMEM, "out of memory");
    } else {
        ret = bdrv_create(pl, args->file, args->options, &err);
        args->options = NULL;
    }
    platter_free(pl);
    return ret < 0 ? cli_report(cli, err) : CLI_EXIT_OK;
}

static int create_parse(struct cli *cli, struct create_args *args, int argc, char **argv)
{
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int code = CLI_EXIT_OK;
    int id;

    while (code == CLI_EXIT_OK && (id = cli_next(&a)) != CLI_END) {
        if (id == CLI_BAD || id == CLI_HELP) {
            return id;
        }
        if (id == CREATE_FORMAT) {
            args->format = a.value;
        } else if (id == CREATE_OPTIONS) {
            code = add_options(cli, args, a.value);
        } else if (id == CREATE_QUIET) {
            args->quiet = true;
        } else if (!args->file) {
            args->file = a.value;
        } else if (!args->size) {
            args->size = a.value;
        } else {
            return cli_usage_error(cli, "FILE and SIZE are wanted, '%s' is too much", a.value);
        }
    }
    return code;
}

static int create_command(struct cli *cli, int argc, char **argv)
{
    struct create_args args = {.format = "raw"};
    int code = create_parse(cli, &args, argc, argv);

    if (code == CLI_HELP) {
        code = CLI_EXIT_OK;
    } else if (code == CLI_BAD) {
        code = CLI_EXIT_USAGE;
    } else if (code == CLI_EXIT_OK && args.list_options) {
        code = print_option_list(cli);
    } else if (code == CLI_EXIT_OK && !args.file) {
        code = cli_usage_error(cli, "which FILE?");
    } else if (code == CLI_EXIT_OK) {
        if (!args.options) {
            args.options = block_options_new();
        }
        code = args.options ? create_run(cli, &args) : cli_error(cli, "out of memory");
    }
    block_options_free(args.options);
    return code;
}

const struct cli_command command_create = {
    .name = "create",
    .operands = "FILE [SIZE]",
    .summary = "Make an empty disk",
    .options = create_options,
    .details = "An existing FILE is replaced. SIZE takes the suffixes k, M, G, T, P, E.\n\n"
               "Examples:\n"
               "  platter create disk.img 10G\n"
               "  platter create -f raw -o preallocation=falloc disk.img 10G\n",
    .run = create_command,
};
