/* SPDX-License-Identifier: MIT */
/* The terminal of `top`, where the build has curses. */
#ifndef PLATTER_TOOLS_TOP_SCREEN_H
#define PLATTER_TOOLS_TOP_SCREEN_H

#include "tools/top/view.h"

/* Show the daemon anew each delay_ms until q is pressed. 0, or -errno with errp. */
int top_screen_run(struct top_client *client, struct top_view *view, int delay_ms, Error **errp);

#endif
