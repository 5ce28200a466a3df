/* SPDX-License-Identifier: MIT */
/* The disk of a run: its file, made and removed; the image in it, created, opened and closed. */
#include "suite.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <platter/export.h>
#include <platter/image.h>

#include "os/sim/sim_os.h"

static uint64_t file_size(const struct drive *drive)
{
    return drive->file_size_bytes != 0 ? drive->file_size_bytes : drive->size_bytes;
}

bool run_is_sim(const struct run *run)
{
    return (run->drive->facts & D_SIM) != 0;
}

/* Run a command and give the first line that it prints. */
static bool command(char *out, size_t size, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    FILE *p;
    bool ok;

    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    p = popen(line, "r");
    if (p == NULL) {
        return false;
    }
    ok = fgets(out, (int)size, p) != NULL;
    while (ok && fgetc(p) != EOF) {
    }
    out[ok ? strcspn(out, "\n") : 0] = '\0';
    return pclose(p) == 0 && ok;
}

static const char *file_dir(const struct drive *drive)
{
    const char *dir = getenv("PLATTER_DIR");

    return dir != NULL && (drive->facts & D_SIM) == 0 ? dir : drive->dir;
}

/* NULL, or why the line is skipped. */
const char *disk_file_make(struct run *run)
{
    const struct drive *drive = run->drive;
    char file[150];
    int fd;

    if (drive->dir == NULL) {
        return NULL;
    }
    snprintf(file, sizeof(file), "%s/platter-property-%ld-%s", file_dir(drive), (long)getpid(),
             drive->name);
    snprintf(run->path, sizeof(run->path), "%s", file);
    if (run_is_sim(run)) {
        struct sim_file_options opts = {0};

        if (strstr(drive->options, "cache.direct=on") != NULL) {
            opts.dio_mem_align = opts.dio_offset_align = run->seed % 2 == 0 ? 512 : 4096;
        }
        assert(sim_world_add_file(run->world, run->path, file_size(drive), &opts) == 0);
        return NULL;
    }
    fd = open(file, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) {
        return "its folder cannot be written to";
    }
    assert(ftruncate(fd, (off_t)file_size(drive)) == 0);
    close(fd);
    if ((drive->facts & D_LOOP) != 0 &&
        !command(run->path, sizeof(run->path), "losetup -b 4096 -f --show %s 2>/dev/null", file)) {
        unlink(file);
        run->path[0] = '\0';
        return "there is no loop device";
    }
    if ((drive->facts & D_DIRECT) != 0) {
        fd = open(run->path, O_RDONLY | O_DIRECT);
        if (fd < 0) {
            unlink(file);
            return "the file system has no direct I/O";
        }
        close(fd);
    }
    return NULL;
}

void disk_file_remove(struct run *run)
{
    char line[300];

    if (run->path[0] == '\0' || run_is_sim(run)) {
        return;
    }
    if ((run->drive->facts & D_LOOP) != 0) {
        command(line, sizeof(line), "losetup -d %s", run->path);
        snprintf(run->path, sizeof(run->path), "%s/platter-property-%ld-%s", file_dir(run->drive),
                 (long)getpid(), run->drive->name);
    }
    unlink(run->path);
    snprintf(line, sizeof(line), "%s.base", run->path);
    unlink(line);
    snprintf(line, sizeof(line), "%s.data", run->path);
    unlink(line);
}

/* ---- opening ---- */

static void options_text(const struct run *run, const char *text, char *out, size_t size)
{
    size_t n = 0;

    for (const char *p = text; *p != '\0' && n < size; p++) {
        if (*p == '@') {
            n += (size_t)snprintf(out + n, size - n, "%s", run->path);
        } else if (*p == '#') {
            n += (size_t)snprintf(out + n, size - n, "%" PRIu64, file_size(run->drive));
        } else {
            out[n++] = *p;
        }
    }
    assert(n < size);
    out[n] = '\0';
}

static BlockOptions *options_of(struct run *run, const char *drive_text)
{
    char text[512];
    Error *err = NULL;
    BlockOptions *options;

    options_text(run, drive_text, text, sizeof(text));
    options = block_options_parse(text, NULL, &err);
    if (options == NULL) {
        run_fail(run, "options '%s': %s", text, error_get_pretty(err));
    }
    return options;
}

static void image_create(struct run *run, const char *path, const char *text)
{
    Error *err = NULL;

    if (bdrv_create(run->pl, path, options_of(run, text), &err) < 0) {
        run_fail(run, "create '%s': %s", text, error_get_pretty(err));
    }
}

/* A backing file that is shorter or longer than the disk, with something in it: the disk begins
 * with that. */
static void base_create(struct run *run, struct rng *rng)
{
    struct model *model = &run->model;
    uint64_t bytes = (model->size_bytes / 2 + rng_below(rng, model->size_bytes)) / SECTOR * SECTOR;
    char path[220];
    char text[300];
    Error *err = NULL;
    BlockBackend *blk;

    snprintf(path, sizeof(path), "%s.base", run->path);
    snprintf(text, sizeof(text), "%s,size=%" PRIu64, run->drive->base, bytes);
    image_create(run, path, text);
    snprintf(text, sizeof(text), "driver=%s,file.driver=file,file.filename=%s",
             strncmp(run->drive->base, "driver=raw", 10) == 0 ? "raw" : "qcow2", path);
    blk = blk_new_open(run->pl, "base", NULL, NULL, block_options_parse(text, NULL, NULL),
                       BDRV_O_RDWR, &err);
    if (blk == NULL) {
        run_fail(run, "open '%s': %s", text, error_get_pretty(err));
    }
    for (int i = 0; i < 20; i++) {
        uint8_t buf[20000];
        uint64_t offset = rng_below(rng, bytes - sizeof(buf));

        memset(buf, 1 + i, sizeof(buf));
        assert(blk_pwrite(blk, (int64_t)offset, buf, sizeof(buf)) == sizeof(buf));
        if (offset < model->size_bytes) {
            uint64_t n = model->size_bytes - offset;

            memcpy(model->now + offset, buf, n < sizeof(buf) ? n : sizeof(buf));
        }
    }
    blk_unref(blk);
    model_flushed(model);
}

void disk_serve_begin(struct run *run, AioContext *ctx)
{
    const struct nbd_server_options server_opts = {
        .size = sizeof(server_opts),
        .contexts = &ctx,
        .context_count = 1,
    };
    const struct nbd_export_options export_opts = {.size = sizeof(export_opts), .writable = true};
    struct nbd_address address = {.kind = NBD_ADDRESS_UNIX};
    char sock[220], text[300];
    BlockBackend *blk;
    Error *err = NULL;

    if ((run->drive->facts & D_EXPORT) == 0) {
        return;
    }
    snprintf(sock, sizeof(sock), "%s.nbd", run->path);
    snprintf(text, sizeof(text), "driver=raw,file.driver=file,file.filename=%s", run->path);
    address.path = sock;
    blk = blk_new_open(run->pl, "served", NULL, NULL, block_options_parse(text, NULL, NULL),
                       BDRV_O_RDWR | BDRV_O_UNMAP, &err);
    run->server = blk != NULL ? nbd_server_new(run->pl, &server_opts, &err) : NULL;
    if (run->server == NULL || nbd_server_add_export(run->server, blk, &export_opts, &err) < 0 ||
        nbd_server_listen(run->server, &address, &err) < 0) {
        run_fail(run, "serve '%s': %s", text, error_get_pretty(err));
    }
    blk_unref(blk); /* the server has its own */
}

void disk_serve_end(struct run *run)
{
    nbd_server_free(run->server);
    run->server = NULL;
}

void disk_create(struct run *run, struct rng *rng)
{
    if (run->drive->base != NULL) {
        base_create(run, rng);
    }
    if (run->drive->create != NULL) {
        image_create(run, run->path, run->drive->create);
    }
}

/* What was just opened is consistent; leaks only where something went wrong. */
static void disk_check(struct run *run)
{
    const struct bdrv_check_options options = {.size = sizeof(options)};
    struct bdrv_check_result result;
    Error *err = NULL;

    if (bdrv_check(blk_bs(run->blk), &options, &result, &err) < 0) {
        run_fail(run, "check: %s", error_get_pretty(err));
    }
    if (result.corruptions > 0 || result.check_errors > 0 ||
        (result.leaks > 0 && (run->drive->facts & (D_CUT | D_ERRORS)) == 0)) {
        run_fail(run, "check: %" PRIu64 " corruptions, %" PRIu64 " leaks, %" PRIu64 " check errors",
                 result.corruptions, result.leaks, result.check_errors);
    }
}

void disk_open(struct run *run)
{
    BlockOptions *options = options_of(run, run->drive->options);
    Error *err = NULL;

    run->blk = blk_new_open(run->pl, "disk", NULL, NULL, options, BDRV_O_RDWR | BDRV_O_UNMAP, &err);
    if (run->blk == NULL) {
        run_fail(run, "open '%s': %s", run->drive->options, error_get_pretty(err));
    }
    atomic_store(&run->flush_failed, false);
    run->flush_final = false;
    if (run->drive->create != NULL) {
        disk_check(run);
    }
}

void disk_close(struct run *run)
{
    blk_unref(run->blk);
    run->blk = NULL;
}
