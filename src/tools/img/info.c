/* SPDX-License-Identifier: MIT */
/*
 * platter info: facts about a disk, without reading what is on it. The lines and keys are those of
 * `qemu-img info`; format-probed, engine and what follow are ours.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <platter/image.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/chain.h"
#include "tools/img/json_text.h"
#include "tools/img/snapshot_list.h"
#include "util/name_beside.h"
#include "util/size.h"

#define INDENT 4 /* of "Format specific information" */

enum info_option {
    INFO_CHAIN = 1,
    INFO_OUTPUT,
};

static const struct cli_option info_options[] = {
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    {INFO_CHAIN, 0, "backing-chain", NULL, "show each backing file too"},
    {INFO_OUTPUT, 0, "output", "human|json", "form of the answer; human when not given"},
    DISK_ROW_FORCE_SHARE,
    DISK_ROWS_REFS,
    {0},
};

struct info_args {
    struct disk_args disk;
    bool chain;
    bool json;
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
    const char *backing_file;            /* as the image says it; NULL: none */
    const char *backing_format;          /* NULL: not said */
    char *full_backing_file;             /* owned: where that is, seen from here */
    json_t *specific;                    /* owned; NULL: none */
    struct bdrv_snapshot_list snapshots; /* owned */
    bool encrypted;
};

/* What only some formats have. 0 or -errno with errp. */
static int facts_of_format(struct disk_facts *facts, BlockDriverState *bs, Error **errp)
{
    Error *err = NULL;
    char *text = bdrv_get_specific_info(bs, &err);

    if (err) {
        *errp = err;
        return -ENOMEM;
    }
    facts->specific = text ? json_loads(text, 0, NULL) : NULL;
    facts->encrypted = json_object_get(json_object_get(facts->specific, "data"), "encrypt") != NULL;
    free(text);
    if (facts->backing_file) {
        facts->full_backing_file = name_beside(facts->filename, facts->backing_file);
    }
    /* not every format has snapshots, and a damaged table is no reason to show nothing */
    (void)bdrv_snapshot_list(bs, &facts->snapshots, NULL);
    return 0;
}

static void facts_fini(struct disk_facts *facts)
{
    free(facts->full_backing_file);
    json_decref(facts->specific);
    bdrv_snapshot_list_free(&facts->snapshots);
}

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
        .backing_file = bdrv_get_backing_file(bs),
        .backing_format = bdrv_get_backing_format(bs),
    };
    facts->has_info = bdrv_get_info(bs, &facts->info) >= 0;
}

/* ---- human ---- */

static void print_backing(struct cli *cli, const struct disk_facts *f)
{
    if (!f->backing_file) {
        return;
    }
    fputs("backing file: ", cli->out);
    cli_put_text(cli->out, f->backing_file);
    if (f->full_backing_file && strcmp(f->full_backing_file, f->backing_file) != 0) {
        fputs(" (actual path: ", cli->out);
        cli_put_text(cli->out, f->full_backing_file);
        fputc(')', cli->out);
    }
    fputc('\n', cli->out);
    if (f->backing_format) {
        cli_put_line(cli->out, "backing file format: %s", f->backing_format);
    }
}

static void print_scalar(FILE *out, const json_t *value)
{
    if (json_is_string(value)) {
        cli_put_text(out, json_string_value(value));
    } else if (json_is_integer(value)) {
        fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else {
        fputs(json_is_true(value) ? "true" : "false", out);
    }
}

static void print_members(FILE *out, const json_t *value, int depth);

static void print_member(FILE *out, const char *label, const json_t *value, int depth)
{
    bool nested = json_is_object(value) || json_is_array(value);

    fprintf(out, "%*s%s:%s", depth * INDENT, "", label, nested ? "\n" : " ");
    if (nested) {
        print_members(out, value, depth + 1);
    } else {
        print_scalar(out, value);
        fputc('\n', out);
    }
}

/* Recursion is no deeper than what a driver of ours makes. */
static void print_members(FILE *out, const json_t *value, int depth)
{
    const char *key;
    json_t *member;
    char label[64];
    size_t i;

    json_object_foreach((json_t *)value, key, member)
    {
        snprintf(label, sizeof(label), "%s", key);
        for (char *c = label; *c; c++) {
            *c = *c == '-' ? ' ' : *c;
        }
        print_member(out, label, member, depth);
    }
    json_array_foreach(value, i, member)
    {
        snprintf(label, sizeof(label), "[%zu]", i);
        print_member(out, label, member, depth);
    }
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
    if (f->encrypted) {
        fputs("encrypted: yes\n", cli->out);
    }
    if (f->has_info && f->info.cluster_size_bytes) {
        fprintf(cli->out, "cluster_size: %" PRIu64 "\n", f->info.cluster_size_bytes);
    }
    if (f->has_info && f->info.is_dirty) {
        fputs("cleanly shut down: no\n", cli->out);
    }
    print_backing(cli, f);
    snapshot_list_print(cli, &f->snapshots);
    if (f->specific) {
        fputs("Format specific information:\n", cli->out);
        print_members(cli->out, json_object_get(f->specific, "data"), 1);
    }
    if (!cli_spelling(cli)->more_facts) {
        return;
    }
    if (f->probed) {
        fputs("format probed: yes\n", cli->out);
    }
    if (f->engine) {
        fprintf(cli->out, "engine: %s\n", f->engine);
    }
}

/* ---- JSON ---- */

static json_t *snapshot_value(const struct bdrv_snapshot_info *sn)
{
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    if (sn->icount != UINT64_MAX) {
        json_text_add(object, "icount", json_u64(sn->icount), &ret);
    }
    json_text_add(object, "vm-clock-nsec", json_u64(sn->vm_clock_nsec % 1000000000), &ret);
    json_text_add(object, "name", json_text_string(sn->name), &ret);
    json_text_add(object, "date-sec", json_integer(sn->date_sec), &ret);
    json_text_add(object, "date-nsec", json_integer(sn->date_nsec), &ret);
    json_text_add(object, "vm-clock-sec", json_u64(sn->vm_clock_nsec / 1000000000), &ret);
    json_text_add(object, "id", json_text_string(sn->id), &ret);
    json_text_add(object, "vm-state-size", json_u64(sn->vm_state_bytes), &ret);
    if (ret < 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static void add_snapshots(json_t *object, const struct disk_facts *f, int *ret)
{
    json_t *list;

    if (f->snapshots.count == 0) {
        return;
    }
    list = json_array();
    for (size_t i = 0; i < f->snapshots.count; i++) {
        if (json_array_append_new(list, snapshot_value(&f->snapshots.snapshots[i])) < 0) {
            *ret = -ENOMEM;
        }
    }
    json_text_add(object, "snapshots", list, ret);
}

static void add_backing(json_t *object, const struct disk_facts *f, int *ret)
{
    if (f->full_backing_file) {
        json_text_add(object, "full-backing-filename", json_text_string(f->full_backing_file), ret);
    }
    if (f->backing_file) {
        json_text_add(object, "backing-filename", json_text_string(f->backing_file), ret);
    }
}

/* NULL: out of memory. */
static json_t *facts_value(struct cli *cli, const struct disk_facts *f)
{
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    if (f->backing_format) {
        json_text_add(object, "backing-filename-format", json_text_string(f->backing_format), &ret);
    }
    add_snapshots(object, f, &ret);
    json_text_add(object, "virtual-size", json_u64((uint64_t)f->disk_bytes), &ret);
    json_text_add(object, "filename", json_text_string(f->filename), &ret);
    if (f->has_info && f->info.cluster_size_bytes) {
        json_text_add(object, "cluster-size", json_u64(f->info.cluster_size_bytes), &ret);
    }
    json_text_add(object, "format", json_string(f->format), &ret);
    if (f->allocated_bytes >= 0) {
        json_text_add(object, "actual-size", json_u64((uint64_t)f->allocated_bytes), &ret);
    }
    if (f->encrypted) {
        json_text_add(object, "encrypted", json_true(), &ret);
    }
    if (f->specific) {
        json_text_add(object, "format-specific", json_incref(f->specific), &ret);
    }
    add_backing(object, f, &ret);
    if (f->has_info) {
        json_text_add(object, "dirty-flag", json_boolean(f->info.is_dirty), &ret);
    }
    if (cli_spelling(cli)->more_facts) {
        json_text_add(object, "format-probed", json_boolean(f->probed), &ret);
    }
    if (cli_spelling(cli)->more_facts && f->engine) {
        json_text_add(object, "engine", json_string(f->engine), &ret);
    }
    if (ret < 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

/* ---- the layers ---- */

/* One layer is printed, or put into list. */
static int show_layer(struct cli *cli, BlockDriverState *bs, json_t *list)
{
    struct disk_facts facts;
    Error *err = NULL;
    int code = CLI_EXIT_OK;

    facts_get(&facts, bs);
    if (facts_of_format(&facts, bs, &err) < 0) {
        code = cli_report(cli, err);
    } else if (facts.disk_bytes < 0) {
        code = cli_error(cli, "'%s' does not tell its size: %s", facts.filename,
                         strerror((int)-facts.disk_bytes));
    } else if (!list) {
        print_human(cli, &facts);
    } else if (json_array_append_new(list, facts_value(cli, &facts)) < 0) {
        code = cli_error(cli, "out of memory");
    }
    facts_fini(&facts);
    return code;
}

static int show(struct cli *cli, const struct info_args *args, BlockDriverState *bs, json_t *list)
{
    int code = show_layer(cli, bs, list);

    while (code == CLI_EXIT_OK && args->chain && (bs = chain_below(bs)) != NULL) {
        if (!list) {
            fputc('\n', cli->out);
        }
        code = show_layer(cli, bs, list);
    }
    if (code == CLI_EXIT_OK && list) {
        code = json_text_print(cli, json_incref(args->chain ? list : json_array_get(list, 0)), 0);
    }
    return code;
}

static int info_run(struct cli *cli, BlockBackend *blk, void *opaque)
{
    const struct info_args *args = opaque;
    json_t *list = args->json ? json_array() : NULL;
    int code;

    if (args->json && !list) {
        return cli_error(cli, "out of memory");
    }
    code = show(cli, args, blk_bs(blk), list);
    json_decref(list);
    return code;
}

/* ---- arguments ---- */

static bool info_take(struct info_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case INFO_CHAIN:
        args->chain = true;
        return true;
    case INFO_OUTPUT:
        return disk_take_output(a, &args->json);
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a);
    }
}

static int info_command(struct cli *cli, int argc, char **argv)
{
    struct info_args args = {.disk = {.look_only = true}};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !info_take(&args, id, &a)) {
            return CLI_EXIT_USAGE;
        }
    }
    if (!args.disk.file) {
        return disk_no_file(cli);
    }
    if (!disk_args_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    args.disk.no_backing = !args.chain;
    return disk_run(cli, &args.disk, info_run, &args);
}

const struct cli_command command_info = {
    .name = "info",
    .operands = "FILE",
    .summary = "Show the facts about a disk",
    .options = info_options,
    .details = "Examples:\n"
               "  platter info disk.img\n"
               "  platter info --output=json -f raw disk.img\n"
               "  platter info -f qcow2 --backing-chain overlay.qcow2\n",
    .run = info_command,
};
