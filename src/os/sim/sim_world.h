/* SPDX-License-Identifier: MIT */
/*
 * Inside of the simulated world. Lock order: time_lock is never held together with lock.
 */
#ifndef PLATTER_OS_SIM_WORLD_H
#define PLATTER_OS_SIM_WORLD_H

#include <fcntl.h>
#include <sys/queue.h>

#include "os/sim/sim_os.h"

#define SIM_TIMERS_MAX 256
#define SIM_WAITERS_MAX 256

struct sim_ofd;

/* A byte-range lock; end is exclusive. */
struct sim_lock {
    struct sim_ofd *owner;
    short type; /* F_RDLCK or F_WRLCK */
    uint64_t start;
    uint64_t end;
    LIST_ENTRY(sim_lock) link;
};

struct sim_file {
    char *path;            /* owned; NULL once unlinked */
    struct sim_disk *disk; /* owned */
    struct sim_file_options opts;
    uint64_t ino;
    unsigned users; /* open file descriptions, plus one while it has a path */
    LIST_HEAD(, sim_lock) locks;
    LIST_ENTRY(sim_file) link;
};

/* Open file description: what dup shares. */
struct sim_ofd {
    struct sim_file *file; /* counted */
    int flags;
    unsigned fds;
};

struct sim_timer {
    int fd;            /* an eventfd that becomes readable when it is due; -1: free */
    int64_t expire_ns; /* 0: disarmed */
};

struct sim_world {
    struct sim_faults faults;
    struct os_table base; /* the real system under the same rules */

    struct os_mutex lock; /* guards the files, down to the blank line */
    struct sim_rng rng;
    LIST_HEAD(, sim_file) files;
    struct sim_ofd **fds; /* owned; by number minus SIM_FD_BASE */
    size_t nfds;
    uint64_t next_ino;
    sim_change_func *on_change;
    void *on_change_opaque;

    struct os_mutex time_lock; /* guards the rest */
    struct os_cond time_moved;
    int64_t now_ns;
    unsigned busy;
    int64_t waiters[SIM_WAITERS_MAX]; /* deadlines of those in epoll_wait and of slow calls; 0:
                                         free */
    bool sleeper[SIM_WAITERS_MAX];    /* of waiters: a slow call */
    unsigned nloops;                  /* threads in epoll_wait */
    sim_pending_func *pending;        /* sim_world_time_by_loop; NULL: off */
    sim_number_func *number;
    void *pending_opaque;
    struct sim_timer timers[SIM_TIMERS_MAX];
};

extern struct sim_world *sim_world_now; /* the one in force */

static inline bool sim_is_fd(int fd)
{
    return fd >= SIM_FD_BASE;
}
bool sim_is_path(const char *path);

/* With the lock held. */
struct sim_file *sim_file_find(struct sim_world *world, const char *path);
void sim_file_unref(struct sim_file *file);
struct sim_ofd *sim_fd_get(struct sim_world *world, int fd); /* NULL: not open */
int sim_fd_new(struct sim_world *world, struct sim_ofd *ofd);
void sim_locks_drop(struct sim_file *file, const struct sim_ofd *owner);
int sim_locks_set(struct sim_ofd *ofd, const struct flock *lock);
int sim_locks_get(struct sim_ofd *ofd, struct flock *lock);

/* A slow call: let virtual time pass. No lock held. */
void sim_time_sleep(struct sim_world *world, uint64_t ns);
void sim_time_init(struct sim_world *world);
void sim_time_fini(struct sim_world *world);

/* ---- one simulated call ---- */

struct sim_call_state {
    struct sim_world *world;
    struct sim_verdict verdict;
    struct sim_ofd *ofd;
};

static inline struct os_table *sim_base(void)
{
    return &sim_world_now->base;
}
/* The fault rules and the delay of one call; then the lock is held unless an error is returned. */
int sim_call_begin(struct sim_call_state *call, enum sim_call kind, uint64_t offset,
                   uint64_t bytes);
/* The same with an open descriptor. */
int sim_call_begin_fd(struct sim_call_state *call, enum sim_call kind, int fd, uint64_t offset,
                      uint64_t bytes);
void sim_call_end(struct sim_call_state *call);
/* Tell who watches that a disk changed. */
void sim_call_changed(struct sim_call_state *call, struct sim_file *file);
static inline bool sim_may_write(const struct sim_ofd *ofd)
{
    return (ofd->flags & O_ACCMODE) != O_RDONLY;
}

/* Put the members of one file into the table. */
void sim_os_name_members(struct os_table *table);
void sim_os_data_members(struct os_table *table);
void sim_os_fact_members(struct os_table *table);
void sim_os_time_members(struct os_table *table);

#endif
