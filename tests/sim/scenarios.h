/* SPDX-License-Identifier: MIT */
/* What the fault gates (errno, memory) do to a Platter, over and over. */
#ifndef TESTS_SIM_SCENARIOS_H
#define TESTS_SIM_SCENARIOS_H

#include "sim_harness.h"

#define SCENARIO_DISK_BYTES 65536u

struct scenario_run {
    struct harness h;
    bool strict;       /* nothing is made to fail: nothing may fail */
    bool eio_ok;       /* a node may be broken by what was made to fail */
    int injected;      /* positive errno that calls are made to fail with; 0: none */
    unsigned failures; /* operations that failed */
    char wrong[160];   /* the first thing that was not as it must be; empty: none */
};

struct scenario {
    const char *name;
    const char *options; /* of the disk; NULL: steps open it */
    int flags;           /* BDRV_O_* besides RDWR */
    struct sim_file_options file;
    bool write_through;
    bool no_flush;
    uint64_t disk_bytes; /* 0: SCENARIO_DISK_BYTES */
    uint64_t calls;      /* SIM_CALLS that are made to fail; 0: those of files */
    void (*prepare)(struct scenario_run *r, const struct scenario *s); /* before anything is made to
                                                                          fail; may be NULL */
    void (*steps)(struct scenario_run *r);
    void (*finish)(struct scenario_run *r); /* ends what prepare began; may be NULL */
    const char *create;                     /* for prepare: options of the image */
    uint64_t largest_bytes;                 /* of the disk that the shadow follows; 0: disk_bytes */
};

struct scenario_list {
    const char *name;
    const struct scenario *scenarios;
    size_t count;
};
extern const struct scenario_list scenarios_plain; /* raw and protocols, NBD */
extern const struct scenario_list scenarios_qcow2;
/* The list of that name; NULL gives the first. NULL when the build lacks its driver. Aborts when
 * there is no such list. */
const struct scenario_list *scenario_list_find(const char *name);
/* fn for all of them; only for PLATTER_SCENARIO when that is set. */
void scenario_list_run(const struct scenario_list *list, void (*fn)(const struct scenario *s));

/* World, Platter, disk, steps. All stays open. */
void scenario_begin(const struct scenario *s, struct scenario_run *r, uint64_t seed);
void scenario_steps(const struct scenario *s, struct scenario_run *r);
/* Close all, judge once more what is left where a judge is there, end. Descriptors left open. */
unsigned scenario_end(const struct scenario *s, struct scenario_run *r);
/* Judge a result: notes what is wrong. Returns rc. */
int scenario_result(struct scenario_run *r, const char *what, int rc);
#define OP(r, call) scenario_result(r, #call, call)
void scenario_wrong(struct scenario_run *r, const char *text);
/* An Error and a result that do not agree are wrong. Frees the Error; returns rc. */
int scenario_error(struct scenario_run *r, int rc, Error **err);
/* Run fn(r) in a coroutine of the control thread. What it returned, or -ENOMEM. */
int scenario_in_co(struct scenario_run *r, int (*fn)(struct scenario_run *r));

/* scenarios_burst.c */
void scenario_burst(struct scenario_run *r);
void scenario_burst_then_drain(struct scenario_run *r);

/* scenario_nbd.c */
void scenario_nbd(struct scenario_run *r);

#endif
