/* SPDX-License-Identifier: MIT */
/*
 * platter inspect: all that the metadata of an image says, without opening anything else and
 * without reading guest data. For images of unknown origin.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <platter/image.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/json_text.h"
#include "util/json_print.h"

#define INDENT 4
#define DEPTH_MAX 32 /* deeper JSON is shown in one line */

static const struct cli_option inspect_options[] = {
    DISK_ROW_FORMAT,
    DISK_ROW_OUTPUT,
    {0},
};

/* ---- human: one "key: value" a line ---- */

static void print_scalar(FILE *out, const json_t *value)
{
    if (json_is_string(value)) {
        cli_put_text(out, json_string_value(value));
    } else if (json_is_integer(value)) {
        fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else if (json_is_real(value)) {
        fprintf(out, "%g", json_real_value(value));
    } else if (json_is_boolean(value)) {
        fputs(json_is_true(value) ? "true" : "false", out);
    } else {
        char *text = json_print(value, 0);

        cli_put_text(out, text ? text : "?");
        free(text);
    }
}

static void print_value(FILE *out, const char *name, const json_t *value, int depth)
{
    bool nested = (json_is_object(value) || json_is_array(value)) && depth < DEPTH_MAX;
    const char *key;
    json_t *member;
    size_t i;

    fprintf(out, "%*s", depth * INDENT, "");
    cli_put_text(out, name);
    fputc(':', out);
    if (!nested) {
        fputc(' ', out);
        print_scalar(out, value);
    }
    fputc('\n', out);
    if (nested && json_is_object(value)) {
        json_object_foreach((json_t *)value, key, member)
        {
            print_value(out, key, member, depth + 1);
        }
    } else if (nested) {
        json_array_foreach(value, i, member)
        {
            char index[24];

            snprintf(index, sizeof(index), "[%zu]", i);
            print_value(out, index, member, depth + 1);
        }
    }
}

static int print_facts(struct cli *cli, const char *text, bool json)
{
    Error *err = NULL;
    json_t *object = json_parse_own(text, &err);
    const char *key;
    json_t *member;

    if (!object) {
        return cli_report(cli, err);
    }
    if (json) {
        return json_text_print(cli, object, 0);
    }
    json_object_foreach(object, key, member)
    {
        print_value(cli->out, key, member, 0);
    }
    json_decref(object);
    return CLI_EXIT_OK;
}

static int inspect_run(struct cli *cli, const struct disk_args *args)
{
    Platter *pl = disk_platter_new(cli, NULL);
    Error *err = NULL;
    char *text = pl ? bdrv_inspect(pl, args->file, args->format, &err) : NULL;
    int code = CLI_EXIT_FAILED;

    if (text) {
        code = print_facts(cli, text, disk_wants_json(args));
    } else if (pl) {
        disk_name_in_error(args->file, &err);
        cli_report(cli, err);
    }
    free(text);
    platter_free(pl);
    return code;
}

static int inspect_command(struct cli *cli, int argc, char **argv)
{
    struct disk_args args = {0};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !(disk_take_option(&args, id, &a) || disk_take_file(&args, &a))) {
            return CLI_EXIT_USAGE;
        }
    }
    if (!disk_file_check(cli, &args) || !disk_output_check(cli, &args)) {
        return CLI_EXIT_USAGE;
    }
    return inspect_run(cli, &args);
}

const struct cli_command command_inspect = {
    .name = "inspect",
    .operands = "FILE",
    .summary = "Show all that an image says about itself, opening no other file",
    .options = inspect_options,
    .details = "Examples:\n"
               "  platter inspect upload.qcow2\n"
               "  platter inspect --output=json -f qcow2 upload.qcow2\n",
    .run = inspect_command,
};
