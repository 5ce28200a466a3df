/* SPDX-License-Identifier: MIT */
/* Opening the disk that a command works on, the same way in every command. */
#ifndef PLATTER_TOOLS_DISK_H
#define PLATTER_TOOLS_DISK_H

#include <platter/backend.h>
#include <platter/platter.h>

#include "tools/cli.h"
#include "tools/object.h"

#define DISK_ALLOW_REFS_MAX 64

struct disk_args {
    const char *file;          /* operand: a name, or options with image_opts */
    bool surplus;              /* one more file was named, which is to be told */
    const char *id;            /* name of the backend; NULL: "disk" */
    const char *format;        /* NULL: guessed, where disk_guess.c allows it */
    const char *format_switch; /* what tells it, for an error; NULL: "-f " */
    const char *cache; /* none, writeback, writethrough, directsync, unsafe; NULL: writeback */
    const char
        *open_failed;     /* as that of struct cli_spelling, for this disk; NULL: no difference */
    const char *told_as;  /* what an error calls it in the reference's words; NULL: file */
    bool cache_of_source; /* it was given as -T */
    const char *aio;      /* threads, native, io_uring; NULL: the best there is */
    const char *discard;  /* ignore, unmap; NULL: ignore */
    const char *snapshot; /* show this one: ID_OR_NAME or snapshot.id=ID,snapshot.name=NAME */
    const BlockOptions *options; /* borrowed, besides file or without one; NULL: none */
    bool guess;                  /* the format: -f auto */
    bool image_opts;
    bool writable;
    bool options_decide; /* whether it is writable, where they say read-only=... */
    bool temporary;      /* what is written goes to a file that ends with the disk */
    bool copy_on_read;   /* what is read from backing files is written into the disk */
    bool force_share;
    bool look_only;      /* no guest data is read */
    bool steady;         /* nobody may change it meanwhile, unless force_share */
    bool exclusive;      /* nobody else may write meanwhile, in this or another process */
    unsigned lock_tries; /* how often a lock that somebody else has is asked for again */
    bool no_backing;     /* what this layer itself holds is looked at, its backing file is not */
    bool check;          /* damage does not stop the open where it can be */
    /* what images may open by naming it */
    const char *image_refs; /* none, listed, follow; NULL: listed */
    const char *allow_refs[DISK_ALLOW_REFS_MAX];
    unsigned allow_refs_count;
    const char *output;        /* form of the answer: human, json; NULL: human */
    const char *backing_depth; /* a number; NULL: the usual */
    const char *detect_zeroes; /* off, on, unmap; NULL: off */
    /* What is to be served instead of the disk that was opened, which passes in; NULL: itself. NULL
     * with errp. */
    BlockDriverState *(*wrap)(Platter *pl, BlockDriverState *bs, void *opaque, Error **errp);
    /* Before a snapshot is shown: whether the disk that was opened could be wrapped; NULL: what
     * the snapshot shows decides. 0 or -errno. */
    int (*wrap_check)(BlockDriverState *bs, void *opaque, Error **errp);
    void *wrap_opaque; /* of both */
};

#define DISK_LOCK_TRIES 50 /* until what a dead process left has gone: seconds */
/* Before a lock is asked for again; false where *tries are used up. */
bool disk_lock_again(unsigned *tries);

/* Options that many commands have. A command puts the rows that it knows into its table;
 * disk_take_option takes them all. */
enum disk_option {
    DISK_OPTION_AIO = 1000,
    DISK_OPTION_ALLOW_REF,
    DISK_OPTION_BACKING_DEPTH,
    DISK_OPTION_CACHE,
    DISK_OPTION_FORCE_SHARE,
    DISK_OPTION_FORMAT,
    DISK_OPTION_IMAGE_OPTS,
    DISK_OPTION_IMAGE_REFS,
    DISK_OPTION_OBJECT,
    DISK_OPTION_OUTPUT,
    DISK_OPTION_SNAPSHOT,
};
/* All words that such options take. */
extern const char *const disk_aio_words[];
extern const char *const disk_cache_words[];
extern const char *const disk_detect_zeroes_words[];
extern const char *const disk_discard_words[];
extern const char *const disk_prealloc_words[];
extern const char *const disk_refs_words[];
#define DISK_ROW_FORMAT                                                                            \
    {                                                                                              \
        DISK_OPTION_FORMAT, 'f', "format", "FMT|auto", "format of the disk; auto: guess it"        \
    }
#define DISK_ROW_IMAGE_OPTS                                                                        \
    {                                                                                              \
        DISK_OPTION_IMAGE_OPTS, 0, "image-opts", NULL, "FILE is a list of options"                 \
    }
/* Rows that commands have under ids and letters of their own. */
#define DISK_ROW_CACHE_AS(id, letter)                                                              \
    {                                                                                              \
        id, letter, "cache", "MODE",                                                               \
            "of the disk: none, writeback, writethrough, directsync, unsafe",                      \
            .words = disk_cache_words                                                              \
    }
#define DISK_ROW_AIO_AS(id, letter)                                                                \
    {                                                                                              \
        id, letter, "aio", "MODE", "how I/O is done: threads, native or io_uring",                 \
            .words = disk_aio_words                                                                \
    }
#define DISK_ROW_DISCARD_AS(id)                                                                    \
    {                                                                                              \
        id, 0, "discard", "MODE", "what trim does: unmap (gives space back) or ignore",            \
            .words = disk_discard_words                                                            \
    }
#define DISK_ROW_CACHE DISK_ROW_CACHE_AS(DISK_OPTION_CACHE, 't')
#define DISK_ROW_SRC_CACHE                                                                         \
    {                                                                                              \
        DISK_OPTION_CACHE, 'T', "src-cache", "MODE",                                               \
            "of what is read: none, writeback, writethrough, directsync, unsafe",                  \
            .words = disk_cache_words                                                              \
    }
#define DISK_ROW_AIO DISK_ROW_AIO_AS(DISK_OPTION_AIO, 'i')
#define DISK_ROW_FORCE_SHARE                                                                       \
    {                                                                                              \
        DISK_OPTION_FORCE_SHARE, 'U', "force-share", NULL, "take no locks; only for reading"       \
    }
#define DISK_ROW_OBJECT                                                                            \
    {                                                                                              \
        DISK_OPTION_OBJECT, 0, "object", "TYPE,id=ID,...",                                         \
            "make a throttle-group, secret, ... that options name; help lists them", object_help   \
    }
#define DISK_ROW_OUTPUT                                                                            \
    {                                                                                              \
        DISK_OPTION_OUTPUT, 0, "output", "human|json", "form of the answer; human when not given"  \
    }
/* -l, but where it is something else already */
#define DISK_ROW_SNAPSHOT                                                                          \
    {                                                                                              \
        DISK_OPTION_SNAPSHOT, 'l', "load-snapshot", "SNAPSHOT",                                    \
            "show this internal snapshot, read-only"                                               \
    }

/* What images may open by naming it: three rows. */
#define DISK_ROWS_REFS                                                                             \
    {DISK_OPTION_ALLOW_REF, 0, "allow-ref", "PATH",                                                \
     "let images name this file, or those below this folder"},                                     \
        {DISK_OPTION_IMAGE_REFS,                                                                   \
         0,                                                                                        \
         "image-refs",                                                                             \
         "POLICY",                                                                                 \
         "what images may name: none, listed (and own folder), follow",                            \
         .words = disk_refs_words},                                                                \
    {                                                                                              \
        DISK_OPTION_BACKING_DEPTH, 0, "backing-depth", "N",                                        \
            "longest chain of backing files; 64 when not given"                                    \
    }

/* Whether id, from cli_next, was one of them; then args has it. A value that makes no sense is
 * told by disk_args_check. */
bool disk_take_option(struct disk_args *args, int id, const struct cli_args *a);
/* The value of -f, or of a switch like it. disk_guess.c */
void disk_take_format(struct disk_args *args, const struct cli_args *a);
/* --load-snapshot where a list of options for it is checked at once; quote stands before the value
 * in the error, as the reference tool of that name has it. CLI_EXIT_OK, or a code after printing.
 */
int disk_take_snapshot(struct disk_args *args, const struct cli_args *a, char quote);
/* The one operand of a command that works on one disk; false after printing that it is too much.
 * What stands in for the reference tells so only in disk_file_check. */
bool disk_take_file(struct disk_args *args, const struct cli_args *a);
/* Behind all options: whether there was one file; false after printing what is wrong. */
bool disk_file_check(struct cli *cli, const struct disk_args *args);

/* Whether there is such a cache mode; NULL: the usual one. */
bool disk_cache_is_known(const char *name);
/* BDRV_O_* of a cache mode (a known one), and whether each write is flushed. */
int disk_cache_flags(const char *name, bool *ret_write_through);
/* What the cache mode (a known one) means for the options of a node, and whether each write is
 * flushed. 0 or -ENOMEM. */
int disk_cache_options(const char *name, BlockOptions *options, bool *ret_write_through);
/* Take the rights to the disk of blk that args ask for. 0 or -errno. */
int disk_set_perm(BlockBackend *blk, const struct disk_args *args, Error **errp);
/* Whether the answer is to be JSON. */
bool disk_wants_json(const struct disk_args *args);
/* Where that answer goes. It stands alone there: what is printed on cli->out from now on, until
 * that is set back to this, goes beside it. */
FILE *disk_answer_alone(struct cli *cli, const struct disk_args *args);
/* Whether the form of the answer is one that there is; false after printing. */
bool disk_output_check(struct cli *cli, const struct disk_args *args);
/* Check the words in args without opening anything; false after printing. */
bool disk_args_check(struct cli *cli, const struct disk_args *args);
/* The same of modes of caches, engines and discards alone. */
bool disk_words_check(struct cli *cli, const struct disk_args *args);

/* disk_refs.c: the part of that about what images name. */
bool disk_refs_check(struct cli *cli, const struct disk_args *args);

/* disk_guess.c: whether the format of a disk, and those of its backing files, may be guessed. */
bool disk_may_guess(const struct cli *cli, const struct disk_args *args);
/* It may, or it is told by args or options. 0 or -errno. */
int disk_check_told(struct cli *cli, Platter *pl, const struct disk_args *args,
                    const BlockOptions *options, Error **errp);

/* Put the name of a file, as it was given, in front of an error that does not tell it. */
void disk_name_in_error(const char *file, Error **errp);

/* Open as a backend. NULL after printing why not. */
BlockBackend *disk_open(struct cli *cli, Platter *pl, const struct disk_args *args);

/* The run of a command that works on one disk: an instance, the disk, run, a last flush when it is
 * writable, the end. The exit code is run's, or CLI_EXIT_FAILED when the rest fails. */
int disk_run(struct cli *cli, const struct disk_args *args,
             int (*run)(struct cli *cli, BlockBackend *blk, void *opaque), void *opaque);

/* The same on an instance that is there. */
int disk_run_on(struct cli *cli, Platter *pl, const struct disk_args *args,
                int (*run)(struct cli *cli, BlockBackend *blk, void *opaque), void *opaque);

/* "off", "metadata", "falloc", "full" */
bool disk_prealloc_parse(const char *text, enum bdrv_prealloc *ret);

/* Let blk change the size of its disk, where no other user forbids it. 0 or -errno. */
int disk_allow_resize(BlockBackend *blk, Error **errp);

/* The node of a disk, below the filter that copy_on_read puts there. Borrowed. */
BlockDriverState *disk_node(BlockBackend *blk);

/* disk_layers.c. What is written to the node that is returned goes to a file that nobody else sees
 * and that ends with the process: it has no name any more. bs: owned. NULL with errp. */
BlockDriverState *disk_add_overlay(Platter *pl, BlockDriverState *bs, bool writable, Error **errp);
/* What args ask for above bs (owned). NULL with errp. */
BlockDriverState *disk_add_layers(Platter *pl, BlockDriverState *bs, const struct disk_args *args,
                                  Error **errp);

/* A sink of events of an instance: says what was found wrong with an image. opaque: struct cli. */
void disk_tell_event(void *opaque, const struct platter_event *event);
/* An instance for a command, with that sink and the policy of args (NULL: the usual); NULL after
 * printing why not. */
Platter *disk_platter_new(struct cli *cli, const struct disk_args *args);
/* The same in a context of the caller's, with a sink for events; both may be NULL. */
Platter *disk_platter_new_for(struct cli *cli, const struct disk_args *args, AioContext *ctx,
                              PlatterEventFunc *event_cb, void *event_opaque);
/* Let images name files in the folder of the file that is called name, or of those in options:
 * disk_open does it for its own. */
void disk_allow_folder_of(Platter *pl, const char *name);
void disk_allow_folders_in(Platter *pl, const BlockOptions *options);

/* Run fn(arg) in a coroutine of the main context and poll until it is done. 0 or -ENOMEM. */
int disk_run_co(Platter *pl, void (*fn)(void *arg), void *arg);

#endif
