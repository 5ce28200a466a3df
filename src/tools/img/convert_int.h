/* SPDX-License-Identifier: MIT */
/* platter convert between its files, and what dd takes of it. */
#ifndef PLATTER_TOOLS_IMG_CONVERT_INT_H
#define PLATTER_TOOLS_IMG_CONVERT_INT_H

#include <platter/convert.h>

#include "tools/disk.h"
#include "tools/job_run.h"
#include "tools/option_list.h"

struct convert_args {
    struct disk_args disk;   /* of each source; file is not used */
    struct disk_args target; /* file: the last operand */
    const char **files;      /* owned; the operands */
    size_t files_count;
    const char *format; /* -O; NULL: not given */
    struct option_list list;
    const char *journal; /* NULL: none */
    int argc;            /* the command line */
    char **argv;
    const char *backing;
    const char *backing_format;
    struct convert_options engine; /* what of it the command line says */
    uint64_t source_bytes; /* what a raw SOURCE that comes through a pipe has; 0: not told */
    bool sparse_given;
    bool skip_create;
    bool target_is_zero;
    bool bitmaps;
    bool skip_broken_bitmaps;
    bool quiet;
    enum progress_form progress;
    char stdin_options[256];  /* the SOURCE, where its name does not say all of standard input */
    bool once;                /* it is an image that comes through a pipe */
    struct convert_feed feed; /* the SOURCE, where its raw bytes come through a pipe */
    bool from_pipe;
    bool to_pipe;
};

/* Where an interrupted convert got to; convert_journal.c. */
struct convert_journal {
    const char *name;
    int fd;         /* < 0: not open */
    uint64_t end;   /* where the next record goes */
    uint64_t key;   /* of the command line and what the sources are */
    bool found;     /* there was one: an earlier process may be about to let go of the target */
    bool resumes;   /* the three below were read */
    bool is_zero;   /* the target was zero where nothing was written */
    uint64_t start; /* what is in front of it was written */
    char target[64];
};

/* One run. */
struct convert_run {
    struct cli *cli;
    struct convert_args *args;
    Platter *pl;
    struct convert_source *sources; /* owned, with their backends; as many as were opened */
    size_t sources_count;
    uint64_t total;
    BlockBackend *target; /* counted */
    struct job_run job;
    struct convert_journal journal;
};

/* convert_journal.c. All return CLI_EXIT_*, after printing. The sources are open: read the journal,
 * where there is one. */
int convert_journal_open(struct convert_run *run);
/* The target is open: check that it is the one of the journal, or begin the journal. */
int convert_journal_begin(struct convert_run *run);
/* All was written (done), or not: then it stays. */
void convert_journal_end(struct convert_run *run, bool done);

/* convert_pipe.c: "-" as source or target, standard input or output. Not under names that stand in
 * for other tools, where it is a file. */
bool convert_is_pipe(const struct cli *cli, const struct disk_args *args, const char *file);
/* What does not go together with pipes; NULL: all does. */
const char *convert_pipe_misfit(struct cli *cli, const struct convert_args *args);
/* The source is standard input: fill the engine's options; where it is a file that can be looked at
 * *ret_file is its name instead. It begins where the descriptor stands. */
int convert_pipe_source(struct convert_run *run, const char **ret_file);
/* Whether the file is what standard input, the SOURCE, reads: a raw disk from there is no node. */
bool convert_pipe_reads(const struct convert_run *run, const char *file);
/* An image that comes through a pipe was opened: have it read its tables as they come. */
int convert_pipe_read_tables_whole(struct convert_run *run, BlockBackend *blk);
/* All is done: what follows the image in the pipe is read to its end, and left out, so that whoever
 * writes it does not fail. Until then a signal ends the program. */
void convert_pipe_drain(const struct convert_run *run);
/* Run the job with standard output as its target. */
int convert_pipe_target(struct convert_run *run);
/* How files of the target's format are called. */
const char *convert_target_format(const struct convert_run *run);
/* Whether options of the target are good; args->backing is settled then. */
int convert_prepare_target(struct convert_run *run);

/* convert_open.c. CLI_EXIT_*, after printing. */
int convert_open_sources(struct convert_run *run);
/* Check what was asked of the target, make it, open it, and fill the engine's options. */
int convert_open_target(struct convert_run *run);
void convert_close(struct convert_run *run);

/* Where no lock guards the sources, which are open: whether file is none of theirs. */
int convert_check_target(struct cli *cli, Platter *pl, const char *file);

/* Make the image file of format from options (owned). doing: "converting FORMAT", of the message.
 * lock_tries: as of struct disk_args. */
int convert_create(struct cli *cli, Platter *pl, const char *file, const char *format,
                   BlockOptions *options, uint64_t bytes, const char *doing, unsigned lock_tries);

/* Whether the driver of an open node has that option, and a change of it. CLI_EXIT_*, after
 * printing. */
bool convert_knows_option(BlockDriverState *bs, const char *key);
int convert_reopen_with(struct cli *cli, BlockDriverState *bs, const char *key, uint64_t value);

/* convert_memory.c: the disks are open: the part of --max-memory for what they keep. CLI_EXIT_*,
 * after printing. */
int convert_memory_divide(struct convert_run *run);
/* The same where the target is still to be made: whether that will be enough. */
int convert_memory_judge(struct convert_run *run);

/* convert_bitmaps.c: before anything is made, and after the content was copied. */
int convert_bitmaps_check(struct convert_run *run);
int convert_bitmaps_copy(struct convert_run *run);

/* convert_job.c: run the job to its end. CLI_EXIT_*, after printing why it failed. */
int convert_job_run(struct job_run *run, Platter *pl, struct convert_options *options);

#endif
