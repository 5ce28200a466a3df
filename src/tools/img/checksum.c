/* SPDX-License-Identifier: MIT */
/*
 * platter checksum: a hash of what a guest sees of a disk, whatever the image. The hash is told in
 * doc/format/checksum.md. Usage errors end with 2, since 1 says that a disk is another.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <platter/block.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/checksum_read.h"
#include "tools/img/json_text.h"
#include "tools/progress.h"

#define TEXT_MAX (2 * TREE_HASH_BYTES_MAX + 1)
static const char tree_word[] = "tree1-";

enum checksum_option {
    CHECKSUM_ALGORITHM = 1,
    CHECKSUM_FLAT,
    CHECKSUM_PROGRESS,
    CHECKSUM_QUIET,
    CHECKSUM_VERIFY,
};

enum checksum_exit {
    CHECKSUM_EXIT_OK = 0,
    CHECKSUM_EXIT_DIFFERENT = 1,
    CHECKSUM_EXIT_FAILED = 2, /* usage, too */
};

static const char *const algorithm_words[] = {"sha256", "sha384", "sha512", NULL};

static const struct cli_option checksum_options[] = {
    {DISK_OPTION_FORMAT, 'f', "format", "FMT|auto", "format of the disks; auto: guess it"},
    DISK_ROW_IMAGE_OPTS,
    {CHECKSUM_ALGORITHM, 'a', "algorithm", "NAME", "sha256 (when not given), sha384 or sha512",
     .words = algorithm_words},
    {CHECKSUM_FLAT, 0, "flat", NULL, "hash all bytes in their order, as sha256sum does"},
    {CHECKSUM_VERIFY, 0, "verify", "HASH", "tell whether each disk has this one"},
    DISK_ROW_OUTPUT,
    DISK_ROW_SNAPSHOT,
    DISK_ROW_SRC_CACHE,
    DISK_ROW_AIO,
    DISK_ROW_FORCE_SHARE,
    DISK_ROW_OBJECT,
    PROGRESS_ROW(CHECKSUM_PROGRESS),
    {CHECKSUM_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROWS_REFS,
    {0},
};

struct checksum_args {
    struct disk_args disk; /* what all have; file: of this moment */
    const char **files;    /* of argv */
    int file_count;
    const char *algorithm; /* NULL: not given */
    const char *verify;    /* NULL: nothing to verify */
    bool flat;
    enum progress_form progress;
    bool quiet;
};

struct checksum {
    struct cli *cli;
    const struct checksum_args *args;
    const struct hash_algorithm *alg;
    const char *wanted; /* HEX of args->verify; or NULL */
    json_t *answers;    /* JSON: an array */
    bool different;
    struct progress progress;
};

/* ---- answers ---- */

static int add_json(struct checksum *c, BlockBackend *blk, const struct checksum_result *result,
                    const char *hash, const bool *same)
{
    json_t *answer = json_object();
    int ret = answer ? 0 : -ENOMEM;

    json_add(answer, "filename", json_text(c->args->disk.file), &ret);
    json_add(answer, "format", json_text(bdrv_get_format_name(blk_bs(blk))), &ret);
    json_add(answer, "checksum", json_text(hash), &ret);
    json_add(answer, "virtual-size", json_u64((uint64_t)result->disk_bytes), &ret);
    json_add(answer, "read-bytes", json_u64((uint64_t)result->read_bytes), &ret);
    if (same) {
        json_add(answer, "same", json_boolean(*same), &ret);
    }
    json_append(c->answers, answer, &ret);
    return ret < 0 ? cli_error(c->cli, "out of memory") : CLI_EXIT_OK;
}

static int answer(struct checksum *c, BlockBackend *blk, const struct checksum_result *result)
{
    char hex[TEXT_MAX];
    char hash[TEXT_MAX + 32];
    FILE *text = progress_text(c->cli, c->args->progress);
    bool same;

    hash_text(result->hash, c->alg->bytes, hex);
    snprintf(hash, sizeof(hash), "%s%s%s%s", c->args->flat ? "" : tree_word,
             c->args->flat ? "" : c->alg->name, c->args->flat ? "" : ":", hex);
    same = !c->wanted || strcasecmp(hex, c->wanted) == 0;
    c->different = c->different || !same;
    if (disk_wants_json(&c->args->disk)) {
        return add_json(c, blk, result, hash, c->wanted ? &same : NULL);
    }
    if (c->args->quiet) {
        return CLI_EXIT_OK;
    }
    if (c->wanted) {
        cli_put_line(text, "%s: %s", c->args->disk.file, same ? "OK" : "FAILED");
    } else {
        cli_put_line(text, "%s  %s", hash, c->args->disk.file);
    }
    return CLI_EXIT_OK;
}

/* ---- the run ---- */

static void report(void *opaque, uint64_t done, uint64_t total)
{
    progress_set(opaque, done, total);
}

static int checksum_disk(struct cli *cli, BlockBackend *blk, void *opaque)
{
    struct checksum *c = opaque;
    struct checksum_result result;
    const char *step;
    int ret;

    progress_start(&c->progress);
    ret = checksum_read(blk, c->alg, c->args->flat, report, &c->progress, &result, &step);
    progress_stop(&c->progress);
    if (ret < 0) {
        return cli_error(cli, "%s '%s' failed: %s", step, c->args->disk.file, strerror(-ret));
    }
    return answer(c, blk, &result);
}

static int checksum_run(struct cli *cli, struct checksum_args *args,
                        const struct hash_algorithm *alg, const char *wanted)
{
    struct checksum c = {.cli = cli, .args = args, .alg = alg, .wanted = wanted};
    FILE *out;
    int code = CLI_EXIT_OK;

    c.answers = disk_wants_json(&args->disk) ? json_array() : NULL;
    if (disk_wants_json(&args->disk) && !c.answers) {
        cli_error(cli, "out of memory");
        return CHECKSUM_EXIT_FAILED;
    }
    out = disk_answer_alone(cli, &args->disk);
    progress_begin(&c.progress, cli, progress_beside(args->progress, args->quiet));
    for (int i = 0; i < args->file_count; i++) { /* one that fails does not hide the others */
        args->disk.file = args->files[i];
        if (disk_run(cli, &args->disk, checksum_disk, &c) != CLI_EXIT_OK) {
            code = CHECKSUM_EXIT_FAILED;
        }
    }
    progress_end(&c.progress, code == CLI_EXIT_OK);
    cli->out = out;
    if (disk_wants_json(&args->disk) && !args->quiet) {
        code = json_text_print(cli, c.answers, 0) == CLI_EXIT_OK ? code : CHECKSUM_EXIT_FAILED;
    } else {
        json_decref(c.answers);
    }
    return code != CLI_EXIT_OK ? code : c.different ? CHECKSUM_EXIT_DIFFERENT : CHECKSUM_EXIT_OK;
}

/* ---- arguments ---- */

static bool checksum_take(struct checksum_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case CHECKSUM_ALGORITHM:
        args->algorithm = a->value;
        return true;
    case CHECKSUM_FLAT:
        args->flat = true;
        return true;
    case CHECKSUM_PROGRESS:
        return progress_take(a, &args->progress) == CLI_EXIT_OK;
    case CHECKSUM_QUIET:
        args->quiet = true;
        return true;
    case CHECKSUM_VERIFY:
        args->verify = a->value;
        return true;
    default:
        if (!disk_take_option(&args->disk, id, a)) {
            args->files[args->file_count++] = a->value;
        }
        return true;
    }
}

/* "tree1-NAME:HEX" says itself what it is; "HEX" is flat, of the algorithm that is given. */
static bool split_wanted(struct cli *cli, struct checksum_args *args, char *name, size_t name_size,
                         const char **ret_hex)
{
    const char *text = args->verify;
    const char *colon = strchr(text, ':');
    size_t prefix = sizeof(tree_word) - 1;

    if (!args->flat && colon && strncmp(text, tree_word, prefix) == 0) {
        snprintf(name, name_size, "%.*s", (int)(colon - text - (ptrdiff_t)prefix), text + prefix);
        if (args->algorithm && strcmp(args->algorithm, name) != 0) {
            cli_usage_error(cli, "'%s' is not of the algorithm %s", text, args->algorithm);
            return false;
        }
        args->algorithm = name;
        *ret_hex = colon + 1;
        return true;
    }
    if (args->flat && !colon) {
        *ret_hex = text;
        return true;
    }
    cli_usage_error(cli,
                    args->flat ? "'%s' is no hash of --flat: these are hexadecimal digits"
                               : "'%s' is no hash of a tree (tree1-...); is it one of --flat?",
                    text);
    return false;
}

static int checksum_checked(struct cli *cli, struct checksum_args *args)
{
    const struct hash_algorithm *alg;
    const char *wanted = NULL;
    char name[16];

    if (args->verify && !split_wanted(cli, args, name, sizeof(name), &wanted)) {
        return CHECKSUM_EXIT_FAILED;
    }
    alg = hash_algorithm_find(args->algorithm ? args->algorithm : "sha256");
    if (!alg) {
        cli_usage_error(cli, "no algorithm '%s': there are sha256, sha384 and sha512",
                        args->algorithm);
        return CHECKSUM_EXIT_FAILED;
    }
    if (wanted && (strlen(wanted) != 2 * alg->bytes ||
                   strspn(wanted, "0123456789abcdefABCDEF") != 2 * alg->bytes)) {
        cli_usage_error(cli, "'%s' is no hash of %s: it has %zu hexadecimal digits", args->verify,
                        alg->name, 2 * alg->bytes);
        return CHECKSUM_EXIT_FAILED;
    }
    if (args->file_count == 0) {
        cli_usage_error(cli, "which FILE?");
        return CHECKSUM_EXIT_FAILED;
    }
    if (!disk_args_check(cli, &args->disk)) {
        return CHECKSUM_EXIT_FAILED;
    }
    return checksum_run(cli, args, alg, wanted);
}

static int checksum_command(struct cli *cli, int argc, char **argv)
{
    struct checksum_args args = {0};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int code = -1;
    int id;

    args.files = calloc((size_t)argc + 1, sizeof(*args.files));
    if (!args.files) {
        cli_error(cli, "out of memory");
        return CHECKSUM_EXIT_FAILED;
    }
    while (code < 0 && (id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            code = CHECKSUM_EXIT_OK;
        } else if (id == CLI_BAD || !checksum_take(&args, id, &a)) {
            code = CHECKSUM_EXIT_FAILED;
        }
    }
    code = code < 0 ? checksum_checked(cli, &args) : code;
    free(args.files);
    return code;
}

const struct cli_command command_checksum = {
    .name = "checksum",
    .operands = "FILE...",
    .summary = "Print a hash of what disks hold, whatever their format",
    .lost_exit = CHECKSUM_EXIT_FAILED,
    .options = checksum_options,
    .details =
        "Disks of the same size and bytes have the same hash, as images of any format, in a file\n"
        "or behind an export. It is a tree over chunks (doc/format/checksum.md): read and hashed\n"
        "on all cores, holes cost nothing. With --flat it is the hash of all bytes in a row.\n\n"
        "Ends with 0: done, or all are the disk of --verify; 1: one is another; 2: it could not\n"
        "be told.\n\n"
        "Examples:\n"
        "  platter checksum -f auto disk.qcow2 disk.raw\n"
        "  platter checksum -f raw --verify tree1-sha256:HEX 'nbd+unix:///?socket=disk.sock'\n"
        "  platter checksum --flat -f qcow2 disk.qcow2\n",
    .run = checksum_command,
};
