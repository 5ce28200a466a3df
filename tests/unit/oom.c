/* SPDX-License-Identifier: MIT */
#include "oom.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

static atomic_long number = -1; /* of the next allocation; < 0: not armed */
static atomic_bool struck;
static long fail_nth; /* set before armed */
static bool fail_forever;

void oom_arm(long nth, bool forever)
{
    fail_nth = nth;
    fail_forever = forever;
    atomic_store(&struck, false);
    atomic_store(&number, 0);
}

void oom_disarm(void)
{
    atomic_store(&number, -1);
}

bool oom_struck(void)
{
    return atomic_load(&struck);
}

static bool fails(void)
{
    long n;

    if (atomic_load(&number) < 0) {
        return false;
    }
    n = atomic_fetch_add(&number, 1);
    if (n < fail_nth || (n > fail_nth && !fail_forever)) {
        return false;
    }
    atomic_store(&struck, true);
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
int __real_posix_memalign(void **ret, size_t align, size_t size);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
int __wrap_posix_memalign(void **ret, size_t align, size_t size);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}
void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t size)
{
    return fails() ? NULL : __real_realloc(p, size);
}
void *__wrap_aligned_alloc(size_t align, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(align, size);
}
int __wrap_posix_memalign(void **ret, size_t align, size_t size)
{
    return fails() ? ENOMEM : __real_posix_memalign(ret, align, size);
}
char *__wrap_strdup(const char *s)
{
    return fails() ? NULL : __real_strdup(s);
}
