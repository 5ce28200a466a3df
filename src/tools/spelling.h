/* SPDX-License-Identifier: MIT */
/* What a program says and does in its own way: the native program, and those that stand in for the
 * tools whose names they carry. Everything that differs by the name of the program is here. */
#ifndef PLATTER_TOOLS_SPELLING_H
#define PLATTER_TOOLS_SPELLING_H

#include <stdbool.h>

/* The release of the tools that programs stand in for, whose number they give as theirs. */
#define SPELLING_VERSION "7.2.0"

/* The long names of options of the tool that a program stands in for, with a space between: they
 * may be cut short as far as no other of them begins alike. Those that are ours have to be whole.
 */
struct cli_long_names {
    const char *command; /* NULL: options without, or in front of, a command; also ends a list */
    const char *names;
};

struct cli_spelling {
    bool stands_in;          /* for the tool whose name it carries, in that tool's words */
    bool names_command;      /* "platter: info: message", not "qemu-img: message" */
    bool hints;              /* what to try with the native program stands below a message */
    bool more_facts;         /* answers have members that the reference does not know */
    bool warns_of_guessed;   /* ... in the words of the reference, where it warns */
    int usage_exit;          /* of a command line that makes no sense */
    const char *image_refs;  /* what images may open by naming it, when nothing says so */
    bool words_are_switches; /* a word alone in --image-opts is an option, not a node's name */
    bool prompts_always;     /* a prompt also where the input is no terminal */
    const char *image_opts_misfit; /* with --image-opts nothing names a format */
    const char *try_line;     /* below such a command line, of one that stands in; NULL: none */
    const char *open_failed;  /* stands before the name of a disk that cannot be opened; or NULL */
    const char *open_unnamed; /* the same for one that is known by options; NULL: no difference */
    const char *open_quote;   /* on both sides of that name */
    const char *version_word; /* "NAME version 1.2" */
    const struct cli_long_names *long_names; /* NULL: nothing is cut short */
    bool getopt_words;                       /* faults of options are told as getopt_long does */
    const char *help; /* what --help prints; also answers bad options. NULL: help from the tables */
};

extern const struct cli_spelling spelling_native;
extern const struct cli_spelling spelling_qemu_img;
extern const struct cli_spelling spelling_qemu_io;
extern const struct cli_spelling spelling_qemu_nbd;
extern const struct cli_spelling spelling_qemu_storage_daemon;

#endif
