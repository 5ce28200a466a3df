/* SPDX-License-Identifier: MIT */
/*
 * A whole machine in one thread: besides the files and the clock of a world (sim_os.h) also sockets
 * at unix addresses, eventfds, timers, epoll and work that may block. Nothing of the real system is
 * reached but memory: paths outside of the world do not exist, threads cannot be made. What happens
 * when follows from the seed alone.
 *
 * Things happen at moments of the agenda: work of the program, and the steps of peers, which are
 * the test's. epoll_wait carries them out, and lets time go on to the next moment when nothing is
 * ready. Each call of it takes a little time of its own, so a loop that never sleeps sees the clock
 * move.
 */
#ifndef PLATTER_OS_SIM_MACHINE_H
#define PLATTER_OS_SIM_MACHINE_H

#include "os/sim/sim_os.h"

/* Its descriptors begin here; those of simulated files are below. */
#define SIM_MACHINE_FD_BASE (1 << 25)

struct sim_machine;

struct sim_machine_options {
    unsigned short_percent; /* of transfers over sockets: only a part is moved */
    uint32_t socket_bytes;  /* that a direction of a stream holds; 0: 64 KiB */
    int64_t work_min_ns;    /* work that may block takes this long, */
    int64_t work_spread_ns; /* and up to so much longer */
};

/* Called when nothing can ever happen again (turns false) or after turns_max turns (turns true).
 * It must not return. */
typedef void sim_stall_func(void *opaque, bool turns);

/* The machine around world, which is borrowed; opts may be NULL. NULL out of memory. */
struct sim_machine *sim_machine_new(struct sim_world *world, uint64_t seed,
                                    const struct sim_machine_options *opts);
/* All its descriptors must be closed, and another table in force. Before the world. NULL allowed.
 */
void sim_machine_free(struct sim_machine *machine);
/* The table to give to os_replace. */
const struct os_table *sim_machine_table(struct sim_machine *machine);
void sim_machine_on_stall(struct sim_machine *machine, uint64_t turns_max, sim_stall_func *func,
                          void *opaque);

/* ---- the test's side ---- */

/* fn(opaque) in so many nanoseconds. It may use the table as a peer (no fault rule strikes it), but
 * not the program's loop. Asserts that there is
 * memory: the test's own. */
void sim_machine_after(struct sim_machine *machine, int64_t ns, void (*fn)(void *opaque),
                       void *opaque);
/* Calls of the test's own outside of such a step. */
void sim_machine_peer_begin(struct sim_machine *machine);
void sim_machine_peer_end(struct sim_machine *machine);
/* Two connected streams, non-blocking. 0 or -errno. */
int sim_machine_pair(struct sim_machine *machine, int ret_fds[2]);
/* Open descriptors of the machine; those of files are counted by sim_world_open_fds. */
unsigned sim_machine_open_fds(const struct sim_machine *machine);
uint64_t sim_machine_turns(const struct sim_machine *machine);

#endif
