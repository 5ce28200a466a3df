/* SPDX-License-Identifier: MIT */
/* Background processes and their files of process numbers. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/os.h"
#include "tools/daemonize.h"

#define PIDFILE_TRIES 100

/* ---- parent ---- */

/* A byte says that the child is ready; the end of the pipe, that it is no more. */
static int wait_for_child(int fd, pid_t child)
{
    char ready;
    int64_t n;
    int status;
    pid_t ended;

    do {
        n = os->read(fd, &ready, 1);
    } while (n == -EINTR);
    os->close(fd);
    if (n == 1) {
        return CLI_EXIT_OK;
    }
    do {
        ended = waitpid(child, &status, 0);
    } while (ended < 0 && errno == EINTR);
    return ended == child && WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status)
                                                                           : CLI_EXIT_FAILED;
}

int daemonize_begin(struct cli *cli, int *ret_fd, int *ret_code)
{
    int fds[2];
    pid_t child;

    if (pipe2(fds, O_CLOEXEC) < 0) {
        int err = errno;

        cli_error(cli, "cannot make a pipe: %s", strerror(err));
        return -err;
    }
    (void)signal(SIGCHLD,
                 SIG_DFL); /* ignored, as some callers leave it, it hides how a child ends */
    fflush(NULL);          /* what stands in buffers would be written twice */
    child = fork();
    if (child < 0) {
        int err = errno;

        os->close(fds[0]);
        os->close(fds[1]);
        cli_error(cli, "cannot fork: %s", strerror(err));
        return -err;
    }
    if (child > 0) {
        os->close(fds[1]);
        *ret_code = wait_for_child(fds[0], child);
        return 1;
    }
    os->close(fds[0]);
    setsid();
    *ret_fd = fds[1];
    return 0;
}

/* ---- child ---- */

void daemonize_ready(int fd)
{
    int null_fd;

    if (fd < 0) {
        return;
    }
    fflush(NULL);
    null_fd = os->open("/dev/null", O_RDWR, 0);
    for (int i = 0; i <= 2 && null_fd >= 0; i++) {
        dup2(null_fd, i);
    }
    if (null_fd > 2) {
        os->close(null_fd);
    }
    /* a parent that is no more has nobody to tell */
    (void)os->write(fd, "", 1);
    os->close(fd);
}

void daemonize_leave_folder(void)
{
    if (chdir("/") < 0) {
        return; /* it stays where it is: nothing depends on it */
    }
}

/* ---- file ---- */

static int pidfile_fault(struct cli *cli, const char *lead, int fd, const char *what,
                         const char *path, int ret)
{
    if (fd >= 0) {
        os->close(fd);
    }
    if (path) {
        cli_error(cli, "%s%s '%s': %s", lead, what, path, strerror(-ret));
    } else {
        cli_error(cli, "%s%s: %s", lead, what, strerror(-ret));
    }
    return ret;
}

/* Whether the file that is open is the one at path: who ends removes his. */
static bool pidfile_is_at(int fd, const char *path)
{
    struct stat opened;
    struct stat there;

    return os->fstat(fd, &opened) == 0 && os->stat(path, &there) == 0 &&
           opened.st_dev == there.st_dev && opened.st_ino == there.st_ino;
}

/* Open it and lock it, again where the one that was locked has been removed meanwhile. */
static int pidfile_open(struct cli *cli, const char *path, const char *lead)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    for (int i = 0; i < PIDFILE_TRIES; i++) {
        int fd = os->open(path, O_RDWR | O_CREAT, 0600);
        int ret;

        if (fd < 0) {
            return pidfile_fault(cli, lead, fd, "Could not create", path, fd);
        }
        ret = os->lock(fd, F_OFD_SETLK, &lock);
        if (ret < 0) {
            return pidfile_fault(cli, lead, fd, "Cannot lock pid file", NULL, ret);
        }
        if (pidfile_is_at(fd, path)) {
            return fd;
        }
        os->close(fd);
    }
    return pidfile_fault(cli, lead, -1, "Cannot lock pid file", NULL, -EAGAIN);
}

int pidfile_write(struct cli *cli, const char *path, const char *lead)
{
    char text[32];
    int fd = pidfile_open(cli, path, lead);
    int ret;

    if (fd < 0) {
        return fd;
    }
    ret = os->ftruncate(fd, 0);
    if (ret >= 0) {
        int bytes = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
        int64_t n = os->write(fd, text, (size_t)bytes);

        ret = n < 0 ? (int)n : n == bytes ? 0 : -EIO;
    }
    if (ret < 0) {
        return pidfile_fault(cli, lead, fd, "Failed to write pid file", path, ret);
    }
    return fd;
}

void pidfile_remove(const char *path, int fd)
{
    if (fd >= 0) {
        os->unlink(path);
        os->close(fd);
    }
}
