/* SPDX-License-Identifier: MIT */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "control/chardev.h"

/* Where the word at p ends: at a single comma, two stand for one in a value. */
static size_t word_bytes(const char *p)
{
    size_t n = 0;

    while (p[n] != '\0' && !(p[n] == ',' && p[n + 1] != ',')) {
        n += p[n] == ',' ? 2 : 1;
    }
    return n;
}

char *chardev_text(const char *text)
{
    char *out = malloc(3 * strlen(text) + 8); /* "a" becomes "a=on", and so on */
    char *to = out;
    bool first = true; /* the kind, which is a value */

    while (out != NULL && (*text != '\0' || first)) {
        size_t bytes = word_bytes(text);
        bool plain = !first && bytes > 0 && memchr(text, '=', bytes) == NULL;
        bool delay = bytes == 7 && memcmp(text, "nodelay", bytes) == 0; /* not "delay=off" */
        bool off = plain && !delay && bytes > 2 && memcmp(text, "no", 2) == 0;

        to = mempcpy(to, text + 2 * off, bytes - 2 * off);
        if (plain) {
            to = stpcpy(to, off ? "=off" : "=on");
        }
        text += bytes;
        if (*text == ',') {
            *to++ = *text++;
        }
        first = false;
    }
    if (out != NULL) {
        *to = '\0';
    }
    return out;
}
