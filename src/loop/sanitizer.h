/* SPDX-License-Identifier: MIT */
/*
 * What AddressSanitizer, ThreadSanitizer and valgrind must be told about stacks that are switched.
 * Nothing in an ordinary build but valgrind's registration, once a stack.
 */
#ifndef PLATTER_LOOP_SANITIZER_H
#define PLATTER_LOOP_SANITIZER_H

#include "loop/internal.h"

#if defined(__SANITIZE_ADDRESS__)
#define SAN_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SAN_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define SAN_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SAN_TSAN 1
#endif
#endif
#ifndef SAN_ASAN
#define SAN_ASAN 0
#endif
#ifndef SAN_TSAN
#define SAN_TSAN 0
#endif

#if SAN_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if SAN_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef PLATTER_HAVE_VALGRIND
#include <valgrind/memcheck.h>
#include <valgrind/valgrind.h>
#endif

static inline void san_stack_made(Coroutine *co)
{
#ifdef PLATTER_HAVE_VALGRIND
    co->valgrind_id =
        VALGRIND_STACK_REGISTER(co->stack_bottom, (char *)co->stack_bottom + co->stack_bytes);
#endif
#if SAN_TSAN
    co->tsan_fiber = __tsan_create_fiber(0);
#endif
}

static inline void san_stack_gone(Coroutine *co)
{
#ifdef PLATTER_HAVE_VALGRIND
    VALGRIND_STACK_DEREGISTER(co->valgrind_id);
#endif
#if SAN_TSAN
    __tsan_destroy_fiber(co->tsan_fiber);
#endif
#if SAN_ASAN
    __asan_unpoison_memory_region(co->stack_bottom, co->stack_bytes);
#endif
}

/* Enterer, before and after the switch into co. The fake stack of the enterer is kept in the
 * coroutine's struct because enter has exactly one co. */
static inline void san_enter(Coroutine *co)
{
#if SAN_ASAN
    __sanitizer_start_switch_fiber(&co->asan_caller_fake, co->stack_bottom, co->stack_bytes);
#endif
#if SAN_TSAN
    co->tsan_caller = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(co->tsan_fiber, 0);
#endif
    (void)co;
}

static inline void san_entered(Coroutine *co)
{
#if SAN_ASAN
    __sanitizer_finish_switch_fiber(co->asan_caller_fake, 0, 0);
#endif
    (void)co;
}

/* The coroutine, before it leaves and after it came back (or began). */
static inline void san_leave(Coroutine *co)
{
#if SAN_ASAN
    __sanitizer_start_switch_fiber(&co->asan_fake, co->asan_caller_bottom, co->asan_caller_bytes);
#endif
#if SAN_TSAN
    __tsan_switch_to_fiber(co->tsan_caller, 0);
#endif
    (void)co;
}

static inline void san_arrive(Coroutine *co)
{
#if SAN_ASAN
    __sanitizer_finish_switch_fiber(co->asan_fake, &co->asan_caller_bottom, &co->asan_caller_bytes);
#endif
    (void)co;
}

/* Valgrind runs one thread at a time and (as of 3.19) does not know that io_uring_enter waits: no
 * other thread would run meanwhile. */
static inline bool san_on_valgrind(void)
{
#ifdef PLATTER_HAVE_VALGRIND
    return RUNNING_ON_VALGRIND != 0;
#else
    return false;
#endif
}

/* Whether memcheck must be told what the kernel writes. */
static inline bool san_on_memcheck(void)
{
#ifdef PLATTER_HAVE_VALGRIND
    char byte = 0;
    char bits;

    return VALGRIND_GET_VBITS(&byte, &bits, 1) == 1;
#else
    return false;
#endif
}

static inline void san_kernel_wrote(const void *p, size_t bytes)
{
#ifdef PLATTER_HAVE_VALGRIND
    (void)VALGRIND_MAKE_MEM_DEFINED(p, bytes);
#endif
    (void)p;
    (void)bytes;
}

#endif
