/* SPDX-License-Identifier: MIT */
/* Allocation failures on demand. */
#include "oom_wrap.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include "os/os.h"
#include "sim_harness.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *p, size_t bytes);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
int __real_posix_memalign(void **ret, size_t align, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);
int __real_vasprintf(char **ret, const char *fmt, va_list ap);
void __real_free(void *p);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);
int __wrap_posix_memalign(void **ret, size_t align, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
int __wrap_vasprintf(char **ret, const char *fmt, va_list ap);
int __wrap_asprintf(char **ret, const char *fmt, ...);
void __wrap_free(void *p);

static atomic_bool armed;
static atomic_bool struck;
static _Atomic uint64_t number;
static _Atomic int64_t live;
static uint64_t fail_nth; /* set before armed */
static bool fail_forever;
static struct os_table guarded; /* with the guards */
static struct os_table below;

static bool fails(void)
{
    uint64_t n;

    if (harness_own > 0 || !atomic_load(&armed)) {
        return false;
    }
    n = atomic_fetch_add(&number, 1) + 1;
    if (fail_nth == 0 || n < fail_nth || (n > fail_nth && !fail_forever)) {
        return false;
    }
    atomic_store(&struck, true);
    return true;
}

static void *counted(void *p)
{
    if (p) {
        atomic_fetch_add(&live, 1);
    }
    return p;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : counted(__real_malloc(bytes));
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails() ? NULL : counted(__real_calloc(n, bytes));
}

void *__wrap_realloc(void *p, size_t bytes)
{
    void *q;

    if (fails()) {
        return NULL;
    }
    q = __real_realloc(p, bytes);
    return p ? q : counted(q);
}

char *__wrap_strdup(const char *s)
{
    return fails() ? NULL : counted(__real_strdup(s));
}

char *__wrap_strndup(const char *s, size_t n)
{
    return fails() ? NULL : counted(__real_strndup(s, n));
}

int __wrap_posix_memalign(void **ret, size_t align, size_t bytes)
{
    int rc = fails() ? ENOMEM : __real_posix_memalign(ret, align, bytes);

    if (rc == 0) {
        counted(*ret);
    }
    return rc;
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    return fails() ? NULL : counted(__real_aligned_alloc(align, bytes));
}

int __wrap_vasprintf(char **ret, const char *fmt, va_list ap)
{
    int rc = fails() ? -1 : __real_vasprintf(ret, fmt, ap);

    if (rc >= 0) {
        counted(*ret);
    }
    return rc;
}

int __wrap_asprintf(char **ret, const char *fmt, ...)
{
    va_list ap;
    int rc;

    va_start(ap, fmt);
    rc = __wrap_vasprintf(ret, fmt, ap);
    va_end(ap);
    return rc;
}

void __wrap_free(void *p)
{
    if (p) {
        atomic_fetch_sub(&live, 1);
    }
    __real_free(p);
}

/* ---- the table: what the kernel allocates is not ours ---- */

static int guard_open(const char *path, int flags, mode_t mode)
{
    int rc;

    harness_own++;
    rc = below.open(path, flags, mode);
    harness_own--;
    return rc;
}

static int guard_dup(int fd)
{
    int rc;

    harness_own++;
    rc = below.dup(fd);
    harness_own--;
    return rc;
}

static int64_t guard_pwritev(int fd, const struct iovec *iov, int niov, uint64_t offset, int rwf)
{
    int64_t rc;

    harness_own++;
    rc = below.pwritev(fd, iov, niov, offset, rwf);
    harness_own--;
    return rc;
}

static int guard_fdatasync(int fd)
{
    int rc;

    harness_own++;
    rc = below.fdatasync(fd);
    harness_own--;
    return rc;
}

static int guard_ftruncate(int fd, uint64_t size_bytes)
{
    int rc;

    harness_own++;
    rc = below.ftruncate(fd, size_bytes);
    harness_own--;
    return rc;
}

static int guard_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    int rc;

    harness_own++;
    rc = below.fallocate(fd, mode, offset, bytes);
    harness_own--;
    return rc;
}

static int64_t guard_copy_file_range(int fd_in, uint64_t off_in, int fd_out, uint64_t off_out,
                                     uint64_t bytes)
{
    int64_t rc;

    harness_own++;
    rc = below.copy_file_range(fd_in, off_in, fd_out, off_out, bytes);
    harness_own--;
    return rc;
}

static int guard_lock(int fd, int cmd, struct flock *lock)
{
    int rc;

    harness_own++;
    rc = below.lock(fd, cmd, lock);
    harness_own--;
    return rc;
}

static int guard_ioctl(int fd, unsigned long request, void *arg)
{
    int rc;

    harness_own++;
    rc = below.ioctl(fd, request, arg);
    harness_own--;
    return rc;
}

static int counted_mmap(size_t bytes, int prot, int flags, void **ret_addr)
{
    int rc = fails() ? -ENOMEM : below.mmap(bytes, prot, flags, ret_addr);

    if (rc == 0) {
        atomic_fetch_add(&live, 1);
    }
    return rc;
}

static int counted_munmap(void *addr, size_t bytes)
{
    atomic_fetch_sub(&live, 1);
    return below.munmap(addr, bytes);
}

void oom_guard_table(void)
{
    below = *os;
    guarded = below;
    guarded.open = guard_open;
    guarded.dup = guard_dup;
    guarded.pwritev = guard_pwritev;
    guarded.fdatasync = guard_fdatasync;
    guarded.ftruncate = guard_ftruncate;
    guarded.fallocate = guard_fallocate;
    guarded.copy_file_range = guard_copy_file_range;
    guarded.lock = guard_lock;
    guarded.ioctl = guard_ioctl;
    guarded.mmap = counted_mmap;
    guarded.munmap = counted_munmap;
    os_replace(&guarded);
}

void oom_init(void)
{
    json_set_alloc_funcs(__wrap_malloc, __wrap_free);
}

void oom_arm(uint64_t nth, bool forever)
{
    fail_nth = nth;
    fail_forever = forever;
    atomic_store(&number, 0);
    atomic_store(&struck, false);
    atomic_store(&armed, true);
}

uint64_t oom_disarm(void)
{
    atomic_store(&armed, false);
    return atomic_load(&number);
}

bool oom_struck(void)
{
    return atomic_load(&struck);
}

int64_t oom_live(void)
{
    return atomic_load(&live);
}
