/* SPDX-License-Identifier: MIT */
/* Manual pages from option tables. */
#include <ctype.h>
#include <string.h>

#include <platter/platter.h>

#include "tools/docs/docs.h"

/* len bytes of text as roff input: nothing in it is an instruction, and '-' is the one that can be
 * copied into a shell. */
static void put(FILE *out, const char *text, size_t len)
{
    if (len > 0 && (text[0] == '.' || text[0] == '\'')) {
        fputs("\\&", out);
    }
    for (size_t i = 0; i < len; i++) {
        switch (text[i]) {
        case '\\':
            fputs("\\e", out);
            break;
        case '-':
            fputs("\\-", out);
            break;
        case '\'':
            fputs("\\(aq", out);
            break;
        case '^':
            fputs("\\(ha", out);
            break;
        case '~':
            fputs("\\(ti", out);
            break;
        default:
            fputc(text[i], out);
        }
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

static void put_title(FILE *out, const struct cli_program *program,
                      const struct cli_command *command)
{
    fputs(".TH ", out);
    put_upper(out, program->name);
    if (command) {
        fputs("\\-", out);
        put_upper(out, command->name);
    }
    fprintf(out, " 1 \"\" \"%s %s\" \"Virtual disks\"\n.nh\n", program->name, platter_version());
    fprintf(out, ".SH NAME\n%s%s", program->name, command ? "\\-" : "");
    if (command) {
        put_text(out, command->name);
    }
    fputs(" \\- ", out);
    put_text(out, command ? command->summary : program->summary);
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
    put_text(out, o->help);
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
            put(out, text + (indented ? 2 : 0), len - (indented ? 2 : 0));
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
    fputs("\\fR [\\fIOPTION\\fR]... ", out);
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
