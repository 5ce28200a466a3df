/* SPDX-License-Identifier: MIT */
#include "tools/nbd/nbd.h"

int nbd_list(struct cli *cli, const struct nbd_args *args)
{
    return cli_error(cli, "this build has no NBD client: --list is not in it");
}
