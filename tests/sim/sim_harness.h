/* SPDX-License-Identifier: MIT */
/*
 * A Platter on a simulated world, and the calls the gates make on it. One at a time in a process.
 */
#ifndef TESTS_SIM_HARNESS_H
#define TESTS_SIM_HARNESS_H

#include <stdarg.h>

#include <platter/backend.h>
#include <platter/platter.h>

#include "os/sim/sim_os.h"
#include "shadow.h"

#define SIM_DISK_PATH "/sim/disk"
#define SIM_COPY_PATH "/sim/copy"

struct harness {
    struct sim_world *world;
    Platter *pl;       /* NULL when it could not be made */
    BlockBackend *blk; /* the disk, NULL when not open */
    struct shadow shadow;
    bool no_flush; /* flushes promise nothing */
    bool wrote_through;
    char error[200];  /* why the last open failed */
    unsigned workers; /* threads of the main context; 0: as many as it likes */
    /* Judges what a disk holds, where its bytes are not those of the backend; NULL: they are.
     * after_cut: also what was written and not flushed may be missing. NULL or what is wrong. */
    const char *(*judge)(struct harness *h, const struct sim_disk *disk, bool after_cut);
};

/* PLATTER_SEED, or the one given; printed. */
uint64_t harness_seed(uint64_t otherwise);

/* A world with a disk of that size under SIM_DISK_PATH, its table in force. Aborts the test when
 * the test's own memory fails. */
void harness_begin(struct harness *h, uint64_t seed, uint64_t disk_bytes,
                   const struct sim_file_options *opts);
/* The same with a disk that has content; it passes in. shadow_bytes: of the largest disk. */
void harness_begin_with(struct harness *h, uint64_t seed, uint64_t shadow_bytes,
                        struct sim_disk *disk, const struct sim_file_options *opts);
/* Close all, restore the table. Returns simulated descriptors that were left open. */
unsigned harness_end(struct harness *h);

/* The Platter; 0 or -errno. */
int harness_platter(struct harness *h);
/* Close the backend and the Platter, keep the world. */
void harness_close(struct harness *h);
/* Open the disk by options ("driver=raw,file.driver=file,..."); the Platter is made when missing.
 */
int harness_open(struct harness *h, const char *options, int flags);

/* Calls on h->blk that keep the shadow. They return what the call returned; reads also check what
 * they got. */
int h_read(struct harness *h, uint64_t offset, size_t bytes);
int h_write(struct harness *h, uint64_t offset, size_t bytes, int flags);
int h_zero(struct harness *h, uint64_t offset, uint64_t bytes, int flags);
int h_discard(struct harness *h, uint64_t offset, uint64_t bytes);
int h_flush(struct harness *h);
int h_resize(struct harness *h, uint64_t size_bytes, enum bdrv_prealloc prealloc);

/* Compare the disk with the shadow: as it is, and `cuts` times after a power cut of a copy.
 * Returns NULL or what is wrong (static text). */
const char *harness_verify(struct harness *h, unsigned cuts, struct sim_rng *rng);
const char *harness_verify_disk(struct harness *h, const struct sim_disk *disk, bool after_cut);

/* While above zero in this thread, allocations are the test's own: no injected failure may hit
 * them. */
extern _Thread_local unsigned harness_own;

/* Whether the build has that driver. */
bool harness_has_driver(const char *name);

/* Descriptors this process has open. */
unsigned harness_process_fds(void);

#endif
