/* SPDX-License-Identifier: MIT */
/*
 * What the file driver promises and the property suite cannot see: what it refuses, locks between
 * two users, files that change underneath, flushes that fail.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/image.h>

#include "fixture.h"
#include "os/os.h"
#include "os/sim/sim_os.h"
#include "util/mem.h"

#define MIB (INT64_C(1) << 20)

/* ---- what is not opened ---- */

static void file_refusals(void **state)
{
    Platter *pl = new_platter();

    make_file("plain", MIB);
    assert_int_equal(mkfifo(text("%s/fifo", dir), 0600), 0);
    refused(pl, text("driver=file,filename=%s", dir), EISDIR, "Is a directory");
    refused(pl, text("driver=file,filename=%s/none", dir), ENOENT, "none");
    refused(pl, text("driver=file,filename=%s/fifo", dir), EINVAL, "regular file");
    refused(pl, "driver=file,filename=/dev/null", EINVAL, "regular file");
    refused(pl, text("driver=host_device,filename=%s/plain", dir), EINVAL, "block device");
    refused(pl, text("driver=host_device,filename=%s/fifo", dir), EINVAL, "block device");
    refused(pl, text("driver=file,filename=%s/plain,aio=native", dir), EINVAL, "cache.direct=on");
    refused(pl, text("driver=file,filename=%s/plain,aio=magic", dir), EINVAL, "magic");
    refused(pl, text("driver=file,filename=%s/plain,locking=maybe", dir), EINVAL, "maybe");
    refused(pl, "driver=file", EINVAL, "file name");
    refused(pl, "driver=file,filename=", 0, "");
    platter_free(pl);
}

static void character_device_is_a_disk_of_no_bytes(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk = must_open(pl, "driver=host_device,filename=/dev/zero");
    char byte;

    assert_int_equal(blk_getlength(blk), 0);
    assert_int_equal(blk_pread(blk, 0, &byte, 1), -EIO);
    assert_int_equal(blk_pwrite(blk, 0, &byte, 1), -EIO);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(resize(blk, 0, BDRV_PREALLOC_OFF, NULL), 0);
    assert_int_equal(resize(blk, 512, BDRV_PREALLOC_OFF, NULL), -ENOTSUP);
    blk_unref(blk);
    platter_free(pl);
}

static unsigned open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    while (readdir(d) != NULL) {
        n++;
    }
    closedir(d);
    return n;
}

/* 10^4 refused opens of every kind leave no descriptor and no memory of the budget. */
static void failed_opens_leak_nothing(void **state)
{
    static const char *const bad[] = {
        "driver=file,filename=%s/plain,aio=native",
        "driver=file,filename=%s/plain,unknown=1",
        "driver=file,filename=%s/fifo",
        "driver=file,filename=%s",
        "driver=file,filename=%s/none",
        "driver=raw,offset=2M,file.driver=file,file.filename=%s/plain",
        "driver=raw,size=100,file.driver=file,file.filename=%s/plain",
        "driver=raw,unknown=1,file.driver=file,file.filename=%s/plain",
        "driver=file,filename=%s/held",
        "driver=raw,size=2M,file.driver=mem,file.size=1M,file.node-name=x%s",
    };
    Platter *pl = new_platter();
    Platter *other = new_platter();
    BlockBackend *holder;
    uint64_t used;
    unsigned fds;

    make_file("held", MIB);
    holder = must_open(other, text("driver=file,filename=%s/held", dir));
    assert_int_equal(blk_set_perm(holder, BDRV_PERM_CONSISTENT_READ, 0, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) { /* the pools fill */
        assert_null(try_open(pl, text(bad[i], dir), BDRV_O_RDWR, NULL));
    }
    used = platter_memory_used_bytes(pl);
    fds = open_fds();
    for (int i = 0; i < 10000; i++) {
        /* the one of the held file looks through /proc, so it is made less often */
        const char *fmt = bad[i % 200 == 8 ? 8 : i % 8];

        assert_null(try_open(pl, text(fmt, dir), BDRV_O_RDWR, NULL));
    }
    assert_null(try_open(pl, text(bad[9], dir), BDRV_O_RDWR, NULL));
    assert_int_equal(open_fds(), fds);
    assert_int_equal(platter_memory_used_bytes(pl), used);
    blk_unref(holder);
    platter_free(other);
    platter_free(pl);
}

/* ---- locks ---- */

static void locks_between_instances(void **state)
{
    Platter *a = new_platter();
    Platter *b = new_platter();
    BlockBackend *blk, *second;
    Error *err = NULL;

    make_file("locked", MIB);
    blk = must_open(a, text("driver=file,filename=%s/locked", dir));
    second = must_open(b, text("driver=file,filename=%s/locked", dir));
    blk_unref(second);

    assert_int_equal(blk_set_perm(blk, BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE,
                                  BDRV_PERM_ALL & ~BDRV_PERM_WRITE, NULL),
                     0);
    assert_null(try_open(b, text("driver=file,filename=%s/locked", dir), BDRV_O_RDWR, &err));
    assert_non_null(strstr(error_get_pretty(err), "Failed to get \"write\" lock"));
    assert_non_null(error_get_hint(err));
    assert_non_null(strstr(error_get_hint(err), text("%ld", (long)getpid())));
    error_free(err);
    err = NULL;
    second = try_open(b, text("driver=file,filename=%s/locked", dir), 0, &err);
    assert_non_null(second); /* a reader is fine */
    /* It shares no writes: somebody writes. */
    assert_true(blk_set_perm(second, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_CONSISTENT_READ, &err) <
                0);
    assert_non_null(strstr(error_get_pretty(err), "Failed to get shared \"write\" lock"));
    error_free(err);
    blk_unref(second);
    second = must_open(b, text("driver=file,filename=%s/locked,locking=off", dir));
    blk_unref(second);

    /* What is given back is free again. */
    assert_int_equal(blk_set_perm(blk, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_ALL, NULL), 0);
    second = must_open(b, text("driver=file,filename=%s/locked", dir));
    blk_unref(second);
    blk_unref(blk);
    platter_free(a);
    platter_free(b);
}

static int kept_fd = -1;
static bool keep_next;

/* As when a ring still holds the file for a moment: the description outlives the close. */
static int close_later(int fd)
{
    if (keep_next) {
        keep_next = false;
        kept_fd = fd;
        return 0;
    }
    return os_linux.close(fd);
}

/* A format needs its file for itself until it is closed. */
static void file_locks_end_with_the_node(void **state)
{
    struct os_table table = os_linux;
    Platter *pl;

    table.close = close_later;
    os_replace(&table);
    pl = new_platter();
    assert_int_equal(bdrv_create(pl, text("%s/held", dir),
                                 block_options_parse("driver=qcow2,size=1M", NULL, NULL), NULL),
                     0);
    for (int i = 0; i < 2; i++) {
        BlockBackend *blk =
            must_open(pl, text("driver=qcow2,file.driver=file,file.filename=%s/held", dir));

        keep_next = i == 0;
        blk_unref(blk);
        assert_false(keep_next);
    }
    platter_free(pl);
    os_replace(NULL);
    close(kept_fd);
}

/* ---- changes underneath ---- */

static void file_cut_underneath(void **state)
{
    Platter *pl = new_platter();
    BlockBackend *blk;
    uint8_t *buf = malloc(MIB);

    make_file("cut", MIB);
    blk = must_open(pl, text("driver=file,filename=%s/cut", dir));
    memset(buf, 1, MIB);
    assert_int_equal(blk_pwrite(blk, 0, buf, (int)MIB), MIB);
    assert_int_equal(truncate(text("%s/cut", dir), MIB / 2), 0);
    assert_int_equal(blk_pread(blk, 0, buf, (int)(MIB / 2)), MIB / 2);
    assert_int_equal(blk_pread(blk, MIB / 2, buf, 512), -EIO);
    assert_int_equal(blk_pread(blk, MIB / 2 - 512, buf, 1024), -EIO);
    blk_unref(blk);
    free(buf);
    platter_free(pl);
}

static void file_size_limit(void **state)
{
    struct rlimit old, small = {.rlim_cur = (rlim_t)MIB, .rlim_max = RLIM_INFINITY};
    Platter *pl = new_platter();
    BlockBackend *blk;
    uint8_t byte = 1;

    make_file("limit", 2 * MIB);
    blk = must_open(pl, text("driver=file,filename=%s/limit", dir));
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(blk_pwrite(blk, MIB + 10, &byte, 1), -EFBIG);
    assert_int_equal(blk_pwrite(blk, 10, &byte, 1), 1);
    assert_int_equal(resize(blk, 3 * MIB, BDRV_PREALLOC_OFF, NULL), -EFBIG);
    assert_int_equal(blk_getlength(blk), 2 * MIB);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    blk_unref(blk);
    platter_free(pl);
}

static void file_preallocation(void **state)
{
    static const enum bdrv_prealloc modes[] = {BDRV_PREALLOC_FALLOC, BDRV_PREALLOC_FULL};
    Platter *pl = new_platter();
    Error *err = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        BlockBackend *blk;

        make_file("grow", 1000);
        blk = must_open(pl, text("driver=file,filename=%s/grow", dir));
        assert_int_equal(resize(blk, MIB + 77, modes[i], NULL), 0);
        assert_int_equal(blk_getlength(blk), MIB + 77);
        assert_true(bdrv_get_allocated_file_size(blk_bs(blk)) >= MIB);
        assert_int_equal(resize(blk, 1000, modes[i], &err), -EINVAL);
        error_free(err);
        err = NULL;
        assert_int_equal(resize(blk, 2 * MIB, BDRV_PREALLOC_METADATA, &err), -ENOTSUP);
        error_free(err);
        err = NULL;
        blk_unref(blk);
    }
    platter_free(pl);
}

/* ---- create ---- */

static int create(Platter *pl, const char *name, const char *options, Error **errp)
{
    char path[256];
    BlockOptions *opts = block_options_parse(options, NULL, errp);

    assert_non_null(opts);
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return bdrv_create(pl, path, opts, errp);
}

static void create_files(void **state)
{
    Platter *pl = new_platter();
    Platter *other = new_platter();
    BlockBackend *blk;
    Error *err = NULL;
    struct stat st;

    assert_int_equal(create(pl, "new", "driver=raw,size=1M", NULL), 0);
    assert_int_equal(stat(text("%s/new", dir), &st), 0);
    assert_int_equal(st.st_size, MIB);
    assert_int_equal(create(pl, "new", "driver=file,size=2M,preallocation=full,nocow=on", NULL), 0);
    assert_int_equal(stat(text("%s/new", dir), &st), 0);
    assert_int_equal(st.st_size, 2 * MIB);
    assert_true(st.st_blocks * 512 >= 2 * MIB);
    assert_int_equal(create(pl, "new", "driver=raw,size=1M,preallocation=falloc", NULL), 0);
    assert_int_equal(stat(text("%s/new", dir), &st), 0);
    assert_true(st.st_blocks * 512 >= MIB && st.st_blocks * 512 < 2 * MIB);

    assert_true(create(pl, "new", "driver=raw", &err) < 0);
    assert_non_null(strstr(error_get_pretty(err), "size"));
    error_free(err);
    err = NULL;
    assert_true(create(pl, "new", "driver=raw,size=1M,colour=red", &err) < 0);
    assert_non_null(strstr(error_get_pretty(err), "colour"));
    error_free(err);
    err = NULL;
    assert_int_equal(create(pl, "none/new", "driver=raw,size=1M", &err), -ENOENT);
    error_free(err);
    err = NULL;

    /* Somebody uses it: it is left as it is. */
    blk = must_open(other, text("driver=file,filename=%s/new", dir));
    assert_int_equal(
        blk_set_perm(blk, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_ALL & ~BDRV_PERM_RESIZE, NULL), 0);
    assert_int_equal(create(pl, "new", "driver=raw,size=4M", &err), -EAGAIN);
    assert_non_null(strstr(error_get_pretty(err), "Failed to get \"resize\" lock"));
    error_free(err);
    assert_int_equal(stat(text("%s/new", dir), &st), 0);
    assert_int_equal(st.st_size, MIB);
    blk_unref(blk);
    platter_free(other);
    platter_free(pl);
}

/* ---- on the simulated system ---- */

struct sim {
    struct sim_world *world;
    Platter *pl;
};

static void sim_begin(struct sim *sim, const struct sim_file_options *opts)
{
    sim->world = sim_world_new(1);
    assert_non_null(sim->world);
    os_replace(sim_os_table(sim->world));
    assert_int_equal(sim_world_add_file(sim->world, "/sim/disk", MIB, opts), 0);
    sim->pl = new_platter();
}

static void sim_end(struct sim *sim)
{
    platter_free(sim->pl);
    assert_int_equal(sim_world_open_fds(sim->world), 0);
    os_replace(NULL);
    sim_world_free(sim->world);
}

static void auto_read_only(void **state)
{
    const struct sim_file_options opts = {.read_only = true};
    struct sim sim;
    BlockBackend *blk;

    sim_begin(&sim, &opts);
    refused(sim.pl, "driver=file,filename=/sim/disk", EACCES, "/sim/disk");
    blk = try_open(sim.pl, "driver=file,filename=/sim/disk,auto-read-only=on", BDRV_O_RDWR, NULL);
    assert_non_null(blk);
    assert_true(bdrv_is_read_only(blk_bs(blk)));
    blk_unref(blk);
    blk = try_open(sim.pl, "driver=raw,auto-read-only=on,file.driver=file,file.filename=/sim/disk",
                   BDRV_O_RDWR, NULL);
    assert_non_null(blk);
    assert_true(blk_is_read_only(blk));
    blk_unref(blk);
    sim_end(&sim);
}

static void failed_flush_is_final(void **state)
{
    const struct sim_rule once = {
        .calls = SIM_CALLS(SIM_CALL_SYNC), .nth = 1, .error = EIO, .lose_cache = true};
    struct sim sim;
    BlockBackend *blk;
    uint8_t byte = 1;

    sim_begin(&sim, NULL);
    blk = must_open(sim.pl, "driver=raw,file.driver=file,file.filename=/sim/disk");
    assert_int_equal(blk_pwrite(blk, 0, &byte, 1), 1);
    sim_faults_add(sim_world_faults(sim.world), &once);
    assert_int_equal(blk_flush(blk), -EIO);
    assert_int_equal(blk_flush(blk), -EIO);
    assert_int_equal(blk_pwrite(blk, 0, &byte, 1), 1);
    assert_int_equal(blk_flush(blk), -EIO);
    blk_unref(blk);
    blk = must_open(sim.pl, "driver=raw,file.driver=file,file.filename=/sim/disk");
    assert_int_equal(blk_pwrite(blk, 0, &byte, 1), 1);
    assert_int_equal(blk_flush(blk), 0);
    blk_unref(blk);

    /* Direct I/O leaves nothing in the page cache that could be lost. */
    sim_faults_clear(sim_world_faults(sim.world));
    blk = must_open(sim.pl, "driver=file,filename=/sim/disk,cache.direct=on");
    assert_int_equal(blk_pwrite(blk, 0, &byte, 1), 1);
    sim_faults_add(sim_world_faults(sim.world), &once);
    assert_int_equal(blk_flush(blk), -EIO);
    assert_int_equal(blk_flush(blk), 0);
    blk_unref(blk);
    sim_end(&sim);
}

/* A write with FUA that fails: EIO may be the page cache's, ENOSPC of the write itself is not. */
static void failed_fua_write(void **state)
{
    struct sim_rule rule = {.calls = SIM_CALLS(SIM_CALL_WRITE), .nth = 1, .error = EIO};
    uint8_t byte = 1;
    const struct iovec iov = {&byte, 1};
    const struct iov_view view = {&iov, 1, 1};
    struct sim sim;
    BlockBackend *blk;

    sim_begin(&sim, NULL);
    blk = must_open(sim.pl, "driver=file,filename=/sim/disk");
    sim_faults_add(sim_world_faults(sim.world), &rule);
    assert_int_equal(blk_pwritev(blk, 0, &view, BDRV_REQ_FUA), -EIO);
    assert_int_equal(blk_pwritev(blk, 0, &view, 0), 0);
    assert_int_equal(blk_flush(blk), -EIO);
    blk_unref(blk);

    blk = must_open(sim.pl, "driver=file,filename=/sim/disk");
    sim_faults_clear(sim_world_faults(sim.world));
    rule.error = ENOSPC;
    rule.forever = true;
    sim_faults_add(sim_world_faults(sim.world), &rule);
    assert_int_equal(blk_pwritev(blk, 0, &view, BDRV_REQ_FUA), -ENOSPC);
    sim_faults_clear(sim_world_faults(sim.world));
    assert_int_equal(blk_pwritev(blk, 0, &view, BDRV_REQ_FUA), 0);
    assert_int_equal(blk_flush(blk), 0);
    blk_unref(blk);
    sim_end(&sim);
}

/* The n-th call of an open fails, for every n: refused or opened, and nothing stays behind. */
static void every_failing_call_of_open(void **state)
{
    static const char *const disks[] = {
        "driver=file,filename=/sim/disk",
        "driver=file,filename=/sim/disk,cache.direct=on",
        "driver=raw,offset=512,file.driver=file,file.filename=/sim/disk,file.locking=on",
    };
    static const int errors[] = {EIO, EMFILE, ENOLCK, EINTR};
    struct sim sim;

    sim_begin(&sim, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(disks) * ARRAY_SIZE(errors); i++) {
        struct sim_faults *faults = sim_world_faults(sim.world);
        bool hit = true;

        for (uint64_t nth = 1; hit; nth++) {
            const struct sim_rule rule = {.calls = SIM_CALLS_FILE & ~SIM_CALLS(SIM_CALL_CLOSE),
                                          .nth = nth,
                                          .error = errors[i % ARRAY_SIZE(errors)]};
            BlockBackend *blk;
            Error *err = NULL;

            sim_faults_clear(faults);
            sim_faults_add(faults, &rule);
            blk = try_open(sim.pl, disks[i / ARRAY_SIZE(errors)], BDRV_O_RDWR, &err);
            hit = sim_faults_hits(faults) > 0;
            sim_faults_clear(faults);
            assert_true((blk == NULL) == (err != NULL));
            assert_true(hit || blk != NULL);
            error_free(err);
            blk_unref(blk);
            assert_int_equal(sim_world_open_fds(sim.world), 0);
        }
    }
    sim_end(&sim);
}

static int group_setup(void **state)
{
    return folder_begin("/tmp/platter-file-XXXXXX");
}

static int group_teardown(void **state)
{
    return folder_end();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_refusals),
        cmocka_unit_test(character_device_is_a_disk_of_no_bytes),
        cmocka_unit_test(failed_opens_leak_nothing),
        cmocka_unit_test(locks_between_instances),
        cmocka_unit_test(file_locks_end_with_the_node),
        cmocka_unit_test(file_cut_underneath),
        cmocka_unit_test(file_size_limit),
        cmocka_unit_test(file_preallocation),
        cmocka_unit_test(create_files),
        cmocka_unit_test(auto_read_only),
        cmocka_unit_test(failed_flush_is_final),
        cmocka_unit_test(failed_fua_write),
        cmocka_unit_test(every_failing_call_of_open),
    };

    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
