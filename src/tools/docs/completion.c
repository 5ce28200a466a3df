/* SPDX-License-Identifier: MIT */
/* What shells need to complete command lines, from option tables. */
#include <string.h>

#include "block/driver.h"
#include "tools/docs/docs.h"

static void put_formats(FILE *out)
{
    for (size_t i = 0; bdrv_drivers[i]; i++) {
        fprintf(out, "%s%s", i > 0 ? " " : "", bdrv_drivers[i]->format_name);
    }
}

/* The values of an option that has_values. */
static void put_values(FILE *out, const struct cli_option *o)
{
    const char *word = o->arg;

    for (size_t i = 0; o->words && o->words[i]; i++) {
        fprintf(out, "%s%s", i > 0 ? " " : "", o->words[i]);
    }
    if (o->words) {
        return;
    }
    while (*word) {
        size_t len = strcspn(word, "|");

        if (len == 3 && strncmp(word, "FMT", len) == 0) {
            put_formats(out);
        } else {
            fprintf(out, "%.*s", (int)len, word);
        }
        word += len;
        if (*word == '|') {
            fputc(' ', out);
            word++;
        }
    }
}

static bool has_values(const struct cli_option *o)
{
    return o->words || (o->arg && (strcmp(o->arg, "FMT") == 0 || strchr(o->arg, '|')));
}

/* "if= of= ": the operands of a command that are NAME=VALUE. */
static void put_settings(FILE *out, const struct cli_command *command)
{
    for (const char *word = command->operands; *word;) {
        size_t name = strcspn(word += strspn(word, "[ "), "= ");

        if (word[name] == '=') {
            fprintf(out, "%.*s= ", (int)name, word);
        }
        word += strcspn(word, " ");
    }
}

static bool has_settings(const struct cli_command *command)
{
    return strchr(command->operands, '=') != NULL;
}

static void put_command_names(FILE *out, const struct cli_program *program)
{
    for (const struct cli_command *const *c = program->commands; *c; c++) {
        if (!(*c)->hidden) {
            fprintf(out, "%s ", (*c)->name);
        }
    }
}

/* ---- bash ---- */

static void bash_options(FILE *out, const struct cli_command *command)
{
    fprintf(out, "    %s) words='", command->name);
    for (const struct cli_option *o = command->options; o->id; o++) {
        if (o->name) {
            fprintf(out, "--%s ", o->name);
        }
        if (o->letter) {
            fprintf(out, "-%c ", o->letter);
        }
    }
    fputs("--help' ;;\n", out);
}

/* "COMMAND:-x|COMMAND:--name) ", where the value of that option comes. One that may lack does not
 * belong to the letter. */
static void bash_switch(FILE *out, const struct cli_command *command, const struct cli_option *o)
{
    fputs("    ", out);
    if (o->letter && !cli_value_is_optional(o)) {
        fprintf(out, "%s:-%c%s", command->name, o->letter, o->name ? "|" : "");
    }
    if (o->name) {
        fprintf(out, "%s:--%s", command->name, o->name);
    }
    fputs(") ", out);
}

/* Values of options. Where all are possible, it is left to bash, and no operand comes there. */
static void bash_values(FILE *out, const struct cli_command *command)
{
    for (const struct cli_option *o = command->options; o->id; o++) {
        if (has_values(o)) {
            bash_switch(out, command, o);
            fputs(cli_value_is_optional(o) ? "words=${tied:+'" : "words='", out);
            put_values(out, o);
            fputs(cli_value_is_optional(o) ? "'} ;;\n" : "' ;;\n", out);
        } else if (o->arg && has_settings(command)) {
            bash_switch(out, command, o);
            fputs("return ;;\n", out);
        }
    }
}

static void bash_settings(FILE *out, const struct cli_command *command)
{
    fprintf(out, "    %s) words='", command->name);
    put_settings(out, command);
    fputs("'; compopt -o nospace 2>/dev/null ;;\n", out);
}

void docs_bash(FILE *out, const struct cli_program *program)
{
    const char *name = program->name;

    fprintf(
        out,
        "# Completion of %s for bash; made from the program's own option tables.\n"
        "# What is no option and no word of a list is completed as a file name.\n"
        "_%s()\n{\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words= tied=\n"
        "    local command=${COMP_WORDS[1]}\n\n"
        "    # bash takes --option=value for three words\n"
        "    if [[ $word == = ]]; then\n"
        "        word= tied=1\n"
        "    elif [[ $before == = ]]; then\n"
        "        before=${COMP_WORDS[COMP_CWORD-2]} tied=1\n"
        "    fi\n"
        "    COMPREPLY=()\n"
        "    if ((COMP_CWORD == 1)) || [[ $command == help ]]; then\n"
        "        if ((COMP_CWORD == 1)); then\n"
        "            words='help --help --version'\n"
        "        fi\n"
        "        if ((COMP_CWORD <= 2)); then\n"
        "            COMPREPLY=($(compgen -W '",
        name, name);
    put_command_names(out, program);
    fputs("'\"$words\" -- \"$word\"))\n"
          "        fi\n"
          "        return\n"
          "    fi\n"
          "    case $command:$before in\n",
          out);
    for (const struct cli_command *const *c = program->commands; *c; c++) {
        bash_values(out, *c);
    }
    fputs("    esac\n"
          "    if [[ -z $words && $word == -* ]]; then\n"
          "    case $command in\n",
          out);
    for (const struct cli_command *const *c = program->commands; *c; c++) {
        if (!(*c)->hidden) {
            bash_options(out, *c);
        }
    }
    fputs("    esac\n"
          "    elif [[ -z $words && -z $tied ]]; then\n"
          "    case $command in\n",
          out);
    for (const struct cli_command *const *c = program->commands; *c; c++) {
        if (has_settings(*c)) {
            bash_settings(out, *c);
        }
    }
    fprintf(out,
            "    esac\n"
            "    fi\n"
            "    if [[ -n $words ]]; then\n"
            "        COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
            "    fi\n"
            "}\n"
            "complete -o bashdefault -o default -F _%s %s\n",
            name, name);
}

/* ---- zsh ---- */

/* Between single quotes, in a specification of _arguments. */
static void zsh_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\'') {
            fputs("'\\''", out);
        } else {
            if (strchr("[]:\\", *text)) {
                fputc('\\', out);
            }
            fputc(*text, out);
        }
    }
}

/* [help]:VALUE:(words), or its files */
static void zsh_rest(FILE *out, const struct cli_option *o, bool takes_value)
{
    fputs("'[", out);
    zsh_text(out, o->help);
    fputc(']', out);
    if (takes_value) {
        fputs(cli_value_is_optional(o) ? "::" : ":", out);
        zsh_text(out, o->arg);
        fputc(':', out);
        if (has_values(o)) {
            fputc('(', out);
            put_values(out, o);
            fputc(')', out);
        } else {
            fputs("_files", out);
        }
    }
    fputc('\'', out);
}

static void zsh_option(FILE *out, const struct cli_option *o)
{
    bool may_lack = cli_value_is_optional(o);

    if (o->letter) {
        fprintf(out, "            '*-%c%s'", o->letter, o->arg && !may_lack ? "+" : "");
        zsh_rest(out, o, o->arg && !may_lack);
        fputs(" \\\n", out);
    }
    if (o->name) {
        fprintf(out, "            '*--%s%s'", o->name, may_lack ? "=-" : o->arg ? "=" : "");
        zsh_rest(out, o, o->arg);
        fputs(" \\\n", out);
    }
}

void docs_zsh(FILE *out, const struct cli_program *program)
{
    fprintf(out,
            "#compdef %s\n"
            "# Completion of %s for zsh; made from the program's own option tables.\n"
            "_%s() {\n"
            "    local -a commands switches\n"
            "    commands=(\n",
            program->name, program->name, program->name);
    for (const struct cli_command *const *c = program->commands; *c; c++) {
        if (!(*c)->hidden) {
            fprintf(out, "        '%s:", (*c)->name);
            zsh_text(out, (*c)->summary);
            fputs("'\n", out);
        }
    }
    fputs("    )\n"
          "    if (( CURRENT == 2 )); then\n"
          "        commands+=('help:print the help of a command')\n"
          "        switches=('--help:print the list of commands' '--version:print the version')\n"
          "        _describe command commands -- switches\n"
          "        return\n"
          "    fi\n"
          "    if [[ $words[2] == help ]]; then\n"
          "        (( CURRENT == 3 )) && _describe command commands\n"
          "        return\n"
          "    fi\n"
          "    local command=$words[2]\n"
          "    shift words\n"
          "    (( CURRENT-- ))\n"
          "    case $command in\n",
          out);
    for (const struct cli_command *const *c = program->commands; *c; c++) {
        if ((*c)->hidden) {
            continue;
        }
        fprintf(out, "    %s)\n        _arguments -s \\\n", (*c)->name);
        for (const struct cli_option *o = (*c)->options; o->id; o++) {
            zsh_option(out, o);
        }
        fputs("            '(-h --help)'{-h,--help}'[print a short help]' '*:", out);
        if (has_settings(*c)) {
            fputs("setting:{ if compset -P \"*=\"; then _files; else compadd -S \"\" -- ", out);
            put_settings(out, *c);
            fputs("; fi }' ;;\n", out);
        } else {
            fputs("file:_files' ;;\n", out);
        }
    }
    fprintf(out, "    esac\n}\n_%s \"$@\"\n", program->name);
}
