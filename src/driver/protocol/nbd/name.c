/* SPDX-License-Identifier: MIT */
/*
 * Names of exports, pure text:
 *
 *     nbd:HOST:PORT[:exportname=NAME]     nbd:unix:PATH[:exportname=NAME]
 *     nbd://HOST[:PORT]/[EXPORT]          nbd+tcp://... (the same)
 *     nbd+unix:///[EXPORT]?socket=PATH
 *
 * In URIs, %XX stands for a byte; a host in brackets is an IPv6 address.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nbd.h"
#include "util/error.h"
#include "util/mem.h"

#define EXPORT_MARK ":exportname="

static int no_memory(Error **errp)
{
    return error_set(errp, ENOMEM, "out of memory");
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 0, -ENOMEM, or -EINVAL: a bad or zero %XX. */
static int percent_decode(const char *text, size_t len, char **ret)
{
    char *out = malloc(len + 1);
    size_t n = 0;

    if (out == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)text[i];

        if (c == '%') {
            bool whole = len - i > 2;
            int high = whole ? hex_digit(text[i + 1]) : -1;
            int low = whole ? hex_digit(text[i + 2]) : -1;

            if (high < 0 || low < 0 || (high == 0 && low == 0)) {
                free(out);
                return -EINVAL;
            }
            c = high * 16 + low;
            i += 2;
        }
        out[n++] = (char)c;
    }
    out[n] = '\0';
    *ret = out;
    return 0;
}

static int take_text(const char *text, size_t len, char **ret)
{
    *ret = strndup(text, len);
    return *ret != NULL ? 0 : -ENOMEM;
}

/* "HOST[:PORT]" or "[IPV6][:PORT]"; *ret_port NULL: none. -EINVAL: neither. */
static int split_host_port(const char *text, size_t len, char **ret_host, char **ret_port)
{
    const char *end = text + len;
    const char *host = text;
    const char *host_end;
    int rc;

    if (len > 0 && text[0] == '[') {
        host = text + 1;
        host_end = memchr(text, ']', len);
        text = host_end != NULL ? host_end + 1 : end;
    } else {
        host_end = memchr(text, ':', len);
        host_end = host_end != NULL ? host_end : end;
        text = host_end;
    }
    if (host_end == NULL || host_end == host || (text < end && (*text != ':' || text + 1 == end))) {
        return -EINVAL;
    }
    rc = take_text(host, (size_t)(host_end - host), ret_host);
    if (rc == 0 && text < end) {
        rc = take_text(text + 1, (size_t)(end - text - 1), ret_port);
    }
    return rc;
}

/* After "nbd:". */
static int parse_short(const char *rest, struct nbdc_address *a)
{
    const char *mark = strstr(rest, EXPORT_MARK);
    size_t len = mark != NULL ? (size_t)(mark - rest) : strlen(rest);
    const char *name = mark != NULL ? mark + strlen(EXPORT_MARK) : "";
    int rc = take_text(name, strlen(name), &a->export_name);

    if (rc < 0) {
        return rc;
    }
    if (strncmp(rest, "unix:", 5) == 0) {
        return len > 5 ? take_text(rest + 5, len - 5, &a->path) : -EINVAL;
    }
    rc = split_host_port(rest, len, &a->host, &a->port);
    return rc == 0 && a->port == NULL ? -EINVAL : rc;
}

/* After "SCHEME://". */
static int parse_uri(const char *rest, bool is_unix, struct nbdc_address *a)
{
    size_t authority = strcspn(rest, "/?#");
    const char *path = rest + authority;
    size_t path_len = strcspn(path, "?#");
    const char *query = path + path_len;
    int rc;

    if (path_len > 0) { /* the slash */
        path++;
        path_len--;
    }
    rc = percent_decode(path, path_len, &a->export_name);
    if (rc < 0) {
        return rc;
    }
    if (!is_unix) {
        if (*query != '\0' || memchr(rest, '@', authority) != NULL) {
            return -EINVAL;
        }
        rc = split_host_port(rest, authority, &a->host, &a->port);
        if (rc == 0 && a->port == NULL) {
            rc = take_text(NBD_PORT_DEFAULT, strlen(NBD_PORT_DEFAULT), &a->port);
        }
        return rc;
    }
    if (authority != 0 || strncmp(query, "?socket=", 8) != 0 || query[8] == '\0' ||
        strpbrk(query, "&;#") != NULL) {
        return -EINVAL;
    }
    return percent_decode(query + 8, strlen(query + 8), &a->path);
}

static const char *after(const char *text, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(text, prefix, len) == 0 ? text + len : NULL;
}

int nbdc_name_parse(const char *name, struct nbdc_address *ret_address, Error **errp)
{
    struct nbdc_address a = {0};
    const char *rest;
    int rc;

    if (strcmp(name, "nbd:") == 0) {
        return error_set(errp, EINVAL, "NBD server address missing");
    }
    if ((rest = after(name, "nbd+unix://")) != NULL) {
        rc = parse_uri(rest, true, &a);
    } else if ((rest = after(name, "nbd://")) != NULL ||
               (rest = after(name, "nbd+tcp://")) != NULL) {
        rc = parse_uri(rest, false, &a);
    } else if ((rest = after(name, "nbd:")) != NULL) {
        rc = parse_short(rest, &a);
    } else {
        rc = -EINVAL;
    }
    if (rc == 0) {
        *ret_address = a;
        return 0;
    }
    nbdc_address_fini(&a);
    if (rc == -ENOMEM) {
        return no_memory(errp);
    }
    if (strstr(name, "://") != NULL) {
        error_set(errp, EINVAL, "No valid URL specified");
        error_set_hint(errp, "Write nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH");
    } else {
        if (rest != NULL) {
            error_set(errp, EINVAL, "error parsing address '%s'", rest);
        } else {
            error_set(errp, EINVAL, "File name string for NBD must start with 'nbd:'");
        }
        error_set_hint(errp, "Write nbd:HOST:PORT or nbd:unix:PATH, then :exportname=NAME");
    }
    return -EINVAL;
}

/* What a part of a URI may hold as it is. */
static bool is_plain(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           strchr("-._~/", c) != NULL;
}

static char *percent_encode(char *out, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";

    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (is_plain(c)) {
            *out++ = *text;
        } else {
            *out++ = '%';
            *out++ = digits[c >> 4];
            *out++ = digits[c & 15];
        }
    }
    *out = '\0';
    return out;
}

char *nbdc_name_build(const struct nbdc_address *a)
{
    const char *where = a->path != NULL ? a->path : a->host;
    size_t bytes =
        3 * (strlen(where) + strlen(a->export_name)) + (a->port != NULL ? strlen(a->port) : 0) + 64;
    char *name = malloc(bytes);
    char *out = name;

    if (name == NULL) {
        return NULL;
    }
    if (a->path != NULL) {
        out = stpcpy(out, "nbd+unix://");
    } else {
        bool brackets = strchr(a->host, ':') != NULL;

        out = stpcpy(stpcpy(out, brackets ? "nbd://[" : "nbd://"), a->host);
        out = stpcpy(stpcpy(out, brackets ? "]:" : ":"), a->port);
    }
    if (a->export_name[0] != '\0') {
        out = percent_encode(stpcpy(out, "/"), a->export_name);
    }
    if (a->path != NULL) {
        percent_encode(stpcpy(out, "?socket="), a->path);
    }
    return name;
}
