/* SPDX-License-Identifier: MIT */
/* Lists of a format's own options. */
#include <stdlib.h>
#include <string.h>

#include "schema/opts.h"
#include "tools/option_list.h"

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

int option_list_add(struct cli *cli, struct option_list *list, const char *text)
{
    char *copy = strdup(text);
    BlockOptions *more = NULL;
    Error *err = NULL;
    int code = CLI_EXIT_OK;

    if (!copy) {
        return cli_error(cli, "out of memory");
    }
    if (take_help(copy)) {
        list->help = true;
    }
    if (*copy != '\0' || *text == '\0') {
        more = block_options_parse(copy, NULL, &err);
        if (!more) {
            cli_report(cli, err);
            code = CLI_EXIT_USAGE;
        } else if (!list->options) {
            list->options = more;
            more = NULL;
        } else if (block_options_put_prefix(list->options, "", more) < 0) {
            code = cli_error(cli, "out of memory");
        }
    }
    block_options_free(more);
    free(copy);
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
