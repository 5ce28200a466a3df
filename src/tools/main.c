/* SPDX-License-Identifier: MIT */
/* The program `platter` and its other names: their commands, and the process they run in. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "os/os.h"
#include "tools/cli.h"
#include "tools/commands.h"
#include "tools/trace_option.h"
#include "util/mem.h"

/* One a line, in the order of the help. */
/* clang-format off */
static const struct cli_command *const commands[] = {
    &command_create,
    &command_info,
    &command_inspect,
    &command_check,
    &command_checksum,
    &command_map,
    &command_compare,
    &command_convert,
    &command_dd,
    &command_measure,
    &command_resize,
    &command_snapshot,
    &command_amend,
    &command_bitmap,
    &command_rebase,
    &command_commit,
    &command_compact,
    &command_serve,
    &command_nbd,
    &command_daemon,
    &command_top,
    &command_bench,
    &command_io,
    &command_docs,
    NULL,
};
/* clang-format on */

static const struct cli_command *const img_commands[] = {
    &command_amend,  &command_bench,   &command_bitmap,   &command_check,
    &command_commit, &command_compare, &command_convert,  &command_create,
    &command_dd,     &command_info,    &command_map,      &command_measure,
    &command_rebase, &command_resize,  &command_snapshot, NULL,
};

static const struct cli_option img_options[] = {TRACE_ROW(1), {0}};
static const struct cli_command img_globals = {.options = img_options};

static const struct cli_program platter = {
    .name = "platter",
    .summary = "Virtual disks: create, inspect, serve, measure, exercise.",
    .commands = commands,
    .spelling = &spelling_native,
};

/* Programs by the names of the tools that they stand in for. */
static const struct cli_program compat_programs[] = {
    {
        .name = "qemu-img",
        .summary = "Virtual disks, with the command lines of qemu-img.",
        .commands = img_commands,
        .globals = &img_globals,
        .spelling = &spelling_qemu_img,
    },
    {
        .name = "qemu-io",
        .only = &command_io,
        .spelling = &spelling_qemu_io,
    },
    {
        .name = "qemu-nbd",
        .only = &command_nbd,
        .spelling = &spelling_qemu_nbd,
    },
    {
        .name = "qemu-storage-daemon",
        .only = &command_daemon,
        .spelling = &spelling_qemu_storage_daemon,
    },
};

/* The one that was called by its name, with or without a folder; else platter. */
static const struct cli_program *find_program(const char *called)
{
    const char *slash = called ? strrchr(called, '/') : NULL;
    const char *base = slash ? slash + 1 : called;

    for (size_t i = 0; base && i < ARRAY_SIZE(compat_programs); i++) {
        if (strcmp(compat_programs[i].name, base) == 0) {
            return &compat_programs[i];
        }
    }
    return &platter;
}

/* A descriptor 0, 1 or 2 that was closed would be given to the next file that is opened, and what
 * is printed would be written into a disk. The empty ones are filled so that using them fails, as
 * using a closed one does. */
static void descriptors_begin(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (os->fcntl_getfl(fd) == -EBADF) {
            (void)os->open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY, 0);
        }
    }
}

/* A pipe that nobody reads and a limit on the size of files are errors that are reported (EPIPE,
 * EFBIG), not the end of a server. */
static void signals_begin(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

int main(int argc, char **argv)
{
    struct cli cli = {.program = find_program(argv[0]), .in = stdin, .out = stdout, .err = stderr};

    setvbuf(stderr, NULL, _IOLBF, BUFSIZ); /* a line of many findings is one write */
    descriptors_begin();
    signals_begin();
    return cli_run(&cli, argc, argv);
}
