/* SPDX-License-Identifier: MIT */
/* Places of monitors: one client after the other, and clients that try again. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "control/chardev.h"
#include "os/os.h"
#include "session.h"

#define OK "{\"return\": {}}\n"

static struct control control;
static struct chardev_list chardevs;
static char folder[] = "/tmp/platter-chardev-XXXXXX";
static char path[100];
static int64_t now_ns;

static int64_t fake_clock(void)
{
    return now_ns;
}

static int setup(void **state)
{
    static struct os_table table;

    table = os_linux;
    table.clock_monotonic_ns = fake_clock;
    os_replace(&table);
    now_ns = 1;
    session_world_new(&control);
    LIST_INIT(&chardevs);
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/qmp", folder);
    return 0;
}

static int teardown(void **state)
{
    chardev_list_free(&chardevs);
    session_world_free(&control);
    assert_int_equal(rmdir(folder), 0); /* no socket is left */
    os_replace(NULL);
    return 0;
}

static struct qmp_chardev_options socket_options(void)
{
    return (struct qmp_chardev_options){.backend = QMP_CHARDEV_KIND_SOCKET, .id = "c"};
}

static struct qmp_chardev_options unix_server(bool wait)
{
    struct qmp_chardev_options o = socket_options();

    o.u.socket = (struct qmp_chardev_socket){.has_path = true,
                                             .path = path,
                                             .has_server = true,
                                             .server = true,
                                             .has_wait = true,
                                             .wait = wait};
    return o;
}

static struct chardev *make(const struct qmp_chardev_options *o)
{
    Error *err = NULL;
    struct chardev *chr;

    assert_int_equal(chardev_new(&chardevs, control.ctx, o, &err), 0);
    chr = chardev_find(&chardevs, "c");
    assert_non_null(chr);
    assert_int_equal(chardev_attach(chr, control.all, false, &err), 0);
    return chr;
}

static void refused(const struct qmp_chardev_options *o, const char *why)
{
    Error *err = NULL;

    assert_true(chardev_new(&chardevs, control.ctx, o, &err) < 0);
    assert_non_null(strstr(error_get_pretty(err), why));
    error_free(err);
    assert_null(chardev_find(&chardevs, "c"));
}

static struct client connect_unix(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct client client = {.control = &control,
                            .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};

    strcpy(addr.sun_path, path);
    assert_int_equal(connect(client.fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return client;
}

static void expect_greeting(struct client *client)
{
    char *text;

    session_run(&control);
    text = client_read(client);
    assert_true(strncmp(text, "{\"QMP\": ", 8) == 0);
    free(text);
}

static void test_text(void **state)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"stdio,id=c", "stdio,id=c"},
        {"socket,id=c,path=/a,server,nowait", "socket,id=c,path=/a,server=on,wait=off"},
        {"socket,path=/a,,b,,server,server", "socket,path=/a,,b,,server,server=on"},
        {"socket,nodelay,nono,no,x,", "socket,nodelay=on,no=off,no=on,x=on,"},
        {"server", "server"},
        {",a,,b", ",a,,b=on"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *text = chardev_text(cases[i][0]);

        assert_string_equal(text, cases[i][1]);
        free(text);
    }
}

static void test_refusals(void **state)
{
    struct qmp_chardev_options o = socket_options();

    refused(&o, "no 'path', 'host' or 'fd'");
    o = unix_server(false);
    o.u.socket.has_fd = true;
    o.u.socket.fd = "3";
    refused(&o, "None or one of");
    o = unix_server(false);
    o.u.socket.has_reconnect = true;
    o.u.socket.reconnect = 1;
    refused(&o, "'reconnect' option is incompatible");
    o = unix_server(false);
    o.u.socket.server = false;
    refused(&o, "'wait' option is incompatible");
    o.u.socket.has_wait = false;
    refused(&o, "Failed to connect to");
    o = socket_options();
    o.u.socket.has_host = true;
    o.u.socket.host = "127.0.0.1";
    refused(&o, "no port given");
    o = socket_options();
    o.u.socket.has_fd = true;
    o.u.socket.fd = "999";
    refused(&o, "is not a socket");
    o.u.socket.fd = "x";
    refused(&o, "Unable to parse FD number x");
}

static void test_one_client_after_the_other(void **state)
{
    struct qmp_chardev_options o = unix_server(false);
    struct chardev *chr = make(&o);
    struct client a, b;
    struct stat st;
    Error *err = NULL;

    assert_false(chardev_is_waiting(chr));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(chardev_attach(chr, control.all, false, &err) < 0);
    error_free(err);
    a = connect_unix();
    b = connect_unix();
    expect_greeting(&a);
    client_talk(&a, CAPS, OK);
    client_write(&b, CAPS);
    client_expect(&b, "");
    client_close(&a);
    expect_greeting(&b); /* and the reply behind it */
    client_talk(&b, "{\"execute\":\"echo\"}", OK);
    client_close(&b);
    a = connect_unix();
    expect_greeting(&a);
    client_close(&a);
}

static void test_waiting(void **state)
{
    struct qmp_chardev_options o = unix_server(true);
    struct chardev *chr = make(&o);
    struct client a;

    assert_string_equal(strrchr(chardev_filename(chr), '/'), "/qmp");
    session_run(&control);
    assert_true(chardev_is_waiting(chr));
    a = connect_unix();
    expect_greeting(&a);
    assert_false(chardev_is_waiting(chr));
    client_close(&a);
    session_run(&control);
    assert_false(chardev_is_waiting(chr)); /* only for the first */
}

/* Ended while a client is there, and while one waits. */
static void test_end_with_clients(void **state)
{
    struct qmp_chardev_options o = unix_server(false);
    struct client a, b;
    char byte;

    make(&o);
    a = connect_unix();
    b = connect_unix();
    expect_greeting(&a);
    chardev_list_free(&chardevs);
    session_run(&control);
    assert_int_equal(read(a.fd, &byte, 1), 0);
    close(a.fd);
    close(b.fd);
}

/* ---- clients ---- */

static int listen_unix(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    strcpy(addr.sun_path, path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 5), 0);
    return fd;
}

static struct client accept_from(int listener)
{
    return (struct client){
        .control = &control,
        .fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK),
    };
}

static void test_client_tries_again(void **state)
{
    struct qmp_chardev_options o = socket_options();
    struct client a;
    int listener;

    o.u.socket = (struct qmp_chardev_socket){
        .has_path = true, .path = path, .has_reconnect = true, .reconnect = 3};
    make(&o); /* nobody is there */
    session_run(&control);
    listener = listen_unix();
    now_ns += INT64_C(2999) * 1000000;
    session_run(&control);
    assert_true(accept_from(listener).fd < 0);
    for (int i = 0; i < 3; i++) { /* each time the server ends the connection */
        now_ns += INT64_C(3000) * 1000000;
        session_run(&control);
        a = accept_from(listener);
        expect_greeting(&a);
        client_talk(&a, CAPS, OK);
        client_close(&a);
        assert_true(accept_from(listener).fd < 0);
    }
    close(listener);
    unlink(path);
    now_ns += INT64_C(9000) * 1000000; /* gone again: it goes on trying */
    session_run(&control);
    listener = listen_unix();
    now_ns += INT64_C(9000) * 1000000;
    session_run(&control);
    a = accept_from(listener);
    expect_greeting(&a);
    client_close(&a);
    close(listener);
    unlink(path);
}

static void test_client_once(void **state)
{
    struct qmp_chardev_options o = socket_options();
    int listener = listen_unix();
    struct client a;

    o.u.socket = (struct qmp_chardev_socket){.has_path = true, .path = path};
    make(&o);
    a = accept_from(listener);
    expect_greeting(&a);
    client_close(&a);
    now_ns += INT64_C(3600) * 1000000000;
    session_run(&control);
    assert_true(accept_from(listener).fd < 0);
    close(listener);
    unlink(path);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in addr;
    socklen_t len = sizeof(addr);

    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    return ntohs(addr.sin_port);
}

/* A client over TCP; a port where nobody listens is an error at once, or tried again. */
static void test_tcp_client(void **state)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct qmp_chardev_options o = socket_options();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct client a = {.fd = -1};
    char port[8];

    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    snprintf(port, sizeof(port), "%u", port_of(fd));
    o.u.socket = (struct qmp_chardev_socket){
        .has_host = true, .host = "127.0.0.1", .has_port = true, .port = port};
    refused(&o, "Failed to connect to '127.0.0.1:");
    o.u.socket.has_reconnect = true;
    o.u.socket.reconnect = 1;
    o.u.socket.has_nodelay = true;
    o.u.socket.nodelay = true;
    make(&o);
    session_run(&control);
    assert_int_equal(listen(fd, 5), 0);
    while (a.fd < 0) {
        now_ns += INT64_C(1000) * 1000000;
        session_run(&control);
        a = accept_from(fd);
    }
    expect_greeting(&a);
    client_talk(&a, CAPS, OK);
    client_close(&a);
    close(fd);
}

/* ---- descriptors that the daemon was started with ---- */

static void test_fds(void **state)
{
    struct qmp_chardev_options o = socket_options();
    struct client a = {.control = &control};
    char number[12];
    int fds[2];
    int listener;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    snprintf(number, sizeof(number), "%d", fds[0]);
    o.u.socket = (struct qmp_chardev_socket){.has_fd = true, .fd = number};
    make(&o);
    a.fd = fds[1];
    assert_int_equal(os->fcntl_setfl(a.fd, os->fcntl_getfl(a.fd) | SOCK_NONBLOCK), 0);
    expect_greeting(&a);
    client_talk(&a, CAPS, OK);
    client_close(&a);
    chardev_list_free(&chardevs);

    listener = listen_unix();
    snprintf(number, sizeof(number), "%d", listener);
    refused(&o, "listens");
    o.u.socket.has_server = o.u.socket.server = true;
    o.u.socket.has_wait = true;
    make(&o);
    for (int i = 0; i < 2; i++) {
        a = connect_unix();
        expect_greeting(&a);
        client_close(&a);
    }
    chardev_list_free(&chardevs);
    unlink(path); /* it is not ours to remove */
}

static void test_list(void **state)
{
    struct qmp_chardev_options o = unix_server(false);
    json_t *list;
    Error *err = NULL;

    make(&o);
    list = chardev_list_json(&chardevs);
    assert_int_equal(json_array_size(list), 1);
    json_decref(list);
    assert_true(chardev_new(&chardevs, control.ctx, &o, &err) < 0);
    assert_non_null(strstr(error_get_pretty(err), "already exists"));
    error_free(err);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        TEST(test_refusals),
        TEST(test_one_client_after_the_other),
        TEST(test_waiting),
        TEST(test_end_with_clients),
        TEST(test_client_tries_again),
        TEST(test_client_once),
        TEST(test_tcp_client),
        TEST(test_fds),
        TEST(test_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
