/* SPDX-License-Identifier: MIT */
/*
 * Samples of the states after a cut, seen by others than the second reader: our driver, which opens
 * them for writing, and `qemu-img check`, where installed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <platter/image.h>

#include "qcow2_powercut.h"

static struct sim_disk *disk_of(const uint8_t *bytes, uint64_t n)
{
    struct sim_disk *disk = sim_disk_new(n);

    assert_non_null(disk);
    if (n > 0) {
        assert_int_equal(sim_disk_write(disk, 0, bytes, n, true), 0);
    }
    return disk;
}

/* Our check counts as the second reader does; with repair nothing is left. */
static void sample_check(struct powercut *t, const struct sample *s, struct harness *h, bool fix,
                         uint64_t leaks)
{
    struct bdrv_check_options options = {.size = sizeof(options),
                                         .finding = pc_found_by_check,
                                         .opaque = t,
                                         .fix = fix ? BDRV_FIX_LEAKS | BDRV_FIX_ERRORS : 0};
    struct bdrv_check_result r = {0};
    Error *err = NULL;
    int ret = bdrv_check(blk_bs(h->blk), &options, &r, &err);

    pc_told(t, "check of a sample", ret, err);
    if (ret == 0 && (r.check_errors || (r.corruptions && !s->mismatched) ||
                     (fix ? r.leaks != 0 : r.leaks != leaks))) {
        pc_wrong(t, "check of a sample: %llu corruptions, %llu leaks, where there are %llu",
                 (unsigned long long)r.corruptions, (unsigned long long)r.leaks,
                 (unsigned long long)leaks);
    }
}

static void sample_by_us(struct powercut *t, const struct sample *s)
{
    struct harness h;
    struct qv_image im = {0};
    uint8_t *disk = malloc(s->disk_bytes ? s->disk_bytes : 1);
    struct sim_disk *file, *data = NULL;
    struct qv_bytes fb, db = {0};
    bool fix = sim_rng_percent(&t->rng, 50);

    assert_non_null(disk);
    harness_begin_with(&h, 1, 4096, disk_of(s->file, s->file_bytes), NULL);
    if (s->has_data) {
        assert_int_equal(
            sim_world_add_disk(h.world, EXPECT_DATA_PATH, disk_of(s->data, s->data_bytes), NULL),
            0);
    }
    if (t->e.backing.data) {
        assert_int_equal(sim_world_add_disk(h.world, EXPECT_BACKING_PATH,
                                            disk_of(t->e.backing.data, t->e.backing.bytes), NULL),
                         0);
    }
    if (pc_open_disk(t, &h) == 0) {
        sample_check(t, s, &h, fix, s->dirty ? 0 : s->leaks);
    }
    harness_close(&h);
    file = sim_world_clone_disk(h.world, SIM_DISK_PATH);
    data = s->has_data ? sim_world_clone_disk(h.world, EXPECT_DATA_PATH) : NULL;
    fb = (struct qv_bytes){malloc(sim_disk_size(file)), sim_disk_size(file)};
    sim_disk_read(file, 0, (uint8_t *)(uintptr_t)fb.data, fb.bytes);
    if (data) {
        db = (struct qv_bytes){malloc(sim_disk_size(data) + 1), sim_disk_size(data)};
        sim_disk_read(data, 0, (uint8_t *)(uintptr_t)db.data, db.bytes);
    }
    if (!t->wrong[0]) {
        if (!qv_parse(&im, fb, db, t->e.backing)) {
            pc_wrong(t, "a sample that we opened: %s", im.text);
        } else {
            qv_verify(&im);
        }
        if (qv_dirty(&im) || !qv_sound(&im) || (im.mismatched && (fix || im.h.version >= 3)) ||
            (im.leaks && (fix || s->dirty))) {
            pc_wrong(t, "a sample that we %s is not clean: %s", fix ? "repaired" : "opened",
                     im.text);
        } else if (!qv_read(&im, -1, 0, disk, s->disk_bytes) ||
                   memcmp(disk, s->disk, s->disk_bytes) != 0) {
            pc_wrong(t, "a sample that we opened holds other bytes");
        }
    }
    if (t->wrong[0]) {
        expect_keep(s->file, s->file_bytes);
    }
    free((void *)(uintptr_t)fb.data);
    free((void *)(uintptr_t)db.data);
    free(disk);
    sim_disk_free(file);
    sim_disk_free(data);
    qv_fini(&im);
    if (harness_end(&h) != 0) {
        pc_wrong(t, "a descriptor was left open");
    }
    t->opened++;
}

static char folder[] = "/tmp/qcow2_powercut_XXXXXX";
static bool qemu_installed;

static void write_file(const char *name, const uint8_t *bytes, uint64_t n)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Nothing but leaks for it, too; what is dirty (or version 2 amid a snapshot) it can repair. */
static void sample_by_qemu(struct powercut *t, const struct sample *s)
{
    bool repair = s->dirty || s->mismatched;
    char line[600];
    int rc;

    write_file("image", s->file, s->file_bytes);
    if (s->has_data) {
        write_file("data", s->data, s->data_bytes);
    }
    snprintf(line, sizeof(line),
             "cd %s && qemu-img check -q %s 'json:{\"driver\": \"qcow2\", \"backing\": null, "
             "\"file\": {\"driver\": \"file\", \"filename\": \"image\"}%s}' >out 2>&1",
             folder, repair ? "-r all" : "",
             s->has_data ? ", \"data-file\": {\"driver\": \"file\", \"filename\": \"data\"}" : "");
    rc = system(line);
    rc = WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
    if (rc != 0 && (rc != 3 || repair)) {
        pc_wrong(t, "qemu-img check says %d", rc);
        expect_keep(s->file, s->file_bytes);
        snprintf(line, sizeof(line), "cat %s/out", folder);
        (void)!system(line);
    }
    t->shown++;
}

/* The folder in which qemu-img sees them; 0 or -1. */
int pc_samples_begin(void)
{
    qemu_installed = system("qemu-img --version >/dev/null 2>&1") == 0;
    return mkdtemp(folder) ? 0 : -1;
}

int pc_samples_end(void)
{
    char line[128];

    snprintf(line, sizeof(line), "rm -rf %s", folder);
    return system(line) == 0 ? 0 : -1;
}

void pc_look_at_samples(struct powercut *t)
{
    bool look = !getenv("PLATTER_STATES_ONLY");

    for (size_t i = 0; look && i < t->nsamples && !t->wrong[0]; i++) {
        sample_by_us(t, &t->samples[i]);
        if (qemu_installed && !t->wrong[0]) {
            sample_by_qemu(t, &t->samples[i]);
        }
    }
    for (size_t i = 0; i < t->nsamples; i++) {
        free(t->samples[i].file);
        free(t->samples[i].data);
        free(t->samples[i].disk);
    }
    free(t->samples);
}
