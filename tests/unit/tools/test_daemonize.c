/* SPDX-License-Identifier: MIT */
/* The file of the number of a process, and how the end of a child is told. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"
#include "tools/daemonize.h"

static struct {
    struct os_table table;
    char path[64];
    unsigned locks;
    unsigned removed; /* so many locks come when the file has just been removed */
    int64_t written;
    struct cli cli;
    char *told;
    size_t told_size;
} fake;

static int fake_lock(int fd, int cmd, struct flock *lock)
{
    if (fake.locks++ < fake.removed) {
        os_linux.unlink(fake.path);
    }
    return os_linux.lock(fd, cmd, lock);
}

static int64_t fake_write(int fd, const void *buf, size_t bytes)
{
    return fake.written ? fake.written : os_linux.write(fd, buf, bytes);
}

static int setup(void **state)
{
    static const struct cli_program program = {.name = "platter"};

    memset(&fake, 0, sizeof(fake));
    fake.table = os_linux;
    fake.table.lock = fake_lock;
    fake.table.write = fake_write;
    snprintf(fake.path, sizeof(fake.path), "/tmp/test-daemonize.%ld", (long)getpid());
    fake.cli = (struct cli){.program = &program, .out = stdout};
    fake.cli.err = open_memstream(&fake.told, &fake.told_size);
    os_replace(&fake.table);
    return fake.cli.err ? 0 : -1;
}

static int teardown(void **state)
{
    os_replace(NULL);
    os->unlink(fake.path);
    fclose(fake.cli.err);
    free(fake.told);
    return 0;
}

/* Of a process that ends meanwhile: what was locked is no longer what others find. */
static void test_removed_before_the_lock(void **state)
{
    char text[32] = "";
    char want[32];
    int fd;
    int at_path;

    fake.removed = 2;
    fd = pidfile_write(&fake.cli, fake.path, "");
    assert_true(fd >= 0);
    assert_int_equal(fake.locks, 3);
    at_path = os->open(fake.path, O_RDONLY, 0);
    assert_true(at_path >= 0);
    assert_true(os->read(at_path, text, sizeof(text) - 1) > 0);
    snprintf(want, sizeof(want), "%ld\n", (long)getpid());
    assert_string_equal(text, want);
    os->close(at_path);
    pidfile_remove(fake.path, fd);
    fake.removed = 1000000;
    assert_int_equal(pidfile_write(&fake.cli, fake.path, ""), -EAGAIN);
}

static void test_not_written(void **state)
{
    fake.written = -ENOSPC;
    assert_int_equal(pidfile_write(&fake.cli, fake.path, ""), -ENOSPC);
    fake.written = 1;
    assert_int_equal(pidfile_write(&fake.cli, fake.path, ""), -EIO);
    fflush(fake.cli.err);
    assert_non_null(strstr(fake.told, strerror(ENOSPC)));
}

/* Also where the caller ignores SIGCHLD, so that the system would forget how it ended. */
static void test_end_of_the_child(void **state)
{
    int fd;
    int code = 0;
    int ret;

    signal(SIGCHLD, SIG_IGN);
    ret = daemonize_begin(&fake.cli, &fd, &code);
    if (ret == 0) {
        _exit(7);
    }
    assert_int_equal(ret, 1);
    assert_int_equal(code, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_removed_before_the_lock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_of_the_child, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
