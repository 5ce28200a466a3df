/* SPDX-License-Identifier: MIT */
/* platter convert from standard input and to standard output. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <platter/graph.h>

#include "block/driver.h"
#include "driver/protocol/pipe/pipe.h"
#include "loop/io.h"
#include "os/full.h"
#include "os/os.h"
#include "tools/img/chain.h"
#include "tools/img/convert_int.h"
#include "tools/img/convert_sink.h"
#include "util/checked.h"
#include "util/error.h"

#define STDIN_PATH "/dev/fd/0"
#define STDOUT_PATH "/dev/fd/1"
#define STDIN_FD 0
#define PIPE_WINDOW_BYTES (UINT64_C(32) << 20)
#define STDOUT_FD 1
#define DRAIN_BYTES 65536

bool convert_is_pipe(const struct cli *cli, const struct disk_args *args, const char *file)
{
    return !cli_stands_in(cli) && !args->image_opts && strcmp(file, "-") == 0;
}

static bool is_raw_pipe(const struct convert_args *args)
{
    return args->from_pipe && args->disk.format && strcmp(args->disk.format, "raw") == 0;
}

const char *convert_pipe_misfit(struct cli *cli, const struct convert_args *args)
{
    const struct {
        bool wrong;
        const char *text;
    } rules[] = {
        {args->from_pipe && args->files_count > 2, "a pipe is the only SOURCE"},
        {args->from_pipe && !args->disk.format, "a pipe needs a format: -f"},
        {args->source_bytes > 0 && !is_raw_pipe(args),
         "--source-size is of a raw SOURCE that comes through a pipe"},
        {args->from_pipe && (args->backing || args->bitmaps || args->skip_create),
         "from a pipe there is no -B, -n and --bitmaps"},
        {args->from_pipe && (args->disk.snapshot || args->engine.copy_offload),
         "from a pipe there is no -l and -C"},
        {(args->from_pipe || args->to_pipe) && args->journal,
         "a pipe cannot be gone on with: no --journal"},
        {args->to_pipe && (args->engine.compressed || args->engine.copy_offload),
         "to a pipe there is no -c and -C: what is where must be known in advance"},
        {args->to_pipe && (args->backing || args->bitmaps || args->skip_create),
         "to a pipe there is no -B, -n and --bitmaps"},
    };

    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (rules[i].wrong) {
            return rules[i].text;
        }
    }
    return NULL;
}

/* ---- standard input ---- */

struct read_job {
    void *buf;
    size_t bytes;
};

static int64_t read_run(void *opaque)
{
    const struct read_job *job = opaque;

    return os_read_wait(STDIN_FD, job->buf, job->bytes);
}

static int64_t read_co(void *opaque, void *buf, size_t bytes)
{
    struct read_job job = {.buf = buf, .bytes = bytes};

    return aio_worker_co(read_run, &job);
}

/* An image of another format is opened on the driver pipe, which keeps part of what it has read. A
 * limit of memory is for it and for what is copied: three quarters, and one. */
static int source_over_pipe(struct convert_run *run, const char **ret_file)
{
    struct convert_args *args = run->args;
    uint64_t window = PIPE_WINDOW_BYTES;
    Error *err = NULL;

    if (!bdrv_find_driver(args->disk.format)) {
        return cli_error(run->cli, "Unknown driver '%s'", args->disk.format);
    }
    if (args->engine.memory_max_bytes > 0) {
        window = min_u64(window, args->engine.memory_max_bytes / 8 * 3);
        args->engine.memory_max_bytes /= 4;
    }
    if (platter_add_fd(run->pl, 0, os->dup(STDIN_FD), &err) < 0) {
        return cli_report(run->cli, err);
    }
    snprintf(args->stdin_options, sizeof(args->stdin_options),
             "driver=%s,file.driver=pipe,file.filename=/dev/fdset/0,file.window=%" PRIu64,
             args->disk.format, window);
    args->once = true;
    args->disk.format = NULL;
    args->disk.image_opts = true;
    *ret_file = args->stdin_options;
    return CLI_EXIT_OK;
}

/* A file, whose bytes from offset on are the source. */
static void source_in_file(struct convert_args *args, bool raw, bool is_device, uint64_t offset,
                           const char **ret_file)
{
    if (offset == 0) {
        *ret_file = STDIN_PATH;
        return;
    }
    snprintf(args->stdin_options, sizeof(args->stdin_options),
             raw ? "driver=%s,offset=%" PRIu64 ",file.driver=%s,file.filename=" STDIN_PATH
                 : "driver=%s,file.driver=raw,file.offset=%" PRIu64
                   ",file.file.driver=%s,file.file.filename=" STDIN_PATH,
             args->disk.format, offset, is_device ? "host_device" : "file");
    args->disk.format = NULL;
    args->disk.image_opts = true;
    *ret_file = args->stdin_options;
}

int convert_pipe_source(struct convert_run *run, const char **ret_file)
{
    struct convert_args *args = run->args;
    bool raw = strcmp(args->disk.format, "raw") == 0;
    bool packs = args->to_pipe && strcmp(convert_target_format(run), "raw") != 0;
    struct stat st;
    int64_t offset = os->lseek(STDIN_FD, 0, SEEK_CUR);
    bool is_file = offset >= 0 && os->fstat(STDIN_FD, &st) == 0 &&
                   (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));

    if (raw && !(packs && is_file && args->source_bytes == 0)) {
        if (packs && args->source_bytes == 0) {
            return cli_error(run->cli,
                             "How large a raw disk is shows only at the end of the pipe, and an "
                             "image of format '%s' begins with it: --source-size is missing",
                             convert_target_format(run));
        }
        args->feed = (struct convert_feed){.read_co = read_co, .bytes = args->source_bytes};
        args->engine.feed = &args->feed;
        run->total = args->source_bytes;
        return CLI_EXIT_OK;
    }
    if (is_file) {
        source_in_file(args, raw, S_ISBLK(st.st_mode), (uint64_t)offset, ret_file);
        return CLI_EXIT_OK;
    }
    return source_over_pipe(run, ret_file);
}

static int drain_co(void *opaque)
{
    while (read_co(NULL, opaque, DRAIN_BYTES) > 0) {
    }
    return 0;
}

void convert_pipe_drain(const struct convert_run *run)
{
    uint8_t *buf = run->args->once ? malloc(DRAIN_BYTES) : NULL;

    if (buf) {
        (void)bdrv_run_co(drain_co, buf); /* the target is whole, whatever follows */
        free(buf);
    }
}

bool convert_pipe_reads(const struct convert_run *run, const char *file)
{
    return run->args->from_pipe && chain_fd_is_file(STDIN_FD, file);
}

/* A table between the data is read when it comes, as a whole: its parts, read as they are needed,
 * would have gone. */
int convert_pipe_read_tables_whole(struct convert_run *run, BlockBackend *blk)
{
    static const char key[] = "l2-cache-entry-size";
    struct bdrv_info info = {0};

    if (bdrv_get_info(blk_bs(blk), &info) < 0 || info.cluster_size_bytes == 0 ||
        !convert_knows_option(blk_bs(blk), key)) {
        return CLI_EXIT_OK;
    }
    return convert_reopen_with(run->cli, blk_bs(blk), key, info.cluster_size_bytes);
}

/* Whether the data of an extent of the image, or of a layer below it, is still to be had. Where
 * compressed data is nobody tells: then nothing may have gone. */
static bool has_extent_co(BlockDriverState *pipe, int flags, const BlockDriverState *file,
                          int64_t map, int64_t bytes, uint64_t *pos)
{
    bool mapped = (flags & BDRV_BLOCK_OFFSET_VALID) != 0;

    if (!(flags & BDRV_BLOCK_DATA) || (flags & BDRV_BLOCK_ZERO) || (mapped && file != pipe)) {
        return true;
    }
    return mapped ? pipe_could_read_co(pipe, (uint64_t)map, (uint64_t)bytes, pos)
                  : pipe_could_read_co(pipe, 0, 2 * PIPE_WINDOW_BYTES, &(uint64_t){0});
}

/* To plan a stream all tables were read: data that stood between them may have gone, or will go
 * when the disk is read in its order. That is told before anything is written. */
static int judge_co(void *opaque, Error **errp)
{
    const struct convert_run *run = opaque;
    const struct convert_source *source = &run->sources[0];
    BlockDriverState *pipe = bdrv_get_child(blk_bs(source->blk), "file");
    uint64_t pos = 0;
    int64_t bytes = 0;

    for (uint64_t at = 0; at < source->bytes; at += (uint64_t)bytes) {
        BlockDriverState *file = NULL;
        int64_t map = 0;
        int flags =
            blk_co_block_status_file(source->blk, (int64_t)(source->offset + at),
                                     (int64_t)(source->bytes - at), &bytes, &map, NULL, &file);

        if (flags < 0 || !has_extent_co(pipe, flags, file, map, bytes, &pos)) {
            return error_set_errno(errp, flags < 0 ? -flags : ESPIPE,
                                   "error while reading at byte %" PRIu64, at);
        }
    }
    return 0;
}

/* ---- standard output ---- */

int convert_pipe_target(struct convert_run *run)
{
    struct convert_args *args = run->args;
    struct sink_image sink = {
        .pl = run->pl,
        .fd = STDOUT_FD,
        .format = convert_target_format(run),
        .options = args->list.options,
        .disk_bytes = run->total,
        .all = args->engine.feed || args->engine.sparse_bytes == 0,
        .judge_opaque = run,
    };
    Error *err = NULL;
    int code = convert_prepare_target(run);

    if (code == CLI_EXIT_OK &&
        (chain_has_fd(run->pl, STDOUT_FD) || convert_pipe_reads(run, STDOUT_PATH))) {
        code = cli_error(run->cli, "standard output is what is to be copied, or belongs to it");
    }
    if (args->once && strcmp(sink.format, "raw") != 0 && !sink.all) {
        sink.judge_co = judge_co;
    }
    if (code == CLI_EXIT_OK && sink_image_init(&sink, &err) < 0) {
        code = cli_report(run->cli, err);
    }
    if (code == CLI_EXIT_OK) {
        code = convert_memory_divide(run);
    }
    if (code == CLI_EXIT_OK) {
        args->engine.sources = run->sources;
        args->engine.sources_count = run->sources_count;
        args->engine.sink = &sink.calls;
        code = convert_job_run(&run->job, run->pl, &args->engine);
    }
    sink_image_fini(&sink);
    return code;
}
