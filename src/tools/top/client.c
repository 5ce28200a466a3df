/* SPDX-License-Identifier: MIT */
/* Asking a daemon. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "os/listen.h"
#include "os/os.h"
#include "tools/top/client.h"
#include "util/error.h"

#define GREETING_S 5 /* so long the first word of a monitor may take */

/* The next value that the daemon sends. */
static json_t *receive(struct top_client *client, Error **errp)
{
    for (;;) {
        json_t *value = NULL;
        size_t used = 0;
        enum json_stream_result result;
        int64_t n;

        if (client->at < client->bytes) {
            result = json_stream_next(&client->stream, client->data + client->at,
                                      client->bytes - client->at, &used, &value, errp);
            client->at += used;
            if (result != JSON_STREAM_MORE) {
                return value;
            }
            continue;
        }
        n = os->read(client->fd, client->data, sizeof(client->data));
        if (n == -EINTR) {
            continue;
        }
        if (n == -EAGAIN) {
            error_set(
                errp, ETIMEDOUT,
                "the monitor says nothing for %d seconds: it serves one client at a time, and "
                "may have another",
                GREETING_S);
            return NULL;
        }
        if (n <= 0) {
            error_set(errp, n < 0 ? (int)-n : EPIPE, "the daemon has closed the monitor");
            return NULL;
        }
        client->at = 0;
        client->bytes = (size_t)n;
    }
}

static int send_text(struct top_client *client, const char *text, Error **errp)
{
    size_t left = strlen(text);

    while (left > 0) {
        int64_t n = os->write(client->fd, text, left);

        if (n < 0 && n != -EINTR) {
            return error_set_errno(errp, (int)-n, "cannot send to the monitor");
        }
        text += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

json_t *top_client_ask(struct top_client *client, const char *command, Error **errp)
{
    char request[128];

    snprintf(request, sizeof(request), "{\"execute\": \"%s\"}\n", command);
    if (send_text(client, request, errp) < 0) {
        return NULL;
    }
    for (;;) {
        json_t *message = receive(client, errp);
        json_t *value = json_incref(json_object_get(message, "return"));
        json_t *failure = json_object_get(message, "error");

        if (message && !value && failure) {
            const char *why = json_string_value(json_object_get(failure, "desc"));

            error_set(errp, EINVAL, "%s: %s", command, why ? why : "the monitor does not say why");
        }
        if (!message || value || failure) {
            json_decref(message);
            return value;
        }
        json_decref(message); /* an event */
    }
}

/* 0: for ever. */
static void wait_at_most(const struct top_client *client, int seconds)
{
    struct timeval limit = {.tv_sec = seconds};

    (void)os->setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

int top_client_begin(struct top_client *client, const char *path, Error **errp)
{
    json_t *value;
    int fd = os_connect_unix(path, 0, errp);

    memset(client, 0, sizeof(*client));
    client->fd = fd;
    if (fd < 0) {
        return fd;
    }
    wait_at_most(client, GREETING_S);
    value = receive(client, errp); /* the greeting */
    wait_at_most(client, 0);
    if (value) {
        json_decref(value);
        value = top_client_ask(client, "qmp_capabilities", errp);
    }
    if (!value) {
        top_client_end(client);
        return -EPROTO;
    }
    json_decref(value);
    return 0;
}

void top_client_end(struct top_client *client)
{
    if (client->fd >= 0) {
        os->close(client->fd);
    }
    client->fd = -1;
    json_stream_fini(&client->stream);
}
