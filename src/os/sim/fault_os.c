/* SPDX-License-Identifier: MIT */
/*
 * Faults over the real system. A failing close still closes: the kernel lets the descriptor go
 * whatever it answers.
 */
#include "os/sim/fault_os.h"

#include <errno.h>
#include <limits.h>

static struct sim_faults *in_force; /* set before other threads run */
static bool (*fd_concerns)(int fd);

static int ask(enum sim_call call, int fd, uint64_t offset, uint64_t bytes,
               struct sim_verdict *verdict)
{
    *verdict = (struct sim_verdict){0};
    if (fd < 0 || !fd_concerns || fd_concerns(fd)) {
        sim_faults_check(in_force, call, offset, bytes, verdict);
    }
    return -verdict->error;
}

static int ask_plain(enum sim_call call, int fd)
{
    struct sim_verdict verdict;

    return ask(call, fd, 0, 0, &verdict);
}

static uint64_t list_bytes(const struct iovec *iov, size_t niov)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < niov; i++) {
        sum += iov[i].iov_len;
    }
    return sum;
}

/* The first bytes of a list, in place of it. Returns the elements used. */
static size_t list_cut(const struct iovec *iov, size_t niov, uint64_t bytes, struct iovec *out,
                       size_t max)
{
    size_t n = 0;

    for (; n < niov && n < max && bytes > 0; n++) {
        out[n] = iov[n];
        if (out[n].iov_len > bytes) {
            out[n].iov_len = (size_t)bytes;
        }
        bytes -= out[n].iov_len;
    }
    return n;
}

static int fault_open(const char *path, int flags, mode_t mode)
{
    int rc = ask_plain(SIM_CALL_OPEN, -1);

    return rc < 0 ? rc : os_linux.open(path, flags, mode);
}

static int fault_close(int fd)
{
    int rc = ask_plain(SIM_CALL_CLOSE, fd);
    int real = os_linux.close(fd);

    return rc < 0 ? rc : real;
}

static int fault_dup(int fd)
{
    int rc = ask_plain(SIM_CALL_DUP, fd);

    return rc < 0 ? rc : os_linux.dup(fd);
}

#define CUT_MAX 64

static int64_t fault_preadv(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    uint64_t bytes = list_bytes(iov, (size_t)niov);
    struct iovec cut[CUT_MAX];
    struct sim_verdict verdict;
    int rc = ask(SIM_CALL_READ, fd, offset, bytes, &verdict);

    if (rc < 0) {
        return rc;
    }
    if (verdict.short_transfer) {
        niov = (int)list_cut(iov, (size_t)niov, sim_verdict_bytes(&verdict, bytes), cut, CUT_MAX);
        iov = cut;
    }
    return os_linux.preadv(fd, iov, niov, offset, rwf);
}

static int64_t fault_pwritev(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    uint64_t bytes = list_bytes(iov, (size_t)niov);
    struct iovec cut[CUT_MAX];
    struct sim_verdict verdict;
    int rc = ask(SIM_CALL_WRITE, fd, offset, bytes, &verdict);

    if (rc < 0) {
        return rc;
    }
    if (verdict.short_transfer) {
        niov = (int)list_cut(iov, (size_t)niov, sim_verdict_bytes(&verdict, bytes), cut, CUT_MAX);
        iov = cut;
    }
    return os_linux.pwritev(fd, iov, niov, offset, rwf);
}

static int fault_fdatasync(int fd)
{
    int rc = ask_plain(SIM_CALL_SYNC, fd);

    return rc < 0 ? rc : os_linux.fdatasync(fd);
}

static int fault_ftruncate(int fd, uint64_t size_bytes)
{
    int rc = ask_plain(SIM_CALL_TRUNCATE, fd);

    return rc < 0 ? rc : os_linux.ftruncate(fd, size_bytes);
}

static int fault_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    struct sim_verdict verdict;
    int rc = ask(SIM_CALL_FALLOCATE, fd, offset, bytes, &verdict);

    return rc < 0 ? rc : os_linux.fallocate(fd, mode, offset, bytes);
}

static int64_t fault_lseek(int fd, int64_t offset, int whence)
{
    int rc = ask_plain(SIM_CALL_LSEEK, fd);

    return rc < 0 ? rc : os_linux.lseek(fd, offset, whence);
}

static int64_t fault_copy_file_range(int fd_in, uint64_t off_in, int fd_out, uint64_t off_out,
                                     uint64_t bytes)
{
    struct sim_verdict verdict;
    int rc = ask(SIM_CALL_COPY, fd_out, off_out, bytes, &verdict);

    if (rc < 0) {
        return rc;
    }
    return os_linux.copy_file_range(fd_in, off_in, fd_out, off_out,
                                    sim_verdict_bytes(&verdict, bytes));
}

static int fault_fstat(int fd, struct stat *ret_st)
{
    int rc = ask_plain(SIM_CALL_STAT, fd);

    return rc < 0 ? rc : os_linux.fstat(fd, ret_st);
}

static int fault_stat(const char *path, struct stat *ret_st)
{
    int rc = ask_plain(SIM_CALL_STAT, -1);

    return rc < 0 ? rc : os_linux.stat(path, ret_st);
}

static int fault_statx(int fd, unsigned mask, struct statx *ret_stx)
{
    int rc = ask_plain(SIM_CALL_STAT, fd);

    return rc < 0 ? rc : os_linux.statx(fd, mask, ret_stx);
}

static int fault_fstatfs(int fd, struct statfs *ret_sfs)
{
    int rc = ask_plain(SIM_CALL_STAT, fd);

    return rc < 0 ? rc : os_linux.fstatfs(fd, ret_sfs);
}

static int fault_fcntl_getfl(int fd)
{
    int rc = ask_plain(SIM_CALL_FCNTL, fd);

    return rc < 0 ? rc : os_linux.fcntl_getfl(fd);
}

static int fault_fcntl_setfl(int fd, int flags)
{
    int rc = ask_plain(SIM_CALL_FCNTL, fd);

    return rc < 0 ? rc : os_linux.fcntl_setfl(fd, flags);
}

static int fault_lock(int fd, int cmd, struct flock *lock)
{
    int rc = ask_plain(SIM_CALL_LOCK, fd);

    return rc < 0 ? rc : os_linux.lock(fd, cmd, lock);
}

static int fault_ioctl(int fd, unsigned long request, void *arg)
{
    int rc = ask_plain(SIM_CALL_IOCTL, fd);

    return rc < 0 ? rc : os_linux.ioctl(fd, request, arg);
}

static int fault_unlink(const char *path)
{
    int rc = ask_plain(SIM_CALL_UNLINK, -1);

    return rc < 0 ? rc : os_linux.unlink(path);
}

static int64_t fault_readlink(const char *path, char *buf, size_t size)
{
    int rc = ask_plain(SIM_CALL_READLINK, -1);

    return rc < 0 ? rc : os_linux.readlink(path, buf, size);
}

static int64_t fault_read(int fd, void *buf, size_t bytes)
{
    int rc = ask_plain(SIM_CALL_FDREAD, fd);

    return rc < 0 ? rc : os_linux.read(fd, buf, bytes);
}

static int64_t fault_write(int fd, const void *buf, size_t bytes)
{
    int rc = ask_plain(SIM_CALL_FDWRITE, fd);

    return rc < 0 ? rc : os_linux.write(fd, buf, bytes);
}

static int fault_socket(int domain, int type, int protocol)
{
    int rc = ask_plain(SIM_CALL_SOCKET, -1);

    return rc < 0 ? rc : os_linux.socket(domain, type, protocol);
}

static int fault_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    int rc = ask_plain(SIM_CALL_SOCKET, fd);

    return rc < 0 ? rc : os_linux.bind(fd, addr, len);
}

static int fault_listen(int fd, int backlog)
{
    int rc = ask_plain(SIM_CALL_SOCKET, fd);

    return rc < 0 ? rc : os_linux.listen(fd, backlog);
}

static int fault_accept(int fd, struct sockaddr *addr, socklen_t *len)
{
    int rc = ask_plain(SIM_CALL_ACCEPT, fd);

    return rc < 0 ? rc : os_linux.accept(fd, addr, len);
}

static int fault_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    int rc = ask_plain(SIM_CALL_CONNECT, fd);

    return rc < 0 ? rc : os_linux.connect(fd, addr, len);
}

static int64_t fault_recvmsg(int fd, struct msghdr *msg, int flags)
{
    uint64_t bytes = list_bytes(msg->msg_iov, msg->msg_iovlen);
    struct iovec cut[CUT_MAX];
    struct msghdr part = *msg;
    struct sim_verdict verdict;
    int rc = ask(SIM_CALL_RECV, fd, 0, bytes, &verdict);

    if (rc < 0) {
        return rc;
    }
    if (!verdict.short_transfer) {
        return os_linux.recvmsg(fd, msg, flags);
    }
    part.msg_iov = cut;
    part.msg_iovlen =
        list_cut(msg->msg_iov, msg->msg_iovlen, sim_verdict_bytes(&verdict, bytes), cut, CUT_MAX);
    return os_linux.recvmsg(fd, &part, flags);
}

static int64_t fault_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    uint64_t bytes = list_bytes(msg->msg_iov, msg->msg_iovlen);
    struct iovec cut[CUT_MAX];
    struct msghdr part = *msg;
    struct sim_verdict verdict;
    int rc = ask(SIM_CALL_SEND, fd, 0, bytes, &verdict);

    if (rc < 0) {
        return rc;
    }
    if (verdict.short_transfer) {
        part.msg_iov = cut;
        part.msg_iovlen = list_cut(msg->msg_iov, msg->msg_iovlen,
                                   sim_verdict_bytes(&verdict, bytes), cut, CUT_MAX);
    }
    return os_linux.sendmsg(fd, &part, flags);
}

static int fault_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    int rc = ask_plain(SIM_CALL_SOCKET, fd);

    return rc < 0 ? rc : os_linux.setsockopt(fd, level, name, value, len);
}

static int fault_eventfd(unsigned initial, int flags)
{
    int rc = ask_plain(SIM_CALL_EVENTFD, -1);

    return rc < 0 ? rc : os_linux.eventfd(initial, flags);
}

static int fault_timerfd_create(void)
{
    int rc = ask_plain(SIM_CALL_EVENTFD, -1);

    return rc < 0 ? rc : os_linux.timerfd_create();
}

static int fault_timerfd_set(int fd, int64_t expire_ns)
{
    int rc = ask_plain(SIM_CALL_TIMERFD_SET, fd);

    return rc < 0 ? rc : os_linux.timerfd_set(fd, expire_ns);
}

static int fault_epoll_create(void)
{
    int rc = ask_plain(SIM_CALL_EVENTFD, -1);

    return rc < 0 ? rc : os_linux.epoll_create();
}

static int fault_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    int rc = ask_plain(SIM_CALL_EPOLL_CTL, fd);

    return rc < 0 ? rc : os_linux.epoll_ctl(epfd, op, fd, event);
}

static int fault_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns)
{
    int rc = ask_plain(SIM_CALL_EPOLL_WAIT, epfd);

    return rc < 0 ? rc : os_linux.epoll_wait(epfd, events, max, timeout_ns);
}

static int fault_mmap(size_t bytes, int prot, int flags, void **ret_addr)
{
    int rc = ask_plain(SIM_CALL_MMAP, -1);

    return rc < 0 ? rc : os_linux.mmap(bytes, prot, flags, ret_addr);
}

static int fault_mprotect(void *addr, size_t bytes, int prot)
{
    int rc = ask_plain(SIM_CALL_MMAP, -1);

    return rc < 0 ? rc : os_linux.mprotect(addr, bytes, prot);
}

static int fault_thread_create(const char *name, void *(*run)(void *), void *arg,
                               os_thread **ret_thread)
{
    int rc = ask_plain(SIM_CALL_THREAD, -1);

    return rc < 0 ? rc : os_linux.thread_create(name, run, arg, ret_thread);
}

static bool fault_io_uring_allowed(void)
{
    return false;
}

void fault_os_limit(bool (*concerns)(int fd))
{
    fd_concerns = concerns;
}

const struct os_table *fault_os_table(struct sim_faults *faults)
{
    static struct os_table table;

    in_force = faults;
    fd_concerns = 0;
    table = os_linux;
    table.open = fault_open;
    table.close = fault_close;
    table.dup = fault_dup;
    table.preadv = fault_preadv;
    table.pwritev = fault_pwritev;
    table.fdatasync = fault_fdatasync;
    table.ftruncate = fault_ftruncate;
    table.fallocate = fault_fallocate;
    table.lseek = fault_lseek;
    table.copy_file_range = fault_copy_file_range;
    table.fstat = fault_fstat;
    table.stat = fault_stat;
    table.statx = fault_statx;
    table.fstatfs = fault_fstatfs;
    table.fcntl_getfl = fault_fcntl_getfl;
    table.fcntl_setfl = fault_fcntl_setfl;
    table.lock = fault_lock;
    table.ioctl = fault_ioctl;
    table.unlink = fault_unlink;
    table.readlink = fault_readlink;
    table.read = fault_read;
    table.write = fault_write;
    table.socket = fault_socket;
    table.bind = fault_bind;
    table.listen = fault_listen;
    table.accept = fault_accept;
    table.connect = fault_connect;
    table.recvmsg = fault_recvmsg;
    table.sendmsg = fault_sendmsg;
    table.setsockopt = fault_setsockopt;
    table.eventfd = fault_eventfd;
    table.timerfd_create = fault_timerfd_create;
    table.timerfd_set = fault_timerfd_set;
    table.epoll_create = fault_epoll_create;
    table.epoll_ctl = fault_epoll_ctl;
    table.epoll_wait = fault_epoll_wait;
    table.mmap = fault_mmap;
    table.mprotect = fault_mprotect;
    table.thread_create = fault_thread_create;
    table.io_uring_allowed = fault_io_uring_allowed;
    return &table;
}
