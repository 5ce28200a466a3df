/* SPDX-License-Identifier: MIT */
/* platter io: run commands on a disk, from -c or line by line. Ends with 1 if any failed. */
#include <stdlib.h>

#include "tools/commands.h"
#include "tools/io/io.h"
#include "tools/object.h"
#include "tools/trace_option.h"

enum io_option {
    IO_COMMAND = 1,
    IO_COPY_ON_READ,
    IO_DISCARD,
    IO_MISALIGN,
    IO_NATIVE,
    IO_NOCACHE,
    IO_READ_ONLY,
    IO_TEMPORARY,
    IO_TRACE,
};

static const struct cli_option io_options[] = {
    {IO_COMMAND, 'c', "cmd", "COMMAND", "run this; may be given again; else lines are read"},
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_SNAPSHOT,
    {IO_READ_ONLY, 'r', "read-only", NULL, "open the disk read-only"},
    {IO_TEMPORARY, 's', "snapshot", NULL,
     "what is written goes to a file that ends with the program"},
    {IO_COPY_ON_READ, 'C', "copy-on-read", NULL,
     "write what is read from backing files into the disk"},
    {IO_MISALIGN, 'm', "misalign", NULL, "buffers stand where direct I/O does not want them"},
    {IO_NOCACHE, 'n', "nocache", NULL, "the same as --cache=none"},
    DISK_ROW_CACHE,
    DISK_ROW_AIO,
    {IO_NATIVE, 'k', "native-aio", NULL, "the same as --aio=native"},
    {IO_DISCARD, 'd', "discard", "MODE", "unmap (gives space back; when not given) or ignore",
     .words = disk_discard_words},
    DISK_ROW_FORCE_SHARE,
    DISK_ROW_OBJECT,
    TRACE_ROW(IO_TRACE),
    DISK_ROWS_REFS,
    {0},
};

struct io_setup {
    struct disk_args disk;
    struct trace_option trace;
    bool misalign;
    const char **lines; /* owned array */
    int line_count;
};

/* Under the name qemu-io each write is on the storage when it is told, as scripts that kill it rely
 * on; NULL: as every command. */
static const char *usual_cache(const struct cli *cli)
{
    return cli_stands_in(cli) ? "writethrough" : NULL;
}

/* Another disk that a command opens shares with the first one only what belongs to the program:
 * which files images may name, that discards give space back, and that names are options. */
static void session_defaults(struct cli *cli, struct disk_args *args)
{
    args->file = NULL;
    args->id = NULL;
    args->format = NULL;
    args->cache = usual_cache(cli);
    args->aio = NULL;
    args->discard = "unmap";
    args->snapshot = NULL;
    args->writable = true;
    args->temporary = false;
    args->copy_on_read = false;
    args->force_share = false;
}

static int run_lines(struct io_session *s, const struct io_setup *setup)
{
    int failed = 0;

    for (int i = 0; i < setup->line_count && !s->quit; i++) {
        failed |= io_run_line(s, setup->lines[i]) < 0;
    }
    return failed;
}

static int io_session_run(struct cli *cli, const struct io_setup *setup)
{
    struct io_session s = {.cli = cli, .defaults = setup->disk, .misalign = setup->misalign};
    int failed = 1;

    s.pl = disk_platter_new_for(cli, &setup->disk, NULL, io_tell_breakpoint, cli);
    if (!s.pl) {
        return CLI_EXIT_FAILED;
    }
    session_defaults(cli, &s.defaults);
    if (setup->disk.file) {
        s.blk = disk_open(cli, s.pl, &setup->disk);
    }
    if (s.blk || !setup->disk.file) {
        failed = setup->line_count ? run_lines(&s, setup) : !io_run_input(&s);
    }
    if (s.blk && io_close(&s) < 0) {
        failed = 1;
    }
    platter_free(s.pl);
    return failed ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

static bool io_take(struct io_setup *setup, int id, const struct cli_args *a)
{
    struct disk_args *disk = &setup->disk;

    switch (id) {
    case IO_COMMAND:
        setup->lines[setup->line_count++] = a->value;
        return true;
    case IO_COPY_ON_READ:
        disk->copy_on_read = true;
        return true;
    case IO_DISCARD:
        disk->discard = a->value;
        return !cli_stands_in(a->cli) || disk_words_check(a->cli, disk);
    case IO_MISALIGN:
        setup->misalign = true;
        return true;
    case IO_NATIVE:
        disk->aio = "native";
        return true;
    case IO_NOCACHE:
        disk->cache = "none";
        return true;
    case IO_READ_ONLY:
        disk->writable = false;
        return true;
    case IO_TEMPORARY:
        disk->temporary = true;
        return true;
    default:
        if (id == CLI_OPERAND && disk->file && cli_stands_in(a->cli)) {
            if (object_look_ahead(a)) {
                cli_print_help(a->cli, a->cli->command);
            }
            a->cli->usage_told = true;
            return false;
        }
        if (disk_take_option(disk, id, a)) {
            return !cli_stands_in(a->cli) || disk_words_check(a->cli, disk);
        }
        return disk_take_file(disk, a);
    }
}

/* Take the command line. False: the command ends with *ret_code. */
static bool io_args_parse(struct io_setup *setup, struct cli *cli, int argc, char **argv,
                          int *ret_code)
{
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            *ret_code = CLI_EXIT_OK;
            return false;
        }
        if (id == IO_TRACE) {
            if (!trace_option_take(&setup->trace, &a, ret_code)) {
                return false;
            }
        } else if (id == CLI_BAD || !io_take(setup, id, &a)) {
            *ret_code = CLI_EXIT_USAGE;
            return false;
        }
    }
    setup->disk.writable = setup->disk.writable && !setup->disk.snapshot;
    *ret_code = disk_args_check(cli, &setup->disk) ? CLI_EXIT_OK : CLI_EXIT_USAGE;
    return *ret_code == CLI_EXIT_OK;
}

static int io_command(struct cli *cli, int argc, char **argv)
{
    struct io_setup setup = {
        .disk = {.writable = true,
                 .options_decide = true,
                 .discard = "unmap",
                 .cache = usual_cache(cli)},
        .trace = TRACE_OPTION_NONE,
    };
    int code;

    setup.lines = calloc((size_t)argc, sizeof(*setup.lines));
    if (!setup.lines) {
        return cli_error(cli, "out of memory");
    }
    if (io_args_parse(&setup, cli, argc, argv, &code)) {
        code = trace_option_begin(&setup.trace, cli);
        if (code == CLI_EXIT_OK) {
            code = io_session_run(cli, &setup);
        }
    }
    trace_option_end(&setup.trace);
    free(setup.lines);
    return code;
}

const struct cli_command command_io = {
    .name = "io",
    .operands = "[FILE]",
    .summary = "Read, write and test a disk command by command",
    .options = io_options,
    .details = "'platter io -c help' lists the commands.\n\n"
               "Examples:\n"
               "  platter io -f raw -c 'write -P 7 0 4k' -c 'read -P 7 0 4k' disk.img\n"
               "  platter io -f raw -r -c map disk.img\n",
    .run = io_command,
};
