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
 * Lock order: exclusive section > range lock > commit lock > refcounts lock > L2 cache lock >
 * in-flight lock. Locks of one line in the list are never held two at a time by one coroutine.
 */
#ifndef PLATTER_QCOW2_H
#define PLATTER_QCOW2_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "block/driver.h"
#include "os/os.h"
#include "os/thread.h"
#include "util/bytes.h"
#include "util/checked.h"

#include "format.h"

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
    uint8_t *unknown_fields; /* header bytes from Q2_HEADER_BYTES_NOW on, kept as they are */
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

/* Parse the first bytes of an image (up to one cluster; bytes may be all there is). Only what can
 * be judged from them; file_bytes is the size of the whole file, for what must lie inside.
 * Refuses what format.h's limits refuse. 0, or -EINVAL, -ENOTSUP (version, unknown incompatible
 * feature, named from the table), -EFBIG (a table), -ENOMEM with errp. ret is for q2_header_fini
 * also after a failure. */
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
    uint64_t phase;
    void (*end)(struct q2_retired *r); /* no I/O, no waiting; frees memory or queues work */
};
TAILQ_HEAD(q2_retired_list, q2_retired);

struct q2_inflight_slot {
    _Atomic uint32_t inside[2];
} __attribute__((aligned(64)));

struct q2_inflight {
    struct q2_inflight_slot slots[OS_SLOTS];
    _Atomic uint32_t phase; /* its lowest bit chooses the counter */
    _Atomic uint32_t held;  /* an exclusive section runs or waits */
    _Atomic uint32_t has_retired;
    struct os_mutex lock;         /* guards the rest */
    struct q2_retired_list young; /* retired in this phase */
    struct q2_retired_list old;   /* wait for the other phase's counters to fall to zero */
    CoQueue waiting;              /* requests that wait for the end of the exclusive section */
    CoQueue exclusive;            /* who waits for its begin */
    bool exclusive_taken;
};

struct qcow2;

/* What q2_leave needs back. */
typedef uint32_t q2_token;

void q2_inflight_init(struct q2_inflight *f);
/* Nobody is inside. Ends all that is retired. */
void q2_inflight_fini(struct q2_inflight *f);
/* Coroutine; suspends only while an exclusive section holds. */
q2_token q2_enter_co(struct qcow2 *s);
/* Ends what may be ended. Never suspends. The caller continues with q2_free_run_co when
 * q2_free_due says so. */
void q2_leave(struct qcow2 *s, q2_token token);
/* r->end is set. Any context, inside or outside. */
void q2_retire(struct qcow2 *s, struct q2_retired *r);
/* Nobody is inside between the two; not to be called from inside. Coroutine. */
void q2_exclusive_begin_co(struct qcow2 *s);
void q2_exclusive_end(struct qcow2 *s);

/* ---- l1.c: the active L1 table in memory ---- */

struct q2_l1 {
    struct q2_retired retired;
    uint32_t entries;
    _Atomic uint64_t e[]; /* host order, as in the file (COPIED and offset) */
};

/* Load from h (bounds are checked there); replaces s->l1. Entries with reserved bits or unaligned
 * offsets are kept: using one is -EIO (q2_l2_offset). 0, -EIO, -ENOMEM with errp. Coroutine or
 * control thread. */
int q2_l1_load(struct qcow2 *s, uint64_t offset, uint32_t entries, Error **errp);
void q2_l1_free(struct qcow2 *s);
/* Change an entry in memory; the commit writes its sector (W3). Under the L2 cache lock. */
void q2_l1_set(struct qcow2 *s, uint32_t index, uint64_t entry);
/* A larger active table: new clusters, written, the header switched, the old ones freed. entries
 * as the caller wants them (rounding is the caller's). Exclusive section or drained. Coroutine. */
int q2_l1_grow_co(struct qcow2 *s, uint32_t entries, Error **errp);

/* ---- l2_cache.c: slices of L2 tables ---- */

/* A slice is a part (l2-cache-entry-size, at most a cluster) of one L2 table. Its words are as in
 * the file (big endian). Readers find and read it without a lock, inside q2_enter/q2_leave. */
struct q2_slice {
    struct q2_retired retired;
    uint64_t key;                    /* offset in the file; constant */
    _Atomic(struct q2_slice *) next; /* in its bucket */
    TAILQ_ENTRY(q2_slice) in_clock;
    TAILQ_ENTRY(q2_slice) in_dirty;
    _Atomic uint32_t used; /* second chance */
    unsigned pins;         /* cache lock */
    bool dirty;            /* cache lock */
    uint64_t frozen_gen;   /* cache lock: the commit that will write it, when that runs */
    uint64_t *frozen; /* cache lock: as it was when that commit began; owned; NULL: unchanged */
    _Atomic uint64_t words[]; /* slice_bytes / 8 */
};

/* Lock-free; NULL: not in memory. Inside. */
struct q2_slice *q2_l2_find(struct qcow2 *s, uint64_t key);
/* The same, loaded where it is not there, and pinned: it stays until q2_l2_put. -EIO, -ENOMEM,
 * or a commit's error when room must be made. Coroutine, inside. */
int q2_l2_get_co(struct qcow2 *s, uint64_t key, struct q2_slice **ret);
void q2_l2_put(struct qcow2 *s, struct q2_slice *slice);
/* Put words into a pinned slice, from word index on, all at once as readers and commits see it,
 * and mark it dirty. The only way to change a slice. Coroutine (it may wait for memory). */
int q2_l2_set_co(struct qcow2 *s, struct q2_slice *slice, uint32_t index, const uint64_t *words,
                 uint32_t count);
/* All slices of a new L2 table at offset enter the cache, dirty: zero (from 0), or copied from the
 * table at from, with COPIED flags as they are. */
int q2_l2_new_table_co(struct qcow2 *s, uint64_t offset, uint64_t from);
/* Forget the slices of a table that is gone from the L1. Dirty ones are dropped. */
void q2_l2_drop_table(struct qcow2 *s, uint64_t offset);
/* Forget everything; nothing may be dirty. Drained. */
void q2_l2_drop_all(struct qcow2 *s);
int q2_l2_init(struct qcow2 *s);
void q2_l2_fini(struct qcow2 *s);
/* Slices not used since the last call leave, when clean (cache-clean-interval). */
void q2_l2_clean(struct qcow2 *s);

struct q2_l2_cache {
    struct os_mutex lock;
    _Atomic(struct q2_slice *) *buckets; /* owned; constant size, power of two */
    uint32_t bucket_mask;
    uint32_t slice_bytes;
    uint32_t slice_entries; /* L2 entries in a slice */
    uint32_t count;         /* lock */
    uint32_t count_max;
    uint32_t dirty_count;         /* lock */
    TAILQ_HEAD(, q2_slice) clock; /* lock */
    TAILQ_HEAD(, q2_slice) dirty; /* lock */
    CoQueue loading;              /* who waits for a slice that somebody else loads */
    struct q2_loading_list *loads;
    uint8_t *l1_dirty; /* lock: a bit per 512-byte sector of the L1 table */
    bool l1_any_dirty; /* lock */
};

/* ---- refcount.c, refcount_alloc.c: refcounts and new clusters ---- */

struct q2_refblock {
    uint64_t offset; /* in the file */
    TAILQ_ENTRY(q2_refblock) lru;
    struct q2_refblock *hash_next;
    bool dirty;
    uint8_t *data; /* owned; as in the file */
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
};

int q2_refcounts_load(struct qcow2 *s, Error **errp); /* the table of the header */
void q2_refcounts_fini(struct qcow2 *s);
/* Refcount of a cluster; 0 where no block covers it. -EIO: the block cannot be used. Coroutine,
 * takes the lock. */
int q2_refcount_get_co(struct qcow2 *s, uint64_t cluster, uint64_t *ret);
/* Add delta to the refcounts of the clusters that [offset, offset + bytes) touches, in memory. All
 * or nothing. Down only where W4 allows it. -EINVAL: below zero or above refcount_max, -ERANGE.
 * Coroutine. */
int q2_refcount_add_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, int delta);
/* Lower by one as q2_refcount_add_co does, and tell which ranges reached zero: zero (may be NULL)
 * is called for each after all of it succeeded, outside the lock, and may suspend. Coroutine. */
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

enum q2_discard { Q2_DISCARD_NEVER, Q2_DISCARD_REQUEST, Q2_DISCARD_SNAPSHOT, Q2_DISCARD_OTHER };

/* The mapping no longer refers (once) to the clusters that the range touches: their refcounts fall
 * after the next commit (W4) and the grace period (W5). Never fails: out of memory leaks them
 * until a check. Any context. */
void q2_free_later(struct qcow2 *s, uint64_t offset, uint64_t bytes, enum q2_discard type);
/* The same for one entry of an L2 table (decoded by the caller's kind: data or compressed). */
void q2_free_entry_later(struct qcow2 *s, uint64_t l2_entry, enum q2_discard type);
bool q2_free_due(const struct qcow2 *s);
/* Commit when many wait, lower what is due, discard it in the file where the options say so.
 * Coroutine, outside (after q2_leave), at the end of a request. */
void q2_free_run_co(struct qcow2 *s);
/* All of it, whoever is inside was drained. 0 or -errno. */
int q2_free_all_co(struct qcow2 *s);

struct q2_free_run; /* free.c */
struct q2_free_queue {
    struct os_mutex lock;
    TAILQ_HEAD(, q2_free_run) waiting;   /* for a commit */
    TAILQ_HEAD(, q2_free_run) committed; /* for the grace period, then ready */
    TAILQ_HEAD(, q2_free_run) ready;
    uint64_t waiting_bytes;
    uint32_t waiting_runs;
    _Atomic uint32_t due;
    bool running;
};

/* ---- commit.c: memory to the file, in order ---- */

/* Everything that was changed before the call is durable after it (W1 .. W4); flush: the data of
 * completed writes too, even when no metadata changed. One at a time; callers that come meanwhile
 * share the next. Coroutine, inside or outside. What fails stays dirty. */
int q2_commit_co(struct qcow2 *s, bool flush);

struct q2_commit {
    CoMutex lock;
    uint64_t gen; /* lock: of the commit that runs or ran last */
    _Atomic uint64_t done_gen;
};

/* ---- ranges.c: locks on ranges of guest clusters ---- */

struct q2_range {
    uint64_t first;
    uint64_t last; /* inclusive */
    TAILQ_ENTRY(q2_range) entry;
    CoQueue waiters;
};
struct q2_ranges {
    struct os_mutex lock;
    TAILQ_HEAD(q2_range_list, q2_range) held;
};
void q2_range_lock_co(struct qcow2 *s, struct q2_range *r, uint64_t first, uint64_t last);
void q2_range_unlock(struct qcow2 *s, struct q2_range *r);

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
int q2_overlap_init(struct qcow2 *s); /* from what is loaded */
void q2_overlap_fini(struct qcow2 *s);

/* Impossible metadata: reported once; fatal (a write was about to harm it, writable image): the
 * corrupt bit is set in the header and the node is broken. Returns -EIO. Coroutine. */
int q2_corrupt_co(struct qcow2 *s, bool fatal, uint64_t offset, uint64_t bytes, const char *fmt,
                  ...) __attribute__((format(printf, 5, 6)));

/* ---- alloc.c, cow.c, write.c, read.c, zero.c: requests ---- */

/* [offset, offset + bytes) of the disk, or past it (VM state), in place or with allocation. */
int q2_write_co(struct qcow2 *s, const struct bdrv_req *req);
int q2_read_co(struct qcow2 *s, const struct bdrv_req *req);

/* ---- compress.c: codecs (pure, any thread); compressed_io.c: clusters ---- */

/* Compress in (a cluster) to out (cluster_bytes room). The bytes used, or 0 when it does not
 * shrink, or -ENOMEM. */
int64_t q2_compress(enum q2_compression type, bool compat_window, const void *in, size_t in_bytes,
                    void *out, size_t out_bytes);
/* Decompress to exactly out_bytes; what follows in the last sector is ignored. 0, -EIO, -ENOMEM. */
int q2_decompress(enum q2_compression type, const void *in, size_t in_bytes, void *out,
                  size_t out_bytes);
int q2_read_compressed_co(struct qcow2 *s, uint64_t l2_entry, void *out_cluster);
int q2_write_compressed_co(struct qcow2 *s, const struct bdrv_req *req);

/* ---- snapshot_table.c, snapshot.c ---- */

struct q2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint32_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t vm_state_bytes;
    uint64_t disk_bytes;
    uint64_t icount;      /* UINT64_MAX: none */
    uint32_t extra_bytes; /* as found; the unknown part is kept */
    uint8_t *unknown_extra;
    uint32_t unknown_extra_bytes;
    char *id;   /* owned */
    char *name; /* owned */
};
int q2_snapshots_load(struct qcow2 *s, Error **errp); /* the table of the header */
void q2_snapshots_fini(struct qcow2 *s);
/* A new table, written and switched to (W6); the old one is freed. Drained. */
int q2_snapshots_store_co(struct qcow2 *s, Error **errp);
extern const struct bdrv_snapshot_ops q2_snapshot_ops;

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
/* Where in the directory the flags of an entry are (four bytes that no sector boundary cuts). */
uint64_t q2_bitmap_directory_flags_at(const struct q2_bitmap_directory *dir, uint32_t index);

/* ---- bitmap.c ---- */

struct q2_bitmaps; /* bitmap.c */
int q2_bitmaps_open(struct qcow2 *s, Error **errp);
int q2_bitmaps_close(struct qcow2 *s, Error **errp); /* stores what persists */
extern const struct bdrv_bitmap_ops q2_bitmap_ops;

/* ---- check.c, repair.c ---- */

int q2_check_co(struct qcow2 *s, const struct bdrv_check_options *options,
                struct bdrv_check_result *ret_result, Error **errp);
/* Rebuild refcounts and flags of an image whose dirty bit is set. Drained. */
int q2_repair_dirty_co(struct qcow2 *s, Error **errp);

/* ---- header_write.c ---- */

/* Write s->header to the file (W6), durable on return. A cut of power leaves the old or the new
 * one. Coroutine. */
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
    bool discard[4]; /* by enum q2_discard */
    bool discard_no_unref;
    bool compat_window;
    unsigned overlap; /* enum q2_overlap */
};
int q2_options_parse(BlockOptions *options, const struct q2_geometry *geo, uint64_t disk_bytes,
                     int flags, struct q2_options *ret, Error **errp);

/* ---- the driver's state ---- */

struct qcow2 {
    BlockDriverState *bs;
    BdrvEdge *file;
    BdrvEdge *data;    /* where guest clusters are: file, or the external data file */
    BdrvEdge *backing; /* NULL: none */
    struct q2_geometry geo;
    struct q2_options opt;
    struct q2_header header; /* what is in the file; drained, exclusive section or header_lock */
    CoMutex header_lock;
    _Atomic uint64_t disk_bytes; /* size of the disk that is shown */
    _Atomic(struct q2_l1 *) l1;
    struct q2_inflight inflight;
    struct q2_ranges ranges;
    struct q2_l2_cache l2;
    struct q2_refcounts refs;
    struct q2_free_queue freed;
    struct q2_commit commit;
    struct q2_overlap_set *overlap; /* overlap.c */
    struct q2_snapshot *snapshots;
    uint32_t snapshot_count;
    struct q2_bitmaps *bitmaps;
    bool snapshot_shown; /* load_tmp: read-only for good */
    _Atomic bool corrupt_told;
    bool autoclear_cleared; /* unknown autoclear bits are gone from the file */
};

static inline struct qcow2 *q2_of(BlockDriverState *bs)
{
    return bdrv_opaque(bs);
}
static inline uint64_t q2_disk_bytes(struct qcow2 *s)
{
    return atomic_load_explicit(&s->disk_bytes, memory_order_relaxed);
}

#endif
