/* SPDX-License-Identifier: MIT */
/* Inside of the simulated machine. One thread: nothing is locked. */
#ifndef PLATTER_OS_SIM_MACHINE_INT_H
#define PLATTER_OS_SIM_MACHINE_INT_H

#include <sys/queue.h>

#include "os/sim/sim_machine.h"
#include "os/sim/sim_world.h"

enum sim_thing_kind { SIM_THING_SOCKET, SIM_THING_EVENT, SIM_THING_TIMER, SIM_THING_EPOLL };

/* Where a unix socket was bound. It stays when the socket goes, until it is unlinked. */
struct sim_address {
    char *path; /* owned */
    uint64_t ino;
    struct sim_thing *socket; /* NULL: nobody serves it */
    LIST_ENTRY(sim_address) link;
};

struct sim_socket {
    struct sim_thing *peer; /* NULL: never connected, or gone */
    struct sim_address *address;
    bool connected;
    bool listens;
    bool ended;     /* nothing more will come */
    bool mute;      /* we said that nothing more will go out */
    bool reset;     /* the peer went without reading all: told once */
    uint8_t *bytes; /* owned; what came and was not read yet: a ring of room bytes */
    size_t room, at, used;
    unsigned backlog, waiting;
    TAILQ_HEAD(, sim_thing) queue; /* that nobody has accepted yet */
};

struct sim_watch {
    struct sim_thing *thing; /* borrowed: a watch goes with it */
    int fd;
    struct epoll_event event;
    bool off; /* one-shot, and it was told */
    TAILQ_ENTRY(sim_watch) link;
};

/* What a descriptor of the machine stands for. */
struct sim_thing {
    enum sim_thing_kind kind;
    unsigned fds; /* descriptors, and one while it waits to be accepted */
    int flags;    /* O_NONBLOCK */
    union {
        struct sim_socket socket;
        uint64_t count;    /* EVENT */
        int64_t expire_ns; /* TIMER; 0: disarmed */
        TAILQ_HEAD(, sim_watch) watches;
    };
    TAILQ_ENTRY(sim_thing) in_queue;
};

struct sim_moment {
    int64_t due_ns;
    void (*fn)(void *opaque);
    void *opaque;
    bool peer;
    TAILQ_ENTRY(sim_moment) link;
};

struct sim_machine {
    struct sim_world *world;
    struct sim_machine_options opts;
    struct os_table base; /* the world's */
    struct sim_rng rng;
    struct sim_thing **fds; /* owned; by number minus SIM_MACHINE_FD_BASE */
    size_t nfds;
    LIST_HEAD(, sim_address) addresses;
    TAILQ_HEAD(sim_moments, sim_moment) agenda; /* earliest first, equal ones in order of asking */
    unsigned peer;                              /* above zero: a call is the test's own */
    uint64_t turns;
    uint64_t turns_max; /* 0: no limit */
    sim_stall_func *stall;
    void *stall_opaque;
};

extern struct sim_machine *sim_machine_now; /* the one in force */

static inline bool sim_is_machine_fd(int fd)
{
    return fd >= SIM_MACHINE_FD_BASE;
}
struct sim_thing *sim_thing_new(enum sim_thing_kind kind); /* NULL: no memory */
/* The thing behind fd: NULL when it is none of ours, or closed. */
struct sim_thing *sim_thing_of(int fd);
/* The same if it is of that kind. */
struct sim_thing *sim_thing_of_kind(int fd, enum sim_thing_kind kind);
/* A descriptor for thing, or -errno; the thing is freed then if it has no other. */
int sim_thing_fd(struct sim_thing *thing);
void sim_thing_unref(struct sim_thing *thing);
/* EPOLL* that hold now. */
uint32_t sim_thing_ready(const struct sim_thing *thing);
uint32_t sim_socket_ready(const struct sim_socket *s);
void sim_socket_init(struct sim_thing *thing);
void sim_socket_fini(struct sim_thing *thing);
struct sim_address *sim_address_find(struct sim_machine *machine, const char *path);
void sim_address_free(struct sim_address *address);

/* What the fault rules say of a call of the program; never for the test's own. 0 or -errno. */
int sim_machine_ask(enum sim_call call, struct sim_verdict *ret);

void sim_moment_add(struct sim_machine *machine, int64_t ns, void (*fn)(void *opaque), void *opaque,
                    bool peer); /* asserts that there is memory */

/* Put the members of one file into the table. */
void sim_machine_fd_members(struct os_table *table);
void sim_machine_socket_members(struct os_table *table);
void sim_machine_wait_members(struct os_table *table);

#endif
