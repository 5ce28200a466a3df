/* SPDX-License-Identifier: MIT */
/*
 * A world for tests: files on simulated disks, a clock that stands still until everybody waits, and
 * faults by rule. Paths that begin with "/sim/" or "sim:" and descriptors of such files are
 * simulated; all others reach the real system (through the same fault rules). Thread safe unless
 * said otherwise. One world is in force at a time.
 */
#ifndef PLATTER_OS_SIM_OS_H
#define PLATTER_OS_SIM_OS_H

#include "os/os.h"
#include "os/sim/sim_disk.h"
#include "os/sim/sim_fault.h"

/* Descriptors of simulated files begin here; the kernel gives none so high. */
#define SIM_FD_BASE (1 << 24)

struct sim_world;

/* How a simulated file looks. All zero is a usual file that takes any alignment. */
struct sim_file_options {
    uint32_t dio_mem_align; /* with O_DIRECT; 0: not told by statx and not checked */
    uint32_t dio_offset_align;
    uint64_t capacity_bytes; /* of data; -ENOSPC above; 0: no limit */
    bool block_device;
    bool read_only; /* opening for writing is -EACCES */
};

/* The same seed gives the same random choices. NULL out of memory. */
struct sim_world *sim_world_new(uint64_t seed);
/* All descriptors must be closed by now, and another table in force. NULL allowed. */
void sim_world_free(struct sim_world *world);
/* The table to give to os_replace. The world is the one in force from now on. */
const struct os_table *sim_os_table(struct sim_world *world);
struct sim_faults *sim_world_faults(struct sim_world *world);

/* Make a file; opts may be NULL. 0, -EEXIST or -ENOMEM. */
int sim_world_add_file(struct sim_world *world, const char *path, uint64_t size_bytes,
                       const struct sim_file_options *opts);
/* The same with content: disk passes in, also on failure. */
int sim_world_add_disk(struct sim_world *world, const char *path, struct sim_disk *disk,
                       const struct sim_file_options *opts);
/* A copy of the disk under path, pending changes included; NULL: no such file or no memory. */
struct sim_disk *sim_world_clone_disk(struct sim_world *world, const char *path);
/* Cut the power of all disks, by the world's seed. Descriptors stay open. 0 or -ENOMEM. */
int sim_world_power_cut(struct sim_world *world);
/* Call func after each change of any disk (write, zero, truncate, flush), under the world's lock:
 * it may look at the disk and clone it, nothing else. NULL stops. */
typedef void sim_change_func(void *opaque, const char *path, const struct sim_disk *disk);
void sim_world_on_change(struct sim_world *world, sim_change_func *func, void *opaque);
/* Another disk of the same moment; only inside such a call. NULL: no such file. */
const struct sim_disk *sim_world_peek(struct sim_world *world, const char *path);
/* Simulated descriptors now open: for leak checks. */
unsigned sim_world_open_fds(struct sim_world *world);

/* ---- time ---- */

/* While the count is above zero time does not move by itself. Simulated calls do this; a test that
 * keeps other threads busy does it too. */
void sim_world_busy_begin(struct sim_world *world);
void sim_world_busy_end(struct sim_world *world);
/* With slow calls (sim_fault.h): time passes only when a loop has nothing to do and every piece of
 * work under way elsewhere, of which pending tells the number, is in a slow call. So delays alone
 * decide what comes when, and a seed replays it. For one loop. number tells calls that are the same
 * and begin at the same time apart: that of the work in this thread, as the loop gave it out. NULL:
 * off, before the loop ends. */
typedef unsigned sim_pending_func(void *opaque);
typedef uint64_t sim_number_func(void);
void sim_world_time_by_loop(struct sim_world *world, sim_pending_func *pending,
                            sim_number_func *number, void *opaque);
/* With it: whether everything under way is in a slow call. */
bool sim_world_settled(struct sim_world *world);
int64_t sim_world_now_ns(struct sim_world *world);
void sim_world_advance_ns(struct sim_world *world, int64_t ns); /* timers fire */

#endif
