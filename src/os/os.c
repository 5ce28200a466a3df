/* SPDX-License-Identifier: MIT */
/*
 * Owns the table in force and the process-wide numbers. The table pointer is plain: it changes
 * only before any other thread of ours runs.
 */
#include "os/os.h"

#include <assert.h>
#include <stdatomic.h>

#include "os/thread.h"

const struct os_table *os = &os_linux;

static pthread_mutex_t slot_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned slot_users[OS_SLOTS]; /* slot_lock */

void os_replace(const struct os_table *table)
{
    os = table ? table : &os_linux;
}

unsigned os_slot_get(void)
{
    unsigned slot = 0;

    pthread_mutex_lock(&slot_lock);
    while (slot < OS_SLOT_SHARED && slot_users[slot] > 0) {
        slot++;
    }
    slot_users[slot]++;
    pthread_mutex_unlock(&slot_lock);
    return slot;
}

void os_slot_put(unsigned slot)
{
    assert(slot < OS_SLOTS);

    pthread_mutex_lock(&slot_lock);
    assert(slot_users[slot] > 0);
    slot_users[slot]--;
    pthread_mutex_unlock(&slot_lock);
}

uint64_t os_unique_number(void)
{
    static _Atomic uint64_t last;

    return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}
