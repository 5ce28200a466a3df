/* SPDX-License-Identifier: MIT */
/*
 * Whether a format may be guessed. Bytes that a guest wrote can look like any format, and an image
 * of the wrong one names files of the host: so the native program guesses only when it is told to
 * (-f auto), or where nothing comes of it but what is printed about the image itself, read-only.
 * Programs that stand in for other tools guess as those do.
 */
#include <errno.h>
#include <string.h>

#include "tools/disk.h"
#include "util/error.h"

void disk_take_format(struct disk_args *args, const struct cli_args *a)
{
    args->guess = !cli_stands_in(a->cli) && strcmp(a->value, "auto") == 0;
    args->format = args->guess ? NULL : a->value;
}

bool disk_may_guess(const struct cli *cli, const struct disk_args *args)
{
    return cli_stands_in(cli) || args->guess || (args->look_only && !args->writable);
}

/* Where the format stands in options, no switch has it guessed. */
static void set_hint(const struct disk_args *args, const char *looks, Error **errp)
{
    const char *say = args->image_opts      ? "driver="
                      : args->format_switch ? args->format_switch
                                            : "-f ";

    if (say[strlen(say) - 1] == ' ') {
        error_set_hint(errp, "It looks like %s: if that is right, say %s%s; %sauto has it guessed.",
                       looks, say, looks, say);
    } else {
        error_set_hint(errp, "It looks like %s: if that is right, say %s%s.", looks, say, looks);
    }
}

int disk_check_told(struct cli *cli, Platter *pl, const struct disk_args *args,
                    const BlockOptions *options, Error **errp)
{
    const char *name = args->image_opts ? NULL : args->file;
    int flags = BDRV_O_PROBE | BDRV_O_NO_IO | BDRV_O_NO_BACKING;
    BlockOptions *copy;
    BlockDriverState *bs;
    const char *looks;
    bool told;

    if (disk_may_guess(cli, args) || block_options_has(options, "driver")) {
        return 0;
    }
    copy = block_options_copy(options);
    if (!copy) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    flags |= args->force_share ? BDRV_O_FORCE_SHARE : 0;
    bs = bdrv_open(pl, name, NULL, copy, flags, errp);
    if (!bs) {
        return -EINVAL;
    }
    told = !bdrv_format_probed(bs);
    looks = bdrv_get_format_name(bs);
    if (!told) {
        error_set(errp, EINVAL, "the format of '%s' is not told, and it is not guessed",
                  args->file);
        set_hint(args, looks, errp);
    }
    bdrv_unref(bs);
    return told ? 0 : -EINVAL;
}
