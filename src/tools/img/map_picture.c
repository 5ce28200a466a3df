/* SPDX-License-Identifier: MIT */
/* Pictures of allocation: cells, and the one for terminals. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tools/img/map_picture.h"
#include "util/checked.h"
#include "util/size.h"

#define CELL_BYTES_MIN 512
#define COLUMNS_MIN 16
#define COLUMNS_MAX 512
#define COLUMNS_USUAL 80

int picture_init(struct picture *p, int64_t start, int64_t end, unsigned columns, unsigned rows_max)
{
    int64_t cells = (int64_t)columns * rows_max;
    int64_t bytes = (end - start) / cells + ((end - start) % cells != 0);

    assert(columns > 0 && rows_max > 0 && end >= start);
    bytes = bytes / CELL_BYTES_MIN + (bytes % CELL_BYTES_MIN != 0);
    bytes = bytes > 0 ? bytes * CELL_BYTES_MIN : CELL_BYTES_MIN;
    *p = (struct picture){.start = start, .end = end, .cell_bytes = bytes, .columns = columns};
    cells = (end - start) / bytes + ((end - start) % bytes != 0);
    p->rows = cells > 0 ? (unsigned)((cells + columns - 1) / columns) : 1;
    p->cells = calloc((size_t)p->rows * columns, sizeof(*p->cells));
    return p->cells ? 0 : -ENOMEM;
}

void picture_fini(struct picture *p)
{
    free(p->cells);
    p->cells = NULL;
}

void picture_add(struct picture *p, int64_t offset, int64_t bytes, enum picture_kind kind)
{
    assert(offset >= p->start && bytes >= 0 && bytes <= p->end - offset);
    p->total.bytes[kind] += (uint64_t)bytes;
    while (bytes > 0) {
        int64_t cell = (offset - p->start) / p->cell_bytes;
        int64_t left = p->cell_bytes - (offset - p->start) % p->cell_bytes;
        int64_t n = bytes < left ? bytes : left;

        p->cells[cell].bytes[kind] += (uint64_t)n;
        offset += n;
        bytes -= n;
    }
}

/* ---- on a terminal ---- */

unsigned picture_terminal_columns(FILE *out)
{
    struct winsize size;

    if (ioctl(fileno(out), TIOCGWINSZ, &size) < 0 || size.ws_col == 0) {
        return COLUMNS_USUAL;
    }
    return size.ws_col < COLUMNS_MIN   ? COLUMNS_MIN
           : size.ws_col > COLUMNS_MAX ? COLUMNS_MAX
                                       : size.ws_col;
}

bool picture_wants_colour(FILE *out)
{
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    return isatty(fileno(out)) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
}

/* What a cell shows: the layer most of its data is in, if it has any; else what it has most of.
 * PICTURE_KINDS: it is behind the end. */
static unsigned cell_kind(const struct picture_cell *cell, bool *ret_half)
{
    unsigned kind = 0;
    uint64_t data = 0;

    for (unsigned d = 0; d < PICTURE_DEPTHS; d++) {
        data += cell->bytes[d];
        kind = cell->bytes[d] > cell->bytes[kind] ? d : kind;
    }
    *ret_half = data >= cell->bytes[PICTURE_ZERO] + cell->bytes[PICTURE_HOLE];
    if (data > 0) {
        return kind;
    }
    if (cell->bytes[PICTURE_ZERO] == 0 && cell->bytes[PICTURE_HOLE] == 0) {
        return PICTURE_KINDS;
    }
    return cell->bytes[PICTURE_ZERO] >= cell->bytes[PICTURE_HOLE] ? PICTURE_ZERO : PICTURE_HOLE;
}

static char kind_letter(unsigned kind, bool half)
{
    return kind == 0               ? (half ? '#' : '+')
           : kind == PICTURE_ZERO  ? 'z'
           : kind == PICTURE_HOLE  ? '.'
           : kind < PICTURE_DEPTHS ? (char)('0' + kind)
                                   : ' ';
}

/* Colours of the sixteen: data blue, backing files green and on, zeroes grey. */
static int kind_colour(unsigned kind)
{
    static const int backing[] = {32, 33, 35, 36, 31};

    return kind == 0                                      ? 34
           : kind == PICTURE_ZERO || kind == PICTURE_HOLE ? 90
                                                          : backing[(kind - 1) % 5];
}

static void print_letter(FILE *out, unsigned kind, bool half, bool colour)
{
    if (colour && kind < PICTURE_KINDS) {
        fprintf(out, "\033[%d%sm%c\033[0m", kind_colour(kind),
                kind < PICTURE_DEPTHS && half ? ";7" : "", kind_letter(kind, half));
    } else {
        fputc(kind_letter(kind, half), out);
    }
}

static void print_legend_line(const struct picture *p, FILE *out, unsigned kind, bool colour)
{
    uint64_t bytes = p->total.bytes[kind];
    char text[32];

    size_format(bytes, text, sizeof(text));
    fputs("  ", out);
    print_letter(out, kind, true, colour);
    if (kind == 0) {
        fputs(" data (+ less than half of the cell)", out);
    } else if (kind < PICTURE_DEPTHS) {
        fprintf(out, " data of the backing file %u below%s", kind,
                kind == PICTURE_DEPTHS - 1 ? " or deeper" : "");
    } else {
        fputs(kind == PICTURE_ZERO ? " zeroes" : " unallocated", out);
    }
    fprintf(out, ": %s, %.1f %%\n", text,
            p->end > p->start ? 100.0 * (double)bytes / (double)(p->end - p->start) : 0.0);
}

void picture_print(const struct picture *p, FILE *out, bool colour)
{
    char text[32];

    for (unsigned row = 0; row < p->rows; row++) {
        for (unsigned column = 0; column < p->columns; column++) {
            bool half;
            unsigned kind = cell_kind(&p->cells[row * p->columns + column], &half);

            if (kind < PICTURE_KINDS) { /* nothing stands behind the end */
                print_letter(out, kind, half, colour);
            }
        }
        fputc('\n', out);
    }
    size_format((uint64_t)p->cell_bytes, text, sizeof(text));
    fprintf(out, "\neach cell is %s\n", text);
    for (unsigned kind = 0; kind < PICTURE_KINDS; kind++) {
        if (p->total.bytes[kind] > 0) {
            print_legend_line(p, out, kind, colour);
        }
    }
}
