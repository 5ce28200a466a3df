/* SPDX-License-Identifier: MIT */
/* The program `platter`: its list of commands, and the process it runs in. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "os/os.h"
#include "tools/cli.h"
#include "tools/commands.h"

static const struct cli_command *const commands[] = {
    &command_create,
    &command_info,
    &command_inspect,
    &command_check,
    &command_map,
    &command_compare,
    &command_measure,
    &command_resize,
    &command_snapshot,
    &command_amend,
    &command_bitmap,
    &command_rebase,
    &command_commit,
    &command_serve,
    &command_bench,
    &command_io,
    NULL,
};

static const struct cli_program program = {
    .name = "platter",
    .summary = "Virtual disks: create, inspect, serve, measure, exercise.",
    .commands = commands,
};

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
    struct cli cli = {.program = &program, .in = stdin, .out = stdout, .err = stderr};

    descriptors_begin();
    signals_begin();
    return cli_run(&cli, argc, argv);
}
