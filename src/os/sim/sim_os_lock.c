/* SPDX-License-Identifier: MIT */
/* Open-file-description locks of simulated files: owned by the description, never waited for. */
#include "os/sim/sim_world.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int lock_range(const struct flock *lock, uint64_t *ret_start, uint64_t *ret_end)
{
    if (lock->l_whence != SEEK_SET || lock->l_start < 0 || lock->l_len < 0 || lock->l_pid != 0) {
        return -EINVAL;
    }
    *ret_start = (uint64_t)lock->l_start;
    *ret_end = lock->l_len ? *ret_start + (uint64_t)lock->l_len : UINT64_MAX;
    return 0;
}

static struct sim_lock *conflict(const struct sim_ofd *ofd, short type, uint64_t start,
                                 uint64_t end)
{
    struct sim_lock *held;

    LIST_FOREACH (held, &ofd->file->locks, link) {
        if (held->owner != ofd && held->start < end && start < held->end &&
            (held->type == F_WRLCK || type == F_WRLCK)) {
            return held;
        }
    }
    return 0;
}

static int lock_add(struct sim_ofd *ofd, short type, uint64_t start, uint64_t end)
{
    struct sim_lock *lock;

    if (start >= end) {
        return 0;
    }
    lock = malloc(sizeof(*lock));
    if (!lock) {
        return -ENOLCK;
    }
    *lock = (struct sim_lock){.owner = ofd, .type = type, .start = start, .end = end};
    LIST_INSERT_HEAD(&ofd->file->locks, lock, link);
    return 0;
}

/* Take a range out of what ofd holds. */
static int locks_cut(struct sim_ofd *ofd, uint64_t start, uint64_t end)
{
    struct sim_lock *held;
    struct sim_lock *next;
    int rc = 0;

    for (held = LIST_FIRST(&ofd->file->locks); held && rc == 0; held = next) {
        next = LIST_NEXT(held, link);
        if (held->owner != ofd || held->start >= end || start >= held->end) {
            continue;
        }
        if (held->end > end) { /* new ones come before: next does not meet them */
            rc = lock_add(ofd, held->type, end, held->end);
        }
        if (rc == 0 && held->start < start) {
            held->end = start;
        } else if (rc == 0) {
            LIST_REMOVE(held, link);
            free(held);
        }
    }
    return rc;
}

void sim_locks_drop(struct sim_file *file, const struct sim_ofd *owner)
{
    struct sim_lock *held;
    struct sim_lock *next;

    for (held = LIST_FIRST(&file->locks); held; held = next) {
        next = LIST_NEXT(held, link);
        if (held->owner == owner) {
            LIST_REMOVE(held, link);
            free(held);
        }
    }
}

int sim_locks_set(struct sim_ofd *ofd, const struct flock *lock)
{
    int mode = ofd->flags & O_ACCMODE;
    uint64_t start;
    uint64_t end;
    int rc = lock_range(lock, &start, &end);

    if (rc < 0) {
        return rc;
    }
    if ((lock->l_type == F_WRLCK && mode == O_RDONLY) ||
        (lock->l_type == F_RDLCK && mode == O_WRONLY)) {
        return -EBADF;
    }
    if (lock->l_type != F_UNLCK && conflict(ofd, lock->l_type, start, end)) {
        return -EAGAIN;
    }
    rc = locks_cut(ofd, start, end);
    return rc == 0 && lock->l_type != F_UNLCK ? lock_add(ofd, lock->l_type, start, end) : rc;
}

int sim_locks_get(struct sim_ofd *ofd, struct flock *lock)
{
    struct sim_lock *held;
    uint64_t start;
    uint64_t end;
    int rc = lock_range(lock, &start, &end);

    if (rc < 0) {
        return rc;
    }
    held = conflict(ofd, lock->l_type, start, end);
    if (!held) {
        lock->l_type = F_UNLCK;
        return 0;
    }
    lock->l_type = held->type;
    lock->l_start = (off_t)held->start;
    lock->l_len = held->end == UINT64_MAX ? 0 : (off_t)(held->end - held->start);
    lock->l_pid = -1; /* what the kernel says of such locks */
    return 0;
}
