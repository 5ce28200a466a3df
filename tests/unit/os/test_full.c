/* SPDX-License-Identifier: MIT */
/* Whole transfers over a table that answers short, -EINTR, -EAGAIN and nothing at all. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/full.h"
#include "os/os.h"
#include "util/mem.h"

#define FILE_BYTES 10000

static struct {
    uint8_t data[FILE_BYTES];
    unsigned calls;
    size_t at_most;       /* bytes of one call; 0: all */
    unsigned error_every; /* each n-th call fails */
    int error;
    int rwf;
    int niov_max;
} fake;

static int64_t fake_transfer(const struct iovec *iov, int niov, uint64_t offset, bool to_file)
{
    size_t left = fake.at_most ? fake.at_most : SIZE_MAX;
    size_t done = 0;

    if (fake.error_every && ++fake.calls % fake.error_every == 0) {
        return fake.error;
    }
    fake.niov_max = niov > fake.niov_max ? niov : fake.niov_max;
    for (int i = 0; i < niov && left > 0; i++) {
        size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;

        n = offset + done + n > FILE_BYTES ? FILE_BYTES - (size_t)offset - done : n;
        if (to_file) {
            memcpy(fake.data + offset + done, iov[i].iov_base, n);
        } else {
            memcpy(iov[i].iov_base, fake.data + offset + done, n);
        }
        done += n;
        left -= n;
        if (n < iov[i].iov_len) {
            break;
        }
    }
    return (int64_t)done;
}

static int64_t fake_preadv(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    return fake_transfer(iov, niov, offset, false);
}

static int64_t fake_pwritev(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    fake.rwf = rwf;
    return fake_transfer(iov, niov, offset, true);
}

static int setup(void **state)
{
    static struct os_table table;

    table = os_linux;
    table.preadv = fake_preadv;
    table.pwritev = fake_pwritev;
    memset(&fake, 0, sizeof(fake));
    for (int i = 0; i < FILE_BYTES; i++) {
        fake.data[i] = (uint8_t)(i * 7 + i / 256);
    }
    os_replace(&table);
    return 0;
}

static int teardown(void **state)
{
    os_replace(0);
    return 0;
}

static const size_t lens[] = {0, 1, 0, 511, 1000, 3, 0, 2048, 700, 0};
#define NLENS (sizeof(lens) / sizeof(lens[0]))

static size_t make_iov(uint8_t *buf, struct iovec *iov)
{
    size_t total = 0;

    for (size_t i = 0; i < NLENS; i++) {
        iov[i] = (struct iovec){.iov_base = buf + total, .iov_len = lens[i]};
        total += lens[i];
    }
    return total;
}

static void check_every_short_size(bool write, unsigned error_every, int error)
{
    struct iovec iov[NLENS];
    struct iovec copy[NLENS];
    uint8_t buf[8192];
    size_t total = make_iov(buf, iov);

    memcpy(copy, iov, sizeof(iov));
    for (fake.at_most = 1; fake.at_most <= total + 1; fake.at_most += 37) {
        fake.error_every = error_every;
        fake.error = error;
        if (write) {
            for (size_t i = 0; i < total; i++) {
                buf[i] = (uint8_t)(i + fake.at_most);
            }
            assert_int_equal(os_pwritev_full(3, iov, NLENS, 100, 5), 0);
            assert_int_equal(fake.rwf, 5);
        } else {
            memset(buf, 0xee, sizeof(buf));
            assert_int_equal(os_preadv_full(3, iov, NLENS, 100), total);
        }
        assert_memory_equal(buf, fake.data + 100, total);
        assert_memory_equal(iov, copy, sizeof(iov));
    }
}

static void test_short_transfers(void **state)
{
    check_every_short_size(false, 0, 0);
    check_every_short_size(true, 0, 0);
}

static void test_interrupted(void **state)
{
    check_every_short_size(false, 2, -EINTR);
    check_every_short_size(true, 3, -EAGAIN);
}

static void test_end_of_file(void **state)
{
    uint8_t buf[100];
    struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};

    fake.at_most = 7;
    assert_int_equal(os_preadv_full(3, &iov, 1, FILE_BYTES - 30), 30);
    assert_int_equal(os_preadv_full(3, &iov, 1, FILE_BYTES), 0);
}

static void test_nothing_accepted(void **state)
{
    uint8_t buf[100] = {0};
    struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};

    assert_int_equal(os_pwritev_full(3, &iov, 1, FILE_BYTES - 50, 0), -ENOSPC);
    assert_int_equal(os_pwritev_full(3, &iov, 0, 0, 0), 0);
    assert_int_equal(os_preadv_full(3, 0, 0, 0), 0);
}

static void test_errors_end_it(void **state)
{
    uint8_t buf[100] = {0};
    struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
    const int errors[] = {-EIO, -ENOSPC, -EINTR, -EAGAIN};

    fake.error_every = 1; /* for ever: even EINTR must not become a hang */
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        fake.error = errors[i];
        assert_int_equal(os_pwritev_full(3, &iov, 1, 0, 0), errors[i]);
        assert_int_equal(os_preadv_full(3, &iov, 1, 0), errors[i]);
    }
}

static void test_long_lists(void **state)
{
    enum { N = IOV_MAX * 2 + 5 };
    static struct iovec iov[N];
    uint8_t buf[N];

    for (int i = 0; i < N; i++) {
        iov[i] = (struct iovec){.iov_base = buf + i, .iov_len = 1};
    }
    assert_int_equal(os_preadv_full(3, iov, N, 50), N);
    assert_memory_equal(buf, fake.data + 50, N);
    assert_true(fake.niov_max <= IOV_MAX);
}

/* ---- a pipe that does not block: the other end moves while it is waited for ---- */

static struct {
    int fds[2];
    unsigned waits;
} line;

static int feeding_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns)
{
    if (++line.waits == 2) {
        return -EINTR;
    }
    assert_int_equal(os_linux.write(line.fds[1], "word", 4), 4);
    return os_linux.epoll_wait(epfd, events, max, timeout_ns);
}

static int draining_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns)
{
    char buf[65536];

    line.waits++;
    assert_true(os_linux.read(line.fds[0], buf, sizeof(buf)) > 0);
    return os_linux.epoll_wait(epfd, events, max, timeout_ns);
}

static int failing_create(void)
{
    return -EMFILE;
}

static struct os_table *line_begin(void)
{
    static struct os_table table;

    table = os_linux;
    memset(&line, 0, sizeof(line));
    assert_int_equal(pipe2(line.fds, O_NONBLOCK | O_CLOEXEC), 0);
    os_replace(&table);
    return &table;
}

static void line_end(void)
{
    os->close(line.fds[0]);
    os->close(line.fds[1]);
}

static void test_waits_for_what_comes(void **state)
{
    struct os_table *table = line_begin();
    char buf[8];

    table->epoll_wait = feeding_wait;
    for (unsigned waits = 1; waits <= 3; waits += 2) { /* once, and again after a signal */
        assert_int_equal(os_read_wait(line.fds[0], buf, sizeof(buf)), 4);
        assert_memory_equal(buf, "word", 4);
        assert_int_equal(line.waits, waits);
    }
    table->epoll_create = failing_create;
    assert_int_equal(os_read_wait(line.fds[0], buf, sizeof(buf)), -EMFILE);
    os->close(line.fds[1]);
    line.fds[1] = os->dup(line.fds[0]);
    assert_int_equal(os_read_wait(line.fds[0], buf, sizeof(buf)), 0);
    assert_int_equal(os_read_wait(-1, buf, sizeof(buf)), -EBADF);
    line_end();
}

static void test_waits_for_room(void **state)
{
    static const char zeroes[1 << 20];
    struct os_table *table = line_begin();

    table->epoll_wait = draining_wait;
    assert_int_equal(os_write_wait(line.fds[1], zeroes, sizeof(zeroes)), 0);
    assert_true(line.waits > 0);
    table->epoll_create = failing_create;
    assert_int_equal(os_write_wait(line.fds[1], zeroes, sizeof(zeroes)), -EMFILE);
    assert_int_equal(os_write_wait(line.fds[0], zeroes, 1), -EBADF);
    line_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_short_transfers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_of_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_accepted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors_end_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_lists, setup, teardown),
        cmocka_unit_test_teardown(test_waits_for_what_comes, teardown),
        cmocka_unit_test_teardown(test_waits_for_room, teardown),
    };

    return cmocka_run_group_tests(tests, 0, 0);
}
