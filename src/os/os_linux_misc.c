/* SPDX-License-Identifier: MIT */
/*
 * Waiting, memory, time and threads of the Linux table, and the table itself.
 */
#include "os/os_linux.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>

#define NS_PER_SEC INT64_C(1000000000)
#define NS_PER_MSEC INT64_C(1000000)
#define THREAD_NAME_BYTES 16 /* the kernel's limit, final NUL included */

struct os_thread {
    pthread_t id;
    void *(*run)(void *);
    void *arg;
    char name[THREAD_NAME_BYTES];
};

static int linux_signalfd(const sigset_t *signals)
{
    int rc = pthread_sigmask(SIG_BLOCK, signals, NULL);

    return rc != 0 ? -rc : (int)sys_result(signalfd(-1, signals, SFD_NONBLOCK | SFD_CLOEXEC));
}

static int linux_eventfd(unsigned initial, int flags)
{
    return (int)sys_result(eventfd(initial, flags | EFD_CLOEXEC));
}

static int linux_timerfd_create(void)
{
    return (int)sys_result(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
}

static int linux_timerfd_set(int fd, int64_t expire_ns)
{
    struct itimerspec spec = {0};

    if (expire_ns < 0) { /* long past: the earliest moment that does not mean "disarm" */
        expire_ns = 1;
    }
    spec.it_value.tv_sec = (time_t)(expire_ns / NS_PER_SEC);
    spec.it_value.tv_nsec = (long)(expire_ns % NS_PER_SEC);
    return (int)sys_result(timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, 0));
}

static int linux_epoll_create(void)
{
    return (int)sys_result(epoll_create1(EPOLL_CLOEXEC));
}

static int linux_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return (int)sys_result(epoll_ctl(epfd, op, fd, event));
}

/* For kernels and sandboxes without epoll_pwait2: a timeout is rounded up, never down, so that a
 * timer is due when the wait ends. */
static int epoll_wait_ms(int epfd, struct epoll_event *events, int max, int64_t timeout_ns)
{
    int64_t timeout_ms = -1;

    if (timeout_ns >= 0) {
        timeout_ms = timeout_ns / NS_PER_MSEC + (timeout_ns % NS_PER_MSEC != 0);
        timeout_ms = timeout_ms > INT_MAX ? INT_MAX : timeout_ms;
    }
    return (int)sys_result(epoll_wait(epfd, events, max, (int)timeout_ms));
}

static int linux_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns)
{
    static atomic_bool no_pwait2;
    struct timespec ts;
    int rc;

    if (timeout_ns <= 0 || atomic_load_explicit(&no_pwait2, memory_order_relaxed)) {
        return epoll_wait_ms(epfd, events, max, timeout_ns);
    }
    ts = (struct timespec){
        .tv_sec = (time_t)(timeout_ns / NS_PER_SEC),
        .tv_nsec = (long)(timeout_ns % NS_PER_SEC),
    };
    rc = (int)sys_result(epoll_pwait2(epfd, events, max, &ts, 0));
    if (rc == -ENOSYS || rc == -EPERM) { /* EPERM: what seccomp filters often answer */
        atomic_store_explicit(&no_pwait2, true, memory_order_relaxed);
        return epoll_wait_ms(epfd, events, max, timeout_ns);
    }
    return rc;
}

static int linux_mmap(size_t bytes, int prot, int flags, void **ret_addr)
{
    void *addr = mmap(0, bytes, prot, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (addr == MAP_FAILED) {
        return -errno;
    }
    *ret_addr = addr;
    return 0;
}

static int linux_munmap(void *addr, size_t bytes)
{
    return (int)sys_result(munmap(addr, bytes));
}

static int linux_mprotect(void *addr, size_t bytes, int prot)
{
    return (int)sys_result(mprotect(addr, bytes, prot));
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts); /* cannot fail for these clocks */
    return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static int64_t linux_clock_monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static int64_t linux_clock_realtime_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

static void *thread_main(void *opaque)
{
    os_thread *thread = opaque;

    pthread_setname_np(pthread_self(), thread->name); /* only for the eye */
    return thread->run(thread->arg);
}

static int linux_thread_create(const char *name, void *(*run)(void *), void *arg,
                               os_thread **ret_thread)
{
    os_thread *thread = calloc(1, sizeof(*thread));
    sigset_t all;
    sigset_t old;
    int rc;

    if (!thread) {
        return -ENOMEM;
    }
    thread->run = run;
    thread->arg = arg;
    snprintf(thread->name, sizeof(thread->name), "%s", name ? name : "");

    /* The new thread inherits the mask: signals belong to the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&thread->id, 0, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &old, 0);
    if (rc != 0) {
        free(thread);
        return -rc;
    }
    *ret_thread = thread;
    return 0;
}

static void linux_thread_join(os_thread *thread)
{
    pthread_join(thread->id, 0);
    free(thread);
}

static int64_t linux_thread_id(void)
{
    return gettid();
}

static void linux_thread_yield(void)
{
    sched_yield();
}

static unsigned linux_processors(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    return processors < 1 ? 1 : (unsigned)processors;
}

static void linux_sleep_ns(int64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC)};

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

static bool linux_io_uring_allowed(void)
{
    return true;
}

const struct os_table os_linux = {
    .open = linux_open,
    .close = linux_close,
    .dup = linux_dup,
    .preadv = linux_preadv,
    .pwritev = linux_pwritev,
    .fdatasync = linux_fdatasync,
    .ftruncate = linux_ftruncate,
    .fallocate = linux_fallocate,
    .lseek = linux_lseek,
    .copy_file_range = linux_copy_file_range,
    .fstat = linux_fstat,
    .stat = linux_stat,
    .statx = linux_statx,
    .fstatfs = linux_fstatfs,
    .fcntl_getfl = linux_fcntl_getfl,
    .fcntl_setfl = linux_fcntl_setfl,
    .lock = linux_lock,
    .ioctl = linux_ioctl,
    .unlink = linux_unlink,
    .fchmod = linux_fchmod,
    .readlink = linux_readlink,
    .dir_each = linux_dir_each,
    .read = linux_read,
    .write = linux_write,
    .socket = linux_socket,
    .bind = linux_bind,
    .listen = linux_listen,
    .accept = linux_accept,
    .connect = linux_connect,
    .recvmsg = linux_recvmsg,
    .sendmsg = linux_sendmsg,
    .shutdown = linux_shutdown,
    .setsockopt = linux_setsockopt,
    .getsockopt = linux_getsockopt,
    .getsockname = linux_getsockname,
    .eventfd = linux_eventfd,
    .signalfd = linux_signalfd,
    .timerfd_create = linux_timerfd_create,
    .timerfd_set = linux_timerfd_set,
    .epoll_create = linux_epoll_create,
    .epoll_ctl = linux_epoll_ctl,
    .epoll_wait = linux_epoll_wait,
    .mmap = linux_mmap,
    .munmap = linux_munmap,
    .mprotect = linux_mprotect,
    .clock_monotonic_ns = linux_clock_monotonic_ns,
    .clock_realtime_ns = linux_clock_realtime_ns,
    .sleep_ns = linux_sleep_ns,
    .thread_create = linux_thread_create,
    .thread_join = linux_thread_join,
    .thread_id = linux_thread_id,
    .thread_yield = linux_thread_yield,
    .processors = linux_processors,
    .io_uring_allowed = linux_io_uring_allowed,
};
