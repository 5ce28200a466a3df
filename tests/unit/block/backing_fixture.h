/* SPDX-License-Identifier: MIT */
/*
 * For the tests of files that images name. The images are fakes whose headers stand in fake.cow;
 * the files are real, so that links are.
 */
#ifndef PLATTER_TEST_BACKING_FIXTURE_H
#define PLATTER_TEST_BACKING_FIXTURE_H

#include "fake.h"

extern char dir[64];  /* has the images "top", "mid" and "base" */
extern char home[64]; /* has dir, "secret" and the folder "other" with "base" */

int setup(void **state);
int teardown(void **state);

const char *path(const char *name); /* of a file in dir; four may be in use at a time */
void touch(const char *name);

Platter *platter(enum platter_image_refs refs, unsigned depth); /* depth 0: the usual */
Platter *listed(const char *ref);                               /* only what ref names */

/* What the i-th header says. */
void header(int i, const char *file, const char *backing, const char *format);
/* The image "top" of dir with more options ("" or ",..."). */
BlockDriverState *try_open(Platter *pl, const char *more, int flags, Error **errp);
BlockDriverState *open_top(Platter *pl, const char *more);
void open_fails(Platter *pl, const char *more, int flags, int err_no, const char *piece);

#endif
