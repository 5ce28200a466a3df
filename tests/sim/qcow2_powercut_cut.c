/* SPDX-License-Identifier: MIT */
/*
 * The cutter: at each change of a disk, copies of it lose their power with these or those of the
 * changes that no flush has made durable, and each is judged by the second reader.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qcow2_powercut.h"

#define SUBSETS_OF_PENDING 6 /* all subsets up to so many pending changes */
#define CHANCES 3            /* cuts by chance of more */
#define SAMPLES_OF_1000 10   /* states: opened by the driver, and shown to qemu-img */

static uint8_t *copy_of(const uint8_t *from, uint64_t bytes)
{
    uint8_t *to = malloc(bytes ? bytes : 1);

    assert_non_null(to);
    if (bytes > 0) {
        memcpy(to, from, bytes);
    }
    return to;
}

static void keep_sample(struct powercut *t)
{
    const struct qv_image *im = &t->e.im;
    struct sample *s = &t->samples[t->nsamples];

    if (t->nsamples == PC_SAMPLES) {
        return;
    }
    *s = (struct sample){
        .file = copy_of(im->file.data, im->file.bytes),
        .file_bytes = im->file.bytes,
        .data = im->data.data ? copy_of(im->data.data, im->data.bytes) : NULL,
        .data_bytes = im->data.bytes,
        .has_data = im->data.data != NULL,
        .disk = malloc(im->h.disk_bytes ? im->h.disk_bytes : 1),
        .disk_bytes = im->h.disk_bytes,
        .leaks = im->leaks,
        .dirty = qv_dirty(im),
        .mismatched = im->mismatched > 0,
    };
    assert_non_null(s->disk);
    assert_true(qv_read(&t->e.im, -1, 0, s->disk, s->disk_bytes));
    t->nsamples++;
}

/* subset < 0: by chance. */
static int cut_one(struct powercut *t, struct sim_disk *disk, int64_t subset)
{
    uint8_t bits[8] = {0};

    if (!disk) {
        return 0;
    }
    if (subset < 0) {
        return sim_disk_power_cut(disk, &t->cut_rng);
    }
    if (subset == 0) { /* none, however many there are */
        static const uint8_t none[SIM_PENDING_MAX / 8 + 1];

        return sim_disk_power_cut_subset(disk, none);
    }
    for (unsigned i = 0; i < 63; i++) {
        bits[i / 8] |= (uint8_t)((subset >> i & 1) << (i % 8));
    }
    return sim_disk_power_cut_subset(disk, bits);
}

static void cut(struct powercut *t, const struct sim_disk *file, const struct sim_disk *data,
                int64_t file_subset, int64_t data_subset)
{
    struct sim_disk *f, *d;
    const char *wrong;

    harness_own++;
    f = sim_disk_clone(file);
    d = data ? sim_disk_clone(data) : NULL;
    if (!f || (data && !d) || cut_one(t, f, file_subset) < 0 || cut_one(t, d, data_subset) < 0) {
        wrong = "no memory";
    } else {
        wrong = expect_judge(&t->e, f, d, EXPECT_CUT);
    }
    if (wrong) {
        pc_wrong(t, "%s (boundary %lu, subsets %lld and %lld)", wrong, t->boundaries,
                 (long long)file_subset, (long long)data_subset);
    } else if (sim_rng_below(&t->cut_rng, 1000) < SAMPLES_OF_1000) {
        keep_sample(t);
    }
    sim_disk_free(f);
    sim_disk_free(d);
    harness_own--;
}

/* All subsets of what is pending, those with the newest change (bit) only when it is not 0. */
static void cut_subsets(struct powercut *t, const struct sim_disk *file,
                        const struct sim_disk *data, size_t files, size_t datas, uint64_t newest)
{
    for (uint64_t subset = 0; subset < UINT64_C(1) << (files + datas) && !t->wrong[0]; subset++) {
        if (newest == 0 || (subset & newest)) {
            cut(t, file, data, (int64_t)(subset & ((UINT64_C(1) << files) - 1)),
                (int64_t)(subset >> files));
        }
    }
}

/* Every change of a disk, under the world's lock, in whatever thread made it. */
void pc_boundary(void *opaque, const char *path, const struct sim_disk *disk)
{
    struct powercut *t = opaque;
    const struct sim_disk *file = sim_world_peek(t->h.world, SIM_DISK_PATH);
    const struct sim_disk *data =
        t->config->data_file ? sim_world_peek(t->h.world, EXPECT_DATA_PATH) : NULL;
    size_t pending[2] = {sim_disk_pending(file), data ? sim_disk_pending(data) : 0};
    unsigned changed = disk != file;
    uint64_t newest = 0;

    t->boundaries++;
    pc_trace(t, "disk %s: %zu pending", path, sim_disk_pending(disk));
    if (t->wrong[0] || (disk != file && disk != data)) {
        return;
    }
    if (pending[changed] > t->pending_before[changed]) {
        newest = UINT64_C(1) << (changed ? pending[0] + pending[1] - 1 : pending[0] - 1);
    }
    if (pending[0] + pending[1] <= SUBSETS_OF_PENDING) {
        cut_subsets(t, file, data, pending[0], pending[1], newest);
    } else {
        cut(t, file, data, 0, 0);
        for (int i = 0; i + 1 < CHANCES; i++) {
            cut(t, file, data, -1, -1);
        }
    }
    cut(t, file, data, -1, -1);
    t->pending_before[0] = pending[0];
    t->pending_before[1] = pending[1];
}
