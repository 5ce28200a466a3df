/* SPDX-License-Identifier: MIT */
/* Sockets of the Linux table: always close-on-exec, never a SIGPIPE. */
#include "os/os_linux.h"

int linux_socket(int domain, int type, int protocol)
{
    return (int)sys_result(socket(domain, type | SOCK_CLOEXEC, protocol));
}

int linux_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    return (int)sys_result(bind(fd, addr, len));
}

int linux_listen(int fd, int backlog)
{
    return (int)sys_result(listen(fd, backlog));
}

int linux_accept(int fd, struct sockaddr *addr, socklen_t *len)
{
    return (int)sys_result(accept4(fd, addr, len, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

int linux_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    return (int)sys_result(connect(fd, addr, len));
}

int64_t linux_recvmsg(int fd, struct msghdr *msg, int flags)
{
    return sys_result(recvmsg(fd, msg, flags | MSG_CMSG_CLOEXEC));
}

int64_t linux_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return sys_result(sendmsg(fd, msg, flags | MSG_NOSIGNAL));
}

int linux_shutdown(int fd, int how)
{
    return (int)sys_result(shutdown(fd, how));
}

int linux_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return (int)sys_result(setsockopt(fd, level, name, value, len));
}

int linux_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return (int)sys_result(getsockopt(fd, level, name, value, len));
}

int linux_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    return (int)sys_result(getsockname(fd, addr, len));
}
