/* SPDX-License-Identifier: MIT */
/* Manual pages from option tables. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <platter/platter.h>

#include "os/os.h"
#include "tools/docs/docs.h"

#define LINE_BYTES 78 /* of filled text, as it is written */

/* What stands for a character that roff would take for something else; NULL: itself. '-' is the one
 * that can be copied into a shell. */
static const char *roff_char(char c)
{
    switch (c) {
    case '\\':
        return "\\e";
    case '-':
        return "\\-";
    case '\'':
        return "\\(aq";
    case '^':
        return "\\(ha";
    case '~':
        return "\\(ti";
    default:
        return NULL;
    }
}

static size_t roff_bytes(const char *text, size_t len)
{
    size_t bytes = 0;

    for (size_t i = 0; i < len; i++) {
        bytes += roff_char(text[i]) ? strlen(roff_char(text[i])) : 1;
    }
    return bytes;
}

/* len bytes of text as roff input: nothing in it is an instruction. */
static void put(FILE *out, const char *text, size_t len)
{
    if (len > 0 && (text[0] == '.' || text[0] == '\'')) {
        fputs("\\&", out);
    }
    for (size_t i = 0; i < len; i++) {
        const char *escaped = roff_char(text[i]);

        if (escaped) {
            fputs(escaped, out);
        } else {
            fputc(text[i], out);
        }
    }
}

/* Text to be filled, in short lines; a sentence begins one. Its last line is not ended. */
static void put_filled(FILE *out, const char *text, size_t len)
{
    size_t column = 0;

    for (size_t at = 0, word; at < len; at += word + (at + word < len)) {
        bool begins = at >= 2 && strchr(".!?", text[at - 2]) && isupper((unsigned char)text[at]);
        size_t bytes;

        word = 0;
        while (at + word < len && text[at + word] != ' ') {
            word++;
        }
        bytes = roff_bytes(text + at, word);
        if (column > 0) {
            bool wraps = begins || column + 1 + bytes > LINE_BYTES;

            fputc(wraps ? '\n' : ' ', out);
            column = wraps ? 0 : column + 1;
        }
        put(out, text + at, word);
        column += bytes;
    }
}

static void put_text(FILE *out, const char *text)
{
    put(out, text, strlen(text));
}

static void put_upper(FILE *out, const char *text)
{
    for (; *text; text++) {
        char c = (char)toupper((unsigned char)*text);

        put(out, &c, 1);
    }
}

/* Of the build, which may say that it is another day, so that it can be made again. */
static void put_date(FILE *out)
{
    const char *given = getenv("SOURCE_DATE_EPOCH");
    time_t when =
        given ? (time_t)strtoll(given, NULL, 10) : (time_t)(os->clock_realtime_ns() / 1000000000);
    char date[32] = "";
    struct tm day;

    if (gmtime_r(&when, &day)) {
        strftime(date, sizeof(date), "%Y-%m-%d", &day);
    }
    fprintf(out, " 1 \"%s\"", date);
}

static void put_title(FILE *out, const struct cli_program *program,
                      const struct cli_command *command)
{
    const char *summary = command ? command->summary : program->summary;

    fputs(".TH ", out);
    put_upper(out, program->name);
    if (command) {
        fputs("\\-", out);
        put_upper(out, command->name);
    }
    put_date(out);
    fprintf(out, " \"%s %s\" \"Virtual disks\"\n.nh\n", program->name, platter_version());
    fprintf(out, ".SH NAME\n%s%s", program->name, command ? "\\-" : "");
    if (command) {
        put_text(out, command->name);
    }
    fputs(" \\-\n", out);
    put_filled(out, summary, strlen(summary));
    fputs("\n", out);
}

static void put_option(FILE *out, const struct cli_option *o)
{
    bool may_lack = cli_value_is_optional(o);

    fputs(".TP\n", out);
    if (o->letter) {
        fputs("\\fB\\-", out);
        put(out, &o->letter, 1);
        fputs(o->name ? "\\fR, " : "\\fR", out);
    }
    if (o->name) {
        fputs("\\fB\\-\\-", out);
        put_text(out, o->name);
        fputs("\\fR", out);
    }
    if (o->arg) {
        fputs(may_lack ? "" : o->name ? "=" : " ", out);
        fputs("\\fI", out);
        put_text(out, o->arg);
        fputs("\\fR", out);
    }
    fputc('\n', out);
    put_filled(out, o->help, strlen(o->help));
    fputs(".\n", out);
}

/* Details as they are on a terminal: what is filled there is filled here, what is indented stays
 * line by line, and "Examples:" begins a section. */
static void put_details(FILE *out, const char *text)
{
    bool verbatim = false;

    while (*text) {
        size_t len = strcspn(text, "\n");
        bool indented = len > 0 && text[0] == ' ';

        if (verbatim && !indented && len > 0) {
            fputs(".fi\n.RE\n", out);
            verbatim = false;
        }
        if ((len == 9 && strncmp(text, "Examples:", 9) == 0) ||
            (len == 8 && strncmp(text, "Example:", 8) == 0)) {
            fputs(".SH EXAMPLES\n", out);
        } else if (len == 0) {
            /* before an example the section makes the distance */
            fputs(verbatim ? "\n" : strncmp(text + 1, "Example", 7) == 0 ? "" : ".PP\n", out);
        } else {
            if (indented && !verbatim) {
                fputs(".RS\n.nf\n", out);
                verbatim = true;
            }
            if (indented) {
                put(out, text + 2, len - 2);
            } else {
                put_filled(out, text, len);
            }
            fputc('\n', out);
        }
        text += len + (text[len] == '\n');
    }
    if (verbatim) {
        fputs(".fi\n.RE\n", out);
    }
}

static void put_command(FILE *out, const struct cli_program *program,
                        const struct cli_command *command)
{
    fprintf(out, ".SH SYNOPSIS\n\\fB%s ", program->name);
    put_text(out, command->name);
    fprintf(out, "\\fR [\\fIOPTION\\fR]...%s", *command->operands ? " " : "");
    put_text(out, command->operands);
    fputs("\n.SH DESCRIPTION\n", out);
    put_text(out, command->summary);
    fputs(".\n.SH OPTIONS\n", out);
    for (const struct cli_option *o = command->options; o->id; o++) {
        put_option(out, o);
    }
    fputs(".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nprint a short help and end.\n", out);
    if (command->details) {
        fputs(strncmp(command->details, "Example", 7) == 0 ? "" : ".SH NOTES\n", out);
        put_details(out, command->details);
    }
    fprintf(out, ".SH SEE ALSO\n.BR %s (1)\n", program->name);
}

static void put_program(FILE *out, const struct cli_program *program)
{
    fprintf(out,
            ".SH SYNOPSIS\n\\fB%s\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR]... [\\fIOPERAND\\fR]...\n"
            ".SH DESCRIPTION\n",
            program->name);
    put_text(out, program->summary);
    fputs(
        "\nEach command has a manual page of its own.\nSizes take the suffixes k, M, G, T, P, E.\n"
        ".SH COMMANDS\n",
        out);
    for (const struct cli_command *const *c = program->commands; *c; c++) {
        if (!(*c)->hidden) {
            fprintf(out, ".TP\n.BR %s\\-", program->name);
            put_text(out, (*c)->name);
            fputs(" (1)\n", out);
            put_text(out, (*c)->summary);
            fputs(".\n", out);
        }
    }
}

void docs_man(FILE *out, const struct cli_program *program, const struct cli_command *command)
{
    put_title(out, program, command);
    if (command) {
        put_command(out, program, command);
    } else {
        put_program(out, program);
    }
}
