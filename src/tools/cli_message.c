/* SPDX-License-Identifier: MIT */
/* What programs say: messages with the name of the program in front, hints, and words that are near
 * to what was typed. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tools/cli.h"
#include "tools/cli_message.h"

/* ---- messages ---- */

/* The byte at text, as it is shown: how many bytes in shown. Bytes from 0x80 on pass: they are
 * letters of other languages. */
static size_t show_byte(const char *text, char shown[5])
{
    unsigned char c = (unsigned char)*text;

    if (c == '\n' || c == '\t') {
        shown[0] = '\\';
        shown[1] = c == '\n' ? 'n' : 't';
        return 2;
    }
    if (c < 0x20 || c == 0x7f ||
        (c == 0xc2 && (unsigned char)text[1] >= 0x80 && (unsigned char)text[1] < 0xa0)) {
        return (size_t)snprintf(shown, 5, "\\x%02x",
                                c); /* 0xc2 0x80..0x9f: control characters, too */
    }
    shown[0] = *text;
    return 1;
}

/* Text that may hold what a user or a file name put there, on one line and without a byte that a
 * terminal obeys. */
void cli_put_text(FILE *to, const char *text)
{
    char shown[5];

    for (; *text; text++) {
        fwrite(shown, 1, show_byte(text, shown), to);
    }
}

size_t cli_text_bytes(const char *text)
{
    char shown[5];
    size_t bytes = 0;

    for (; *text; text++) {
        bytes += show_byte(text, shown);
    }
    return bytes;
}

void cli_vput_line(FILE *to, const char *fmt, va_list ap)
{
    char *text = NULL;

    if (vasprintf(&text, fmt, ap) < 0) {
        fputs("(no memory for the message)\n", to);
        return;
    }
    cli_put_text(to, text);
    fputc('\n', to);
    free(text);
}

void cli_put_line(FILE *to, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    cli_vput_line(to, fmt, ap);
    va_end(ap);
}

void cli_put_prefix(struct cli *cli, const char *kind)
{
    fprintf(cli->err, "%s: ", cli->program->name);
    if (cli->command && cli_spelling(cli)->names_command) {
        fprintf(cli->err, "%s: ", cli->command->name);
    }
    fputs(kind, cli->err);
}

int cli_error(struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    if (cli_is_muted(cli)) {
        return CLI_EXIT_FAILED;
    }
    (void)cli_flush(cli);
    cli_put_prefix(cli, "");
    va_start(ap, fmt);
    cli_vput_line(cli->err, fmt, ap);
    va_end(ap);
    return CLI_EXIT_FAILED;
}

int cli_usage_error(struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    if (cli_is_muted(cli)) {
        return CLI_EXIT_USAGE;
    }
    cli_put_prefix(cli, "");
    va_start(ap, fmt);
    cli_vput_line(cli->err, fmt, ap);
    va_end(ap);
    cli->usage_told = true;
    if (cli_stands_in(cli)) {
        if (cli_spelling(cli)->try_line) {
            fprintf(cli->err, "%s\n", cli_spelling(cli)->try_line);
        }
    } else if (cli->command) {
        fprintf(cli->err, "Try '%s %s --help'\n", cli->program->name, cli->command->name);
    } else {
        fprintf(cli->err, "Try '%s --help'\n", cli->program->name);
    }
    return CLI_EXIT_USAGE;
}

int cli_misfit(struct cli *cli, const char *message)
{
    if (cli_stands_in(cli)) {
        cli->usage_told = true;
        cli_error(cli, "%s", message);
        return CLI_EXIT_USAGE;
    }
    return cli_usage_error(cli, "%s", message);
}

void cli_warning(struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    if (cli_is_muted(cli)) {
        return;
    }
    cli_put_prefix(cli, "warning: ");
    va_start(ap, fmt);
    cli_vput_line(cli->err, fmt, ap);
    va_end(ap);
}

void cli_hint(struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    if (!cli_spelling(cli)->hints || cli_is_muted(cli)) {
        return;
    }
    va_start(ap, fmt);
    cli_vput_line(cli->err, fmt, ap);
    va_end(ap);
}

void cli_put_hints(struct cli *cli, const Error *err)
{
    const char *hint = error_get_hint(err);

    if (cli_is_muted(cli)) {
        return;
    }
    if (hint) {
        cli_hint(cli, "%s", hint);
    }
    for (unsigned i = 0; !cli_spelling(cli)->hints && (hint = error_get_compat_hint(err, i)); i++) {
        cli_put_line(cli->err, "%s", hint);
    }
}

int cli_report(struct cli *cli, Error *err)
{
    cli_error(cli, "%s", error_get_pretty(err));
    cli_put_hints(cli, err);
    error_free(err);
    return CLI_EXIT_FAILED;
}

/* ---- suggestions ---- */

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Letters to insert, remove, replace or swap with their neighbour to get from a to b; words longer
 * than WORD_MAX count as far. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][WORD_MAX + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);

    if (a_len > WORD_MAX || b_len > WORD_MAX) {
        return WORD_MAX;
    }
    for (size_t j = 0; j <= b_len; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3];
        const size_t *two_above = rows[(i + 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            row[j] =
                min_size(above[j - 1] + (a[i - 1] != b[j - 1]), min_size(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = min_size(row[j], two_above[j - 2] + 1);
            }
        }
    }
    return rows[a_len % 3][b_len];
}

const char *cli_nearest(const char *typed, const char *const *words)
{
    size_t best = strlen(typed) < 5 ? 2 : 3; /* a short word is near to everything */
    const char *nearest = NULL;

    for (; *words; words++) {
        size_t distance = edit_distance(typed, *words);

        if (distance < best || (!nearest && strncmp(typed, *words, strlen(typed)) == 0)) {
            best = distance < best ? distance : best;
            nearest = *words;
        }
    }
    return nearest;
}
