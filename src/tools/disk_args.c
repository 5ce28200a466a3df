/* SPDX-License-Identifier: MIT */
/* What commands are told of a disk before it is opened: options and operands, and their words. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "tools/disk.h"
#include "util/mem.h"
#include "util/options.h"

const char *const disk_aio_words[] = {"threads", "native", "io_uring", NULL};
const char *const disk_cache_words[] = {
    "none", "off", "writeback", "writethrough", "directsync", "unsafe", NULL,
};
const char *const disk_detect_zeroes_words[] = {"off", "on", "unmap", NULL};
const char *const disk_discard_words[] = {"ignore", "off", "unmap", "on", NULL};
const char *const disk_prealloc_words[] = {
    [BDRV_PREALLOC_OFF] = "off",       [BDRV_PREALLOC_METADATA] = "metadata",
    [BDRV_PREALLOC_FALLOC] = "falloc", [BDRV_PREALLOC_FULL] = "full",
    [BDRV_PREALLOC_FULL + 1] = NULL,
};

/* In the order of disk_cache_words. */
static const struct cache_mode {
    int flags;
    bool write_through;
} cache_modes[] = {
    {BDRV_O_NOCACHE, false}, {BDRV_O_NOCACHE, false},  {0, false}, {0, true},
    {BDRV_O_NOCACHE, true},  {BDRV_O_NO_FLUSH, false},
};

static const struct cache_mode *find_cache_mode(const char *name)
{
    static_assert(ARRAY_SIZE(disk_cache_words) == ARRAY_SIZE(cache_modes) + 1, "a mode a word");
    for (size_t i = 0; i < ARRAY_SIZE(cache_modes); i++) {
        if (strcmp(disk_cache_words[i], name ? name : "writeback") == 0) {
            return &cache_modes[i];
        }
    }
    return NULL;
}

/* Tell a word that is none of those that an option takes. */
static void unknown_word(struct cli *cli, const char *what, const char *word, const char *known)
{
    if (cli_stands_in(cli)) {
        cli_error(cli, "Invalid %s option: %s", what, word);
        cli->usage_told = true;
    } else {
        cli_usage_error(cli, "no %s mode '%s': there are %s", what, word, known);
    }
}

bool disk_take_option(struct disk_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case DISK_OPTION_AIO:
        args->aio = a->value;
        return true;
    case DISK_OPTION_CACHE:
        args->cache = a->value;
        args->cache_of_source = a->option->letter == 'T';
        return true;
    case DISK_OPTION_FORCE_SHARE:
        args->force_share = true;
        return true;
    case DISK_OPTION_ALLOW_REF:
        if (args->allow_refs_count < DISK_ALLOW_REFS_MAX) {
            args->allow_refs[args->allow_refs_count] = a->value;
        }
        args->allow_refs_count++;
        return true;
    case DISK_OPTION_BACKING_DEPTH:
        args->backing_depth = a->value;
        return true;
    case DISK_OPTION_FORMAT:
        disk_take_format(args, a);
        return true;
    case DISK_OPTION_IMAGE_OPTS:
        args->image_opts = true;
        return true;
    case DISK_OPTION_IMAGE_REFS:
        args->image_refs = a->value;
        return true;
    case DISK_OPTION_OBJECT:
        object_take(a->cli, a->value);
        return true;
    case DISK_OPTION_OUTPUT:
        args->output = a->value;
        return true;
    case DISK_OPTION_SNAPSHOT:
        args->snapshot = a->value;
        return true;
    default:
        return false;
    }
}

int disk_take_snapshot(struct disk_args *args, const struct cli_args *a, char quote)
{
    BlockOptions *options;
    const char *key = NULL;
    int code = CLI_EXIT_OK;

    args->snapshot = a->value;
    if (strncmp(a->value, "snapshot.", 9) != 0) {
        return CLI_EXIT_OK;
    }
    options = block_options_parse(a->value, NULL, NULL);
    while (options && (key = block_options_next_key(options, key)) != NULL) {
        if (strcmp(key, "snapshot.id") != 0 && strcmp(key, "snapshot.name") != 0) {
            code = cli_error(a->cli, "Invalid parameter '%s'", key);
            break;
        }
    }
    if (!options || code != CLI_EXIT_OK) {
        code = cli_error(a->cli, "Failed in parsing snapshot param %c%s'", quote, a->value);
    }
    block_options_free(options);
    return code;
}

bool disk_take_file(struct disk_args *args, const struct cli_args *a)
{
    if (!args->file) {
        args->file = a->value;
        return true;
    }
    args->surplus = true;
    if (!cli_stands_in(a->cli)) {
        cli_usage_error(a->cli, "one FILE is wanted, '%s' is too much", a->value);
    }
    return cli_stands_in(a->cli);
}

bool disk_file_check(struct cli *cli, const struct disk_args *args)
{
    if (!args->file || args->surplus) {
        cli_usage_error(cli, "%s",
                        cli_stands_in(cli) ? "Expecting one image file name" : "which FILE?");
        return false;
    }
    return true;
}

bool disk_wants_json(const struct disk_args *args)
{
    return args->output && strcmp(args->output, "json") == 0;
}

FILE *disk_answer_alone(struct cli *cli, const struct disk_args *args)
{
    FILE *out = cli->out;

    if (disk_wants_json(args)) {
        cli->out = cli->err;
    }
    return out;
}

bool disk_output_check(struct cli *cli, const struct disk_args *args)
{
    if (!args->output || disk_wants_json(args) || strcmp(args->output, "human") == 0) {
        return true;
    }
    if (cli_stands_in(cli)) {
        cli_misfit(cli, "--output must be used with human or json as argument.");
    } else {
        cli_usage_error(cli, "no output form '%s': there are human and json", args->output);
    }
    return false;
}

bool disk_prealloc_parse(const char *text, enum bdrv_prealloc *ret)
{
    for (size_t i = 0; disk_prealloc_words[i]; i++) {
        if (strcmp(disk_prealloc_words[i], text) == 0) {
            *ret = (enum bdrv_prealloc)i;
            return true;
        }
    }
    return false;
}

bool disk_cache_is_known(const char *name)
{
    return find_cache_mode(name) != NULL;
}

int disk_cache_flags(const char *name, bool *ret_write_through)
{
    const struct cache_mode *mode = find_cache_mode(name);

    *ret_write_through = mode->write_through;
    return mode->flags;
}

int disk_cache_options(const char *name, BlockOptions *options, bool *ret_write_through)
{
    int flags = disk_cache_flags(name, ret_write_through);

    if (block_options_set_bool(options, "cache.direct", flags & BDRV_O_NOCACHE) < 0 ||
        block_options_set_bool(options, "cache.no-flush", flags & BDRV_O_NO_FLUSH) < 0) {
        return -ENOMEM;
    }
    return 0;
}

bool disk_words_check(struct cli *cli, const struct disk_args *args)
{
    if (!find_cache_mode(args->cache)) {
        unknown_word(cli, args->cache_of_source && cli_stands_in(cli) ? "source cache" : "cache",
                     args->cache, "none, writeback, writethrough, directsync and unsafe");
        return false;
    }
    if (args->aio && !cli_is_word(args->aio, disk_aio_words)) {
        unknown_word(cli, "aio", args->aio, "threads, native and io_uring");
        return false;
    }
    if (args->discard && !cli_is_word(args->discard, disk_discard_words)) {
        unknown_word(cli, "discard", args->discard, "ignore and unmap");
        return false;
    }
    return true;
}

bool disk_args_check(struct cli *cli, const struct disk_args *args)
{
    if (!disk_output_check(cli, args) || !disk_words_check(cli, args) ||
        !disk_refs_check(cli, args)) {
        return false;
    }
    if (args->snapshot && args->writable) {
        cli_usage_error(cli, "a snapshot (-l) is only shown read-only");
        return false;
    }
    if (args->image_opts && args->format) {
        cli_misfit(cli, cli_spelling(cli)->image_opts_misfit
                            ? cli_spelling(cli)->image_opts_misfit
                            : "--image-opts and a format exclude each other");
        cli_hint(cli, "Name the format in the options: driver=%s,...", args->format);
        return false;
    }
    return true;
}
