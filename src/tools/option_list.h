/* SPDX-License-Identifier: MIT */
/* Lists of a format's own options: what "-o KEY=VALUE,..." collects, and "-o help". */
#ifndef PLATTER_TOOLS_OPTION_LIST_H
#define PLATTER_TOOLS_OPTION_LIST_H

#include <platter/options.h>

#include "block/driver.h"

#include "tools/cli.h"

struct opts_key; /* schema/opts.h */

struct option_list {
    char *text;            /* owned: what is judged later, in order, in full; NULL: nothing */
    BlockOptions *options; /* owned: what they say, once they were judged */
    bool help;             /* "help" or "?" was among them */
};

/* Add one -o of an image to be made or changed, judged by option_list_judge; later values win.
 * CLI_EXIT_*, after printing. */
int option_list_add(struct cli *cli, struct option_list *list, const char *text);
/* The same of a disk to be opened: read at once. */
int option_list_add_of_open(struct cli *cli, struct option_list *list, const char *text);
/* The list as the tools that we stand in for read it, in full: "a" is "a=on", "noa" is "a=off",
 * with a warning if asked for; but a first word alone may be the name of something. NULL: no
 * memory. */
char *option_list_spelled(struct cli *cli, const char *text, bool is_first_named, bool warns);
void option_list_fini(struct option_list *list);
/* The keys of a table, one a line. */
void option_list_print(FILE *out, const struct opts_key *keys);
/* The driver that makes images of a format, in that file (NULL: none is named yet), should both be
 * possible; else NULL with errp. */
const BlockDriver *option_list_maker(const char *format, const char *file, Error **errp);
/* Options of creating images with such a driver: those of the format alone, or with a file to make
 * them in (else NULL) those of the file too. */
void option_list_print_create(FILE *out, const BlockDriver *drv, const char *file);
/* Put into list->options what the text says, where the table has all keys (NULL: nothing is known)
 * and each value looks as it says, also one that a later one replaces: what can be told before
 * anything is done, the first fault of the list. 0, -ENOENT (a key is not there) or another -errno,
 * with errp. */
int option_list_judge(struct cli *cli, struct option_list *list, const struct opts_key *keys,
                      Error **errp);
/* Whether a table (may be NULL) has the key. */
bool option_list_has_key(const struct opts_key *keys, const char *key);

#endif
