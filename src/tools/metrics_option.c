/* SPDX-License-Identifier: MIT */
/* --metrics, the same for all that serve. */
#include "tools/metrics_option.h"

#include "control/metrics.h"
#include "util/error.h"

bool metrics_option_check(const struct cli_args *args)
{
    Error *err = NULL;
    bool good = metrics_address_check(args->value, &err) == 0;

    if (!good) {
        cli_usage_error(args->cli, "--metrics %s: %s", args->value, error_get_pretty(err));
    }
    error_free(err);
    return good;
}
