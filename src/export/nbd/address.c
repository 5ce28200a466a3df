/* SPDX-License-Identifier: MIT */
/* The URIs of sockets (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/nbd/internal.h"

static char *escape(char *to, const char *text, const char *keep)
{
    static const char hex[] = "0123456789ABCDEF";

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
            strchr(keep, c)) {
            *to++ = (char)c;
        } else {
            *to++ = '%';
            *to++ = hex[c >> 4];
            *to++ = hex[c & 15];
        }
    }
    *to = 0;
    return to;
}

char *nbd_server_get_uri(const NbdServer *server, unsigned index, const char *export_name)
{
    const struct nbd_listener *listener;
    const char *name = export_name ? export_name : "";
    size_t room;
    char *uri;
    char *p;

    LIST_FOREACH (listener, &server->listeners, link) {
        if (index-- == 0) {
            break;
        }
    }
    if (listener == NULL) {
        return NULL;
    }
    room = 3 * (strlen(name) + strlen(nbd_listener_is_tcp(listener) ? listener->sock.host_port
                                                                    : listener->sock.path)) +
           32;
    uri = malloc(room);
    if (uri == NULL) {
        return NULL;
    }
    if (nbd_listener_is_tcp(listener)) {
        p = uri + snprintf(uri, room, "nbd://%s/", listener->sock.host_port);
        escape(p, name, "-._~/");
        return uri;
    }
    p = stpcpy(uri, "nbd+unix:///");
    p = escape(p, name, "-._~/");
    p = stpcpy(p, "?socket=");
    escape(p, listener->sock.path, "-._~/");
    return uri;
}
