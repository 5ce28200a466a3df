/* SPDX-License-Identifier: MIT */
/* The machine-dependent part of coroutines: a stack to start on and a switch between two stacks. */
#ifndef PLATTER_LOOP_COROUTINE_SWITCH_H
#define PLATTER_LOOP_COROUTINE_SWITCH_H

#include <stddef.h>

/* Leave the running stack and go on where to_sp was left. *save_sp is set to what leads back here.
 * Returns the arg of whoever comes back. A fresh stack starts in the function it was prepared for,
 * with arg as its parameter. */
void *co_switch(void *arg, void **save_sp, void *to_sp);

/* Prepare the stack [bottom, bottom + bytes) so that the first switch to it calls entry, which
 * must not return. Returns the to_sp of that switch. */
void *co_switch_prepare(void *bottom, size_t bytes, void (*entry)(void *arg));

#endif
