/* SPDX-License-Identifier: MIT */
/* The Linux table: conventions of results, flags that are always added, slots, threads. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"

static int temp_file(void)
{
    int fd = memfd_create("os-test", MFD_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void test_files(void **state)
{
    int fd = temp_file();
    char buf[16] = {0};
    struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
    struct iovec out = {.iov_base = (char *)"hello", .iov_len = 5};
    struct stat st;

    assert_int_equal(os->pwritev(fd, &out, 1, 3, 0), 5);
    assert_int_equal(os->preadv(fd, &iov, 1, 2, 0), 6);
    assert_memory_equal(buf, "\0hello", 6);
    assert_int_equal(os->fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 8);
    assert_int_equal(os->ftruncate(fd, 4096), 0);
    assert_int_equal(os->lseek(fd, 0, SEEK_END), 4096);
    assert_int_equal(os->fdatasync(fd), 0);
    assert_int_equal(os->close(fd), 0);
    assert_int_equal(os->close(fd), -EBADF);
}

static void test_errors_are_results(void **state)
{
    struct iovec iov = {0};
    struct stat st;

    errno = 0;
    assert_int_equal(os->open("/nonexistent/file", O_RDONLY, 0), -ENOENT);
    assert_int_equal(os->fstat(-1, &st), -EBADF);
    assert_int_equal(os->preadv(-1, &iov, 1, 0, 0), -EBADF);
    assert_int_equal(os->stat("", &st), -ENOENT);
    assert_int_equal(os->unlink("/nonexistent/file"), -ENOENT);
}

static void test_offsets_beyond_the_signed_type(void **state)
{
    int fd = temp_file();
    struct iovec iov = {0};
    uint64_t big = (uint64_t)INT64_MAX + 1;

    assert_int_equal(os->preadv(fd, &iov, 1, big, 0), -EINVAL);
    assert_int_equal(os->pwritev(fd, &iov, 1, big, 0), -EINVAL);
    assert_int_equal(os->ftruncate(fd, big), -EFBIG);
    assert_int_equal(os->fallocate(fd, 0, big, 1), -EINVAL);
    assert_int_equal(os->fallocate(fd, 0, 0, big), -EINVAL);
    assert_int_equal(os->copy_file_range(fd, big, fd, 0, 1), -EINVAL);
    assert_int_equal(os->copy_file_range(fd, 0, fd, big, 1), -EINVAL);
    os->close(fd);
}

static void test_statx_of_a_descriptor(void **state)
{
    int fd = temp_file();
    struct statx stx;

    assert_int_equal(os->ftruncate(fd, 12345), 0);
    assert_int_equal(os->statx(fd, STATX_SIZE, &stx), 0);
    assert_int_equal(stx.stx_size, 12345);
    os->close(fd);
}

static void test_close_on_exec(void **state)
{
    int fds[5];
    int n = 0;

    fds[n++] = os->open("/dev/null", O_RDONLY, 0);
    fds[n++] = os->dup(fds[0]);
    fds[n++] = os->socket(AF_UNIX, SOCK_STREAM, 0);
    fds[n++] = os->eventfd(0, 0);
    fds[n++] = os->timerfd_create();
    for (int i = 0; i < n; i++) {
        assert_true(fds[i] >= 0);
        assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
        assert_int_equal(os->close(fds[i]), 0);
    }
}

static void test_accept_and_sendmsg(void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(sa_family_t); /* the kernel picks an abstract name */
    struct iovec iov = {.iov_base = (char *)"x", .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    int server = os->socket(AF_UNIX, SOCK_STREAM, 0);
    int client = os->socket(AF_UNIX, SOCK_STREAM, 0);
    int peer;

    assert_int_equal(os->bind(server, (struct sockaddr *)&addr, len), 0);
    len = sizeof(addr);
    assert_int_equal(os->getsockname(server, (struct sockaddr *)&addr, &len), 0);
    assert_int_equal(os->listen(server, 1), 0);
    assert_int_equal(os->connect(client, (struct sockaddr *)&addr, len), 0);
    peer = os->accept(server, 0, 0);
    assert_true(peer >= 0);
    assert_true(fcntl(peer, F_GETFD) & FD_CLOEXEC);
    assert_true(os->fcntl_getfl(peer) & O_NONBLOCK);
    assert_int_equal(os->recvmsg(peer, &msg, 0), -EAGAIN);
    assert_int_equal(os->close(client), 0);
    assert_int_equal(os->sendmsg(peer, &msg, 0), -EPIPE); /* and no SIGPIPE */
    os->close(peer);
    os->close(server);
}

static void test_timer_and_epoll(void **state)
{
    struct epoll_event ev = {.events = EPOLLIN};
    uint64_t count = 0;
    int ep = os->epoll_create();
    int timer = os->timerfd_create();

    assert_true(ep >= 0 && timer >= 0);
    assert_int_equal(os->epoll_ctl(ep, EPOLL_CTL_ADD, timer, &ev), 0);
    assert_int_equal(os->epoll_wait(ep, &ev, 1, 0), 0);
    assert_int_equal(os->epoll_wait(ep, &ev, 1, 1), 0); /* one nanosecond */
    assert_int_equal(os->timerfd_set(timer, -5), 0);    /* past: fires */
    assert_int_equal(os->epoll_wait(ep, &ev, 1, -1), 1);
    assert_int_equal(os->read(timer, &count, sizeof(count)), 8);
    assert_int_equal(os->timerfd_set(timer, 1), 0);
    assert_int_equal(os->timerfd_set(timer, 0), 0); /* disarmed */
    assert_int_equal(os->epoll_wait(ep, &ev, 1, 0), 0);
    os->close(timer);
    os->close(ep);
}

struct seen {
    char name[16];
    sigset_t mask;
};

static void *look(void *opaque)
{
    struct seen *seen = opaque;

    prctl(PR_GET_NAME, seen->name);
    pthread_sigmask(SIG_SETMASK, 0, &seen->mask);
    return 0;
}

static void test_threads(void **state)
{
    struct seen seen = {0};
    sigset_t mine;
    os_thread *thread;

    assert_int_equal(os->thread_create("a-name-that-is-too-long", look, &seen, &thread), 0);
    os->thread_join(thread);
    assert_string_equal(seen.name, "a-name-that-is-");
    assert_int_equal(sigismember(&seen.mask, SIGTERM), 1);
    pthread_sigmask(SIG_SETMASK, 0, &mine);
    assert_int_equal(sigismember(&mine, SIGTERM), 0);
}

static void test_memory(void **state)
{
    void *addr = 0;

    assert_int_equal(os->mmap(8192, PROT_READ | PROT_WRITE, 0, &addr), 0);
    memset(addr, 1, 8192);
    assert_int_equal(os->mprotect(addr, 4096, PROT_NONE), 0);
    assert_int_equal(os->munmap(addr, 8192), 0);
    assert_int_equal(os->mmap(0, PROT_READ, 0, &addr), -EINVAL);
}

static void test_slots(void **state)
{
    bool used[OS_SLOTS] = {0};
    unsigned slots[OS_SLOTS];
    unsigned shared;

    for (unsigned i = 0; i < OS_SLOTS; i++) {
        slots[i] = os_slot_get();
        assert_true(slots[i] < OS_SLOTS);
        assert_false(used[slots[i]]);
        used[slots[i]] = true;
    }
    assert_int_equal(slots[OS_SLOTS - 1], OS_SLOT_SHARED);
    shared = os_slot_get();
    assert_int_equal(shared, OS_SLOT_SHARED); /* all others are one context's alone */
    os_slot_put(shared);
    os_slot_put(slots[17]);
    assert_int_equal(os_slot_get(), slots[17]);
    for (unsigned i = 0; i < OS_SLOTS; i++) {
        os_slot_put(slots[i]);
    }
}

static int always_eio(int fd)
{
    return -EIO;
}

static void test_unique_numbers(void **state)
{
    uint64_t first = os_unique_number();

    assert_true(first > 0);
    assert_true(os_unique_number() > first);
    os->thread_yield();
    os->sleep_ns(1);
}

static void test_replace(void **state)
{
    struct os_table table = os_linux;

    table.fdatasync = always_eio;
    os_replace(&table);
    assert_int_equal(os->fdatasync(0), -EIO);
    os_replace(0);
    assert_ptr_equal(os, &os_linux);
}

static void test_no_member_is_missing(void **state)
{
    void (*const *members)(void) = (void (*const *)(void))(const void *)&os_linux;

    for (size_t i = 0; i < sizeof(os_linux) / sizeof(members[0]); i++) {
        bool may_miss = i == offsetof(struct os_table, run_later) / sizeof(members[0]);

        assert_true(members[i] != 0 || may_miss);
    }
    assert_true(os->io_uring_allowed());
    assert_true(os->clock_realtime_ns() > 0);
    assert_true(os->clock_monotonic_ns() > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_errors_are_results),
        cmocka_unit_test(test_offsets_beyond_the_signed_type),
        cmocka_unit_test(test_statx_of_a_descriptor),
        cmocka_unit_test(test_close_on_exec),
        cmocka_unit_test(test_accept_and_sendmsg),
        cmocka_unit_test(test_timer_and_epoll),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_unique_numbers),
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_no_member_is_missing),
    };

    return cmocka_run_group_tests(tests, 0, 0);
}
