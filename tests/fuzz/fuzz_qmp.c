/* SPDX-License-Identifier: MIT */
/*
 * QMP: what a client sends, through the stream, the sessions, the dispatcher and the commands of a
 * daemon in a world without files and sockets. The input is what clients send; ESC (0x1b) and a
 * letter do something else: 0 1 2   the bytes that follow come from this client, which is made when
 * it is not there s       send what was written so far, and run the loop     e  an event is raised
 *   h       the client sends no more                           c  it goes away
 *   d       a descriptor comes along with the next byte
 * What holds: everything that comes back is JSON of a known shape, there is one reply for each
 * value or fault of what was sent (to a client that stays), and how the text is cut does not
 * matter.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <platter/platter.h>

#include "control/chardev.h"
#include "control/control.h"
#include "control/json_stream.h"
#include "control/monitor.h"
#include "fuzz.h"
#include "util/error.h"

#define CLIENTS 3
#define SEND_MAX 4096

static struct world {
    AioContext *ctx;
    struct monitors *all;
    struct control *control;
    struct chardev_list chardevs;
    struct client {
        int fd; /* -1: none, or gone */
        int server_fd;
        bool over;
        bool silent;             /* sends no more */
        struct json_stream sent; /* what it sent, to count */
        struct json_stream got;  /* what it got */
        size_t expected, replies, greetings;
    } clients[CLIENTS];
    unsigned depth; /* of commands that poll */
} world;

static bool tell; /* what is said, for who looks at an input */

/* ---- commands besides the daemon's ---- */

static int run_echo(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    *ret_value = json_incref(arguments);
    return 0;
}

static int run_poll(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    FUZZ_CHECK(world.depth < 2 * CLIENTS);
    world.depth++;
    for (int i = 0; i < 3; i++) {
        aio_poll(world.ctx, false);
    }
    world.depth--;
    return 0;
}

static int run_fail(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    int number = (int)json_integer_value(json_object_get(arguments, "class"));

    call->error_class = (enum qmp_error_class)(number & 3);
    return error_set(errp, EINVAL, "%d", number);
}

static int run_event(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    monitors_event(world.all, "MADE", json_incref(arguments));
    return 0;
}

static int run_take_fd(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    int fd = monitor_take_fd(call->monitor);

    if (fd < 0) {
        return error_set(errp, ENOENT, "no descriptor came");
    }
    close(fd);
    return 0;
}

static const struct qmp_command *find(const char *name)
{
    static const struct qmp_command table[] = {
        {"echo", QMP_ALLOW_OOB, run_echo},
        {"poll", 0, run_poll},
        {"poll-oob", QMP_ALLOW_OOB, run_poll},
        {"fail", 0, run_fail},
        {"event", 0, run_event},
        {"take-fd", QMP_ALLOW_OOB, run_take_fd},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strcmp(table[i].name, name) == 0) {
            return &table[i];
        }
    }
    return qmp_command_find(name);
}

/* ---- clients ---- */

/* Count what bytes hold; each_value may be NULL. */
static size_t count(struct json_stream *stream, const char *data, size_t bytes,
                    void (*each_value)(void *opaque, const json_t *value), void *opaque)
{
    size_t n = 0;

    while (bytes > 0) {
        json_t *value = NULL;
        Error *err = NULL;
        size_t used;
        enum json_stream_result result = json_stream_next(stream, data, bytes, &used, &value, &err);

        FUZZ_CHECK(used <= bytes && (result != JSON_STREAM_MORE || used == bytes));
        FUZZ_CHECK((result == JSON_STREAM_VALUE) == (value != NULL));
        FUZZ_CHECK((result == JSON_STREAM_ERROR) == (err != NULL));
        FUZZ_CHECK(each_value == NULL || result != JSON_STREAM_ERROR);
        if (each_value != NULL && value != NULL) {
            each_value(opaque, value);
        }
        n += result != JSON_STREAM_MORE;
        json_decref(value);
        error_free(err);
        data += used;
        bytes -= used;
    }
    return n;
}

/* What a client may get. */
static void check_message(void *opaque, const json_t *value)
{
    struct client *client = opaque;
    const json_t *error = json_object_get(value, "error");

    FUZZ_CHECK(json_is_object(value));
    if (json_object_get(value, "QMP") != NULL) {
        client->greetings++;
    } else if (json_object_get(value, "event") != NULL) {
        FUZZ_CHECK(json_is_object(json_object_get(value, "timestamp")));
    } else if (json_object_get(value, "return") != NULL) {
        FUZZ_CHECK(error == NULL);
        client->replies++;
    } else {
        FUZZ_CHECK(json_is_string(json_object_get(error, "class")));
        FUZZ_CHECK(json_is_string(json_object_get(error, "desc")));
        client->replies++;
    }
}

static void client_read(struct client *client)
{
    char buf[4096];
    ssize_t n;

    while (client->fd >= 0 && (n = recv(client->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        if (tell) {
            fprintf(stderr, "%.*s", (int)n, buf);
        }
        (void)count(&client->got, buf, (size_t)n, check_message, client);
    }
}

static void run(void)
{
    bool progress = true;

    while (progress) {
        progress = aio_poll(world.ctx, false);
        if (world.all != NULL) {
            monitors_turn(world.all);
        }
        for (int i = 0; i < CLIENTS; i++) {
            client_read(&world.clients[i]);
        }
    }
}

static void client_over(void *opaque)
{
    struct client *client = opaque;

    client->over = true;
    client_read(client);
    close(client->server_fd);
}

static void client_open(struct client *client, bool pretty)
{
    int fds[2];

    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    client->fd = fds[0];
    client->server_fd = fds[1];
    FUZZ_CHECK(monitor_new(world.all, fds[1], fds[1], pretty, client_over, client) != NULL);
}

static void client_send(struct client *client, const char *data, size_t bytes, bool with_fd)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } extra = {0};
    struct iovec iov = {(char *)data, bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (bytes == 0 || client->fd < 0 || client->silent || client->over) {
        return;
    }
    if (with_fd) {
        int fd = STDERR_FILENO;

        msg.msg_control = extra.bytes;
        msg.msg_controllen = sizeof(extra.bytes);
        extra.head.cmsg_level = SOL_SOCKET;
        extra.head.cmsg_type = SCM_RIGHTS;
        extra.head.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&extra.head), &fd, sizeof(fd));
    }
    /* SEND_MAX fits into the socket's buffer, since the loop runs after each. */
    FUZZ_CHECK(sendmsg(client->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)bytes);
    if (tell) {
        fprintf(stderr, "%zd> %.*s\n", client - world.clients, (int)bytes, data);
    }
    client->expected += count(&client->sent, data, bytes, NULL, NULL);
}

static void client_end(struct client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
        client->fd = -1;
    }
}

/* ---- the input ---- */

struct script {
    char buf[SEND_MAX];
    size_t used;
    unsigned who;
    bool fd_due;
};

static struct client *current(struct script *s)
{
    return &world.clients[s->who];
}

static void flush(struct script *s)
{
    client_send(current(s), s->buf, s->used, s->fd_due);
    s->fd_due = s->fd_due && s->used == 0;
    s->used = 0;
}

static void act(struct script *s, uint8_t op)
{
    flush(s);
    switch (op) {
    case '0':
    case '1':
    case '2':
        s->who = op - '0';
        if (current(s)->fd < 0 && current(s)->greetings == 0 && !current(s)->silent) {
            client_open(current(s), op == '2');
        }
        break;
    case 's':
        run();
        break;
    case 'e':
        monitors_event(world.all, "MADE", NULL);
        break;
    case 'h':
        if (current(s)->fd >= 0 && !current(s)->over) {
            shutdown(current(s)->fd, SHUT_WR);
        }
        current(s)->silent = true;
        break;
    case 'c':
        client_end(current(s));
        current(s)->silent = true;
        break;
    case 'd':
        s->fd_due = true;
        break;
    default:
        break;
    }
}

static void play(struct script *s, const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (data[i] == 0x1b && i + 1 < bytes) {
            act(s, data[++i]);
            continue;
        }
        s->buf[s->used++] = (char)data[i];
        if (s->used == SEND_MAX) {
            flush(s);
            run();
        }
    }
    flush(s);
}

static void world_begin(void)
{
    struct aio_context_options options = {.size = sizeof(options), .engine = AIO_ENGINE_THREADS};
    struct platter_options po = {.size = sizeof(po),
                                 .memory_limit_bytes = 64 << 20,
                                 .image_refs = PLATTER_REFS_NONE,
                                 .event_cb = monitors_platter_event};

    world = (struct world){.ctx = aio_context_new(&options, NULL)};
    FUZZ_CHECK(world.ctx != NULL);
    aio_context_set_current(world.ctx);
    world.control = control_new();
    world.all = monitors_new(world.ctx, world.control, find);
    FUZZ_CHECK(world.control != NULL && world.all != NULL);
    po.main_context = world.ctx;
    po.event_opaque = world.all;
    world.control->pl = platter_new(&po, NULL);
    FUZZ_CHECK(world.control->pl != NULL);
    LIST_INIT(&world.chardevs);
    world.control->monitors = world.all;
    world.control->chardevs = &world.chardevs;
    for (int i = 0; i < CLIENTS; i++) {
        world.clients[i].fd = -1;
    }
}

static void world_end(void)
{
    (void)control_free(world.control);
    run();
    monitors_free(world.all);
    world.all = NULL;
    run();
    aio_context_set_current(NULL);
    aio_context_unref(world.ctx);
}

static void sessions(const uint8_t *data, size_t bytes)
{
    struct script s = {0};

    world_begin();
    client_open(&world.clients[0], false);
    play(&s, data, bytes);
    run();
    for (int i = 0; i < CLIENTS; i++) {
        struct client *client = &world.clients[i];

        FUZZ_CHECK(client->fd < 0 || client->replies == client->expected);
        FUZZ_CHECK(client->fd < 0 || client->greetings == 1);
        FUZZ_CHECK(client->fd < 0 || client->over == client->silent);
        client_end(client);
        json_stream_fini(&client->sent);
        json_stream_fini(&client->got);
    }
    run();
    world_end();
}

/* The same values whether the text comes in one piece or byte by byte. */
static void cuts(const uint8_t *data, size_t bytes)
{
    struct json_stream whole = {0}, bytewise = {0};
    size_t n = 0;

    for (size_t i = 0; i < bytes; i++) {
        n += count(&bytewise, (const char *)data + i, 1, NULL, NULL);
    }
    FUZZ_CHECK(count(&whole, (const char *)data, bytes, NULL, NULL) == n);
    FUZZ_CHECK(json_stream_pending(&whole) == json_stream_pending(&bytewise));
    json_stream_fini(&whole);
    json_stream_fini(&bytewise);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    tell = getenv("PLATTER_FUZZ_TELL") != NULL;
    fuzz_close_world();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    cuts(data, bytes);
    sessions(data, bytes);
    return 0;
}
