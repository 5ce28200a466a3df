/* SPDX-License-Identifier: MIT */
/* What the tests of the job "convert" share: two disks in a simulated world. */
#ifndef TESTS_UNIT_JOB_CONVERT_FIXTURE_H
#define TESTS_UNIT_JOB_CONVERT_FIXTURE_H

#include "../cmocka_all.h"

#include <platter/convert.h>

#include "kind.h"
#include "loop/context.h"
#include "os/sim/sim_os.h"
#include "util/error.h"
#include "util/iov.h"

#define MIB (UINT64_C(1) << 20)
#define DISK_BYTES (8 * MIB)

struct convert_env {
    struct sim_world *world;
    AioContext *ctx;
    Platter *pl;
    BlockBackend *source;
    BlockBackend *target;
    struct convert_source from;
    struct convert_options o;
    unsigned lost;
    uint64_t lost_at;
    unsigned checkpoints;
    uint64_t checkpoint; /* offset of the last */
    bool wrong;          /* what a callback saw: an assertion cannot leave its coroutine */
    uint64_t fail_after; /* the checkpoint above it fails; 0: none does */
};

/* A source with data at 1 MiB (2 MiB of it, 0x11) and 6 MiB (64 KiB, 0x22), and an empty target. */
int convert_setup(void **state);
/* The same in an instance of whole sectors. */
int convert_setup_sectors(void **state);
int convert_teardown(void **state);
BlockBackend *convert_disk(struct convert_env *env, const char *name, uint64_t bytes,
                           bool writable);
bool convert_holds(BlockBackend *blk, uint64_t offset, uint64_t bytes, int byte);
/* Whether the target holds what the source held at first. */
bool convert_is_copy(struct convert_env *env);

Job *convert_begin(struct convert_env *env);
struct job_info convert_info(const Job *job);
/* Run to the end, which must be ret; with the text of the error when it is not 0. */
void convert_finish(struct convert_env *env, Job *job, int ret, const char *text);
/* It does not start, with that error. */
void convert_refused(struct convert_env *env, const char *text);

#endif
