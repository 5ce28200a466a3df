/* SPDX-License-Identifier: MIT */
/* Short texts of people and images: sizes, numbers, ids, names of files and protocols. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/backend.h>

#include "fuzz.h"
#include "util/mem.h"
#include "util/size.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_close_world();
    return 0;
}

/* A failed call says why, in a sentence of bounded length. */
static void check_error(int rc, Error *err)
{
    FUZZ_CHECK((rc < 0) == (err != NULL));
    if (err != NULL) {
        FUZZ_CHECK(error_get_errno(err) > 0);
        FUZZ_CHECK(error_get_pretty(err)[0] != '\0');
        error_free(err);
    }
}

static void sizes(struct fuzz_in *in)
{
    static const char suffixes[] = "bkMGTPE?";
    char suffix = suffixes[fuzz_u8(in) % (sizeof(suffixes) - 1)];
    char *text = fuzz_text(in);
    uint64_t bytes = 0, again = 0;
    Error *err = NULL;
    char buf[32];
    int rc = size_parse(text, suffix, "size", &bytes, &err);

    check_error(rc, err);
    if (rc == 0) {
        FUZZ_CHECK(bytes <= INT64_MAX);
        snprintf(buf, sizeof(buf), "%" PRIu64, bytes);
        FUZZ_CHECK(size_parse(buf, 'b', "size", &again, NULL) == 0 && again == bytes);
        FUZZ_CHECK(size_format(bytes, buf, sizeof(buf)) == buf && strlen(buf) < 12);
    }
    free(text);
}

static void numbers(struct fuzz_in *in)
{
    uint64_t min = fuzz_u64(in), max = fuzz_u64(in);
    char *text = fuzz_text(in);
    uint64_t value = 0, again = 0;
    Error *err = NULL;
    char buf[32];
    int rc = number_parse(text, "number", min, max, &value, &err);

    check_error(rc, err);
    if (rc == 0) {
        FUZZ_CHECK(value >= min && value <= max);
        snprintf(buf, sizeof(buf), "0x%" PRIx64, value);
        FUZZ_CHECK(number_parse(buf, "number", 0, UINT64_MAX, &again, NULL) == 0);
        FUZZ_CHECK(again == value);
    }
    free(text);
}

static void ids(struct fuzz_in *in)
{
    char *text = fuzz_text(in);
    Platter *pl = fuzz_platter(0);
    Error *err = NULL;
    BlockBackend *blk;

    blk = blk_new(pl, text, &err);
    check_error(blk == NULL ? -1 : 0, err);
    FUZZ_CHECK((blk != NULL) <= id_wellformed(text));
    blk_unref(blk);
    platter_free(pl);
    free(text);
}

static void filenames(struct fuzz_in *in)
{
    static const int kinds[] = {0, BDRV_O_RDWR, BDRV_O_PROBE, BDRV_O_RDWR | BDRV_O_AUTO_RDONLY};
    int flags = kinds[fuzz_u8(in) % ARRAY_SIZE(kinds)];
    char *text = fuzz_text(in);
    Platter *pl = fuzz_platter(0);
    Error *err = NULL;
    BlockDriverState *bs;

    bs = bdrv_open(pl, text, NULL, NULL, flags, &err);
    check_error(bs == NULL ? -1 : 0, err);
    if (bs != NULL) {
        char *name = strdup(bdrv_get_filename(bs));

        FUZZ_CHECK(name != NULL);
        bdrv_unref(bs);
        /* What is shown can be opened again. */
        bs = bdrv_open(pl, name, NULL, NULL, flags, NULL);
        FUZZ_CHECK(bs != NULL);
        FUZZ_CHECK(strcmp(name, bdrv_get_filename(bs)) == 0);
        bdrv_unref(bs);
        free(name);
    }
    platter_free(pl);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static void (*const kinds[])(struct fuzz_in *) = {sizes, numbers, ids, filenames};
    struct fuzz_in in = {data, bytes};

    if (bytes <= 4096) {
        kinds[fuzz_u8(&in) % ARRAY_SIZE(kinds)](&in);
    }
    return 0;
}
