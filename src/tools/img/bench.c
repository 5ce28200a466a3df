/* SPDX-License-Identifier: MIT */
/*
 * platter bench: keep a number of requests in flight until a count is done, in callback style.
 * Offsets run on by the step and start over at the end of the disk. With a flush interval, a flush
 * follows each that many writes: alone, once they are done, or with --no-drain beside them.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "util/mem.h"
#include "util/size.h"

#define BENCH_MEMORY_MAX (UINT64_C(4) << 30)

enum bench_option {
    BENCH_COUNT = 1,
    BENCH_DEPTH,
    BENCH_FLUSH_INTERVAL,
    BENCH_NATIVE,
    BENCH_NO_DRAIN,
    BENCH_OFFSET,
    BENCH_PATTERN,
    BENCH_QUIET,
    BENCH_SIZE,
    BENCH_STEP,
    BENCH_WRITE,
};

static const struct cli_option bench_options[] = {
    {BENCH_COUNT, 'c', "count", "N", "requests in all; 75000 when not given"},
    {BENCH_DEPTH, 'd', "depth", "N", "requests in flight; 64 when not given"},
    {BENCH_SIZE, 's', "buffer-size", "SIZE", "bytes of a request; 4k when not given"},
    {BENCH_STEP, 'S', "step-size", "SIZE",
     "from one request to the next; the buffer size when not given"},
    {BENCH_OFFSET, 'o', "offset", "SIZE", "where the first request begins; 0 when not given"},
    {BENCH_WRITE, 'w', "write", NULL, "write (overwrites the disk); read when not given"},
    {BENCH_PATTERN, 0, "pattern", "BYTE", "what is written; 0 when not given"},
    {BENCH_FLUSH_INTERVAL, 0, "flush-interval", "N", "flush after each N writes"},
    {BENCH_NO_DRAIN, 0, "no-drain", NULL, "flush beside the writes, not between them"},
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_CACHE,
    DISK_ROW_AIO,
    {BENCH_NATIVE, 'n', "native", NULL, "the same as --aio=native where the disk allows it"},
    DISK_ROW_FORCE_SHARE,
    {BENCH_QUIET, 'q', "quiet", NULL, "print only errors"},
    DISK_ROWS_REFS,
    {0},
};

struct bench_args {
    struct disk_args disk;
    uint64_t count;
    uint64_t depth;
    uint64_t size_bytes;
    uint64_t step_bytes;
    uint64_t offset;
    uint64_t pattern;
    uint64_t flush_interval; /* 0: no flushes */
    bool native;             /* -n was given */
    bool no_drain;
    bool quiet;
};

/* One request in flight; its slot is used again by the next. */
struct bench_slot {
    struct bench *bench;
    struct iov_view view;
    struct iovec iov;
};

struct bench {
    BlockBackend *blk;
    bool write;
    bool no_drain;
    uint64_t left; /* requests not yet sent */
    uint64_t disk_bytes;
    uint64_t offset; /* of the next request */
    uint64_t step_bytes;
    uint64_t interval; /* UINT64_MAX: no flushes */
    uint64_t until_flush;
    unsigned in_flight;
    unsigned idle_count;
    bool flush_wanted;        /* waits for the writes before it */
    int ret;                  /* first failure */
    struct bench_slot **idle; /* slots that wait for a flush to end */
    struct bench_slot *slots;
    char *memory;
    size_t memory_bytes;
};

static void bench_submit(struct bench *b, struct bench_slot *slot);

static void bench_fail(struct bench *b, int ret)
{
    b->ret = b->ret ? b->ret : ret;
    b->left = 0;
    b->flush_wanted = false;
}

static void bench_flushed(void *opaque, int ret)
{
    struct bench *b = opaque;

    b->in_flight--;
    if (ret < 0) {
        bench_fail(b, ret);
    }
    while (b->idle_count > 0 && b->left > 0 && !b->flush_wanted) {
        bench_submit(b, b->idle[--b->idle_count]);
    }
}

static void bench_flush(struct bench *b)
{
    b->flush_wanted = false;
    b->in_flight++;
    if (!blk_aio_flush(b->blk, bench_flushed, b)) {
        b->in_flight--;
        bench_fail(b, -ENOMEM);
    }
}

/* Completion of a request with flushes in the game. */
static __attribute__((noinline)) void bench_done_slowly(struct bench *b, struct bench_slot *slot)
{
    if (b->flush_wanted || b->left == 0) {
        b->idle[b->idle_count++] = slot;
    } else {
        bench_submit(b, slot);
    }
    if (b->flush_wanted && b->in_flight == 0) {
        bench_flush(b);
    }
}

static void bench_done(void *opaque, int ret)
{
    struct bench_slot *slot = opaque;
    struct bench *b = slot->bench;

    b->in_flight--;
    if (UNLIKELY(ret < 0)) {
        bench_fail(b, ret);
        return;
    }
    if (UNLIKELY(b->interval != UINT64_MAX)) {
        bench_done_slowly(b, slot);
    } else if (b->left > 0) {
        bench_submit(b, slot);
    }
}

/* The interval is full: flush now, or when the writes in flight are done. */
static __attribute__((noinline)) void bench_interval_full(struct bench *b)
{
    b->until_flush = b->interval;
    if (b->no_drain) {
        bench_flush(b);
    } else {
        b->flush_wanted = true;
    }
}

static void bench_submit(struct bench *b, struct bench_slot *slot)
{
    uint64_t offset = b->offset;
    BlockAIOCB *acb;

    b->left--;
    b->in_flight++;
    b->offset += b->step_bytes;
    if (UNLIKELY(b->offset >= b->disk_bytes)) {
        b->offset = b->disk_bytes > 0 ? b->offset % b->disk_bytes : 0;
    }
    acb = b->write ? blk_aio_pwritev(b->blk, (int64_t)offset, &slot->view, 0, bench_done, slot)
                   : blk_aio_preadv(b->blk, (int64_t)offset, &slot->view, 0, bench_done, slot);
    if (UNLIKELY(!acb)) {
        b->in_flight--;
        bench_fail(b, -ENOMEM);
    } else if (UNLIKELY(--b->until_flush == 0)) {
        bench_interval_full(b);
    }
}

static int bench_init(struct bench *b, BlockBackend *blk, const struct bench_args *args)
{
    int64_t disk_bytes = blk_getlength(blk);

    if (disk_bytes < 0) {
        return (int)disk_bytes;
    }
    b->blk = blk;
    b->write = args->disk.writable;
    b->no_drain = args->no_drain;
    b->left = args->count;
    b->disk_bytes = (uint64_t)disk_bytes;
    b->offset = args->offset;
    b->step_bytes = args->step_bytes;
    b->interval = args->flush_interval ? args->flush_interval : UINT64_MAX;
    b->until_flush = b->interval;
    if (__builtin_mul_overflow(args->depth, args->size_bytes, &b->memory_bytes)) {
        return -ENOMEM;
    }
    b->slots = calloc(args->depth, sizeof(*b->slots));
    b->idle = calloc(args->depth, sizeof(struct bench_slot *));
    b->memory = blk_blockalign(blk, b->memory_bytes ? b->memory_bytes : 1);
    if (!b->slots || !b->idle || !b->memory) {
        return -ENOMEM;
    }
    memset(b->memory, (int)args->pattern, b->memory_bytes);
    for (uint64_t i = 0; i < args->depth; i++) {
        struct bench_slot *slot = &b->slots[i];

        slot->bench = b;
        slot->iov = (struct iovec){b->memory + i * args->size_bytes, args->size_bytes};
        slot->view = iov_view_of(&slot->iov, 1);
    }
    return 0;
}

static void bench_fini(struct bench *b)
{
    blk_blockfree(b->memory);
    free(b->idle);
    free(b->slots);
}

static void bench_loop(struct bench *b, uint64_t depth, AioContext *ctx)
{
    for (uint64_t i = 0; i < depth; i++) {
        if (b->left > 0 && !b->flush_wanted) {
            bench_submit(b, &b->slots[i]);
        } else {
            b->idle[b->idle_count++] = &b->slots[i];
        }
    }
    while (b->in_flight > 0) {
        aio_poll(ctx, true);
    }
}

static int bench_run(struct cli *cli, Platter *pl, BlockBackend *blk, const struct bench_args *args)
{
    struct bench b = {0};
    int64_t start_ns;
    int ret = bench_init(&b, blk, args);

    if (ret < 0) {
        bench_fini(&b);
        return cli_error(cli, "cannot prepare: %s", strerror(-ret));
    }
    if (!args->quiet) {
        fprintf(cli->out,
                "Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
                " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
                args->count, b.write ? "write" : "read", args->size_bytes, args->depth,
                args->offset, args->step_bytes);
        if (args->flush_interval) {
            fprintf(cli->out, "Sending flush every %" PRIu64 " requests\n", args->flush_interval);
        }
        (void)cli_flush(cli);
    }
    start_ns = aio_clock_ns();
    bench_loop(&b, args->depth, platter_get_main_context(pl));
    if (!args->quiet && b.ret == 0) {
        fprintf(cli->out, "Run completed in %.3f seconds.\n",
                (double)(aio_clock_ns() - start_ns) / 1e9);
    }
    bench_fini(&b);
    return b.ret < 0 ? cli_error(cli, "Failed request: %s", strerror(-b.ret)) : CLI_EXIT_OK;
}

/* One option; false after printing what is wrong with it. */
/* what: how the reference calls the value. */
static bool take_number(const struct cli_args *a, const char *what, uint64_t min, uint64_t max,
                        uint64_t *ret)
{
    if (!cli_stands_in(a->cli)) {
        return cli_number_value(a, min, max, ret);
    }
    if (number_parse(a->value, what, min, max, ret, NULL) < 0) {
        a->cli->usage_told = true;
        cli_error(a->cli, "Invalid %s specified", what);
        return false;
    }
    return true;
}

static bool bench_option(struct bench_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case BENCH_COUNT:
        return take_number(a, "request count", 0, INT_MAX, &args->count);
    case BENCH_DEPTH:
        return take_number(a, "queue depth", 1, 65536, &args->depth);
    case BENCH_FLUSH_INTERVAL:
        return take_number(a, "flush interval", 0, INT64_MAX, &args->flush_interval);
    case BENCH_NATIVE:
        args->native = true;
        return true;
    case BENCH_NO_DRAIN:
        args->no_drain = true;
        return true;
    case BENCH_OFFSET:
        return cli_size_value(a, "offset", 0, INT64_MAX, &args->offset);
    case BENCH_PATTERN:
        return take_number(a, "pattern byte", 0, 255, &args->pattern);
    case BENCH_QUIET:
        args->quiet = !cli_stands_in(a->cli); /* the reference takes no notice of it */
        return true;
    case BENCH_SIZE:
        return cli_size_value(a, "buffer size", 0, INT32_MAX, &args->size_bytes);
    case BENCH_STEP:
        return cli_size_value(a, "step_size", 0, INT32_MAX, &args->step_bytes);
    case BENCH_WRITE:
        args->disk.writable = true;
        return true;
    case DISK_OPTION_AIO:
        return disk_take_option(&args->disk, id, a) && disk_words_check(a->cli, &args->disk);
    case DISK_OPTION_CACHE:
        if (cli_stands_in(a->cli) && !disk_cache_is_known(a->value)) {
            a->cli->usage_told = true;
            cli_error(a->cli, "Invalid cache mode");
            return false;
        }
        return disk_take_option(&args->disk, id, a);
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a);
    }
}

/* What only the options together can get wrong. */
static bool bench_args_check(struct cli *cli, struct bench_args *args)
{
    if (!disk_file_check(cli, &args->disk)) {
        return false;
    }
    if (args->size_bytes > 0 && args->depth > BENCH_MEMORY_MAX / args->size_bytes) {
        cli_usage_error(cli,
                        "%" PRIu64 " requests of %" PRIu64 " bytes in flight need more than the "
                        "4 GiB of memory that a measurement may take; lower -d or -s",
                        args->depth, args->size_bytes);
        return false;
    }
    if (args->flush_interval && !args->disk.writable) {
        cli_misfit(cli, cli_stands_in(cli) ? "--flush-interval is only available in write tests"
                                           : "--flush-interval is only for writes (-w)");
        return false;
    }
    if (args->flush_interval && args->flush_interval < args->depth) {
        if (cli_stands_in(cli)) {
            cli_misfit(cli, "Flush interval can't be smaller than depth");
        } else {
            cli_usage_error(cli,
                            "the flush interval %" PRIu64 " is smaller than the depth %" PRIu64,
                            args->flush_interval, args->depth);
        }
        return false;
    }
    if (args->native && (!args->disk.aio || cli_stands_in(cli))) {
        args->disk.aio = "native"; /* over -i, wherever that stands, by the reference */
    }
    args->step_bytes = args->step_bytes ? args->step_bytes : args->size_bytes;
    return disk_args_check(cli, &args->disk);
}

static int bench_command(struct cli *cli, int argc, char **argv)
{
    struct bench_args args = {.count = 75000, .depth = 64, .size_bytes = 4096};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    BlockBackend *blk;
    Platter *pl;
    int code = CLI_EXIT_FAILED;
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !bench_option(&args, id, &a)) {
            return CLI_EXIT_USAGE;
        }
    }
    if (!bench_args_check(cli, &args)) {
        return CLI_EXIT_USAGE;
    }
    pl = disk_platter_new(cli, &args.disk);
    if (!pl) {
        return CLI_EXIT_FAILED;
    }
    blk = disk_open(cli, pl, &args.disk);
    if (blk) {
        code = bench_run(cli, pl, blk, &args);
        blk_unref(blk);
    }
    platter_free(pl);
    return code;
}

const struct cli_command command_bench = {
    .name = "bench",
    .operands = "FILE",
    .summary = "Measure a disk: keep requests in flight until a count is done",
    .options = bench_options,
    .details = "Examples:\n"
               "  platter bench -f raw -c 100000 disk.img\n"
               "  platter bench -f raw -w --flush-interval=64 -t none disk.img\n"
               "  platter bench --image-opts driver=null-co,size=1G\n",
    .run = bench_command,
};
