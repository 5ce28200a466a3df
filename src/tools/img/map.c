/* SPDX-License-Identifier: MIT */
/*
 * platter map: where the bytes of a disk are, layer by layer, in the lines and members of
 * `qemu-img map`.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/img/chain.h"
#include "tools/img/map_picture.h"
#include "util/checked.h"
#include "util/size.h"

/* Cells of a picture, at the most. */
#define FILE_COLUMNS 128
#define FILE_ROWS 64
#define TERMINAL_ROWS 16

enum map_option {
    MAP_LENGTH = 1,
    MAP_OUT_FILE,
    MAP_PICTURE,
    MAP_START,
};

static const struct cli_option map_options[] = {
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    {DISK_OPTION_SNAPSHOT, 0, "load-snapshot", "SNAPSHOT", "show this internal snapshot"},
    {MAP_START, 's', "start-offset", "OFFSET", "begin here"},
    {MAP_LENGTH, 'l', "max-length", "BYTES", "look at no more than this"},
    DISK_ROW_OUTPUT,
    {MAP_PICTURE, 0, "picture", NULL, "draw it"},
    {MAP_OUT_FILE, 'o', "out-file", "FILE", "draw it into FILE.svg or FILE.png"},
    DISK_ROW_FORCE_SHARE,
    DISK_ROW_OBJECT,
    DISK_ROWS_REFS,
    {0},
};

struct map_args {
    struct disk_args disk;
    uint64_t start;
    uint64_t length;
    bool picture;
    const char *out_file; /* of the picture; NULL: on the terminal */
};

struct map_extent {
    int64_t start;
    int64_t bytes;
    int flags;    /* BDRV_BLOCK_* of SHOWN */
    int layer;    /* that decides it, or that nobody is asked below: 0 is the disk itself */
    bool present; /* that layer does decide it */
    int64_t map;
    BlockDriverState *file; /* NULL: no map */
};

#define SHOWN                                                                                      \
    (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ALLOCATED |          \
     BDRV_BLOCK_COMPRESSED)

struct map_walk {
    struct cli *cli;
    BlockBackend *blk;
    bool json;
    bool first;
    struct picture *picture; /* NULL: lines are printed */
    /* what is asked for, and the answer */
    int64_t offset;
    int64_t end;
    struct map_extent found;
    int ret;
};

/* How far down the chain somebody was asked about what nobody has. */
static int last_layer(BlockDriverState *bs, int64_t offset)
{
    BlockDriverState *backing;
    int layer = 0;

    while ((backing = chain_below(bs)) != NULL && bdrv_getlength(backing) > offset) {
        bs = backing;
        layer++;
    }
    return layer;
}

static bool is_null(const BlockDriverState *bs)
{
    return strncmp(bdrv_get_format_name(bs), "null-", 5) == 0;
}

/* The layer of e, or NULL where nobody is it. */
static BlockDriverState *layer_of(const struct map_walk *w, const struct map_extent *e)
{
    BlockDriverState *bs = blk_bs(w->blk);

    for (int layer = 0; bs && layer < e->layer; layer++) {
        bs = chain_below(bs);
    }
    return bs;
}

/* The reference looks for no holes in the data file of an image, and a null disk that leaves
 * buffers alone decides nothing there. */
static void tell_as_reference(const struct map_walk *w, struct map_extent *e)
{
    const int zeroed_data = BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO;
    BlockDriverState *layer = layer_of(w, e);

    if (!e->file || !layer) {
        return;
    }
    if ((e->flags & zeroed_data) == zeroed_data && bdrv_get_child(layer, "data-file") == e->file) {
        e->flags &= ~BDRV_BLOCK_ZERO;
    } else if (is_null(e->file) && !(e->flags & BDRV_BLOCK_ZERO)) {
        e->flags = 0;
        e->present = false;
        e->file = NULL;
    }
}

static void walk_step_co(void *opaque)
{
    struct map_walk *w = opaque;
    struct map_extent *e = &w->found;
    int depth;

    e->start = w->offset;
    w->ret = blk_co_block_status_file(w->blk, w->offset, w->end - w->offset, &e->bytes, &e->map,
                                      &depth, &e->file);
    if (w->ret < 0) {
        return;
    }
    e->flags = w->ret & SHOWN;
    e->present = depth > 0;
    e->layer = e->present ? depth - 1 : last_layer(blk_bs(w->blk), e->start);
    if (cli_stands_in(w->cli)) {
        tell_as_reference(w, e);
    }
}

static bool joins(const struct map_extent *a, const struct map_extent *b)
{
    return a->flags == b->flags && a->layer == b->layer && a->present == b->present &&
           a->file == b->file &&
           (!(a->flags & BDRV_BLOCK_OFFSET_VALID) || a->map + a->bytes == b->map);
}

/* ---- printing ---- */

static const char *json_bool(bool value)
{
    return value ? "true" : "false";
}

static int print_json(struct map_walk *w, const struct map_extent *e)
{
    FILE *out = w->cli->out;

    fprintf(out,
            "%s{ \"start\": %" PRId64 ", \"length\": %" PRId64 ", \"depth\": %d, "
            "\"present\": %s, \"zero\": %s, \"data\": %s",
            w->first ? "" : ",\n", e->start, e->bytes, e->layer, json_bool(e->present),
            json_bool(e->flags & BDRV_BLOCK_ZERO), json_bool(e->flags & BDRV_BLOCK_DATA));
    if (e->flags & BDRV_BLOCK_OFFSET_VALID) {
        fprintf(out, ", \"offset\": %" PRId64, e->map);
    }
    fputc('}', out);
    w->first = false;
    return CLI_EXIT_OK;
}

static int print_human(struct map_walk *w, const struct map_extent *e)
{
    FILE *out = w->cli->out;

    if (!(e->flags & BDRV_BLOCK_DATA) || (e->flags & BDRV_BLOCK_ZERO)) {
        return CLI_EXIT_OK;
    }
    if (!(e->flags & BDRV_BLOCK_OFFSET_VALID) || !e->file) {
        return cli_error(w->cli, "File contains external, encrypted or compressed clusters.");
    }
    fprintf(out, "%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64, (uint64_t)e->start,
            (uint64_t)e->bytes, (uint64_t)e->map);
    cli_put_line(out, "%s", bdrv_get_filename(e->file));
    return CLI_EXIT_OK;
}

static int draw_extent(struct map_walk *w, const struct map_extent *e)
{
    unsigned depth = e->layer < PICTURE_DEPTHS ? (unsigned)e->layer : PICTURE_DEPTHS - 1;
    bool zero = e->flags & BDRV_BLOCK_ZERO;

    picture_add(w->picture, e->start, e->bytes,
                !e->present ? PICTURE_HOLE
                : zero      ? PICTURE_ZERO
                            : PICTURE_DATA + depth);
    return CLI_EXIT_OK;
}

static int print_extent(struct map_walk *w, const struct map_extent *e)
{
    if (w->picture) {
        return draw_extent(w, e);
    }
    return w->json ? print_json(w, e) : print_human(w, e);
}

/* ---- walking ---- */

static int walk(struct map_walk *w)
{
    struct map_extent pending = {.start = w->offset};
    int code = CLI_EXIT_OK;

    while (code == CLI_EXIT_OK && w->offset < w->end) {
        int ret = disk_run_co(blk_get_platter(w->blk), walk_step_co, w);

        ret = ret < 0 ? ret : w->ret;
        if (ret < 0) {
            return cli_error(w->cli, "Failed to read image metadata: %s", strerror(-ret));
        }
        if (pending.bytes > 0 && joins(&pending, &w->found)) {
            pending.bytes += w->found.bytes;
        } else {
            code = pending.bytes > 0 ? print_extent(w, &pending) : code;
            pending = w->found;
        }
        w->offset += w->found.bytes;
    }
    return code == CLI_EXIT_OK ? print_extent(w, &pending) : code;
}

static int draw(struct map_walk *w, const struct map_args *args)
{
    FILE *out = w->cli->out;
    struct picture picture;
    int code;

    if (args->out_file && chain_has_file(blk_get_platter(w->blk), args->out_file)) {
        return cli_error(w->cli, "'%s' is the disk that is drawn, or belongs to it",
                         args->out_file);
    }
    if (picture_init(&picture, w->offset, w->end,
                     args->out_file ? FILE_COLUMNS : picture_terminal_columns(out),
                     args->out_file ? FILE_ROWS : TERMINAL_ROWS) < 0) {
        return cli_error(w->cli, "out of memory");
    }
    w->picture = &picture;
    code = walk(w);
    if (code == CLI_EXIT_OK && args->out_file) {
        code = picture_save(w->cli, &picture, args->out_file);
    } else if (code == CLI_EXIT_OK) {
        picture_print(&picture, out, picture_wants_colour(out));
    }
    picture_fini(&picture);
    return code;
}

static int map_run(struct cli *cli, BlockBackend *blk, void *opaque)
{
    const struct map_args *args = opaque;
    struct map_walk w = {
        .cli = cli, .blk = blk, .json = disk_wants_json(&args->disk), .first = true};
    int64_t bytes = blk_getlength(blk);
    int code;

    if (bytes < 0) {
        return cli_error(cli, "Failed to get size for '%s': %s", args->disk.file,
                         strerror((int)-bytes));
    }
    w.offset = (int64_t)args->start;
    w.end = w.offset;
    if (w.offset < bytes) {
        w.end += (int64_t)min_u64(args->length, (uint64_t)(bytes - w.offset));
    }
    if (args->picture) {
        return draw(&w, args);
    }
    if (disk_wants_json(&args->disk)) {
        fputc('[', cli->out);
    } else {
        fprintf(cli->out, "%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    }
    code = walk(&w);
    if (disk_wants_json(&args->disk) && code == CLI_EXIT_OK) {
        fputs("]\n", cli->out);
    }
    return code;
}

/* ---- arguments ---- */

static bool map_take(struct map_args *args, int id, const struct cli_args *a)
{
    switch (id) {
    case MAP_LENGTH:
        return cli_size_value(a, "max length", 0, INT64_MAX, &args->length);
    case MAP_OUT_FILE:
        args->out_file = a->value;
        args->picture = true;
        return picture_can_save(a->cli, a->value);
    case MAP_PICTURE:
        args->picture = true;
        return true;
    case MAP_START:
        return cli_size_value(a, "start offset", 0, INT64_MAX, &args->start);
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a);
    }
}

static int map_command(struct cli *cli, int argc, char **argv)
{
    struct map_args args = {.length = INT64_MAX};
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !map_take(&args, id, &a)) {
            return CLI_EXIT_USAGE;
        }
    }
    if (!disk_file_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    if (args.picture && disk_wants_json(&args.disk)) {
        return cli_misfit(cli, "a picture (--picture, -o) is no JSON");
    }
    if (!disk_args_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    return disk_run(cli, &args.disk, map_run, &args);
}

const struct cli_command command_map = {
    .name = "map",
    .operands = "FILE",
    .summary = "Show where the bytes of a disk are",
    .options = map_options,
    .details =
        "The human form lists only data, and fails where data cannot be mapped (compressed\n"
        "clusters). The JSON form lists everything. A picture shows everything, at a glance:\n"
        "on a terminal in its width, in colours unless NO_COLOR is set.\n\n"
        "Examples:\n"
        "  platter map -f qcow2 disk.qcow2\n"
        "  platter map -f qcow2 --picture disk.qcow2\n"
        "  platter map -f qcow2 -o disk.svg disk.qcow2\n"
        "  platter map -f qcow2 --output=json --start-offset=1G --max-length=1M disk.qcow2\n",
    .run = map_command,
};
