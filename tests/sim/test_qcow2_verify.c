/* SPDX-License-Identifier: MIT */
/*
 * The second reader of qcow2 beside the installed reference: images of every shape are found sound
 * and read alike; damage that the reference's check finds is found, and of the same kind. Skipped
 * where qemu-img is not installed.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/sim/sim_rng.h"
#include "qcow2_verify.h"

#define DAMAGES 3 /* to each shape; times PLATTER_ROUNDS */

struct shape {
    const char *name;
    const char *options; /* of qemu-img create */
    const char *size;
    bool data_file;
    bool no_snapshots;
    bool no_compressed;
    bool backing;
};

static const struct shape shapes[] = {
    {.name = "default", .options = "compat=1.1", .size = "4M"},
    {.name = "version 2", .options = "compat=0.10", .size = "4M"},
    {.name = "512", .options = "cluster_size=512", .size = "256k"},
    {.name = "512, 1 bit",
     .options = "cluster_size=512,refcount_bits=1",
     .size = "256k",
     .no_snapshots = true,
     .no_compressed = true},
    {.name = "512, 64 bits", .options = "cluster_size=512,refcount_bits=64", .size = "256k"},
    {.name = "4k, 2 bits",
     .options = "cluster_size=4k,refcount_bits=2",
     .size = "1M",
     .no_compressed = true},
    {.name = "4k, 8 bits", .options = "cluster_size=4k,refcount_bits=8", .size = "1M"},
    {.name = "4k, 32 bits", .options = "cluster_size=4k,refcount_bits=32", .size = "1M"},
    {.name = "extended", .options = "extended_l2=on,cluster_size=16k", .size = "2M"},
    {.name = "extended backing", .options = "extended_l2=on", .size = "4M", .backing = true},
    {.name = "zstd", .options = "compression_type=zstd", .size = "4M"},
    {.name = "backing", .options = "cluster_size=4k", .size = "1M", .backing = true},
    {.name = "data file",
     .options = "data_file=data.raw",
     .size = "2M",
     .data_file = true,
     .no_snapshots = true,
     .no_compressed = true},
    {.name = "raw data file",
     .options = "data_file=data.raw,data_file_raw=on",
     .size = "2M",
     .data_file = true,
     .no_snapshots = true,
     .no_compressed = true},
    {.name = "metadata", .options = "preallocation=metadata", .size = "1M"},
    {.name = "odd size", .options = "cluster_size=4k", .size = "1000k"},
};

static char folder[] = "/tmp/qcow2_verify_XXXXXX";

static int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *fmt, ...)
{
    char command[1024], line[1200];
    va_list ap;
    int rc;

    va_start(ap, fmt);
    vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    snprintf(line, sizeof(line), "cd %s && { %s; } >out 2>&1", folder, command);
    rc = system(line);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

static struct qv_bytes map(const char *name)
{
    char path[128];
    struct stat st;
    struct qv_bytes b = {0};
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0) {
        return b;
    }
    b.bytes = (uint64_t)st.st_size;
    b.data = mmap(NULL, b.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    return b;
}

static void unmap(struct qv_bytes b)
{
    if (b.data) {
        munmap((void *)(uintptr_t)b.data, b.bytes);
    }
}

struct views {
    struct qv_bytes file, data, backing;
};

static struct views open_views(const struct shape *s, const char *name)
{
    return (struct views){
        .file = map(name),
        .data = s->data_file ? map("data.raw") : (struct qv_bytes){0},
        .backing = s->backing ? map("backing.raw") : (struct qv_bytes){0},
    };
}

static void close_views(const struct views *v)
{
    unmap(v->file);
    unmap(v->data);
    unmap(v->backing);
}

/* ---- making images ---- */

static unsigned cluster_bytes_of(const struct shape *s)
{
    const char *text = strstr(s->options, "cluster_size=");
    char *end;
    unsigned long n = text ? strtoul(text + 13, &end, 10) : 65536;

    return (unsigned)(text && *end == 'k' ? n << 10 : n);
}

/* Compressed writes last: qemu-img 7.2 packs compressed data into a cluster that was given to other
 * data when what it had packed there first was overwritten meanwhile. */
static void write_some(struct sim_rng *rng, const struct shape *s, uint64_t disk_bytes)
{
    uint64_t cluster = cluster_bytes_of(s);
    char line[900] = "qemu-io -f qcow2";

    for (int i = 0; i < 9; i++) {
        uint64_t offset = sim_rng_below(rng, disk_bytes / 512) * 512;
        uint64_t bytes = (1 + sim_rng_below(rng, disk_bytes / 2048)) * 512;
        const char *verb = sim_rng_percent(rng, 70)   ? "write -P 3"
                           : sim_rng_percent(rng, 50) ? "write -z"
                                                      : "discard";

        if (i >= 6 && !s->no_compressed) {
            verb = "write -c -P 9";
            offset = offset / cluster * cluster;
            bytes = cluster;
        }
        bytes = bytes < disk_bytes - offset ? bytes : disk_bytes - offset;
        snprintf(line + strlen(line), sizeof(line) - strlen(line), " -c '%s %llu %llu'", verb,
                 (unsigned long long)offset, (unsigned long long)bytes);
    }
    run("%s image", line);
}

static uint64_t size_of(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    return *end == 'M' ? n << 20 : n << 10;
}

static void make_image(struct sim_rng *rng, const struct shape *s)
{
    assert_int_equal(run("rm -f image data.raw backing.raw"), 0);
    if (s->backing) {
        assert_int_equal(run("qemu-img create -q -f raw backing.raw 900k && "
                             "qemu-io -f raw -c 'write -P 7 0 300k' -c 'write -P 8 500k 400k' "
                             "backing.raw"),
                         0);
    }
    assert_int_equal(run("qemu-img create -q -f qcow2 -o '%s' %s image %s", s->options,
                         s->backing ? "-b backing.raw -F raw" : "", s->size),
                     0);
    write_some(rng, s, size_of(s->size));
    if (!s->no_snapshots) {
        assert_int_equal(run("qemu-img snapshot -c one image"), 0);
        write_some(rng, s, size_of(s->size));
        assert_int_equal(run("qemu-img snapshot -c two image"), 0);
        write_some(rng, s, size_of(s->size));
        assert_int_equal(run("qemu-img snapshot -d one image"), 0);
    }
    if (!strstr(s->options, "0.10")) {
        assert_int_equal(run("qemu-img bitmap --add image b0"), 0);
        write_some(rng, s, size_of(s->size));
        assert_int_equal(run("qemu-img bitmap --add -g 64k image b1"), 0);
    }
}

/* ---- sound images ---- */

static void same_content(struct qv_image *im, int snapshot, const char *raw)
{
    struct qv_bytes want = map(raw);
    uint8_t *have = malloc(want.bytes);

    assert_non_null(have);
    assert_true(qv_read(im, snapshot, 0, have, want.bytes));
    assert_int_equal(memcmp(have, want.data, want.bytes), 0);
    free(have);
    unmap(want);
}

static bool wanted(const struct shape *s)
{
    const char *only = getenv("PLATTER_SHAPE");

    return !only || strcmp(only, s->name) == 0;
}

static void check_shape(const struct shape *s, uint64_t seed)
{
    struct qv_image im = {0};
    struct sim_rng rng;
    struct views v;

    sim_rng_init(&rng, seed);
    make_image(&rng, s);
    v = open_views(s, "image");
    if (!qv_parse(&im, v.file, v.data, v.backing)) {
        fail_msg("%s: %s", s->name, im.text);
    }
    qv_verify(&im);
    if (im.worst != QV_FINE) {
        fail_msg("%s: %s (seed %llu)", s->name, im.text, (unsigned long long)seed);
    }
    assert_int_equal(run("qemu-img convert -f qcow2 -O raw image disk.raw"), 0);
    same_content(&im, -1, "disk.raw");
    if (!s->no_snapshots) {
        assert_int_equal(im.h.snapshot_count, 1);
        assert_int_equal(run("qemu-img convert -f qcow2 -O raw -l two image two.raw"), 0);
        same_content(&im, qv_snapshot_find(&im, "two"), "two.raw");
    }
    if (!strstr(s->options, "0.10")) {
        assert_int_equal(im.bitmap_count, 2);
        assert_non_null(qv_bitmap_find(&im, "b0"));
        assert_null(qv_bitmap_find(&im, "b2"));
    }
    qv_fini(&im);
    close_views(&v);
}

static void test_sound_images(void **state)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        if (wanted(&shapes[i])) {
            check_shape(&shapes[i], 100 + i);
        }
    }
}

/* ---- bitmaps ---- */

static void test_bits(void **state)
{
    static const struct shape plain = {.name = "bitmap"};
    struct qv_image im = {0};
    const struct qv_bitmap *b;
    struct views v;

    assert_int_equal(run("rm -f image; qemu-img create -q -f qcow2 image 4M && "
                         "qemu-img bitmap --add -g 64k image b && "
                         "qemu-io -c 'write 640k 100k' -c 'write 2M 1' image && "
                         "qemu-img bitmap --add -g 512 image c"),
                     0);
    v = open_views(&plain, "image");
    assert_true(qv_parse(&im, v.file, v.data, v.backing));
    b = qv_bitmap_find(&im, "b");
    assert_non_null(b);
    assert_int_equal(b->flags, 2);
    for (uint64_t i = 0; i < 64; i++) {
        assert_int_equal(qv_bitmap_bit(&im, b, i), i == 10 || i == 11 || i == 32);
    }
    b = qv_bitmap_find(&im, "c");
    assert_non_null(b);
    assert_false(qv_bitmap_bit(&im, b, 0));
    qv_fini(&im);
    close_views(&v);
}

/* ---- damage ---- */

/* Where a change means something: a refcount, an entry of an L1 or L2 table. */
static uint64_t pick_place(struct sim_rng *rng, const struct qv_image *im)
{
    uint64_t l1 = im->h.l1_offset + sim_rng_below(rng, im->h.l1_entries) * 8;
    uint64_t table;

    switch (sim_rng_below(rng, 4)) {
    case 0:
        table = qv_be64(im->file, im->h.reftable_offset);
        return table + sim_rng_below(rng, 64);
    case 1:
        return l1 + sim_rng_below(rng, 8);
    default:
        table = qv_be64(im->file, l1) & QV_OFFSET;
        return table ? table + sim_rng_below(rng, im->l2_entries) * im->l2_words * 8 +
                           sim_rng_below(rng, 8)
                     : l1;
    }
}

static int class_of(const struct qv_image *im)
{
    return im->corruptions || im->stale || im->mismatched ? 2 : im->leaks ? 3 : 0;
}

static void damage_shape(const struct shape *s, uint64_t seed, unsigned long damages,
                         unsigned *ret_found)
{
    struct qv_image im = {0};
    struct sim_rng rng;

    sim_rng_init(&rng, seed);
    make_image(&rng, s);
    for (unsigned long i = 0; i < damages; i++) {
        struct views v = open_views(s, "image");
        uint64_t place;
        unsigned bit = 1u << sim_rng_below(&rng, 8);
        int theirs, ours;

        assert_true(qv_parse(&im, v.file, v.data, v.backing));
        place = pick_place(&rng, &im);
        bit = v.file.data[place] ^ bit;
        close_views(&v);
        assert_int_equal(run("cp --sparse=always image broken && printf '\\%o' | dd of=broken bs=1 "
                             "seek=%llu conv=notrunc status=none",
                             bit, (unsigned long long)place),
                         0);
        theirs = run("qemu-img check -q -f qcow2 broken");
        v = open_views(s, "broken");
        ours = 1;
        if (qv_parse(&im, v.file, v.data, v.backing)) {
            qv_verify(&im);
            ours = class_of(&im);
        }
        if (ours != theirs) {
            printf("%s: byte %#llx is now %#x: check says %d, we %d: %s (seed %llu)\n", s->name,
                   (unsigned long long)place, bit, theirs, ours, im.text, (unsigned long long)seed);
        }
        /* what it calls an error is one for us, which may be stricter about reserved bits */
        assert_true(ours != 0 || theirs == 0);
        assert_int_equal(ours == 3, theirs == 3);
        *ret_found += ours != 0;
        close_views(&v);
    }
    qv_fini(&im);
}

static void test_damage_is_found_as_the_reference_finds_it(void **state)
{
    const char *text = getenv("PLATTER_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 4711;
    const char *rounds = getenv("PLATTER_ROUNDS");
    unsigned long damages = DAMAGES * (rounds ? strtoul(rounds, NULL, 0) : 1);
    unsigned found = 0;

    printf("PLATTER_SEED=%llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        if (wanted(&shapes[i])) {
            damage_shape(&shapes[i], seed + i, damages, &found);
        }
    }
    printf("%u damages were harmful\n", found);
    assert_true(found > 0);
}

static void test_what_is_no_image(void **state)
{
    static uint8_t buf[4096];
    struct qv_image im = {0};
    struct qv_bytes none = {0};

    assert_false(qv_parse(&im, (struct qv_bytes){buf, 0}, none, none));
    assert_false(qv_parse(&im, (struct qv_bytes){buf, sizeof(buf)}, none, none));
    memcpy(buf, "QFI\xfb\0\0\0\3", 8);
    assert_false(qv_parse(&im, (struct qv_bytes){buf, sizeof(buf)}, none, none));
    qv_fini(&im);
}

static int begin(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int end(void **state)
{
    char line[128];

    snprintf(line, sizeof(line), "rm -rf %s", folder);
    return system(line) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_no_image),
        cmocka_unit_test(test_sound_images),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_damage_is_found_as_the_reference_finds_it),
    };

    if (system("qemu-img --version >/dev/null 2>&1") != 0) {
        return 77;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests(tests, begin, end);
}
