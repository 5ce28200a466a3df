/* SPDX-License-Identifier: MIT */
/*
 * platter info: facts about a disk, without reading what is on it. The lines and keys are those of
 * `qemu-img info`; format-probed, engine and what follow are ours.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "util/json.h"
#include "util/size.h"

enum info_option {
    INFO_FORCE_SHARE = 1,
    INFO_FORMAT,
    INFO_IMAGE_OPTS,
    INFO_OUTPUT,
};

static const struct cli_option info_options[] = {
    {INFO_FORMAT, 'f', "format", "FMT", "format of the disk; guessed when not given"},
    {INFO_IMAGE_OPTS, 0, "image-opts", NULL, "FILE is a list of options"},
    {INFO_OUTPUT, 0, "output", "human|json", "form of the answer; human when not given"},
    {INFO_FORCE_SHARE, 'U', "force-share", NULL, "take no locks: look at a disk in use"},
    DISK_ROWS_REFS,
    {0},
};

struct disk_facts {
    const char *filename;
    const char *format;
    const char *engine; /* NULL: none needed */
    int64_t disk_bytes;
    int64_t allocated_bytes; /* < 0: not known */
    bool has_info;
    struct bdrv_info info;
    bool probed;
};

/* A host file or device gives no information about clusters or dirt unless its driver says so. */
static void facts_get(struct disk_facts *facts, BlockDriverState *bs)
{
    *facts = (struct disk_facts){
        .filename = bdrv_get_filename(bs),
        .format = bdrv_get_format_name(bs),
        .engine = bdrv_get_engine_name(bs),
        .disk_bytes = bdrv_getlength(bs),
        .allocated_bytes = bdrv_get_allocated_file_size(bs),
        .probed = bdrv_format_probed(bs),
    };
    facts->has_info = bdrv_get_info(bs, &facts->info) >= 0;
}

static void print_human(struct cli *cli, const struct disk_facts *f)
{
    char text[32];

    cli_put_line(cli->out, "image: %s", f->filename);
    fprintf(cli->out, "file format: %s\n", f->format);
    fprintf(cli->out, "virtual size: %s (%" PRId64 " bytes)\n",
            size_format((uint64_t)f->disk_bytes, text, sizeof(text)), f->disk_bytes);
    fprintf(cli->out, "disk size: %s\n",
            f->allocated_bytes < 0 ? "unavailable"
                                   : size_format((uint64_t)f->allocated_bytes, text, sizeof(text)));
    if (f->has_info && f->info.cluster_size_bytes) {
        fprintf(cli->out, "cluster_size: %" PRIu64 "\n", f->info.cluster_size_bytes);
    }
    if (f->has_info && f->info.is_dirty) {
        fputs("cleanly shut down: no\n", cli->out);
    }
    if (f->probed) {
        fputs("format probed: yes\n", cli->out);
    }
    if (f->engine) {
        fprintf(cli->out, "engine: %s\n", f->engine);
    }
}

/* A value of NULL means that memory ran out; ret carries that to the end. */
static void add(json_t *object, const char *key, json_t *value, int *ret)
{
    if (json_object_set_new_nocheck(object, key, value) < 0) {
        *ret = -ENOMEM;
    }
}

/* A name need not be UTF-8, but JSON must be: other bytes become '?'. */
static json_t *name_value(const char *name)
{
    char *copy;
    json_t *value;

    if (utf8_valid(name, strlen(name))) {
        return json_string_nocheck(name);
    }
    copy = strdup(name);
    for (char *p = copy; p && *p; p++) {
        *p = (*p & 0x80) ? '?' : *p;
    }
    value = copy ? json_string_nocheck(copy) : NULL;
    free(copy);
    return value;
}

static int print_json(struct cli *cli, const struct disk_facts *f)
{
    json_t *object = json_object();
    char *text = NULL;
    int ret = 0;

    add(object, "virtual-size", json_u64((uint64_t)f->disk_bytes), &ret);
    add(object, "filename", name_value(f->filename), &ret);
    if (f->has_info && f->info.cluster_size_bytes) {
        add(object, "cluster-size", json_u64(f->info.cluster_size_bytes), &ret);
    }
    add(object, "format", json_string(f->format), &ret);
    if (f->allocated_bytes >= 0) {
        add(object, "actual-size", json_u64((uint64_t)f->allocated_bytes), &ret);
    }
    if (f->has_info) {
        add(object, "dirty-flag", json_boolean(f->info.is_dirty), &ret);
    }
    add(object, "format-probed", json_boolean(f->probed), &ret);
    if (f->engine) {
        add(object, "engine", json_string(f->engine), &ret);
    }
    if (ret == 0) {
        text = json_dumps(object, JSON_INDENT(4));
    }
    json_decref(object);
    if (!text) {
        return cli_error(cli, "out of memory");
    }
    fprintf(cli->out, "%s\n", text);
    free(text);
    return CLI_EXIT_OK;
}

static int info_run(struct cli *cli, const struct disk_args *args, bool json)
{
    Platter *pl = disk_platter_new(cli, args);
    BlockBackend *blk = pl ? disk_open(cli, pl, args) : NULL;
    struct disk_facts facts;
    int code = CLI_EXIT_FAILED;

    if (blk) {
        facts_get(&facts, blk_bs(blk));
        if (facts.disk_bytes < 0) {
            cli_error(cli, "'%s' does not tell its size: %s", args->file,
                      strerror((int)-facts.disk_bytes));
        } else if (json) {
            code = print_json(cli, &facts);
        } else {
            print_human(cli, &facts);
            code = CLI_EXIT_OK;
        }
        blk_unref(blk);
    }
    platter_free(pl);
    return code;
}

static int info_command(struct cli *cli, int argc, char **argv)
{
    struct disk_args args = {.look_only = true};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    const char *output = "human";
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP || id == CLI_BAD) {
            return id == CLI_HELP ? CLI_EXIT_OK : CLI_EXIT_USAGE;
        }
        if (id == INFO_FORCE_SHARE) {
            args.force_share = true;
        } else if (id == INFO_FORMAT) {
            args.format = a.value;
        } else if (id == INFO_IMAGE_OPTS) {
            args.image_opts = true;
        } else if (id == INFO_OUTPUT) {
            output = a.value;
        } else if (args.file) {
            return cli_usage_error(cli, "one FILE is shown, '%s' is too much", a.value);
        } else {
            args.file = a.value;
        }
    }
    if (!args.file) {
        return cli_usage_error(cli, "which FILE?");
    }
    if (strcmp(output, "human") != 0 && strcmp(output, "json") != 0) {
        return cli_usage_error(cli, "no output form '%s': there are human and json", output);
    }
    if (!disk_args_check(cli, &args)) {
        return CLI_EXIT_USAGE;
    }
    return info_run(cli, &args, strcmp(output, "json") == 0);
}

const struct cli_command command_info = {
    .name = "info",
    .operands = "FILE",
    .summary = "Show the facts about a disk",
    .options = info_options,
    .details = "Examples:\n"
               "  platter info disk.img\n"
               "  platter info --output=json -f raw disk.img\n",
    .run = info_command,
};
