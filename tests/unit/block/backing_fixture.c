/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backing_fixture.h"

#include "util/options.h"

char dir[64];
char home[64];

const char *path(const char *name)
{
    static char buf[4][256];
    static unsigned next;
    char *p = buf[next++ % 4];

    snprintf(p, sizeof(buf[0]), "%s/%s", dir, name);
    return p;
}

void touch(const char *name)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    fclose(f);
}

int setup(void **state)
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

int teardown(void **state)
{
    char buf[128];

    snprintf(buf, sizeof(buf), "rm -rf %s", home);
    assert_int_equal(system(buf), 0);
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.checks, 0);
    return 0;
}

Platter *platter(enum platter_image_refs refs, unsigned depth)
{
    const struct platter_options opts = {
        .size = sizeof(opts), .image_refs = refs, .backing_depth_max = depth};
    Platter *pl = platter_new(&opts, NULL);

    assert_non_null(pl);
    return pl;
}

Platter *listed(const char *ref)
{
    Platter *pl = platter(PLATTER_REFS_LISTED, 0);

    assert_int_equal(platter_allow_image_ref(pl, ref, NULL), 0);
    return pl;
}

BlockDriverState *try_open(Platter *pl, const char *more, int flags, Error **errp)
{
    char text[512];

    snprintf(text, sizeof(text), "driver=cow,file.filename=%s%s", path("top"), more);
    return bdrv_open(pl, NULL, NULL, block_options_parse(text, NULL, NULL), flags, errp);
}

BlockDriverState *open_top(Platter *pl, const char *more)
{
    Error *err = NULL;
    BlockDriverState *bs = try_open(pl, more, BDRV_O_RDWR, &err);

    if (bs == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    return bs;
}

void open_fails(Platter *pl, const char *more, int flags, int err_no, const char *piece)
{
    Error *err = NULL;

    assert_null(try_open(pl, more, flags, &err));
    fake_expect_error(err, err_no, piece);
    assert_int_equal(fake.live, 0);
    assert_null(bdrv_next_node(pl, NULL));
}

void header(int i, const char *file, const char *backing, const char *format)
{
    fake.cow[i] = (struct fake_cow){.file = file, .backing = backing, .format = format};
}
