/* SPDX-License-Identifier: MIT */
/* The world: its files and descriptors, and the table made of its parts. */
#include "os/sim/sim_world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os/sim/fault_os.h"

struct sim_world *sim_world_now;

bool sim_is_path(const char *path)
{
    return strncmp(path, "/sim/", 5) == 0 || strncmp(path, "sim:", 4) == 0;
}

struct sim_world *sim_world_new(uint64_t seed)
{
    struct sim_world *world = calloc(1, sizeof(*world));

    if (!world) {
        return 0;
    }
    sim_faults_init(&world->faults, seed ^ UINT64_C(0x5bd1e995));
    os_mutex_init(&world->lock);
    sim_rng_init(&world->rng, seed);
    LIST_INIT(&world->files);
    world->next_ino = 1;
    sim_time_init(world);
    return world;
}

void sim_world_free(struct sim_world *world)
{
    if (!world) {
        return;
    }
    for (size_t i = 0; i < world->nfds; i++) {
        assert(!world->fds[i]);
    }
    while (!LIST_EMPTY(&world->files)) {
        struct sim_file *file = LIST_FIRST(&world->files);

        LIST_REMOVE(file, link);
        sim_file_unref(file);
    }
    free(world->fds);
    sim_time_fini(world);
    os_mutex_fini(&world->lock);
    sim_faults_fini(&world->faults);
    if (sim_world_now == world) {
        sim_world_now = 0;
    }
    free(world);
}

struct sim_faults *sim_world_faults(struct sim_world *world)
{
    return &world->faults;
}

struct sim_file *sim_file_find(struct sim_world *world, const char *path)
{
    struct sim_file *file;

    LIST_FOREACH (file, &world->files, link) {
        if (strcmp(file->path, path) == 0) {
            return file;
        }
    }
    return 0;
}

void sim_file_unref(struct sim_file *file)
{
    if (--file->users > 0) {
        return;
    }
    assert(LIST_EMPTY(&file->locks));
    sim_disk_free(file->disk);
    free(file->path);
    free(file);
}

static int add_locked(struct sim_world *world, const char *path, struct sim_disk *disk,
                      const struct sim_file_options *opts)
{
    struct sim_file *file;

    if (sim_file_find(world, path)) {
        return -EEXIST;
    }
    file = calloc(1, sizeof(*file));
    if (!file) {
        return -ENOMEM;
    }
    file->path = strdup(path);
    if (!file->path) {
        free(file);
        return -ENOMEM;
    }
    file->disk = disk;
    file->opts = opts ? *opts : (struct sim_file_options){0};
    file->ino = world->next_ino++;
    file->users = 1;
    LIST_INIT(&file->locks);
    LIST_INSERT_HEAD(&world->files, file, link);
    return 0;
}

int sim_world_add_disk(struct sim_world *world, const char *path, struct sim_disk *disk,
                       const struct sim_file_options *opts)
{
    int rc = -ENOMEM;

    if (disk) {
        os_mutex_lock(&world->lock);
        rc = add_locked(world, path, disk, opts);
        os_mutex_unlock(&world->lock);
    }
    if (rc < 0) {
        sim_disk_free(disk);
    }
    return rc;
}

int sim_world_add_file(struct sim_world *world, const char *path, uint64_t size_bytes,
                       const struct sim_file_options *opts)
{
    return sim_world_add_disk(world, path, sim_disk_new(size_bytes), opts);
}

struct sim_disk *sim_world_clone_disk(struct sim_world *world, const char *path)
{
    struct sim_disk *disk = 0;
    struct sim_file *file;

    os_mutex_lock(&world->lock);
    file = sim_file_find(world, path);
    if (file) {
        disk = sim_disk_clone(file->disk);
    }
    os_mutex_unlock(&world->lock);
    return disk;
}

const struct sim_disk *sim_world_peek(struct sim_world *world, const char *path)
{
    struct sim_file *file = sim_file_find(world, path);

    return file ? file->disk : 0;
}

int sim_world_power_cut(struct sim_world *world)
{
    struct sim_file *file;
    int ret = 0;

    os_mutex_lock(&world->lock);
    LIST_FOREACH (file, &world->files, link) {
        int rc = sim_disk_power_cut(file->disk, &world->rng);

        ret = ret < 0 ? ret : rc;
    }
    os_mutex_unlock(&world->lock);
    return ret;
}

void sim_world_on_change(struct sim_world *world, sim_change_func *func, void *opaque)
{
    os_mutex_lock(&world->lock);
    world->on_change = func;
    world->on_change_opaque = opaque;
    os_mutex_unlock(&world->lock);
}

struct sim_ofd *sim_fd_get(struct sim_world *world, int fd)
{
    size_t i = (size_t)(fd - SIM_FD_BASE);

    return i < world->nfds ? world->fds[i] : 0;
}

int sim_fd_new(struct sim_world *world, struct sim_ofd *ofd)
{
    struct sim_ofd **fds;
    size_t i;

    for (i = 0; i < world->nfds && world->fds[i]; i++) {
    }
    if (i == world->nfds) {
        fds = realloc(world->fds, (world->nfds + 16) * sizeof(*fds));
        if (!fds) {
            return -ENOMEM;
        }
        memset(fds + world->nfds, 0, 16 * sizeof(*fds));
        world->fds = fds;
        world->nfds += 16;
    }
    world->fds[i] = ofd;
    ofd->fds++;
    return SIM_FD_BASE + (int)i;
}

unsigned sim_world_open_fds(struct sim_world *world)
{
    unsigned n = 0;

    os_mutex_lock(&world->lock);
    for (size_t i = 0; i < world->nfds; i++) {
        n += world->fds[i] != 0;
    }
    os_mutex_unlock(&world->lock);
    return n;
}

int sim_call_begin(struct sim_call_state *call, enum sim_call kind, uint64_t offset, uint64_t bytes)
{
    struct sim_world *world = sim_world_now;

    *call = (struct sim_call_state){.world = world};
    sim_world_busy_begin(world);
    sim_faults_check(&world->faults, kind, offset, bytes, &call->verdict);
    if (call->verdict.delay_ns) {
        sim_time_sleep(world, call->verdict.delay_ns);
    }
    if (call->verdict.error && !(kind == SIM_CALL_SYNC && call->verdict.lose_cache)) {
        sim_world_busy_end(world);
        return -call->verdict.error;
    }
    os_mutex_lock(&world->lock);
    return 0;
}

void sim_call_end(struct sim_call_state *call)
{
    os_mutex_unlock(&call->world->lock);
    sim_world_busy_end(call->world);
}

int sim_call_begin_fd(struct sim_call_state *call, enum sim_call kind, int fd, uint64_t offset,
                      uint64_t bytes)
{
    int rc = sim_call_begin(call, kind, offset, bytes);

    if (rc < 0) {
        return rc;
    }
    call->ofd = sim_fd_get(call->world, fd);
    if (!call->ofd) {
        sim_call_end(call);
        return -EBADF;
    }
    return 0;
}

void sim_call_changed(struct sim_call_state *call, struct sim_file *file)
{
    if (call->world->on_change) {
        call->world->on_change(call->world->on_change_opaque, file->path ? file->path : "",
                               file->disk);
    }
}

static bool sim_io_uring_allowed(void)
{
    return false;
}

const struct os_table *sim_os_table(struct sim_world *world)
{
    static struct os_table table;

    world->base = *fault_os_table(&world->faults);
    sim_world_now = world;
    table = world->base;
    sim_os_name_members(&table);
    sim_os_data_members(&table);
    sim_os_fact_members(&table);
    sim_os_time_members(&table);
    table.io_uring_allowed = sim_io_uring_allowed;
    return &table;
}
