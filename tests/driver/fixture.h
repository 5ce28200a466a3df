/* SPDX-License-Identifier: MIT */
/* What the tests of single drivers share: a folder with files, and disks opened by options. */
#ifndef PLATTER_TESTS_DRIVER_FIXTURE_H
#define PLATTER_TESTS_DRIVER_FIXTURE_H

#include <stdint.h>

#include <platter/backend.h>

extern char dir[64]; /* the folder of this program */

/* Make it from a template for mkdtemp; take it away with all that is in it. 0 or not. */
int folder_begin(const char *pattern);
int folder_end(void);
/* Until the next call. */
const char *text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void make_file(const char *name, int64_t size);

Platter *new_platter(void);
BlockBackend *open_as(Platter *pl, const char *name, const char *options, int flags, Error **errp);
BlockBackend *must_open_as(Platter *pl, const char *name, const char *options, int flags);
/* Refused, with all these words in the text; err_no 0: with any errno. */
void refused_as(Platter *pl, const char *options, int flags, int err_no, const char *words);

/* A disk "d", writable unless flags say otherwise. */
BlockBackend *try_open(Platter *pl, const char *options, int flags, Error **errp);
BlockBackend *must_open(Platter *pl, const char *options);
void refused(Platter *pl, const char *options, int err_no, const char *words);

int resize(BlockBackend *blk, int64_t size, enum bdrv_prealloc prealloc, Error **errp);

#endif
