/* SPDX-License-Identifier: MIT */
/* Keys and the screen. */
#include <curses.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/top/screen.h"
#include "util/error.h"

#define ROWS_MAX 512
#define NAME_BYTES 64

/* The lines of a table as they were put, so that one can be chosen. */
struct screen {
    struct top_view *view;
    int delay_ms;
    int row;   /* of the screen, next to be written */
    int items; /* rows that are no headings */
    int chosen;
    char names[ROWS_MAX][NAME_BYTES]; /* first word of each */
    char only[NAME_BYTES];            /* what view->only points to */
};

static void put_line(void *opaque, bool heading, const char *line)
{
    struct screen *s = opaque;
    bool marked = !heading && s->items == s->chosen;

    if (!heading && s->items < ROWS_MAX) {
        snprintf(s->names[s->items], NAME_BYTES, "%.*s", (int)strcspn(line, " "), line);
    }
    s->items += !heading;
    if (s->row >= LINES) {
        return;
    }
    attrset(heading ? A_BOLD : marked ? A_REVERSE : A_NORMAL);
    mvaddnstr(s->row++, 0, line, COLS);
    attrset(A_NORMAL);
}

static int draw(struct screen *s, const struct top_sample *before, const struct top_sample *now)
{
    int ret;

    erase();
    mvprintw(0, 0, "platter top  %s%s%s  sorted by %s", top_table_names[s->view->table],
             s->view->only ? " of " : "", s->view->only ? s->view->only : "",
             top_sort_names[s->view->sort]);
    mvprintw(1, 0, "tab: table   s: sort   enter: only this   backspace: all   q: quit");
    s->row = 3;
    s->items = 0;
    ret = top_view_put(s->view, before, now, put_line, s);
    refresh();
    return ret;
}

static void choose(struct screen *s)
{
    if (s->chosen < s->items && s->chosen < ROWS_MAX) {
        memcpy(s->only, s->names[s->chosen], NAME_BYTES);
        s->view->only = s->only;
        s->chosen = 0;
    }
}

/* False: the user leaves. */
static bool key(struct screen *s, int c)
{
    switch (c) {
    case 'q':
        return false;
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
        choose(s);
        break;
    case KEY_BACKSPACE:
    case 127:
    case 27:
        s->view->only = NULL;
        break;
    }
    return true;
}

/* Keys until the time is over. False: the user leaves. */
static bool wait_for_keys(struct screen *s, const struct top_sample *before,
                          const struct top_sample *now)
{
    int c;

    timeout(s->delay_ms);
    while ((c = getch()) != ERR) {
        if (!key(s, c)) {
            return false;
        }
        draw(s, before, now);
    }
    return true;
}

static int loop(struct screen *s, struct top_client *client, Error **errp)
{
    struct top_sample before = {0};
    struct top_sample now;
    bool goes_on = true;
    int ret = top_sample_take(client, &before, errp);

    while (ret == 0 && goes_on) {
        ret = top_sample_take(client, &now, errp);
        if (ret < 0) {
            break;
        }
        ret = draw(s, &before, &now);
        goes_on = ret == 0 && wait_for_keys(s, &before, &now);
        top_sample_fini(&before);
        before = now;
    }
    top_sample_fini(&before);
    return ret;
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
    view->only = NULL;
    free(s);
    return ret;
}
