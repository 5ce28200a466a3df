/* SPDX-License-Identifier: MIT */
/*
 * What qcow2 images cost where `platter bench` does not look; qcow2_compare.py runs it beside other
 * programs. Prints seconds of wall time and bytes or requests done.
 *
 *   bench_qcow2 queues IMAGE QUEUES REQUESTS   4 KiB reads at random, depth 32 in each queue
 *   bench_qcow2 fill IMAGE BYTES               sequential writes of 1 MiB, depth 8, and a flush
 *   bench_qcow2 compress RAW IMAGE JOBS        every cluster of RAW, compressed, JOBS at once
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <platter/backend.h>
#include <platter/coroutine.h>
#include <platter/coroutine.h>

#define READ_BYTES 4096u
#define READ_DEPTH 32
#define FILL_BYTES (1u << 20)
#define FILL_DEPTH 8
#define CLUSTER_BYTES (64u << 10)

static void die(const char *what, int err)
{
    fprintf(stderr, "bench_qcow2: %s: %s\n", what, strerror(err < 0 ? -err : err));
    exit(1);
}

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static BlockBackend *open_image(Platter *pl, const char *path, int flags)
{
    BlockOptions *options = block_options_new();
    Error *err = NULL;
    BlockBackend *blk;

    if (options == NULL || block_options_set_str(options, "driver", "qcow2") < 0) {
        die("options", ENOMEM);
    }
    blk = blk_new_open(pl, "disk", path, NULL, options, flags, &err);
    if (blk == NULL) {
        fprintf(stderr, "bench_qcow2: %s\n", error_get_pretty(err));
        exit(1);
    }
    return blk;
}

/* ---- one queue: requests that follow each other in one context ---- */

struct queue {
    BlockBackend *blk;
    AioContext *ctx;
    long left;    /* not submitted yet */
    long running; /* in flight */
    uint64_t blocks;
    uint64_t random;
    _Atomic int *queues; /* that still run */
    struct queue_request {
        struct queue *queue;
        struct iovec iov;
        struct iov_view view;
    } requests[READ_DEPTH];
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void read_done(void *opaque, int ret);

static void read_next(struct queue_request *r)
{
    struct queue *q = r->queue;
    int64_t offset = (int64_t)(next_random(&q->random) % q->blocks * READ_BYTES);

    q->left--;
    q->running++;
    if (blk_aio_preadv(q->blk, offset, &r->view, 0, read_done, r) == NULL) {
        die("read", ENOMEM);
    }
}

static void read_done(void *opaque, int ret)
{
    struct queue_request *r = opaque;
    struct queue *q = r->queue;

    if (ret < 0) {
        die("read", ret);
    }
    q->running--;
    if (q->left > 0) {
        read_next(r);
    } else if (q->running == 0) {
        atomic_fetch_sub(q->queues, 1);
        aio_notify(platter_get_main_context(blk_get_platter(q->blk)));
    }
}

static void queue_start(void *opaque)
{
    struct queue *q = opaque;

    for (int i = 0; i < READ_DEPTH; i++) {
        struct queue_request *r = &q->requests[i];

        r->queue = q;
        r->iov = (struct iovec){.iov_base = aligned_alloc(4096, READ_BYTES), .iov_len = READ_BYTES};
        r->view = (struct iov_view){.iov = &r->iov, .niov = 1, .bytes = READ_BYTES};
        read_next(r);
    }
}

static int bench_queues(Platter *pl, const char *path, int queues, long requests)
{
    BlockBackend *blk = open_image(pl, path, 0);
    struct queue *q = calloc((size_t)queues, sizeof(*q));
    IOThread **threads = calloc((size_t)queues, sizeof(*threads));
    _Atomic int running = queues;
    double start;

    if (q == NULL || threads == NULL) {
        die("queues", ENOMEM);
    }
    start = now();
    for (int i = 0; i < queues; i++) {
        threads[i] = iothread_new("queue", NULL, NULL);
        if (threads[i] == NULL) {
            die("thread", ENOMEM);
        }
        q[i] = (struct queue){.blk = blk,
                              .ctx = iothread_get_aio_context(threads[i]),
                              .left = requests,
                              .blocks = (uint64_t)blk_getlength(blk) / READ_BYTES,
                              .random = UINT64_C(88172645463325252) + (uint64_t)i,
                              .queues = &running};
        if (aio_bh_schedule_oneshot(q[i].ctx, queue_start, &q[i]) < 0) {
            die("start", ENOMEM);
        }
    }
    while (atomic_load(&running) > 0) {
        aio_poll(platter_get_main_context(pl), true);
    }
    printf("%.4f %ld\n", now() - start, queues * requests);
    for (int i = 0; i < queues; i++) {
        iothread_free(threads[i]);
        for (int j = 0; j < READ_DEPTH; j++) {
            free(q[i].requests[j].iov.iov_base);
        }
    }
    free(threads);
    free(q);
    blk_unref(blk);
    return 0;
}

/* ---- writers: coroutines that take the next piece until there is none ---- */

struct writers {
    BlockBackend *blk;
    int fd; /* source, or -1: a pattern */
    uint64_t next;
    uint64_t end;
    uint32_t piece;
    int flags;
    int running;
    int ret;
};

static void write_pieces(void *opaque)
{
    struct writers *w = opaque;
    uint8_t *buf = aligned_alloc(4096, w->piece);

    if (buf == NULL) {
        w->ret = -ENOMEM;
    } else {
        memset(buf, 0x5a, w->piece);
    }
    while (w->next < w->end && w->ret == 0) {
        uint64_t at = w->next;
        struct iovec iov = {.iov_base = buf, .iov_len = w->piece};
        struct iov_view view = {.iov = &iov, .niov = 1, .bytes = w->piece};

        w->next += w->piece;
        if (w->fd >= 0 && pread(w->fd, buf, w->piece, (off_t)at) != (ssize_t)w->piece) {
            w->ret = -EIO;
            break;
        }
        w->ret = blk_co_pwritev(w->blk, (int64_t)at, &view, w->flags);
    }
    free(buf);
    w->running--;
}

static int run_writers(Platter *pl, struct writers *w, int jobs)
{
    double start = now();

    for (w->running = 0; w->running < jobs;) {
        Coroutine *co = coroutine_create(write_pieces, w);

        if (co == NULL) {
            die("coroutine", ENOMEM);
        }
        w->running++;
        coroutine_enter(co);
        if (w->next >= w->end) {
            break;
        }
    }
    while (w->running > 0) {
        aio_poll(platter_get_main_context(pl), true);
    }
    if (w->ret == 0) {
        w->ret = blk_flush(w->blk);
    }
    if (w->ret < 0) {
        die("write", w->ret);
    }
    blk_unref(w->blk); /* closing counts: it writes what is left of the metadata */
    printf("%.4f %llu\n", now() - start, (unsigned long long)w->end);
    return 0;
}

static int bench_fill(Platter *pl, const char *path, uint64_t bytes)
{
    struct writers w = {.blk = open_image(pl, path, BDRV_O_RDWR),
                        .fd = -1,
                        .end = bytes / FILL_BYTES * FILL_BYTES,
                        .piece = FILL_BYTES};

    return run_writers(pl, &w, FILL_DEPTH);
}

static int bench_compress(Platter *pl, const char *raw, const char *path, int jobs)
{
    struct writers w = {.blk = open_image(pl, path, BDRV_O_RDWR),
                        .fd = open(raw, O_RDONLY | O_CLOEXEC),
                        .piece = CLUSTER_BYTES,
                        .flags = BDRV_REQ_WRITE_COMPRESSED};
    struct stat st;

    if (w.fd < 0 || fstat(w.fd, &st) < 0) {
        die(raw, errno);
    }
    w.end = (uint64_t)st.st_size / CLUSTER_BYTES * CLUSTER_BYTES;
    run_writers(pl, &w, jobs);
    close(w.fd);
    return 0;
}

int main(int argc, char **argv)
{
    Platter *pl = platter_new(NULL, NULL);
    int ret = 2;

    if (pl == NULL) {
        die("instance", ENOMEM);
    }
    if (argc == 5 && strcmp(argv[1], "queues") == 0) {
        ret = bench_queues(pl, argv[2], atoi(argv[3]), atol(argv[4]));
    } else if (argc == 4 && strcmp(argv[1], "fill") == 0) {
        ret = bench_fill(pl, argv[2], strtoull(argv[3], NULL, 0));
    } else if (argc == 5 && strcmp(argv[1], "compress") == 0) {
        ret = bench_compress(pl, argv[2], argv[3], atoi(argv[4]));
    } else {
        fputs("usage: bench_qcow2 queues IMAGE QUEUES REQUESTS | fill IMAGE BYTES | compress RAW "
              "IMAGE JOBS\n",
              stderr);
    }
    platter_free(pl);
    return ret;
}
