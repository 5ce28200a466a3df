/* SPDX-License-Identifier: MIT */
/*
 * The cache of L2 tables, in slices (l2_cache.c, l2_slice.c), and those that a commit writes
 * (l2_commit.c). l2_int.h is what these three share.
 */
#ifndef PLATTER_QCOW2_L2_H
#define PLATTER_QCOW2_L2_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "os/thread.h"

#include "inflight.h"
#include "wait.h"

struct qcow2;

enum q2_slice_state {
    Q2_SLICE_CLEAN,   /* on clock */
    Q2_SLICE_DIRTY,   /* on dirty */
    Q2_SLICE_WRITING, /* on writing: the commit that runs will write it as it was when it began */
    Q2_SLICE_WRITTEN, /* on written: that commit waits for it to be durable */
    Q2_SLICE_GONE,    /* in no list, in no bucket: who has it pinned may still use it */
};

enum q2_slice_use {
    Q2_UNUSED,     /* since q2_l2_clean passed */
    Q2_USED_ONCE,  /* when it was loaded, or before its chance was taken */
    Q2_USED_AGAIN, /* found since */
};

/* A slice is a part (l2-cache-entry-size, at most a cluster) of one L2 table. Its words are as in
 * the file (big endian). Readers find and read it without a lock, inside q2_enter/q2_leave. The
 * fields that are not atomic are the cache lock's. */
struct q2_slice {
    uint64_t key;                    /* offset in the file; constant */
    _Atomic(struct q2_slice *) next; /* in its bucket */
    _Atomic uint32_t used;           /* enum q2_slice_use */
    _Atomic uint32_t seq;            /* odd while words change */
    enum q2_slice_state state;
    bool again; /* changed while WRITING or WRITTEN: dirty when that commit ends */
    unsigned pins;
    TAILQ_ENTRY(q2_slice) entry;
    uint64_t *frozen; /* WRITING: as it was when the commit began; owned; NULL: unchanged */
    struct q2_retired retired;
    struct qcow2 *s;          /* borrowed */
    uint32_t bytes;           /* of words, and of frozen */
    _Atomic uint64_t words[]; /* bytes / 8 */
};
TAILQ_HEAD(q2_slice_list, q2_slice);

struct q2_l2_cache {
    struct os_mutex lock;                 /* guards what is not said to be otherwise */
    _Atomic(struct q2_slice *) *buckets;  /* owned; constant */
    unsigned bucket_shift;                /* constant; of the 64-bit hash */
    unsigned slice_bits;                  /* constant */
    uint32_t slice_bytes;                 /* constant */
    uint32_t slice_entries;               /* constant; L2 entries in a slice */
    uint32_t count_max;                   /* constant */
    uint32_t count;                       /* of all states but GONE */
    uint32_t dirty_count;                 /* on dirty */
    struct q2_slice_list clock;           /* clean ones; the hand is at its head */
    struct q2_slice_list dirty;           /* in the order they became so */
    struct q2_slice_list writing;         /* of the commit that runs */
    struct q2_slice_list written;         /* of the commit that runs */
    struct q2_wait_list thaw;             /* who waits for a slice that is WRITING */
    TAILQ_HEAD(, q2_slice_loading) loads; /* slices that are being read from the file */
};

int q2_l2_init(struct qcow2 *s); /* 0 or -ENOMEM */
/* Another size, in two steps: what opt asks for is made ready in *ret_next (0 or -ENOMEM), then it
 * takes the place of what is there, or is thrown away. Drained; nothing is dirty at the switch. */
struct q2_options;
int q2_l2_next(struct qcow2 *s, const struct q2_options *opt, struct q2_l2_cache *ret_next);
void q2_l2_switch(struct qcow2 *s, struct q2_l2_cache *next);
void q2_l2_next_free(struct qcow2 *s, struct q2_l2_cache *next);
void q2_l2_fini(struct qcow2 *s);
/* Lock-free; NULL: not in memory. Inside. */
static inline struct q2_slice *q2_l2_find(struct qcow2 *s, uint64_t key);
/* A word in host order, as the file has it. Lock-free. Inside, or pinned. */
static inline uint64_t q2_slice_word(const struct q2_slice *slice, uint32_t i);
/* Words i and i + 1 (an extended entry) as one q2_l2_set_co left them. Lock-free, as above. */
static inline void q2_slice_pair(const struct q2_slice *slice, uint32_t i, uint64_t *ret_entry,
                                 uint64_t *ret_bitmap);
void q2_slice_pair_slow(const struct q2_slice *slice, uint32_t i, uint64_t *ret_entry,
                        uint64_t *ret_bitmap);
/* As q2_l2_find, loaded where it is not there, and pinned: it stays until q2_l2_put. key is
 * aligned to slice_bytes. -EIO (told: past the end of the file), -ENOMEM, or a commit's error when
 * room must be made. Coroutine, inside; may commit. */
int q2_l2_get_co(struct qcow2 *s, uint64_t key, struct q2_slice **ret);
void q2_l2_put(struct qcow2 *s, struct q2_slice *slice);
/* Put words (host order) into a pinned slice, from word index on, and mark it dirty. Commits see
 * all of them or none; readers see each pair whole. The only way to change a slice. Always 0.
 * Coroutine (it may wait for the commit that runs, when there is no memory for a copy). */
int q2_l2_set_co(struct qcow2 *s, struct q2_slice *slice, uint32_t index, const uint64_t *words,
                 uint32_t count);
/* All slices of a new L2 table at offset enter the cache, dirty: zero (from 0), or copied from the
 * table at from, with COPIED flags as they are. After it succeeded the cluster goes by
 * q2_l2_drop_table and q2_free_later, never by q2_unalloc_co: a commit may be writing it. 0, -EIO,
 * -ENOMEM, or a commit's error when room must be made. Coroutine, inside. */
int q2_l2_new_table_co(struct qcow2 *s, uint64_t offset, uint64_t from);
/* Forget the slices of a table that is gone from the L1. Dirty ones are dropped. */
void q2_l2_drop_table(struct qcow2 *s, uint64_t offset);
/* Forget everything; nothing may be dirty. Drained. */
void q2_l2_drop_all(struct qcow2 *s);
/* Slices not used since the last call leave, when clean (cache-clean-interval). No I/O, no waiting:
 * a timer of any context may call it. */
void q2_l2_clean(struct qcow2 *s);

/* The part of a commit (commit.c). begin: the dirty slices are what it will write, as they are
 * now; whether there are any. next: the following one, or several that are neighbours in the file,
 * copied to buf (max_bytes is at least slice_bytes); false: all were given. end: all of them are
 * durable, or all are dirty again. */
bool q2_l2_commit_begin(struct qcow2 *s);
bool q2_l2_commit_next(struct qcow2 *s, void *buf, size_t max_bytes, uint64_t *ret_offset,
                       size_t *ret_bytes);
void q2_l2_commit_end(struct qcow2 *s, bool durable);

#endif
