/* SPDX-License-Identifier: MIT */
/*
 * The instance. A Platter owns nodes, backends and exports; two of them in one process do not
 * know each other. The thread that creates it is its control thread: calls tagged [control] are
 * made there, outside coroutines. Everything else is tagged where it is declared.
 */
#ifndef PLATTER_PLATTER_H
#define PLATTER_PLATTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/aio.h>
#include <platter/error.h>
#include <platter/event.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Platter Platter;

/* Which further files the text inside an image may open (backing files, extents, data files). What
 * callers name in options is theirs and not asked about. */
enum platter_image_refs {
    PLATTER_REFS_LISTED = 0, /* what platter_allow_image_ref allows; never json: or PROTOCOL: */
    PLATTER_REFS_NONE,
    PLATTER_REFS_FOLLOW, /* everything: for images that one trusts */
};

struct platter_options {
    size_t size;                 /* sizeof(struct platter_options) */
    AioContext *main_context;    /* referenced; NULL: a new one */
    uint64_t memory_limit_bytes; /* buffers, caches, stacks; 0: 1 GiB */
    enum platter_image_refs image_refs;
    PlatterEventFunc *event_cb; /* may be NULL */
    void *event_opaque;
    uint32_t backing_depth_max;  /* backing files below each other; 0: 64 */
    const char *image_refs_hint; /* what to tell who ran into image_refs; copied; NULL: the call */
    /* A file is a disk of whole sectors of 512 bytes, as the tools of the reference have it: what
     * lies behind its end reads as zeroes, and a write there makes it longer; what is copied
     * (convert) or measured is filled up to them. Else a disk has as many bytes as its file. */
    bool whole_sectors;
    /* A snapshot that is shown instead of the disk is as large as the disk is now, as the tools of
     * the reference have it: what it has not reads as nothing was written there, what it has beyond
     * is not seen. Else it is as large as it was. */
    bool snapshots_fit_disk;
    /* Messages call a node that nobody gave a name by its file, which is what people of a tool know
     * of it; else by the name that was made for it, which clients of a control plane can look up.
     */
    bool tells_files;
};

/* A new instance; opts may be NULL. Errors: ENOMEM, EINVAL and those of aio_context_new. */
Platter *platter_new(const struct platter_options *opts, Error **errp);
/* End it: drains, closes every node, frees every backend and export. No AioContext other than the
 * main one may still submit. [control]; NULL allowed. */
void platter_free(Platter *pl);

AioContext *platter_get_main_context(Platter *pl);      /* [any] */
uint64_t platter_memory_used_bytes(const Platter *pl);  /* [any] */
uint64_t platter_memory_limit_bytes(const Platter *pl); /* [any] */

/* Give the instance a descriptor, which it owns from now on, success or not. It is opened by the
 * file name "/dev/fdset/SET". Returns 0, -EINVAL (set < 0, fd not open), -ENOMEM. [control] */
int platter_add_fd(Platter *pl, int64_t set, int fd, Error **errp);
/* Close the descriptors of a set that no node uses. 0 or -ENOENT. [control] */
int platter_remove_fd(Platter *pl, int64_t set, Error **errp);

/* The same for one descriptor of a set. 0 or -ENOENT. [control] */
int platter_remove_one_fd(Platter *pl, int64_t set, int fd);

/* Let images name this file, whatever lies below this folder, or a descriptor set
 * ("/dev/fdset/N"). The path must exist; symbolic links in it are followed now, those in what an
 * image names when it is opened, and where they lead counts. Only for PLATTER_REFS_LISTED, and for
 * opens that come later. 0, -ENOENT and the like, -ENOMEM. [control] */
int platter_allow_image_ref(Platter *pl, const char *path, Error **errp);

/* ---- run state: whether the consumer (a machine) runs ----
 * A backend whose error policy says so asks for a stop; requests that wait for room or for a
 * repair go on at platter_cont. */
enum platter_run_state {
    PLATTER_RUN_STATE_RUNNING = 0,
    PLATTER_RUN_STATE_PAUSED,   /* by platter_stop */
    PLATTER_RUN_STATE_IO_ERROR, /* by an error policy */
};
/* "running", "paused", "io-error" */
const char *platter_run_state_name(enum platter_run_state state);

/* How the consumer is stopped. Both are called in the thread of the failed request, in this order,
 * and must not block: prepare before the error's event is raised, request after it. A member may be
 * NULL. */
struct platter_run_ops {
    void (*prepare)(void *opaque);
    void (*request)(void *opaque, enum platter_run_state why);
};
/* ops (borrowed; NULL: none) from now on. [control], before requests are made */
void platter_set_run_ops(Platter *pl, const struct platter_run_ops *ops, void *opaque);
enum platter_run_state platter_get_run_state(Platter *pl); /* [any] */
/* Raise STOP, or RESUME, where the state changes. cont lets parked requests try again. [control] */
void platter_stop(Platter *pl);
void platter_cont(Platter *pl);

/* "0.1.0" */
const char *platter_version(void);

#ifdef __cplusplus
}
#endif
#endif
