/* SPDX-License-Identifier: MIT */
/* Files of the simulated world through its table, as a driver would use them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/full.h"
#include "os/sim/sim_os.h"

#define MODEL_BYTES (256u << 10)

static struct sim_world *world;

static uint64_t seed_of_run(void)
{
    const char *text = getenv("PLATTER_SEED");
    uint64_t seed = text ? strtoull(text, 0, 0) : 20240612;

    printf("PLATTER_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static int setup(void **state)
{
    world = sim_world_new(7);
    assert_non_null(world);
    os_replace(sim_os_table(world));
    return 0;
}

static int teardown(void **state)
{
    os_replace(0);
    assert_int_equal(sim_world_open_fds(world), 0);
    sim_world_free(world);
    return 0;
}

static int open_new(const char *path, uint64_t size, const struct sim_file_options *opts)
{
    int fd;

    assert_int_equal(sim_world_add_file(world, path, size, opts), 0);
    fd = os->open(path, O_RDWR, 0);
    assert_true(fd >= SIM_FD_BASE);
    return fd;
}

static int64_t put(int fd, uint64_t offset, const void *buf, size_t bytes)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = bytes};

    return os->pwritev(fd, &iov, 1, offset, 0);
}

static int64_t get(int fd, uint64_t offset, void *buf, size_t bytes)
{
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};

    return os->preadv(fd, &iov, 1, offset, 0);
}

/* ---- random operations against a model ---- */

struct model {
    uint8_t bytes[MODEL_BYTES];
    uint64_t size;
};

static void check_read(int fd, const struct model *m, struct sim_rng *rng)
{
    static uint8_t buf[MODEL_BYTES];
    uint64_t offset = sim_rng_below(rng, MODEL_BYTES);
    size_t bytes = (size_t)sim_rng_below(rng, MODEL_BYTES - offset) + 1;
    int64_t want = offset >= m->size ? 0 : (int64_t)(m->size - offset);

    want = want < (int64_t)bytes ? want : (int64_t)bytes;
    assert_int_equal(get(fd, offset, buf, bytes), want);
    assert_memory_equal(buf, m->bytes + offset, (size_t)want);
}

static void model_zero(struct model *m, uint64_t offset, uint64_t bytes)
{
    if (offset < m->size) {
        memset(m->bytes + offset, 0, bytes < m->size - offset ? bytes : m->size - offset);
    }
}

static void random_fallocate(int fd, struct model *m, struct sim_rng *rng, uint64_t offset,
                             uint64_t bytes)
{
    static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE};
    int mode = modes[sim_rng_below(rng, 5)];

    assert_int_equal(os->fallocate(fd, mode, offset, bytes), 0);
    if (mode & ~FALLOC_FL_KEEP_SIZE) {
        model_zero(m, offset, bytes);
    }
    if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + bytes > m->size) {
        m->size = offset + bytes;
    }
}

static void random_step(int fd, struct model *m, struct sim_rng *rng)
{
    static uint8_t buf[MODEL_BYTES];
    uint64_t offset = sim_rng_below(rng, MODEL_BYTES);
    uint64_t bytes = 1 + sim_rng_below(rng, MODEL_BYTES - offset);

    switch (sim_rng_below(rng, 6)) {
    case 0:
    case 1:
        memset(buf, (int)sim_rng_below(rng, 256), bytes);
        memcpy(m->bytes + offset, buf, bytes);
        m->size = offset + bytes > m->size ? offset + bytes : m->size;
        assert_int_equal(put(fd, offset, buf, bytes), bytes);
        break;
    case 2:
        random_fallocate(fd, m, rng, offset, bytes);
        break;
    case 3:
        assert_int_equal(os->ftruncate(fd, offset), 0);
        memset(m->bytes + offset, 0, MODEL_BYTES - offset);
        m->size = offset;
        break;
    case 4:
        assert_int_equal(os->fdatasync(fd), 0);
        break;
    default:
        check_read(fd, m, rng);
    }
    assert_int_equal(os->lseek(fd, 0, SEEK_END), m->size);
}

static void check_holes(int fd, const struct model *m)
{
    int64_t at = 0;

    while ((uint64_t)at < m->size) {
        int64_t data = os->lseek(fd, at, SEEK_DATA);
        int64_t end = data == -ENXIO ? (int64_t)m->size : data;

        for (; at < end; at++) {
            assert_int_equal(m->bytes[at], 0);
        }
        if (data != -ENXIO) {
            at = os->lseek(fd, data, SEEK_HOLE);
            assert_true(at > data);
        }
    }
}

static void test_random_against_model(void **state)
{
    struct model *m = calloc(1, sizeof(*m));
    int fd = open_new("/sim/a", 0, 0);
    struct sim_rng rng;

    sim_rng_init(&rng, seed_of_run());
    for (unsigned i = 0; i < 3000; i++) {
        random_step(fd, m, &rng);
        if (i % 64 == 0) {
            check_holes(fd, m);
        }
    }
    assert_int_equal(os->close(fd), 0);
    free(m);
}

/* ---- single facts ---- */

static void test_names(void **state)
{
    struct stat st;
    int fd;

    assert_int_equal(os->open("/sim/x", O_RDONLY, 0), -ENOENT);
    assert_int_equal(os->stat("/sim/x", &st), -ENOENT);
    fd = os->open("/sim/x", O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= SIM_FD_BASE);
    assert_int_equal(os->open("/sim/x", O_RDWR | O_CREAT | O_EXCL, 0600), -EEXIST);
    assert_int_equal(put(fd, 0, "hello", 5), 5);
    assert_int_equal(os->stat("/sim/x", &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(st.st_size, 5);
    assert_int_equal(os->unlink("/sim/x"), 0);
    assert_int_equal(os->unlink("/sim/x"), -ENOENT);
    assert_int_equal(os->fstat(fd, &st), 0); /* lives until closed */
    assert_int_equal(st.st_nlink, 0);
    assert_int_equal(os->close(fd), 0);
    assert_int_equal(os->close(fd), -EBADF);

    fd = os->open("/dev/null", O_RDWR, 0); /* others are real */
    assert_true(fd >= 0 && fd < SIM_FD_BASE);
    assert_int_equal(os->close(fd), 0);
}

static void test_modes_of_access(void **state)
{
    const struct sim_file_options ro = {.read_only = true};
    char buf[8];
    int fd;
    int again;

    assert_int_equal(sim_world_add_file(world, "/sim/ro", 512, &ro), 0);
    assert_int_equal(os->open("/sim/ro", O_RDWR, 0), -EACCES);
    fd = os->open("/sim/ro", O_RDONLY, 0);
    assert_int_equal(put(fd, 0, "x", 1), -EBADF);
    assert_int_equal(get(fd, 0, buf, 8), 8);
    again = os->dup(fd);
    assert_int_equal(os->close(fd), 0);
    assert_int_equal(get(again, 0, buf, 8), 8);
    assert_int_equal(os->fcntl_getfl(again) & O_ACCMODE, O_RDONLY);
    assert_int_equal(os->close(again), 0);
}

static void test_direct_alignment(void **state)
{
    const struct sim_file_options opts = {.dio_mem_align = 512, .dio_offset_align = 4096};
    int fd = open_new("/sim/d", 1 << 20, &opts);
    struct statx stx;
    char *buf = aligned_alloc(4096, 8192);

    memset(buf, 1, 8192);
    assert_int_equal(put(fd, 1, buf, 10), 10);
    assert_int_equal(os->fcntl_setfl(fd, os->fcntl_getfl(fd) | O_DIRECT), 0);
    assert_int_equal(put(fd, 1, buf, 10), -EINVAL);
    assert_int_equal(put(fd, 512, buf, 4096), -EINVAL);
    assert_int_equal(put(fd, 4096, buf, 512), -EINVAL);
    assert_int_equal(put(fd, 4096, buf + 1, 4096), -EINVAL);
    assert_int_equal(put(fd, 4096, buf + 512, 4096), 4096);
    assert_int_equal(get(fd, 100, buf, 4096), -EINVAL);
    assert_int_equal(get(fd, 4096, buf, 8192), 8192);
    assert_int_equal(os->statx(fd, STATX_BASIC_STATS | STATX_DIOALIGN, &stx), 0);
    assert_true(stx.stx_mask & STATX_DIOALIGN);
    assert_int_equal(stx.stx_dio_mem_align, 512);
    assert_int_equal(stx.stx_dio_offset_align, 4096);
    free(buf);
    os->close(fd);
}

static void test_capacity(void **state)
{
    const struct sim_file_options opts = {.capacity_bytes = 8192};
    int fd = open_new("/sim/full", 1 << 20, &opts);
    char buf[4096] = {1};

    assert_int_equal(put(fd, 0, buf, 4096), 4096);
    assert_int_equal(put(fd, 8192, buf, 4096), 4096);
    assert_int_equal(put(fd, 4096, buf, 1), -ENOSPC);
    assert_int_equal(put(fd, 100, buf, 1000), 1000); /* in place */
    assert_int_equal(os->fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096), 0);
    assert_int_equal(put(fd, 4096, buf, 1), 1);
    os->close(fd);
}

static void test_block_device(void **state)
{
    const struct sim_file_options opts = {.block_device = true, .dio_offset_align = 512};
    int fd = open_new("/sim/dev", 8192, &opts);
    uint64_t range[2] = {0, 512};
    char buf[4096] = {1};
    struct stat st;
    int sector;

    assert_int_equal(os->fstat(fd, &st), 0);
    assert_true(S_ISBLK(st.st_mode));
    assert_int_equal(os->ioctl(fd, BLKGETSIZE64, range), 0);
    assert_int_equal(range[0], 8192);
    assert_int_equal(os->ioctl(fd, BLKSSZGET, &sector), 0);
    assert_int_equal(sector, 512);
    assert_int_equal(put(fd, 6144, buf, 4096), 2048);
    assert_int_equal(put(fd, 8192, buf, 1), -ENOSPC);
    range[0] = 0;
    assert_int_equal(os->ioctl(fd, BLKZEROOUT, range), 0);
    range[0] = 8192;
    assert_int_equal(os->ioctl(fd, BLKDISCARD, range), -EINVAL);
    assert_int_equal(os->ftruncate(fd, 1), -EINVAL);
    os->close(fd);
}

static void test_copy(void **state)
{
    int a = open_new("/sim/a", 0, 0);
    int b = open_new("/sim/b", 0, 0);
    int real = os->open("/dev/null", O_RDWR, 0);
    char buf[8];

    assert_int_equal(put(a, 0, "abcdefgh", 8), 8);
    assert_int_equal(os->copy_file_range(a, 2, b, 100, 50), 6);
    assert_int_equal(os->copy_file_range(a, 8, b, 0, 1), 0);
    assert_int_equal(get(b, 100, buf, 8), 6);
    assert_memory_equal(buf, "cdefgh", 6);
    assert_int_equal(os->copy_file_range(a, 0, a, 4, 8), -EINVAL);
    assert_int_equal(os->copy_file_range(a, 0, real, 0, 1), -EXDEV);
    os->close(a);
    os->close(b);
    os->close(real);
}

static int lock(int fd, int cmd, short type, off_t start, off_t len)
{
    struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    int rc = os->lock(fd, cmd, &fl);

    return cmd == F_OFD_GETLK && rc == 0 ? fl.l_type : rc;
}

static void test_locks(void **state)
{
    int a = open_new("/sim/a", 4096, 0);
    int b = os->open("/sim/a", O_RDWR, 0);
    int ro = os->open("/sim/a", O_RDONLY, 0);
    int a2 = os->dup(a);

    assert_int_equal(lock(a, F_OFD_SETLK, F_RDLCK, 100, 10), 0);
    assert_int_equal(lock(b, F_OFD_SETLK, F_RDLCK, 100, 1), 0);
    assert_int_equal(lock(b, F_OFD_SETLK, F_WRLCK, 109, 1), -EAGAIN);
    assert_int_equal(lock(b, F_OFD_GETLK, F_WRLCK, 109, 1), F_RDLCK);
    assert_int_equal(lock(b, F_OFD_GETLK, F_WRLCK, 110, 1), F_UNLCK);
    assert_int_equal(lock(b, F_OFD_SETLK, F_WRLCK, 110, 1), 0);
    assert_int_equal(lock(a2, F_OFD_SETLK, F_UNLCK, 104, 1), 0); /* splits; dup shares */
    assert_int_equal(lock(b, F_OFD_SETLK, F_WRLCK, 104, 1), 0);
    assert_int_equal(lock(b, F_OFD_SETLK, F_WRLCK, 105, 1), -EAGAIN);
    assert_int_equal(lock(ro, F_OFD_SETLK, F_WRLCK, 0, 1), -EBADF);
    os->close(a);
    assert_int_equal(lock(b, F_OFD_SETLK, F_WRLCK, 105, 1), -EAGAIN); /* a2 still holds */
    os->close(a2);
    assert_int_equal(lock(b, F_OFD_SETLK, F_WRLCK, 0, 0), 0);
    os->close(b);
    os->close(ro);
}

static void test_dsync_is_durable(void **state)
{
    int fd = open_new("/sim/a", 4096, 0);
    char buf[512];
    struct iovec iov = {.iov_base = buf, .iov_len = 512};

    memset(buf, 5, sizeof(buf));
    assert_int_equal(os->pwritev(fd, &iov, 1, 1024, RWF_DSYNC), 512);
    assert_int_equal(sim_world_power_cut(world), 0);
    assert_int_equal(get(fd, 1024, buf, 1), 1);
    assert_int_equal(buf[0], 5);
    os->close(fd);
}

/* ---- faults ---- */

static void test_fault_of_one_call(void **state)
{
    struct sim_faults *faults = sim_world_faults(world);
    int fd = open_new("/sim/a", 4096, 0);
    char buf[64] = {0};

    sim_faults_clear(faults);
    sim_faults_add(faults,
                   &(struct sim_rule){.calls = SIM_CALLS(SIM_CALL_WRITE), .nth = 2, .error = EIO});
    assert_int_equal(put(fd, 0, buf, 64), 64);
    assert_int_equal(put(fd, 0, buf, 64), -EIO);
    assert_int_equal(put(fd, 0, buf, 64), 64);
    assert_int_equal(sim_faults_count(faults, SIM_CALLS(SIM_CALL_WRITE)), 3);
    assert_int_equal(sim_faults_hits(faults), 1);

    sim_faults_clear(faults);
    sim_faults_add(
        faults,
        &(struct sim_rule){.calls = SIM_CALLS_DATA, .nth = 2, .forever = true, .error = ENOSPC});
    assert_int_equal(get(fd, 0, buf, 64), 64);
    assert_int_equal(put(fd, 0, buf, 64), -ENOSPC);
    assert_int_equal(os->fdatasync(fd), -ENOSPC);
    sim_faults_clear(faults);
    os->close(fd);
}

static void test_fault_of_a_range(void **state)
{
    struct sim_faults *faults = sim_world_faults(world);
    int fd = open_new("/sim/a", 4096, 0);
    char buf[64] = {0};

    sim_faults_add(faults,
                   &(struct sim_rule){
                       .calls = SIM_CALLS(SIM_CALL_READ), .offset = 100, .bytes = 1, .error = EIO});
    assert_int_equal(get(fd, 37, buf, 63), 63);
    assert_int_equal(get(fd, 37, buf, 64), -EIO);
    assert_int_equal(get(fd, 101, buf, 64), 64);
    sim_faults_clear(faults);
    sim_faults_add(faults, &(struct sim_rule){.calls = SIM_CALLS_DATA, .short_transfer = true});
    assert_int_equal(get(fd, 0, buf, 64), 32);
    assert_int_equal(put(fd, 0, buf, 64), 32);
    assert_int_equal(put(fd, 0, buf, 1), 1);
    assert_int_equal(os_pwritev_full(fd, &(struct iovec){buf, 64}, 1, 0, 0), 0);
    os->close(fd);
}

static void test_failing_sync_loses(void **state)
{
    struct sim_faults *faults = sim_world_faults(world);
    int fd = open_new("/sim/a", 4096, 0);
    char byte = 7;

    sim_faults_add(
        faults, &(struct sim_rule){
                    .calls = SIM_CALLS(SIM_CALL_SYNC), .nth = 1, .error = EIO, .lose_cache = true});
    assert_int_equal(put(fd, 0, &byte, 1), 1);
    assert_int_equal(os->fdatasync(fd), -EIO);
    assert_int_equal(os->fdatasync(fd), 0); /* and yet it is gone */
    assert_int_equal(sim_world_power_cut(world), 0);
    assert_int_equal(get(fd, 0, &byte, 1), 1);
    assert_int_equal(byte, 0);
    os->close(fd);
}

static void count_change(void *opaque, const char *path, const struct sim_disk *disk)
{
    (*(unsigned *)opaque)++;
    assert_string_equal(path, "/sim/a");
    assert_true(sim_disk_size(disk) >= 4096);
}

static void test_watching_changes(void **state)
{
    int fd = open_new("/sim/a", 4096, 0);
    struct sim_disk *copy;
    unsigned changes = 0;
    char buf[4] = "abc";

    sim_world_on_change(world, count_change, &changes);
    put(fd, 0, buf, 4);
    os->fdatasync(fd);
    get(fd, 0, buf, 4);
    assert_int_equal(changes, 2);
    copy = sim_world_clone_disk(world, "/sim/a");
    sim_disk_read_durable(copy, 0, buf, 4);
    assert_string_equal(buf, "abc");
    sim_disk_free(copy);
    assert_null(sim_world_clone_disk(world, "/sim/b"));
    os->close(fd);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_random_against_model),
        T(test_names),
        T(test_modes_of_access),
        T(test_direct_alignment),
        T(test_capacity),
        T(test_block_device),
        T(test_copy),
        T(test_locks),
        T(test_dsync_is_durable),
        T(test_fault_of_one_call),
        T(test_fault_of_a_range),
        T(test_failing_sync_loses),
        T(test_watching_changes),
    };

    return cmocka_run_group_tests(tests, 0, 0);
}
