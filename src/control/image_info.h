/* SPDX-License-Identifier: MIT */
/* The facts about one image that `info` shows and queries return. */
#ifndef PLATTER_CONTROL_IMAGE_INFO_H
#define PLATTER_CONTROL_IMAGE_INFO_H

#include <jansson.h>

#include <platter/image.h>

struct image_facts {
    const char *filename;
    const char *format;
    const char *engine; /* NULL: none needed */
    int64_t disk_bytes;
    int64_t allocated_bytes; /* < 0: not known */
    bool has_info;
    struct bdrv_info info;
    bool probed;
    const char *backing_file;            /* as the image says it; NULL: none */
    const char *backing_format;          /* NULL: not said */
    char *full_backing_file;             /* owned: where that is, seen from here */
    json_t *specific;                    /* owned; NULL: none */
    struct bdrv_snapshot_list snapshots; /* owned */
    bool encrypted;
};

/* Names are borrowed from bs until the graph changes. 0 or -ENOMEM with errp. [control] */
int image_facts_get(struct image_facts *facts, BlockDriverState *bs, Error **errp);
void image_facts_fini(struct image_facts *facts);
/* A size as clients of the reference know it: in whole sectors. */
int64_t image_whole_sectors(int64_t bytes);
/* As ImageInfo of the schema. NULL out of memory. */
json_t *image_facts_json(const struct image_facts *facts);
json_t *image_snapshot_json(const struct bdrv_snapshot_info *snapshot);

#endif
