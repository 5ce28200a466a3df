/* SPDX-License-Identifier: MIT */
/* platter convert from standard input and to standard output. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "loop/io.h"
#include "os/os.h"
#include "tools/img/convert_int.h"
#include "tools/img/convert_sink.h"

#define STDIN_PATH "/dev/fd/0"
#define STDIN_FD 0
#define STDOUT_FD 1

bool convert_is_pipe(const struct cli *cli, const struct disk_args *args, const char *file)
{
    return !cli_stands_in(cli) && !args->image_opts && strcmp(file, "-") == 0;
}

const char *convert_pipe_misfit(struct cli *cli, const struct convert_args *args)
{
    const struct {
        bool wrong;
        const char *text;
    } rules[] = {
        {args->from_pipe && args->to_pipe, "one of SOURCE and TARGET is no pipe"},
        {args->from_pipe && args->files_count > 2, "a pipe is the only SOURCE"},
        {args->from_pipe && !args->disk.format, "a pipe needs a format: -f"},
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
    int64_t n;

    do {
        n = os->read(STDIN_FD, job->buf, job->bytes);
    } while (n == -EINTR);
    return n;
}

static int64_t read_co(void *opaque, void *buf, size_t bytes)
{
    struct read_job job = {.buf = buf, .bytes = bytes};

    return aio_worker_co(read_run, &job);
}

int convert_pipe_source(struct convert_run *run, const char **ret_file)
{
    static const struct convert_feed feed = {.read_co = read_co};
    const char *format = run->args->disk.format;
    struct stat st;

    if (strcmp(format, "raw") == 0) {
        run->args->engine.feed = &feed;
        return CLI_EXIT_OK;
    }
    if (os->fstat(STDIN_FD, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))) {
        *ret_file = STDIN_PATH;
        return CLI_EXIT_OK;
    }
    cli_error(run->cli,
              "%s cannot be read from a pipe, only raw: its parts are needed out of order", format);
    cli_hint(run->cli, "Redirect a file to standard input: < FILE");
    return CLI_EXIT_FAILED;
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
    };
    Error *err = NULL;
    int code = convert_prepare_target(run);

    if (code == CLI_EXIT_OK && sink_image_init(&sink, &err) < 0) {
        code = cli_report(run->cli, err);
    }
    if (code == CLI_EXIT_OK) {
        args->engine.sources = run->sources;
        args->engine.sources_count = run->sources_count;
        args->engine.sink = &sink.calls;
        code = convert_job_run(run->cli, run->pl, &args->engine, &run->progress);
    }
    sink_image_fini(&sink);
    return code;
}
