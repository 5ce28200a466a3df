/* SPDX-License-Identifier: MIT */
/*
 * Pictures of allocation as files. SVG: a rectangle for each run of cells of one colour. PNG
 * (ISO/IEC 15948): eight bits each of red, green and blue, CELL_PIXELS square for a cell.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef PLATTER_HAVE_ZLIB
#include <zlib.h>
#endif

#include "tools/img/map_picture.h"
#include "util/bytes.h"
#include "util/mem.h"
#include "util/size.h"

#define CELL_PIXELS 8
#define LINE_PIXELS 18 /* of the legend */

struct rgb {
    unsigned char of[3];
};

static struct rgb kind_rgb(unsigned kind)
{
    static const struct rgb data = {{0x1f, 0x5f, 0xbf}};
    static const struct rgb zero = {{0xc8, 0xc8, 0xc8}};
    static const struct rgb hole = {{0xf2, 0xf2, 0xf2}};
    static const struct rgb backing[] = {
        {{0x2e, 0x8b, 0x57}}, {{0xd9, 0x8e, 0x04}}, {{0xa2, 0x3b, 0x9e}},
        {{0x0f, 0x9b, 0xa8}}, {{0xc0, 0x39, 0x2b}},
    };

    return kind == 0              ? data
           : kind == PICTURE_ZERO ? zero
           : kind == PICTURE_HOLE ? hole
                                  : backing[(kind - 1) % ARRAY_SIZE(backing)];
}

/* The colours of what is in a cell, each as much as it has bytes; white behind the end. */
static struct rgb cell_rgb(const struct picture_cell *cell)
{
    double sum[3] = {0, 0, 0};
    double total = 0;
    struct rgb rgb = {{0xff, 0xff, 0xff}};

    for (unsigned kind = 0; kind < PICTURE_KINDS; kind++) {
        struct rgb of_kind = kind_rgb(kind);
        /* a little data in a large hole is still to be seen */
        double weight = (double)cell->bytes[kind] * (kind < PICTURE_DEPTHS ? 4 : 1);

        total += weight;
        for (int i = 0; i < 3; i++) {
            sum[i] += weight * of_kind.of[i];
        }
    }
    for (int i = 0; i < 3 && total > 0; i++) {
        rgb.of[i] = (unsigned char)(sum[i] / total);
    }
    return rgb;
}

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path);
    size_t m = strlen(end);

    return n > m && strcmp(path + n - m, end) == 0;
}

bool picture_can_save(struct cli *cli, const char *path)
{
#ifdef PLATTER_HAVE_ZLIB
    const bool png = true;
#else
    const bool png = false;
#endif

    if (ends_with(path, ".svg") || (png && ends_with(path, ".png"))) {
        return true;
    }
    cli_usage_error(cli, "'%s' names no kind of picture: it ends with .svg%s", path,
                    png ? " or .png" : " (this build has no .png)");
    return false;
}

/* ---- SVG ---- */

static void svg_legend(const struct picture *p, FILE *out, unsigned top)
{
    char text[32];

    for (unsigned kind = 0; kind < PICTURE_KINDS; kind++) {
        struct rgb rgb = kind_rgb(kind);

        if (p->total.bytes[kind] == 0) {
            continue;
        }
        size_format(p->total.bytes[kind], text, sizeof(text));
        fprintf(out,
                "<rect x=\"0\" y=\"%u\" width=\"12\" height=\"12\" fill=\"#%02x%02x%02x\"/>"
                "<text x=\"18\" y=\"%u\">",
                top, rgb.of[0], rgb.of[1], rgb.of[2], top + 11);
        if (kind == 0 || kind >= PICTURE_DEPTHS) {
            fputs(kind == 0 ? "data" : kind == PICTURE_ZERO ? "zeroes" : "unallocated", out);
        } else {
            fprintf(out, "data of the backing file %u below", kind);
        }
        fprintf(out, ": %s</text>\n", text);
        top += LINE_PIXELS;
    }
    size_format((uint64_t)p->cell_bytes, text, sizeof(text));
    fprintf(out, "<text x=\"0\" y=\"%u\">each cell is %s</text>\n", top + 11, text);
}

static void save_svg(const struct picture *p, FILE *out)
{
    unsigned width = p->columns * CELL_PIXELS;
    unsigned height = p->rows * CELL_PIXELS;

    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
            width, height + (PICTURE_KINDS + 2) * LINE_PIXELS);
    for (unsigned row = 0; row < p->rows; row++) {
        for (unsigned from = 0, to; from < p->columns; from = to) {
            const struct picture_cell *cells = &p->cells[row * p->columns];
            struct rgb rgb = cell_rgb(&cells[from]);

            for (to = from + 1; to < p->columns; to++) {
                struct rgb next = cell_rgb(&cells[to]);

                if (memcmp(&rgb, &next, sizeof(rgb)) != 0) {
                    break;
                }
            }
            fprintf(out,
                    "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" "
                    "fill=\"#%02x%02x%02x\"/>\n",
                    from * CELL_PIXELS, row * CELL_PIXELS, (to - from) * CELL_PIXELS, CELL_PIXELS,
                    rgb.of[0], rgb.of[1], rgb.of[2]);
        }
    }
    svg_legend(p, out, height + LINE_PIXELS / 2);
    fputs("</svg>\n", out);
}

/* ---- PNG ---- */

#ifdef PLATTER_HAVE_ZLIB

static void png_chunk(FILE *out, const char *type, const unsigned char *data, size_t bytes)
{
    unsigned char word[4];
    uLong crc = crc32(0, (const Bytef *)type, 4);

    if (bytes > 0) {
        crc = crc32(crc, data, (uInt)bytes);
    }
    store_be32(word, (uint32_t)bytes);
    fwrite(word, 1, 4, out);
    fwrite(type, 1, 4, out);
    fwrite(data, 1, bytes, out);
    store_be32(word, (uint32_t)crc);
    fwrite(word, 1, 4, out);
}

/* Lines of a filter byte (0: none) and pixels. */
static void png_pixels(const struct picture *p, unsigned char *to)
{
    size_t line_bytes = 1 + (size_t)p->columns * CELL_PIXELS * 3;

    for (unsigned row = 0; row < p->rows; row++) {
        unsigned char *line = to + (size_t)row * CELL_PIXELS * line_bytes;

        line[0] = 0;
        for (unsigned x = 0; x < p->columns * CELL_PIXELS; x++) {
            struct rgb rgb = cell_rgb(&p->cells[row * p->columns + x / CELL_PIXELS]);

            memcpy(line + 1 + (size_t)x * 3, rgb.of, 3);
        }
        for (unsigned i = 1; i < CELL_PIXELS; i++) {
            memcpy(line + i * line_bytes, line, line_bytes);
        }
    }
}

static int save_png(const struct picture *p, FILE *out)
{
    static const unsigned char signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    uint32_t width = p->columns * CELL_PIXELS;
    uint32_t height = p->rows * CELL_PIXELS;
    size_t raw_bytes = (size_t)height * (1 + (size_t)width * 3);
    uLongf packed_bytes = compressBound(raw_bytes);
    AUTO_FREE unsigned char *raw = malloc(raw_bytes);
    AUTO_FREE unsigned char *packed = malloc(packed_bytes);
    unsigned char header[13] = {[8] = 8, [9] = 2}; /* bits of a sample; colours */

    if (!raw || !packed) {
        return -ENOMEM;
    }
    png_pixels(p, raw);
    if (compress2(packed, &packed_bytes, raw, raw_bytes, Z_BEST_COMPRESSION) != Z_OK) {
        return -ENOMEM;
    }
    store_be32(header, width);
    store_be32(header + 4, height);
    fwrite(signature, 1, sizeof(signature), out);
    png_chunk(out, "IHDR", header, sizeof(header));
    png_chunk(out, "IDAT", packed, packed_bytes);
    png_chunk(out, "IEND", header, 0);
    return 0;
}

#else

static int save_png(const struct picture *p, FILE *out)
{
    return -ENOTSUP; /* picture_can_save has said no */
}

#endif

/* The picture as bytes of a file. 0 or -errno. */
static int render(const struct picture *p, bool svg, char **ret_data, size_t *ret_bytes)
{
    FILE *to = open_memstream(ret_data, ret_bytes);
    int ret = 0;

    if (!to) {
        return -ENOMEM;
    }
    if (svg) {
        save_svg(p, to);
    } else {
        ret = save_png(p, to);
    }
    if (ferror(to)) {
        ret = -ENOMEM;
    }
    return fclose(to) != 0 ? -ENOMEM : ret;
}

/* What is there in part is of no use, where it is a file and nothing else. */
static void remove_part(const char *path)
{
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISREG(st.st_mode)) {
        (void)unlink(path);
    }
}

int picture_save(struct cli *cli, const struct picture *p, const char *path)
{
    AUTO_FREE char *data = NULL;
    size_t bytes = 0;
    FILE *out;
    int ret = render(p, ends_with(path, ".svg"), &data, &bytes);

    if (ret < 0) {
        return cli_error(cli, "could not make '%s': %s", path, strerror(-ret));
    }
    out = fopen(path, "we");
    if (!out) {
        return cli_error(cli, "could not create '%s': %s", path, strerror(errno));
    }
    errno = 0;
    if (fwrite(data, 1, bytes, out) != bytes || fflush(out) != 0) {
        ret = errno ? -errno : -EIO;
    }
    if (fclose(out) != 0 && ret == 0) {
        ret = errno ? -errno : -EIO;
    }
    if (ret < 0) {
        remove_part(path);
        return cli_error(cli, "could not write '%s': %s", path, strerror(-ret));
    }
    return CLI_EXIT_OK;
}
