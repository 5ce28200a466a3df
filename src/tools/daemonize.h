/* SPDX-License-Identifier: MIT */
/* Going into the background: the process that was started ends when its child is ready, or with
 * what the child says. To be begun before there are threads and rings. */
#ifndef PLATTER_TOOLS_DAEMONIZE_H
#define PLATTER_TOOLS_DAEMONIZE_H

#include "tools/cli.h"

/* In the child: 0 and *ret_fd to be given to daemonize_ready. In the parent it does not return
 * until the child is ready, or over: then 1, and *ret_code is what the process exits with. -errno
 * that was printed. */
int daemonize_begin(struct cli *cli, int *ret_fd, int *ret_code);
/* The child is ready: the parent exits with 0, and standard input, output and errors lead nowhere
 * from now on. fd < 0: nothing. */
void daemonize_ready(int fd);

/* Go to the root of the file system, as the daemons of the reference do: what names come later are
 * absolute, and no file system is kept from being unmounted. */
void daemonize_leave_folder(void);

/* Write the number of this process to a file, which is locked as long as it runs. Its descriptor,
 * or -errno that was printed, behind the words in lead. */
int pidfile_write(struct cli *cli, const char *path, const char *lead);
void pidfile_remove(const char *path, int fd); /* fd < 0: nothing */

#endif
