/* SPDX-License-Identifier: MIT */
/* The machine: its making and end, the agenda, and the table made of its parts. */
#include "os/sim/sim_machine_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SOCKET_BYTES_DEFAULT (64u << 10)

struct sim_machine *sim_machine_now;

struct sim_machine *sim_machine_new(struct sim_world *world, uint64_t seed,
                                    const struct sim_machine_options *opts)
{
    struct sim_machine *machine = calloc(1, sizeof(*machine));

    if (!machine) {
        return 0;
    }
    machine->world = world;
    machine->opts = opts ? *opts : (struct sim_machine_options){0};
    if (machine->opts.socket_bytes == 0) {
        machine->opts.socket_bytes = SOCKET_BYTES_DEFAULT;
    }
    sim_rng_init(&machine->rng, seed);
    LIST_INIT(&machine->addresses);
    TAILQ_INIT(&machine->agenda);
    return machine;
}

void sim_machine_free(struct sim_machine *machine)
{
    struct sim_address *address;
    struct sim_moment *moment;

    if (!machine) {
        return;
    }
    assert(sim_machine_open_fds(machine) == 0);
    while ((address = LIST_FIRST(&machine->addresses))) {
        sim_address_free(address);
    }
    while ((moment = TAILQ_FIRST(&machine->agenda))) {
        TAILQ_REMOVE(&machine->agenda, moment, link);
        free(moment);
    }
    free(machine->fds);
    if (sim_machine_now == machine) {
        sim_machine_now = 0;
    }
    free(machine);
}

void sim_machine_on_stall(struct sim_machine *machine, uint64_t turns_max, sim_stall_func *func,
                          void *opaque)
{
    machine->turns_max = turns_max;
    machine->stall = func;
    machine->stall_opaque = opaque;
}

uint64_t sim_machine_turns(const struct sim_machine *machine)
{
    return machine->turns;
}

unsigned sim_machine_open_fds(const struct sim_machine *machine)
{
    unsigned n = 0;

    for (size_t i = 0; i < machine->nfds; i++) {
        n += machine->fds[i] != 0;
    }
    return n;
}

/* ---- the agenda ---- */

void sim_moment_add(struct sim_machine *machine, int64_t ns, void (*fn)(void *opaque), void *opaque,
                    bool peer)
{
    struct sim_moment *moment = malloc(sizeof(*moment));
    struct sim_moment *before;

    assert(moment);
    *moment = (struct sim_moment){
        .due_ns = sim_world_now_ns(machine->world) + ns, .fn = fn, .opaque = opaque, .peer = peer};
    before = TAILQ_LAST(&machine->agenda, sim_moments);
    while (before && before->due_ns > moment->due_ns) {
        before = TAILQ_PREV(before, sim_moments, link);
    }
    if (before) {
        TAILQ_INSERT_AFTER(&machine->agenda, before, moment, link);
    } else {
        TAILQ_INSERT_HEAD(&machine->agenda, moment, link);
    }
}

void sim_machine_after(struct sim_machine *machine, int64_t ns, void (*fn)(void *opaque),
                       void *opaque)
{
    sim_moment_add(machine, ns, fn, opaque, true);
}

void sim_machine_peer_begin(struct sim_machine *machine)
{
    machine->peer++;
}

void sim_machine_peer_end(struct sim_machine *machine)
{
    assert(machine->peer > 0);
    machine->peer--;
}

int sim_machine_ask(enum sim_call call, struct sim_verdict *ret)
{
    struct sim_machine *machine = sim_machine_now;

    *ret = (struct sim_verdict){0};
    if (machine->peer == 0) {
        sim_faults_check(&machine->world->faults, call, 0, 0, ret);
    }
    return -ret->error;
}

/* ---- what there is no more of ---- */

static int no_thread(const char *name, void *(*run)(void *), void *arg, os_thread **ret_thread)
{
    return -EAGAIN;
}

static int no_dir(const char *path, bool (*each)(void *opaque, const char *name), void *opaque)
{
    return -ENOENT;
}

static int no_signalfd(const sigset_t *signals)
{
    return -ENOSYS;
}

static void no_yield(void)
{
}

/* The same on each machine that replays a seed. */
static unsigned sim_processors(void)
{
    return 2;
}

const struct os_table *sim_machine_table(struct sim_machine *machine)
{
    static struct os_table table;

    machine->base = *sim_os_table(machine->world);
    sim_machine_now = machine;
    table = machine->base;
    table.thread_create = no_thread;
    table.thread_yield = no_yield;
    table.processors = sim_processors;
    table.dir_each = no_dir;
    table.signalfd = no_signalfd;
    sim_machine_fd_members(&table);
    sim_machine_socket_members(&table);
    sim_machine_wait_members(&table);
    return &table;
}
