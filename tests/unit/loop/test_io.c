/* SPDX-License-Identifier: MIT */
/* File I/O of coroutines, the same for both engines. */
#include "io_test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

struct file_test {
    int fd;
    int flags;
    enum aio_engine engine;
};

static int64_t file_op(const struct file_test *t, enum aio_file_op op, uint64_t offset,
                       struct iovec *iov, int niov)
{
    struct aio_file_io io = {
        .op = op,
        .engine = t->engine,
        .fd = t->fd,
        .flags = t->flags,
        .offset = offset,
        .iov = iov,
        .niov = niov,
    };

    for (int i = 0; i < niov; i++) {
        io.bytes += iov[i].iov_len;
    }
    return aio_file_co(&io);
}

static void file_basics(void *arg)
{
    const struct file_test *t = arg;
    static uint8_t out[100000], in[100000];
    struct iovec one = {out, sizeof(out)};
    struct iovec in_one = {in, sizeof(in)};
    struct iovec three[3] = {{in, 10}, {in + 10, 5000}, {in + 5010, sizeof(in) - 5010}};
    struct iovec none = {in, 0};
    struct aio_file_io alloc = {.op = AIO_FILE_FALLOCATE,
                                .engine = t->engine,
                                .fd = t->fd,
                                .flags = t->flags,
                                .arg = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                .offset = 4096,
                                .bytes = 8192};

    fill(out, sizeof(out), 1);
    assert_int_equal(file_op(t, AIO_FILE_WRITE, 4096, &one, 1), 0);
    assert_int_equal(file_op(t, AIO_FILE_READ, 4096, &in_one, 1), sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    memset(in, 0, sizeof(in));
    assert_int_equal(file_op(t, AIO_FILE_READ, 4096, three, 3), sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    /* end of file */
    assert_int_equal(file_op(t, AIO_FILE_READ, 4096 + 60000, three, 3), 40000);
    assert_memory_equal(in, out + 60000, 40000);
    assert_int_equal(file_op(t, AIO_FILE_READ, 1 << 20, &in_one, 1), 0);
    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &none, 1), 0);
    assert_int_equal(file_op(t, AIO_FILE_WRITE, 0, &none, 1), 0);
    assert_int_equal(file_op(t, AIO_FILE_FDATASYNC, 0, 0, 0), 0);
    if (aio_file_co(&alloc) == 0) {
        assert_int_equal(file_op(t, AIO_FILE_READ, 4096, &in_one, 1), sizeof(in));
        assert_int_equal(in[0] | in[8191], 0);
        assert_memory_equal(in + 8192, out + 8192, sizeof(in) - 8192);
    }
}

static void file_errors(void *arg)
{
    struct file_test t = *(struct file_test *)arg;
    uint8_t byte = 1;
    struct iovec one = {&byte, 1};

    t.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(file_op(&t, AIO_FILE_WRITE, 0, &one, 1), -EBADF);
    close(t.fd);
    assert_int_equal(file_op(&t, AIO_FILE_READ, 0, &one, 1), -EBADF);
    t.fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_int_equal(file_op(&t, AIO_FILE_WRITE, 0, &one, 1), -ENOSPC);
    close(t.fd);
}

static void test_file(void **state)
{
    AioContext *ctx = test_context_new();
    struct file_test t = {.fd = temp_file()};

    run_co(ctx, file_basics, &t);
    t.flags = AIO_FILE_INLINE;
    run_co(ctx, file_basics, &t);
    t.flags = AIO_FILE_DSYNC;
    run_co(ctx, file_basics, &t);
    t.flags = 0;
    t.engine = AIO_ENGINE_THREADS;
    run_co(ctx, file_basics, &t);
    assert_int_equal(aio_engine_probe(ctx, AIO_ENGINE_THREADS, 0), 0);
    assert_int_equal(aio_engine_probe(ctx, AIO_ENGINE_IO_URING, 0),
                     test_engine == AIO_ENGINE_IO_URING ? 0 : -ENOSYS);
    t.engine = AIO_ENGINE_AUTO;
    run_co(ctx, file_errors, &t);
    close(t.fd);
    aio_context_unref(ctx);
}

/* More in flight than the ring has entries, in one turn. */
enum { MANY = 600 };

struct many {
    int fd;
    int left;
    uint32_t block[MANY];
};

struct many_one {
    struct many *m;
    unsigned i;
};

static void many_write(void *opaque)
{
    struct many_one *one = opaque;
    struct many *m = one->m;
    struct file_test t = {.fd = m->fd};
    uint32_t in = 0;
    struct iovec iov = {&m->block[one->i], 4};
    struct iovec in_iov = {&in, 4};

    assert_int_equal(file_op(&t, AIO_FILE_WRITE, one->i * 512, &iov, 1), 0);
    assert_int_equal(file_op(&t, AIO_FILE_READ, one->i * 512, &in_iov, 1), 4);
    assert_int_equal(in, m->block[one->i]);
    m->left--;
}

static bool many_busy(void *opaque)
{
    return ((struct many *)opaque)->left > 0;
}

static void test_many_in_flight(void **state)
{
    struct aio_context_options opts = {
        .size = sizeof(opts), .engine = test_engine, .ring_entries = 8, .worker_threads_max = 2};
    AioContext *ctx = aio_context_new(&opts, 0);
    static struct many m;
    static struct many_one one[MANY];

    m = (struct many){.fd = temp_file(), .left = MANY};
    aio_context_set_current(ctx);
    aio_plug(ctx);
    aio_plug(ctx);
    for (unsigned i = 0; i < MANY; i++) {
        m.block[i] = i * 2654435761u;
        one[i] = (struct many_one){&m, i};
        coroutine_enter(coroutine_create(many_write, &one[i]));
    }
    aio_unplug(ctx);
    aio_unplug(ctx);
    aio_wait_while(ctx, many_busy, &m);
    close(m.fd);
    aio_context_unref(ctx);
}

/* ---- a system that does things in pieces (worker threads and inline) ---- */

static atomic_uint whim;

static int64_t moody_preadv(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    unsigned w = atomic_fetch_add(&whim, 1) % 5;
    struct iovec part = *iov;

    if (w == 1) {
        return -EINTR;
    }
    if (w == 3) {
        return -EAGAIN;
    }
    part.iov_len = part.iov_len < 777 ? part.iov_len : 777;
    return w == 4 ? os_linux.preadv(fd, &part, 1, offset, rwf)
                  : os_linux.preadv(fd, iov, niov, offset, rwf);
}

static int64_t moody_pwritev(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    unsigned w = atomic_fetch_add(&whim, 1) % 5;
    struct iovec part = *iov;

    if (w == 0) {
        return -EINTR;
    }
    if (w == 2) {
        return -EAGAIN;
    }
    part.iov_len = part.iov_len < 555 ? part.iov_len : 555;
    return w != 4 ? os_linux.pwritev(fd, &part, 1, offset, rwf)
                  : os_linux.pwritev(fd, iov, niov, offset, rwf);
}

static int64_t always_again(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    return -EAGAIN;
}

static int moody_fdatasync(int fd)
{
    unsigned w = atomic_fetch_add(&whim, 1) % 3;

    return w == 0 ? -EINTR : w == 1 ? -EAGAIN : os_linux.fdatasync(fd);
}

static int moody_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    unsigned w = atomic_fetch_add(&whim, 1) % 3;

    return w == 0 ? -EINTR : w == 1 ? -EAGAIN : os_linux.fallocate(fd, mode, offset, bytes);
}

static int sync_always_interrupted(int fd)
{
    return -EINTR;
}

static int allocation_always_again(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    return -EAGAIN;
}

static void others_for_ever(void *arg)
{
    const struct file_test *t = arg;

    assert_int_equal(file_op(t, AIO_FILE_FDATASYNC, 0, 0, 0), -EINTR);
    assert_int_equal(file_op(t, AIO_FILE_FALLOCATE, 0, 0, 0), -EAGAIN);
}

/* Trouble now and then adds up over a long transfer, but is no trouble without end. */
static void long_and_moody(void *arg)
{
    const struct file_test *t = arg;
    static uint8_t out[200000], in[sizeof(out)];
    struct iovec iov = {out, sizeof(out)};
    struct iovec in_iov = {in, sizeof(in)};

    fill(out, sizeof(out), 3);
    assert_int_equal(file_op(t, AIO_FILE_WRITE, 0, &iov, 1), 0);
    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &in_iov, 1), sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
}

static void again_for_ever(void *arg)
{
    const struct file_test *t = arg;
    uint8_t byte = 0;
    struct iovec one = {&byte, 1};

    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &one, 1), -EAGAIN);
}

static void test_pieces(void **state)
{
    struct os_table table = os_linux;
    AioContext *ctx = test_context_new();
    struct file_test t = {.fd = temp_file(), .engine = AIO_ENGINE_THREADS};

    table.preadv = moody_preadv;
    table.pwritev = moody_pwritev;
    table.fdatasync = moody_fdatasync;
    table.fallocate = moody_fallocate;
    os_replace(&table);
    for (int i = 0; i < 5; i++) {
        atomic_store(&whim, (unsigned)i);
        t.flags = 0;
        run_co(ctx, file_basics, &t);
        t.flags = AIO_FILE_INLINE;
        run_co(ctx, file_basics, &t);
    }
    run_co(ctx, long_and_moody, &t);
    table.preadv = always_again;
    table.fdatasync = sync_always_interrupted;
    table.fallocate = allocation_always_again;
    for (int i = 0; i < 2; i++) {
        run_co(ctx, again_for_ever, &t);
        run_co(ctx, others_for_ever, &t);
        t.flags ^= AIO_FILE_INLINE;
    }
    aio_context_unref(ctx);
    os_replace(0);
    close(t.fd);
}

/* Direct reads that end inside a sector at the end of the file. */
static void direct_tail(void *arg)
{
    const struct file_test *t = arg;
    uint8_t *buf = aligned_alloc(4096, 8192);
    struct iovec iov = {buf, 8192};

    assert_non_null(buf);
    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &iov, 1), 5000);
    free(buf);
}

static void test_direct_tail(void **state)
{
    AioContext *ctx = test_context_new();
    struct file_test t = {0};
    char path[] = "/var/tmp/platter-test-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 5000), 0);
    t.fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    unlink(path);
    close(fd);
    if (t.fd >= 0) {
        run_co(ctx, direct_tail, &t);
        t.engine = AIO_ENGINE_THREADS;
        run_co(ctx, direct_tail, &t);
        close(t.fd);
    }
    aio_context_unref(ctx);
}

/* Storage of blocks of 4 KiB, under a file that ends at a sector inside one. */
static int64_t preadv_of_blocks(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    return offset % 4096 != 0 ? -EINVAL : os_linux.preadv(fd, iov, niov, offset, rwf);
}

static void block_tail(void *arg)
{
    const struct file_test *t = arg;
    static uint8_t buf[8192];
    struct iovec iov = {buf, sizeof(buf)};

    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &iov, 1), 4096 + 512);
    assert_int_equal(file_op(t, AIO_FILE_READ, 512, &iov, 1), -EINVAL);
}

static void test_block_tail(void **state)
{
    struct os_table table = os_linux;
    AioContext *ctx = test_context_new();
    struct file_test t = {.fd = temp_file(), .engine = AIO_ENGINE_THREADS};

    table.preadv = preadv_of_blocks;
    os_replace(&table);
    assert_int_equal(ftruncate(t.fd, 4096 + 512), 0);
    run_co(ctx, block_tail, &t);
    aio_context_unref(ctx);
    os_replace(0);
    close(t.fd);
}

/* A write that the system takes a part of and then refuses. */
static void beyond_the_limit(void *arg)
{
    const struct file_test *t = arg;
    static uint8_t out[9000], in[9000];
    struct iovec iov = {out, sizeof(out)};
    struct iovec in_iov = {in, sizeof(in)};

    fill(out, sizeof(out), 4);
    assert_int_equal(file_op(t, AIO_FILE_WRITE, 0, &iov, 1), -EFBIG);
    assert_int_equal(file_op(t, AIO_FILE_READ, 0, &in_iov, 1), 5000);
    assert_memory_equal(in, out, 5000);
    assert_int_equal(ftruncate(t->fd, 0), 0);
}

static void test_size_limit(void **state)
{
    struct file_test t = {.fd = temp_file()};
    AioContext *ctx = test_context_new();
    struct rlimit old, low;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 5000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    run_co(ctx, beyond_the_limit, &t);
    t.engine = AIO_ENGINE_THREADS;
    run_co(ctx, beyond_the_limit, &t);
    t.flags = AIO_FILE_INLINE;
    run_co(ctx, beyond_the_limit, &t);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    close(t.fd);
    aio_context_unref(ctx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),       cmocka_unit_test(test_many_in_flight),
        cmocka_unit_test(test_pieces),     cmocka_unit_test(test_direct_tail),
        cmocka_unit_test(test_block_tail), cmocka_unit_test(test_size_limit),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
