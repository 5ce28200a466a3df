/* SPDX-License-Identifier: MIT */
/* platter io: commands about the disk as a whole: flush, length, map, alloc, truncate, info. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <jansson.h>
#include <platter/image.h>

#include "tools/img/specific.h"
#include "tools/io/io.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/json.h"
#include "util/mem.h"

static int run_flush(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    int ret = blk_flush(s->blk);

    return ret < 0 ? io_failed(s, "flush", ret) : 0;
}

/* Size of the disk; < 0 after printing. */
static int64_t disk_bytes(struct io_session *s)
{
    int64_t bytes = blk_getlength(s->blk);

    return bytes < 0 ? io_failed(s, "getlength", (int)bytes) : bytes;
}

static int run_length(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    int64_t bytes = disk_bytes(s);
    char text[32];

    if (bytes < 0) {
        return (int)bytes;
    }
    fprintf(s->cli->out, "%s\n", io_size_text((double)bytes, text, sizeof(text)));
    return 0;
}

/* ---- allocation ---- */

/* An extent whose pieces are all allocated or all not. */
struct extent {
    struct io_session *s;
    int64_t offset;
    int64_t limit; /* do not look past this offset */
    int64_t bytes; /* out */
    bool allocated;
    int ret;
};

static void extent_get_co(void *arg)
{
    struct extent *e = arg;

    e->bytes = 0;
    while (e->offset + e->bytes < e->limit) {
        int64_t at = e->offset + e->bytes;
        int64_t piece = 0;
        int64_t map;
        int depth = 0;

        e->ret = blk_co_block_status(e->s->blk, at, e->limit - at, &piece, &map, &depth);
        if (e->ret < 0) {
            return;
        }
        if (e->bytes > 0 && (depth == 1) != e->allocated) {
            break;
        }
        e->allocated = depth == 1; /* in this layer */
        e->bytes += piece;
    }
    e->ret = 0;
}

/* 0, or -errno after printing. */
static int extent_get(struct extent *e)
{
    int ret = disk_run_co(e->s->pl, extent_get_co, e);

    ret = ret < 0 ? ret : e->ret;
    return ret < 0 ? io_failed(e->s, "block status", ret) : 0;
}

static int run_map(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    int64_t total = disk_bytes(s);
    struct extent e = {.s = s, .limit = total};

    if (total < 0) {
        return (int)total;
    }
    for (; e.offset < total; e.offset += e.bytes) {
        char bytes_text[32], offset_text[32];
        int ret = extent_get(&e);

        if (ret < 0) {
            return ret;
        }
        fprintf(s->cli->out, "%s (0x%" PRIx64 ") bytes %s at offset %s (0x%" PRIx64 ")\n",
                io_size_text((double)e.bytes, bytes_text, sizeof(bytes_text)), (uint64_t)e.bytes,
                e.allocated ? "    allocated" : "not allocated",
                io_size_text((double)e.offset, offset_text, sizeof(offset_text)),
                (uint64_t)e.offset);
    }
    return 0;
}

static int run_alloc(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    int64_t total = disk_bytes(s);
    struct extent e = {.s = s};
    uint64_t offset, bytes = 512;
    int64_t sum = 0;
    char text[32];

    if (total < 0) {
        return (int)total;
    }
    if (!io_number(s, argv[1], &offset) || (argc > 2 && !io_number(s, argv[2], &bytes))) {
        return -EINVAL;
    }
    bytes = offset < (uint64_t)total ? min_u64(bytes, (uint64_t)total - offset) : 0;
    e.offset = (int64_t)offset;
    e.limit = (int64_t)(offset + bytes);
    for (; e.offset < e.limit; e.offset += e.bytes) {
        int ret = extent_get(&e);

        if (ret < 0) {
            return ret;
        }
        sum += e.allocated ? e.bytes : 0;
    }
    fprintf(s->cli->out, "%" PRId64 "/%" PRIu64 " bytes allocated at offset %s\n", sum, bytes,
            io_size_text((double)offset, text, sizeof(text)));
    return 0;
}

/* ---- truncate, info ---- */

static int run_truncate(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    struct io_args args = io_args_begin(s, c, argc, argv);
    enum bdrv_prealloc prealloc = BDRV_PREALLOC_OFF;
    Error *err = NULL;
    uint64_t bytes;
    int letter;
    int ret;

    while ((letter = io_next_option(&args, "m:")) != 0) {
        if (letter == '?') {
            return -EINVAL;
        }
        if (!disk_prealloc_parse(args.value, &prealloc)) {
            cli_error(s->cli, "Invalid preallocation mode '%s'", args.value);
            return -EINVAL;
        }
    }
    if (args.operand_count < 1) {
        return io_usage(s, c);
    }
    if (!io_number(s, args.operands[0], &bytes)) {
        return -EINVAL;
    }
    ret = disk_allow_resize(s->blk, &err);
    if (ret == 0) {
        ret = blk_resize(s->blk, (int64_t)bytes, false, prealloc, &err);
    }
    if (ret < 0) {
        cli_report(s->cli, err);
    }
    return ret;
}

static int print_specific(struct io_session *s, BlockDriverState *bs)
{
    Error *err = NULL;
    AUTO_FREE char *text = bdrv_get_specific_info(bs, &err);
    json_t *specific = text ? json_parse_own(text, &err) : NULL;
    int ret = 0;

    if (err) {
        ret = -error_get_errno(err);
        cli_report(s->cli, err);
    } else if (specific && specific_print(s->cli->out, specific) < 0) {
        cli_error(s->cli, "out of memory");
        ret = -ENOMEM;
    }
    json_decref(specific);
    return ret;
}

static int run_info(struct io_session *s, const struct io_command *c, int argc, char **argv)
{
    BlockDriverState *bs = disk_node(s->blk);
    struct bdrv_info info = {0};
    char text[32];
    int ret;

    fprintf(s->cli->out, "format name: %s\n", bdrv_get_format_name(bs));
    if (!bdrv_get_child(bs, "file")) { /* the name of the protocol */
        fprintf(s->cli->out, "format name: %s\n", bdrv_get_format_name(bs));
    }
    ret = bdrv_get_info(bs, &info);
    if (ret < 0) {
        return ret;
    }
    fprintf(s->cli->out, "cluster size: %s\n",
            io_size_text((double)info.cluster_size_bytes, text, sizeof(text)));
    fprintf(s->cli->out, "vm state offset: %s\n",
            io_size_text((double)info.vm_state_offset_bytes, text, sizeof(text)));
    return print_specific(s, bs);
}

const struct io_command io_facts_commands[] = {
    {"flush", "f", NULL, "flush all in-core file state to disk", 0, 0, true, false, run_flush},
    {"length", "l", NULL, "gets the length of the current file", 0, 0, true, false, run_length},
    {"map", NULL, "", "prints the allocated areas of a file", 0, 0, true, false, run_map},
    {"alloc", "a", "offset [count]", "checks if offset is allocated in the file", 1, 2, true, false,
     run_alloc},
    {"truncate", "t", "[-m prealloc_mode] off", "truncates the current file at the given offset", 1,
     3, true, true, run_truncate},
    {"info", "i", NULL, "prints information about the current file", 0, 0, true, false, run_info},
    {0},
};
