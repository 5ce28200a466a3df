/* SPDX-License-Identifier: MIT */
#include "tools/img/formatting.h"

#include <inttypes.h>
#include <string.h>

#include "util/size.h"

struct member {
    const char *key;
    const char *value; /* told when none was given, or NULL */
    bool is_size;      /* told in bytes */
};

/* Members and order as `qemu-img create` prints them. */
static const struct member qcow2_members[] = {
    {"cluster_size", "65536", true},
    {"extended_l2", "off"},
    {"preallocation"},
    {"compression_type", "zlib"},
    {"size"},
    {"compat"},
    {"backing_file"},
    {"backing_fmt"},
    {"data_file"},
    {"data_file_raw"},
    {"lazy_refcounts", "off"},
    {"refcount_bits", "16"},
    {"nocow"},
    {"extent_size_hint", NULL, true},
    {NULL},
};

static void print_member(struct cli *cli, const struct member *m, const char *given)
{
    const char *value = given ? given : m->value;
    uint64_t bytes;

    if (!value) {
        return;
    }
    if (m->is_size && size_parse(value, 'b', m->key, &bytes, NULL) == 0) {
        fprintf(cli->out, " %s=%" PRIu64, m->key, bytes);
    } else {
        fprintf(cli->out, " %s=", m->key);
        cli_put_text(cli->out, value);
    }
}

static void print_all(struct cli *cli, uint64_t size_bytes, const BlockOptions *options)
{
    for (const struct member *m = qcow2_members; m->key; m++) {
        if (strcmp(m->key, "size") == 0) {
            fprintf(cli->out, " size=%" PRIu64, size_bytes);
        } else {
            print_member(cli, m, block_options_get_str(options, m->key));
        }
    }
}

static void print_given(struct cli *cli, uint64_t size_bytes, const BlockOptions *options)
{
    const char *key = NULL;

    fprintf(cli->out, " size=%" PRIu64, size_bytes);
    while ((key = block_options_next_key(options, key)) != NULL) {
        const struct member given = {.key = key};

        print_member(cli, &given, block_options_get_str(options, key));
    }
}

void formatting_print(struct cli *cli, const char *file, const char *format, uint64_t size_bytes,
                      const BlockOptions *options)
{
    fputs("Formatting '", cli->out);
    cli_put_text(cli->out, file);
    fprintf(cli->out, "', fmt=%s", format);
    if (cli_stands_in(cli) && strcmp(format, "qcow2") == 0) {
        print_all(cli, size_bytes, options);
    } else {
        print_given(cli, size_bytes, options);
    }
    fputc('\n', cli->out);
    fflush(cli->out);
}
