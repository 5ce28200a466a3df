/* SPDX-License-Identifier: MIT */
/*
 * Files that images name: which one a name means, who may open it, loops and depth. The images are
 * fakes whose headers stand in fake.cow; the files are real, so that links are.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake.h"

#include "os/os.h"
#include "util/options.h"

#define READ BDRV_PERM_CONSISTENT_READ

static char dir[64];  /* has the images */
static char home[64]; /* has dir, "secret" and the folder "other" with "base" */

static const char *path(const char *name)
{
    static char buf[4][256];
    static unsigned next;
    char *p = buf[next++ % 4];

    snprintf(p, sizeof(buf[0]), "%s/%s", dir, name);
    return p;
}

static void touch(const char *name)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    fclose(f);
}

static int setup(void **state)
{
    char buf[128];

    fake_reset();
    *state = NULL;
    strcpy(home, "/tmp/platter-backing-XXXXXX");
    assert_non_null(mkdtemp(home));
    snprintf(dir, sizeof(dir), "%s/d", home);
    assert_int_equal(mkdir(dir, 0700), 0);
    snprintf(buf, sizeof(buf), "%s/other", home);
    assert_int_equal(mkdir(buf, 0700), 0);
    snprintf(buf, sizeof(buf), "%s/other/base", home);
    touch(buf);
    snprintf(buf, sizeof(buf), "%s/secret", home);
    touch(buf);
    touch(path("top"));
    touch(path("mid"));
    touch(path("base"));
    return 0;
}

static int teardown(void **state)
{
    char buf[128];

    snprintf(buf, sizeof(buf), "rm -rf %s", home);
    assert_int_equal(system(buf), 0);
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.checks, 0);
    return 0;
}

static Platter *platter(enum platter_image_refs refs, unsigned depth)
{
    const struct platter_options opts = {
        .size = sizeof(opts), .image_refs = refs, .backing_depth_max = depth};
    Platter *pl = platter_new(&opts, NULL);

    assert_non_null(pl);
    return pl;
}

static Platter *listed(const char *ref)
{
    Platter *pl = platter(PLATTER_REFS_LISTED, 0);

    assert_int_equal(platter_allow_image_ref(pl, ref, NULL), 0);
    return pl;
}

/* The image "top" of dir with more options ("" or ",..."). */
static BlockDriverState *try_open(Platter *pl, const char *more, int flags, Error **errp)
{
    char text[512];

    snprintf(text, sizeof(text), "driver=cow,file.filename=%s%s", path("top"), more);
    return bdrv_open(pl, NULL, NULL, block_options_parse(text, NULL, NULL), flags, errp);
}

static BlockDriverState *open_top(Platter *pl, const char *more)
{
    Error *err = NULL;
    BlockDriverState *bs = try_open(pl, more, BDRV_O_RDWR, &err);

    if (bs == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    return bs;
}

static void open_fails(Platter *pl, const char *more, int flags, int err_no, const char *piece)
{
    Error *err = NULL;

    assert_null(try_open(pl, more, flags, &err));
    fake_expect_error(err, err_no, piece);
    assert_int_equal(fake.live, 0);
    assert_null(bdrv_next_node(pl, NULL));
}

static void header(int i, const char *file, const char *backing, const char *format)
{
    fake.cow[i] = (struct fake_cow){.file = file, .backing = backing, .format = format};
}

/* ---- which file ---- */

static void test_relative_to_the_image(void **state)
{
    Platter *pl = listed(dir);
    BlockDriverState *bs, *backing;

    header(0, "top", "mid", "cow");
    header(1, "mid", "base", "raw");
    bs = open_top(pl, "");
    backing = bdrv_get_child(bs, "backing");
    assert_string_equal(bdrv_get_filename(backing), path("mid"));
    assert_string_equal(bdrv_get_backing_file(bs), "mid");
    assert_string_equal(bdrv_get_backing_format(bs), "cow");
    assert_true(bdrv_is_read_only(backing));
    assert_false(bdrv_is_read_only(bs));
    backing = bdrv_get_child(backing, "backing");
    assert_string_equal(bdrv_get_filename(backing), path("base"));
    assert_string_equal(bdrv_get_format_name(backing), "raw");
    assert_null(bdrv_get_child(backing, "backing"));
    assert_int_equal(backing->shared, READ | BDRV_PERM_WRITE_UNCHANGED);
    bdrv_unref(bs);
    platter_free(pl);
}

static void test_backing_path(void **state)
{
    Platter *pl = platter(PLATTER_REFS_NONE, 0);
    BlockDriverState *bs = open_top(pl, "");
    BlockDriverState *nowhere;
    Error *err = NULL;
    char *text;

    text = bdrv_get_backing_path(bs, "x/y", NULL);
    assert_string_equal(text, path("x/y"));
    free(text);
    text = bdrv_get_backing_path(bs, "/x", NULL);
    assert_string_equal(text, "/x");
    free(text);
    text = bdrv_get_backing_path(bs, "json:{}", NULL);
    assert_string_equal(text, "json:{}");
    free(text);
    bdrv_unref(bs);
    nowhere = fake_open(pl, "driver=cow,file.driver=net,file.host=h");
    assert_null(bdrv_get_backing_path(nowhere, "x", &err));
    fake_expect_error(err, EINVAL, "'x' is relative to the folder of the image");
    bdrv_unref(nowhere);
    platter_free(pl);
}

static void test_options_win(void **state)
{
    Platter *pl = platter(PLATTER_REFS_NONE, 0);
    BlockDriverState *node = fake_open(pl, "driver=file,filename=elsewhere,node-name=n");
    BlockDriverState *bs, *backing;
    BlockOptions *options;
    Error *err = NULL;

    header(0, "top", "base", "raw");
    bs = open_top(pl, ",backing=n");
    assert_ptr_equal(bdrv_get_child(bs, "backing"), node);
    bdrv_unref(bs);
    bs = open_top(pl, ",backing.driver=raw,backing.file.filename=mine,backing.node-name=m");
    assert_string_equal(bdrv_get_filename(bdrv_get_child(bs, "backing")), "mine");
    assert_non_null(bdrv_find_node(pl, "m"));
    bdrv_unref(bs);
    options = block_options_parse_json("{'driver':'cow','backing':null}", NULL);
    assert_int_equal(block_options_set_str(options, "file.filename", path("top")), 0);
    bs = bdrv_open(pl, NULL, NULL, options, BDRV_O_RDWR, &err);
    assert_non_null(bs);
    assert_null(bdrv_get_child(bs, "backing"));
    assert_string_equal(bdrv_get_backing_file(bs), "base");
    bdrv_unref(bs);
    bs = try_open(pl, ",backing=n", BDRV_O_RDWR | BDRV_O_NO_BACKING, NULL);
    assert_null(bdrv_get_child(bs, "backing"));
    bdrv_unref(bs);
    bdrv_unref(node);
    /* the image gives the file, the options the rest */
    open_fails(pl, ",backing.driver=cow", BDRV_O_RDWR, EPERM, "names the backing file 'base'");
    platter_free(pl);
    pl = listed(dir);
    bs = open_top(pl, ",backing.driver=cow,backing.node-name=x");
    backing = bdrv_find_node(pl, "x");
    assert_string_equal(bdrv_get_filename(backing), path("base"));
    assert_string_equal(bdrv_get_format_name(backing), "cow");
    bdrv_unref(bs);
    open_fails(pl, ",backing=nosuch", BDRV_O_RDWR, ENOENT, "'nosuch'");
    platter_free(pl);
}

static void test_never_writable(void **state)
{
    Platter *pl = platter(PLATTER_REFS_FOLLOW, 0);

    header(0, "top", "base", "raw");
    open_fails(pl, ",backing.read-only=off", BDRV_O_RDWR, EPERM, "read-only=off");
    open_fails(pl, ",backing.file.read-only=off", BDRV_O_RDWR, EPERM, "read-only=off");
    header(0, "top", "json:{'driver':'raw','file':{'filename':'b','read-only':false}}", "raw");
    open_fails(pl, "", BDRV_O_RDWR, EPERM, "read-only=off");
    platter_free(pl);
}

static void test_image_without_a_folder(void **state)
{
    Platter *pl = platter(PLATTER_REFS_FOLLOW, 0);
    Error *err = NULL;

    header(0, "3", "base", "raw");
    assert_null(bdrv_open(pl, NULL, NULL,
                          block_options_parse("driver=cow,file.filename=/dev/fdset/3", NULL, NULL),
                          0, &err));
    fake_expect_error(err, EINVAL, "'base' is relative to the folder of the image");
    err = NULL;
    fake.cow[0] = (struct fake_cow){.file = "", .backing = "base", .format = "raw"};
    assert_null(bdrv_open(pl, NULL, NULL,
                          block_options_parse("driver=cow,file.driver=net,"
                                              "file.host=h",
                                              NULL, NULL),
                          0, &err));
    fake_expect_error(err, EINVAL, "'base' is relative to the folder of the image");
    platter_free(pl);
}

static void test_format(void **state)
{
    Platter *pl = listed(dir);
    BlockDriverState *bs;
    Error *err = NULL;

    header(0, "top", "base", NULL);
    assert_null(try_open(pl, "", BDRV_O_RDWR, &err));
    assert_string_equal(error_get_hint(err), "Give it as backing.driver, or write it into the "
                                             "image with a rebase");
    fake_expect_error(err, EINVAL, "does not say which format its backing file 'base' has");
    memcpy(fake.content, "COW!", 4);
    bs = try_open(pl, "", BDRV_O_PROBE, NULL);
    assert_non_null(bs);
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "backing")), "cow");
    assert_true(bdrv_format_probed(bdrv_get_child(bs, "backing")));
    bdrv_unref(bs);
    bs = open_top(pl, ",backing.driver=raw");
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "backing")), "raw");
    bdrv_unref(bs);
    header(0, "top", "base", "nosuch");
    open_fails(pl, "", 0, EINVAL, "Unknown driver 'nosuch'");
    header(0, "top", "base", "pass");
    open_fails(pl, "", 0, EINVAL, "'pass' is no format of a backing file");
    header(0, "top", "base", "net");
    open_fails(pl, "", 0, EINVAL, "'net' is no format of a backing file");
    header(0, "top", "base", "file"); /* the bytes as they are */
    bs = open_top(pl, "");
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "backing")), "file");
    bdrv_unref(bs);
    platter_free(pl);
}

/* ---- policy ---- */

static void test_none(void **state)
{
    Platter *pl = platter(PLATTER_REFS_NONE, 0);
    char text[256];

    assert_int_equal(platter_allow_image_ref(pl, dir, NULL), 0);
    header(0, "top", "base", "raw");
    snprintf(text, sizeof(text),
             "Image '%s' names the backing file 'base', which is not allowed to it", path("top"));
    open_fails(pl, "", 0, EPERM, text);
    platter_free(pl);
}

static void test_listed(void **state)
{
    Platter *pl = platter(PLATTER_REFS_LISTED, 0);
    BlockDriverState *bs;
    char text[256];
    Error *err = NULL;

    header(0, "top", "base", "raw");
    assert_null(try_open(pl, "", 0, &err));
    assert_string_equal(error_get_hint(err),
                        "Allow it with platter_allow_image_ref, or name it in the options");
    snprintf(text, sizeof(text),
             "Image '%s' names the backing file 'base', but '%s' is not allowed to it", path("top"),
             path("base"));
    fake_expect_error(err, EPERM, text);
    err = NULL;
    assert_int_equal(platter_allow_image_ref(pl, path("top"), NULL), 0); /* another one */
    open_fails(pl, "", 0, EPERM, "is not allowed to it");
    assert_int_equal(platter_allow_image_ref(pl, path("base"), NULL), 0);
    bs = open_top(pl, "");
    bdrv_unref(bs);
    assert_int_equal(platter_allow_image_ref(pl, path("nosuch"), &err), -ENOENT);
    fake_expect_error(err, ENOENT, "Cannot allow images to name");
    platter_free(pl);
}

static void expect_refused(Platter *pl, const char *name)
{
    header(0, "top", name, "raw");
    open_fails(pl, "", BDRV_O_RDWR, EPERM, "not allowed to it");
}

static void expect_opens(Platter *pl, const char *name)
{
    BlockDriverState *bs;

    header(0, "top", name, "raw");
    bs = open_top(pl, "");
    assert_non_null(bdrv_get_child(bs, "backing"));
    bdrv_unref(bs);
}

static void test_below_a_folder(void **state)
{
    Platter *pl = listed(dir);
    char text[256];

    expect_opens(pl, "base");
    expect_opens(pl, "./base");
    expect_opens(pl, "../d/base");
    expect_opens(pl, path("base"));
    snprintf(text, sizeof(text), "file:%s", path("base"));
    expect_opens(pl, text);
    expect_refused(pl, "../secret");
    expect_refused(pl, "/etc/hostname");
    expect_refused(pl, "../other/base");
    expect_refused(pl, "nosuch/../base"); /* what does not exist leads nowhere */
    expect_refused(pl, "json:{'driver':'raw','file.filename':'x'}");
    expect_refused(pl, "net://host");
    expect_refused(pl, "");
    snprintf(text, sizeof(text), "%sx", dir);
    expect_refused(pl, text); /* begins like the folder's name */
    /* links inside the folder that lead out of it */
    assert_int_equal(symlink("../secret", path("to-secret")), 0);
    assert_int_equal(symlink("..", path("up")), 0);
    assert_int_equal(symlink("base", path("to-base")), 0);
    assert_int_equal(symlink("loop", path("loop")), 0);
    expect_refused(pl, "to-secret");
    expect_refused(pl, "up/secret");
    expect_refused(pl, "up/d/../secret");
    expect_refused(pl, "loop");
    expect_opens(pl, "to-base");
    expect_opens(pl, "up/d/base");
    /* a folder that is itself named by a link */
    snprintf(text, sizeof(text), "%s/link", home);
    assert_int_equal(symlink("other", text), 0);
    assert_int_equal(platter_allow_image_ref(pl, text, NULL), 0);
    expect_opens(pl, "../other/base");
    platter_free(pl);
}

static void test_missing_file_below_a_folder(void **state)
{
    Platter *pl = listed(dir);

    fake.real_files = true;
    header(0, "top", "nosuch", "raw");
    open_fails(pl, "", 0, ENOENT, "nosuch': No such file");
    platter_free(pl);
}

static void test_working_folder(void **state)
{
    Platter *pl = platter(PLATTER_REFS_LISTED, 0);
    char here[512];
    BlockDriverState *bs;

    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(platter_allow_image_ref(pl, ".", NULL), 0);
    header(0, "top", "base", "raw");
    bs = bdrv_open(pl, NULL, NULL, block_options_parse("driver=cow,file.filename=top", NULL, NULL),
                   0, NULL);
    assert_non_null(bs);
    assert_string_equal(bdrv_get_filename(bdrv_get_child(bs, "backing")), "base");
    bdrv_unref(bs);
    assert_int_equal(chdir(here), 0);
    platter_free(pl);
}

static void test_descriptor_sets(void **state)
{
    Platter *pl = listed("/dev/fdset/3");

    expect_opens(pl, "/dev/fdset/3");
    expect_refused(pl, "/dev/fdset/4");
    expect_refused(pl, "/dev/fdset/3/../4");
    assert_int_equal(platter_allow_image_ref(pl, "/dev", NULL), 0);
    expect_refused(pl, "/dev/fdset/4"); /* not a file below /dev */
    platter_free(pl);
}

/* Between the judgement and the open somebody turns a link round. */
static void turn_link(const char *file, struct fake_cow *ret)
{
    if (strcmp(file, "top") == 0) {
        ret->backing = "link";
        ret->format = "cow";
    }
}

static int (*real_stat)(const char *path, struct stat *ret_st);

static int stat_then_turn(const char *name, struct stat *ret_st)
{
    int rc = real_stat(name, ret_st);

    if (strcmp(name, path("link")) == 0) {
        unlink(name);
        assert_int_equal(symlink("../secret", name), 0);
    }
    return rc;
}

static void test_link_turned_meanwhile(void **state)
{
    static struct os_table table;
    Platter *pl;

    table = os_linux;
    real_stat = os_linux.stat;
    table.stat = stat_then_turn;
    os_replace(&table);
    pl = listed(dir);
    fake.real_files = true;
    fake.cow_of = turn_link;
    assert_int_equal(symlink("base", path("link")), 0);
    open_fails(pl, "", 0, EPERM, "by now, which images may not name");
    platter_free(pl);
    os_replace(NULL);
}

static void test_follow(void **state)
{
    Platter *pl = platter(PLATTER_REFS_FOLLOW, 0);
    BlockDriverState *node = fake_open(pl, "driver=file,filename=x,node-name=ours");
    BlockDriverState *bs;

    expect_opens(pl, "../secret");
    expect_opens(pl, "json:{'file.filename':'x'}");
    header(0, "top", "net://host", "net");
    bs = open_top(pl, "");
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "backing")), "net");
    bdrv_unref(bs);
    header(0, "top", "json:{'driver':'raw','file':'ours'}", "raw");
    assert_null(try_open(pl, "", 0, NULL));
    header(0, "top", "json:{'driver':'cow','file.filename':'x','backing':'ours'}", "cow");
    assert_null(try_open(pl, "", 0, NULL));
    bdrv_unref(node);
    open_fails(pl, "", 0, EPERM, "may not refer to a node");
    header(0, "top", "json:{'file':{'filename':'x','node-name':'mine'}}", "raw");
    open_fails(pl, "", 0, EPERM, "may not give a node its name");
    header(0, "top", "json:{'file.filename':'x'}", NULL);
    open_fails(pl, "", 0, EINVAL, "does not say which format");
    header(0, "top", "json:{'driver':'raw','file.filename':'x'}", NULL);
    bs = open_top(pl, "");
    bdrv_unref(bs);
    header(0, "top", "json:{", "raw");
    assert_null(try_open(pl, "", 0, NULL));
    platter_free(pl);
}

static void test_hint_of_the_host(void **state)
{
    const struct platter_options opts = {.size = sizeof(opts), .image_refs_hint = "Ask mum"};
    Platter *pl = platter_new(&opts, NULL);
    Error *err = NULL;

    header(0, "top", "base", "raw");
    assert_null(try_open(pl, "", 0, &err));
    assert_string_equal(error_get_hint(err), "Ask mum");
    error_free(err);
    platter_free(pl);
}

/* ---- loops and depth ---- */

static void test_loops(void **state)
{
    Platter *pl = listed(dir);

    header(0, "top", "top", "cow");
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    header(0, "top", "mid", "cow");
    header(1, "mid", "base", "cow");
    header(2, "base", "top", "raw");
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    assert_int_equal(symlink("top", path("s")), 0);
    assert_int_equal(link(path("top"), path("h")), 0);
    header(2, "base", "s", "raw");
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    header(2, "base", "h", "raw");
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    header(2, "base", "mid", "cow");
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    platter_free(pl);
}

/* json: hides the path until the file is open. */
static void test_loop_behind_json(void **state)
{
    Platter *pl = platter(PLATTER_REFS_FOLLOW, 0);
    char name[256];

    snprintf(name, sizeof(name), "json:{'driver':'cow','file.filename':'%s'}", path("top"));
    header(0, "top", name, NULL);
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    platter_free(pl);
}

/* Image "N" names "N-1"; 0 has none. The files do not exist, and nobody looks. */
static char chain_name[2048][16];

static void chain_of(const char *file, struct fake_cow *ret)
{
    int number = strcmp(file, "top") == 0 ? 2047 : atoi(file);

    if (number > 0) {
        snprintf(chain_name[number], sizeof(chain_name[0]), "%d", number - 1);
        ret->backing = chain_name[number];
        ret->format = "cow";
    }
}

static BlockDriverState *open_chain(Platter *pl, int deep, Error **errp)
{
    char text[256];

    fake.cow_of = chain_of;
    snprintf(text, sizeof(text), "driver=cow,file.filename=%s/%d", dir, deep);
    return bdrv_open(pl, NULL, NULL, block_options_parse(text, NULL, NULL), BDRV_O_RDWR, errp);
}

static void test_depth(void **state)
{
    Platter *pl = listed(dir);
    BlockDriverState *bs;
    Error *err = NULL;

    bs = open_chain(pl, 64, NULL);
    assert_non_null(bs);
    assert_int_equal(fake.live, 130);
    bdrv_unref(bs);
    assert_int_equal(fake.live, 0);
    assert_null(open_chain(pl, 65, &err));
    fake_expect_error(err, ELOOP, "The backing chain is more than 64 files deep");
    assert_int_equal(fake.live, 0);
    platter_free(pl);
}

static void test_a_thousand(void **state)
{
    Platter *pl = platter(PLATTER_REFS_LISTED, 1000);
    struct fake_user user = {.name = "u"};
    BdrvEdge *root;
    BlockDriverState *bs;
    Error *err = NULL;

    assert_int_equal(platter_allow_image_ref(pl, dir, NULL), 0);
    bs = open_chain(pl, 1000, &err);
    assert_non_null(bs);
    root = bdrv_root_attach(bs, "root", &fake_user_class, &user, READ | BDRV_PERM_WRITE,
                            BDRV_PERM_ALL, NULL);
    assert_non_null(root);
    bdrv_root_detach(root);
    bdrv_unref(bs);
    assert_int_equal(fake.live, 0);
    assert_null(open_chain(pl, 1001, &err));
    fake_expect_error(err, ELOOP, "more than 1000 files deep");
    platter_free(pl);
}

static void test_depth_by_reference(void **state)
{
    Platter *pl = platter(PLATTER_REFS_LISTED, 3);
    BlockDriverState *n[5];
    BlockDriverState *bs;
    Error *err = NULL;

    n[0] = fake_open(pl, "driver=file,filename=x,node-name=n0");
    n[1] = fake_open(pl, "driver=cow,file.filename=x,node-name=n1,backing=n0");
    n[2] = fake_open(pl, "driver=pass,file.driver=cow,file.file.filename=x,node-name=n2,"
                         "file.backing=n1");
    bs = fake_open(pl, "driver=cow,file.filename=x,backing=n2");
    bdrv_unref(bs);
    n[3] = fake_open(pl, "driver=cow,file.filename=x,node-name=n3,backing=n2");
    assert_null(bdrv_open(pl, NULL, NULL,
                          block_options_parse("driver=cow,file.filename=x,backing=n3", NULL, NULL),
                          0, &err));
    fake_expect_error(err, ELOOP, "more than 3 files deep");
    for (int i = 3; i >= 0; i--) {
        bdrv_unref(n[i]);
    }
    platter_free(pl);
}

/* Text in images that nests opens, instead of chaining them. */
static char nest_name[2048][192];

static void nest_of(const char *file, struct fake_cow *ret)
{
    int number = atoi(file);

    snprintf(nest_name[number], sizeof(nest_name[0]),
             "json:{'driver':'raw','file':{'driver':'cow','file.filename':'%s/%d'}}", dir,
             number + 1);
    ret->backing = nest_name[number];
}

static void test_nesting_is_bounded(void **state)
{
    Platter *pl = platter(PLATTER_REFS_FOLLOW, 2000);
    Error *err = NULL;
    char text[256];

    fake.cow_of = nest_of;
    snprintf(text, sizeof(text), "driver=cow,file.filename=%s/0", dir);
    assert_null(
        bdrv_open(pl, NULL, NULL, block_options_parse(text, NULL, NULL), BDRV_O_RDWR, &err));
    fake_expect_error(err, ELOOP, "Nodes are nested more than 64 deep");
    assert_int_equal(fake.live, 0);
    platter_free(pl);
}

/* ---- data files ---- */

static void test_data_file(void **state)
{
    Platter *pl = listed(dir);
    BlockDriverState *bs;

    fake.cow[0] = (struct fake_cow){.file = "top", .data = "mid"};
    bs = open_top(pl, "");
    assert_string_equal(bdrv_get_filename(bdrv_get_child(bs, "data-file")), path("mid"));
    assert_false(bdrv_is_read_only(bdrv_get_child(bs, "data-file"))); /* as the image */
    bdrv_unref(bs);
    bs = open_top(pl, ",data-file.filename=mine");
    assert_string_equal(bdrv_get_filename(bdrv_get_child(bs, "data-file")), "mine");
    bdrv_unref(bs);
    bs = open_top(pl, ",data-file.node-name=dn");
    assert_string_equal(bdrv_get_filename(bdrv_find_node(pl, "dn")), path("mid"));
    bdrv_unref(bs);
    bs = try_open(pl, "", BDRV_O_NO_IO, NULL);
    assert_non_null(bs);
    assert_null(bdrv_get_child(bs, "data-file"));
    bdrv_unref(bs);
    fake.cow[0].data = "top";
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    fake.cow[0].data = "../secret";
    open_fails(pl, "", 0, EPERM, "names the data-file '../secret', but");
    platter_free(pl);
    pl = platter(PLATTER_REFS_FOLLOW, 0);
    fake.cow[0].data = "json:{'driver':'file','filename':'/etc/passwd'}";
    open_fails(pl, "", 0, EINVAL, "which is no path");
    fake.cow[0].data = "net://host";
    open_fails(pl, "", 0, EINVAL, "which is no path");
    fake.cow[0].data = "../secret";
    bs = open_top(pl, "");
    bdrv_unref(bs);
    platter_free(pl);
}

/* What a failure in the middle of a chain leaves behind: nothing. */
static void test_failures_leave_nothing(void **state)
{
    Platter *pl = listed(dir);

    fake.real_files = true;
    header(0, "top", "mid", "cow");
    header(1, "mid", "nosuch", "raw");
    open_fails(pl, "", BDRV_O_RDWR, ENOENT, "Could not open the backing file of");
    open_fails(pl, ",nosuch=1", BDRV_O_RDWR, EINVAL, "'nosuch'");
    open_fails(pl, ",backing.nosuch=1", BDRV_O_RDWR, EINVAL, "'nosuch'");
    platter_free(pl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_relative_to_the_image),
        T(test_backing_path),
        T(test_options_win),
        T(test_never_writable),
        T(test_image_without_a_folder),
        T(test_format),
        T(test_none),
        T(test_listed),
        T(test_below_a_folder),
        T(test_missing_file_below_a_folder),
        T(test_working_folder),
        T(test_descriptor_sets),
        T(test_link_turned_meanwhile),
        T(test_follow),
        T(test_hint_of_the_host),
        T(test_loops),
        T(test_loop_behind_json),
        T(test_depth),
        T(test_a_thousand),
        T(test_depth_by_reference),
        T(test_nesting_is_bounded),
        T(test_data_file),
        T(test_failures_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
