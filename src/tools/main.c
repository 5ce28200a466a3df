/* SPDX-License-Identifier: MIT */
/* The program `platter`: its list of commands. */
#include "tools/cli.h"
#include "tools/commands.h"

static const struct cli_command *const commands[] = {
    &command_create, &command_info, &command_serve, &command_bench, &command_io, NULL,
};

static const struct cli_program program = {
    .name = "platter",
    .summary = "Virtual disks: create, inspect, serve, measure, exercise.",
    .commands = commands,
};

int main(int argc, char **argv)
{
    struct cli cli = {.program = &program, .in = stdin, .out = stdout, .err = stderr};

    return cli_run(&cli, argc, argv);
}
