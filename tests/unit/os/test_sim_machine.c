/* SPDX-License-Identifier: MIT */
/* The machine in one thread: sockets as the kernel has them, and time that only moves forward. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

#include "os/sim/sim_machine.h"

#define ROOM 1000
#define MS INT64_C(1000000)

static struct sim_world *world;
static struct sim_machine *machine;

static void begin(uint64_t seed, unsigned short_percent)
{
    const struct sim_machine_options opts = {.short_percent = short_percent,
                                             .socket_bytes = ROOM,
                                             .work_min_ns = MS,
                                             .work_spread_ns = 10 * MS};

    world = sim_world_new(seed);
    machine = sim_machine_new(world, seed, &opts);
    assert_non_null(machine);
    os_replace(sim_machine_table(machine));
}

static int setup(void **state)
{
    begin(7, 0);
    return 0;
}

static int teardown(void **state)
{
    assert_int_equal(sim_machine_open_fds(machine), 0);
    os_replace(NULL);
    sim_machine_free(machine);
    sim_world_free(world);
    return 0;
}

static struct sockaddr_un address(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    strcpy(un.sun_path, path);
    return un;
}

static int stream(void)
{
    int fd = os->socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    assert_true(fd >= SIM_MACHINE_FD_BASE);
    return fd;
}

static int listener(const char *path)
{
    struct sockaddr_un un = address(path);
    int fd = stream();

    assert_int_equal(os->bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(os->listen(fd, 2), 0);
    return fd;
}

static int dial(const char *path, int *ret_fd)
{
    struct sockaddr_un un = address(path);
    int rc;

    *ret_fd = stream();
    rc = os->connect(*ret_fd, (struct sockaddr *)&un, sizeof(un));
    if (rc < 0) {
        os->close(*ret_fd);
    }
    return rc;
}

static int64_t tell(int fd, const void *data, size_t bytes)
{
    struct iovec iov = {(void *)(uintptr_t)data, bytes};
    const struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    return os->sendmsg(fd, &msg, 0);
}

static int64_t hear(int fd, void *data, size_t bytes)
{
    struct iovec iov = {data, bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    return os->recvmsg(fd, &msg, 0);
}

static uint32_t ready(int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT};
    struct epoll_event got = {0};
    int ep = os->epoll_create();

    assert_int_equal(os->epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event), 0);
    os->epoll_wait(ep, &got, 1, 0);
    os->close(ep);
    return got.events;
}

static void test_addresses(void **state)
{
    struct sockaddr_un un = address("/sim/a");
    int server;
    int other = stream();
    int fd;
    struct stat st;

    assert_int_equal(dial("/sim/a", &fd), -ENOENT);
    server = listener("/sim/a");
    assert_int_equal(os->bind(other, (struct sockaddr *)&un, sizeof(un)), -EADDRINUSE);
    assert_int_equal(os->stat("/sim/a", &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(os->open("/sim/a", O_RDWR, 0), -ENXIO);
    os->close(server);
    assert_int_equal(dial("/sim/a", &fd), -ECONNREFUSED); /* its name stays */
    assert_int_equal(os->unlink("/sim/a"), 0);
    assert_int_equal(dial("/sim/a", &fd), -ENOENT);
    un = address("/tmp/real");
    assert_int_equal(os->bind(other, (struct sockaddr *)&un, sizeof(un)), -EINVAL);
    assert_int_equal(os->open("/etc/passwd", O_RDONLY, 0), -ENOENT);
    assert_int_equal(os->socket(AF_INET, SOCK_STREAM, 0), -EAFNOSUPPORT);
    os->close(other);
}

static void test_accept(void **state)
{
    int server = listener("/sim/a");
    int clients[3];
    int fd;
    char text[8];

    assert_int_equal(os->accept(server, NULL, NULL), -EAGAIN);
    assert_int_equal(dial("/sim/a", &clients[0]), 0);
    assert_int_equal(dial("/sim/a", &clients[1]), 0);
    assert_int_equal(dial("/sim/a", &clients[2]), -EAGAIN); /* a backlog of two */
    assert_int_equal(ready(server), EPOLLIN);
    assert_int_equal(tell(clients[0], "early", 5), 5);
    fd = os->accept(server, NULL, NULL);
    assert_true(fd >= 0);
    assert_int_equal(hear(fd, text, sizeof(text)), 5);
    assert_int_equal(hear(fd, text, sizeof(text)), -EAGAIN);
    os->close(server); /* whom nobody accepted loses the connection */
    assert_int_equal(hear(clients[1], text, sizeof(text)), 0);
    os->close(clients[0]);
    os->close(clients[1]);
    os->close(fd);
    os->unlink("/sim/a");
}

static void test_streams(void **state)
{
    uint8_t data[2 * ROOM];
    uint8_t got[2 * ROOM];
    int fds[2];

    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i % 251);
    }
    assert_int_equal(sim_machine_pair(machine, fds), 0);
    assert_int_equal(ready(fds[1]), EPOLLOUT);
    assert_int_equal(tell(fds[0], data, sizeof(data)), ROOM);
    assert_int_equal(tell(fds[0], data, 1), -EAGAIN);
    assert_int_equal(ready(fds[0]), 0);
    assert_int_equal(ready(fds[1]), EPOLLIN | EPOLLOUT);
    assert_int_equal(hear(fds[1], got, 700), 700);
    assert_int_equal(ready(fds[0]), EPOLLOUT);
    assert_int_equal(tell(fds[0], data + ROOM, 500), 500); /* around the end of the ring */
    assert_int_equal(hear(fds[1], got + 700, ROOM), 800);
    assert_memory_equal(got, data, 1500);
    assert_int_equal(os->shutdown(fds[0], SHUT_WR), 0);
    assert_int_equal(tell(fds[0], data, 1), -EPIPE);
    assert_int_equal(hear(fds[1], got, 1), 0);
    assert_int_equal(tell(fds[1], data, 1), 1); /* the other way goes on */
    os->close(fds[0]);                          /* with a byte unread */
    assert_int_equal(ready(fds[1]), EPOLLIN | EPOLLOUT | EPOLLHUP);
    assert_int_equal(hear(fds[1], got, 1), -ECONNRESET);
    assert_int_equal(hear(fds[1], got, 1), 0);
    assert_int_equal(tell(fds[1], data, 1), -EPIPE);
    os->close(fds[1]);
}

static void test_faults(void **state)
{
    const struct sim_rule rule = {.calls = SIM_CALLS(SIM_CALL_SEND), .error = ECONNRESET};
    int fds[2];

    assert_int_equal(sim_machine_pair(machine, fds), 0);
    sim_faults_add(sim_world_faults(world), &rule);
    assert_int_equal(tell(fds[0], "x", 1), -ECONNRESET);
    sim_machine_peer_begin(machine);
    assert_int_equal(tell(fds[0], "x", 1), 1); /* the test's own calls are spared */
    sim_machine_peer_end(machine);
    sim_faults_clear(sim_world_faults(world));
    os->close(fds[0]);
    os->close(fds[1]);
}

/* ---- time ---- */

struct diary {
    int events; /* eventfd */
    int n;
    int64_t when[4];
};

static void note(void *opaque)
{
    struct diary *diary = opaque;
    const uint64_t one = 1;

    diary->when[diary->n++] = os->clock_monotonic_ns();
    if (diary->n == 1) {
        sim_machine_after(machine, MS, note, diary);
        return;
    }
    assert_int_equal(os->write(diary->events, &one, sizeof(one)), sizeof(one));
}

static void test_agenda(void **state)
{
    struct diary diary = {.events = os->eventfd(0, 0)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = 5};
    int64_t start = os->clock_monotonic_ns();
    int ep = os->epoll_create();
    int timer = os->timerfd_create();
    uint64_t count;

    sim_machine_after(machine, 3 * MS, note, &diary);
    assert_int_equal(os->epoll_ctl(ep, EPOLL_CTL_ADD, diary.events, &event), 0);
    assert_int_equal(os->epoll_wait(ep, &event, 1, 2 * MS), 0);
    assert_int_equal(os->epoll_wait(ep, &event, 1, -1), 1);
    assert_int_equal(event.data.u32, 5);
    assert_int_equal(diary.n, 2);
    assert_int_equal(diary.when[0], start + 3 * MS);
    assert_int_equal(diary.when[1], start + 4 * MS);
    assert_int_equal(os->epoll_wait(ep, &event, 1, 2 * MS), 0); /* once */
    assert_int_equal(os->read(diary.events, &count, sizeof(count)), sizeof(count));
    assert_int_equal(os->timerfd_set(timer, start + 20 * MS), 0);
    event.events = EPOLLIN;
    assert_int_equal(os->epoll_ctl(ep, EPOLL_CTL_ADD, timer, &event), 0);
    assert_int_equal(os->epoll_wait(ep, &event, 1, -1), 1);
    assert_int_equal(os->clock_monotonic_ns(), start + 20 * MS);
    os->close(timer);
    os->close(diary.events);
    os->close(ep);
}

/* The order and the moments in which work comes back, by a seed. */
static uint64_t work_trace(uint64_t seed)
{
    struct diary diary = {.n = 1};
    struct epoll_event event;
    uint64_t hash = 0;
    int ep;

    begin(seed, 0);
    diary.events = os->eventfd(0, 0);
    ep = os->epoll_create();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(os->run_later(note, &diary), 0);
    }
    assert_int_equal(os->epoll_wait(ep, &event, 1, 12 * MS), 0);
    assert_int_equal(diary.n, 4);
    for (int i = 1; i < 4; i++) {
        hash = hash * 1000003 + (uint64_t)diary.when[i];
    }
    os->close(diary.events);
    os->close(ep);
    teardown(NULL);
    return hash;
}

static void test_seed(void **state)
{
    uint64_t hash = work_trace(3);

    assert_int_equal(work_trace(3), hash);
    assert_true(work_trace(4) != hash);
}

static jmp_buf stalled;

static void on_stall(void *opaque, bool turns)
{
    longjmp(stalled, turns ? 2 : 1);
}

static void test_stall(void **state)
{
    struct epoll_event event;
    int ep = os->epoll_create();

    sim_machine_on_stall(machine, 10, on_stall, NULL);
    if (setjmp(stalled) == 0) {
        os->epoll_wait(ep, &event, 1, -1);
        fail();
    }
    switch (setjmp(stalled)) {
    case 0:
        for (int i = 0; i < 20; i++) {
            os->epoll_wait(ep, &event, 1, 0);
        }
        fail();
    case 1:
        fail();
    default:
        break;
    }
    os->close(ep);
}

static void test_short(void **state)
{
    int fds[2];
    int parts = 0;
    size_t done = 0;

    begin(1, 100);
    assert_int_equal(sim_machine_pair(machine, fds), 0);
    while (done < 100) {
        char data[100] = {0};
        int64_t n = tell(fds[0], data, 100 - done);

        assert_true(n > 0);
        done += (size_t)n;
        parts++;
    }
    assert_true(parts > 1);
    os->close(fds[0]);
    os->close(fds[1]);
    teardown(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_accept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
        cmocka_unit_test_setup_teardown(test_agenda, setup, teardown),
        cmocka_unit_test(test_seed),
        cmocka_unit_test_setup_teardown(test_stall, setup, teardown),
        cmocka_unit_test(test_short),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
