/* SPDX-License-Identifier: MIT */
/*
 * platter convert --journal: how far it is, so that the same command goes on after an interruption.
 *
 * The file is lines of JSON: the first says which convert it is of and which target, each further
 * one how far it is. A line is added, durably, only after the target was flushed. The last line of
 * those that are whole counts: what an interruption cut short or left behind it is thrown away, as
 * is what was damaged. To go on from an earlier line is always right, it copies more than it must.
 *
 * The file is locked as long as the convert lives. The lock on the target may outlive it: the ring
 * of a process that was killed lets go of its files a little after the process is gone. So whoever
 * has the journal waits for the target.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <platter/image.h>

#include "os/os.h"
#include "tools/img/convert_int.h"
#include "util/error.h"
#include "util/json.h"
#include "util/mem.h"

#define STEP_BYTES (UINT64_C(16) << 20)        /* that are copied between two records */
#define JOURNAL_BYTES_MAX (UINT64_C(64) << 20) /* a larger file is none of ours */
#define LINE_BYTES_MAX 512
#define LOCK_TRIES 10 /* while a process that was killed ends */

static int failed(const struct convert_run *run, const char *doing, int ret)
{
    return cli_error(run->cli, "%s the journal '%s' failed: %s", doing, run->journal.name,
                     strerror(-ret));
}

/* ---- which convert it is of ---- */

/* FNV-1a: tells command lines apart, and is no secret. */
static uint64_t mix(uint64_t hash, const void *data, size_t bytes)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* Who only wants to see more of it, or less, still wants the same. */
static bool tells_what_is_shown(const char *word)
{
    static const char *const words[] = {"--progress", "--progress=json", "--quiet"};

    if (word[0] == '-' && word[1] != '\0' && word[1 + strspn(word + 1, "pq")] == '\0') {
        return true;
    }
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strcmp(word, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* The words of the command line, and for each file of the sources its identity, size and age. */
static uint64_t key_of(const struct convert_run *run)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (int i = 0; i < run->args->argc; i++) {
        if (!tells_what_is_shown(run->args->argv[i])) {
            hash = mix(hash, run->args->argv[i], strlen(run->args->argv[i]) + 1);
        }
    }
    hash = mix(hash, &run->total, sizeof(run->total));
    for (BlockDriverState *bs = bdrv_next_node(run->pl, NULL); bs;
         bs = bdrv_next_node(run->pl, bs)) {
        struct stat st;

        if (os->stat(bdrv_get_filename(bs), &st) == 0) {
            uint64_t facts[] = {(uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size,
                                (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};

            hash = mix(hash, facts, sizeof(facts));
        }
    }
    return hash;
}

/* The file that the target is, as text; empty: it is none. */
static void target_id(const struct convert_run *run, char *id, size_t size)
{
    struct stat st;

    id[0] = '\0';
    if (os->stat(bdrv_get_filename(blk_bs(run->target)), &st) == 0) {
        snprintf(id, size, "%" PRIu64 ":%" PRIu64, (uint64_t)st.st_dev, (uint64_t)st.st_ino);
    }
}

/* Shows a damaged line; made by anybody who wants to. */
static uint64_t check_of(const struct convert_journal *j, uint64_t offset, bool is_zero)
{
    uint64_t facts[] = {offset, is_zero};

    return mix(j->key, facts, sizeof(facts));
}

/* ---- reading ---- */

static bool get_u64(const json_t *line, const char *name, uint64_t *ret)
{
    return json_get_u64(json_object_get(line, name), ret);
}

/* The first line. False after printing. */
static bool take_first(struct convert_run *run, const json_t *line)
{
    struct convert_journal *j = &run->journal;
    const char *target = json_string_value(json_object_get(line, "target"));
    uint64_t key;

    if (!get_u64(line, "convert", &key) || !target) {
        cli_error(run->cli, "'%s' is no journal of a convert", j->name);
        return false;
    }
    if (key != j->key) {
        cli_error(run->cli, "'%s' is the journal of another convert, or a source has changed",
                  j->name);
        cli_hint(run->cli, "Remove it to begin anew");
        return false;
    }
    snprintf(j->target, sizeof(j->target), "%s", target);
    return true;
}

/* What a file begins with that a convert did not get to write whole. */
static bool is_torn_beginning(const char *text)
{
    static const char head[] = "{\"convert\":";
    size_t len = strlen(text);

    return strncmp(text, head, len < sizeof(head) - 1 ? len : sizeof(head) - 1) == 0;
}

/* A further line. False: it was not written by this convert as it stands there. */
static bool take_record(struct convert_run *run, const json_t *line)
{
    struct convert_journal *j = &run->journal;
    bool is_zero = json_is_true(json_object_get(line, "zero"));
    uint64_t offset, check;

    if (!get_u64(line, "offset", &offset) || !get_u64(line, "check", &check) ||
        check != check_of(j, offset, is_zero) || offset > run->total) {
        return false;
    }
    j->start = offset;
    j->is_zero = is_zero;
    j->resumes = true;
    return true;
}

/* text: of so many bytes, and a NUL behind them. False after printing. */
static bool take_lines(struct convert_run *run, const char *text, size_t bytes)
{
    struct convert_journal *j = &run->journal;
    bool whole = true;
    bool good = true;
    const char *end;

    if (!strchr(text, '\n') && (strlen(text) != bytes || !is_torn_beginning(text))) {
        cli_error(run->cli, "'%s' is no journal of a convert", j->name);
        return false;
    }
    /* A NUL ends them, too: a power cut may leave zeroes behind the last. */
    for (bool first = true; good && whole && (end = strchr(text, '\n')) != NULL; text = end + 1) {
        json_t *line = json_parse_text(text, (size_t)(end - text), NULL);

        if (first) {
            good = take_first(run, line);
        } else {
            whole = take_record(run, line);
        }
        first = false;
        j->end += whole ? (uint64_t)(end + 1 - text) : 0;
        json_decref(line);
    }
    return good;
}

static int64_t read_all(int fd, char *buf, size_t bytes)
{
    size_t have = 0;

    while (have < bytes) {
        struct iovec iov = {buf + have, bytes - have};
        int64_t n = os->preadv(fd, &iov, 1, have, 0);

        if (n <= 0) {
            return n < 0 ? n : (int64_t)have;
        }
        have += (size_t)n;
    }
    return (int64_t)have;
}

/* CLI_EXIT_*, after printing. */
static int lock_journal(const struct convert_run *run)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    unsigned tries = LOCK_TRIES;
    int ret;

    do {
        ret = os->lock(run->journal.fd, F_OFD_SETLK, &lock);
    } while ((ret == -EAGAIN || ret == -EACCES) && disk_lock_again(&tries));
    if (ret == -EAGAIN || ret == -EACCES) {
        return cli_error(run->cli, "the journal '%s' is in use by another convert",
                         run->journal.name);
    }
    return ret < 0 && ret != -EINVAL && ret != -ENOLCK ? failed(run, "Locking", ret) : CLI_EXIT_OK;
}

int convert_journal_open(struct convert_run *run)
{
    struct convert_journal *j = &run->journal;
    struct stat st = {0};
    int64_t bytes;
    char *text;
    bool good;

    j->key = key_of(run);
    j->fd = os->open(j->name, O_RDWR | O_CREAT, 0644);
    if (j->fd < 0) {
        return failed(run, "Opening", j->fd);
    }
    if (lock_journal(run) != CLI_EXIT_OK) {
        return CLI_EXIT_FAILED;
    }
    if (os->fstat(j->fd, &st) < 0) {
        return failed(run, "Opening", -EIO);
    }
    j->found = st.st_size > 0;
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > JOURNAL_BYTES_MAX) {
        return cli_error(run->cli, "'%s' is no journal of a convert", j->name);
    }
    text = calloc(1, (size_t)st.st_size + 1);
    if (!text) {
        return cli_error(run->cli, "out of memory");
    }
    bytes = read_all(j->fd, text, (size_t)st.st_size);
    good = bytes >= 0 && take_lines(run, text, (size_t)bytes);
    free(text);
    return bytes < 0 ? failed(run, "Reading", (int)bytes) : good ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

/* ---- writing ---- */

static int append(struct convert_journal *j, const char *line)
{
    size_t bytes = strlen(line);
    size_t done = 0;

    while (done < bytes) {
        struct iovec iov = {(char *)line + done, bytes - done};
        int64_t n = os->pwritev(j->fd, &iov, 1, j->end + done, 0);

        if (n < 0) {
            return (int)n;
        }
        done += (size_t)n;
    }
    j->end += bytes;
    return os->fdatasync(j->fd);
}

static int note(void *opaque, uint64_t offset, bool target_is_zero)
{
    struct convert_run *run = opaque;
    char line[LINE_BYTES_MAX];

    snprintf(line, sizeof(line),
             "{\"offset\": %" PRIu64 ", \"zero\": %s, \"check\": %" PRIu64 "}\n", offset,
             target_is_zero ? "true" : "false", check_of(&run->journal, offset, target_is_zero));
    return append(&run->journal, line);
}

/* The target is as the interruption left it: what it leaks is given back. */
static int mend_target(struct convert_run *run)
{
    struct bdrv_check_options check = {.size = sizeof(check), .fix = BDRV_FIX_LEAKS};
    struct bdrv_check_result found = {0};
    uint64_t perm, shared;
    Error *err = NULL;
    int ret;

    blk_get_perm(run->target, &perm, &shared);
    ret = blk_set_perm(run->target, perm, BDRV_PERM_ALL, &err); /* the check is another user */
    if (ret == 0) {
        ret = bdrv_check(blk_bs(run->target), &check, &found, &err);
    }
    if (ret == -ENOTSUP) { /* as raw: there is nothing to check */
        error_free(err);
        err = NULL;
        ret = 0;
    }
    if (ret == 0) {
        ret = blk_set_perm(run->target, perm, shared, &err);
    }
    if (ret < 0) {
        return cli_report(run->cli, err);
    }
    return found.corruptions > 0 ? cli_error(run->cli, "'%s' cannot be gone on with: it is damaged",
                                             run->args->target.file)
                                 : CLI_EXIT_OK;
}

static int go_on(struct convert_run *run)
{
    struct convert_journal *j = &run->journal;
    char id[sizeof(j->target)];
    int ret;

    target_id(run, id, sizeof(id));
    if (strcmp(id, j->target) != 0) {
        cli_error(run->cli, "'%s' is not the file that the journal '%s' speaks of",
                  run->args->target.file, j->name);
        cli_hint(run->cli, "Remove the journal to begin anew");
        return CLI_EXIT_FAILED;
    }
    ret = os->ftruncate(j->fd, j->end);
    if (ret < 0) {
        return failed(run, "Writing", ret);
    }
    run->args->engine.start = j->start;
    run->args->engine.target_is_zero = j->is_zero;
    return mend_target(run);
}

int convert_journal_begin(struct convert_run *run)
{
    struct convert_journal *j = &run->journal;
    char line[LINE_BYTES_MAX];
    int ret;

    run->args->engine.checkpoint = note;
    run->args->engine.checkpoint_bytes = STEP_BYTES;
    if (j->resumes) {
        return go_on(run);
    }
    target_id(run, j->target, sizeof(j->target));
    snprintf(line, sizeof(line), "{\"convert\": %" PRIu64 ", \"target\": \"%s\"}\n", j->key,
             j->target);
    j->end = 0;
    ret = os->ftruncate(j->fd, 0);
    if (ret == 0) {
        ret = append(j, line);
    }
    return ret < 0 ? failed(run, "Writing", ret) : CLI_EXIT_OK;
}

void convert_journal_end(struct convert_run *run, bool done)
{
    if (run->journal.fd >= 0) {
        if (done) {
            (void)os->unlink(run->journal.name);
        }
        os->close(run->journal.fd);
        run->journal.fd = -1;
    }
}
