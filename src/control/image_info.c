/* SPDX-License-Identifier: MIT */
/* Facts about one image, and the JSON of them. The keys are those of `qemu-img info`. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/image_info.h"
#include "util/error.h"
#include "util/json.h"
#include "util/name_beside.h"

static int no_memory(Error **errp)
{
    return error_set(errp, ENOMEM, "out of memory");
}

/* Where the backing file is, seen from here; it stays NULL where that cannot be told. 0 or -ENOMEM
 * with errp. */
static int find_backing_file(struct image_facts *facts, BlockDriverState *bs, Error **errp)
{
    bool is_plain = strncmp(facts->filename, "json:", strlen("json:")) != 0;
    Error *err = NULL;
    bool lacking;

    if (is_plain) {
        facts->full_backing_file = name_beside(facts->filename, facts->backing_file);
        return facts->full_backing_file ? 0 : no_memory(errp);
    }
    facts->full_backing_file = bdrv_get_backing_path(bs, facts->backing_file, &err);
    lacking = err && error_get_errno(err) == ENOMEM;
    error_free(err);
    return lacking ? no_memory(errp) : 0;
}

/* What only some formats have. 0 or -errno with errp. */
static int facts_of_format(struct image_facts *facts, BlockDriverState *bs, Error **errp)
{
    Error *err = NULL;
    char *text = bdrv_get_specific_info(bs, &err);

    facts->specific = text ? json_parse_own(text, &err) : NULL;
    facts->encrypted = json_object_get(json_object_get(facts->specific, "data"), "encrypt") != NULL;
    free(text);
    if (err) {
        error_propagate(errp, err);
        return -ENOMEM;
    }
    if (facts->backing_file && find_backing_file(facts, bs, errp) < 0) {
        return -ENOMEM;
    }
    /* not every format has snapshots, and a damaged table is no reason to show nothing */
    if (bdrv_snapshot_list(bs, &facts->snapshots, NULL) == -ENOMEM) {
        return no_memory(errp);
    }
    return 0;
}

void image_facts_fini(struct image_facts *facts)
{
    free(facts->full_backing_file);
    json_decref(facts->specific);
    bdrv_snapshot_list_free(&facts->snapshots);
}

/* A host file or device gives no information about clusters or dirt unless its driver says so. */
int image_facts_get(struct image_facts *facts, BlockDriverState *bs, Error **errp)
{
    *facts = (struct image_facts){
        .filename = bdrv_get_filename(bs),
        .format = bdrv_get_format_name(bs),
        .engine = bdrv_get_engine_name(bs),
        .disk_bytes = bdrv_getlength(bs),
        .allocated_bytes = bdrv_get_allocated_file_size(bs),
        .probed = bdrv_format_probed(bs),
        .backing_file = bdrv_get_backing_file(bs),
        .backing_format = bdrv_get_backing_format(bs),
    };
    if (facts->filename[0] == '\0') { /* every open node has one */
        return no_memory(errp);
    }
    facts->has_info = bdrv_get_info(bs, &facts->info) >= 0;
    return facts_of_format(facts, bs, errp);
}

int64_t image_whole_sectors(int64_t bytes)
{
    return bytes > INT64_MAX - 511 ? bytes : (bytes + 511) / 512 * 512;
}

json_t *image_snapshot_json(const struct bdrv_snapshot_info *sn)
{
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    if (sn->icount != UINT64_MAX) {
        json_add(object, "icount", json_u64(sn->icount), &ret);
    }
    json_add(object, "vm-clock-nsec", json_u64(sn->vm_clock_nsec % 1000000000), &ret);
    json_add(object, "name", json_text(sn->name), &ret);
    json_add(object, "date-sec", json_integer(sn->date_sec), &ret);
    json_add(object, "date-nsec", json_integer(sn->date_nsec), &ret);
    json_add(object, "vm-clock-sec", json_u64(sn->vm_clock_nsec / 1000000000), &ret);
    json_add(object, "id", json_text(sn->id), &ret);
    json_add(object, "vm-state-size", json_u64(sn->vm_state_bytes), &ret);
    return json_whole(object, ret);
}

static void add_snapshots(json_t *object, const struct image_facts *f, int *ret)
{
    json_t *list;

    if (f->snapshots.count == 0) {
        return;
    }
    list = json_array();
    for (size_t i = 0; i < f->snapshots.count; i++) {
        if (json_array_append_new(list, image_snapshot_json(&f->snapshots.snapshots[i])) < 0) {
            *ret = -ENOMEM;
        }
    }
    json_add(object, "snapshots", list, ret);
}

static void add_backing(json_t *object, const struct image_facts *f, int *ret)
{
    if (f->full_backing_file) {
        json_add(object, "full-backing-filename", json_text(f->full_backing_file), ret);
    }
    if (f->backing_file) {
        json_add(object, "backing-filename", json_text(f->backing_file), ret);
    }
}

json_t *image_facts_json(const struct image_facts *f)
{
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    if (f->backing_format) {
        json_add(object, "backing-filename-format", json_text(f->backing_format), &ret);
    }
    add_snapshots(object, f, &ret);
    json_add(object, "virtual-size", json_u64((uint64_t)f->disk_bytes), &ret);
    json_add(object, "filename", json_text(f->filename), &ret);
    if (f->has_info && f->info.cluster_size_bytes) {
        json_add(object, "cluster-size", json_u64(f->info.cluster_size_bytes), &ret);
    }
    json_add(object, "format", json_string(f->format), &ret);
    if (f->allocated_bytes >= 0) {
        json_add(object, "actual-size", json_u64((uint64_t)f->allocated_bytes), &ret);
    }
    if (f->encrypted) {
        json_add(object, "encrypted", json_true(), &ret);
    }
    if (f->specific) {
        json_add(object, "format-specific", json_incref(f->specific), &ret);
    }
    add_backing(object, f, &ret);
    if (f->has_info) {
        json_add(object, "dirty-flag", json_boolean(f->info.is_dirty), &ret);
    }
    return json_whole(object, ret);
}
