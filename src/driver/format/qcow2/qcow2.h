/* SPDX-License-Identifier: MIT */
/*
 * What the files of the qcow2 driver share.
 *
 * How it works. The L1 table and the refcount table are in memory. L2 tables are cached in slices,
 * refcount blocks whole; both are written back. A request finds its mapping without a lock. A
 * change of the mapping takes a lock on its range of guest clusters, allocates, writes data at
 * places that nothing refers to yet, then changes the slice in memory. q2_commit_co brings memory
 * to the file in an order that is right after every cut of power.
 *
 * The write-order invariants (cited as W1 .. W6; commit.c, refcount.c and free.c keep them):
 *  W1 data of new clusters, and the refcounts of every cluster that a table refers to, are durable
 *     before that table (L2 slice, snapshot, bitmap, ...) is written.
 *  W2 a refcount block is durable before the refcount table refers to it, and the refcount table
 *     before anything is written that relies on it.
 *  W3 an L2 table is durable before an L1 table refers to it.
 *  W4 a refcount goes down, in memory too, only after everything that referred to the cluster is
 *     durably gone from the file. So every refcount block may be written at any time.
 *  W5 a cluster whose refcount went down to zero is not used again, nor discarded in the file,
 *     while a request is in flight that may have found it in the mapping before.
 *  W6 the header's first sector is changed alone, and after everything it newly refers to is
 *     durable.
 *  Exceptions only while the dirty bit (incompatible bit 0) is durable: then refcounts and COPIED
 *  flags may be stale, and the next writable open rebuilds them.
 *
 * Threads. Data calls come from any context. q2_enter/q2_leave bracket each of them (inflight.c).
 * Operations on the image as a whole (snapshots, check, amend, ...) run with the node drained.
 * Lock order: exclusive section and inside > range lock > commit lock > refcounts lock > header
 * lock > L2 cache lock > in-flight lock. Locks of one line in the list are never held two at a time
 * by one coroutine.
 */
#ifndef PLATTER_QCOW2_H
#define PLATTER_QCOW2_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "block/driver.h"
#include "loop/context.h"
#include "os/os.h"
#include "os/thread.h"
#include "util/bytes.h"
#include "util/checked.h"
#include "util/mem.h"

#include "format.h"
#include "wait.h"

/* ---- header.c: the header as a struct (pure) ---- */

struct q2_extension {
    uint32_t type;
    uint32_t bytes;
    uint8_t *data; /* owned */
    TAILQ_ENTRY(q2_extension) entry;
};
TAILQ_HEAD(q2_extension_list, q2_extension);

/* Host order. Pointers are owned; NULL: not there. */
struct q2_header {
    uint32_t version;
    uint64_t backing_file_offset; /* as found; q2_header_build chooses anew */
    uint32_t cluster_bits;
    uint64_t size_bytes;
    uint32_t crypt_method;
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible;
    uint64_t compatible;
    uint64_t autoclear;
    uint32_t refcount_order;
    uint32_t header_bytes;
    uint8_t compression_type;
    uint8_t padding[7];      /* kept: a later version may give it a meaning */
    uint8_t *unknown_fields; /* header bytes from Q2_HEADER_BYTES_NOW on, kept as they are */
    uint32_t unknown_bytes;  /* of them */
    uint64_t extensions_end; /* as found or built: behind the end mark, in the first cluster */
    char *backing_file;
    char *backing_format;
    char *data_file;
    bool has_feature_names;
    bool has_bitmaps_ext;
    uint32_t bitmap_count;
    uint64_t bitmap_directory_bytes;
    uint64_t bitmap_directory_offset;
    bool has_crypt_header;
    uint64_t crypt_header_offset;
    uint64_t crypt_header_bytes;
    /* every extension in the order found, known ones too (their place is kept on rewriting where
     * the reference keeps it); data of the known ones is in the fields above */
    struct q2_extension_list extensions;
};

/* Constants that follow from the header. Change only in exclusive sections (amend). */
struct q2_geometry {
    unsigned version;
    unsigned cluster_bits;
    uint32_t cluster_bytes;
    unsigned l2_bits;        /* log2 of l2_entries */
    uint32_t l2_entries;     /* per table */
    unsigned l2_entry_bytes; /* 8, or 16 with extended L2 entries */
    unsigned subclusters;    /* per cluster: 1 or 32 */
    uint32_t subcluster_bytes;
    unsigned refcount_order;
    unsigned refcount_bits;
    uint64_t refcount_max;
    unsigned refblock_bits; /* log2 of the refcounts in a block */
    uint64_t refblock_entries;
    bool extended_l2;
    bool external_data; /* guest clusters are in another file */
    bool data_file_raw;
};

/* How many bytes q2_header_parse wants of an image that begins with these (Q2_HEADER_BYTES_V2 at
 * least): its first cluster. */
size_t q2_header_wants(const uint8_t *buf, size_t bytes);
/* Parse the first bytes of an image (up to one cluster; bytes may be all there is). Only what can
 * be judged from them; file_bytes is the size of the whole file, for what must lie inside
 * (UINT64_MAX, for a check: not looked at, nor the snapshot table). size_bytes is cut to whole
 * sectors, as the reference does. Refuses what format.h's limits refuse. 0, or -EINVAL, -ENOTSUP
 * (version, unknown incompatible feature, named from the table), -EFBIG (a table), -ENOMEM with
 * errp. ret is for q2_header_fini also after a failure. */
int q2_header_parse(const uint8_t *buf, size_t bytes, uint64_t file_bytes, struct q2_header *ret,
                    Error **errp);
void q2_header_fini(struct q2_header *h);
int q2_header_copy(const struct q2_header *from, struct q2_header *ret); /* 0 or -ENOMEM */
void q2_geometry_init(const struct q2_header *h, struct q2_geometry *ret);
/* The header's part of the first cluster: *ret_bytes used of buf (cluster_bytes long, the rest
 * zeroed). Same order and padding as the reference. Updates h->backing_file_offset and
 * h->header_bytes. 0, or -ENOSPC with errp: names and extensions do not fit. */
int q2_header_build(struct q2_header *h, uint8_t *buf, size_t cluster_bytes, size_t *ret_bytes,
                    Error **errp);

/* ---- entry.h: entries of tables (pure, inline) is included by who needs it ---- */

/* ---- inflight.c: who is inside; grace periods; exclusive sections ---- */

/* Requests count themselves in one of two phases, in a counter of their context. What must outlive
 * the requests that may have seen it (a freed cluster, a cache slice, an old L1 table) is retired:
 * it is ended once nobody is inside who was so when it was retired. */
struct q2_retired {
    TAILQ_ENTRY(q2_retired) entry;
    void (*end)(struct q2_retired *r); /* no I/O, no waiting; frees memory or queues work */
};
TAILQ_HEAD(q2_retired_list, q2_retired);

/* Counters of a slot: one for each phase, and room up to a cache line: two slots never share one.
 */
#define Q2_INFLIGHT_STRIDE 16

enum q2_attention {
    Q2_ATTENTION_HELD = 1 << 0,    /* an exclusive section runs or waits */
    Q2_ATTENTION_RETIRED = 1 << 1, /* young or old is not empty */
};

struct q2_inflight {
    _Atomic uint32_t inside[OS_SLOTS * Q2_INFLIGHT_STRIDE];
    _Atomic uint32_t phase;        /* its lowest bit chooses the counter; written under lock */
    _Atomic uint32_t attention;    /* enum q2_attention; written under lock */
    struct os_mutex lock;          /* guards the rest */
    struct q2_retired_list young;  /* retired in this phase */
    struct q2_retired_list old;    /* wait for the other phase's counters to fall to zero */
    struct q2_wait_list waiting;   /* requests that wait for the end of the exclusive section */
    struct q2_wait_list exclusive; /* who waits to be the next exclusive section */
    struct q2_wait_list drained;   /* the exclusive section that waits until nobody is inside */
    bool exclusive_taken;
    uint32_t exclusive_token; /* of its holder */
};

struct qcow2;

/* What q2_leave needs back: the index of the counter. */
typedef uint32_t q2_token;

void q2_inflight_init(struct q2_inflight *f);
/* Nobody is inside. Ends all that is retired; so it comes before the fini of the others. */
void q2_inflight_fini(struct q2_inflight *f);
/* Inside (until q2_leave with the token, in whatever context): whatever the request finds in the
 * L1 table, in slices and in the clusters they refer to is there until it has left. Does not nest.
 * Coroutine; suspends only while an exclusive section holds. */
static inline q2_token q2_enter_co(struct qcow2 *s);
/* Ends what may be ended. Never suspends. The caller continues with q2_free_run_co when
 * q2_free_due says so. */
static inline void q2_leave(struct qcow2 *s, q2_token token);
/* r->end is set. Any context, inside or outside. r may be ended before this returns. */
void q2_retire(struct qcow2 *s, struct q2_retired *r);
/* Nobody else is inside between the two; the caller counts as inside. Not to be called from
 * inside. Coroutine. */
void q2_exclusive_begin_co(struct qcow2 *s);
void q2_exclusive_end(struct qcow2 *s);
/* The slow halves. */
q2_token q2_enter_wait_co(struct qcow2 *s, q2_token token);
void q2_leave_slow(struct qcow2 *s);

/* ---- l1.c: the active L1 table in memory ---- */

#define Q2_L1_SECTOR 512 /* what is written of it at a time */
#define Q2_L1_SECTOR_ENTRIES (Q2_L1_SECTOR / 8)

struct q2_l1 {
    struct q2_retired retired;
    struct qcow2 *s;        /* borrowed */
    uint64_t *dirty;        /* L2 cache lock: a bit per sector; lies behind the entries */
    uint32_t dirty_sectors; /* L2 cache lock */
    uint32_t entries;
    _Atomic uint64_t e[]; /* host order, as in the file (COPIED and offset) */
};

static inline struct q2_l1 *q2_l1_get(const struct qcow2 *s); /* inside */
/* index < l1->entries. Inside. */
static inline uint64_t q2_l1_entry(const struct q2_l1 *l1, uint32_t index)
{
    return atomic_load_explicit(&l1->e[index], memory_order_seq_cst);
}
/* Load from h (bounds are checked there); replaces s->l1. Entries with reserved bits or unaligned
 * offsets are kept: using one is -EIO (map.c). 0, -EINVAL (bounds), -EFBIG, -EIO, -ENOMEM with
 * errp. Coroutine or control thread; nothing in memory is dirty. */
int q2_l1_load(struct qcow2 *s, uint64_t offset, uint32_t entries, Error **errp);
void q2_l1_free(struct qcow2 *s);
/* Change an entry in memory; the commit writes its sector (W3). The table it refers to is in the
 * cache (q2_l2_new_table_co) or durable already. Takes the L2 cache lock. Any context, inside. */
void q2_l1_set(struct qcow2 *s, uint32_t index, uint64_t entry);
/* A larger active table: new clusters, written, the header switched, the old ones freed. entries
 * as the caller wants them (rounding is the caller's). Exclusive section or drained. Coroutine. */
int q2_l1_grow_co(struct qcow2 *s, uint32_t entries, Error **errp);

/* The part of a commit (commit.c). */
struct q2_l1_due {
    uint32_t count;  /* sectors, rising */
    uint32_t *index; /* owned */
    uint8_t *bytes;  /* owned (bdrv_buffer); the sectors as they were when the commit began */
    uint32_t room;   /* sectors that index and bytes have room for */
};
int q2_l1_commit_begin(struct qcow2 *s, struct q2_l1_due *due); /* 0 or -ENOMEM */
int q2_l1_commit_write_co(struct qcow2 *s, const struct q2_l1_due *due);
void q2_l1_commit_end(struct qcow2 *s, struct q2_l1_due *due, bool durable);

/* ---- l2_cache.c, l2_slice.c: slices of L2 tables; l2_commit.c: those that a commit writes ---- */

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
    _Atomic uint64_t words[]; /* slice_bytes / 8 */
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

/* ---- refcount.c, refcount_alloc.c: refcounts and new clusters ---- */

struct q2_refblock {
    uint64_t offset; /* in the file */
    TAILQ_ENTRY(q2_refblock) lru;
    struct q2_refblock *hash_next;
    bool dirty;
    uint32_t dirty_from, dirty_to; /* bytes of data */
    uint8_t *data;                 /* owned; as in the file */
};

/* A new refcount block enters the table in memory at once, and is "fresh" until
 * q2_refcounts_write_blocks_co has written it. The table's entry of a fresh block is written as
 * zero, so that whatever the commit flushed between its two calls is what W2 asks for. */
struct q2_refcounts {
    CoMutex lock;    /* guards all; held over the loading of a block */
    uint64_t *table; /* owned; host order */
    uint64_t table_entries;
    uint64_t free_hint;                        /* no free cluster below this index */
    uint64_t table_dirty_from, table_dirty_to; /* entries to write */
    uint64_t *fresh;                           /* owned; indices of the table */
    uint32_t fresh_count, fresh_max;
    TAILQ_HEAD(q2_refblock_list, q2_refblock) blocks; /* the least recently used first */
    struct q2_refblock **hash;                        /* owned */
    uint32_t hash_mask;
    uint32_t count, count_max, dirty_count;
    _Atomic bool any_dirty;   /* written under the lock: a block, or the table */
    _Atomic bool table_dirty; /* written under the lock: entries that may be written now */
    /* compressed clusters are packed: where the next may begin, 0: nowhere */
    uint64_t packed_end;
    bool header_unsure; /* the header's write failed: the file may name a table given up */
};

int q2_refcounts_load(struct qcow2 *s, Error **errp); /* the table of the header */
void q2_refcounts_fini(struct qcow2 *s);
/* Refcount of a cluster; 0 where no block covers it. -EIO: the block cannot be used. Coroutine,
 * takes the lock. */
int q2_refcount_get_co(struct qcow2 *s, uint64_t cluster, uint64_t *ret);
/* Add delta to the refcounts of the clusters that [offset, offset + bytes) touches, in memory. Down
 * only where W4 allows it. -EINVAL: below zero, -ERANGE: above refcount_max; nothing was changed
 * then. After another error part of it may be done, so that at the worst clusters leak: a lowering
 * must not be repeated. Coroutine. */
int q2_refcount_add_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, int delta);
/* Lower by one, with the same results. zero (may be NULL) is told, outside the lock, of each range
 * whose last reference goes, before its count goes to zero: so nobody else has these clusters yet,
 * and zero may suspend and discard them. Coroutine. */
int q2_refcount_drop_co(struct qcow2 *s, uint64_t offset, uint64_t bytes,
                        void (*zero)(void *opaque, uint64_t offset, uint64_t bytes), void *opaque);
/* New clusters, their refcount 1, contiguous: first fit above the hint as the reference does.
 * 0 or -errno (-EFBIG: beyond what a table can address; -EIO: the refcounts call metadata free).
 * Coroutine. */
int q2_alloc_clusters_co(struct qcow2 *s, uint64_t count, uint64_t *ret_offset);
/* At most count clusters at offset, as many as are free there; *ret_count may be 0. */
int q2_alloc_at_co(struct qcow2 *s, uint64_t offset, uint64_t count, uint64_t *ret_count);
/* Room for bytes (at most a cluster) of compressed data, not aligned, behind the last one where
 * that is possible. */
int q2_alloc_packed_co(struct qcow2 *s, uint32_t bytes, uint64_t *ret_offset);
/* Clusters that were allocated and that nothing ever referred to: free at once. */
void q2_unalloc_co(struct qcow2 *s, uint64_t offset, uint64_t bytes);

/* The commit's steps (W2): write blocks, flush, then, if the table is dirty, write it, flush. */
int q2_refcounts_write_blocks_co(struct qcow2 *s);
int q2_refcounts_write_table_co(struct qcow2 *s);
/* Snapshots: whether anything, and whether the table, is to be written. Any thread. */
bool q2_refcounts_dirty(const struct qcow2 *s);
bool q2_refcounts_table_dirty(const struct qcow2 *s);

/* ---- free.c: clusters that nothing refers to any more ---- */

enum q2_discard {
    Q2_DISCARD_NEVER,
    Q2_DISCARD_REQUEST,
    Q2_DISCARD_SNAPSHOT,
    Q2_DISCARD_OTHER,
    Q2_DISCARD_ALWAYS, /* whatever the options say */
    Q2_DISCARD_TYPES,
};

/* The mapping no longer refers (once) to the clusters that the range touches: their refcounts fall
 * after the next commit (W4) and the grace period (W5). Never fails: out of memory leaks them
 * until a check. Any context. */
void q2_free_later(struct qcow2 *s, uint64_t offset, uint64_t bytes, enum q2_discard type);
/* The same for one entry of an L2 table: its data cluster or compressed data, where it has any. */
void q2_free_entry_later(struct qcow2 *s, uint64_t l2_entry, enum q2_discard type);
static inline bool q2_free_due(const struct qcow2 *s);
/* Commit when many wait, lower what is due, discard it in the file where the options say so.
 * Coroutine, outside (after q2_leave), at the end of a request. */
void q2_free_run_co(struct qcow2 *s);
/* All of it, whoever is inside was drained. 0 or -errno. */
int q2_free_all_co(struct qcow2 *s);

struct q2_free_run; /* free.c */
TAILQ_HEAD(q2_free_list, q2_free_run);

enum q2_free_due_bits {
    Q2_FREE_READY = 1 << 0, /* some may be lowered */
    Q2_FREE_MANY = 1 << 1,  /* so many wait that a commit is due */
};

struct q2_free_queue {
    struct os_mutex lock;
    struct q2_free_list waiting;    /* for a commit */
    struct q2_free_list committing; /* of the commit that runs */
    struct q2_free_list committed;  /* for the next grace period */
    struct q2_free_list grace;      /* for the one that runs */
    struct q2_free_list ready;
    struct q2_retired retired; /* of the grace period that runs */
    struct qcow2 *s;           /* borrowed */
    bool grace_runs;
    bool running; /* somebody lowers */
    uint64_t waiting_bytes;
    uint32_t waiting_runs;
    uint64_t commit_bytes; /* a commit is due above these */
    uint32_t commit_runs;
    _Atomic uint32_t due; /* enum q2_free_due_bits; written under lock */
};
void q2_free_init(struct qcow2 *s);
/* What waits is forgotten (leaked in the file). */
void q2_free_fini(struct qcow2 *s);

/* The part of a commit (commit.c): what waits now may be lowered once the commit has succeeded;
 * end with false: it waits again. begin comes before the commit looks at anything else. */
void q2_free_commit_begin(struct qcow2 *s);
void q2_free_commit_end(struct qcow2 *s, bool durable);

/* ---- commit.c: memory to the file, in order ---- */

/* Everything that was changed before the call is durable after it (W1 .. W4); flush: the data of
 * completed writes too, even when no metadata changed. One at a time; callers that come meanwhile
 * share the next. Coroutine, inside. What fails stays dirty.
 *
 * Lazy refcounts (opt.lazy_refcounts, version 3): the dirty bit is made durable before the first
 * table is written; as long as it is, refcounts stay in memory. */
int q2_commit_co(struct qcow2 *s, bool flush);
/* The same with flush; lazy refcounts are written too, and then the dirty bit is cleared. For
 * close, and before somebody else looks at the refcounts in the file. Exclusive section, drained
 * or closing. */
int q2_commit_clean_co(struct qcow2 *s);
void q2_commit_init(struct qcow2 *s);

struct q2_commit {
    CoMutex lock;
    /* numbers of commits; written under lock */
    _Atomic uint64_t begun;
    uint64_t done;       /* the last that succeeded */
    uint64_t done_flush; /* the last that succeeded and made data durable too */
    uint64_t failed;     /* the last that failed, and why */
    int failed_ret;
};

/* ---- ranges.c: locks on ranges of guest clusters ---- */

/* Borrowed from lock to unlock. */
struct q2_range {
    uint64_t first;
    uint64_t last; /* inclusive */
    TAILQ_ENTRY(q2_range) entry;
    struct q2_wait_list waiters; /* later ones that overlap */
};
struct q2_ranges {
    struct os_mutex lock;
    TAILQ_HEAD(q2_range_list, q2_range) all; /* held and waiting, in the order they came */
};
void q2_ranges_init(struct q2_ranges *ranges);
void q2_ranges_fini(struct q2_ranges *ranges);
/* First come, first served among those that overlap. Any unit (guest clusters). Coroutine. */
void q2_range_lock_co(struct qcow2 *s, struct q2_range *r, uint64_t first, uint64_t last);
void q2_range_unlock(struct qcow2 *s, struct q2_range *r);
/* Keep only what is up to last. Any context. */
void q2_range_trim(struct qcow2 *s, struct q2_range *r, uint64_t last);

/* ---- reach.c: the end of the data file ---- */

struct q2_reach {
    struct os_mutex lock;
    struct q2_wait_list waiting; /* lock */
    bool running;                /* lock: somebody extends the file */
};
void q2_reach_init(struct qcow2 *s);
void q2_reach_fini(struct qcow2 *s);

/* ---- map.c: where the disk's bytes are ---- */

enum q2_kind {
    Q2_UNALLOCATED, /* the backing file decides; host may say that room is there (subclusters) */
    Q2_ZEROES,      /* reads as zeroes; host != UINT64_MAX: room is there */
    Q2_DATA,
    Q2_COMPRESSED_DATA,
};
struct q2_extent {
    enum q2_kind kind;
    bool copied;       /* COPIED: may be written in place where kind is DATA */
    uint64_t bytes;    /* of the same kind, contiguous in the file, from offset on */
    uint64_t host;     /* of its first byte in the data file; UINT64_MAX: none */
    uint64_t l2_entry; /* COMPRESSED_DATA: the entry; the extent is the rest of one cluster */
};
/* Lock-free where the slice is in memory. Offsets may lie past the disk (VM state). -EIO with the
 * node told (q2_corrupt_*) where the entry is impossible. Coroutine, inside. */
int q2_map_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, struct q2_extent *ret);

/* ---- overlap.c: metadata is not written over ---- */

enum q2_overlap {
    Q2_OL_MAIN_HEADER = 1 << 0,
    Q2_OL_ACTIVE_L1 = 1 << 1,
    Q2_OL_ACTIVE_L2 = 1 << 2,
    Q2_OL_REFCOUNT_TABLE = 1 << 3,
    Q2_OL_REFCOUNT_BLOCK = 1 << 4,
    Q2_OL_SNAPSHOT_TABLE = 1 << 5,
    Q2_OL_INACTIVE_L1 = 1 << 6,
    Q2_OL_INACTIVE_L2 = 1 << 7,
    Q2_OL_BITMAP_DIRECTORY = 1 << 8,
    Q2_OL_NONE = 0,
    Q2_OL_CONSTANT = (1 << 0) | (1 << 1) | (1 << 3) | (1 << 5) | (1 << 8),
    Q2_OL_CACHED = Q2_OL_CONSTANT | (1 << 2) | (1 << 4) | (1 << 6),
    Q2_OL_ALL = Q2_OL_CACHED | (1 << 7),
};
/* Before each write to the image file: 0, or -EIO after the image was marked corrupt and reported.
 * ignore: the sections that the write is meant for. Coroutine, inside or drained; lock-free. */
int q2_overlap_check_co(struct qcow2 *s, unsigned ignore, uint64_t offset, uint64_t bytes);
/* Tables come and go: clusters of L2 tables and refcount blocks in the set that is looked up. */
int q2_overlap_add(struct qcow2 *s, enum q2_overlap kind, uint64_t offset); /* 0 or -ENOMEM */
void q2_overlap_del(struct qcow2 *s, enum q2_overlap kind, uint64_t offset);
/* The same for all clusters of a table (L1, refcount, snapshot table, bitmap directory) that moves:
 * add the new place before it is written, del the old one when nothing refers to it. */
int q2_overlap_add_range(struct qcow2 *s, enum q2_overlap kind, uint64_t offset, uint64_t bytes);
void q2_overlap_del_range(struct qcow2 *s, enum q2_overlap kind, uint64_t offset, uint64_t bytes);
/* Which of kinds (but INACTIVE_L2) the range hits; 0: none. Any thread. */
unsigned q2_overlap_find(const struct qcow2 *s, unsigned kinds, uint64_t offset, uint64_t bytes);
/* Tell that a write to kinds was prevented, as the check does. -EIO. */
int q2_overlap_told_co(struct qcow2 *s, unsigned kinds, uint64_t offset, uint64_t bytes);
/* From what is loaded (header, L1, refcount table, snapshots). Again, while drained, when snapshots
 * came or went or the active L1 table became another. 0 or -ENOMEM; then the old set stays. */
int q2_overlap_init(struct qcow2 *s);
/* The same for what was loaded anew; drained. Without memory only the header stays protected: what
 * the old set knows is gone, and it would take right writes for wrong ones. */
void q2_overlap_renew(struct qcow2 *s);
/* Once more, when that was so. */
void q2_overlap_try_again(struct qcow2 *s);
void q2_overlap_fini(struct qcow2 *s);

/* Impossible metadata: reported once; fatal (a write was about to harm it, writable image): the
 * corrupt bit is set in the header and the node is broken. Returns -EIO. Coroutine. */
int q2_corrupt_co(struct qcow2 *s, bool fatal, uint64_t offset, uint64_t bytes, const char *fmt,
                  ...) __attribute__((format(printf, 5, 6)));

/* ---- alloc.c, cow.c, write.c, read.c, zero.c: requests ---- */

/* [offset, offset + bytes) of the disk, or past it (VM state), in place or with allocation. */
int q2_write_co(struct qcow2 *s, const struct bdrv_req *req);
int q2_read_co(struct qcow2 *s, const struct bdrv_req *req);

/* The driver's data calls, as block/driver.h has them. They enter and leave. */
int q2_driver_read_co(BlockDriverState *bs, const struct bdrv_req *req);
int q2_driver_write_co(BlockDriverState *bs, const struct bdrv_req *req);
int q2_driver_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                              unsigned flags);
int q2_driver_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes);
int q2_driver_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                              struct bdrv_status *ret_status);
/* req->offset: within the VM state, which begins at q2_vmstate_offset of the disk. */
int q2_driver_save_vmstate_co(BlockDriverState *bs, const struct bdrv_req *req);
int q2_driver_load_vmstate_co(BlockDriverState *bs, const struct bdrv_req *req);
uint64_t q2_vmstate_offset(struct qcow2 *s);

/* ---- compress.c: codecs (pure, any thread); compressed_io.c: clusters ---- */

/* Whether this build can read and write the type. */
bool q2_compression_known(enum q2_compression type);
/* Compress in (a cluster) to out (cluster_bytes room). The bytes used, or 0 when it does not
 * shrink, or -ENOMEM. */
int64_t q2_compress(enum q2_compression type, bool compat_window, const void *in, size_t in_bytes,
                    void *out, size_t out_bytes);
/* Decompress to exactly out_bytes; what follows in the last sector is ignored. 0, -EIO, -ENOMEM. */
int q2_decompress(enum q2_compression type, const void *in, size_t in_bytes, void *out,
                  size_t out_bytes);
/* The cluster of a compressed entry. -EIO (told where the entry is at fault), -ENOMEM. Coroutine,
 * inside. */
int q2_read_compressed_co(struct qcow2 *s, uint64_t l2_entry, void *out_cluster);
/* Whole clusters; the last one may end with the disk. -EINVAL: they are not; -ENOTSUP: not with an
 * external data file, or not in this build. Coroutine, inside. */
int q2_write_compressed_co(struct qcow2 *s, const struct bdrv_req *req);

/* ---- snapshot_entry.c, snapshot_table.c: the snapshot table ---- */

struct q2_snapshot {
    uint64_t l1_offset; /* not checked: q2_snapshot_l1_check */
    uint32_t l1_entries;
    uint32_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t vm_state_bytes;
    uint64_t disk_bytes;
    uint64_t icount;      /* UINT64_MAX: none */
    uint32_t extra_bytes; /* as in the file; the unknown part is kept */
    uint8_t *unknown_extra;
    uint32_t unknown_extra_bytes;
    uint16_t id_bytes; /* as in the file: a zero inside does not shorten it */
    uint16_t name_bytes;
    char *id;   /* owned */
    char *name; /* owned */
};
/* One entry at buf, of which bytes are there; disk_bytes: for entries that do not say. *ret_used:
 * its length without padding. 0, -EINVAL, -ENOMEM with errp. Pure. */
int q2_snapshot_parse(const uint8_t *buf, size_t bytes, uint64_t disk_bytes,
                      struct q2_snapshot *ret, size_t *ret_used, Error **errp);
size_t q2_snapshot_bytes(const struct q2_snapshot *sn); /* that build writes, without padding */
size_t q2_snapshot_build(const struct q2_snapshot *sn, uint8_t *buf);
uint64_t q2_snapshots_bytes(const struct q2_snapshot *list, uint32_t count); /* of their table */
void q2_snapshot_fini(struct q2_snapshot *sn);
void q2_snapshots_free(struct q2_snapshot *list, uint32_t count);
/* Whether the L1 table may be used: its place and length only. 0 or -errno. */
int q2_snapshot_l1_check(struct qcow2 *s, const struct q2_snapshot *sn, Error **errp);
int q2_snapshots_load(struct qcow2 *s, Error **errp); /* the table of the header */
void q2_snapshots_fini(struct qcow2 *s);
/* A new table of s->snapshots, written and switched to (W6); the old one is given to
 * q2_free_later. After a failure the file has the old one; *ret_unsure: or perhaps the new, since
 * writing the header failed: then the clusters of both stay allocated. Drained. */
int q2_snapshots_store_co(struct qcow2 *s, bool *ret_unsure, Error **errp);

/* ---- snapshot_refs.c: whole trees of L1, L2 tables and clusters ---- */

/* Drained, committed (q2_settle_co), no request until the caller is done: L2 tables are read and
 * written past the cache, which is dropped where one changes. l1: host order. */

/* Memory and file the same: everything committed, everything that waited to be freed is. */
int q2_settle_co(struct qcow2 *s, Error **errp);
/* Version 3: the dirty bit is durable from begin on, so that refcounts and COPIED flags may be
 * stale until end. Version 2 has none: nothing happens. *ret_was: for end. */
int q2_stale_begin_co(struct qcow2 *s, bool *ret_was, Error **errp);
/* Commits first. rc: of the work in between, returned where it is a failure (errp is set then). */
int q2_stale_end_co(struct qcow2 *s, bool was, int rc, Error **errp);
/* rc: of putting refcounts or COPIED flags right. A failure leaves them wrong where it does no harm
 * (too high; copying where that is not needed): the dirty bit then stays until a repair. */
void q2_stays_stale(struct qcow2 *s, int rc);
/* Copies end with q2_l1_copy_free. q2_l1_copy_new: not filled, NULL: no memory. The offset given to
 * read was checked. */
uint64_t *q2_l1_copy_new(struct qcow2 *s, uint32_t entries);
int q2_l1_copy_read_co(struct qcow2 *s, uint64_t offset, uint32_t entries, uint64_t **ret,
                       Error **errp);
int q2_l1_copy_active(struct qcow2 *s, uint64_t **ret, Error **errp); /* s->l1 */
void q2_l1_copy_free(struct qcow2 *s, uint64_t *l1, uint32_t entries);
/* To new clusters, their refcounts in memory; not flushed. entries > 0. */
int q2_l1_copy_write_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, uint64_t *ret_offset,
                        Error **errp);
/* Every cluster that the tree refers to gains a reference, in memory; all or nothing. */
int q2_tree_ref_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, Error **errp);
/* COPIED goes from all entries of the tree's L2 tables in the file and of l1: everything in it has
 * more than one reference. Not flushed. */
int q2_tree_clear_copied_co(struct qcow2 *s, uint64_t *l1, uint32_t entries, Error **errp);
/* Every cluster loses a reference, now: nothing in the file refers to it through this tree. What
 * cannot be read or lowered stays as it is, a leak. Committed on return. */
int q2_tree_unref_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, enum q2_discard type,
                     Error **errp);
/* COPIED of the active tree, in the file and in s->l1, as the refcounts say. Committed. */
int q2_tree_set_copied_co(struct qcow2 *s, Error **errp);
/* -EIO where a cluster of the tree has fewer references counted than all trees have: to remove one
 * would free what is in use. */
int q2_tree_verify_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, Error **errp);

/* ---- snapshot.c, snapshot_apply.c ---- */

/* id or name may be NULL; given, it must fit. 0, -ENOENT. */
int q2_snapshot_find(const struct qcow2 *s, const char *id, const char *name, uint32_t *ret);
int q2_snapshots_usable(struct qcow2 *s, Error **errp); /* of this image, for changes */
int q2_snapshot_apply_co(BlockDriverState *bs, const char *id_or_name, Error **errp);
extern const struct bdrv_snapshot_ops q2_snapshot_ops;

/* ---- map_edit.c: the mapping of whole clusters, in an exclusive section ---- */

/* Table l1_index is there and the active tree's alone. */
int q2_edit_table_co(struct qcow2 *s, uint32_t l1_index, uint64_t *ret_offset);
/* Entries of clusters from guest on: host is that of the first (flags without COPIED: 0, they have
 * none), flags are added to each, bitmap is for extended L2 entries. What they were is freed. */
int q2_edit_set_co(struct qcow2 *s, uint64_t guest, uint64_t clusters, uint64_t host,
                   uint64_t flags, uint64_t bitmap);
/* The bitmap of a cluster's extended entry, as if a compressed one were plain; 0 where there is
 * none. The L1 table reaches it. */
int q2_edit_bitmap_co(struct qcow2 *s, uint64_t guest, uint64_t *ret);
/* Nothing is mapped in [from, to), which begins and ends at clusters. What was is discarded in the
 * file too: who cuts a disk wants the space. */
int q2_edit_unmap_co(struct qcow2 *s, uint64_t from, uint64_t to);

/* ---- prealloc.c, resize.c ---- */

/* Clusters for [from, to), which nothing is mapped in, in an exclusive section; from is aligned for
 * metadata. over_backing: zeroes must be marked, since a backing file is below. */
int q2_prealloc_metadata_co(struct qcow2 *s, uint64_t from, uint64_t to, bool over_backing,
                            Error **errp);
int q2_prealloc_data_co(struct qcow2 *s, uint64_t from, uint64_t to, bool over_backing,
                        enum bdrv_prealloc mode, Error **errp);
/* Coroutine, outside. */
int q2_resize_co(struct qcow2 *s, uint64_t size_bytes, enum bdrv_prealloc mode, Error **errp);
/* BlockDriver.truncate_co. Coroutine, outside. */
int q2_driver_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                          enum bdrv_prealloc prealloc, unsigned flags, Error **errp);

/* ---- file_tail.c ---- */

/* First byte behind the last cluster in use. */
int q2_file_end_co(struct qcow2 *s, uint64_t *ret_offset);
/* Refcount blocks that count nothing go, and the file ends behind what is in use. Settled; drained
 * or exclusive. What fails costs space only. */
void q2_file_trim_co(struct qcow2 *s);

/* ---- amend.c ---- */

int q2_amend_co(BlockDriverState *bs, BlockOptions *options, bool force,
                const struct bdrv_progress *progress, Error **errp);

/* ---- backing.c ---- */

int q2_change_backing_file_co(BlockDriverState *bs, const char *backing_file,
                              const char *backing_format, Error **errp);
int q2_make_empty_co(BlockDriverState *bs, Error **errp);

/* ---- bitmap_directory.c: what is stored of bitmaps (pure) ---- */

/* One entry of the directory, host order. */
struct q2_bitmap_entry {
    uint64_t table_offset;
    uint32_t table_entries;
    uint32_t flags; /* enum q2_bitmap_flags */
    uint8_t type;
    uint8_t granularity_bits;
    uint32_t extra_bytes;
    uint8_t *extra; /* owned; NULL: none */
    char *name;     /* owned */
    bool damaged;   /* not in the file: its clusters may be somebody else's, so are not freed */
};
struct q2_bitmap_directory {
    struct q2_bitmap_entry *entries; /* owned */
    uint32_t count;
};

/* The bitmap_* fields of h (has_bitmaps_ext) against the limits and the file. 0, or -EINVAL with
 * errp. */
int q2_bitmaps_ext_check(const struct q2_header *h, uint64_t file_bytes, Error **errp);
/* The directory as read. -EINVAL: its structure is broken, two have one name; -ENOMEM. ret_dir is
 * for q2_bitmap_directory_fini also after a failure. Entries are then for q2_bitmap_entry_check. */
int q2_bitmap_directory_parse(const uint8_t *buf, uint64_t bytes, uint32_t count,
                              struct q2_bitmap_directory *ret_dir, Error **errp);
void q2_bitmap_directory_fini(struct q2_bitmap_directory *dir);
void q2_bitmap_entry_fini(struct q2_bitmap_entry *e);
/* What an entry says by itself; whether the table is inside the file, of the right length and not
 * on top of something is for whoever follows it. 0, or -EINVAL with errp. */
int q2_bitmap_entry_check(const struct q2_bitmap_entry *e, const struct q2_geometry *geo,
                          Error **errp);
/* Bits of a bitmap, and clusters of them: the entries its table must have. */
uint64_t q2_bitmap_bits(uint64_t disk_bytes, unsigned granularity_bits);
uint64_t q2_bitmap_table_entries(uint64_t disk_bytes, unsigned granularity_bits,
                                 unsigned cluster_bits);
#define Q2_BITMAP_ZEROES UINT64_C(0)
#define Q2_BITMAP_ONES UINT64_MAX
/* An entry (host order) of a bitmap table: the cluster's offset, or Q2_BITMAP_ZEROES or _ONES where
 * there is none. -EINVAL: it means nothing. */
int q2_bitmap_table_decode(const struct q2_geometry *geo, uint64_t raw, uint64_t *ret_offset);
/* malloc'd. -EFBIG, -ENOMEM with errp. */
int q2_bitmap_directory_build(const struct q2_bitmap_directory *dir, uint8_t **ret_buf,
                              uint64_t *ret_bytes, Error **errp);
/* Bytes of an entry in the directory. */
uint64_t q2_bitmap_entry_bytes(const struct q2_bitmap_entry *e);

/* ---- bitmap.c: the bitmaps of an image; bitmap_load.c, bitmap_store.c ---- */

struct q2_bitmaps; /* bitmap_int.h */

/* Read them (bits only where requests are expected). After the header, the L1 and refcount tables
 * and the overlap set; at open, control thread. -EINVAL: the directory is broken (under
 * BDRV_O_CHECK they are left alone then); -EIO, -ENOMEM; with errp. */
int q2_bitmaps_open(struct qcow2 *s, Error **errp);
void q2_bitmaps_fini(struct qcow2 *s); /* forget them; the node's own are block/'s */
/* Store what changed and make it durable: before the image is closed or becomes read-only (and
 * before q2_free_all_co). Nothing to do: 0. Drained; coroutine. After a failure those that changed
 * stay flagged in the image, or as they were. */
int q2_bitmaps_store_co(struct qcow2 *s, Error **errp);
/* Open flags change: becoming read-only stores; becoming writable is refused where the bits were
 * not read. Part of reopen_prepare; control thread. */
int q2_bitmaps_reopen_prepare(struct qcow2 *s, int new_flags, Error **errp);
/* "bitmaps" of "format-specific", from the directory; empty: there is none. NULL: no memory. */
json_t *q2_bitmaps_info(struct qcow2 *s);
/* What the persistent bitmaps of source need in an image of that cluster size; false: source
 * cannot have any. */
bool q2_bitmaps_measure(BlockDriverState *source, uint64_t disk_bytes, uint32_t cluster_bytes,
                        uint64_t *ret_bytes);
extern const struct bdrv_bitmap_ops q2_bitmap_ops;

/* ---- check.c, repair.c ---- */

int q2_check_co(struct qcow2 *s, const struct bdrv_check_options *options,
                struct bdrv_check_result *ret_result, Error **errp);
int q2_driver_check_co(BlockDriverState *bs, const struct bdrv_check_options *options,
                       struct bdrv_check_result *ret_result, Error **errp); /* bdrv_image_ops */
/* Rebuild refcounts and flags of an image whose dirty bit is set. Drained. */
int q2_repair_dirty_co(struct qcow2 *s, Error **errp);

/* ---- header_write.c ---- */

/* Write s->header to the file (W6), durable on return. Takes header_lock. A cut of power leaves the
 * old or the new one. Coroutine. */
int q2_header_write_co(struct qcow2 *s, Error **errp);
/* Set and clear incompatible or autoclear bits, durable on return. */
int q2_header_bits_co(struct qcow2 *s, uint64_t incompatible_set, uint64_t incompatible_clear,
                      uint64_t autoclear_clear);

/* ---- options.c ---- */

struct q2_options {
    uint64_t l2_cache_bytes;
    uint32_t l2_slice_bytes;
    uint64_t refcount_cache_bytes;
    uint64_t cache_clean_seconds;
    bool lazy_refcounts;
    bool discard[Q2_DISCARD_TYPES];
    bool discard_no_unref;
    bool compat_window;
    unsigned overlap; /* enum q2_overlap */
};
/* Takes the driver's keys out of options. flags: BDRV_O_*. */
int q2_options_parse(BlockOptions *options, const struct q2_header *h,
                     const struct q2_geometry *geo, int flags, struct q2_options *ret,
                     Error **errp);

/* ---- open.c, create.c, measure.c, info.c, inspect.c: what driver.c puts into its table ---- */

int q2_driver_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp);
void q2_driver_close(BlockDriverState *bs);
int q2_driver_reopen_prepare(BlockDriverState *bs, int new_flags, Error **errp);
int q2_driver_create(Platter *pl, const char *filename, BlockOptions *options, Error **errp);
int q2_driver_measure(Platter *pl, BlockOptions *options, BlockDriverState *source,
                      struct bdrv_measure_result *ret_result, Error **errp);
json_t *q2_driver_specific_info(BlockDriverState *bs);
json_t *q2_driver_inspect(BdrvEdge *file, Error **errp);

/* ---- the driver's state ---- */

struct qcow2 {
    BlockDriverState *bs;
    BdrvEdge *file;
    BdrvEdge *data;    /* where guest clusters are: file, or the external data file; NULL: nowhere
                        * that can be read (encrypted, or a data file that was left closed) */
    BdrvEdge *backing; /* NULL: none */
    struct q2_geometry geo;
    struct q2_options opt;
    struct q2_header header; /* what is in the file; drained, exclusive section or header_lock */
    CoMutex header_lock;
    _Atomic uint64_t disk_bytes; /* size of the disk that is shown */
    _Atomic(struct q2_l1 *) l1;  /* owned; readers through q2_l1_get */
    struct q2_inflight inflight;
    struct q2_ranges ranges;
    struct q2_reach reach;
    struct q2_l2_cache l2;
    struct q2_refcounts refs;
    struct q2_free_queue freed;
    struct q2_commit commit;
    struct q2_overlap_set *overlap; /* overlap.c */
    struct q2_snapshot *snapshots;
    uint32_t snapshot_count;
    uint64_t snapshot_table_bytes; /* of the table in the file */
    struct q2_bitmaps *bitmaps;
    bool stale;          /* q2_stays_stale; changed while drained */
    bool snapshot_shown; /* load_tmp: read-only for good */
    _Atomic bool corrupt_told;
    AioTimer *clean_timer; /* of the L2 cache; NULL: none */
};

static inline struct qcow2 *q2_of(BlockDriverState *bs)
{
    return bdrv_opaque(bs);
}
/* Incompatible bits for information, without header_lock. Any thread. */
static inline uint64_t q2_header_incompatible(const struct qcow2 *s)
{
    return __atomic_load_n(&s->header.incompatible, __ATOMIC_RELAXED);
}
static inline uint64_t q2_disk_bytes(struct qcow2 *s)
{
    return atomic_load_explicit(&s->disk_bytes, memory_order_relaxed);
}

/* ---- the path of every request ---- */

static inline q2_token q2_enter_co(struct qcow2 *s)
{
    struct q2_inflight *f = &s->inflight;
    q2_token token = aio_context_slot(aio_context_current()) * Q2_INFLIGHT_STRIDE +
                     (atomic_load_explicit(&f->phase, memory_order_relaxed) & 1);

    /* inflight.c says why these two, and the loads of the mapping, are seq_cst */
    atomic_fetch_add_explicit(&f->inside[token], 1, memory_order_seq_cst);
    if (UNLIKELY(atomic_load_explicit(&f->attention, memory_order_seq_cst) & Q2_ATTENTION_HELD)) {
        return q2_enter_wait_co(s, token);
    }
    return token;
}

static inline void q2_leave(struct qcow2 *s, q2_token token)
{
    struct q2_inflight *f = &s->inflight;
    uint32_t before = atomic_fetch_sub_explicit(&f->inside[token], 1, memory_order_seq_cst);

    if (UNLIKELY(atomic_load_explicit(&f->attention, memory_order_seq_cst) != 0) && before == 1) {
        q2_leave_slow(s);
    }
}

static inline struct q2_l1 *q2_l1_get(const struct qcow2 *s)
{
    return atomic_load_explicit(&s->l1, memory_order_seq_cst);
}

static inline uint64_t q2_l2_hash(const struct q2_l2_cache *c, uint64_t key)
{
    return (key >> c->slice_bits) * UINT64_C(0x9e3779b97f4a7c15) >> c->bucket_shift;
}

static inline struct q2_slice *q2_l2_find(struct qcow2 *s, uint64_t key)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice *slice =
        atomic_load_explicit(&c->buckets[q2_l2_hash(c, key)], memory_order_seq_cst);

    while (slice != NULL && slice->key != key) {
        slice = atomic_load_explicit(&slice->next, memory_order_seq_cst);
    }
    /* only when it changes: the line stays shared between readers */
    if (slice != NULL &&
        atomic_load_explicit(&slice->used, memory_order_relaxed) != Q2_USED_AGAIN) {
        atomic_store_explicit(&slice->used, Q2_USED_AGAIN, memory_order_relaxed);
    }
    return slice;
}

static inline uint64_t q2_slice_word(const struct q2_slice *slice, uint32_t i)
{
    return be64toh(atomic_load_explicit(&slice->words[i], memory_order_seq_cst));
}

static inline void q2_slice_pair(const struct q2_slice *slice, uint32_t i, uint64_t *ret_entry,
                                 uint64_t *ret_bitmap)
{
    /* The writer makes seq odd before its first word and even after its last, so who reads a new
     * word also sees that seq is no longer what it was. */
    uint32_t seq = atomic_load_explicit(&slice->seq, memory_order_acquire);

    *ret_entry = q2_slice_word(slice, i);
    *ret_bitmap = q2_slice_word(slice, i + 1);
    if (UNLIKELY((seq & 1) != 0 ||
                 atomic_load_explicit(&slice->seq, memory_order_relaxed) != seq)) {
        q2_slice_pair_slow(slice, i, ret_entry, ret_bitmap);
    }
}

static inline bool q2_free_due(const struct qcow2 *s)
{
    return atomic_load_explicit(&s->freed.due, memory_order_relaxed) != 0;
}

#endif
