/* SPDX-License-Identifier: MIT */
/* platter io: buffers for transfers, whole and in pieces. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/io/io.h"

#define MISALIGN_BYTES 16 /* direct I/O wants 512 at the least */

unsigned char *io_buffer_new(struct io_session *s, uint64_t bytes, int fill)
{
    size_t shift = s->misalign ? MISALIGN_BYTES : 0;
    unsigned char *buf = blk_blockalign(s->blk, (bytes ? (size_t)bytes : 1) + shift);

    if (!buf) {
        cli_error(s->cli, "no memory for %" PRIu64 " bytes", bytes);
        return NULL;
    }
    memset(buf + shift, fill, (size_t)bytes);
    return buf + shift;
}

void io_buffer_free(struct io_session *s, unsigned char *buf)
{
    if (buf) {
        blk_blockfree(buf - (s->misalign ? MISALIGN_BYTES : 0));
    }
}

bool io_all_bytes_are(const unsigned char *buf, uint64_t bytes, int pattern)
{
    return bytes == 0 || (buf[0] == pattern && memcmp(buf, buf + 1, (size_t)bytes - 1) == 0);
}

/* Lengths into iov, without addresses. 0, or -EINVAL after printing. */
static int take_lengths(struct io_session *s, struct io_pieces *p, char *const *words, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t bytes;

        if (!io_number(s, words[i], &bytes)) {
            return -EINVAL;
        }
        if (bytes > IO_LENGTH_MAX) {
            cli_put_line(s->cli->out, "Argument '%s' exceeds maximum size %" PRIu64, words[i],
                         IO_LENGTH_MAX);
            return -EINVAL;
        }
        if (bytes > IO_LENGTH_MAX - p->bytes) {
            fprintf(s->cli->out, "The total number of bytes exceed the maximum size %" PRIu64 "\n",
                    IO_LENGTH_MAX);
            return -EINVAL;
        }
        p->iov[i].iov_len = (size_t)bytes;
        p->bytes += bytes;
    }
    return 0;
}

int io_pieces_init(struct io_session *s, struct io_pieces *p, char *const *words, int count,
                   int fill)
{
    unsigned char *at;
    int ret;

    *p = (struct io_pieces){.count = count, .iov = calloc((size_t)count, sizeof(*p->iov))};
    if (!p->iov) {
        cli_error(s->cli, "out of memory");
        return -ENOMEM;
    }
    ret = take_lengths(s, p, words, count);
    if (ret == 0) {
        p->buf = io_buffer_new(s, p->bytes, fill);
        ret = p->buf ? 0 : -ENOMEM;
    }
    if (ret < 0) {
        io_pieces_fini(s, p);
        return ret;
    }
    at = p->buf;
    for (int i = 0; i < count; i++) {
        p->iov[i].iov_base = at;
        at += p->iov[i].iov_len;
    }
    return 0;
}

void io_pieces_fini(struct io_session *s, struct io_pieces *p)
{
    io_buffer_free(s, p->buf);
    p->buf = NULL;
    free(p->iov);
    p->iov = NULL;
}
