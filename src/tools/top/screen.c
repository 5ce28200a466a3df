/* SPDX-License-Identifier: MIT */
/* Keys and the screen. */
#include <curses.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"
#include "tools/top/screen.h"
#include "util/error.h"

#define ROWS_MAX 512

/* The lines of a table as they were put, so that one can be chosen. */
struct screen {
    struct top_view *view;
    int delay_ms;
    int row;   /* of the screen, next to be written */
    int items; /* rows that are no headings */
    int chosen;
    const char *names[ROWS_MAX]; /* of each; borrowed from the look that is drawn */
    char *only;                  /* owned: what view->only points to */
};

static void put_line(void *opaque, const char *name, const char *line)
{
    struct screen *s = opaque;
    bool marked = name && s->items == s->chosen;

    if (name && s->items < ROWS_MAX) {
        s->names[s->items] = name;
    }
    s->items += name != NULL;
    if (s->row >= LINES) {
        return;
    }
    attrset(!name ? A_BOLD : marked ? A_REVERSE : A_NORMAL);
    mvaddnstr(s->row++, 0, line, COLS);
    attrset(A_NORMAL);
}

static int draw(struct screen *s, const struct top_sample *before, const struct top_sample *now)
{
    char only[64];
    int ret;

    erase();
    mvprintw(0, 0, "platter top  %s%s%s  sorted by %s", top_table_names[s->view->table],
             s->view->only ? " of " : "", top_view_plain(s->view->only, only, sizeof(only)),
             top_sort_names[s->view->sort]);
    mvprintw(1, 0, "tab: table   s: sort   enter: only this   backspace: all   q: quit");
    s->row = 3;
    s->items = 0;
    ret = top_view_put(s->view, before, now, put_line, s);
    refresh();
    return ret;
}

static void show_only(struct screen *s, char *name)
{
    free(s->only);
    s->only = name;
    s->view->only = name;
}

static int choose(struct screen *s)
{
    char *name;

    if (s->chosen >= s->items || s->chosen >= ROWS_MAX) {
        return 0;
    }
    name = strdup(s->names[s->chosen]);
    if (!name) {
        return -ENOMEM;
    }
    show_only(s, name);
    s->chosen = 0;
    return 0;
}

/* 0 or -ENOMEM. */
static int key(struct screen *s, int c)
{
    switch (c) {
    case '\t':
        s->view->table = (s->view->table + 1) % TOP_TABLES;
        s->chosen = 0;
        break;
    case 's':
        s->view->sort = (s->view->sort + 1) % TOP_SORTS;
        break;
    case KEY_UP:
        s->chosen -= s->chosen > 0;
        break;
    case KEY_DOWN:
        s->chosen += s->chosen + 1 < s->items;
        break;
    case '\n':
    case KEY_ENTER:
        return choose(s);
    case KEY_BACKSPACE:
    case 127:
    case 27:
        show_only(s, NULL);
        break;
    }
    return 0;
}

/* The next key; ERR when the time is over. A terminal that cannot be read fails at once: its time
 * goes by all the same. */
static int wait_for_key(struct screen *s)
{
    int64_t end_ns = os->clock_monotonic_ns() + (int64_t)s->delay_ms * 1000000;
    int64_t left_ns;
    int c = getch();

    left_ns = end_ns - os->clock_monotonic_ns();
    if (c == ERR && left_ns > 0 && isatty(STDIN_FILENO)) {
        os->sleep_ns(left_ns);
    }
    return c;
}

/* Keys until the time is over. 1: the user leaves; 0; or -errno. */
static int wait_for_keys(struct screen *s, const struct top_sample *before,
                         const struct top_sample *now)
{
    int ret = 0;
    int c;

    timeout(s->delay_ms);
    while (ret == 0 && (c = wait_for_key(s)) != ERR) {
        if (c == 'q') {
            return 1;
        }
        ret = key(s, c);
        if (ret == 0) {
            ret = draw(s, before, now);
        }
    }
    return ret == 0 && !isatty(STDIN_FILENO) ? -EIO : ret; /* one that hung up is none any more */
}

static int loop(struct screen *s, struct top_client *client, Error **errp)
{
    struct top_sample before = {0};
    struct top_sample now;
    int ret = top_sample_take(client, &before, errp);

    while (ret == 0) {
        ret = top_sample_take(client, &now, errp);
        if (ret < 0) {
            break;
        }
        ret = draw(s, &before, &now);
        ret = ret == 0 ? wait_for_keys(s, &before, &now) : ret;
        top_sample_fini(&before);
        before = now;
        if (ret < 0) {
            error_set_errno(errp, -ret, "the screen cannot go on");
        }
    }
    top_sample_fini(&before);
    return ret < 0 ? ret : 0;
}

int top_screen_run(struct top_client *client, struct top_view *view, int delay_ms, Error **errp)
{
    struct screen *s = calloc(1, sizeof(*s));
    int ret;

    if (!s) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    s->view = view;
    s->delay_ms = delay_ms;
    initscr();
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    ret = loop(s, client, errp);
    endwin();
    show_only(s, NULL);
    free(s);
    return ret;
}
