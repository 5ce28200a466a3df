/* SPDX-License-Identifier: MIT */
/* Lists of a format's own options. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "schema/opts.h"
#include "tools/option_list.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/options.h"
#include "util/text.h"

#define OPTION_LIST_KEYS_MAX 64
#define SHOWN_KEY_MAX 255 /* bytes, in a message */

/* The end of a value: two commas are one of its own. */
static const char *value_end(const char *p)
{
    while (*p != '\0' && (p[0] != ',' || p[1] == ',')) {
        p += *p == ',' ? 2 : 1;
    }
    return p;
}

/* The end of a word of a list. *ret_key_len: where its value begins, or it ends without one. */
static const char *word_end(const char *word, size_t *ret_key_len)
{
    const char *end = word + strcspn(word, "=,");

    *ret_key_len = (size_t)(end - word);
    return *end == '=' ? value_end(end) : end;
}

static bool asks_for_help(const char *word, size_t len)
{
    return (len == 4 && memcmp(word, "help", 4) == 0) || (len == 1 && *word == '?');
}

/* Take "help" and "?", which have no value, out of the text. */
static bool take_help(char *text)
{
    bool help = false;
    char *to = text;

    for (char *word = text; *word != '\0';) {
        size_t key_len;
        size_t len = (size_t)(word_end(word, &key_len) - word);
        size_t step = len + (word[len] == ',');

        if (asks_for_help(word, len)) {
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

/* A word without a value is switched on, or off where it begins with "no". */
static void put_switch(struct cli *cli, struct text *t, const char *word, int len, bool warns)
{
    bool off = len >= 2 && strncmp(word, "no", 2) == 0;
    int skipped = off ? 2 : 0;
    const char *value = off ? "off" : "on";

    text_printf(t, "%.*s=%s", len - skipped, word + skipped, value);
    if (warns && !asks_for_help(word, (size_t)len)) {
        cli_warning(cli, "short-form boolean option '%.*s' deprecated", len, word);
        cli_put_line(cli->err, "Please use %.*s=%s instead", len - skipped, word + skipped, value);
    }
}

char *option_list_spelled(struct cli *cli, const char *text, bool is_first_named, bool warns)
{
    struct text t = {0};

    for (const char *word = text; *word != '\0';) {
        size_t key_len;
        const char *end = word_end(word, &key_len);

        text_puts(&t, word == text ? "" : ",");
        if (word[key_len] == '=') {
            text_put(&t, word, (size_t)(end - word));
        } else if (word == text && is_first_named) {
            end = value_end(word + key_len);
            text_put(&t, word, (size_t)(end - word));
        } else {
            put_switch(cli, &t, word, (int)key_len, warns);
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

/* Of an image that is made: what is said of it is known when its format is. */
static int add_text(struct cli *cli, struct option_list *list, const char *text)
{
    struct text t = {0};
    char *both;

    if (list->text) {
        text_puts(&t, list->text);
        text_puts(&t, *list->text != '\0' && *text != '\0' ? "," : "");
    }
    text_puts(&t, text);
    both = text_end(&t);
    if (!both) {
        return cli_error(cli, "out of memory");
    }
    free(list->text);
    list->text = both;
    return CLI_EXIT_OK;
}

static int add_options(struct cli *cli, struct option_list *list, const char *text)
{
    Error *err = NULL;
    BlockOptions *more = block_options_parse(text, NULL, &err);
    int code = CLI_EXIT_OK;

    if (!more) {
        cli_report(cli, err);
        cli->usage_told = true;
        return CLI_EXIT_USAGE;
    }
    if (!list->options) {
        list->options = more;
        return CLI_EXIT_OK;
    }
    if (block_options_put_prefix(list->options, "", more) < 0) {
        code = cli_error(cli, "out of memory");
    }
    block_options_free(more);
    return code;
}

static int add(struct cli *cli, struct option_list *list, const char *text, bool judged_later)
{
    AUTO_FREE char *copy = strdup(text);

    if (copy && take_help(copy)) {
        list->help = true;
    }
    if (copy && cli_stands_in(cli)) {
        char *spelled = option_list_spelled(cli, copy, false, !judged_later);

        free(copy);
        copy = spelled;
    }
    if (!copy) {
        return cli_error(cli, "out of memory");
    }
    if (*copy == '\0' && *text != '\0') {
        return CLI_EXIT_OK; /* only help */
    }
    return judged_later ? add_text(cli, list, copy) : add_options(cli, list, copy);
}

int option_list_add(struct cli *cli, struct option_list *list, const char *text)
{
    if (cli_stands_in(cli) && !is_list(text)) {
        return cli_error(cli, "Invalid option list: %s", text);
    }
    return add(cli, list, text, true);
}

int option_list_add_of_open(struct cli *cli, struct option_list *list, const char *text)
{
    return add(cli, list, text, false);
}

void option_list_fini(struct option_list *list)
{
    block_options_free(list->options);
    free(list->text);
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

static const struct opts_key *find_key(const struct opts_key *keys, const char *key)
{
    while (keys && keys->key && strcmp(keys->key, key) != 0) {
        keys++;
    }
    return keys && keys->key ? keys : NULL;
}

/* What is said of a key of drv's when an image is made in what storage (NULL: no file yet) makes;
 * NULL: it cannot be given then. */
static const struct opts_key *shown_key(const BlockDriver *drv, const BlockDriver *storage,
                                        const struct opts_key *k)
{
    if (!is_of_file(drv, k->key)) {
        return k;
    }
    return storage ? find_key(storage->create_keys, k->key) : NULL;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(const struct opts_key *const *)a)->key,
                  (*(const struct opts_key *const *)b)->key);
}

const BlockDriver *option_list_maker(const char *format, const char *file, Error **errp)
{
    const BlockDriver *drv = bdrv_find_driver(format);

    if (!drv) {
        error_set(errp, EINVAL, "Unknown file format '%s'", format);
        return NULL;
    }
    if (!drv->create) {
        error_set(errp, ENOTSUP, "Format driver '%s' does not support image creation", format);
        return NULL;
    }
    return !file || bdrv_find_creator(file, errp) ? drv : NULL;
}

void option_list_print_create(FILE *out, const BlockDriver *drv, const char *file)
{
    const BlockDriver *storage = file ? bdrv_find_creator(file, NULL) : NULL;
    const struct opts_key *sorted[OPTION_LIST_KEYS_MAX];
    size_t count = 0;

    for (const struct opts_key *k = drv->create_keys; k && k->key; k++) {
        const struct opts_key *shown = shown_key(drv, storage, k);

        if (count < OPTION_LIST_KEYS_MAX && shown) {
            sorted[count++] = shown;
        }
    }
    qsort(sorted, count, sizeof(sorted[0]), compare_keys);
    if (file) {
        fputs("Supported options:\n", out);
    } else {
        fprintf(out, "Supported %s options:\n", drv->format_name);
    }
    for (size_t i = 0; i < count; i++) {
        print_key(out, sorted[i]);
    }
    if (!file) {
        fputs("\nThe protocol level may support further options.\n"
              "Specify the target filename to include those options.\n",
              out);
    }
}

bool option_list_has_key(const struct opts_key *keys, const char *key)
{
    return find_key(keys, key) != NULL;
}

/* ---- what is said ---- */

/* The reference takes a number in any base, and a negative one for what is missing to 2^64. */
static int judge_number(const char *key, const char *text, uint64_t *ret, Error **errp)
{
    char *end;

    errno = 0;
    *ret = strtoull(text, &end, 0);
    if (end == text || *end != '\0') {
        return error_set(errp, EINVAL, "Parameter '%.64s' expects a number", key);
    }
    if (errno == ERANGE) {
        return error_set(errp, ERANGE, "Value '%.64s' is too large for parameter '%.64s'", text,
                         key);
    }
    return 0;
}

/* Whether the value of the one option that one has is as its type wants it. A size or number
 * becomes plain decimal. 0 or -errno. */
static int judge_value(struct cli *cli, const struct opts_key *k, BlockOptions *one, Error **errp)
{
    const char *text = block_options_get_str(one, k->key);
    char plain[32];
    uint64_t number;
    bool flag;
    int ret;

    if (strncmp(k->type, "bool", 4) == 0) {
        BlockOptions *copy = block_options_copy(one);

        ret = copy ? block_options_take_bool(copy, k->key, &flag, errp)
                   : error_set(errp, ENOMEM, "out of memory");
        block_options_free(copy);
        return ret < 0 ? ret : 0;
    }
    if (strcmp(k->type, "size") == 0) {
        ret = cli_size_of_parameter(cli, text, k->key, &number, errp);
    } else if (strcmp(k->type, "num") == 0) {
        ret = judge_number(k->key, text, &number, errp);
    } else {
        return 0;
    }
    if (ret < 0) {
        return ret;
    }
    snprintf(plain, sizeof(plain), "%" PRIu64, number);
    return block_options_set_str(one, k->key, plain) < 0 ? error_set(errp, ENOMEM, "out of memory")
                                                         : 0;
}

/* "KEY=VALUE" */
static int judge_word(struct cli *cli, const char *word, size_t key_len,
                      const struct opts_key *keys, BlockOptions *into, Error **errp)
{
    const struct opts_key *k = keys;
    BlockOptions *one;
    int ret = 0;

    while (k && k->key && (strlen(k->key) != key_len || strncmp(k->key, word, key_len) != 0)) {
        k++;
    }
    if (k && !k->key) {
        return error_set(errp, ENOENT, "Invalid parameter '%.*s'",
                         (int)(key_len < SHOWN_KEY_MAX ? key_len : SHOWN_KEY_MAX), word);
    }
    one = block_options_parse(word, NULL, errp);
    if (!one) {
        return -EINVAL;
    }
    if (k) {
        ret = judge_value(cli, k, one, errp);
    }
    if (ret >= 0 && block_options_put_prefix(into, "", one) < 0) {
        ret = error_set(errp, ENOMEM, "out of memory");
    }
    block_options_free(one);
    return ret;
}

int option_list_judge(struct cli *cli, struct option_list *list, const struct opts_key *keys,
                      Error **errp)
{
    int ret = 0;

    if (!list->options) {
        list->options = block_options_new();
        if (!list->options) {
            return error_set(errp, ENOMEM, "out of memory");
        }
    }
    for (const char *word = list->text; ret >= 0 && word && *word != '\0';) {
        size_t key_len;
        const char *end = word_end(word, &key_len);
        AUTO_FREE char *copy = strndup(word, (size_t)(end - word));

        ret = copy ? judge_word(cli, copy, key_len, keys, list->options, errp)
                   : error_set(errp, ENOMEM, "out of memory");
        word = end + (*end == ',');
    }
    return ret;
}
