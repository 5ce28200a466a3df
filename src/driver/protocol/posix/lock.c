/* SPDX-License-Identifier: MIT */
/*
 * Image locks: what two processes that open one image tell each other, by shared locks on single
 * bytes of the file that no data operation touches.
 *
 *   byte 100 + n   somebody has permission n of the image
 *   byte 200 + n   somebody does not share permission n with others
 *
 * n is the number of the BDRV_PERM_* bit. Everybody first takes its own bytes, then looks whether
 * another one holds a byte that contradicts; so of two that come together at least one sees the
 * other. The locks belong to the open file description: descriptors of one process contradict each
 * other like those of two. The end of the description ends them, but a ring may hold on to it for a
 * moment after its last request was answered and the descriptor closed; so they are given back
 * before the close.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "os/os.h"
#include "posix.h"
#include "util/error.h"
#include "util/mem.h"

#define LOCK_PERM_BASE 100
#define LOCK_UNSHARED_BASE 200

static const char *const perm_names[] = {"consistent read", "write", "write unchanged", "resize"};

static int lock_byte(int fd, short type, uint64_t byte)
{
    struct flock lock = {
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = (off_t)byte,
        .l_len = 1,
    };

    return os->lock(fd, F_OFD_SETLK, &lock);
}

/* Whether another description holds byte: 1, 0 or -errno. */
static int lock_test(int fd, uint64_t byte)
{
    struct flock lock = {
        .l_type = F_WRLCK,
        .l_whence = SEEK_SET,
        .l_start = (off_t)byte,
        .l_len = 1,
    };
    int rc = os->lock(fd, F_OFD_GETLK, &lock);

    if (rc < 0) {
        return rc;
    }
    return lock.l_type != F_UNLCK;
}

/* Take the bytes of mask; on failure those taken stay. *ret_bit: the one that failed. */
static int lock_mask(int fd, uint64_t base, uint64_t mask, unsigned *ret_bit)
{
    for (unsigned bit = 0; bit < ARRAY_SIZE(perm_names); bit++) {
        if ((mask >> bit & 1) != 0) {
            int rc = lock_byte(fd, F_RDLCK, base + bit);

            if (rc < 0) {
                *ret_bit = bit;
                return rc;
            }
        }
    }
    return 0;
}

static void unlock_mask(int fd, uint64_t base, uint64_t mask)
{
    for (unsigned bit = 0; bit < ARRAY_SIZE(perm_names); bit++) {
        if ((mask >> bit & 1) != 0) {
            lock_byte(fd, F_UNLCK, base + bit);
        }
    }
}

/* Whether anybody else holds a byte of mask: 0, -EAGAIN (the first in *ret_bit) or -errno. */
static int test_mask(int fd, uint64_t base, uint64_t mask, unsigned *ret_bit)
{
    for (unsigned bit = 0; bit < ARRAY_SIZE(perm_names); bit++) {
        if ((mask >> bit & 1) != 0) {
            int rc = lock_test(fd, base + bit);

            if (rc != 0) {
                *ret_bit = bit;
                return rc < 0 ? rc : -EAGAIN;
            }
        }
    }
    return 0;
}

static void hint_holder(Error **errp, int fd, uint64_t byte, const char *filename)
{
    static const char in_use[] = "Is another process using the image [%s]?";
    char holder[64];

    if (errp == NULL) {
        return;
    }
    if (posix_lock_holder(fd, byte, holder, sizeof(holder))) {
        error_set_hint(errp, "The image [%s] is in use by process %s", filename, holder);
    } else {
        error_set_hint(errp, in_use, filename);
    }
    error_add_compat_hint(errp, in_use, filename);
}

static int refuse(Error **errp, int rc, int fd, uint64_t byte, const char *shared, unsigned bit,
                  const char *filename)
{
    if (rc == -EACCES) {
        rc = -EAGAIN; /* two spellings of "somebody else has it" */
    }
    if (rc != -EAGAIN) {
        return error_set_errno(errp, -rc, "Failed to get %s\"%s\" lock", shared, perm_names[bit]);
    }
    error_set(errp, EAGAIN, "Failed to get %s\"%s\" lock", shared, perm_names[bit]);
    hint_holder(errp, fd, byte, filename);
    return rc;
}

int posix_locks_init(struct posix_locks *locks, int fd, bool on, bool off, const char *filename,
                     Error **errp)
{
    int rc;

    *locks = (struct posix_locks){.enabled = !off, .required = on};
    if (off) {
        return 0;
    }
    rc = lock_test(fd, LOCK_PERM_BASE);
    if (rc < 0) {
        locks->enabled = false;
        if (on) {
            return error_set_errno(
                errp, -rc, "'%s': image locks are not possible here (locking=on)", filename);
        }
    }
    return 0;
}

int posix_locks_check(struct posix_locks *locks, int fd, const char *filename, uint64_t perm,
                      uint64_t shared, Error **errp)
{
    uint64_t unshared = ~shared & BDRV_PERM_ALL;
    unsigned bit = 0;
    int rc;

    perm &= BDRV_PERM_ALL;
    if (!locks->enabled) {
        return 0;
    }
    locks->next_perm = perm;
    locks->next_unshared = unshared;

    rc = lock_mask(fd, LOCK_PERM_BASE, perm & ~locks->held_perm, &bit);
    locks->held_perm |= perm;
    if (rc < 0) {
        refuse(errp, rc, fd, LOCK_PERM_BASE + bit, "", bit, filename);
        goto fail;
    }
    rc = lock_mask(fd, LOCK_UNSHARED_BASE, unshared & ~locks->held_unshared, &bit);
    locks->held_unshared |= unshared;
    if (rc < 0) {
        refuse(errp, rc, fd, LOCK_UNSHARED_BASE + bit, "shared ", bit, filename);
        goto fail;
    }
    rc = test_mask(fd, LOCK_UNSHARED_BASE, perm, &bit);
    if (rc < 0) {
        refuse(errp, rc, fd, LOCK_UNSHARED_BASE + bit, "", bit, filename);
        goto fail;
    }
    rc = test_mask(fd, LOCK_PERM_BASE, unshared, &bit);
    if (rc < 0) {
        refuse(errp, rc, fd, LOCK_PERM_BASE + bit, "shared ", bit, filename);
        goto fail;
    }
    return 0;

fail:
    posix_locks_abort(locks, fd);
    if (!locks->required && (rc == -ENOLCK || rc == -EOPNOTSUPP || rc == -ENOSYS)) {
        /* locking=auto where the file system turns out to have none */
        if (errp != NULL) {
            error_free(*errp);
            *errp = NULL;
        }
        locks->enabled = false;
        return 0;
    }
    return rc == -EACCES ? -EAGAIN : rc;
}

/* Let go of what is held beyond the locks in force. */
static void locks_trim(struct posix_locks *locks, int fd)
{
    unlock_mask(fd, LOCK_PERM_BASE, locks->held_perm & ~locks->perm);
    unlock_mask(fd, LOCK_UNSHARED_BASE, locks->held_unshared & ~locks->unshared);
    locks->held_perm = locks->next_perm = locks->perm;
    locks->held_unshared = locks->next_unshared = locks->unshared;
}

void posix_locks_commit(struct posix_locks *locks, int fd)
{
    locks->perm = locks->next_perm;
    locks->unshared = locks->next_unshared;
    locks_trim(locks, fd);
}

void posix_locks_abort(struct posix_locks *locks, int fd)
{
    locks_trim(locks, fd);
}

void posix_locks_release(const struct posix_locks *locks, int fd)
{
    if (locks->enabled) {
        unlock_mask(fd, LOCK_PERM_BASE, locks->held_perm);
        unlock_mask(fd, LOCK_UNSHARED_BASE, locks->held_unshared);
    }
}

int posix_locks_move(const struct posix_locks *locks, int new_fd)
{
    unsigned bit;
    int rc;

    if (!locks->enabled) {
        return 0;
    }
    rc = lock_mask(new_fd, LOCK_PERM_BASE, locks->held_perm, &bit);
    if (rc < 0) {
        return rc;
    }
    return lock_mask(new_fd, LOCK_UNSHARED_BASE, locks->held_unshared, &bit);
}

int posix_perm_check(BlockDriverState *bs, uint64_t perm, uint64_t shared, Error **errp)
{
    struct posix_state *s = bdrv_opaque(bs);

    if ((bdrv_open_flags(bs) & BDRV_O_FORCE_SHARE) != 0) {
        shared = BDRV_PERM_ALL; /* whatever its users would rather have */
    }
    return posix_locks_check(&s->locks, s->fd, s->filename, perm, shared, errp);
}

void posix_perm_set(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    struct posix_state *s = bdrv_opaque(bs);

    if (s->locks.enabled) {
        posix_locks_commit(&s->locks, s->fd);
    }
}

void posix_perm_abort(BlockDriverState *bs)
{
    struct posix_state *s = bdrv_opaque(bs);

    if (s->locks.enabled) {
        posix_locks_abort(&s->locks, s->fd);
    }
}
