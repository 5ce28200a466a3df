/* SPDX-License-Identifier: MIT */
/*
 * Whole transfers. The caller's list is never changed; what is left of it after a short transfer
 * is rebuilt piece by piece in a small array. -EINTR and -EAGAIN are tried again, but not for ever:
 * storage that only ever answers so is an error and not a hang.
 */
#include "os/full.h"

#include <errno.h>
#include <limits.h>

#include "os/os.h"

#define PIECES_MAX 64
#define FRUITLESS_MAX 100

struct transfer {
    const struct iovec *iov;
    int niov;
    size_t skip; /* bytes of iov[0] done */
    uint64_t offset;
    int64_t done_bytes;
    int fruitless; /* tries in a row that moved nothing */
};

static void transfer_advance(struct transfer *t, uint64_t bytes)
{
    t->offset += bytes;
    t->done_bytes += (int64_t)bytes;
    t->fruitless = 0;
    while (t->niov > 0 && bytes >= t->iov->iov_len - t->skip) {
        bytes -= t->iov->iov_len - t->skip;
        t->skip = 0;
        t->iov++;
        t->niov--;
    }
    t->skip += bytes;
}

/* What to submit next: the caller's own elements where they are untouched. */
static int transfer_pieces(const struct transfer *t, struct iovec *pieces,
                           const struct iovec **ret_iov)
{
    int n = 0;

    if (t->skip == 0) {
        *ret_iov = t->iov;
        return t->niov < IOV_MAX ? t->niov : IOV_MAX;
    }
    for (; n < t->niov && n < PIECES_MAX; n++) {
        pieces[n] = t->iov[n];
    }
    pieces[0].iov_base = (char *)pieces[0].iov_base + t->skip;
    pieces[0].iov_len -= t->skip;
    *ret_iov = pieces;
    return n;
}

/* Whether the error is worth another try. */
static bool transfer_again(struct transfer *t, int64_t rc)
{
    return (rc == -EINTR || rc == -EAGAIN) && ++t->fruitless < FRUITLESS_MAX;
}

int64_t os_preadv_full(int fd, const struct iovec *iov, int niov, uint64_t offset)
{
    struct transfer t = {.iov = iov, .niov = niov, .offset = offset};
    struct iovec pieces[PIECES_MAX];
    const struct iovec *now;

    transfer_advance(&t, 0); /* past leading empty elements */
    while (t.niov > 0) {
        int n = transfer_pieces(&t, pieces, &now);
        int64_t rc = os->preadv(fd, now, n, t.offset, 0);

        if (rc == 0) {
            break;
        }
        if (rc < 0) {
            if (transfer_again(&t, rc)) {
                continue;
            }
            return rc;
        }
        transfer_advance(&t, (uint64_t)rc);
    }
    return t.done_bytes;
}

int os_pwritev_full(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    struct transfer t = {.iov = iov, .niov = niov, .offset = offset};
    struct iovec pieces[PIECES_MAX];
    const struct iovec *now;

    transfer_advance(&t, 0);
    while (t.niov > 0) {
        int n = transfer_pieces(&t, pieces, &now);
        int64_t rc = os->pwritev(fd, now, n, t.offset, rwf);

        if (rc == 0) {
            return -ENOSPC;
        }
        if (rc < 0) {
            if (transfer_again(&t, rc)) {
                continue;
            }
            return (int)rc;
        }
        transfer_advance(&t, (uint64_t)rc);
    }
    return 0;
}

/* Wait until the descriptor is ready for events; 0 or -errno. */
static int wait_ready(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events};
    int epfd = os->epoll_create();
    int rc;

    if (epfd < 0) {
        return epfd;
    }
    rc = os->epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
    if (rc == 0) {
        rc = os->epoll_wait(epfd, &event, 1, -1);
    }
    os->close(epfd);
    return rc < 0 && rc != -EINTR ? rc : 0;
}

int64_t os_read_wait(int fd, void *buf, size_t bytes)
{
    int64_t rc;

    do {
        rc = os->read(fd, buf, bytes);
        if (rc == -EAGAIN) {
            int ready = wait_ready(fd, EPOLLIN);

            rc = ready < 0 ? ready : -EINTR;
        }
    } while (rc == -EINTR);
    return rc;
}

int os_write_wait(int fd, const void *buf, size_t bytes)
{
    const uint8_t *from = buf;

    while (bytes > 0) {
        int64_t rc = os->write(fd, from, bytes);

        if (rc == -EAGAIN) {
            rc = wait_ready(fd, EPOLLOUT);
        }
        if (rc < 0 && rc != -EINTR) {
            return (int)rc;
        }
        if (rc > 0) {
            from += rc;
            bytes -= (size_t)rc;
        }
    }
    return 0;
}
