/* SPDX-License-Identifier: MIT */
/* Lists of a format's own options. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schema/opts.h"
#include "tools/option_list.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/options.h"
#include "util/text.h"

#define OPTION_LIST_KEYS_MAX 64

/* Take "help" and "?", which have no value, out of the text. */
static bool take_help(char *text)
{
    bool help = false;
    char *to = text;

    for (char *word = text; *word != '\0';) {
        size_t len = strcspn(word, ",");
        size_t step = len + (word[len] == ',');

        if ((len == 4 && memcmp(word, "help", 4) == 0) || (len == 1 && *word == '?')) {
            help = true;
        } else {
            memmove(to, word, step);
            to += step;
        }
        word += step;
    }
    if (help && to > text && to[-1] == ',') {
        to--;
    }
    *to = '\0';
    return help;
}

/* The end of a value: two commas are one of its own. */
static const char *value_end(const char *p)
{
    while (*p != '\0' && (p[0] != ',' || p[1] == ',')) {
        p += *p == ',' ? 2 : 1;
    }
    return p;
}

/* A word without a value is switched on, or off where it begins with "no". */
static void put_switch(struct cli *cli, struct text *t, const char *word, int len, bool warns)
{
    bool off = len > 2 && strncmp(word, "no", 2) == 0;
    int skipped = off ? 2 : 0;
    const char *value = off ? "off" : "on";

    text_printf(t, "%.*s=%s", len - skipped, word + skipped, value);
    if (warns && !(len == 4 && strncmp(word, "help", 4) == 0) && !(len == 1 && *word == '?')) {
        cli_warning(cli, "short-form boolean option '%.*s' deprecated", len, word);
        cli_put_line(cli->err, "Please use %.*s=%s instead", len - skipped, word + skipped, value);
    }
}

char *option_list_spelled(struct cli *cli, const char *text, bool is_first_named, bool warns)
{
    struct text t = {0};

    for (const char *word = text; *word != '\0';) {
        const char *end = word + strcspn(word, "=,");

        text_puts(&t, word == text ? "" : ",");
        if (*end == '=' || (word == text && is_first_named)) {
            end = value_end(end);
            text_put(&t, word, (size_t)(end - word));
        } else {
            put_switch(cli, &t, word, (int)(end - word), warns);
        }
        word = end + (*end == ',');
    }
    return text_end(&t);
}

/* What the reference asks of a list before it looks at the options in it. */
static bool is_list(const char *text)
{
    size_t len = strlen(text), commas = 0;

    while (commas < len && text[len - commas - 1] == ',') {
        commas++;
    }
    return len > 0 && text[0] != ',' && commas % 2 == 0;
}

int option_list_add(struct cli *cli, struct option_list *list, const char *text)
{
    bool of_image = cli->program->commands != NULL; /* that is made */
    AUTO_FREE char *copy = strdup(text);
    BlockOptions *more = NULL;
    Error *err = NULL;
    int code = CLI_EXIT_OK;

    if (cli_stands_in(cli) && of_image && !is_list(text)) {
        return cli_error(cli, "Invalid option list: %s", text);
    }
    if (copy && take_help(copy)) {
        list->help = true;
    }
    if (copy && cli_stands_in(cli)) {
        char *spelled = option_list_spelled(cli, copy, false, !of_image);

        free(copy);
        copy = spelled;
    }
    if (!copy) {
        return cli_error(cli, "out of memory");
    }
    if (*copy != '\0' || *text == '\0') {
        more = block_options_parse(copy, NULL, &err);
        if (!more) {
            cli_report(cli, err);
            cli->usage_told = true;
            code = CLI_EXIT_USAGE;
        } else if (!list->options) {
            list->options = more;
            more = NULL;
        } else if (block_options_put_prefix(list->options, "", more) < 0) {
            code = cli_error(cli, "out of memory");
        }
    }
    block_options_free(more);
    return code;
}

void option_list_fini(struct option_list *list)
{
    block_options_free(list->options);
    *list = (struct option_list){0};
}

static void print_key(FILE *out, const struct opts_key *k)
{
    char left[64];

    snprintf(left, sizeof(left), "%s=<%s>", k->key, k->type);
    fprintf(out, "  %-22s - %s\n", left, k->doc);
}

void option_list_print(FILE *out, const struct opts_key *keys)
{
    for (const struct opts_key *k = keys; k && k->key; k++) {
        print_key(out, k);
    }
}

/* Of the file, not of what is in it. */
static bool is_of_file(const BlockDriver *drv, const char *key)
{
    bool raw = strcmp(drv->format_name, "raw") == 0;

    return !(drv->caps & BDRV_CAP_PROTOCOL) &&
           (strcmp(key, "extent_size_hint") == 0 || strcmp(key, "nocow") == 0 ||
            (raw && strcmp(key, "preallocation") == 0));
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(const struct opts_key *const *)a)->key,
                  (*(const struct opts_key *const *)b)->key);
}

void option_list_print_create(FILE *out, const BlockDriver *drv, bool has_file)
{
    const struct opts_key *sorted[OPTION_LIST_KEYS_MAX];
    size_t count = 0;

    for (const struct opts_key *k = drv->create_keys; k && k->key; k++) {
        if (count < OPTION_LIST_KEYS_MAX && (has_file || !is_of_file(drv, k->key))) {
            sorted[count++] = k;
        }
    }
    qsort(sorted, count, sizeof(sorted[0]), compare_keys);
    if (has_file) {
        fputs("Supported options:\n", out);
    } else {
        fprintf(out, "Supported %s options:\n", drv->format_name);
    }
    for (size_t i = 0; i < count; i++) {
        print_key(out, sorted[i]);
    }
    if (!has_file) {
        fputs("\nThe protocol level may support further options.\n"
              "Specify the target filename to include those options.\n",
              out);
    }
}

bool option_list_has_key(const struct opts_key *keys, const char *key)
{
    for (; keys && keys->key; keys++) {
        if (strcmp(keys->key, key) == 0) {
            return true;
        }
    }
    return false;
}

/* The value, taken as its type has it. 0 or -errno. */
static int value_check(const struct opts_key *k, BlockOptions *copy, Error **errp)
{
    uint64_t number;
    bool flag;

    if (strcmp(k->type, "size") == 0) {
        return block_options_take_size(copy, k->key, 0, INT64_MAX, &number, errp);
    }
    if (strcmp(k->type, "num") == 0) {
        return block_options_take_uint(copy, k->key, 0, UINT64_MAX, &number, errp);
    }
    if (strncmp(k->type, "bool", 4) == 0) {
        return block_options_take_bool(copy, k->key, &flag, errp);
    }
    return 0;
}

int option_list_check(const struct opts_key *keys, const BlockOptions *options, Error **errp)
{
    BlockOptions *copy = block_options_copy(options);
    const char *key = NULL;
    int ret = copy ? 0 : error_set(errp, ENOMEM, "out of memory");

    while (keys && ret >= 0 && (key = block_options_next_key(options, key)) != NULL) {
        const struct opts_key *k = keys;

        while (k->key && strcmp(k->key, key) != 0) {
            k++;
        }
        ret = k->key ? value_check(k, copy, errp)
                     : error_set(errp, ENOENT, "Invalid parameter '%.255s'", key);
    }
    block_options_free(copy);
    return ret < 0 ? ret : 0;
}
