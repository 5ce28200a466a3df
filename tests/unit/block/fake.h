/* SPDX-License-Identifier: MIT */
/*
 * Drivers for the tests of the graph: "file" keeps 4096 bytes in memory, "raw" passes through,
 * "fmt" is a format with metadata, "img" one that can do everything to an image, "pass" a filter,
 * "two" has two children, "cow" names other files (fake.cow). They count what is done with them.
 */
#ifndef PLATTER_TEST_FAKE_H
#define PLATTER_TEST_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "block/graph_tx.h"
#include "block/instance.h"
#include "block/node.h"

#define FAKE_FILE_BYTES 4096

/* The header of the image in a file. */
struct fake_cow {
    const char *file; /* name without folder */
    const char *backing, *format;
    const char *data;
};

/* What the drivers saw; the tests reset it. */
struct fake_counters {
    int live;                               /* nodes open now */
    int checks;                             /* perm_check minus perm_set and perm_abort */
    int reopens;                            /* reopen_prepare minus commit and abort */
    bool refuse_perm;                       /* perm_check of "file" fails */
    bool refuse_reopen;                     /* reopen_prepare of "file" fails */
    bool read_only_file;                    /* "file" can only be opened read-only */
    int refuse_open;                        /* open of "file" fails with this errno */
    uint8_t content[FAKE_FILE_BYTES];       /* what a new "file" node holds */
    int64_t size;                           /* what getlength of "file" says */
    bool leaves_memory;                     /* reads of "file" leave the reader's memory alone */
    uint32_t align;                         /* request_alignment of "file"; 0: 1 */
    int flushes;                            /* of "file" */
    int flush_error;                        /* negative: what they answer */
    void (*on_flush)(BlockDriverState *bs); /* called by them */
    int closed[2048];                       /* numbers of nodes in order of close */
    int n_closed;
    int image_result;        /* what operations of "img" answer */
    const char *image_error; /* the text they set; NULL: none */
    char image_done[64];     /* the last one, with its arguments */
    struct fake_cow cow[4];  /* what the headers of "cow" images say */
    void (*cow_of)(const char *file, struct fake_cow *ret); /* the same, worked out */
    bool real_files;                        /* "file" opens them, to see what that says */
    void (*on_image)(BlockDriverState *bs); /* called by them */
    int write_error;                        /* negative: what writes of "file" answer */
    int writes;                             /* of "file" */
    unsigned stored_bitmaps;                /* that an "img" finds when it is opened: b0, b1, ... */
    unsigned stored_state;                  /* theirs */
    int flags;                              /* flag_co of "img" */
    int flag_error;
    int resize_error;
};
extern struct fake_counters fake;

void fake_reset(void);
Platter *fake_platter(void);
/* For cmocka: *state is an instance; afterwards nothing of a test may be left. */
int fake_setup(void **state);
int fake_teardown(void **state);

/* A user that is no node. */
struct fake_user {
    const char *name;
    int quiesced;
    int begun;
    int busy; /* drained_poll calls that say yes */
    int resized;
};
extern const struct bdrv_parent_class fake_user_class;
/* bdrv_root_attach of such a user, which must succeed. */
BdrvEdge *fake_attach(BlockDriverState *bs, struct fake_user *user, uint64_t perm, uint64_t shared);

/* bdrv_open of key=value text, which must succeed. */
BlockDriverState *fake_open(Platter *pl, const char *text);
/* Must fail, with this errno and this piece of text in the message. */
void fake_open_fails(Platter *pl, const char *filename, const char *text, int flags, int err_no,
                     const char *piece);
/* Ends err after checking it. */
void fake_expect_error(Error *err, int err_no, const char *piece);

#endif
