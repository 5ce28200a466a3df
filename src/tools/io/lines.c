/* SPDX-License-Identifier: MIT */
/*
 * platter io: lines from the input. On a terminal they can be edited, those of this session come
 * back with the arrow keys, and Tab completes a command (libedit, where the build has it). While a
 * line is awaited, requests that are in flight end and say so.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "os/os.h"
#include "tools/io/io.h"

#ifdef HAVE_LIBEDIT
#include <histedit.h>
#endif

#define HISTORY_LINES 1000
#define INPUT_BYTES 4096
#define LINE_BYTES_MAX (1024 * 1024)
#define NAMES_A_LINE 5

struct input {
    struct io_session *s;
    int fd;
    int error; /* -errno that ended it; 0: the end of the file */
    bool ready;
    unsigned char bytes[INPUT_BYTES]; /* read and not yet used: from at, count of them */
    size_t at;
    size_t count;
};

static void input_is_ready(void *opaque)
{
    struct input *in = opaque;

    in->ready = true;
}

/* Let the loop run until there is something to read. 0 or -errno. */
static int input_wait(struct input *in)
{
    AioContext *ctx = platter_get_main_context(in->s->pl);
    int ret;

    in->ready = false;
    ret = aio_set_fd_handler(ctx, in->fd, input_is_ready, NULL, in);
    if (ret < 0) {
        return ret;
    }
    while (!in->ready) {
        aio_poll(ctx, true);
    }
    aio_set_fd_handler(ctx, in->fd, NULL, NULL, NULL);
    return 0;
}

/* Bytes read, 0 at the end, or -errno. Who shares the descriptor may have made it one that does not
 * block. */
static int64_t input_read(struct input *in)
{
    int64_t n;

    if (in->s->in_flight > 0) {
        (void)input_wait(in); /* what cannot be waited for (a file) is read */
    }
    do {
        n = os->read(in->fd, in->bytes, sizeof(in->bytes));
        if (n == -EAGAIN) {
            int ret = input_wait(in);

            n = ret < 0 ? ret : -EINTR;
        }
    } while (n == -EINTR);
    return n;
}

/* The next byte; -1 at the end. */
static int input_byte(struct input *in)
{
    if (in->count == 0) {
        int64_t n;

        fflush(in->s->cli->out);
        n = input_read(in);
        if (n <= 0) {
            in->error = (int)n;
            return -1;
        }
        in->at = 0;
        in->count = (size_t)n;
    }
    in->count--;
    return in->bytes[in->at++];
}

/* The next line without its end, in *ret_line (malloc'd). 1; 0 at the end of the input; -E2BIG: it
 * is too long, and has gone by; or -errno. */
static int plain_line(struct input *in, char **ret_line)
{
    char *line = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&line, &size);
    size_t n = 0;
    int c;
    int ret;

    if (!to) {
        return -ENOMEM;
    }
    c = input_byte(in);
    ret = c >= 0;
    for (; c >= 0 && c != '\n'; c = input_byte(in)) {
        if (n++ < LINE_BYTES_MAX) {
            fputc(c, to);
        }
    }
    if (fclose(to) != 0) {
        ret = -ENOMEM;
    } else if (n > LINE_BYTES_MAX) {
        ret = -E2BIG;
    } else if (in->error < 0) { /* of a line that broke off nobody knows what it was to be */
        ret = 0;
    }
    if (ret <= 0) {
        free(line);
        return ret;
    }
    *ret_line = line;
    return ret;
}

static void tell_fault(struct io_session *s, int ret)
{
    if (ret == -E2BIG) {
        cli_error(s->cli, "a line of standard input is longer than %d bytes: none of it was run",
                  LINE_BYTES_MAX);
    } else {
        cli_error(s->cli, "cannot read standard input: %s", strerror(-ret));
    }
}

static bool run_plain(struct io_session *s, struct input *in, bool prompt)
{
    bool good = true;
    int ret = 1;

    while (!s->quit && (ret > 0 || ret == -E2BIG)) {
        char *line;

        if (prompt) {
            fprintf(s->cli->out, "%s> ", s->cli->program->name);
        }
        ret = plain_line(in, &line);
        if (ret > 0) {
            good &= io_run_line(s, line) >= 0;
            free(line);
        } else if (ret < 0) {
            good = false;
            tell_fault(s, ret);
        }
    }
    return good;
}

#ifdef HAVE_LIBEDIT
struct editor {
    struct input *in;
    EditLine *el;
    History *history;
    char prompt[64];
};

static char *editor_prompt(EditLine *el)
{
    struct editor *ed = NULL;

    el_get(el, EL_CLIENTDATA, &ed);
    return ed->prompt;
}

/* The next character: 1, 0 at the end. */
static int editor_char(EditLine *el, wchar_t *ret)
{
    struct editor *ed = NULL;
    mbstate_t state = {0};
    size_t n;

    el_get(el, EL_CLIENTDATA, &ed);
    do {
        int c = input_byte(ed->in);
        char byte = (char)c;

        if (c < 0) {
            return 0;
        }
        n = mbrtowc(ret, &byte, 1, &state);
        if (n == (size_t)-1) {
            *ret = (wchar_t)c;
        }
    } while (n == (size_t)-2);
    return 1;
}

/* How much of their names commands begin with alike. */
static size_t agreed_len(const struct io_command *const *found, size_t count)
{
    size_t len = strlen(found[0]->name);

    for (size_t i = 1; i < count; i++) {
        while (strncmp(found[0]->name, found[i]->name, len) != 0) {
            len--;
        }
    }
    return len;
}

static void show_names(FILE *out, const struct io_command *const *found, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s%-14s", i % NAMES_A_LINE == 0 ? "\n" : "", found[i]->name);
    }
    fputc('\n', out);
}

/* Tab behind a first word: it becomes as long as all that begin so agree on, or these are shown. */
static unsigned char editor_complete(EditLine *el, int c)
{
    const LineInfo *line = el_line(el);
    size_t len = (size_t)(line->cursor - line->buffer);
    const struct io_command *found[IO_COMMANDS_MAX];
    size_t count = io_commands_beginning(line->buffer, len, found);
    size_t agreed = count > 0 ? agreed_len(found, count) : 0;
    struct editor *ed = NULL;
    char more[64];

    if (count == 0) {
        return CC_ERROR;
    }
    if (count > 1 && agreed == len) {
        el_get(el, EL_CLIENTDATA, &ed);
        show_names(ed->in->s->cli->out, found, count);
        return CC_REDISPLAY;
    }
    snprintf(more, sizeof(more), "%.*s%s", (int)(agreed - len), found[0]->name + len,
             count == 1 ? " " : "");
    return el_insertstr(el, more) == 0 ? CC_REFRESH : CC_ERROR;
}

/* Ctrl-D: on an empty line the end of the input, which the editor's own command would write out as
 * ^D first; else it deletes what is under the cursor. */
static unsigned char editor_delete_or_end(EditLine *el, int c)
{
    const LineInfo *line = el_line(el);

    if (line->lastchar == line->buffer) {
        return CC_EOF;
    }
    if (line->cursor == line->lastchar) {
        return CC_ERROR;
    }
    el_cursor(el, 1);
    el_deletestr(el, 1);
    return CC_REFRESH;
}

static void editor_fini(struct editor *ed)
{
    if (ed->el) {
        el_end(ed->el);
    }
    if (ed->history) {
        history_end(ed->history);
    }
}

static bool editor_init(struct editor *ed)
{
    struct cli *cli = ed->in->s->cli;
    HistEvent event;

    snprintf(ed->prompt, sizeof(ed->prompt), "%s> ", cli->program->name);
    ed->el = el_init(cli->program->name, cli->in, cli->out, cli->err);
    ed->history = history_init();
    if (!ed->el || !ed->history) {
        return false;
    }
    history(ed->history, &event, H_SETSIZE, HISTORY_LINES);
    el_set(ed->el, EL_CLIENTDATA, ed);
    el_set(ed->el, EL_PROMPT, editor_prompt);
    el_set(ed->el, EL_EDITOR, "emacs");
    el_set(ed->el, EL_HIST, history, ed->history);
    el_set(ed->el, EL_GETCFN, editor_char);
    /* of the wide names the library keeps no copies, which it would never give back */
    el_wset(ed->el, EL_ADDFN, L"complete-command", L"Complete the name of a command",
            editor_complete);
    el_set(ed->el, EL_BIND, "^I", "complete-command", NULL);
    el_wset(ed->el, EL_ADDFN, L"delete-or-end", L"Delete a character or end", editor_delete_or_end);
    el_set(ed->el, EL_BIND, "^D", "delete-or-end", NULL);
    return true;
}

static bool run_edited(struct editor *ed)
{
    struct io_session *s = ed->in->s;
    bool good = true;

    while (!s->quit) {
        int count = 0;
        const char *line;
        HistEvent event;
        char *copy;

        el_set(ed->el, EL_PREP_TERM, 1); /* before the prompt: who has seen it may edit at once */
        line = el_gets(ed->el, &count);
        if (!line || count <= 0) {
            break;
        }
        if (line[strspn(line, " \t\r\n")] != '\0') {
            history(ed->history, &event, H_ENTER, line);
        }
        copy = strdup(line); /* the command may wait, and the editor's buffer is its own */
        good &= copy && io_run_line(s, copy) >= 0;
        free(copy);
    }
    return good;
}
#endif

bool io_run_input(struct io_session *s)
{
    struct input in = {.s = s, .fd = fileno(s->cli->in)};
    bool terminal = isatty(in.fd);
    bool good;
#ifdef HAVE_LIBEDIT
    struct editor ed = {.in = &in};

    if (terminal && editor_init(&ed)) {
        good = run_edited(&ed);
    } else
#endif
    {
        good = run_plain(s, &in, terminal || cli_spelling(s->cli)->prompts_always);
    }
#ifdef HAVE_LIBEDIT
    editor_fini(&ed);
#endif
    if (terminal && !s->quit) {
        fputc('\n', s->cli->out);
    }
    if (in.error < 0 && !cli_stands_in(s->cli)) { /* the reference takes it for the end */
        tell_fault(s, in.error);
        good = false;
    }
    return good;
}
