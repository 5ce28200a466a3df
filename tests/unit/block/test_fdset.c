/* SPDX-License-Identifier: MIT */
/* Descriptors of the host: access modes, status flags, ownership. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "fake.h"

#include "os/os.h"

struct fixture {
    Platter *pl;
    char path[64];
};

static int setup(void **state)
{
    static struct fixture f;
    int fd;

    fake_reset();
    f = (struct fixture){.path = "/tmp/platter-fdset-XXXXXX"};
    fd = mkstemp(f.path);
    assert_true(fd >= 0);
    close(fd);
    f.pl = fake_platter();
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    platter_free(f->pl);
    unlink(f->path);
    return 0;
}

static void open_fails(struct fixture *f, const char *path, int flags, int err_no)
{
    Error *err = NULL;

    assert_int_equal(bdrv_os_open(f->pl, path, flags, 0, &err), -err_no);
    fake_expect_error(err, err_no, path);
}

static void test_open(void **state)
{
    struct fixture *f = *state;
    int ro = open(f->path, O_RDONLY | O_CLOEXEC);
    int rw = open(f->path, O_RDWR | O_CLOEXEC);
    int fd;

    open_fails(f, "/dev/fdset/5", O_RDWR, ENOENT);
    assert_int_equal(platter_add_fd(f->pl, 5, ro, NULL), 0);
    open_fails(f, "/dev/fdset/5", O_RDWR, EACCES);
    assert_int_equal(platter_add_fd(f->pl, 5, rw, NULL), 0);
    fd = bdrv_os_open(f->pl, "/dev/fdset/5", O_RDWR | O_APPEND, 0, NULL);
    assert_true(fd >= 0 && fd != rw);
    assert_int_equal(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND), O_RDWR | O_APPEND);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    /* a node keeps its own after the set is gone */
    assert_int_equal(platter_remove_fd(f->pl, 5, NULL), 0);
    assert_int_equal(platter_remove_fd(f->pl, 5, NULL), -ENOENT);
    open_fails(f, "/dev/fdset/5", O_RDONLY, ENOENT);
    assert_int_equal(fcntl(rw, F_GETFD), -1);
    assert_int_equal(close(fd), 0);
}

static void test_numbers(void **state)
{
    struct fixture *f = *state;
    Error *err = NULL;

    open_fails(f, "/dev/fdset/", O_RDONLY, ENOENT);
    open_fails(f, "/dev/fdset/-1", O_RDONLY, ENOENT);
    open_fails(f, "/dev/fdset/1x", O_RDONLY, ENOENT);
    open_fails(f, "/dev/fdset/99999999999999999999", O_RDONLY, ENOENT);
    assert_int_equal(platter_add_fd(f->pl, 1, -1, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "not open");
    err = NULL;
    assert_int_equal(platter_add_fd(f->pl, 1, 1000000, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "not open");
    err = NULL;
    {
        int fd = open(f->path, O_RDONLY | O_CLOEXEC);

        assert_int_equal(platter_add_fd(f->pl, -1, fd, &err), -EINVAL);
        fake_expect_error(err, EINVAL, "negative");
        assert_int_equal(fcntl(fd, F_GETFD), -1); /* owned, success or not */
    }
}

static void test_paths(void **state)
{
    struct fixture *f = *state;
    int fd = bdrv_os_open(f->pl, f->path, O_RDWR, 0, NULL);

    assert_true(fd >= 0);
    close(fd);
    open_fails(f, "/nonexistent/file", O_RDONLY, ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_open, setup, teardown),
        cmocka_unit_test_setup_teardown(test_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paths, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
