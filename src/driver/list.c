/* SPDX-License-Identifier: MIT */
/* The drivers of this build, by name. A driver is one folder and one line here. */
#include <stddef.h>

#include "block/driver.h"

/* clang-format off */
#define DRIVERS(X)                                                                                 \
    X(file)                                                                                        \
    X(host_device)                                                                                 \
    X(mem)                                                                                         \
    X(null_aio)                                                                                    \
    X(null_co)                                                                                     \
    X(raw)
/* clang-format on */

#define DRIVER_DECLARE(name) extern const BlockDriver bdrv_##name;
#define DRIVER_LIST(name) &bdrv_##name,

DRIVERS(DRIVER_DECLARE)

const BlockDriver *const bdrv_drivers[] = {DRIVERS(DRIVER_LIST) NULL};
