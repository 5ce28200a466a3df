/* SPDX-License-Identifier: MIT */
/*
 * A QMP client: commands, sometimes nonsense, half messages, and no good-bye. The first one is the
 * operator too: at the end it brings everything to rest and quits.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "os/listen.h"

static void step(void *opaque);

void qmp_client_begin(struct qmp_client *c, struct daemon_run *run, unsigned id)
{
    *c = (struct qmp_client){.run = run, .id = id, .fd = -1};
    sim_machine_after(run->machine, (int64_t)daemon_below(run, 20 * MS), step, c);
}

void qmp_client_end(struct qmp_client *c)
{
    qmp_client_drop(c);
    free(c->in);
    free(c->out);
    c->in = c->out = NULL;
}

void qmp_client_drop(struct qmp_client *c)
{
    if (c->fd >= 0) {
        os->close(c->fd);
    }
    for (unsigned i = 0; i < c->asking; i++) {
        if (c->asks[i].overlay == c->run->overlays) { /* it may have been done all the same */
            c->run->overlays++;
        }
    }
    c->fd = -1;
    c->greeted = c->negotiated = c->garbled = false;
    c->asking = 0;
    c->in_bytes = c->out_bytes = 0;
    memset(c->jobs, 0, sizeof(c->jobs));
}

static void put(struct qmp_client *c, const char *text)
{
    size_t bytes = strlen(text);

    if (c->out_bytes + bytes + 1 > c->out_room) {
        c->out_room = (c->out_bytes + bytes + 1) * 2;
        c->out = realloc(c->out, c->out_room);
        assert(c->out);
    }
    memcpy(c->out + c->out_bytes, text, bytes + 1);
    c->out_bytes += bytes;
}

/* ---- what it says ---- */

static void ask(struct qmp_client *c, char *text, const struct qmp_ask *what)
{
    if (text) {
        daemon_trace(c->run, "qmp asks", c->id, text, strlen(text));
        put(c, text);
        c->asks[c->asking++] = *what;
    }
    free(text);
}

/* A value that is no command: one error, without a number. */
static void ask_nonsense(struct qmp_client *c)
{
    static const char *const texts[] = {"[1, 2]\n", "{}\n", "{\"execute\": 5}\n", "\"quit\"\n",
                                        "{\"execute\": \"stop\", \"what\": 1}\n"};
    const char *text = texts[daemon_below(c->run, sizeof(texts) / sizeof(texts[0]))];

    ask(c, strdup(text), &(struct qmp_ask){.refused = true});
}

/* Bytes that are no JSON, or a command without its end; then it goes. */
static void garble(struct qmp_client *c)
{
    static const char *const texts[] = {"{\"execute\": \"query-st", "}}}", "{\"execute\" \"quit\"}",
                                        "\x01\xff", "[[[[[[[[[["};

    put(c, texts[daemon_below(c->run, sizeof(texts) / sizeof(texts[0]))]);
    c->garbled = true;
}

/* No command of this daemon may be run so: it is refused, before those that still run or wait where
 * that was negotiated. */
static char *out_of_band(char *text)
{
    static const char execute[] = "{\"execute\"";
    char *made = NULL;

    assert(strncmp(text, execute, sizeof(execute) - 1) == 0);
    if (asprintf(&made, "{\"exec-oob\"%s", text + sizeof(execute) - 1) < 0) {
        abort();
    }
    free(text);
    return made;
}

static void ask_something(struct qmp_client *c)
{
    struct qmp_ask what = {.id = ++c->next_id, .has_id = true};
    unsigned kind = (unsigned)daemon_below(c->run, 1000);

    if (kind < 5) {
        garble(c);
    } else if (kind < 30) {
        ask_nonsense(c);
    } else {
        char *text = qmp_command_make(c->run, what.id, &what);

        if (kind < (c->oob ? 150 : 50)) {
            text = out_of_band(text);
            what = (struct qmp_ask){.id = what.id, .has_id = true, .refused = true, .oob = c->oob};
        }
        ask(c, text, &what);
    }
}

/* The operator's last words, one after the other. */
static void wind_up(struct qmp_client *c)
{
    struct qmp_ask what = {.id = ++c->next_id, .has_id = true};

    if (c->asking == 0) {
        ask(c, qmp_command_wind_up(c->run, c->wind_up, what.id), &what);
        c->wind_up++;
    }
}

static void negotiate(struct qmp_client *c)
{
    char text[120];
    struct qmp_ask what = {.id = ++c->next_id, .has_id = true};

    c->oob = daemon_chance(c->run, 40);
    snprintf(text, sizeof(text), "{\"execute\": \"qmp_capabilities\", \"id\": %llu%s}\n",
             (unsigned long long)what.id, c->oob ? ", \"arguments\": {\"enable\": [\"oob\"]}" : "");
    ask(c, strdup(text), &what);
    c->negotiated = true;
}

/* ---- bytes ---- */

static void hear_lines(struct qmp_client *c)
{
    char *end;

    while (c->fd >= 0 && c->in_bytes > 0 && (end = memchr(c->in, '\n', c->in_bytes)) != NULL) {
        size_t bytes = (size_t)(end - c->in) + 1;
        char *line = strndup(c->in, bytes);

        assert(line);
        memmove(c->in, c->in + bytes, c->in_bytes -= bytes);
        qmp_client_hear(c, line);
        free(line);
    }
}

static void hear(struct qmp_client *c)
{
    int64_t n = 1;

    while (c->fd >= 0 && n > 0) {
        struct iovec iov;
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

        if (c->in_room - c->in_bytes < 4096) {
            c->in_room = c->in_room * 2 + 8192;
            c->in = realloc(c->in, c->in_room);
            assert(c->in);
        }
        iov = (struct iovec){c->in + c->in_bytes, c->in_room - c->in_bytes};
        n = os->recvmsg(c->fd, &msg, 0);
        if (n > 0) {
            c->in_bytes += (size_t)n;
            hear_lines(c);
        } else if (n != -EAGAIN) {
            if (c->run->strict && c->asking > 0 && !c->garbled && !c->run->over) {
                daemon_wrong(c->run, "qmp %u: the session ended without a reason", c->id);
            }
            daemon_trace(c->run, "qmp end", c->id, &n, sizeof(n));
            qmp_client_drop(c);
        }
    }
}

static void tell(struct qmp_client *c)
{
    while (c->out_bytes > 0) {
        struct iovec iov = {c->out, c->out_bytes};
        const struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        int64_t n;

        if (daemon_chance(c->run, 10)) { /* half a message, and a pause in it */
            iov.iov_len = 1 + (size_t)daemon_below(c->run, c->out_bytes);
        }
        n = os->sendmsg(c->fd, &msg, 0);
        if (n <= 0) {
            return;
        }
        memmove(c->out, c->out + n, c->out_bytes -= (size_t)n);
        if (iov.iov_len > (size_t)n || c->out_bytes > 0) {
            return;
        }
    }
}

static void act(struct qmp_client *c)
{
    struct daemon_run *run = c->run;

    if (!c->negotiated) {
        negotiate(c);
    } else if (c->garbled) { /* nothing after it would be understood */
        tell(c);
        daemon_trace(run, "qmp drops", c->id, NULL, 0);
        qmp_client_drop(c);
    } else if (run->over && c->id == 0) {
        wind_up(c);
    } else if (run->over) {
        if (c->asking == 0) {
            qmp_client_drop(c);
        }
    } else if (daemon_chance(run, 1)) {
        tell(c);
        daemon_trace(run, "qmp drops", c->id, NULL, 0);
        qmp_client_drop(c);
    } else if (c->asking < QMP_ASKS_MAX && daemon_chance(run, 60)) {
        ask_something(c);
    }
}

static void step(void *opaque)
{
    struct qmp_client *c = opaque;
    struct daemon_run *run = c->run;
    char path[32];

    if (run->dead) {
        return;
    }
    if (c->fd < 0 && run->over && c->id != 0) {
        return;
    }
    if (c->fd < 0) {
        snprintf(path, sizeof(path), "/sim/qmp%u", c->id);
        c->fd = os_connect_unix(path, SOCK_NONBLOCK, NULL);
    }
    if (c->fd >= 0 && (run->over || daemon_chance(run, 95))) {
        hear(c);
    }
    if (c->fd >= 0 && c->greeted) {
        act(c);
    }
    if (c->fd >= 0) {
        tell(c);
    }
    sim_machine_after(
        run->machine,
        (int64_t)daemon_below(run, daemon_chance(run, 95) || run->over ? 5 * MS : 500 * MS), step,
        c);
}
