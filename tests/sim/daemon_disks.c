/* SPDX-License-Identifier: MIT */
/* The files of a run, and what they hold after a life: read by the second reader of qcow2. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/options.h>
#include <platter/platter.h>

#include "daemon.h"
#include "qcow2_verify.h"
#include "util/mem.h"

enum { FILE_RAW, FILE_QCOW2, FILE_MEDIA, FILE_OVERLAYS = FILE_MEDIA + MEDIA };

static const char *const create_options[] = {
    "driver=qcow2,size=262144,cluster_size=65536",
    "driver=qcow2,size=262144,cluster_size=4096",
    "driver=qcow2,size=262144,cluster_size=4096,lazy_refcounts=on",
    "driver=qcow2,size=262144,cluster_size=16384,extended_l2=on",
    "driver=qcow2,size=262144,cluster_size=512",
};
static struct sim_disk *template_disks[ARRAY_SIZE(create_options)];

const char *daemon_disk_path(unsigned file, char buf[32])
{
    if (file < FILE_MEDIA) {
        return file == FILE_RAW ? RAW_PATH : QCOW2_PATH;
    }
    if (file < FILE_OVERLAYS) {
        snprintf(buf, 32, "/sim/m%u", file - FILE_MEDIA);
    } else {
        snprintf(buf, 32, "/sim/ov%u", file - FILE_OVERLAYS + 1);
    }
    return buf;
}

void daemon_templates_free(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(template_disks); i++) {
        sim_disk_free(template_disks[i]);
        template_disks[i] = NULL;
    }
}

/* In a world of its own, so that no run knows whether they were there already. */
void daemon_templates_make(void)
{
    struct sim_world *world = sim_world_new(1);
    struct sim_machine *machine = world ? sim_machine_new(world, 1, NULL) : NULL;

    assert(machine);
    os_replace(sim_machine_table(machine));
    for (unsigned i = 0; i < ARRAY_SIZE(create_options); i++) {
        struct platter_options options = {.size = sizeof(options)};
        Platter *pl = platter_new(&options, NULL);
        BlockOptions *create = block_options_parse(create_options[i], NULL, NULL);

        if (!pl || !create || bdrv_create(pl, QCOW2_PATH, create, NULL) < 0) {
            fprintf(stderr, "no image could be made: %s\n", create_options[i]);
            abort();
        }
        platter_free(pl);
        template_disks[i] = sim_world_clone_disk(world, QCOW2_PATH);
        assert(template_disks[i]);
        if (sim_disk_flush(template_disks[i]) < 0 || os->unlink(QCOW2_PATH) < 0) {
            abort();
        }
    }
    os_replace(NULL);
    sim_machine_free(machine);
    sim_world_free(world);
}

static struct sim_disk *medium_new(const struct model *m)
{
    struct sim_disk *disk = sim_disk_new(MODEL_BYTES);
    uint8_t sector[MODEL_SECTOR];

    assert(disk);
    for (unsigned i = 0; i < MODEL_SECTORS; i++) {
        model_fill(m, sector, i, 1);
        sim_disk_write(disk, (uint64_t)i * MODEL_SECTOR, sector, sizeof(sector), true);
    }
    return disk;
}

void daemon_disks_make(struct daemon_run *run)
{
    char buf[32];

    if (run->life == 0) {
        run->kept[FILE_RAW] = sim_disk_new(MODEL_BYTES);
        run->template = (unsigned)daemon_below(run, ARRAY_SIZE(create_options));
        run->kept[FILE_QCOW2] = sim_disk_clone(template_disks[run->template]);
        for (unsigned i = 0; i < MEDIA; i++) {
            run->kept[FILE_MEDIA + i] = medium_new(&run->media[i]);
        }
    }
    for (unsigned i = 0; i < DISK_FILES; i++) {
        if (run->kept[i] &&
            sim_world_add_disk(run->world, daemon_disk_path(i, buf), run->kept[i], NULL) < 0) {
            daemon_wrong(run, "no memory for the disks");
        }
        run->kept[i] = NULL; /* it passed in */
    }
}

void daemon_disks_keep(struct daemon_run *run, bool cut)
{
    char buf[32];

    for (unsigned i = 0; i < DISK_FILES; i++) {
        run->kept[i] = sim_world_clone_disk(run->world, daemon_disk_path(i, buf));
        if (run->kept[i] && cut) {
            sim_disk_power_cut(run->kept[i], &run->rng);
        }
    }
}

void daemon_disks_drop(struct daemon_run *run)
{
    for (unsigned i = 0; i < DISK_FILES; i++) {
        sim_disk_free(run->kept[i]);
        run->kept[i] = NULL;
    }
}

static void save(const struct sim_disk *disk, const char *path)
{
    FILE *file = fopen(path, "wb");
    uint8_t sector[MODEL_SECTOR];

    for (uint64_t at = 0; file && at < sim_disk_size(disk); at += sizeof(sector)) {
        sim_disk_read(disk, at, sector, sizeof(sector));
        fwrite(sector, 1, sizeof(sector), file);
    }
    if (file) {
        fclose(file);
    }
}

void daemon_disks_save(const struct daemon_run *run)
{
    const char *folder = getenv("PLATTER_KEEP");
    char path[300];
    char buf[32];

    for (unsigned i = 0; folder && i < DISK_FILES; i++) {
        if (run->kept[i]) {
            snprintf(path, sizeof(path), "%s%s", folder, strrchr(daemon_disk_path(i, buf), '/'));
            save(run->kept[i], path);
        }
    }
}

/* ---- faults of the gate's own tests ---- */

static void spoil(struct daemon_run *run)
{
    const uint8_t zeroes[MODEL_SECTOR] = {0};
    uint8_t be[8];
    uint64_t at = 0;

    enum daemon_fault loses = run->life == 0 ? FAULT_LOSE_FLUSHED : FAULT_LOSE_LATER;

    for (unsigned i = 0; run->fault == loses && i < MODEL_SECTORS; i++) {
        if (!(run->disks[0].after[i] & 1) && daemon_strikes(run, loses)) {
            sim_disk_write(run->kept[FILE_RAW], (uint64_t)i * MODEL_SECTOR, zeroes, MODEL_SECTOR,
                           true);
        }
    }
    if (daemon_strikes(run, FAULT_CORRUPT_IMAGE)) { /* the first block of reference counts */
        sim_disk_read(run->kept[FILE_QCOW2], 48, be, sizeof(be));
        for (unsigned i = 0; i < 2; i++) {
            at = 0;
            for (unsigned b = 0; b < sizeof(be); b++) {
                at = at << 8 | be[b];
            }
            sim_disk_read(run->kept[FILE_QCOW2], at, be, sizeof(be));
        }
        sim_disk_write(run->kept[FILE_QCOW2], at, zeroes, 16, true);
    }
}

/* ---- judging ---- */

static struct qv_bytes file_bytes(const struct sim_disk *disk)
{
    struct qv_bytes bytes = {.bytes = sim_disk_size(disk)};
    uint8_t *data = calloc(1, bytes.bytes + 1);

    assert(data);
    sim_disk_read(disk, 0, data, bytes.bytes);
    bytes.data = data;
    return bytes;
}

static void bytes_free(struct qv_bytes bytes)
{
    free((void *)(uintptr_t)bytes.data);
}

/* The file that an overlay says it stands on; DISK_FILES: none of ours. */
static unsigned backing_of(const struct qv_image *im)
{
    char buf[32];
    const char *name = (const char *)im->file.data + im->h.backing_name_offset;

    for (unsigned i = 0; i < DISK_FILES && im->h.backing_name_bytes > 0; i++) {
        const char *path = daemon_disk_path(i, buf);

        if (strlen(path) == im->h.backing_name_bytes &&
            memcmp(path, name, im->h.backing_name_bytes) == 0) {
            return i;
        }
    }
    return DISK_FILES;
}

/* What the disk of that file holds, down its chain, into content (MODEL_BYTES). False: it is no
 * sound image; why tells. */
static bool read_chain(struct daemon_run *run, unsigned file, uint8_t *content, unsigned depth,
                       char *why, size_t room)
{
    struct qv_image im = {0};
    struct qv_bytes bytes;
    uint8_t *below = calloc(1, MODEL_BYTES);
    bool ok = file < DISK_FILES && run->kept[file] && depth < DISK_FILES;

    assert(below);
    if (!ok) {
        free(below);
        snprintf(why, room, "file %u is missing", file);
        return false;
    }
    bytes = file_bytes(run->kept[file]);
    ok = qv_parse(&im, bytes, (struct qv_bytes){0}, (struct qv_bytes){below, MODEL_BYTES});
    if (ok && im.h.disk_bytes != MODEL_BYTES) { /* an overlay that is being made */
        snprintf(why, room, "file %u: a disk of %llu bytes", file,
                 (unsigned long long)im.h.disk_bytes);
        ok = false;
    }
    if (ok && file >= FILE_OVERLAYS) {
        ok = read_chain(run, backing_of(&im), below, depth + 1, why, room);
    }
    if (ok) {
        qv_verify(&im);
        ok = qv_sound(&im) && qv_read(&im, -1, 0, content, MODEL_BYTES);
    }
    if (!ok && im.text[0]) {
        snprintf(why, room, "file %u: %s", file, im.text);
    }
    qv_fini(&im);
    bytes_free(bytes);
    free(below);
    return ok;
}

/* Content against the model; it is known then. */
static void judge_content(struct daemon_run *run, unsigned disk, const uint8_t *content, bool cut)
{
    struct model *m = &run->disks[disk];

    for (unsigned i = 0; i < MODEL_SECTORS; i++) {
        int version = model_version(m, content + (size_t)i * MODEL_SECTOR, i);
        uint64_t may = cut ? m->after[i] : m->now[i];

        if (version < 0 || !(may >> version & 1)) {
            daemon_wrong(run, "disk %u sector %u holds version %d %s, may be %llx", disk, i,
                         version, cut ? "after the cut" : "at the end", (unsigned long long)may);
            return;
        }
        model_settle(m, i, (unsigned)version);
    }
}

/* The overlay in use is the last that is whole; those that were told to be there must be. */
static void judge_qcow2(struct daemon_run *run, bool cut)
{
    uint8_t *content = calloc(1, MODEL_BYTES);
    char why[QV_TEXT + 40] = "";
    unsigned top = OVERLAYS_MAX;

    assert(content);
    for (;; top--) {
        unsigned file = top ? FILE_OVERLAYS + top - 1 : FILE_QCOW2;

        if (run->kept[file] && read_chain(run, file, content, 0, why, sizeof(why))) {
            break;
        }
        if (top <= run->overlays_known) {
            daemon_wrong(run, "the image of overlay %u is not sound: %s", top, why);
            free(content);
            return;
        }
        if (daemon_verbose() && run->kept[file]) {
            fprintf(stderr, "overlay %u: %s\n", top, why);
        }
        sim_disk_free(run->kept[file]); /* nobody uses it */
        run->kept[file] = NULL;
    }
    run->top = top;
    run->overlays = top + 1 > run->overlays ? top + 1 : run->overlays;
    judge_content(run, 1, content, cut);
    free(content);
}

void daemon_disks_judge(struct daemon_run *run, bool cut)
{
    struct qv_bytes raw;

    if (cut) {
        spoil(run);
    }
    raw = file_bytes(run->kept[FILE_RAW]);
    if (raw.bytes != MODEL_BYTES) {
        daemon_wrong(run, "the raw disk has another size");
    } else {
        judge_content(run, 0, raw.data, cut);
    }
    bytes_free(raw);
    judge_qcow2(run, cut);
}
