/* SPDX-License-Identifier: MIT */
/*
 * The sparse bitmap: trees of pages, 4 KiB each. A leaf holds 2^15 bits, a page above it 512 slots.
 * A slot is EMPTY (no bit below it is set), FULL (all are), or points to a page. Root h is the top
 * of a tree of height h and holds the bits that need just this height: bits below 2^15 in root 0,
 * those below 2^24 in root 1, and so on. So nothing ever moves, and a small bitmap has short paths.
 *
 * Invariants
 *  B1 a slot that points to a page does so until bitmap_fini; so pages are read without a lock.
 *  B2 a page is complete before a slot points to it (release, acquire).
 *  B3 a slot goes EMPTY -> FULL or page, FULL -> EMPTY or page, by compare and exchange only.
 *  B4 the lowest slot of a root above root 0 stands for bits of a smaller root: it may be anything
 *     and is never read.
 */
#include "util/bitmap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/checked.h"

#define PAGE_BYTES 4096
#define PAGE_SLOTS 512
#define SLOT_BITS 9
#define LEAF_BITS 15 /* log2 of the bits in a leaf */
#define LEAF_WORDS 512

#define EMPTY ((uintptr_t)0)
#define FULL ((uintptr_t)1)

union page {
    _Atomic uint64_t words[LEAF_WORDS]; /* bit n at bit n % 64 of word n / 64 */
    _Atomic uintptr_t slots[PAGE_SLOTS];
};

static union page *page_of(uintptr_t v)
{
    return (union page *)v; /* neither EMPTY nor FULL */
}

static unsigned span_bits(unsigned height)
{
    return LEAF_BITS + SLOT_BITS * height;
}

/* The root that holds a bit. */
static unsigned height_of(uint64_t bit)
{
    unsigned h = 0;

    while (bit >> span_bits(h) != 0) {
        h++;
    }
    assert(h < BITMAP_ROOTS);
    return h;
}

static uint64_t root_first(unsigned height)
{
    return height == 0 ? 0 : UINT64_C(1) << span_bits(height - 1);
}

static uint64_t root_last(unsigned height)
{
    return (UINT64_C(1) << span_bits(height)) - 1;
}

static uintptr_t slot_load(const _Atomic uintptr_t *slot)
{
    return atomic_load_explicit(slot, memory_order_acquire);
}

/* Returns what is there afterwards. */
static uintptr_t slot_change(_Atomic uintptr_t *slot, uintptr_t from, uintptr_t to)
{
    return atomic_compare_exchange_strong_explicit(slot, &from, to, memory_order_acq_rel,
                                                   memory_order_acquire)
               ? to
               : from;
}

/* ---- pages ---- */

static union page *page_new(struct bitmap *b, unsigned height, uintptr_t content)
{
    union page *page;

    if (b->budget != NULL && !mem_budget_take(b->budget, PAGE_BYTES)) {
        return NULL;
    }
    page = malloc(PAGE_BYTES);
    if (page == NULL) {
        if (b->budget != NULL) {
            mem_budget_give(b->budget, PAGE_BYTES);
        }
        return NULL;
    }
    if (height == 0) {
        memset(page, content == FULL ? 0xff : 0, PAGE_BYTES);
    } else {
        for (size_t i = 0; i < PAGE_SLOTS; i++) {
            atomic_init(&page->slots[i], content);
        }
    }
    return page;
}

static void page_free(struct bitmap *b, union page *page)
{
    free(page);
    if (b->budget != NULL) {
        mem_budget_give(b->budget, PAGE_BYTES);
    }
}

/* Put a page of the same content where content (EMPTY or FULL) was. Returns what is there then,
 * which is content itself when there is no memory. */
static uintptr_t slot_split(struct bitmap *b, _Atomic uintptr_t *slot, unsigned height,
                            uintptr_t content)
{
    union page *page = page_new(b, height, content);
    uintptr_t now;

    if (page == NULL) {
        return content;
    }
    now = slot_change(slot, content, (uintptr_t)page);
    if (now != (uintptr_t)page) {
        page_free(b, page);
    }
    return now;
}

static void tree_free(struct bitmap *b, uintptr_t v, unsigned height)
{
    if (v == EMPTY || v == FULL) {
        return;
    }
    for (size_t i = 0; height > 0 && i < PAGE_SLOTS; i++) {
        tree_free(b, atomic_load_explicit(&page_of(v)->slots[i], memory_order_relaxed), height - 1);
    }
    page_free(b, page_of(v));
}

void bitmap_init(struct bitmap *b, struct mem_budget *budget)
{
    for (unsigned h = 0; h < BITMAP_ROOTS; h++) {
        atomic_init(&b->roots[h], EMPTY);
    }
    b->budget = budget;
}

void bitmap_move(struct bitmap *to, struct bitmap *from)
{
    for (unsigned h = 0; h < BITMAP_ROOTS; h++) {
        atomic_store(&to->roots[h], atomic_exchange(&from->roots[h], EMPTY));
    }
}

void bitmap_fini(struct bitmap *b)
{
    for (unsigned h = 0; h < BITMAP_ROOTS; h++) {
        tree_free(b, atomic_exchange_explicit(&b->roots[h], EMPTY, memory_order_acq_rel), h);
    }
}

/* ---- a range of bits in a leaf, or of slots in a page ---- */

/* The bits of word i that lie in [first, last] of its leaf. */
static uint64_t word_mask(uint64_t i, uint64_t first, uint64_t last)
{
    uint64_t mask = UINT64_MAX;

    if (i == first / 64) {
        mask &= UINT64_MAX << (first % 64);
    }
    if (i == last / 64) {
        mask &= UINT64_MAX >> (63 - last % 64);
    }
    return mask;
}

/* The part of [first, last] that is below slot i of a page whose children have this span. */
static void slot_range(unsigned child_bits, uint64_t i, uint64_t *first, uint64_t *last)
{
    uint64_t from = i << child_bits;

    *first = max_u64(*first, from) - from;
    *last = min_u64(*last, from + ((UINT64_C(1) << child_bits) - 1)) - from;
}

static bool is_whole(unsigned height, uint64_t first, uint64_t last)
{
    return last - first == (UINT64_C(1) << span_bits(height)) - 1;
}

/* ---- setting ---- */

static void set_words(union page *leaf, uint64_t first, uint64_t last)
{
    for (uint64_t i = first / 64; i <= last / 64; i++) {
        uint64_t mask = word_mask(i, first, last);

        /* most writes find their bits set: then the line stays shared between the threads */
        if (~atomic_load_explicit(&leaf->words[i], memory_order_relaxed) & mask) {
            atomic_fetch_or_explicit(&leaf->words[i], mask, memory_order_relaxed);
        }
    }
}

/* EMPTY, and all or a part of it is to be set. Returns what is there then. */
static uintptr_t set_in_empty(struct bitmap *b, _Atomic uintptr_t *slot, unsigned height,
                              bool whole)
{
    uintptr_t now = EMPTY;

    if (!whole) {
        now = slot_split(b, slot, height, EMPTY);
    }
    return now == EMPTY ? slot_change(slot, EMPTY, FULL) : now;
}

static void set_below(struct bitmap *b, _Atomic uintptr_t *slot, unsigned height, uint64_t first,
                      uint64_t last)
{
    uintptr_t v = slot_load(slot);
    unsigned child_bits = span_bits(height) - SLOT_BITS;

    while (v == EMPTY) {
        v = set_in_empty(b, slot, height, is_whole(height, first, last));
    }
    if (v == FULL) {
        return;
    }
    if (height == 0) {
        set_words(page_of(v), first, last);
        return;
    }
    for (uint64_t i = first >> child_bits; i <= last >> child_bits; i++) {
        uint64_t from = first;
        uint64_t to = last;

        slot_range(child_bits, i, &from, &to);
        set_below(b, &page_of(v)->slots[i], height - 1, from, to);
    }
}

void bitmap_set(struct bitmap *b, uint64_t first, uint64_t count)
{
    uint64_t last = first + count - 1;

    if (count == 0) {
        return;
    }
    assert(count <= BITMAP_BITS_MAX && first <= BITMAP_BITS_MAX - count);
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned h = height_of(first); h <= height_of(last); h++) {
        uint64_t from = max_u64(first, root_first(h));

        /* B4: so that a root can be FULL */
        set_below(b, &b->roots[h], h, from == root_first(h) ? 0 : from,
                  min_u64(last, root_last(h)));
    }
}

/* ---- clearing ---- */

static void reset_words(union page *leaf, uint64_t first, uint64_t last)
{
    for (uint64_t i = first / 64; i <= last / 64; i++) {
        atomic_fetch_and_explicit(&leaf->words[i], ~word_mask(i, first, last),
                                  memory_order_relaxed);
    }
}

static int reset_below(struct bitmap *b, _Atomic uintptr_t *slot, unsigned height, uint64_t first,
                       uint64_t last)
{
    uintptr_t v = slot_load(slot);
    unsigned child_bits = span_bits(height) - SLOT_BITS;
    int ret = 0;

    while (v == FULL) {
        v = is_whole(height, first, last) ? slot_change(slot, FULL, EMPTY)
                                          : slot_split(b, slot, height, FULL);
        if (v == FULL) {
            return -ENOMEM;
        }
    }
    if (v == EMPTY) {
        return 0;
    }
    if (height == 0) {
        reset_words(page_of(v), first, last);
        return 0;
    }
    for (uint64_t i = first >> child_bits; i <= last >> child_bits; i++) {
        uint64_t from = first;
        uint64_t to = last;
        int one;

        slot_range(child_bits, i, &from, &to);
        one = reset_below(b, &page_of(v)->slots[i], height - 1, from, to);
        ret = ret < 0 ? ret : one;
    }
    return ret;
}

int bitmap_reset(struct bitmap *b, uint64_t first, uint64_t count)
{
    uint64_t last = first + count - 1;
    int ret = 0;

    if (count == 0) {
        return 0;
    }
    assert(count <= BITMAP_BITS_MAX && first <= BITMAP_BITS_MAX - count);
    for (unsigned h = height_of(first); h <= height_of(last); h++) {
        uint64_t from = max_u64(first, root_first(h));
        int one = reset_below(b, &b->roots[h], h, from == root_first(h) ? 0 : from,
                              min_u64(last, root_last(h)));

        ret = ret < 0 ? ret : one;
    }
    atomic_thread_fence(memory_order_seq_cst);
    return ret;
}

/* ---- looking ---- */

/* The leaf of a bit, or EMPTY or FULL where that is all there is to know. */
static uintptr_t leaf_of(const struct bitmap *b, uint64_t bit)
{
    unsigned h = height_of(bit);
    uintptr_t v = slot_load(&b->roots[h]);

    for (; h > 0 && v != EMPTY && v != FULL; h--) {
        v = slot_load(&page_of(v)->slots[(bit >> span_bits(h - 1)) % PAGE_SLOTS]);
    }
    return v;
}

static uint64_t leaf_word(uintptr_t v, uint64_t bit)
{
    if (v == EMPTY || v == FULL) {
        return v == FULL ? UINT64_MAX : 0;
    }
    return atomic_load_explicit(&page_of(v)->words[bit / 64 % LEAF_WORDS], memory_order_relaxed);
}

bool bitmap_get(const struct bitmap *b, uint64_t bit)
{
    return leaf_word(leaf_of(b, bit), bit) >> (bit % 64) & 1;
}

static bool find_word(const union page *leaf, bool set, uint64_t first, uint64_t last,
                      uint64_t *ret_bit)
{
    for (uint64_t i = first / 64; i <= last / 64; i++) {
        uint64_t w = atomic_load_explicit(&leaf->words[i], memory_order_relaxed);

        w = (set ? w : ~w) & word_mask(i, first, last);
        if (w != 0) {
            *ret_bit = i * 64 + (unsigned)__builtin_ctzll(w);
            return true;
        }
    }
    return false;
}

/* The first bit of [first, last] that is as wanted, below v. */
static bool find_below(uintptr_t v, unsigned height, bool set, uint64_t first, uint64_t last,
                       uint64_t *ret_bit)
{
    unsigned child_bits = span_bits(height) - SLOT_BITS;

    if (v == EMPTY || v == FULL) {
        *ret_bit = first;
        return (v == FULL) == set;
    }
    if (height == 0) {
        return find_word(page_of(v), set, first, last, ret_bit);
    }
    for (uint64_t i = first >> child_bits; i <= last >> child_bits; i++) {
        uint64_t from = first;
        uint64_t to = last;

        slot_range(child_bits, i, &from, &to);
        if (find_below(slot_load(&page_of(v)->slots[i]), height - 1, set, from, to, ret_bit)) {
            *ret_bit += i << child_bits;
            return true;
        }
    }
    return false;
}

static bool find(const struct bitmap *b, bool set, uint64_t from, uint64_t end, uint64_t *ret_bit)
{
    if (from >= end) {
        return false;
    }
    assert(end <= BITMAP_BITS_MAX);
    for (unsigned h = height_of(from); h <= height_of(end - 1); h++) {
        if (find_below(slot_load(&b->roots[h]), h, set, max_u64(from, root_first(h)),
                       min_u64(end - 1, root_last(h)), ret_bit)) {
            return true;
        }
    }
    return false;
}

bool bitmap_next_set(const struct bitmap *b, uint64_t from, uint64_t end, uint64_t *ret_bit)
{
    return find(b, true, from, end, ret_bit);
}

bool bitmap_next_clear(const struct bitmap *b, uint64_t from, uint64_t end, uint64_t *ret_bit)
{
    return find(b, false, from, end, ret_bit);
}

static uint64_t count_below(uintptr_t v, unsigned height, uint64_t first, uint64_t last)
{
    unsigned child_bits = span_bits(height) - SLOT_BITS;
    uint64_t n = 0;

    if (v == EMPTY || v == FULL) {
        return v == FULL ? last - first + 1 : 0;
    }
    if (height == 0) {
        for (uint64_t i = first / 64; i <= last / 64; i++) {
            n += (unsigned)__builtin_popcountll(leaf_word(v, i * 64) & word_mask(i, first, last));
        }
        return n;
    }
    for (uint64_t i = first >> child_bits; i <= last >> child_bits; i++) {
        uint64_t from = first;
        uint64_t to = last;

        slot_range(child_bits, i, &from, &to);
        n += count_below(slot_load(&page_of(v)->slots[i]), height - 1, from, to);
    }
    return n;
}

uint64_t bitmap_count(const struct bitmap *b, uint64_t first, uint64_t count)
{
    uint64_t last = first + count - 1;
    uint64_t n = 0;

    if (count == 0) {
        return 0;
    }
    assert(count <= BITMAP_BITS_MAX && first <= BITMAP_BITS_MAX - count);
    for (unsigned h = height_of(first); h <= height_of(last); h++) {
        n += count_below(slot_load(&b->roots[h]), h, max_u64(first, root_first(h)),
                         min_u64(last, root_last(h)));
    }
    return n;
}

/* ---- bytes ---- */

void bitmap_export(const struct bitmap *b, uint64_t first, uint64_t count, uint8_t *ret_bytes)
{
    uint64_t end = first + count;
    uintptr_t leaf = EMPTY;

    assert(is_aligned(first, 64) && end <= BITMAP_BITS_MAX);
    for (uint64_t bit = first; bit < end; bit += 64) {
        uint64_t left = end - bit;
        uint8_t word[8];

        if (bit == first || is_aligned(bit, UINT64_C(1) << LEAF_BITS)) {
            leaf = leaf_of(b, bit);
        }
        store_le64(word, leaf_word(leaf, bit) & (left < 64 ? ~(UINT64_MAX << left) : UINT64_MAX));
        memcpy(ret_bytes + (bit - first) / 8, word, left < 64 ? (left + 7) / 8 : 8);
    }
}

/* The word at bit, of which left bits count. */
static uint64_t import_word(const uint8_t *bytes, uint64_t left)
{
    uint8_t word[8] = {0};

    memcpy(word, bytes, left < 64 ? (left + 7) / 8 : 8);
    return load_le64(word) & (left < 64 ? ~(UINT64_MAX << left) : UINT64_MAX);
}

void bitmap_import(struct bitmap *b, uint64_t first, uint64_t count, const uint8_t *bytes)
{
    uint64_t end = first + count;
    uint64_t run = 0; /* set bits that end before bit and are not put in yet */

    assert(is_aligned(first, 64) && end <= BITMAP_BITS_MAX);
    for (uint64_t bit = first; bit < end; bit += 64) {
        uint64_t w = import_word(bytes + (bit - first) / 8, end - bit);
        uint64_t pos = bit;

        if (w == UINT64_MAX) {
            run += 64;
            continue;
        }
        while (w != 0 || run > 0) {
            unsigned ones = (unsigned)__builtin_ctzll(~w);

            bitmap_set(b, pos - run, run + ones);
            run = 0;
            w >>= ones;
            pos += ones;
            if (w != 0) {
                pos += (unsigned)__builtin_ctzll(w);
                w >>= __builtin_ctzll(w);
            }
        }
    }
    bitmap_set(b, end - run, run);
}

void bitmap_merge(struct bitmap *b, const struct bitmap *from, uint64_t end)
{
    uint64_t bit = 0;
    uint64_t stop;

    while (bitmap_next_set(from, bit, end, &bit)) {
        if (!bitmap_next_clear(from, bit, end, &stop)) {
            stop = end;
        }
        bitmap_set(b, bit, stop - bit);
        bit = stop;
    }
}
