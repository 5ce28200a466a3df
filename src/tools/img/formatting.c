/* SPDX-License-Identifier: MIT */
#include "tools/img/formatting.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

struct member {
    const char *key;
    const char *value; /* told when none was given, or NULL */
};

/* Members and order as `qemu-img create` prints them. */
static const struct member qcow2_members[] = {
    {"encryption"},
    {"encrypt.format"},
    {"encrypt.key-secret"},
    {"encrypt.cipher-alg"},
    {"encrypt.cipher-mode"},
    {"encrypt.ivgen-alg"},
    {"encrypt.ivgen-hash-alg"},
    {"encrypt.hash-alg"},
    {"encrypt.iter-time"},
    {"cluster_size", "65536"},
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
    {"extent_size_hint"},
    {NULL},
};

static const struct member raw_members[] = {
    {"size"}, {"nocow"}, {"preallocation"}, {"extent_size_hint"}, {NULL},
};

/* A comma is written twice, as in a list; a number above INT64_MAX as the reference has it. */
static void print_value(struct cli *cli, const char *key, const char *value)
{
    if (strcmp(key, "refcount_bits") == 0) {
        fprintf(cli->out, "%" PRId64, (int64_t)strtoull(value, NULL, 10));
        return;
    }
    for (const char *comma; (comma = strchr(value, ',')) != NULL; value = comma + 1) {
        AUTO_FREE char *piece = strndup(value, (size_t)(comma - value));

        cli_put_text(cli->out, piece ? piece : "");
        fputs(",,", cli->out);
    }
    cli_put_text(cli->out, value);
}

static void print_members(struct cli *cli, const struct member *m, uint64_t size_bytes,
                          const BlockOptions *options)
{
    for (; m->key; m++) {
        const char *given = block_options_get_str(options, m->key);
        const char *value = given ? given : m->value;

        if (strcmp(m->key, "size") == 0) {
            fprintf(cli->out, " size=%" PRIu64, size_bytes);
        } else if (value) {
            fprintf(cli->out, " %s=", m->key);
            print_value(cli, m->key, value);
        }
    }
}

static void print_given(struct cli *cli, uint64_t size_bytes, const BlockOptions *options)
{
    const char *key = NULL;

    fprintf(cli->out, " size=%" PRIu64, size_bytes);
    while ((key = block_options_next_key(options, key)) != NULL) {
        fprintf(cli->out, " %s=", key);
        print_value(cli, key, block_options_get_str(options, key));
    }
}

void formatting_print(struct cli *cli, const char *file, const char *format, uint64_t size_bytes,
                      const BlockOptions *options)
{
    fputs("Formatting '", cli->out);
    cli_put_text(cli->out, file);
    fprintf(cli->out, "', fmt=%s", format);
    if (cli_stands_in(cli)) {
        print_members(cli, strcmp(format, "qcow2") == 0 ? qcow2_members : raw_members, size_bytes,
                      options);
    } else {
        print_given(cli, size_bytes, options);
    }
    fputc('\n', cli->out);
    (void)cli_flush(cli);
}
