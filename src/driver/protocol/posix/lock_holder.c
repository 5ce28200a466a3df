/* SPDX-License-Identifier: MIT */
/*
 * Who holds an image lock. The kernel names no process for locks of an open file description, but
 * shows each description's locks in /proc/PID/fdinfo; so we look for one. Only for the text of a
 * refusal: slow, and silent about processes that we may not look at.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"
#include "posix.h"

#define PROC_TEXT_MAX 4096
#define PROC_PATH_MAX 64
#define NAME_MAX_SHOWN 20

struct holder_search {
    struct stat st; /* of the image */
    int own_fd;     /* its locks are ours, and known */
    uint64_t byte;
    long own_pid;
    long pid; /* whose descriptors are looked at */
    bool found;
};

/* The text of a file of /proc, cut to what fits; empty when it cannot be read. */
static void read_text(const char *path, char *buf, size_t size)
{
    int fd = os->open(path, O_RDONLY, 0);
    size_t len = 0;
    int64_t n;

    if (fd >= 0) {
        while (len < size - 1 && (n = os->read(fd, buf + len, size - 1 - len)) > 0) {
            len += (size_t)n;
        }
        os->close(fd);
    }
    buf[len] = '\0';
}

/* Whether a line "lock: 1: OFDLCK ADVISORY READ -1 fe:00:1234 100 101" covers byte. */
static bool line_covers(const char *line, uint64_t byte)
{
    uint64_t start, end;

    if (strncmp(line, "lock:", 5) != 0 || strstr(line, "OFDLCK") == NULL) {
        return false;
    }
    if (sscanf(line, "lock: %*s OFDLCK %*s %*s %*s %*s %" SCNu64 " %" SCNu64, &start, &end) != 2) {
        return false; /* "EOF" as the end: nobody locks images so */
    }
    return start <= byte && byte <= end;
}

static bool holds_byte(const char *fdinfo, uint64_t byte)
{
    for (const char *line = fdinfo; line != NULL;) {
        char one[128];
        const char *next = strchr(line, '\n');
        size_t len = next != NULL ? (size_t)(next - line) : strlen(line);

        snprintf(one, sizeof(one), "%.*s", (int)(len < sizeof(one) ? len : sizeof(one) - 1), line);
        if (line_covers(one, byte)) {
            return true;
        }
        line = next != NULL ? next + 1 : NULL;
    }
    return false;
}

static bool look_at_fd(void *opaque, const char *name)
{
    struct holder_search *search = opaque;
    char path[PROC_PATH_MAX], text[PROC_TEXT_MAX];
    struct stat st;

    if (search->pid == search->own_pid && atol(name) == search->own_fd) {
        return true;
    }
    snprintf(path, sizeof(path), "/proc/%ld/fd/%.*s", search->pid, NAME_MAX_SHOWN, name);
    if (os->stat(path, &st) < 0 || st.st_dev != search->st.st_dev ||
        st.st_ino != search->st.st_ino) {
        return true;
    }
    snprintf(path, sizeof(path), "/proc/%ld/fdinfo/%.*s", search->pid, NAME_MAX_SHOWN, name);
    read_text(path, text, sizeof(text));
    search->found = holds_byte(text, search->byte);
    return !search->found;
}

static bool look_at_process(void *opaque, const char *name)
{
    struct holder_search *search = opaque;
    char path[PROC_PATH_MAX];

    if (!isdigit((unsigned char)name[0])) {
        return true;
    }
    search->pid = atol(name);
    snprintf(path, sizeof(path), "/proc/%ld/fd", search->pid);
    os->dir_each(path, look_at_fd, search);
    return !search->found;
}

bool posix_lock_holder(int fd, uint64_t byte, char *buf, size_t size)
{
    struct holder_search search = {.own_fd = fd, .byte = byte};
    char path[PROC_PATH_MAX], name[NAME_MAX_SHOWN];
    int64_t len;

    if (os->fstat(fd, &search.st) < 0) {
        return false;
    }
    len = os->readlink("/proc/self", name, sizeof(name) - 1);
    if (len > 0) {
        name[len] = '\0';
        search.own_pid = atol(name);
    }
    os->dir_each("/proc", look_at_process, &search);
    if (!search.found) {
        return false;
    }
    snprintf(path, sizeof(path), "/proc/%ld/comm", search.pid);
    read_text(path, name, sizeof(name));
    name[strcspn(name, "\n")] = '\0';
    for (char *p = name; *p != '\0'; p++) { /* the process chose it */
        *p = *p < ' ' || *p > '~' ? '?' : *p;
    }
    snprintf(buf, size, "%ld (%s)", search.pid, name);
    return true;
}
