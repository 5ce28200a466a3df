/* SPDX-License-Identifier: MIT */
/*
 * platter top: what a daemon is doing, asked for over its monitor. On a terminal a screen that is
 * drawn anew; with --batch, or where there is no terminal to show it or to press keys, plain
 * tables.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"
#include "tools/commands.h"
#include "tools/top/screen.h"
#include "util/error.h"

enum top_option {
    TOP_BATCH = 1,
    TOP_DELAY,
    TOP_SORT,
    TOP_TABLE,
};

static const struct cli_option top_options[] = {
    {TOP_BATCH, 'b', "batch", "N", "print N times what there is, and end"},
    {TOP_DELAY, 'd', "delay", "MS", "milliseconds between looks; 1000 when not given"},
    {TOP_SORT, 's', "sort", "KEY", "name, ops, bytes, latency or depth", .words = top_sort_names},
    {TOP_TABLE, 't', "table", "TABLE", "backends, nodes, exports, jobs, or all (with --batch)",
     .words = top_table_names},
    {0},
};

struct top_args {
    const char *socket;
    uint64_t batch; /* 0: a screen */
    uint64_t delay_ms;
    struct top_view view;
    bool all_tables;
};

static void print_line(void *opaque, const char *name, const char *line)
{
    struct cli *cli = opaque;

    cli_put_line(cli->out, "%s", line);
}

static int print_tables(struct cli *cli, const struct top_args *args,
                        const struct top_sample *before, const struct top_sample *now)
{
    struct top_view view = args->view;

    for (int table = 0; table < TOP_TABLES; table++) {
        if (!args->all_tables && table != (int)args->view.table) {
            continue;
        }
        view.table = (enum top_table)table;
        if (top_view_put(&view, before, now, print_line, cli) < 0) {
            return cli_error(cli, "out of memory");
        }
        if (args->all_tables) {
            fputc('\n', cli->out);
        }
    }
    (void)cli_flush(cli);
    return CLI_EXIT_OK;
}

static int run_batch(struct cli *cli, const struct top_args *args, struct top_client *client)
{
    struct top_sample before;
    struct top_sample now;
    Error *err = NULL;
    int code = CLI_EXIT_OK;

    if (top_sample_take(client, &before, &err) < 0) {
        return cli_report(cli, err);
    }
    for (uint64_t i = 0; i < args->batch && code == CLI_EXIT_OK; i++) {
        os->sleep_ns((int64_t)args->delay_ms * 1000000);
        if (top_sample_take(client, &now, &err) < 0) {
            code = cli_report(cli, err);
            break;
        }
        code = print_tables(cli, args, &before, &now);
        top_sample_fini(&before);
        before = now;
    }
    top_sample_fini(&before);
    return code;
}

static int run(struct cli *cli, struct top_args *args)
{
    struct top_client *client = malloc(sizeof(*client));
    Error *err = NULL;
    int code;

    if (!client) {
        return cli_error(cli, "out of memory");
    }
    if (top_client_begin(client, args->socket, &err) < 0) {
        free(client);
        return cli_report(cli, err);
    }
    if (args->batch > 0) {
        code = run_batch(cli, args, client);
    } else {
        code = top_screen_run(client, &args->view, (int)args->delay_ms, &err) < 0
                   ? cli_report(cli, err)
                   : CLI_EXIT_OK;
    }
    top_client_end(client);
    free(client);
    return code;
}

/* The place of an option's value among its words; -1 after an error. */
static int find_word(const struct cli_args *a, const char *what)
{
    const char *const *words = a->option->words;

    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], a->value) == 0) {
            return i;
        }
    }
    cli_usage_error(a->cli, "there is no %s '%s'", what, a->value);
    return -1;
}

static int top_take(void *opaque, int id, const struct cli_args *a)
{
    struct top_args *args = opaque;
    int at = 0;

    switch (id) {
    case TOP_BATCH:
        return cli_number_value(a, 1, 1000000, &args->batch) ? CLI_EXIT_OK : CLI_EXIT_USAGE;
    case TOP_DELAY:
        return cli_number_value(a, 10, 3600000, &args->delay_ms) ? CLI_EXIT_OK : CLI_EXIT_USAGE;
    case TOP_SORT:
        at = find_word(a, "order");
        args->view.sort = at < 0 ? 0 : (enum top_sort)at;
        break;
    case TOP_TABLE:
        at = find_word(a, "table");
        args->all_tables = at == TOP_TABLES;
        args->view.table = at < 0 || args->all_tables ? 0 : (enum top_table)at;
        break;
    default:
        if (args->socket) {
            return cli_usage_error(a->cli, "unexpected argument '%s'", a->value);
        }
        args->socket = a->value;
    }
    return at < 0 ? CLI_EXIT_USAGE : CLI_EXIT_OK;
}

static int top_command(struct cli *cli, int argc, char **argv)
{
    struct top_args args = {.delay_ms = 1000, .view.sort = TOP_SORT_NAME};
    int code;

    if (!cli_take_all(cli, argc, argv, top_take, &args, &code)) {
        return code;
    }
    if (!args.socket) {
        return cli_usage_error(cli, "which SOCKET of a monitor?");
    }
    if (args.batch == 0 && (args.all_tables || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))) {
        args.batch = 1;
    }
    return run(cli, &args);
}

const struct cli_command command_top = {
    .name = "top",
    .operands = "SOCKET",
    .summary = "Watch a daemon: backends, nodes, exports and jobs",
    .options = top_options,
    .details =
        "SOCKET is that of a monitor (--chardev socket,...). Keys: tab shows the next table, s "
        "sorts\n"
        "by something else, the arrows and enter choose one row, backspace goes back, q ends.\n"
        "Percentiles are those of the reads and writes since the last look, rounded up by a "
        "quarter "
        "at\n"
        "the most.\n",
    .run = top_command,
};
