/* SPDX-License-Identifier: MIT */
/* Open nodes with other options: what may change changes, what may not is refused by its name, and
 * a refusal changes nothing, at no node of the call. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/graph.h>
#include <platter/image.h>
#include <platter/throttle.h>

#include "fixture.h"
#include "util/mem.h"

#define KIB 1024

struct disks {
    Platter *pl;
    BlockDriverState *a, *b, *fa, *fb, *raw, *slow, *nothing, *copy;
    ThrottleGroup *one, *two;
};

static BlockOptions *from_json(const char *json)
{
    Error *err = NULL;
    BlockOptions *options = block_options_parse_json(json, &err);

    if (options == NULL) {
        fail_msg("%s: %s", json, error_get_pretty(err));
    }
    return options;
}

static BlockDriverState *open_node(Platter *pl, const char *json)
{
    Error *err = NULL;
    BlockDriverState *bs = bdrv_open(pl, NULL, NULL, from_json(json), BDRV_O_RDWR, &err);

    if (bs == NULL) {
        fail_msg("%s: %s", json, error_get_pretty(err));
    }
    return bs;
}

static void make_image(Platter *pl, const char *name)
{
    char path[100];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(
        bdrv_create(pl, path, block_options_parse("driver=qcow2,size=4M", NULL, NULL), NULL), 0);
}

static void disks_begin(struct disks *d)
{
    *d = (struct disks){.pl = new_platter()};
    d->one = throttle_group_get(d->pl, "one", NULL);
    d->two = throttle_group_get(d->pl, "two", NULL);
    make_image(d->pl, "a");
    make_image(d->pl, "b");
    make_file("c", 64 * KIB);
    d->fa = open_node(d->pl, text("{'driver':'file','filename':'%s/a','node-name':'fa'}", dir));
    d->fb = open_node(d->pl, text("{'driver':'file','filename':'%s/b','node-name':'fb'}", dir));
    d->a = open_node(d->pl, "{'driver':'qcow2','file':'fa','node-name':'a'}");
    d->b = open_node(d->pl, "{'driver':'qcow2','file':'fb','node-name':'b'}");
    d->raw = open_node(d->pl, text("{'driver':'raw','node-name':'r','offset':512,"
                                   "'file':{'driver':'file','filename':'%s/c','node-name':'fc'}}",
                                   dir));
    d->slow = open_node(d->pl, "{'driver':'throttle','throttle-group':'one','node-name':'t',"
                               "'file':'b'}");
    d->nothing = open_node(d->pl, "{'driver':'null-co','size':1024,'node-name':'n'}");
    d->copy = open_node(d->pl, "{'driver':'copy-on-read','file':'b','node-name':'cor'}");
}

static void disks_end(struct disks *d)
{
    bdrv_unref(d->copy);
    bdrv_unref(d->nothing);
    bdrv_unref(d->slow);
    bdrv_unref(d->raw);
    bdrv_unref(d->a);
    bdrv_unref(d->b);
    bdrv_unref(d->fa);
    bdrv_unref(d->fb);
    assert_null(bdrv_next_node(d->pl, NULL));
    throttle_group_unref(d->one);
    throttle_group_unref(d->two);
    platter_free(d->pl);
}

static int try_reopen(Platter *pl, const char *first, const char *second, Error **errp)
{
    struct bdrv_reopen nodes[2] = {{.options = from_json(first)}};

    if (second != NULL) {
        nodes[1].options = from_json(second);
    }
    return bdrv_reopen_with_options(pl, nodes, second != NULL ? 2 : 1, errp);
}

static void reopen(struct disks *d, const char *json)
{
    Error *err = NULL;

    if (try_reopen(d->pl, json, NULL, &err) < 0) {
        fail_msg("%s: %s", json, error_get_pretty(err));
    }
}

static void reopen_fails(struct disks *d, const char *first, const char *second, int err_no,
                         const char *words)
{
    Error *err = NULL;
    int rc = try_reopen(d->pl, first, second, &err);

    if (rc == 0) {
        fail_msg("%s must be refused", first);
    }
    if (strstr(error_get_pretty(err), words) == NULL) {
        fail_msg("%s: \"%s\" has no \"%s\"", first, error_get_pretty(err), words);
    }
    assert_int_equal(rc, -error_get_errno(err));
    assert_int_equal(error_get_errno(err), err_no);
    error_free(err);
}

/* ---- refused ---- */

/* As the reference says it where it has words of its own; its schema refuses the rest. */
static const struct {
    const char *json;
    int err_no;
    const char *words;
} refusals[] = {
    {"{'driver':'qcow2','file':'fa'}", EINVAL, "node-name not specified"},
    {"{'driver':'qcow2','node-name':'zz'}", ENOENT, "Failed to find node with node-name='zz'"},
    {"{'node-name':'a','file':'fa'}", EINVAL, "'driver' is missing"},
    {"{'driver':'raw','node-name':'a','file':'fa'}", EINVAL, "Cannot change the option 'driver'"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','foo':1}", EINVAL, "'foo'"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','cache-size':1048576,'l2-cache-size':2097152}",
     EINVAL, "l2-cache-size may not exceed cache-size"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','l2-cache-entry-size':3000}", EINVAL,
     "power of two"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','overlap-check':'most'}", EINVAL, "most"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','lazy-refcounts':'perhaps'}", EINVAL,
     "'lazy-refcounts' expects"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','read-only':true,'force-share':true}", EINVAL,
     "Cannot change the option 'force-share'"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','detect-zeroes':'unmap'}", EINVAL,
     "without setting discard"},
    {"{'driver':'qcow2','node-name':'a'}", EINVAL, "file is missing for 'a'"},
    {"{'driver':'qcow2','node-name':'a','file':null}", EINVAL, "cannot be null"},
    {"{'driver':'qcow2','node-name':'a','file':7}", EINVAL, "'file'"},
    {"{'driver':'qcow2','node-name':'a','file':'zz'}", ENOENT, "'zz'"},
    {"{'driver':'qcow2','node-name':'a','file':'fb'}", EPERM, "'fb'"},
    {"{'driver':'qcow2','node-name':'a','file':{'driver':'file','filename':'x'}}", EINVAL,
     "Cannot change the option 'file.driver'"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','backing':'a'}", ELOOP, "cycle"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','backing':'zz'}", ENOENT, "'zz'"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','backing':{'driver':'null-co'}}", EINVAL,
     "Cannot change the option 'backing.driver'"},
    {"{'driver':'qcow2','node-name':'a','file':'fa','data-file':'fb'}", EINVAL, "'data-file'"},
    {"{'driver':'file','node-name':'fa','filename':'/nonsense'}", EINVAL,
     "Cannot change the option 'filename'"},
    {"{'driver':'file','node-name':'fa'}", EINVAL,
     "Option 'filename' cannot be reset to its default value"},
    {"{'driver':'null-co','node-name':'n','size':2048}", EINVAL, "Cannot change the option 'size'"},
    {"{'driver':'null-co','node-name':'n'}", EINVAL,
     "Option 'size' cannot be reset to its default value"},
    {"{'driver':'copy-on-read','node-name':'cor','file':'b','bottom':'b'}", EINVAL,
     "Cannot change the option 'bottom'"},
    {"{'driver':'raw','node-name':'r','file':{'driver':'file','filename':'/nonsense'}}", EINVAL,
     "Cannot change the option 'filename'"},
    {"{'driver':'raw','node-name':'r','size':1023}", EINVAL, "multiple of 512"},
    {"{'driver':'raw','node-name':'r','size':1048576}", EINVAL, "containing file"},
    {"{'driver':'raw','node-name':'r','offset':18446744073709551615}", ERANGE, "'offset'"},
    {"{'driver':'raw','node-name':'r','backing':'b'}", EINVAL, "'backing'"},
    {"{'driver':'throttle','node-name':'t','file':'b','throttle-group':'three'}", ENOENT,
     "'three'"},
    {"{'driver':'throttle','node-name':'t','file':'b'}", EINVAL, "throttle-group"},
};

static void what_is_refused(void **state)
{
    static const char good[] = "{'driver':'qcow2','node-name':'b','file':'fb','read-only':true}";
    struct disks d;

    disks_begin(&d);
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        reopen_fails(&d, refusals[i].json, NULL, refusals[i].err_no, refusals[i].words);
        /* nor does the other node of the same call, before or after it, change */
        reopen_fails(&d, good, refusals[i].json, refusals[i].err_no, refusals[i].words);
        assert_false(bdrv_is_read_only(d.a));
        assert_false(bdrv_is_read_only(d.b));
        assert_ptr_equal(bdrv_get_child(d.a, "file"), d.fa);
        assert_null(bdrv_get_child(d.a, "backing"));
        assert_int_equal(bdrv_getlength(d.raw), 64 * KIB - 512);
    }
    disks_end(&d);
}

/* ---- allowed ---- */

static void check_byte(BlockBackend *blk, int64_t offset, int byte)
{
    uint8_t buf[512];

    assert_int_equal(blk_pread(blk, offset, buf, sizeof(buf)), sizeof(buf));
    assert_int_equal(buf[7], byte);
}

static void put_byte(BlockBackend *blk, int64_t offset, int byte)
{
    uint8_t buf[512];

    memset(buf, byte, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, offset, buf, sizeof(buf)), sizeof(buf));
}

static void qcow2_options_change(void **state)
{
    static const char *const more[] = {
        "",
        ",'lazy-refcounts':true",
        ",'l2-cache-entry-size':65536,'cache-clean-interval':0",
        ",'l2-cache-entry-size':512,'l2-cache-size':1024,'overlap-check':'all'",
        ",'lazy-refcounts':true,'refcount-cache-size':1048576",
        ",'cache-size':4194304,'overlap-check':{'template':'none','main-header':true}",
        ",'discard':'unmap','detect-zeroes':'unmap','pass-discard-other':true",
        ",'cache':{'no-flush':true},'discard-no-unref':true",
        ",'read-only':true",
        ",'cache-clean-interval':5",
    };
    struct disks d;
    BlockBackend *blk;
    Error *err = NULL;

    disks_begin(&d);
    blk = blk_new(d.pl, "disk", NULL);
    assert_int_equal(blk_set_perm(blk, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_ALL, NULL), 0);
    assert_int_equal(blk_insert_bs(blk, d.a, &err), 0);
    for (size_t i = 0; i < 3 * ARRAY_SIZE(more); i++) {
        const char *options = more[i % ARRAY_SIZE(more)];
        bool read_only = strstr(options, "read-only") != NULL;

        reopen(&d, text("{'driver':'qcow2','node-name':'a','file':'fa'%s}", options));
        assert_int_equal(bdrv_is_read_only(d.a), read_only);
        if (!read_only) {
            assert_int_equal(
                blk_set_perm(blk, BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE, BDRV_PERM_ALL, &err),
                0);
            put_byte(blk, (int64_t)(i + 1) * 100 * KIB, (int)i + 1);
            assert_int_equal(blk_set_perm(blk, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_ALL, &err), 0);
        }
        for (size_t j = 0; j <= i; j++) {
            bool skipped = strstr(more[j % ARRAY_SIZE(more)], "read-only") != NULL;

            check_byte(blk, (int64_t)(j + 1) * 100 * KIB, skipped ? 0 : (int)j + 1);
        }
    }
    assert_int_equal(bdrv_get_flags(d.a) & (BDRV_O_UNMAP | BDRV_O_NO_FLUSH), 0);
    blk_unref(blk);
    {
        struct bdrv_check_options options = {.size = sizeof(options)};
        struct bdrv_check_result result;

        assert_int_equal(bdrv_check(d.a, &options, &result, &err), 0);
        assert_int_equal(result.corruptions + result.leaks, 0);
    }
    disks_end(&d);
}

static void flags_go_back(void **state)
{
    struct disks d;

    disks_begin(&d);
    reopen(&d, "{'driver':'qcow2','node-name':'a','file':'fa','discard':'unmap',"
               "'detect-zeroes':'on','cache':{'no-flush':true},'auto-read-only':true}");
    assert_int_equal(bdrv_get_flags(d.a) & (BDRV_O_UNMAP | BDRV_O_NO_FLUSH | BDRV_O_AUTO_RDONLY),
                     BDRV_O_UNMAP | BDRV_O_NO_FLUSH | BDRV_O_AUTO_RDONLY);
    reopen(&d, "{'driver':'qcow2','node-name':'a','file':'fa'}");
    assert_int_equal(bdrv_get_flags(d.a) & (BDRV_O_UNMAP | BDRV_O_NO_FLUSH | BDRV_O_AUTO_RDONLY),
                     0);
    /* the last of two sets for one node counts */
    assert_int_equal(try_reopen(d.pl,
                                "{'driver':'qcow2','node-name':'a','file':'fa','read-only':true}",
                                "{'driver':'qcow2','node-name':'a','file':'fa'}", NULL),
                     0);
    assert_false(bdrv_is_read_only(d.a));
    /* both, whatever their order */
    assert_int_equal(try_reopen(d.pl,
                                text("{'driver':'file','node-name':'fa','read-only':true,"
                                     "'filename':'%s/a'}",
                                     dir),
                                "{'driver':'qcow2','node-name':'a','file':'fa','read-only':true}",
                                NULL),
                     0);
    assert_true(bdrv_is_read_only(d.a) && bdrv_is_read_only(d.fa));
    reopen_fails(&d, "{'driver':'qcow2','node-name':'a','file':'fa'}", NULL, EPERM, "read-only");
    assert_true(bdrv_is_read_only(d.a));
    disks_end(&d);
}

static void children_change(void **state)
{
    struct disks d;
    BlockBackend *blk;

    disks_begin(&d);
    blk = blk_new(d.pl, "disk", NULL);
    assert_int_equal(blk_insert_bs(blk, d.b, NULL), 0);
    put_byte(blk, 0, 42);
    blk_unref(blk);
    blk = blk_new(d.pl, "disk", NULL);
    assert_int_equal(blk_insert_bs(blk, d.a, NULL), 0);
    check_byte(blk, 0, 0);
    reopen(&d, "{'driver':'qcow2','node-name':'a','file':'fa','backing':'b'}");
    check_byte(blk, 0, 42);
    reopen_fails(&d, "{'driver':'qcow2','node-name':'a','file':'fa'}", NULL, EINVAL,
                 "backing is missing for 'a'");
    reopen_fails(&d, "{'driver':'qcow2','node-name':'b','file':'fb','backing':'a'}", NULL, ELOOP,
                 "cycle");
    reopen(&d, "{'driver':'qcow2','node-name':'a','file':'fa','backing':'n'}");
    reopen(&d, "{'driver':'qcow2','node-name':'a','file':'fa','backing':null}");
    check_byte(blk, 0, 0);
    blk_unref(blk);
    /* the two swap their places in one call */
    reopen(&d, "{'driver':'qcow2','node-name':'a','file':'fa','backing':'b'}");
    assert_int_equal(
        try_reopen(d.pl, "{'driver':'qcow2','node-name':'a','file':'fa','backing':null}",
                   "{'driver':'qcow2','node-name':'b','file':'fb','backing':'a'}", NULL),
        0);
    assert_ptr_equal(bdrv_get_child(d.b, "backing"), d.a);
    reopen(&d, "{'driver':'qcow2','node-name':'b','file':'fb','backing':null}");
    /* a filter comes between an image and its file */
    {
        BlockDriverState *f = open_node(d.pl, "{'driver':'throttle','throttle-group':'two',"
                                              "'file':'fa','node-name':'f'}");

        reopen(&d, "{'driver':'qcow2','node-name':'a','file':'f'}");
        assert_ptr_equal(bdrv_get_child(d.a, "file"), f);
        reopen(&d, "{'driver':'qcow2','node-name':'a','file':'fa'}");
        bdrv_unref(f);
    }
    disks_end(&d);
}

static void raw_and_throttle(void **state)
{
    struct disks d;
    BlockBackend *blk;

    disks_begin(&d);
    blk = blk_new(d.pl, "disk", NULL);
    assert_int_equal(blk_insert_bs(blk, d.raw, NULL), 0);
    put_byte(blk, 0, 9);
    reopen(&d, text("{'driver':'raw','node-name':'r','file':{'driver':'file','node-name':'fc',"
                    "'filename':'%s/c'}}",
                    dir));
    assert_int_equal(bdrv_getlength(d.raw), 64 * KIB);
    assert_int_equal(blk_getlength(blk), 64 * KIB);
    check_byte(blk, 512, 9);
    reopen(&d, "{'driver':'raw','node-name':'r','offset':512,'size':'1k','file':'fc'}");
    assert_int_equal(blk_getlength(blk), KIB);
    check_byte(blk, 0, 9);
    blk_unref(blk);
    blk = blk_new(d.pl, "disk", NULL);
    assert_int_equal(blk_insert_bs(blk, d.slow, NULL), 0);
    for (int i = 0; i < 4; i++) {
        reopen(&d, text("{'driver':'throttle','node-name':'t','file':'b','throttle-group':'%s'}",
                        i % 2 == 0 ? "two" : "one"));
        put_byte(blk, 0, i);
        check_byte(blk, 0, i);
    }
    blk_unref(blk);
    disks_end(&d);
}

/* Children that the options of a node opened follow it. */
static void own_children_follow(void **state)
{
    struct disks d;
    BlockDriverState *bs;
    char options[400];

    disks_begin(&d);
    make_image(d.pl, "own");
    snprintf(options, sizeof(options),
             "'driver':'qcow2','node-name':'own','file':{'driver':'file','filename':'%s/own'}",
             dir);
    bs = open_node(d.pl, text("{%s,'read-only':true}", options));
    assert_true(bdrv_is_read_only(bdrv_get_child(bs, "file")));
    reopen(&d, text("{%s}", options));
    assert_false(bdrv_is_read_only(bs));
    assert_false(bdrv_is_read_only(bdrv_get_child(bs, "file")));
    reopen(&d, "{'driver':'qcow2','node-name':'own','read-only':true}");
    assert_true(bdrv_is_read_only(bdrv_get_child(bs, "file")));
    bdrv_unref(bs);
    disks_end(&d);
}

static int setup(void **state)
{
    return folder_begin("/tmp/platter-reopen-XXXXXX");
}

static int teardown(void **state)
{
    return folder_end();
}

static void changed(BlockDriverState *bs, const char *json)
{
    Error *err = NULL;

    if (bdrv_reopen_changed(bs, from_json(json), &err) < 0) {
        fail_msg("%s: %s", json, error_get_pretty(err));
    }
}

/* What the changes do not name stays: the window of raw, its file, flags. */
static void what_is_not_named_stays(void **state)
{
    struct disks d;
    Error *err = NULL;

    disks_begin(&d);
    assert_int_equal(bdrv_getlength(d.raw), 64 * KIB - 512);
    changed(d.raw, "{'size':1024}");
    assert_int_equal(bdrv_getlength(d.raw), 1024);
    changed(d.raw, "{'read-only':true}");
    assert_int_equal(bdrv_getlength(d.raw), 1024);
    assert_true(bdrv_is_read_only(d.raw) && bdrv_is_read_only(bdrv_find_node(d.pl, "fc")));
    changed(d.raw, "{'offset':1024}");
    assert_true(bdrv_is_read_only(d.raw));
    changed(d.raw, "{'read-only':false,'file.driver':'file'}");
    assert_false(bdrv_is_read_only(d.raw) || bdrv_is_read_only(bdrv_find_node(d.pl, "fc")));
    assert_int_equal(bdrv_getlength(d.raw), 1024);
    changed(d.a, "{'lazy-refcounts':true}"); /* its file is another's node */
    assert_ptr_equal(bdrv_get_child(d.a, "file"), d.fa);
    assert_int_equal(bdrv_reopen_changed(d.raw, from_json("{'file.locking':'off'}"), &err),
                     -EINVAL);
    assert_string_equal(error_get_pretty(err), "Cannot change the option 'locking'");
    error_free(err);
    assert_int_equal(bdrv_reopen_changed(d.raw, from_json("{'color':1}"), NULL), -EINVAL);
    assert_int_equal(bdrv_getlength(d.raw), 1024);
    disks_end(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_refused),         cmocka_unit_test(qcow2_options_change),
        cmocka_unit_test(flags_go_back),           cmocka_unit_test(children_change),
        cmocka_unit_test(raw_and_throttle),        cmocka_unit_test(own_children_follow),
        cmocka_unit_test(what_is_not_named_stays),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
