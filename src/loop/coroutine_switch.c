/* SPDX-License-Identifier: MIT */
/*
 * Stack switches: assembler for x86-64 and AArch64, ucontext elsewhere (and with
 * PLATTER_CO_UCONTEXT, which the tests use to cover it).
 *
 * Only what the ABI calls callee-saved is kept, besides the floating-point control words, which
 * nobody here changes. The assembler carries no CET property note, so a program with these stacks
 * is not marked as shadow-stack capable.
 */
#include "loop/coroutine_switch.h"

#include <stdint.h>

#if defined(__x86_64__) && !defined(__ILP32__) && !defined(PLATTER_CO_UCONTEXT)

/* rdi stays untouched, so a fresh stack finds arg as its entry's parameter. */
__asm__(".text\n"
        ".p2align 4\n"
        ".globl co_switch\n"
        ".hidden co_switch\n"
        ".type co_switch, @function\n"
        "co_switch:\n"
        "    .cfi_startproc\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rsi)\n"
        "    movq %rdx, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    movq %rdi, %rax\n"
        "    popq %rcx\n"
        "    jmp *%rcx\n"
        "    .cfi_endproc\n"
        ".size co_switch, .-co_switch\n");

void *co_switch_prepare(void *bottom, size_t bytes, void (*entry)(void *arg))
{
    uintptr_t top = ((uintptr_t)bottom + bytes) & ~(uintptr_t)63;
    void **sp = (void **)top;

    /* As a called function finds it: a return address (null, because nobody called) that ends at a
     * multiple of 16. */
    *--sp = 0;
    *--sp = (void *)(uintptr_t)entry;
    for (int i = 0; i < 6; i++) {
        *--sp = 0;
    }
    return sp;
}

#elif defined(__aarch64__) && !defined(PLATTER_CO_UCONTEXT)

/*
 * 20 instructions: st1 and ld1 move four of the registers whose low 64 bits are to be kept. Both
 * use the address they move along (x9, to_sp), so what stands for a suspended stack is its sp + 16:
 *   sp + 0  x29 x30   + 16  d8-d15   + 80  x19-x28
 * The other stack is read before sp goes there; below sp nothing is ever written, for signals.
 */
#define FRAME_BYTES 160
#define FRAME_TOKEN 16 /* from sp */

__asm__(".text\n"
        ".p2align 4\n"
        ".globl co_switch\n"
        ".hidden co_switch\n"
        ".type co_switch, %function\n"
        "co_switch:\n"
        "    stp x29, x30, [sp, #-160]!\n"
        "    add x9, sp, #16\n"
        "    str x9, [x1]\n"
        "    st1 {v8.1d, v9.1d, v10.1d, v11.1d}, [x9], #32\n"
        "    st1 {v12.1d, v13.1d, v14.1d, v15.1d}, [x9]\n"
        "    stp x19, x20, [sp, #80]\n"
        "    stp x21, x22, [sp, #96]\n"
        "    stp x23, x24, [sp, #112]\n"
        "    stp x25, x26, [sp, #128]\n"
        "    stp x27, x28, [sp, #144]\n"
        "    ld1 {v8.1d, v9.1d, v10.1d, v11.1d}, [x2], #32\n"
        "    ld1 {v12.1d, v13.1d, v14.1d, v15.1d}, [x2]\n"
        "    ldp x19, x20, [x2, #32]\n"
        "    ldp x21, x22, [x2, #48]\n"
        "    ldp x23, x24, [x2, #64]\n"
        "    ldp x25, x26, [x2, #80]\n"
        "    ldp x27, x28, [x2, #96]\n"
        "    sub sp, x2, #48\n"
        "    ldp x29, x30, [sp], #160\n"
        "    ret\n"
        ".size co_switch, .-co_switch\n");

void *co_switch_prepare(void *bottom, size_t bytes, void (*entry)(void *arg))
{
    uintptr_t top = ((uintptr_t)bottom + bytes) & ~(uintptr_t)63;
    uint64_t *sp = (uint64_t *)(top - FRAME_BYTES);

    for (int i = 0; i < FRAME_BYTES / 8; i++) {
        sp[i] = 0;
    }
    sp[1] = (uint64_t)(uintptr_t)entry; /* x30 */
    return (char *)sp + FRAME_TOKEN;
}

#else

#include <ucontext.h>

/* What the two sides of a switch hand over; makecontext has only int parameters. */
static __thread void *handed_over;

/* The slot of a fresh stack: at its bottom, which the stack itself does not reach. */
struct fresh {
    ucontext_t uc;
    void (*entry)(void *arg);
};

static __thread struct fresh *starting;

static __attribute__((noinline)) void *take_handed_over(void)
{
    return handed_over;
}

static void start(void)
{
    starting->entry(take_handed_over());
}

void *co_switch(void *arg, void **save_sp, void *to_sp)
{
    ucontext_t here;

    *save_sp = &here;
    handed_over = arg;
    starting = to_sp; /* read only by a fresh stack */
    swapcontext(&here, to_sp);
    return take_handed_over();
}

void *co_switch_prepare(void *bottom, size_t bytes, void (*entry)(void *arg))
{
    struct fresh *fresh = bottom;
    size_t room = (sizeof(*fresh) + 63) & ~(size_t)63;

    getcontext(&fresh->uc);
    fresh->uc.uc_stack.ss_sp = (char *)bottom + room;
    fresh->uc.uc_stack.ss_size = bytes - room;
    fresh->uc.uc_link = 0;
    fresh->entry = entry;
    makecontext(&fresh->uc, start, 0);
    return fresh;
}

#endif
