/* SPDX-License-Identifier: MIT */
/*
 * Operations on a whole qcow2 image, every call of which fails: once, or from that call on until
 * the operation has ended. Then the storage is well again, and the node that is still open
 *  - shows the disk as it was before the operation, or, where that succeeded, as it is afterwards;
 *  - can be written, and checks clean;
 *  - does the operation again, with success, and checks clean;
 *  - and once closed leaves an image that a reader which shares no code with the driver finds
 * clean. It is also closed at once, and with the error still there: the image is sound then, and
 * who opens it next and repairs it has a clean one.
 *
 * And the creation of an image: success is only told of one that is clean at once.
 *
 * PLATTER_ALL=1 takes every call, PLATTER_SCENARIO=NAME one operation.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <platter/image.h>
#include <platter/options.h>

#include "qcow2_undo.h"
#include "qcow2_verify.h"

#if defined(__SANITIZE_THREAD__)
#define STRIDE 67
#elif defined(__SANITIZE_ADDRESS__)
#define STRIDE 29
#else
#define STRIDE 5
#endif

enum ending { GO_ON, CLOSE_AT_ONCE, CLOSE_BROKEN, ENDINGS };
static const char *const ending_names[] = {"goes on", "closes", "closes, still broken"};

/* ---- judging ---- */

/* Until the operation is known to be done the disk is the one before. */
static void judge_disk(struct undo *t, const char *when, bool done)
{
    const uint8_t *want = done ? t->after : t->before;
    uint64_t bytes = done ? t->after_bytes : t->before_bytes;
    static uint8_t disk[DISK_MAX];
    int rc;

    if (blk_getlength(t->h.blk) != (int64_t)bytes) {
        undo_wrong(t, "%s: a disk of %lld bytes instead of %llu", when,
                   (long long)blk_getlength(t->h.blk), (unsigned long long)bytes);
        return;
    }
    rc = blk_pread(t->h.blk, 0, disk, (int)bytes);
    if (rc < 0) {
        undo_wrong(t, "%s: read: %s", when, strerror(-rc));
    } else if (memcmp(disk, want, bytes) != 0) {
        undo_wrong(t, "%s: the disk holds other bytes", when);
    }
}

static void tell(void *opaque, const char *text)
{
    struct undo *t = opaque;

    if (getenv("PLATTER_TRACE") != NULL) {
        fprintf(stderr, "%s: %s\n", t->op->name, text);
    }
}

static void judge_check(struct undo *t, const char *when, unsigned fix, bool leaks)
{
    struct bdrv_check_options options = {
        .size = sizeof(options), .fix = fix, .finding = tell, .opaque = t};
    struct bdrv_check_result result = {0};
    Error *err = NULL;

    if (undo_need(t, when, bdrv_check(undo_node(t), &options, &result, &err), &err) == 0 &&
        (result.corruptions > 0 || (result.leaks > 0 && !leaks) || result.check_errors > 0)) {
        undo_wrong(t, "%s: check finds %lld corruptions, %lld leaks, %lld errors", when,
                   (long long)result.corruptions, (long long)result.leaks,
                   (long long)result.check_errors);
    }
}

/* The closed file. clean: nothing may be wrong with it; else what the next writable open mends. */
static void judge_file(struct undo *t, const char *when, bool clean)
{
    struct sim_disk *disk = sim_world_clone_disk(t->h.world, SIM_DISK_PATH);
    uint64_t bytes = sim_disk_size(disk);
    uint8_t *buf = malloc(bytes);
    struct qv_image im = {0};

    assert_non_null(buf);
    sim_disk_read(disk, 0, buf, bytes);
    if (!qv_parse(&im, (struct qv_bytes){buf, bytes}, (struct qv_bytes){0}, (struct qv_bytes){0})) {
        undo_wrong(t, "%s: no image any more: %s", when, im.text);
    } else {
        qv_verify(&im);
        if (!qv_sound(&im) || (im.mismatched > 0 && !qv_dirty(&im) && im.h.version >= 3) ||
            (clean && (im.mismatched > 0 || im.leaks > 0 || qv_dirty(&im)))) {
            undo_wrong(t, "%s: dirty %d, %llu leaks, %llu mismatched, %llu stale, %llu corrupt: %s",
                       when, qv_dirty(&im), (unsigned long long)im.leaks,
                       (unsigned long long)im.mismatched, (unsigned long long)im.stale,
                       (unsigned long long)im.corruptions, im.text);
        }
    }
    qv_fini(&im);
    free(buf);
    sim_disk_free(disk);
}

/* ---- one run ---- */

static void open_disk(struct undo *t)
{
    if (harness_open(&t->h, IMAGE, BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_NO_BACKING) < 0) {
        undo_wrong(t, "open: %s", t->h.error);
    }
}

static void close_disk(struct undo *t)
{
    blk_unref(t->h.blk);
    t->h.blk = NULL;
}

static void begin(struct undo *t, const struct operation *op, const char *image)
{
    BlockOptions *create;
    Error *err = NULL;
    char text[160];

    memset(t, 0, sizeof(*t));
    t->op = op;
    t->image = image;
    t->old = strstr(image, "compat=0.10") != NULL;
    t->before_bytes = DISK_BYTES;
    harness_begin(&t->h, 1, 0, NULL);
    assert_int_equal(harness_platter(&t->h), 0);
    snprintf(text, sizeof(text), "driver=qcow2,size=%u,%s", DISK_BYTES, image);
    create = block_options_parse(text, NULL, &err);
    assert_non_null(create);
    if (bdrv_create(t->h.pl, SIM_DISK_PATH, create, &err) < 0) {
        fail_msg("create: %s", error_get_pretty(err));
    }
    open_disk(t);
    assert_string_equal(t->wrong, "");
    if (op->prepare != NULL) {
        op->prepare(t);
    }
    blk_flush(t->h.blk);
    assert_string_equal(t->wrong, "");
    memcpy(t->after, t->before, sizeof(t->after));
    t->after_bytes = t->before_bytes;
    if (op->after != NULL) {
        op->after(t->after, &t->after_bytes);
    }
}

static void go_on(struct undo *t, bool done)
{
    uint64_t offset = 4 * KIB;
    Error *err = NULL;
    int rc;

    judge_disk(t, "after the error", done);
    judge_check(t, "check after the error", 0, false);
    undo_fill(t->before, offset, 3 * KIB, 6);
    undo_fill(t->after, offset, 3 * KIB, 6);
    rc = blk_pwrite(t->h.blk, (int64_t)offset, t->before + offset, 3 * KIB);
    rc = rc < 0 ? rc : blk_flush(t->h.blk);
    if (rc < 0) {
        undo_wrong(t, "write and flush after the error: %s", strerror(-rc));
    }
    judge_disk(t, "written after the error", done);
    if (t->wrong[0] != '\0' || (done && t->op->lasting) || t->op->once) {
        return;
    }
    if (t->op->after == undo_snapshot_content) {
        t->op->after(t->after, &t->after_bytes);
    }
    if (undo_need(t, "again", t->op->run(t, &err), &err) == 0) {
        judge_disk(t, "done again", true);
        judge_check(t, "check after it was done again", 0, false);
    }
}

/* With the call nth (0: none) of calls failing. Returns how often one failed. */
static uint64_t run(struct undo *t, uint64_t calls, uint64_t nth, bool forever, int error,
                    enum ending ending)
{
    struct sim_faults *faults = sim_world_faults(t->h.world);
    Error *err = NULL;
    uint64_t hits;
    bool was_left;
    int rc;

    sim_faults_clear(faults);
    if (nth > 0) {
        sim_faults_add(faults, &(struct sim_rule){
                                   .calls = calls, .nth = nth, .forever = forever, .error = error});
    }
    rc = t->op->run(t, &err);
    hits = sim_faults_hits(faults);
    if ((rc < 0) != (err != NULL)) {
        undo_wrong(t, "result %d and Error do not agree", rc);
    }
    if (rc < 0 && hits == 0) {
        undo_wrong(t, "nothing failed, but: %s", error_get_pretty(err));
    }
    error_free(err);
    was_left = ending == CLOSE_BROKEN || bdrv_broken_reason(undo_node(t)) != NULL;
    if (ending != CLOSE_BROKEN) {
        sim_faults_clear(faults);
    }
    if (ending == GO_ON && !was_left) {
        go_on(t, rc == 0);
    }
    close_disk(t);
    sim_faults_clear(faults);
    judge_file(t, "closed", !was_left);
    open_disk(t);
    if (t->wrong[0] == '\0') {
        if (ending == CLOSE_AT_ONCE && !was_left) {
            judge_disk(t, "opened anew", rc == 0);
        }
        if (was_left) {
            judge_check(t, "repair of what was opened anew", BDRV_FIX_LEAKS | BDRV_FIX_ERRORS,
                        false);
        }
        judge_check(t, "check of what was opened anew", 0, false);
        close_disk(t);
        judge_file(t, "closed again", true);
    }
    return hits;
}

static unsigned long runs, wrong_runs;

static uint64_t run_one(const struct operation *op, const char *image, uint64_t calls, uint64_t nth,
                        bool forever, int error, enum ending ending)
{
    static struct undo t;
    uint64_t hits;

    begin(&t, op, image);
    hits = run(&t, calls, nth, forever, error, ending);
    close_disk(&t);
    assert_int_equal(harness_end(&t.h), 0);
    runs++;
    if (t.wrong[0] != '\0') {
        wrong_runs++;
        fprintf(stderr, "%s, %s: %s at call %llu %s, then it %s\n    %s\n", op->name, image,
                strerror(error), (unsigned long long)nth, forever ? "and all later" : "once",
                ending_names[ending], t.wrong);
    }
    return hits;
}

static const char *const images[] = {
    "cluster_size=4k",
    "cluster_size=4k,compat=0.10",
    "cluster_size=512",
    "cluster_size=4k,lazy_refcounts=on",
    "cluster_size=16k,extended_l2=on",
};

#define CALLS_WRITES                                                                               \
    (SIM_CALLS(SIM_CALL_WRITE) | SIM_CALLS(SIM_CALL_FALLOCATE) | SIM_CALLS(SIM_CALL_SYNC) |        \
     SIM_CALLS(SIM_CALL_TRUNCATE))

static const struct {
    uint64_t calls;
    int error;
} faults[] = {
    {.calls = CALLS_WRITES, .error = EIO},
    {.calls = CALLS_WRITES | SIM_CALLS_DATA, .error = EIO},
    {.calls = SIM_CALLS(SIM_CALL_WRITE) | SIM_CALLS(SIM_CALL_TRUNCATE), .error = ENOSPC},
};

static void test_each_call(const struct operation *op, const char *image)
{
    uint64_t stride = getenv("PLATTER_ALL") != NULL ? 1 : STRIDE;
    unsigned long before = runs;

    if (op->version_3 && strstr(image, "compat=0.10") != NULL) {
        return;
    }
    if (op->downgrades && strstr(image, "extended_l2") != NULL) {
        return; /* there is no such image of version 2 */
    }
    run_one(op, image, 0, 0, false, 0, GO_ON);
    for (size_t f = 0; f < sizeof(faults) / sizeof(faults[0]); f++) {
        for (int forever = 0; forever < 2; forever++) {
            uint64_t nth = 1 + runs % stride;
            uint64_t hits;

            do {
                hits = 0;
                for (int ending = 0; ending < ENDINGS; ending++) {
                    hits |= run_one(op, image, faults[f].calls, nth, forever, faults[f].error,
                                    (enum ending)ending);
                }
                nth += stride;
            } while (hits > 0);
        }
    }
    printf("%-24s %-36s %5lu runs\n", op->name, image, runs - before);
}

static void test_operations(void **state)
{
    const char *only = getenv("PLATTER_SCENARIO");

    (void)state;
    for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
        for (size_t o = 0; o < undo_operation_count; o++) {
            if (only == NULL || strcmp(only, undo_operations[o].name) == 0) {
                test_each_call(&undo_operations[o], images[i]);
            }
        }
    }
    printf("%lu runs\n", runs);
    assert_int_equal(wrong_runs, 0);
}

/* ---- create ---- */

static const char *const new_images[] = {
    "cluster_size=4k",
    "cluster_size=4k,lazy_refcounts=on",
    "cluster_size=4k,compat=0.10",
    "cluster_size=512,refcount_bits=64,lazy_refcounts=on",
    "cluster_size=512,preallocation=metadata",
    "cluster_size=4k,preallocation=metadata,lazy_refcounts=on",
    "cluster_size=4k,preallocation=falloc,lazy_refcounts=on",
    "cluster_size=4k,preallocation=full",
    "cluster_size=512,preallocation=full,lazy_refcounts=on",
    "cluster_size=16k,extended_l2=on,lazy_refcounts=on",
    "cluster_size=16k,extended_l2=on,preallocation=metadata,compression_type=zstd",
};

/* Success is only told of an image that is clean at once, opens, checks clean and reads zeroes. */
static uint64_t create_one(const char *image, uint64_t calls, uint64_t nth, bool forever)
{
    static struct undo t;
    struct sim_faults *rules;
    BlockOptions *options;
    Error *err = NULL;
    char text[200];
    uint64_t hits;
    int rc;

    memset(&t, 0, sizeof(t));
    t.op = &undo_operations[0];
    t.before_bytes = DISK_BYTES;
    harness_begin(&t.h, 1, 0, NULL);
    assert_int_equal(harness_platter(&t.h), 0);
    snprintf(text, sizeof(text), "driver=qcow2,size=%u,%s", DISK_BYTES, image);
    options = block_options_parse(text, NULL, &err);
    assert_non_null(options);
    rules = sim_world_faults(t.h.world);
    sim_faults_clear(rules);
    if (nth > 0) {
        sim_faults_add(rules, &(struct sim_rule){
                                  .calls = calls, .nth = nth, .forever = forever, .error = EIO});
    }
    rc = bdrv_create(t.h.pl, SIM_DISK_PATH, options, &err);
    hits = sim_faults_hits(rules);
    sim_faults_clear(rules);
    if (rc == 0) {
        judge_file(&t, "created", true);
        open_disk(&t);
        if (t.wrong[0] == '\0') {
            judge_disk(&t, "created", false);
            judge_check(&t, "check of what was created", 0, false);
        }
        close_disk(&t);
    } else if (hits == 0) {
        undo_wrong(&t, "nothing failed, but: %s", error_get_pretty(err));
    }
    error_free(err);
    assert_int_equal(harness_end(&t.h), 0);
    runs++;
    if (t.wrong[0] != '\0') {
        wrong_runs++;
        fprintf(stderr, "create %s: call %llu %s\n    %s\n", image, (unsigned long long)nth,
                forever ? "and all later" : "once", t.wrong);
    }
    return hits;
}

static void test_create(void **state)
{
    static const uint64_t kinds[] = {SIM_CALLS(SIM_CALL_WRITE), CALLS_WRITES,
                                     CALLS_WRITES | SIM_CALLS_DATA};

    (void)state;
    runs = wrong_runs = 0;
    for (size_t i = 0; i < sizeof(new_images) / sizeof(new_images[0]); i++) {
        create_one(new_images[i], 0, 0, false);
        for (size_t k = 0; k < 2 * sizeof(kinds) / sizeof(kinds[0]); k++) {
            uint64_t nth = 0;

            while (create_one(new_images[i], kinds[k / 2], ++nth, k % 2) > 0) {
            }
        }
    }
    printf("%lu times created\n", runs);
    assert_int_equal(wrong_runs, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_create),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!harness_has_driver("qcow2")) {
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
