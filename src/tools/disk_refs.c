/* SPDX-License-Identifier: MIT */
/*
 * What the images of a command may open by naming it: files in the folders of the images on the
 * command line and what --allow-ref lists, unless --image-refs says otherwise.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tools/disk.h"
#include "tools/object.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/options.h"
#include "util/size.h"

#define BACKING_DEPTH_MAX 1000000

static const char hint[] = "Where the image is trusted: --allow-ref PATH, or --image-refs follow";

static const char hint_of_none[] =
    "Where the image is trusted: --image-refs listed with --allow-ref PATH, or --image-refs follow";

const char *const disk_refs_words[] = {"none", "listed", "follow", NULL};

/* In the order of disk_refs_words. */
static const enum platter_image_refs policies[] = {
    PLATTER_REFS_NONE,
    PLATTER_REFS_LISTED,
    PLATTER_REFS_FOLLOW,
};

/* name NULL: the one of the program. False: there is none of that name. */
static bool find_policy(const struct cli *cli, const char *name, enum platter_image_refs *ret)
{
    static_assert(ARRAY_SIZE(disk_refs_words) == ARRAY_SIZE(policies) + 1, "a policy a word");
    name = name ? name : cli_spelling(cli)->image_refs;
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        if (strcmp(disk_refs_words[i], name) == 0) {
            *ret = policies[i];
            return true;
        }
    }
    return false;
}

/* 0: not given. */
static bool take_depth(const struct disk_args *args, uint32_t *ret, Error **errp)
{
    uint64_t depth = 0;

    if (args->backing_depth && number_parse(args->backing_depth, "--backing-depth", 1,
                                            BACKING_DEPTH_MAX, &depth, errp) < 0) {
        return false;
    }
    *ret = (uint32_t)depth;
    return true;
}

bool disk_refs_check(struct cli *cli, const struct disk_args *args)
{
    enum platter_image_refs policy;
    Error *err = NULL;
    uint32_t depth;

    if (!find_policy(cli, args->image_refs, &policy)) {
        cli_usage_error(cli, "no policy '%s': there are none, listed and follow", args->image_refs);
        return false;
    }
    if (args->allow_refs_count > DISK_ALLOW_REFS_MAX) {
        cli_usage_error(cli, "more than %d times --allow-ref: name a folder", DISK_ALLOW_REFS_MAX);
        return false;
    }
    if (policy == PLATTER_REFS_NONE && args->allow_refs_count > 0 && !cli_stands_in(cli)) {
        cli_usage_error(cli, "--image-refs none allows nothing, also not what --allow-ref names");
        return false;
    }
    if (!take_depth(args, &depth, &err)) {
        cli_usage_error(cli, "%s", error_get_pretty(err));
        error_free(err);
        return false;
    }
    return true;
}

static void tell_warning(struct cli *cli, const struct platter_event *event)
{
    cli_warning(cli, "%s", event->u.image_warning.message);
    if (event->u.image_warning.leaks && cli_stands_in(cli) && !cli_is_muted(cli)) {
        cli_put_line(cli->err, "Some clusters may be leaked, run 'qemu-img check -r' on the image "
                               "file to fix.");
    } else if (event->u.image_warning.leaks) {
        cli_hint(cli, "Some clusters may be leaked: 'platter check -r leaks' gives them back.");
    }
}

void disk_tell_event(void *opaque, const struct platter_event *event)
{
    if (event->type == PLATTER_EVENT_IMAGE_CORRUPTED) {
        cli_warning(opaque, "%s", event->u.image_corrupted.message);
    } else if (event->type == PLATTER_EVENT_IMAGE_WARNING) {
        tell_warning(opaque, event);
    }
}

Platter *disk_platter_new(struct cli *cli, const struct disk_args *args)
{
    return disk_platter_new_for(cli, args, NULL, disk_tell_event, cli);
}

Platter *disk_platter_new_for(struct cli *cli, const struct disk_args *args, AioContext *ctx,
                              PlatterEventFunc *event_cb, void *event_opaque)
{
    static const struct disk_args usual = {0};
    struct platter_options options = {
        .size = sizeof(options),
        .main_context = ctx,
        .event_cb = event_cb,
        .event_opaque = event_opaque,
        .whole_sectors = cli_stands_in(cli),
        .snapshots_fit_disk = cli_stands_in(cli),
        .tells_files = !cli_stands_in(cli),
    };
    Error *err = NULL;
    Platter *pl = NULL;

    args = args ? args : &usual;
    if (!disk_refs_check(cli, args)) { /* most have asked, to end with a code of their own */
        return NULL;
    }
    (void)find_policy(cli, args->image_refs, &options.image_refs);
    options.image_refs_hint = options.image_refs == PLATTER_REFS_NONE ? hint_of_none : hint;
    if (take_depth(args, &options.backing_depth_max, &err)) {
        pl = platter_new(&options, &err);
    }
    for (unsigned i = 0; pl && i < args->allow_refs_count; i++) {
        if (platter_allow_image_ref(pl, args->allow_refs[i], &err) < 0) {
            platter_free(pl);
            pl = NULL;
        }
    }
    if (pl && objects_make(cli, pl, &err) < 0) {
        platter_free(pl);
        pl = NULL;
    }
    if (!pl) {
        cli_report(cli, err);
    }
    return pl;
}

/* A path that does not exist allows nothing; the open says what is wrong with it. */
static void allow_folder_of_path(Platter *pl, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");

    if (folder) {
        (void)platter_allow_image_ref(pl, folder, NULL);
    }
    free(folder);
}

void disk_allow_folder_of(Platter *pl, const char *name)
{
    size_t word = strcspn(name, ":/");
    BlockOptions *options;

    if (strncmp(name, "json:", 5) == 0) {
        options = block_options_parse_json(name, NULL);
        if (options) {
            disk_allow_folders_in(pl, options);
        }
        block_options_free(options);
    } else if (strncmp(name, "file:", 5) == 0) {
        allow_folder_of_path(pl, name + 5);
    } else if (name[word] != ':') {
        allow_folder_of_path(pl, name);
    }
}

void disk_allow_folders_in(Platter *pl, const BlockOptions *options)
{
    static const char name[] = "filename";
    const char *key = NULL;

    while ((key = block_options_next_key(options, key)) != NULL) {
        size_t len = strlen(key);
        const char *value = block_options_get_str(options, key);

        if (value && (strcmp(key, name) == 0 ||
                      (len > sizeof(name) && strcmp(key + len - sizeof(name), ".filename") == 0))) {
            allow_folder_of_path(pl, value);
        }
    }
}
