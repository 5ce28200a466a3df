/* SPDX-License-Identifier: MIT */
#include "tools/trace_option.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"
#include "os/trace.h"
#include "tools/cli_message.h"
#include "util/mem.h"
#include "util/options.h"

/* A line of a file of patterns; file NULL: of the command line. */
struct place {
    struct cli *cli;
    const char *file;
    unsigned line;
};

/* A name that is none is a fault, but to those who stand in for a tool it is a warning: what they
 * are asked for is a name of that tool's. */
static int unknown_point(const struct place *at, const char *name)
{
    struct cli *cli = at->cli;

    if (!cli_stands_in(cli)) {
        return cli_usage_error(cli, "there is no trace point '%s'", name);
    }
    if (at->file) {
        cli_put_line(cli->err, "%s:%s:%u: warning: trace event '%s' does not exist",
                     cli->program->name, at->file, at->line, name);
    } else {
        cli_warning(cli, "trace event '%s' does not exist", name);
    }
    return CLI_EXIT_OK;
}

static int switch_points(const struct place *at, const char *pattern)
{
    bool off = pattern[0] == '-';
    const char *name = pattern + off;

    if (trace_set(name, !off) > 0 || (cli_stands_in(at->cli) && strpbrk(name, "*?"))) {
        return CLI_EXIT_OK;
    }
    return unknown_point(at, name);
}

static int switch_points_of(struct cli *cli, const char *name)
{
    struct place at = {.cli = cli, .file = name};
    FILE *file = fopen(name, "re");
    AUTO_FREE char *line = NULL;
    size_t size = 0;
    int code = CLI_EXIT_OK;

    if (!file) {
        cli_put_line(cli->err, "%s:%s: %s", cli->program->name, name, strerror(errno));
        return CLI_EXIT_FAILED;
    }
    while (code == CLI_EXIT_OK && getline(&line, &size, file) >= 0) {
        at.line++;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0' && line[0] != '#') {
            code = switch_points(&at, line);
        }
    }
    fclose(file);
    return code;
}

static bool is_help(const char *pattern)
{
    return pattern && (strcmp(pattern, "help") == 0 || strcmp(pattern, "?") == 0);
}

static void list_points(FILE *out)
{
    for (int i = 0; i < TRACE_EVENT_COUNT; i++) {
        fprintf(out, "%s\n", trace_name((enum trace_event)i));
    }
}

static int take_options(struct trace_option *trace, struct cli *cli, const BlockOptions *options)
{
    const char *pattern = block_options_get_str(options, "enable");
    const char *events = block_options_get_str(options, "events");
    const char *file = block_options_get_str(options, "file");
    int code = CLI_EXIT_OK;

    for (const char *key = NULL; (key = block_options_next_key(options, key)) != NULL;) {
        if (strcmp(key, "enable") != 0 && strcmp(key, "events") != 0 && strcmp(key, "file") != 0) {
            return cli_error(cli, "Invalid parameter '%s'", key);
        }
    }
    if (pattern) {
        code = switch_points(&(struct place){.cli = cli}, pattern);
    }
    if (code == CLI_EXIT_OK && events) {
        code = switch_points_of(cli, events);
    }
    if (code == CLI_EXIT_OK && file) {
        free(trace->file);
        trace->file = strdup(file);
        code = trace->file ? CLI_EXIT_OK : cli_error(cli, "out of memory");
    }
    trace->given = true;
    return code;
}

bool trace_option_take(struct trace_option *trace, const struct cli_args *a, int *ret_code)
{
    Error *err = NULL;
    BlockOptions *options = block_options_parse(a->value, "enable", &err);

    if (!options) {
        cli_report(a->cli, err);
        *ret_code = CLI_EXIT_FAILED;
        return false;
    }
    *ret_code = CLI_EXIT_OK;
    if (is_help(block_options_get_str(options, "enable"))) {
        list_points(a->cli->out);
        block_options_free(options);
        return false;
    }
    *ret_code = take_options(trace, a->cli, options);
    block_options_free(options);
    return *ret_code == CLI_EXIT_OK;
}

int trace_option_begin(struct trace_option *trace, struct cli *cli)
{
    int fd = STDERR_FILENO;

    if (trace->file) {
        trace->fd = fd = os->open(trace->file, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (fd < 0) {
            return cli_error(cli, "Error opening logfile %s: %s", trace->file, strerror(-fd));
        }
    }
    if (trace->given) {
        trace_set_fd(fd);
    }
    return CLI_EXIT_OK;
}

void trace_option_end(struct trace_option *trace)
{
    if (trace->given) {
        trace_set_fd(-1);
    }
    if (trace->fd >= 0) {
        os->close(trace->fd);
    }
    free(trace->file);
    *trace = TRACE_OPTION_NONE;
}
