/* SPDX-License-Identifier: MIT */
/* platter docs: manual pages and completions, made by the build and by packagers. Not in the list
 * of commands. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/commands.h"
#include "tools/docs/docs.h"
#include "util/mem.h"

enum docs_option {
    DOCS_BASH = 1,
    DOCS_MAN,
    DOCS_ZSH,
};

static const struct cli_option docs_options[] = {
    {DOCS_BASH, 0, "bash", NULL, "print the completion for bash"},
    {DOCS_ZSH, 0, "zsh", NULL, "print the completion for zsh"},
    {DOCS_MAN, 0, "man", "DIR", "write a manual page for each command into DIR"},
    {0},
};

/* DIR/PROGRAM-COMMAND.1, or DIR/PROGRAM.1 */
static int write_page(struct cli *cli, const char *dir, const struct cli_command *command)
{
    const struct cli_program *program = cli->program;
    AUTO_FREE char *path = NULL;
    FILE *page;
    bool good;

    if (asprintf(&path, "%s/%s%s%s.1", dir, program->name, command ? "-" : "",
                 command ? command->name : "") < 0) {
        path = NULL;
        return cli_error(cli, "out of memory");
    }
    page = fopen(path, "w");
    if (!page) {
        return cli_error(cli, "could not create '%s': %s", path, strerror(errno));
    }
    docs_man(page, program, command);
    good = !ferror(page);
    good = fclose(page) == 0 && good;
    return good ? CLI_EXIT_OK : cli_error(cli, "could not write '%s'", path);
}

static int write_pages(struct cli *cli, const char *dir)
{
    int code;

    if (mkdir(dir, 0777) < 0 && errno != EEXIST) {
        return cli_error(cli, "could not create the folder '%s': %s", dir, strerror(errno));
    }
    code = write_page(cli, dir, NULL);
    for (const struct cli_command *const *c = cli->program->commands; code == 0 && *c; c++) {
        code = (*c)->hidden ? code : write_page(cli, dir, *c);
    }
    return code;
}

static int docs_take(void *opaque, int id, const struct cli_args *a)
{
    bool *done = opaque;

    *done = true;
    switch (id) {
    case DOCS_BASH:
        docs_bash(a->cli->out, a->cli->program);
        return CLI_EXIT_OK;
    case DOCS_ZSH:
        docs_zsh(a->cli->out, a->cli->program);
        return CLI_EXIT_OK;
    case DOCS_MAN:
        return write_pages(a->cli, a->value);
    default:
        return cli_usage_error(a->cli, "no operand is wanted, '%s' is too much", a->value);
    }
}

static int docs_command(struct cli *cli, int argc, char **argv)
{
    bool done = false;
    int code;

    if (cli_take_all(cli, argc, argv, docs_take, &done, &code) && !done) {
        return cli_usage_error(cli, "which of --man, --bash and --zsh?");
    }
    return code;
}

const struct cli_command command_docs = {
    .name = "docs",
    .operands = "",
    .summary = "Write manual pages and completions for shells",
    .options = docs_options,
    .hidden = true,
    .run = docs_command,
};
