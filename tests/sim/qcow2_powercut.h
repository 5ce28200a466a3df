/* SPDX-License-Identifier: MIT */
/*
 * The parts of test_qcow2_powercut.c, which says what they prove: the table of workloads, the
 * requests, the operations on the image, the cutter, the samples. They share the state of one run.
 */
#ifndef TESTS_SIM_QCOW2_POWERCUT_H
#define TESTS_SIM_QCOW2_POWERCUT_H

#include "qcow2_expect.h"

#define PC_IN_FLIGHT 6
#define PC_SAMPLES 4096

/* Operations on the whole image, as bits. */
enum whole {
    WHOLE_SNAPSHOTS = 1 << 0,
    WHOLE_RESIZE = 1 << 1,
    WHOLE_AMEND = 1 << 2,
    WHOLE_BITMAP = 1 << 3,
    WHOLE_VMSTATE = 1 << 4,
    WHOLE_REOPEN = 1 << 5,
    WHOLE_CHECK = 1 << 6,
    WHOLE_COMPACT = 1 << 7,
};

struct powercut_config {
    const char *name;
    const char *create; /* options besides driver and size */
    const char *open;   /* options besides driver and file */
    uint64_t disk_bytes;
    uint64_t largest_bytes; /* with resize; 0: disk_bytes */
    uint64_t backing_bytes; /* 0: no backing file */
    unsigned cluster_bytes;
    unsigned grain; /* requests are multiples of it; 0: 512 */
    unsigned whole; /* enum whole */
    unsigned compressed_percent;
    unsigned steps_percent; /* of STEPS; 0: all */
    bool data_file;
    bool write_through;
    bool one_worker; /* a thread makes all calls, in turn */
    bool alone;      /* one request at a time: fewer changes pending, so more subsets */
};

enum kind { READ, WRITE, ZERO, DISCARD, COMPRESS, FLUSH };

struct request {
    struct powercut *test;
    enum kind kind;
    bool active;
    bool fua;
    unsigned version;
    uint64_t offset;
    uint64_t bytes;
    struct iovec iov;
    struct iov_view view;
    uint8_t *buf;
};

/* A state that somebody else shall look at. */
struct sample {
    uint8_t *file, *data, *disk; /* owned */
    uint64_t file_bytes, data_bytes, disk_bytes;
    uint64_t leaks;
    bool dirty, mismatched, has_data;
};

struct powercut {
    struct harness h;
    struct qcow2_expect e;
    const struct powercut_config *config;
    struct sim_rng rng;     /* of the workload */
    struct sim_rng cut_rng; /* of the cuts, used under the world's lock */
    struct request requests[PC_IN_FLIGHT];
    uint64_t busy; /* bit per part of the disk that a request in flight touches */
    bool flushing;
    unsigned snapshot_number;
    unsigned vm_version;
    uint64_t vm_bytes;
    size_t pending_before[2]; /* of file and data file, at the last boundary */
    unsigned long boundaries;
    unsigned operations;
    struct sample *samples;
    size_t nsamples;
    unsigned long opened, shown; /* samples: by the driver, to qemu-img */
    char wrong[500];
};

/* Ends with one without a name. */
extern const struct powercut_config pc_configs[];

/* ---- the test itself ---- */

/* PLATTER_TRACE=1: what goes on, for whoever looks into a failure. */
void pc_trace(const struct powercut *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Only the first thing that is wrong is kept. */
void pc_wrong(struct powercut *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* An operation has ended; it takes err over. */
void pc_told(struct powercut *t, const char *what, int ret, Error *err);

/* ---- qcow2_powercut_cut.c ---- */

/* For sim_world_on_change: every change of a disk, under the world's lock, in whatever thread made
 * it. */
void pc_boundary(void *opaque, const char *path, const struct sim_disk *disk);

/* ---- qcow2_powercut_request.c ---- */

/* Send a random request; false when what was picked touches one that is in flight. */
bool pc_start(struct powercut *t, struct request *r);
unsigned pc_in_flight(const struct powercut *t);
/* What can happen without time passing has happened. */
void pc_settle(struct powercut *t);
/* Time passes until something has come. */
void pc_pass_time(struct powercut *t);
void pc_drain(struct powercut *t);

/* ---- qcow2_powercut_image.c ---- */

void pc_create_disk(struct powercut *t);
/* Of t's world, or of another one. 0 or -errno. */
int pc_open_disk(struct powercut *t, struct harness *h);
void pc_close_disk(struct powercut *t);
/* Each call takes its own time, in simulated nanoseconds. */
void pc_calls_take_time(struct powercut *t, bool on);
/* A random operation of those that the workload has. */
void pc_whole_op(struct powercut *t);
/* For bdrv_check_options: into the trace. */
void pc_found_by_check(void *opaque, const char *text);

/* ---- qcow2_powercut_samples.c ---- */

/* The folder in which qemu-img sees them; 0 or -1. */
int pc_samples_begin(void);
int pc_samples_end(void);
/* Look at what was kept, and free it. */
void pc_look_at_samples(struct powercut *t);

#endif
