/* SPDX-License-Identifier: MIT */
/* The commands that programs are made of, one file (or folder) each. */
#ifndef PLATTER_TOOLS_COMMANDS_H
#define PLATTER_TOOLS_COMMANDS_H

#include "tools/cli.h"

extern const struct cli_command command_create;   /* img/create.c */
extern const struct cli_command command_info;     /* img/info.c */
extern const struct cli_command command_inspect;  /* img/inspect.c */
extern const struct cli_command command_check;    /* img/check.c */
extern const struct cli_command command_checksum; /* img/checksum.c */
extern const struct cli_command command_map;      /* img/map.c */
extern const struct cli_command command_compact;  /* img/compact.c */
extern const struct cli_command command_compare;  /* img/compare.c */
extern const struct cli_command command_convert;  /* img/convert.c */
extern const struct cli_command command_dd;       /* img/dd.c */
extern const struct cli_command command_measure;  /* img/measure.c */
extern const struct cli_command command_resize;   /* img/resize.c */
extern const struct cli_command command_snapshot; /* img/snapshot.c */
extern const struct cli_command command_amend;    /* img/amend.c */
extern const struct cli_command command_bitmap;   /* img/bitmap.c */
extern const struct cli_command command_rebase;   /* img/rebase.c */
extern const struct cli_command command_commit;   /* img/commit.c */
extern const struct cli_command command_serve;    /* serve/serve.c */
extern const struct cli_command command_top;      /* top/top.c */
extern const struct cli_command command_daemon;   /* daemon/daemon.c */
extern const struct cli_command command_docs;     /* docs/docs.c */
extern const struct cli_command command_bench;    /* img/bench.c */
extern const struct cli_command command_nbd;      /* nbd/nbd.c */
extern const struct cli_command command_io;       /* io/io.c */

#endif
