/* SPDX-License-Identifier: MIT */
/* The spellings of the programs. */
#include "tools/cli.h"

const struct cli_spelling spelling_native = {
    .names_command = true,
    .hints = true,
    .more_facts = true,
    .usage_exit = CLI_EXIT_USAGE,
    .image_refs = "listed",
    .version_word = "",
};

const struct cli_spelling spelling_qemu_img = {
    .stands_in = true,
    .warns_of_guessed = true,
    .usage_exit = CLI_EXIT_FAILED,
    .image_refs = "follow",
    .try_line = "Try 'qemu-img --help' for more information",
    .image_opts_misfit = "--image-opts and --format are mutually exclusive",
    .open_failed = "Could not open ",
    .open_quote = "'",
    .version_word = "version ",
};

const struct cli_spelling spelling_qemu_io = {
    .stands_in = true,
    .warns_of_guessed = true,
    .usage_exit = CLI_EXIT_FAILED,
    .image_refs = "follow",
    .try_line = "Try 'qemu-io --help' for more information",
    .image_opts_misfit = "--image-opts and -f are mutually exclusive",
    .prompts_always = true,
    .open_failed = "can't open device ",
    .open_unnamed = "can't open",
    .open_quote = "",
    .version_word = "version ",
};

const struct cli_spelling spelling_qemu_storage_daemon = {
    .stands_in = true,
    .usage_exit = CLI_EXIT_FAILED,
    .image_refs = "follow",
    .version_word = "version ",
    .getopt_words = true,
};

const struct cli_spelling spelling_qemu_nbd = {
    .stands_in = true,
    .warns_of_guessed = true,
    .usage_exit = CLI_EXIT_FAILED,
    .image_refs = "follow",
    .try_line = "Try `qemu-nbd --help' for more information.",
    .open_failed = "Failed to blk_new_open ",
    .open_quote = "'",
    .version_word = "",
    .getopt_words = true,
};
