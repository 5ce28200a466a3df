/* SPDX-License-Identifier: MIT */
/*
 * Every system call of ours, behind one replaceable table. A test may put a simulated disk, a fake
 * clock or faults under the whole layer by os_replace() before any AioContext exists.
 *
 * Conventions: results >= 0, errors as -errno (never through errno). A call may return less than
 * asked, -EINTR or -EAGAIN as the system may; callers that want all of it loop (os/full.h).
 */
#ifndef PLATTER_OS_OS_H
#define PLATTER_OS_OS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

struct statx;
struct statfs;
struct flock;

/* Answer of lseek_data_hole. */
enum os_thread_flags { OS_THREAD_DETACHED = 1 };
typedef struct os_thread os_thread;

struct os_table {
    /* files */
    int (*open)(const char *path, int flags, mode_t mode); /* O_CLOEXEC is always added */
    int (*close)(int fd);
    int (*dup)(int fd); /* close-on-exec */
    int64_t (*preadv)(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf);
    int64_t (*pwritev)(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf);
    int (*fdatasync)(int fd);
    int (*ftruncate)(int fd, uint64_t size_bytes);
    int (*fallocate)(int fd, int mode, uint64_t offset, uint64_t bytes);
    int64_t (*lseek)(int fd, int64_t offset, int whence);
    int64_t (*copy_file_range)(int fd_in, uint64_t off_in, int fd_out, uint64_t off_out,
                               uint64_t bytes);
    int (*fstat)(int fd, struct stat *ret_st);
    int (*stat)(const char *path, struct stat *ret_st);
    int (*statx)(int fd, unsigned mask, struct statx *ret_stx);
    int (*fstatfs)(int fd, struct statfs *ret_sfs);
    int (*fcntl_getfl)(int fd);
    int (*fcntl_setfl)(int fd, int flags);
    int (*lock)(int fd, int cmd, struct flock *lock); /* F_OFD_SETLK, F_OFD_GETLK */
    int (*ioctl)(int fd, unsigned long request, void *arg);
    int (*unlink)(const char *path);
    int (*fchmod)(int fd, mode_t mode);
    int64_t (*readlink)(const char *path, char *buf, size_t size);
    /* Call each(opaque, name) for what a folder holds, until it says false. */
    int (*dir_each)(const char *path, bool (*each)(void *opaque, const char *name), void *opaque);

    /* plain descriptors (eventfd, pipes, terminals) */
    int64_t (*read)(int fd, void *buf, size_t bytes);
    int64_t (*write)(int fd, const void *buf, size_t bytes);

    /* sockets */
    int (*socket)(int domain, int type, int protocol); /* SOCK_CLOEXEC is always added */
    int (*bind)(int fd, const struct sockaddr *addr, socklen_t len);
    int (*listen)(int fd, int backlog);
    int (*accept)(int fd, struct sockaddr *addr, socklen_t *len); /* non-blocking, close-on-exec */
    int (*connect)(int fd, const struct sockaddr *addr, socklen_t len);
    int64_t (*recvmsg)(int fd, struct msghdr *msg, int flags);
    int64_t (*sendmsg)(int fd, const struct msghdr *msg, int flags); /* MSG_NOSIGNAL added */
    int (*shutdown)(int fd, int how);
    int (*setsockopt)(int fd, int level, int name, const void *value, socklen_t len);
    int (*getsockopt)(int fd, int level, int name, void *value, socklen_t *len);
    int (*getsockname)(int fd, struct sockaddr *addr, socklen_t *len);

    /* waiting */
    int (*eventfd)(unsigned initial, int flags);
    /* Block the signals in the calling thread and read them from a descriptor (non-blocking). */
    int (*signalfd)(const sigset_t *signals);
    int (*timerfd_create)(void);                   /* monotonic, non-blocking */
    int (*timerfd_set)(int fd, int64_t expire_ns); /* absolute; 0 disarms */
    int (*epoll_create)(void);
    int (*epoll_ctl)(int epfd, int op, int fd, struct epoll_event *event);
    int (*epoll_wait)(int epfd, struct epoll_event *events, int max, int64_t timeout_ns);

    /* memory: for stacks and large buffers; small ones use malloc */
    int (*mmap)(size_t bytes, int prot, int flags, void **ret_addr); /* private, anonymous */
    int (*munmap)(void *addr, size_t bytes);
    int (*mprotect)(void *addr, size_t bytes, int prot);

    /* time */
    int64_t (*clock_monotonic_ns)(void);
    int64_t (*clock_realtime_ns)(void);
    void (*sleep_ns)(int64_t ns); /* really, or less; for back-off, nobody relies on it */

    /* threads; locks and conditions are pthreads' own (os/thread.h) */
    int (*thread_create)(const char *name, void *(*run)(void *), void *arg, os_thread **ret_thread);
    void (*thread_join)(os_thread *thread);
    int64_t (*thread_id)(void);   /* of the caller, as the system counts them */
    void (*thread_yield)(void);   /* let another thread run */
    unsigned (*processors)(void); /* that threads can run on at a time; at least 1 */
    /* NULL: work that may block is given to threads. A table that has one thread only calls
     * run(arg) later instead, from epoll_wait. 0 or -errno. */
    int (*run_later)(void (*run)(void *arg), void *arg);

    /* whether liburing may be used at all (a table that fakes files or time says no) */
    bool (*io_uring_allowed)(void);
};

/* The table in force. Read by everybody, changed only by os_replace. */
extern const struct os_table *os;
extern const struct os_table os_linux;
/* Put another table in force (NULL: os_linux). Before any other thread of ours runs. */
void os_replace(const struct os_table *table);

/* A small process-wide number for a context, 0..63, so that per-context counters need no lock. Each
 * is one context's alone, but for OS_SLOT_SHARED, which those get that come when all others are
 * taken. What the last owner of a number did happens before it is given again. */
unsigned os_slot_get(void);
void os_slot_put(unsigned slot);
#define OS_SLOTS 64
#define OS_SLOT_SHARED (OS_SLOTS - 1)

/* A number that no thread of this process has got before: addresses and ids of threads come back,
 * these do not. Never 0. */
uint64_t os_unique_number(void);

#endif
