/* SPDX-License-Identifier: MIT */
/* What the fault gates do with jobs: one of each kind on the disk of the run. */
#include <errno.h>
#include <string.h>

#include <platter/jobs.h>
#include <platter/options.h>

#include "scenario_qcow2.h"

#define KIB 1024u

static const struct job_start as_job = {.id = "job", .flags = JOB_MANUAL_DISMISS};

/* What became of a job, or of its start. Nothing of it is left. */
static int ended(struct scenario_run *r, Job *job, Error *err)
{
    int rc = job ? job_wait(job, &err) : -error_get_errno(err);

    if (job && job_dismiss(job, 0) < 0) {
        scenario_wrong(r, "a job did not let itself be dismissed");
    }
    if (job_next(r->h.pl, 0)) {
        scenario_wrong(r, "a job is left");
    }
    for (unsigned op = 0; op < BLOCK_OP_TYPE_MAX; op++) {
        if (r->h.blk && blk_op_is_blocked(r->h.blk, (BlockOpType)op, 0)) {
            scenario_wrong(r, "an operation is still blocked");
        }
    }
    return scenario_error(r, rc, &err);
}

static int amend(struct scenario_run *r, const char *text)
{
    BlockOptions *options = block_options_parse(text, 0, 0);
    Error *err = 0;
    Job *job;
    int rc;

    if (!options) {
        return -ENOMEM;
    }
    q_expect.whole = true;
    job = job_amend_start(r->h.pl, &as_job, q_node(r), options, false, &err);
    rc = ended(r, job, err);
    q_expect.whole = rc < 0;
    return rc;
}

void q_job_amend(struct scenario_run *r)
{
    OP(r, q_write(r, 0, 16 * KIB, 0));
    OP(r, amend(r, "refcount_bits=64"));
    OP(r, q_write(r, 32 * KIB, 4096, 0));
    OP(r, h_flush(&r->h));
}

static int create(struct scenario_run *r)
{
    BlockOptions *options = block_options_parse("driver=qcow2,size=65536,cluster_size=4k", 0, 0);
    Error *err = 0;
    Job *job;

    if (!options) {
        return -ENOMEM;
    }
    job = job_create_start(r->h.pl, &as_job, SIM_COPY_PATH, 0, options, &err);
    return ended(r, job, err);
}

void q_job_create(struct scenario_run *r)
{
    OP(r, create(r));
}

static int read_all(BlockBackend *blk, uint8_t *buf)
{
    struct iovec iov = {buf, SCENARIO_DISK_BYTES};
    struct iov_view view = {.iov = &iov, .niov = 1, .bytes = iov.iov_len};

    return blk_preadv(blk, 0, &view, 0);
}

static int commit(struct scenario_run *r, BlockBackend *base)
{
    static uint8_t from[SCENARIO_DISK_BYTES], to[SCENARIO_DISK_BYTES];
    struct job_commit_options options = {
        .size = sizeof(options), .layers = &r->h.blk, .layers_count = 1, .base = base};
    Error *err = 0;
    Job *job = job_commit_start(r->h.pl, &as_job, &options, &err);
    int rc = ended(r, job, err);

    if (rc == 0 && read_all(r->h.blk, from) == 0 && read_all(base, to) == 0 &&
        memcmp(from, to, sizeof(from)) != 0) {
        scenario_wrong(r, "a commit that succeeded did not commit all");
    }
    return rc;
}

void q_job_commit(struct scenario_run *r)
{
    BlockOptions *options = block_options_parse("driver=mem,size=32768", 0, 0);
    Error *err = 0;
    BlockBackend *base;

    OP(r, q_write(r, 0, 16 * KIB, 0));
    OP(r, q_write(r, 40 * KIB, 4096, 0));
    OP(r, h_flush(&r->h));
    if (OP(r, options ? 0 : -ENOMEM) < 0) {
        return;
    }
    base = blk_new_open(r->h.pl, "base", 0, 0, options, BDRV_O_RDWR, &err);
    if (OP(r, scenario_error(r, base ? 0 : -error_get_errno(err), &err)) == 0) {
        OP(r, commit(r, base));
        blk_unref(base);
    }
}

/* On no backing file any more. */
static int rebase(struct scenario_run *r)
{
    struct job_rebase_options options = {.size = sizeof(options), .overlay = r->h.blk};
    Error *err = 0;
    Job *job = job_rebase_start(r->h.pl, &as_job, &options, &err);

    return ended(r, job, err);
}

void q_job_rebase(struct scenario_run *r)
{
    OP(r, q_write(r, 4096, 4096, 0));
    OP(r, rebase(r));
    OP(r, h_read(&r->h, 0, 32 * KIB));
    OP(r, h_flush(&r->h));
}
