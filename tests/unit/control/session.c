/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "session.h"
#include "util/error.h"

#include <platter/platter.h>

/* ---- commands ---- */

static int run_echo(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    *ret_value = json_incref(arguments);
    return 0;
}

static int run_fail(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    call->error_class =
        (enum qmp_error_class)json_integer_value(json_object_get(arguments, "class"));
    return error_set(errp, EINVAL, "%s", json_string_value(json_object_get(arguments, "desc")));
}

static int run_hold(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    struct control *control = call->control;
    struct client *client = control->holding;

    control->running++;
    control->most = control->running > control->most ? control->running : control->most;
    control->hold = true;
    if (client != NULL && control->says != NULL) {
        client_write(client, control->says);
    } else if (client != NULL) {
        close(client->fd);
        client->fd = -1;
    }
    while (control->hold && (client == NULL || client->overs == 0)) {
        aio_poll(control->ctx, true);
    }
    control->running--;
    control->runs++;
    *ret_value = json_pack("{s:b}", "open", monitor_is_open(call->monitor));
    return 0;
}

static int run_release(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    call->control->hold = false;
    return 0;
}

static int run_ping(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    *ret_value = json_string("pong");
    return 0;
}

static int run_note(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    struct control *control = call->control;

    control->running++;
    control->most = control->running > control->most ? control->running : control->most;
    control->runs++;
    if (strlen(control->order) + 2 < sizeof(control->order)) {
        strcat(control->order, json_string_value(json_object_get(arguments, "who")));
    }
    control->running--;
    return 0;
}

static int run_event(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    monitors_event(call->control->all, "NOTED", json_incref(arguments));
    return 0;
}

static int run_big(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    size_t bytes = (size_t)json_integer_value(json_object_get(arguments, "bytes"));
    char *text = malloc(bytes + 1);

    assert_non_null(text);
    memset(text, 'x', bytes);
    *ret_value = json_stringn(text, bytes);
    free(text);
    call->control->runs++;
    return 0;
}

static int run_take_fd(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)
{
    call->control->took = monitor_take_fd(call->monitor);
    *ret_value = json_boolean(call->control->took >= 0);
    return 0;
}

const struct qmp_command *session_find(const char *name)
{
    static const struct qmp_command table[] = {
        {"echo", 0, run_echo},
        {"fail", 0, run_fail},
        {"hold", 0, run_hold},
        {"release", QMP_ALLOW_OOB, run_release},
        {"ping", QMP_ALLOW_OOB, run_ping},
        {"note", 0, run_note},
        {"event", 0, run_event},
        {"big", 0, run_big},
        {"take-fd", 0, run_take_fd},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strcmp(table[i].name, name) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

/* ---- the world ---- */

void session_world_new(struct control *control)
{
    *control = (struct control){.ctx = aio_context_new(NULL, NULL), .took = -1};
    assert_non_null(control->ctx);
    aio_context_set_current(control->ctx);
    control->all = monitors_new(control->ctx, control, session_find);
    assert_non_null(control->all);
}

void session_world_free(struct control *control)
{
    monitors_free(control->all);
    control->all = NULL;
    session_run(control);
    aio_context_set_current(NULL);
    aio_context_unref(control->ctx);
}

void session_run(struct control *control)
{
    while (aio_poll(control->ctx, false)) {
        if (control->all != NULL) {
            monitors_turn(control->all);
        }
    }
}

void session_over(void *opaque)
{
    struct client *client = opaque;

    client->overs++;
    client->mon = NULL;
    close(client->server_fd);
}

void client_open(struct client *client, struct control *control, bool pretty)
{
    int fds[2];
    char greeting[300];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    *client = (struct client){.control = control, .fd = fds[0], .server_fd = fds[1]};
    client->mon = monitor_new(control->all, fds[1], fds[1], pretty, session_over, client);
    assert_non_null(client->mon);
    if (!pretty) {
        snprintf(greeting, sizeof(greeting),
                 "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 1, \"major\": 0}, "
                 "\"package\": \"Platter %s\"}, \"capabilities\": [\"oob\"]}}\n",
                 platter_version());
        client_expect(client, greeting);
    }
}

void client_close(struct client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
        client->fd = -1;
    }
    session_run(client->control);
}

void client_write_bytes(struct client *client, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(client->fd, data, bytes);

        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            session_run(client->control);
            continue;
        }
        data += n;
        bytes -= (size_t)n;
    }
}

void client_write(struct client *client, const char *text)
{
    client_write_bytes(client, text, strlen(text));
}

void client_write_fd(struct client *client, const char *text, int fd)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(char *)text, strlen(text)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};

    control.head.cmsg_level = SOL_SOCKET;
    control.head.cmsg_type = SCM_RIGHTS;
    control.head.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
    assert_int_equal(sendmsg(client->fd, &msg, 0), strlen(text));
}

char *client_read(struct client *client)
{
    size_t size = 8192, used = 0;
    char *text = malloc(size);
    ssize_t n;

    assert_non_null(text);
    while ((n = read(client->fd, text + used, size - used - 1)) > 0) {
        used += (size_t)n;
        session_run(client->control);
        if (size - used < 4096) {
            size *= 2;
            text = realloc(text, size);
            assert_non_null(text);
        }
    }
    text[used] = '\0';
    for (char *p = text, *to = text;; p++) {
        if (*p != '\r') {
            *to++ = *p;
        }
        if (*p == '\0') {
            break;
        }
    }
    return text;
}

void client_expect(struct client *client, const char *expected)
{
    char *text;

    session_run(client->control);
    text = client_read(client);
    assert_string_equal(text, expected);
    free(text);
}

void client_talk(struct client *client, const char *text, const char *expected)
{
    client_write(client, text);
    client_expect(client, expected);
}
