/* SPDX-License-Identifier: MIT */
/*
 * blkdebug: rules from a file, a section for each:
 *
 *     # why
 *     [inject-error]
 *     event = "read_aio"
 *     errno = "28"
 *
 * A section may bear a name behind its kind, [inject-error "x"], which says nothing. Of a key that
 * is there twice the last one counts.
 */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "os/os.h"
#include "util/error.h"

struct config {
    struct fault_node *s;
    unsigned line;
    enum fault_action action;
    BlockOptions *section; /* owned; NULL: before the first */
};

/* ---- the file ---- */

/* All of it, with a NUL behind; malloc'd. A pipe does as well. */
static int read_file(const char *path, char **ret_text, Error **errp)
{
    int fd = os->open(path, O_RDONLY, 0);
    char *text;
    size_t used = 0;
    int64_t n = 1;

    if (fd < 0) {
        return error_set_errno(errp, -fd, "Could not read blkdebug config file");
    }
    text = malloc(FAULT_CONFIG_BYTES_MAX + 2);
    while (text != NULL && n > 0 && used <= FAULT_CONFIG_BYTES_MAX) {
        n = os->read(fd, text + used, FAULT_CONFIG_BYTES_MAX + 1 - used);
        if (n == -EINTR) {
            n = 1;
        } else if (n > 0) {
            used += (size_t)n;
        }
    }
    os->close(fd);
    if (text == NULL || n < 0 || used > FAULT_CONFIG_BYTES_MAX) {
        free(text);
        return text == NULL ? error_set(errp, ENOMEM, "out of memory")
               : n < 0      ? error_set_errno(errp, (int)-n, "Cannot read config file")
                            : error_set(errp, EFBIG, "The config file '%s' is larger than %d bytes",
                                        path, FAULT_CONFIG_BYTES_MAX);
    }
    text[used] = '\0';
    *ret_text = text;
    return strlen(text) == used ? 0
                                : error_set(errp, EINVAL, "The config file '%s' is no text", path);
}

/* ---- sections ---- */

static int section_end(struct config *c, Error **errp)
{
    int rc = c->section != NULL ? fault_rule_add(c->s, c->action, c->section, errp) : 0;

    block_options_free(c->section);
    c->section = NULL;
    return rc;
}

/* text: after '['. */
static int section_begin(struct config *c, char *text, Error **errp)
{
    char *end = strchr(text, ']');
    int rc = section_end(c, errp);

    if (rc < 0) {
        return rc;
    }
    if (end == NULL || end[1] != '\0') {
        return error_set(errp, EINVAL, "Line %u of the config file is no [section]", c->line);
    }
    text[strcspn(text, " \t]")] = '\0';
    for (int action = 0; action < FAULT_ACTIONS; action++) {
        if (strcmp(text, fault_action_name((enum fault_action)action)) == 0) {
            c->action = (enum fault_action)action;
            c->section = block_options_new();
            return c->section != NULL ? 0 : error_set(errp, ENOMEM, "out of memory");
        }
    }
    return error_set(errp, EINVAL, "There is no option group '%s'", text);
}

/* key = "value" */
static int section_key(struct config *c, char *text, Error **errp)
{
    char *key = text;
    char *end = text + strcspn(text, " \t=");
    char *value = end + strspn(end, " \t");
    char *quote;
    int rc;

    if (c->section == NULL) {
        return error_set(errp, EINVAL, "no group defined");
    }
    quote = *value == '=' ? value + 1 + strspn(value + 1, " \t") : value;
    value = quote + 1;
    if (*quote != '"' || end == key || strchr(value, '"') == NULL) {
        return error_set(errp, EINVAL, "Line %u of the config file is not: key = \"value\"",
                         c->line);
    }
    quote = strchr(value, '"');
    if (quote[1] != '\0') {
        return error_set(errp, EINVAL, "Line %u of the config file goes on behind its value",
                         c->line);
    }
    *end = '\0';
    *quote = '\0';
    rc = block_options_set_str(c->section, key, value);
    return rc == 0         ? 0
           : rc == -ENOMEM ? error_set(errp, ENOMEM, "out of memory")
                           : error_set(errp, EINVAL, "Invalid parameter '%s'", key);
}

/* Without what is blank at either end. */
static char *trim(char *line)
{
    char *end;

    line += strspn(line, " \t\r");
    for (end = line + strlen(line); end > line && isspace((unsigned char)end[-1]); end--) {
    }
    *end = '\0';
    return line;
}

static int config_line(struct config *c, char *line, Error **errp)
{
    line = trim(line);
    if (line[0] == '\0' || line[0] == '#') {
        return 0;
    }
    return line[0] == '[' ? section_begin(c, line + 1, errp) : section_key(c, line, errp);
}

int fault_config_load(struct fault_node *s, const char *path, Error **errp)
{
    struct config c = {.s = s};
    char *text = NULL;
    char *next;
    int rc = read_file(path, &text, errp);

    for (char *line = text; rc == 0 && line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL) {
            *next++ = '\0';
        }
        c.line++;
        rc = config_line(&c, line, errp);
    }
    if (rc == 0) {
        rc = section_end(&c, errp);
    }
    block_options_free(c.section);
    free(text);
    return rc;
}
