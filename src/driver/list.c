/* SPDX-License-Identifier: MIT */
/* The drivers of this build, sorted by name. A driver is one folder and one line here: its object
 * bdrv_ID and its format_name. */
#include <stddef.h>

#include "block/driver.h"

#ifdef PLATTER_HAVE_LIBNBD
#define DRIVERS_NBD(X) X(nbd, "nbd")
#else
#define DRIVERS_NBD(X)
#endif

/* clang-format off */
#define DRIVERS(X)                                                                                 \
    X(blkdebug, "blkdebug")                                                                        \
    X(blklogwrites, "blklogwrites")                                                                \
    X(blkverify, "blkverify")                                                                      \
    X(copy_on_read, "copy-on-read")                                                                \
    X(file, "file")                                                                                \
    X(host_device, "host_device")                                                                  \
    X(mem, "mem")                                                                                  \
    DRIVERS_NBD(X)                                                                                 \
    X(null_aio, "null-aio")                                                                        \
    X(null_co, "null-co")                                                                          \
    X(pipe, "pipe")                                                                                \
    X(qcow2, "qcow2")                                                                              \
    X(raw, "raw")                                                                                  \
    X(throttle, "throttle")
/* clang-format on */

#define DRIVER_DECLARE(id, name) extern const BlockDriver bdrv_##id;
#define DRIVER_LIST(id, name) &bdrv_##id,
#define DRIVER_NAME(id, name) name,

DRIVERS(DRIVER_DECLARE)

const BlockDriver *const bdrv_drivers[] = {DRIVERS(DRIVER_LIST) NULL};

const char *const *bdrv_list_formats(void)
{
    static const char *const names[] = {DRIVERS(DRIVER_NAME) NULL};

    return names;
}
