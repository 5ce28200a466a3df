/* SPDX-License-Identifier: MIT */
/* The spellings of the programs. */
#include "tools/cli.h"

static const struct cli_long_names img_names[] = {
    {"amend", "force help image-opts object"},
    {"bench", "flush-interval force-share help image-opts no-drain pattern"},
    {"bitmap", "add clear disable enable granularity help image-opts merge object remove "
               "source-file source-format"},
    {"check", "force-share format help image-opts object output repair"},
    {"commit", "help image-opts object"},
    {"compare", "force-share help image-opts object"},
    {"convert", "bitmaps force-share help image-opts object salvage skip-broken-bitmaps "
                "target-image-opts target-is-zero"},
    {"create", "help object"},
    {"dd", "force-share help image-opts object"},
    {"info", "backing-chain force-share format help image-opts object output"},
    {"map", "force-share format help image-opts max-length object output start-offset"},
    {"measure", "force-share help image-opts object output size"},
    {"rebase", "force-share help image-opts object"},
    {"resize", "help image-opts object preallocation shrink"},
    {"snapshot", "force-share help image-opts object"},
    {NULL, "help version trace"},
};
static const struct cli_long_names io_names[] = {
    {NULL, "help version cmd format read-only snapshot nocache copy-on-read misalign native-aio "
           "discard cache trace force-share object image-opts aio"},
};
static const struct cli_long_names nbd_names[] = {
    {NULL, "help version bind port socket offset read-only allocation-depth bitmap connect "
           "disconnect list snapshot load-snapshot nocache cache aio discard detect-zeroes "
           "shared format persistent verbose object export-name description tls-creds "
           "tls-hostname tls-authz image-opts trace fork pid-file selinux-label"},
};
static const struct cli_long_names daemon_names[] = {
    {NULL, "blockdev chardev daemonize export help monitor nbd-server object pidfile trace "
           "version"},
};

/* Without where faults are to be told, which are ours. */
static const char io_help[] =
    "Usage: qemu-io [OPTIONS]... [-c STRING]... [file]\n"
    "QEMU Disk exerciser\n"
    "\n"
    "  --object OBJECTDEF   define an object such as 'secret' for\n"
    "                       passwords and/or encryption keys\n"
    "  --image-opts         treat file as option string\n"
    "  -c, --cmd STRING     execute command with its arguments\n"
    "                       from the given string\n"
    "  -f, --format FMT     specifies the block driver to use\n"
    "  -r, --read-only      export read-only\n"
    "  -s, --snapshot       use snapshot file\n"
    "  -n, --nocache        disable host cache, short for -t none\n"
    "  -C, --copy-on-read   enable copy-on-read\n"
    "  -m, --misalign       misalign allocations for O_DIRECT\n"
    "  -k, --native-aio     use kernel AIO implementation\n"
    "                       (Linux only, prefer use of -i)\n"
    "  -i, --aio=MODE       use AIO mode (threads, native or io_uring)\n"
    "  -t, --cache=MODE     use the given cache mode for the image\n"
    "  -d, --discard=MODE   use the given discard mode for the image\n"
    "  -T, --trace [[enable=]<pattern>][,events=<file>][,file=<file>]\n"
    "                       specify tracing options\n"
    "                       see qemu-img(1) man page for full description\n"
    "  -U, --force-share    force shared permissions\n"
    "  -h, --help           display this help and exit\n"
    "  -V, --version        output version information and exit\n"
    "\n"
    "See 'qemu-io -c help' for information on available commands.\n";

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
    .long_names = img_names,
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
    .long_names = io_names,
    .warns_of_guessed = true,
    .usage_exit = CLI_EXIT_FAILED,
    .image_refs = "follow",
    .try_line = "Try 'qemu-io --help' for more information",
    .help = io_help,
    .image_opts_misfit = "--image-opts and -f are mutually exclusive",
    .words_are_switches = true,
    .prompts_always = true,
    .getopt_words = true,
    .open_failed = "can't open device ",
    .open_unnamed = "can't open",
    .open_quote = "",
    .version_word = "version ",
};

const struct cli_spelling spelling_qemu_storage_daemon = {
    .stands_in = true,
    .long_names = daemon_names,
    .usage_exit = CLI_EXIT_FAILED,
    .image_refs = "follow",
    .version_word = "version ",
    .getopt_words = true,
};

const struct cli_spelling spelling_qemu_nbd = {
    .stands_in = true,
    .long_names = nbd_names,
    .warns_of_guessed = true,
    .usage_exit = CLI_EXIT_FAILED,
    .image_refs = "follow",
    .try_line = "Try `qemu-nbd --help' for more information.",
    .open_failed = "Failed to blk_new_open ",
    .open_quote = "'",
    .version_word = "",
    .getopt_words = true,
};
