/* SPDX-License-Identifier: MIT */
/* Faults over the real system: files and sockets. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "os/full.h"
#include "os/sim/fault_os.h"
#include "util/mem.h"

static struct sim_faults faults;

static int setup(void **state)
{
    sim_faults_init(&faults, 1);
    os_replace(fault_os_table(&faults));
    return 0;
}

static int teardown(void **state)
{
    os_replace(0);
    sim_faults_fini(&faults);
    return 0;
}

static void test_every_kind_can_fail(void **state)
{
    struct epoll_event ev = {0};
    struct stat st;
    char buf[8] = {0};
    struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct flock fl = {.l_type = F_RDLCK};
    void *addr;
    os_thread *thread;
    int fd = os->open("/dev/null", O_RDWR, 0);

    assert_true(fd >= 0);
    sim_faults_add(&faults, &(struct sim_rule){.calls = UINT64_MAX, .error = ESTALE});
    assert_int_equal(os->open("/dev/null", O_RDWR, 0), -ESTALE);
    assert_int_equal(os->dup(fd), -ESTALE);
    assert_int_equal(os->preadv(fd, &iov, 1, 0, 0), -ESTALE);
    assert_int_equal(os->pwritev(fd, &iov, 1, 0, 0), -ESTALE);
    assert_int_equal(os->fdatasync(fd), -ESTALE);
    assert_int_equal(os->ftruncate(fd, 0), -ESTALE);
    assert_int_equal(os->fallocate(fd, 0, 0, 1), -ESTALE);
    assert_int_equal(os->lseek(fd, 0, SEEK_SET), -ESTALE);
    assert_int_equal(os->copy_file_range(fd, 0, fd, 0, 1), -ESTALE);
    assert_int_equal(os->fstat(fd, &st), -ESTALE);
    assert_int_equal(os->stat("/", &st), -ESTALE);
    assert_int_equal(os->fcntl_getfl(fd), -ESTALE);
    assert_int_equal(os->fcntl_setfl(fd, 0), -ESTALE);
    assert_int_equal(os->lock(fd, F_OFD_GETLK, &fl), -ESTALE);
    assert_int_equal(os->ioctl(fd, 0, 0), -ESTALE);
    assert_int_equal(os->unlink("/nonexistent"), -ESTALE);
    assert_int_equal(os->readlink("/", buf, 8), -ESTALE);
    assert_int_equal(os->read(fd, buf, 8), -ESTALE);
    assert_int_equal(os->write(fd, buf, 8), -ESTALE);
    assert_int_equal(os->socket(AF_UNIX, SOCK_STREAM, 0), -ESTALE);
    assert_int_equal(os->bind(fd, 0, 0), -ESTALE);
    assert_int_equal(os->listen(fd, 0), -ESTALE);
    assert_int_equal(os->accept(fd, 0, 0), -ESTALE);
    assert_int_equal(os->connect(fd, 0, 0), -ESTALE);
    assert_int_equal(os->recvmsg(fd, &msg, 0), -ESTALE);
    assert_int_equal(os->sendmsg(fd, &msg, 0), -ESTALE);
    assert_int_equal(os->setsockopt(fd, 0, 0, 0, 0), -ESTALE);
    assert_int_equal(os->eventfd(0, 0), -ESTALE);
    assert_int_equal(os->timerfd_create(), -ESTALE);
    assert_int_equal(os->timerfd_set(fd, 1), -ESTALE);
    assert_int_equal(os->epoll_create(), -ESTALE);
    assert_int_equal(os->epoll_ctl(fd, EPOLL_CTL_ADD, fd, &ev), -ESTALE);
    assert_int_equal(os->epoll_wait(fd, &ev, 1, 0), -ESTALE);
    assert_int_equal(os->mmap(4096, PROT_READ, 0, &addr), -ESTALE);
    assert_int_equal(os->thread_create("x", 0, 0, &thread), -ESTALE);
    assert_int_equal(os->close(fd), -ESTALE);
    assert_int_equal(os_linux.close(fd), -EBADF); /* closed all the same */
    assert_false(os->io_uring_allowed());
}

static void test_short_socket_transfers(void **state)
{
    char in[100];
    char out[100];
    struct iovec iov[2] = {{.iov_base = out, .iov_len = 60}, {.iov_base = out + 60, .iov_len = 40}};
    struct iovec iov_in = {.iov_base = in, .iov_len = 100};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    struct msghdr msg_in = {.msg_iov = &iov_in, .msg_iovlen = 1};
    int sv[2];

    memset(out, 5, sizeof(out));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    sim_faults_add(&faults, &(struct sim_rule){.calls = SIM_CALLS_SOCKET, .short_transfer = true});
    assert_int_equal(os->sendmsg(sv[0], &msg, 0), 50);
    assert_int_equal(os->recvmsg(sv[1], &msg_in, 0), 50);
    assert_int_equal(os->sendmsg(sv[0], &msg, 0), 50);
    assert_int_equal(os->recvmsg(sv[1], &msg_in, MSG_DONTWAIT), 50);
    assert_int_equal(os->recvmsg(sv[1], &msg_in, MSG_DONTWAIT), -EAGAIN);
    os->close(sv[0]);
    os->close(sv[1]);
}

static void test_full_transfers_go_on(void **state)
{
    int fd = memfd_create("fault", MFD_CLOEXEC);
    char buf[1000];
    char back[1000];

    memset(buf, 9, sizeof(buf));
    sim_faults_add(&faults, &(struct sim_rule){.calls = SIM_CALLS_DATA, .short_transfer = true});
    sim_faults_add(&faults,
                   &(struct sim_rule){.calls = SIM_CALLS_DATA, .percent = 50, .error = EINTR});
    assert_int_equal(os_pwritev_full(fd, &(struct iovec){buf, sizeof(buf)}, 1, 7, 0), 0);
    assert_int_equal(os_preadv_full(fd, &(struct iovec){back, sizeof(back)}, 1, 7), 1000);
    assert_memory_equal(buf, back, sizeof(buf));
    assert_true(sim_faults_hits(&faults) > 2);
    os->close(fd);
}

static int only_fd;

static bool only(int fd)
{
    return fd == only_fd;
}

static void test_limited_to_descriptors(void **state)
{
    int a = memfd_create("a", MFD_CLOEXEC);
    int b = memfd_create("b", MFD_CLOEXEC);

    only_fd = b;
    fault_os_limit(only);
    sim_faults_add(&faults, &(struct sim_rule){.calls = SIM_CALLS_DATA, .error = EIO});
    assert_int_equal(os->fdatasync(a), 0);
    assert_int_equal(os->fdatasync(b), -EIO);
    os->close(a);
    os->close(b);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_every_kind_can_fail),
        T(test_short_socket_transfers),
        T(test_full_transfers_go_on),
        T(test_limited_to_descriptors),
    };

    return cmocka_run_group_tests(tests, 0, 0);
}
