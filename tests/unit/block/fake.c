/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_int.h"

#include "os/os.h"
#include "schema/opts.h"
#include "util/error.h"
#include "util/iov.h"
#include "util/options.h"

struct fake_counters fake;

void fake_reset(void)
{
    memset(&fake, 0, sizeof(fake));
    fake.size = FAKE_FILE_BYTES;
}

/* ---- drivers ---- */

struct fake_state {
    uint8_t bytes[FAKE_FILE_BYTES];
    bool checking;
};

static int file_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct fake_state *s = bdrv_opaque(bs);
    char *name = NULL;

    if (block_options_take_str(options, "filename", &name, errp) <= 0) {
        return errp != NULL && *errp != NULL ? -EINVAL : error_set(errp, EINVAL, "no filename");
    }
    if (fake.refuse_open != 0) {
        error_set_errno(errp, fake.refuse_open, "Could not open '%s'", name);
        free(name);
        return -fake.refuse_open;
    }
    if (fake.read_only_file) {
        int rc = bdrv_apply_auto_read_only(bs, "the file is read-only", errp);

        if (rc < 0) {
            free(name);
            return rc;
        }
    }
    if (fake.real_files) {
        int fd = bdrv_os_open(bs->pl, name, O_RDONLY, 0, errp);

        if (fd < 0) {
            free(name);
            return fd;
        }
        os->close(fd);
    }
    bdrv_set_filename(bs, name);
    free(name);
    memcpy(s->bytes, fake.content, sizeof(s->bytes));
    fake.live++;
    return 0;
}

void fake_close(BlockDriverState *bs)
{
    int number;

    fake.live--;
    if (fake.n_closed < 2048 && sscanf(bdrv_get_node_name(bs), "n%d", &number) == 1) {
        fake.closed[fake.n_closed++] = number;
    }
}

static bool file_get_file_id(BlockDriverState *bs, struct bdrv_file_id *ret_id)
{
    struct stat st;

    if (bs->filename == NULL || os->stat(bs->filename, &st) < 0) { /* NULL: no memory */
        return false;
    }
    *ret_id = (struct bdrv_file_id){.dev = st.st_dev, .ino = st.st_ino};
    return true;
}

int64_t fake_getlength(BlockDriverState *bs)
{
    return fake.size;
}

static int file_rw_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct fake_state *s = bdrv_opaque(bs);

    if (req->op == BDRV_OP_READ) {
        if (!fake.leaves_memory) {
            iov_from_buf(req->iov, req->niov, req->iov_offset, s->bytes + req->offset, req->bytes);
        }
        return 0;
    }
    fake.writes++;
    if (fake.write_error != 0) {
        return fake.write_error;
    }
    iov_to_buf(req->iov, req->niov, req->iov_offset, s->bytes + req->offset, req->bytes);
    return 0;
}

static int file_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    return fake.write_error;
}

static int file_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                            enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    fake.size = (int64_t)size_bytes;
    return 0;
}

static int file_perm_check(BlockDriverState *bs, uint64_t perm, uint64_t shared, Error **errp)
{
    struct fake_state *s = bdrv_opaque(bs);

    if (fake.refuse_perm) {
        return error_set(errp, EAGAIN, "locked by another process");
    }
    assert_false(s->checking);
    s->checking = true;
    fake.checks++;
    return 0;
}

static void file_perm_set(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    struct fake_state *s = bdrv_opaque(bs);

    assert_true(s->checking);
    s->checking = false;
    fake.checks--;
}

static void file_perm_abort(BlockDriverState *bs)
{
    file_perm_set(bs, 0, 0);
}

static int file_reopen_prepare(BlockDriverState *bs, int new_flags, Error **errp)
{
    if (fake.refuse_reopen) {
        return error_set(errp, EACCES, "reopen refused");
    }
    fake.reopens++;
    return 0;
}

static void file_reopen_done(BlockDriverState *bs)
{
    fake.reopens--;
}

static void file_limits(BlockDriverState *bs, struct bdrv_limits *limits)
{
    limits->max_transfer = 1024;
    limits->request_alignment = fake.align != 0 ? fake.align : 1;
}

static int file_flush_co(BlockDriverState *bs)
{
    fake.flushes++;
    if (fake.on_flush != NULL) {
        fake.on_flush(bs);
    }
    return fake.flush_error;
}

static const BlockDriver bdrv_fake_file = {
    .format_name = "file",
    .protocol_name = "file",
    .instance_size = sizeof(struct fake_state),
    .caps = BDRV_CAP_PROTOCOL,
    .open = file_open,
    .close = fake_close,
    .reopen_prepare = file_reopen_prepare,
    .reopen_commit = file_reopen_done,
    .reopen_abort = file_reopen_done,
    .perm_check = file_perm_check,
    .perm_set = file_perm_set,
    .perm_abort = file_perm_abort,
    .refresh_limits = file_limits,
    .read_co = file_rw_co,
    .write_co = file_rw_co,
    .discard_co = file_discard_co,
    .truncate_co = file_truncate_co,
    .flush_co = file_flush_co,
    .getlength = fake_getlength,
    .get_file_id = file_get_file_id,
};

static int net_parse_filename(const char *filename, BlockOptions *options, Error **errp)
{
    if (strncmp(filename, "net://", 6) != 0) {
        return error_set(errp, EINVAL, "'%s' must begin with net://", filename);
    }
    return block_options_set_str(options, "host", filename + 6);
}

static int net_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    char *host = NULL;

    if (block_options_take_str(options, "host", &host, errp) <= 0) {
        return errp != NULL && *errp != NULL ? -EINVAL : error_set(errp, EINVAL, "no host");
    }
    free(host);
    fake.live++;
    return 0;
}

static const char *const net_strong[] = {"host", NULL};

static const BlockDriver bdrv_fake_net = {
    .format_name = "net",
    .protocol_name = "net",
    .caps = BDRV_CAP_PROTOCOL,
    .parse_filename = net_parse_filename,
    .open = net_open,
    .close = fake_close,
    .read_co = file_rw_co,
    .getlength = fake_getlength,
    .strong_options = net_strong,
};

int fake_one_child_open(BlockDriverState *bs, BlockOptions *options, unsigned role, Error **errp)
{
    if (bdrv_open_child(bs, NULL, options, "file", role | BDRV_ROLE_PRIMARY, false, errp) == NULL) {
        return -EINVAL;
    }
    fake.live++;
    return 0;
}

static int raw_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    uint64_t offset;
    int rc = block_options_take_size(options, "offset", 0, 4096, &offset, errp);

    if (rc < 0) {
        return rc;
    }
    if (rc == 0) {
        bdrv_set_caps(bs, BDRV_CAP_FORMAT | BDRV_CAP_PASSTHROUGH);
    }
    return fake_one_child_open(bs, options, BDRV_ROLE_FILTERED, errp);
}

static int fmt_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    Error *err = NULL;
    int rc = fake_one_child_open(bs, options, BDRV_ROLE_DATA | BDRV_ROLE_METADATA, errp);

    if (rc < 0) {
        return rc;
    }
    if (bdrv_open_child(bs, NULL, options, "backing", BDRV_ROLE_COW, true, &err) == NULL &&
        err != NULL) {
        fake.live--;
        error_propagate(errp, err);
        return -EINVAL;
    }
    return 0;
}

static int pass_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    return fake_one_child_open(bs, options, BDRV_ROLE_FILTERED, errp);
}

static int two_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    if (bdrv_open_child(bs, NULL, options, "a", BDRV_ROLE_DATA | BDRV_ROLE_PRIMARY, false, errp) ==
            NULL ||
        bdrv_open_child(bs, NULL, options, "b", BDRV_ROLE_DATA, false, errp) == NULL) {
        return -EINVAL;
    }
    fake.live++;
    return 0;
}

int fake_forward_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    return bdrv_edge_request_co(bdrv_primary_child(bs), req);
}

static int fmt_probe(const uint8_t *buf, size_t len, const char *filename)
{
    return len >= 4 && memcmp(buf, "FMT!", 4) == 0 ? 100 : 0;
}

static int raw_probe(const uint8_t *buf, size_t len, const char *filename)
{
    return 1;
}

static const char *const raw_strong[] = {"offset", NULL};

static const BlockDriver bdrv_fake_raw = {
    .format_name = "raw",
    .caps = BDRV_CAP_FORMAT,
    .probe = raw_probe,
    .open = raw_open,
    .close = fake_close,
    .read_co = fake_forward_co,
    .write_co = fake_forward_co,
    .strong_options = raw_strong,
};

static const BlockDriver bdrv_fake_fmt = {
    .format_name = "fmt",
    .caps = BDRV_CAP_FORMAT,
    .probe = fmt_probe,
    .open = fmt_open,
    .close = fake_close,
    .read_co = fake_forward_co,
    .write_co = fake_forward_co,
};

static const BlockDriver bdrv_fake_pass = {
    .format_name = "pass",
    .caps = BDRV_CAP_FILTER,
    .open = pass_open,
    .close = fake_close,
};

static const BlockDriver bdrv_fake_two = {
    .format_name = "two",
    .caps = BDRV_CAP_FORMAT,
    .open = two_open,
    .close = fake_close,
    .read_co = fake_forward_co,
};

/* ---- "cow": names other files ---- */

struct cow_state {
    BdrvEdge *backing;
    BdrvEdge *data;
};

static struct fake_cow cow_header(BlockDriverState *bs)
{
    BlockDriverState *file = bs->file->bs;
    const char *name;

    while (file->file != NULL) {
        file = file->file->bs;
    }
    name = file->filename != NULL ? file->filename : "";
    name = strrchr(name, '/') != NULL ? strrchr(name, '/') + 1 : name;
    for (size_t i = 0; i < 4; i++) {
        if (fake.cow[i].file != NULL && strcmp(fake.cow[i].file, name) == 0) {
            return fake.cow[i];
        }
    }
    if (fake.cow_of != NULL) {
        struct fake_cow header = {0};

        fake.cow_of(name, &header);
        return header;
    }
    return (struct fake_cow){0};
}

static int cow_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct cow_state *s = bdrv_opaque(bs);
    struct fake_cow header;
    int rc = fake_one_child_open(bs, options, BDRV_ROLE_DATA | BDRV_ROLE_METADATA, errp);

    if (rc < 0) {
        return rc;
    }
    header = cow_header(bs);
    rc = bdrv_open_backing(bs, options, header.backing, header.format, &s->backing, errp);
    if (rc == 0 && header.data != NULL) {
        rc = bdrv_open_referenced(bs, options, "data-file", header.data, BDRV_ROLE_DATA, &s->data,
                                  errp);
    }
    if (rc < 0) {
        fake.live--;
    }
    return rc;
}

static int cow_probe(const uint8_t *buf, size_t len, const char *filename)
{
    return len >= 4 && memcmp(buf, "COW!", 4) == 0 ? 100 : 0;
}

static const BlockDriver bdrv_fake_cow = {
    .format_name = "cow",
    .instance_size = sizeof(struct cow_state),
    .caps = BDRV_CAP_FORMAT,
    .probe = cow_probe,
    .open = cow_open,
    .close = fake_close,
    .read_co = fake_forward_co,
    .write_co = fake_forward_co,
    .getlength = fake_getlength,
};

const BlockDriver *const bdrv_drivers[] = {
    &bdrv_fake_cow,  &bdrv_fake_file, &bdrv_fake_fmt, &bdrv_fake_img, &bdrv_fake_net,
    &bdrv_fake_pass, &bdrv_fake_raw,  &bdrv_fake_two, NULL,
};

/* ---- users ---- */

static void user_describe(void *parent, char *buf, size_t size)
{
    const struct fake_user *user = parent;

    snprintf(buf, size, "user '%s'", user->name);
}

static const char *user_name(void *parent)
{
    const struct fake_user *user = parent;

    return user->name;
}

static void user_begin(BdrvEdge *edge)
{
    struct fake_user *user = edge->parent;

    user->quiesced++;
    user->begun++;
}

static void user_end(BdrvEdge *edge)
{
    struct fake_user *user = edge->parent;

    assert_true(user->quiesced > 0);
    user->quiesced--;
}

static bool user_poll(BdrvEdge *edge)
{
    struct fake_user *user = edge->parent;

    if (user->busy == 0) {
        return false;
    }
    user->busy--;
    aio_notify(platter_get_main_context(edge->bs->pl));
    return true;
}

static void user_resized(BdrvEdge *edge)
{
    struct fake_user *user = edge->parent;

    user->resized++;
}

const struct bdrv_parent_class fake_user_class = {
    .describe = user_describe,
    .name = user_name,
    .drained_begin = user_begin,
    .drained_end = user_end,
    .drained_poll = user_poll,
    .resized = user_resized,
};

/* ---- helpers ---- */

Platter *fake_platter(void)
{
    Platter *pl = platter_new(NULL, NULL);

    assert_non_null(pl);
    return pl;
}

int fake_setup(void **state)
{
    fake_reset();
    *state = fake_platter();
    return 0;
}

int fake_teardown(void **state)
{
    platter_free(*state);
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.checks, 0);
    assert_int_equal(fake.reopens, 0);
    return 0;
}

BdrvEdge *fake_attach(BlockDriverState *bs, struct fake_user *user, uint64_t perm, uint64_t shared)
{
    Error *err = NULL;
    BdrvEdge *edge = bdrv_root_attach(bs, "root", &fake_user_class, user, perm, shared, &err);

    if (edge == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    return edge;
}

BlockDriverState *fake_open(Platter *pl, const char *text)
{
    Error *err = NULL;
    BlockOptions *options = block_options_parse(text, NULL, &err);
    BlockDriverState *bs;

    assert_non_null(options);
    bs = bdrv_open(pl, NULL, NULL, options, BDRV_O_RDWR, &err);
    if (bs == NULL) {
        fail_msg("open '%s': %s", text, error_get_pretty(err));
    }
    return bs;
}

void fake_expect_error(Error *err, int err_no, const char *piece)
{
    const char *hint;

    assert_non_null(err);
    hint = error_get_hint(err) != NULL ? error_get_hint(err) : "";
    if (strstr(error_get_pretty(err), piece) == NULL && strstr(hint, piece) == NULL) {
        fail_msg("'%s' not in '%s', '%s'", piece, error_get_pretty(err), hint);
    }
    assert_int_equal(error_get_errno(err), err_no);
    error_free(err);
}

void fake_open_fails(Platter *pl, const char *filename, const char *text, int flags, int err_no,
                     const char *piece)
{
    Error *err = NULL;
    BlockOptions *options = text != NULL ? block_options_parse(text, NULL, &err) : NULL;

    assert_true(text == NULL || options != NULL);
    assert_null(bdrv_open(pl, filename, NULL, options, flags, &err));
    fake_expect_error(err, err_no, piece);
    assert_null(bdrv_next_node(pl, NULL));
    assert_int_equal(fake.live, 0);
}
