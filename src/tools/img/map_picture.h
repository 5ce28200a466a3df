/* SPDX-License-Identifier: MIT */
/* The allocation of a disk as a picture: cells in rows, each for the same number of bytes. */
#ifndef PLATTER_TOOLS_IMG_MAP_PICTURE_H
#define PLATTER_TOOLS_IMG_MAP_PICTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "tools/cli.h"

#define PICTURE_DEPTHS 10 /* deeper backing files are shown as the deepest of these */

enum picture_kind {
    PICTURE_DATA = 0, /* + how deep: 0 is the disk itself */
    PICTURE_ZERO = PICTURE_DEPTHS,
    PICTURE_HOLE,
    PICTURE_KINDS,
};

struct picture_cell {
    uint64_t bytes[PICTURE_KINDS];
};

struct picture {
    int64_t start;
    int64_t end;
    int64_t cell_bytes;
    unsigned columns;
    unsigned rows; /* as many as are needed */
    struct picture_cell *cells;
    struct picture_cell total;
};

/* Of the bytes start .. end of a disk. -ENOMEM. */
int picture_init(struct picture *p, int64_t start, int64_t end, unsigned columns,
                 unsigned rows_max);
void picture_fini(struct picture *p);
/* An extent inside of them. */
void picture_add(struct picture *p, int64_t offset, int64_t bytes, enum picture_kind kind);

/* Columns of a terminal behind out; 80 where there is none. */
unsigned picture_terminal_columns(FILE *out);
/* Whether out wants colours: a terminal, and NO_COLOR is not set. */
bool picture_wants_colour(FILE *out);
void picture_print(const struct picture *p, FILE *out, bool colour);

/* Into a new file, by the end of its name: ".svg" or ".png". CLI_EXIT_*. */
int picture_save(struct cli *cli, const struct picture *p, const char *path);
/* Whether the name ends so, and this build can do it; false after printing. */
bool picture_can_save(struct cli *cli, const char *path);

#endif
