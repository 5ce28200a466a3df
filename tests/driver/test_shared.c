/* SPDX-License-Identifier: MIT */
/*
 * One file under several users: nodes and windows that share blocks, descriptors that share flags
 * and locks, files that others cut, sizes that cannot be told.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/coroutine.h>

#include "fixture.h"
#include "os/os.h"
#include "os/sim/sim_os.h"
#include "util/mem.h"

#define KIB INT64_C(1024)
#define MIB (INT64_C(1) << 20)

static int make_and_open(const char *name, int64_t size, int oflags)
{
    make_file(name, size);
    return open(text("%s/%s", dir, name), oflags | O_CLOEXEC);
}

/* Whether the folder's file system has direct I/O. */
static bool has_direct(void)
{
    int fd = make_and_open("direct", 4096, O_RDWR | O_DIRECT);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

/* ---- writers that share blocks ---- */

#define ROUNDS 300
#define SHARED_BYTES (64 * KIB)
#define STRIPE 100

/* Writes every second stripe of the shared range, round by round. */
struct writer {
    BlockBackend *blk;
    AioContext *ctx;
    int64_t first; /* where its view of the range begins */
    int parity;
    bool zeroes; /* every second round by zeroing */
    int failed;
    bool done;
};

static void writer_entry(void *opaque)
{
    struct writer *w = opaque;
    uint8_t buf[STRIPE];
    struct iovec iov = {buf, STRIPE};
    struct iov_view view = {&iov, 1, STRIPE};

    for (int round = 1; round <= ROUNDS; round++) {
        int64_t stripe = (round * 7 % (SHARED_BYTES / STRIPE / 2)) * 2 + w->parity;
        int64_t at = w->first + stripe * STRIPE;
        int rc;

        memset(buf, round % 255 + 1, STRIPE);
        rc = w->zeroes && round % 2 == 0 ? blk_co_pwrite_zeroes(w->blk, at, STRIPE, 0)
                                         : blk_co_pwritev(w->blk, at, &view, 0);
        w->failed += rc < 0;
    }
    w->done = true;
}

static void *writer_thread(void *opaque)
{
    struct writer *w = opaque;
    Coroutine *co;

    aio_context_set_current(w->ctx);
    co = coroutine_create(writer_entry, w);
    coroutine_enter(co);
    while (!w->done) {
        aio_poll(w->ctx, true);
    }
    aio_context_set_current(NULL);
    return NULL;
}

static uint8_t expected_byte(int64_t at, bool zeroes)
{
    int64_t stripe = at / STRIPE;
    int last = 0;

    for (int round = 1; round <= ROUNDS; round++) {
        if ((round * 7 % (SHARED_BYTES / STRIPE / 2)) * 2 + stripe % 2 == stripe) {
            last = zeroes && round % 2 == 0 ? 0 : round % 255 + 1;
        }
    }
    return (uint8_t)last;
}

static void run_writers(BlockBackend *a, BlockBackend *b, int64_t first_a, int64_t first_b,
                        bool zeroes)
{
    struct writer w[2] = {
        {.blk = a, .first = first_a, .parity = 0, .zeroes = zeroes},
        {.blk = b, .first = first_b, .parity = 1, .zeroes = zeroes},
    };
    uint8_t *got = malloc(SHARED_BYTES);
    pthread_t thread[2];

    for (int i = 0; i < 2; i++) {
        w[i].ctx = aio_context_new(NULL, NULL);
        assert_non_null(w[i].ctx);
        assert_int_equal(pthread_create(&thread[i], NULL, writer_thread, &w[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_int_equal(w[i].failed, 0);
        aio_context_unref(w[i].ctx);
    }
    assert_int_equal(blk_pread(a, first_a, got, (int)SHARED_BYTES), SHARED_BYTES);
    for (int64_t at = 0; at < SHARED_BYTES / STRIPE * STRIPE; at++) {
        if (got[at] != expected_byte(at, zeroes)) {
            fail_msg("byte %lld is %d, not %d", (long long)at, got[at], expected_byte(at, zeroes));
        }
    }
    free(got);
}

/* Two windows that overlap, two nodes that detect zeroes, over one file with direct I/O: parts of
 * one block that both write stay both. */
static void nodes_over_one_file(void **state)
{
    static const char *const above[][2] = {
        {"driver=raw,offset=512,size=1M,file=f", "driver=raw,offset=1536,size=1M,file=f"},
        {"driver=raw,detect-zeroes=on,file=f", "driver=raw,detect-zeroes=on,file=f"},
        {"driver=raw,file=f", "driver=raw,offset=1024,file=f"},
    };
    static const int64_t first[][2] = {{1024, 0}, {0, 0}, {1024, 0}};
    Platter *pl;
    BlockBackend *file;

    if (!has_direct()) {
        skip();
    }
    make_file("blocks", 2 * MIB);
    pl = new_platter();
    file = must_open_as(pl, "f0",
                        text("driver=file,filename=%s/blocks,cache.direct=on,node-name=f", dir),
                        BDRV_O_RDWR);
    for (size_t i = 0; i < ARRAY_SIZE(above); i++) {
        BlockBackend *a = must_open_as(pl, "a", above[i][0], BDRV_O_RDWR);
        BlockBackend *b = must_open_as(pl, "b", above[i][1], BDRV_O_RDWR);

        assert_int_equal(blk_pwrite_zeroes(file, 0, 2 * MIB, 0), 0);
        run_writers(a, b, first[i][0], first[i][1], i == 1);
        blk_unref(a);
        blk_unref(b);
    }
    blk_unref(file);
    platter_free(pl);
}

/* ---- descriptors ---- */

static bool is_direct(int fd)
{
    return (fcntl(fd, F_GETFL) & O_DIRECT) != 0;
}

/* Nodes over one descriptor have status flags and locks of their own, and leave the host's be. */
static void one_descriptor_two_nodes(void **state)
{
    Platter *pl = new_platter();
    int fd = make_and_open("fdset", MIB, O_RDWR);
    int mine = dup(fd);
    BlockBackend *a, *b;

    if (!has_direct()) {
        skip();
    }
    assert_int_equal(platter_add_fd(pl, 1, fd, NULL), 0);
    a = must_open_as(pl, "a", "driver=file,filename=/dev/fdset/1,cache.direct=on", BDRV_O_RDWR);
    b = must_open_as(pl, "b", "driver=file,filename=/dev/fdset/1", BDRV_O_RDWR);
    assert_true(blk_get_request_alignment(a) > 1);
    assert_int_equal(blk_get_request_alignment(b), 1);
    assert_false(is_direct(mine));
    assert_int_equal(blk_set_perm(a, BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE,
                                  BDRV_PERM_ALL & ~BDRV_PERM_WRITE, NULL),
                     -EAGAIN);
    blk_unref(b);
    assert_int_equal(blk_set_perm(a, BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE,
                                  BDRV_PERM_ALL & ~BDRV_PERM_WRITE, NULL),
                     0);
    refused_as(pl, "driver=file,filename=/dev/fdset/1", BDRV_O_RDWR, 0,
               "Failed to get \"write\" lock");
    /* the end of the node is the end of its locks, though the descriptor stays */
    blk_unref(a);
    b = must_open_as(pl, "b", "driver=file,filename=/dev/fdset/1", BDRV_O_RDWR);
    blk_unref(b);
    close(mine);
    platter_free(pl);
}

/* ---- locks ---- */

static void two_nodes_of_one_instance(void **state)
{
    const char *options = "driver=file,filename=%s/twice";
    Platter *pl = new_platter();
    BlockBackend *a, *b;

    make_file("twice", MIB);
    /* readers that share nothing but reading get along */
    a = must_open_as(pl, "a", text(options, dir), 0);
    b = must_open_as(pl, "b", text(options, dir), 0);
    assert_int_equal(blk_set_perm(a, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_CONSISTENT_READ, NULL),
                     0);
    assert_int_equal(blk_set_perm(b, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_CONSISTENT_READ, NULL),
                     0);
    refused_as(pl, text(options, dir), BDRV_O_RDWR, 0, "Failed to get \"write\" lock");
    blk_unref(b);
    blk_unref(a);

    /* a writer that shares no writing keeps the second one out, and readers that demand peace */
    a = must_open_as(pl, "a", text(options, dir), BDRV_O_RDWR);
    assert_int_equal(blk_set_perm(a, BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE,
                                  BDRV_PERM_CONSISTENT_READ, NULL),
                     0);
    refused_as(pl, text(options, dir), BDRV_O_RDWR, 0, "Failed to get \"write\" lock");
    b = must_open_as(pl, "b", text(options, dir), 0);
    assert_int_equal(blk_set_perm(b, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_CONSISTENT_READ, NULL),
                     -EAGAIN);
    blk_unref(b);

    /* force-share demands nothing of others, but is refused where nobody may read */
    b = must_open_as(pl, "b", text("driver=file,filename=%s/twice,force-share=on", dir), 0);
    assert_int_equal(blk_set_perm(b, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_CONSISTENT_READ, NULL),
                     0);
    blk_unref(b);
    b = must_open_as(
        pl, "b", text("driver=raw,force-share=on,file.driver=file,file.filename=%s/twice", dir), 0);
    assert_int_equal(blk_set_perm(b, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_CONSISTENT_READ, NULL),
                     0);
    blk_unref(b);
    assert_int_equal(blk_set_perm(a, BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE, 0, NULL), 0);
    refused_as(pl, text("driver=file,filename=%s/twice,force-share=on", dir), 0, 0,
               "Failed to get \"consistent read\" lock");
    refused_as(pl, text("driver=file,filename=%s/twice,force-share=on", dir), BDRV_O_RDWR, 0,
               "force-share=on can only be used with read-only images");
    blk_unref(a);
    platter_free(pl);
}

/* What is read-only stays so all the way down, unless its own options say otherwise. */
static void read_only_goes_down(void **state)
{
    Platter *pl = new_platter();
    BlockDriverState *file;
    BlockBackend *blk;

    make_file("ro", MIB);
    blk = must_open_as(pl, "a",
                       text("driver=raw,read-only=on,file.driver=file,file.filename=%s/ro", dir),
                       BDRV_O_RDWR);
    file = bdrv_get_child(blk_bs(blk), "file");
    assert_true(blk_is_read_only(blk));
    assert_true(bdrv_is_read_only(file));
    assert_int_equal(bdrv_get_flags(file) & BDRV_O_RDWR, 0);
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), -EPERM);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), -EPERM);
    assert_int_equal(blk_pdiscard(blk, 0, 512), -EPERM);
    assert_int_equal(blk_truncate(blk, 0), -EPERM);
    assert_true(blk_set_perm(blk, BDRV_PERM_WRITE, BDRV_PERM_ALL, NULL) < 0);
    blk_unref(blk);
    /* a child that its own options make writable serves no writes of a read-only parent */
    blk = must_open_as(
        pl, "a",
        text("driver=raw,read-only=on,file.driver=file,file.filename=%s/ro,file.read-only=off",
             dir),
        BDRV_O_RDWR);
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), -EPERM);
    assert_true(blk_set_perm(blk, BDRV_PERM_WRITE, BDRV_PERM_ALL, NULL) < 0);
    blk_unref(blk);
    platter_free(pl);
}

/* ---- files that others cut ---- */

static void cut_underneath(void **state)
{
    static const char *const disks[] = {
        "driver=file,filename=%s/cut",
        "driver=file,filename=%s/cut,aio=threads",
        "driver=file,filename=%s/cut,cache.direct=on",
        "driver=raw,offset=4096,file.driver=file,file.filename=%s/cut,file.cache.direct=on",
    };
    bool direct = has_direct();
    Platter *pl = new_platter();
    uint8_t *buf = malloc(MIB);

    for (size_t i = 0; i < ARRAY_SIZE(disks); i++) {
        int64_t shift = i == 3 ? 4096 : 0;
        int64_t now = MIB / 2 - 1000;
        int64_t whole = i < 2 ? now : MIB / 2 - 4096; /* direct I/O reads blocks */
        BlockBackend *blk;

        if (i >= 2 && !direct) {
            break;
        }
        make_file("cut", MIB);
        blk = must_open_as(pl, "cut", text(disks[i], dir), BDRV_O_RDWR);
        memset(buf, 1, MIB);
        assert_int_equal(blk_pwrite(blk, 0, buf, (int)(MIB - shift)), MIB - shift);
        assert_int_equal(truncate(text("%s/cut", dir), now + shift), 0);
        memset(buf, 0, MIB);
        assert_int_equal(blk_pread(blk, 0, buf, (int)whole), whole);
        assert_int_equal(buf[whole - 1], 1);
        assert_int_equal(blk_pread(blk, now - 1, buf, 2), -EIO);
        assert_int_equal(blk_pread(blk, now, buf, 1), -EIO);
        assert_int_equal(blk_pread(blk, MIB - shift - 512, buf, 512), -EIO);
        /* part of a block whose rest is gone: not filled up with what nobody wrote */
        assert_int_equal(blk_pwrite(blk, MIB / 2 + 4096 + 1, buf, 10), i < 2 ? 10 : -EIO);
        blk_unref(blk);
    }
    free(buf);
    platter_free(pl);
}

/* ---- create ---- */

/* A refused creation has not touched what was there. */
static void refused_create_touches_nothing(void **state)
{
    static const char *const bad[] = {
        "driver=raw,size=1M,colour=red",   "driver=file,size=1M,colour=red",
        "driver=file,size=1M,sise=2M",     "driver=raw,size=1M,preallocation=some",
        "driver=file,size=1M,nocow=maybe", "driver=file",
        "driver=raw,size=1M,offset=512",   "driver=file,size=1M,preallocation=metadata",
    };
    Platter *pl = new_platter();
    struct stat st;

    make_file("keep", 12345);
    for (size_t i = 0; i < ARRAY_SIZE(bad) * 2; i++) {
        const char *name = i % 2 == 0 ? "keep" : "never";
        Error *err = NULL;
        char path[256];

        snprintf(path, sizeof(path), "%s/%s", dir, name);
        assert_true(bdrv_create(pl, path, block_options_parse(bad[i / 2], NULL, NULL), &err) < 0);
        assert_non_null(err);
        error_free(err);
        assert_int_equal(stat(text("%s/keep", dir), &st), 0);
        assert_int_equal(st.st_size, 12345);
        assert_int_equal(access(text("%s/never", dir), F_OK), -1);
    }
    platter_free(pl);
}

static void count_bh(void *opaque)
{
    (*(int *)opaque)++;
}

/* The loop of the control thread goes on while space is written. */
static void create_polls(void **state)
{
    Platter *pl = new_platter();
    AioContext *ctx = platter_get_main_context(pl);
    BlockOptions *opts = block_options_parse("driver=raw,size=8M,preallocation=full", NULL, NULL);
    int ran = 0;
    char path[256];
    struct stat st;

    aio_bh_schedule_oneshot(ctx, count_bh, &ran);
    snprintf(path, sizeof(path), "%s/full", dir);
    assert_int_equal(bdrv_create(pl, path, opts, NULL), 0);
    assert_int_equal(ran, 1);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size == 8 * MIB && st.st_blocks * 512 >= 8 * MIB);
    platter_free(pl);
}

/* ---- sizes that cannot be told ---- */

/* The disk stays, as large as is sure; the next answer puts it right. */
static void size_not_told_after_resize(void **state)
{
    /* the first look is the resize's own, the second asks for the new size */
    const struct sim_rule rule = {
        .calls = SIM_CALLS(SIM_CALL_STAT), .nth = 2, .forever = true, .error = EIO};
    static const int64_t wish[] = {MIB / 4, 2 * MIB};
    struct sim_world *world = sim_world_new(1);
    uint8_t byte = 5;
    Platter *pl;

    os_replace(sim_os_table(world));
    assert_int_equal(sim_world_add_file(world, "/sim/disk", MIB, NULL), 0);
    pl = new_platter();
    for (size_t i = 0; i < ARRAY_SIZE(wish); i++) {
        BlockBackend *blk = must_open_as(
            pl, "d", "driver=raw,file.driver=file,file.filename=/sim/disk", BDRV_O_RDWR);
        int64_t old = blk_getlength(blk);
        int64_t sure = wish[i] < old ? wish[i] : old;

        sim_faults_add(sim_world_faults(world), &rule);
        assert_int_equal(resize(blk, wish[i], BDRV_PREALLOC_OFF, NULL), -EIO);
        sim_faults_clear(sim_world_faults(world));
        assert_int_equal(blk_getlength(blk), sure);
        assert_int_equal(blk_pwrite(blk, sure - 1, &byte, 1), 1);
        assert_int_equal(blk_pread(blk, sure - 1, &byte, 1), 1);
        assert_int_equal(blk_pread(blk, sure, &byte, 1), -EIO);
        assert_int_equal(resize(blk, wish[i], BDRV_PREALLOC_OFF, NULL), 0);
        assert_int_equal(blk_getlength(blk), wish[i]);
        blk_unref(blk);
    }
    platter_free(pl);
    os_replace(NULL);
    sim_world_free(world);
}

/* Without a way to open it anew, the host's choice of direct I/O stands. */
static void shared_descriptor(void **state)
{
    const struct sim_file_options opts = {.dio_mem_align = 512, .dio_offset_align = 512};
    struct sim_world *world = sim_world_new(1);
    BlockBackend *blk;
    Platter *pl;
    int fd;

    os_replace(sim_os_table(world));
    assert_int_equal(sim_world_add_file(world, "/sim/disk", MIB, &opts), 0);
    fd = os->open("/sim/disk", O_RDWR, 0);
    assert_true(fd >= 0);
    pl = new_platter();
    assert_int_equal(platter_add_fd(pl, 3, fd, NULL), 0);
    refused_as(pl, "driver=file,filename=/dev/fdset/3,cache.direct=on", BDRV_O_RDWR, 0,
               "cannot be opened anew");
    blk = must_open_as(pl, "d", "driver=file,filename=/dev/fdset/3", BDRV_O_RDWR);
    assert_int_equal(blk_pwrite(blk, 1, "x", 1), 1);
    blk_unref(blk);
    platter_free(pl);
    assert_int_equal(sim_world_open_fds(world), 0);
    os_replace(NULL);
    sim_world_free(world);
}

static int group_setup(void **state)
{
    return folder_begin("/var/tmp/platter-shared-XXXXXX");
}

static int group_teardown(void **state)
{
    return folder_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_over_one_file),
        cmocka_unit_test(one_descriptor_two_nodes),
        cmocka_unit_test(two_nodes_of_one_instance),
        cmocka_unit_test(read_only_goes_down),
        cmocka_unit_test(cut_underneath),
        cmocka_unit_test(refused_create_touches_nothing),
        cmocka_unit_test(create_polls),
        cmocka_unit_test(size_not_told_after_resize),
        cmocka_unit_test(shared_descriptor),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
