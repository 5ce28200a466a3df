/* SPDX-License-Identifier: MIT */
/* The clock of the simulated world: it jumps when all wait, and never while somebody works. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "os/sim/sim_os.h"

#define HOUR_NS (INT64_C(3600) * 1000000000)

static struct sim_world *world;

static int setup(void **state)
{
    world = sim_world_new(7);
    assert_non_null(world);
    os_replace(sim_os_table(world));
    return 0;
}

static int teardown(void **state)
{
    os_replace(0);
    sim_world_free(world);
    return 0;
}

static void watch(int ep, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

    assert_int_equal(os->epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
}

static void test_a_wait_takes_its_time(void **state)
{
    int64_t begin = os->clock_monotonic_ns();
    struct epoll_event ev;
    int ep = os->epoll_create();

    assert_int_equal(os->epoll_wait(ep, &ev, 1, HOUR_NS), 0);
    assert_int_equal(os->clock_monotonic_ns() - begin, HOUR_NS);
    assert_int_equal(os->epoll_wait(ep, &ev, 1, 0), 0);
    assert_int_equal(os->clock_monotonic_ns() - begin, HOUR_NS);
    sim_world_advance_ns(world, 5);
    assert_int_equal(os->clock_monotonic_ns() - begin, HOUR_NS + 5);
    os->close(ep);
}

static void test_timers(void **state)
{
    int64_t begin = os->clock_monotonic_ns();
    struct epoll_event ev;
    uint64_t count = 0;
    int ep = os->epoll_create();
    int late = os->timerfd_create();
    int early = os->timerfd_create();

    watch(ep, late);
    watch(ep, early);
    assert_int_equal(os->timerfd_set(late, begin + 2 * HOUR_NS), 0);
    assert_int_equal(os->timerfd_set(early, begin + HOUR_NS), 0);
    assert_int_equal(os->epoll_wait(ep, &ev, 1, -1), 1);
    assert_int_equal(ev.data.fd, early);
    assert_int_equal(os->clock_monotonic_ns() - begin, HOUR_NS);
    assert_int_equal(os->read(early, &count, 8), 8);
    assert_int_equal(os->timerfd_set(late, 0), 0);
    assert_int_equal(os->epoll_wait(ep, &ev, 1, 5 * HOUR_NS), 0);
    assert_int_equal(os->timerfd_set(early, 1), 0); /* past */
    assert_int_equal(os->epoll_wait(ep, &ev, 1, -1), 1);
    assert_int_equal(os->timerfd_set(early, begin + 90 * HOUR_NS), 0); /* forgets the expiry */
    assert_int_equal(os->epoll_wait(ep, &ev, 1, 0), 0);
    assert_int_equal(os->timerfd_set(ep, 5), -EINVAL);
    os->close(late);
    os->close(early);
    os->close(ep);
}

static void test_ready_before_time(void **state)
{
    int64_t begin = os->clock_monotonic_ns();
    struct epoll_event ev;
    int ep = os->epoll_create();
    int fd = os->eventfd(1, EFD_NONBLOCK);

    watch(ep, fd);
    assert_int_equal(os->epoll_wait(ep, &ev, 1, HOUR_NS), 1);
    assert_int_equal(os->clock_monotonic_ns(), begin);
    os->close(fd);
    os->close(ep);
}

struct slow_write {
    int fd;
    int done;
    int64_t result;
};

static void *write_slowly(void *opaque)
{
    struct slow_write *w = opaque;
    struct iovec iov = {.iov_base = (char *)"x", .iov_len = 1};
    const uint64_t one = 1;

    w->result = os->pwritev(w->fd, &iov, 1, 0, 0);
    os->write(w->done, &one, sizeof(one));
    return 0;
}

static void test_slow_call_in_a_worker(void **state)
{
    struct slow_write w = {.done = os->eventfd(0, EFD_NONBLOCK)};
    int64_t begin = os->clock_monotonic_ns();
    struct epoll_event ev;
    int ep = os->epoll_create();
    os_thread *thread;

    assert_int_equal(sim_world_add_file(world, "/sim/a", 4096, 0), 0);
    w.fd = os->open("/sim/a", O_RDWR, 0);
    watch(ep, w.done);
    sim_faults_add(sim_world_faults(world),
                   &(struct sim_rule){.calls = SIM_CALLS(SIM_CALL_WRITE), .delay_ns = HOUR_NS});
    assert_int_equal(os->thread_create("slow", write_slowly, &w, &thread), 0);
    assert_int_equal(os->epoll_wait(ep, &ev, 1, -1), 1);
    assert_int_equal(os->clock_monotonic_ns() - begin, HOUR_NS);
    os->thread_join(thread);
    assert_int_equal(w.result, 1);

    write_slowly(&w); /* nobody waits elsewhere: the caller moves the time itself */
    assert_int_equal(os->clock_monotonic_ns() - begin, 2 * HOUR_NS);
    os->close(w.fd);
    os->close(w.done);
    os->close(ep);
}

static void *stop_being_busy(void *opaque)
{
    const uint64_t one = 1;

    os->write(*(int *)opaque, &one, sizeof(one));
    sim_world_busy_end(world);
    return 0;
}

static void test_no_jump_while_busy(void **state)
{
    int64_t begin = os->clock_monotonic_ns();
    int fd = os->eventfd(0, EFD_NONBLOCK);
    struct epoll_event ev;
    int ep = os->epoll_create();
    os_thread *thread;

    watch(ep, fd);
    sim_world_busy_begin(world);
    assert_int_equal(os->thread_create("busy", stop_being_busy, &fd, &thread), 0);
    assert_int_equal(os->epoll_wait(ep, &ev, 1, HOUR_NS), 1);
    assert_int_equal(os->clock_monotonic_ns(), begin);
    os->thread_join(thread);
    os->close(fd);
    os->close(ep);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_a_wait_takes_its_time), T(test_timers),
        T(test_ready_before_time),     T(test_slow_call_in_a_worker),
        T(test_no_jump_while_busy),
    };

    return cmocka_run_group_tests(tests, 0, 0);
}
